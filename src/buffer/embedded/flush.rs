//! What the engine must be asked for before something that was deleted is gone: flushing what is in memory, and forgetting the
//! versions that stand for earlier readers. Blocks; for whoever gives space back (`tidy.rs`) or lets nothing remain (`scrub.rs`).

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace, PersistMode};

use super::super::BufferError;
use super::apply::Op;
use super::store::Store;
use super::{Shared, waiting};

/// How long the engine, or a reader, may take to let go of something.
const GONE: Duration = Duration::from_secs(60);
/// Between two looks at what the engine or the committer is asked for.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// The end of waiting for the engine.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn new() -> Self {
        Self(Instant::now() + GONE)
    }

    /// An error if the buffer closes, the engine has failed, or nothing came of it for too long.
    pub(super) fn is_left(
        &self,
        store: &Store,
        shared: &Shared,
        or: impl FnOnce() -> String,
    ) -> Result<(), BufferError> {
        if shared.gate.is_closed() {
            return Err(BufferError::Closed);
        }
        store.db.persist(PersistMode::Buffer).map_err(|e| store.failed("store", "flush", e))?;
        if Instant::now() > self.0 {
            return Err(BufferError::Damaged(or()));
        }
        Ok(())
    }
}

/// Has what is in memory written to tables.
pub(super) fn flush(store: &Store, shared: &Shared, keyspace: &Keyspace) -> Result<(), BufferError> {
    let patience = Patience::new();
    keyspace.rotate_memtable().map_err(|e| store.failed(keyspace.name(), "flush", e))?;
    while keyspace.tree.sealed_memtable_count() > 0 {
        patience.is_left(store, shared, || "the engine does not flush".into())?;
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until the engine keeps nothing for readers of before: what was deleted or replaced by now is garbage to the next
/// compaction, and files that stand in no table's place any more are gone.
pub(super) fn forget(store: &Store, shared: &Shared) -> Result<(), BufferError> {
    let patience = Patience::new();
    let keyspaces = [&store.index, &store.events];
    for keyspace in keyspaces {
        flush(store, shared, keyspace)?;
    }
    let newest = keyspaces.map(|keyspace| keyspace.tree.current_version().id());
    loop {
        // The engine looks after its versions, of all keyspaces, when it sets memory that holds something aside.
        fill(shared, 0)?;
        flush(store, shared, &store.index)?;
        if keyspaces.map(oldest).iter().zip(newest).all(|(oldest, newest)| *oldest >= newest) {
            return Ok(());
        }
        patience.is_left(store, shared, || "a reader holds on to what was deleted: try again".into())?;
        std::thread::sleep(LOOK);
    }
}

/// The oldest version that the engine keeps of a keyspace; each has the number after that of the one before.
fn oldest(keyspace: &Keyspace) -> u64 {
    // In this order: a version that comes between the two makes it look older than it is.
    let newest = keyspace.tree.current_version().id();
    newest.saturating_sub(keyspace.tree.get_version_history_lock().free_list_len() as u64)
}

/// Has so many bytes of nothing written in place of the last ones.
pub(super) fn fill(shared: &Shared, bytes: usize) -> Result<(), BufferError> {
    let (done, mut written) = waiting::pair();
    shared.inbox.push(Op::Fill(bytes, done))?;
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut written).poll(&mut context) {
            std::task::Poll::Ready(outcome) => {
                return outcome.unwrap_or_else(|| Err(BufferError::Failed(shared.gate.failure())));
            }
            std::task::Poll::Pending => std::thread::sleep(LOOK),
        }
    }
}
