//! Whether all that is stored fits together: a look at every record, and at what refers to what. For a store that nobody
//! writes to meanwhile.
//!
//! What every commit promises is what is checked here: each delivery is settled or queued, once; each settled event
//! stands where retention will find it; each claim where it will expire; and what is counted is there. Whether the bytes
//! are those that were written is the engine's to say (it has a checksum of every block), and each of them is read.

mod queues;

use std::collections::{BTreeMap, HashMap, HashSet};

use super::super::{BufferError, ClaimKey, Damage, EventId, Job};
use super::codec::{self, CommitRecord, Counters, Record};
use super::draft::retention_of;
use super::keys::{self, Class, Group};
use super::retention::GroupTotals;
use super::store::Store;
use super::{endpoints, notes};
use crate::clock::Timestamp;
use crate::seal::Kind;
use queues::Queues;

/// Findings that are listed; of more only the number is told.
const LISTED: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) damaged: Vec<Damage>,
    /// More than those.
    more: u64,
}

impl Findings {
    fn add(&mut self, event: Option<EventId>, what: impl Into<String>) {
        if self.damaged.len() < LISTED {
            self.damaged.push(Damage { event, what: what.into() });
        } else {
            self.more += 1;
        }
    }

    fn unless(&mut self, holds: bool, event: Option<EventId>, what: impl FnOnce() -> String) {
        if !holds {
            self.add(event, what());
        }
    }

    /// The value, or a finding.
    fn read<T, E: std::fmt::Display>(
        &mut self,
        event: Option<EventId>,
        what: &str,
        read: Result<T, E>,
    ) -> Option<T> {
        read.map_err(|error| self.add(event, format!("{what}: {error}"))).ok()
    }

    fn end(mut self) -> Vec<Damage> {
        if self.more > 0 {
            let what = format!("and {} more", self.more);
            self.damaged.push(Damage { event: None, what });
        }
        self.damaged
    }
}

struct Check<'a> {
    store: &'a Store,
    found: Findings,
    totals: CommitRecord,
    /// Destinations by their numbers.
    names: HashMap<u32, String>,
    /// Dead letters by destination.
    dead: BTreeMap<u32, u64>,
    /// Events that are settled, and stand in retention.
    kept: u64,
    /// Events that can't be read: what they take part in can't be counted.
    unreadable: u64,
}

/// Looks at all that stands in the index, and at the events as far as it refers to them.
pub(super) fn check(store: &Store, totals: CommitRecord) -> Vec<Damage> {
    let mut check = Check {
        store,
        found: Findings::default(),
        totals,
        names: HashMap::new(),
        dead: BTreeMap::new(),
        kept: 0,
        unreadable: 0,
    };
    if let Err(error) = check.all() {
        check.found.add(None, format!("the rest can't be checked: {error}"));
    }
    check.found.end()
}

impl Check<'_> {
    fn all(&mut self) -> Result<(), BufferError> {
        self.names()?;
        let queues = self.queues()?;
        self.events(&queues)?;
        self.deliveries()?;
        self.retention()?;
        self.claims()?;
        self.counters(&queues)?;
        self.small_records()
    }

    fn names(&mut self) -> Result<(), BufferError> {
        for entry in self.store.scan(vec![b'N'], vec![b'N' + 1]) {
            let (key, value) = entry?;
            match (keys::u32_at(&key, 1), std::str::from_utf8(&value)) {
                (Some(id), Ok(name)) => drop(self.names.insert(id, name.to_owned())),
                _ => self.found.add(None, "the name of a destination can't be read"),
            }
        }
        Ok(())
    }

    fn name(&self, id: u32) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("destination {id}, which has no name"))
    }

    fn there_is(&self, id: EventId) -> Result<bool, BufferError> {
        self.store.events.contains_key(id.0).map_err(|e| self.store.failed("events", id, e))
    }

    /// Each of an event's deliveries is settled or queued; one that is settled altogether stands in retention.
    fn events(&mut self, queues: &Queues) -> Result<(), BufferError> {
        let (store, ring, mut count) = (self.store, self.store.keys.now(), 0);
        for entry in store.events.range([0u8; 16]..=[0xff; 16]) {
            let (key, record) = entry.into_inner().map_err(|e| store.failed("events", "read", e))?;
            let Some(id) = keys::id_at(&key, 0).filter(|_| key.len() == 16) else { continue };
            count += 1;
            // What can't be read is named where the events themselves are.
            let (Ok(stored), Ok(records)) = (codec::decode_event(id, &record, &ring), store.deliveries(id))
            else {
                self.unreadable += 1;
                continue;
            };
            let records: BTreeMap<u32, Record> = records.into_iter().collect();
            let mut settled = 0;
            for to in &stored.destinations {
                let is_settled = records.get(to).is_some_and(|record| record.settled_at().is_some());
                settled += usize::from(is_settled);
                let is_queued = queues.holds(id, *to);
                if is_settled == is_queued {
                    let how = if is_settled {
                        "settled, and queued all the same"
                    } else {
                        "neither settled nor queued"
                    };
                    let what = format!("its delivery to {} is {how}", self.name(*to));
                    self.found.add(Some(id), what);
                }
            }
            for (to, record) in &records {
                if !stored.destinations.contains(to) {
                    let what = format!("it has a delivery to {}, which it does not go to", self.name(*to));
                    self.found.add(Some(id), what);
                }
                if record.is_dead() {
                    *self.dead.entry(*to).or_default() += 1;
                    let is_listed = store.get(&keys::dead(id, *to))?.is_some();
                    self.found
                        .unless(is_listed, Some(id), || "it is missing in the list of dead letters".into());
                }
            }
            if settled == stored.destinations.len() {
                let at = match records.is_empty() {
                    true => Some((Class::Delivered, stored.event.received_at.0)),
                    false => retention_of(records.values()),
                };
                self.kept(id, &stored, at)?;
            }
        }
        let counted = self.totals.events;
        self.found.unless(count == counted, None, || format!("{count} events are stored, {counted} counted"));
        Ok(())
    }

    fn kept(
        &mut self,
        id: EventId,
        stored: &codec::StoredEvent,
        at: Option<(Class, u64)>,
    ) -> Result<(), BufferError> {
        let route_of = |name: &String| Group::of(name.split('/').next().unwrap_or_default());
        let of = stored.destinations.iter().filter_map(|to| self.names.get(to)).map(route_of);
        let groups: Vec<Option<Group>> =
            [None, Some(Group::of(&stored.event.route))].into_iter().chain(of.map(Some)).collect();
        if let Some((class, at)) = at {
            for group in groups {
                if let Some(value) = self.store.get(&keys::retention(class, group, at, id))? {
                    self.kept += 1;
                    let size = keys::u32_at(&value, 0);
                    self.found.unless(size == Some(stored.size), Some(id), || {
                        format!("retention counts {size:?} bytes for its {}", stored.size)
                    });
                    return Ok(());
                }
            }
        }
        self.found.add(Some(id), "it is settled, but retention does not have it: it would be kept for ever");
        Ok(())
    }

    /// Deliveries and dead letters are of events that are there.
    fn deliveries(&mut self) -> Result<(), BufferError> {
        let (mut last, mut listed) = (None, 0);
        for prefix in [b'D', b'L'] {
            for entry in self.store.scan(vec![prefix], vec![prefix + 1]) {
                let (key, _) = entry?;
                let Some(id) = keys::id_at(&key, 1) else {
                    self.found.add(None, "a delivery's key has another length");
                    continue;
                };
                listed += u64::from(prefix == b'L');
                if last != Some(id) {
                    last = Some(id);
                    if !self.there_is(id)? {
                        self.found.add(Some(id), "there are deliveries of it, but not the event");
                    }
                }
            }
        }
        let dead: u64 = self.dead.values().sum();
        if self.unreadable == 0 {
            self.found.unless(listed == dead, None, || {
                format!("{dead} deliveries are dead letters, {listed} are listed")
            });
        }
        Ok(())
    }

    fn retention(&mut self) -> Result<(), BufferError> {
        let (mut entries, mut delivered_bytes) = (0u64, 0u64);
        let mut groups: BTreeMap<Group, (u64, u64)> = BTreeMap::new();
        for (class, prefix) in [(Class::Delivered, b'V'), (Class::Dead, b'T')] {
            let floor = if class == Class::Dead { self.totals.dead_from } else { self.totals.delivered_from };
            for entry in self.store.scan(vec![prefix], vec![prefix + 1]) {
                let (key, value) = entry?;
                let (Some((at, id)), Some(size)) = (keys::split_timed(&key), keys::u32_at(&value, 0)) else {
                    self.found.add(None, "an entry of retention can't be read");
                    continue;
                };
                entries += 1;
                delivered_bytes += if class == Class::Delivered { u64::from(size) } else { 0 };
                let id = EventId(id);
                self.found.unless(at >= floor, Some(id), || "retention has it where nobody looks".into());
                self.is_of_an_event(id)?;
            }
        }
        for (class, prefix) in [(Class::Delivered, b'v'), (Class::Dead, b't')] {
            for entry in self.store.scan(vec![prefix], vec![prefix + 1]) {
                let (key, value) = entry?;
                let group = key.get(1..9).and_then(|group| group.try_into().ok()).map(Group);
                let (Some(group), Some(id), Some(size)) =
                    (group, keys::id_at(&key, 17), keys::u32_at(&value, 0))
                else {
                    self.found.add(None, "an entry of retention can't be read");
                    continue;
                };
                entries += 1;
                if class == Class::Delivered {
                    let of = groups.entry(group).or_default();
                    *of = (of.0 + 1, of.1 + u64::from(size));
                }
                self.is_of_an_event(id)?;
            }
        }
        if self.unreadable == 0 {
            let kept = self.kept;
            self.found.unless(entries == kept, None, || {
                format!("{kept} events are settled, but retention has {entries} entries")
            });
        }
        let counted = self.totals.delivered_bytes;
        self.found.unless(delivered_bytes == counted, None, || {
            format!("delivered events take {delivered_bytes} bytes, {counted} are counted")
        });
        for entry in self.store.scan(vec![b'Q'], vec![b'Q' + 1]) {
            let (key, value) = entry?;
            let group = key.get(1..).and_then(|group| group.try_into().ok()).map(Group);
            let totals = self.found.read(None, "what is counted of a route", GroupTotals::decode(&value));
            if let (Some(group), Some(totals)) = (group, totals) {
                let is = groups.remove(&group).unwrap_or_default();
                self.found.unless((totals.events, totals.bytes) == is, None, || {
                    let (events, bytes) = (totals.events, totals.bytes);
                    format!("a route keeps {} events ({} bytes), {events} ({bytes}) are counted", is.0, is.1)
                });
            }
        }
        self.found.unless(groups.is_empty(), None, || "events of a route are kept, but not counted".into());
        Ok(())
    }

    fn is_of_an_event(&mut self, id: EventId) -> Result<(), BufferError> {
        if !self.there_is(id)? {
            self.found.add(Some(id), "retention has it, but there is no such event");
        }
        Ok(())
    }

    /// Each claim stands where it expires.
    fn claims(&mut self) -> Result<(), BufferError> {
        let (store, mut expiring) = (self.store, HashSet::new());
        for entry in store.scan(vec![b'X'], vec![b'X' + 1]) {
            let (key, value) = entry?;
            let Some((at, of)) = keys::split_expiry(&key, &value) else {
                self.found.add(None, "when some claims expire can't be read");
                continue;
            };
            let from = self.totals.claims_from;
            self.found.unless(at >= from, None, || "claims expire where nobody looks".into());
            for claim in of {
                // One that was made anew expires later.
                match store.claim(claim) {
                    Ok(Some(is)) if is.expires_at == Timestamp(at) => drop(expiring.insert(claim)),
                    _ => {}
                }
            }
        }
        let ring = store.keys.now();
        for entry in store.scan(vec![b'K'], vec![b'K' + 1]) {
            let (key, value) = entry?;
            let Some(key) = key.get(1..).and_then(|key| key.try_into().ok()).map(ClaimKey) else {
                self.found.add(None, "a claim's key has another length");
                continue;
            };
            if self.found.read(None, "a claim", codec::open_claim(key, &value, &ring)).is_some() {
                self.found.unless(expiring.contains(&key), None, || "a claim would never expire".into());
            }
        }
        Ok(())
    }

    fn counters(&mut self, queues: &Queues) -> Result<(), BufferError> {
        for entry in self.store.scan(vec![b'C'], vec![b'C' + 1]) {
            let (key, value) = entry?;
            let counted = self.found.read(None, "a destination's counters", Counters::decode(&value));
            let (Some(id), Some(counted)) = (keys::u32_at(&key, 1), counted) else { continue };
            let (name, waits) = (self.name(id), queues.of(id));
            let dead = self.dead.get(&id).copied().unwrap_or(0);
            for (what, is, said, can_tell) in [
                ("deliveries wait", waits.backlog, counted.backlog, true),
                ("deliveries are dead letters", dead, counted.dead, self.unreadable == 0),
                ("lanes are blocked", waits.blocked, counted.blocked, true),
                ("lanes are parked", waits.parked, counted.parked, true),
            ] {
                self.found.unless(is == said || !can_tell, None, || {
                    format!("{name}: {is} {what}, {said} are counted")
                });
            }
            let is_met = waits.fresh_from.is_none_or(|first| first >= counted.fresh_from)
                && waits.retry_from.is_none_or(|first| first >= counted.retry_from);
            self.found.unless(is_met, None, || format!("{name}: deliveries wait where nobody looks"));
        }
        Ok(())
    }

    /// Clients' URLs, jobs and notes.
    fn small_records(&mut self) -> Result<(), BufferError> {
        let (store, ring) = (self.store, self.store.keys.now());
        let endpoints = endpoints::all(store, Timestamp(0)).map(|_| ());
        self.found.read(None, "a client's URL", endpoints);
        self.found.read(None, "a note", notes::all(store, "").map(|_| ()));
        for entry in store.scan(vec![b'J'], vec![b'J' + 1]) {
            let (key, value) = entry?;
            let opened = ring.open(Kind::Job, key.get(1..).unwrap_or_default(), &value);
            let job = opened.map_err(|e| e.to_string());
            let job = job.and_then(|job| serde_json::from_slice::<Job>(&job).map_err(|e| e.to_string()));
            self.found.read(None, "a job", job);
        }
        Ok(())
    }
}
