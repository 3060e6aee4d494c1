//! The address ranges that providers publish, for `allow: [provider]`: fetched in the background, held against what is
//! in use, kept on disk, and swapped into the allowlists whole.
//!
//! What a pack says of them and how a list is read is `providers::ranges`'s, the lookup `route`'s. A list comes only
//! from the address in the pack. One that is empty, can't be read, or lacks too many of the ranges in use (`rule`)
//! changes nothing and is loud. At a start the last good list on disk (`kept`) counts if it is younger than the pack's
//! snapshot, else the snapshot: without network the route works with what was known.

mod kept;
mod rule;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, ProviderRanges, RangeSettings, TrustedRoots};
use crate::fetch::{self, Fetch};
use crate::providers::Ranges;
use crate::providers::ranges::{BadList, RangeList};
use crate::route::{Allowlist, LiveRanges};
use crate::telemetry::Metrics;

use kept::{Kept, KeptFile};

/// What one fetch may cost. The largest lists (of whole clouds) have about 2 MB.
const LIMITS: fetch::Limits = fetch::Limits { bytes: 8 * 1024 * 1024, time: Duration::from_secs(20) };
/// After the first failure in a row; doubles up to the shorter of an hour and `ranges.refresh`.
const RETRY: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// All ranges of the process: one set a provider's pack, shared by routes and kept across reloads.
#[derive(Debug)]
pub struct RangeStore {
    /// `ranges` in the buffer's folder.
    folder: PathBuf,
    metrics: Arc<Metrics>,
    clock: Clock,
    runtime: Handle,
    sets: Mutex<Vec<Set>>,
}

/// What is known of one provider's ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangesStatus {
    pub provider: String,
    /// How many are in use.
    pub ranges: usize,
    pub source: Source,
    /// When the list in use was fetched, or the day of the snapshot.
    pub as_of: Timestamp,
    /// Seconds since then.
    pub age_s: u64,
    /// Where the list is published; `None`: not for machines.
    pub list: Option<String>,
    /// Why the latest list was not taken; `None` if it was.
    pub error: Option<String>,
    /// Why a list that came was not believed; `None` as soon as one is.
    pub refused: Option<String>,
}

/// Where the ranges in use come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The pack.
    Snapshot,
    /// The provider's list, now or before a restart.
    List,
}

impl Source {
    pub const fn word(self) -> &'static str {
        match self {
            Source::Snapshot => "snapshot",
            Source::List => "list",
        }
    }
}

impl RangeStore {
    /// Must be called within the tokio runtime that fetches in the background.
    pub fn new(buffer_folder: &Path, metrics: Arc<Metrics>, clock: Clock) -> Self {
        let folder = buffer_folder.join("ranges");
        Self { folder, metrics, clock, runtime: Handle::current(), sets: Mutex::default() }
    }

    /// Fills the config's live ranges with the best that is known and keeps them fresh from now on. What no config uses
    /// any more is no longer fetched. Reads files: not for a thread that others wait for.
    pub fn adopt(&self, config: &Config) {
        let mut sets = self.sets.lock();
        let mut before = std::mem::take(&mut *sets);
        for wanted in &config.provider_ranges {
            let known = before.iter().position(|set| set.is_of(wanted)).map(|at| before.swap_remove(at));
            let set = match known {
                // The file that `ca` names may have changed.
                Some(set) if set.settings == config.ranges && config.ranges.ca.is_none() => set,
                known => self.start(wanted, &config.ranges, known.map(|set| set.shared.clone())),
            };
            set.shared.feed(&wanted.live);
            sets.push(set);
        }
    }

    /// What is in use, by provider.
    pub fn status(&self) -> Vec<RangesStatus> {
        let now = self.clock.now();
        let mut all: Vec<RangesStatus> = self.sets.lock().iter().map(|set| set.status(now)).collect();
        all.sort_by(|a, b| a.provider.cmp(&b.provider));
        all
    }

    fn start(&self, of: &ProviderRanges, settings: &RangeSettings, known: Option<Arc<Shared>>) -> Set {
        let ProviderRanges { provider, ranges, .. } = of;
        let list = ranges.list.as_ref();
        let file = list.map(|list| KeptFile::new(&self.folder, provider, &list.url.to_string()));
        let shared = known.unwrap_or_else(|| {
            let known = Known::at_start(provider, ranges, file.as_ref());
            self.metrics.ranges_in_use(provider, known.ranges.len(), known.as_of);
            Arc::new(Shared {
                state: Mutex::new(State { known, error: None, refused: None, live: Vec::new() }),
            })
        });
        let task = match (list, file) {
            (Some(list), Some(file)) if !settings.offline => {
                match Fetch::new(
                    &list.url,
                    settings.ca.clone().map(TrustedRoots::File),
                    vec![("Accept".to_owned(), b"application/json, text/plain, */*".to_vec())],
                    None,
                    LIMITS,
                ) {
                    Ok(fetch) => {
                        let refresher = Refresher {
                            provider: provider.clone(),
                            list: list.clone(),
                            fetch,
                            file,
                            settings: settings.clone(),
                            shared: shared.clone(),
                            metrics: self.metrics.clone(),
                            clock: self.clock.clone(),
                        };
                        Some(self.runtime.spawn(refresher.run()).abort_handle())
                    }
                    Err(problem) => {
                        tracing::error!(provider, problem, "the provider's ranges can't be fetched");
                        shared.state.lock().error = Some(problem);
                        None
                    }
                }
            }
            _ => None,
        };
        Set { provider: provider.clone(), ranges: ranges.clone(), settings: settings.clone(), shared, task }
    }
}

/// One provider's ranges and the task that fetches them, which ends with it.
#[derive(Debug)]
struct Set {
    provider: String,
    ranges: Arc<Ranges>,
    settings: RangeSettings,
    shared: Arc<Shared>,
    /// `None`: nothing is fetched.
    task: Option<AbortHandle>,
}

impl Set {
    fn is_of(&self, wanted: &ProviderRanges) -> bool {
        self.provider == wanted.provider && self.ranges == wanted.ranges
    }

    fn status(&self, now: Timestamp) -> RangesStatus {
        let state = self.shared.state.lock();
        RangesStatus {
            provider: self.provider.clone(),
            ranges: state.known.ranges.len(),
            source: state.known.source,
            as_of: state.known.as_of,
            age_s: now.since(state.known.as_of).as_secs(),
            list: self.ranges.list.as_ref().map(|list| list.url.to_string()),
            error: state.error.clone(),
            refused: state.refused.clone(),
        }
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: Known,
    error: Option<String>,
    /// Outlives fetches that fail: the list that was not believed is still the last word.
    refused: Option<String>,
    /// Of the config that runs, and of older ones whose requests are still under way.
    live: Vec<Weak<LiveRanges>>,
}

impl Shared {
    fn feed(&self, live: &Arc<LiveRanges>) {
        let mut state = self.state.lock();
        live.store(state.known.allow.clone());
        state.live.retain(|live| live.strong_count() > 0);
        state.live.push(Arc::downgrade(live));
    }

    fn swap(&self, known: Known) {
        let mut state = self.state.lock();
        for live in state.live.iter().filter_map(Weak::upgrade) {
            live.store(known.allow.clone());
        }
        state.known = known;
    }
}

/// The ranges in use.
#[derive(Clone, Debug)]
struct Known {
    ranges: Vec<IpNet>,
    allow: Arc<Allowlist>,
    source: Source,
    as_of: Timestamp,
}

impl Known {
    fn new(ranges: Vec<IpNet>, source: Source, as_of: Timestamp) -> Self {
        let allow = Arc::new(Allowlist::new(ranges.iter().copied()));
        Self { ranges, allow, source, as_of }
    }

    fn at_start(provider: &str, ranges: &Ranges, file: Option<&KeptFile>) -> Self {
        let day = ranges.snapshot_day();
        match file.map(KeptFile::read) {
            Some(Ok(Some(kept))) if kept.fetched_at > day => {
                return Self::new(kept.ranges, Source::List, kept.fetched_at);
            }
            Some(Err(problem)) => {
                tracing::warn!(provider, problem, "the provider's last list can't be used: its snapshot is");
            }
            _ => {}
        }
        Self::new(ranges.snapshot.clone(), Source::Snapshot, day)
    }
}

/// Why a list was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    #[error(transparent)]
    Bad(#[from] BadList),
    #[error(transparent)]
    Shrunk(#[from] rule::Shrunk),
}

impl NotTaken {
    /// Whether a list came and is not believed, which is another matter than none.
    const fn is_refusal(&self) -> bool {
        match self {
            NotTaken::Fetch(_) => false,
            NotTaken::Bad(_) | NotTaken::Shrunk(_) => true,
        }
    }

    /// The word of the metric.
    const fn outcome(&self) -> &'static str {
        if self.is_refusal() { "refused" } else { "failed" }
    }
}

struct Refresher {
    provider: String,
    list: RangeList,
    fetch: Fetch,
    file: KeptFile,
    settings: RangeSettings,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Refresher {
    async fn run(self) {
        sleep(self.first_wait()).await;
        let mut failures = 0u32;
        loop {
            match self.refresh().await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures = failures.saturating_add(1);
                    self.complain(&why);
                }
            }
            sleep(self.wait(failures)).await;
        }
    }

    /// A list that is fresh enough is not fetched again only because of a restart or a reload.
    fn first_wait(&self) -> Duration {
        let state = self.shared.state.lock();
        match state.known.source {
            Source::Snapshot => Duration::ZERO,
            Source::List => self.settings.refresh.saturating_sub(self.clock.now().since(state.known.as_of)),
        }
    }

    fn wait(&self, failures: u32) -> Duration {
        let refresh = self.settings.refresh;
        match failures {
            0 => refresh.mul_f64(0.9 + 0.1 * fastrand::f64()),
            n => RETRY.saturating_mul(1 << (n - 1).min(16)).min(RETRY_MAX).min(refresh),
        }
    }

    async fn refresh(&self) -> Result<(), NotTaken> {
        let ranges = self.list.read(&self.fetch.run(None).await?)?;
        let in_use = self.shared.state.lock().known.ranges.clone();
        rule::judge(&in_use, &ranges, self.settings.max_shrink)?;
        let now = self.clock.now();
        if ranges != in_use {
            tracing::info!(
                provider = self.provider,
                was = in_use.len(),
                is = ranges.len(),
                "the provider's ranges changed"
            );
        }
        let kept = Kept { ranges: ranges.clone(), fetched_at: now };
        self.shared.swap(Known::new(ranges, Source::List, now));
        {
            let mut state = self.shared.state.lock();
            (state.error, state.refused) = (None, None);
        }
        self.metrics.ranges_fetched(&self.provider, "ok");
        self.metrics.ranges_in_use(&self.provider, kept.ranges.len(), now);
        let file = self.file.clone();
        // In use already: what fails here is only that a restart will not know it.
        match tokio::task::spawn_blocking(move || file.write(&kept)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(provider = self.provider, %error, "the provider's list could not be kept on disk");
            }
            Err(error) => {
                tracing::error!(provider = self.provider, %error, "the provider's list was not kept")
            }
        }
        Ok(())
    }

    /// Says it in log, metric and status; what stays the same is said once.
    fn complain(&self, why: &NotTaken) {
        self.metrics.ranges_fetched(&self.provider, why.outcome());
        let (url, text) = (self.list.url.to_string(), why.to_string());
        let before = {
            let mut state = self.shared.state.lock();
            if why.is_refusal() {
                state.refused = Some(text.clone());
            }
            state.error.replace(text)
        };
        if before.is_none_or(|before| before != why.to_string()) {
            if why.is_refusal() {
                tracing::error!(provider = self.provider, url, error = %why, "the provider's list is not believed; the ranges in use stay");
            } else {
                tracing::warn!(provider = self.provider, url, error = %why, "the provider's list can't be fetched; the ranges in use stay");
            }
        }
    }
}

#[cfg(test)]
mod tests;
