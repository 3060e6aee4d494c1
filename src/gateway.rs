//! The running gateway: the current config snapshot and what outlives it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::ServerConfig;

use crate::buffer::{Buffer, DestinationName};
use crate::clock::Clock;
use crate::config::Config;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// Everything that a request needs, in one place. Shared by all threads.
pub struct Gateway {
    /// Swapped whole on reload; a request keeps the one it began with.
    pub snapshot: ArcSwap<Snapshot>,
    pub buffer: Arc<dyn Buffer>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// A checked config and what is made from it once.
pub struct Snapshot {
    pub config: Config,
    pub upstreams: HashMap<DestinationName, Arc<Upstream>>,
    /// By the index of the listener; `None` for plain ones.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
}

/// Why `/readyz` says no; empty means ready.
pub type NotReady = Vec<String>;

impl Gateway {
    /// Reads and checks the config again and swaps it in; on any problem the running one stays.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        todo!("gateway")
    }
    pub fn readiness(&self) -> NotReady {
        todo!("gateway")
    }
}

/// What a reload did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Reloaded {
    pub hash: String,
    pub warnings: Vec<String>,
}
