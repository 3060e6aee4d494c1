//! An edge on loopback in front of a plain handler, and raw clients for it.

use std::time::Duration;

use crate::config::Limits;

/// The documented defaults.
pub(super) fn limits() -> Limits {
    Limits {
        connections: 10_000,
        requests_per_connection: 10_000,
        header_count: 100,
        header_bytes: 32 * 1024,
        uri_bytes: 8 * 1024,
        body_bytes: 10 << 20,
        body_budget: 256 << 20,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        h2_streams: 100,
    }
}
