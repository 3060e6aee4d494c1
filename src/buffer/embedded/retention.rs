//! What is past its time goes, in bounded steps: expired claims, clients' URLs that have ended,
//! delivered events, dead letters.
//!
//! An event is deleted when all its deliveries are settled and their retention has ended; one with a pending delivery
//! stands in no retention index, so it can't be met here. Each index is in order of time, and a step goes on where the
//! last one ended.

use std::time::Duration;

use super::super::{BufferError, DeliveryState, EventId};
use super::codec::Record;
use super::draft::{Draft, Retained};
use super::keys::{self, Class};
use crate::clock::Timestamp;
use crate::config::BufferSettings;

/// Entries that one step deletes at most: about a millisecond of the committer's time.
const STEP: usize = 256;

/// How long things are kept.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    pub(super) delivered: Duration,
    delivered_bytes: u64,
    dead: Duration,
}

impl Keep {
    pub(super) fn new(settings: &BufferSettings) -> Self {
        Self {
            delivered: settings.keep_delivered,
            // What is done must not crowd out what is to come: a small buffer keeps less.
            delivered_bytes: settings.keep_delivered_bytes.min(settings.max_size / 4),
            dead: settings.keep_dead,
        }
    }
}

/// Whether a step left something behind that is past its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swept {
    All,
    Part,
}

impl Draft<'_> {
    /// Deletes what is past its time, up to a step's worth. First of all in a draft: what is written later in the same
    /// commit wins.
    pub(super) fn sweep(&mut self, keep: &Keep, now: Timestamp) -> Result<Swept, BufferError> {
        let mut budget = STEP;
        self.sweep_claims(now.0, &mut budget)?;
        self.sweep_endpoints(now.0, &mut budget)?;
        self.sweep_events(Class::Delivered, now.saturating_sub(keep.delivered).0, keep, now, &mut budget)?;
        self.sweep_events(Class::Dead, now.saturating_sub(keep.dead).0, keep, now, &mut budget)?;
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
        keep: &Keep,
        now: Timestamp,
        budget: &mut usize,
    ) -> Result<(), BufferError> {
        let floor = match class {
            Class::Delivered => self.totals.delivered_from,
            Class::Dead => self.totals.dead_from,
        };
        let surplus =
            |draft: &Self| class == Class::Delivered && draft.totals.delivered_bytes > keep.delivered_bytes;
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
            let records = self.records(id)?;
            if records.iter().any(|(_, record)| record.parks) {
                self.keep_on(id, records, Retained { class, at, size }, now);
            } else {
                self.remove_event(id, &records, Some(Retained { class, at, size }));
            }
            match class {
                Class::Delivered => self.totals.delivered_from = at,
                Class::Dead => self.totals.dead_from = at,
            }
            *budget -= 1;
        }
        Ok(())
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
