//! What is past its time goes, in bounded steps: expired claims, clients' URLs that have ended,
//! delivered events, dead letters. Delivered events go before their time where a new one would be refused otherwise.
//!
//! An event is deleted when all its deliveries are settled and their retention has ended; one with a pending delivery
//! stands in no retention index, so it can't be met here. Each index is in order of time, and a step goes on where the
//! last one ended. A route with a `keep` of its own has indexes of its own: what goes of it costs nothing of the others.

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::super::{BufferError, DeliveryState, EventId};
use super::codec::Record;
use super::draft::{Draft, Retained, retention_of};
use super::keys::{self, Class, Group};
use super::lane::Lane;
use super::store::Store;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_number};
use crate::clock::Timestamp;
use crate::config::{BufferSettings, RouteKeep};

/// Entries that one step deletes at most: about a millisecond of the committer's time.
const STEP: usize = 256;

/// What the index holds of an event, in bytes, about.
const BESIDE: u64 = 256;

/// How long, and how much, is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepRule {
    pub(super) delivered: Duration,
    /// At most so many delivered events, and bytes of them.
    events: u64,
    bytes: u64,
    dead: Duration,
}

/// What is kept of a group, and where its indexes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupTotals {
    /// Delivered events, and bytes of them.
    pub(super) events: u64,
    pub(super) bytes: u64,
    /// Nothing stands in the indexes below these (in milliseconds).
    delivered_from: u64,
    dead_from: u64,
}

impl Default for GroupTotals {
    fn default() -> Self {
        Self { events: 0, bytes: 0, delivered_from: u64::MAX, dead_from: u64::MAX }
    }
}

impl GroupTotals {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        [self.events, self.bytes, self.delivered_from, self.dead_from]
            .into_iter()
            .for_each(|number| put_number(&mut out, number));
        out
    }
    pub(super) fn decode(record: &[u8]) -> Read<Self> {
        let mut r = Reader::versioned(record)?;
        let read = Self {
            events: r.number()?,
            bytes: r.number()?,
            delivered_from: r.number()?,
            dead_from: r.number()?,
        };
        r.end()?;
        Ok(read)
    }
}

/// What is kept: of routes with a `keep` of their own (a *group* each), and of all others together. What has settled
/// stays in the group that it settled in; a group whose route has no `keep` any more goes by the general rule.
#[derive(Debug)]
pub(super) struct Keep {
    /// A reload may replace them.
    rules: ArcSwap<Rules>,
    /// As the committer's draft will leave them. One that fails to commit ends the buffer, so nothing is taken back.
    groups: Mutex<BTreeMap<Group, GroupTotals>>,
}

#[derive(Debug)]
struct Rules {
    all: KeepRule,
    own: HashMap<Group, KeepRule>,
}

impl Rules {
    fn of(settings: &BufferSettings) -> Self {
        // What is done must not crowd out what is to come: a small buffer keeps less.
        let most = settings.max_size / 4;
        let all = KeepRule {
            delivered: settings.keep_delivered,
            events: u64::MAX,
            bytes: settings.keep_delivered_bytes.min(most),
            dead: settings.keep_dead,
        };
        let of_route = |own: &RouteKeep| KeepRule {
            delivered: own.delivered.unwrap_or(all.delivered),
            events: own.events.unwrap_or(u64::MAX),
            bytes: own.bytes.unwrap_or(settings.keep_delivered_bytes).min(most),
            dead: own.dead.unwrap_or(all.dead),
        };
        let own = settings.keep_of_routes.iter();
        let own = own.map(|(route, own)| (Group::of(route), of_route(own))).collect();
        Self { all, own }
    }
}

impl Keep {
    pub(super) fn open(settings: &BufferSettings, store: &Store) -> Result<Self, BufferError> {
        let mut groups = BTreeMap::new();
        for entry in store.scan(vec![b'Q'], vec![b'Q' + 1]) {
            let (key, value) = entry?;
            let malformed = |what| store.malformed("retention", "", what);
            let group = key.get(1..).and_then(|group| group.try_into().ok());
            let group = Group(group.ok_or_else(|| malformed(Malformed("key")))?);
            groups.insert(group, GroupTotals::decode(&value).map_err(malformed)?);
        }
        Ok(Self { rules: ArcSwap::from_pointee(Rules::of(settings)), groups: Mutex::new(groups) })
    }

    /// Goes over to what a new config says, for what is there, too.
    pub(super) fn adopt(&self, settings: &BufferSettings) {
        self.rules.store(Arc::new(Rules::of(settings)));
    }

    /// Of a route with retention of its own.
    pub(super) fn group(&self, route: &str) -> Option<Group> {
        let rules = self.rules.load();
        if rules.own.is_empty() {
            return None;
        }
        Some(Group::of(route)).filter(|group| rules.own.contains_key(group))
    }

    /// The same for the route of a destination.
    pub(super) fn group_of(&self, lane: &Lane) -> Option<Group> {
        self.group(lane.name.0.split('/').next().unwrap_or_default())
    }

    pub(super) fn rule(&self, group: Option<Group>) -> KeepRule {
        let rules = self.rules.load();
        group.and_then(|group| rules.own.get(&group)).copied().unwrap_or(rules.all)
    }

    pub(super) fn totals(&self, group: Group) -> GroupTotals {
        self.groups.lock().get(&group).copied().unwrap_or_default()
    }

    fn change(&self, group: Group, change: impl FnOnce(&mut GroupTotals)) {
        change(self.groups.lock().entry(group).or_default());
    }
}

/// Whether a step left something behind that is past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    All,
    Part,
}

/// What delivered events that went before their time have given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gave {
    pub(super) bytes: u64,
    /// Whether there may be others.
    pub(super) more: bool,
}

fn retained_at(group: Option<Group>, key: &[u8], value: &[u8]) -> Option<(EventId, Retained)> {
    let (at, id) = match group {
        None => keys::split_timed(key).map(|(at, id)| (at, EventId(id)))?,
        Some(_) => (keys::u64_at(key, 9)?, keys::id_at(key, 17)?),
    };
    let size = keys::u32_at(value, 0).unwrap_or(0);
    Some((id, Retained { class: Class::Delivered, group, at, size }))
}

impl Draft<'_> {
    /// Deletes what is past its time, up to a step's worth. First of all in a draft: what is written later in the same
    /// commit wins.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Result<Swept, BufferError> {
        let keep = self.keep;
        let mut budget = STEP;
        self.sweep_claims(now.0, &mut budget)?;
        self.sweep_endpoints(now.0, &mut budget)?;
        let all = keep.rule(None);
        let (delivered, dead) = (now.saturating_sub(all.delivered).0, now.saturating_sub(all.dead).0);
        self.sweep_events(Class::Delivered, delivered, &all, now, &mut budget)?;
        self.sweep_events(Class::Dead, dead, &all, now, &mut budget)?;
        let groups: Vec<Group> = keep.groups.lock().keys().copied().collect();
        for group in groups {
            self.sweep_group(Class::Delivered, group, now, &mut budget)?;
            self.sweep_group(Class::Dead, group, now, &mut budget)?;
        }
        Ok(if budget == 0 { Swept::Part } else { Swept::All })
    }

    fn sweep_claims(&mut self, now: u64, budget: &mut usize) -> Result<(), BufferError> {
        let from = keys::time_floor(b'X', self.totals.claims_from);
        let to = keys::time_floor(b'X', now.saturating_add(1));
        let store = self.store;
        for entry in store.scan(from, to) {
            if *budget == 0 {
                break;
            }
            let (entry, value) = entry?;
            let Some((at, claims)) = keys::split_expiry(&entry, &value) else { continue };
            *budget = budget.saturating_sub(claims.len());
            for key in claims {
                // A claim that was made anew has another, later entry.
                if store.claim(key)?.is_some_and(|claim| claim.expires_at.0 == at) {
                    self.remove(keys::claim(key));
                }
            }
            self.remove(entry.to_vec());
            self.totals.claims_from = at;
        }
        Ok(())
    }

    fn sweep_events(
        &mut self,
        class: Class,
        until: u64,
        keep: &KeepRule,
        now: Timestamp,
        budget: &mut usize,
    ) -> Result<(), BufferError> {
        let floor = match class {
            Class::Delivered => self.totals.delivered_from,
            Class::Dead => self.totals.dead_from,
        };
        let surplus = |draft: &Self| class == Class::Delivered && draft.totals.delivered_bytes > keep.bytes;
        let end = if surplus(self) { u64::MAX } else { until };
        if floor > end {
            return Ok(());
        }
        let store = self.store;
        let prefix = class.prefix();
        let past = store.scan(keys::time_floor(prefix, floor), keys::time_floor(prefix + 1, 0));
        for entry in past {
            if *budget == 0 {
                break;
            }
            let (key, value) = entry?;
            let Some((at, id)) = keys::split_timed(&key) else { continue };
            if at > until && !surplus(self) {
                break;
            }
            let id = EventId(id);
            let size = keys::u32_at(&value, 0).unwrap_or(0);
            self.end_retention(id, Retained { class, group: None, at, size }, now)?;
            *budget -= 1;
        }
        Ok(())
    }

    /// The same for a group.
    fn sweep_group(
        &mut self,
        class: Class,
        group: Group,
        now: Timestamp,
        budget: &mut usize,
    ) -> Result<(), BufferError> {
        let (keep, store) = (self.keep, self.store);
        let rule = keep.rule(Some(group));
        let (totals, age) =
            (keep.totals(group), if class == Class::Dead { rule.dead } else { rule.delivered });
        let floor = if class == Class::Dead { totals.dead_from } else { totals.delivered_from };
        let until = now.saturating_sub(age).0;
        let surplus = || {
            let totals = keep.totals(group);
            class == Class::Delivered && (totals.events > rule.events || totals.bytes > rule.bytes)
        };
        if floor > until && !surplus() {
            return Ok(());
        }
        let end = keys::group_floor(class, group, u64::MAX);
        for entry in store.scan(keys::group_floor(class, group, floor), end) {
            if *budget == 0 {
                break;
            }
            let (key, value) = entry?;
            let (Some(at), Some(id)) = (keys::u64_at(&key, 9), keys::id_at(&key, 17)) else { continue };
            if at > until && !surplus() {
                break;
            }
            let size = keys::u32_at(&value, 0).unwrap_or(0);
            self.end_retention(id, Retained { class, group: Some(group), at, size }, now)?;
            *budget -= 1;
        }
        Ok(())
    }

    /// Deletes delivered events before their time, the oldest first whatever their route, until they have given so many
    /// bytes or up to a step's worth.
    pub(super) fn give_way(&mut self, bytes: u64, now: Timestamp) -> Result<Gave, BufferError> {
        let (keep, store) = (self.keep, self.store);
        let groups: Vec<(Group, u64)> =
            keep.groups.lock().iter().map(|(group, totals)| (*group, totals.delivered_from)).collect();
        let delivered = Class::Delivered;
        let general = (
            keys::time_floor(delivered.prefix(), self.totals.delivered_from),
            keys::time_floor(delivered.prefix() + 1, 0),
        );
        let of_groups = groups.into_iter().map(|(group, floor)| {
            (
                Some(group),
                (keys::group_floor(delivered, group, floor), keys::group_floor(delivered, group, u64::MAX)),
            )
        });
        let mut indexes: Vec<_> = std::iter::once((None, general))
            .chain(of_groups)
            .map(|(group, (from, to))| {
                let kept = store.scan(from, to).filter_map(move |entry| match entry {
                    Ok((key, value)) => retained_at(group, &key, &value).map(Ok),
                    Err(error) => Some(Err(error)),
                });
                kept.peekable()
            })
            .collect();
        let mut given = 0;
        for _ in 0..STEP {
            if given >= bytes {
                break;
            }
            let at = |index: &mut Peekable<_>| match index.peek() {
                None => None,
                Some(Ok::<(EventId, Retained), BufferError>((_, kept))) => Some(kept.at),
                // It is met first, and ends this.
                Some(Err(_)) => Some(0),
            };
            let oldest = indexes
                .iter_mut()
                .filter_map(|index| at(index).map(|at| (at, index)))
                .min_by_key(|(at, _)| *at);
            let Some(found) = oldest.and_then(|(_, index)| index.next()) else {
                return Ok(Gave { bytes: given, more: false });
            };
            let (id, kept) = found?;
            if self.is_removed(&keys::retention(kept.class, kept.group, kept.at, id)) {
                continue;
            }
            if self.end_retention(id, kept, now)? {
                given += u64::from(kept.size) + BESIDE;
            }
        }
        Ok(Gave { bytes: given, more: true })
    }

    /// Deletes a settled event whose time in an index of retention is over. Whether it was deleted: it may hold a lane.
    fn end_retention(&mut self, id: EventId, kept: Retained, now: Timestamp) -> Result<bool, BufferError> {
        let records = self.records(id)?;
        let mut deleted = false;
        if records.iter().any(|(_, record)| record.parks) {
            self.keep_on(id, records, kept, now);
        } else if records.is_empty() || retention_of(records.iter().map(|(_, record)| record)).is_some() {
            self.remove_event(id, &records, Some(kept));
            deleted = true;
        } else {
            // Under way again: then it should not stand here, and must not go.
            self.release(id, kept);
        }
        let at = kept.at;
        match (kept.group, kept.class) {
            (None, Class::Delivered) => self.totals.delivered_from = at,
            (None, Class::Dead) => self.totals.dead_from = at,
            (Some(group), class) => {
                self.keep.change(group, |totals| match class {
                    Class::Delivered => totals.delivered_from = at,
                    Class::Dead => totals.dead_from = at,
                });
                self.groups.insert(group);
            }
        }
        Ok(deleted)
    }

    pub(super) fn retain_in_group(&mut self, kept: Retained) {
        let Some(group) = kept.group else { return };
        self.keep.change(group, |totals| match kept.class {
            Class::Delivered => {
                totals.events += 1;
                totals.bytes += u64::from(kept.size);
                totals.delivered_from = totals.delivered_from.min(kept.at);
            }
            Class::Dead => totals.dead_from = totals.dead_from.min(kept.at),
        });
        self.groups.insert(group);
    }

    pub(super) fn release_from_group(&mut self, kept: Retained) {
        let Some(group) = kept.group else { return };
        if kept.class == Class::Delivered {
            self.keep.change(group, |totals| {
                totals.events = totals.events.saturating_sub(1);
                totals.bytes = totals.bytes.saturating_sub(u64::from(kept.size));
            });
            self.groups.insert(group);
        }
    }

    /// A dead letter that holds a lane is an operator's to end: it is kept for as long again.
    fn keep_on(&mut self, id: EventId, records: Vec<(u32, Record)>, kept: Retained, now: Timestamp) {
        for (to, mut record) in records.into_iter().filter(|(_, record)| record.parks) {
            if let DeliveryState::Dead { at, .. } = &mut record.state {
                *at = now;
                self.put_record(id, to, &record);
            }
        }
        self.release(id, kept);
        self.retain(id, Retained { at: now.0, ..kept });
    }
}
