use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::buffer::DeadReason;
use crate::clock::{Clock, Timestamp};
use crate::config::{Destination, Jitter, Retry};
use crate::deliver::Inner;
use crate::deliver::classify::Answered;
use crate::upstream::UpstreamError;
use crate::upstream::testing::destination;

use super::fake::*;

fn deliverer(memory: &Arc<Memory>, clock: &Clock) -> Inner<Simulated> {
    Inner::new(seams(memory.clone(), clock))
}

fn with(concurrency: usize) -> Arc<Destination> {
    let retry = Retry { jitter: Jitter::None, ..Retry::default() };
    Arc::new(Destination { concurrency, retry, ..destination("http://app") })
}

const fn is_delivered(state: &State) -> bool {
    matches!(state, State::Delivered)
}

#[tokio::test(start_paused = true)]
async fn as_many_as_allowed_are_in_flight_and_all_are_delivered() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|_, _| async {
        sleep(Duration::from_millis(100)).await;
        status(200)
    });
    memory.fill(100, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    let began = Instant::now();
    deliverer.apply(vec![(with(10), app.clone())]);
    memory.until_settled().await;
    assert_eq!((app.calls(), app.most_at_once(), memory.count(is_delivered)), (100, 10, 100));
    assert!(began.elapsed() < Duration::from_millis(1100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn failures_wait_as_documented_and_die_with_their_attempts() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|_, _| async { status(500) });
    let id = memory.add(clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    let destination = Destination {
        retry: Retry { attempts: 5, jitter: Jitter::None, ..Retry::default() },
        ..destination("http://app")
    };
    deliverer.apply(vec![(Arc::new(destination), app)]);
    memory.until_settled().await;
    let entry = memory.entry(id);
    assert_eq!(entry.state, State::Dead(DeadReason::AttemptsExhausted));
    let times: Vec<Timestamp> = entry.attempts.iter().map(|a| a.at).collect();
    let waits: Vec<u64> = times.windows(2).map(|w| w[1].since(w[0]).as_secs_f64().round() as u64).collect();
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_asks_for_time_gets_it() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|_, number| async move {
        match number {
            1 => Ok(Answered { status: 429, retry_after: Some(b"30".to_vec()) }),
            _ => status(200),
        }
    });
    let id = memory.add(clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(1), app)]);
    memory.until_settled().await;
    let attempts = memory.entry(id).attempts;
    assert_eq!(attempts[1].at.since(attempts[0].at).as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_idle_destination_costs_nothing_and_still_takes_the_next_event_at_once() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|_, _| async { status(200) });
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(4), app.clone())]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(memory.lease_calls.load(Ordering::SeqCst), 1);
    for n in 1..=20 {
        memory.add(clock.now(), b"x");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(app.calls(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn our_own_trouble_uses_up_no_attempt_and_does_not_churn_through_the_backlog() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let broken = Arc::new(AtomicBool::new(true));
    let app = {
        let broken = broken.clone();
        Simulated::new(move |_, _| {
            let broken = broken.load(Ordering::SeqCst);
            async move { if broken { Err(UpstreamError::Dns("down".into())) } else { status(200) } }
        })
    };
    memory.fill(1000, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(8), app.clone())]);
    sleep(Duration::from_secs(600)).await;
    // Eight at once at first, then one probe a pause.
    assert!(app.calls() < 8 + 20, "{}", app.calls());
    broken.store(false, Ordering::SeqCst);
    memory.until_settled().await;
    assert_eq!(memory.count(is_delivered), 1000);
    assert!(memory.entries.lock().values().all(|entry| entry.attempts.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waited_longer_than_its_age_limit_is_still_tried_once() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let long_ago = clock.now().saturating_sub(Duration::from_secs(30 * 24 * 3600));
    let app = Simulated::new(|id, _| async move { status(if id.0[15] == 0 { 200 } else { 500 }) });
    let (good, bad) = (memory.add(long_ago, b"x"), memory.add(long_ago, b"x"));
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(1), app)]);
    memory.until_settled().await;
    assert_eq!(memory.entry(good).state, State::Delivered);
    let bad = memory.entry(bad);
    assert_eq!((bad.state, bad.attempts.len()), (State::Dead(DeadReason::TooOld), 1));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_attempt_keeps_its_delivery_and_does_not_loop() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let panics = Arc::new(AtomicBool::new(true));
    let app = {
        let panics = panics.clone();
        Simulated::new(move |_, _| {
            let panics = panics.load(Ordering::SeqCst);
            async move { if panics { std::panic::resume_unwind(Box::new("simulated")) } else { status(200) } }
        })
    };
    let id = memory.add(clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(1), app.clone())]);
    sleep(Duration::from_secs(100)).await;
    assert_eq!((app.calls(), memory.entry(id).attempts.len()), (4, 0));
    panics.store(false, Ordering::SeqCst);
    memory.until_settled().await;
    assert_eq!(memory.entry(id).state, State::Delivered);
}

#[tokio::test(start_paused = true)]
async fn new_settings_hold_for_the_next_attempts_and_a_removed_destination_stops_leasing() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let slow = || {
        Simulated::new(|_, _| async {
            sleep(Duration::from_secs(10)).await;
            status(200)
        })
    };
    let (old, new) = (slow(), slow());
    memory.fill(50, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(4), old.clone())]);
    sleep(Duration::from_secs(1)).await;
    deliverer.apply(vec![(with(2), new.clone())]);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(
        (old.calls(), old.most_at_once(), new.most_at_once()),
        (4, 4, 2),
        "those in flight ended as begun"
    );
    assert!(new.calls() > 10);

    deliverer.apply(Vec::new());
    sleep(Duration::from_secs(11)).await;
    let calls = new.calls();
    sleep(Duration::from_secs(100)).await;
    assert_eq!((new.calls(), memory.count(|s| matches!(s, State::Leased { .. }))), (calls, 0));

    deliverer.apply(vec![(with(2), new.clone())]);
    memory.until_settled().await;
    assert_eq!(memory.count(is_delivered), 50);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_is_in_flight_and_hands_the_rest_back() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|id, _| async move {
        sleep(Duration::from_secs(if id.0[15] == 0 { 5 } else { 50 })).await;
        status(200)
    });
    let quick = memory.add(clock.now(), b"x");
    memory.fill(9, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(with(3), app.clone())]);
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    deliverer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(app.calls(), 3, "nothing new was begun");
    assert_eq!(memory.entry(quick).state, State::Delivered);
    assert_eq!(memory.count(|s| matches!(s, State::Due(Timestamp(0)))), 9);
    assert!(memory.entries.lock().values().skip(1).all(|entry| entry.attempts.is_empty()));
    deliverer.apply(vec![(with(3), app.clone())]);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(app.calls(), 3, "after a shutdown nothing starts");
}
