//! What the API answers, as types: written by the handlers, read by the CLI. Times are RFC 3339 in UTC.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::alerts::Tested;
use crate::buffer::{Attempt, AttemptOutcome, BatchPart, Delivery, DeliveryState, Event, Head, SealingStats};

use crate::gateway::{LastReload, ReloadOutcome};
use crate::keys::KeySetStatus;
use crate::ranges::RangesStatus;

use super::redact::Redact;

mod items;

pub use items::*;

/// Bytes of a body that `GET /events/{id}` shows; the whole one is at `/events/{id}/body`.
pub const MAX_SHOWN_BODY: usize = 256 * 1024;

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
    /// The last good fetch; `null`: never yet, so that nothing verifies.
    pub fetched_at: Option<String>,
    pub age_seconds: Option<u64>,
    /// Why the latest fetch failed; `null` if it did not.
    pub error: Option<String>,
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
        let KeySetStatus { url, keys, fetched_at, age_s: age_seconds, error, alarming: _ } = set;
        Self { url, keys, fetched_at: fetched_at.map(|at| at.to_string()), age_seconds, error }
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

/// `GET /events` and `GET /dead`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    pub events: Vec<EventSummary>,
    /// Pass as `after` for the next page; `null` at the end. A page may be short and still have a next one: the time
    /// for one is bounded.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventSummary {
    pub id: String,
    pub route: String,
    pub received_at: String,
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub method: String,
    /// Path and query; values of parameters that look secret are replaced by `(hidden)`.
    pub target: String,
    pub source: String,
    pub verified: String,
    /// Why verification would have refused it: it was let through by `enforce: observe` or admitted by force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_refuse: Option<String>,
    /// Where it was before an operator admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<FromQuarantine>,
    pub idempotency_key: Option<String>,
    /// Which event of its request it was, where the request was split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchView>,
    pub body_bytes: u64,
    pub deliveries: Vec<DeliveryView>,
}

/// `GET /events/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventDetail {
    #[serde(flatten)]
    pub summary: EventSummary,
    pub host: String,
    pub scheme: String,
    pub headers: Vec<HeaderView>,
    pub body: BodyView,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderView {
    pub name: String,
    pub value: String,
    /// The value is (or may be) a secret and stands as `(hidden)`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// The value's bytes, where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// One of several events of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchView {
    /// Of the request; the same for all of its events.
    pub id: String,
    /// From 1.
    pub number: u32,
    /// Those that were dropped as duplicates included.
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyView {
    /// Of the whole body.
    pub bytes: u64,
    pub base64: String,
    /// The same as text, if it is UTF-8.
    pub text: Option<String>,
    /// Only the first [`MAX_SHOWN_BODY`] bytes are shown.
    pub truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryView {
    pub destination: String,
    /// `pending`, `retrying`, `delivered` or `dead`.
    pub state: String,
    /// When it is due again (`retrying`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// When it was delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Attempts since acceptance or the last replay.
    pub attempts: u32,
    pub since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<AttemptView>,
    /// The latest attempts, oldest first; only when one event is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    pub at: String,
    pub took_ms: u64,
    /// The app's status, if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `POST /events/replay`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Deliveries that are pending again.
    pub replayed: u64,
    /// Of the ids given: those of which there was nothing to replay (unknown, or nothing of them is finished).
    pub untouched: Vec<String>,
}

/// Answer of `POST /events/give-up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// Deliveries that are dead letters now, and dead letters that hold their keys no longer.
    pub given_up: u64,
    /// Deliveries that were in flight: their answers settle them.
    pub under_way: u64,
    /// Of the ids given: those of which nothing was given up (unknown, in flight, or nothing of them waits).
    pub untouched: Vec<String>,
}

/// Answer of `POST /events/purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Events deleted.
    pub purged: u64,
    /// Of the ids given: those that were not deleted (unknown, or a delivery is under way).
    pub untouched: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
fn is_false(value: &bool) -> bool {
    !*value
}

impl EventSummary {
    pub(super) fn new(event: &Head, deliveries: &[Delivery], redact: &Redact) -> Self {
        Self {
            id: event.id.to_string(),
            route: event.route.to_string(),
            received_at: event.received_at.to_string(),
            event_type: redact.event_type(event.event_type.as_deref()),
            method: event.method.to_string(),
            target: redact.target(&event.target),
            source: event.source.to_string(),
            verified: event.verified.to_string(),
            would_refuse: event.origin.would_refuse.map(|reason| reason.code().to_owned()),
            quarantine: event
                .origin
                .quarantine
                .map(|(id, at)| FromQuarantine { id: id.to_string(), received_at: at.to_string() }),
            idempotency_key: redact.idempotency_key(event.idempotency_key.as_deref()),
            batch: event.origin.batch.map(|BatchPart { id, number, count }| BatchView {
                id: id.to_string(),
                number,
                count,
            }),
            body_bytes: event.body_bytes,
            deliveries: deliveries.iter().map(|d| DeliveryView::new(d, History::Last)).collect(),
        }
    }
}

impl EventDetail {
    pub(super) fn new(event: &Event, deliveries: &[Delivery], redact: &Redact) -> Self {
        let summary = EventSummary {
            deliveries: deliveries.iter().map(|d| DeliveryView::new(d, History::Whole)).collect(),
            ..EventSummary::new(&Head::from(event), &[], redact)
        };
        let headers =
            event.headers.iter().map(|(name, value)| HeaderView::new(name, value, redact)).collect();
        Self {
            summary,
            host: event.authority.clone(),
            scheme: event.scheme.as_str().to_owned(),
            headers,
            body: BodyView { bytes: event.body.len() as u64, ..BodyView::new(&redact.body(&event.body)) },
        }
    }
}

impl HeaderView {
    pub(super) fn new(name: &str, value: &[u8], redact: &Redact) -> Self {
        let hidden = redact.hides(name);
        let (value, value_base64) = match std::str::from_utf8(value) {
            _ if hidden => ("(hidden)".to_owned(), None),
            Ok(text) => (text.to_owned(), None),
            Err(_) => (String::from_utf8_lossy(value).into_owned(), Some(STANDARD.encode(value))),
        };
        Self { name: name.to_owned(), value, hidden, value_base64 }
    }
}

impl BodyView {
    pub(super) fn new(body: &[u8]) -> Self {
        let shown = &body[..body.len().min(MAX_SHOWN_BODY)];
        let truncated = shown.len() < body.len();
        let text = match std::str::from_utf8(shown) {
            Ok(text) => Some(text),
            // The cut went through a character.
            Err(e) if truncated && e.error_len().is_none() => {
                std::str::from_utf8(&shown[..e.valid_up_to()]).ok()
            }
            Err(_) => None,
        };
        Self {
            bytes: body.len() as u64,
            base64: STANDARD.encode(shown),
            text: text.map(str::to_owned),
            truncated,
        }
    }
}

/// How much of a delivery's attempts is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    Last,
    Whole,
}

impl DeliveryView {
    fn new(delivery: &Delivery, history: History) -> Self {
        let (next_at, at, reason) = match &delivery.state {
            DeliveryState::Pending => (None, None, None),
            DeliveryState::Retrying { next_at } => (Some(next_at), None, None),
            DeliveryState::Delivered { at } => (None, Some(at), None),
            DeliveryState::Dead { at, reason } => (None, Some(at), Some(reason.code().to_owned())),
        };
        Self {
            destination: delivery.destination.to_string(),
            state: delivery.state.word().to_owned(),
            next_at: next_at.map(ToString::to_string),
            at: at.map(ToString::to_string),
            reason,
            attempts: delivery.attempts,
            since: delivery.since.to_string(),
            last: delivery.history.last().map(AttemptView::new),
            history: match history {
                History::Last => Vec::new(),
                History::Whole => delivery.history.iter().map(AttemptView::new).collect(),
            },
        }
    }
}

impl AttemptView {
    fn new(attempt: &Attempt) -> Self {
        let (status, error) = match &attempt.outcome {
            AttemptOutcome::Answered { status } => (Some(*status), None),
            AttemptOutcome::Failed { error } => (None, Some(error.clone())),
        };
        Self { at: attempt.at.to_string(), took_ms: attempt.took_ms, status, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_cut_within_a_character_is_still_text() {
        let body = "ä".repeat(MAX_SHOWN_BODY); // two bytes each
        let odd = format!("x{body}");
        let view = BodyView::new(odd.as_bytes());
        assert!(view.truncated && view.bytes == odd.len() as u64);
        assert_eq!(view.text.unwrap().len(), MAX_SHOWN_BODY - 1);
        assert_eq!(STANDARD.decode(view.base64).unwrap().len(), MAX_SHOWN_BODY);
    }

    #[test]
    fn a_body_that_is_no_text_has_no_text() {
        let view = BodyView::new(b"\xff\xfe");
        assert_eq!((view.text, view.truncated, view.base64.as_str()), (None, false, "//4="));
        assert_eq!(BodyView::new(b"").text.as_deref(), Some(""));
    }
}
