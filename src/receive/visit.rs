//! Fetching the URL that confirms a signed greeting, through the one HTTP client. Which URLs may be asked is `verify`'s;
//! redirects are not followed, because they would let the other side choose.

use std::time::Duration;

use bytes::Bytes;

use crate::buffer::DestinationName;
use crate::config::{Destination, TrustedRoots, UpstreamTls};
use crate::message::{Headers, Method};
use crate::upstream::{Outgoing, SetupError, Upstream, UpstreamError};
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
    let name = DestinationName::new("handshake", url.host().unwrap_or_default());
    let tls = UpstreamTls { ca: ca.clone().map(TrustedRoots::Pem), ..UpstreamTls::default() };
    let destination = Destination { tls, ..Destination::plain(name, url.clone(), TIMEOUT) };
    let upstream = Upstream::new(&destination)?;
    let headers: Headers = [("Accept", &b"*/*"[..]), ("User-Agent", b"tidegate")].into_iter().collect();
    let target = url.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let answer = upstream.send(&Outgoing { method: Method::GET, target, headers }, Bytes::new()).await?;
    match answer.status {
        200..=299 => Ok(()),
        other => Err(VisitError::Status(other)),
    }
}
