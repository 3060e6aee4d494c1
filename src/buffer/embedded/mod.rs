//! The embedded engine of the buffer, on fjall.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::BufferSettings;
use crate::telemetry::Metrics;

use super::Buffer;

/// Opens (or makes) the store.
pub fn open(
    settings: &BufferSettings,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Arc<dyn Buffer>, OpenError> {
    let _ = (settings, metrics, clock);
    todo!("embedded")
}

/// Why the store could not be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process uses the buffer at {path}{}", .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked { path: String, pid: Option<u32> },
}
