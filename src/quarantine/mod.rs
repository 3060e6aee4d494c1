//! Quarantine: an optional, bounded store of requests that verification refused, with the reason.
//!
//! One file an item, in a folder of its own within the buffer's (`store.rs`, `item.rs`): what goes gives its space back at
//! once, and nothing that happens here can harm the events. Whoever refuses a request calls [`Quarantine::offer`], which
//! never waits and never touches the disk; one thread writes. Looking, verifying again and admitting are asked for by
//! operators only. Carries promise 5 where anyone may write: a rate a route, a bound for what waits to be written, a
//! number, a size, an age, and in all of it a share for each address of a sender, so that a flood neither keeps others
//! out nor pushes them out; all of it goes before a single event is refused.

mod item;
mod rate;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::buffer::{Beside, EventId};
use crate::clock::{Clock, Timestamp};
use crate::config::{KeepRefused, QuarantineSettings, Route};
use crate::endpoints::Endpoint;
use crate::message::Request;
use crate::seal::Keyring;
use crate::telemetry::Metrics;
use crate::verify::Refusal;

pub use item::{Item, Summary};
pub use store::Filter;

use rate::Rates;
use store::Store;

/// Requests and bytes of them that may wait to be written; beyond it they are not kept.
const QUEUE: usize = 1024;
const QUEUE_BYTES: u64 = 16 * 1024 * 1024;
/// How often what is past its time is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long nothing is taken after the buffer has asked for room.
const GIVEN_WAY: Duration = Duration::from_secs(10);

/// See the module. Shared by all threads; lives as long as the process.
#[derive(Debug)]
pub struct Quarantine {
    shared: Arc<Shared>,
    to_writer: SyncSender<Waiting>,
    /// Until the writer is started.
    for_writer: Mutex<Option<Receiver<Waiting>>>,
}

/// An item on its way to disk.
#[derive(Debug)]
struct Waiting {
    item: Item,
    /// About what it holds in memory, in bytes.
    weight: u64,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// `None`: off. What is there stays until its time is over.
    settings: ArcSwapOption<QuarantineSettings>,
    rates: Rates,
    /// Bytes that wait to be written.
    waiting: AtomicU64,
    /// Nothing is taken before this time (milliseconds since the epoch).
    closed_until: AtomicU64,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// Some of what is in quarantine, newest first.
#[derive(Clone, Debug)]
pub struct Listed {
    pub items: Vec<Summary>,
    /// Pass as `after` to get the next page; `None` at the end.
    pub next: Option<EventId>,
}

impl Quarantine {
    /// Touches nothing on disk before [`open`](Self::open).
    pub fn new(buffer: &Path, keys: Keyring, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let (to_writer, for_writer) = sync_channel(QUEUE);
        Self {
            shared: Arc::new(Shared {
                store: Store::new(buffer.join("quarantine"), keys),
                settings: ArcSwapOption::empty(),
                rates: Rates::default(),
                waiting: AtomicU64::new(0),
                closed_until: AtomicU64::new(0),
                metrics,
                clock,
            }),
            to_writer,
            for_writer: Mutex::new(Some(for_writer)),
        }
    }

    /// Finds what an earlier process has left, and starts to write. To be called by the one process that has the
    /// buffer. Trouble is logged: a quarantine that can't be used is no reason not to run.
    pub fn open(&self) {
        if let Err(error) = self.shared.store.load() {
            tracing::error!(%error, "what is in quarantine can't be read");
        }
        self.shared.count();
        let Some(items) = self.for_writer.lock().take() else { return };
        let shared = self.shared.clone();
        let writer = std::thread::Builder::new().name("tidegate-quarantine".into());
        if let Err(error) = writer.spawn(move || shared.write(&items)) {
            tracing::error!(%error, "the quarantine's thread can't be started: nothing is kept");
        }
    }

    /// Takes the settings of the config that runs now.
    pub fn apply(&self, settings: Option<QuarantineSettings>) {
        self.shared.rates.forget();
        self.shared.settings.store(settings.map(Arc::new));
    }

    /// Keeps a request that `route` has refused, if it may be kept; `endpoint` is the client's URL that was used. Cheap where quarantine is off; never waits.
    pub fn offer(&self, route: &Route, request: &Request, endpoint: Option<&Endpoint>, refusal: &Refusal) {
        let shared = &*self.shared;
        let settings = shared.settings.load();
        let Some(settings) = &*settings else { return };
        // Only what proves nobody: not what a retry mends (503).
        if route.quarantine == KeepRefused::Never || refusal.reason.status() != 401 {
            return;
        }
        let now = shared.clock.now();
        let not_kept = |why| shared.metrics.quarantined(why);
        if !shared.rates.take(&route.name, request.head.client, settings, now) {
            return not_kept("rate");
        }
        if now.as_millis() < shared.closed_until.load(Ordering::Relaxed) {
            return not_kept("no_room");
        }
        let weight = Item::weight(request);
        let before = shared.waiting.fetch_add(weight, Ordering::Relaxed);
        let item = Item::new(&route.name, request, endpoint, refusal, settings.keep);
        if before.saturating_add(weight) > QUEUE_BYTES
            || self.to_writer.try_send(Waiting { item, weight }).is_err()
        {
            shared.waiting.fetch_sub(weight, Ordering::Relaxed);
            not_kept("busy");
        }
    }

    /// Whether, and within which bounds, requests are kept now.
    pub fn settings(&self) -> Option<QuarantineSettings> {
        self.shared.settings.load().as_deref().cloned()
    }

    /// How many items there are, and their bytes on disk.
    pub fn holds(&self) -> (usize, u64) {
        self.shared.store.holds()
    }

    /// A page, newest first, from behind `after` on. No disk is touched.
    pub fn list(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> Listed {
        let (items, next) = self.shared.store.list(filter, after, limit);
        Listed { items, next }
    }

    /// One item; `None` if there is none with this id. Reads a file: not for a thread that serves.
    ///
    /// # Errors
    ///
    /// Those of the disk, and damage.
    pub fn get(&self, id: EventId) -> std::io::Result<Option<Item>> {
        self.shared.store.get(id)
    }

    /// Deletes an item for good. Returns whether it was there.
    pub fn remove(&self, id: EventId) -> bool {
        let removed = self.shared.store.remove(id);
        self.shared.count();
        removed
    }
}

impl Beside for Quarantine {
    fn rekey(&self, keys: &Keyring) {
        self.shared.store.keys.set(keys.clone());
    }
    fn reseal(&self) -> std::io::Result<()> {
        self.shared.store.reseal()
    }
    fn bytes(&self) -> u64 {
        self.shared.store.holds().1
    }
    fn give_way(&self, bytes: u64) {
        let until = self.shared.clock.now().saturating_add(GIVEN_WAY);
        self.shared.closed_until.store(until.as_millis(), Ordering::Relaxed);
        let gone = self.shared.store.shrink_by(bytes);
        self.shared.count();
        if gone > 0 {
            tracing::warn!(items = gone, "the buffer needs room: the oldest in quarantine are gone");
        }
    }
}

impl Shared {
    /// Writes what comes until nobody can send any more.
    fn write(&self, items: &Receiver<Waiting>) {
        loop {
            match items.recv_timeout(SWEEP_EVERY) {
                Ok(Waiting { item, weight }) => {
                    self.keep(&item);
                    self.waiting.fetch_sub(weight, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.sweep(self.clock.now());
        }
    }

    fn keep(&self, item: &Item) {
        let settings = self.settings.load();
        // Turned off meanwhile.
        let Some(settings) = &*settings else { return };
        match self.store.put(item, settings) {
            Ok(true) => self.metrics.quarantined("kept"),
            Ok(false) => self.metrics.quarantined("no_room"),
            Err(error) => {
                self.metrics.quarantined("failed");
                tracing::warn!(%error, "a refused request could not be put into quarantine");
            }
        }
        self.count();
    }

    fn sweep(&self, now: Timestamp) {
        let settings = self.settings.load();
        // A shorter `keep` counts at once, for what is there, too.
        let keep = settings.as_ref().map(|settings| settings.keep);
        if self.store.sweep(now, keep) > 0 {
            self.count();
        }
    }

    fn count(&self) {
        let (items, bytes) = self.store.holds();
        self.metrics.quarantine_holds(items, bytes);
    }
}

#[cfg(test)]
mod tests;
