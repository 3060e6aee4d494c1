//! Which keys a store needs, and sealing anew what stands under another key than new events do.
//!
//! One small record says it all: the keys under which something may be sealed, each with known words sealed under it;
//! whether plain records may be there; under which key everything is to be; and how far the pass is that brings it
//! there (`pass.rs`). The record is written before anything is sealed under a new key (at the start, or by a reload: see
//! `change.rs`), and a key leaves it only when nothing under it is left, so opening can say which key is missing before
//! anything is read or changed.

mod change;
mod pass;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fjall::PersistMode;

use super::super::{EventId, SealingStats};
use super::codec::CommitRecord;
use super::open::{FIRST_COMMIT, Format, damaged, engine};
use super::store::Store;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_bytes, put_number};
use super::{OpenError, keys};
use crate::seal::{KeyId, Keyring, Kind, NotSealed};

pub(super) use change::rekey;
#[cfg(test)]
pub(super) use pass::Anew;
pub(super) use pass::{Passes, Reseal, run};

/// What is sealed to show later that a key is the right one.
const PROOF: &[u8] = b"tidegate";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seals {
    /// Under which something may be sealed, with the proof of each.
    keys: BTreeMap<KeyId, Vec<u8>>,
    /// Whether plain records may be there.
    plain: bool,
    /// Under which everything is to be; `None`: plain.
    target: Option<KeyId>,
    /// `None` when everything is.
    pass: Option<Pass>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pass {
    /// It goes on behind this event.
    cursor: Option<EventId>,
    /// Events looked at, of those that there were when it began.
    examined: u64,
    total: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Events,
    /// Records of the index, and what is kept beside the buffer.
    Records,
    /// What stands in files that nothing refers to any more.
    Files,
}

impl Seals {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.plain)];
        put_number(&mut out, self.keys.len() as u64);
        for (id, proof) in &self.keys {
            out.extend_from_slice(&id.0);
            put_bytes(&mut out, proof);
        }
        put_bytes(&mut out, self.target.as_ref().map_or(&[][..], |id| &id.0));
        if let Some(Pass { cursor, examined, total, stage }) = self.pass {
            out.push(match stage {
                Stage::Events => 1,
                Stage::Records => 2,
                Stage::Files => 3,
            });
            put_number(&mut out, examined);
            put_number(&mut out, total);
            put_bytes(&mut out, cursor.as_ref().map_or(&[][..], |id| &id.0));
        } else {
            out.push(0);
        }
        out
    }

    fn decode(record: &[u8]) -> Read<Self> {
        let mut r = Reader::versioned(record)?;
        let plain = match r.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("unknown tag")),
        };
        let keys =
            (0..r.count()?).map(|_| Ok((KeyId(r.array()?), r.bytes()?.to_vec()))).collect::<Read<_>>()?;
        let target = match r.bytes()? {
            [] => None,
            id => Some(KeyId(id.try_into().map_err(|_| Malformed("a key id has another length"))?)),
        };
        let stage = match r.byte()? {
            0 => None,
            1 => Some(Stage::Events),
            2 => Some(Stage::Records),
            3 => Some(Stage::Files),
            _ => return Err(Malformed("unknown tag")),
        };
        let pass = match stage {
            None => None,
            Some(stage) => {
                let (examined, total) = (r.number()?, r.number()?);
                let cursor = match r.bytes()? {
                    [] => None,
                    id => Some(EventId(id.try_into().map_err(|_| Malformed("an id has another length"))?)),
                };
                Some(Pass { cursor, examined, total, stage })
            }
        };
        r.end()?;
        Ok(Self { keys, plain, target, pass })
    }

    /// Takes up what the config says now. Returns whether that changes anything.
    fn aim(&mut self, ring: &Keyring, events: u64) -> Result<bool, NotSealed> {
        let wanted = ring.sealing();
        if wanted == self.target {
            return Ok(false);
        }
        match wanted {
            Some(id) => {
                if let Entry::Vacant(entry) = self.keys.entry(id) {
                    entry.insert(ring.seal(Kind::Proof, &id.0, PROOF)?);
                }
            }
            None => self.plain = true,
        }
        self.target = wanted;
        let others = self.keys.keys().any(|id| Some(*id) != wanted) || (wanted.is_some() && self.plain);
        self.pass = others.then(|| Pass { total: events, ..Pass::default() });
        Ok(true)
    }

    /// Before format 2 small records stood in the clear beside sealed events: they are looked through once more. Returns
    /// whether that changes anything.
    fn distrust_records(&mut self) -> bool {
        if self.target.is_none() {
            return false;
        }
        self.plain = true;
        let pass = self.pass.get_or_insert(Pass { stage: Stage::Records, ..Pass::default() });
        if pass.stage == Stage::Files {
            pass.stage = Stage::Records;
        }
        true
    }

    /// Those under which something may be sealed and which `ring` does not have.
    fn missing(&self, ring: &Keyring) -> Vec<KeyId> {
        self.keys.keys().copied().filter(|id| !ring.ids().any(|given| given == *id)).collect()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.pass.is_some()
    }

    /// The pass is over.
    fn done(&mut self) {
        self.pass = None;
        self.plain = self.target.is_none();
        let target = self.target;
        self.keys.retain(|id, _| Some(*id) == target);
    }

    pub(super) fn stats(&self, events: u64) -> Option<SealingStats> {
        if self.keys.is_empty() {
            return None;
        }
        let left = self.pass.map_or(0, |pass| match pass.stage {
            Stage::Events => pass.total.saturating_sub(pass.examined).min(events),
            Stage::Records | Stage::Files => 0,
        });
        Some(SealingStats {
            key: self.target.map(|id| id.to_string()),
            needed: self.keys.keys().map(ToString::to_string).collect(),
            events_left: left,
            stage: self.pass.map(|pass| match pass.stage {
                Stage::Events => "events".to_owned(),
                Stage::Records => "records".to_owned(),
                Stage::Files => "files".to_owned(),
            }),
        })
    }
}

/// Checks that every key that the store needs is there, and takes up under which key everything is to be. Writes that
/// down, synced, if it is news.
pub(super) fn take_up(store: &Store, commit: &mut CommitRecord, format: Format) -> Result<Seals, OpenError> {
    let folder = store.folder();
    let mut seals = check_keys(store, commit)?;
    let upgraded = format == Format::One && seals.distrust_records();
    if seals.aim(&store.keys.now(), commit.events)? || upgraded {
        let next = CommitRecord {
            commit: commit.commit + 1,
            synced: commit.commit,
            events_commit_before: commit.events_commit,
            ..*commit
        };
        let mut batch = store.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&store.index, keys::SEALING, seals.encode());
        batch.insert(&store.index, keys::COMMIT, next.encode());
        batch.commit().map_err(|e| engine(folder, &e))?;
        *commit = next;
    }
    Ok(seals)
}

/// Reads which keys the store needs, and checks that each of them is there and the right one.
pub(super) fn check_keys(store: &Store, commit: &CommitRecord) -> Result<Seals, OpenError> {
    let (folder, ring) = (store.folder(), store.keys.now());
    let unreadable = |what: &dyn std::fmt::Display| damaged(folder, &format!("its record of keys: {what}"));
    let seals = match store.get(keys::SEALING).map_err(|e| unreadable(&e))? {
        Some(record) => Seals::decode(&record).map_err(|e| unreadable(&e))?,
        None => Seals { plain: commit.commit > FIRST_COMMIT, ..Seals::default() },
    };
    let missing = seals.missing(&ring);
    if !missing.is_empty() {
        let given = ring.ids().collect();
        return Err(OpenError::NoKey { path: folder.display().to_string(), missing, given });
    }
    for (id, proof) in &seals.keys {
        match ring.open(Kind::Proof, &id.0, proof) {
            Ok(words) if *words == *PROOF => {}
            Ok(_) => return Err(unreadable(&"other words than those that were sealed")),
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(seals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::testing::{key, keyring};
    use crate::seal::{Key, Sealing};

    fn off(keys: Vec<Key>) -> Keyring {
        Keyring::new(keys, Sealing::Off)
    }

    #[test]
    fn the_record_of_keys_comes_back() {
        let mut seals = Seals { plain: true, ..Seals::default() };
        assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        assert!(seals.aim(&keyring(&[1]), 7).unwrap());
        assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        for stage in [Stage::Events, Stage::Records, Stage::Files] {
            seals.pass = Some(Pass { cursor: Some(EventId([9; 16])), examined: 3, total: 300, stage });
            assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        }
        let whole = seals.encode();
        for end in 0..whole.len() {
            assert!(Seals::decode(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_new_store_needs_no_pass_and_one_with_plain_events_does() {
        let mut fresh = Seals::default();
        assert!(!fresh.aim(&Keyring::none(), 0).unwrap());
        assert!(fresh.aim(&keyring(&[1]), 0).unwrap() && fresh.pass.is_none());
        let mut old = Seals { plain: true, ..Seals::default() };
        assert!(old.aim(&keyring(&[1]), 5).unwrap());
        assert_eq!(old.stats(5).unwrap().events_left, 5);
        // Where a key stands in the list, and others beside it, change nothing.
        assert!(!old.aim(&keyring(&[1, 2]), 5).unwrap());
    }

    #[test]
    fn keys_are_needed_until_the_pass_is_done_and_no_longer() {
        let mut seals = Seals::default();
        seals.aim(&keyring(&[1]), 0).unwrap();
        seals.aim(&keyring(&[2, 1]), 9).unwrap();
        // Changed again before it was done.
        seals.aim(&keyring(&[3, 2, 1]), 9).unwrap();
        assert_eq!(seals.keys.len(), 3);
        seals.done();
        assert_eq!(seals.keys.keys().copied().collect::<Vec<_>>(), [key(3).id()]);
        assert!(seals.aim(&off(vec![key(3)]), 9).unwrap() && seals.pass.is_some() && seals.plain);
        seals.done();
        assert!(seals.keys.is_empty() && seals.plain && seals.stats(9).is_none());
    }
}
