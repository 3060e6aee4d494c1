//! Export and import: events with their bodies, as parts of a tar archive.
//!
//! A part is small, whatever there is: who wants all of it asks again, and puts the parts one behind the other.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::buffer::{AppendError, Delivery, DeliveryState, EventId, Imported, Search};
use crate::transfer::{self, Events};

use super::App;
use super::events::{hidden, turn};
use super::filter::{ListQuery, MAX_LIMIT};
use super::problem::Problem;

/// A part ends when it has so many bytes; the event that makes it so many is whole in it.
const PART: usize = 4 * 1024 * 1024;
/// Bytes of one import request: a part, or a single large event.
pub const MAX_IMPORT: usize = 128 * 1024 * 1024;
/// Where the next part goes on; missing with the last one.
pub const NEXT: HeaderName = HeaderName::from_static("tidegate-next");
/// Events in this part.
pub const COUNT: HeaderName = HeaderName::from_static("tidegate-events");

/// A part of an archive, without an archive's end: oldest events first, from behind `after` on.
pub(super) async fn export(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let listing = query.listing()?;
    let _turn = turn(&app).await?;
    let buffer = app.control.buffer();
    let search = Search::new(listing.filter, listing.limit.min(MAX_LIMIT)).after(listing.after);
    let page = buffer.search(Search { hidden: hidden(&app.control), ..search.oldest_first() }).await?;
    let (mut part, mut count) = (Vec::new(), 0u64);
    let mut next = page.next;
    let ids: Vec<EventId> = page.events.into_iter().map(|(event, _)| event.id).collect();
    for (at, id) in ids.iter().copied().enumerate() {
        // It may have gone meanwhile.
        let Some((event, deliveries)) = buffer.get(id).await? else { continue };
        match transfer::put(&mut part, &event, deliveries) {
            Ok(()) => count += 1,
            Err(error) => tracing::error!(%error, event = %id, "an event is left out of an export"),
        }
        if part.len() >= PART && at + 1 < ids.len() {
            next = Some(id);
            break;
        }
    }
    let mut response = part.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(COUNT, HeaderValue::from(count));
    if let Some(next) = next
        && let Ok(next) = HeaderValue::from_str(&next.to_string())
    {
        headers.insert(NEXT, next);
    }
    Ok(response)
}

/// Answer of `POST /import`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportDone {
    pub stored: u64,
    /// Were here already.
    pub present: u64,
    /// Repeats of an event that was accepted here.
    pub duplicates: u64,
    pub refused: Vec<ImportRefused>,
}

/// An event that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRefused {
    pub id: String,
    pub why: String,
}

/// Takes in a part of an archive. What was stored before a problem stays stored; the same part may be sent again.
pub(super) async fn import(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ImportDone>, Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let _turn = turn(&app).await?;
    let known = app.control.setup().buffered();
    let mut done = ImportDone::default();
    let mut events = Events::new(&*body, MAX_IMPORT as u64);
    loop {
        let next = events.read().map_err(|e| Problem::bad_request(e.to_string()))?;
        let Some((event, mut deliveries)) = next else { break };
        let id = event.id;
        // What nobody delivers to any more is kept only as long as something waits for it, and here nothing does.
        deliveries.retain(|d| !is_settled(d) || known.contains(&*d.destination.0));
        let lost = deliveries.iter().find(|d| !known.contains(&*d.destination.0));
        let accepted = match lost {
            None => app.control.claim_of(&event),
            Some(lost) => {
                Err(format!("it waits for `{}`, and the running config has no such", lost.destination))
            }
        };
        let claim = match accepted {
            Ok(claim) => claim,
            Err(why) => {
                done.refused.push(ImportRefused { id: id.to_string(), why });
                continue;
            }
        };
        let imported = app.control.buffer().import(event, deliveries, claim).await;
        match imported.map_err(|e| refused(&e, id))? {
            Imported::Stored => done.stored += 1,
            Imported::Present => done.present += 1,
            Imported::Duplicate(_) => done.duplicates += 1,
        }
    }
    tracing::info!(
        stored = done.stored,
        present = done.present,
        duplicates = done.duplicates,
        refused = done.refused.len(),
        "admin: events were imported"
    );
    Ok(Json(done))
}

const fn is_settled(delivery: &Delivery) -> bool {
    matches!(delivery.state, DeliveryState::Delivered { .. } | DeliveryState::Dead { .. })
}

fn refused(error: &AppendError, id: EventId) -> Problem {
    let status = match error {
        AppendError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
        AppendError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, format!("event {id}: {error}; what stood before it is taken in"))
}
