//! The one harness: it drives the real binary over real sockets, with real signatures.
//!
//! A test reads as a sentence of the trade: `gateway().route(github().to(&app)).start()`, then
//! `gateway.send(&signed::github(push()))`, then `app.received()`. Waiting is polling with an upper bound
//! ([`eventually`]), never a fixed sleep.

#![allow(dead_code)] // each test file uses its part of the harness

pub mod app;
pub mod certs;
pub mod config;
pub mod fault;
pub mod gateway;
pub mod payloads;
pub mod sender;
pub mod signed;
pub mod wire;

use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use app::{App, Behaviour, Received};
pub use config::{GatewayBuilder, Route, gateway, github, pass, standard_webhooks, stripe, unverified};
pub use gateway::Gateway;
pub use payloads::{contact_created, invoice_paid, issue_opened, push};
pub use sender::{Answer, Request, Via};
pub use serde_json::json;

/// How long anything may take before a test calls it stuck. Generous: machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `check` holds; panics with `what` after [`PATIENCE`].
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A TCP port of the loopback address at which nobody listened a moment ago, outside of the range from which the
/// system takes ports for outgoing connections.
///
/// Asked by connecting, not by binding: a child process that is just being started holds a copy of every socket of
/// ours for a moment, and a bound one would make the port look taken to whoever it was found for.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 97) as u16 * 120;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000) % 12_000;
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            return port;
        }
    }
}

/// A number that no other call of this process gets.
pub fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An id that no other test run uses.
pub fn unique_id() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), unique())
}

/// `bytes` as a short text for comparisons and messages.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("this machine's clock is after 1970").as_secs()
}

/// Bytes that look like nothing: every value occurs, none compresses.
pub fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64 + 1);
    (0..length).map(|_| random.u8(..)).collect()
}
