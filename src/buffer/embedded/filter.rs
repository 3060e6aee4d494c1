//! Which claims may stand: a memory that answers nearly every first delivery without a look at the store.
//!
//! Nearly all keys that are asked for are new, and for each the engine would search its write buffers and the filters of
//! its tables. Here stand two bytes of every claim that was made, in Bloom filters that are filled one after the other
//! and let go once all claims in them have expired. It may say *perhaps* for nothing (one in some thousand), but never
//! *no* of a claim that stands: then a repeat would pass. Until the claims of earlier processes are known, and for what
//! does not fit into its memory, it says *perhaps*.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::super::ClaimKey;

/// Claims of the first part; each is half as large as all there are, so that there are few to ask.
const FIRST_PART: usize = 32 * 1024;
const CLAIM_BYTES: usize = 2;
/// Memory of all parts together, in bytes: for 16 million claims.
const MEMORY: usize = 32 * 1024 * 1024;
/// A block is a cache line: a question costs one miss a part.
const BLOCK_WORDS: usize = 8;
const BLOCK_CLAIMS: usize = BLOCK_WORDS * size_of::<u64>() / CLAIM_BYTES;
/// Bits set for a claim.
const BITS: u32 = 7;

#[derive(Debug, Default)]
pub(super) struct Filter {
    parts: RwLock<Vec<Part>>,
    /// Whether the claims of earlier processes are in.
    complete: AtomicBool,
    /// When the last claim expires that did not fit in.
    unknown_until: AtomicU64,
}

#[derive(Debug)]
struct Part {
    blocks: Box<[[u64; BLOCK_WORDS]]>,
    /// Claims that it takes still.
    room: usize,
    /// When the last of its claims expires.
    until: u64,
}

impl Part {
    fn new(claims: usize) -> Self {
        let blocks = vec![[0; BLOCK_WORDS]; claims.div_ceil(BLOCK_CLAIMS)].into_boxed_slice();
        Self { blocks, room: claims, until: 0 }
    }
    fn bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }
}

/// The block and the bits of a key. Keys are hashes, so their own bits are as good as any.
fn place(key: ClaimKey, blocks: usize) -> (usize, [u64; BLOCK_WORDS]) {
    let whole = u128::from_be_bytes(key.0);
    let (high, mut low) = ((whole >> 64) as u64, whole as u64);
    let mut bits = [0; BLOCK_WORDS];
    for _ in 0..BITS {
        bits[(low >> 6) as usize % BLOCK_WORDS] |= 1 << (low & 63);
        low >>= 9;
    }
    (((u128::from(high) * blocks as u128) >> 64) as usize, bits)
}

impl Filter {
    /// Takes note of a claim, before anybody can meet it in the store.
    pub(super) fn insert(&self, key: ClaimKey, expires_at: u64, now: u64) {
        let mut parts = self.parts.write();
        if parts.last().is_none_or(|part| part.room == 0) {
            parts.retain(|part| part.until > now);
            let used: usize = parts.iter().map(Part::bytes).sum();
            let next = Part::new((used / CLAIM_BYTES / 2).max(FIRST_PART));
            if used + next.bytes() > MEMORY {
                self.unknown_until.fetch_max(expires_at, Ordering::Release);
                return;
            }
            parts.push(next);
        }
        if let Some(part) = parts.last_mut() {
            let (block, bits) = place(key, part.blocks.len());
            part.blocks[block].iter_mut().zip(bits).for_each(|(word, bits)| *word |= bits);
            part.room -= 1;
            part.until = part.until.max(expires_at);
        }
    }

    /// All claims that earlier processes made are in.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether a claim of `key` may stand at `now`.
    pub(super) fn may_stand(&self, key: ClaimKey, now: u64) -> bool {
        if !self.complete.load(Ordering::Acquire) || self.unknown_until.load(Ordering::Acquire) > now {
            return true;
        }
        self.parts.read().iter().any(|part| {
            let (block, bits) = place(key, part.blocks.len());
            part.blocks[block].iter().zip(bits).all(|(word, bits)| word & bits == bits)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> ClaimKey {
        ClaimKey::new("hooks", &n.to_be_bytes())
    }
    fn complete() -> Filter {
        let filter = Filter::default();
        filter.complete();
        filter
    }

    proptest! {
        #[test]
        fn a_claim_that_stands_is_never_denied(
            claims in proptest::collection::vec((any::<[u8; 16]>(), 1u64..1000), 1..200), now in 0u64..1000,
        ) {
            let filter = complete();
            claims.iter().for_each(|(key, at)| filter.insert(ClaimKey(*key), *at, 0));
            for (key, at) in claims {
                prop_assert!(at <= now || filter.may_stand(ClaimKey(key), now));
            }
        }
    }

    #[test]
    fn claims_of_all_parts_are_known_and_few_others_are_taken_for_one() {
        let (filter, made) = (complete(), 8 * FIRST_PART as u64);
        (0..made).for_each(|n| filter.insert(key(n), 10, 0));
        assert!(filter.parts.read().len() > 2);
        assert!((0..made).all(|n| filter.may_stand(key(n), 5)));
        let wrong = (made..made + 10_000).filter(|n| filter.may_stand(key(*n), 5)).count();
        assert!(wrong < 200, "{wrong} of 10000");
    }

    #[test]
    fn parts_go_once_all_their_claims_have_expired() {
        let filter = complete();
        for round in 0..20u64 {
            (0..FIRST_PART as u64).for_each(|n| filter.insert(key(n), round + 2, round));
        }
        let used: usize = filter.parts.read().iter().map(Part::bytes).sum();
        assert!(used <= 8 * FIRST_PART * CLAIM_BYTES, "{used} bytes for two rounds of claims");
    }

    #[test]
    fn nothing_is_denied_before_earlier_claims_are_known_or_when_there_is_no_room() {
        assert!(Filter::default().may_stand(key(1), 0));
        let filter = complete();
        filter.parts.write().push(Part { room: 0, until: 100, ..Part::new(MEMORY / 2) });
        filter.insert(key(1), 50, 0);
        assert!(filter.may_stand(key(2), 49) && filter.may_stand(key(1), 49));
        assert!(!filter.may_stand(key(2), 50));
    }
}
