//! The machine: closed, open, half open, and the slow start after it. Pure: the time comes with each call.
//!
//! - Closed, tries are counted. `failures` in a row, or a `share` of them within the `window`, open it.
//! - Open, nothing is tried until `probe_after` has passed (or as long as the app asked). Then it is half open: one
//!   try, the probe, decides. A probe that nobody heard of again leaves its place to the next.
//! - Closed again, the room grows from one try to all of them over `slow_start`.
//! - The gateway's own failures open it too, without being counted: nothing would come of trying. The pause is as long
//!   as they have lasted, between 1 s and 60 s, which doubles it with each probe.
//!
//! A try belongs to the epoch in which it began: what comes late from an earlier one changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::BreakerSettings;

use super::window::Window;

/// Between probes while the gateway itself is at fault.
const SHORTEST_OF_OURS: Duration = Duration::from_secs(1);
const LONGEST_OF_OURS: Duration = Duration::from_secs(60);
/// After a probe of which nobody heard again.
const AFTER_LOST_PROBE: Duration = Duration::from_secs(1);
/// The least that a slow start gives of the rate.
const LEAST_STRENGTH: f64 = 0.05;

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app is well: it took the event, or refused this very one.
    Well,
    /// The app can't. `asked`: how long it wants to be left alone.
    Sick { asked: Option<Duration> },
    /// The gateway could not try.
    Ours,
    /// Nothing was learned: the try was broken off.
    Unknown,
    /// Nothing was tried.
    Unused,
}

/// Whether a failed try counts for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    Counts,
    /// It was a probe, or the breaker has opened since: nothing is charged, and the delivery goes on with the breaker.
    Spared,
}

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Closed,
    /// Closed, and the room still grows.
    SlowStart,
    HalfOpen,
    Open,
}

impl Phase {
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::SlowStart => "slow_start",
            Phase::HalfOpen => "half_open",
            Phase::Open => "open",
        }
    }
    /// As a gauge shows it.
    pub const fn number(self) -> u64 {
        match self {
            Phase::Closed | Phase::SlowStart => 0,
            Phase::HalfOpen => 1,
            Phase::Open => 2,
        }
    }
}

/// How many tries may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub allowed: usize,
    /// When it may be more. `None`: not before a try ends.
    pub grows_at: Option<Instant>,
    /// The one try is a probe: nothing more is to be held ready.
    pub probes: bool,
}

/// A try under way.
#[derive(Debug)]
pub(super) struct Ticket {
    epoch: u64,
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened { until: Instant },
    HalfOpened,
    Reopened { until: Instant },
    Closed { after: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    App,
    Ours,
}

#[derive(Debug)]
pub(super) struct State {
    /// Grows with each opening, probe and closing.
    epoch: u64,
    is: Is,
    /// Of the settings seen last, for those who only look.
    slow_start: Duration,
}

#[derive(Debug)]
enum Is {
    Closed {
        /// Failures in a row.
        row: u32,
        window: Window,
        /// When it closed; `None` if it was never open.
        since: Option<Instant>,
    },
    Open {
        since: Instant,
        until: Instant,
        cause: Cause,
        probing: bool,
    },
}

impl Default for State {
    fn default() -> Self {
        let is = Is::Closed { row: 0, window: Window::default(), since: None };
        Self { epoch: 0, is, slow_start: Duration::ZERO }
    }
}

impl State {
    pub fn room(&mut self, settings: Option<&BreakerSettings>, most: usize, now: Instant) -> Room {
        self.heed(settings);
        let all = Room { allowed: most, grows_at: None, probes: false };
        match self.is {
            Is::Closed { since, .. } => match (since, settings) {
                (Some(since), Some(settings)) => {
                    growing(since, settings.slow_start, most, now).unwrap_or(all)
                }
                _ => all,
            },
            Is::Open { until, probing: false, .. } if until > now => {
                Room { allowed: 0, grows_at: Some(until), probes: true }
            }
            Is::Open { .. } => Room { allowed: most.min(1), grows_at: None, probes: true },
        }
    }

    pub fn strength(&self, settings: Option<&BreakerSettings>, now: Instant) -> f64 {
        match (&self.is, settings) {
            (Is::Closed { since: Some(since), .. }, Some(settings)) => {
                grown(*since, settings.slow_start, now).max(LEAST_STRENGTH)
            }
            _ => 1.0,
        }
    }

    /// Open since an earlier process, by the app's fault: the first try probes.
    pub fn reopen(&mut self, since: Instant, now: Instant) {
        self.epoch += 1;
        self.is = Is::Open { since, until: now, cause: Cause::App, probing: false };
    }

    /// There is reason to hope: the next try probes, without waiting for its time. Whether anything is open that it
    /// changes.
    pub fn probe_soon(&mut self, now: Instant) -> bool {
        match &mut self.is {
            Is::Open { until, probing: false, .. } if *until > now => {
                *until = now;
                true
            }
            Is::Open { .. } | Is::Closed { .. } => false,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.is, Is::Open { .. })
    }

    /// Begins a try, or says when to ask again.
    pub fn begin(
        &mut self,
        settings: Option<&BreakerSettings>,
        now: Instant,
    ) -> Result<(Ticket, Option<Change>), Instant> {
        self.heed(settings);
        match &mut self.is {
            Is::Closed { .. } => Ok((Ticket { epoch: self.epoch }, None)),
            Is::Open { until, .. } if *until > now => Err(*until),
            // How long the probe takes nobody knows.
            Is::Open { probing: true, .. } => Err(now + AFTER_LOST_PROBE),
            Is::Open { probing, .. } => {
                *probing = true;
                self.epoch += 1;
                Ok((Ticket { epoch: self.epoch }, Some(Change::HalfOpened)))
            }
        }
    }

    /// Ends a try.
    pub fn end(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        settings: Option<&BreakerSettings>,
        now: Instant,
    ) -> (Charge, Option<Change>) {
        self.heed(settings);
        if ticket.epoch == self.epoch {
            return match self.is {
                Is::Closed { .. } => self.end_closed(outcome, settings, now),
                Is::Open { .. } => self.end_probe(outcome, settings, now),
            };
        }
        match (&self.is, outcome) {
            // What is not the app's fault never counts.
            (Is::Closed { .. }, Outcome::Ours) | (Is::Open { .. }, _) => (Charge::Spared, None),
            (Is::Closed { .. }, _) => (Charge::Counts, None),
        }
    }

    fn end_closed(
        &mut self,
        outcome: Outcome,
        settings: Option<&BreakerSettings>,
        now: Instant,
    ) -> (Charge, Option<Change>) {
        let Is::Closed { row, window, .. } = &mut self.is else { return (Charge::Counts, None) };
        match (outcome, settings) {
            (Outcome::Ours, _) => {
                let until = now + SHORTEST_OF_OURS;
                (Charge::Spared, Some(self.open(until, Cause::Ours, now)))
            }
            (Outcome::Unknown | Outcome::Unused, _) | (_, None) => (Charge::Counts, None),
            (Outcome::Well, Some(settings)) => {
                *row = 0;
                window.count(false, settings.window, now);
                (Charge::Counts, None)
            }
            (Outcome::Sick { asked }, Some(settings)) => {
                *row = row.saturating_add(1);
                let counted = window.count(true, settings.window, now);
                let share = u64::from(counted.failures) * 100
                    >= u64::from(settings.share_percent) * u64::from(counted.tries);
                let asked = asked.map(|asked| asked.min(settings.longest_pause));
                let opens = *row >= settings.failures || (counted.tries >= settings.min_attempts && share);
                let pause = match (opens, asked) {
                    (true, asked) => settings.probe_after.max(asked.unwrap_or_default()),
                    (false, Some(asked)) if !asked.is_zero() => asked,
                    (false, _) => return (Charge::Counts, None),
                };
                // The tries that show it count; those that fail from now on do not.
                (Charge::Counts, Some(self.open(now + pause, Cause::App, now)))
            }
        }
    }

    fn end_probe(
        &mut self,
        outcome: Outcome,
        settings: Option<&BreakerSettings>,
        now: Instant,
    ) -> (Charge, Option<Change>) {
        let Is::Open { since, until, cause, probing } = &mut self.is else {
            return (Charge::Counts, None);
        };
        *probing = false;
        self.epoch += 1;
        match (outcome, settings) {
            (Outcome::Unused, _) => (Charge::Counts, None),
            (Outcome::Unknown, _) => {
                *until = now + AFTER_LOST_PROBE;
                (Charge::Spared, None)
            }
            (Outcome::Ours, _) => {
                if *cause != Cause::Ours {
                    (*cause, *since) = (Cause::Ours, now);
                }
                let lasted = now.saturating_duration_since(*since);
                *until = now + lasted.clamp(SHORTEST_OF_OURS, LONGEST_OF_OURS);
                (Charge::Spared, Some(Change::Reopened { until: *until }))
            }
            (Outcome::Sick { asked }, Some(settings)) => {
                *cause = Cause::App;
                let asked = asked.unwrap_or_default().min(settings.longest_pause);
                *until = now + settings.probe_after.max(asked);
                (Charge::Spared, Some(Change::Reopened { until: *until }))
            }
            // Without a breaker only our own trouble held it, and that is over: the app was reached.
            (Outcome::Sick { .. }, None) | (Outcome::Well, _) => {
                let after = now.saturating_duration_since(*since);
                self.is = Is::Closed { row: 0, window: Window::default(), since: Some(now) };
                (Charge::Counts, Some(Change::Closed { after }))
            }
        }
    }

    fn open(&mut self, until: Instant, cause: Cause, now: Instant) -> Change {
        self.epoch += 1;
        self.is = Is::Open { since: now, until, cause, probing: false };
        Change::Opened { until }
    }

    /// A breaker that was turned off holds nothing for the app's sake.
    fn heed(&mut self, settings: Option<&BreakerSettings>) {
        self.slow_start = settings.map_or(Duration::ZERO, |settings| settings.slow_start);
        if settings.is_none() && matches!(self.is, Is::Open { cause: Cause::App, .. }) {
            *self = Self { epoch: self.epoch + 1, ..Self::default() };
        }
    }

    pub fn phase(&self, now: Instant) -> Phase {
        match self.is {
            Is::Closed { since: Some(since), .. } if now < since + self.slow_start => Phase::SlowStart,
            Is::Closed { .. } => Phase::Closed,
            Is::Open { until, probing, .. } if probing || until <= now => Phase::HalfOpen,
            Is::Open { .. } => Phase::Open,
        }
    }

    pub fn since(&self) -> Option<Instant> {
        match self.is {
            Is::Closed { since, .. } => since,
            Is::Open { since, .. } => Some(since),
        }
    }

    pub fn next_probe(&self) -> Option<Instant> {
        match self.is {
            Is::Closed { .. } => None,
            Is::Open { until, .. } => Some(until),
        }
    }
}

/// How far a slow start has come, from 0 to 1.
fn grown(since: Instant, slow_start: Duration, now: Instant) -> f64 {
    let passed = now.saturating_duration_since(since);
    if passed >= slow_start { 1.0 } else { passed.as_secs_f64() / slow_start.as_secs_f64() }
}

/// The room within a slow start; `None` after it.
fn growing(since: Instant, slow_start: Duration, most: usize, now: Instant) -> Option<Room> {
    let passed = now.saturating_duration_since(since);
    if passed >= slow_start || most <= 1 {
        return None;
    }
    let most_ = u128::try_from(most).unwrap_or(u128::MAX);
    let steps = most_.saturating_mul(passed.as_nanos()) / slow_start.as_nanos().max(1);
    let allowed = usize::try_from(steps).unwrap_or(most).clamp(1, most);
    // When the next one is added: rounded up, so that it is there when the time has come.
    let next = slow_start.as_nanos().saturating_mul(allowed as u128 + 1).div_ceil(most_);
    let grows_at = since + Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX)).min(slow_start);
    Some(Room { allowed, grows_at: Some(grows_at), probes: false })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
