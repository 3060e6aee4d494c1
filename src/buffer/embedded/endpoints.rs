//! Records of clients' URLs: few, small, and not tied to any event.

use super::super::{BufferError, EndpointChange, StoredEndpoint};
use super::draft::Draft;
use super::keys;
use super::store::Store;
use super::waiting::Promise;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_bytes, put_number};
use crate::clock::Timestamp;

/// Changes that are made together.
pub(super) struct ChangeEndpoints {
    pub(super) changes: Vec<EndpointChange>,
    pub(super) done: Promise<Result<(), BufferError>>,
}

/// In the place of an end: there is none.
const NEVER: u64 = u64::MAX;

fn encode(endpoint: &StoredEndpoint) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + endpoint.value.len());
    out.push(VERSION);
    put_number(&mut out, endpoint.until.map_or(NEVER, |until| until.0));
    put_bytes(&mut out, &endpoint.value);
    out
}

fn decode(key: [u8; 32], record: &[u8]) -> Read<StoredEndpoint> {
    let mut r = Reader::versioned(record)?;
    let until = r.number()?;
    let value = r.bytes()?.to_vec();
    r.end()?;
    Ok(StoredEndpoint { key, until: (until != NEVER).then_some(Timestamp(until)), value })
}

/// The key of an endpoint behind `skip` bytes of one of ours.
fn key_at(key: &[u8], skip: usize) -> Read<[u8; 32]> {
    key.get(skip..).and_then(|rest| rest.try_into().ok()).ok_or(Malformed("key"))
}

/// Those that have not ended.
pub(super) fn all(store: &Store, now: Timestamp) -> Result<Vec<StoredEndpoint>, BufferError> {
    let mut found = Vec::new();
    for entry in store.scan(vec![b'E'], vec![b'E' + 1]) {
        let (key, value) = entry?;
        let endpoint = key_at(&key, 1).and_then(|key| decode(key, &value));
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
        for change in changes {
            match change {
                EndpointChange::Put(endpoint) => {
                    if let Some(until) = endpoint.until {
                        self.put(keys::ending(until.0, endpoint.key), []);
                    }
                    self.put(keys::endpoint(endpoint.key), encode(&endpoint));
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
            let stored = record.map(|record| decode(key, &record).map_err(malformed)).transpose()?;
            if stored.is_some_and(|stored| stored.until.is_some_and(|until| until.0 <= now)) {
                self.remove(keys::endpoint(key));
            }
            self.remove(entry.to_vec());
            *budget -= 1;
        }
        Ok(())
    }
}
