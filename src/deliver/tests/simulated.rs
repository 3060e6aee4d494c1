//! Random histories of one destination with all that it may have at once: order, batches, a breaker, an adaptive operator.
//! A simulated clock, app and buffer; what must hold is looked at with every attempt, and a history that breaks it is
//! shrunk to the least that does.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::sleep;

use crate::breaker::{Breakers, Phase};
use crate::buffer::{Buffer, DeadReason, Event, EventId, LaneKey};
use crate::clock::Clock;
use crate::config::{Batch, BatchFormat, BreakerSettings, Destination, OnFailure, Order, Retry};
use crate::deliver::Inner;
use crate::deliver::batch::BatchAnswered;
use crate::deliver::classify::Answered;
use crate::deliver::worker::App;
use crate::pauses::Pauses;
use crate::route::PathPattern;
use crate::trace::Span;
use crate::upstream::UpstreamError;
use crate::upstream::batch::Part;
use crate::upstream::testing::destination;
use crate::verify::{Extract, JsonPointer};

use super::fake::*;

/// Histories, unless `HISTORIES` says otherwise.
const HISTORIES: u32 = 3000;
const ATTEMPTS: u32 = 4;
const MAX_BYTES: usize = 20;
const BODY: &[u8] = b"{\"n\":1}";

/// What a reload may change.
#[derive(Clone, Copy, Debug)]
struct Knobs {
    concurrency: usize,
    /// Milliseconds.
    first_retry: u64,
    breaker: Option<(u32, u64, u64)>,
    /// Events, milliseconds, and whether the app answers for each.
    batch: Option<(usize, u64, bool)>,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Well,
    Sick,
    /// As sick, and asks for so many seconds.
    Asks(u8),
    Refuses,
    Silent,
    /// Nothing can be sent: ours.
    Nameless,
    /// One of these, and well more often than not.
    Flaky,
}

#[derive(Clone, Debug)]
enum Step {
    /// `poison`: the app never takes it, until the end.
    Arrive {
        key: Option<u8>,
        poison: bool,
    },
    Mood(Mood),
    Reload(Knobs),
    /// Without the destination.
    Remove,
    Restart {
        grace: u64,
    },
    GiveUp(prop::sample::Index),
    Unpark,
    Hope,
    Pause,
    Resume,
    Wait(u64),
}

#[derive(Clone, Debug)]
struct History {
    order: Option<OnFailure>,
    first: Knobs,
    steps: Vec<Step>,
    dice: u64,
}

fn knobs() -> impl Strategy<Value = Knobs> {
    let breaker = (1u32..5, 1u64..800, 0u64..1500);
    let batch = (1usize..6, 0u64..100, any::<bool>());
    (1usize..6, 1u64..200, prop::option::weighted(0.8, breaker), prop::option::of(batch)).prop_map(
        |(concurrency, first_retry, breaker, batch)| Knobs { concurrency, first_retry, breaker, batch },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        3 => Just(Mood::Well),
        2 => Just(Mood::Sick),
        1 => (1u8..4).prop_map(Mood::Asks),
        1 => Just(Mood::Refuses),
        1 => Just(Mood::Silent),
        1 => Just(Mood::Nameless),
        3 => Just(Mood::Flaky),
    ];
    let key = prop::option::weighted(0.8, 0u8..3);
    prop_oneof![
        12 => (key, prop::bool::weighted(0.1)).prop_map(|(key, poison)| Step::Arrive { key, poison }),
        4 => mood.prop_map(Step::Mood),
        6 => (1u64..600).prop_map(Step::Wait),
        1 => knobs().prop_map(Step::Reload),
        1 => Just(Step::Remove),
        1 => (0u64..200).prop_map(|grace| Step::Restart { grace }),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
        1 => Just(Step::Unpark),
        1 => Just(Step::Hope),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let on_failure = prop::sample::select(vec![OnFailure::Block, OnFailure::Park, OnFailure::Skip]);
    let order = prop::option::weighted(0.8, on_failure);
    (order, knobs(), prop::collection::vec(step(), 1..60), any::<u64>())
        .prop_map(|(order, first, steps, dice)| History { order, first, steps, dice })
}

fn settings(knobs: Knobs, order: Option<OnFailure>) -> Arc<Destination> {
    let Knobs { concurrency, first_retry, breaker, batch } = knobs;
    Arc::new(Destination {
        concurrency,
        retry: Retry {
            first: Duration::from_millis(first_retry),
            max: Duration::from_millis(first_retry * 8),
            attempts: ATTEMPTS,
            ..Retry::default()
        },
        breaker: breaker.map(|(failures, probe_after, slow_start)| BreakerSettings {
            failures,
            probe_after: Duration::from_millis(probe_after),
            slow_start: Duration::from_millis(slow_start),
            ..BreakerSettings::default()
        }),
        batch: batch.map(|(max_events, max_wait, each)| Batch {
            max_events,
            max_bytes: MAX_BYTES,
            max_wait: Duration::from_millis(max_wait),
            format: BatchFormat::JsonArray,
            statuses: each.then(|| JsonPointer::parse("/r").unwrap()),
        }),
        order: order.map(|on_failure| {
            let (by, path) = (Extract::parse("body:/n").unwrap(), PathPattern::parse("/hook").unwrap());
            Arc::new(Order { by, on_failure, path })
        }),
        ..destination("http://app")
    })
}

/// The app, and what is found wrong by it.
#[derive(Clone)]
struct World(Arc<Inside>);

struct Inside {
    memory: Arc<Memory>,
    on_failure: Option<OnFailure>,
    mood: Mutex<Mood>,
    poison: Mutex<HashSet<EventId>>,
    dice: Mutex<Rng>,
    /// Of this process.
    breakers: Mutex<Arc<Breakers>>,
    /// Half-openings that have had their probe.
    probed: Mutex<u64>,
    requests: Mutex<usize>,
    lanes: Mutex<HashSet<LaneKey>>,
    taken: Mutex<HashSet<EventId>>,
    wrong: Mutex<Vec<String>>,
}

impl World {
    fn says(&self, wrong: String) {
        self.0.wrong.lock().push(wrong);
    }

    /// What must hold when a request begins.
    fn begins(&self, to: &Destination, events: &[(&Event, u32)]) -> Request {
        let under_way = {
            let mut requests = self.0.requests.lock();
            *requests += 1;
            *requests
        };
        let status = self.0.breakers.lock().of(&to.name).status();
        let mut allowed = to.concurrency;
        match status.phase {
            // What was let go in the very moment in which it opened was let go before.
            Phase::Open if status.since != Some(Duration::ZERO) => {
                self.says(format!("a request while the breaker is open: {status:?}"));
            }
            Phase::Open => {}
            Phase::HalfOpen => {
                let mut probed = self.0.probed.lock();
                if *probed == status.transitions.half_opened {
                    self.says(format!("a second probe: {status:?}"));
                }
                *probed = status.transitions.half_opened;
            }
            Phase::SlowStart => {
                let (since, all) = (status.since.unwrap_or_default(), to.breaker.as_ref());
                let share = since.as_secs_f64() / all.map_or(1.0, |all| all.slow_start.as_secs_f64());
                allowed = allowed.min((share * to.concurrency as f64 + 1e-9) as usize).max(1);
            }
            Phase::Closed => {}
        }
        if under_way > allowed {
            self.says(format!("{under_way} under way, {allowed} allowed: {status:?}"));
        }
        let mut lanes = Vec::new();
        for (event, number) in events {
            let entry = self.0.memory.entry(event.id);
            if *number != entry.attempts.len() as u32 + 1 {
                self.says(format!("attempt {number} of one with {} attempts", entry.attempts.len()));
            }
            if *number > ATTEMPTS && !(entry.lane.is_some() && self.0.on_failure == Some(OnFailure::Block)) {
                self.says(format!("attempt {number} is beyond the budget"));
            }
            let Some(lane) = entry.lane else { continue };
            if self.0.memory.first_of(lane) != Some(event.id) {
                self.says(format!("{} passes another of its key", event.id));
            }
            if !self.0.lanes.lock().insert(lane) {
                self.says(format!("two of a key at once: {}", event.id));
            }
            lanes.push(lane);
        }
        Request { world: self.clone(), lanes }
    }

    fn answer(&self, id: EventId) -> (Duration, Result2) {
        let mut dice = self.0.dice.lock();
        let wait = Duration::from_millis(dice.u64(0..150));
        let mut mood = *self.0.mood.lock();
        if let Mood::Flaky = mood {
            let moods = [Mood::Sick, Mood::Asks(1), Mood::Refuses, Mood::Silent, Mood::Nameless];
            mood = moods.get(dice.usize(0..12)).copied().unwrap_or(Mood::Well);
        }
        let asks = |seconds: u8| Ok(Answered { status: 503, retry_after: Some(seconds.to_string().into()) });
        let result = match mood {
            _ if self.0.poison.lock().contains(&id) => status(if dice.u8(0..8) == 0 { 410 } else { 500 }),
            Mood::Well | Mood::Flaky => status(200),
            Mood::Sick => status(503),
            Mood::Asks(seconds) => asks(seconds),
            Mood::Refuses => Err(UpstreamError::Connect("refused".into())),
            Mood::Silent => Err(UpstreamError::Timeout("answer")),
            Mood::Nameless => Err(UpstreamError::Dns("no address".into())),
        };
        (wait, result)
    }

    fn took(&self, id: EventId) {
        self.0.taken.lock().insert(id);
    }
}

/// Under way, until it ends, however it does.
struct Request {
    world: World,
    lanes: Vec<LaneKey>,
}

impl Drop for Request {
    fn drop(&mut self) {
        *self.world.0.requests.lock() -= 1;
        let mut lanes = self.world.0.lanes.lock();
        self.lanes.iter().for_each(|lane| {
            lanes.remove(lane);
        });
    }
}

fn is_well(result: &Result2) -> bool {
    matches!(result, Ok(Answered { status: 200, .. }))
}

impl App for World {
    async fn attempt(&self, to: &Destination, event: &Event, number: u32, _: Option<&Span>) -> Result2 {
        let _request = self.begins(to, &[(event, number)]);
        let (wait, result) = self.answer(event.id);
        sleep(wait).await;
        if is_well(&result) {
            self.took(event.id);
        }
        result
    }

    async fn batch(
        &self,
        to: &Destination,
        settings: &Batch,
        parts: &[Part<'_>],
        _: Option<&Span>,
    ) -> Result<BatchAnswered, UpstreamError> {
        let events: Vec<(&Event, u32)> = parts.iter().map(|part| (part.event, part.attempt)).collect();
        let bytes: usize = events.iter().map(|(event, _)| event.body.len()).sum();
        if events.len() > settings.max_events || (events.len() > 1 && bytes > settings.max_bytes) {
            self.says(format!("a batch of {} events, {bytes} bytes", events.len()));
        }
        let _request = self.begins(to, &events);
        let answers: Vec<(Duration, Result2)> =
            events.iter().map(|(event, _)| self.answer(event.id)).collect();
        sleep(answers.iter().map(|(wait, _)| *wait).max().unwrap_or_default()).await;
        let worst = answers.iter().position(|(_, result)| !is_well(result));
        let ids = || events.iter().map(|(event, _)| event.id);
        if settings.statuses.is_some() && answers.iter().all(|(_, result)| result.is_ok()) {
            let statuses: Vec<u16> =
                answers.iter().flat_map(|(_, result)| result).map(|of| of.status).collect();
            ids().zip(&statuses).filter(|(_, status)| **status == 200).for_each(|(id, _)| self.took(id));
            let body = serde_json::json!({ "r": statuses }).to_string().into_bytes();
            return Ok(BatchAnswered {
                answered: Answered { status: 200, retry_after: None },
                body,
                cut: false,
            });
        }
        let answered = match worst {
            None => {
                ids().for_each(|id| self.took(id));
                Answered { status: 200, retry_after: None }
            }
            Some(at) => answers.into_iter().nth(at).unwrap().1?,
        };
        Ok(BatchAnswered { answered, body: Vec::new(), cut: false })
    }
}

struct Bench {
    history: History,
    memory: Arc<Memory>,
    clock: Clock,
    pauses: Pauses,
    world: World,
    given_up: HashSet<EventId>,
}

impl Bench {
    fn new(history: History) -> Self {
        let memory = Arc::new(Memory::default());
        let pauses = Pauses::new(memory.clone() as Arc<dyn Buffer>);
        let world = World(Arc::new(Inside {
            memory: memory.clone(),
            on_failure: history.order,
            mood: Mutex::new(Mood::Well),
            poison: Mutex::default(),
            dice: Mutex::new(Rng::with_seed(history.dice)),
            breakers: Mutex::default(),
            probed: Mutex::default(),
            requests: Mutex::default(),
            lanes: Mutex::default(),
            taken: Mutex::default(),
            wrong: Mutex::default(),
        }));
        Self { history, memory, clock: clock(), pauses, world, given_up: HashSet::new() }
    }

    fn start(&self) -> Inner<World> {
        let seams =
            crate::deliver::Seams { pauses: self.pauses.watch(), ..seams(self.memory.clone(), &self.clock) };
        *self.world.0.breakers.lock() = seams.breakers.clone();
        *self.world.0.probed.lock() = 0;
        Inner::new(seams)
    }

    fn apply(&self, deliverer: &Inner<World>, knobs: Knobs) {
        deliverer.apply(vec![(settings(knobs, self.history.order), self.world.clone())]);
    }

    async fn run(mut self) -> Result<(), TestCaseError> {
        let mut knobs = self.history.first;
        let mut deliverer = self.start();
        let name = settings(knobs, None).name.clone();
        self.apply(&deliverer, knobs);
        for step in self.history.steps.clone() {
            match step {
                Step::Arrive { key, poison } => {
                    let key = key.filter(|_| self.history.order.is_some());
                    let id = self.memory.add_to(key.map(|key| LaneKey([key; 8])), self.clock.now(), BODY);
                    if poison {
                        self.world.0.poison.lock().insert(id);
                    }
                }
                Step::Mood(mood) => *self.world.0.mood.lock() = mood,
                Step::Reload(new) => {
                    knobs = new;
                    self.apply(&deliverer, knobs);
                }
                Step::Remove => deliverer.apply(Vec::new()),
                Step::Restart { grace } => {
                    deliverer.shutdown(Duration::from_millis(grace)).await;
                    let kept = self.memory.count(|state| matches!(state, State::Leased { .. }));
                    prop_assert_eq!(kept, 0, "kept a lease");
                    deliverer = self.start();
                    self.apply(&deliverer, knobs);
                }
                Step::GiveUp(which) => {
                    let ids: Vec<EventId> =
                        self.memory.entries.lock().values().map(|entry| entry.event.id).collect();
                    if !ids.is_empty() {
                        let id = ids[which.index(ids.len())];
                        if self.memory.give_up(id) {
                            self.given_up.insert(id);
                        }
                    }
                }
                Step::Unpark => self.memory.unpark(self.clock.now()),
                Step::Hope => self.world.0.breakers.lock().of(&name).probe_soon("a test"),
                Step::Pause => {
                    self.pauses.pause(&name.0, self.clock.now()).await.unwrap();
                }
                Step::Resume => {
                    self.pauses.resume(&name.0).await.unwrap();
                }
                Step::Wait(ms) => sleep(Duration::from_millis(ms)).await,
            }
        }
        self.ends(deliverer, knobs).await
    }

    /// The app gets well, an operator sees to what is parked: in the end all is done with.
    async fn ends(self, deliverer: Inner<World>, knobs: Knobs) -> Result<(), TestCaseError> {
        *self.world.0.mood.lock() = Mood::Well;
        self.world.0.poison.lock().clear();
        let _ = self.pauses.resume(&settings(knobs, None).name.0).await;
        self.apply(&deliverer, knobs);
        let all_done = async {
            while !self.memory.settled() {
                sleep(Duration::from_millis(100)).await;
                self.memory.unpark(self.clock.now());
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(600), all_done).await;
        prop_assert!(done.is_ok(), "stuck: {:?}", self.memory.entries.lock());
        deliverer.shutdown(Duration::ZERO).await;
        let wrong = std::mem::take(&mut *self.world.0.wrong.lock());
        prop_assert!(wrong.is_empty(), "{wrong:?}");
        for entry in self.memory.entries.lock().values() {
            let (id, made) = (entry.event.id, entry.attempts.len() as u32);
            let blocks = entry.lane.is_some() && self.history.order == Some(OnFailure::Block);
            match entry.state {
                State::Delivered => prop_assert!(self.world.0.taken.lock().contains(&id), "{id} never came"),
                State::Dead(DeadReason::ByOperator) => prop_assert!(self.given_up.contains(&id)),
                State::Dead(DeadReason::AttemptsExhausted) => {
                    prop_assert!(made == ATTEMPTS && !blocks, "{made} attempts");
                }
                State::Dead(DeadReason::GivenUp) => prop_assert!(made >= 1),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        Ok(())
    }
}

fn histories() -> u32 {
    std::env::var("HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(HISTORIES)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Nothing is lost, the order of each key is kept and so are the budgets, nothing is sent while the breaker is open,
    /// one probe at a time, and a slow start is never exceeded; in batches, too.
    #[test]
    fn whatever_happens_the_promises_are_kept(history in history()) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { Bench::new(history).run().await })?;
    }
}
