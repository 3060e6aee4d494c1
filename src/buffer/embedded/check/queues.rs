//! The queues and the lanes: what stands in them is there, once, and can be found.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::super::{BufferError, DeliveryState, EventId, LaneKey, Standstill};
use super::super::codec::{QueueEntry, Told};
use super::super::keys;
use super::super::lanes::{LaneRecord, LaneState};
use super::Check;
use crate::clock::Timestamp;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queued: HashSet<(EventId, u32)>,
    by_destination: BTreeMap<u32, Waits>,
}

/// Of one destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    pub(super) backlog: u64,
    pub(super) blocked: u64,
    pub(super) parked: u64,
    /// The first of each queue.
    pub(super) fresh_from: Option<u64>,
    pub(super) retry_from: Option<u64>,
}

impl Queues {
    pub(super) fn holds(&self, event: EventId, to: u32) -> bool {
        self.queued.contains(&(event, to))
    }
    pub(super) fn of(&self, to: u32) -> Waits {
        self.by_destination.get(&to).copied().unwrap_or_default()
    }
    fn destination(&mut self, to: u32) -> &mut Waits {
        self.by_destination.entry(to).or_default()
    }
}

/// By destination and key.
type Lanes<T> = BTreeMap<(u32, LaneKey), T>;

/// What is met on the way through the queues and belongs to the lanes.
#[derive(Default)]
struct Met {
    /// Seqs of the heads.
    heads: Lanes<u64>,
    /// How many wait behind each, and the first of them.
    waiting: Lanes<(u64, u64)>,
    /// By acceptance: what the oldest age is found by.
    retried: BTreeSet<(u32, u64)>,
}

impl Check<'_> {
    pub(super) fn queues(&mut self) -> Result<Queues, BufferError> {
        let (mut queues, mut met) = (Queues::default(), Met::default());
        for prefix in [b'F', b'R', b'W'] {
            for entry in self.store.scan(vec![prefix], vec![prefix + 1]) {
                let (key, value) = entry?;
                let decoded = self.found.read(None, "an entry of a queue", QueueEntry::decode(&value));
                let (Some(to), Some(entry)) = (keys::u32_at(&key, 1), decoded) else { continue };
                self.queued(prefix, &key, to, entry, &mut queues, &mut met)?;
            }
        }
        self.lanes(&mut queues, &mut met)?;
        let mut listed = BTreeSet::new();
        for entry in self.store.scan(vec![b'O'], vec![b'O' + 1]) {
            let (key, _) = entry?;
            if let (Some(to), Some(seq)) = (keys::u32_at(&key, 1), keys::u64_at(&key, 5)) {
                listed.insert((to, seq));
            }
        }
        let differ = listed.symmetric_difference(&met.retried).count();
        self.found.unless(differ == 0, None, || {
            format!("{differ} retries are not, or no longer, where the oldest is looked for")
        });
        Ok(queues)
    }

    fn queued(
        &mut self,
        prefix: u8,
        key: &[u8],
        to: u32,
        entry: QueueEntry,
        queues: &mut Queues,
        met: &mut Met,
    ) -> Result<(), BufferError> {
        let id = entry.event;
        if !self.there_is(id)? {
            let what = format!("it waits for {}, but there is no such event", self.name(to));
            self.found.add(Some(id), what);
        }
        if !queues.queued.insert((id, to)) {
            let what = format!("it waits twice for {}", self.name(to));
            self.found.add(Some(id), what);
        }
        queues.destination(to).backlog += 1;
        let record = self.store.delivery(id, to);
        let Some(record) = self.found.read(Some(id), "its delivery", record) else { return Ok(()) };
        let state = record.map(|record| record.state);
        let (fits, place) = match prefix {
            b'F' => {
                let seq = keys::u64_at(key, 5);
                queues.destination(to).fresh_from.get_or_insert(seq.unwrap_or_default());
                let fits = match entry.told {
                    Told::Nothing => state.is_none(),
                    Told::Record => state == Some(DeliveryState::Pending),
                };
                (fits, seq)
            }
            b'R' => {
                let (due, seq) = (keys::u64_at(key, 5).unwrap_or_default(), keys::u64_at(key, 13));
                queues.destination(to).retry_from.get_or_insert(due);
                met.retried.extend(seq.map(|seq| (to, seq)));
                let fits = match state {
                    // A head that became due when the one before it was settled.
                    None | Some(DeliveryState::Pending) => entry.lane.is_some(),
                    state => state == Some(DeliveryState::Retrying { next_at: Timestamp(due) }),
                };
                (fits, seq)
            }
            _ => {
                let (lane, seq) = (keys::lane_at(key, 5), keys::u64_at(key, 13));
                if let (Some(lane), Some(seq)) = (lane, seq) {
                    met.waiting.entry((to, lane)).or_insert((0, seq)).0 += 1;
                }
                (lane.is_some() && entry.lane == lane, seq)
            }
        };
        let name = self.name(to);
        self.found.unless(fits && place.is_some(), Some(id), || {
            format!("what waits for {name} is not what is known of the delivery")
        });
        if let (Some(lane), Some(seq), b'F' | b'R') = (entry.lane, place, prefix)
            && met.heads.insert((to, lane), seq).is_some()
        {
            self.found.add(Some(id), format!("{name}: the lane {lane} has two heads"));
        }
        Ok(())
    }

    /// Every lane has one head and counts what waits behind it, and nothing waits without a lane.
    fn lanes(&mut self, queues: &mut Queues, met: &mut Met) -> Result<(), BufferError> {
        let (store, mut stuck, mut going) = (self.store, BTreeSet::new(), 0);
        for entry in store.scan(vec![b'H'], vec![b'H' + 1]) {
            let (key, value) = entry?;
            let record = self.found.read(None, "a lane", LaneRecord::decode(&value));
            let (Some(to), Some(lane), Some(record)) =
                (keys::u32_at(&key, 1), keys::lane_at(&key, 5), record)
            else {
                continue;
            };
            let behind = met.waiting.remove(&(to, lane));
            let fits = record.waiting == behind.map_or(0, |(count, _)| count)
                && behind.is_none_or(|(_, first)| first >= record.floor);
            let head = met.heads.get(&(to, lane)).copied();
            let has_head = match record.state {
                LaneState::Stuck { why: Standstill::Parked, since, head: dead } => {
                    met.retried.extend(behind.map(|(_, first)| (to, first)));
                    stuck.insert((to, since.0, lane));
                    queues.destination(to).parked += 1;
                    head.is_none() && store.delivery(dead, to)?.is_some_and(|record| record.parks)
                }
                state => {
                    going += 1;
                    if let LaneState::Stuck { since, .. } = state {
                        stuck.insert((to, since.0, lane));
                        queues.destination(to).blocked += 1;
                    }
                    head == Some(record.head)
                }
            };
            let name = self.name(to);
            self.found.unless(fits && has_head, None, || {
                format!("{name}: the lane {lane} is not what stands in the queues")
            });
        }
        let (lost, heads) = (met.waiting.len(), met.heads.len());
        self.found.unless(lost == 0, None, || format!("{lost} lanes hold deliveries, but are not known"));
        self.found
            .unless(going == heads, None, || format!("{heads} lanes have a head, but {going} are known"));
        let mut listed = BTreeSet::new();
        for entry in store.scan(vec![b'B'], vec![b'B' + 1]) {
            let (key, _) = entry?;
            if let (Some(to), Some(at), Some(lane)) =
                (keys::u32_at(&key, 1), keys::u64_at(&key, 5), keys::lane_at(&key, 13))
            {
                listed.insert((to, at, lane));
            }
        }
        self.found.unless(listed == stuck, None, || {
            format!("{} lanes stand still, {} are listed", stuck.len(), listed.len())
        });
        Ok(())
    }
}
