//! A deadline that is moved often and met rarely: one timer a connection, armed at the first wait and re-armed only
//! when it fires too early.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module. Unset, it never expires.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub fn set(&mut self, at: Instant) {
        self.at = Some(at);
    }
    pub fn clear(&mut self) {
        self.at = None;
    }
    pub fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Ready once the deadline has passed. Wakes the task then (and perhaps once or twice before).
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_expires_at_the_last_time_that_was_set() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(start + Duration::from_secs(5));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx).is_pending())).await);
        deadline.set(start + Duration::from_secs(60));
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 60);

        deadline.set(Instant::now() + Duration::from_secs(100));
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx).is_pending())).await);
        deadline.set(Instant::now() + Duration::from_secs(1));
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 61);
    }
}
