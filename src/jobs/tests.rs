//! Jobs on the real engine, in a folder of their own.

use std::path::Path;

use super::*;
use crate::buffer::{AttemptOutcome, DeliveryState, DestinationName, Event, Next, Settlement, embedded};
use crate::clock::{ManualClock, Timestamp};
use crate::config::BufferSettings;
use crate::message::{Headers, Method, Scheme};
use crate::seal::Keyring;
use crate::telemetry::Metrics;

const START: Timestamp = Timestamp(1_700_000_000_000);

struct Bench {
    folder: tempfile::TempDir,
    clock: ManualClock,
    buffer: Arc<dyn Buffer>,
    jobs: Jobs,
}

fn open(folder: &Path, clock: &ManualClock) -> Arc<dyn Buffer> {
    let settings = BufferSettings {
        path: folder.into(),
        max_size: 1 << 30,
        min_free: 0,
        keep_delivered: Duration::from_secs(3600),
        keep_dead: Duration::from_secs(86_400),
        keep_delivered_bytes: 1 << 30,
        memtable: 16 << 20,
        stall_after: Duration::from_secs(60),
        encryption: Keyring::none(),
        keep_of_routes: Vec::new(),
    };
    embedded::open(&settings, Arc::new(Metrics::default()), Clock::Manual(clock.clone())).unwrap()
}

fn nothing_hidden() -> Hidden {
    Arc::new(|_| Box::new(|_| false))
}

fn app() -> DestinationName {
    DestinationName::new("hooks", "app")
}

impl Bench {
    /// With so many dead letters.
    async fn with_dead(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(START);
        let buffer = open(folder.path(), &clock);
        for n in 0..count {
            let now = clock.now();
            let event = Event {
                id: EventId::new(now),
                route: "hooks".into(),
                received_at: now,
                method: Method::POST,
                target: "/hooks".into(),
                authority: "hooks.example".into(),
                scheme: Scheme::Https,
                headers: Headers::from_iter([("X-N", n.to_string().as_bytes())]),
                body: format!("{{\"n\":{n}}}").into(),
                source: [192, 0, 2, 7].into(),
                verified: "none".into(),
                idempotency_key: Some(format!("key-{n}")),
                event_type: None,
                origin: Default::default(),
            };
            buffer.append(event, &[app()], None).await.unwrap();
            clock.advance(Duration::from_millis(5));
        }
        for leased in buffer.lease(&app(), count, clock.now()).await.unwrap() {
            let outcome = AttemptOutcome::Answered { status: 410 };
            buffer
                .settle(Settlement {
                    event_id: leased.event.id,
                    destination: leased.destination.clone(),
                    token: leased.token,
                    attempt: Some(crate::buffer::Attempt { at: clock.now(), took_ms: 1, outcome }),
                    next: Next::Dead(crate::buffer::DeadReason::GivenUp),
                })
                .unwrap();
        }
        let jobs = Jobs::new(buffer.clone(), Clock::Manual(clock.clone()));
        jobs.start(nothing_hidden()).await.unwrap();
        let bench = Self { folder, clock, buffer, jobs };
        while bench.dead().await < count as u64 {
            tokio::task::yield_now().await;
        }
        bench
    }

    async fn dead(&self) -> u64 {
        self.buffer.stats().await.unwrap().destinations.iter().map(|d| d.dead).sum()
    }

    async fn begin(&self, task: Task, rate: Option<u32>, effect: Effect) -> EventId {
        let filter = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
        self.jobs.begin(Order { task, filter, rate, effect }).await.unwrap().id
    }

    async fn end_of(&self, id: EventId) -> Job {
        loop {
            let job = self.jobs.get(id).unwrap();
            if job.state.ended().is_some() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn has_changed(&self, id: EventId, count: u64) {
        while self.jobs.get(id).unwrap().changed < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn reopen(self) -> Self {
        let Self { folder, clock, buffer, jobs } = self;
        buffer.close().await.unwrap();
        drop((buffer, jobs));
        let buffer = open(folder.path(), &clock);
        let jobs = Jobs::new(buffer.clone(), Clock::Manual(clock.clone()));
        jobs.start(nothing_hidden()).await.unwrap();
        Self { folder, clock, buffer, jobs }
    }
}

#[tokio::test]
async fn a_replay_takes_all_that_is_dead_oldest_first_and_a_dry_run_only_counts() {
    let bench = Bench::with_dead(600).await;
    let counted = bench.begin(Task::Replay, None, Effect::DryRun).await;
    let counted = bench.end_of(counted).await;
    assert_eq!((counted.matched, counted.changed, bench.dead().await), (600, 0, 600));
    let replayed = bench.begin(Task::Replay, None, Effect::Change).await;
    let replayed = bench.end_of(replayed).await;
    assert_eq!((replayed.matched, replayed.changed, replayed.untouched), (600, 600, 0));
    assert!((replayed.progress() - 1.0).abs() < f64::EPSILON);
    let leased = bench.buffer.lease(&app(), 600, bench.clock.now()).await.unwrap();
    assert!(leased.len() == 600 && leased.is_sorted_by_key(|l| l.event.id), "in order of acceptance");
}

#[tokio::test]
async fn a_job_goes_on_after_a_restart_where_it_was() {
    let bench = Bench::with_dead(50).await;
    let id = bench.begin(Task::Purge, Some(100), Effect::Change).await;
    bench.has_changed(id, 20).await;
    let bench = bench.reopen().await;
    let job = bench.end_of(id).await;
    assert_eq!((job.matched, job.changed, job.untouched), (50, 50, 0));
    assert_eq!(bench.buffer.stats().await.unwrap().events, 0);
}

#[tokio::test]
async fn a_job_keeps_its_pace_and_hears_what_it_is_told() {
    let bench = Bench::with_dead(40).await;
    let begun = tokio::time::Instant::now();
    let id = bench.begin(Task::Replay, Some(40), Effect::Change).await;
    bench.has_changed(id, 16).await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(290), "four at once, 40 a second: 16 in {took:?}");
    let paused = bench.jobs.tell(id, Command::Pause).await.unwrap();
    assert_eq!(paused.state, JobState::Paused);
    let bench = bench.reopen().await;
    assert_eq!(bench.jobs.get(id).unwrap().state, JobState::Paused, "over a restart");
    let before = bench.dead().await;
    // Another one passes it by.
    let other = bench.begin(Task::Replay, None, Effect::DryRun).await;
    assert_eq!((bench.end_of(other).await.matched, bench.dead().await), (before, before));
    bench.jobs.tell(id, Command::Resume).await.unwrap();
    let cancelled = bench.jobs.tell(id, Command::Cancel).await.unwrap();
    assert_eq!(cancelled.state.word(), "cancelled");
    let again = bench.jobs.tell(id, Command::Resume).await;
    assert!(matches!(again, Err(JobError::Ended("cancelled"))));
    assert!(bench.dead().await > 0, "what was left is left");
}

#[tokio::test]
async fn what_came_in_after_a_job_was_made_is_not_its_business_and_jobs_are_bounded() {
    let bench = Bench::with_dead(1).await;
    for _ in 0..MAX_OPEN {
        let id = bench.begin(Task::Replay, Some(1), Effect::DryRun).await;
        let _ = bench.jobs.tell(id, Command::Pause).await;
    }
    let open = bench.jobs.list().iter().filter(|job| job.state.ended().is_none()).count();
    let more =
        Order { task: Task::Replay, filter: EventFilter::default(), rate: None, effect: Effect::DryRun };
    assert_eq!(bench.jobs.begin(more).await.is_err(), open >= MAX_OPEN);
    for _ in 0..MAX_ENDED + 5 {
        for job in bench.jobs.list().iter().filter(|job| job.state.ended().is_none()) {
            let _ = bench.jobs.tell(job.id, Command::Cancel).await;
        }
        let id = bench.begin(Task::Replay, None, Effect::DryRun).await;
        bench.end_of(id).await;
    }
    assert!(bench.jobs.list().len() <= MAX_ENDED + 1, "old ones are forgotten");
    assert!(bench.buffer.jobs().await.unwrap().len() <= MAX_ENDED + 1);
}

#[tokio::test]
async fn an_event_is_given_to_another_destination_and_settles_with_both() {
    let bench = Bench::with_dead(2).await;
    let other = DestinationName::new("hooks", "other");
    let id = bench.begin(Task::ReplayTo { to: other.clone() }, None, Effect::Change).await;
    assert_eq!(bench.end_of(id).await.changed, 2);
    assert_eq!(bench.dead().await, 2, "they stay dead where they were");
    let again = bench.begin(Task::ReplayTo { to: other.clone() }, None, Effect::Change).await;
    assert_eq!(bench.end_of(again).await.untouched, 2, "it is under way there");
    for leased in bench.buffer.lease(&other, 2, bench.clock.now()).await.unwrap() {
        let settlement = Settlement {
            event_id: leased.event.id,
            destination: other.clone(),
            token: leased.token,
            attempt: None,
            next: Next::Delivered,
        };
        bench.buffer.settle(settlement).unwrap();
        let delivered = loop {
            let (_, deliveries) = bench.buffer.get(leased.event.id).await.unwrap().unwrap();
            assert_eq!(deliveries.len(), 2);
            if matches!(deliveries[1].state, DeliveryState::Delivered { .. }) {
                break deliveries;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(delivered[1].destination, other);
    }
    let purged = bench.begin(Task::Purge, None, Effect::Change).await;
    assert_eq!(bench.end_of(purged).await.changed, 2, "settled altogether, they may go");
}
