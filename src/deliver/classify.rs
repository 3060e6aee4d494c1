//! What an outcome means, and what comes next. Pure: the rules of retrying in one place.
//!
//! - 2xx is a success. Redirects are not followed: they are failures like any other status.
//! - A status of `retry.give_up_on` ends the delivery.
//! - Any other status, and no (whole) answer, is a failure: tried again after the delay of `backoff`, until `attempts`
//!   are used up or the delivery is older than `max_age`. A retry that would only come after `max_age` is not waited
//!   for: the delivery is dead at once, so that an operator sees it at once.
//! - Age alone ends nothing: a delivery that was held back beyond `max_age` (by its breaker, a pause, a schedule, a rate, a
//!   gateway that was down) is tried once more, and only if that try fails, and counts, is it too old.
//! - What the gateway could not do itself (no address for the name, no file descriptor), and what the app says it did not
//!   process (HTTP/2), is not the app's failure: it uses up no attempt, and is tried again for as long as it takes. Nor does
//!   what fails while the destination's breaker is not closed (see `breaker`).

use std::time::Duration;

use crate::buffer::{AttemptOutcome, DeadReason, Next};
use crate::clock::Timestamp;
use crate::config::Retry;
use crate::upstream::{self, UpstreamError};

use super::backoff;

/// What the app answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub status: u16,
    /// The value of `Retry-After`, as received.
    pub retry_after: Option<Vec<u8>>,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Success,
    /// The app does not want this event, now or later.
    GivenUp,
    Failure {
        /// How long the app asked to be left alone.
        asked: Option<Duration>,
    },
    /// The gateway's own failure, or one that is nobody's: nothing was tried.
    Ours,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Attempts so far, the one that just ended included.
    pub attempts: u32,
    /// When the retry budget began.
    pub since: Timestamp,
}

pub(super) fn finding(result: &Result<Answered, UpstreamError>, retry: &Retry, now: Timestamp) -> Finding {
    match result {
        Ok(Answered { status: 200..=299, .. }) => Finding::Success,
        Ok(Answered { status, .. }) if retry.give_up_on.contains(status) => Finding::GivenUp,
        Ok(Answered { retry_after, .. }) => Finding::Failure {
            asked: retry_after.as_deref().and_then(|value| upstream::retry_after(value, now)),
        },
        Err(UpstreamError::Unprocessed(_)) => Finding::Ours,
        Err(error) if error.is_ours() => Finding::Ours,
        Err(_) => Finding::Failure { asked: None },
    }
}

/// The attempt for the delivery's history.
pub(super) fn outcome(result: &Result<Answered, UpstreamError>) -> AttemptOutcome {
    match result {
        Ok(answered) => AttemptOutcome::Answered { status: answered.status },
        Err(error) => AttemptOutcome::Failed { error: error.to_string() },
    }
}

/// Whether a delivery that was tried `attempts` times may be tried again: the config may have changed since it was put
/// back.
pub(super) fn may_try(attempts: u32, retry: &Retry) -> Result<(), DeadReason> {
    match attempts >= retry.attempts.max(1) {
        true => Err(DeadReason::AttemptsExhausted),
        false => Ok(()),
    }
}

/// Where a delivery goes after a failed attempt.
pub(super) fn after_failure(
    progress: Progress,
    asked: Option<Duration>,
    retry: &Retry,
    now: Timestamp,
    draw: f64,
) -> Next {
    if progress.attempts >= retry.attempts {
        return Next::Dead(DeadReason::AttemptsExhausted);
    }
    let at = now.saturating_add(backoff::delay(retry, progress.attempts, draw, asked));
    match at.since(progress.since) >= retry.max_age {
        true => Next::Dead(DeadReason::TooOld),
        false => Next::Retry(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777);

    fn answered(status: u16) -> Result<Answered, UpstreamError> {
        Ok(Answered { status, retry_after: None })
    }

    #[test]
    fn each_outcome_has_one_meaning() {
        let retry = Retry::default();
        let finding = |result| finding(&result, &retry, NOW);
        let failure = Finding::Failure { asked: None };
        for status in [200, 202, 204, 299] {
            assert_eq!(finding(answered(status)), Finding::Success, "{status}");
        }
        for status in [199, 301, 302, 307, 400, 401, 404, 429, 500, 503, 600] {
            assert_eq!(finding(answered(status)), failure, "{status}");
        }
        assert_eq!(finding(answered(410)), Finding::GivenUp);
        let text = || "x".to_owned();
        for error in [
            UpstreamError::Connect(text()),
            UpstreamError::Tls(text()),
            UpstreamError::Timeout("answer"),
            UpstreamError::Broken(text()),
            UpstreamError::Protocol(text()),
        ] {
            assert_eq!(finding(Err(error)), failure);
        }
        assert_eq!(finding(Err(UpstreamError::Dns(text()))), Finding::Ours);
        assert_eq!(finding(Err(UpstreamError::Local(text()))), Finding::Ours);
        assert_eq!(finding(Err(UpstreamError::Unprocessed(text()))), Finding::Ours);
    }

    #[test]
    fn what_was_held_back_for_too_long_is_tried_once_more_and_then_too_old() {
        let retry = Retry::default();
        assert_eq!(may_try(1, &retry), Ok(()));
        let old = Progress { attempts: 2, since: Timestamp(0) };
        assert_eq!(after_failure(old, None, &retry, NOW, 0.0), Next::Dead(DeadReason::TooOld));
        assert_eq!(may_try(12, &retry), Err(DeadReason::AttemptsExhausted), "the config may have changed");
        assert_eq!(may_try(0, &Retry { attempts: 0, ..retry }), Ok(()), "never without a try");
    }

    proptest! {
        #[test]
        fn a_retry_never_comes_after_the_attempts_or_the_age_are_used_up(
            attempts in 1u32..30, limit in 1u32..30, age_s in 0u64..10_000, max_age_s in 1u64..10_000,
            asked in proptest::option::of(0u64..10_000), draw in 0.0..1.0f64,
        ) {
            let retry = Retry { attempts: limit, max_age: Duration::from_secs(max_age_s), ..Retry::default() };
            let since = NOW.saturating_sub(Duration::from_secs(age_s));
            let progress = Progress { attempts, since };
            let asked = asked.map(Duration::from_secs);
            match after_failure(progress, asked, &retry, NOW, draw) {
                Next::Retry(at) => {
                    prop_assert!(attempts < limit && at >= NOW);
                    prop_assert_eq!(may_try(attempts, &retry), Ok(()));
                    prop_assert!(at.since(since) < retry.max_age);
                }
                Next::Dead(DeadReason::AttemptsExhausted) => prop_assert!(attempts >= limit),
                Next::Dead(DeadReason::TooOld) => prop_assert!(attempts < limit),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
