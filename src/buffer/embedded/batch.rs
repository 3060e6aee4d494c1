//! The events of one request as one operation: all of them in one commit, or none.
//!
//! An operation is applied to one draft, and a draft is one atomic write, so nothing more is needed for atomicity than
//! that everything is read before anything is changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use fjall::Slice;

use super::super::{AppendError, BatchAppended, BufferError, ClaimKey, Event, NewClaim};
use super::apply::{Answer, Effects};
use super::draft::Draft;
use super::lane::Target;
use super::waiting::Promise;
use crate::clock::Timestamp;

/// Bytes of one batch as stored. What is larger is refused by the way in with a better word, long before.
pub(super) const MAX_BYTES: usize = 256 * 1024 * 1024;

pub(super) struct AppendBatch {
    /// In the order of the request.
    pub(super) events: Vec<Part>,
    /// Of the request as a whole, and the id that stands in it.
    pub(super) claim: Option<NewClaim>,
    pub(super) id: super::super::EventId,
    pub(super) queued: Instant,
    pub(super) done: Promise<Result<BatchAppended, AppendError>>,
}

pub(super) struct Part {
    pub(super) event: Arc<Event>,
    pub(super) encoded: Slice,
    pub(super) targets: Vec<Target>,
    pub(super) claim: Option<NewClaim>,
}

impl AppendBatch {
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|part| part.encoded.len()).sum()
    }
}

impl Draft<'_> {
    pub(super) fn append_batch(&mut self, op: AppendBatch, now: Timestamp, effects: &mut Effects) {
        let AppendBatch { events, claim, id, queued, done } = op;
        let outcome = match self.store_batch(events, claim, id, now, effects) {
            Ok(appended) => Ok(appended),
            Err(e) => Err(AppendError::Unavailable(e.to_string())),
        };
        effects.batches.push((Answer { done, outcome }, queued));
    }

    fn store_batch(
        &mut self,
        events: Vec<Part>,
        claim: Option<NewClaim>,
        id: super::super::EventId,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<BatchAppended, BufferError> {
        if let Some(claim) = &claim
            && let Some(first) = self.claim(claim.key, now.0)?
        {
            return Ok(BatchAppended::Duplicate(first));
        }
        let count = events.len();
        let mut within: HashSet<ClaimKey> = HashSet::with_capacity(count);
        let mut fresh = Vec::with_capacity(count);
        for part in events {
            let stands = match &part.claim {
                None => false,
                Some(claim) => !within.insert(claim.key) || self.claim(claim.key, now.0)?.is_some(),
            };
            if !stands {
                self.load_lanes(&part.targets)?;
                fresh.push(part);
            }
        }
        // Nothing below can fail.
        let stored = fresh.len();
        for Part { event, encoded, targets, claim } in fresh {
            self.put_new(&event, encoded, &targets, claim, now, effects);
        }
        if let Some(claim) = claim {
            // Claimed only with its events: a batch of nothing but duplicates is synced, too, before it is acknowledged.
            self.sync = true;
            self.put_new_claim(claim, id, now);
        }
        Ok(BatchAppended::Stored { stored, duplicates: count - stored })
    }
}
