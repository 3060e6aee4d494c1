//! What is done to stored events by operators and jobs: replay, giving up and purge, each step with its job as one write.

use std::sync::Arc;

use super::super::{Attempt, BufferError, ClaimKey, DeadReason, DeliveryState, EventId, Job, StatusIs};
use super::apply::{Answer, Effects};
use super::codec::{self, QueueEntry, Record, StoredEvent, Told};
use super::draft::{Draft, Retained};
use super::give_up::Spots;
use super::keys::{self, Class, Group};
use super::lane::{Lane, Target};
use super::waiting::Promise;
use crate::clock::Timestamp;
use crate::seal::Kind;

/// What is done to some events, as far as their deliveries meet `only` when it is applied.
pub(super) struct Change {
    pub(super) what: What,
    pub(super) events: Vec<EventId>,
    pub(super) only: Only,
    /// Claims whose answers are forgotten.
    pub(super) answers: Vec<ClaimKey>,
    /// Is written with it.
    pub(super) job: Option<Box<Job>>,
    pub(super) done: Promise<Result<Changed, BufferError>>,
}

/// See [`super::super::Task`].
pub(super) enum What {
    Replay,
    ReplayTo(Arc<Lane>),
    /// Of deliveries that wait here.
    GiveUp(Spots),
    Purge,
}

/// What came of a change.
#[derive(Default)]
pub(super) struct Changed {
    /// Deliveries made pending or given up, or events deleted.
    pub(super) count: u64,
    /// Deliveries that were not given up because they are leased.
    pub(super) under_way: u64,
    pub(super) job: Option<Box<Job>>,
}

/// The conditions of a filter that a single delivery meets or does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Only {
    /// Of the destination; a name that is not known matches nothing.
    pub(super) destination: Option<Option<u32>>,
    pub(super) state: Option<String>,
    pub(super) reason: Option<DeadReason>,
    pub(super) status: Option<StatusIs>,
}

impl Only {
    /// `last`: the latest attempt.
    pub(super) fn matches(&self, destination: u32, state: &DeliveryState, last: Option<&Attempt>) -> bool {
        self.destination.is_none_or(|wanted| wanted == Some(destination))
            && self.state.as_ref().is_none_or(|word| word == state.word())
            && self
                .reason
                .is_none_or(|wanted| matches!(state, DeliveryState::Dead { reason, .. } if *reason == wanted))
            && self.status.is_none_or(|wanted| wanted.matches(last))
    }
    pub(super) fn is_any(&self) -> bool {
        let Self { destination, state, reason, status } = self;
        destination.is_none() && state.is_none() && reason.is_none() && status.is_none()
    }
    /// Whether only a delivery of which there is a record can meet them.
    pub(super) fn needs_record(&self) -> bool {
        self.reason.is_some()
            || self.status.is_some()
            || self.state.as_deref().is_some_and(|state| state != "pending")
    }
    pub(super) fn meets(&self, (destination, record): &(u32, Record)) -> bool {
        self.matches(*destination, &record.state, record.history.last())
    }
}

/// Where a delivery that is tried again goes in its lane.
enum InLane {
    Last,
    First {
        /// What is first behind it.
        waits: Option<(u64, QueueEntry)>,
    },
}

impl Draft<'_> {
    pub(super) fn change(&mut self, op: Change, now: Timestamp, effects: &mut Effects) {
        let Change { what, events, only, answers, mut job, done } = op;
        let mut changed = Changed::default();
        let mut failed = None;
        for event in events {
            let outcome = match &what {
                What::Replay => self.replay_one(event, &only, now, effects),
                What::ReplayTo(lane) => self.give_to(event, lane, now, effects),
                What::GiveUp(spots) => {
                    self.give_up_one(event, spots.get(&event), &only, now, effects).map(|one| {
                        changed.under_way += one.under_way;
                        one.count
                    })
                }
                What::Purge => self.purge_one(event, &only, now, effects).map(u64::from),
            };
            match (outcome, &mut job) {
                (Ok(count), job) => {
                    changed.count += count;
                    if let (Some(job), 0) = (job, count) {
                        job.untouched += 1;
                    }
                }
                // One that is damaged must not hold a job up for ever.
                (Err(error), Some(job)) => {
                    tracing::error!(%error, %event, job = %job.id, "a job leaves an event alone");
                    job.untouched += 1;
                }
                (Err(error), None) => failed = Some(error),
            }
        }
        for key in answers {
            match (self.forget_answer(key), &mut job) {
                (Ok(true), Some(job)) => {
                    job.answers += 1;
                    effects.forgotten = true;
                }
                (Ok(_), _) => {}
                (Err(error), _) => failed = Some(error),
            }
        }
        if let Some(mut job) = job {
            job.changed += changed.count;
            let written = serde_json::to_vec(&job).map_err(|error| error.to_string());
            let seal = |plain: Vec<u8>| {
                self.keys.seal(Kind::Job, &job.id.0, &plain).map_err(|error| error.to_string())
            };
            match written.and_then(seal) {
                Ok(written) => self.put(keys::job(job.id), written),
                // Texts and numbers always have a form; if not, the job is not what is wrong.
                Err(error) => failed = Some(BufferError::Failed(format!("a job can't be written: {error}"))),
            }
            changed.job = Some(job);
        }
        self.sync = true;
        effects.changed.push(Answer { done, outcome: failed.map_or(Ok(changed), Err) });
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
        let mut chosen = Vec::new();
        for (to, record) in records.iter().filter(|of| of.1.settled_at().is_some() && only.meets(of)) {
            let Some(lane) = self.directory.by_id(*to) else { continue };
            let target = Target { lane, key: record.lane };
            let place = self.place_of(id, &target, record)?;
            chosen.push((target, record.clone(), place));
        }
        let count = chosen.len() as u64;
        for (target, record, place) in chosen {
            self.enqueue(id, &target, record, place, now, effects);
        }
        if count > 0
            && let Some(kept) = kept
        {
            self.release(id, kept);
        }
        Ok(count)
    }

    /// Makes a delivery pending that is settled, or that the event did not have.
    fn enqueue(
        &mut self,
        id: EventId,
        target: &Target,
        record: Record,
        place: InLane,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let lane = &target.lane;
        let entry = QueueEntry { event: id, accepted: record.accepted, told: Told::Record, lane: target.key };
        match (place, target.key) {
            (InLane::First { waits }, Some(key)) => self.unpark(lane, key, waits, entry, now, effects),
            _ => {
                let seq = self.next_seq();
                self.enter(target, seq, entry, None, effects);
            }
        }
        if record.is_dead() {
            let counters = self.counters(lane);
            counters.dead = counters.dead.saturating_sub(1);
            self.remove(keys::dead(id, lane.id));
        }
        let state = DeliveryState::Pending;
        let fresh = Record { state, attempts: 0, since: now, lane: target.key, parks: false, ..record };
        self.put_record(id, lane.id, &fresh);
    }

    /// Where a delivery that is tried again goes in its lane: one that parked it comes first. Loads the lane.
    fn place_of(&mut self, id: EventId, target: &Target, record: &Record) -> Result<InLane, BufferError> {
        let Some(key) = target.key else { return Ok(InLane::Last) };
        self.load_lane(target.lane.id, key)?;
        match record.parks {
            false => Ok(InLane::Last),
            true => Ok(match self.behind_parked(&target.lane, key, id)? {
                Some(waits) => InLane::First { waits },
                None => InLane::Last,
            }),
        }
    }

    /// Gives an event to a destination, whether or not it was meant for it. 0 if that delivery is under way.
    fn give_to(
        &mut self,
        id: EventId,
        lane: &Arc<Lane>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<u64, BufferError> {
        let Some(stored) = self.event(id)? else { return Ok(0) };
        let records = self.records(id)?;
        let known = stored.destinations.contains(&lane.id);
        let record = match records.iter().find(|(of, _)| *of == lane.id) {
            Some((_, record)) if record.settled_at().is_some() => record.clone(),
            Some(_) => return Ok(0),
            None if known => return Ok(0),
            None => Record::untried(stored.event.received_at, None),
        };
        // One that went in order does so again; one that is new goes as the config says.
        let key = match known {
            true => record.lane,
            false => lane.key_of(&stored.event, &self.directory.metrics),
        };
        let target = Target { lane: Arc::clone(lane), key };
        let place = self.place_of(id, &target, &record)?;
        let kept = self.retained_of(&stored, &records)?;
        if !known {
            let mut encoded = Vec::new();
            let destinations: Vec<u32> = stored.destinations.iter().copied().chain([lane.id]).collect();
            codec::encode_event(&mut encoded, &stored.event, destinations.into_iter(), &self.keys)
                .map_err(|error| BufferError::Failed(error.to_string()))?;
            self.rewrite_event(id, encoded.into());
        }
        self.enqueue(id, &target, record, place, now, effects);
        match kept {
            Some(kept) => self.release(id, kept),
            // Whoever holds one of its deliveries does not know of this one.
            None => self.directory.widen(),
        }
        Ok(1)
    }

    /// The same for an event that may have no destinations, and so nothing to wait for.
    fn retained_of(
        &self,
        stored: &StoredEvent,
        records: &[(u32, Record)],
    ) -> Result<Option<Retained>, BufferError> {
        if stored.destinations.is_empty() && records.is_empty() {
            let at = stored.event.received_at.0;
            let group = Group::of(&stored.event.route);
            return self.find_retained(stored.event.id, Class::Delivered, at, [group]);
        }
        self.retained(stored.event.id, records)
    }

    /// Whether the event was deleted: only what is settled altogether may go.
    fn purge_one(
        &mut self,
        id: EventId,
        only: &Only,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<bool, BufferError> {
        let records = self.records(id)?;
        let kept = match self.retained(id, &records)? {
            None if records.is_empty() => match self.event(id)? {
                Some(stored) => self.retained_of(&stored, &records)?,
                None => None,
            },
            kept => kept,
        };
        let Some(kept) = kept else { return Ok(false) };
        if !only.is_any() && !records.iter().any(|of| only.meets(of)) {
            return Ok(false);
        }
        let mut held_up = Vec::new();
        for (to, record) in records.iter().filter(|(_, record)| record.parks) {
            if let (Some(lane), Some(key)) = (self.directory.by_id(*to), record.lane)
                && let Some(first) = self.behind_parked(&lane, key, id)?
            {
                held_up.push((lane, key, first));
            }
        }
        for (lane, key, first) in held_up {
            self.open(&lane, key, first, now, effects);
        }
        self.remove_event(id, &records, Some(kept));
        Ok(true)
    }
}
