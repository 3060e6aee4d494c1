//! Which upstream is tried: in turn, passing over those that could not be reached lately. Pure but for its atomics.
//!
//! Passive: only what real requests met counts. An upstream that could not be reached (connect, TLS or DNS) is skipped
//! for 1 s, doubling with each further failure up to 30 s; a connection that succeeds clears it. If all are skipped,
//! all are tried: skipping never makes a request fail that could have succeeded.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

const FIRST_SKIP: Duration = Duration::from_secs(1);
const LONGEST_SKIP: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Balance {
    next: AtomicUsize,
    servers: Box<[Health]>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Health {
    failures: AtomicU32,
    /// Milliseconds since `began`.
    skip_until: AtomicU64,
}

impl Balance {
    pub fn new(servers: usize) -> Self {
        Self {
            next: AtomicUsize::new(0),
            servers: (0..servers).map(|_| Health::default()).collect(),
            began: Instant::now(),
        }
    }

    /// The servers in the order in which one request tries them.
    pub fn order(&self) -> impl Iterator<Item = usize> + Send + use<> {
        let count = self.servers.len();
        let first = if count == 1 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) % count.max(1) };
        let mut turns: Vec<usize> = Vec::new();
        if count > 1 {
            let now = self.now();
            let around = || (0..count).map(|n| (first + n) % count);
            let skipped = |server: &usize| self.servers[*server].skip_until.load(Ordering::Relaxed) > now;
            turns.extend(around().filter(|s| !skipped(s)));
            if turns.is_empty() {
                turns.extend(around());
            }
        }
        let single = (count == 1).then_some(0);
        single.into_iter().chain(turns)
    }

    pub fn reached(&self, server: usize) {
        let health = &self.servers[server];
        if health.failures.load(Ordering::Relaxed) != 0 {
            health.failures.store(0, Ordering::Relaxed);
            health.skip_until.store(0, Ordering::Relaxed);
        }
    }

    pub fn unreachable(&self, server: usize) {
        let health = &self.servers[server];
        let failures = health.failures.fetch_add(1, Ordering::Relaxed);
        let skip = FIRST_SKIP.saturating_mul(1 << failures.min(10)).min(LONGEST_SKIP);
        health.skip_until.store(self.now() + skip.as_millis() as u64, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(balance: &Balance) -> Vec<usize> {
        balance.order().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn servers_take_turns_and_the_rest_follow_in_order() {
        let balance = Balance::new(3);
        assert_eq!(order(&balance), [0, 1, 2]);
        assert_eq!(order(&balance), [1, 2, 0]);
        assert_eq!(order(&balance), [2, 0, 1]);
        assert_eq!(order(&balance), [0, 1, 2]);
        assert_eq!(order(&Balance::new(1)), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cant_be_reached_is_skipped_for_a_growing_time_until_it_is_reached() {
        let balance = Balance::new(2);
        let mut last = Duration::ZERO;
        for round in 0..8 {
            balance.unreachable(0);
            let began = Instant::now();
            while !order(&balance).contains(&0) {
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            let skipped = began.elapsed();
            assert!(skipped >= last && skipped <= LONGEST_SKIP, "round {round}: {skipped:?}");
            last = skipped;
        }
        assert_eq!(last, LONGEST_SKIP);
        balance.unreachable(0);
        balance.reached(0);
        assert!(order(&balance).contains(&0));
    }

    #[tokio::test(start_paused = true)]
    async fn if_all_are_skipped_all_are_tried() {
        let balance = Balance::new(2);
        balance.unreachable(0);
        balance.unreachable(1);
        assert_eq!(order(&balance).len(), 2);
    }
}
