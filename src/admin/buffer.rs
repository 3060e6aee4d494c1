//! Looking after the buffer: reading all of it, and giving space back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::App;
use super::events::turn;
use super::problem::Problem;
use crate::buffer::{EventId, Verified};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Goes on behind this event.
    after: Option<EventId>,
}

/// How the latest compaction stands: `POST /buffer/compact` begins one, `GET /buffer/compact` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    pub running: bool,
    /// Why it failed.
    pub problem: Option<String>,
    /// On disk, in bytes, before it; and after it, once it has ended.
    pub before: Option<u64>,
    pub after: Option<u64>,
}

pub(super) type Compacting = Arc<Mutex<Compaction>>;

/// A part of the buffer, read and checked; `next` says where to go on.
pub(super) async fn verify(
    State(app): State<App>,
    query: Result<Query<From>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Verified>, Problem> {
    let Query(from) = query.map_err(|e| Problem::bad_request(e.body_text()))?;
    let _turn = turn(&app).await?;
    Ok(Json(app.control.buffer().verify(from.after).await?))
}

pub(super) async fn compaction(State(app): State<App>) -> Json<Compaction> {
    Json(app.compacting.lock().clone())
}

/// Begins one, or finds one under way. It goes on when the caller goes.
pub(super) async fn compact(State(app): State<App>) -> Json<Compaction> {
    {
        let mut state = app.compacting.lock();
        if state.running {
            return Json(state.clone());
        }
        *state = Compaction { running: true, ..Compaction::default() };
    }
    let (buffer, state) = (app.control.buffer().clone(), app.compacting.clone());
    tokio::spawn(async move {
        let used = async || buffer.stats().await.ok().map(|stats| stats.disk_bytes);
        state.lock().before = used().await;
        let outcome = buffer.compact().await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "admin: the buffer could not be compacted");
        }
        let after = used().await;
        let mut state = state.lock();
        state.running = false;
        state.after = after;
        state.problem = outcome.err().map(|error| error.to_string());
    });
    Json(app.compacting.lock().clone())
}
