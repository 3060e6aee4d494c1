//! Random histories: whatever the app, the reloads and the restarts do, nothing is lost and no limit is broken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;

use crate::buffer::{DeadReason, EventId};
use crate::config::{Batch, BatchFormat, BreakerSettings, Destination, Retry};
use crate::deliver::Inner;
use crate::upstream::UpstreamError;
use crate::upstream::testing::destination;

use super::fake::*;

fn settings(rng: &mut Rng) -> Arc<Destination> {
    Arc::new(Destination {
        concurrency: rng.usize(1..6),
        retry: Retry {
            first: Duration::from_millis(rng.u64(0..300)),
            max: Duration::from_millis(rng.u64(300..5000)),
            attempts: ATTEMPTS,
            max_age: MAX_AGE,
            ..Retry::default()
        },
        breaker: rng.bool().then(|| BreakerSettings {
            failures: rng.u32(1..6),
            probe_after: Duration::from_millis(rng.u64(1..1000)),
            slow_start: Duration::from_millis(rng.u64(0..2000)),
            ..BreakerSettings::default()
        }),
        batch: rng.bool().then(|| Batch {
            max_events: rng.usize(1..9),
            max_bytes: rng.usize(1..40),
            max_wait: Duration::from_millis(rng.u64(0..300)),
            format: BatchFormat::Multipart,
            statuses: None,
        }),
        ..destination("http://app")
    })
}

const ATTEMPTS: u32 = 5;
const MAX_AGE: Duration = Duration::from_secs(20);
const EVENTS: usize = 60;

/// When each attempt began: age of its retry budget, attempt number.
type Begun = HashMap<EventId, Vec<(Duration, u32)>>;

async fn history(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let memory = Arc::new(Memory::default());
    let clock = clock();
    let dice = Arc::new(Mutex::new(Rng::with_seed(seed ^ 0xfeed)));
    let begun: Arc<Mutex<Begun>> = Arc::default();
    let app = {
        let (begun, clock, memory) = (begun.clone(), clock.clone(), memory.clone());
        Simulated::new(move |id, number| {
            let age = clock.now().since(memory.entry(id).since);
            begun.lock().entry(id).or_default().push((age, number));
            let (roll, wait) = {
                let mut dice = dice.lock();
                (dice.u32(0..100), Duration::from_millis(dice.u64(0..400)))
            };
            async move {
                tokio::time::sleep(wait).await;
                match roll {
                    0..45 => status(200),
                    45..70 => status(503),
                    70..74 => status(410),
                    74..85 => Err(UpstreamError::Connect("refused".into())),
                    85..93 => Err(UpstreamError::Dns("no address".into())),
                    // A panic without its noise.
                    93..95 => std::panic::resume_unwind(Box::new("simulated")),
                    _ => Err(UpstreamError::Timeout("answer")),
                }
            }
        })
    };

    let mut most = 0;
    let start = || Inner::new(seams(memory.clone(), &clock));
    let mut deliverer = start();
    for n in 0..EVENTS {
        if n % 10 == 0 {
            let settings = settings(&mut rng);
            most = most.max(settings.concurrency);
            deliverer.apply(vec![(settings, app.clone())]);
        }
        memory.add(clock.now(), b"body");
        tokio::time::sleep(Duration::from_millis(rng.u64(0..200))).await;
        match rng.u32(0..40) {
            0 => deliverer.apply(Vec::new()),
            1 => {
                deliverer.shutdown(Duration::from_millis(rng.u64(0..300))).await;
                assert_eq!(
                    memory.count(|s| matches!(s, State::Leased { .. })),
                    0,
                    "seed {seed}: kept a lease"
                );
                deliverer = start();
            }
            _ => {}
        }
    }
    let last = settings(&mut rng);
    most = most.max(last.concurrency);
    deliverer.apply(vec![(last, app.clone())]);
    let done = tokio::time::timeout(Duration::from_secs(3600), memory.until_settled()).await;
    assert!(done.is_ok(), "seed {seed}: stuck: {:?}", memory.entries.lock());
    deliverer.shutdown(Duration::ZERO).await;

    // Settings with more places may have been replaced by ones with fewer: the most of all is the bound.
    assert!(app.most_at_once() <= most, "seed {seed}: {} at once of {most}", app.most_at_once());
    for entry in memory.entries.lock().values() {
        let made = entry.attempts.len() as u32;
        assert!(made <= ATTEMPTS, "seed {seed}: {made} attempts");
        match entry.state {
            State::Dead(DeadReason::AttemptsExhausted) => assert_eq!(made, ATTEMPTS, "seed {seed}"),
            State::Dead(DeadReason::TooOld) => assert!(made >= 1, "seed {seed}: never tried"),
            State::Dead(DeadReason::GivenUp) | State::Delivered => assert!(made >= 1, "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
        for (age, number) in &begun.lock()[&entry.event.id] {
            assert!(*number <= ATTEMPTS, "seed {seed}: attempt {number}");
            assert!(*number == 1 || *age < MAX_AGE, "seed {seed}: attempt {number} at {age:?}");
        }
    }
}

#[test]
fn nothing_is_lost_and_no_limit_is_broken_in_any_history() {
    for seed in 0..60 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(seed));
    }
}
