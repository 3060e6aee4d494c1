//! What is known in memory of one destination's deliveries: who holds a lease, and where scans go on.
//!
//! A lane keeps as much as its workers hold, plus a small window of events that have just come in, so that a
//! destination that keeps up never reads back from disk. The queues themselves are on disk (`keys.rs`), and nothing
//! here grows with them. Leases are not written: a process that ends gives them all back.
//!
//! Deletes leave tombstones, so scans never start at the front of a queue: `fresh_from` and `retry_from` are below
//! every entry that is neither leased nor settled, and all that is left behind them is remembered by key.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;

use super::super::{DestinationName, Event, LaneBy, LaneKey, LeaseToken, Leased};
use super::codec::Record;
use crate::clock::Timestamp;
use crate::telemetry::Metrics;

/// A delivery's place in its queue: the due time in milliseconds (0: untried since acceptance or replay) and the seq.
pub(super) type Place = (u64, u64);

/// Entries and bytes that a lane's window of new events holds at most.
const WINDOW_EVENTS: usize = 1024;
const WINDOW_BYTES: usize = 1024 * 1024;

/// A delivery with everything that its attempt and settlement need.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) event: Arc<Event>,
    /// How many destinations the event has.
    pub(super) siblings: u32,
    /// Of the stored event, in bytes.
    pub(super) size: u32,
    /// `None`: untried.
    pub(super) record: Option<Record>,
    /// The lane that it is the first of, if it goes in order.
    pub(super) lane: Option<LaneKey>,
}

/// Where a delivery goes.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) lane: Arc<Lane>,
    /// If it goes in order.
    pub(super) key: Option<LaneKey>,
}

impl Held {
    pub(super) fn record(&self) -> Record {
        self.record.clone().unwrap_or_else(|| Record::untried(self.event.received_at, self.lane))
    }
    fn weight(&self) -> usize {
        self.size as usize + 512
    }
}

/// A lease: in the hands of a worker, or settled and on its way to disk.
#[derive(Debug)]
pub(super) enum Lease {
    Out(Held),
    /// Reserved; its event is being read.
    Reading(Timestamp),
    Settling(Timestamp),
}

impl Lease {
    fn accepted(&self) -> Timestamp {
        match self {
            Lease::Out(held) => held.event.received_at,
            Lease::Reading(accepted) | Lease::Settling(accepted) => *accepted,
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) id: u32,
    pub(super) name: DestinationName,
    pub(super) arrivals: Arc<Notify>,
    /// Held by a lease or a look at the queues on disk, so that two never return the same delivery.
    pub(super) scanning: Mutex<()>,
    /// Published by the committer.
    pub(super) backlog: AtomicU64,
    pub(super) dead: AtomicU64,
    pub(super) blocked: AtomicU64,
    pub(super) parked: AtomicU64,
    /// How new events find their order; `None`: they have none.
    pub(super) order: RwLock<Option<Arc<dyn LaneBy>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) leases: BTreeMap<Place, Lease>,
    /// Handed back and not leased again. They come first.
    pub(super) returned: BTreeMap<Place, Held>,
    /// Settled as retries, not yet on disk.
    pub(super) upcoming: BTreeMap<Place, Held>,
    /// The oldest entries of the fresh queue from `fresh_from` on.
    window: VecDeque<(u64, Held)>,
    window_bytes: usize,
    /// Entries of the fresh queue below this are leased, returned or settled.
    pub(super) fresh_from: u64,
    /// The fresh queue ends before this.
    pub(super) fresh_end: u64,
    /// Whether the fresh queue goes on behind the window.
    pub(super) behind: bool,
    /// Entries of the retry queue below this are leased, returned, upcoming or settled.
    pub(super) retry_from: Place,
    /// The lowest retry that was settled since a scan began: the scan did not see it.
    pub(super) settled_low: Option<Place>,
    /// No retry on disk that may be leased is due before this.
    pub(super) retry_due: u64,
    /// No retry on disk is due after this, but for those leased, returned or upcoming.
    pub(super) latest_due: u64,
    /// No retry stands below this seq in the index by acceptance, but for those upcoming.
    pub(super) retried_from: u64,
    /// Counts what lowered `retried_from`, so that a look at the index notices.
    pub(super) retried_lowered: u64,
    /// The same for lanes that stand still, by time.
    pub(super) stuck_from: u64,
    pub(super) stuck_lowered: u64,
    /// Counts what was taken out of the queues without a lease, so that a look at them notices.
    pub(super) withdrawn: u64,
    /// The latest lease got less than it asked for: what becomes due is waited for.
    pub(super) starved: bool,
    /// Whose turn it is where only one of new deliveries and retries fits.
    pub(super) retries_first: bool,
}

impl Lane {
    /// A destination of which nothing is stored.
    pub(super) fn new(id: u32, name: DestinationName, next_seq: u64) -> Self {
        Self {
            id,
            name,
            arrivals: Arc::new(Notify::new()),
            scanning: Mutex::new(()),
            backlog: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            order: RwLock::new(None),
            state: Mutex::new(State {
                leases: BTreeMap::new(),
                returned: BTreeMap::new(),
                upcoming: BTreeMap::new(),
                window: VecDeque::new(),
                window_bytes: 0,
                fresh_from: next_seq,
                fresh_end: next_seq,
                behind: false,
                retry_from: (0, 0),
                settled_low: None,
                retry_due: u64::MAX,
                latest_due: 0,
                retried_from: 0,
                retried_lowered: 0,
                stuck_from: 0,
                stuck_lowered: 0,
                withdrawn: 0,
                starved: false,
                retries_first: true,
            }),
        }
    }

    /// A destination whose queues may hold something: they are scanned from these floors on.
    pub(super) fn stored(
        id: u32,
        name: DestinationName,
        counters: super::codec::Counters,
        next_seq: u64,
    ) -> Self {
        let lane = Self::new(id, name, next_seq);
        lane.backlog.store(counters.backlog, Ordering::Relaxed);
        lane.dead.store(counters.dead, Ordering::Relaxed);
        lane.blocked.store(counters.blocked, Ordering::Relaxed);
        lane.parked.store(counters.parked, Ordering::Relaxed);
        {
            let mut state = lane.state();
            state.fresh_from = counters.fresh_from;
            state.behind = true;
            state.retry_from = (counters.retry_from, 0);
            state.retry_due = counters.retry_from;
            state.latest_due = u64::MAX;
        }
        lane
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The lane of a new event's key, if it goes in order.
    pub(super) fn key_of(&self, event: &Event, metrics: &Metrics) -> Option<LaneKey> {
        let order = self.order.read().clone()?;
        let key = order.lane(event);
        if key.is_none() {
            metrics.order_key_missing(&self.name.0);
        }
        key
    }

    pub(super) fn leased(&self, place: Place, held: &Held) -> Leased {
        let (attempts, since) = match &held.record {
            Some(record) => (record.attempts, record.since),
            None => (0, held.event.received_at),
        };
        Leased {
            event: Arc::clone(&held.event),
            destination: self.name.clone(),
            attempts,
            since,
            lane: held.lane,
            token: LeaseToken { due: place.0, seq: place.1 },
        }
    }
}

impl State {
    /// Takes note of a new entry at the end of the fresh queue. `held` is `None` if it must be read from disk.
    pub(super) fn arrived(&mut self, seq: u64, held: Option<Held>) {
        self.fresh_end = self.fresh_end.max(seq + 1);
        match held {
            Some(held)
                if !self.behind
                    && self.window.len() < WINDOW_EVENTS
                    && self.window_bytes + held.weight() <= WINDOW_BYTES =>
            {
                self.window_bytes += held.weight();
                self.window.push_back((seq, held));
            }
            _ => self.behind = true,
        }
    }

    /// Leases up to `max` of what is in memory: first what was handed back, then retries on their way to disk, then
    /// the window.
    pub(super) fn take_returned(&mut self, max: usize, now: Timestamp, taken: &mut Vec<(Place, Held)>) {
        while taken.len() < max
            && let Some(entry) = self.returned.first_entry()
            && entry.key().0 <= now.0
        {
            let (place, held) = entry.remove_entry();
            self.lease(place, held, taken);
        }
    }

    /// Leases up to `max` of what was handed back and is due after that time.
    pub(super) fn take_strayed(&mut self, max: usize, beyond: Timestamp, taken: &mut Vec<(Place, Held)>) {
        while taken.len() < max
            && let Some(entry) = self.returned.last_entry()
            && entry.key().0 > beyond.0
        {
            let (place, held) = entry.remove_entry();
            self.lease(place, held, taken);
        }
    }

    pub(super) fn take_window(&mut self, max: usize, taken: &mut Vec<(Place, Held)>) {
        while taken.len() < max
            && let Some((seq, held)) = self.window.pop_front()
        {
            self.window_bytes -= held.weight();
            self.fresh_from = seq + 1;
            self.lease((0, seq), held, taken);
        }
    }

    pub(super) fn take_upcoming(&mut self, place: Place, taken: &mut Vec<(Place, Held)>) {
        if let Some(held) = self.upcoming.remove(&place) {
            self.lease(place, held, taken);
        }
    }

    fn lease(&mut self, place: Place, held: Held, taken: &mut Vec<(Place, Held)>) {
        taken.push((place, held.clone()));
        self.leases.insert(place, Lease::Out(held));
    }

    /// Whether an entry of a queue on disk is spoken for.
    pub(super) fn knows(&self, place: Place) -> bool {
        self.leases.contains_key(&place)
            || self.returned.contains_key(&place)
            || self.upcoming.contains_key(&place)
    }

    /// Takes an entry out of everybody's reach, until it is gone from disk. `false`: somebody has it.
    pub(super) fn withdraw(&mut self, place: Place, accepted: Timestamp) -> bool {
        if self.leases.contains_key(&place) {
            return false;
        }
        self.returned.remove(&place);
        self.upcoming.remove(&place);
        if place.0 == 0
            && let Ok(at) = self.window.binary_search_by_key(&place.1, |(seq, _)| *seq)
            && let Some((_, held)) = self.window.remove(at)
        {
            self.window_bytes -= held.weight();
        }
        self.leases.insert(place, Lease::Settling(accepted));
        self.withdrawn += 1;
        true
    }

    /// It is gone from disk.
    pub(super) fn is_withdrawn(&mut self, place: Place) {
        self.leases.remove(&place);
        self.withdrawn += 1;
    }

    /// Gives a lease back as if it had never been.
    pub(super) fn hand_back(&mut self, place: Place) {
        match self.leases.remove(&place) {
            Some(Lease::Out(held)) => {
                self.returned.insert(place, held);
            }
            Some(Lease::Settling(accepted)) => {
                self.leases.insert(place, Lease::Settling(accepted));
            }
            Some(Lease::Reading(_)) | None => {}
        }
    }

    /// Takes note of a retry that was settled and will be on disk soon.
    pub(super) fn retries(&mut self, place: Place, held: Held) {
        self.promoted(place);
        self.upcoming.insert(place, held);
    }

    /// Takes note of an entry of the retry queue: that it is, or will be, on disk.
    pub(super) fn promoted(&mut self, place: Place) {
        self.retry_from = self.retry_from.min(place);
        self.settled_low = Some(self.settled_low.map_or(place, |low| low.min(place)));
        self.retry_due = self.retry_due.min(place.0);
        self.latest_due = self.latest_due.max(place.0);
        self.aged(place.1);
    }

    /// Takes note of an entry of the index by acceptance.
    pub(super) fn aged(&mut self, seq: u64) {
        if seq < self.retried_from {
            self.retried_from = seq;
            self.retried_lowered += 1;
        }
    }

    /// Takes note of a lane that stands still since then.
    pub(super) fn stuck(&mut self, since: u64) {
        if since < self.stuck_from {
            self.stuck_from = since;
            self.stuck_lowered += 1;
        }
    }

    /// Gives a reservation back whose event could not be read: the scan meets it again.
    pub(super) fn unreserve(&mut self, place: Place) {
        if let Some(Lease::Reading(_)) = self.leases.get(&place) {
            self.leases.remove(&place);
            if place.0 == 0 {
                self.fresh_from = self.fresh_from.min(place.1);
                self.behind = true;
                // The window must begin at `fresh_from`; what it held is on disk.
                self.window.clear();
                self.window_bytes = 0;
            } else {
                self.retry_from = self.retry_from.min(place);
                self.retry_due = self.retry_due.min(place.0);
                self.latest_due = self.latest_due.max(place.0);
            }
        }
    }

    /// The earliest due time of a retry in memory that may be leased.
    pub(super) fn next_in_memory(&self) -> Option<u64> {
        let first = |map: &BTreeMap<Place, Held>| map.keys().map(|p| p.0).find(|due| *due > 0);
        [first(&self.returned), first(&self.upcoming)].into_iter().flatten().min()
    }

    /// Below these no entry of the queues is alive, whatever part of what is under way gets to disk: safe to start
    /// scans from after a crash.
    pub(super) fn floors(&self) -> (u64, u64) {
        let first = |from: Place, to: Place| {
            let leases = self.leases.range(from..to).next().map(|(place, _)| *place);
            let returned = self.returned.range(from..to).next().map(|(place, _)| *place);
            let upcoming = self.upcoming.range(from..to).next().map(|(place, _)| *place);
            [leases, returned, upcoming].into_iter().flatten().min()
        };
        let fresh = first((0, 0), (1, 0)).map_or(self.fresh_from, |place| place.1.min(self.fresh_from));
        let retry = first((1, 0), (u64::MAX, u64::MAX)).map_or(self.retry_from, |p| p.min(self.retry_from));
        (fresh, retry.0)
    }

    /// When the oldest delivery in memory was accepted.
    pub(super) fn oldest_in_memory(&self) -> Option<Timestamp> {
        let leased = self.leases.values().filter(|l| !matches!(l, Lease::Settling(_))).map(Lease::accepted);
        let held = self.returned.values().chain(self.upcoming.values()).map(|h| h.event.received_at);
        let window = self.window.front().map(|(_, h)| h.event.received_at);
        leased.chain(held).chain(window).min()
    }
}

#[cfg(test)]
impl State {
    pub(super) fn window_len(&self) -> usize {
        self.window.len()
    }
}
