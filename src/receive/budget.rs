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

    /// Takes `bytes` if the sum of all reservations stays within `limit`.
    pub fn reserve(&self, bytes: u64, limit: u64) -> Result<Reservation<'_>, Exhausted> {
        let mut reservation = Reservation { budget: self, bytes: 0, limit };
        reservation.grow_to(bytes)?;
        Ok(reservation)
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
        let mut first = budget.reserve(60, 100).unwrap();
        assert_eq!(budget.reserve(41, 100).unwrap_err(), Exhausted);
        assert_eq!(first.grow_to(101), Err(Exhausted));
        first.grow_to(100).unwrap();
        first.grow_to(10).unwrap();
        assert_eq!(budget.used(), 100);
        drop(first);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(u64::MAX, 100).is_err());
        assert!(budget.reserve(100, 100).is_ok());
    }
}
