//! Requests that the gateway makes on its own account: documents that are fetched, greetings that are confirmed, tokens,
//! notices.
//! The one place that makes a client for them; whom to ask, and what an answer means, is the caller's.
//!
//! Redirects are never followed, because they would let the other side choose whom we ask.

use std::time::Duration;

use bytes::Bytes;
use http::Uri;

use super::{Incoming, Outgoing, SetupError, Upstream, UpstreamError};
use crate::buffer::DestinationName;
use crate::config::{Destination, TrustedRoots, UpstreamTls};
use crate::message::{Headers, Method};

/// One address that is asked, again and again.
#[derive(Debug)]
pub struct Ask {
    upstream: Upstream,
    target: String,
}

impl Ask {
    /// `what` it is for stands in log lines. `ca` takes the place of the public roots. Connecting may take `connect`, all of
    /// an exchange `whole`.
    ///
    /// # Errors
    ///
    /// The roots can't be used.
    pub fn new(
        what: &str,
        url: &Uri,
        ca: Option<TrustedRoots>,
        connect: Duration,
        whole: Duration,
    ) -> Result<Self, SetupError> {
        let name = DestinationName::new(what, url.host().unwrap_or_default());
        let upstream = Upstream::new(&Destination {
            tls: UpstreamTls { ca, ..UpstreamTls::default() },
            connect_timeout: connect,
            ..Destination::plain(name, url.clone(), whole)
        })?;
        let target = url.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { upstream, target })
    }

    /// Sends one request; `User-Agent` is added.
    ///
    /// # Errors
    ///
    /// There is no answer within the time.
    pub async fn send<'h>(
        &self,
        method: Method,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
        body: Bytes,
    ) -> Result<Incoming, UpstreamError> {
        let agent = ("User-Agent", concat!("tidegate/", env!("CARGO_PKG_VERSION")).as_bytes());
        let headers: Headers = headers.into_iter().chain([agent]).collect();
        let request =
            Outgoing { method, target: self.target.clone(), headers, affinity: None, went_to: None };
        self.upstream.send_as_is(&request, body).await
    }
}
