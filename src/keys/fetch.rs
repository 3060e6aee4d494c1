//! One fetch of one document: size- and time-limited, redirects never followed, because they would let the other side
//! choose where we fetch.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::Uri;

use crate::buffer::DestinationName;
use crate::clock::Clock;
use crate::config::{
    Destination, HeaderChanges, HostHeader, Retry, TrustedRoots, UpstreamHttp, UpstreamTls, is_loopback,
};
use crate::message::{Headers, Method};
use crate::upstream::{Outgoing, Upstream, UpstreamError};
use crate::verify::{Document, Oauth, Remote, Unreadable};

/// Bytes of an answer.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// A whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Document(#[from] Unreadable),
    #[error("the token endpoint's answer holds no `access_token`")]
    NoToken,
}

impl FetchError {
    /// Whether the issuer says that there is no such key, or no more.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, FetchError::Status(404 | 410) | FetchError::Document(Unreadable::Ended))
    }
}

/// How one document is fetched.
pub(super) struct Fetch {
    remote: Remote,
    ask: Ask,
    token: Option<Ask>,
    clock: Clock,
}

/// A request that can be sent again and again.
struct Ask {
    upstream: Upstream,
    request: Outgoing,
    body: Bytes,
}

impl Fetch {
    /// The error says why nothing can be fetched from there.
    pub(super) fn new(remote: &Remote, url: &Uri, name: &str, clock: Clock) -> Result<Self, String> {
        // `verify` builds no other address; whoever comes round it gets nothing.
        match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) => {}
            (Some("http"), Some(host)) if is_loopback(host) => {}
            _ => return Err("keys are fetched over https (over http only from a loopback address)".into()),
        }
        let mut headers = vec![("Accept".to_owned(), b"application/json, */*".to_vec())];
        headers.extend(remote.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_vec())));
        let post = remote.post.as_ref().map(|post| post.json(name));
        if post.is_some() {
            headers.push(("Content-Type".to_owned(), b"application/json".to_vec()));
        }
        let ca = remote.ca.clone().map(TrustedRoots::Pem);
        let ask = Ask::new(url, ca.clone(), headers, post)?;
        let token = remote.oauth.as_ref().map(|oauth| Ask::token(oauth, ca)).transpose()?;
        Ok(Self { remote: remote.clone(), ask, token, clock })
    }

    pub(super) async fn run(&self) -> Result<Document, FetchError> {
        let answer = match &self.token {
            None => self.ask.send(None).await?,
            Some(token) => {
                #[derive(serde::Deserialize)]
                struct Granted {
                    access_token: String,
                }
                let answer = token.send(None).await?;
                let granted = serde_json::from_slice(&answer).ok();
                // It goes into a header.
                let fits = |granted: &Granted| granted.access_token.bytes().all(|b| b.is_ascii_graphic());
                let granted = granted.filter(fits).ok_or(FetchError::NoToken)?;
                self.ask.send(Some(&granted.access_token)).await?
            }
        };
        Ok(self.remote.read(&answer, self.clock.now())?)
    }
}

impl Ask {
    fn new(
        url: &Uri,
        ca: Option<TrustedRoots>,
        mut headers: Vec<(String, Vec<u8>)>,
        body: Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let destination = Destination {
            name: DestinationName::new("keys", url.host().unwrap_or_default()),
            upstreams: vec![url.clone()],
            tls: UpstreamTls { ca, ..UpstreamTls::default() },
            http: UpstreamHttp::Http1,
            connect_timeout: TIMEOUT,
            timeout: TIMEOUT,
            concurrency: 1,
            retry: Retry::default(),
            headers: HeaderChanges::default(),
            host: HostHeader::Upstream,
        };
        let upstream = Upstream::new(&destination).map_err(|error| error.to_string())?;
        headers.push(("User-Agent".to_owned(), b"tidegate".to_vec()));
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let headers: Headers =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let target = url.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self {
            upstream,
            request: Outgoing { method, target, headers },
            body: body.unwrap_or_default().into(),
        })
    }

    /// The request of RFC 6749, section 4.4.2.
    fn token(oauth: &Oauth, ca: Option<TrustedRoots>) -> Result<Self, String> {
        let client = [oauth.client_id.as_bytes(), b":", oauth.client_secret.expose()].concat();
        let headers = vec![
            ("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(client)).into_bytes()),
            ("Content-Type".to_owned(), b"application/x-www-form-urlencoded".to_vec()),
            ("Accept".to_owned(), b"application/json".to_vec()),
        ];
        let mut body = b"grant_type=client_credentials".to_vec();
        if let Some(scope) = &oauth.scope {
            body.extend_from_slice(b"&scope=");
            for byte in scope.bytes() {
                match byte {
                    b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => body.push(b),
                    b => body.extend_from_slice(format!("%{b:02X}").as_bytes()),
                }
            }
        }
        Self::new(&oauth.url, ca, headers, Some(body))
    }

    async fn send(&self, bearer: Option<&str>) -> Result<BytesMut, FetchError> {
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
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
