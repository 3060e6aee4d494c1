//! Giving deliveries up: those that are pending or retrying become dead letters, wherever they wait.
//!
//! A delivery is found by where it waits, and no index leads from an event to that place: it would cost every append a
//! write, for something that is done by hand. So it is looked for, off the committer's thread: a retry by its due time,
//! one in a lane by its lane, any other by when it came in, near which it stands; only if all that fails the queues are gone
//! through. The committer then looks at that place alone. What a lease holds is left to its settlement.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::{BufferError, DeadReason, DeliveryState, Event, EventId, LaneKey};
use super::apply::{Effects, Settle};
use super::change::{Changed, Only};
use super::codec::{QueueEntry, Record, Told};
use super::directory::Directory;
use super::draft::Draft;
use super::keys::{self, Key};
use super::lane::{Lane, Lease, Place};
use super::store::Store;
use crate::clock::Timestamp;

/// So many places before where a delivery should stand it is looked for, too: what came in together is not stored in
/// the order of its times.
const BEFORE: u64 = 1024;
/// Entries that are looked at from there on.
const NEAR: usize = 8192;
/// Entries behind the one that was found before.
const NEXT: usize = 64;

/// Where a delivery waits.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) lane: Arc<Lane>,
    seq: u64,
    /// In the retry queue, as far as is known.
    due: u64,
    entry: QueueEntry,
    /// How many destinations the event has.
    siblings: u32,
    /// Of the stored event, in bytes.
    size: u32,
}

/// What of an event waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    spots: Vec<Spot>,
    /// Deliveries that are in somebody's hands.
    under_way: u64,
}

/// By event.
pub(super) type Spots = BTreeMap<EventId, Waiting>;

/// A delivery given up.
pub(super) struct Gone {
    pub(super) lane: Arc<Lane>,
    pub(super) event: EventId,
    pub(super) attempts: u32,
    /// `None`: it stood where nothing is leased from.
    pub(super) place: Option<Place>,
}

/// Where the deliveries of these events wait that meet `only`. May read much: not for the committer.
pub(super) fn find(
    store: &Store,
    directory: &Directory,
    ids: &[EventId],
    only: &Only,
    next_seq: u64,
) -> Result<Spots, BufferError> {
    let mut look = Look { store, next_seq, last: HashMap::new(), held: HashMap::new() };
    let mut spots = Spots::new();
    for id in ids {
        // What can't be read is left alone, and said by whoever changes it.
        let Some(stored) = store.event(*id).or_else(unless_damaged)? else { continue };
        let records: HashMap<u32, Record> = store.deliveries(*id)?.into_iter().collect();
        let siblings = u32::try_from(stored.destinations.len()).unwrap_or(u32::MAX);
        for to in &stored.destinations {
            let Some(lane) = directory.by_id(*to) else { continue };
            let record = records.get(to);
            let untried = || Record::untried(stored.event.received_at, None);
            let of = record.cloned().unwrap_or_else(untried);
            if of.settled_at().is_some() || !only.meets(&(*to, of)) {
                continue;
            }
            let place = match look.is_leased(&lane, *id) {
                true => None,
                false => look.place_of(&lane, &stored.event, record)?,
            };
            let waiting = spots.entry(*id).or_default();
            match place {
                Some((due, seq, entry)) => {
                    waiting.spots.push(Spot { lane, seq, due, entry, siblings, size: stored.size });
                }
                None => waiting.under_way += 1,
            }
        }
    }
    Ok(spots)
}

fn unless_damaged<T>(error: BufferError) -> Result<Option<T>, BufferError> {
    match error {
        BufferError::Damaged(_) => Ok(None),
        error => Err(error),
    }
}

/// Due, seq, and what stands there.
type Found = (u64, u64, QueueEntry);

struct Look<'a> {
    store: &'a Store,
    next_seq: u64,
    /// By queue: where the one before was found. Those that came in together mostly stand together.
    last: HashMap<(u32, Option<LaneKey>), u64>,
    /// By destination: events that are leased.
    held: HashMap<u32, HashSet<EventId>>,
}

impl Look<'_> {
    fn is_leased(&mut self, lane: &Lane, id: EventId) -> bool {
        let held = self.held.entry(lane.id).or_insert_with(|| {
            let event = |lease: &Lease| match lease {
                Lease::Out(held) => Some(held.event.id),
                Lease::Reading(_) | Lease::Settling(_) => None,
            };
            lane.state().leases.values().filter_map(event).collect()
        });
        held.contains(&id)
    }

    fn place_of(
        &mut self,
        lane: &Lane,
        event: &Event,
        record: Option<&Record>,
    ) -> Result<Option<Found>, BufferError> {
        if let Some(Record { state: DeliveryState::Retrying { next_at }, .. }) = record {
            let (from, to) = (keys::retry(lane.id, next_at.0, 0), keys::retry(lane.id, next_at.0, u64::MAX));
            return self.in_queue(from, to, 13, event.id, usize::MAX);
        }
        let key = match record {
            Some(record) => record.lane,
            None => lane.order.read().as_ref().and_then(|order| order.lane(event)),
        };
        if let Some(key) = key
            && let Some(of) = self.store.lane(lane.id, key)?
            && let Some(found) = self.head(lane, of.head, event.id)?
        {
            return Ok(Some(found));
        }
        let since = record.map_or(event.received_at, |record| record.since);
        if let Some(found) = self.near(lane, key, since, event.id)? {
            return Ok(Some(found));
        }
        // It came in at an odd time, or goes in another order than the config says now.
        let all = [
            (keys::fresh(lane.id, 0), keys::fresh(lane.id, u64::MAX), 5),
            (keys::lanes_of(lane.id), keys::lanes_of(lane.id + 1), 13),
            (keys::retry(lane.id, 0, 0), keys::retry(lane.id, u64::MAX, u64::MAX), 13),
        ];
        for (from, to, seq_at) in all {
            if let Some(found) = self.in_queue(from, to, seq_at, event.id, usize::MAX)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first of a lane: untried, or due since the one before it was settled.
    fn head(&self, lane: &Lane, seq: u64, id: EventId) -> Result<Option<Found>, BufferError> {
        let due = self.store.get(&keys::retried(lane.id, seq))?.and_then(|value| keys::u64_at(&value, 8));
        for due in [Some(0), due].into_iter().flatten() {
            let value = self.store.get(&keys::queued(lane.id, (due, seq)))?;
            let entry = value.map(|value| self.decoded(&value)).transpose()?;
            if let Some(entry) = entry.filter(|entry| entry.event == id) {
                return Ok(Some((due, seq, entry)));
            }
        }
        Ok(None)
    }

    /// Where what came in then should stand.
    fn near(
        &mut self,
        lane: &Lane,
        key: Option<LaneKey>,
        since: Timestamp,
        id: EventId,
    ) -> Result<Option<Found>, BufferError> {
        let (at, seq_at): (&dyn Fn(u64) -> Key, usize) = match key {
            None => (&|seq| keys::fresh(lane.id, seq), 5),
            Some(key) => (&move |seq| keys::waiting(lane.id, key, seq), 13),
        };
        let queue = (lane.id, key);
        let mut found = None;
        if let Some(last) = self.last.get(&queue) {
            found = self.in_queue(at(last + 1), at(u64::MAX), seq_at, id, NEXT)?;
        }
        if found.is_none() {
            let from = self.first_since(lane, at, since)?.saturating_sub(BEFORE);
            found = self.in_queue(at(from), at(u64::MAX), seq_at, id, NEAR)?;
        }
        if let Some((_, seq, _)) = found {
            self.last.insert(queue, seq);
        }
        Ok(found)
    }

    /// Halves the queue until the first is found that came in then or later, were they in the order of their times.
    fn first_since(
        &self,
        lane: &Lane,
        at: &dyn Fn(u64) -> Key,
        since: Timestamp,
    ) -> Result<u64, BufferError> {
        let (mut low, mut high) = (0, self.next_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            let earlier = match self.store.queue(at(middle), at(high)).next().transpose()? {
                None => false,
                Some((_, entry)) => self.came_in(lane, &entry)? < since,
            };
            if earlier { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// When an entry was put where it stands.
    fn came_in(&self, lane: &Lane, entry: &QueueEntry) -> Result<Timestamp, BufferError> {
        Ok(match entry.told {
            Told::Nothing => entry.accepted,
            Told::Record => {
                let record = self.store.delivery(entry.event, lane.id)?;
                record.map_or(entry.accepted, |record| record.since)
            }
        })
    }

    fn in_queue(
        &self,
        from: Key,
        to: Key,
        seq_at: usize,
        id: EventId,
        most: usize,
    ) -> Result<Option<Found>, BufferError> {
        for found in self.store.queue(from, to).take(most) {
            let (key, entry) = found?;
            if entry.event == id {
                let due = if key.first() == Some(&b'R') { keys::u64_at(&key, 5).unwrap_or(0) } else { 0 };
                return Ok(keys::u64_at(&key, seq_at).map(|seq| (due, seq, entry)));
            }
        }
        Ok(None)
    }

    fn decoded(&self, value: &[u8]) -> Result<QueueEntry, BufferError> {
        QueueEntry::decode(value).map_err(|e| self.store.malformed("queue entry", "", e))
    }
}

/// Where a delivery waits when it is given up.
enum Waits {
    /// It may be leased.
    Due(Place),
    /// Behind the first of its lane.
    Behind(LaneKey),
}

impl Draft<'_> {
    pub(super) fn give_up_one(
        &mut self,
        id: EventId,
        waiting: Option<&Waiting>,
        only: &Only,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Changed, BufferError> {
        let records: BTreeMap<u32, Record> = self.records(id)?.into_iter().collect();
        let under_way = waiting.map_or(0, |waiting| waiting.under_way);
        let mut changed = Changed { under_way, ..Changed::default() };
        for (to, record) in records.iter().filter(|(_, record)| record.parks) {
            if only.meets(&(*to, record.clone())) && self.let_go(id, *to, record, now, effects)? {
                changed.count += 1;
            }
        }
        for spot in waiting.into_iter().flat_map(|waiting| &waiting.spots) {
            let untried = || Record::untried(spot.entry.accepted, spot.entry.lane);
            let record = records.get(&spot.lane.id).cloned().unwrap_or_else(untried);
            if record.settled_at().is_some() || !only.meets(&(spot.lane.id, record.clone())) {
                continue;
            }
            match self.give_up_at(spot, record, now, effects)? {
                true => changed.count += 1,
                false => changed.under_way += 1,
            }
        }
        Ok(changed)
    }

    /// A dead letter holds its lane no longer.
    fn let_go(
        &mut self,
        id: EventId,
        to: u32,
        record: &Record,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<bool, BufferError> {
        let (Some(lane), Some(key)) = (self.directory.by_id(to), record.lane) else { return Ok(false) };
        let Some(first) = self.behind_parked(&lane, key, id)? else { return Ok(false) };
        self.open(&lane, key, first, now, effects);
        self.put_record(id, to, &Record { parks: false, ..record.clone() });
        Ok(true)
    }

    /// `false`: it is in somebody's hands.
    fn give_up_at(
        &mut self,
        spot: &Spot,
        record: Record,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<bool, BufferError> {
        let Some(waits) = self.waits(spot, &record)? else { return Ok(false) };
        let state = DeliveryState::Dead { at: now, reason: DeadReason::ByOperator };
        let attempts = record.attempts;
        let (event, lane) = (spot.entry.event, &spot.lane);
        let op = Settle {
            lane: Arc::clone(lane),
            place: match waits {
                Waits::Due(place) => place,
                Waits::Behind(_) => (0, spot.seq),
            },
            event,
            siblings: spot.siblings,
            size: spot.size,
            record: Record { state, parks: false, lane: spot.entry.lane, ..record },
            urgent: false,
        };
        let records = self.records_with(&op)?;
        match waits {
            Waits::Due(place) => {
                let turn = self.turn(&op)?;
                // From here on nobody can lease it.
                if !lane.state().withdraw(place, spot.entry.accepted) {
                    return Ok(false);
                }
                self.leave_queue(&op, turn, now, effects);
            }
            Waits::Behind(key) => self.leave_lane(lane, key, spot.seq, effects)?,
        }
        let place = match waits {
            Waits::Due(place) => Some(place),
            Waits::Behind(_) => None,
        };
        effects.given_up.push(Gone { lane: Arc::clone(lane), event, attempts, place });
        self.end(&op, records)?;
        Ok(true)
    }

    /// Where it waits now: it may have moved since it was looked for.
    fn waits(&self, spot: &Spot, record: &Record) -> Result<Option<Waits>, BufferError> {
        let (lane, seq) = (spot.lane.id, spot.seq);
        let is_there = |key: Key| -> Result<bool, BufferError> {
            let Some(value) = self.get(&key)? else { return Ok(false) };
            let entry = QueueEntry::decode(&value);
            Ok(entry.map_err(|e| self.store.malformed("queue entry", "", e))?.event == spot.entry.event)
        };
        if let Some(key) = spot.entry.lane
            && is_there(keys::waiting(lane, key, seq))?
        {
            return Ok(Some(Waits::Behind(key)));
        }
        let due = match record.state {
            DeliveryState::Retrying { next_at } => Some(next_at.0),
            _ => self.get(&keys::retried(lane, seq))?.and_then(|value| keys::u64_at(&value, 8)),
        };
        for due in [Some(0), due, Some(spot.due)].into_iter().flatten() {
            if is_there(keys::queued(lane, (due, seq)))? {
                return Ok(Some(Waits::Due((due, seq))));
            }
        }
        Ok(None)
    }
}
