//! Keys that live elsewhere: key sets, keys and certificates over https, cached, refreshed in the background,
//! last-known-good kept.
//!
//! Fetching only; what a key proves, and what may be read out of an answer, is `verify`'s. Where keys come from is
//! pinned by config or pack: a message names at most a key, or an address that must match a pinned pattern. Plain http
//! is taken for loopback addresses only (tests, a sidecar). `fetch` is one fetch, `document` one document with its
//! task, here is the store of all.
//!
//! A document at a fixed address is fetched when its rule is loaded, then about every ten minutes, and when a token
//! names an unknown key, but then at most once a minute. One that a request names is fetched when it is first named,
//! and then about every hour as long as it is used; how many new names are looked for is limited. After a failed fetch
//! the last good document stays, for ever, and its age is shown.

mod document;
mod fetch;

/// The parser of remote key sets, for fuzzing.
pub mod parsers {
    /// The keys that may verify something; `None` if there are none.
    pub fn key_set(json: &[u8]) -> Option<jsonwebtoken::jwk::JwkSet> {
        crate::verify::parse_jwks(json).ok()
    }
}

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::config::KeySources;
use crate::telemetry::Metrics;
use crate::verify::{Address, KeySource, Lacking, Lookup, Remote, Settled};

use document::{Kept, Kind, Remembered};

/// When documents are fetched.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// After a success; drawn 10 % to either side.
    refresh: Duration,
    /// The same for documents that requests name.
    refresh_named: Duration,
    /// After the first failure in a row; doubles up to the refresh.
    retry: Duration,
    /// Between two fetches that unknown key ids ask for.
    floor: Duration,
    /// How often a new name may be looked for, beyond `MAX_NEW` at once.
    new_name: Duration,
}

impl Timing {
    const DEFAULT: Self = Self {
        refresh: Duration::from_secs(600),
        refresh_named: Duration::from_secs(3600),
        retry: Duration::from_secs(2),
        floor: Duration::from_secs(60),
        new_name: Duration::from_secs(4),
    };

    fn after(&self, failures: u32, refresh: Duration) -> Duration {
        match failures {
            0 => refresh.mul_f64(0.9 + 0.2 * fastrand::f64()),
            n => self.retry.saturating_mul(1 << (n - 1).min(16)).min(refresh),
        }
    }
}

/// Documents of one source that requests name, at most; the least used make room.
const MAX_NAMED: u64 = 64;
/// A named document that nobody used for so long is forgotten.
const NAMED_IDLE: Duration = Duration::from_secs(24 * 3600);
/// New names that may be looked for at once: whoever can send a request can name one.
const MAX_NEW: u32 = 16;

/// What fetching needs.
#[derive(Clone, Debug)]
struct Context {
    metrics: Arc<Metrics>,
    clock: Clock,
    runtime: Handle,
    timing: Timing,
}

/// All remote keys of the process: one source for what is asked for in one way, shared by routes and kept across
/// reloads. A source that no config uses any more is no longer fetched.
#[derive(Debug)]
pub struct RemoteKeys {
    context: Context,
    sources: Mutex<HashMap<[u8; 32], Weak<Source>>>,
}

impl RemoteKeys {
    /// Must be called within the tokio runtime that fetches in the background.
    pub fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        let context = Context { metrics, clock, runtime: Handle::current(), timing: Timing::DEFAULT };
        Self { context, sources: Mutex::default() }
    }

    /// How fresh each document is, by URL.
    pub fn status(&self) -> Vec<KeySetStatus> {
        let now = self.context.clock.now();
        let sources: Vec<_> = self.sources.lock().values().filter_map(Weak::upgrade).collect();
        let mut status: Vec<_> = sources.iter().flat_map(|source| source.status(now)).collect();
        status.sort_by(|a, b| a.url.cmp(&b.url));
        status
    }
}

impl KeySources for RemoteKeys {
    fn source(&self, remote: Remote) -> Arc<dyn KeySource> {
        let identity = remote.identity();
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&identity).and_then(Weak::upgrade) {
            return source;
        }
        sources.retain(|_, source| source.strong_count() > 0);
        let source = Arc::new(Source::new(remote, self.context.clone()));
        sources.insert(identity, Arc::downgrade(&source));
        source
    }
}

/// What is known of one document.
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

/// One way to ask for keys, and the documents that came of it.
#[derive(Debug)]
enum Source {
    Fixed(Box<Remembered>),
    Named(Box<Named>),
}

#[derive(Debug)]
struct Named {
    remote: Remote,
    context: Context,
    documents: moka::sync::Cache<Box<str>, Arc<Remembered>>,
    new: Mutex<Allowance>,
}

/// How many new names may still be looked for.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, every: Duration) -> bool {
        let earned = self.since.elapsed().as_nanos() / every.as_nanos().max(1);
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(earned).min(MAX_NEW);
            self.since += every.saturating_mul(earned);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

impl Source {
    fn new(remote: Remote, context: Context) -> Self {
        match remote.address {
            Address::Fixed(_) => {
                let kind = Kind { name: "".into(), kept: Kept::Always };
                Source::Fixed(Remembered::start(&remote, kind, &context).into())
            }
            Address::PerKey(_) | Address::Named(_) => Source::Named(Box::new(Named {
                remote,
                context,
                documents: moka::sync::Cache::builder()
                    .max_capacity(MAX_NAMED)
                    .time_to_idle(NAMED_IDLE)
                    .build(),
                new: Mutex::new(Allowance { left: MAX_NEW, since: Instant::now() }),
            })),
        }
    }

    fn status(&self, now: Timestamp) -> Vec<KeySetStatus> {
        match self {
            Source::Fixed(document) => vec![document.status(now)],
            Source::Named(named) => {
                named.documents.iter().map(|(_, document)| document.status(now)).collect()
            }
        }
    }
}

impl Named {
    /// The document of this name, which is asked for if it may be; `None` if not.
    fn document(&self, name: &str) -> Option<Arc<Remembered>> {
        if let Some(known) = self.documents.get(name)
            && !known.is_stale_failure()
        {
            return Some(known);
        }
        // Held for the check and the start of a task: nothing here waits.
        let mut new = self.new.lock();
        if let Some(known) = self.documents.get(name)
            && !known.is_stale_failure()
        {
            return Some(known);
        }
        if !new.take(self.context.timing.new_name) {
            return None;
        }
        let kind = Kind { name: name.into(), kept: Kept::OnceFound };
        let document = Arc::new(Remembered::start(&self.remote, kind, &self.context));
        self.documents.insert(name.into(), document.clone());
        Some(document)
    }
}

impl KeySource for Source {
    fn lookup(&self, name: &str) -> Lookup {
        match self {
            Source::Fixed(document) => document.lookup(),
            Source::Named(named) if named.remote.address.of(name).is_none() => Lookup::Absent,
            Source::Named(named) => {
                named.document(name).map_or(Lookup::Failing, |document| document.lookup())
            }
        }
    }

    fn lacks(&self, _: &str) -> Lacking {
        match self {
            Source::Fixed(document) => document.lacks(),
            // Each holds one key.
            Source::Named(_) => Lacking::Fresh,
        }
    }

    fn settled(&self, name: &str) -> Settled {
        match self {
            Source::Fixed(document) => document.settled(),
            Source::Named(named) => match named.documents.get(name) {
                Some(document) => document.settled(),
                None => Box::pin(std::future::ready(())),
            },
        }
    }
}

#[cfg(test)]
mod tests;
