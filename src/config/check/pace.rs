//! How an app is spared: breaker.

use std::time::Duration;

use super::Checker;
use super::destinations::Purpose;
use crate::config::model::Retry;
use crate::config::pace::BreakerSettings;
use crate::config::place::Place;
use crate::config::raw;

/// A sender that waits for the app's answer is not kept away for longer, whatever the app asked.
const LONGEST_INLINE: Duration = Duration::from_secs(60);

impl Checker<'_, '_> {
    pub(super) fn breaker(
        &mut self,
        raw: Option<&raw::BreakerOrOff>,
        destination: &Place,
        purpose: Purpose<'_>,
        retry: &Retry,
    ) -> Option<BreakerSettings> {
        let place = destination.key("breaker");
        if purpose.mode == raw::Mode::Pass {
            if raw.is_some() {
                let help =
                    "such a route passes everything on; `mode: proxy` and `mode: buffer` have a breaker";
                self.error(&place, "`breaker` has no meaning on a `pass` route", help);
            }
            return None;
        }
        let standard = raw::Breaker::default();
        let raw = match raw {
            Some(raw::BreakerOrOff::Off(_)) => return None,
            Some(raw::BreakerOrOff::On(own)) => own,
            None => &standard,
        };
        self.not_zero(&place, "window", raw.window);
        self.not_zero(&place, "probe_after", raw.probe_after);
        Some(BreakerSettings {
            failures: raw.failures,
            share_percent: raw.share.0,
            window: raw.window.0,
            min_attempts: raw.min_attempts,
            probe_after: raw.probe_after.0,
            slow_start: raw.slow_start.0,
            longest_pause: match purpose.mode {
                raw::Mode::Buffer => retry.max,
                raw::Mode::Proxy | raw::Mode::Pass => retry.max.min(LONGEST_INLINE),
            },
        })
    }
}
