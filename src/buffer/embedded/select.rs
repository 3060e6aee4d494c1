//! Finding events: pages newest first, without loading more than a page and with bounded work a call.

use std::sync::Arc;

use super::super::{BufferError, Delivery, Event, EventFilter, EventId};
use super::apply::Only;
use super::codec::{Record, StoredEvent};
use super::directory::Directory;
use super::keys;
use super::store::Store;
use crate::clock::Timestamp;

/// Events that one look examines at most, and bytes of them. A page may so come out short, or empty, and still have a
/// next one.
const LOOK_EVENTS: usize = 5_000;
const LOOK_BYTES: usize = 32 * 1024 * 1024;
/// Ids are made right after the time of reception is taken, on clocks that may step; so far they may be apart.
const ID_SLACK: u64 = 3_600_000;

/// Events found, and where to go on.
pub(super) struct Found {
    pub(super) events: Vec<(Event, Vec<Delivery>)>,
    pub(super) next: Option<EventId>,
}

/// What a filter asks of one delivery.
pub(super) fn only(directory: &Directory, filter: &EventFilter) -> Only {
    let destination = filter.destination.as_deref().map(|name| {
        let name: Arc<str> = name.into();
        directory.find(&name).map(|lane| lane.id)
    });
    Only { destination, state: filter.state.clone() }
}

/// The deliveries of a stored event, in the order of its destinations.
pub(super) fn deliveries(
    store: &Store,
    directory: &Directory,
    stored: &StoredEvent,
) -> Result<Vec<(u32, Delivery)>, BufferError> {
    let mut records = store.deliveries(stored.event.id)?;
    let found = stored.destinations.iter().filter_map(|id| {
        let lane = directory.by_id(*id)?;
        let record = match records.iter().position(|(of, _)| of == id) {
            Some(at) => records.swap_remove(at).1,
            None => Record::untried(stored.event.received_at),
        };
        let Record { state, attempts, since, history, .. } = record;
        Some((*id, Delivery { destination: lane.name.clone(), state, attempts, since, history }))
    });
    Ok(found.collect())
}

/// Up to `limit` events that match, newest first, from behind `after` on.
pub(super) fn find(
    store: &Store,
    directory: &Directory,
    filter: &EventFilter,
    after: Option<EventId>,
    limit: usize,
) -> Result<Found, BufferError> {
    let only = only(directory, filter);
    let mut look = Look { filter, only, events: Vec::new(), limit, examined: 0, bytes: 0 };
    if only_nothing(&look.only) {
        return Ok(Found { events: Vec::new(), next: None });
    }
    let top = upper_bound(filter, after);
    let bottom = lower_bound(filter);
    let mut last = None;
    if filter.state.as_deref() == Some("dead") {
        let from = keys::dead(bottom, 0);
        let to = keys::dead(top, 0);
        for entry in store.scan(from, to).rev() {
            let (key, _) = entry?;
            let Some(id) = keys::id_at(&key, 1) else { continue };
            if last == Some(id) {
                continue;
            }
            if look.is_over() {
                return Ok(Found { events: look.events, next: last });
            }
            last = Some(id);
            look.examine(store, directory, id)?;
        }
    } else {
        if bottom.0 >= top.0 {
            return Ok(Found { events: Vec::new(), next: None });
        }
        for entry in store.events.range(bottom.0..top.0).rev() {
            if look.is_over() {
                return Ok(Found { events: look.events, next: last });
            }
            let key = entry
                .key()
                .map_err(|e| BufferError::Damaged(format!("the list of events, behind {last:?}: {e}")))?;
            let Some(id) = keys::id_at(&key, 0).filter(|_| key.len() == 16) else { continue };
            last = Some(id);
            look.examine(store, directory, id)?;
        }
    }
    Ok(Found { events: look.events, next: None })
}

/// Whether a filter names a destination that has never had a delivery.
fn only_nothing(only: &Only) -> bool {
    only.destination == Some(None)
}

struct Look<'a> {
    filter: &'a EventFilter,
    only: Only,
    events: Vec<(Event, Vec<Delivery>)>,
    limit: usize,
    examined: usize,
    bytes: usize,
}

impl Look<'_> {
    fn is_over(&self) -> bool {
        self.events.len() >= self.limit || self.examined >= LOOK_EVENTS || self.bytes >= LOOK_BYTES
    }

    fn examine(&mut self, store: &Store, directory: &Directory, id: EventId) -> Result<(), BufferError> {
        self.examined += 1;
        let stored = match store.event(id) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(()),
            // One that can't be read must not hide the others.
            Err(error @ BufferError::Damaged(_)) => {
                tracing::error!(%error, event = %id, "an event is left out of a listing because it can't be read");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.bytes += stored.size as usize;
        if !event_matches(self.filter, &stored.event) {
            return Ok(());
        }
        let deliveries = deliveries(store, directory, &stored)?;
        if self.only.is_any() || deliveries.iter().any(|(id, d)| self.only.matches(*id, &d.state)) {
            self.events.push((stored.event, deliveries.into_iter().map(|(_, d)| d).collect()));
        }
        Ok(())
    }
}

fn event_matches(filter: &EventFilter, event: &Event) -> bool {
    filter.route.as_deref().is_none_or(|route| *route == *event.route)
        && filter.event_type.as_deref().is_none_or(|kind| event.event_type.as_deref() == Some(kind))
        && filter.since.is_none_or(|since| event.received_at >= since)
        && filter.until.is_none_or(|until| event.received_at < until)
}

/// Ids at or above this are left out.
fn upper_bound(filter: &EventFilter, after: Option<EventId>) -> EventId {
    let time = match filter.until {
        Some(until) => id_floor(Timestamp(until.0.saturating_add(ID_SLACK))),
        None => EventId([0xff; 16]),
    };
    after.map_or(time, |after| after.min(time))
}

/// Ids below this are left out.
fn lower_bound(filter: &EventFilter) -> EventId {
    filter.since.map_or(EventId([0; 16]), |since| id_floor(Timestamp(since.0.saturating_sub(ID_SLACK))))
}

/// The lowest id of a time: a UUIDv7 begins with 48 bits of milliseconds.
fn id_floor(at: Timestamp) -> EventId {
    let millis = at.0.min((1 << 48) - 1);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    EventId(id)
}
