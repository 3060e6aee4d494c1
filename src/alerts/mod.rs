//! Alerts: what is wrong, for how long, and who is told.
//!
//! `rules` says what of a [`Sample`] is wrong (pure, over the `window`s that it remembers), `book` how long it has been
//! and when a notice is due (pure too), `notice` how one reads, `tell` brings it to people without ever holding up
//! anything. What a sample is made of is the gateway's to say. Nothing here is on a request's way; what is known of the
//! past (windows, silence, what has been told) begins anew with the process.

mod book;
mod notice;
mod rules;
mod sample;
mod tell;
mod window;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::config::AlertSettings;
use crate::telemetry::Metrics;

use book::Book;
pub use notice::{Alert, Kind, Notice};
use rules::Watcher;
pub use rules::{Rule, Severity};
pub use sample::{DestinationSample, Disk, Expiring, Fetched, OpenBreaker, RouteCounts, RouteSample, Sample};
pub use tell::Targets;

/// What the process knows of alerts; outlives reloads.
#[derive(Debug)]
pub struct Alerts {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct State {
    watcher: Watcher,
    book: Book,
}

/// `GET /alerts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertsStatus {
    /// What notices call this gateway.
    pub gateway: String,
    /// What is wrong now, oldest first.
    pub firing: Vec<Alert>,
    pub targets: Vec<TargetStatus>,
}

/// Who is told, and how the latest notice got there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub target: String,
    /// `webhook`, `slack`, `email` or `command`.
    pub by: String,
    /// When the latest notice was told or given up (RFC 3339); `null` before the first.
    pub last: Option<String>,
    /// Why the latest could not be told.
    pub error: Option<String>,
}

/// What became of a test notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub target: String,
    pub by: String,
    /// `null`: it was told.
    pub error: Option<String>,
}

impl Alerts {
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { state: Mutex::default(), metrics, clock }
    }

    /// Looks at a sample, and tells of what is due. Waits for nobody.
    ///
    /// Must be called within a tokio runtime.
    pub fn look(&self, settings: &AlertSettings, sample: &Sample, targets: &Targets) {
        let now = self.clock.now();
        let notice = {
            let mut state = self.state.lock();
            let looked = state.watcher.look(&settings.rules, sample, now);
            let notice = state.book.enter(looked, settings, now);
            self.metrics.alerts_firing(state.book.by_rule());
            notice
        };
        if let Some(notice) = notice {
            targets.offer(Arc::new(notice), &self.metrics, &self.clock);
        }
    }

    pub fn status(&self, settings: &AlertSettings, targets: &Targets) -> AlertsStatus {
        AlertsStatus {
            gateway: settings.name.clone(),
            firing: self.state.lock().book.firing(),
            targets: targets.status(),
        }
    }

    /// Tells every target that this is a test, and waits for what becomes of it: each has [`tell::PATIENCE`].
    pub async fn test(&self, settings: &AlertSettings, targets: &Targets) -> Vec<Tested> {
        targets.test(Arc::new(Notice::test(settings, self.clock.now()))).await
    }
}

/// A duration as people say it, in at most two units: `2h 5m`.
fn spoken(time: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let secs = time.as_secs();
    let Some(first) = UNITS.iter().position(|(size, _)| secs >= *size) else { return "0s".into() };
    let (size, unit) = UNITS[first];
    let mut text = format!("{}{unit}", secs / size);
    if let Some((smaller, unit)) = UNITS.get(first + 1)
        && secs % size >= *smaller
    {
        text += &format!(" {}{unit}", secs % size / smaller);
    }
    text
}

/// RFC 3339.
fn shown(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod words {
    use super::*;

    #[test]
    fn durations_are_said_in_at_most_two_units() {
        let say = |secs| spoken(Duration::from_secs(secs));
        assert_eq!([say(0), say(59), say(60), say(7500)], ["0s", "59s", "1m", "2h 5m"]);
        assert_eq!([say(86_400), say(90_000), say(86_460)], ["1d", "1d 1h", "1d"]);
    }
}
