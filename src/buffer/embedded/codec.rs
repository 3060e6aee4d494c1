//! How records stand on disk: small binary forms of our own, each with a version byte first.
//!
//! No checksums here: fjall keeps an xxh3 of every journal batch, table block and blob and checks it on each read, so a
//! flipped bit is an error of the read, never a wrong record (`tests/damage.rs` flips some). What these forms promise
//! is promise 4: header order, case, repeats and every byte of target, headers and body come back as they went in.

mod claim;
mod delivery;
mod event;
mod totals;

pub(super) use claim::{StoredClaim, decode_claim, encode_claim, open_claim, resealed_claim, seal_claim};
pub(super) use delivery::{QueueEntry, Record, Told};
pub(super) use event::{StoredEvent, decode_event, encode_event};
pub(super) use totals::{CommitRecord, Counters};

#[cfg(test)]
mod tests;
