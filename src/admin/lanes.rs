//! Lanes of ordered destinations that stand still, and giving up what they stand still for.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::App;
use super::problem::Problem;
use crate::buffer::{DestinationName, EventFilter, LaneKey, LaneSearch, Selection, StuckLane};

/// Lanes of one answer, at most.
const MOST: usize = 1000;
const USUAL: usize = 100;
/// Characters of a key that are shown.
const KEY_SHOWN: usize = 80;

/// The query of `GET /lanes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LaneQuery {
    /// `route/destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// `GET /lanes`: by destination, those that have stood still the longest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneList {
    pub lanes: Vec<LaneView>,
    /// Of all, also those that are not listed, by destination.
    pub counts: Vec<LaneCounts>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneCounts {
    pub destination: String,
    pub blocked: u64,
    pub parked: u64,
}

/// A lane that stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneView {
    pub destination: String,
    /// As it stands in its first event, shortened; `null` if the running config finds none there.
    pub key: Option<String>,
    /// The name of the lane.
    pub lane: String,
    /// `blocked` or `parked`.
    pub state: String,
    pub since: String,
    pub age_seconds: u64,
    /// The event that holds it.
    pub event: String,
    /// Events behind it.
    pub waiting: u64,
}

pub(super) async fn list(
    State(app): State<App>,
    query: Result<Query<LaneQuery>, QueryRejection>,
) -> Result<Json<LaneList>, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(format!("the query: {}", e.body_text())))?;
    let limit = query.limit.unwrap_or(USUAL);
    if limit == 0 || limit > MOST {
        return Err(Problem::bad_request(format!("`limit`: from 1 to {MOST}")));
    }
    let buffer = app.control.buffer();
    let mut counts: Vec<LaneCounts> = buffer
        .stats()
        .await?
        .destinations
        .into_iter()
        .map(|of| LaneCounts {
            destination: of.destination.to_string(),
            blocked: of.lanes.blocked,
            parked: of.lanes.parked,
        })
        .collect();
    if let Some(name) = &query.destination {
        counts.retain(|of| of.destination == *name);
        let known = app.control.setup().routes.iter().flat_map(|r| &r.destinations).any(|d| d.name == *name);
        if counts.is_empty() && !known {
            let message = format!("`destination`: there is no destination `{name}`");
            return Err(Problem::new(StatusCode::NOT_FOUND, message));
        }
    }
    counts.retain(|of| of.blocked + of.parked > 0);
    let destination = query.destination.map(|name| DestinationName(name.into()));
    let found = buffer.lanes(LaneSearch { destination, lane: None, limit }).await?;
    let mut lanes = Vec::with_capacity(found.len());
    for lane in found {
        lanes.push(view(&app, lane).await?);
    }
    Ok(Json(LaneList { lanes, counts }))
}

async fn view(app: &App, lane: StuckLane) -> Result<LaneView, Problem> {
    let StuckLane { destination, lane, why, since, head, waiting } = lane;
    let event = app.control.buffer().get(head).await?;
    let key = event.and_then(|(event, _)| app.control.order_key(&destination, &event));
    Ok(LaneView {
        destination: destination.to_string(),
        key: key.map(|key| shortened(&key)),
        lane: lane.to_string(),
        state: why.word().to_owned(),
        since: since.to_string(),
        age_seconds: app.control.now().since(since).as_secs(),
        event: head.to_string(),
        waiting,
    })
}

/// The body of `POST /lanes/give-up`: which lane, by its key or by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WhichLane {
    /// `route/destination`.
    pub destination: String,
    /// Whole, as it stands in the events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// As `GET /lanes` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
}

/// Answer of `POST /lanes/give-up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneGivenUp {
    /// The event that held the lane.
    pub event: String,
    /// `false`: it is in flight just now, and its answer settles it.
    pub given_up: bool,
    /// Events behind it, before.
    pub waiting: u64,
}

/// Gives up the event that a lane stands still for: the next one goes.
pub(super) async fn give_up(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<LaneGivenUp>, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let which: WhichLane = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))?;
    let lane = match (&which.key, &which.lane) {
        (Some(key), None) => LaneKey::new(key.as_bytes()),
        (None, Some(name)) => name.parse().map_err(|e| Problem::bad_request(format!("`lane`: {e}")))?,
        _ => return Err(Problem::bad_request("give `destination`, and `key` or `lane`")),
    };
    let buffer = app.control.buffer();
    let destination = Some(DestinationName(which.destination.as_str().into()));
    let found = buffer.lanes(LaneSearch { destination, lane: Some(lane), limit: 1 }).await?;
    let Some(StuckLane { head, waiting, why, .. }) = found.into_iter().next() else {
        return Err(Problem::not_found(format!(
            "no such key of `{}` stands still: `tidegate lanes` lists those that do",
            which.destination
        )));
    };
    let only = EventFilter { destination: Some(which.destination.clone()), ..EventFilter::default() };
    let done = buffer.give_up(Selection::One(head, only)).await?;
    tracing::info!(destination = %which.destination, %lane, event = %head, was = why.word(), given_up = done.count > 0,
        "admin: what a key stands still for was given up");
    Ok(Json(LaneGivenUp { event: head.to_string(), given_up: done.count > 0, waiting }))
}

/// Keys come from senders.
fn shortened(key: &str) -> String {
    let mut shown: String =
        key.chars().take(KEY_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if key.chars().nth(KEY_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
