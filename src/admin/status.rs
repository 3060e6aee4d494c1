//! What runs, and reading the config again.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::alerts::RouteCounts;
use crate::breaker::BreakerStatus;
use crate::buffer::{Admission, DestinationName, DestinationStats, Stats};
use crate::clock::Timestamp;
use crate::gateway::Reloaded;
use crate::pauses;
use crate::telemetry::Attempts;
use crate::upstream::ServerStatus;
use crate::verify::Expiry;

use super::App;
use super::control::Control;
use super::health::stats;
use super::problem::Problem;
use super::views::{
    AttemptCounts, BreakerView, BufferStatus, DestinationStatus, Destinations, QuarantineStatus,
    RouteTraffic, SecretEnd, Setup, Status, UpstreamView,
};

pub async fn status(State(app): State<App>) -> Json<Status> {
    let control = &*app.control;
    let (stats, setup, reasons) = (stats(control).await, control.setup(), control.readiness());
    let destinations = stats.as_ref().map(|s| all_destinations(s, &setup, control)).unwrap_or_default();
    let traffic = setup.routes.iter().map(|route| traffic(&route.name, control)).collect();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: control.metrics().started_at().to_string(),
        uptime_seconds: control.metrics().uptime().as_secs(),
        ready: reasons.is_empty(),
        reasons,
        setup,
        last_reload: control.last_reload().map(Into::into),
        secrets: secrets(control),
        key_sets: control.key_sets().into_iter().map(Into::into).collect(),
        ranges: control.ranges().into_iter().map(Into::into).collect(),
        buffer: stats.map(|stats| buffer_status(&stats, control.buffer().admission())),
        destinations,
        traffic,
        quarantine: quarantine(control),
    })
}

/// `None` if it is off and empty.
fn quarantine(control: &dyn Control) -> Option<QuarantineStatus> {
    let settings = control.quarantine().settings();
    let (items, bytes) = control.quarantine().holds();
    (settings.is_some() || items > 0).then(|| QuarantineStatus {
        on: settings.is_some(),
        items: items as u64,
        bytes,
        max_events: settings.as_ref().map(|settings| settings.max_events as u64),
        max_bytes: settings.as_ref().map(|settings| settings.max_size),
    })
}

pub async fn destinations(State(app): State<App>) -> Result<Json<Destinations>, Problem> {
    let control = &*app.control;
    let stats = stats(control).await.ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the buffer gives no numbers; its log line says why")
    })?;
    let destinations = all_destinations(&stats, &control.setup(), control);
    Ok(Json(Destinations { destinations }))
}

/// A caller that goes away does not stop a reload half-way.
pub async fn reload(State(app): State<App>) -> Result<Json<Reloaded>, Problem> {
    let reload = tokio::spawn(async move { app.control.reload().await });
    match reload.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(refused)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, refused)),
        Err(_) => Err(Problem::internal()),
    }
}

fn secrets(control: &dyn Control) -> Vec<SecretEnd> {
    let now = control.now();
    let view = |(route, Expiry { name, until, .. }): (Arc<str>, Expiry)| SecretEnd {
        route: route.to_string(),
        label: name,
        until: until.to_string(),
        ended: until <= now,
    };
    control.expiries().into_iter().map(view).collect()
}

fn buffer_status(stats: &Stats, admission: Admission) -> BufferStatus {
    let (admission, detail) = match admission {
        Admission::Open => ("open", None),
        Admission::Full(why) => ("full", Some(why)),
        Admission::Failed(why) => ("failed", Some(why)),
        Admission::Closed => ("closed", None),
    };
    BufferStatus {
        admission: admission.to_owned(),
        detail,
        events: stats.events,
        disk_bytes: stats.disk_bytes,
        max_bytes: stats.max_bytes,
        free_bytes: stats.free_bytes,
        sealing: stats.sealing.clone(),
    }
}

/// Those of the buffered routes, those that only the buffer still knows, and inline ones that were asked; by name.
fn all_destinations(stats: &Stats, setup: &Setup, control: &dyn Control) -> Vec<DestinationStatus> {
    let (now, breakers) = (control.now(), control.breakers());
    let (paused, closed, servers) = (control.paused(), control.closed(), control.servers());
    let buffered = setup.routes.iter().filter(|route| route.is_buffered());
    let configured: BTreeSet<&str> =
        buffered.flat_map(|route| &route.destinations).map(|d| d.name.as_str()).collect();
    let inline = setup.routes.iter().filter(|route| !route.is_buffered());
    let inline: BTreeSet<&str> =
        inline.flat_map(|route| &route.destinations).map(|d| d.name.as_str()).collect();
    let mut names: BTreeSet<&str> = configured.clone();
    names.extend(
        inline.iter().filter(|name| pauses::since(&paused, &DestinationName((**name).into())).is_some()),
    );
    names.extend(breakers.iter().map(|b| &*b.destination.0).filter(|name| inline.contains(name)));
    names.extend(stats.destinations.iter().map(|d| &*d.destination.0));
    // Only those that are delivered to have a place among the metrics of deliveries.
    let tried = |name: &str| configured.contains(name).then(|| control.metrics().attempts(name));
    let setups = || setup.routes.iter().flat_map(|route| &route.destinations);
    let status = |name: &str, of: Option<&DestinationStats>| DestinationStatus {
        in_flight: tried(name).map_or_else(|| inline_in_flight(name, &servers), |tried| tried.in_flight),
        concurrency_limit: tried(name).and_then(|tried| tried.limit),
        rate: setups().find(|d| d.name == name).and_then(|d| d.rate.clone()),
        attempts: tried(name).map(counts).unwrap_or_default(),
        destination: name.to_owned(),
        configured: configured.contains(name) || inline.contains(name),
        backlog: of.map_or(0, |d| d.backlog),
        dead: of.map_or(0, |d| d.dead),
        oldest: of.and_then(|d| d.oldest).map(|t| t.to_string()),
        oldest_age_seconds: of.and_then(|d| d.oldest).map(|t| now.since(t).as_secs()),
        breaker: breakers.iter().find(|b| &*b.destination.0 == name).map(|b| breaker(b, now)),
        paused_since: pauses::since(&paused, &DestinationName(name.into())).map(|at| at.to_string()),
        upstreams: servers
            .iter()
            .find(|(of, _)| &*of.0 == name)
            .map_or_else(Vec::new, |(_, all)| upstreams(all)),
        closed_until: closed.iter().find(|(of, _)| &*of.0 == name).map(|(_, until)| until.to_string()),
    };
    names
        .iter()
        .map(|name| status(name, stats.destinations.iter().find(|d| &*d.destination.0 == *name)))
        .collect()
}

/// Requests under way of an inline route.
fn inline_in_flight(name: &str, servers: &[(DestinationName, Vec<ServerStatus>)]) -> u64 {
    let servers = servers.iter().filter(|(of, _)| &*of.0 == name).flat_map(|(_, all)| all);
    servers.map(|server| server.in_flight as u64).sum()
}

const fn counts(of: Attempts) -> AttemptCounts {
    AttemptCounts { delivered: of.delivered, retried: of.retried, dead: of.dead }
}

fn traffic(route: &str, control: &dyn Control) -> RouteTraffic {
    let RouteCounts { requests, arrived, duplicates, unverified } = control.metrics().route_counts(route);
    RouteTraffic { route: route.to_owned(), requests, arrived, duplicates, unverified }
}

fn breaker(of: &BreakerStatus, now: Timestamp) -> BreakerView {
    BreakerView {
        state: of.phase.word().to_owned(),
        since: of.since_when(now).map(|since| since.to_string()),
        next_probe: of.next_probe.map(|wait| now.saturating_add(wait).to_string()),
        why: of.why.clone(),
    }
}

fn upstreams(of: &[ServerStatus]) -> Vec<UpstreamView> {
    let view = |server: &ServerStatus| UpstreamView {
        upstream: server.upstream.clone(),
        state: server.state.to_owned(),
        in_flight: server.in_flight,
    };
    of.iter().map(view).collect()
}
