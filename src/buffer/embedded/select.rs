//! Finding events: pages in order of ids, in a bounded time a page, with one event in memory at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{
    Asked, BufferError, Delivery, Event, EventFilter, EventId, Head, HiddenOfRoute, Order, Page, Search,
};
use super::change::Only;
use super::codec::{Record, StoredEvent};
use super::directory::Directory;
use super::keys;
use super::store::Store;
use crate::verify::JsonPointer;

/// Ids are made right after the time of reception is taken, on clocks that may step; so far they may be apart.
const ID_SLACK: Duration = Duration::from_secs(3600);

/// What a filter asks of one delivery.
pub(super) fn only(directory: &Directory, filter: &EventFilter) -> Only {
    let destination = filter.destination.as_deref().map(|name| {
        let name: Arc<str> = name.into();
        directory.find(&name).map(|lane| lane.id)
    });
    Only { destination, state: filter.state.clone(), reason: filter.reason, status: filter.status }
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
            None => Record::untried(stored.event.received_at, None),
        };
        let Record { state, attempts, since, history, parks, .. } = record;
        let destination = lane.name.clone();
        Some((*id, Delivery { destination, state, attempts, since, parks, history }))
    });
    Ok(found.collect())
}

/// The events that a search finds.
pub(super) fn find(store: &Store, directory: &Directory, search: &Search) -> Result<Page, BufferError> {
    let only = only(directory, &search.filter);
    // A filter may name a destination that has never had a delivery.
    let nothing = only.destination == Some(None);
    let pointer = match &search.filter.body {
        None => None,
        Some(value) => match JsonPointer::parse(&value.pointer) {
            Ok(pointer) => Some(pointer),
            // Checked where filters are taken; what is no pointer meets nothing.
            Err(_) => return Ok(Page { events: Vec::new(), next: None, examined: 0 }),
        },
    };
    let header = search.filter.header.as_ref().map(|text| text.to_ascii_lowercase().into_bytes());
    let mut look = Look {
        store,
        directory,
        search,
        only,
        pointer,
        header,
        hidden: None,
        until: Instant::now() + search.budget,
        page: Page { events: Vec::new(), next: None, examined: 0 },
    };
    let (bottom, top) = bounds(search);
    if nothing || bottom >= top {
        return Ok(look.page);
    }
    let dead_alone = search.filter.state.as_deref() == Some("dead");
    let ids: Box<dyn Iterator<Item = Result<EventId, BufferError>>> = match (dead_alone, search.order) {
        _ if !search.filter.ids.is_empty() => Box::new(chosen_ids(search, bottom, top).into_iter().map(Ok)),
        (true, Order::NewestFirst) => Box::new(dead_ids(store, bottom, top).rev()),
        (true, Order::OldestFirst) => Box::new(dead_ids(store, bottom, top)),
        (false, Order::NewestFirst) => Box::new(event_ids(store, bottom, top).rev()),
        (false, Order::OldestFirst) => Box::new(event_ids(store, bottom, top)),
    };
    let mut last = None;
    for id in ids {
        let id = id?;
        // Not an event's, or that of another dead letter of the same one.
        if id == NO_EVENT || last == Some(id) {
            continue;
        }
        if look.is_over() {
            look.page.next = last;
            return Ok(look.page);
        }
        last = Some(id);
        look.examine(id)?;
    }
    Ok(look.page)
}

/// Stands for entries that are no event's.
const NO_EVENT: EventId = EventId([0; 16]);

fn chosen_ids(search: &Search, bottom: EventId, top: EventId) -> Vec<EventId> {
    let mut ids: Vec<_> = search.filter.ids.iter().copied().filter(|id| (bottom..top).contains(id)).collect();
    ids.sort_unstable();
    if search.order == Order::NewestFirst {
        ids.reverse();
    }
    ids
}

fn dead_ids(
    store: &Store,
    bottom: EventId,
    top: EventId,
) -> impl DoubleEndedIterator<Item = Result<EventId, BufferError>> {
    let entries = store.scan(keys::dead(bottom, 0), keys::dead(top, 0));
    entries.map(|entry| Ok(keys::id_at(&entry?.0, 1).unwrap_or(NO_EVENT)))
}

/// Keys alone: no event is read.
fn event_ids(
    store: &Store,
    bottom: EventId,
    top: EventId,
) -> impl DoubleEndedIterator<Item = Result<EventId, BufferError>> {
    store.events.range(bottom.0..top.0).map(|entry| {
        let key = entry.key().map_err(|e| BufferError::Damaged(format!("the list of events: {e}")))?;
        Ok(keys::id_at(&key, 0).filter(|_| key.len() == 16).unwrap_or(NO_EVENT))
    })
}

struct Look<'a> {
    store: &'a Store,
    directory: &'a Directory,
    search: &'a Search,
    only: Only,
    pointer: Option<JsonPointer>,
    /// Lower case.
    header: Option<Vec<u8>>,
    /// Of the route that was looked at last.
    hidden: Option<(Arc<str>, HiddenOfRoute)>,
    until: Instant,
    page: Page,
}

impl Look<'_> {
    fn is_over(&self) -> bool {
        // A page without any progress would be asked for again and again.
        self.page.events.len() >= self.search.limit
            || (self.page.examined > 0 && Instant::now() >= self.until)
    }

    fn examine(&mut self, id: EventId) -> Result<(), BufferError> {
        self.page.examined += 1;
        // The small records say no for most events before one is read.
        if self.only.needs_record() {
            let records = self.store.deliveries(id)?;
            let meets =
                |(to, record): &(u32, Record)| self.only.matches(*to, &record.state, record.history.last());
            if !records.iter().any(meets) {
                return Ok(());
            }
        }
        let stored = match self.store.event(id) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(()),
            // One that can't be read must not hide the others.
            Err(error @ BufferError::Damaged(_)) => {
                tracing::error!(%error, event = %id, "an event is left out of a listing because it can't be read");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if !self.event_matches(&stored.event) {
            return Ok(());
        }
        let deliveries = deliveries(self.store, self.directory, &stored)?;
        let meets = |(to, d): &(u32, Delivery)| self.only.matches(*to, &d.state, d.history.last());
        if self.only.is_any() || deliveries.iter().any(meets) {
            let deliveries = deliveries.into_iter().map(|(_, d)| d).collect();
            self.page.events.push((Head::from(&stored.event), deliveries));
        }
        Ok(())
    }

    fn event_matches(&mut self, event: &Event) -> bool {
        let filter = &self.search.filter;
        filter.route.as_deref().is_none_or(|route| *route == *event.route)
            && filter.since.is_none_or(|since| event.received_at >= since)
            && filter.until.is_none_or(|until| event.received_at < until)
            && filter.source.is_none_or(|range| range.contains(event.source))
            && self.shows(event, Asked::EventType, filter.event_type.as_deref(), event.event_type.as_deref())
            && self.shows(
                event,
                Asked::IdempotencyKey,
                filter.idempotency_key.as_deref(),
                event.idempotency_key.as_deref(),
            )
            && self.value_matches(event)
            && self.headers_match(event)
    }

    /// Whether a value is the wanted one, and may be known.
    fn shows(&mut self, event: &Event, asked: Asked<'_>, wanted: Option<&str>, is: Option<&str>) -> bool {
        wanted.is_none_or(|wanted| is == Some(wanted) && !self.hides(event, asked))
    }

    fn hides(&mut self, event: &Event, asked: Asked<'_>) -> bool {
        if self.hidden.as_ref().is_none_or(|(route, _)| *route != event.route) {
            self.hidden = Some((event.route.clone(), (self.search.hidden)(&event.route)));
        }
        self.hidden.as_ref().is_none_or(|(_, hides)| hides(asked))
    }

    fn value_matches(&mut self, event: &Event) -> bool {
        let search = self.search;
        match (&self.pointer, &search.filter.body) {
            (Some(pointer), Some(value)) => {
                pointer.may_be(&event.body, &value.equals) && !self.hides(event, Asked::Body(&value.pointer))
            }
            _ => true,
        }
    }

    fn headers_match(&mut self, event: &Event) -> bool {
        let Some(wanted) = self.header.take() else { return true };
        let found = self.header_matches(event, &wanted);
        self.header = Some(wanted);
        found
    }

    fn header_matches(&mut self, event: &Event, wanted: &[u8]) -> bool {
        let mut line = Vec::new();
        event.headers.iter().any(|(name, value)| {
            line.clear();
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b": ");
            if !self.hides(event, Asked::Header(name)) {
                line.extend_from_slice(value);
            }
            line.make_ascii_lowercase();
            memchr::memmem::find(&line, wanted).is_some()
        })
    }
}

/// The ids that are looked at: from the first on, below the second.
fn bounds(search: &Search) -> (EventId, EventId) {
    let Search { filter, order, after, upto, .. } = search;
    let behind = |id: EventId| EventId(u128::from_be_bytes(id.0).saturating_add(1).to_be_bytes());
    let mut bottom =
        filter.since.map_or(EventId([0; 16]), |since| EventId::first_of(since.saturating_sub(ID_SLACK)));
    let mut top =
        filter.until.map_or(EventId([0xff; 16]), |until| EventId::first_of(until.saturating_add(ID_SLACK)));
    if let Some(upto) = upto {
        top = top.min(behind(*upto));
    }
    match (after, order) {
        (Some(after), Order::NewestFirst) => top = top.min(*after),
        (Some(after), Order::OldestFirst) => bottom = bottom.max(behind(*after)),
        (None, _) => {}
    }
    (bottom, top)
}
