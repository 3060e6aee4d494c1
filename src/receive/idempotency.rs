//! Step: did we have it before? The key of a verified request, and a bounded memory of late claims in front of the
//! buffer's index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use crate::buffer::{ClaimKey, Claimed, FirstAnswer, NewClaim};
use crate::clock::Timestamp;
use crate::config::{Idempotency, Route};
use crate::message::Request;

/// The longest readable key that is stored with an event, in bytes. Claims are made of the whole key.
const MAX_READABLE: usize = 256;

/// Memory of the claims that are remembered, in bytes.
const MEMORY: u64 = 32 * 1024 * 1024;

/// What an entry costs beside its answer's body: itself, its key, and the cache's own bookkeeping. Measured as growth
/// of the resident set, 1 million keys through a full cache.
const ENTRY_BYTES: usize = 550;

/// What makes a request the same as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub key: ClaimKey,
    /// For people; shortened.
    pub readable: String,
    pub window: Duration,
}

impl Identity {
    pub fn claim(&self, answer: FirstAnswer) -> NewClaim {
        NewClaim { key: self.key, window: self.window, answer }
    }
}

pub(super) fn identify(route: &Route, rule: &Idempotency, request: &Request) -> Identity {
    let key = rule.key.key(request);
    Identity {
        key: ClaimKey::new(&route.name, key.as_bytes()),
        readable: shortened(key),
        window: rule.window,
    }
}

/// `text`, at most [`MAX_READABLE`] bytes of it.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > MAX_READABLE {
        let end = (0..=MAX_READABLE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

/// Claims that were made or met lately. An entry is only ever made for a claim that stands; that one is missing means
/// nothing.
#[derive(Debug)]
pub(super) struct Recent {
    cache: Cache<ClaimKey, Remembered>,
}

#[derive(Clone, Debug)]
struct Remembered {
    claimed: Arc<Claimed>,
    /// What was left of the window when it was put in.
    left: Duration,
}

impl Default for Recent {
    fn default() -> Self {
        let weigh = |_: &ClaimKey, Remembered { claimed, .. }: &Remembered| {
            let text = claimed.answer.content_type.as_ref().map_or(0, String::len);
            u32::try_from(ENTRY_BYTES + claimed.answer.body.len() + text).unwrap_or(u32::MAX)
        };
        Self {
            cache: Cache::builder().max_capacity(MEMORY).weigher(weigh).expire_after(AtWindowsEnd).build(),
        }
    }
}

impl Recent {
    pub fn get(&self, key: ClaimKey, now: Timestamp) -> Option<Arc<Claimed>> {
        // The cache's own expiry only frees memory; whether a claim stands is the clock's to say.
        self.cache.get(&key).map(|known| known.claimed).filter(|claimed| claimed.expires_at > now)
    }
    pub fn insert(&self, key: ClaimKey, claimed: Arc<Claimed>, now: Timestamp) {
        let left = claimed.expires_at.since(now).min(MAX_REMEMBERED);
        self.cache.insert(key, Remembered { claimed, left });
    }
}

/// Longest that an entry is remembered; far beyond any memory's turnover, and far below what a timer can hold.
const MAX_REMEMBERED: Duration = Duration::from_secs(400 * 24 * 3600);

struct AtWindowsEnd;

impl Expiry<ClaimKey, Remembered> for AtWindowsEnd {
    fn expire_after_create(&self, _: &ClaimKey, known: &Remembered, _: Instant) -> Option<Duration> {
        Some(known.left)
    }
    fn expire_after_update(
        &self,
        _: &ClaimKey,
        known: &Remembered,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::EventId;

    fn claimed(expires_at: u64) -> Arc<Claimed> {
        let answer = FirstAnswer { status: 202, content_type: None, body: Default::default() };
        Arc::new(Claimed { event_id: EventId::new(Timestamp(1)), answer, expires_at: Timestamp(expires_at) })
    }

    #[test]
    fn a_claim_is_remembered_until_its_window_ends() {
        let recent = Recent::default();
        let key = ClaimKey::new("r", b"k");
        assert_eq!(recent.get(key, Timestamp(0)), None);
        recent.insert(key, claimed(100), Timestamp(0));
        assert!(recent.get(key, Timestamp(99)).is_some());
        assert_eq!(recent.get(key, Timestamp(100)), None);
        assert_eq!(recent.get(ClaimKey::new("other", b"k"), Timestamp(0)), None);
    }

    #[test]
    fn the_memory_of_claims_is_bounded() {
        let recent = Recent::default();
        for n in 0..200_000u32 {
            recent.insert(ClaimKey::new("r", &n.to_be_bytes()), claimed(u64::MAX), Timestamp(0));
        }
        recent.cache.run_pending_tasks();
        assert!(recent.cache.weighted_size() <= MEMORY);
        assert!(recent.cache.entry_count() > 10_000);
    }

    #[test]
    fn a_long_key_is_shortened_at_a_boundary() {
        assert_eq!(shortened("k".repeat(MAX_READABLE)).len(), MAX_READABLE);
        let long = shortened("ü".repeat(MAX_READABLE));
        assert_eq!(long, "ü".repeat(MAX_READABLE / 2));
        assert_eq!(shortened(format!("k{}", "ü".repeat(MAX_READABLE))).len(), MAX_READABLE - 1);
    }
}
