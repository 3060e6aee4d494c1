//! One document from an address that the config or a pack pins: the one way in which anything is fetched.
//!
//! Size- and time-limited, over https (plain http from loopback addresses only: tests, a sidecar), by [`Ask`]. When to
//! fetch, and what the bytes mean, is the caller's (`keys`, `ranges`).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;

use crate::config::{TrustedRoots, is_loopback};
use crate::message::Method;
use crate::upstream::{Ask, UpstreamError};

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
    ask: Ask,
    headers: Vec<(String, Vec<u8>)>,
    /// With one it is a POST.
    body: Option<Bytes>,
    limits: Limits,
}

impl Fetch {
    /// With GET, or with POST if there is a body. `ca` takes the place of the public roots. The error says why nothing can
    /// be fetched from there.
    pub fn new(
        url: &Uri,
        ca: Option<TrustedRoots>,
        headers: Vec<(String, Vec<u8>)>,
        body: Option<Vec<u8>>,
        limits: Limits,
    ) -> Result<Self, String> {
        if !may_be_fetched(url) {
            return Err("only https addresses are fetched (http only from a loopback address)".into());
        }
        let ask = Ask::new("fetch", url, ca, limits.time, limits.time).map_err(|error| error.to_string())?;
        Ok(Self { ask, headers, body: body.map(Bytes::from), limits })
    }

    /// The document's bytes, if it is answered with 200. `bearer` is what `Authorization` says, if it is to say anything.
    pub async fn run(&self, bearer: Option<&str>) -> Result<Bytes, FetchError> {
        let token = bearer.map(|token| format!("Bearer {token}").into_bytes());
        let token = token.as_deref().map(|value| ("Authorization", value));
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).chain(token);
        let (method, body) = match &self.body {
            None => (Method::GET, Bytes::new()),
            Some(body) => (Method::POST, body.clone()),
        };
        let mut answer = self.ask.send(method, headers, body).await?;
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
