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
//! and then about every hour as long as it is used; `named` keeps apart what strangers name. After a failed fetch the
//! last good document stays, for ever, and its age is shown. The names that were good outlive a restart (`kept`).

mod document;
mod fetch;
mod kept;
mod named;

/// The parser of remote key sets, for fuzzing.
pub mod parsers {
    /// The keys that may verify something; `None` if there are none.
    pub fn key_set(json: &[u8]) -> Option<jsonwebtoken::jwk::JwkSet> {
        crate::verify::parse_jwks(json).ok()
    }
}

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::clock::{Clock, Timestamp};
use crate::config::KeySources;
use crate::shares::Rate;
use crate::telemetry::Metrics;
use crate::verify::{Address, KeySource, Lacking, Lookup, Remote, Settled};

use document::{Kept, Kind, Remembered};
use kept::Names;
use named::Named;

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
    /// How many names that are not known to be good are looked for, of one source.
    new_names: Rate,
}

impl Timing {
    const DEFAULT: Self = Self {
        refresh: Duration::from_secs(600),
        refresh_named: Duration::from_secs(3600),
        retry: Duration::from_secs(2),
        floor: Duration::from_secs(60),
        new_names: Rate { count: 32, per: Duration::from_secs(32) },
    };

    fn after(&self, failures: u32, refresh: Duration) -> Duration {
        match failures {
            0 => refresh.mul_f64(0.9 + 0.2 * fastrand::f64()),
            n => self.retry.saturating_mul(1 << (n - 1).min(16)).min(refresh),
        }
    }
}

/// What fetching needs.
#[derive(Clone, Debug)]
struct Context {
    metrics: Arc<Metrics>,
    clock: Clock,
    runtime: Handle,
    timing: Timing,
    names: Arc<Names>,
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
        let runtime = Handle::current();
        let context = Context { metrics, clock, runtime, timing: Timing::DEFAULT, names: Arc::default() };
        Self { context, sources: Mutex::default() }
    }

    /// Takes the names of keys that were good before a restart, and keeps them in the buffer's folder from now on. To be
    /// called by the one process that has the buffer; reads a file.
    pub fn remember_in(&self, buffer_folder: &Path) {
        self.context.names.open(&buffer_folder.join("keys"));
        for source in self.sources.lock().values().filter_map(Weak::upgrade) {
            if let Source::Named(named) = &*source {
                named.remember();
            }
        }
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
    /// Names in requests that were never a key's, all of them together: how many are known of. Then this is not about a
    /// document. 0: it is.
    pub unknown_names: usize,
    /// Whether people should hear of it if it is wrong: not of names that strangers made up, and not of a key that its
    /// issuer has taken back.
    #[serde(skip)]
    pub alarming: bool,
}

/// One way to ask for keys, and the documents that came of it.
#[derive(Debug)]
enum Source {
    Fixed(Box<Remembered>),
    Named(Box<Named>),
}

impl Source {
    fn new(remote: Remote, context: Context) -> Self {
        match remote.address {
            Address::Fixed(_) => {
                let kind = Kind { name: "".into(), kept: Kept::Always };
                Source::Fixed(Remembered::start(&remote, kind, &context).into())
            }
            Address::PerKey(_) | Address::Named(_) => Source::Named(Named::new(remote, context).into()),
        }
    }

    fn status(&self, now: Timestamp) -> Vec<KeySetStatus> {
        match self {
            Source::Fixed(document) => vec![document.status(now)],
            Source::Named(named) => named.status(now),
        }
    }
}

impl KeySource for Source {
    fn lookup(&self, name: &str, asker: IpAddr) -> Lookup {
        match self {
            Source::Fixed(document) => document.lookup(),
            Source::Named(named) => named.lookup(name, asker),
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
            Source::Named(named) => named.settled(name),
        }
    }

    fn proved(&self, name: &str) {
        if let Source::Named(named) = self {
            named.proved(name);
        }
    }
}

#[cfg(test)]
mod tests;
