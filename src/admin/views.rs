//! What the API answers, as types: written by the handlers, read by the CLI. Times are RFC 3339 in UTC.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::alerts::Tested;
use crate::buffer::SealingStats;
use crate::gateway::{LastReload, ReloadOutcome};
use crate::keys::KeySetStatus;
use crate::ranges::RangesStatus;

mod events;
mod items;

pub use events::*;
pub use items::*;

/// What of the running config may be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    pub config_hash: String,
    pub admin: String,
    pub listeners: Vec<ListenerSetup>,
    pub routes: Vec<RouteSetup>,
}

impl Setup {
    /// The names (`route/destination`) of all that is delivered to out of the buffer.
    pub(super) fn buffered(&self) -> BTreeSet<String> {
        let routes = self.routes.iter().filter(|route| route.is_buffered());
        routes.flat_map(|route| route.destinations.iter().map(|d| d.name.clone())).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSetup {
    pub address: String,
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSetup {
    pub name: String,
    /// `null`: any.
    pub host: Option<String>,
    pub path: String,
    /// Empty: any.
    pub methods: Vec<String>,
    pub mode: String,
    /// `on`; `observe` where what verification refuses is let through; `none` where nothing is verified.
    #[serde(default)]
    pub verification: String,
    pub destinations: Vec<DestinationSetup>,
}

impl RouteSetup {
    /// Whether its events may come into the buffer, to be delivered later.
    pub fn is_buffered(&self) -> bool {
        matches!(self.mode.as_str(), "buffer" | "spill")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationSetup {
    pub name: String,
    pub upstreams: Vec<String>,
    /// Attempts in flight at once, at most.
    pub concurrency: usize,
    /// How many attempts may begin, such as `50/s`; `null`: as fast as it takes them.
    #[serde(default)]
    pub rate: Option<String>,
}

/// `POST /alerts/test`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertsTested {
    pub targets: Vec<Tested>,
}

/// `GET /status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub started_at: String,
    pub uptime_seconds: u64,
    pub ready: bool,
    /// Why not, if not.
    pub reasons: Vec<String>,
    #[serde(flatten)]
    pub setup: Setup,
    /// `null` if there was none since the start.
    #[serde(default)]
    pub last_reload: Option<ReloadStatus>,
    /// Remote key sets (`jwks: https://…`).
    #[serde(default)]
    pub key_sets: Vec<KeySet>,
    /// Secrets that have an end.
    #[serde(default)]
    pub secrets: Vec<SecretEnd>,
    /// The ranges of providers in use (`allow: [provider]`).
    #[serde(default)]
    pub ranges: Vec<RangesInUse>,
    /// `null` if the buffer did not answer in time.
    pub buffer: Option<BufferStatus>,
    pub destinations: Vec<DestinationStatus>,
    /// What each route was sent since the start.
    #[serde(default)]
    pub traffic: Vec<RouteTraffic>,
    /// `null` if it is off and empty.
    #[serde(default)]
    pub quarantine: Option<QuarantineStatus>,
}

/// What a route was sent since the gateway started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTraffic {
    pub route: String,
    pub requests: u64,
    /// Of them: those of the sender itself, new events and repeats.
    pub arrived: u64,
    pub duplicates: u64,
    /// Those that verification refused, or would have refused.
    pub unverified: u64,
}

/// The latest reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    pub at: String,
    /// Why the new config was refused; `null` if it runs.
    pub problem: Option<String>,
}

/// A secret that has an end (`until`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnd {
    pub route: String,
    /// Its label, or where it stands in the rule.
    pub label: String,
    pub until: String,
    /// Whether it is past its end, and verifies nothing any more.
    pub ended: bool,
}

/// One remote key set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    pub url: String,
    /// Keys that may verify.
    pub keys: usize,
    /// The last good fetch; `null`: never yet, so that nothing verifies with it.
    pub fetched_at: Option<String>,
    pub age_seconds: Option<u64>,
    /// Why the latest fetch failed; `null` if it did not.
    pub error: Option<String>,
    /// Not a key set but, summed up, so many names in requests that were never a key's; senders whose keys are known have
    /// nothing to do with them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_names: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for it
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One provider's address ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangesInUse {
    pub provider: String,
    pub ranges: usize,
    /// `list` (fetched, now or before a restart) or `snapshot` (of the pack).
    pub source: String,
    /// When the list was fetched, or the day of the snapshot.
    pub as_of: String,
    pub age_seconds: u64,
    /// Where the list is published; `null`: not for machines, so that only a new pack brings new ranges.
    pub list: Option<String>,
    /// Why the latest list was not taken; `null` if it was.
    pub error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferStatus {
    /// `open`, `full`, `failed` or `closed`: whether new events are taken.
    pub admission: String,
    /// Why not, if not.
    pub detail: Option<String>,
    pub events: u64,
    pub disk_bytes: u64,
    pub max_bytes: u64,
    pub free_bytes: u64,
    /// Under which keys events are sealed; `null` where nothing is.
    #[serde(default)]
    pub sealing: Option<SealingStats>,
}

impl From<LastReload> for ReloadStatus {
    fn from(last: LastReload) -> Self {
        let problem = match last.outcome {
            ReloadOutcome::Accepted { .. } => None,
            ReloadOutcome::Refused { problem } => Some(problem),
        };
        Self { at: last.at.to_string(), problem }
    }
}

impl From<KeySetStatus> for KeySet {
    fn from(set: KeySetStatus) -> Self {
        let KeySetStatus { url, keys, fetched_at, age_s: age_seconds, error, unknown_names, alarming: _ } =
            set;
        Self { url, keys, fetched_at: fetched_at.map(|at| at.to_string()), age_seconds, error, unknown_names }
    }
}

impl From<RangesStatus> for RangesInUse {
    fn from(of: RangesStatus) -> Self {
        let RangesStatus { provider, ranges, source, as_of, age_s: age_seconds, list, error, refused: _ } =
            of;
        let (source, as_of) = (source.word().to_owned(), as_of.to_string());
        Self { provider, ranges, source, as_of, age_seconds, list, error }
    }
}

/// One entry of `GET /destinations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationStatus {
    pub destination: String,
    /// Whether the running config has it; deliveries of one that it has no longer wait until it is back.
    pub configured: bool,
    pub backlog: u64,
    pub dead: u64,
    /// When the oldest delivery that is pending or retrying was accepted.
    pub oldest: Option<String>,
    pub oldest_age_seconds: Option<u64>,
    /// Attempts under way.
    #[serde(default)]
    pub in_flight: u64,
    /// Attempts that may be under way now: what `concurrency` (also adaptive) and a slow start allow, 0 while it is held.
    /// `null` where nothing is delivered from the buffer.
    #[serde(default)]
    pub concurrency_limit: Option<u64>,
    /// How many attempts may begin, as the config says: `50/s`; `null`: as fast as it takes them.
    #[serde(default)]
    pub rate: Option<String>,
    /// Attempts out of the buffer since the start, by what became of the delivery.
    #[serde(default)]
    pub attempts: AttemptCounts,
    /// Whether the app is spared; `null` before anything was sent to it.
    #[serde(default)]
    pub breaker: Option<BreakerView>,
    /// Since when an operator has paused it, by itself or with its route.
    #[serde(default)]
    pub paused_since: Option<String>,
    /// Until when its schedule keeps it closed.
    #[serde(default)]
    pub closed_until: Option<String>,
    /// How its servers stand.
    #[serde(default)]
    pub upstreams: Vec<UpstreamView>,
}

/// Attempts by what became of the delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptCounts {
    pub delivered: u64,
    /// To be tried again.
    pub retried: u64,
    /// Given up: dead letters.
    pub dead: u64,
}

/// One server of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamView {
    pub upstream: String,
    /// `up`, `skipped` (requests failed lately) or `down` (health checks fail).
    pub state: String,
    pub in_flight: usize,
}

/// Body of `POST /pause` and `POST /resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseOf {
    pub route: String,
    /// Without its route's name; without it the whole route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// Answer of `POST /pause` and `POST /resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseChanged {
    /// `route` or `route/destination`.
    pub name: String,
    /// `false`: it was so already.
    pub changed: bool,
}

/// How a destination's breaker stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    /// `closed`, `slow_start`, `half_open` or `open`.
    pub state: String,
    /// Since when it is not closed, or since when it is closed again; `null` if it was never open.
    pub since: Option<String>,
    /// When the next delivery probes; `null` if nothing is held.
    pub next_probe: Option<String>,
    /// The failure that opened it.
    pub why: Option<String>,
}

/// `GET /destinations`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destinations {
    pub destinations: Vec<DestinationStatus>,
}

/// `GET /readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    pub reasons: Vec<String>,
}
