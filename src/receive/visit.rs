//! Fetching the URL that confirms a signed greeting. Which URLs may be asked is `verify`'s.

use std::time::Duration;

use bytes::Bytes;

use crate::config::TrustedRoots;
use crate::message::Method;
use crate::upstream::{Ask, SetupError, UpstreamError};
use crate::verify::handshake::Visited;

/// The whole visit: whoever greets waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a visit confirms nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum VisitError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("it answered {0}")]
    Status(u16),
}

/// Fetches the URL within [`TIMEOUT`]; what it answers beside a success is not read.
pub(super) async fn fetch(Visited { url, ca }: &Visited) -> Result<(), VisitError> {
    let ca = ca.clone().map(TrustedRoots::Pem);
    let ask = Ask::new("handshake", url, ca, TIMEOUT, TIMEOUT)?;
    let answer = ask.send(Method::GET, [("Accept", &b"*/*"[..])], Bytes::new()).await?;
    match answer.status {
        200..=299 => Ok(()),
        other => Err(VisitError::Status(other)),
    }
}
