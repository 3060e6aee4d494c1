//! Gives space back when the buffer is full, or nearly so: flushes deletions and compacts, on a thread of its own.
//!
//! The engine frees space as new data comes in and pushes compactions. A full buffer takes nothing in, so what was
//! delivered and deleted would stay on disk and keep it full; here the same is done on purpose. And delivered events
//! that are only kept to be looked at give way before a new one is refused: as many as should be enough are deleted
//! (`retention.rs`), then they are compacted away, and only when the disk has said what that gave, more are deleted.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};

use super::super::BufferError;
use super::store::Store;
use super::{Shared, flush};

/// Between two runs: each reads and writes much.
const EVERY: Duration = Duration::from_secs(5);
/// Where no delivered event was left to be deleted, some may have come after this.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Tidy {
    /// Events deleted since the last run.
    deleted: u64,
    /// Bytes that delivered events are to give back, as of the last look at the disk.
    wanted: u64,
    /// Bytes of those that were deleted for it since the last run.
    given: u64,
    /// When there were no delivered events left to be deleted.
    spent: Option<Instant>,
    last: Option<Instant>,
    running: Option<JoinHandle<()>>,
}

impl Tidy {
    pub(super) const fn new() -> Self {
        // The process before may have left garbage behind.
        Self { deleted: 1, wanted: 0, given: 0, spent: None, last: None, running: None }
    }

    /// Takes note of events that were deleted: how many there would be without, and how many there are.
    pub(super) fn deleted(&mut self, without: u64, now: u64) {
        self.deleted += without.saturating_sub(now);
    }

    /// Takes note of what the disk says.
    pub(super) fn wants(&mut self, bytes: u64) {
        self.wanted = bytes;
    }

    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Bytes of delivered events that are to be deleted now.
    pub(super) fn owed(&self) -> u64 {
        // What a run gives back is not known before its end.
        let is_spent = self.spent.is_some_and(|spent| spent.elapsed() < AGAIN);
        if self.running.is_some() || is_spent { 0 } else { self.wanted.saturating_sub(self.given) }
    }

    /// Takes note of delivered events that were deleted to make room; `more`: there are others.
    pub(super) fn given(&mut self, bytes: u64, more: bool) {
        self.given += bytes;
        self.spent = (!more).then(Instant::now);
    }

    /// Whether a run has ended since this was last asked: then the disk has something new to say.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.running.take_if(|running| running.is_finished());
        ended.is_some_and(|run| {
            if run.join().is_err() {
                tracing::error!("freeing space failed");
            }
            true
        })
    }

    /// Starts a run if there is something to free and none runs.
    pub(super) fn start(&mut self, shared: &Arc<Shared>, store: &Arc<Store>) {
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if self.running.is_some() || !due {
            return;
        }
        let garbage = self.deleted > 0 || store.events.fragmented_blob_bytes() > 0;
        if !garbage {
            return;
        }
        (self.deleted, self.given) = (0, 0);
        self.last = Some(Instant::now());
        let (shared, store) = (Arc::clone(shared), Arc::clone(store));
        let started = std::thread::Builder::new().name("tidegate-tidy".into()).spawn(move || {
            match free(&store, &shared) {
                Ok(()) | Err(BufferError::Closed) => {}
                Err(error) => tracing::error!(%error, "freeing space failed"),
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

/// Compacts what was deleted away.
pub(super) fn free(store: &Store, shared: &Shared) -> Result<(), BufferError> {
    for keyspace in [&store.index, &store.events] {
        flush::flush(store, shared, keyspace)?;
        compact(store, shared, keyspace)?;
    }
    flush::forget(store, shared)?;
    // The first compaction finds out which blobs are garbage, the next one lets go of their files.
    if store.events.fragmented_blob_bytes() > 0 {
        compact(store, shared, &store.events)?;
        flush::forget(store, shared)?;
    }
    Ok(())
}

/// Tables are written anew beside the old ones: without room for that the engine goes on by itself, level by level.
fn compact(store: &Store, shared: &Shared, keyspace: &Keyspace) -> Result<(), BufferError> {
    let failed = |e: fjall::Error| store.failed(keyspace.name(), "compaction", e);
    let blobs = keyspace.tree.current_version().blob_files.on_disk_size();
    let free = shared.marks().free_bytes().map_err(|e| failed(e.into()))?;
    if keyspace.disk_space().saturating_sub(blobs) < free {
        keyspace.major_compact().map_err(failed)?;
    }
    Ok(())
}
