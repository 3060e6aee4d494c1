//! Lanes: whatever the outcomes, crashes and operators do, a lane's deliveries come one by one, as they were accepted.

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use super::model::audit;
use super::*;

/// The first byte of a body is the key; `-` is none.
#[derive(Debug)]
struct ByFirstByte;

impl LaneBy for ByFirstByte {
    fn lane(&self, event: &Event) -> Option<LaneKey> {
        event.body.first().filter(|key| **key != b'-').map(|key| LaneKey::new(&[*key]))
    }
}

fn ordered(bench: Bench) -> Bench {
    bench.buffer.order(vec![(app(), Arc::new(ByFirstByte))]);
    bench
}

fn bodies(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(|one| std::str::from_utf8(&one.event.body).unwrap()).collect()
}

fn later(bench: &Bench, secs: u64) -> Timestamp {
    bench.now().saturating_add(Duration::from_secs(secs))
}

async fn stuck(bench: &Bench) -> Vec<(Standstill, EventId, u64)> {
    let lanes = bench.buffer.lanes(LaneSearch { destination: None, lane: None, limit: 100 }).await.unwrap();
    lanes.into_iter().map(|lane| (lane.why, lane.head, lane.waiting)).collect()
}

#[tokio::test]
async fn a_lane_gives_its_next_when_the_one_before_is_settled_and_lanes_take_turns() {
    let bench = ordered(Bench::new());
    for body in ["a1", "a2", "a3", "b1", "-x", "b2", "-y", "c1"] {
        bench.stored(body).await;
    }
    audit(&bench.buffer);
    let leased = bench.lease(10).await;
    assert_eq!(bodies(&leased), ["a1", "b1", "-x", "-y", "c1"]);
    assert_eq!(leased[0].lane, Some(LaneKey::new(b"a")));
    assert_eq!(leased[2].lane, None);
    bench.settle(&leased[0], Next::Delivered);
    bench.settle(&leased[1], Next::Retry(later(&bench, 60)));
    bench.settled().await;
    audit(&bench.buffer);
    bench.stored("d1").await;
    bench.stored("e1").await;
    // What others waited behind and what is new take turns, whichever there is more of.
    assert_eq!(bodies(&bench.lease(2).await), ["a2", "d1"]);
    assert_eq!(bodies(&bench.lease(2).await), ["e1"], "b2 waits behind b1, a3 behind a2");
    assert_eq!(bench.stats_of(&app()).await.lanes, LaneStats { blocked: 1, parked: 0, oldest: Some(START) });
    assert_eq!(stuck(&bench).await, [(Standstill::Blocked, leased[1].event.id, 1)]);
    assert_eq!(bench.stats_of(&app()).await.backlog, 9);
}

#[tokio::test]
async fn a_parked_lane_waits_for_a_replay_which_comes_first_or_for_a_purge() {
    let bench = ordered(Bench::new());
    for body in ["a1", "a2", "a3"] {
        bench.stored(body).await;
    }
    let first = bench.lease_one().await;
    bench.settle(&first, Next::Parked(DeadReason::GivenUp));
    bench.settled().await;
    assert!(bench.lease(5).await.is_empty());
    bench.clock.advance(Duration::from_secs(30));
    bench.stored("a4").await;
    audit(&bench.buffer);
    assert_eq!(stuck(&bench).await, [(Standstill::Parked, first.event.id, 3)]);
    let stats = bench.stats_of(&app()).await;
    assert_eq!((stats.backlog, stats.dead, stats.oldest), (3, 1, Some(START)));
    let bench = ordered(bench.reopen());
    assert!(bench.lease(5).await.is_empty(), "also after a restart");
    assert_eq!(bench.stats_of(&app()).await.lanes.parked, 1);

    let one = Selection::One(first.event.id, EventFilter::default());
    assert_eq!(bench.buffer.replay(one).await.unwrap(), 1);
    audit(&bench.buffer);
    let leased = bench.lease(5).await;
    assert_eq!(bodies(&leased), ["a1"]);
    assert_eq!(leased[0].attempts, 0);
    bench.settle(&leased[0], Next::Parked(DeadReason::GivenUp));
    bench.settled().await;
    assert_eq!(bench.buffer.purge(Selection::One(first.event.id, EventFilter::default())).await.unwrap(), 1);
    audit(&bench.buffer);
    for body in ["a2", "a3", "a4"] {
        let leased = bench.lease(5).await;
        assert_eq!(bodies(&leased), [body]);
        bench.settle(&leased[0], Next::Delivered);
        bench.settled().await;
    }
    assert!(stuck(&bench).await.is_empty());
    audit(&bench.buffer);
}

#[tokio::test]
async fn a_lane_goes_on_when_its_first_is_given_up_and_what_is_leased_is_left_alone() {
    let bench = ordered(Bench::new());
    let mut ids = Vec::new();
    for body in ["a1", "a2", "a3", "a4"] {
        ids.push(bench.stored(body).await);
    }
    let first = bench.lease_one().await;
    let one = |n: usize| Selection::One(ids[n], EventFilter::default());
    assert_eq!(bench.buffer.give_up(one(0)).await.unwrap(), GivenUp { count: 0, under_way: 1 });
    bench.settle(&first, Next::Retry(later(&bench, 3600)));
    bench.settled().await;
    // One that waits behind it, and then the blocked one itself.
    for n in [2, 0] {
        assert_eq!(bench.buffer.give_up(one(n)).await.unwrap(), GivenUp { count: 1, under_way: 0 });
        audit(&bench.buffer);
    }
    assert!(stuck(&bench).await.is_empty());
    let delivery = bench.deliveries(ids[0]).await.remove(0);
    assert_eq!(delivery.state, DeliveryState::Dead { at: START, reason: DeadReason::ByOperator });
    assert_eq!((delivery.attempts, delivery.history.len(), delivery.parks), (1, 1, false));
    let stats = bench.stats_of(&app()).await;
    assert_eq!((stats.backlog, stats.dead), (2, 2));
    let bench = ordered(bench.reopen());
    // Replayed, they come behind all that wait.
    for n in [0, 2] {
        assert_eq!(bench.buffer.replay(one(n)).await.unwrap(), 1);
    }
    for body in ["a2", "a4", "a1", "a3"] {
        let leased = bench.lease(5).await;
        assert_eq!(bodies(&leased), [body]);
        bench.settle(&leased[0], Next::Delivered);
        bench.settled().await;
    }
    audit(&bench.buffer);
}

#[tokio::test]
async fn a_parked_lane_is_let_go_and_its_dead_letter_kept() {
    let bench = ordered(Bench::new());
    let first = bench.stored("a1").await;
    bench.stored("a2").await;
    let leased = bench.lease_one().await;
    bench.settle(&leased, Next::Parked(DeadReason::GivenUp));
    bench.settled().await;
    let one = || Selection::One(first, EventFilter::default());
    assert_eq!(bench.buffer.give_up(one()).await.unwrap().count, 1);
    audit(&bench.buffer);
    assert_eq!(bench.buffer.give_up(one()).await.unwrap(), GivenUp::default(), "once");
    let delivery = bench.deliveries(first).await.remove(0);
    assert_eq!(delivery.state, DeliveryState::Dead { at: START, reason: DeadReason::GivenUp });
    assert!(!delivery.parks);
    assert_eq!(bodies(&bench.lease(5).await), ["a2"]);
}

/// However a backlog came to be, all of it is found: untried, replayed, given back, imported, of lanes whose order is no more.
#[tokio::test]
async fn whatever_waits_is_found_wherever_it_stands() {
    let bench = ordered(Bench::new());
    for n in 0..40 {
        bench.clock.advance(Duration::from_secs(1));
        bench.stored(if n % 2 == 0 { "-x" } else { "k1" }).await;
    }
    // Some die and are replayed behind the others; some are given back.
    for leased in bench.lease(10).await {
        bench.settle(&leased, Next::Dead(DeadReason::TooOld));
        bench.settled().await;
    }
    let dead = EventFilter { state: Some("dead".into()), ..EventFilter::default() };
    assert_eq!(bench.buffer.replay(Selection::Matching(dead)).await.unwrap(), 10);
    for leased in bench.lease(3).await {
        bench.settle(&leased, Next::Release);
    }
    let delivery = Delivery {
        destination: app(),
        state: DeliveryState::Pending,
        attempts: 0,
        since: START.saturating_sub(Duration::from_secs(1_000_000)),
        parks: false,
        history: Vec::new(),
    };
    bench.buffer.import(bench.event("-late"), vec![delivery], None).await.unwrap();
    bench.buffer.order(Vec::new());
    let bench = bench.reopen();
    let all = Selection::Matching(EventFilter::default());
    assert_eq!(bench.buffer.give_up(all).await.unwrap(), GivenUp { count: 41, under_way: 0 });
    audit(&bench.buffer);
    assert!(bench.lease(5).await.is_empty() && bench.stats_of(&app()).await.oldest.is_none());
}

#[tokio::test]
async fn the_dead_letter_that_holds_a_lane_outlives_its_retention() {
    let bench = ordered(Bench::with(|s| s.keep_dead = Duration::from_secs(100)));
    bench.stored("a1").await;
    bench.stored("a2").await;
    let first = bench.lease_one().await;
    bench.settle(&first, Next::Parked(DeadReason::TooOld));
    bench.settled().await;
    for _ in 0..3 {
        bench.clock.advance(Duration::from_secs(101));
        bench.settled().await;
        audit(&bench.buffer);
    }
    assert_eq!(stuck(&bench).await, [(Standstill::Parked, first.event.id, 1)]);
    bench.buffer.purge(Selection::One(first.event.id, EventFilter::default())).await.unwrap();
    assert_eq!(bodies(&bench.lease(5).await), ["a2"]);
}

#[tokio::test]
async fn a_parked_lane_is_imported_as_one() {
    let bench = ordered(Bench::new());
    let delivery = |state, parks| {
        vec![Delivery { destination: app(), state, attempts: 2, since: START, parks, history: Vec::new() }]
    };
    let (dead, waits) = (bench.event("a1"), bench.event("a2"));
    let gone = DeliveryState::Dead { at: START, reason: DeadReason::TooOld };
    bench.buffer.import(dead.clone(), delivery(gone, true), None).await.unwrap();
    bench.buffer.import(waits, delivery(DeliveryState::Pending, false), None).await.unwrap();
    audit(&bench.buffer);
    assert!(bench.lease(5).await.is_empty());
    assert!(bench.deliveries(dead.id).await[0].parks);
    bench.buffer.replay(Selection::One(dead.id, EventFilter::default())).await.unwrap();
    assert_eq!(bodies(&bench.lease(5).await), ["a1"]);
}

#[tokio::test]
async fn a_lane_that_nobody_orders_any_more_drains_in_its_order() {
    let bench = ordered(Bench::new());
    for body in ["a1", "a2"] {
        bench.stored(body).await;
    }
    bench.buffer.order(Vec::new());
    bench.stored("a3").await;
    let leased = bench.lease(5).await;
    assert_eq!(bodies(&leased), ["a1", "a3"]);
    bench.settle(&leased[0], Next::Dead(DeadReason::TooOld));
    bench.settled().await;
    assert_eq!(bodies(&bench.lease(5).await), ["a2"]);
}

#[tokio::test]
async fn a_long_lane_costs_other_keys_no_scan() {
    let bench = ordered(Bench::new());
    for _ in 0..3000 {
        bench.stored("a").await;
    }
    let blocked = bench.lease_one().await;
    bench.settle(&blocked, Next::Retry(later(&bench, 3600)));
    bench.settled().await;
    bench.stored("b").await;
    let lane = bench.buffer.shared.known_lane(&app()).unwrap();
    let store = bench.buffer.shared.store().unwrap();
    let queued = store.queue(keys::fresh(lane.id, 0), keys::fresh(lane.id, u64::MAX)).count();
    assert_eq!(queued, 1, "those that wait stand in no queue that leases are taken from");
    assert_eq!(bodies(&bench.lease(5).await), ["b"]);
}

#[derive(Clone, Debug)]
enum Step {
    Append { key: u8 },
    Lease { max: usize },
    Settle { which: prop::sample::Index, next: Outcome },
    Advance { secs: u64 },
    Replay { which: prop::sample::Index },
    GiveUp { which: prop::sample::Index },
    Purge { which: prop::sample::Index },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Delivered,
    Retry(u64),
    Skipped,
    Parked,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let next = prop_oneof![
        4 => Just(Outcome::Delivered),
        3 => (0u64..50).prop_map(Outcome::Retry),
        1 => Just(Outcome::Skipped),
        2 => Just(Outcome::Parked),
        1 => Just(Outcome::Release),
    ];
    let step = prop_oneof![
        10 => prop::sample::select(&b"aabc-"[..]).prop_map(|key| Step::Append { key }),
        5 => (1usize..5).prop_map(|max| Step::Lease { max }),
        9 => (index(), next).prop_map(|(which, next)| Step::Settle { which, next }),
        2 => (0u64..40).prop_map(|secs| Step::Advance { secs }),
        2 => index().prop_map(|which| Step::Replay { which }),
        2 => index().prop_map(|which| Step::GiveUp { which }),
        1 => index().prop_map(|which| Step::Purge { which }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..100)
}

/// What should be. Events without a key are lanes of their own.
#[derive(Default)]
struct Model {
    /// By lane: what is not settled, in order, behind the dead letter that holds it.
    lanes: BTreeMap<String, VecDeque<EventId>>,
    parked: HashMap<String, EventId>,
    lane_of: BTreeMap<EventId, String>,
    /// Of heads: when they are due, and whether they have failed.
    due: HashMap<EventId, Timestamp>,
    failed: HashMap<EventId, bool>,
    leased: Vec<Leased>,
}

impl Model {
    fn may_go(&self, now: Timestamp) -> Vec<EventId> {
        let heads = self.lanes.iter().filter(|(lane, _)| !self.parked.contains_key(*lane));
        let heads = heads.filter_map(|(_, waiting)| waiting.front().copied());
        let out = |id: &EventId| self.leased.iter().any(|leased| leased.event.id == *id);
        heads.filter(|id| !out(id) && self.due.get(id).is_none_or(|due| *due <= now)).collect()
    }

    fn settled(&mut self, leased: &Leased, next: Outcome, now: Timestamp) -> Next {
        let id = leased.event.id;
        let lane = self.lane_of[&id].clone();
        let waiting = self.lanes.get_mut(&lane).unwrap();
        match next {
            Outcome::Release => return Next::Release,
            Outcome::Retry(secs) => {
                let at = now.saturating_add(Duration::from_secs(secs));
                self.due.insert(id, Timestamp(at.0.max(leased.token.due + 1)));
                self.failed.insert(id, true);
                return Next::Retry(at);
            }
            Outcome::Delivered | Outcome::Skipped | Outcome::Parked => {}
        }
        assert_eq!(waiting.pop_front(), Some(id));
        self.failed.remove(&id);
        self.due.remove(&id);
        match next {
            Outcome::Parked if !lane.starts_with('-') => {
                self.parked.insert(lane, id);
                Next::Parked(DeadReason::TooOld)
            }
            Outcome::Delivered => Next::Delivered,
            _ => Next::Dead(DeadReason::TooOld),
        }
    }

    fn is_settled(&self, id: EventId) -> bool {
        self.lanes.get(&self.lane_of[&id]).is_none_or(|waiting| !waiting.contains(&id))
    }
}

async fn run(steps: Vec<Step>) {
    let mut bench = ordered(Bench::new());
    let mut model = Model::default();
    for step in steps {
        let now = bench.now();
        match step {
            Step::Append { key } => {
                let id = bench.stored(std::str::from_utf8(&[key]).unwrap()).await;
                let lane = if key == b'-' { format!("-{id}") } else { char::from(key).to_string() };
                model.lanes.entry(lane.clone()).or_default().push_back(id);
                model.lane_of.insert(id, lane);
            }
            Step::Lease { max } => {
                bench.settled().await;
                let may = model.may_go(now);
                let leased = bench.lease(max).await;
                assert_eq!(leased.len(), max.min(may.len()), "as many as there are");
                for one in leased {
                    assert!(may.contains(&one.event.id), "{:?} is not its lane's first", one.event.id);
                    assert!(!model.leased.iter().any(|other| other.event.id == one.event.id));
                    model.leased.push(one);
                }
            }
            Step::Settle { which, next } => {
                if !model.leased.is_empty() {
                    let leased = model.leased.swap_remove(which.index(model.leased.len()));
                    let next = model.settled(&leased, next, now);
                    bench.settle(&leased, next);
                    // The time of a settlement is that of its commit.
                    bench.settled().await;
                }
            }
            Step::Advance { secs } => bench.clock.advance(Duration::from_secs(secs)),
            Step::Replay { which } => operate(&bench, &mut model, which, true).await,
            Step::GiveUp { which } => give_up(&bench, &mut model, which).await,
            Step::Purge { which } => operate(&bench, &mut model, which, false).await,
            Step::Reopen => {
                bench.settled().await;
                audit(&bench.buffer);
                bench = ordered(bench.reopen());
                model.leased.clear();
            }
        }
        stands_as(&bench, &model).await;
    }
    drain(&bench, &mut model).await;
    audit(&bench.buffer);
}

async fn operate(bench: &Bench, model: &mut Model, which: prop::sample::Index, replays: bool) {
    bench.settled().await;
    let ids: Vec<EventId> = model.lane_of.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = ids[which.index(ids.len())];
    let lane = model.lane_of[&id].clone();
    let settled = model.is_settled(id);
    let one = Selection::One(id, EventFilter::default());
    let done = if replays { bench.buffer.replay(one).await } else { bench.buffer.purge(one).await };
    assert_eq!(done.unwrap(), u64::from(settled));
    if !settled {
        return;
    }
    let held = model.parked.get(&lane) == Some(&id);
    if held {
        model.parked.remove(&lane);
    }
    match (replays, held) {
        (true, true) => model.lanes.entry(lane).or_default().push_front(id),
        (true, false) => model.lanes.entry(lane).or_default().push_back(id),
        (false, _) => {
            model.lane_of.remove(&id);
        }
    }
}

async fn give_up(bench: &Bench, model: &mut Model, which: prop::sample::Index) {
    bench.settled().await;
    let ids: Vec<EventId> = model.lane_of.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = ids[which.index(ids.len())];
    let lane = model.lane_of[&id].clone();
    let leased = model.leased.iter().any(|leased| leased.event.id == id);
    let expected = match (model.is_settled(id), leased) {
        (true, _) => {
            let held = model.parked.get(&lane) == Some(&id);
            if held {
                model.parked.remove(&lane);
            }
            GivenUp { count: u64::from(held), under_way: 0 }
        }
        (false, true) => GivenUp { count: 0, under_way: 1 },
        (false, false) => {
            model.lanes.get_mut(&lane).unwrap().retain(|waiting| *waiting != id);
            model.due.remove(&id);
            model.failed.remove(&id);
            GivenUp { count: 1, under_way: 0 }
        }
    };
    let one = Selection::One(id, EventFilter::default());
    assert_eq!(bench.buffer.give_up(one).await.unwrap(), expected);
}

/// What is seen of the lanes is what the model has.
async fn stands_as(bench: &Bench, model: &Model) {
    let mut expected: Vec<(Standstill, EventId, u64)> = Vec::new();
    for (lane, waiting) in model.lanes.iter().filter(|(lane, _)| !lane.starts_with('-')) {
        match (model.parked.get(lane), waiting.front()) {
            (Some(head), _) => expected.push((Standstill::Parked, *head, waiting.len() as u64)),
            (None, Some(head)) if model.failed.contains_key(head) => {
                expected.push((Standstill::Blocked, *head, waiting.len() as u64 - 1));
            }
            _ => {}
        }
    }
    let mut found = stuck(bench).await;
    found.sort_by_key(|(_, head, _)| *head);
    expected.sort_by_key(|(_, head, _)| *head);
    assert_eq!(found, expected);
}

/// In the end all that waits gets through, each lane in its order.
async fn drain(bench: &Bench, model: &mut Model) {
    bench.clock.advance(Duration::from_secs(1000));
    for leased in std::mem::take(&mut model.leased) {
        bench.settle(&leased, Next::Release);
    }
    for lane in model.parked.keys().cloned().collect::<Vec<_>>() {
        let id = model.parked.remove(&lane).unwrap();
        model.lanes.entry(lane).or_default().push_front(id);
        bench.buffer.replay(Selection::One(id, EventFilter::default())).await.unwrap();
    }
    while model.lanes.values().any(|waiting| !waiting.is_empty()) {
        let leased = bench.lease(3).await;
        assert!(!leased.is_empty(), "what waits is stuck: {:?}", model.lanes);
        for one in leased {
            model.settled(&one, Outcome::Delivered, bench.now());
            bench.settle(&one, Next::Delivered);
        }
        bench.settled().await;
    }
    assert_eq!(bench.stats_of(&app()).await.backlog, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_lane_comes_in_the_order_of_acceptance(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            if steps.iter().any(|step| matches!(step, Step::Append { .. })) {
                run(steps).await;
            }
        });
    }
}
