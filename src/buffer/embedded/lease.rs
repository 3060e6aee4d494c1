//! Reading the queues: what is due, and what will be.
//!
//! A destination that keeps up is served from its lane's memory. Otherwise the queues on disk are looked at from the
//! lane's floors on, the places found are reserved, and only then, without any lock, the events are read.

use std::sync::Arc;

use super::super::{BufferError, LeaseToken, Leased};
use super::codec::{QueueEntry, Told};
use super::keys;
use super::lane::{Held, Lane, Lease, Place, State};
use super::store::Store;
use crate::clock::Timestamp;

/// Leases on their way to a caller. If the caller has gone, they are handed back.
pub(super) struct Granted {
    lane: Arc<Lane>,
    leases: Vec<Leased>,
}

impl Granted {
    fn new(lane: &Arc<Lane>, taken: &[(Place, Held)]) -> Self {
        let leases = taken.iter().map(|(place, held)| lane.leased(*place, held)).collect();
        Self { lane: Arc::clone(lane), leases }
    }
    /// `max`: how many were asked for.
    pub(super) fn accept(mut self, max: usize) -> Vec<Leased> {
        self.lane.state().starved = self.leases.len() < max;
        std::mem::take(&mut self.leases)
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            let mut state = self.lane.state();
            self.leases.iter().for_each(|leased| state.hand_back(place(leased.token)));
        }
    }
}

pub(super) const fn place(token: LeaseToken) -> Place {
    (token.due, token.seq)
}

/// Leases from memory alone; `None` if the disk has to be asked.
pub(super) fn from_memory(lane: &Arc<Lane>, max: usize, now: Timestamp) -> Option<Granted> {
    let _scanning = lane.scanning.try_lock()?;
    let mut state = lane.state();
    let mut taken = Vec::new();
    state.take_returned(max, now, &mut taken);
    if state.retry_due <= now.0 {
        // Hand back what was taken: the order is the scan's to find.
        taken.drain(..).for_each(|(place, _)| state.hand_back(place));
        return None;
    }
    state.take_window(max, &mut taken);
    if taken.len() < max && state.behind {
        // Fewer than asked for must mean that there is no more. These come first again.
        taken.drain(..).for_each(|(place, _)| state.hand_back(place));
        return None;
    }
    drop(state);
    Some(Granted::new(lane, &taken))
}

/// Leases with a look at the queues on disk. May block on reads.
pub(super) fn from_disk(
    store: &Store,
    lane: &Arc<Lane>,
    max: usize,
    now: Timestamp,
) -> Result<Granted, BufferError> {
    let _scanning = lane.scanning.lock();
    let mut taken = Vec::new();
    lane.state().take_returned(max, now, &mut taken);
    // From here on an error must give back what was taken.
    let mut granted = Granted::new(lane, &taken);
    // Where there is order, heads that others waited behind are in the retry queue: they and keys that are new to it
    // take turns, so that neither keeps the other waiting.
    let ordered = lane.order.read().is_some();
    let room = max - granted.leases.len();
    let share = if ordered { turn(lane, room) } else { room };
    retries(store, lane, share, now, &mut granted)?;
    fresh(store, lane, max, &mut granted)?;
    if ordered {
        let rest = max - granted.leases.len();
        retries(store, lane, rest, now, &mut granted)?;
    }
    Ok(granted)
}

/// Leases retries that are due after `beyond`. May block on reads, but only if there may be such.
pub(super) fn strayed(
    store: &Store,
    lane: &Arc<Lane>,
    max: usize,
    beyond: Timestamp,
) -> Result<Granted, BufferError> {
    let _scanning = lane.scanning.lock();
    let mut taken = Vec::new();
    lane.state().take_strayed(max, beyond, &mut taken);
    let mut granted = Granted::new(lane, &taken);
    let reserved = reserve_strayed(store, lane, max - taken.len(), beyond);
    if reserved.is_err() {
        lane.state().latest_due = u64::MAX;
    }
    read(store, lane, reserved?, &mut granted)?;
    Ok(granted)
}

/// Whether a retry may be due after `beyond` that may be leased.
pub(super) fn may_stray(lane: &Lane, beyond: Timestamp) -> bool {
    let state = lane.state();
    state.latest_due > beyond.0
        || state.returned.last_key_value().is_some_and(|(place, _)| place.0 > beyond.0)
}

fn reserve_strayed(
    store: &Store,
    lane: &Lane,
    max: usize,
    beyond: Timestamp,
) -> Result<Vec<(Place, QueueEntry)>, BufferError> {
    if max == 0 {
        return Ok(Vec::new());
    }
    // What is put off from here on raises it again.
    lane.state().latest_due = beyond.0;
    let from = keys::retry(lane.id, beyond.0.saturating_add(1), 0);
    let mut found = Vec::new();
    for entry in store.queue(from, keys::retry(lane.id, u64::MAX, u64::MAX)) {
        let (key, entry) = entry?;
        let Some(place) = keys::place_of_retry(&key) else { continue };
        if !lane.state().knows(place) {
            found.push((place, entry));
        }
        if found.len() == max {
            break;
        }
    }
    let mut state = lane.state();
    if found.len() == max || state.upcoming.last_key_value().is_some_and(|(place, _)| place.0 > beyond.0) {
        state.latest_due = u64::MAX;
    }
    let mut reserved = Vec::with_capacity(found.len());
    for (place, entry) in found {
        // It may have been settled since it was found.
        if !state.knows(place) && store.get(&keys::queued(lane.id, place))?.is_some() {
            state.leases.insert(place, Lease::Reading(entry.accepted));
            reserved.push((place, entry));
        }
    }
    Ok(reserved)
}

/// How many of so many places are first of all for retries: half of them, and of an odd number one more each other time.
fn turn(lane: &Lane, room: usize) -> usize {
    if room.is_multiple_of(2) {
        return room / 2;
    }
    let mut state = lane.state();
    state.retries_first = !state.retries_first;
    room / 2 + usize::from(!state.retries_first)
}

fn retries(
    store: &Store,
    lane: &Arc<Lane>,
    max: usize,
    now: Timestamp,
    granted: &mut Granted,
) -> Result<(), BufferError> {
    let before = granted.leases.len();
    let retries = reserve_retries(store, lane, max, now, granted)?;
    read(store, lane, retries, granted)?;
    // Those from memory and those from disk, back in order.
    granted.leases[before..].sort_unstable_by_key(|leased| place(leased.token));
    Ok(())
}

/// Fills `granted` up to `max`.
fn fresh(store: &Store, lane: &Arc<Lane>, max: usize, granted: &mut Granted) -> Result<(), BufferError> {
    let mut window = Vec::new();
    lane.state().take_window(max - granted.leases.len(), &mut window);
    granted.leases.extend(window.iter().map(|(place, held)| lane.leased(*place, held)));
    // What can't be read leaves room: fewer than asked for must mean that there is no more.
    loop {
        let fresh = reserve_fresh(store, lane, max - granted.leases.len())?;
        let whole = granted.leases.len() + fresh.len();
        read(store, lane, fresh, granted)?;
        if granted.leases.len() == whole {
            return Ok(());
        }
    }
}

/// Reserves retries that are due, in order; those that are still in memory are leased at once.
fn reserve_retries(
    store: &Store,
    lane: &Arc<Lane>,
    max: usize,
    now: Timestamp,
    granted: &mut Granted,
) -> Result<Vec<(Place, QueueEntry)>, BufferError> {
    let (from, upcoming, spoken_for, withdrawn) = {
        let mut state = lane.state();
        state.settled_low = None;
        // Retries that are on their way to disk may get there unseen by this scan.
        let upcoming: Vec<Place> = state.upcoming.keys().copied().collect();
        if max == 0 || state.retry_due > now.0 {
            return Ok(Vec::new());
        }
        // One that is settled while this scan runs still stands in what the scan sees.
        let spoken_for: Vec<Place> =
            state.leases.range(state.retry_from..).map(|(place, _)| *place).collect();
        (state.retry_from, upcoming, spoken_for, state.withdrawn)
    };
    let mut found = Vec::new();
    let mut next: Option<Place> = None;
    let mut end = from;
    for entry in store.queue(keys::retry(lane.id, from.0, from.1), keys::retry(lane.id, u64::MAX, u64::MAX)) {
        let (key, entry) = entry?;
        let Some(place) = keys::place_of_retry(&key) else { continue };
        let (due, seq) = place;
        if spoken_for.binary_search(&place).is_ok() || lane.state().knows(place) {
            end = (due, seq + 1);
            continue;
        }
        if due > now.0 || found.len() == max {
            next = Some(place);
            break;
        }
        end = (due, seq + 1);
        found.push((place, entry));
    }
    let mut state = lane.state();
    still_there(store, lane, &state, withdrawn, &mut found)?;
    let due_in_memory = upcoming.iter().copied().filter(|place| place.0 <= now.0);
    let mut order: Vec<(Place, Option<QueueEntry>)> =
        found.into_iter().map(|(place, entry)| (place, Some(entry))).collect();
    order.extend(due_in_memory.map(|place| (place, None)));
    order.sort_unstable_by_key(|(place, _)| *place);
    let mut from_memory = Vec::new();
    let mut reserved = Vec::new();
    let mut left = Vec::new();
    for (place, entry) in order {
        if reserved.len() + from_memory.len() == max {
            left.push(place);
            continue;
        }
        match entry {
            None => {
                let before = from_memory.len();
                state.take_upcoming(place, &mut from_memory);
                if from_memory.len() == before {
                    // It got to disk while we looked.
                    left.push(place);
                }
            }
            // Found on disk, though it was upcoming when we began.
            Some(_) if state.knows(place) => {}
            Some(entry) => {
                state.leases.insert(place, Lease::Reading(entry.accepted));
                reserved.push((place, entry));
            }
        }
    }
    // Whatever was not taken, and whatever came in meanwhile, is still ahead.
    let not_due = upcoming.into_iter().filter(|place| place.0 > now.0);
    let ahead = left.into_iter().chain(not_due).chain(next).chain(state.settled_low).min();
    state.retry_from = ahead.map_or(end, |place| place.min(end));
    state.retry_due = ahead.map_or(u64::MAX, |place| place.0);
    drop(state);
    granted.leases.extend(from_memory.iter().map(|(place, held)| lane.leased(*place, held)));
    Ok(reserved)
}

/// Reserves entries of the fresh queue behind the window, in order.
fn reserve_fresh(
    store: &Store,
    lane: &Arc<Lane>,
    max: usize,
) -> Result<Vec<(Place, QueueEntry)>, BufferError> {
    let (from, until, withdrawn) = {
        let state = lane.state();
        if max == 0 || !state.behind {
            return Ok(Vec::new());
        }
        (state.fresh_from, state.fresh_end, state.withdrawn)
    };
    let mut found = Vec::new();
    let mut end = until;
    for entry in store.queue(keys::fresh(lane.id, from), keys::fresh(lane.id, until)) {
        let (key, entry) = entry?;
        let Some(seq) = keys::u64_at(&key, 5) else { continue };
        if found.len() == max {
            end = seq;
            break;
        }
        if !lane.state().knows((0, seq)) {
            found.push(((0, seq), entry));
        }
    }
    let mut state = lane.state();
    still_there(store, lane, &state, withdrawn, &mut found)?;
    for (place, entry) in &found {
        state.leases.insert(*place, Lease::Reading(entry.accepted));
    }
    state.fresh_from = end;
    // New entries went by the window as long as we were behind.
    state.behind = end < state.fresh_end;
    Ok(found)
}

/// Leaves out what was withdrawn since the look at the queue began: it saw the queue as it was then.
fn still_there(
    store: &Store,
    lane: &Lane,
    state: &State,
    withdrawn: u64,
    found: &mut Vec<(Place, QueueEntry)>,
) -> Result<(), BufferError> {
    if state.withdrawn == withdrawn {
        return Ok(());
    }
    let mut there = Vec::with_capacity(found.len());
    for (place, entry) in found.drain(..) {
        if !state.knows(place) && store.get(&keys::queued(lane.id, place))?.is_some() {
            there.push((place, entry));
        }
    }
    *found = there;
    Ok(())
}

/// Reads the reserved events and completes their leases. One that can't be read stays reserved: it is in nobody's way,
/// stands in the backlog and in the log, and comes again with the next start.
fn read(
    store: &Store,
    lane: &Arc<Lane>,
    reserved: Vec<(Place, QueueEntry)>,
    granted: &mut Granted,
) -> Result<(), BufferError> {
    let mut reserved = reserved.into_iter();
    while let Some((place, entry)) = reserved.next() {
        match read_one(store, lane, &entry) {
            Ok(held) => {
                granted.leases.push(lane.leased(place, &held));
                lane.state().leases.insert(place, Lease::Out(held));
            }
            Err(error @ BufferError::Damaged(_)) => {
                tracing::error!(%error, event = %entry.event, destination = %lane.name,
                    "a delivery is held back because its event can't be read");
            }
            Err(error) => {
                let mut state = lane.state();
                std::iter::once(place)
                    .chain(reserved.map(|(place, _)| place))
                    .for_each(|place| state.unreserve(place));
                return Err(error);
            }
        }
    }
    Ok(())
}

fn read_one(store: &Store, lane: &Lane, entry: &QueueEntry) -> Result<Held, BufferError> {
    let id = entry.event;
    let stored = store
        .event(id)?
        .ok_or_else(|| BufferError::Damaged(format!("event {id} is queued but not in the store")))?;
    let record = match entry.told {
        Told::Nothing => None,
        Told::Record => store.delivery(id, lane.id)?,
    };
    Ok(Held {
        event: Arc::new(stored.event),
        siblings: u32::try_from(stored.destinations.len()).unwrap_or(u32::MAX),
        size: stored.size,
        record,
        lane: entry.lane,
    })
}

/// When the next retry that is not leased becomes due.
pub(super) fn next_due(store: &Store, lane: &Lane) -> Result<Option<Timestamp>, BufferError> {
    // Memory first: what moves from there to disk meanwhile has been seen.
    let (memory, from) = {
        let state = lane.state();
        (state.next_in_memory(), (state.retry_due < u64::MAX).then_some(state.retry_from))
    };
    let disk = match from {
        None => None,
        Some(from) => first_retry(store, lane, from)?,
    };
    Ok([memory, disk].into_iter().flatten().min().map(Timestamp))
}

fn first_retry(store: &Store, lane: &Lane, from: Place) -> Result<Option<u64>, BufferError> {
    for entry in store.queue(keys::retry(lane.id, from.0, from.1), keys::retry(lane.id, u64::MAX, u64::MAX)) {
        let (key, _) = entry?;
        let Some((due, seq)) = keys::place_of_retry(&key) else { continue };
        if !lane.state().knows((due, seq)) {
            return Ok(Some(due));
        }
    }
    Ok(None)
}

/// When the oldest delivery that is pending or retrying was accepted.
pub(super) fn oldest(store: &Store, lane: &Lane) -> Result<Option<Timestamp>, BufferError> {
    let (memory, fresh, retried, lowered, idle) = {
        let state = lane.state();
        let fresh = state.behind.then_some((state.fresh_from, state.fresh_end));
        (
            state.oldest_in_memory(),
            fresh,
            state.retried_from,
            state.retried_lowered,
            state.upcoming.is_empty(),
        )
    };
    let mut oldest = memory;
    if let Some((from, until)) = fresh
        && let Some(entry) = store.queue(keys::fresh(lane.id, from), keys::fresh(lane.id, until)).next()
    {
        let accepted = entry?.1.accepted;
        oldest = Some(oldest.map_or(accepted, |o| o.min(accepted)));
    }
    let first = store.scan(keys::retried(lane.id, retried), keys::retried(lane.id, u64::MAX)).next();
    if let Some((key, value)) = first.transpose()? {
        if let Some(accepted) = keys::u64_at(&value, 0).map(Timestamp) {
            oldest = Some(oldest.map_or(accepted, |o| o.min(accepted)));
        }
        let mut state = lane.state();
        if let Some(seq) = keys::u64_at(&key, 5)
            && idle
            && state.upcoming.is_empty()
            && state.retried_lowered == lowered
        {
            state.retried_from = state.retried_from.max(seq);
        }
    }
    Ok(oldest)
}
