//! What all parts of an open buffer share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::super::{Beside, BufferError, ClaimKey, Claimed, DestinationName, Event};
use super::admission::{Gate, Marks, Space, Want, Watch};
use super::directory::Directory;
use super::filter::Filter;
use super::inbox::Inbox;
use super::lane::{Lane, Target};
use super::panic_text;
use super::retention::Keep;
use super::sealing::{Passes, Seals};
use super::store::Store;
use crate::clock::Clock;
use crate::seal::LiveKeyring;
use crate::telemetry::Metrics;

/// What all parts of an open buffer share.
pub(super) struct Shared {
    /// Taken out on close.
    pub(super) store: RwLock<Option<Arc<Store>>>,
    pub(super) inbox: Inbox,
    pub(super) gate: Gate,
    pub(super) watch: Watch,
    pub(super) want: Want,
    /// A reload may move them.
    pub(super) marks: RwLock<Arc<Marks>>,
    /// Counts against the marks, and gives way.
    pub(super) beside: Option<Arc<dyn Beside>>,
    pub(super) keep: Keep,
    pub(super) stall_after: Duration,
    pub(super) directory: Directory,
    /// Claims without an event on their way to disk.
    pub(super) claims: Mutex<HashMap<ClaimKey, Claimed>>,
    /// How often answers that claims kept were forgotten.
    pub(super) forgotten: AtomicU64,
    /// Which claims may stand.
    pub(super) filter: Arc<Filter>,
    pub(super) keys: LiveKeyring,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Published by the committer.
    pub(super) events: AtomicU64,
    pub(super) next_seq: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) free_bytes: AtomicU64,
    /// As of the last step of sealing anew.
    pub(super) seals: Mutex<Seals>,
    pub(super) passes: tokio::sync::Mutex<Passes>,
    /// Held by a scrub.
    pub(super) scrubbing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn store(&self) -> Result<Arc<Store>, BufferError> {
        self.store.read().clone().ok_or(BufferError::Closed)
    }

    /// Runs a read that may block on the disk where it holds nobody up.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Store, &Shared) -> Result<T, BufferError> + Send + 'static,
    ) -> Result<T, BufferError> {
        let shared = Arc::clone(self);
        let store = shared.store()?;
        let outcome = tokio::task::spawn_blocking(move || read(&store, &shared)).await;
        match outcome {
            Ok(outcome) => outcome,
            // The engine panics on some damage; that is the caller's to hear, not to die of.
            Err(error) if error.is_panic() => {
                Err(BufferError::Damaged(format!("the engine gave up: {}", panic_text(&*error.into_panic()))))
            }
            Err(_) => Err(BufferError::Closed),
        }
    }

    /// Poisons the buffer.
    pub(super) fn fail(&self, why: &str) {
        if self.gate.fail(why) {
            tracing::error!(%why, "the buffer has failed and takes no new events until a restart; what was acknowledged is kept");
            self.metrics.buffer_trouble("write_failed");
        }
    }

    pub(super) fn marks(&self) -> Arc<Marks> {
        Arc::clone(&self.marks.read())
    }

    pub(super) fn set_marks(&self, marks: Marks) {
        *self.marks.write() = Arc::new(marks);
    }

    pub(super) fn publish(&self, space: Space) {
        self.used_bytes.store(space.used, Ordering::Relaxed);
        self.free_bytes.store(space.free, Ordering::Relaxed);
    }

    /// The lane of a destination, if anything is known of it.
    pub(super) fn known_lane(&self, name: &DestinationName) -> Option<Arc<Lane>> {
        self.directory.find(&name.0)
    }

    pub(super) fn lane(&self, name: &DestinationName) -> Arc<Lane> {
        self.directory.lane(name, || self.next_seq.load(Ordering::Acquire))
    }

    /// Those of several destinations, each once.
    pub(super) fn lanes(&self, destinations: &[DestinationName]) -> Vec<Arc<Lane>> {
        let mut lanes: Vec<Arc<Lane>> = Vec::with_capacity(destinations.len());
        for name in destinations {
            let lane = self.lane(name);
            if !lanes.iter().any(|known| known.id == lane.id) {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// Where an event's deliveries go.
    pub(super) fn targets(&self, lanes: &[Arc<Lane>], event: &Event) -> Vec<Target> {
        let target =
            |lane: &Arc<Lane>| Target { lane: Arc::clone(lane), key: lane.key_of(event, &self.metrics) };
        lanes.iter().map(target).collect()
    }

    /// Fills the filter of claims with those of earlier processes.
    pub(super) fn know_claims(&self) {
        let Ok(store) = self.store() else { return };
        if let Err(error) = store.know_claims(self.clock.now().0, || self.gate.is_closed()) {
            tracing::error!(%error, "not all claims could be read; each is looked up on disk");
        }
    }
}
