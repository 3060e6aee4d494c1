//! Which events: the conditions that listings, jobs and exports share, and pages of what they find.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Attempt, AttemptOutcome, DeadReason, Delivery, DeliveryState, Event, EventId, Origin};
use crate::clock::Timestamp;
use crate::message::{Method, Scheme};

/// Which events; all given conditions hold. The conditions on deliveries (`destination`, `state`, `reason`, `status`)
/// hold if any delivery meets all of them together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventFilter {
    /// One of these, if any are given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `route/destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// `pending`, `retrying`, `delivered`, `dead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why a delivery was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusIs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Received at or after, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Received before, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The client's address lies in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Range>,
    /// As it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Stands in a line `Name: value` of the headers; case does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A value in a JSON body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<ValueIs>,
}

impl EventFilter {
    /// Whether a delivery meets the conditions on deliveries.
    pub fn takes(&self, delivery: &Delivery) -> bool {
        let reason = match delivery.state {
            DeliveryState::Dead { reason, .. } => Some(reason),
            _ => None,
        };
        self.destination.as_deref().is_none_or(|name| *name == *delivery.destination.0)
            && self.state.as_deref().is_none_or(|word| word == delivery.state.word())
            && self.reason.is_none_or(|wanted| reason == Some(wanted))
            && self.status.is_none_or(|wanted| wanted.matches(delivery.history.last()))
    }

    /// Only the conditions on deliveries.
    pub fn of_deliveries(&self) -> Self {
        Self {
            destination: self.destination.clone(),
            state: self.state.clone(),
            reason: self.reason,
            status: self.status,
            ..Self::default()
        }
    }
}

/// The status of a delivery's last attempt: one, a class of them, or none because there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StatusIs {
    Exactly(u16),
    /// By its first digit.
    Class(u16),
    NoAnswer,
}

impl StatusIs {
    pub fn matches(self, last: Option<&Attempt>) -> bool {
        match (self, last.map(|attempt| &attempt.outcome)) {
            (_, None) => false,
            (StatusIs::Exactly(wanted), Some(AttemptOutcome::Answered { status })) => *status == wanted,
            (StatusIs::Class(wanted), Some(AttemptOutcome::Answered { status })) => *status / 100 == wanted,
            (StatusIs::NoAnswer, Some(outcome)) => matches!(outcome, AttemptOutcome::Failed { .. }),
            (_, Some(AttemptOutcome::Failed { .. })) => false,
        }
    }
}

impl FromStr for StatusIs {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str = "a status such as 503, a class such as 5xx, or `none` for no answer";
        if text == "none" {
            return Ok(StatusIs::NoAnswer);
        }
        if let Some(class) = text.strip_suffix("xx").and_then(|digit| digit.parse().ok()) {
            return if (1..=5).contains(&class) { Ok(StatusIs::Class(class)) } else { Err(RIGHT) };
        }
        match text.parse() {
            Ok(status @ 100..=599) => Ok(StatusIs::Exactly(status)),
            _ => Err(RIGHT),
        }
    }
}
impl fmt::Display for StatusIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusIs::Exactly(status) => write!(f, "{status}"),
            StatusIs::Class(class) => write!(f, "{class}xx"),
            StatusIs::NoAnswer => f.write_str("none"),
        }
    }
}
impl TryFrom<String> for StatusIs {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<StatusIs> for String {
    fn from(status: StatusIs) -> String {
        status.to_string()
    }
}

/// An address or a range of addresses (CIDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range(IpNet);

impl Range {
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Range {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        net.map(Self).ok_or("an address such as 192.0.2.7, or a range such as 192.0.2.0/24")
    }
}
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl TryFrom<String> for Range {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
impl From<Range> for String {
    fn from(range: Range) -> String {
        range.to_string()
    }
}

/// The value at a JSON pointer has this text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueIs {
    /// Such as `/data/email`.
    pub pointer: String,
    pub equals: String,
}

/// Which way through the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// Whether something of an event stays hidden, and so can't be searched either: who may not read a secret must not be
/// able to find it out by asking. By the route's name first, which may be dear, then by what is asked for.
pub type Hidden = Arc<dyn Fn(&str) -> HiddenOfRoute + Send + Sync>;
pub type HiddenOfRoute = Box<dyn Fn(Asked<'_>) -> bool + Send>;

/// What of an event a search asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The value of this header.
    Header(&'a str),
    /// What stands at this JSON pointer of the body.
    Body(&'a str),
    IdempotencyKey,
    EventType,
}

/// A look for events.
#[derive(Clone)]
pub struct Search {
    pub filter: EventFilter,
    pub order: Order,
    /// Continues behind this event.
    pub after: Option<EventId>,
    /// Ids above it are not looked at: what comes in meanwhile.
    pub upto: Option<EventId>,
    /// Events found, at most.
    pub limit: usize,
    /// How long it may look; at least one event is looked at.
    pub budget: Duration,
    pub hidden: Hidden,
}

impl Search {
    /// How long a page is looked for: long enough for some ten thousand events, short enough to wait for.
    pub const BUDGET: Duration = Duration::from_millis(500);

    /// From the newest on, all headers.
    pub fn new(filter: EventFilter, limit: usize) -> Self {
        Self {
            filter,
            order: Order::NewestFirst,
            after: None,
            upto: None,
            limit,
            budget: Self::BUDGET,
            hidden: Arc::new(|_| Box::new(|_| false)),
        }
    }
    pub fn after(self, after: Option<EventId>) -> Self {
        Self { after, ..self }
    }
    pub fn oldest_first(self) -> Self {
        Self { order: Order::OldestFirst, ..self }
    }
}

/// What was found: without headers and bodies, so that a page is small whatever the events are like.
#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<(Head, Vec<Delivery>)>,
    /// Pass as `after` to get the next page; `None` at the end. A page may be short, or empty, and still have a next
    /// one: its time was up.
    pub next: Option<EventId>,
    /// Events looked at.
    pub examined: u64,
}

/// An event without its headers and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub id: EventId,
    pub route: Arc<str>,
    pub received_at: Timestamp,
    pub method: Method,
    pub target: String,
    pub authority: String,
    pub scheme: Scheme,
    pub body_bytes: u64,
    pub source: IpAddr,
    pub verified: Arc<str>,
    pub idempotency_key: Option<String>,
    pub event_type: Option<String>,
    pub origin: Origin,
}

impl From<&Event> for Head {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            route: event.route.clone(),
            received_at: event.received_at,
            method: event.method.clone(),
            target: event.target.clone(),
            authority: event.authority.clone(),
            scheme: event.scheme,
            body_bytes: event.body.len() as u64,
            source: event.source,
            verified: event.verified.clone(),
            idempotency_key: event.idempotency_key.clone(),
            event_type: event.event_type.clone(),
            origin: event.origin.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_a_class_or_none() {
        let answered = |status| {
            let outcome = AttemptOutcome::Answered { status };
            Attempt { at: Timestamp(0), took_ms: 0, outcome }
        };
        let failed = Attempt {
            at: Timestamp(0),
            took_ms: 0,
            outcome: AttemptOutcome::Failed { error: "connect: refused".into() },
        };
        let is = |text: &str, last: Option<&Attempt>| text.parse::<StatusIs>().unwrap().matches(last);
        assert!(is("503", Some(&answered(503))) && !is("503", Some(&answered(500))));
        assert!(is("5xx", Some(&answered(599))) && !is("5xx", Some(&answered(404))));
        assert!(is("none", Some(&failed)) && !is("none", Some(&answered(500))) && !is("none", None));
        for wrong in ["", "6xx", "0xx", "99", "600", "all", "5x"] {
            assert!(wrong.parse::<StatusIs>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_filter_survives_being_written_down() {
        let filter = EventFilter {
            reason: Some(DeadReason::GivenUp),
            status: Some(StatusIs::Class(5)),
            source: Some("10.0.0.0/8".parse().unwrap()),
            body: Some(ValueIs { pointer: "/a".into(), equals: "b".into() }),
            ..EventFilter::default()
        };
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<EventFilter>(&text).unwrap(), filter);
        assert_eq!(serde_json::to_string(&EventFilter::default()).unwrap(), "{}");
    }

    #[test]
    fn a_source_is_an_address_or_a_range() {
        let is = |text: &str, address: [u8; 4]| text.parse::<Range>().unwrap().contains(address.into());
        assert!(is("192.0.2.7", [192, 0, 2, 7]) && !is("192.0.2.7", [192, 0, 2, 8]));
        assert!(is("192.0.2.0/24", [192, 0, 2, 8]) && "example.com".parse::<Range>().is_err());
    }
}
