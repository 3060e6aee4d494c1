//! What the API answers about quarantine.

use serde::{Deserialize, Serialize};

use super::super::redact::Redact;
use super::{BodyView, HeaderView};
use crate::buffer::EventId;
use crate::quarantine::{Item, Summary};
use crate::receive::{Admission, Recheck};

/// The store of refused requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineStatus {
    /// Whether refused requests are kept now.
    pub on: bool,
    pub items: u64,
    /// On disk.
    pub bytes: u64,
    /// `null` while it is off.
    pub max_events: Option<u64>,
    pub max_bytes: Option<u64>,
}

/// An event that was refused first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromQuarantine {
    /// The id that it had in quarantine.
    pub id: String,
    /// When it was first received.
    pub received_at: String,
}

/// `GET /quarantine`, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemPage {
    /// Whether refused requests are kept now.
    pub on: bool,
    pub items: Vec<ItemSummary>,
    /// Pass as `after` to get the next page.
    pub next: Option<String>,
}

/// A refused request in a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemSummary {
    pub id: String,
    pub route: String,
    /// Why it was refused: a reason code.
    pub reason: String,
    pub received_at: String,
    /// When it will be deleted, at the latest.
    pub expires_at: String,
    pub method: String,
    /// Without the query.
    pub path: String,
    pub source: String,
    pub body_bytes: u64,
}

/// `GET /quarantine/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemDetail {
    #[serde(flatten)]
    pub summary: ItemSummary,
    /// What exactly was wrong.
    pub detail: String,
    /// With the query; the values of secret parameters are hidden.
    pub target: String,
    pub host: String,
    pub scheme: String,
    pub headers: Vec<HeaderView>,
    pub body: BodyView,
}

/// Answer of `POST /quarantine/re-verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rechecked {
    /// How many of the results would be verified now.
    pub verifies: u64,
    pub results: Vec<RecheckResult>,
    /// Pass as `after` to go on.
    pub next: Option<String>,
}

/// What verification says of one item now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecheckResult {
    pub id: String,
    /// Empty if there is no such item.
    pub route: String,
    /// Why it was refused at first.
    pub was: String,
    pub verifies: bool,
    /// What proves it now, and the label of the secret that matches.
    pub by: Option<String>,
    pub label: Option<String>,
    /// Why it would still be refused: a reason code, or `unknown_item`, `no_such_route`.
    pub reason: Option<String>,
    pub detail: Option<String>,
}

/// Answer of `POST /quarantine/admit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// How many are in the buffer now that were not before.
    pub admitted: u64,
    pub results: Vec<AdmitResult>,
    /// Pass as `after` to go on.
    pub next: Option<String>,
}

/// What became of one item.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmitResult {
    pub id: String,
    /// Empty if there is no such item.
    pub route: String,
    /// `admitted`; `duplicate` (the buffer had it already): both are no longer in quarantine. `refused`,
    /// `no_such_route`, `not_buffered`, `greeting`, `not_stored`: these still are. `unknown_item`.
    pub outcome: String,
    /// The event that it is, or that it repeats.
    pub event: Option<String>,
    /// Why it is still refused: a reason code.
    pub reason: Option<String>,
    pub detail: Option<String>,
}

/// Answer of `POST /quarantine/purge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemsPurged {
    pub purged: u64,
    /// Of the ids given: those that are not there.
    pub untouched: Vec<String>,
}

impl ItemSummary {
    pub(in crate::admin) fn new(item: &Summary, redact: &Redact) -> Self {
        Self {
            id: item.id.to_string(),
            route: item.route.clone(),
            reason: item.reason.code().to_owned(),
            received_at: item.received_at.to_string(),
            expires_at: item.expires_at.to_string(),
            method: item.method.clone(),
            path: redact.target(&item.path),
            source: item.source.to_string(),
            body_bytes: item.body_bytes,
        }
    }
}

impl ItemDetail {
    pub(in crate::admin) fn new(item: &Item, redact: &Redact) -> Self {
        Self {
            summary: ItemSummary {
                id: item.id.to_string(),
                route: item.route.clone(),
                reason: item.reason.code().to_owned(),
                received_at: item.received_at.to_string(),
                expires_at: item.expires_at.to_string(),
                method: item.method.to_string(),
                path: redact.target(item.path()),
                source: item.source.to_string(),
                body_bytes: item.body.len() as u64,
            },
            detail: item.detail.clone(),
            target: redact.target(&item.target),
            host: item.authority.clone(),
            scheme: item.scheme.as_str().to_owned(),
            headers: item.headers.iter().map(|(name, value)| HeaderView::new(name, value, redact)).collect(),
            body: BodyView { bytes: item.body.len() as u64, ..BodyView::new(&redact.body(&item.body)) },
        }
    }
}

impl RecheckResult {
    pub(in crate::admin) fn unknown(id: EventId) -> Self {
        Self { id: id.to_string(), reason: Some("unknown_item".into()), ..Self::default() }
    }

    pub(in crate::admin) fn new(item: &Item, recheck: Recheck) -> Self {
        let base = Self {
            id: item.id.to_string(),
            route: item.route.clone(),
            was: item.reason.code().to_owned(),
            ..Self::default()
        };
        match recheck {
            Recheck::Verifies { by, label } => {
                let label = label.map(|label| label.to_string());
                Self { verifies: true, by: Some(by.to_string()), label, ..base }
            }
            Recheck::Refused(refusal) => Self {
                reason: Some(refusal.reason.code().to_owned()),
                detail: Some(refusal.detail).filter(|detail| !detail.is_empty()),
                ..base
            },
            Recheck::NoRoute => Self { reason: Some("no_such_route".into()), ..base },
        }
    }
}

impl AdmitResult {
    pub(in crate::admin) fn unknown(id: EventId) -> Self {
        Self { id: id.to_string(), outcome: "unknown_item".into(), ..Self::default() }
    }

    pub(in crate::admin) fn new(item: &Item, admission: Admission) -> Self {
        let of = |outcome: &str| Self {
            id: item.id.to_string(),
            route: item.route.clone(),
            outcome: outcome.to_owned(),
            ..Self::default()
        };
        let with = |outcome: &str, detail: String| Self { detail: Some(detail), ..of(outcome) };
        match admission {
            Admission::Admitted(event) => Self { event: Some(event.to_string()), ..of("admitted") },
            Admission::Duplicate(event) => Self { event: Some(event.to_string()), ..of("duplicate") },
            Admission::Refused(refusal) => Self {
                reason: Some(refusal.reason.code().to_owned()),
                detail: Some(refusal.detail).filter(|detail| !detail.is_empty()),
                ..of("refused")
            },
            Admission::NoRoute => {
                with("no_such_route", format!("the config has no route `{}` any more", item.route))
            }
            Admission::NotBuffered(mode) => {
                with("not_buffered", format!("the route's mode is `{mode}`: it has no buffer to admit to"))
            }
            Admission::Greeting => {
                with("greeting", "it is a greeting of the sender, not an event".to_owned())
            }
            Admission::NotStored(why) => with("not_stored", why),
        }
    }
}
