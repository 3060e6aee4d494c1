//! What the edge needs from the gateway, as a trait, so that its tests run it in front of a plain handler.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::client::{Asked, asked};
use super::exchange::HttpExchange;
use crate::clock::Clock;
use crate::config::{AccessLog, Limits};
use crate::gateway::Gateway;
use crate::message::{Headers, canonical_ip};
use crate::reason::Reason;
use crate::receive::receive;
use crate::telemetry::Metrics;

/// The application behind the edge. Everything is asked anew for each connection or request, so that a reload
/// takes effect at once.
pub(crate) trait App: Send + Sync + 'static {
    fn limits(&self) -> Limits;
    /// TLS settings for new connections of a listener; `None` if it is plain.
    fn tls(&self, listener: usize) -> Option<Arc<ServerConfig>>;
    /// Whether `peer` may connect to a listener.
    fn admits(&self, listener: usize, peer: IpAddr) -> bool;
    /// Who made a request that came from `peer`, and how it was made.
    fn asked(&self, listener: usize, peer: IpAddr, headers: &Headers) -> Asked;
    fn clock(&self) -> &Clock;
    fn metrics(&self) -> &Metrics;
    fn access_log(&self) -> AccessLog;
    /// How long requests in flight may finish at shutdown.
    fn grace(&self) -> Duration;
    /// Answers one request.
    fn handle(&self, exchange: &mut HttpExchange) -> impl Future<Output = ()> + Send;
}

/// The gateway as the application.
pub(super) struct GatewayApp(pub Arc<Gateway>);

impl App for GatewayApp {
    fn limits(&self) -> Limits {
        self.0.snapshot.load().config.limits.clone()
    }

    fn tls(&self, listener: usize) -> Option<Arc<ServerConfig>> {
        self.0.snapshot.load().tls.get(listener)?.clone()
    }

    fn admits(&self, listener: usize, peer: IpAddr) -> bool {
        let snapshot = self.0.snapshot.load();
        // A listener that a reload took away still runs until a restart, but admits nobody.
        snapshot
            .config
            .listeners
            .get(listener)
            .is_some_and(|l| l.allow.is_unset() || l.allow.contains(canonical_ip(peer)))
    }

    fn asked(&self, listener: usize, peer: IpAddr, headers: &Headers) -> Asked {
        let snapshot = self.0.snapshot.load();
        match snapshot.config.listeners.get(listener) {
            Some(listener) => asked(peer, headers, |ip| listener.trusted_hops.contains(ip)),
            None => asked(peer, headers, |_| false),
        }
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }
    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
    fn access_log(&self) -> AccessLog {
        self.0.snapshot.load().config.log.access
    }
    fn grace(&self) -> Duration {
        self.0.snapshot.load().config.shutdown.grace
    }

    fn handle(&self, exchange: &mut HttpExchange) -> impl Future<Output = ()> + Send {
        receive(&self.0, exchange)
    }
}

/// Where a connection came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub listener: usize,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// Counts and logs a request that never reached the application.
pub(super) fn refused<A: App>(app: &A, place: &Place, reason: Reason) {
    app.metrics().request("", reason.code());
    if app.access_log() != AccessLog::Off {
        tracing::info!(
            reason = reason.code(),
            status = reason.status(),
            source = %canonical_ip(place.peer.ip()),
            listener = %place.local,
            "request refused"
        );
    }
}
