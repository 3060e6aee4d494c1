//! When a destination is said to be failing, and when to have recovered: two log lines, not one an attempt. Pure.

/// Failures in a row after which a destination is said to be failing. One event that an app can't take does not make
/// it a failing app.
const FAILING_AFTER: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Failing,
    Recovered { failures: u32 },
}

impl Health {
    pub fn failed(&mut self) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        (self.failures == FAILING_AFTER).then_some(Change::Failing)
    }

    pub fn succeeded(&mut self) -> Option<Change> {
        let failures = std::mem::take(&mut self.failures);
        (failures >= FAILING_AFTER).then_some(Change::Recovered { failures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_is_said_once_and_so_is_recovery() {
        let mut health = Health::default();
        let said: Vec<_> = (0..10).filter_map(|_| health.failed()).collect();
        assert_eq!(said, [Change::Failing]);
        assert_eq!(health.succeeded(), Some(Change::Recovered { failures: 10 }));
        assert_eq!(health.succeeded(), None);
    }

    #[test]
    fn single_failures_between_successes_are_not_talked_about() {
        let mut health = Health::default();
        for _ in 0..10 {
            assert_eq!((health.failed(), health.succeeded()), (None, None));
        }
    }
}
