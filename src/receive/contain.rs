//! Keeps a panic within the request that it happened in.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// A panic, caught. (What it printed is on standard error already.)
pub(super) struct Panicked(Box<dyn Any + Send>);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.downcast_ref::<&str>().copied();
        let text = text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str));
        write!(f, "panic: {}", text.unwrap_or("of an unknown kind"))
    }
}

/// Runs `work`; a panic in it becomes an `Err`. What `work` owned is dropped, so its guards give back what they hold.
/// That makes the unwinding safe here: state shared between requests is behind guards and locks that don't poison.
pub(super) async fn contain<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(Panicked(panic))),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_after_a_pause_is_caught_and_named() {
        let work = async {
            tokio::task::yield_now().await;
            if true {
                panic!("number {}", 7);
            }
        };
        assert_eq!(contain(work).await.map_err(|p| p.to_string()), Err("panic: number 7".into()));
        assert_eq!(contain(async { 1 }).await.map_err(|p| p.to_string()), Ok(1));
    }
}
