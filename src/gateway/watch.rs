//! What alerts are told of the gateway, again and again.

use std::sync::Arc;
use std::time::Duration;

use super::{Gateway, Snapshot};
use crate::alerts::{
    AlertsStatus, DestinationSample, Disk, Expiring, Fetched, OpenBreaker, RouteSample, Sample, Tested,
};
use crate::breaker::Phase;
use crate::buffer::{Admission, Stats};
use crate::config::{CertificateFiles, Config};
use crate::ranges::Source;
use crate::verify::Expiry;

/// A sample goes without the buffer's numbers if they take longer.
const STATS_PATIENCE: Duration = Duration::from_secs(3);

impl Gateway {
    /// Looks at the alert rules again and again for as long as it is polled. A reload counts from the next look on.
    pub async fn watch(&self) {
        loop {
            let every = self.snapshot.load().config.alerts.every;
            tokio::time::sleep(every).await;
            self.look().await;
        }
    }

    /// Looks at the alert rules. What the first look finds is where all counting begins, so it comes before the first
    /// request and the first delivery.
    pub async fn look(&self) {
        let snapshot = self.snapshot.load_full();
        let sample = self.sample(&snapshot).await;
        self.alerts.look(&snapshot.config.alerts, &sample, &snapshot.alert_targets);
    }

    pub fn alerts_status(&self) -> AlertsStatus {
        let snapshot = self.snapshot.load();
        self.alerts.status(&snapshot.config.alerts, &snapshot.alert_targets)
    }

    /// Tells everybody a test.
    pub async fn test_alerts(&self) -> Vec<Tested> {
        let snapshot = self.snapshot.load_full();
        self.alerts.test(&snapshot.config.alerts, &snapshot.alert_targets).await
    }

    async fn sample(&self, snapshot: &Snapshot) -> Sample {
        let stats = tokio::time::timeout(STATS_PATIENCE, self.buffer.stats()).await;
        // Why there are none is said by whoever asks for them, and by the admission.
        let stats = stats.ok().and_then(Result::ok);
        Sample {
            destinations: stats.as_ref().map(destinations),
            disk: stats.as_ref().map(|stats| Disk {
                used: stats.disk_bytes,
                max: stats.max_bytes,
                free: stats.free_bytes,
                min_free: snapshot.config.buffer.min_free,
            }),
            closed: match self.buffer.admission() {
                Admission::Open => None,
                Admission::Full(why) | Admission::Failed(why) => Some(why),
                Admission::Closed => Some("it is closed".into()),
            },
            breakers: self.open_breakers(),
            routes: snapshot.config.routes.iter().map(|route| self.route_sample(route)).collect(),
            certificates: snapshot.certificates.clone(),
            secrets: secrets(&snapshot.config),
            keys: self
                .key_sets()
                .into_iter()
                .filter(|set| set.alarming)
                .map(|set| Fetched {
                    url: set.url.into(),
                    at: set.fetched_at,
                    error: set.error,
                    refused: None,
                })
                .collect(),
            ranges: self
                .ranges()
                .into_iter()
                // A pack's snapshot is old by nature; it counts only where its list can't be had.
                .filter(|set| set.list.is_some() && (set.source == Source::List || set.error.is_some()))
                .map(|set| Fetched {
                    url: set.provider.into(),
                    at: Some(set.as_of),
                    error: set.error,
                    refused: set.refused,
                })
                .collect(),
        }
    }

    fn route_sample(&self, route: &crate::config::Route) -> RouteSample {
        RouteSample {
            name: route.name.clone(),
            expect_every: route.expect_every,
            counts: self.metrics.route_counts(&route.name),
        }
    }

    /// Those that hold deliveries back.
    fn open_breakers(&self) -> Vec<OpenBreaker> {
        let now = self.clock.now();
        let open = self.breakers.status().into_iter().filter(|breaker| breaker.phase == Phase::Open);
        open.map(|breaker| OpenBreaker {
            since: breaker.since_when(now).unwrap_or(now),
            destination: breaker.destination.0,
        })
        .collect()
    }
}

fn destinations(stats: &Stats) -> Vec<DestinationSample> {
    let sample = |of: &crate::buffer::DestinationStats| DestinationSample {
        name: of.destination.0.clone(),
        backlog: of.backlog,
        dead: of.dead,
        oldest: of.oldest,
        stuck: of.lanes.oldest.map(|since| (of.lanes.blocked + of.lanes.parked, since)),
    };
    stats.destinations.iter().map(sample).collect()
}

fn secrets(config: &Config) -> Vec<Expiring> {
    let expiring = |(route, Expiry { name, until, .. }): (Arc<str>, Expiry)| Expiring {
        name: format!("{route}: {name}").into(),
        ends: until,
    };
    config.expiries().into_iter().map(expiring).collect()
}

/// When the certificates end that are shown to senders and apps. Those that can't be read are reported elsewhere.
pub(super) fn certificates(config: &Config) -> Vec<Expiring> {
    let listeners = config.listeners.iter().flat_map(|l| &l.tls).flat_map(|tls| &tls.certificates);
    let apps = super::destinations(config).filter_map(|to| to.tls.client.as_ref());
    let mut files: Vec<&CertificateFiles> = listeners.chain(apps).collect();
    files.sort_by(|a, b| a.cert.cmp(&b.cert));
    files.dedup_by(|a, b| a.cert == b.cert);
    let expiring = |files: &CertificateFiles| {
        let name = files.cert.display().to_string().into();
        Some(Expiring { name, ends: crate::tls::ends(files).ok()? })
    };
    files.into_iter().filter_map(expiring).collect()
}
