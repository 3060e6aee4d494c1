//! Sockets to requests: listeners, TLS, connection limits, strict HTTP, answers. The only place that knows pingora.
//!
//! A connection's way: `listen` (accept, address, limit, TLS by ALPN) → `http1` or `http2` → for each request: `head`
//! (or the same checks on HTTP/2), `client` (whose it is), then `exchange`, on which `receive` works. `conn` and `wire`
//! are the bytes below. What a request is answered is `receive`'s. Carries promise 5 at the socket and the syntactic
//! half of promise 7.
//!
//! pingora and its crates log through `log`, each failed connection as an error: filter the targets `pingora`,
//! `pingora_core` to `off` or `error` where logs are set up. What matters of a connection is logged here.

mod answer;
mod app;
mod chunked;
mod client;
mod conn;
mod deadline;
mod exchange;
mod head;
mod http1;
mod http2;
mod listen;
mod target;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use tokio::sync::watch;

use crate::gateway::Gateway;
use app::GatewayApp;
pub use listen::{Sockets, bind};

/// The parsers of outside bytes, for fuzzing.
pub mod parsers {
    pub use super::chunked::Chunked;
    pub use super::client::{Asked, asked};
    pub use super::head::{Framing, ParsedHead, Persistence, Scan, Scanner, Upgrade, parse};
    pub use super::target::{check as check_target, check_authority};
}

/// Serves all listeners until `shutdown` becomes true and the requests in flight are done (or the grace period has
/// passed). Blocks; runs its own threads and runtimes. `ready` becomes true once every listener accepts.
pub fn serve(
    gateway: Arc<Gateway>,
    shutdown: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
) -> Result<(), ServeError> {
    let addresses: Vec<_> = gateway.snapshot.load().config.listeners.iter().map(|l| l.address).collect();
    serve_on(bind(addresses)?, gateway, shutdown, ready)
}

/// Like [`serve`], on sockets that were bound before, one for each listener of the config in its order: for callers
/// that must know the addresses (port 0), or bind before they give up privileges.
pub fn serve_on(
    sockets: Sockets,
    gateway: Arc<Gateway>,
    shutdown: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
) -> Result<(), ServeError> {
    let threads = {
        let snapshot = gateway.snapshot.load();
        for (address, listener) in sockets.addresses().zip(&snapshot.config.listeners) {
            let tls = if listener.tls.is_some() { "tls" } else { "plain" };
            tracing::info!(%address, tls, "listening");
        }
        snapshot.config.threads
    };
    listen::serve(sockets, Arc::new(GatewayApp(gateway)), threads, shutdown, ready)
}

/// Why a listener can't be opened; names its address.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {problem}")]
pub struct ServeError {
    pub address: String,
    pub problem: String,
}
