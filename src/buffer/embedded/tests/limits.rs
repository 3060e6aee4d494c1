//! What happens at the limits: a full buffer, a disk that hangs, a destination that falls behind.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::config::RouteKeep;

/// Looks until something holds; fails if it takes unreasonably long.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < end, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_buffer_refuses_events_delivers_on_and_opens_by_itself() {
    let bench = Bench::with(|s| {
        s.max_size = 12 << 20;
        s.keep_delivered = Duration::ZERO;
        s.memtable = 1 << 20;
    });
    // Not compressible, so that it takes its space.
    let body = || (0..200_000).map(|_| fastrand::u8(..)).collect::<Vec<_>>();
    let mut stored = 0;
    let refused = loop {
        let mut event = bench.event("");
        event.body = body().into();
        match bench.buffer.append(event, &[app()], Some(claim(stored))).await {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < 200, "it never fills up");
    };
    assert!(matches!(&refused, AppendError::Full(why) if why.contains("buffer.max_size")), "{refused}");
    assert!(matches!(bench.buffer.admission(), Admission::Full(_)));
    assert_eq!(bench.buffer.claimed(claim(stored).key).await.unwrap(), None, "no claim is left behind");
    let stats = bench.buffer.stats().await.unwrap();
    assert!(stats.disk_bytes <= (12 + 64) << 20, "{} bytes are more than allowed", stats.disk_bytes);
    let mut delivered = 0;
    loop {
        let leased = bench.lease(8).await;
        if leased.is_empty() {
            break;
        }
        delivered += leased.len() as u64;
        leased.iter().for_each(|one| bench.settle(one, Next::Delivered));
    }
    assert_eq!(delivered, stored);
    until("room", async || bench.buffer.admission() == Admission::Open).await;
    let event = bench.event("again");
    assert_eq!(bench.buffer.append(event, &[app()], Some(claim(stored))).await.unwrap(), Appended::Stored);
}

#[tokio::test]
async fn delivered_events_of_all_routes_give_way_oldest_first_before_an_event_is_refused() {
    let bench = Bench::with(|s| {
        (s.max_size, s.memtable) = (12 << 20, 1 << 20);
        let keep = RouteKeep { bytes: Some(u64::MAX), ..RouteKeep::default() };
        // Each may keep a quarter: together more than there is room for.
        s.keep_of_routes = (0..8).map(|n| (format!("r{n}").as_str().into(), keep.clone())).collect();
    });
    let body = || (0..200_000).map(|_| fastrand::u8(..)).collect::<Vec<_>>();
    let mut ids = Vec::new();
    // Three times as much as fits, none faster than they are delivered.
    for n in 0..180 {
        bench.clock.advance(Duration::from_millis(5));
        let to = DestinationName::new(&format!("r{}", n % 8), "app");
        let event =
            Event { route: format!("r{}", n % 8).as_str().into(), body: body().into(), ..bench.event("") };
        ids.push(event.id);
        until("it is taken", async || {
            let taken = bench.buffer.append(event.clone(), std::slice::from_ref(&to), None).await;
            taken.is_ok()
        })
        .await;
        let leased = bench.buffer.lease(&to, 1, bench.now()).await.unwrap().remove(0);
        bench.settle(&leased, Next::Delivered);
        bench.settled().await;
    }
    until("room", async || bench.buffer.admission() == Admission::Open).await;
    let mut there = Vec::new();
    for id in &ids {
        there.push(bench.buffer.get(*id).await.unwrap().is_some());
    }
    let first = there.iter().position(|there| *there).expect("not all had to go");
    assert!(first > 100 && there[first..].iter().all(|there| *there), "the oldest first: {there:?}");
    model::audit(&bench.buffer);
}

/// Something that takes more and more of the folder until it is asked to give way.
#[derive(Debug, Default)]
struct Greedy {
    bytes: AtomicU64,
    asked: AtomicU64,
}

impl Beside for Greedy {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    fn give_way(&self, bytes: u64) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let left = self.bytes().saturating_sub(bytes);
        self.bytes.store(left, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_stands_beside_counts_and_gives_way_before_an_event_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.max_size = 12 << 20;
    let beside = Arc::new(Greedy::default());
    beside.bytes.store(10 << 20, Ordering::Relaxed);
    let clock = Clock::Manual(ManualClock::at(START));
    let buffer = Embedded::open(&settings, Some(beside.clone()), Arc::default(), clock).unwrap();
    until("it counts", async || buffer.stats().await.unwrap().disk_bytes >= 10 << 20).await;
    let body = || (0..200_000).map(|_| fastrand::u8(..)).collect::<Vec<_>>();
    let mut stored = 0u64;
    // As much as there would be room for without it.
    while stored < 40 {
        let event = Event { body: body().into(), ..event(START, "") };
        buffer.append(event, &[app()], Some(claim(stored))).await.unwrap();
        stored += 1;
        assert!(buffer.admission() == Admission::Open);
    }
    assert!(beside.asked.load(Ordering::Relaxed) > 0 && beside.bytes() < 10 << 20);
}

#[tokio::test]
async fn a_volume_without_room_refuses_events() {
    let bench = Bench::with(|s| s.min_free = u64::MAX / 2);
    let refused = bench.buffer.append(bench.event("x"), &[app()], None).await;
    assert!(matches!(refused, Err(AppendError::Full(why)) if why.contains("buffer.min_free")));
    let free = bench.buffer.stats().await.unwrap().free_bytes;
    assert!(free > 0 && free < u64::MAX / 2);
}

#[tokio::test]
async fn a_commit_that_hangs_closes_admission_until_it_returns() {
    let bench = Bench::with(|s| s.stall_after = Duration::from_millis(20));
    bench.buffer.shared.watch.start();
    until("the alarm", async || matches!(bench.buffer.admission(), Admission::Failed(_))).await;
    let refused = bench.buffer.append(bench.event("x"), &[app()], None).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(why)) if why.contains("running for")));
    bench.buffer.shared.watch.end();
    until("its end", async || bench.buffer.admission() == Admission::Open).await;
    bench.stored("x").await;
}

#[tokio::test]
async fn memory_does_not_grow_with_the_backlog() {
    let bench = Bench::new();
    for _ in 0..3_000 {
        bench.stored(&"w".repeat(900)).await;
    }
    let lane = bench.buffer.shared.lane(&app());
    let state = lane.state();
    assert!(state.behind && state.leases.is_empty() && state.returned.is_empty());
    assert!(state.window_len() <= 1024);
}

#[tokio::test]
async fn scans_start_where_the_queue_is_alive() {
    let bench = Bench::new();
    for n in 0..500 {
        bench.stored(&n.to_string()).await;
    }
    for one in bench.lease(1000).await {
        bench.settle(&one, Next::Delivered);
    }
    bench.settled().await;
    let lane = bench.buffer.shared.lane(&app());
    assert_eq!(lane.state().floors().0, 501);
    bench.stored("alive").await;
    let bench = bench.reopen();
    let lane = bench.buffer.shared.lane(&app());
    assert_eq!(lane.state().floors().0, 501, "a restart knows it too");
}

#[tokio::test]
async fn closing_does_not_wait_for_a_commit_that_never_returns() {
    let bench = Bench::new();
    let shared = &bench.buffer.shared;
    let (begins, begun) = std::sync::mpsc::channel();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    // As the engine does whose flushes have failed.
    let hangs = move || {
        begins.send(()).unwrap();
        let _ = held.recv();
    };
    shared.inbox.push(Op::Run(Box::new(hangs))).unwrap();
    begun.recv().unwrap();
    shared.watch.start();
    shared.fail("the engine has failed");
    let closed = tokio::time::timeout(Duration::from_secs(20), bench.buffer.close()).await;
    let closed = closed.expect("it does not wait for ever");
    assert!(matches!(&closed, Err(BufferError::Failed(why)) if why.contains("hangs")), "{closed:?}");
    drop(hold);
}
