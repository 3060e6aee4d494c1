//! How many of the tries of late have failed. Pure, of fixed size: the window slides by tenths.

use std::time::Duration;

use tokio::time::Instant;

const PARTS: usize = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub tries: u32,
    pub failures: u32,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    parts: [Counted; PARTS],
    /// The part that is counted in now, and when it began.
    current: usize,
    began: Option<Instant>,
}

impl Window {
    /// Counts one try, and gives those of the last `span`.
    pub fn count(&mut self, failed: bool, span: Duration, now: Instant) -> Counted {
        self.slide(span, now);
        let part = &mut self.parts[self.current];
        part.tries = part.tries.saturating_add(1);
        part.failures = part.failures.saturating_add(u32::from(failed));
        self.parts.iter().fold(Counted::default(), |sum, part| Counted {
            tries: sum.tries.saturating_add(part.tries),
            failures: sum.failures.saturating_add(part.failures),
        })
    }

    fn slide(&mut self, span: Duration, now: Instant) {
        let part = (span / PARTS as u32).max(Duration::from_millis(1));
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_nanos() / part.as_nanos();
        // Beyond the whole window nothing is left, however long ago it was.
        let steps = usize::try_from(passed).unwrap_or(usize::MAX);
        for _ in 0..steps.min(PARTS) {
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Counted::default();
        }
        self.began = Some(match u32::try_from(steps) {
            Ok(steps) if steps as usize <= PARTS => began + part * steps,
            _ => now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut window, start) = (Window::default(), Instant::now());
        for second in 0..10 {
            window.count(second < 5, SPAN, start + Duration::from_secs(second));
        }
        let counted = window.count(false, SPAN, start + Duration::from_millis(9_500));
        assert_eq!(counted, Counted { tries: 11, failures: 5 });
        let counted = window.count(false, SPAN, start + Duration::from_secs(12));
        assert_eq!(counted, Counted { tries: 9, failures: 2 });
        let counted = window.count(true, SPAN, start + Duration::from_secs(86_400));
        assert_eq!(counted, Counted { tries: 1, failures: 1 });
    }

    proptest! {
        /// Never more than what truly was within the window, never less than what was within nine tenths of it.
        #[test]
        fn the_count_is_that_of_the_last_span(steps in prop::collection::vec((0u64..3000, any::<bool>()), 1..200)) {
            let (mut window, start) = (Window::default(), Instant::now());
            let (mut now, mut all) = (start, Vec::new());
            for (pause, failed) in steps {
                now += Duration::from_millis(pause);
                all.push((now, failed));
                let counted = window.count(failed, SPAN, now);
                let since = |span: Duration| all.iter().filter(|(at, _)| now - *at < span).count() as u32;
                prop_assert!(counted.tries <= since(SPAN));
                prop_assert!(counted.tries >= since(SPAN * 9 / 10));
                prop_assert!(counted.failures <= counted.tries);
            }
        }
    }
}
