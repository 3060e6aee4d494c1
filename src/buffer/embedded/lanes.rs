//! Order: the lanes of ordered destinations, on disk.
//!
//! A delivery with an order key goes in the lane of its key. Only the first of a lane, its *head*, stands in the queues
//! that leases are taken from; the others wait in an index of their own, by lane and acceptance, and each is moved to
//! the retry queue (due at once, with its old seq) by the very commit that settles the one before it. So a lease never
//! meets a delivery that may not go, whatever the backlog, and whatever survives a crash of both moves is one head.
//! Nothing of a lane is kept in memory: what is known of it stands in its record, which goes with the lane's last
//! delivery.
//!
//! All changes are made by the committer, so a lane's record is read, changed and written without a lock.

use std::sync::Arc;

use super::super::{BufferError, EventId, LaneKey, LaneSearch, Standstill, StuckLane};
use super::apply::{Effects, Settle};
use super::codec::{QueueEntry, Record};
use super::directory::Directory;
use super::draft::Draft;
use super::keys;
use super::lane::{Held, Lane, Target};
use super::store::Store;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_number};
use crate::clock::Timestamp;

/// What is known of a lane that is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneRecord {
    /// The seq of its head.
    pub(super) head: u64,
    /// All that wait have at least this seq.
    pub(super) floor: u64,
    /// How many wait behind the head.
    pub(super) waiting: u64,
    pub(super) state: LaneState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    Going,
    /// `head` did not get through, or died and holds the lane.
    Stuck {
        why: Standstill,
        since: Timestamp,
        head: EventId,
    },
}

impl LaneRecord {
    fn new(head: u64) -> Self {
        Self { head, floor: head + 1, waiting: 0, state: LaneState::Going }
    }

    fn is_parked(&self) -> bool {
        matches!(self.state, LaneState::Stuck { why: Standstill::Parked, .. })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.push(VERSION);
        [self.head, self.floor, self.waiting].into_iter().for_each(|n| put_number(&mut out, n));
        match self.state {
            LaneState::Going => out.push(0),
            LaneState::Stuck { why, since, head } => {
                out.push(match why {
                    Standstill::Blocked => 1,
                    Standstill::Parked => 2,
                });
                put_number(&mut out, since.0);
                out.extend_from_slice(&head.0);
            }
        }
        out
    }

    pub(super) fn decode(record: &[u8]) -> Read<Self> {
        let mut r = Reader::versioned(record)?;
        let (head, floor, waiting) = (r.number()?, r.number()?, r.number()?);
        let why = match r.byte()? {
            0 => None,
            1 => Some(Standstill::Blocked),
            2 => Some(Standstill::Parked),
            _ => return Err(Malformed("unknown lane state")),
        };
        let state = match why {
            None => LaneState::Going,
            Some(why) => LaneState::Stuck { why, since: r.time()?, head: EventId(r.array()?) },
        };
        r.end()?;
        Ok(Self { head, floor, waiting, state })
    }
}

/// A lane in a draft: as it stands on disk, and as it will.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drafted {
    pub(super) before: Option<LaneRecord>,
    pub(super) after: Option<LaneRecord>,
}

/// The first that waits in a lane.
type First = Option<(u64, QueueEntry)>;

/// What a settlement does to its lane. Everything that it takes is read.
pub(super) enum Turn {
    /// It has none.
    Unordered,
    /// The head goes on being tried.
    Stays { failed: bool },
    /// The next one may go.
    Opens(First),
    /// The head is dead and holds it.
    Parks(First),
}

impl Draft<'_> {
    /// Reads the record of a lane, so that it can be changed without fail.
    pub(super) fn load_lane(&mut self, lane: u32, key: LaneKey) -> Result<Option<LaneRecord>, BufferError> {
        if let Some(drafted) = self.lanes.get(&(lane, key)) {
            return Ok(drafted.after);
        }
        let before = self.store.lane(lane, key)?;
        self.lanes.insert((lane, key), Drafted { before, after: before });
        Ok(before)
    }

    /// The same for all that an event goes to.
    pub(super) fn load_lanes(&mut self, targets: &[Target]) -> Result<(), BufferError> {
        for Target { lane, key } in targets {
            if let Some(key) = key {
                self.load_lane(lane.id, *key)?;
            }
        }
        Ok(())
    }

    /// Of a lane that was loaded.
    fn lane_record(&mut self, lane: u32, key: LaneKey) -> &mut Option<LaneRecord> {
        let drafted = self.lanes.entry((lane, key)).or_insert(Drafted { before: None, after: None });
        &mut drafted.after
    }

    /// Puts a delivery at the end of its lane, or of the fresh queue if it has none or is its lane's first. The lane was
    /// loaded.
    pub(super) fn enter(
        &mut self,
        target: &Target,
        seq: u64,
        entry: QueueEntry,
        held: Option<Held>,
        effects: &mut Effects,
    ) {
        let Target { lane, key } = target;
        self.counters(lane).backlog += 1;
        if let Some(key) = key {
            if let Some(record) = self.lane_record(lane.id, *key) {
                record.waiting += 1;
                let ages = record.waiting == 1 && record.is_parked();
                self.put(keys::waiting(lane.id, *key, seq), entry.encode());
                if ages {
                    self.put(keys::retried(lane.id, seq), entry.accepted.0.to_be_bytes());
                }
                return;
            }
            *self.lane_record(lane.id, *key) = Some(LaneRecord::new(seq));
        }
        self.put(keys::fresh(lane.id, seq), entry.encode());
        effects.arrived.push((Arc::clone(lane), seq, held));
    }

    /// Puts a dead letter in that holds its lane, if that is empty; whether it does. The lane was loaded.
    pub(super) fn enter_parked(
        &mut self,
        target: &Target,
        seq: u64,
        event: EventId,
        at: Timestamp,
        effects: &mut Effects,
    ) -> bool {
        let Target { lane, key: Some(key) } = target else { return false };
        if self.lane_record(lane.id, *key).is_some() {
            return false;
        }
        *self.lane_record(lane.id, *key) = Some(LaneRecord::new(seq));
        self.stand_still(lane, *key, Standstill::Parked, at, event, effects);
        true
    }

    /// Finds out what a settlement does to its lane.
    pub(super) fn turn(&mut self, op: &Settle) -> Result<Turn, BufferError> {
        let (lane, Record { lane: Some(key), .. }) = (&op.lane, &op.record) else {
            return Ok(Turn::Unordered);
        };
        let Some(record) = self.load_lane(lane.id, *key)?.filter(|record| record.head == op.place.1) else {
            tracing::error!(event = %op.event, destination = %lane.name, lane = %key,
                "a delivery is not the first of its lane: the lane is left as it is");
            return Ok(Turn::Unordered);
        };
        if op.record.settled_at().is_none() {
            return Ok(Turn::Stays { failed: op.record.attempts > 0 });
        }
        let first = self.first_waiting(lane, *key, &record)?;
        Ok(if op.record.parks { Turn::Parks(first) } else { Turn::Opens(first) })
    }

    pub(super) fn take_turn(&mut self, op: &Settle, turn: Turn, now: Timestamp, effects: &mut Effects) {
        let (lane, Some(key)) = (&op.lane, op.record.lane) else { return };
        match turn {
            Turn::Unordered => {}
            Turn::Stays { failed } => {
                let goes = |record: &LaneRecord| record.state == LaneState::Going;
                if failed && self.lane_record(lane.id, key).as_ref().is_some_and(goes) {
                    self.stand_still(lane, key, Standstill::Blocked, now, op.event, effects);
                }
            }
            Turn::Opens(first) => self.open(lane, key, first, now, effects),
            Turn::Parks(first) => {
                self.stand_still(lane, key, Standstill::Parked, now, op.event, effects);
                if let Some((seq, entry)) = first {
                    self.put(keys::retried(lane.id, seq), entry.accepted.0.to_be_bytes());
                    effects.aged.push((Arc::clone(lane), seq));
                }
            }
        }
    }

    /// Takes a delivery out that waits behind the first of its lane. The lane was not necessarily loaded.
    pub(super) fn leave_lane(
        &mut self,
        lane: &Arc<Lane>,
        key: LaneKey,
        seq: u64,
        effects: &mut Effects,
    ) -> Result<(), BufferError> {
        let of = keys::waiting(lane.id, key, seq);
        let Some(mut record) = self.load_lane(lane.id, key)? else { return Ok(()) };
        record.waiting = record.waiting.saturating_sub(1);
        // The first behind a parked one stands for the age of all.
        let ages = record.is_parked() && self.get(&keys::retried(lane.id, seq))?.is_some();
        let there = self.get(&of)?;
        self.remove(of.clone());
        let next = match ages {
            false => None,
            true => match self.first_waiting(lane, key, &record) {
                Ok(next) => next,
                Err(error) => {
                    there.into_iter().for_each(|entry| self.put(of.clone(), entry));
                    return Err(error);
                }
            },
        };
        if ages {
            self.remove(keys::retried(lane.id, seq));
        }
        if let Some((seq, entry)) = next {
            self.put(keys::retried(lane.id, seq), entry.accepted.0.to_be_bytes());
            effects.aged.push((Arc::clone(lane), seq));
        }
        *self.lane_record(lane.id, key) = Some(record);
        Ok(())
    }

    /// What a parked lane goes on with once its dead letter is gone; `None` if this one does not hold it.
    pub(super) fn behind_parked(
        &mut self,
        lane: &Lane,
        key: LaneKey,
        event: EventId,
    ) -> Result<Option<First>, BufferError> {
        match self.load_lane(lane.id, key)? {
            Some(record) if record.is_parked_by(event) => self.first_waiting(lane, key, &record).map(Some),
            _ => Ok(None),
        }
    }

    /// The head has gone: the next one becomes it, or the lane is empty.
    pub(super) fn open(
        &mut self,
        lane: &Arc<Lane>,
        key: LaneKey,
        first: First,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.go_on(lane, key);
        let Some((seq, entry)) = first else {
            *self.lane_record(lane.id, key) = None;
            return;
        };
        if let Some(record) = self.lane_record(lane.id, key) {
            record.head = seq;
            record.floor = seq + 1;
            record.waiting = record.waiting.saturating_sub(1);
        }
        self.remove(keys::waiting(lane.id, key, seq));
        self.promote(lane, seq, entry, now, effects);
    }

    /// The dead letter that holds the lane is tried again, before all that wait. `first` waits behind it.
    pub(super) fn unpark(
        &mut self,
        lane: &Arc<Lane>,
        key: LaneKey,
        first: First,
        entry: QueueEntry,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        self.go_on(lane, key);
        if let Some((seq, _)) = first {
            self.remove(keys::retried(lane.id, seq));
        }
        let Some(head) = self.lane_record(lane.id, key).as_ref().map(|record| record.head) else { return };
        self.counters(lane).backlog += 1;
        self.promote(lane, head, entry, now, effects);
    }

    /// Makes a head due at once, in the place that it was accepted in.
    fn promote(
        &mut self,
        lane: &Arc<Lane>,
        seq: u64,
        entry: QueueEntry,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let due = now.0.max(1);
        self.put(keys::retry(lane.id, due, seq), entry.encode());
        let (accepted, due_at) = (entry.accepted.0.to_be_bytes(), due.to_be_bytes());
        self.put(keys::retried(lane.id, seq), [accepted, due_at].concat());
        let low = self.promoted.entry(lane.id).or_insert(due);
        *low = due.min(*low);
        effects.promoted.push((Arc::clone(lane), (due, seq)));
    }

    fn stand_still(
        &mut self,
        lane: &Arc<Lane>,
        key: LaneKey,
        why: Standstill,
        since: Timestamp,
        head: EventId,
        effects: &mut Effects,
    ) {
        self.go_on(lane, key);
        if let Some(record) = self.lane_record(lane.id, key) {
            record.state = LaneState::Stuck { why, since, head };
        }
        let counters = self.counters(lane);
        match why {
            Standstill::Blocked => counters.blocked += 1,
            Standstill::Parked => counters.parked += 1,
        }
        self.put(keys::stuck(lane.id, since.0, key), []);
        effects.stuck.push((Arc::clone(lane), since.0));
    }

    fn go_on(&mut self, lane: &Arc<Lane>, key: LaneKey) {
        let Some(record) = self.lane_record(lane.id, key) else { return };
        let LaneState::Stuck { why, since, .. } = record.state else { return };
        record.state = LaneState::Going;
        let counters = self.counters(lane);
        let count = match why {
            Standstill::Blocked => &mut counters.blocked,
            Standstill::Parked => &mut counters.parked,
        };
        *count = count.saturating_sub(1);
        self.remove(keys::stuck(lane.id, since.0, key));
    }

    /// The first that waits, on disk or in this draft.
    fn first_waiting(&self, lane: &Lane, key: LaneKey, record: &LaneRecord) -> Result<First, BufferError> {
        if record.waiting == 0 {
            return Ok(None);
        }
        let (from, to) = (keys::waiting(lane.id, key, record.floor), keys::waiting(lane.id, key, u64::MAX));
        let unreadable = |error| self.store.malformed("waiting delivery", key, error);
        let seq_of = |of: &[u8]| keys::u64_at(of, 13).ok_or_else(|| unreadable(Malformed("key")));
        let own = self.written(from.clone(), to.clone()).find_map(|(of, value)| Some((of, value.as_ref()?)));
        let own = match own {
            Some((of, value)) => Some((seq_of(of)?, QueueEntry::decode(value).map_err(unreadable)?)),
            None => None,
        };
        for entry in self.store.queue(from, to) {
            let (of, entry) = entry?;
            if !self.is_removed(&of) {
                let seq = seq_of(&of)?;
                return Ok(Some(own.filter(|(own, _)| *own < seq).unwrap_or((seq, entry))));
            }
        }
        if own.is_none() {
            tracing::error!(destination = %lane.name, lane = %key, waiting = record.waiting,
                "none of the deliveries that should wait in a lane is there");
        }
        Ok(own)
    }
}

impl LaneRecord {
    fn is_parked_by(&self, event: EventId) -> bool {
        matches!(self.state, LaneState::Stuck { why: Standstill::Parked, head, .. } if head == event)
    }

    fn stuck(&self, lane: &Lane, key: LaneKey) -> Option<StuckLane> {
        let LaneState::Stuck { why, since, head } = self.state else { return None };
        let (destination, waiting) = (lane.name.clone(), self.waiting);
        Some(StuckLane { destination, lane: key, why, since, head, waiting })
    }
}

impl Store {
    pub(super) fn lane(&self, lane: u32, key: LaneKey) -> Result<Option<LaneRecord>, BufferError> {
        let value = self.get(&keys::ordered(lane, key))?;
        value.map(|v| LaneRecord::decode(&v).map_err(|e| self.malformed("lane", key, e))).transpose()
    }
}

/// Lanes that stand still, by destination and then the longest first.
pub(super) fn stuck(
    store: &Store,
    directory: &Directory,
    search: &LaneSearch,
) -> Result<Vec<StuckLane>, BufferError> {
    let lanes = match &search.destination {
        Some(name) => directory.find(&name.0).into_iter().collect(),
        None => directory.all(),
    };
    let mut found = Vec::new();
    if let Some(key) = search.lane {
        for lane in lanes.into_iter().take(search.limit) {
            found.extend(store.lane(lane.id, key)?.and_then(|record| record.stuck(&lane, key)));
        }
        return Ok(found);
    }
    for lane in lanes {
        let from = lane.state().stuck_from;
        let first = LaneKey([0; 8]);
        for entry in store.scan(keys::stuck(lane.id, from, first), keys::stuck(lane.id + 1, 0, first)) {
            if found.len() >= search.limit {
                return Ok(found);
            }
            let (of, _) = entry?;
            let Some(key) = keys::lane_at(&of, 13) else { continue };
            // It may have gone on meanwhile.
            found.extend(store.lane(lane.id, key)?.and_then(|record| record.stuck(&lane, key)));
        }
    }
    Ok(found)
}

/// Since when the lane that has stood still the longest does.
pub(super) fn oldest(store: &Store, lane: &Lane) -> Result<Option<Timestamp>, BufferError> {
    let (from, lowered) = {
        let state = lane.state();
        (state.stuck_from, state.stuck_lowered)
    };
    let first = LaneKey([0; 8]);
    let entry = store.scan(keys::stuck(lane.id, from, first), keys::stuck(lane.id + 1, 0, first)).next();
    let Some((of, _)) = entry.transpose()? else { return Ok(None) };
    let since = keys::u64_at(&of, 5);
    let mut state = lane.state();
    if let Some(since) = since
        && state.stuck_lowered == lowered
    {
        state.stuck_from = state.stuck_from.max(since);
    }
    Ok(since.map(Timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_comes_back() {
        let stuck = |why| LaneState::Stuck { why, since: Timestamp(7), head: EventId([3; 16]) };
        for state in [LaneState::Going, stuck(Standstill::Blocked), stuck(Standstill::Parked)] {
            let record = LaneRecord { head: 1, floor: u64::MAX, waiting: 300, state };
            assert_eq!(LaneRecord::decode(&record.encode()), Ok(record));
            assert!(LaneRecord::decode(&record.encode()[..3]).is_err());
        }
    }
}
