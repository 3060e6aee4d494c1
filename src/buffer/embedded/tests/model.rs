//! Random histories against a simple model in memory, with restarts in between; and a count of everything in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;

use super::*;
use crate::config::RouteKeep;
use crate::seal::testing::keyring;

/// Everything in the store fits together.
pub(super) fn audit(buffer: &Embedded) {
    let store = buffer.shared.store().unwrap();
    let found = check::check(&store, store.commit().unwrap().unwrap());
    assert_eq!(found, []);
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        to: u8,
        claim: Option<u8>,
        big: bool,
    },
    Lease {
        to: u8,
        max: usize,
    },
    Settle {
        which: prop::sample::Index,
        next: ModelNext,
    },
    Advance {
        secs: u64,
    },
    Replay {
        which: Option<prop::sample::Index>,
    },
    GiveUp {
        which: Option<prop::sample::Index>,
    },
    Purge {
        which: Option<prop::sample::Index>,
    },
    /// Gives an event to a destination, as the step of a job.
    Give {
        which: prop::sample::Index,
        to: u8,
    },
    Sweep,
    /// Others fill the volume, and leave it again.
    Full,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum ModelNext {
    Delivered,
    Retry(u64),
    Dead,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let next = prop_oneof![
        3 => Just(ModelNext::Delivered),
        3 => (0u64..50).prop_map(ModelNext::Retry),
        1 => Just(ModelNext::Dead),
        1 => Just(ModelNext::Release),
    ];
    let step = prop_oneof![
        8 => (0u8..4, prop::option::of(0u8..6), any::<bool>())
            .prop_map(|(to, claim, big)| Step::Append { to, claim, big }),
        5 => (0u8..2, 1usize..6).prop_map(|(to, max)| Step::Lease { to, max }),
        8 => (index(), next).prop_map(|(which, next)| Step::Settle { which, next }),
        2 => (0u64..40).prop_map(|secs| Step::Advance { secs }),
        1 => prop::option::of(index()).prop_map(|which| Step::Replay { which }),
        2 => prop::option::of(index()).prop_map(|which| Step::GiveUp { which }),
        1 => prop::option::of(index()).prop_map(|which| Step::Purge { which }),
        1 => (index(), 0u8..2).prop_map(|(which, to)| Step::Give { which, to }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Full),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..90)
}

/// What should be.
#[derive(Default)]
struct Model {
    /// By event: the state of each delivery and its attempts.
    events: BTreeMap<EventId, BTreeMap<u8, (DeliveryState, u32)>>,
    claims: BTreeMap<u8, (EventId, Timestamp)>,
    /// By destination: due and order of entry → event.
    queues: [BTreeMap<Place, EventId>; 2],
    /// Handed back: they come first.
    returned: [BTreeMap<Place, EventId>; 2],
    leased: Vec<(u8, Leased)>,
    entered: u64,
    settled: BTreeMap<EventId, (bool, Timestamp)>,
}

type Place = (u64, u64);

impl Model {
    fn enter(&mut self, to: u8, due: u64, id: EventId) {
        self.entered += 1;
        self.queues[usize::from(to)].insert((due, self.entered), id);
    }
    /// Takes note of the retention of an event whose deliveries are all settled.
    fn keep(&mut self, id: EventId) {
        let deliveries = self.events[&id].values();
        let times: Vec<_> = deliveries
            .filter_map(|(state, _)| match state {
                DeliveryState::Delivered { at } => Some((false, *at)),
                DeliveryState::Dead { at, .. } => Some((true, *at)),
                _ => None,
            })
            .collect();
        if times.len() == self.events[&id].len() {
            let at = times.iter().map(|t| t.1).max().unwrap_or(START);
            self.settled.insert(id, (times.iter().any(|t| t.0), at));
        }
    }
    /// What a lease may return, in order.
    fn due(&self, to: u8, now: Timestamp) -> Vec<EventId> {
        let (queue, returned) = (&self.queues[usize::from(to)], &self.returned[usize::from(to)]);
        let first = returned.range(..=(now.0, u64::MAX)).map(|(_, id)| *id);
        let retries = queue.range((1, 0)..=(now.0, u64::MAX)).map(|(_, id)| *id);
        let fresh = queue.range(..(1, 0)).map(|(_, id)| *id);
        first.chain(retries).chain(fresh).collect()
    }
    fn take(&mut self, to: u8, id: EventId) {
        let of = usize::from(to);
        self.returned[of].retain(|_, found| *found != id);
        self.queues[of].retain(|_, found| *found != id);
    }
}

fn destination(to: u8) -> DestinationName {
    if to == 0 { app() } else { other() }
}

fn destinations(to: u8) -> Vec<u8> {
    match to {
        0 => vec![0],
        1 => vec![1],
        2 => vec![0, 1],
        _ => vec![],
    }
}

#[derive(Clone, Copy, Debug)]
enum Store {
    Plain,
    SealedWithRetentionOfTheRoute,
}

async fn run(steps: Vec<Step>, kind: Store) {
    let (delivered, dead) = (Duration::from_secs(60), Duration::from_secs(100));
    let mut bench = Bench::with(|s| match kind {
        Store::Plain => (s.keep_delivered, s.keep_dead) = (delivered, dead),
        // The general rule would keep them for longer, or not as long.
        Store::SealedWithRetentionOfTheRoute => {
            s.encryption = keyring(&[1]);
            (s.keep_delivered, s.keep_dead) = (Duration::from_secs(3600), Duration::from_secs(1));
            let keep = RouteKeep { delivered: Some(delivered), dead: Some(dead), ..RouteKeep::default() };
            s.keep_of_routes = vec![("hooks".into(), keep)];
        }
    });
    let mut model = Model::default();
    let mut was_full = false;
    for step in steps {
        let now = bench.now();
        match step {
            Step::Append { to, claim, big } => append(&bench, &mut model, to, claim, big).await,
            Step::Lease { to, max } => {
                let due = model.due(to, now);
                let leased = bench.buffer.lease(&destination(to), max, now).await.unwrap();
                let ids: Vec<_> = leased.iter().map(|l| l.event.id).collect();
                assert!(ids.len() <= max && ids[..] == due[..ids.len()], "{ids:?} of {due:?}");
                assert_eq!(ids.is_empty(), due.is_empty());
                for one in leased {
                    assert_eq!(one.attempts, model.events[&one.event.id][&to].1);
                    model.take(to, one.event.id);
                    model.leased.push((to, one));
                }
            }
            Step::Settle { which, next } => {
                if !model.leased.is_empty() {
                    let (to, leased) = model.leased.swap_remove(which.index(model.leased.len()));
                    settle(&bench, &mut model, to, &leased, next);
                }
            }
            Step::Advance { secs } => bench.clock.advance(Duration::from_secs(secs)),
            Step::Replay { which } => replay(&bench, &mut model, which).await,
            Step::GiveUp { which } => give_up(&bench, &mut model, which).await,
            Step::Purge { which } => purge(&bench, &mut model, which).await,
            Step::Give { which, to } => give(&bench, &mut model, which, to).await,
            Step::Sweep => sweep(&bench, &mut model).await,
            // Once a history: it is the dearest of all.
            Step::Full if was_full => {}
            Step::Full => {
                was_full = true;
                full(&bench, &mut model).await;
            }
            Step::Reopen => {
                sweep(&bench, &mut model).await;
                audit(&bench.buffer);
                bench = bench.reopen();
                // Leases are due again: back into the queue, in their old places.
                for (to, leased) in model.leased.drain(..) {
                    let place = (leased.token.due, leased.token.seq);
                    model.returned[usize::from(to)].insert(place, leased.event.id);
                }
                reorder(&bench, &mut model).await;
            }
        }
        let next = |to: u8| {
            let of = usize::from(to);
            let all = model.queues[of].keys().chain(model.returned[of].keys());
            all.map(|p| p.0).filter(|due| *due > 0).min().map(Timestamp)
        };
        for to in 0..2 {
            assert_eq!(bench.buffer.next_due(&destination(to)).await.unwrap(), next(to), "next due");
        }
    }
    check(&bench, &mut model).await;
}

/// Deletes what is past its time, here and there.
async fn sweep(bench: &Bench, model: &mut Model) {
    bench.settled().await;
    bench.buffer.sweep().await.unwrap();
    let now = bench.now();
    model.settled.retain(|id, (dead, at)| {
        let keep = Duration::from_secs(if *dead { 100 } else { 60 });
        let stays = now.saturating_sub(keep) < *at;
        if !stays {
            model.events.remove(id);
        }
        stays
    });
}

/// While there is no room at all, all that is delivered and only kept gives way, and nothing else; then there is room again.
async fn full(bench: &Bench, model: &mut Model) {
    sweep(bench, model).await;
    let shared = &bench.buffer.shared;
    let before = shared.marks();
    let mut none = (*before).clone();
    none.min_free = u64::MAX / 4;
    shared.set_marks(none);
    model.settled.retain(|id, (dead, _)| {
        if !*dead {
            model.events.remove(id);
        }
        *dead
    });
    let left = model.events.len() as u64;
    // Each makes the committer look at the disk, if that is due.
    let look = async || bench.buffer.sweep().await.unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !matches!(bench.buffer.admission(), Admission::Full(_)) || shared.events.load(SeqCst) > left {
        assert!(std::time::Instant::now() < until, "{} events, not {left}", shared.events.load(SeqCst));
        look().await;
    }
    assert_eq!(shared.events.load(SeqCst), left);
    let refused = bench.buffer.append(bench.event("too much"), &[app()], None).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    shared.set_marks((*before).clone());
    while bench.buffer.admission() != Admission::Open {
        assert!(std::time::Instant::now() < until, "it opens again");
        look().await;
    }
}

/// After a restart the order is that of the queues alone.
async fn reorder(bench: &Bench, model: &mut Model) {
    let store = bench.buffer.shared.store().unwrap();
    for to in 0..2u8 {
        let of = usize::from(to);
        let held: BTreeSet<_> =
            model.queues[of].values().chain(model.returned[of].values()).copied().collect();
        model.queues[of].clear();
        model.returned[of].clear();
        let Some(lane) = bench.buffer.shared.known_lane(&destination(to)) else { continue };
        let mut found = BTreeSet::new();
        let fresh = store.queue(keys::fresh(lane.id, 0), keys::fresh(lane.id, u64::MAX));
        let retry = store.queue(keys::retry(lane.id, 0, 0), keys::retry(lane.id, u64::MAX, u64::MAX));
        for (key, entry) in fresh.map(Result::unwrap) {
            model.enter(to, 0, entry.event);
            assert!(found.insert(entry.event) && key[0] == b'F');
        }
        for (key, entry) in retry.map(Result::unwrap) {
            // Retries keep the number that they were leased by, as in `settle`.
            let place = (keys::u64_at(&key, 5).unwrap(), keys::u64_at(&key, 13).unwrap());
            assert!(model.queues[of].insert(place, entry.event).is_none());
            assert!(found.insert(entry.event));
        }
        assert_eq!(found, held, "what is queued after a restart");
    }
}

async fn append(bench: &Bench, model: &mut Model, to: u8, key: Option<u8>, big: bool) {
    let now = bench.now();
    let event = bench.event(if big { "long ".repeat(500) } else { "short".into() }.as_str());
    let id = event.id;
    let names: Vec<_> = destinations(to).into_iter().map(destination).collect();
    let outcome = bench.buffer.append(event, &names, key.map(|k| claim(k.into()))).await.unwrap();
    if let Some(key) = key {
        if let Some((first, expires)) = model.claims.get(&key)
            && *expires > now
        {
            assert!(matches!(outcome, Appended::Duplicate(c) if c.event_id == *first));
            return;
        }
        model.claims.insert(key, (id, now.saturating_add(Duration::from_secs(60))));
    }
    assert_eq!(outcome, Appended::Stored);
    let deliveries = destinations(to).into_iter().map(|d| (d, (DeliveryState::Pending, 0))).collect();
    model.events.insert(id, deliveries);
    for to in destinations(to) {
        model.enter(to, 0, id);
    }
    if to == 3 {
        model.settled.insert(id, (false, now));
    }
}

fn settle(bench: &Bench, model: &mut Model, to: u8, leased: &Leased, next: ModelNext) {
    let (now, id) = (bench.now(), leased.event.id);
    let retry_at = |secs| now.saturating_add(Duration::from_secs(secs));
    bench.settle(
        leased,
        match next {
            ModelNext::Delivered => Next::Delivered,
            ModelNext::Retry(secs) => Next::Retry(retry_at(secs)),
            ModelNext::Dead => Next::Dead(DeadReason::GivenUp),
            ModelNext::Release => Next::Release,
        },
    );
    let delivery = model.events.get_mut(&id).and_then(|e| e.get_mut(&to)).expect("leased, so it is known");
    match next {
        ModelNext::Release => {
            model.returned[usize::from(to)].insert((leased.token.due, leased.token.seq), id);
            return;
        }
        ModelNext::Delivered => delivery.0 = DeliveryState::Delivered { at: now },
        ModelNext::Dead => delivery.0 = DeliveryState::Dead { at: now, reason: DeadReason::GivenUp },
        ModelNext::Retry(secs) => {
            // Never in its old place, even if due in the same millisecond.
            let next_at = retry_at(secs).max(Timestamp(leased.token.due.saturating_add(1)));
            delivery.0 = DeliveryState::Retrying { next_at };
            // It keeps its place among those that are due at the same time.
            model.queues[usize::from(to)].insert((next_at.0, leased.token.seq), id);
        }
    }
    delivery.1 += 1;
    if !matches!(next, ModelNext::Retry(_)) {
        model.keep(id);
    }
}

async fn replay(bench: &Bench, model: &mut Model, which: Option<prop::sample::Index>) {
    sweep(bench, model).await;
    let ids: Vec<_> = model.events.keys().copied().collect();
    let (selection, chosen): (_, Vec<_>) = match which {
        Some(_) if ids.is_empty() => return,
        Some(which) => (
            Selection::One(ids[which.index(ids.len())], EventFilter::default()),
            vec![ids[which.index(ids.len())]],
        ),
        None => {
            let filter = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
            (Selection::Matching(filter), ids)
        }
    };
    let dead_only = which.is_none();
    let mut expected = 0;
    for id in chosen {
        let mut again = Vec::new();
        for (to, delivery) in model.events.get_mut(&id).expect("chosen from it") {
            let matches = match delivery.0 {
                DeliveryState::Dead { .. } => true,
                DeliveryState::Delivered { .. } => !dead_only,
                _ => false,
            };
            if matches {
                *delivery = (DeliveryState::Pending, 0);
                again.push(*to);
            }
        }
        expected += again.len() as u64;
        if !again.is_empty() {
            model.settled.remove(&id);
        }
        again.into_iter().for_each(|to| model.enter(to, 0, id));
    }
    assert_eq!(bench.buffer.replay(selection).await.unwrap(), expected, "replayed");
}

async fn give(bench: &Bench, model: &mut Model, which: prop::sample::Index, to: u8) {
    sweep(bench, model).await;
    let ids: Vec<_> = model.events.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = ids[which.index(ids.len())];
    let deliveries = model.events.get_mut(&id).expect("chosen from it");
    let under_way = deliveries
        .get(&to)
        .is_some_and(|(state, _)| matches!(state, DeliveryState::Pending | DeliveryState::Retrying { .. }));
    if !under_way {
        deliveries.insert(to, (DeliveryState::Pending, 0));
        model.settled.remove(&id);
        model.enter(to, 0, id);
    }
    let job = Job {
        id: EventId([1; 16]),
        task: Task::ReplayTo { to: destination(to) },
        effect: Effect::Change,
        filter: EventFilter::default(),
        rate: None,
        state: JobState::Running,
        created: bench.now(),
        from: None,
        cursor: Some(id),
        examined: 1,
        matched: 1,
        changed: 10,
        untouched: 10,
        answers: 0,
    };
    let done = bench
        .buffer
        .step(crate::buffer::Step { events: vec![id], ..crate::buffer::Step::of(job) })
        .await
        .unwrap();
    let expected = if under_way { (10, 11) } else { (11, 10) };
    assert_eq!((done.changed, done.untouched), expected);
    assert_eq!(bench.buffer.jobs().await.unwrap(), [done], "written with what it did");
}

async fn give_up(bench: &Bench, model: &mut Model, which: Option<prop::sample::Index>) {
    sweep(bench, model).await;
    let ids: Vec<_> = model.events.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let (selection, chosen): (_, Vec<_>) = match which {
        Some(which) => {
            let id = ids[which.index(ids.len())];
            (Selection::One(id, EventFilter::default()), vec![id])
        }
        None => {
            let filter = EventFilter { state: Some("retrying".into()), ..EventFilter::default() };
            (Selection::Matching(filter), ids)
        }
    };
    let (now, mut expected) = (bench.now(), GivenUp::default());
    for id in chosen {
        let mut gone = Vec::new();
        for (to, (state, _)) in model.events.get_mut(&id).expect("chosen from it") {
            let matches = match state {
                DeliveryState::Pending => which.is_some(),
                DeliveryState::Retrying { .. } => true,
                _ => false,
            };
            let leased = model.leased.iter().any(|(of, leased)| of == to && leased.event.id == id);
            match (matches, leased) {
                (false, _) => {}
                (true, true) => expected.under_way += 1,
                (true, false) => {
                    *state = DeliveryState::Dead { at: now, reason: DeadReason::ByOperator };
                    gone.push(*to);
                }
            }
        }
        expected.count += gone.len() as u64;
        let any = !gone.is_empty();
        gone.into_iter().for_each(|to| model.take(to, id));
        if any {
            model.keep(id);
        }
    }
    assert_eq!(bench.buffer.give_up(selection).await.unwrap(), expected, "given up");
}

async fn purge(bench: &Bench, model: &mut Model, which: Option<prop::sample::Index>) {
    sweep(bench, model).await;
    let ids: Vec<_> = model.events.keys().copied().collect();
    let (selection, chosen) = match which {
        Some(_) if ids.is_empty() => return,
        Some(which) => (
            Selection::One(ids[which.index(ids.len())], EventFilter::default()),
            vec![ids[which.index(ids.len())]],
        ),
        None => {
            let filter = EventFilter { state: Some("delivered".into()), ..EventFilter::default() };
            let is_delivered = |id: &EventId| {
                model.events[id].values().any(|d| matches!(d.0, DeliveryState::Delivered { .. }))
            };
            (Selection::Matching(filter), ids.into_iter().filter(is_delivered).collect())
        }
    };
    let mut expected = 0;
    for id in chosen {
        if model.settled.remove(&id).is_some() {
            model.events.remove(&id);
            expected += 1;
        }
    }
    assert_eq!(bench.buffer.purge(selection).await.unwrap(), expected, "purged");
}

async fn check(bench: &Bench, model: &mut Model) {
    sweep(bench, model).await;
    audit(&bench.buffer);
    let page = bench.buffer.search(Search::new(EventFilter::default(), 10_000)).await.unwrap();
    let listed: BTreeSet<_> = page.events.iter().map(|(e, _)| e.id).collect();
    assert_eq!(listed, model.events.keys().copied().collect(), "the events that are kept");
    for (event, deliveries) in page.events {
        for delivery in deliveries {
            let to = u8::from(delivery.destination == other());
            let (state, attempts) = &model.events[&event.id][&to];
            assert_eq!((&delivery.state, delivery.attempts), (state, *attempts));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_end_as_the_model_says(steps in steps(), sealed: bool) {
        let kind = if sealed { Store::SealedWithRetentionOfTheRoute } else { Store::Plain };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps, kind));
    }
}
