//! How an app is spared: breaker, rate, schedule, and how its servers take turns.

use std::sync::Arc;
use std::time::Duration;

use super::Checker;
use super::destinations::Purpose;
use crate::config::model::Retry;
use crate::config::pace::{Balancing, BreakerSettings, HealthCheck, Rate};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::schedule::{SCHEDULE_HELP, Schedule};

/// A sender that waits for the app's answer is not kept away for longer, whatever the app asked.
const LONGEST_INLINE: Duration = Duration::from_secs(60);

/// Attempts in flight at once, where nothing is said.
pub(super) const CONCURRENCY: usize = 16;
/// The same at most, where they adapt.
const MOST_ADAPTIVE: usize = 64;

/// The part of a rate that may begin at once after a rest, where nothing is said.
const BURST: Duration = Duration::from_millis(50);

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
                raw::Mode::Buffer | raw::Mode::Spill => retry.max,
                raw::Mode::Proxy | raw::Mode::Pass => retry.max.min(LONGEST_INLINE),
            },
        })
    }

    pub(super) fn rate(
        &mut self,
        raw: Option<&raw::RateText>,
        destination: &Place,
        purpose: Purpose<'_>,
    ) -> Option<Rate> {
        let (limit, burst) = match raw? {
            raw::RateText::Plain(limit) => (*limit, None),
            raw::RateText::With(raw::Rate { limit, burst }) => (*limit, *burst),
        };
        if !self.only_buffered("rate", destination, purpose) {
            return None;
        }
        let standard = u128::from(limit.count) * BURST.as_millis() / limit.per.as_millis().max(1);
        let burst = burst.unwrap_or_else(|| u32::try_from(standard).unwrap_or(u32::MAX));
        Some(Rate { count: limit.count, per: limit.per, burst: burst.max(1) })
    }

    pub(super) fn schedule(
        &mut self,
        raw: Option<&raw::TextOrList>,
        destination: &Place,
        purpose: Purpose<'_>,
    ) -> Option<Arc<Schedule>> {
        let texts = match raw? {
            raw::TextOrList::Text(text) => std::slice::from_ref(text),
            raw::TextOrList::List(texts) => texts.as_slice(),
        };
        if !self.only_buffered("deliver_between", destination, purpose) {
            return None;
        }
        match Schedule::parse(texts.iter().map(String::as_str)) {
            Ok(schedule) => Some(Arc::new(schedule)),
            Err(problem) => {
                self.error(&destination.key("deliver_between"), problem, SCHEDULE_HELP);
                None
            }
        }
    }

    fn only_buffered(&mut self, key: &str, destination: &Place, purpose: Purpose<'_>) -> bool {
        let buffered = purpose.mode.is_buffered();
        if !buffered {
            let help = "inline the sender waits for the app; `mode: buffer` delivers at a pace";
            self.error(&destination.key(key), format!("`{key}` has no meaning inline"), help);
        }
        buffered
    }

    /// The most attempts in flight, and the fewest if they adapt.
    pub(super) fn concurrency(
        &mut self,
        raw: Option<&raw::ConcurrencyText>,
        destination: &Place,
        purpose: Purpose<'_>,
    ) -> (usize, Option<usize>) {
        let place = destination.key("concurrency");
        if raw.is_some() && !purpose.mode.is_buffered() {
            let help = "inline the sender waits, so every request is forwarded at once; use `mode: buffer` for a pace";
            self.warning(&place, "`concurrency` has no effect inline", help);
        }
        let (adaptive, min, max) = match raw {
            None => return (CONCURRENCY, None),
            Some(raw::ConcurrencyText::Fixed(most)) => return (*most, None),
            Some(raw::ConcurrencyText::Adaptive(raw::Adaptive { adaptive, min, max })) => {
                (adaptive, min, max)
            }
        };
        let (least, most) = (min.unwrap_or(1), max.unwrap_or(MOST_ADAPTIVE));
        if least > most {
            let message = format!("`min` ({least}) is more than `max` ({most})");
            self.error(&place.key("min"), message, "let `max` be at least `min`");
        }
        (most, adaptive.then_some(least))
    }

    pub(super) fn balance(
        &mut self,
        raw: &raw::Destination,
        place: &Place,
        purpose: Purpose<'_>,
    ) -> Balancing {
        let several = raw.upstreams.as_ref().is_some_and(|upstreams| upstreams.len() > 1);
        for (key, written) in [("balance", raw.balance.is_some()), ("failover", raw.failover)] {
            if written && !several {
                let help = "name at least two servers as `upstreams`";
                self.warning(&place.key(key), format!("`{key}` has no effect on a single server"), help);
            }
        }
        match (raw.failover, &raw.balance) {
            (true, Some(_)) => {
                let help = "`failover` uses one server at a time, `balance` all of them: keep one";
                self.error(&place.key("balance"), "both `balance` and `failover` are given", help);
                Balancing::Failover
            }
            (true, None) => Balancing::Failover,
            (false, None | Some(raw::BalanceText::Word(raw::BalanceWord::RoundRobin))) => {
                Balancing::RoundRobin
            }
            (false, Some(raw::BalanceText::Word(raw::BalanceWord::LeastInFlight))) => {
                Balancing::LeastInFlight
            }
            (false, Some(raw::BalanceText::Hash(hash))) => {
                if raw.batch.is_some() {
                    let message = "a batch holds events of several keys and goes to one server, so none can be kept to \
                                   the server of its key";
                    let help = "remove `batch`; or batch to servers that take turns: `balance: round-robin`";
                    self.error(&place.key("balance"), message, help);
                }
                self.balance_key(hash, &place.key("balance").key("hash"), purpose)
            }
        }
    }

    fn balance_key(&mut self, raw: &raw::BalanceHash, place: &Place, purpose: Purpose<'_>) -> Balancing {
        // Without a key there is an error, and no config.
        let Some(by) = self.extract(&raw.hash, place) else { return Balancing::RoundRobin };
        if by.reads_path() {
            let help = "take it from a header, the query or the body: a stored event is not matched with its route again";
            self.error(place, "a parameter of the path can't choose the server", help);
        }
        if by.reads_body() && purpose.mode == raw::Mode::Pass {
            let help = "take it from a header or the query, or use `mode: proxy`";
            self.error(place, "on a `pass` route nothing is read of a body", help);
        }
        Balancing::Hash { by }
    }

    pub(super) fn health(&mut self, raw: &raw::Health, place: &Place) -> HealthCheck {
        if !raw.path.starts_with('/') || raw.path.bytes().any(|b| !(b'!'..=b'~').contains(&b) || b == b'#') {
            let message = format!("`{}` is not a path", raw.path);
            self.error(&place.key("path"), message, "write a path such as `/healthz`");
        }
        for (key, time) in [("every", raw.every), ("timeout", raw.timeout)] {
            if let Some(time) = time {
                self.not_zero(place, key, time);
            }
        }
        let standard = HealthCheck::default();
        HealthCheck {
            path: raw.path.clone(),
            every: raw.every.map_or(standard.every, |time| time.0),
            timeout: raw.timeout.map_or(standard.timeout, |time| time.0),
            status: raw.status.clone().unwrap_or(standard.status),
            rise: raw.rise.unwrap_or(standard.rise),
            fall: raw.fall.unwrap_or(standard.fall),
        }
    }
}
