//! The admin API: looks in from outside. Health, metrics, status, reload, and the events in the buffer.
//!
//! `jobs` is for work on many events that goes on by itself. `listen` opens the socket, `guard` decides who may ask what, the other files answer. Nothing here takes part in
//! receiving or delivering; all it needs of the gateway stands in `control`. Carries promise 5 for itself: every
//! listing, body and wait has a limit.

mod alerts;
pub mod buffer;
mod control;
pub mod endpoints;
mod events;
pub mod filter;
mod guard;
mod health;
pub mod items;
pub mod jobs;
pub mod lanes;
mod listen;
mod pauses;
mod problem;
mod quarantine;
mod redact;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transfer;
pub mod views;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};

use crate::config::{AdminAddress, AdminSettings};
use crate::gateway::Gateway;

use control::Control;
use guard::Place;
use listen::Socket;
use problem::Problem;

/// Bytes of a request's body.
const MAX_REQUEST_BODY: usize = 64 * 1024;
/// How long a request may take, its body included. Replays and purges go on in the background beyond it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that load event bodies at the same time: each may hold a page of them in memory.
const HEAVY_REQUESTS: usize = 2;

/// Serves the admin API until `shutdown` becomes true, on the address that the config of the start says (a reload
/// does not move it, but a new token counts at once). With `admin` off it only waits. The error says why the address
/// can't be used.
pub async fn serve(gateway: Arc<Gateway>, mut shutdown: watch::Receiver<bool>) -> Result<(), String> {
    // Also with `admin` off: they may have been begun before.
    if let Err(error) = gateway.jobs.start(events::hidden_by(&gateway)).await {
        tracing::error!(%error, "the jobs of earlier processes could not be read");
    }
    let settings = gateway.snapshot.load().config.admin.clone();
    match open(&settings).await? {
        Some(socket) => {
            listen::run(socket, gateway, shutdown).await;
            Ok(())
        }
        None => {
            // A sender that is gone means shutdown too.
            let _ = shutdown.wait_for(|down| *down).await;
            Ok(())
        }
    }
}

async fn open(settings: &AdminSettings) -> Result<Option<Socket>, String> {
    match &settings.listen {
        AdminAddress::Off => Ok(None),
        AdminAddress::Tcp(address) if !address.ip().is_loopback() && settings.token.is_none() => {
            Err(format!(
                "the admin API on {address} needs a token: it is not a loopback address, so others can reach it"
            ))
        }
        AdminAddress::Tcp(address) => Socket::tcp(*address).await.map(Some),
        AdminAddress::Unix(path) => Socket::unix(path).await.map(Some),
    }
}

/// What the handlers work with.
#[derive(Clone)]
struct App {
    control: Arc<dyn Control>,
    place: Place,
    heavy: Arc<Semaphore>,
    compacting: buffer::Compacting,
}

fn router(control: Arc<dyn Control>, place: Place) -> Router {
    let app = App {
        control,
        place,
        heavy: Arc::new(Semaphore::new(HEAVY_REQUESTS)),
        compacting: buffer::Compacting::default(),
    };
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/livez", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/status", get(status::status))
        .route("/destinations", get(status::destinations))
        .route("/reload", post(status::reload))
        .route("/lanes", get(lanes::list))
        .route("/lanes/give-up", post(lanes::give_up))
        .route("/alerts", get(alerts::list))
        .route("/alerts/test", post(alerts::test))
        .route("/pause", post(pauses::pause))
        .route("/resume", post(pauses::resume))
        .route("/events", get(events::list))
        .route("/events/replay", post(events::replay))
        .route("/events/give-up", post(events::give_up))
        .route("/events/purge", post(events::purge))
        .route("/events/{id}", get(events::show))
        .route("/events/{id}/body", get(events::body))
        .route("/endpoints", get(endpoints::list).post(endpoints::create))
        .route("/endpoints/rotate", post(endpoints::rotate))
        .route("/endpoints/revoke", post(endpoints::revoke))
        .route("/dead", get(events::list_dead))
        .route("/buffer/verify", get(buffer::verify))
        .route("/buffer/compact", get(buffer::compaction).post(buffer::compact))
        .route("/export", get(transfer::export))
        .route("/import", post(transfer::import).layer(DefaultBodyLimit::max(transfer::MAX_IMPORT)))
        .route("/jobs", get(jobs::list).post(jobs::begin))
        .route("/jobs/{id}", get(jobs::show))
        .route("/jobs/{id}/{command}", post(jobs::tell))
        .route("/quarantine", get(quarantine::list))
        .route("/quarantine/re-verify", post(quarantine::recheck))
        .route("/quarantine/admit", post(quarantine::admit))
        .route("/quarantine/purge", post(quarantine::purge))
        .route("/quarantine/{id}", get(quarantine::show))
        .route("/quarantine/{id}/body", get(quarantine::body))
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BODY))
        // Outermost, so that what it refuses reaches no handler and what it adds is on every answer.
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
