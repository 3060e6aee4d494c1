//! Work on its way to the committer: what waits, what is refused, and what goes together in a group.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::super::{AppendError, BufferError};
use super::apply::Op;

/// Operations and bytes of events that one group takes at most.
const GROUP_OPS: usize = 4096;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Appends and claims that may wait for the committer; beyond it they are refused.
const QUEUE: usize = 32 * 1024;
/// How long settlements and claims alone, for which nobody waits, are collected, and how many at most: one small commit
/// for many of them. Whatever somebody waits for takes them along.
const LAG: Duration = Duration::from_millis(25);
const LAG_OPS: usize = 512;

/// Work on its way to the committer.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    ops: VecDeque<Op>,
    /// Appends and claims among them: settlements are bounded by leases.
    bounded: usize,
    /// Those that somebody waits for.
    awaited: usize,
    /// When the queue last began to fill.
    since: Option<Instant>,
    state: Intake,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Intake {
    #[default]
    Open,
    Closing,
}

/// Why work is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Closing,
    Overloaded,
}

impl From<Refused> for BufferError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closing => BufferError::Closed,
            Refused::Overloaded => BufferError::Failed("too much is waiting for the disk".into()),
        }
    }
}

impl From<Refused> for AppendError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closing => AppendError::Unavailable("shutting down".into()),
            Refused::Overloaded => AppendError::Unavailable("too much is waiting for the disk".into()),
        }
    }
}

impl Op {
    const fn is_bounded(&self) -> bool {
        matches!(self, Op::Append(_) | Op::AppendBatch(_) | Op::Import(_) | Op::Claim { .. })
    }
    const fn is_awaited(&self) -> bool {
        match self {
            Op::Claim { .. } => false,
            Op::Settle(settle) => settle.urgent,
            _ => true,
        }
    }
    pub(super) fn bytes(&self) -> usize {
        match self {
            Op::Append(append) => append.encoded.len(),
            Op::Import(import) => import.encoded.len(),
            Op::AppendBatch(append) => append.bytes(),
            Op::Reseal(reseal) => reseal.bytes(),
            _ => 0,
        }
    }
}

impl Inbox {
    pub(super) fn push(&self, op: Op) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        if queue.state == Intake::Closing {
            return Err(Refused::Closing);
        }
        if op.is_bounded() {
            if queue.bounded >= QUEUE {
                return Err(Refused::Overloaded);
            }
            queue.bounded += 1;
        }
        if matches!(op, Op::Close(_)) {
            queue.state = Intake::Closing;
        }
        // What nobody waits for wakes the committer only to make it look at the clock, and when there is much of it.
        let first = queue.ops.is_empty();
        if first {
            queue.since = Some(Instant::now());
        }
        let awaited = op.is_awaited();
        queue.awaited += usize::from(awaited);
        queue.ops.push_back(op);
        let wakes = awaited || first || queue.ops.len() == LAG_OPS;
        drop(queue);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// A group's worth of work, in order; none if nothing came in time.
    pub(super) fn take(&self, patience: Duration) -> Vec<Op> {
        let until = Instant::now() + patience;
        let mut queue = self.queue.lock();
        while queue.awaited == 0 && queue.ops.len() < LAG_OPS {
            let lagging = queue.since.map_or(until, |since| until.min(since + LAG));
            if self.filled.wait_until(&mut queue, lagging).timed_out() {
                break;
            }
        }
        let mut group = Vec::with_capacity(queue.ops.len().min(GROUP_OPS));
        let mut bytes = 0;
        while group.len() < GROUP_OPS
            && bytes < GROUP_BYTES
            && let Some(op) = queue.ops.pop_front()
        {
            bytes += op.bytes();
            queue.bounded -= usize::from(op.is_bounded());
            queue.awaited -= usize::from(op.is_awaited());
            group.push(op);
        }
        if queue.ops.is_empty() {
            queue.since = None;
        }
        group
    }
}
