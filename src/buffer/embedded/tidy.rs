//! Gives space back when the buffer is full: flushes deletions and compacts, on a thread of its own.
//!
//! The engine frees space as new data comes in and pushes compactions. A full buffer takes nothing in, so what was
//! delivered and deleted would stay on disk and keep it full; here the same is done on purpose.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::store::Store;

/// Between two runs: each reads and writes much.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Tidy {
    /// Events deleted since the last run.
    deleted: u64,
    last: Option<Instant>,
    running: Option<JoinHandle<()>>,
}

impl Tidy {
    pub(super) const fn new() -> Self {
        // The process before may have left garbage behind.
        Self { deleted: 1, last: None, running: None }
    }

    /// Takes note of events that were deleted: how many there would be without, and how many there are.
    pub(super) fn deleted(&mut self, without: u64, now: u64) {
        self.deleted += without.saturating_sub(now);
    }

    /// Starts a run if there is something to free and none runs.
    pub(super) fn start(&mut self, store: &Arc<Store>) {
        let idle = self.running.as_ref().is_none_or(JoinHandle::is_finished);
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        let garbage = self.deleted > 0 || store.events.fragmented_blob_bytes() > 0;
        if !garbage || !idle || !due {
            return;
        }
        self.deleted = 0;
        self.last = Some(Instant::now());
        let store = Arc::clone(store);
        let started = std::thread::Builder::new().name("tidegate-tidy".into()).spawn(move || {
            if let Err(error) = free(&store) {
                tracing::error!(%error, "freeing space failed");
            }
        });
        match started {
            Ok(handle) => self.running = Some(handle),
            Err(error) => tracing::error!(%error, "freeing space could not start"),
        }
    }

    pub(super) fn join(self) {
        if let Some(running) = self.running
            && running.join().is_err()
        {
            tracing::error!("freeing space failed");
        }
    }
}

pub(super) fn free(store: &Store) -> fjall::Result<()> {
    for keyspace in [&store.index, &store.events] {
        keyspace.rotate_memtable_and_wait()?;
        keyspace.major_compact()?;
    }
    // The first compaction finds out which blobs are garbage, the next one lets go of their files.
    if store.events.fragmented_blob_bytes() > 0 {
        store.events.major_compact()?;
    }
    Ok(())
}
