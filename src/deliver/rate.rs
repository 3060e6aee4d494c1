//! How fast attempts may begin: a token bucket that counts time instead of tokens. Pure, one `Instant` of memory.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When the bucket will be full again.
    full_at: Option<Instant>,
}

impl Bucket {
    /// How many attempts may begin now, and if none, when the next may. `strength` is the share of the rate that a slow
    /// start gives, above 0 and at most 1.
    pub fn available(&self, rate: &Rate, strength: f64, now: Instant) -> (usize, Option<Instant>) {
        let (each, burst) = eased(rate, strength);
        let owed = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let room = (each * burst).saturating_sub(owed);
        let count = usize::try_from(room.as_nanos() / each.as_nanos().max(1)).unwrap_or(usize::MAX);
        if count > 0 { (count, None) } else { (0, Some(now + (each - room))) }
    }

    /// An attempt begins.
    pub fn take(&mut self, rate: &Rate, strength: f64, now: Instant) {
        let (each, _) = eased(rate, strength);
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + each);
    }
}

/// The time that one attempt takes up, and how many may begin at once.
fn eased(rate: &Rate, strength: f64) -> (Duration, u32) {
    let each = (rate.per / rate.count.max(1)).max(Duration::from_nanos(1));
    // A share of the burst, rounded down: a slow start must not begin with all of it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let burst = (f64::from(rate.burst) * strength) as u32;
    (each.div_f64(strength.clamp(0.001, 1.0)), burst.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(count: u32, per: u64, burst: u32) -> Rate {
        Rate { count, per: Duration::from_secs(per), burst }
    }

    /// Begins whatever may begin until `end`; gives when.
    fn run(rate: &Rate, strength: f64, span: Duration) -> Vec<Duration> {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let (mut now, mut begun) = (start, Vec::new());
        while now - start < span {
            match bucket.available(rate, strength, now) {
                (0, Some(at)) => now = at,
                (count, _) => {
                    for _ in 0..count {
                        bucket.take(rate, strength, now);
                        begun.push(now - start);
                    }
                }
            }
        }
        begun
    }

    #[test]
    fn attempts_begin_evenly_after_the_burst() {
        let seconds = |begun: Vec<Duration>| begun.iter().map(Duration::as_secs).collect::<Vec<_>>();
        assert_eq!(seconds(run(&rate(1, 10, 1), 1.0, Duration::from_secs(35))), [0, 10, 20, 30]);
        assert_eq!(seconds(run(&rate(1, 10, 3), 1.0, Duration::from_secs(25))), [0, 0, 0, 10, 20]);
        assert_eq!(seconds(run(&rate(1, 10, 3), 0.5, Duration::from_secs(45))), [0, 20, 40]);
        assert_eq!(run(&rate(600, 60, 1), 1.0, Duration::from_secs(10)).len(), 100);
    }

    #[test]
    fn an_idle_destination_saves_up_no_more_than_the_burst() {
        let (mut bucket, start, rate) = (Bucket::default(), Instant::now(), rate(10, 1, 4));
        (0..4).for_each(|_| bucket.take(&rate, 1.0, start));
        assert_eq!(bucket.available(&rate, 1.0, start).0, 0);
        assert_eq!(bucket.available(&rate, 1.0, start + Duration::from_secs(3600)), (4, None));
    }

    proptest! {
        /// In no span do more begin than the rate allows for it, and the burst; and it is never stuck.
        #[test]
        fn the_rate_is_never_exceeded_and_is_reached(
            count in 1u32..1000, per in 1u64..60, burst in 1u32..50, strength in 0.05..=1.0f64,
        ) {
            let rate = rate(count, per, burst);
            let span = rate.per * 3;
            let begun = run(&rate, strength, span);
            let share = f64::from(count) / rate.per.as_secs_f64() * strength;
            for (n, at) in begun.iter().enumerate() {
                for (m, earlier) in begun.iter().enumerate().take(n).step_by(7) {
                    let within = (*at - *earlier).as_secs_f64() * share + f64::from(burst) + 1.0;
                    prop_assert!(((n - m) as f64) <= within + 1e-3);
                }
            }
            prop_assert!(begun.len() as f64 >= (share * span.as_secs_f64()).floor() - 1.0);
        }
    }
}
