//! The one budget of body bytes that are in memory at once, over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::Metrics;

/// Counts the bytes that are reserved. The limit comes with each reservation, from the request's own snapshot.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation<'b> {
    budget: &'b Budget,
    bytes: u64,
    limit: u64,
}

/// There is not that much left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Budget {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { used: AtomicU64::new(0), metrics }
    }

    /// Begins a reservation, of nothing yet, that may grow while the sum of all stays within `limit`.
    pub const fn reservation(&self, limit: u64) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0, limit }
    }

    /// Whether `bytes` would fit right now. Promises nothing: whoever is first takes them.
    pub fn has_room(&self, bytes: u64, limit: u64) -> bool {
        self.used.load(Ordering::Relaxed).checked_add(bytes).is_some_and(|sum| sum <= limit)
    }
}

impl Reservation<'_> {
    /// Raises the reservation to `bytes` in all; one that is that large already stays as it is.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        // A counter that orders nothing else: relaxed is enough.
        let used = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|sum| *sum <= self.limit)
        });
        let before = used.map_err(|_| Exhausted)?;
        self.bytes = bytes;
        self.budget.metrics.body_bytes(before.saturating_add(more));
        Ok(())
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let before = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.metrics.body_bytes(before.saturating_sub(self.bytes));
        }
    }
}

#[cfg(test)]
impl Budget {
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back() {
        let budget = Budget::new(Arc::default());
        let mut first = budget.reservation(100);
        let mut second = budget.reservation(100);
        first.grow_to(60).unwrap();
        assert!(budget.has_room(40, 100) && !budget.has_room(41, 100));
        assert_eq!(second.grow_to(41), Err(Exhausted));
        assert_eq!(first.grow_to(101), Err(Exhausted));
        first.grow_to(100).unwrap();
        first.grow_to(10).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(second.grow_to(u64::MAX).is_err() && !budget.has_room(u64::MAX, 100));
        assert!(second.grow_to(100).is_ok());
    }
}
