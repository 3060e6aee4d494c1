//! Tokens by OAuth 2.0 client credentials (RFC 6749): fetched when first needed, kept until shortly before they end, and
//! fetched once more when the app refuses one. One fetch at a time; a failed one is not tried again for a second. That
//! there is no token is the gateway's own trouble and never charged to the app. An app that refuses fresh tokens, too, has
//! given its answer: another token is fetched for it at most every [`REFUSED_EVERY`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{OAuth2, TrustedRoots};
use crate::message::Method;
use crate::secret::Secret;

use super::super::{Ask, SetupError, UpstreamError};

/// A fetch takes at most this long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// Where the answer does not say how long a token lives.
const LIFE: Duration = Duration::from_secs(300);
/// A longer life is not believed.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// So long before its end a token is renewed, or a fifth of its life.
const EARLY: Duration = Duration::from_secs(60);
/// After a fetch that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two fetches because the app refused the last token.
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// One token, ready to be sent.
#[derive(Debug)]
pub(super) struct Token {
    /// `Bearer …`.
    pub value: Secret,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Debug)]
pub(super) struct Tokens {
    client: Ask,
    /// `Basic …`: who we are.
    basic: Secret,
    form: Bytes,
    token: ArcSwapOption<Token>,
    /// Held while one is fetched.
    fetching: Mutex<Last>,
}

/// What came of the last fetches.
#[derive(Debug, Default)]
struct Last {
    /// When the last one failed, and why.
    failed: Option<(Instant, String)>,
    /// When a token that the app refused was replaced.
    replaced: Option<Instant>,
}

#[derive(serde::Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl Tokens {
    /// `timeout` is the destination's.
    pub fn new(settings: &OAuth2, timeout: Duration) -> Result<Self, SetupError> {
        let url = &settings.token_url;
        let timeout = timeout.min(TIMEOUT);
        let ca = settings.ca.clone().map(TrustedRoots::File);
        let client = Ask::new("oauth2", url, ca, timeout, timeout)?;
        let pair =
            format!("{}:{}", escaped(settings.client_id.as_bytes()), escaped(settings.secret.expose()));
        let basic = format!("Basic {}", STANDARD.encode(zeroize::Zeroizing::new(pair).as_bytes()));
        let mut form = "grant_type=client_credentials".to_owned();
        for (name, value) in [("scope", &settings.scope), ("audience", &settings.audience)] {
            if let Some(value) = value {
                form.push_str(&format!("&{name}={}", escaped(value.as_bytes())));
            }
        }
        Ok(Self {
            client,
            basic: Secret::new(basic.into_bytes()),
            form: form.into(),
            token: ArcSwapOption::empty(),
            fetching: Mutex::default(),
        })
    }

    /// The token that is kept, or a new one.
    pub async fn token(&self) -> Result<Arc<Token>, UpstreamError> {
        let now = Instant::now();
        let kept = self.token.load_full().filter(|token| now < token.ends_at);
        if let Some(token) = kept.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.clone());
        }
        let Some(token) = kept else {
            let mut last = self.fetching.lock().await;
            // Whoever was first may have fetched it.
            return match self.token.load_full().filter(|token| Instant::now() < token.renew_at) {
                Some(token) => Ok(token),
                None => self.fetch(&mut last).await,
            };
        };
        match self.fetching.try_lock() {
            // Somebody renews it already, and it is good for a while.
            Err(_) => Ok(token),
            Ok(mut last) => Ok(self.fetch(&mut last).await.unwrap_or(token)),
        }
    }

    /// Another one than `old`, which the app refused; `None`: it has just refused one that was fetched for that reason.
    pub async fn renewed(&self, old: &Arc<Token>) -> Result<Option<Arc<Token>>, UpstreamError> {
        let mut last = self.fetching.lock().await;
        match self.token.load_full() {
            Some(token) if !Arc::ptr_eq(&token, old) => Ok(Some(token)),
            _ if last.replaced.is_some_and(|at| at.elapsed() < REFUSED_EVERY) => Ok(None),
            _ => {
                let token = self.fetch(&mut last).await?;
                last.replaced = Some(Instant::now());
                Ok(Some(token))
            }
        }
    }

    async fn fetch(&self, last: &mut Last) -> Result<Arc<Token>, UpstreamError> {
        if let Some((at, why)) = &last.failed
            && at.elapsed() < PAUSE
        {
            return Err(UpstreamError::Local(why.clone()));
        }
        match self.ask().await {
            Ok(token) => {
                last.failed = None;
                let token = Arc::new(token);
                self.token.store(Some(token.clone()));
                Ok(token)
            }
            Err(why) => {
                let why = format!("no OAuth2 token: {why}");
                last.failed = Some((Instant::now(), why.clone()));
                Err(UpstreamError::Local(why))
            }
        }
    }

    /// The texts of errors hold nothing of the answer, which may hold a token.
    async fn ask(&self) -> Result<Token, String> {
        let headers = [
            ("Accept", &b"application/json"[..]),
            ("Content-Type", b"application/x-www-form-urlencoded"),
            ("Authorization", self.basic.expose()),
        ];
        let answer = self.client.send(Method::POST, headers, self.form.clone()).await;
        let mut answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err("the answer is too long".into());
            }
            body.extend_from_slice(&chunk);
        }
        read(&body, Instant::now())
    }
}

fn read(body: &[u8], now: Instant) -> Result<Token, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| "the answer has no access_token".to_owned())?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("the token is no bearer token".into());
    }
    let token = zeroize::Zeroizing::new(answer.access_token);
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the token can't stand in a header".into());
    }
    let secs = match answer.expires_in {
        Some(serde_json::Value::Number(secs)) => secs.as_u64(),
        Some(serde_json::Value::String(secs)) => secs.parse().ok(),
        _ => None,
    };
    let life = secs.map_or(LIFE, Duration::from_secs).min(LONGEST_LIFE);
    Ok(Token {
        value: Secret::new(format!("Bearer {}", *token).into_bytes()),
        renew_at: now + (life - EARLY.min(life / 5)),
        ends_at: now + life,
    })
}

/// As a form has it.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_read_and_renewed_before_its_end() {
        let now = Instant::now();
        let life = |body: &str| {
            let token = read(body.as_bytes(), now).unwrap();
            assert_eq!(token.value.expose(), b"Bearer t");
            ((token.renew_at - now).as_secs(), (token.ends_at - now).as_secs())
        };
        assert_eq!(life(r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#), (3540, 3600));
        assert_eq!(life(r#"{"access_token":"t","expires_in":"100"}"#), (80, 100));
        assert_eq!(life(r#"{"access_token":"t"}"#), (240, 300));
        for bad in [
            "",
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":"a b"}"#,
            r#"{"access_token":"t","token_type":"mac"}"#,
        ] {
            assert!(read(bad.as_bytes(), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_and_secrets_are_escaped() {
        assert_eq!(escaped(b"a b:c/\xff-._~"), "a%20b%3Ac%2F%FF-._~");
    }

    proptest! {
        #[test]
        fn no_answer_is_a_panic(body: Vec<u8>, secs: u64) {
            let _ = read(&body, Instant::now());
            let _ = read(format!("{{\"access_token\":\"t\",\"expires_in\":{secs}}}").as_bytes(), Instant::now());
        }
    }
}
