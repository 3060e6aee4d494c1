//! Watches over commits: one that hangs is loud, and none hangs for ever.
//!
//! The engine holds a commit up while too much waits for its flushes and compactions. If those have failed meanwhile (a
//! volume without room), it would wait for them for ever, with all that goes in that commit. So it is waited for here,
//! before there is anything to hold up, where a failure is seen; and where the engine holds a commit up all the same, its
//! failure is asked for from beside, and closing does not wait for that commit.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::{AbstractTree, PersistMode};

use super::super::BufferError;
use super::Shared;
use super::admission::says_no_room;
use super::store::Store;
use super::waiting::Outcome;

/// Between two looks whether a volume without room has some again.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// Fewer than those at which the engine holds commits up (4 and 30): more come while a commit is written.
const SEALED: usize = 3;
const RUNS: usize = 26;
/// Between two looks whether it is fewer.
const LOOK: Duration = Duration::from_millis(5);
/// How long closing waits for a commit that hangs, where the disk may come back.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
/// The same where the engine has failed: it does not return.
const CLOSE_FAILED: Duration = Duration::from_secs(1);

/// Waits until the engine takes a commit without holding it up.
///
/// # Errors
///
/// The engine has failed.
pub(super) fn until_taken(store: &Store) -> fjall::Result<()> {
    for keyspace in [&store.index, &store.events] {
        while keyspace.tree.sealed_memtable_count() >= SEALED || keyspace.tree.l0_run_count() >= RUNS {
            store.db.persist(PersistMode::Buffer)?;
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

impl Shared {
    /// Until the buffer is closed: nothing new is taken while a commit hangs.
    pub(super) fn watch_over(self: &Arc<Self>) {
        let look = (self.stall_after / 4).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let mut looked = Instant::now();
        let mut asking: Option<JoinHandle<()>> = None;
        while !self.gate.is_closed() {
            std::thread::park_timeout(look);
            if self.gate.is_failed() && looked.elapsed() >= ROOM_EVERY {
                self.want.look(&self.marks());
                looked = Instant::now();
            }
            let stalled = self.watch.running().filter(|running| *running >= self.stall_after);
            if stalled.is_some()
                && !self.gate.is_failed()
                && asking.as_ref().is_none_or(JoinHandle::is_finished)
            {
                asking = self.ask_engine();
            }
            let why =
                stalled.map(|running| format!("a commit has been running for {} ms", running.as_millis()));
            if self.gate.set_stalled(why.clone()) {
                match why {
                    Some(why) => {
                        tracing::error!(%why, "the buffer's disk hangs: nothing new is taken until it returns");
                        self.metrics.buffer_trouble("stalled");
                    }
                    None => tracing::warn!("the commit that hung has returned"),
                }
            }
        }
    }

    /// Whether the engine has failed. It may take as long as the disk does, so it is asked from a thread of its own.
    fn ask_engine(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(self);
        let ask = move || {
            let Ok(store) = shared.store() else { return };
            if let Err(error) = store.db.persist(PersistMode::Buffer) {
                shared.engine_failed("the engine has failed, and the commit under way waits for it", &error);
            }
        };
        std::thread::Builder::new().name("tidegate-ask".into()).spawn(ask).ok()
    }

    /// Poisons the buffer for what the engine said.
    pub(super) fn engine_failed(&self, what: &str, error: &fjall::Error) {
        // What its own threads failed of the engine does not say.
        let no_room = says_no_room(error).unwrap_or_else(|| {
            let marks = self.marks();
            marks.free_bytes().is_ok_and(|free| free < marks.needs)
        });
        if no_room {
            self.want.failed();
            self.fail(&format!(
                "{what}: {error}: the volume has no room; the process ends when it has, to be started again"
            ));
        } else {
            self.fail(&format!("{what}: {error}"));
        }
    }

    /// The end of closing, unless a commit hangs that does not return.
    pub(super) async fn closed(&self, mut committer: Outcome<()>) -> Result<(), BufferError> {
        loop {
            if let Ok(closed) = tokio::time::timeout(LOOK * 20, &mut committer).await {
                return closed.ok_or(BufferError::Closed);
            }
            let patience = if self.gate.is_failed() { CLOSE_FAILED } else { CLOSE_PATIENCE };
            if self.watch.running().is_some_and(|running| running >= patience) {
                return Err(BufferError::Failed(
                    "a commit hangs and is not waited for: what was acknowledged is on disk".into(),
                ));
            }
        }
    }
}
