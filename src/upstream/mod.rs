//! The one HTTP client, used for inline forwarding and by delivery workers: pools, TLS, balancing, timeouts.
//!
//! Bytes go out as they came in (promise 4): on HTTP/1.1 the request head is written with the names' case and order as
//! received. Here is no retrying by policy (that is `deliver`'s), only the passing over of an upstream that can't be
//! reached and of a pooled connection that turned out closed, when nothing was sent twice.

mod forward;

use bytes::Bytes;

use crate::config::Destination;
use crate::message::{Headers, Method};

pub use forward::{EventHeaders, Forward};

/// A destination's client. Cheap to clone; pools are per thread.
#[derive(Debug)]
pub struct Upstream {}

/// The head of a request to the app, hop-by-hop headers already dropped. `headers` holds `Host`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub method: Method,
    pub target: String,
    pub headers: Headers,
}

impl Upstream {
    pub fn new(destination: &Destination) -> Result<Self, SetupError> {
        let _ = destination;
        todo!("upstream")
    }

    /// Sends a request with its whole body and waits for the head of the answer.
    pub async fn send(&self, request: &Outgoing, body: Bytes) -> Result<Incoming, UpstreamError> {
        let _ = (request, body);
        todo!("upstream")
    }

    /// Starts a request whose body streams. `length` is its `Content-Length`; `None` streams chunked (or, if the
    /// request has `Upgrade`, as raw bytes after the app's 101).
    pub async fn start(
        &self,
        request: &Outgoing,
        length: Option<u64>,
    ) -> Result<(BodyWriter, Answering), UpstreamError> {
        let _ = (request, length);
        todo!("upstream")
    }
}

/// The sending half of a streamed request.
#[derive(Debug)]
pub struct BodyWriter {}

impl BodyWriter {
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        let _ = chunk;
        todo!("upstream")
    }
    pub async fn finish(&mut self) -> Result<(), UpstreamError> {
        todo!("upstream")
    }
}

/// The receiving half of a streamed request: waits for the answer's head. May come before the body is sent.
#[derive(Debug)]
pub struct Answering {}

impl Answering {
    pub async fn head(self) -> Result<Incoming, UpstreamError> {
        todo!("upstream")
    }
}

/// The app's answer. Dropping it before the end closes the connection.
#[derive(Debug)]
pub struct Incoming {
    pub status: u16,
    /// As received.
    pub headers: Headers,
}

impl Incoming {
    /// The next piece of the body, `None` at its end (then the connection goes back to its pool). After a 101: raw
    /// bytes. Safe to cancel.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        todo!("upstream")
    }
}

/// Why there is no (whole) answer. The app is to blame for some of these, the gateway for others: see `class`.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("connect: {0}")]
    Connect(String),
    #[error("tls: {0}")]
    Tls(String),
    /// No address for the upstream's name: the gateway's side, not the app's fault.
    #[error("dns: {0}")]
    Dns(String),
    #[error("timeout: {0}")]
    Timeout(&'static str),
    /// The connection broke after the request was (partly) sent: it may have been processed.
    #[error("broken: {0}")]
    Broken(String),
    #[error("protocol: {0}")]
    Protocol(String),
}

/// Why a destination's client can't be built (a CA file that is none, …).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);
