//! Destinations by name and by number. A number is given once and stays: it stands in the keys of the queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::super::DestinationName;
use super::lane::Lane;
use crate::telemetry::Metrics;

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) metrics: Arc<Metrics>,
    inner: RwLock<Inner>,
    /// Whether destinations were added to events while others of their deliveries were under way.
    widened: AtomicBool,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<DestinationName, Arc<Lane>>,
    by_id: HashMap<u32, Arc<Lane>>,
    next_id: u32,
    /// Given, but not on disk yet: the next commit writes them.
    unsaved: Vec<Arc<Lane>>,
}

impl Directory {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Takes a lane as read from disk.
    pub(super) fn restore(&self, lane: Lane) {
        let mut inner = self.inner.write();
        inner.next_id = inner.next_id.max(lane.id.saturating_add(1));
        let lane = Arc::new(lane);
        inner.by_id.insert(lane.id, Arc::clone(&lane));
        inner.by_name.insert(lane.name.clone(), lane);
    }

    /// The lane of a destination, new if it has none yet. Names come from the config, so there are few.
    pub(super) fn lane(&self, name: &DestinationName, next_seq: impl FnOnce() -> u64) -> Arc<Lane> {
        if let Some(lane) = self.find(&name.0) {
            return lane;
        }
        let mut inner = self.inner.write();
        if let Some(lane) = inner.by_name.get(name) {
            return Arc::clone(lane);
        }
        let lane = Arc::new(Lane::new(inner.next_id, name.clone(), next_seq()));
        inner.next_id += 1;
        inner.by_id.insert(lane.id, Arc::clone(&lane));
        inner.by_name.insert(name.clone(), Arc::clone(&lane));
        inner.unsaved.push(Arc::clone(&lane));
        lane
    }

    pub(super) fn find(&self, name: &Arc<str>) -> Option<Arc<Lane>> {
        self.inner.read().by_name.get(&DestinationName(Arc::clone(name))).cloned()
    }
    pub(super) fn by_id(&self, id: u32) -> Option<Arc<Lane>> {
        self.inner.read().by_id.get(&id).cloned()
    }
    pub(super) fn all(&self) -> Vec<Arc<Lane>> {
        let mut all: Vec<_> = self.inner.read().by_id.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
    pub(super) fn widen(&self) {
        self.widened.store(true, Ordering::Relaxed);
    }
    pub(super) fn is_widened(&self) -> bool {
        self.widened.load(Ordering::Relaxed)
    }
    pub(super) fn take_unsaved(&self) -> Vec<Arc<Lane>> {
        // Mostly there are none: the read lock keeps commits from holding appenders up.
        if self.inner.read().unsaved.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.inner.write().unsaved)
    }
}
