//! Small records of other parts (a pause, an open breaker), each under a key that begins with its part's prefix.

use sha2::{Digest, Sha256};

use super::super::BufferError;
use super::apply::{Answer, Effects};
use super::draft::Draft;
use super::keys;
use super::store::Store;
use super::waiting::Promise;
use super::wire::Malformed;
use crate::seal::{Keyring, Kind, SEALED, key_of};

/// A note to keep, or to remove.
pub(super) struct Note {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
    pub(super) done: Promise<Result<(), BufferError>>,
}

/// As it is stored. A plain one has nothing before it, so none may look like a sealed one.
fn seal(key: &[u8], value: &[u8], keys: &Keyring) -> Result<Vec<u8>, BufferError> {
    if value.first() == Some(&SEALED) {
        return Err(BufferError::Failed(format!("a note can't begin with the byte {SEALED}")));
    }
    keys.seal(Kind::Note, &name(key), value).map_err(|error| BufferError::Failed(error.to_string()))
}

/// To which a sealed one is bound: keys of notes have any length.
fn name(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn open(key: &[u8], record: &[u8], keys: &Keyring) -> Result<Vec<u8>, BufferError> {
    let opened = keys.open(Kind::Note, &name(key), record);
    opened.map(|plain| plain.to_vec()).map_err(|error| BufferError::Damaged(format!("a note: {error}")))
}

/// One as it is to be under the key that seals now; `None` if it is so. `entry` is its key in the index.
pub(super) fn resealed(entry: &[u8], record: &[u8], keys: &Keyring) -> Result<Option<Vec<u8>>, BufferError> {
    if key_of(record) == keys.sealing() {
        return Ok(None);
    }
    let key = entry.get(1..).unwrap_or_default();
    seal(key, &open(key, record, keys)?, keys).map(Some)
}

/// All whose keys begin with `prefix`.
pub(super) fn all(store: &Store, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, BufferError> {
    let (from, ring) = (keys::note(prefix), store.keys.now());
    let mut notes = Vec::new();
    for entry in store.scan(from.clone(), vec![b'M' + 1]) {
        let (key, value) = entry?;
        if !key.starts_with(&from) {
            break;
        }
        let name = std::str::from_utf8(&key[1..])
            .map_err(|_| store.malformed("note", "", Malformed("its key is no text")))?;
        notes.push((name.to_owned(), open(&key[1..], &value, &ring)?));
    }
    Ok(notes)
}

impl Draft<'_> {
    pub(super) fn note(&mut self, op: Note, effects: &mut Effects) {
        let Note { key, value, done } = op;
        let outcome = match value.map(|value| seal(key.as_bytes(), &value, &self.keys)).transpose() {
            Ok(Some(value)) => {
                self.put(keys::note(&key), value);
                Ok(())
            }
            Ok(None) => {
                self.remove(keys::note(&key));
                Ok(())
            }
            Err(error) => Err(error),
        };
        self.sync = true;
        effects.swept.push(Answer { done, outcome });
    }
}
