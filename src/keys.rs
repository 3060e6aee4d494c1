//! Keys that live elsewhere: JWKS over https, cached, refreshed in the background, last-known-good kept.
//!
//! Fetching only; what a key proves is `verify`'s, which keys of a set may prove anything is `keys/jwks`. URLs come
//! only from config. Plain http is taken for loopback addresses only (tests, a sidecar); redirects are never followed,
//! because they would let the other side choose where we fetch.
//!
//! A set is fetched when it is first asked for, then about every ten minutes, and when a token names an unknown key,
//! but then at most once a minute. After a failed fetch the last good set stays, for ever, and its age is shown.

mod jwks;

/// The parser of remote key sets, for fuzzing.
pub mod parsers {
    /// The keys that may verify something; `None` if there are none.
    pub fn key_set(json: &[u8]) -> Option<jsonwebtoken::jwk::JwkSet> {
        super::jwks::parse(json).ok()
    }
}

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::Uri;
use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::buffer::DestinationName;
use crate::clock::{Clock, Timestamp};
use crate::config::{
    Destination, HeaderChanges, HostHeader, KeySources, Retry, UpstreamHttp, UpstreamTls, is_loopback,
};
use crate::message::{Headers, Method};
use crate::telemetry::Metrics;
use crate::upstream::{Outgoing, Upstream, UpstreamError};
use crate::verify::KeySource;

/// Bytes of a key set.
const MAX_BYTES: usize = 1024 * 1024;
/// A whole fetch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// When sets are fetched.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// After a success; drawn 10 % to either side.
    refresh: Duration,
    /// After the first failure in a row; doubles up to `refresh`.
    retry: Duration,
    /// Between two fetches that unknown key ids ask for.
    floor: Duration,
}

impl Timing {
    const DEFAULT: Self = Self {
        refresh: Duration::from_secs(600),
        retry: Duration::from_secs(2),
        floor: Duration::from_secs(60),
    };

    fn after(&self, failures: u32) -> Duration {
        match failures {
            0 => self.refresh.mul_f64(0.9 + 0.2 * fastrand::f64()),
            n => self.retry.saturating_mul(1 << (n - 1).min(16)).min(self.refresh),
        }
    }
}

/// All remote key sets of the process: one a URL, shared by routes and kept across reloads. A set that no config uses
/// any more is no longer fetched.
#[derive(Debug)]
pub struct RemoteKeys {
    metrics: Arc<Metrics>,
    clock: Clock,
    runtime: Handle,
    timing: Timing,
    sets: Mutex<HashMap<String, Weak<RemoteSet>>>,
}

impl RemoteKeys {
    /// Must be called within the tokio runtime that fetches in the background.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { metrics, clock, runtime: Handle::current(), timing: Timing::DEFAULT, sets: Mutex::default() }
    }

    /// How fresh each set is, by URL.
    pub fn status(&self) -> Vec<KeySetStatus> {
        let now = self.clock.now();
        let sets = self.sets.lock();
        let mut status: Vec<_> = sets.values().filter_map(|set| Some(set.upgrade()?.status(now))).collect();
        status.sort_by(|a, b| a.url.cmp(&b.url));
        status
    }
}

impl KeySources for RemoteKeys {
    fn jwks(&self, url: &Uri) -> Arc<dyn KeySource> {
        let mut sets = self.sets.lock();
        if let Some(set) = sets.get(&url.to_string()).and_then(Weak::upgrade) {
            return set;
        }
        sets.retain(|_, set| set.strong_count() > 0);
        let set = RemoteSet::start(url, self);
        sets.insert(set.url.to_string(), Arc::downgrade(&set));
        set
    }
}

/// What is known of one key set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeySetStatus {
    pub url: String,
    /// Keys that may verify.
    pub keys: usize,
    /// `None`: never yet.
    pub fetched_at: Option<Timestamp>,
    /// Whole seconds since then.
    pub age_s: Option<u64>,
    /// Why the last fetch failed; `None` if it did not.
    pub error: Option<String>,
}

/// One key set and the task that fetches it, which ends with it.
#[derive(Debug)]
struct RemoteSet {
    url: Arc<str>,
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Shared {
    good: ArcSwapOption<Fetched>,
    error: Mutex<Option<String>>,
    /// A token named a key that is not in the set.
    unknown: Notify,
}

#[derive(Debug)]
struct Fetched {
    keys: Arc<JwkSet>,
    at: Timestamp,
}

impl RemoteSet {
    fn start(url: &Uri, remote: &RemoteKeys) -> Arc<Self> {
        let text: Arc<str> = url.to_string().into();
        let shared = Arc::new(Shared::default());
        let task = match Fetch::new(url) {
            Ok(fetch) => {
                let refresher = Refresher {
                    url: text.clone(),
                    fetch,
                    shared: shared.clone(),
                    metrics: remote.metrics.clone(),
                    clock: remote.clock.clone(),
                    timing: remote.timing,
                };
                Some(remote.runtime.spawn(refresher.run()).abort_handle())
            }
            // `check` refuses such a URL; whoever comes round it gets no keys, so that nothing verifies.
            Err(problem) => {
                tracing::error!(url = %text, problem, "the key set can't be fetched");
                *shared.error.lock() = Some(problem);
                None
            }
        };
        Arc::new(Self { url: text, shared, task })
    }

    fn status(&self, now: Timestamp) -> KeySetStatus {
        let good = self.shared.good.load_full();
        KeySetStatus {
            url: self.url.to_string(),
            keys: good.as_ref().map_or(0, |good| good.keys.keys.len()),
            fetched_at: good.as_ref().map(|good| good.at),
            age_s: good.map(|good| now.since(good.at).as_secs()),
            error: self.shared.error.lock().clone(),
        }
    }
}

impl KeySource for RemoteSet {
    fn keys(&self) -> Option<Arc<JwkSet>> {
        self.shared.good.load().as_ref().map(|good| good.keys.clone())
    }

    fn unknown_kid(&self, _: &str) {
        // Whatever was named: how often it is asked for is what is limited.
        self.shared.unknown.notify_one();
    }
}

impl Drop for RemoteSet {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Refresher {
    url: Arc<str>,
    fetch: Fetch,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    clock: Clock,
    timing: Timing,
}

impl Refresher {
    async fn run(self) {
        let mut failures = 0u32;
        loop {
            let began = Instant::now();
            let fetched = self.fetch.run().await;
            self.metrics.keys_fetched(&self.url, fetched.is_ok());
            match fetched {
                Ok(keys) => {
                    if failures > 0 {
                        tracing::info!(url = %self.url, failures, "the key set is fetched again");
                    }
                    failures = 0;
                    *self.shared.error.lock() = None;
                    let fetched = Fetched { keys: Arc::new(keys), at: self.clock.now() };
                    self.shared.good.store(Some(Arc::new(fetched)));
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(url = %self.url, %error, "the key set can't be fetched; the last one stays");
                    }
                    failures = failures.saturating_add(1);
                    *self.shared.error.lock() = Some(error.to_string());
                }
            }
            let asked_for = async {
                self.shared.unknown.notified().await;
                sleep_until(began + self.timing.floor).await;
            };
            tokio::select! {
                () = sleep_until(began + self.timing.after(failures)) => {}
                () = asked_for => {}
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the server answered {0}")]
    Status(u16),
    #[error("the answer is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Set(#[from] jwks::BadSet),
}

/// How one URL is fetched.
struct Fetch {
    upstream: Upstream,
    request: Outgoing,
}

impl Fetch {
    fn new(url: &Uri) -> Result<Self, String> {
        let host = url.host().unwrap_or_default();
        match url.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            _ => {
                return Err("a key set is fetched over https (over http only from a loopback address)".into());
            }
        }
        let destination = Destination {
            name: DestinationName::new("keys", host),
            upstreams: vec![url.clone()],
            when: None,
            tls: UpstreamTls::default(),
            http: UpstreamHttp::Http1,
            connect_timeout: TIMEOUT,
            timeout: TIMEOUT,
            concurrency: 1,
            retry: Retry::default(),
            headers: HeaderChanges::default(),
            path: None,
            sign: None,
            host: HostHeader::Upstream,
        };
        let upstream = Upstream::new(&destination).map_err(|error| error.to_string())?;
        let headers: Headers =
            [("Accept", &b"application/json"[..]), ("User-Agent", b"tidegate")].into_iter().collect();
        let target = url.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Self { upstream, request: Outgoing { method: Method::GET, target, headers } })
    }

    async fn run(&self) -> Result<JwkSet, FetchError> {
        let mut answer = self.upstream.send(&self.request, Bytes::new()).await?;
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
        Ok(jwks::parse(&body)?)
    }
}

#[cfg(test)]
mod tests;
