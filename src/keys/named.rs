//! Documents that requests name: whoever can send a request can name one, so those whose key has verified something and
//! those that anybody has made up never stand in each other's way.
//!
//! *Good* names are kept apart, are asked for whenever they are needed, and only another good name takes the place of
//! one. All *others* (unknown, failed, or fetched but of no use so far) have a small cache of their own, and looking for
//! them draws from a budget in which each address of a sender has a share ([`Shares`]). They are summed up in one line
//! of `status` and at most one line of the log a minute, without their names: that text is a stranger's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::document::{Kept, Kind, Remembered};
use super::{Context, KeySetStatus};
use crate::clock::Timestamp;
use crate::shares::{Origin, Shares};
use crate::verify::{Lookup, Remote, Settled};

/// Good names of one source, at most; the least recently used make room for new ones.
const MAX_GOOD: u64 = 256;
/// Other names of one source, at most: more than can be looked for while one is being fetched.
const MAX_OTHERS: u64 = 128;
/// A name that nobody used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// Between two lines of the log about names that are not good.
const HUSH: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Named {
    remote: Remote,
    context: Context,
    /// Under which its names are kept on disk.
    kept_as: String,
    /// `None`: good before a restart, and not asked for since.
    good: Cache<Box<str>, Option<Arc<Remembered>>>,
    others: Cache<Box<str>, Arc<Remembered>>,
    budget: Mutex<Shares>,
    hush: Arc<Hush>,
}

/// What keeps names that are not good from filling the log.
#[derive(Debug, Default)]
pub(super) struct Hush(Mutex<(Option<Instant>, u64)>);

impl Hush {
    /// Whether one more line may be written, and then how many were not since the last one.
    pub(super) fn line(&self) -> Option<u64> {
        let mut said = self.0.lock();
        if said.0.is_some_and(|at| at.elapsed() < HUSH) {
            said.1 += 1;
            return None;
        }
        said.0 = Some(Instant::now());
        Some(std::mem::take(&mut said.1))
    }
}

fn cache<V: Clone + Send + Sync + 'static>(most: u64) -> Cache<Box<str>, V> {
    let lru = EvictionPolicy::lru();
    Cache::builder().max_capacity(most).time_to_idle(IDLE).eviction_policy(lru).build()
}

impl Named {
    pub(super) fn new(remote: Remote, context: Context) -> Self {
        let budget = Shares::new(context.timing.new_names, context.clock.now());
        let digest = Sha256::digest(format!("{:?}", remote.address));
        let named = Self {
            kept_as: hex::encode(&digest[..16]),
            good: cache(MAX_GOOD),
            others: cache(MAX_OTHERS),
            budget: Mutex::new(budget),
            hush: Arc::default(),
            remote,
            context,
        };
        named.remember();
        named
    }

    /// Takes the names that were good before a restart.
    pub(super) fn remember(&self) {
        for name in self.context.names.of(&self.kept_as) {
            // Of a file that somebody may have edited.
            if self.remote.address.of(&name).is_some() && !self.good.contains_key(name.as_str()) {
                self.good.insert(name.into(), None);
            }
        }
    }

    pub(super) fn lookup(&self, name: &str, asker: IpAddr) -> Lookup {
        match self.remote.address.of(name) {
            None => Lookup::Absent,
            Some(_) => self.document(name, asker).map_or(Lookup::Failing, |document| document.lookup()),
        }
    }

    /// The document of this name, which is asked for if it may be; `None` if not.
    fn document(&self, name: &str, asker: IpAddr) -> Option<Arc<Remembered>> {
        let useful = || self.known(name).filter(|known| !known.is_stale_failure());
        if let Some(known) = useful() {
            return Some(known);
        }
        // Held for the check and the start of a task: nothing here waits.
        let mut budget = self.budget.lock();
        if let Some(known) = useful() {
            return Some(known);
        }
        let good = self.good.contains_key(name);
        let now = self.context.clock.now();
        if !good && !budget.take(Origin::of(asker), self.context.timing.new_names, now) {
            return None;
        }
        let kind = Kind { name: name.into(), kept: Kept::OnceFound { good, hush: self.hush.clone() } };
        let document = Arc::new(Remembered::start(&self.remote, kind, &self.context));
        match good {
            true => self.good.insert(name.into(), Some(document.clone())),
            false => self.others.insert(name.into(), document.clone()),
        }
        Some(document)
    }

    fn known(&self, name: &str) -> Option<Arc<Remembered>> {
        self.good.get(name).unwrap_or_else(|| self.others.get(name))
    }

    /// A key of this name has verified something: from now on it is a good one.
    pub(super) fn proved(&self, name: &str) {
        if self.good.contains_key(name) {
            return;
        }
        // Already forgotten: the next request that names it brings it back.
        let Some(document) = self.others.get(name) else { return };
        document.is_good();
        // In this order, so that it is to be found in between.
        self.good.insert(name.into(), Some(document));
        self.others.invalidate(name);
        let names = self.good.iter().map(|(name, _)| name.to_string()).collect();
        self.context.names.set(&self.kept_as, names);
        let names = self.context.names.clone();
        self.context.runtime.spawn_blocking(move || names.write());
    }

    pub(super) fn settled(&self, name: &str) -> Settled {
        match self.known(name) {
            Some(document) => document.settled(),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// Each good one, and one entry for all others if any of them can't be fetched.
    pub(super) fn status(&self, now: Timestamp) -> Vec<KeySetStatus> {
        let mut status: Vec<_> =
            self.good.iter().filter_map(|(_, document)| Some(document?.status(now))).collect();
        let failed = self.others.iter().filter_map(|(_, document)| document.status(now).error);
        let failed: Vec<String> = failed.collect();
        let unknown_names = failed.len();
        if let Some(error) = failed.into_iter().next() {
            status.push(KeySetStatus {
                url: self.remote.shown(),
                keys: 0,
                fetched_at: None,
                age_s: None,
                error: Some(error),
                unknown_names,
                alarming: false,
            });
        }
        status
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (u64, u64) {
        self.good.run_pending_tasks();
        self.others.run_pending_tasks();
        (self.good.entry_count(), self.others.entry_count())
    }
}
