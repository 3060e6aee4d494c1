//! One commit in the making: what will be written, over what is there.
//!
//! Reads see the draft's own writes. Each key is written once, with its last value, because an engine's batch gives all
//! its items one sequence number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fjall::{OwnedWriteBatch, PersistMode, Slice};

use super::super::{BufferError, ClaimKey, EventId, LaneKey};
use super::codec::{self, CommitRecord, Counters, Record, StoredEvent};
use super::directory::Directory;
use super::keys::{self, Class, Group};
use super::lane::Lane;
use super::lanes::Drafted;
use super::retention::Keep;
use super::store::Store;
use crate::seal::Keyring;

/// Claims that share an entry of the index by expiry, at most.
const EXPIRE_TOGETHER: usize = 128;

pub(super) struct Draft<'a> {
    pub(super) store: &'a Store,
    /// Those in force when the draft was begun.
    pub(super) keys: Keyring,
    pub(super) directory: &'a Directory,
    /// As it will be after this commit.
    pub(super) totals: CommitRecord,
    /// Of the destinations touched, as they will be.
    counters: HashMap<u32, (Arc<Lane>, Counters)>,
    before: &'a HashMap<u32, Counters>,
    pub(super) index: BTreeMap<Vec<u8>, Option<Slice>>,
    events: BTreeMap<[u8; 16], Option<Slice>>,
    pub(super) keep: &'a Keep,
    /// Groups whose totals have changed.
    pub(super) groups: BTreeSet<Group>,
    /// Claims made, by expiry: those of one commit that expire together share an entry.
    pub(super) expiring: BTreeMap<u64, Vec<ClaimKey>>,
    /// Of ordered destinations, those that were looked at.
    pub(super) lanes: HashMap<(u32, LaneKey), Drafted>,
    /// By destination: the earliest due time of the heads that were put into its retry queue.
    pub(super) promoted: HashMap<u32, u64>,
    /// Whether it holds something that somebody was promised is synced.
    pub(super) sync: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        store: &'a Store,
        directory: &'a Directory,
        totals: CommitRecord,
        before: &'a HashMap<u32, Counters>,
        keep: &'a Keep,
    ) -> Self {
        Self {
            store,
            keys: store.keys.now(),
            directory,
            totals,
            counters: HashMap::new(),
            before,
            index: BTreeMap::new(),
            events: BTreeMap::new(),
            keep,
            groups: BTreeSet::new(),
            expiring: BTreeMap::new(),
            lanes: HashMap::new(),
            promoted: HashMap::new(),
            sync: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty() && self.events.is_empty()
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        let seq = self.totals.next_seq;
        self.totals.next_seq += 1;
        seq
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<Slice>) {
        self.index.insert(key, Some(value.into()));
    }
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.index.insert(key, None);
    }
    /// What this draft writes from one key up to another.
    pub(super) fn written(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl Iterator<Item = (&Vec<u8>, &Option<Slice>)> {
        self.index.range(from..to)
    }
    pub(super) fn is_removed(&self, key: &[u8]) -> bool {
        matches!(self.index.get(key), Some(None))
    }
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, BufferError> {
        match self.index.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.store.get(key),
        }
    }

    pub(super) fn counters(&mut self, lane: &Arc<Lane>) -> &mut Counters {
        let before = self.before;
        let entry = self.counters.entry(lane.id);
        &mut entry.or_insert_with(|| (Arc::clone(lane), before.get(&lane.id).copied().unwrap_or_default())).1
    }

    // ----------------------------------------------------------------------------------------------------------- events

    pub(super) fn put_event(&mut self, id: EventId, encoded: Slice) {
        self.totals.events += 1;
        self.events.insert(id.0, Some(encoded));
    }

    /// The same event, with other destinations.
    pub(super) fn rewrite_event(&mut self, id: EventId, encoded: Slice) {
        self.events.insert(id.0, Some(encoded));
    }

    /// An event as it is stored.
    pub(super) fn raw_event(&self, id: EventId) -> Result<Option<Slice>, BufferError> {
        match self.events.get(&id.0) {
            Some(written) => Ok(written.clone()),
            None => self.store.raw_event(id),
        }
    }

    pub(super) fn event(&self, id: EventId) -> Result<Option<StoredEvent>, BufferError> {
        match self.events.get(&id.0) {
            Some(None) => Ok(None),
            Some(Some(encoded)) => codec::decode_event(id, encoded, &self.keys)
                .map(Some)
                .map_err(|e| self.store.malformed("event", id, e)),
            None => self.store.event(id),
        }
    }

    /// Deletes a settled event and all that is known of it. `records` are all its deliveries.
    pub(super) fn remove_event(&mut self, id: EventId, records: &[(u32, Record)], kept: Option<Retained>) {
        for (destination, record) in records {
            self.remove(keys::delivery(id, *destination));
            if record.is_dead() {
                self.remove(keys::dead(id, *destination));
                if let Some(lane) = self.directory.by_id(*destination) {
                    let counters = self.counters(&lane);
                    counters.dead = counters.dead.saturating_sub(1);
                }
            }
        }
        if let Some(kept) = kept {
            self.release(id, kept);
        }
        self.events.insert(id.0, None);
        self.totals.events = self.totals.events.saturating_sub(1);
    }

    // ------------------------------------------------------------------------------------------------------- deliveries

    pub(super) fn put_record(&mut self, id: EventId, destination: u32, record: &Record) {
        let sealed = record.seal(id, destination, &self.keys);
        self.put(keys::delivery(id, destination), sealed);
    }

    /// All delivery records of an event, by destination.
    pub(super) fn records(&self, id: EventId) -> Result<Vec<(u32, Record)>, BufferError> {
        let mut records: BTreeMap<u32, Record> = self.store.deliveries(id)?.into_iter().collect();
        let first = keys::deliveries(id);
        for (key, written) in self.index.range(first.clone()..).take_while(|(k, _)| k.starts_with(&first)) {
            let Some(destination) = keys::u32_at(key, first.len()) else { continue };
            match written {
                None => records.remove(&destination),
                Some(value) => {
                    let record = Record::open(id, destination, value, &self.keys);
                    records.insert(destination, record.map_err(|e| self.store.malformed("delivery", id, e))?)
                }
            };
        }
        Ok(records.into_iter().collect())
    }

    // -------------------------------------------------------------------------------------------------------- retention

    /// Begins the retention of a settled event.
    pub(super) fn retain(&mut self, id: EventId, kept: Retained) {
        match kept.class {
            _ if kept.group.is_some() => self.retain_in_group(kept),
            Class::Delivered => {
                self.totals.delivered_bytes += u64::from(kept.size);
                self.totals.delivered_from = self.totals.delivered_from.min(kept.at);
            }
            Class::Dead => self.totals.dead_from = self.totals.dead_from.min(kept.at),
        }
        self.put(keys::retention(kept.class, kept.group, kept.at, id), kept.size.to_be_bytes());
    }

    /// Ends it.
    pub(super) fn release(&mut self, id: EventId, kept: Retained) {
        if kept.group.is_some() {
            self.release_from_group(kept);
        } else if kept.class == Class::Delivered {
            self.totals.delivered_bytes = self.totals.delivered_bytes.saturating_sub(u64::from(kept.size));
        }
        self.remove(keys::retention(kept.class, kept.group, kept.at, id));
    }

    /// The retention that stands for an event with these deliveries; `None` if it is not settled altogether.
    pub(super) fn retained(
        &self,
        id: EventId,
        records: &[(u32, Record)],
    ) -> Result<Option<Retained>, BufferError> {
        let Some((class, at)) = retention_of(records.iter().map(|(_, r)| r)) else { return Ok(None) };
        let of = records.iter().filter_map(|(destination, _)| self.directory.by_id(*destination));
        let groups: BTreeSet<Group> = of.map(|lane| group_of(&lane)).collect();
        self.find_retained(id, class, at, groups)
    }

    /// Where it stands, of these groups or of none.
    pub(super) fn find_retained(
        &self,
        id: EventId,
        class: Class,
        at: u64,
        groups: impl IntoIterator<Item = Group>,
    ) -> Result<Option<Retained>, BufferError> {
        for group in std::iter::once(None).chain(groups.into_iter().map(Some)) {
            let value = self.get(&keys::retention(class, group, at, id))?;
            if let Some(size) = value.and_then(|v| keys::u32_at(&v, 0)) {
                return Ok(Some(Retained { class, group, at, size }));
            }
        }
        Ok(None)
    }

    // ----------------------------------------------------------------------------------------------------------- commit

    /// Completes the draft with what every commit carries. `synced` is the last commit known to be synced.
    pub(super) fn finish(mut self, synced: u64) -> Finished {
        for lane in self.directory.take_unsaved() {
            self.put(keys::name(lane.id), lane.name.0.as_bytes());
            // The counters begin with the lane, and with them the floors.
            self.counters(&lane);
        }
        for (at, claims) in std::mem::take(&mut self.expiring) {
            for part in claims.chunks(EXPIRE_TOGETHER) {
                let (first, others) = (part[0], &part[1..]);
                self.put(keys::expiry(at, first), others.iter().flat_map(|key| key.0).collect::<Vec<u8>>());
            }
        }
        for ((lane, key), Drafted { before, after }) in std::mem::take(&mut self.lanes) {
            match after {
                _ if after == before => {}
                Some(record) => self.put(keys::ordered(lane, key), record.encode()),
                None => self.remove(keys::ordered(lane, key)),
            }
        }
        self.totals.commit += 1;
        self.totals.synced = synced;
        self.totals.events_commit_before = self.totals.events_commit;
        let touches_events = !self.events.is_empty();
        if touches_events {
            self.totals.events_commit = self.totals.commit;
        }
        let mut counters = HashMap::with_capacity(self.counters.len());
        for (id, (lane, mut counted)) in std::mem::take(&mut self.counters) {
            (counted.fresh_from, counted.retry_from) = lane.state().floors();
            // The lane hears of these only when they are on disk.
            let promoted = self.promoted.get(&id).copied().unwrap_or(u64::MAX);
            counted.retry_from = counted.retry_from.min(promoted);
            self.put(keys::counters(id), counted.encode());
            counters.insert(id, counted);
        }
        for group in std::mem::take(&mut self.groups) {
            self.put(keys::group(group), self.keep.totals(group).encode());
        }
        let items = self.index.len() + self.events.len() + 2;
        let mode = if self.sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = OwnedWriteBatch::with_capacity(self.store.db.clone(), items).durability(Some(mode));
        // Events first: who sees a queue entry finds its event.
        for (id, value) in self.events {
            match value {
                Some(value) => batch.insert(&self.store.events, id, value),
                None => batch.remove(&self.store.events, id),
            }
        }
        if touches_events {
            batch.insert(&self.store.events, keys::MARK, self.totals.commit.to_be_bytes());
        }
        for (key, value) in self.index {
            match value {
                Some(value) => batch.insert(&self.store.index, key, value),
                None => batch.remove(&self.store.index, key),
            }
        }
        batch.insert(&self.store.index, keys::COMMIT, self.totals.encode());
        Finished { batch, totals: self.totals, counters, sync: self.sync }
    }
}

/// A commit ready to be written.
pub(super) struct Finished {
    pub(super) batch: OwnedWriteBatch,
    pub(super) totals: CommitRecord,
    pub(super) counters: HashMap<u32, Counters>,
    pub(super) sync: bool,
}

/// A settled event's place in the retention indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retained {
    pub(super) class: Class,
    /// Of a route with retention of its own.
    pub(super) group: Option<Group>,
    pub(super) at: u64,
    /// Of the stored event, in bytes.
    pub(super) size: u32,
}

/// The group of the route that a destination belongs to, whether or not that one has retention of its own.
fn group_of(lane: &Lane) -> Group {
    Group::of(lane.name.route())
}

/// Where an event with these deliveries stands in retention, if all are settled: the time of the last settlement.
pub(super) fn retention_of<'r>(records: impl Iterator<Item = &'r Record>) -> Option<(Class, u64)> {
    let mut found = None;
    for record in records {
        let at = record.settled_at()?.0;
        let (class, latest) = found.unwrap_or((Class::Delivered, 0));
        let class = if record.is_dead() { Class::Dead } else { class };
        found = Some((class, at.max(latest)));
    }
    found
}
