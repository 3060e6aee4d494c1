//! Metrics and logs: every definition in one place. Labels are bounded: no path, no event id, no raw event type.

use std::time::Duration;

/// Stands in for the real one until telemetry is merged.
pub fn init(settings: &crate::config::LogSettings) -> Result<(), String> {
    let _ = settings;
    todo!("telemetry")
}

/// Stands in for the real one until telemetry is merged.
pub fn flush(patience: Duration) {
    let _ = patience;
}

/// All metrics of the process. Every method is cheap enough for the request path.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// A request was answered. `route` is `""` before one is found; `outcome` is `accepted`, `duplicate`,
    /// `forwarded`, `passed`, `handshake`, or a reason code.
    pub fn request(&self, route: &str, outcome: &'static str) {
        let _ = (route, outcome);
    }
    /// From the end of a request's header to its answer.
    pub fn answered(&self, route: &str, took: Duration) {
        let _ = (route, took);
    }
    /// The label of the secret that verified a request.
    pub fn verified(&self, route: &str, label: &str) {
        let _ = (route, label);
    }
    /// An append waited this long for its group's sync.
    pub fn appended(&self, took: Duration) {
        let _ = took;
    }
    /// One group commit: its events and the time of write and sync.
    pub fn committed(&self, events: usize, took: Duration) {
        let _ = (events, took);
    }
    /// The buffer refused or failed: `full`, `write_failed`, `stalled`.
    pub fn buffer_trouble(&self, what: &'static str) {
        let _ = what;
    }
    /// An attempt ended: `delivered`, `retry`, `dead`.
    pub fn delivery(&self, destination: &str, outcome: &'static str, took: Duration) {
        let _ = (destination, outcome, took);
    }
    pub fn connection_opened(&self) {}
    pub fn connection_closed(&self) {}
    /// A connection ended before a request: `tls_handshake`, `handshake_timeout`, `limit`, `address`.
    pub fn connection_refused(&self, why: &'static str) {
        let _ = why;
    }
    /// Body bytes held in memory right now.
    pub fn body_bytes(&self, now: u64) {
        let _ = now;
    }
    /// Attempts in flight to a destination right now.
    pub fn in_flight(&self, destination: &str, now: usize) {
        let _ = (destination, now);
    }
    /// A config reload: `true` if the new one runs.
    pub fn reloaded(&self, accepted: bool) {
        let _ = accepted;
    }
    /// Age of a remote key set, and failed fetches of it.
    pub fn keys_fetched(&self, url: &str, ok: bool) {
        let _ = (url, ok);
    }
}
