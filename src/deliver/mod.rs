//! The way out: scheduler, pace, retry and workers of each destination.
//!
//! Here is decided *when* an event is tried and what its outcome means; how a request is sent is `upstream`'s, what is
//! due is the `buffer`'s. Carries the delivering half of promise 1, and promise 6 (a sick app is paused, not
//! abandoned).

use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Buffer;
use crate::clock::Clock;
use crate::config::Destination;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// All delivery workers of the process.
pub struct Deliverer {}

impl Deliverer {
    /// Must be called within the tokio runtime that the workers shall run on.
    pub fn new(buffer: Arc<dyn Buffer>, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let _ = (buffer, metrics, clock);
        todo!("deliver")
    }

    /// Makes exactly these destinations be worked on, with these settings: new ones start, changed ones go over to the
    /// new settings with their next attempt, removed ones stop taking leases (their deliveries stay in the buffer).
    pub fn apply(&self, destinations: Vec<(Arc<Destination>, Arc<Upstream>)>) {
        let _ = destinations;
        todo!("deliver")
    }

    /// Takes no new leases, waits up to `grace` for attempts in flight, hands the rest back unsettled.
    pub async fn shutdown(&self, grace: Duration) {
        let _ = grace;
        todo!("deliver")
    }
}
