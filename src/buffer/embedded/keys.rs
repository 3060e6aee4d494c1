//! The layout of keys: what is stored where, in which order. Numbers are big-endian, so key order is number order.
//!
//! `events` holds `event id → encoded event`. `index` holds everything small, under one-byte prefixes:
//!
//! | key | value | order |
//! |---|---|---|
//! | [`COMMIT`] | counters and the number of the commit | |
//! | `N` id | a destination's name | |
//! | `C` destination | its counters and scan floors | |
//! | `K` claim key | the claim | |
//! | `X` expiry, claim key | more claim keys that expire then | claims by expiry |
//! | `F` destination, seq | [`QueueEntry`] | deliveries not tried since acceptance or replay, by acceptance |
//! | `R` destination, due, seq | [`QueueEntry`] | deliveries to be retried, by due time |
//! | `O` destination, seq | accepted at, and for a lane's new first when it was due | deliveries in `R`, and the first that waits behind a parked one, by acceptance (for the oldest age) |
//! | `H` destination, lane | the lane's record | lanes that are not empty |
//! | `W` destination, lane, seq | [`QueueEntry`] | deliveries that wait for their lane's first, by acceptance |
//! | `B` destination, since, lane | – | lanes that stand still, by time |
//! | `D` event, destination | the delivery, once there is something to say | |
//! | `L` event, destination | – | dead letters, by event |
//! | `J` job | the job, as JSON | jobs by the time of their making |
//! | `M` key | a note of another part | |
//! | `E` endpoint key | until, and what `crate::endpoints` wrote | |
//! | `G` until, endpoint key | – | records of endpoints that end, by their end |
//! | `V` settled at, event | size | events whose deliveries are all delivered, for retention |
//! | `T` settled at, event | size | events that are settled and have a dead letter, for retention |
//! | `v` group, settled at, event | size | the same as `V`, of routes with a `keep` of their own |
//! | `t` group, settled at, event | size | the same as `T`, of such routes |
//! | `Q` group | what is kept of a group, and where its indexes begin | |
//! | [`SEALING`] | which keys open what is here, and how far sealing anew is | |
//! | [`FILL`] | zeros | |

use super::super::event::short_hash;
use super::super::{ClaimKey, EventId, LaneKey};
use super::lane::Place;

/// Of the commit record in `index`. Longer than any other key that starts so, and found by it in the journal.
pub(super) const COMMIT: &[u8] = b"\0\0tidegate-commit";
/// Of the mark in `events`: the number of the last commit that touched this keyspace.
pub(super) const MARK: &[u8] = b"\0\0tidegate-mark";

/// See `sealing.rs`.
pub(super) const SEALING: &[u8] = b"Ysealing";

/// Fills a journal up: see `scrub.rs`.
pub(super) const FILL: &[u8] = b"Zfill";

/// Of the two queues' and the time-ordered indexes' entries.
pub(super) type Key = Vec<u8>;

fn key(prefix: u8, parts: &[&[u8]]) -> Key {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    key.push(prefix);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn name(id: u32) -> Key {
    key(b'N', &[&id.to_be_bytes()])
}
pub(super) fn counters(destination: u32) -> Key {
    key(b'C', &[&destination.to_be_bytes()])
}
pub(super) fn claim(claim: ClaimKey) -> Key {
    key(b'K', &[&claim.0])
}
/// Whose claim stands under this key of the index.
pub(super) fn claim_at(key: &[u8]) -> Option<ClaimKey> {
    Some(ClaimKey(key.get(1..)?.try_into().ok()?))
}
/// The first possible key behind this one.
pub(super) fn behind(mut key: Key) -> Key {
    key.push(0);
    key
}
pub(super) fn expiry(at: u64, claim: ClaimKey) -> Key {
    key(b'X', &[&at.to_be_bytes(), &claim.0])
}
pub(super) fn fresh(destination: u32, seq: u64) -> Key {
    key(b'F', &[&destination.to_be_bytes(), &seq.to_be_bytes()])
}
pub(super) fn retry(destination: u32, due: u64, seq: u64) -> Key {
    key(b'R', &[&destination.to_be_bytes(), &due.to_be_bytes(), &seq.to_be_bytes()])
}
/// Where a delivery stands that waits at this place: never tried, or due then.
pub(super) fn queued(destination: u32, (due, seq): Place) -> Key {
    match due {
        0 => fresh(destination, seq),
        due => retry(destination, due, seq),
    }
}
/// The place that the key of a retry says.
pub(super) fn place_of_retry(key: &[u8]) -> Option<Place> {
    Some((u64_at(key, 5)?, u64_at(key, 13)?))
}
pub(super) fn retried(destination: u32, seq: u64) -> Key {
    key(b'O', &[&destination.to_be_bytes(), &seq.to_be_bytes()])
}
pub(super) fn ordered(destination: u32, lane: LaneKey) -> Key {
    key(b'H', &[&destination.to_be_bytes(), &lane.0])
}
pub(super) fn waiting(destination: u32, lane: LaneKey, seq: u64) -> Key {
    key(b'W', &[&destination.to_be_bytes(), &lane.0, &seq.to_be_bytes()])
}
/// The first possible key of all that wait in lanes of a destination.
pub(super) fn lanes_of(destination: u32) -> Key {
    key(b'W', &[&destination.to_be_bytes()])
}
pub(super) fn stuck(destination: u32, since: u64, lane: LaneKey) -> Key {
    key(b'B', &[&destination.to_be_bytes(), &since.to_be_bytes(), &lane.0])
}
pub(super) fn delivery(event: EventId, destination: u32) -> Key {
    key(b'D', &[&event.0, &destination.to_be_bytes()])
}
pub(super) fn deliveries(event: EventId) -> Key {
    key(b'D', &[&event.0])
}
pub(super) fn dead(event: EventId, destination: u32) -> Key {
    key(b'L', &[&event.0, &destination.to_be_bytes()])
}
pub(super) fn job(id: EventId) -> Key {
    key(b'J', &[&id.0])
}
/// The notes whose keys begin with `of`, or one note.
pub(super) fn note(of: &str) -> Key {
    key(b'M', &[of.as_bytes()])
}
pub(super) fn retention(class: Class, group: Option<Group>, at: u64, event: EventId) -> Key {
    match group {
        None => key(class.prefix(), &[&at.to_be_bytes(), &event.0]),
        Some(group) => key(class.prefix_of_groups(), &[&group.0, &at.to_be_bytes(), &event.0]),
    }
}
/// The first possible key of a group's index at `at`.
pub(super) fn group_floor(class: Class, group: Group, at: u64) -> Key {
    key(class.prefix_of_groups(), &[&group.0, &at.to_be_bytes()])
}
pub(super) fn group(group: Group) -> Key {
    key(b'Q', &[&group.0])
}
pub(super) fn endpoint(endpoint: [u8; 32]) -> Key {
    key(b'E', &[&endpoint])
}
pub(super) fn ending(at: u64, endpoint: [u8; 32]) -> Key {
    key(b'G', &[&at.to_be_bytes(), &endpoint])
}
/// The first possible key of a time-ordered index at `at`.
pub(super) fn time_floor(prefix: u8, at: u64) -> Key {
    key(prefix, &[&at.to_be_bytes()])
}

/// All claims of an entry of the index by expiry, with their time.
pub(super) fn split_expiry(key: &[u8], value: &[u8]) -> Option<(u64, Vec<ClaimKey>)> {
    let (at, first) = split_timed(key)?;
    let others = value.as_chunks::<16>().0;
    Some((at, std::iter::once(&first).chain(others).map(|key| ClaimKey(*key)).collect()))
}

/// How long a settled event is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// All deliveries delivered.
    Delivered,
    /// At least one is dead.
    Dead,
}

impl Class {
    pub(super) const fn prefix(self) -> u8 {
        match self {
            Class::Delivered => b'V',
            Class::Dead => b'T',
        }
    }
    const fn prefix_of_groups(self) -> u8 {
        match self {
            Class::Delivered => b'v',
            Class::Dead => b't',
        }
    }
}

/// The events of a route that has retention of its own, by a hash of its name, so that nothing need be kept of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Group(pub(super) [u8; 8]);

impl Group {
    pub(super) fn of(route: &str) -> Self {
        Self(short_hash(route))
    }
}

/// The number at `at` of a key; `None` if the key is too short to be one of ours.
pub(super) fn u64_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}
pub(super) fn u32_at(key: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(at..at + 4)?.try_into().ok()?))
}
pub(super) fn lane_at(key: &[u8], at: usize) -> Option<LaneKey> {
    Some(LaneKey(key.get(at..at + 8)?.try_into().ok()?))
}
pub(super) fn id_at(key: &[u8], at: usize) -> Option<EventId> {
    Some(EventId(key.get(at..at + 16)?.try_into().ok()?))
}

/// Splits a key of a time-ordered index into its time and the 16 bytes behind.
pub(super) fn split_timed(key: &[u8]) -> Option<(u64, [u8; 16])> {
    Some((u64_at(key, 1)?, key.get(9..25)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_sort_by_destination_then_due_time_then_acceptance() {
        let keys = [retry(1, 5, 9), retry(1, 6, 1), retry(1, 6, 2), retry(1, 256, 0), retry(2, 0, 0)];
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_timed_key_comes_apart_as_it_was_made() {
        let id = EventId([7; 16]);
        assert_eq!(split_timed(&retention(Class::Dead, None, 77, id)), Some((77, [7; 16])));
        assert_eq!(split_timed(b"T123"), None);
    }
}
