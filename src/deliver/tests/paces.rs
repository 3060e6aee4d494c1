//! Rate, schedule and pauses at work.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::clock::{Clock, Timestamp};
use crate::config::{BreakerSettings, Destination, Hours, Rate, Schedule};
use crate::deliver::Inner;
use crate::pauses::Paused;
use crate::upstream::testing::destination;

use super::fake::*;

/// An app that answers at once and remembers when it was asked.
fn punctual() -> (Simulated, Arc<Mutex<Vec<Instant>>>) {
    let seen: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let asked = seen.clone();
    let app = Simulated::new(move |_, _| {
        asked.lock().push(Instant::now());
        async { status(200) }
    });
    (app, seen)
}

fn paced(rate: Rate) -> Destination {
    Destination { concurrency: 16, rate: Some(rate), ..destination("http://app") }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_and_reached_without_polling() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let (app, seen) = punctual();
    memory.fill(60, clock.now(), b"x");
    let deliverer = Inner::new(seams(memory.clone(), &clock));
    deliverer.apply(vec![(
        Arc::new(paced(Rate { count: 60, per: Duration::from_secs(60), burst: 1 })),
        app.clone(),
    )]);
    let began = Instant::now();
    memory.until_settled().await;
    assert_eq!(began.elapsed().as_secs(), 59, "one a second, the first at once");
    let seen = seen.lock();
    assert!(seen.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(999)));
    // One look for each attempt and each time to come, not one for each tick of a clock.
    assert!(memory.lease_calls.load(Ordering::SeqCst) <= 130, "{:?}", memory.lease_calls);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_rate_grows_back_too() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let seen: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let began = Instant::now();
    let app = {
        let seen = seen.clone();
        Simulated::new(move |_, _| {
            let well = began.elapsed() > Duration::from_secs(3600);
            if well {
                seen.lock().push(Instant::now());
            }
            async move { status(if well { 200 } else { 503 }) }
        })
    };
    memory.fill(3000, clock.now(), b"x");
    let deliverer = Inner::new(seams(memory.clone(), &clock));
    let rate = Rate { count: 20, per: Duration::from_secs(1), burst: 1 };
    let breaker = Some(BreakerSettings::default());
    deliverer.apply(vec![(Arc::new(Destination { breaker, ..paced(rate) }), app.clone())]);
    sleep(Duration::from_secs(3600)).await;
    memory.until_settled().await;
    let seen = seen.lock();
    let within = |from: u64, to: u64| {
        let span = Duration::from_secs(from)..Duration::from_secs(to);
        seen.iter().filter(|at| span.contains(&(**at - seen[0]))).count()
    };
    let curve: Vec<usize> = (0..5).map(|n| within(n * 10, n * 10 + 10)).collect();
    assert!(curve[0] < 50 && curve[1] > curve[0] && curve[1] < 120 && curve[2] < 180, "{curve:?}");
    assert!((190..=201).contains(&curve[4]), "{curve:?}");
}

#[tokio::test(start_paused = true)]
async fn outside_of_its_hours_a_destination_waits() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let (app, seen) = punctual();
    let schedule = Schedule::parse(["22:00-22:10 UTC"]).unwrap();
    let Hours::Closed { until: opens } = schedule.at(clock.now()) else { panic!("open") };
    memory.fill(10, clock.now(), b"x");
    let wait = opens.since(clock.now());
    let began = Instant::now();
    let deliverer = Inner::new(seams(memory.clone(), &clock));
    let hours = Destination { deliver_between: Some(Arc::new(schedule)), ..destination("http://app") };
    deliverer.apply(vec![(Arc::new(hours), app.clone())]);
    sleep(wait - Duration::from_secs(5)).await;
    assert_eq!((app.calls(), memory.lease_calls.load(Ordering::SeqCst)), (0, 0), "not a look at the buffer");
    memory.until_settled().await;
    let first = seen.lock()[0] - began;
    assert!(first >= wait && first < wait + Duration::from_secs(1), "{first:?} of {wait:?}");
    sleep(Duration::from_secs(601)).await;
    memory.fill(1, clock.now(), b"x");
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(app.calls(), 10, "closed again");
    // A reload that takes the schedule away opens it.
    deliverer.apply(vec![(Arc::new(destination("http://app")), app.clone())]);
    memory.until_settled().await;
}

/// Pauses as an operator makes them.
fn pausing(memory: &Arc<Memory>, clock: &Clock) -> (Inner<Simulated>, watch::Sender<Paused>) {
    let (operator, pauses) = watch::channel(Paused::default());
    (Inner::new(crate::deliver::Seams { pauses, ..seams(memory.clone(), clock) }), operator)
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_what_has_not_begun_until_it_is_taken_back() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let app = Simulated::new(|_, _| async {
        sleep(Duration::from_secs(2)).await;
        status(200)
    });
    memory.fill(40, clock.now(), b"x");
    for name in ["route", "route/app"] {
        let (deliverer, operator) = pausing(&memory, &clock);
        deliverer.apply(vec![(Arc::new(destination("http://app")), app.clone())]);
        sleep(Duration::from_secs(1)).await;
        let begun = app.calls();
        let pause = Paused::new([(name.to_owned(), Timestamp(1))].into());
        operator.send_replace(pause);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(app.calls(), begun, "{name}");
        assert_eq!(memory.count(|s| matches!(s, State::Leased { .. })), 0, "{name}: nothing is kept in hand");
        assert_eq!(memory.count(|s| matches!(s, State::Delivered)), begun, "{name}: in flight was finished");
        operator.send_replace(Paused::default());
        sleep(Duration::from_millis(100)).await;
        assert!(app.calls() > begun, "{name}: it goes on at once");
        deliverer.shutdown(Duration::from_secs(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_go_on_when_nobody_is_left_who_could_pause_them() {
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    let (app, _) = punctual();
    let (deliverer, operator) = pausing(&memory, &clock);
    deliverer.apply(vec![(Arc::new(destination("http://app")), app.clone())]);
    drop(operator);
    for n in 1..5 {
        sleep(Duration::from_secs(100)).await;
        memory.fill(1, clock.now(), b"x");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(app.calls(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_concurrency_finds_out_what_the_app_bears() {
    const AT_ONCE: usize = 5;
    let (memory, clock) = (Arc::new(Memory::default()), clock());
    // Works on five at once, each for 20 ms; the others wait within the app.
    let places = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let app = Simulated::new(move |_, _| {
        let places = places.clone();
        async move {
            let _place = places.acquire().await;
            sleep(Duration::from_millis(20)).await;
            status(200)
        }
    });
    memory.fill(20_000, clock.now(), b"x");
    let deliverer = Inner::new(seams(memory.clone(), &clock));
    let adaptive = Destination { concurrency: 64, adaptive: Some(2), ..destination("http://app") };
    let began = Instant::now();
    deliverer.apply(vec![(Arc::new(adaptive), app.clone())]);
    let name = destination("http://app").name;
    let (mut seen, mut most) = (Vec::new(), 0);
    while !memory.settled() {
        sleep(Duration::from_millis(500)).await;
        let limit = deliverer.seams.metrics.attempts(&name.0).limit.expect("it is shown");
        most = most.max(limit);
        seen.push(limit as f64);
    }
    assert!(app.most_at_once() <= 64 && most <= 64);
    let later = &seen[seen.len() / 4..];
    let mean = later.iter().sum::<f64>() / later.len() as f64;
    assert!((5.0..=15.0).contains(&mean), "{mean} for an app that works on {AT_ONCE} at once");
    // Nothing but the first seconds is lost to caution: 20 000 take at least 80 s.
    assert!(began.elapsed() < Duration::from_secs(100), "{:?}", began.elapsed());
}
