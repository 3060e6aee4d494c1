//! What each kind of work changes: append, import and settle, each applied to the draft of a commit. What operators and jobs
//! do to stored events is in `change.rs`, claims are in `claims.rs`.
//!
//! An operation reads all that it needs before it changes anything, so one that fails leaves the draft as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fjall::Slice;

use super::super::{
    AppendError, Appended, Attempt, BatchAppended, BufferError, ClaimKey, DeadReason, Delivery,
    DeliveryState, Event, EventId, Imported, NewClaim, Next,
};
use super::batch::AppendBatch;
use super::change::{Change, Changed};
use super::codec::{QueueEntry, Record, Told};
use super::draft::{Draft, Retained, retention_of};
use super::endpoints::ChangeEndpoints;
use super::give_up::Gone;
use super::keys::{self, Class};
use super::lane::{Held, Lane, Place, Target};
use super::lanes::Turn;
use super::notes::Note;
use super::sealing::Reseal;
use super::waiting::Promise;
use crate::clock::Timestamp;
use crate::seal;

/// Work for the committer.
pub(super) enum Op {
    Append(Box<Append>),
    Import(Box<Import>),
    AppendBatch(Box<AppendBatch>),
    Claim {
        claim: NewClaim,
        event_id: EventId,
    },
    Settle(Box<Settle>),
    Change(Change),
    ForgetJob(EventId, Promise<Result<(), BufferError>>),
    /// Writes so many bytes of nothing, in place of the last ones.
    Fill(usize, Promise<Result<(), BufferError>>),
    Note(Note),
    Endpoints(ChangeEndpoints),
    Reseal(Reseal),
    /// Sweeps all that is past its time.
    Sweep(Promise<Result<(), BufferError>>),
    Close(Promise<()>),
    /// Runs on the committer's thread.
    #[cfg(test)]
    Run(Box<dyn FnOnce() + Send>),
}

pub(super) struct Append {
    pub(super) event: Arc<Event>,
    pub(super) encoded: Slice,
    pub(super) targets: Vec<Target>,
    pub(super) claim: Option<NewClaim>,
    pub(super) queued: Instant,
    pub(super) done: Promise<Result<Appended, AppendError>>,
}

/// An event from another buffer, with its deliveries.
pub(super) struct Import {
    pub(super) event: Event,
    pub(super) encoded: Slice,
    pub(super) deliveries: Vec<(Target, Delivery)>,
    pub(super) claim: Option<NewClaim>,
    pub(super) done: Promise<Result<Imported, AppendError>>,
}

/// An attempt's outcome, already accounted for in `record`.
pub(super) struct Settle {
    pub(super) lane: Arc<Lane>,
    pub(super) place: Place,
    pub(super) event: EventId,
    pub(super) siblings: u32,
    pub(super) size: u32,
    pub(super) record: Record,
    /// Somebody waits for what may go once it is settled.
    pub(super) urgent: bool,
}

/// An answer for whoever waits, to be given once the commit is done.
pub(super) struct Answer<T, E> {
    pub(super) done: Promise<Result<T, E>>,
    pub(super) outcome: Result<T, E>,
}

/// What is to be told once the commit is done.
#[derive(Default)]
pub(super) struct Effects {
    /// With the time of their queueing.
    pub(super) appended: Vec<(Answer<Appended, AppendError>, Instant)>,
    /// With the time of their queueing.
    pub(super) batches: Vec<(Answer<BatchAppended, AppendError>, Instant)>,
    pub(super) arrived: Vec<(Arc<Lane>, u64, Option<Held>)>,
    pub(super) settled: Vec<(Arc<Lane>, Place, Option<Place>)>,
    /// Heads that were put into the retry queue.
    pub(super) promoted: Vec<(Arc<Lane>, Place)>,
    /// What else was put into the index by acceptance.
    pub(super) aged: Vec<(Arc<Lane>, u64)>,
    /// Lanes that stand still, since when.
    pub(super) stuck: Vec<(Arc<Lane>, u64)>,
    pub(super) claimed: Vec<ClaimKey>,
    /// Answers that claims kept are gone.
    pub(super) forgotten: bool,
    pub(super) imported: Vec<Answer<Imported, AppendError>>,
    pub(super) changed: Vec<Answer<Changed, BufferError>>,
    pub(super) given_up: Vec<Gone>,
    pub(super) swept: Vec<Answer<(), BufferError>>,
    /// Events stored by this commit, and their bytes.
    pub(super) stored: usize,
    pub(super) bytes: u64,
}

impl Draft<'_> {
    pub(super) fn append(&mut self, op: Append, now: Timestamp, effects: &mut Effects) {
        let Append { event, encoded, targets, claim, queued, done } = op;
        let outcome = match self.store_event(&event, encoded, &targets, claim, now, effects) {
            Ok(appended) => Ok(appended),
            Err(e) => Err(AppendError::Unavailable(e.to_string())),
        };
        effects.appended.push((Answer { done, outcome }, queued));
    }

    fn store_event(
        &mut self,
        event: &Arc<Event>,
        encoded: Slice,
        targets: &[Target],
        claim: Option<NewClaim>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Appended, BufferError> {
        if let Some(claim) = &claim
            && let Some(first) = self.claim(claim.key, now.0)?
        {
            // The first one is on disk, or goes there with this very commit.
            return Ok(Appended::Duplicate(first));
        }
        self.load_lanes(targets)?;
        self.put_new(event, encoded, targets, claim, now, effects);
        Ok(Appended::Stored)
    }

    /// Puts an event that is not there yet, with its claim and its deliveries. Their lanes were loaded.
    pub(super) fn put_new(
        &mut self,
        event: &Arc<Event>,
        encoded: Slice,
        targets: &[Target],
        claim: Option<NewClaim>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let size = size_of(&encoded);
        let siblings = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        self.sync = true;
        self.put_event(event.id, encoded);
        if let Some(claim) = claim {
            self.put_new_claim(claim, event.id, now);
        }
        let seq = self.next_seq();
        for target in targets {
            let (accepted, lane) = (event.received_at, target.key);
            let entry = QueueEntry { event: event.id, accepted, told: Told::Nothing, lane };
            let held = Held { event: Arc::clone(event), siblings, size, record: None, lane };
            self.enter(target, seq, entry, Some(held), effects);
        }
        if targets.is_empty() {
            let group = self.keep.group(&event.route);
            let at = event.received_at.0;
            self.retain(event.id, Retained { class: Class::Delivered, group, at, size });
        }
        effects.stored += 1;
        effects.bytes += u64::from(size);
    }

    pub(super) fn import(&mut self, op: Import, now: Timestamp, effects: &mut Effects) {
        let Import { event, encoded, deliveries, claim, done } = op;
        let outcome = self
            .take_in(&event, encoded, deliveries, claim, now, effects)
            .map_err(|e| AppendError::Unavailable(e.to_string()));
        self.sync = true;
        effects.imported.push(Answer { done, outcome });
    }

    fn take_in(
        &mut self,
        event: &Event,
        encoded: Slice,
        deliveries: Vec<(Target, Delivery)>,
        claim: Option<NewClaim>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Imported, BufferError> {
        if self.event(event.id)?.is_some() {
            return Ok(Imported::Present);
        }
        for (target, _) in &deliveries {
            self.load_lanes(std::slice::from_ref(target))?;
        }
        if let Some(claim) = claim {
            match self.claim(claim.key, now.0)? {
                // Its own: the event was here, and is gone.
                Some(first) if first.event_id == event.id => {}
                Some(first) => return Ok(Imported::Duplicate(first.event_id)),
                None => self.put_new_claim(claim, event.id, now),
            }
        }
        let size = size_of(&encoded);
        self.put_event(event.id, encoded);
        let mut records = Vec::with_capacity(deliveries.len());
        // As it is found again: by its destinations, if it has any.
        let group = match deliveries.first() {
            Some((target, _)) => self.keep.group_of(&target.lane),
            None => self.keep.group(&event.route),
        };
        for (target, delivery) in deliveries {
            let Delivery { state, attempts, since, parks, mut history, .. } = delivery;
            let surplus = history.len().saturating_sub(Delivery::MAX_HISTORY);
            history.drain(..surplus);
            // What waited for a time there is due here at once.
            let state = match state {
                DeliveryState::Retrying { .. } => DeliveryState::Pending,
                state => state,
            };
            let (accepted, lane) = (event.received_at, target.key);
            let mut record = Record { state, attempts, since, accepted, history, lane, parks: false };
            if record.settled_at().is_none() {
                let seq = self.next_seq();
                let entry = QueueEntry { event: event.id, accepted, told: Told::Record, lane };
                self.enter(&target, seq, entry, None, effects);
            } else if record.is_dead() {
                self.counters(&target.lane).dead += 1;
                self.put(keys::dead(event.id, target.lane.id), []);
                if parks {
                    let seq = self.next_seq();
                    record.parks = self.enter_parked(&target, seq, event.id, now, effects);
                }
            }
            self.put_record(event.id, target.lane.id, &record);
            records.push(record);
        }
        let settled = match records.is_empty() {
            true => Some((Class::Delivered, event.received_at.0)),
            false => retention_of(records.iter()),
        };
        if let Some((class, at)) = settled {
            self.retain(event.id, Retained { class, group, at, size });
        }
        effects.stored += 1;
        effects.bytes += u64::from(size);
        Ok(Imported::Stored)
    }

    pub(super) fn settle(&mut self, op: &Settle, now: Timestamp, effects: &mut Effects) {
        let upcoming = match op.record.state {
            DeliveryState::Retrying { next_at } => Some((next_at.0.max(1), op.place.1)),
            _ => None,
        };
        match self.write_settlement(op, upcoming, now, effects) {
            Ok(()) => effects.settled.push((Arc::clone(&op.lane), op.place, upcoming)),
            // The lease stays out, so the delivery comes again after a restart: repeated, not lost.
            Err(error) => {
                tracing::error!(%error, event = %op.event, destination = %op.lane.name, "a delivery could not be settled");
            }
        }
    }

    fn write_settlement(
        &mut self,
        op: &Settle,
        upcoming: Option<Place>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), BufferError> {
        let lane = &op.lane;
        let records = self.records_with(op)?;
        let turn = self.turn(op)?;
        self.leave_queue(op, turn, now, effects);
        if let Some((due, seq)) = upcoming {
            let accepted = op.record.accepted;
            let entry = QueueEntry { event: op.event, accepted, told: Told::Record, lane: op.record.lane };
            self.put(keys::retry(lane.id, due, seq), entry.encode());
            if op.place.0 == 0 {
                self.put(keys::retried(lane.id, seq), accepted.0.to_be_bytes());
            }
            self.put_record(op.event, lane.id, &op.record);
            return Ok(());
        }
        self.end(op, records)
    }

    /// All deliveries of the event that something is known of, with this one as it will be.
    pub(super) fn records_with(&self, op: &Settle) -> Result<BTreeMap<u32, Record>, BufferError> {
        let mut records: BTreeMap<u32, Record> = match op.siblings {
            // The usual case needs no look at the others.
            1 if !self.directory.is_widened() => BTreeMap::new(),
            _ => self.records(op.event)?.into_iter().collect(),
        };
        records.insert(op.lane.id, op.record.clone());
        Ok(records)
    }

    /// Takes a delivery out of its queue.
    pub(super) fn leave_queue(&mut self, op: &Settle, turn: Turn, now: Timestamp, effects: &mut Effects) {
        self.take_turn(op, turn, now, effects);
        self.remove(keys::queued(op.lane.id, op.place));
    }

    /// Writes down what a delivery has come to that is done with, and begins its event's retention if it was the last.
    pub(super) fn end(&mut self, op: &Settle, records: BTreeMap<u32, Record>) -> Result<(), BufferError> {
        let lane = &op.lane;
        if op.place.0 > 0 {
            self.remove(keys::retried(lane.id, op.place.1));
        }
        let counters = self.counters(lane);
        counters.backlog = counters.backlog.saturating_sub(1);
        if op.record.is_dead() {
            counters.dead += 1;
            self.put(keys::dead(op.event, lane.id), []);
        }
        self.put_record(op.event, lane.id, &op.record);
        if records.len() as u64 >= u64::from(op.siblings)
            && let Some((class, at)) = retention_of(records.values())
            && let Some(size) = self.size_if_all(op, records.len())?
        {
            let group = self.keep.group_of(lane);
            if class == Class::Delivered && self.keep.rule(group).delivered.is_zero() {
                let records: Vec<_> = records.into_iter().collect();
                self.remove_event(op.event, &records, None);
            } else {
                self.retain(op.event, Retained { class, group, at, size });
            }
        }
        Ok(())
    }

    /// The size of the event, if so many deliveries are all of its: some may have been added since it was leased, each of
    /// which makes it longer.
    fn size_if_all(&self, op: &Settle, deliveries: usize) -> Result<Option<u32>, BufferError> {
        if !self.directory.is_widened() {
            return Ok(Some(op.size));
        }
        Ok(match self.event(op.event)? {
            Some(stored) => Some(stored.size).filter(|_| stored.destinations.len() <= deliveries),
            None => Some(op.size),
        })
    }

    pub(super) fn fill(
        &mut self,
        bytes: usize,
        done: Promise<Result<(), BufferError>>,
        effects: &mut Effects,
    ) {
        match bytes {
            0 => self.remove(keys::FILL.to_vec()),
            bytes => self.put(keys::FILL.to_vec(), vec![0; bytes]),
        }
        effects.swept.push(Answer { done, outcome: Ok(()) });
    }

    pub(super) fn forget_job(
        &mut self,
        id: EventId,
        done: Promise<Result<(), BufferError>>,
        effects: &mut Effects,
    ) {
        self.remove(keys::job(id));
        self.sync = true;
        effects.swept.push(Answer { done, outcome: Ok(()) });
    }
}

/// Of a stored event, whether or not it is sealed.
fn size_of(encoded: &[u8]) -> u32 {
    u32::try_from(seal::plain_len(encoded)).unwrap_or(u32::MAX)
}

/// The record of a delivery after its lease ended so.
pub(super) fn settled(held: &Held, attempt: Option<Attempt>, next: Next, now: Timestamp) -> Record {
    let mut record = held.record();
    if let Some(attempt) = attempt {
        record.attempts = record.attempts.saturating_add(1);
        record.history.push(attempt);
        let surplus = record.history.len().saturating_sub(Delivery::MAX_HISTORY);
        record.history.drain(..surplus);
    }
    record.state = match next {
        Next::Delivered => DeliveryState::Delivered { at: now },
        Next::Retry(at) => DeliveryState::Retrying { next_at: Timestamp(at.0.max(1)) },
        Next::Dead(reason) | Next::Parked(reason) => dead(now, reason),
        Next::Release => record.state,
    };
    record.parks = record.lane.is_some() && matches!(next, Next::Parked(_));
    record
}

const fn dead(at: Timestamp, reason: DeadReason) -> DeliveryState {
    DeliveryState::Dead { at, reason }
}
