//! Sockets to requests: listeners, TLS, connection limits, strict HTTP, answers. The only place that knows pingora.
//!
//! What a request is answered is `receive`'s. Carries promise 5 at the socket and the syntactic half of promise 7.

use std::sync::Arc;

use tokio::sync::watch;

use crate::gateway::Gateway;

/// Serves all listeners until `shutdown` becomes true and the requests in flight are done (or the grace period has
/// passed). Blocks; runs its own threads and runtimes. `ready` becomes true once every listener accepts.
pub fn serve(
    gateway: Arc<Gateway>,
    shutdown: watch::Receiver<bool>,
    ready: watch::Sender<bool>,
) -> Result<(), ServeError> {
    let _ = (gateway, shutdown, ready);
    todo!("edge")
}

/// Why a listener can't be opened; names its address.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {problem}")]
pub struct ServeError {
    pub address: String,
    pub problem: String,
}
