//! How long until the next try. Pure.

use std::time::Duration;

use crate::config::{Jitter, Retry};

/// The longest that the delay before retry `n` (from 1) may be: `min(max, first * factor^(n-1))`.
pub(super) fn ceiling(retry: &Retry, n: u32) -> Duration {
    let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
    let seconds = retry.first.as_secs_f64() * retry.factor.max(0.0).powi(exponent);
    // Not finite: too large for a number, so larger than any `max`.
    match Duration::try_from_secs_f64(seconds) {
        Ok(delay) => delay.min(retry.max),
        Err(_) => retry.max,
    }
}

/// The delay before retry `n` (from 1). `draw` is even in `0.0..1.0`; with full jitter the delay is even in
/// `0..=ceiling`, so that deliveries that failed together do not come back together. What the app asked for
/// (`Retry-After`) is the least, but never more than `max`.
pub(super) fn delay(retry: &Retry, n: u32, draw: f64, asked: Option<Duration>) -> Duration {
    let ceiling = ceiling(retry, n);
    let drawn = match retry.jitter {
        Jitter::Full => ceiling.mul_f64(draw.clamp(0.0, 1.0)),
        Jitter::None => ceiling,
    };
    drawn.max(asked.unwrap_or_default().min(retry.max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_maximum() {
        let retry = Retry { max: Duration::from_secs(10), ..Retry::default() };
        let seconds: Vec<_> = (1..=6).map(|n| ceiling(&retry, n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
        assert_eq!(ceiling(&retry, u32::MAX), retry.max);
    }

    #[test]
    fn without_jitter_the_delay_is_the_ceiling() {
        let retry = Retry { jitter: Jitter::None, ..Retry::default() };
        assert_eq!(delay(&retry, 4, 0.123, None), Duration::from_secs(8));
    }

    #[test]
    fn retry_after_is_obeyed_but_capped() {
        let retry = Retry { max: Duration::from_secs(60), ..Retry::default() };
        let asked = |secs| delay(&retry, 1, 0.0, Some(Duration::from_secs(secs)));
        assert_eq!((asked(30).as_secs(), asked(3600).as_secs()), (30, 60));
    }

    proptest! {
        #[test]
        fn a_delay_is_never_longer_than_its_ceiling_nor_the_maximum(
            first in 0u64..100_000, factor in prop_oneof![0.0..10.0, Just(f64::INFINITY), Just(f64::NAN)],
            max in 0u64..1_000_000, n in any::<u32>(), draw in 0.0..1.0f64, asked in proptest::option::of(any::<u32>()),
        ) {
            let retry = Retry {
                first: Duration::from_millis(first), factor, max: Duration::from_millis(max), ..Retry::default()
            };
            let asked = asked.map(|ms| Duration::from_millis(ms.into()));
            let delay = delay(&retry, n, draw, asked);
            prop_assert!(delay <= retry.max);
            prop_assert!(delay <= ceiling(&retry, n).max(asked.unwrap_or_default()));
            prop_assert!(delay >= asked.unwrap_or_default().min(retry.max));
        }
    }
}
