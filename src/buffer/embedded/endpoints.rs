//! Records of clients' URLs: few, small, and not tied to any event.

use super::super::{BufferError, EndpointChange, StoredEndpoint};
use super::draft::Draft;
use super::keys;
use super::store::Store;
use super::waiting::Promise;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_bytes, put_number};
use crate::clock::Timestamp;
use crate::seal::{Keyring, Kind, SEALED, key_of};

/// Changes that are made together.
pub(super) struct ChangeEndpoints {
    pub(super) changes: Vec<EndpointChange>,
    pub(super) done: Promise<Result<(), BufferError>>,
}

/// In the place of an end: there is none.
const NEVER: u64 = u64::MAX;

fn encode(endpoint: &StoredEndpoint, keys: &Keyring) -> Result<Vec<u8>, BufferError> {
    let value = keys.seal(Kind::Endpoint, &endpoint.key, &endpoint.value);
    let value = value.map_err(|error| BufferError::Failed(error.to_string()))?;
    let mut out = Vec::with_capacity(16 + value.len());
    out.push(if keys.sealing().is_some() { SEALED } else { VERSION });
    put_number(&mut out, endpoint.until.map_or(NEVER, |until| until.0));
    put_bytes(&mut out, &value);
    Ok(out)
}

fn decode(key: [u8; 32], record: &[u8], keys: &Keyring) -> Read<StoredEndpoint> {
    let (mut r, is_sealed) = reader(record)?;
    let until = r.number()?;
    let value = match r.bytes()? {
        sealed if is_sealed => keys.open(Kind::Endpoint, &key, sealed)?.to_vec(),
        plain => plain.to_vec(),
    };
    r.end()?;
    Ok(StoredEndpoint { key, until: (until != NEVER).then_some(Timestamp(until)), value })
}

/// What a record begins with says whether its value is sealed.
fn reader(record: &[u8]) -> Read<(Reader<'_>, bool)> {
    match record.first() {
        Some(&SEALED) => Ok((Reader::of_version(record, SEALED)?, true)),
        _ => Ok((Reader::versioned(record)?, false)),
    }
}

/// A record under the key that seals now; `None` if it is.
pub(super) fn resealed(entry: &[u8], record: &[u8], keys: &Keyring) -> Result<Option<Vec<u8>>, BufferError> {
    let malformed = |error: Malformed| BufferError::Damaged(format!("a client's URL: {error}"));
    let (mut r, is_sealed) = reader(record).map_err(malformed)?;
    let value = r.number().and_then(|_| r.bytes()).map_err(malformed)?;
    let under = if is_sealed { key_of(value) } else { None };
    if under == keys.sealing() {
        return Ok(None);
    }
    let key = key_at(entry, 1).map_err(malformed)?;
    encode(&decode(key, record, keys).map_err(malformed)?, keys).map(Some)
}

/// The key of an endpoint behind `skip` bytes of one of ours.
fn key_at(key: &[u8], skip: usize) -> Read<[u8; 32]> {
    key.get(skip..).and_then(|rest| rest.try_into().ok()).ok_or(Malformed("key"))
}

/// Those that have not ended.
pub(super) fn all(store: &Store, now: Timestamp) -> Result<Vec<StoredEndpoint>, BufferError> {
    let (mut found, ring) = (Vec::new(), store.keys.now());
    for entry in store.scan(vec![b'E'], vec![b'E' + 1]) {
        let (key, value) = entry?;
        let endpoint = key_at(&key, 1).and_then(|key| decode(key, &value, &ring));
        let endpoint = endpoint.map_err(|e| store.malformed("endpoint", "", e))?;
        if endpoint.until.is_none_or(|until| now < until) {
            found.push(endpoint);
        }
    }
    Ok(found)
}

impl Draft<'_> {
    pub(super) fn change_endpoints(&mut self, changes: Vec<EndpointChange>) -> Result<u64, BufferError> {
        // What an entry of the time-ordered index says is looked up in the record when its time has come, so that one
        // that is not true any more does no harm.
        let count = changes.len() as u64;
        let mut records = Vec::with_capacity(changes.len());
        for change in &changes {
            if let EndpointChange::Put(endpoint) = change {
                records.push(encode(endpoint, &self.keys)?);
            }
        }
        let mut records = records.into_iter();
        for change in changes {
            match change {
                EndpointChange::Put(endpoint) => {
                    let Some(record) = records.next() else { break };
                    if let Some(until) = endpoint.until {
                        self.put(keys::ending(until.0, endpoint.key), []);
                    }
                    self.put(keys::endpoint(endpoint.key), record);
                }
                EndpointChange::Remove(key) => self.remove(keys::endpoint(key)),
            }
        }
        self.sync = true;
        Ok(count)
    }

    /// Deletes records that have ended.
    pub(super) fn sweep_endpoints(&mut self, now: u64, budget: &mut usize) -> Result<(), BufferError> {
        let store = self.store;
        for entry in store.scan(keys::time_floor(b'G', 0), keys::time_floor(b'G', now.saturating_add(1))) {
            if *budget == 0 {
                break;
            }
            let (entry, _) = entry?;
            let malformed = |e| store.malformed("endpoint", "", e);
            let key = key_at(&entry, 9).map_err(malformed)?;
            let record = store.get(&keys::endpoint(key))?;
            let stored =
                record.map(|record| decode(key, &record, &self.keys).map_err(malformed)).transpose()?;
            if stored.is_some_and(|stored| stored.until.is_some_and(|until| until.0 <= now)) {
                self.remove(keys::endpoint(key));
            }
            self.remove(entry.to_vec());
            *budget -= 1;
        }
        Ok(())
    }
}
