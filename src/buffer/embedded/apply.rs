//! What each kind of work changes: append, claim, settle, replay, purge, each applied to the draft of a commit.
//!
//! An operation reads all that it needs before it changes anything, so one that fails leaves the draft as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::Slice;

use super::super::{
    AppendError, Appended, BatchAppended, BufferError, ClaimKey, Claimed, DeadReason, Delivery,
    DeliveryState, Event, EventId, NewClaim, Next,
};
use super::batch::AppendBatch;
use super::codec::{QueueEntry, Record, Told};
use super::draft::{Draft, Retained, retention_of};
use super::keys::{self, Class};
use super::lane::{Held, Lane, Place};
use super::waiting::Promise;
use crate::clock::Timestamp;

/// Work for the committer.
pub(super) enum Op {
    Append(Box<Append>),
    AppendBatch(Box<AppendBatch>),
    Claim {
        claim: NewClaim,
        event_id: EventId,
    },
    Settle(Box<Settle>),
    Replay(Change),
    Purge(Change),
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
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) claim: Option<NewClaim>,
    pub(super) queued: Instant,
    pub(super) done: Promise<Result<Appended, AppendError>>,
}

/// An attempt's outcome, already accounted for in `record`.
pub(super) struct Settle {
    pub(super) lane: Arc<Lane>,
    pub(super) place: Place,
    pub(super) event: EventId,
    pub(super) siblings: u32,
    pub(super) size: u32,
    pub(super) record: Record,
}

/// A replay or purge of some events, as far as their deliveries meet `only` when it is applied.
pub(super) struct Change {
    pub(super) events: Vec<EventId>,
    pub(super) only: Only,
    pub(super) done: Promise<Result<u64, BufferError>>,
}

/// The conditions of a filter that a single delivery meets or does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Only {
    /// Of the destination; a name that is not known matches nothing.
    pub(super) destination: Option<Option<u32>>,
    pub(super) state: Option<String>,
}

impl Only {
    pub(super) fn matches(&self, destination: u32, state: &DeliveryState) -> bool {
        self.destination.is_none_or(|wanted| wanted == Some(destination))
            && self.state.as_ref().is_none_or(|word| word == state.word())
    }
    pub(super) fn is_any(&self) -> bool {
        self.destination.is_none() && self.state.is_none()
    }
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
    pub(super) claimed: Vec<ClaimKey>,
    pub(super) changed: Vec<Answer<u64, BufferError>>,
    pub(super) swept: Vec<Answer<(), BufferError>>,
    /// Events stored by this commit, and their bytes.
    pub(super) stored: usize,
    pub(super) bytes: u64,
}

impl Draft<'_> {
    pub(super) fn append(&mut self, op: Append, now: Timestamp, effects: &mut Effects) {
        let Append { event, encoded, lanes, claim, queued, done } = op;
        let outcome = match self.store_event(&event, encoded, &lanes, claim, now, effects) {
            Ok(appended) => Ok(appended),
            Err(e) => Err(AppendError::Unavailable(e.to_string())),
        };
        effects.appended.push((Answer { done, outcome }, queued));
    }

    fn store_event(
        &mut self,
        event: &Arc<Event>,
        encoded: Slice,
        lanes: &[Arc<Lane>],
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
        self.put_new(event, encoded, lanes, claim, now, effects);
        Ok(Appended::Stored)
    }

    /// Puts a claim that does not stand yet, and lets the filter know.
    pub(super) fn put_new_claim(&mut self, claim: NewClaim, event_id: EventId, now: Timestamp) {
        let (key, claimed) = (claim.key, claimed(claim, event_id, now));
        self.store.claims.insert(key, claimed.expires_at.0, now.0);
        self.put_claim(key, &claimed);
    }

    /// Puts an event that is not there yet, with its claim and its deliveries.
    pub(super) fn put_new(
        &mut self,
        event: &Arc<Event>,
        encoded: Slice,
        lanes: &[Arc<Lane>],
        claim: Option<NewClaim>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let size = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        let siblings = u32::try_from(lanes.len()).unwrap_or(u32::MAX);
        self.sync = true;
        self.put_event(event.id, encoded);
        if let Some(claim) = claim {
            self.put_new_claim(claim, event.id, now);
        }
        let seq = self.next_seq();
        let entry = QueueEntry { event: event.id, accepted: event.received_at, told: Told::Nothing };
        for lane in lanes {
            self.put(keys::fresh(lane.id, seq), entry.encode());
            self.counters(lane).backlog += 1;
            let held = Held { event: Arc::clone(event), siblings, size, record: None };
            effects.arrived.push((Arc::clone(lane), seq, Some(held)));
        }
        if lanes.is_empty() {
            self.retain(event.id, Retained { class: Class::Delivered, at: event.received_at.0, size });
        }
        effects.stored += 1;
        effects.bytes += u64::from(size);
    }

    /// A claim without an event. The first stands.
    pub(super) fn claim_alone(
        &mut self,
        claim: NewClaim,
        event_id: EventId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let key = claim.key;
        match self.claim(key, now.0) {
            Ok(None) => self.put_claim(key, &claimed(claim, event_id, now)),
            Ok(Some(_)) => {}
            Err(error) => tracing::error!(%error, "a claim could not be made"),
        }
        effects.claimed.push(key);
    }

    /// `keep_delivered`: how long delivered events are kept.
    pub(super) fn settle(&mut self, op: &Settle, keep_delivered: Duration, effects: &mut Effects) {
        let upcoming = match op.record.state {
            DeliveryState::Retrying { next_at } => Some((next_at.0.max(1), op.place.1)),
            _ => None,
        };
        match self.write_settlement(op, upcoming, keep_delivered) {
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
        keep_delivered: Duration,
    ) -> Result<(), BufferError> {
        let (lane, seq) = (&op.lane, op.place.1);
        let mut records: BTreeMap<u32, Record> = match op.siblings {
            // The usual case needs no look at the others.
            1 => BTreeMap::new(),
            _ => self.records(op.event)?.into_iter().collect(),
        };
        records.insert(lane.id, op.record.clone());
        match op.place.0 {
            0 => self.remove(keys::fresh(lane.id, seq)),
            due => self.remove(keys::retry(lane.id, due, seq)),
        }
        if let Some((due, seq)) = upcoming {
            let accepted = op.record.accepted;
            let entry = QueueEntry { event: op.event, accepted, told: Told::Record };
            self.put(keys::retry(lane.id, due, seq), entry.encode());
            if op.place.0 == 0 {
                self.put(keys::retried(lane.id, seq), accepted.0.to_be_bytes());
            }
            self.put_record(op.event, lane.id, &op.record);
            return Ok(());
        }
        if op.place.0 > 0 {
            self.remove(keys::retried(lane.id, seq));
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
        {
            if class == Class::Delivered && keep_delivered.is_zero() {
                let records: Vec<_> = records.into_iter().collect();
                self.remove_event(op.event, &records, None);
            } else {
                self.retain(op.event, Retained { class, at, size: op.size });
            }
        }
        Ok(())
    }

    pub(super) fn replay(&mut self, op: Change, now: Timestamp, effects: &mut Effects) {
        let mut count = 0;
        let mut outcome = Ok(());
        for event in op.events {
            match self.replay_one(event, &op.only, now, effects) {
                Ok(replayed) => count += replayed,
                Err(e) => outcome = Err(e),
            }
        }
        self.sync = true;
        effects.changed.push(Answer { done: op.done, outcome: outcome.map(|()| count) });
    }

    fn replay_one(
        &mut self,
        id: EventId,
        only: &Only,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<u64, BufferError> {
        let records = self.records(id)?;
        let kept = self.retained(id, &records)?;
        let chosen = |(destination, record): &&(u32, Record)| {
            record.settled_at().is_some() && only.matches(*destination, &record.state)
        };
        let mut count = 0;
        for (destination, record) in records.iter().filter(chosen) {
            let Some(lane) = self.directory.by_id(*destination) else { continue };
            let seq = self.next_seq();
            let entry = QueueEntry { event: id, accepted: record.accepted, told: Told::Record };
            self.put(keys::fresh(lane.id, seq), entry.encode());
            let fresh = Record { state: DeliveryState::Pending, attempts: 0, since: now, ..record.clone() };
            self.put_record(id, lane.id, &fresh);
            let counters = self.counters(&lane);
            counters.backlog += 1;
            if record.is_dead() {
                counters.dead = counters.dead.saturating_sub(1);
                self.remove(keys::dead(id, lane.id));
            }
            effects.arrived.push((lane, seq, None));
            count += 1;
        }
        if count > 0
            && let Some(kept) = kept
        {
            self.release(id, kept);
        }
        Ok(count)
    }

    pub(super) fn purge(&mut self, op: Change, effects: &mut Effects) {
        let mut count = 0;
        let mut outcome = Ok(());
        for event in op.events {
            match self.purge_one(event, &op.only) {
                Ok(true) => count += 1,
                Ok(false) => {}
                Err(e) => outcome = Err(e),
            }
        }
        self.sync = true;
        effects.changed.push(Answer { done: op.done, outcome: outcome.map(|()| count) });
    }

    /// Whether the event was deleted: only what is settled altogether may go.
    fn purge_one(&mut self, id: EventId, only: &Only) -> Result<bool, BufferError> {
        let records = self.records(id)?;
        let kept = match self.retained(id, &records)? {
            Some(kept) => kept,
            None if records.is_empty() => match self.event(id)? {
                // An event without destinations has nothing to wait for.
                Some(stored) if stored.destinations.is_empty() => {
                    Retained { class: Class::Delivered, at: stored.event.received_at.0, size: stored.size }
                }
                _ => return Ok(false),
            },
            None => return Ok(false),
        };
        if !only.is_any() && !records.iter().any(|(d, r)| only.matches(*d, &r.state)) {
            return Ok(false);
        }
        self.remove_event(id, &records, Some(kept));
        Ok(true)
    }
}

fn claimed(claim: NewClaim, event_id: EventId, now: Timestamp) -> Claimed {
    Claimed { event_id, answer: claim.answer, expires_at: now.saturating_add(claim.window) }
}

/// The record of a delivery after its lease ended so.
pub(super) fn settled(
    held: &Held,
    attempt: Option<super::super::Attempt>,
    next: Next,
    now: Timestamp,
) -> Record {
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
        Next::Dead(reason) => dead(now, reason),
        Next::Release => record.state,
    };
    record
}

const fn dead(at: Timestamp, reason: DeadReason) -> DeliveryState {
    DeliveryState::Dead { at, reason }
}
