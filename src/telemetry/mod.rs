//! Metrics and logs: every definition in one place. Labels are bounded: no path, no event id, no raw event type.
//!
//! `definitions` is the table of all metrics, `instruments` the cheap counters under them, `expose` the text that a
//! scrape gets, `log` where log lines go. What is counted when is decided by whoever calls [`Metrics`].

mod definitions;
mod expose;
mod format;
mod instruments;
mod log;
mod process;
#[cfg(test)]
mod shipped;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::alerts::RouteCounts;
use crate::clock::{Clock, Timestamp};
use crate::reason::Reason;

pub use definitions::{ALL as DEFINITIONS, Definition, In, Kind};
pub use expose::Scrape;
pub use format::Format;
use instruments::{Counter, Histogram, Labelled, Scale};
pub use log::{flush, init};

/// All metrics of the process. Every method is cheap enough for the request path: no lock once a label was seen.
#[derive(Debug, Default)]
pub struct Metrics {
    all: Arc<Instruments>,
}

impl Metrics {
    /// A request was answered. `route` is `""` before one is found; `outcome` is `accepted`, `duplicate`,
    /// `forwarded`, `spilled`, `unwanted`, `passed`, `handshake`, or a reason code.
    pub fn request(&self, route: &str, outcome: &'static str) {
        self.all.routes.with(route, |route| route.outcomes.inc(outcome));
    }
    /// From the end of a request's header to its answer.
    pub fn answered(&self, route: &str, took: Duration) {
        self.all.routes.with(route, |route| route.duration.observe(nanos(took)));
    }
    /// The label of the secret that verified a request.
    pub fn verified(&self, route: &str, label: &str) {
        self.all.routes.with(route, |route| route.labels.with(label, Counter::inc));
    }
    /// A request that verification would have refused was let through.
    pub fn would_refuse(&self, route: &str, reason: &'static str) {
        self.all.routes.with(route, |route| route.would_refuse.inc(reason));
    }
    /// A verified request came by the URL of this client.
    pub fn client_request(&self, route: &str, client: &str) {
        self.all.routes.with(route, |route| route.clients.with(client, Counter::inc));
    }
    /// An append waited this long for its group's sync.
    pub fn appended(&self, took: Duration) {
        self.all.appends.observe(nanos(took));
    }
    /// One group commit: its events and the time of write and sync.
    pub fn committed(&self, events: usize, took: Duration) {
        self.all.commits.observe(nanos(took));
        self.all.commit_events.observe(events as u64);
    }
    /// The buffer refused or failed: `full`, `write_failed`, `stalled`.
    pub fn buffer_trouble(&self, what: &'static str) {
        self.all.buffer_trouble.with(what, Counter::inc);
    }
    /// Quarantine was to keep a refused request: `kept`, `rate`, `busy`, `no_room`, `failed`.
    pub fn quarantined(&self, outcome: &'static str) {
        self.all.quarantined.with(outcome, Counter::inc);
    }
    /// What is in quarantine right now.
    pub fn quarantine_holds(&self, items: usize, bytes: u64) {
        self.all.quarantine_items.store(items as u64, Ordering::Relaxed);
        self.all.quarantine_bytes.store(bytes, Ordering::Relaxed);
    }
    /// An attempt ended: `delivered`, `retry`, `dead`.
    pub fn delivery(&self, destination: &str, outcome: &'static str, took: Duration) {
        self.all.destinations.with(destination, |destination| {
            destination.outcomes.inc(outcome);
            destination.duration.observe(nanos(took));
        });
    }
    /// A delivery was given up without an attempt.
    pub fn given_up(&self, destination: &str) {
        self.all.destinations.with(destination, |destination| destination.outcomes.inc("dead"));
    }
    /// An event of an ordered destination has no order key.
    pub fn order_key_missing(&self, destination: &str) {
        self.all.destinations.with(destination, |destination| destination.keys_missing.inc());
    }
    /// A successful answer to a batch says nothing of each event, although the config says where it would.
    pub fn batch_without_statuses(&self, destination: &str) {
        self.all.destinations.with(destination, |destination| destination.statuses_missing.inc());
    }
    pub fn connection_opened(&self) {
        self.all.connections.inc();
        self.all.connections_open.fetch_add(1, Ordering::Relaxed);
    }
    pub fn connection_closed(&self) {
        self.all.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
    /// A connection ended before a request: `tls_handshake`, `handshake_timeout`, `limit`, `address`.
    pub fn connection_refused(&self, why: &'static str) {
        self.all.connections_refused.with(why, Counter::inc);
    }
    /// Body bytes held in memory right now.
    pub fn body_bytes(&self, now: u64) {
        self.all.body_bytes.store(now, Ordering::Relaxed);
    }
    /// Attempts in flight to a destination right now.
    pub fn in_flight(&self, destination: &str, now: usize) {
        self.all.destinations.with(destination, |destination| {
            destination.in_flight.store(now as u64, Ordering::Relaxed);
        });
    }
    /// Attempts to a destination that may be in flight right now.
    pub fn concurrency_limit(&self, destination: &str, now: usize) {
        self.all.destinations.with(destination, |destination| {
            destination.limit.store(now as u64, Ordering::Relaxed);
        });
    }
    /// What was tried at a destination since the process started.
    pub fn attempts(&self, destination: &str) -> Attempts {
        self.all.destinations.with(destination, DestinationInstruments::attempts)
    }
    /// A config reload: `true` if the new one runs.
    pub fn reloaded(&self, accepted: bool) {
        if accepted { &self.all.reloads_accepted } else { &self.all.reloads_refused }.inc();
    }
    /// Age of a remote key set, and failed fetches of it.
    pub fn keys_fetched(&self, url: &str, ok: bool) {
        self.all.keys.with(&source_of(url), |keys| {
            if ok {
                keys.ok.inc();
                keys.last_ok.store(Clock::System.now().as_secs(), Ordering::Relaxed);
            } else {
                keys.failed.inc();
            }
        });
    }

    /// How many alerts of each rule there are right now.
    pub fn alerts_firing(&self, by_rule: impl Iterator<Item = (&'static str, usize)>) {
        for (rule, count) in by_rule {
            self.all.alerts.with(rule, |firing| firing.store(count as u64, Ordering::Relaxed));
        }
    }
    /// A notice of alerts: `sent`, `failed`, `dropped`.
    pub fn alert_notice(&self, outcome: &'static str) {
        self.all.alert_notices.with(outcome, Counter::inc);
    }
    /// Spans of traces were `exported` to their collector, or `lost` because it could not be reached
    /// or did not keep up.
    pub fn spans(&self, outcome: &'static str, count: u64) {
        self.all.spans.with(outcome, |spans| spans.add(count));
    }
    /// How many of them.
    #[cfg(test)]
    pub fn spans_counted(&self, outcome: &'static str) -> u64 {
        self.all.spans.with(outcome, Counter::get)
    }
    /// What a route was sent since the process started.
    pub fn route_counts(&self, route: &str) -> RouteCounts {
        self.all.routes.with(route, RouteInstruments::counts)
    }
    /// A fetch of a provider's ranges ended: `ok`, `failed`, or `refused`.
    pub fn ranges_fetched(&self, provider: &str, outcome: &'static str) {
        self.all.ranges.with(provider, |ranges| ranges.fetches.with(outcome, Counter::inc));
    }
    /// So many ranges of a provider are in use, as they were at that time.
    pub fn ranges_in_use(&self, provider: &str, count: usize, as_of: Timestamp) {
        self.all.ranges.with(provider, |ranges| {
            ranges.count.store(count as u64, Ordering::Relaxed);
            ranges.as_of.store(as_of.as_secs(), Ordering::Relaxed);
        });
    }

    /// When these metrics were made, which is when the process started, to a few milliseconds.
    pub fn started_at(&self) -> Timestamp {
        self.all.started_at
    }
    /// How long the process runs; does not jump when the wall clock does.
    pub fn uptime(&self) -> Duration {
        self.all.started.elapsed()
    }
    /// Everything in the OpenMetrics text format ([`Format::OpenMetrics`]). Reads `/proc`: not for the request path.
    pub fn expose(&self, scrape: Scrape) -> String {
        expose::text(self.all.clone(), scrape)
    }
}

/// Series that one label may have. They come from config, so this is only a safety net.
const MAX_ROUTES: usize = 1000;
const MAX_DESTINATIONS: usize = 1000;
const MAX_SOURCES: usize = 100;
/// Labels of secrets a route: enough for every rotation, and never one a customer.
const MAX_LABELS_PER_ROUTE: usize = 16;
/// Clients a route that are counted by name: beyond it they share `other`.
const MAX_CLIENTS_PER_ROUTE: usize = 200;
/// Fixed words in code, see the methods above.
const MAX_WORDS: usize = 16;

/// 100 µs to 10 s: from an append on a fast disk to a slow app.
const LATENCY: &[u64] = &{
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    [
        100 * US,
        250 * US,
        500 * US,
        MS,
        2_500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        1_000 * MS,
        2_500 * MS,
        5_000 * MS,
        10_000 * MS,
    ]
};
/// 1 ms to 2 min: apps are slower than disks, and an attempt may take its whole timeout.
const ATTEMPT: &[u64] = &{
    const MS: u64 = 1_000_000;
    [
        MS,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        1_000 * MS,
        2_500 * MS,
        5_000 * MS,
        10_000 * MS,
        30_000 * MS,
        60_000 * MS,
        120_000 * MS,
    ]
};
const GROUP: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/// What the methods add to and a scrape reads.
#[derive(Debug)]
struct Instruments {
    started_at: Timestamp,
    started: Instant,
    routes: Labelled<RouteInstruments>,
    destinations: Labelled<DestinationInstruments>,
    connections: Counter,
    /// Signed: open and close of one connection may be seen in either order.
    connections_open: AtomicI64,
    connections_refused: Labelled<Counter>,
    body_bytes: AtomicU64,
    appends: Histogram,
    commits: Histogram,
    commit_events: Histogram,
    buffer_trouble: Labelled<Counter>,
    quarantined: Labelled<Counter>,
    quarantine_items: AtomicU64,
    quarantine_bytes: AtomicU64,
    reloads_accepted: Counter,
    reloads_refused: Counter,
    keys: Labelled<KeyInstruments>,
    alerts: Labelled<AtomicU64>,
    alert_notices: Labelled<Counter>,
    spans: Labelled<Counter>,
    ranges: Labelled<RangeInstruments>,
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            started_at: Clock::System.now(),
            started: Instant::now(),
            routes: Labelled::new(MAX_ROUTES, RouteInstruments::new),
            destinations: Labelled::new(MAX_DESTINATIONS, DestinationInstruments::new),
            connections: Counter::default(),
            connections_open: AtomicI64::new(0),
            connections_refused: Labelled::new(MAX_WORDS, Counter::default),
            body_bytes: AtomicU64::new(0),
            appends: Histogram::new(LATENCY, Scale::Nanoseconds),
            commits: Histogram::new(LATENCY, Scale::Nanoseconds),
            commit_events: Histogram::new(GROUP, Scale::Number),
            buffer_trouble: Labelled::new(MAX_WORDS, Counter::default),
            quarantined: Labelled::new(MAX_WORDS, Counter::default),
            quarantine_items: AtomicU64::new(0),
            quarantine_bytes: AtomicU64::new(0),
            reloads_accepted: Counter::default(),
            reloads_refused: Counter::default(),
            keys: Labelled::new(MAX_SOURCES, KeyInstruments::default),
            alerts: Labelled::new(MAX_WORDS, AtomicU64::default),
            alert_notices: Labelled::new(MAX_WORDS, Counter::default),
            spans: Labelled::new(MAX_WORDS, Counter::default),
            ranges: Labelled::new(MAX_SOURCES, RangeInstruments::new),
        }
    }
}

#[derive(Debug)]
struct RouteInstruments {
    outcomes: Outcomes,
    would_refuse: Outcomes,
    duration: Histogram,
    labels: Labelled<Counter>,
    clients: Labelled<Counter>,
}

impl RouteInstruments {
    fn new() -> Self {
        Self {
            outcomes: Outcomes::new(request_outcome, REQUEST_OUTCOMES),
            would_refuse: Outcomes::new(request_outcome, REQUEST_OUTCOMES),
            duration: Histogram::new(LATENCY, Scale::Nanoseconds),
            labels: Labelled::new(MAX_LABELS_PER_ROUTE, Counter::default),
            clients: Labelled::new(MAX_CLIENTS_PER_ROUTE, Counter::default),
        }
    }

    fn counts(&self) -> RouteCounts {
        let mut counts = RouteCounts::default();
        for (outcome, n) in self.outcomes.read() {
            counts.requests += n;
            match outcome {
                "duplicate" => {
                    counts.duplicates += n;
                    counts.arrived += n;
                }
                "accepted" | "forwarded" | "passed" | "spilled" | "unwanted" => counts.arrived += n,
                refused if Reason::from_code(refused).is_some_and(|r| r.status() == 401) => {
                    counts.unverified += n
                }
                _ => {}
            }
        }
        let let_through: u64 = self.would_refuse.read().map(|(_, n)| n).sum();
        counts.unverified += let_through;
        counts.arrived = counts.arrived.saturating_sub(let_through);
        counts
    }
}

#[derive(Debug)]
struct DestinationInstruments {
    outcomes: Outcomes,
    duration: Histogram,
    in_flight: AtomicU64,
    keys_missing: Counter,
    statuses_missing: Counter,
    /// [`NO_LIMIT`] before the first.
    limit: AtomicU64,
}

const NO_LIMIT: u64 = u64::MAX;

/// What was tried at a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    pub in_flight: u64,
    /// Attempts that may be in flight right now; `None` where nothing is delivered from the buffer.
    pub limit: Option<u64>,
    /// Attempts that ended so.
    pub delivered: u64,
    pub retried: u64,
    pub dead: u64,
}

impl DestinationInstruments {
    fn new() -> Self {
        Self {
            outcomes: Outcomes::new(delivery_outcome, 4),
            duration: Histogram::new(ATTEMPT, Scale::Nanoseconds),
            in_flight: AtomicU64::new(0),
            limit: AtomicU64::new(NO_LIMIT),
            keys_missing: Counter::default(),
            statuses_missing: Counter::default(),
        }
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != NO_LIMIT)
    }

    fn attempts(&self) -> Attempts {
        let mut attempts = Attempts {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            limit: self.limit(),
            ..Attempts::default()
        };
        for (outcome, n) in self.outcomes.read() {
            match outcome {
                "delivered" => attempts.delivered = n,
                "retry" => attempts.retried = n,
                "dead" => attempts.dead = n,
                _ => {}
            }
        }
        attempts
    }
}

#[derive(Debug, Default)]
struct KeyInstruments {
    ok: Counter,
    failed: Counter,
    /// Unix seconds; 0 before the first.
    last_ok: AtomicU64,
}

#[derive(Debug)]
struct RangeInstruments {
    fetches: Labelled<Counter>,
    count: AtomicU64,
    /// Unix seconds.
    as_of: AtomicU64,
}

impl RangeInstruments {
    fn new() -> Self {
        let fetches = Labelled::new(MAX_WORDS, Counter::default);
        Self { fetches, count: AtomicU64::new(0), as_of: AtomicU64::new(0) }
    }
}

/// A counter for each of a fixed set of words, made when its word is first used.
#[derive(Debug)]
struct Outcomes {
    place: fn(&str) -> (usize, &'static str),
    counters: Box<[OnceLock<Box<Outcome>>]>,
}

#[derive(Debug)]
struct Outcome {
    word: &'static str,
    counter: Counter,
}

impl Outcomes {
    /// `place` gives the place (below `count`) and the shown form of a word.
    fn new(place: fn(&str) -> (usize, &'static str), count: usize) -> Self {
        Self { place, counters: (0..count).map(|_| OnceLock::new()).collect() }
    }
    fn inc(&self, word: &str) {
        let (place, word) = (self.place)(word);
        self.counters[place]
            .get_or_init(|| Box::new(Outcome { word, counter: Counter::default() }))
            .counter
            .inc();
    }
    fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters.iter().filter_map(|slot| slot.get()).map(|of| (of.word, of.counter.get()))
    }
}

/// Outcomes of requests that are no refusals. The common ones first: a handful of comparisons is cheaper than a hash.
const WORDS: [&str; 7] = ["accepted", "forwarded", "duplicate", "passed", "handshake", "spilled", "unwanted"];
/// These, all reasons, and one for what is neither.
const REQUEST_OUTCOMES: usize = WORDS.len() + Reason::ALL.len() + 1;

fn request_outcome(word: &str) -> (usize, &'static str) {
    let words = WORDS.into_iter().chain(Reason::ALL.iter().map(|reason| reason.code()));
    words
        .enumerate()
        .find(|(_, known)| *known == word)
        .unwrap_or((WORDS.len() + Reason::ALL.len(), instruments::OTHER))
}

fn delivery_outcome(word: &str) -> (usize, &'static str) {
    match word {
        "delivered" => (0, "delivered"),
        "retry" => (1, "retry"),
        "dead" => (2, "dead"),
        _ => (3, instruments::OTHER),
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// A key set's URL without what may be secret in it (user info and query).
fn source_of(url: &str) -> String {
    match url.parse::<http::Uri>() {
        Ok(uri) => {
            let host = uri.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default());
            format!("{}{}", host.unwrap_or_default(), uri.path())
        }
        Err(_) => instruments::OTHER.to_owned(),
    }
}
