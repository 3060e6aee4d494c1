//! The breaker at work: what an outage costs the deliveries, and what the app sees of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config::{BreakerSettings, Destination, Retry};
use crate::deliver::Inner;
use crate::deliver::classify::Answered;
use crate::upstream::UpstreamError;
use crate::upstream::testing::destination;

use super::fake::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Wall time in steps of a second, for days of it.
fn coarse_clock() -> Clock {
    let clock = ManualClock::at(Timestamp::from_secs(1_764_000_000));
    let ticking = clock.clone();
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            ticking.advance(Duration::from_secs(1));
        }
    });
    Clock::Manual(clock)
}

fn deliverer(memory: &Arc<Memory>, clock: &Clock) -> Inner<Simulated> {
    Inner::new(seams(memory.clone(), clock))
}

/// The default retry and breaker.
fn standard(concurrency: usize) -> Arc<Destination> {
    Arc::new(Destination {
        concurrency,
        breaker: Some(BreakerSettings::default()),
        ..destination("http://app")
    })
}

/// An app that is up or down, and says how: by refusing, or by an answer.
fn app(up: &Arc<AtomicBool>, down: impl Fn() -> Result2 + Send + Sync + 'static) -> Simulated {
    let up = up.clone();
    Simulated::new(move |_, _| {
        let result = if up.load(Ordering::SeqCst) { status(200) } else { down() };
        async move { result }
    })
}

/// 12 attempts with full jitter are used up within 34 minutes; an outage may last for days.
#[tokio::test(start_paused = true)]
async fn an_outage_of_two_days_makes_no_dead_letter_however_few_or_many_wait() {
    let refused: fn() -> Result2 = || Err(UpstreamError::Connect("refused".into()));
    let silent: fn() -> Result2 = || Err(UpstreamError::Timeout("answer"));
    for (events, down) in [(1, refused), (3, || status(503)), (200, silent)] {
        let (memory, clock) = (Arc::new(Memory::default()), coarse_clock());
        let up = Arc::new(AtomicBool::new(false));
        let app = app(&up, down);
        memory.fill(events, clock.now(), b"x");
        let deliverer = deliverer(&memory, &clock);
        deliverer.apply(vec![(standard(16), app.clone())]);
        sleep(48 * HOUR).await;
        // One a probe, and what the opening took.
        assert!(app.calls() <= 2 * 24 * 120 + 32, "{events}: {}", app.calls());
        assert!(app.calls() >= 2 * 24 * 100, "{events}: it goes on probing: {}", app.calls());
        assert_eq!(memory.count(|s| matches!(s, State::Dead(_))), 0);
        assert_eq!(memory.count(|s| matches!(s, State::Leased { .. })), 0, "nothing is held in hand");
        for entry in memory.entries.lock().values() {
            assert!(entry.attempts.len() <= 6, "{events}: {} were charged", entry.attempts.len());
        }
        up.store(true, Ordering::SeqCst);
        let began = Instant::now();
        memory.until_settled().await;
        assert_eq!(memory.count(|s| matches!(s, State::Delivered)), events);
        assert!(began.elapsed() < Duration::from_secs(60), "{events}: {:?}", began.elapsed());
    }
}

/// What an outage holds is not too old when it ends: nobody could have delivered it.
#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_longer_than_the_greatest_age_makes_no_dead_letter() {
    let (memory, clock) = (Arc::new(Memory::default()), coarse_clock());
    let up = Arc::new(AtomicBool::new(false));
    let app = app(&up, || status(503));
    memory.fill(60, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    let retry = Retry { max_age: HOUR, ..Retry::default() };
    deliverer.apply(vec![(Arc::new(Destination { retry, ..(*standard(4)).clone() }), app.clone())]);
    sleep(5 * HOUR).await;
    let tried = memory.entries.lock().values().filter(|entry| !entry.attempts.is_empty()).count();
    assert!(tried > 0, "some have used up an attempt, and are older than they may be");
    assert_eq!(memory.count(|s| matches!(s, State::Dead(_))), 0);
    up.store(true, Ordering::SeqCst);
    memory.until_settled().await;
    assert_eq!(memory.count(|s| matches!(s, State::Delivered)), 60);
}

#[tokio::test(start_paused = true)]
async fn the_app_sees_a_slow_start_and_no_herd() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let up = Arc::new(AtomicBool::new(false));
    // When each attempt began, and how many were then in flight.
    let seen: Arc<Mutex<Vec<(Instant, usize)>>> = Arc::default();
    let app = {
        let (up, seen, now) = (up.clone(), seen.clone(), Arc::new(Mutex::new(0)));
        Simulated::new(move |_, _| {
            *now.lock() += 1;
            seen.lock().push((Instant::now(), *now.lock()));
            let (up, now) = (up.load(Ordering::SeqCst), now.clone());
            async move {
                sleep(Duration::from_millis(100)).await;
                *now.lock() -= 1;
                status(if up { 200 } else { 500 })
            }
        })
    };
    memory.fill(5000, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(standard(16), app.clone())]);
    sleep(HOUR).await;
    let before = app.calls();
    assert!(before <= 16 + 120, "{before}");
    up.store(true, Ordering::SeqCst);
    memory.until_settled().await;
    assert_eq!(memory.count(|s| matches!(s, State::Delivered)), 5000);

    let seen = seen.lock().split_off(before);
    let recovered = seen[0].0 + Duration::from_millis(100);
    let mut most = 0;
    for (at, in_flight) in &seen[1..] {
        let share = (*at - recovered).as_secs_f64() / 30.0;
        let allowed = (share * 16.0).floor().clamp(1.0, 16.0);
        assert!(*in_flight as f64 <= allowed, "{in_flight} after {:?}", *at - recovered);
        most = most.max(*in_flight);
    }
    assert_eq!(most, 16, "it grows back to all of it");
}

#[tokio::test(start_paused = true)]
async fn probes_take_turns_so_one_poison_event_does_not_keep_the_app_away() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|id, _| async move { status(if id.0[15] == 0 { 500 } else { 200 }) });
    let poison = memory.add(clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(standard(4), app.clone())]);
    // Alone, it opens the breaker in the end.
    while deliverer.seams.breakers.status()[0].phase != crate::breaker::Phase::Open {
        sleep(Duration::from_millis(100)).await;
    }
    memory.fill(100, clock.now(), b"x");
    let began = Instant::now();
    while memory.count(|s| matches!(s, State::Delivered)) < 100 {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(62), "{:?}", began.elapsed());
    // Among events that the app takes, its attempts count again.
    let charged = memory.entry(poison).attempts.len();
    for _ in 0..24 {
        memory.fill(5, clock.now(), b"x");
        sleep(Duration::from_secs(600)).await;
    }
    assert!(memory.entry(poison).attempts.len() > charged);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_app_asks_for_holds_all_of_them() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let seen: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let app = {
        let seen = seen.clone();
        Simulated::new(move |_, _| {
            let mut seen = seen.lock();
            seen.push(Instant::now());
            let result = match seen.len() {
                3 => Ok(Answered { status: 429, retry_after: Some(b"120".to_vec()) }),
                _ => status(200),
            };
            async move { result }
        })
    };
    memory.fill(50, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(standard(1), app)]);
    memory.until_settled().await;
    let seen = seen.lock();
    assert!((seen[3] - seen[2]).as_secs() >= 120, "{:?}", seen[3] - seen[2]);
    assert!(memory.entries.lock().values().all(|entry| entry.attempts.len() <= 2));
}

#[tokio::test(start_paused = true)]
async fn turned_off_by_a_reload_it_lets_go_at_once() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let up = Arc::new(AtomicBool::new(false));
    let app = app(&up, || status(500));
    memory.fill(20, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(standard(4), app.clone())]);
    sleep(Duration::from_secs(5)).await;
    let calls = app.calls();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(app.calls(), calls, "open");
    up.store(true, Ordering::SeqCst);
    deliverer.apply(vec![(Arc::new(Destination { breaker: None, ..(*standard(4)).clone() }), app.clone())]);
    sleep(Duration::from_secs(1)).await;
    assert!(memory.count(|s| matches!(s, State::Delivered)) >= 16);
}

/// Long pauses, as an app asks for them: hope comes before their end.
#[tokio::test(start_paused = true)]
async fn what_was_spared_goes_on_as_soon_as_the_breaker_closes() {
    for hope in ["health check", "resume", "inline request"] {
        let (memory, clock) = (Arc::new(Memory::default()), clock());
        let up = Arc::new(AtomicBool::new(false));
        let app = app(&up, || Ok(Answered { status: 503, retry_after: Some(b"3600".to_vec()) }));
        memory.fill(60, clock.now(), b"x");
        let pauses = crate::pauses::Pauses::new(memory.clone());
        let deliverer =
            Inner::new(crate::deliver::Seams { pauses: pauses.watch(), ..seams(memory.clone(), &clock) });
        let name = standard(8).name.clone();
        deliverer.apply(vec![(standard(8), app.clone())]);
        sleep(Duration::from_secs(60)).await;
        let calls = app.calls();
        assert!(calls <= 8, "{calls}");
        // Hope in vain costs one probe.
        let breaker = deliverer.seams.breakers.of(&name);
        breaker.probe_soon("a test");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(app.calls(), calls + 1);
        up.store(true, Ordering::SeqCst);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(app.calls(), calls + 1, "it was asked to wait for an hour");
        match hope {
            "health check" => breaker.probe_soon("a test"),
            "resume" => {
                pauses.pause(&name.0, clock.now()).await.unwrap();
                sleep(Duration::from_secs(1)).await;
                pauses.resume(&name.0).await.unwrap();
            }
            _ => {
                let settings = BreakerSettings::default();
                breaker.probe_soon("a test");
                breaker.admit_inline(Some(&settings)).unwrap().end(crate::breaker::Outcome::Well, "");
            }
        }
        let began = Instant::now();
        // The one that opened it was charged, and waits for as long as the app asked in answer to it.
        let charged = memory.entries.lock().values().filter(|entry| !entry.attempts.is_empty()).count();
        assert_eq!(charged, 1);
        while memory.count(|s| matches!(s, State::Delivered)) < 59 {
            sleep(Duration::from_millis(100)).await;
            let within = began.elapsed() <= BreakerSettings::default().slow_start;
            assert!(within, "{hope}: {:?}", memory.entries.lock());
        }
    }
}

/// Others probe before what has failed, however many fail, and without waiting for them.
#[tokio::test(start_paused = true)]
async fn several_poison_events_do_not_keep_the_app_away() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|id, _| async move { status(if id.0[15] < 12 { 500 } else { 200 }) });
    memory.fill(12, clock.now(), b"x");
    let deliverer = deliverer(&memory, &clock);
    deliverer.apply(vec![(standard(4), app.clone())]);
    while deliverer.seams.breakers.status()[0].phase != crate::breaker::Phase::Open {
        sleep(Duration::from_millis(100)).await;
    }
    memory.fill(50, clock.now(), b"x");
    let began = Instant::now();
    while memory.count(|s| matches!(s, State::Delivered)) < 50 {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() <= Duration::from_secs(900), "{:?}", began.elapsed());
}
