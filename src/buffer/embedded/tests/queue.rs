//! The queues: order, due times, leases, retention, replay, purge, listing.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test]
async fn deliveries_come_in_order_of_acceptance() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(bench.stored(&n.to_string()).await);
    }
    let mut leased = bench.lease(7).await;
    leased.extend(bench.lease(100).await);
    assert_eq!(leased.iter().map(|l| l.event.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn a_long_backlog_comes_whole_and_in_order_from_disk() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    // More than a lane's window holds.
    for n in 0..1500 {
        ids.push(bench.stored(&n.to_string()).await);
    }
    let mut seen = Vec::new();
    loop {
        let leased = bench.lease(64).await;
        if leased.is_empty() {
            break;
        }
        for one in leased {
            seen.push(one.event.id);
            bench.settle(&one, Next::Delivered);
        }
    }
    assert_eq!(seen, ids);
    // Having caught up, the next one comes from memory, and nothing is missed in between.
    let id = bench.stored("new").await;
    assert!(!bench.buffer.shared.lane(&app()).state().behind);
    assert_eq!(bench.lease_one().await.event.id, id);
}

#[tokio::test]
async fn a_retry_is_due_exactly_at_its_time_even_before_it_is_on_disk() {
    let bench = Bench::new();
    bench.stored("a").await;
    let leased = bench.lease_one().await;
    let at = START.saturating_add(Duration::from_secs(10));
    bench.settle(&leased, Next::Retry(at));
    for _ in 0..2 {
        assert_eq!(bench.buffer.next_due(&app()).await.unwrap(), Some(at));
        let early = Timestamp(at.0 - 1);
        assert!(bench.buffer.lease(&app(), 9, early).await.unwrap().is_empty());
        bench.settled().await;
    }
    let again = bench.buffer.lease(&app(), 9, at).await.unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].attempts, again[0].since), (1, START));
    assert_eq!(bench.buffer.next_due(&app()).await.unwrap(), None);
}

#[tokio::test]
async fn retries_come_by_due_time_and_before_untried_ones() {
    let bench = Bench::new();
    for n in 0..4 {
        bench.stored(&n.to_string()).await;
    }
    let leased = bench.lease(3).await;
    for (one, secs) in leased.iter().zip([30, 10, 20]) {
        bench.settle(one, Next::Retry(START.saturating_add(Duration::from_secs(secs))));
    }
    bench.clock.advance(Duration::from_secs(25));
    let bodies = |leased: &[Leased]| leased.iter().map(|l| l.event.body.clone()).collect::<Vec<_>>();
    let due = bench.lease(9).await;
    assert_eq!(bodies(&due), ["1", "2", "3"]);
    let next = START.saturating_add(Duration::from_secs(30));
    assert_eq!(bench.buffer.next_due(&app()).await.unwrap(), Some(next));
    let bench = bench.reopen();
    assert_eq!(bodies(&bench.lease(9).await), ["1", "2", "3"]);
    bench.clock.advance(Duration::from_secs(5));
    assert_eq!(bodies(&bench.lease(9).await), ["0"]);
}

#[tokio::test]
async fn retries_that_get_to_disk_behind_a_scan_are_not_lost_and_keep_their_order() {
    let bench = Bench::new();
    for n in 0..6 {
        bench.stored(&n.to_string()).await;
    }
    let leased = bench.lease(6).await;
    let at = |secs| START.saturating_add(Duration::from_secs(secs));
    bench.settle(&leased[0], Next::Retry(at(20)));
    bench.settle(&leased[1], Next::Retry(at(90)));
    bench.settled().await;
    // Two are on disk; the committer is held while three more are settled and the queue is looked at.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    bench.buffer.shared.inbox.push(Op::Run(Box::new(move || held.recv().unwrap()))).unwrap();
    bench.settle(&leased[2], Next::Retry(at(10)));
    bench.settle(&leased[3], Next::Retry(at(30)));
    bench.settle(&leased[4], Next::Retry(at(60)));
    bench.clock.advance(Duration::from_secs(20));
    let bodies = |leased: &[Leased]| leased.iter().map(|l| l.event.body.clone()).collect::<Vec<_>>();
    let due = bench.lease(9).await;
    assert_eq!(bodies(&due), ["2", "0"]);
    assert_eq!(bench.buffer.next_due(&app()).await.unwrap(), Some(at(30)));
    hold.send(()).unwrap();
    bench.settled().await;
    assert_eq!(bench.buffer.next_due(&app()).await.unwrap(), Some(at(30)));
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bodies(&bench.lease(9).await), ["3"]);
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bodies(&bench.lease(9).await), ["4", "1"]);
    bench.settle(&due[0], Next::Delivered);
    bench.settled().await;
    super::model::audit(&bench.buffer);
}

#[tokio::test]
async fn a_retry_in_the_millisecond_of_the_last_one_is_not_lost() {
    let bench = Bench::new();
    bench.stored("again").await;
    let at = START.saturating_add(Duration::from_secs(10));
    bench.settle(&bench.lease(9).await[0], Next::Retry(at));
    bench.settled().await;
    bench.clock.advance(Duration::from_secs(10));
    let second = bench.lease(9).await;
    // It fails at once and is to be tried at once, and is leased again before that is on disk.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    bench.buffer.shared.inbox.push(Op::Run(Box::new(move || held.recv().unwrap()))).unwrap();
    bench.settle(&second[0], Next::Retry(at));
    bench.clock.advance(Duration::from_millis(1));
    let third = bench.lease(9).await;
    assert_eq!(third.len(), 1);
    hold.send(()).unwrap();
    bench.settled().await;
    bench.settle(&third[0], Next::Delivered);
    bench.settled().await;
    assert_eq!(bench.buffer.stats().await.unwrap().destinations[0].backlog, 0);
    super::model::audit(&bench.buffer);
}

#[tokio::test]
async fn a_released_lease_is_due_at_once_and_nothing_is_charged() {
    let bench = Bench::new();
    let id = bench.stored("a").await;
    bench.stored("b").await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Release);
    let again = bench.lease(9).await;
    assert_eq!(again.iter().map(|l| l.event.body.clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(again[0].attempts, 0);
    bench.settle(&again[0], Next::Retry(START));
    bench.settled().await;
    assert_eq!(bench.state(id).await, DeliveryState::Retrying { next_at: START });
}

#[tokio::test]
async fn a_lease_is_settled_once() {
    let bench = Bench::new();
    let id = bench.stored("a").await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Delivered);
    bench.settle(&leased, Next::Dead(DeadReason::TooOld));
    bench.settled().await;
    bench.settle(&leased, Next::Retry(START));
    bench.settled().await;
    assert_eq!(bench.state(id).await, DeliveryState::Delivered { at: START });
    let mut foreign = settlement(&leased, START, Next::Delivered);
    foreign.token = LeaseToken { due: 0, seq: 999 };
    bench.buffer.settle(foreign).unwrap();
    assert_eq!(bench.stats_of(&app()).await.backlog, 0);
}

#[tokio::test]
async fn leases_of_a_process_that_ended_are_due_again() {
    let bench = Bench::new();
    let id = bench.stored("a").await;
    let _leased = bench.lease_one().await;
    let bench = bench.reopen();
    assert_eq!(bench.lease_one().await.event.id, id);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_no_lease_along() {
    let bench = Bench::new();
    let id = bench.stored("a").await;
    let bench = bench.reopen();
    let lane = bench.buffer.shared.lane(&app());
    let store = bench.buffer.shared.store().unwrap();
    drop(lease::from_disk(&store, &lane, 9, bench.now()).unwrap());
    assert_eq!(bench.lease_one().await.event.id, id);
}

#[tokio::test]
async fn arrivals_are_notified_after_append_and_replay() {
    let bench = Bench::new();
    let arrivals = bench.buffer.arrivals(&app());
    let id = bench.stored("a").await;
    arrivals.notified().await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Dead(DeadReason::GivenUp));
    bench.settled().await;
    assert_eq!(bench.buffer.replay(Selection::One(id, EventFilter::default())).await.unwrap(), 1);
    arrivals.notified().await;
}

#[tokio::test]
async fn each_destination_has_its_own_delivery() {
    let bench = Bench::new();
    let event = bench.event("both");
    let id = event.id;
    bench.buffer.append(event, &[app(), other()], None).await.unwrap();
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Delivered);
    bench.settled().await;
    bench.clock.advance(Duration::from_secs(90_000));
    bench.buffer.sweep().await.unwrap();
    let deliveries = bench.deliveries(id).await;
    assert_eq!(
        deliveries[1].state,
        DeliveryState::Pending,
        "an event with a pending delivery is never deleted"
    );
    let leased = bench.buffer.lease(&other(), 9, bench.now()).await.unwrap();
    bench.settle(&leased[0], Next::Dead(DeadReason::AttemptsExhausted));
    bench.clock.advance(Duration::from_secs(3601));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(bench.stats_of(&other()).await.dead, 1, "a dead letter is kept longer");
    bench.clock.advance(Duration::from_secs(86_400));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(bench.buffer.get(id).await.unwrap(), None);
    assert_eq!(bench.stats_of(&other()).await.dead, 0);
}

#[tokio::test]
async fn delivered_events_go_after_their_time_or_beyond_their_bytes() {
    let bench = Bench::with(|s| s.keep_delivered_bytes = 10_000);
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(bench.stored(&"x".repeat(3_000)).await);
        bench.clock.advance(Duration::from_secs(1));
    }
    for one in bench.lease(10).await {
        bench.clock.advance(Duration::from_secs(1));
        bench.settle(&one, Next::Delivered);
    }
    bench.settled().await;
    bench.buffer.sweep().await.unwrap();
    let left = bench.buffer.search(Search::new(EventFilter::default(), 100)).await.unwrap();
    let left: Vec<_> = left.events.iter().map(|(e, _)| e.id).collect();
    assert_eq!(left, ids[7..].iter().rev().copied().collect::<Vec<_>>(), "the oldest go first");
    bench.clock.advance(Duration::from_secs(3600 + 10));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0);
    let store = bench.buffer.shared.store().unwrap();
    let rest: Vec<_> = store.scan(vec![b'D'], vec![b'Z']).map(|e| e.unwrap().0[0]).collect();
    assert!(rest.iter().all(|prefix| *prefix == b'N'), "nothing is left behind: {rest:?}");
}

#[tokio::test]
async fn a_buffer_that_keeps_nothing_delivered_deletes_with_the_settlement() {
    let bench = Bench::with(|s| s.keep_delivered = Duration::ZERO);
    let id = bench.stored("a").await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Delivered);
    bench.settled().await;
    assert_eq!(bench.buffer.get(id).await.unwrap(), None);
    let bench = bench.reopen();
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0);
    assert!(bench.lease(9).await.is_empty());
}

#[tokio::test]
async fn a_sweep_of_many_goes_on_to_the_end() {
    let bench = Bench::new();
    for n in 0..600 {
        bench.stored(&n.to_string()).await;
    }
    for one in bench.lease(1000).await {
        bench.settle(&one, Next::Delivered);
    }
    bench.settled().await;
    bench.clock.advance(Duration::from_secs(4000));
    bench.buffer.sweep().await.unwrap();
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0);
}

#[tokio::test]
async fn a_replay_has_a_fresh_budget_and_leaves_what_is_under_way() {
    let bench = Bench::new();
    let dead = bench.stored("dead").await;
    let delivered = bench.stored("delivered").await;
    let pending = bench.stored("pending").await;
    let leased = bench.lease(2).await;
    bench.settle(&leased[0], Next::Dead(DeadReason::GivenUp));
    bench.settle(&leased[1], Next::Delivered);
    bench.settled().await;
    bench.clock.advance(Duration::from_secs(100));
    let only_dead = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
    assert_eq!(bench.buffer.replay(Selection::One(delivered, only_dead)).await.unwrap(), 0);
    assert_eq!(bench.buffer.replay(Selection::One(pending, EventFilter::default())).await.unwrap(), 0);
    let filter = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
    assert_eq!(bench.buffer.replay(Selection::Matching(filter.clone())).await.unwrap(), 1);
    assert_eq!(bench.buffer.replay(Selection::Matching(filter)).await.unwrap(), 0);
    assert_eq!(bench.buffer.replay(Selection::One(delivered, EventFilter::default())).await.unwrap(), 1);
    let stats = bench.stats_of(&app()).await;
    assert_eq!((stats.backlog, stats.dead), (3, 0));
    let bench = bench.reopen();
    let again = bench.lease(9).await;
    let ids: Vec<_> = again.iter().map(|l| l.event.id).collect();
    assert_eq!(ids, [pending, dead, delivered]);
    assert_eq!((again[1].attempts, again[1].since), (0, bench.now()));
    // Its retention has ended with the replay: time passes, and it is still there.
    bench.clock.advance(Duration::from_secs(100_000));
    bench.buffer.sweep().await.unwrap();
    assert!(bench.buffer.get(delivered).await.unwrap().is_some());
}

#[tokio::test]
async fn a_purge_deletes_what_is_settled_and_nothing_else() {
    let bench = Bench::new();
    let dead = bench.stored("dead").await;
    let retrying = bench.stored("retrying").await;
    let pending = bench.stored("pending").await;
    let leased = bench.lease(2).await;
    bench.settle(&leased[0], Next::Dead(DeadReason::GivenUp));
    bench.settle(&leased[1], Next::Retry(Timestamp(u64::MAX / 2)));
    bench.settled().await;
    assert_eq!(bench.buffer.purge(Selection::Matching(EventFilter::default())).await.unwrap(), 1);
    assert_eq!(bench.buffer.purge(Selection::One(pending, EventFilter::default())).await.unwrap(), 0);
    assert_eq!(bench.buffer.get(dead).await.unwrap(), None);
    assert!(bench.buffer.get(retrying).await.unwrap().is_some());
    let stats = bench.buffer.stats().await.unwrap();
    assert_eq!((stats.events, stats.destinations[0].dead, stats.destinations[0].backlog), (2, 0, 2));
}

#[tokio::test]
async fn a_listing_is_newest_first_page_by_page_and_filtered() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for n in 0..25 {
        let mut event = bench.event(&n.to_string());
        event.event_type = Some(if n % 5 == 0 { "five".into() } else { "one".into() });
        ids.push(event.id);
        let to = if n % 2 == 0 { app() } else { other() };
        bench.buffer.append(event, &[to], None).await.unwrap();
        bench.clock.advance(Duration::from_secs(60));
    }
    ids.reverse();
    let all = async |filter: EventFilter, limit| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = bench.buffer.search(Search::new(filter.clone(), limit).after(after)).await.unwrap();
            assert!(page.events.len() <= limit);
            found.extend(page.events.iter().map(|(e, _)| e.id));
            match page.next {
                Some(next) => after = Some(next),
                None => return found,
            }
        }
    };
    assert_eq!(all(EventFilter::default(), 10).await, ids);
    let by_type = EventFilter { event_type: Some("five".into()), ..EventFilter::default() };
    assert_eq!(all(by_type, 2).await.len(), 5);
    let by_destination = EventFilter { destination: Some("hooks/other".into()), ..EventFilter::default() };
    assert_eq!(all(by_destination, 5).await.len(), 12);
    let unknown = EventFilter { destination: Some("nobody/there".into()), ..EventFilter::default() };
    assert_eq!(all(unknown, 5).await, []);
    let since = Some(START.saturating_add(Duration::from_secs(600)));
    let until = Some(START.saturating_add(Duration::from_secs(720)));
    assert_eq!(all(EventFilter { since, until, ..EventFilter::default() }, 5).await, ids[13..15]);
    for one in bench.lease(3).await {
        bench.settle(&one, Next::Dead(DeadReason::GivenUp));
    }
    bench.settled().await;
    let dead = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
    assert_eq!(all(dead, 2).await, [ids[20], ids[22], ids[24]]);
    let pending = EventFilter {
        state: Some("pending".into()),
        destination: Some("hooks/app".into()),
        ..EventFilter::default()
    };
    assert_eq!(all(pending, 4).await.len(), 10);
}

#[tokio::test]
async fn the_oldest_delivery_is_found_wherever_it_waits() {
    let bench = Bench::new();
    let later = |secs| START.saturating_add(Duration::from_secs(secs));
    for n in 0..3 {
        bench.stored(&n.to_string()).await;
        bench.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(START));
    let leased = bench.lease(2).await;
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(START), "leased");
    bench.settle(&leased[0], Next::Retry(later(5000)));
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(START), "settled as a retry");
    bench.settle(&leased[1], Next::Delivered);
    bench.settled().await;
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(START), "a retry on disk");
    let bench = bench.reopen();
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(START), "after a restart");
    bench.clock.advance(Duration::from_secs(10_000));
    let retry = bench.lease(1).await;
    bench.settle(&retry[0], Next::Delivered);
    bench.settled().await;
    assert_eq!(bench.stats_of(&app()).await.oldest, Some(later(20)), "the next in the queue");
}

#[tokio::test]
async fn retries_that_a_clock_set_back_left_in_the_far_future_are_leased() {
    for restart in [false, true] {
        let mut bench = Bench::new();
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(bench.stored(&n.to_string()).await);
        }
        let leased = bench.lease(10).await;
        let at = bench.now().saturating_add(Duration::from_secs(3600));
        leased.iter().for_each(|one| bench.settle(one, Next::Retry(at)));
        bench.settled().await;
        if restart {
            bench = bench.reopen();
        }
        let beyond = |secs| bench.now().saturating_add(Duration::from_secs(secs));
        let strayed = async |max, secs| bench.buffer.lease_strayed(&app(), max, beyond(secs)).await.unwrap();
        assert!(bench.lease(10).await.is_empty(), "not due");
        assert!(strayed(10, 3600).await.is_empty(), "put off, as it may be");
        let mut taken = strayed(2, 600).await;
        assert_eq!(taken.len(), 2);
        // Handed back, it is due as late as it was.
        bench.settle(&taken.remove(0), Next::Release);
        bench.settle(&taken.remove(0), Next::Delivered);
        let rest = strayed(10, 600).await;
        assert_eq!(rest.len(), 4, "each once");
        rest.iter().for_each(|one| bench.settle(one, Next::Retry(bench.now())));
        bench.settled().await;
        assert!(strayed(10, 600).await.is_empty());
        bench.clock.advance(Duration::from_secs(1));
        let due = bench.lease(10).await;
        assert_eq!(due.len(), 4);
        due.iter().for_each(|one| bench.settle(one, Next::Delivered));
        bench.settled().await;
        for id in ids {
            assert!(matches!(bench.state(id).await, DeliveryState::Delivered { .. }));
        }
        model::audit(&bench.buffer);
    }
}

/// Workers lease, settle and hand back while an operator gives up: each delivery has one end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_given_up_while_others_work_is_either_theirs_or_given_up() {
    const EVENTS: usize = 800;
    let bench = Bench::new();
    let mut ids = Vec::new();
    for n in 0..EVENTS {
        // Half of them in the window of what came in last, half only on disk.
        let body = if n % 2 == 0 { "short".to_owned() } else { "x".repeat(4000) };
        ids.push(bench.stored(&body).await);
    }
    let buffer = Arc::new(bench.buffer);
    let delivered: Arc<Mutex<Vec<EventId>>> = Arc::default();
    let now = bench.clock.now();
    // The operator is done.
    let through = Arc::new(AtomicBool::new(false));
    let working = (0..3).map(|seed| {
        let (buffer, delivered, clock) = (buffer.clone(), delivered.clone(), bench.clock.clone());
        let through = through.clone();
        tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(seed);
            loop {
                let leased = buffer.lease(&app(), rng.usize(1..30), clock.now()).await.unwrap();
                if leased.is_empty() && buffer.stats().await.unwrap().destinations[0].backlog == 0 {
                    return;
                }
                for one in leased {
                    let next = match rng.u8(0..100) {
                        0..2 => Next::Delivered,
                        _ if through.load(Ordering::Relaxed) => Next::Delivered,
                        2..60 => Next::Retry(now),
                        _ => Next::Release,
                    };
                    if next == Next::Delivered {
                        delivered.lock().push(one.event.id);
                    }
                    buffer.settle(settlement(&one, now, next)).unwrap();
                    clock.advance(Duration::from_millis(1));
                }
            }
        })
    });
    let working: Vec<_> = working.collect();
    let mut given_up = 0;
    for part in ids.rchunks(7) {
        for id in part.iter().step_by(2) {
            given_up += buffer.give_up(Selection::One(*id, EventFilter::default())).await.unwrap().count;
        }
    }
    through.store(true, Ordering::Relaxed);
    for worker in working {
        worker.await.unwrap();
    }
    buffer.sweep().await.unwrap();
    let delivered = delivered.lock().clone();
    assert!(given_up > 50, "{given_up}: this run shows nothing");
    assert_eq!(delivered.len() as u64 + given_up, EVENTS as u64);
    let stats = buffer.stats().await.unwrap();
    assert_eq!((stats.destinations[0].backlog, stats.destinations[0].dead), (0, given_up));
    super::model::audit(&buffer);
}
