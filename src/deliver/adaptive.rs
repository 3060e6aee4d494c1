//! How many attempts an app bears at once, found out by its latency. Pure: the time comes with each call.
//!
//! What an answer takes when the app has little to do is the *base*. It is measured at the start and then now and then,
//! for which the limit comes down to a quarter for one window (a *look*). In the windows between, answers that take up to
//! [`TOLERANCE`] times the base are well enough: the limit grows by its square root. Beyond, it shrinks by as much as they
//! take longer, to a half at most; failures of the app shrink it too. An app that works on `n` events at once and lets
//! others wait comes to about twice `n`: busy, with as many waiting as it works on.
//!
//! A limit that is not used up does not grow: nothing was learned of what is above it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::breaker::Outcome;
use crate::config::Destination;

/// By how much answers may take longer than the base.
const TOLERANCE: f64 = 2.0;
/// The share of failures that is no sign of load.
const TOLERATED_FAILURES: f64 = 0.1;
/// The most that one window takes off.
const LEAST_GRADIENT: f64 = 0.5;
/// A window has as many answers as the limit, and at least these, over at least this time.
const LEAST_SAMPLES: u32 = 16;
const LEAST_WINDOW: Duration = Duration::from_millis(100);
/// Windows between two looks at the base.
const LOOK_EVERY: u32 = 50;
/// What the limit comes down to for a look.
const LOOK_SHARE: f64 = 0.25;
/// A base that seems to have grown is believed by half, lest one odd window spoil it.
const BELIEVED: f64 = 0.5;

/// The bounds that the config sets: `1 <= min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub min: usize,
    pub max: usize,
}

impl Bounds {
    /// `None` where the destination's concurrency is fixed.
    pub fn of(destination: &Destination) -> Option<Self> {
        let min = destination.adaptive?.max(1);
        Some(Self { min, max: destination.concurrency.max(min) })
    }
}

/// One destination's limit, across reloads.
#[derive(Debug, Default)]
pub(super) struct Adaptive {
    /// `None` before the first attempt.
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    limit: f64,
    /// Seconds; `None` before the first look.
    base: Option<f64>,
    stage: Stage,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// The base is measured; afterwards the limit is what it was.
    Look {
        back_to: f64,
    },
    Steady {
        windows_left: u32,
    },
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// Attempts that began earlier say nothing about this limit.
    counts_from: Instant,
    answers: u32,
    failures: u32,
    /// Of the answers.
    took: Duration,
    /// The most attempts in flight.
    peak: usize,
}

impl Window {
    fn new(began: Instant, counts_from: Instant) -> Self {
        Self { began, counts_from, answers: 0, failures: 0, took: Duration::ZERO, peak: 0 }
    }
}

impl Adaptive {
    /// How many attempts may be in flight now.
    pub fn limit(&self, bounds: Bounds) -> usize {
        self.state.lock().as_ref().map_or(bounds.min, |state| state.limit(bounds))
    }

    /// An attempt begins; with it so many are in flight.
    pub fn begins(&self, bounds: Bounds, in_flight: usize, now: Instant) {
        let mut state = self.state.lock();
        let state = state.get_or_insert_with(|| State::new(bounds, now));
        state.window.peak = state.window.peak.max(in_flight);
    }

    /// An attempt that began at `began` has ended.
    pub fn ends(&self, bounds: Bounds, began: Instant, outcome: Outcome, now: Instant) {
        if let Some(state) = &mut *self.state.lock() {
            state.ends(bounds, began, outcome, now);
        }
    }
}

impl State {
    fn new(bounds: Bounds, now: Instant) -> Self {
        let limit = float(bounds.min);
        Self { limit, base: None, stage: Stage::Look { back_to: limit }, window: Window::new(now, now) }
    }

    fn limit(&self, bounds: Bounds) -> usize {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped to what a `usize` held
        let whole = clamped(self.limit, bounds) as usize;
        whole.clamp(bounds.min, bounds.max)
    }

    fn ends(&mut self, bounds: Bounds, began: Instant, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Well if began >= self.window.counts_from => {
                self.window.answers = self.window.answers.saturating_add(1);
                self.window.took += now.saturating_duration_since(began);
            }
            Outcome::Sick { .. } => self.window.failures = self.window.failures.saturating_add(1),
            // It says nothing about the app, or about another limit than this one.
            Outcome::Well | Outcome::Ours | Outcome::Unknown | Outcome::Unused => return,
        }
        let samples = self.window.answers.saturating_add(self.window.failures);
        let enough =
            usize::try_from(samples).unwrap_or(usize::MAX) >= self.limit(bounds).max(LEAST_SAMPLES as usize);
        if enough && now.saturating_duration_since(self.window.began) >= LEAST_WINDOW {
            self.close(bounds, now);
        }
    }

    /// Draws the conclusion from a window, and begins the next.
    fn close(&mut self, bounds: Bounds, now: Instant) {
        let Window { began, answers, failures, took, peak, .. } = self.window;
        let mean = (answers > 0).then(|| took.as_secs_f64() / f64::from(answers));
        let limit = clamped(self.limit, bounds);
        match (self.stage, mean) {
            // A look at an app that only fails has shown nothing: it goes on, as low as it has come.
            (Stage::Look { back_to }, None) => {
                self.limit = clamped(limit * LEAST_GRADIENT, bounds);
                self.stage = Stage::Look { back_to: back_to * LEAST_GRADIENT };
                self.window = Window::new(now, now);
            }
            (Stage::Look { back_to }, Some(mean)) => {
                self.base = Some(match self.base {
                    Some(base) if mean > base => base + (mean - base) * BELIEVED,
                    _ => mean,
                });
                self.limit = clamped(back_to, bounds);
                self.stage = Stage::Steady { windows_left: LOOK_EVERY };
                self.window = Window::new(now, now);
            }
            (Stage::Steady { windows_left }, mean) => {
                let slowed = match (self.base, mean) {
                    (Some(base), Some(mean)) => TOLERANCE * base / mean.max(f64::MIN_POSITIVE),
                    _ => 1.0,
                };
                let failed = f64::from(failures) / f64::from(failures.saturating_add(answers)).max(1.0);
                let well = 1.0 - (failed - TOLERATED_FAILURES).max(0.0);
                let gradient = (slowed.min(1.0) * well).max(LEAST_GRADIENT);
                let is_used_up = peak >= self.limit(bounds);
                let next = match gradient < 1.0 {
                    true => limit * gradient,
                    false if is_used_up => limit + limit.sqrt(),
                    false => limit,
                };
                let next = clamped(next, bounds);
                if windows_left > 0 {
                    self.limit = next;
                    self.stage = Stage::Steady { windows_left: windows_left - 1 };
                    // Slow answers to attempts of the window before count: else only the quick ones would.
                    self.window = Window::new(now, began);
                } else {
                    self.limit = clamped(next * LOOK_SHARE, bounds);
                    self.stage = Stage::Look { back_to: next };
                    self.window = Window::new(now, now);
                }
            }
        }
    }
}

fn clamped(limit: f64, bounds: Bounds) -> f64 {
    limit.min(float(bounds.max)).max(float(bounds.min))
}

/// Exact: the config allows 65 536 at most.
#[allow(clippy::cast_precision_loss)]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "adaptive_tests.rs"]
mod tests;
