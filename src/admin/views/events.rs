//! What the API answers about events, their deliveries and what is done with them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::redact::Redact;
use super::FromQuarantine;
use crate::buffer::{Attempt, AttemptOutcome, BatchPart, Delivery, DeliveryState, Event, Head};

/// Bytes of a body that `GET /events/{id}` shows; the whole one is at `/events/{id}/body`.
pub const MAX_SHOWN_BODY: usize = 256 * 1024;

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
    pub(in crate::admin) fn new(event: &Head, deliveries: &[Delivery], redact: &Redact) -> Self {
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
    pub(in crate::admin) fn new(event: &Event, deliveries: &[Delivery], redact: &Redact) -> Self {
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
    pub(in crate::admin) fn new(name: &str, value: &[u8], redact: &Redact) -> Self {
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
    pub(in crate::admin) fn new(body: &[u8]) -> Self {
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
