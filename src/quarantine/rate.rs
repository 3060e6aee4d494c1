//! How many refused requests a route may put into quarantine: a bucket a route, filled at the configured rate.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::config::QuarantineSettings;

/// One bucket a route. Routes come from the config, so there are few; a reload begins anew.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths of an item.
    filled: u64,
    at: Timestamp,
}

const ONE: u64 = 1000;

impl Rates {
    /// Takes one, if there is one left.
    pub(super) fn take(&self, route: &str, settings: &QuarantineSettings, now: Timestamp) -> bool {
        let full = u64::from(settings.rate) * ONE;
        let mut buckets = self.0.lock();
        let bucket = match buckets.get_mut(route) {
            Some(bucket) => bucket,
            None => buckets.entry(route.to_owned()).or_insert(Bucket { filled: full, at: now }),
        };
        let passed = now.since(bucket.at).as_millis();
        let more = passed.saturating_mul(u128::from(full)) / settings.rate_per.as_millis().max(1);
        // What is less than a thousandth is kept for the next time.
        if more > 0 || now < bucket.at {
            bucket.filled = bucket.filled.saturating_add(u64::try_from(more).unwrap_or(full)).min(full);
            bucket.at = now;
        }
        let left = bucket.filled.checked_sub(ONE);
        bucket.filled = left.unwrap_or(bucket.filled);
        left.is_some()
    }

    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(rate: u32, per: u64) -> QuarantineSettings {
        let rate_per = Duration::from_secs(per);
        QuarantineSettings { max_events: 1, max_size: 1, keep: Duration::ZERO, rate, rate_per }
    }

    #[test]
    fn no_more_than_the_rate_over_any_time() {
        let (rates, settings) = (Rates::default(), settings(10, 1));
        let taken = |from: u64, to: u64| {
            (from..to).filter(|millis| rates.take("a", &settings, Timestamp(*millis))).count()
        };
        assert_eq!(taken(0, 1), 1);
        let first_second = taken(1, 1000);
        assert!((18..=19).contains(&first_second), "{first_second}");
        let next = taken(1000, 11_000);
        assert!((99..=101).contains(&next), "{next}");
    }

    #[test]
    fn routes_do_not_take_from_each_other_and_time_may_step_back() {
        let (rates, settings) = (Rates::default(), settings(1, 3600));
        let now = Timestamp(10_000_000);
        assert!(rates.take("a", &settings, now) && !rates.take("a", &settings, now));
        assert!(rates.take("b", &settings, now));
        assert!(!rates.take("a", &settings, Timestamp(5)));
        assert!(rates.take("a", &settings, Timestamp(5 + 3_600_000)));
    }
}
