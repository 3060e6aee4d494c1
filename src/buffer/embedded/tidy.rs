//! Gives space back when the buffer is full, or nearly so: flushes deletions and compacts, on a thread of its own.
//!
//! The engine frees space as new data comes in and pushes compactions. A full buffer takes nothing in, so what was
//! delivered and deleted would stay on disk and keep it full; here the same is done on purpose. And delivered events
//! that are only kept to be looked at give way before a new one is refused: as many as should be enough are deleted
//! (`retention.rs`), then they are compacted away, and only when the disk has said what that gave, more are deleted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace, PersistMode};

use super::apply::Op;
use super::store::Store;
use super::{Shared, waiting};

/// Between two runs: each reads and writes much.
const EVERY: Duration = Duration::from_secs(5);
/// Where no delivered event was left to be deleted, some may have come after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks at what the engine or the committer is asked for.
const LOOK: Duration = Duration::from_millis(5);

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
            if let Err(error) = free(&store, &shared) {
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

/// Compacts what was deleted away.
pub(super) fn free(store: &Store, shared: &Shared) -> fjall::Result<()> {
    for keyspace in [&store.index, &store.events] {
        flush(store, keyspace)?;
        compact(shared, keyspace)?;
    }
    forget(store, shared)?;
    // The first compaction finds out which blobs are garbage, the next one lets go of their files.
    if store.events.fragmented_blob_bytes() > 0 {
        compact(shared, &store.events)?;
        forget(store, shared)?;
    }
    Ok(())
}

/// Has what is in memory written to tables. Unlike the engine's own waiting this ends if its workers have.
fn flush(store: &Store, keyspace: &Keyspace) -> fjall::Result<()> {
    keyspace.rotate_memtable()?;
    while keyspace.tree.sealed_memtable_count() > 0 {
        store.db.persist(PersistMode::Buffer)?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Tables are written anew beside the old ones: without room for that the engine goes on by itself, level by level.
fn compact(shared: &Shared, keyspace: &Keyspace) -> fjall::Result<()> {
    let blobs = keyspace.tree.current_version().blob_files.on_disk_size();
    if keyspace.disk_space().saturating_sub(blobs) < shared.marks().free_bytes()? {
        keyspace.major_compact()?;
    }
    Ok(())
}

/// The engine keeps files that were replaced until something was written since, and then looks after them when it sets
/// memory that holds something aside.
fn forget(store: &Store, shared: &Shared) -> fjall::Result<()> {
    let (done, mut written) = waiting::pair();
    if shared.inbox.push(Op::Fill(0, done)).is_err() {
        return Ok(());
    }
    let mut context = Context::from_waker(Waker::noop());
    while Pin::new(&mut written).poll(&mut context).is_pending() {
        std::thread::sleep(LOOK);
    }
    flush(store, &store.index)
}
