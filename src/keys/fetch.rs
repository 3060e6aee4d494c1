//! One fetch of one remote document: which requests it takes. How a request is made safely is `crate::fetch`'s.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;

use crate::clock::Clock;
use crate::config::TrustedRoots;
use crate::fetch::{self, Fetch as Ask, Limits};
use crate::verify::{Document, Oauth, Remote, Unreadable};

/// What one exchange may cost.
pub(super) const LIMITS: Limits = Limits { bytes: 1024 * 1024, time: Duration::from_secs(10) };

#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    #[error(transparent)]
    Document(#[from] Unreadable),
    #[error("the token endpoint's answer holds no `access_token`")]
    NoToken,
}

impl FetchError {
    /// Whether the issuer says that there is no such key, or no more.
    pub(super) fn is_absent(&self) -> bool {
        matches!(
            self,
            FetchError::Fetch(fetch::FetchError::Status(404 | 410)) | FetchError::Document(Unreadable::Ended)
        )
    }
}

/// How one document is fetched.
pub(super) struct Fetch {
    remote: Remote,
    ask: Ask,
    token: Option<Ask>,
    clock: Clock,
}

impl Fetch {
    /// The error says why nothing can be fetched from there.
    pub(super) fn new(remote: &Remote, url: &Uri, name: &str, clock: Clock) -> Result<Self, String> {
        let mut headers = vec![("Accept".to_owned(), b"application/json, */*".to_vec())];
        headers.extend(remote.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_vec())));
        let post = remote.post.as_ref().map(|post| post.json(name));
        if post.is_some() {
            headers.push(("Content-Type".to_owned(), b"application/json".to_vec()));
        }
        let ca = remote.ca.clone().map(TrustedRoots::Pem);
        let ask = Ask::new(url, ca.clone(), headers, post, LIMITS)?;
        let token = remote.oauth.as_ref().map(|oauth| token(oauth, ca)).transpose()?;
        Ok(Self { remote: remote.clone(), ask, token, clock })
    }

    pub(super) async fn run(&self) -> Result<Document, FetchError> {
        let answer = match &self.token {
            None => self.ask.run(None).await?,
            Some(token) => {
                #[derive(serde::Deserialize)]
                struct Granted {
                    access_token: String,
                }
                let answer = token.run(None).await?;
                let granted = serde_json::from_slice(&answer).ok();
                // It goes into a header.
                let fits = |granted: &Granted| granted.access_token.bytes().all(|b| b.is_ascii_graphic());
                let granted = granted.filter(fits).ok_or(FetchError::NoToken)?;
                self.ask.run(Some(&granted.access_token)).await?
            }
        };
        Ok(self.remote.read(&answer, self.clock.now())?)
    }
}

/// The request of RFC 6749, section 4.4.2.
fn token(oauth: &Oauth, ca: Option<TrustedRoots>) -> Result<Ask, String> {
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
    Ask::new(&oauth.url, ca, headers, Some(body), LIMITS)
}
