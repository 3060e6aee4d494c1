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
pub mod frames;
pub mod gateway;
pub mod mail;
pub mod payloads;
pub mod sender;
pub mod signed;
pub mod vectors;
pub mod wire;

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use app::{App, Behaviour, Received};
pub use config::{GatewayBuilder, Route, gateway, github, pass, standard_webhooks, stripe, unverified};
pub use gateway::{Gateway, done, printed};
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
/// system takes ports for outgoing connections, and in a block that no other test run uses.
///
/// Asked by connecting, not by binding: a child process that is just being started holds a copy of every socket of
/// ours for a moment, and a bound one would make the port look taken to whoever it was found for.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = block_of_ports() + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            return port;
        }
    }
}

/// Ports of one test run.
const PORTS: u16 = 600;

/// The first port of this run's block. A file per block is locked as long as the process lives.
fn block_of_ports() -> u16 {
    static BLOCK: OnceLock<(u16, Option<File>)> = OnceLock::new();
    let (block, _locked) = BLOCK.get_or_init(|| {
        let lock = |block: u16| {
            let path = std::env::temp_dir().join(format!("tidegate-test-ports-{block}.lock"));
            let file = File::options().create(true).append(true).open(path).ok()?;
            file.try_lock().is_ok().then_some((block, Some(file)))
        };
        // With so many runs at once, or where nothing can be locked, chance has to do.
        let any = (std::process::id() % 20) as u16;
        (0..20).find_map(lock).unwrap_or((any, None))
    });
    20_000 + block * PORTS
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
