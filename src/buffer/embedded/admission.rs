//! Whether new events are taken: the one poison flag, the high-water marks, and the watch over a commit that hangs.
//!
//! Carries promise 5 for the disk: new events are refused early enough that settling, compaction and deletion still
//! have room. Full opens by itself; failed stays until a restart, because after a failed sync nobody knows what the
//! kernel still holds, and to try again would be to guess. If it failed because the volume had no room left, it is said
//! when there is room again, and a restart will do ([`Want`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::{Admission, AppendError, Beside, BufferError, Pressure};
use super::store::Store;
use crate::config::BufferSettings;

const FULL: u8 = 1;
const STALLED: u8 = 2;
const FAILED: u8 = 4;
const CLOSED: u8 = 8;

/// Read by every append, changed rarely. The strongest of its flags is what callers see.
#[derive(Debug, Default)]
pub(super) struct Gate {
    flags: AtomicU8,
    full: Mutex<String>,
    stalled: Mutex<String>,
    failed: Mutex<String>,
}

impl Gate {
    pub(super) fn admission(&self) -> Admission {
        let flags = self.flags.load(Ordering::Acquire);
        if flags == 0 {
            Admission::Open
        } else if flags & CLOSED != 0 {
            Admission::Closed
        } else if flags & FAILED != 0 {
            Admission::Failed(self.failed.lock().clone())
        } else if flags & STALLED != 0 {
            Admission::Failed(self.stalled.lock().clone())
        } else {
            Admission::Full(self.full.lock().clone())
        }
    }

    /// Whether an append may go on.
    pub(super) fn admit(&self) -> Result<(), AppendError> {
        match self.admission() {
            Admission::Open => Ok(()),
            Admission::Full(why) => Err(AppendError::Full(why)),
            Admission::Failed(why) => Err(AppendError::Unavailable(why)),
            Admission::Closed => Err(AppendError::Unavailable("shutting down".into())),
        }
    }

    /// Whether anything but an append may go on: a full buffer still delivers.
    pub(super) fn usable(&self) -> Result<(), BufferError> {
        let flags = self.flags.load(Ordering::Acquire);
        if flags & CLOSED != 0 {
            Err(BufferError::Closed)
        } else if flags & FAILED != 0 {
            Err(BufferError::Failed(self.failed.lock().clone()))
        } else {
            Ok(())
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FULL != 0
    }
    pub(super) fn is_failed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & FAILED != 0
    }
    pub(super) fn is_closed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CLOSED != 0
    }
    pub(super) fn failure(&self) -> String {
        self.failed.lock().clone()
    }

    /// Poisons the store for good; the first reason stays. Returns whether this was the first.
    pub(super) fn fail(&self, why: &str) -> bool {
        let mut failed = self.failed.lock();
        if self.is_failed() {
            return false;
        }
        why.clone_into(&mut failed);
        self.flags.fetch_or(FAILED, Ordering::AcqRel);
        true
    }
    pub(super) fn close(&self) {
        self.flags.fetch_or(CLOSED, Ordering::AcqRel);
    }
    fn set(&self, flag: u8, text: &Mutex<String>, why: Option<String>) -> bool {
        match why {
            Some(why) => {
                *text.lock() = why;
                self.flags.fetch_or(flag, Ordering::AcqRel) & flag == 0
            }
            None => self.flags.fetch_and(!flag, Ordering::AcqRel) & flag != 0,
        }
    }
    /// Returns whether this changed anything.
    pub(super) fn set_full(&self, why: Option<String>) -> bool {
        self.set(FULL, &self.full, why)
    }
    /// Returns whether this changed anything.
    pub(super) fn set_stalled(&self, why: Option<String>) -> bool {
        self.set(STALLED, &self.stalled, why)
    }
}

/// What the disk said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes that the store takes: tables, blobs (garbage included) and journals.
    pub(super) used: u64,
    /// The same without the journal that is being written (it gives nothing back before it is full, so to count it
    /// would keep a small buffer full for ever), but with what is only in memory and that journal so far.
    pub(super) held: u64,
    /// Bytes free on the volume.
    pub(super) free: u64,
}

impl Space {
    pub(super) fn measure(
        store: &Store,
        beside: Option<&dyn Beside>,
        marks: &Marks,
    ) -> std::io::Result<Self> {
        let (used, held) = store.used_bytes()?;
        let beside = beside.map_or(0, Beside::bytes);
        Ok(Self { used: used + beside, held: held + beside, free: marks.free_bytes()? })
    }
}

/// Where new events are refused, and where they are taken again.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    path: PathBuf,
    pub(super) max: u64,
    /// What the store may hold beside the journal that is being written.
    limit: u64,
    pub(super) min_free: u64,
    /// Free bytes that the engine may take for what was accepted already.
    pub(super) needs: u64,
}

/// What a journal grows to, in bytes. From a limit of some size on it has its place within the limit; below that it
/// comes on top.
const JOURNAL: u64 = 64 << 20;
const JOURNAL_WITHIN: u64 = 1 << 30;

/// Free bytes beyond `min_free` that a full buffer asks for at most: not a share of a large reserve that the volume may
/// never have again.
const MOST_TO_OPEN: u64 = 64 << 20;

/// Bytes that are written to see whether there is room again.
const PROBE: usize = 1 << 20;

impl Marks {
    pub(super) fn new(settings: &BufferSettings) -> Self {
        let max = settings.max_size;
        let limit = if max >= JOURNAL_WITHIN { max - JOURNAL } else { max };
        let (min_free, needs) = (settings.min_free, settings.needs_free());
        Self { path: settings.path.clone(), max, limit, min_free, needs }
    }

    /// Events are refused from here on; the rest of `max_size` is left to settling, compaction and deletion.
    const fn high(&self) -> u64 {
        self.limit - self.limit / 16
    }
    /// A full buffer takes events again below this, so that it does not flap.
    const fn low(&self) -> u64 {
        self.limit - self.limit / 8
    }
    fn min_free_to_open(&self) -> u64 {
        self.min_free.saturating_add(self.margin())
    }

    const fn margin(&self) -> u64 {
        let share = self.min_free / 8;
        if share < MOST_TO_OPEN { share } else { MOST_TO_OPEN }
    }

    /// Bytes that events which are delivered and only kept should give back, so that no new one need be refused. They
    /// begin to give way a little before the marks, and give a little more than that.
    pub(super) fn wanted(&self, space: Space) -> u64 {
        let of_free = |margins| self.min_free.saturating_add(margins * self.margin());
        if space.held < self.low() && space.free >= of_free(2) {
            return 0;
        }
        let size = space.held.saturating_sub(self.limit - self.limit / 16 * 3);
        size.max(of_free(3).saturating_sub(space.free))
    }

    /// Why the buffer is full, if it is. A little more is asked of a full one to open than of an open one to stay so.
    pub(super) fn judge(&self, space: Space, already_full: bool) -> Option<String> {
        let (mark, free) =
            if already_full { (self.low(), self.min_free_to_open()) } else { (self.high(), self.min_free) };
        let path = self.path.display();
        if space.held >= mark {
            Some(format!("{path} takes {} of {} bytes (buffer.max_size)", space.used, self.max))
        } else if space.free < free {
            Some(format!(
                "the volume of {path} has {} bytes free, fewer than {} (buffer.min_free)",
                space.free, self.min_free
            ))
        } else {
            None
        }
    }

    /// Bytes by which the buffer is beyond its marks, or would be after one more group of `coming` bytes. What stands
    /// beside it gives way before an event is refused.
    pub(super) fn excess(&self, space: Space, coming: u64, already_full: bool) -> u64 {
        let (mark, free) =
            if already_full { (self.low(), self.min_free_to_open()) } else { (self.high(), self.min_free) };
        let size = (space.held + coming + 1).saturating_sub(mark);
        size.max(free.saturating_sub(space.free.saturating_sub(2 * coming)))
    }

    /// Bytes that may be appended after `space` was measured until it must be measured again. On the volume an append
    /// is written twice, to the journal and later to a table or blob.
    pub(super) fn headroom(&self, space: Space) -> u64 {
        let size = self.high().saturating_sub(space.held);
        let free = space.free.saturating_sub(self.min_free);
        size.min(free / 2)
    }

    /// Writes a file as large as a large event, and removes it.
    fn can_write(&self) -> bool {
        let path = self.path.join("tidegate.probe");
        let written =
            std::fs::write(&path, vec![0; PROBE]).and_then(|()| std::fs::File::open(&path)?.sync_all());
        // Also what was written in part; if nothing was, there is nothing to remove.
        let _ = std::fs::remove_file(&path);
        written.is_ok()
    }

    pub(super) fn free_bytes(&self) -> std::io::Result<u64> {
        let volume = rustix::fs::statvfs(&self.path)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

/// A store that failed for want of room.
#[derive(Debug, Default)]
pub(super) struct Want {
    failed: AtomicBool,
    is_over: AtomicBool,
}

impl Want {
    pub(super) fn failed(&self) {
        self.failed.store(true, Ordering::Release);
    }
    /// Whether a restart would find room again.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
    /// Looks whether it is over, which it then stays: by writing, because quotas and the like don't show otherwise.
    pub(super) fn look(&self, marks: &Marks) {
        if !self.failed.load(Ordering::Acquire) || self.is_over() {
            return;
        }
        let has_room = marks.free_bytes().is_ok_and(|free| free >= marks.needs) && marks.can_write();
        self.is_over.store(has_room, Ordering::Release);
    }
}

/// Whether an error says that there is no room; `None` if it says nothing of what was wrong.
pub(super) fn says_no_room(error: &fjall::Error) -> Option<bool> {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => {
            Some(matches!(e.kind(), StorageFull | QuotaExceeded))
        }
        fjall::Error::Poisoned => None,
        _ => Some(false),
    }
}

/// Since when the commit under way runs; watched from another thread.
#[derive(Debug)]
pub(super) struct Watch {
    origin: Instant,
    /// Milliseconds after `origin` plus one; 0 while no commit runs.
    started: AtomicU64,
}

impl Default for Watch {
    fn default() -> Self {
        Self { origin: Instant::now(), started: AtomicU64::new(0) }
    }
}

impl Watch {
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
    pub(super) fn start(&self) {
        self.started.store(self.now() + 1, Ordering::Release);
    }
    pub(super) fn end(&self) {
        self.started.store(0, Ordering::Release);
    }
    /// A tenth of what is a stall is some pressure, and a quarter much.
    pub(super) fn pressure(&self, stall_after: Duration) -> Pressure {
        match self.running() {
            Some(running) if running >= stall_after / 4 => Pressure::Much,
            Some(running) if running >= stall_after / 10 => Pressure::Some,
            _ => Pressure::None,
        }
    }
    /// How long the commit under way has been running.
    pub(super) fn running(&self) -> Option<Duration> {
        let started = self.started.load(Ordering::Acquire);
        (started > 0).then(|| Duration::from_millis((self.now() + 1).saturating_sub(started)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks { path: "/data".into(), max: 1600, limit: 1600, min_free: 80, needs: 0 }
    }

    #[test]
    fn full_comes_before_the_limit_and_goes_only_well_below_it() {
        let at = |held| Space { used: held, held, free: 1 << 40 };
        assert_eq!(marks().judge(at(1499), false), None);
        assert!(marks().judge(at(1500), false).unwrap().contains("buffer.max_size"));
        assert!(marks().judge(at(1400), true).is_some());
        assert_eq!(marks().judge(at(1399), true), None);
    }

    #[test]
    fn a_filling_volume_is_full_too() {
        let at = |free| Space { free, ..Space::default() };
        assert!(marks().judge(at(79), false).unwrap().contains("buffer.min_free"));
        assert_eq!(marks().judge(at(80), false), None);
        assert!(marks().judge(at(89), true).is_some());
        assert_eq!(marks().judge(at(90), true), None);
        let large = Marks { min_free: 100 << 30, ..marks() };
        assert_eq!(large.judge(at((100 << 30) + MOST_TO_OPEN), true), None);
    }

    #[test]
    fn what_is_delivered_gives_way_before_the_marks_and_until_there_is_room_to_open() {
        let at = |held, free| marks().wanted(Space { used: held, held, free });
        assert_eq!(at(1399, 100), 0);
        assert_eq!(at(1400, 100), 100);
        assert_eq!(at(0, 99), 11);
        assert_eq!(at(1500, 10), 200);
        for (held, free) in [(1400, 1 << 40), (1600, 1 << 40), (0, 0), (0, 99)] {
            let wanted = at(held, free);
            let (held, free) = (held.saturating_sub(wanted), free + wanted);
            assert_eq!(marks().judge(Space { used: held, held, free }, true), None);
        }
    }

    #[test]
    fn the_strongest_reason_is_shown_and_the_first_failure_stays() {
        let gate = Gate::default();
        assert!(gate.set_full(Some("full".into())));
        assert!(!gate.set_full(Some("fuller".into())));
        assert_eq!(gate.admission(), Admission::Full("fuller".into()));
        assert!(gate.usable().is_ok());
        gate.set_stalled(Some("slow".into()));
        assert_eq!(gate.admission(), Admission::Failed("slow".into()));
        assert!(gate.set_stalled(None) && gate.set_full(None));
        assert_eq!(gate.admission(), Admission::Open);
        assert!(gate.fail("EIO") && !gate.fail("later"));
        assert_eq!(gate.admission(), Admission::Failed("EIO".into()));
        gate.close();
        assert_eq!(gate.admission(), Admission::Closed);
    }
}
