//! Keys that live elsewhere: JWKS over https, cached, refreshed in the background, last-known-good kept.
//!
//! Fetching only; what a key proves is `verify`'s. URLs come only from config.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::KeySources;
use crate::telemetry::Metrics;
use crate::verify::KeySource;

/// All remote key sets of the process: one a URL, shared by routes and kept across reloads.
#[derive(Debug)]
pub struct RemoteKeys {}

impl RemoteKeys {
    /// Must be called within the tokio runtime that fetches in the background.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        let _ = (metrics, clock);
        todo!("keys")
    }
}

impl KeySources for RemoteKeys {
    fn jwks(&self, url: &http::Uri) -> Arc<dyn KeySource> {
        let _ = url;
        todo!("keys")
    }
}
