//! How long an answer may take: one timer an attempt.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The time limit of an attempt, carried from its start to the end of the answer's body.
#[derive(Debug)]
pub(super) enum Limit {
    /// The whole attempt ends at one time.
    Whole(Pin<Box<Sleep>>),
    /// Streams: each gap without progress is limited. The timer is moved only when it fires.
    Gap { timer: Pin<Box<Sleep>>, gap: Duration, last: Instant },
    /// A tunnel after 101: whoever uses it watches both ends.
    None,
}

impl Limit {
    pub fn whole(timeout: Duration) -> Self {
        Limit::Whole(Box::pin(sleep_until(far(timeout))))
    }

    pub fn gap(gap: Duration) -> Self {
        let gap = gap.min(CENTURY);
        Limit::Gap { timer: Box::pin(sleep_until(far(gap))), gap, last: Instant::now() }
    }

    /// The latest end of what begins now.
    pub fn deadline(&self) -> Instant {
        match self {
            Limit::Whole(timer) => timer.deadline(),
            Limit::Gap { gap, .. } => far(*gap),
            Limit::None => far(Duration::MAX),
        }
    }

    /// Moves the end of the whole attempt; the gaps of a stream begin anew with each piece anyway.
    pub fn extend(&mut self, by: Duration) {
        // Below it the timer's own grain is coarser.
        const WORTH_IT: Duration = Duration::from_millis(1);
        if let Limit::Whole(timer) = self
            && by >= WORTH_IT
        {
            let end = timer.deadline().checked_add(by).unwrap_or_else(|| far(CENTURY));
            timer.as_mut().reset(end);
        }
    }
    pub fn progress(&mut self) {
        if let Limit::Gap { last, .. } = self {
            *last = Instant::now();
        }
    }

    /// Progress that something else saw.
    pub fn progress_at(&mut self, at: Instant) {
        if let Limit::Gap { last, .. } = self {
            *last = at.max(*last);
        }
    }

    /// Ready when time is up. To be asked last: it is the waker that stays if nothing else wakes.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Limit::Whole(timer) => timer.as_mut().poll(cx),
            Limit::Gap { timer, gap, last } => {
                while timer.as_mut().poll(cx).is_ready() {
                    let end = *last + *gap;
                    if end <= Instant::now() {
                        return Poll::Ready(());
                    }
                    timer.as_mut().reset(end);
                }
                Poll::Pending
            }
            Limit::None => Poll::Pending,
        }
    }
}

/// When something last moved; shared by the two halves of a streamed exchange.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    /// Milliseconds since `began`.
    last: AtomicU64,
}

impl Progress {
    pub fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }
    pub fn made(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0);
        self.last.store(millis, Ordering::Relaxed);
    }
    pub fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Now plus `duration`, or so late that it never comes.
pub(super) fn far(duration: Duration) -> Instant {
    Instant::now() + duration.min(CENTURY)
}
