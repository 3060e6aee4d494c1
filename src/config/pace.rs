//! How an app is spared, as checked: its breaker. How it is written is `raw`'s.

use std::fmt;
use std::time::Duration;

use crate::verify::Extract;

/// When deliveries are held because the app can't take them. `off` is `None` where this stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it. Default 5.
    pub failures: u32,
    /// Failures among the attempts of the `window`, in percent, that open it. Default 50.
    pub share_percent: u8,
    /// Default 1 min.
    pub window: Duration,
    /// Attempts in the window below which the share says nothing. Default 20.
    pub min_attempts: u32,
    /// From its opening, or a failed probe, to the next probe. Default 30 s.
    pub probe_after: Duration,
    /// From its closing until concurrency and rate are what they were. Default 30 s.
    pub slow_start: Duration,
    /// The most that an app's `Retry-After` is obeyed: `retry.max`, and inline a minute, because senders wait.
    pub longest_pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            share_percent: 50,
            window: Duration::from_secs(60),
            min_attempts: 20,
            probe_after: Duration::from_secs(30),
            slow_start: Duration::from_secs(30),
            longest_pause: Duration::from_secs(3600),
        }
    }
}

/// How fast attempts may begin: `count` in each `per`, evenly, and up to `burst` at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
    /// At least 1. Default: 50 ms worth of the rate.
    pub burst: u32,
}

impl fmt::Display for Rate {
    /// As it is written: `50/s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{}/s", self.count),
            60 => write!(f, "{}/m", self.count),
            3600 => write!(f, "{}/h", self.count),
            _ => write!(f, "{}/{:?}", self.count, self.per),
        }
    }
}

/// Which server of a destination gets the next request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Balancing {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastInFlight,
    /// The first that is well, in the order written.
    Failover,
    /// The same for all events with the same value there, as long as it is well; what has none takes turns.
    Hash { by: Extract },
}

/// How the servers of a destination are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub path: String,
    /// Default 5 s.
    pub every: Duration,
    /// Default 2 s.
    pub timeout: Duration,
    /// Statuses that say that it is. Default 200.
    pub status: Vec<u16>,
    /// Good checks in a row until it is up again. Default 2.
    pub rise: u32,
    /// Bad checks in a row until it is down. Default 3.
    pub fall: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".into(),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            status: vec![200],
            rise: 2,
            fall: 3,
        }
    }
}
