//! How much was added within the last so long, in constant memory.

use std::time::Duration;

use crate::clock::Timestamp;

/// The last 30th of a span may be forgotten early, so that nothing is remembered too long.
const SLOTS: u64 = 30;

/// A sum over a span that moves along.
#[derive(Clone, Debug, Default)]
pub struct Window {
    span: Duration,
    /// The number of a slot since the epoch, and what was added in it; oldest first, at most [`SLOTS`].
    slots: std::collections::VecDeque<(u64, i64)>,
}

impl Window {
    /// Adds, and gives the sum of what was added within `span` until now. Another span than before forgets.
    pub fn add(&mut self, value: i64, span: Duration, now: Timestamp) -> i64 {
        if self.span != span {
            *self = Self { span, slots: self.slots.split_off(self.slots.len()) };
        }
        let length = (u64::try_from(span.as_millis()).unwrap_or(u64::MAX) / SLOTS).max(1);
        let slot = now.as_millis() / length;
        match self.slots.back_mut() {
            // A clock that steps back adds to the latest slot.
            Some((latest, sum)) if *latest >= slot => *sum = sum.saturating_add(value),
            _ => self.slots.push_back((slot, value)),
        }
        while self.slots.front().is_some_and(|(old, _)| old + SLOTS <= slot) {
            self.slots.pop_front();
        }
        self.slots.iter().fold(0, |sum, (_, value)| sum.saturating_add(*value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_span_but_for_its_oldest_slot(
            steps in prop::collection::vec((0u64..40_000, -5i64..100), 1..200),
        ) {
            let span = Duration::from_secs(60);
            let (mut window, mut now, mut added) = (Window::default(), Timestamp(1_000_000), Vec::new());
            for (step, value) in steps {
                now = now.saturating_add(Duration::from_millis(step));
                added.push((now, value.max(0)));
                let sum = window.add(value.max(0), span, now);
                let since = |span: Duration| {
                    added.iter().filter(|(at, _)| now.since(*at) < span).map(|(_, v)| v).sum::<i64>()
                };
                prop_assert!(sum <= since(span) && sum >= since(span - span / 30), "{sum} at {now}");
                prop_assert!(window.slots.len() <= 30);
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_loses_nothing() {
        let (mut window, span) = (Window::default(), Duration::from_secs(30));
        window.add(3, span, Timestamp(100_000));
        assert_eq!(window.add(2, span, Timestamp(50_000)), 5);
        assert_eq!(window.add(0, Duration::from_secs(31), Timestamp(100_000)), 0);
    }
}
