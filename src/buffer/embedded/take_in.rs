//! Events on their way to the committer: written in their form on disk by whoever brings them, so that many threads do.
//!
//! An event is sealed and handed over under one hold of the keys: see `sealing/change.rs`.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use fjall::Slice;

use super::super::{
    AppendError, Appended, BatchAppended, Delivery, DestinationName, Event, Imported, NewBatch, NewClaim,
    NewPart,
};
use super::apply::{Append, Import, Op};
use super::batch::{self, AppendBatch};
use super::codec;
use super::lane::{Lane, Target};
use super::shared::Shared;
use super::waiting::{self, Outcome};
use crate::seal::Keyring;

/// Longest event in bytes, headers included. The engine takes values of up to 4 GiB.
const MAX_EVENT: usize = 1 << 30;
thread_local! {
    /// Reused between appends of a thread, so that encoding allocates once, in the end's size.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of the scratch that a thread keeps.
const SCRATCH_KEPT: usize = 256 * 1024;

pub(super) fn encode(event: &Event, lanes: &[Arc<Lane>], keys: &Keyring) -> Result<Slice, AppendError> {
    SCRATCH.with_borrow_mut(|scratch| {
        let written = codec::encode_event(scratch, event, lanes.iter().map(|lane| lane.id), keys);
        let encoded = Slice::from(scratch.as_slice());
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
        match written {
            Ok(()) if encoded.len() > MAX_EVENT => {
                Err(AppendError::Unavailable(format!("an event of {} bytes is too long", encoded.len())))
            }
            Ok(()) => Ok(encoded),
            Err(error) => Err(AppendError::Unavailable(error.to_string())),
        }
    })
}

type Coming<T> = Result<Outcome<Result<T, AppendError>>, AppendError>;

impl Shared {
    /// The answer of an append that the committer dropped.
    pub(super) fn gone(&self) -> AppendError {
        AppendError::Unavailable(self.gate.failure())
    }

    pub(super) fn push_event(
        &self,
        event: Event,
        destinations: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Coming<Appended> {
        self.gate.admit()?;
        let lanes = self.lanes(destinations);
        let keys = self.keys.hold();
        let encoded = encode(&event, &lanes, &keys)?;
        let (done, outcome) = waiting::pair();
        let targets = self.targets(&lanes, &event);
        let append = Append { event: Arc::new(event), encoded, targets, claim, queued: Instant::now(), done };
        self.inbox.push(Op::Append(Box::new(append)))?;
        Ok(outcome)
    }

    pub(super) fn push_import(
        &self,
        event: Event,
        deliveries: Vec<Delivery>,
        claim: Option<NewClaim>,
    ) -> Coming<Imported> {
        self.gate.admit()?;
        let mut known: Vec<(Arc<Lane>, Delivery)> = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let lane = self.lane(&delivery.destination);
            if !known.iter().any(|(of, _)| of.id == lane.id) {
                known.push((lane, delivery));
            }
        }
        let lanes: Vec<Arc<Lane>> = known.iter().map(|(lane, _)| Arc::clone(lane)).collect();
        let keys = self.keys.hold();
        let encoded = encode(&event, &lanes, &keys)?;
        let (done, outcome) = waiting::pair();
        let target = |(lane, delivery): (Arc<Lane>, Delivery)| {
            let key = lane.key_of(&event, &self.metrics);
            (Target { lane, key }, delivery)
        };
        let deliveries = known.into_iter().map(target).collect();
        let import = Import { event, encoded, deliveries, claim, done };
        self.inbox.push(Op::Import(Box::new(import)))?;
        Ok(outcome)
    }

    pub(super) fn push_batch(&self, batch: NewBatch) -> Coming<BatchAppended> {
        self.gate.admit()?;
        let NewBatch { id, events, claim } = batch;
        let keys = self.keys.hold();
        let part = |NewPart { event, to, claim }: NewPart| {
            let lanes = self.lanes(&to);
            let encoded = encode(&event, &lanes, &keys)?;
            let targets = self.targets(&lanes, &event);
            Ok(batch::Part { event: Arc::new(event), encoded, targets, claim })
        };
        let events: Vec<batch::Part> = events.into_iter().map(part).collect::<Result<_, AppendError>>()?;
        let (done, outcome) = waiting::pair();
        let append = AppendBatch { events, claim, id, queued: Instant::now(), done };
        if append.bytes() > batch::MAX_BYTES {
            return Err(AppendError::Unavailable(format!("a batch of {} bytes is too long", append.bytes())));
        }
        self.inbox.push(Op::AppendBatch(Box::new(append)))?;
        Ok(outcome)
    }
}
