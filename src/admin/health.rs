//! Probes and scrapes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::buffer::{DestinationName, Stats};
use crate::pauses;
use crate::telemetry::{Format, Scrape};
use crate::verify::Expiry;

use super::App;
use super::control::Control;
use super::problem::Problem;
use super::views::Readiness;

/// A scrape or status goes without the buffer's numbers if they take longer.
const STATS_PATIENCE: Duration = Duration::from_secs(3);

/// The process answers. Nothing more: a sick disk or app is no reason to restart the gateway.
pub async fn alive() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// Whether senders should be sent here, and if not, why.
pub async fn ready(State(app): State<App>) -> Response {
    let reasons = app.control.readiness();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: reasons.is_empty(), reasons })).into_response()
}

pub async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let control = app.control;
    let setup = control.setup();
    let scrape = Scrape {
        stats: stats(&*control).await,
        admission: control.buffer().admission(),
        ready: control.readiness().is_empty(),
        routes: setup.routes.into_iter().map(|route| (route.name, route.verification == "on")).collect(),
        config_hash: setup.config_hash,
        secrets: secrets(&*control),
        now: control.now(),
        breakers: control.breakers(),
        paused: paused(&*control),
        servers: control.servers(),
    };
    // Reads /proc and formats some hundred lines: not on a thread that serves.
    let text = tokio::task::spawn_blocking(move || format.of(control.metrics().expose(scrape))).await;
    let text = text.map_err(|_| Problem::internal())?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

fn secrets(control: &dyn Control) -> Vec<(Arc<str>, String, f64)> {
    let now = control.now();
    let left = |(route, expiry): (Arc<str>, Expiry)| {
        let left = expiry.seconds_left(now);
        (route, expiry.name, left)
    };
    control.expiries().into_iter().map(left).collect()
}

/// The buffer's numbers, if it gives them in time.
pub async fn stats(control: &dyn Control) -> Option<Stats> {
    match tokio::time::timeout(STATS_PATIENCE, control.buffer().stats()).await {
        Ok(Ok(stats)) => Some(stats),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the buffer gives no numbers");
            None
        }
        Err(_) => {
            tracing::warn!("the buffer gives no numbers in time");
            None
        }
    }
}

/// Each destination, and whether an operator has paused it.
fn paused(control: &dyn Control) -> Vec<(DestinationName, bool)> {
    let paused = control.paused();
    let setup = control.setup();
    let names = setup.routes.iter().flat_map(|route| &route.destinations).map(|to| &*to.name);
    let names = names.map(|name| DestinationName(name.into()));
    names.map(|name| (name.clone(), pauses::since(&paused, &name).is_some())).collect()
}
