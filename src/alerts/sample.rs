//! What the rules look at: the gateway at one moment.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

/// The gateway at one moment. What could not be asked is `None`, and the rules then stay as they were.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub destinations: Option<Vec<DestinationSample>>,
    pub disk: Option<Disk>,
    /// Why the buffer takes no events; `None`: it does.
    pub closed: Option<String>,
    pub breakers: Vec<OpenBreaker>,
    /// Those of the config that runs.
    pub routes: Vec<RouteSample>,
    pub certificates: Vec<Expiring>,
    pub secrets: Vec<Expiring>,
    pub keys: Vec<Fetched>,
    /// Providers' lists of ranges that are fetched.
    pub ranges: Vec<Fetched>,
}

/// A destination's deliveries.
#[derive(Clone, Debug)]
pub struct DestinationSample {
    pub name: Arc<str>,
    pub backlog: u64,
    pub dead: u64,
    /// When the oldest waiting one was accepted.
    pub oldest: Option<Timestamp>,
    /// Keys of an ordered destination that stand still, and since when the first of them does.
    pub stuck: Option<(u64, Timestamp)>,
}

/// The buffer on disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub used: u64,
    /// New events are refused when so much is used ...
    pub max: u64,
    pub free: u64,
    /// ... or less than this is free.
    pub min_free: u64,
}

/// A breaker that holds deliveries back.
#[derive(Clone, Debug)]
pub struct OpenBreaker {
    pub destination: Arc<str>,
    pub since: Timestamp,
}

#[derive(Clone, Debug)]
pub struct RouteSample {
    pub name: Arc<str>,
    pub expect_every: Option<Duration>,
    pub counts: RouteCounts,
}

/// What a route was sent since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounts {
    /// All requests.
    pub requests: u64,
    /// Those that failed verification, whether they were refused or only would have been.
    pub unverified: u64,
    pub duplicates: u64,
    /// Those of the sender itself: new events and repeats.
    pub arrived: u64,
}

/// A certificate or secret, and when it ends.
#[derive(Clone, Debug)]
pub struct Expiring {
    pub name: Arc<str>,
    pub ends: Timestamp,
}

/// Something that is fetched again and again.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub url: Arc<str>,
    /// The last good fetch; `None`: never yet.
    pub at: Option<Timestamp>,
    /// Why the latest fetch failed.
    pub error: Option<String>,
    /// Why what came was not believed: worth a word at once, however fresh the last good one is.
    pub refused: Option<String>,
}
