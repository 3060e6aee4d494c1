//! Claims: made, and told of what their answers say.
//!
//! A claim outlives its event: while its window lasts, a repeat is recognised as one. It holds hashes and an answer. An app's
//! answer (`proxy`, `spill`) may say something of somebody, so an erase finds it by its key and leaves the status alone.

use std::time::Instant;

use super::super::{Answers, BufferError, ClaimKey, Claimed, EventFilter, EventId, NewClaim, Search};
use super::apply::Effects;
use super::codec::{self, StoredClaim};
use super::draft::Draft;
use super::keys;
use super::store::Store;
use crate::clock::Timestamp;
use crate::verify::JsonPointer;

/// Answers of one page.
const PAGE: usize = 256;

impl Draft<'_> {
    /// The claim of `key` that stands at `now`.
    pub(super) fn claim(&self, key: ClaimKey, now: u64) -> Result<Option<Claimed>, BufferError> {
        match self.index.get(keys::claim(key).as_slice()) {
            Some(written) => {
                let opened = written.as_ref().map(|value| codec::open_claim(key, value, &self.keys));
                let claim = opened.transpose().map_err(|e| self.store.malformed("claim", "", e))?;
                Ok(claim.map(|stored| stored.claimed).filter(|claim| claim.expires_at.0 > now))
            }
            None => self.store.standing(key, now),
        }
    }

    /// Puts a claim that does not stand yet, and lets the filter know.
    pub(super) fn put_new_claim(&mut self, claim: NewClaim, event_id: EventId, now: Timestamp) {
        let until = now.saturating_add(claim.window);
        self.store.claims.insert(claim.key, until.0, now.0);
        self.put_claim(claim, event_id, until);
    }

    /// A claim without an event. The first stands. The filter knows of it already.
    pub(super) fn claim_alone(
        &mut self,
        claim: NewClaim,
        event_id: EventId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let key = claim.key;
        match self.claim(key, now.0) {
            Ok(None) => {
                let until = now.saturating_add(claim.window);
                self.put_claim(claim, event_id, until);
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::error!(%error, "a claim could not be made"),
        }
        effects.claimed.push(key);
    }

    fn put_claim(&mut self, claim: NewClaim, event_id: EventId, expires_at: Timestamp) {
        let NewClaim { key, whose, answer, .. } = claim;
        let whose = whose.filter(|_| answer.has_text());
        let stored = StoredClaim { claimed: Claimed { event_id, answer, expires_at }, whose };
        self.put(keys::claim(key), codec::seal_claim(key, &stored, &self.keys));
        self.expiring.entry(expires_at.0).or_default().push(key);
        self.totals.claims_from = self.totals.claims_from.min(expires_at.0);
    }

    /// Takes from a claim what its answer says. Whether there was anything.
    pub(super) fn forget_answer(&mut self, key: ClaimKey) -> Result<bool, BufferError> {
        let Some(value) = self.get(&keys::claim(key))? else { return Ok(false) };
        let claim =
            codec::open_claim(key, &value, &self.keys).map_err(|e| self.store.malformed("claim", "", e))?;
        if !claim.claimed.answer.has_text() {
            return Ok(false);
        }
        // It ends when it would have.
        self.put(keys::claim(key), codec::seal_claim(key, &claim.bare(), &self.keys));
        Ok(true)
    }
}

/// The answers that an erase by this filter means, from behind `after` on, for a bounded time. Only apps' answers, and only
/// what is known of one counts: its route, its key, its event's id and time, and the values in its body.
pub(super) fn find(
    store: &Store,
    filter: &EventFilter,
    after: Option<ClaimKey>,
) -> Result<Answers, BufferError> {
    let until = Instant::now() + Search::BUDGET;
    let value = match &filter.body {
        None => None,
        Some(value) => match JsonPointer::parse(&value.pointer) {
            Ok(pointer) => Some((pointer, value.equals.as_str())),
            Err(_) => return Ok(Answers::default()),
        },
    };
    let meets = |StoredClaim { claimed, whose }: &StoredClaim| {
        let (id, body) = (claimed.event_id, &claimed.answer.body);
        whose.is_some_and(|whose| {
            filter.route.as_deref().is_none_or(|route| whose.is_of_route(route))
                && filter.idempotency_key.as_deref().is_none_or(|key| whose.is_of_key(key))
                && (filter.ids.is_empty() || filter.ids.contains(&id))
                && filter.since.is_none_or(|since| id.time() >= since)
                && filter.until.is_none_or(|until| id.time() < until)
                && value.as_ref().is_none_or(|(pointer, text)| pointer.may_be(body, text))
        })
    };
    let from = after.map_or_else(|| vec![b'K'], |after| keys::behind(keys::claim(after)));
    let (mut found, ring) = (Vec::new(), store.keys.now());
    for (looked_at, entry) in store.scan(from, vec![b'K' + 1]).enumerate() {
        let (key, value) = entry?;
        let Some(key) = keys::claim_at(&key) else { continue };
        // One that can't be read must not hide the others.
        match codec::open_claim(key, &value, &ring) {
            Ok(claim) if meets(&claim) => found.push(key),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "an answer that is kept can't be read, and is not looked into")
            }
        }
        if found.len() == PAGE || (looked_at % 64 == 63 && Instant::now() >= until) {
            return Ok(Answers { keys: found, next: Some(key) });
        }
    }
    Ok(Answers { keys: found, next: None })
}
