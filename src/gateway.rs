//! The running gateway: the current config snapshot and what outlives it.
//!
//! Here is decided what a reload may change and how the parts go over to it; reading the config is `config`'s, what
//! happens to a request `receive`'s. Carries the config half of promise 8: a request keeps the snapshot that it began
//! with, the next one gets the new one, and a bad config changes nothing.

mod fixed;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_rustls::rustls::ServerConfig;

use crate::alerts::{Alerts, Expiring, Targets};
use crate::breaker::Breakers;
use crate::buffer::{Admission, Buffer, DestinationName, DestinationStats, LaneBy};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, Destination, Loaded};
use crate::deliver::{self, Deliverer};
use crate::endpoints::Endpoints;
use crate::jobs::Jobs;
use crate::keys::{KeySetStatus, RemoteKeys};
use crate::pauses::Pauses;
use crate::quarantine::Quarantine;
use crate::ranges::{RangeStore, RangesStatus};
use crate::receive::Intake;
use crate::telemetry::Metrics;
use crate::trace::Tracer;
use crate::upstream::Upstream;

use fixed::{Fixed, NotLive};

pub use fixed::admin_text;

/// Everything that a request needs, in one place. Shared by all threads; lives as long as the process.
pub struct Gateway {
    /// Swapped whole on reload; a request keeps the one it began with.
    pub snapshot: ArcSwap<Snapshot>,
    pub buffer: Arc<dyn Buffer>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// `None`: nothing is recorded.
    pub tracer: Option<Arc<Tracer>>,
    /// What the way in remembers between requests; a reload keeps it.
    pub intake: Intake,
    /// Which destinations are spared, buffered and inline ones; a reload keeps them.
    pub breakers: Arc<Breakers>,
    /// What an operator has paused.
    pub pauses: Arc<Pauses>,
    /// Refused requests, if the config asks to keep some.
    pub quarantine: Arc<Quarantine>,
    /// Replays, purges and erasures in the background.
    pub jobs: Jobs,
    /// What is wrong, and for how long.
    alerts: Alerts,
    /// URLs of clients' own; a reload keeps them.
    pub endpoints: Endpoints,
    /// Works on the buffered destinations of the current snapshot.
    deliverer: Deliverer,
    /// Where the config is read again from.
    config_path: PathBuf,
    /// Key sets are shared by all snapshots.
    keys: Arc<RemoteKeys>,
    /// So are the ranges of providers.
    ranges: Arc<RangeStore>,
    /// Health checks run here.
    runtime: Handle,
    phase: Mutex<Phase>,
    /// The settings that a reload can't change, as they were at the start.
    fixed: Fixed,
    last_reload: Mutex<Option<LastReload>>,
    /// One reload at a time, or an older config could replace a newer one.
    reloading: tokio::sync::Mutex<()>,
}

/// A checked config and what is made from it once.
pub struct Snapshot {
    pub config: Config,
    pub upstreams: HashMap<DestinationName, Arc<Upstream>>,
    /// By the index of the listener; `None` for plain ones.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// Who is told of alerts.
    pub alert_targets: Targets,
    /// When certificates end.
    certificates: Vec<Expiring>,
}

/// Where the process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The listeners don't accept yet.
    Starting,
    Serving,
    /// Asked to end; what is in flight is finished.
    Draining,
}

/// Why `/readyz` says no; empty means ready.
pub type NotReady = Vec<String>;

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Reloaded {
    /// Of the config that runs now.
    pub hash: String,
    pub warnings: Vec<String>,
}

/// The latest reload, for status.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LastReload {
    pub at: Timestamp,
    #[serde(flatten)]
    pub outcome: ReloadOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReloadOutcome {
    Accepted {
        hash: String,
    },
    /// The config from before runs on.
    Refused {
        problem: String,
    },
}

/// What every part is given: the time, and whom to tell of what happens.
#[derive(Clone, Debug)]
pub struct Ambient {
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// `None`: no traces are recorded.
    pub tracer: Option<Arc<Tracer>>,
}

impl Gateway {
    /// Must be called within the tokio runtime that the delivery workers shall run on. Delivers nothing yet. Reads the
    /// last good lists of providers' ranges from the buffer's folder, and begins to keep them fresh.
    pub fn new(
        snapshot: Snapshot,
        config_path: PathBuf,
        keys: Arc<RemoteKeys>,
        buffer: Arc<dyn Buffer>,
        quarantine: Arc<Quarantine>,
        Ambient { metrics, clock, tracer }: Ambient,
    ) -> Self {
        let ranges = RangeStore::new(&snapshot.config.buffer.path, metrics.clone(), clock.clone());
        ranges.adopt(&snapshot.config);
        let breakers: Arc<Breakers> = Arc::default();
        let pauses = Arc::new(Pauses::new(buffer.clone()));
        let seams = deliver::Seams {
            buffer: buffer.clone(),
            breakers: breakers.clone(),
            pauses: pauses.watch(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            tracer: tracer.clone(),
        };
        quarantine.apply(snapshot.config.quarantine.clone());
        // Before the first event comes in.
        buffer.order(snapshot.orders());
        Self {
            ranges: Arc::new(ranges),
            fixed: Fixed::of(&snapshot.config),
            snapshot: ArcSwap::from_pointee(snapshot),
            deliverer: Deliverer::new(seams),
            intake: Intake::new(metrics.clone()),
            jobs: Jobs::new(buffer.clone(), clock.clone()),
            alerts: Alerts::new(metrics.clone(), clock.clone()),
            breakers,
            pauses,
            endpoints: Endpoints::new(buffer.clone(), clock.clone()),
            buffer,
            quarantine,
            metrics,
            clock,
            tracer,
            config_path,
            keys,
            runtime: Handle::current(),
            phase: Mutex::new(Phase::Starting),
            last_reload: Mutex::new(None),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    /// What an earlier process knew of sick apps. To be done before anything is sent.
    pub async fn restore_breakers(&self) -> Result<(), crate::buffer::BufferError> {
        let config = &self.snapshot.load_full().config;
        let has =
            |name: &DestinationName| destinations(config).any(|to| to.name == *name && to.breaker.is_some());
        self.breakers.restore(&*self.buffer, &self.clock, has).await
    }

    /// The listeners accept: deliveries begin and the gateway is ready.
    pub fn serving(&self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Starting {
            *phase = Phase::Serving;
            let snapshot = self.snapshot.load();
            self.check_health(&snapshot);
            self.deliverer.apply(snapshot.buffered());
        }
    }

    /// Those of clients that a reload replaced have ended with them.
    fn check_health(&self, snapshot: &Snapshot) {
        for (name, upstream) in &snapshot.upstreams {
            let breaker = self.breakers.of(name);
            upstream.check_health(&self.runtime, move || {
                breaker.probe_soon("a health check says that the app is up again");
            });
        }
    }

    /// Not ready from now on. Requests are still taken until the listeners close.
    pub fn drain(&self) {
        *self.phase.lock() = Phase::Draining;
    }

    /// Ends all deliveries: those in flight within `grace`, the others later, by the next process.
    pub async fn stop_delivering(&self, grace: Duration) {
        self.deliverer.shutdown(grace).await;
    }

    /// Reads and checks the config again and swaps it in; on any problem the running one stays, and the error says
    /// everything that is wrong.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.reload_checked().await;
        self.metrics.reloaded(result.is_ok());
        let outcome = match &result {
            Ok(reloaded) => {
                tracing::info!(
                    hash = reloaded.hash,
                    "the config was reloaded, its secrets and certificates too"
                );
                for warning in &reloaded.warnings {
                    tracing::warn!(%warning, "the config has a warning");
                }
                ReloadOutcome::Accepted { hash: reloaded.hash.clone() }
            }
            Err(problem) => {
                tracing::error!(%problem, "the config was not reloaded; the running one stays");
                ReloadOutcome::Refused { problem: problem.clone() }
            }
        };
        *self.last_reload.lock() = Some(LastReload { at: self.clock.now(), outcome });
        result
    }

    async fn reload_checked(&self) -> Result<Reloaded, String> {
        let (path, keys, old) = (self.config_path.clone(), self.keys.clone(), self.snapshot.load_full());
        let (fixed, ranges) = (self.fixed.clone(), self.ranges.clone());
        // Files are read, so not on a thread that others wait for.
        let prepared = tokio::task::spawn_blocking(move || {
            let Loaded { config, warnings } = config::load(&path, &*keys).map_err(|e| e.to_string())?;
            let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            let changes = NotLive::between(&fixed, &Fixed::of(&config));
            if !changes.refused.is_empty() {
                return Err(changes.refused.join("\n"));
            }
            warnings.extend(changes.later);
            let snapshot = Snapshot::build(config, Some(&old))?;
            Ok((snapshot, warnings))
        });
        let failed = |error: tokio::task::JoinError| format!("reading the config failed: {error}");
        let (snapshot, mut warnings) = prepared.await.map_err(failed)??;
        self.buffer.adopt(&snapshot.config.buffer).await.map_err(|error| error.to_string())?;
        // Nothing can refuse it any more. Its files are read, too.
        let adopted = tokio::task::spawn_blocking(move || {
            ranges.adopt(&snapshot.config);
            snapshot
        });
        let snapshot = adopted.await.map_err(failed)?;
        let hash = snapshot.config.hash.clone();
        warnings.extend(self.left_waiting(&snapshot).await);
        // The lock is held so that workers are never given to a gateway that has begun to end.
        let phase = self.phase.lock();
        let buffered = snapshot.buffered();
        self.quarantine.apply(snapshot.config.quarantine.clone());
        self.buffer.order(snapshot.orders());
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        match *phase {
            Phase::Serving => {
                self.check_health(&snapshot);
                self.deliverer.apply(buffered);
            }
            Phase::Starting | Phase::Draining => {}
        }
        Ok(Reloaded { hash, warnings })
    }

    /// Deliveries that `snapshot` has no destination for: they wait until a config has it again.
    async fn left_waiting(&self, snapshot: &Snapshot) -> Vec<String> {
        // Without numbers there is nothing to say; why there are none is said elsewhere.
        let stats = self.buffer.stats().await.map(|stats| stats.destinations).unwrap_or_default();
        let buffered: Vec<_> = snapshot.buffered().into_iter().map(|(to, _)| to.name.clone()).collect();
        let left = stats.into_iter().filter(|d| d.backlog > 0 && !buffered.contains(&d.destination));
        left.map(|d| {
            let DestinationStats { destination, backlog, .. } = d;
            let wait = if backlog == 1 { "delivery waits" } else { "deliveries wait" };
            format!(
                "{backlog} {wait} for {destination}, which is not in the config: kept until it is back, or given up \
                 (`tidegate events give-up --destination {destination}`) and then deleted \
                 (`tidegate events purge --destination {destination} --yes`)"
            )
        })
        .collect()
    }

    /// Says once at the start what is in the buffer.
    pub async fn announce_backlog(&self) {
        if let Ok(stats) = self.buffer.stats().await {
            let waiting: u64 = stats.destinations.iter().map(|d| d.backlog).sum();
            let dead: u64 = stats.destinations.iter().map(|d| d.dead).sum();
            tracing::info!(
                events = stats.events,
                waiting,
                dead,
                bytes = stats.disk_bytes,
                "the buffer is open"
            );
        }
        for warning in self.left_waiting(&self.snapshot.load()).await {
            tracing::warn!(%warning, "the buffer has deliveries without a destination");
        }
    }

    /// How fresh the remote key sets are.
    pub fn key_sets(&self) -> Vec<KeySetStatus> {
        self.keys.status()
    }

    /// Which ranges of providers are in use.
    pub fn ranges(&self) -> Vec<RangesStatus> {
        self.ranges.status()
    }

    /// Why the gateway should get no traffic now. A config that was not reloaded is no reason: the one before runs.
    pub fn readiness(&self) -> NotReady {
        let mut reasons = NotReady::new();
        match *self.phase.lock() {
            Phase::Starting => reasons.push("starting: the listeners are not open yet".into()),
            Phase::Serving => {}
            Phase::Draining => reasons.push("shutting down".into()),
        }
        match self.buffer.admission() {
            Admission::Open => {}
            Admission::Full(why) => reasons.push(format!("the buffer is full: {why}")),
            Admission::Failed(why) => reasons.push(format!("the buffer has failed: {why}")),
            Admission::Closed => reasons.push("the buffer is closed".into()),
        }
        reasons
    }

    /// The latest reload since the start, if there was one.
    pub fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.lock().clone()
    }
}

impl Snapshot {
    /// Makes what `config` needs. Clients of destinations that are as they were in `old` are taken over, so that their
    /// connections survive a reload. The error lists everything that can't be made.
    pub fn build(config: Config, old: Option<&Snapshot>) -> Result<Self, String> {
        let mut problems = Vec::new();
        let tls = config.listeners.iter().map(|listener| {
            let made = listener.tls.as_ref().map(crate::tls::server_config).transpose();
            made.unwrap_or_else(|error| {
                problems.push(format!("listener {}: {error}", listener.address));
                None
            })
        });
        let tls = tls.collect();
        let mut upstreams = HashMap::new();
        for destination in destinations(&config) {
            match client(destination, old) {
                Ok(client) => {
                    upstreams.insert(destination.name.clone(), client);
                }
                Err(problem) => problems.push(format!("destination {}: {problem}", destination.name)),
            }
        }
        let alert_targets = Targets::build(&config.alerts).unwrap_or_else(|bad| {
            problems.extend(bad);
            Targets::default()
        });
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        let certificates = watch::certificates(&config);
        Ok(Self { config, upstreams, tls, alert_targets, certificates })
    }

    /// The destinations whose events go in order.
    fn orders(&self) -> Vec<(DestinationName, Arc<dyn LaneBy>)> {
        let ordered = |to: &Arc<Destination>| {
            let order: Arc<dyn LaneBy> = to.order.clone()?;
            Some((to.name.clone(), order))
        };
        destinations(&self.config).filter_map(ordered).collect()
    }

    /// The destinations of `buffer` and `spill` routes, with their clients.
    fn buffered(&self) -> Vec<(Arc<Destination>, Arc<Upstream>)> {
        let buffered = self.config.routes.iter().filter(|route| route.mode.is_buffered());
        buffered
            .flat_map(|route| route.mode.destinations())
            .filter_map(|to| Some((to.clone(), self.upstreams.get(&to.name)?.clone())))
            .collect()
    }
}

fn destinations(config: &Config) -> impl Iterator<Item = &Arc<Destination>> {
    config.routes.iter().flat_map(|route| route.mode.destinations())
}

fn client(destination: &Destination, old: Option<&Snapshot>) -> Result<Arc<Upstream>, String> {
    // Settings can be equal while the files that they name are not: those are read again.
    let names_files = destination.tls.ca.is_some() || destination.tls.client.is_some();
    let kept = old.filter(|_| !names_files).and_then(|old| {
        let same = destinations(&old.config).any(|known| **known == *destination);
        old.upstreams.get(&destination.name).filter(|_| same)
    });
    match kept {
        Some(client) => Ok(client.clone()),
        None => Upstream::new(destination).map(Arc::new).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
#[path = "gateway_tests.rs"]
mod tests;
