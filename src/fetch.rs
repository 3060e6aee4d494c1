//! One document from an address that the config or a pack pins: the one way in which anything is fetched.
//!
//! Size- and time-limited, over https (plain http from loopback addresses only: tests, a sidecar). Redirects are never
//! followed, because they would let the other side choose where we fetch. When to fetch, and what the bytes mean, is
//! the caller's (`keys`, `ranges`).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;

use crate::buffer::DestinationName;
use crate::config::{Destination, TrustedRoots, UpstreamTls, is_loopback};
use crate::message::{Headers, Method};
use crate::upstream::{Outgoing, Upstream, UpstreamError};

/// What a fetch may cost at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the document.
    pub bytes: usize,
    /// From the first byte sent to the last received; connecting may take as long again.
    pub time: Duration,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Whether anything is fetched from there at all.
pub fn may_be_fetched(url: &Uri) -> bool {
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(host)) => !host.is_empty(),
        (Some("http"), Some(host)) => is_loopback(host),
        _ => false,
    }
}

/// How one document is fetched, again and again.
pub struct Fetch {
    upstream: Upstream,
    request: Outgoing,
    body: Bytes,
    limits: Limits,
}

impl Fetch {
    /// With GET, or with POST if there is a body. `ca` takes the place of the public roots. The error says why nothing can
    /// be fetched from there.
    pub fn new(
        url: &Uri,
        ca: Option<TrustedRoots>,
        mut headers: Vec<(String, Vec<u8>)>,
        body: Option<Vec<u8>>,
        limits: Limits,
    ) -> Result<Self, String> {
        if !may_be_fetched(url) {
            return Err("only https addresses are fetched (http only from a loopback address)".into());
        }
        let name = DestinationName::new("fetch", url.host().unwrap_or_default());
        let destination = Destination {
            tls: UpstreamTls { ca, ..UpstreamTls::default() },
            ..Destination::plain(name, url.clone(), limits.time)
        };
        let upstream = Upstream::new(&destination).map_err(|error| error.to_string())?;
        headers.push(("User-Agent".to_owned(), b"tidegate".to_vec()));
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let headers: Headers =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let target = url.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let request = Outgoing { method, target, headers };
        Ok(Self { upstream, request, body: body.unwrap_or_default().into(), limits })
    }

    /// The document's bytes, if it is answered with 200. `bearer` is what `Authorization` says, if it is to say anything.
    pub async fn run(&self, bearer: Option<&str>) -> Result<Bytes, FetchError> {
        let with_token;
        let request = match bearer {
            None => &self.request,
            Some(token) => {
                let value = format!("Bearer {token}").into_bytes();
                let headers = self.request.headers.iter();
                let headers = headers.chain([("Authorization", value.as_slice())]).collect();
                with_token = Outgoing { headers, ..self.request.clone() };
                &with_token
            }
        };
        let mut answer = self.upstream.send(request, self.body.clone()).await?;
        if answer.status != 200 {
            return Err(FetchError::Status(answer.status));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > self.limits.bytes {
                return Err(FetchError::TooLarge(self.limits.bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}
