//! The text that a scrape gets: what was counted, and what is asked at that moment (buffer, process).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text as openmetrics};
use prometheus_client::registry::Registry;

use crate::breaker::BreakerStatus;
use crate::buffer::{Admission, DestinationName, Stats};
use crate::clock::Timestamp;
use crate::upstream::ServerStatus;

use super::definitions::{self as table, Definition};
use super::instruments::{Counter, Histogram};
use super::process::Process;
use super::{Instruments, log};

/// The media type of the exposition.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is asked at the moment of a scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// `None` if the buffer could not say in time: its series are then absent, which alerts notice.
    pub stats: Option<Stats>,
    pub admission: Admission,
    /// As `/readyz` says.
    pub ready: bool,
    /// The routes of the config that runs, and whether only verified requests have effects there.
    pub routes: Vec<(String, bool)>,
    /// Of the config that runs, in full.
    pub config_hash: String,
    /// Secrets that have an end: route, label, seconds left.
    pub secrets: Vec<(Arc<str>, String, f64)>,
    pub now: Timestamp,
    pub breakers: Vec<BreakerStatus>,
    /// Each destination, and whether an operator has paused it.
    pub paused: Vec<(DestinationName, bool)>,
    /// How the servers of each destination stand.
    pub servers: Vec<(DestinationName, Vec<ServerStatus>)>,
}

pub(super) fn text(counted: Arc<Instruments>, scrape: Scrape) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { counted, scrape, process: Process::read() }));
    let mut text = String::with_capacity(16 * 1024);
    match openmetrics::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to a string can't fail; were it to, half a scrape would be worse than an empty one.
        Err(fmt::Error) => "# EOF\n".to_owned(),
    }
}

#[derive(Debug)]
struct Exposition {
    counted: Arc<Instruments>,
    scrape: Scrape,
    process: Process,
}

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page { encoder };
        self.requests(&mut page)?;
        self.connections(&mut page)?;
        self.buffer_work(&mut page)?;
        self.deliveries(&mut page)?;
        self.breakers(&mut page)?;
        self.buffer_state(&mut page)?;
        self.config_and_keys(&mut page)?;
        self.alerts(&mut page)?;
        self.process(&mut page)
    }
}

impl Exposition {
    fn requests(&self, page: &mut Page) -> fmt::Result {
        let routes = self.counted.routes.all();
        page.family(&table::REQUESTS, |f| {
            for (route, of) in &routes {
                for (outcome, n) in of.outcomes.read() {
                    f.counter(&[route, outcome], n)?;
                }
            }
            Ok(())
        })?;
        page.family(&table::REQUEST_DURATION, |f| {
            routes.iter().try_for_each(|(route, of)| f.histogram(&[route], &of.duration))
        })?;
        page.family(&table::VERIFIED, |f| {
            for (route, of) in &routes {
                for (label, counter) in of.labels.all() {
                    f.counter(&[route, &label], counter.get())?;
                }
            }
            Ok(())
        })?;
        page.family(&table::CLIENT_REQUESTS, |f| {
            for (route, of) in &routes {
                for (client, counter) in of.clients.all() {
                    f.counter(&[route, &client], counter.get())?;
                }
            }
            Ok(())
        })?;
        page.family(&table::SECRET_EXPIRES_IN, |f| {
            self.scrape.secrets.iter().try_for_each(|(route, label, left)| f.float(&[route, label], *left))
        })?;
        page.family(&table::WOULD_REFUSE, |f| {
            for (route, of) in &routes {
                for (reason, n) in of.would_refuse.read() {
                    f.counter(&[route, reason], n)?;
                }
            }
            Ok(())
        })
    }

    fn connections(&self, page: &mut Page) -> fmt::Result {
        let counted = &self.counted;
        page.family(&table::CONNECTIONS, |f| f.counter(&[], counted.connections.get()))?;
        let open = counted.connections_open.load(Ordering::Relaxed).max(0);
        page.family(&table::CONNECTIONS_OPEN, |f| f.gauge(&[], open.unsigned_abs()))?;
        page.family(&table::CONNECTIONS_REFUSED, |f| f.words(&counted.connections_refused.all()))?;
        page.family(&table::BODIES_IN_FLIGHT, |f| f.gauge(&[], counted.body_bytes.load(Ordering::Relaxed)))
    }

    fn buffer_work(&self, page: &mut Page) -> fmt::Result {
        let counted = &self.counted;
        page.family(&table::APPEND_DURATION, |f| f.histogram(&[], &counted.appends))?;
        page.family(&table::COMMIT_DURATION, |f| f.histogram(&[], &counted.commits))?;
        page.family(&table::COMMIT_EVENTS, |f| f.histogram(&[], &counted.commit_events))?;
        page.family(&table::BUFFER_TROUBLE, |f| f.words(&counted.buffer_trouble.all()))
    }

    fn deliveries(&self, page: &mut Page) -> fmt::Result {
        let destinations = self.counted.destinations.all();
        page.family(&table::DELIVERIES, |f| {
            for (destination, of) in &destinations {
                for (outcome, n) in of.outcomes.read() {
                    f.counter(&[destination, outcome], n)?;
                }
            }
            Ok(())
        })?;
        page.family(&table::ATTEMPT_DURATION, |f| {
            destinations.iter().try_for_each(|(destination, of)| f.histogram(&[destination], &of.duration))
        })?;
        page.family(&table::ATTEMPTS_IN_FLIGHT, |f| {
            destinations.iter().try_for_each(|(destination, of)| {
                f.gauge(&[destination], of.in_flight.load(Ordering::Relaxed))
            })
        })?;
        page.family(&table::CONCURRENCY_LIMIT, |f| {
            let limits = destinations.iter().filter_map(|(destination, of)| Some((destination, of.limit()?)));
            limits.into_iter().try_for_each(|(destination, limit)| f.gauge(&[destination], limit))
        })?;
        page.family(&table::ORDER_KEY_MISSING, |f| {
            destinations
                .iter()
                .try_for_each(|(destination, of)| f.counter(&[destination], of.keys_missing.get()))
        })?;
        page.family(&table::BATCH_WITHOUT_STATUSES, |f| {
            destinations
                .iter()
                .try_for_each(|(destination, of)| f.counter(&[destination], of.statuses_missing.get()))
        })
    }

    fn breakers(&self, page: &mut Page) -> fmt::Result {
        let breakers = &self.scrape.breakers;
        page.family(&table::BREAKER, |f| {
            breakers.iter().try_for_each(|b| f.gauge(&[&b.destination.0], b.phase.number()))
        })?;
        page.family(&table::BREAKER_TRANSITIONS, |f| {
            breakers.iter().try_for_each(|b| {
                f.counter(&[&b.destination.0, "open"], b.transitions.opened)?;
                f.counter(&[&b.destination.0, "half_open"], b.transitions.half_opened)?;
                f.counter(&[&b.destination.0, "closed"], b.transitions.closed)
            })
        })?;
        page.family(&table::UPSTREAM_UP, |f| {
            for (destination, servers) in &self.scrape.servers {
                for server in servers {
                    f.gauge(&[&destination.0, &server.upstream], u64::from(server.state == "up"))?;
                }
            }
            Ok(())
        })?;
        page.family(&table::PAUSED, |f| {
            let paused = &self.scrape.paused;
            paused.iter().try_for_each(|(name, paused)| f.gauge(&[&name.0], u64::from(*paused)))
        })
    }

    fn buffer_state(&self, page: &mut Page) -> fmt::Result {
        if let Some(stats) = &self.scrape.stats {
            let destinations = &stats.destinations;
            page.family(&table::BACKLOG, |f| {
                destinations.iter().try_for_each(|d| f.gauge(&[&d.destination.0], d.backlog))
            })?;
            page.family(&table::BACKLOG_OLDEST_AGE, |f| {
                destinations.iter().try_for_each(|d| {
                    let age = d.oldest.map(|oldest| self.scrape.now.since(oldest).as_secs_f64());
                    f.float(&[&d.destination.0], age.unwrap_or(0.0))
                })
            })?;
            page.family(&table::LANES_STUCK, |f| {
                destinations.iter().try_for_each(|d| {
                    f.gauge(&[&d.destination.0, "blocked"], d.lanes.blocked)?;
                    f.gauge(&[&d.destination.0, "parked"], d.lanes.parked)
                })
            })?;
            page.family(&table::LANES_STUCK_OLDEST_AGE, |f| {
                destinations.iter().try_for_each(|d| {
                    let age = d.lanes.oldest.map(|oldest| self.scrape.now.since(oldest).as_secs_f64());
                    f.float(&[&d.destination.0], age.unwrap_or(0.0))
                })
            })?;
            page.family(&table::DEAD_LETTERS, |f| {
                destinations.iter().try_for_each(|d| f.gauge(&[&d.destination.0], d.dead))
            })?;
            page.family(&table::BUFFER_EVENTS, |f| f.gauge(&[], stats.events))?;
            page.family(&table::BUFFER_USED, |f| f.gauge(&[], stats.disk_bytes))?;
            page.family(&table::BUFFER_LIMIT, |f| f.gauge(&[], stats.max_bytes))?;
            page.family(&table::BUFFER_FREE, |f| f.gauge(&[], stats.free_bytes))?;
            if let Some(sealing) = &stats.sealing {
                page.family(&table::BUFFER_UNSEALED, |f| f.gauge(&[], sealing.events_left))?;
            }
        }
        let counted = &self.counted;
        page.family(&table::QUARANTINED, |f| f.words(&counted.quarantined.all()))?;
        page.family(&table::QUARANTINE_ITEMS, |f| {
            f.gauge(&[], counted.quarantine_items.load(Ordering::Relaxed))
        })?;
        page.family(&table::QUARANTINE_USED, |f| {
            f.gauge(&[], counted.quarantine_bytes.load(Ordering::Relaxed))
        })?;
        let open = u64::from(self.scrape.admission == Admission::Open);
        page.family(&table::BUFFER_OPEN, |f| f.gauge(&[], open))?;
        page.family(&table::READY, |f| f.gauge(&[], u64::from(self.scrape.ready)))
    }

    fn config_and_keys(&self, page: &mut Page) -> fmt::Result {
        let counted = &self.counted;
        page.family(&table::ROUTE_VERIFIED_ONLY, |f| {
            let routes = &self.scrape.routes;
            routes.iter().try_for_each(|(route, only)| f.gauge(&[route], u64::from(*only)))
        })?;
        page.family(&table::RELOADS, |f| {
            f.counter(&["accepted"], counted.reloads_accepted.get())?;
            f.counter(&["refused"], counted.reloads_refused.get())
        })?;
        let hash: String = self.scrape.config_hash.chars().take(12).collect();
        page.family(&table::CONFIG, |f| f.info(&[&hash]))?;
        let keys = counted.keys.all();
        page.family(&table::KEY_FETCHES, |f| {
            keys.iter().try_for_each(|(source, of)| {
                f.counter(&[source, "ok"], of.ok.get())?;
                f.counter(&[source, "failed"], of.failed.get())
            })
        })?;
        page.family(&table::KEYS_FETCHED_AT, |f| {
            let fetched = keys.iter().map(|(source, of)| (source, of.last_ok.load(Ordering::Relaxed)));
            fetched.filter(|(_, at)| *at > 0).try_for_each(|(source, at)| f.gauge(&[source], at))
        })?;
        let ranges = counted.ranges.all();
        page.family(&table::RANGE_FETCHES, |f| {
            for (provider, of) in &ranges {
                for (outcome, n) in of.fetches.all() {
                    f.counter(&[provider, &outcome], n.get())?;
                }
            }
            Ok(())
        })?;
        page.family(&table::RANGES, |f| {
            ranges
                .iter()
                .try_for_each(|(provider, of)| f.gauge(&[provider], of.count.load(Ordering::Relaxed)))
        })?;
        page.family(&table::RANGES_AS_OF, |f| {
            ranges
                .iter()
                .try_for_each(|(provider, of)| f.gauge(&[provider], of.as_of.load(Ordering::Relaxed)))
        })
    }

    fn alerts(&self, page: &mut Page) -> fmt::Result {
        page.family(&table::ALERTS, |f| {
            let alerts = self.counted.alerts.all();
            alerts.iter().try_for_each(|(rule, firing)| f.gauge(&[rule], firing.load(Ordering::Relaxed)))
        })?;
        page.family(&table::ALERT_NOTICES, |f| f.words(&self.counted.alert_notices.all()))?;
        page.family(&table::TRACE_SPANS, |f| f.words(&self.counted.spans.all()))
    }

    fn process(&self, page: &mut Page) -> fmt::Result {
        page.family(&table::LOG_LINES_DROPPED, |f| f.counter(&[], log::lines_dropped()))?;
        page.family(&table::BUILD, |f| f.info(&[env!("CARGO_PKG_VERSION")]))?;
        #[allow(clippy::cast_precision_loss)] // exact far beyond any date of ours
        let started = self.counted.started_at.as_millis() as f64 / 1000.0;
        page.family(&table::PROCESS_START, |f| f.float(&[], started))?;
        let process = &self.process;
        if let Some(seconds) = process.cpu_seconds {
            page.family(&table::PROCESS_CPU, |f| f.counter_float(&[], seconds))?;
        }
        let gauges = [
            (&table::PROCESS_RSS, process.resident_bytes),
            (&table::PROCESS_VIRTUAL, process.virtual_bytes),
            (&table::PROCESS_FDS, process.open_fds),
            (&table::PROCESS_MAX_FDS, process.max_fds),
        ];
        for (definition, value) in gauges {
            if let Some(value) = value {
                page.family(definition, |f| f.gauge(&[], value))?;
            }
        }
        Ok(())
    }
}

/// The exposition being written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    /// Writes a metric's head from the table and its series by `series`.
    fn family(
        &mut self,
        definition: &Definition,
        series: impl FnOnce(&mut Family) -> fmt::Result,
    ) -> fmt::Result {
        let unit = definition.unit.unit();
        let encoder = self.encoder.encode_descriptor(
            definition.stem,
            definition.help,
            unit.as_ref(),
            definition.kind.metric_type(),
        )?;
        series(&mut Family { encoder, names: definition.labels })
    }
}

/// One metric's series being written. Label values go in the order of the table's label names.
struct Family<'a> {
    encoder: MetricEncoder<'a>,
    names: &'static [&'static str],
}

impl Family<'_> {
    fn with(
        &mut self,
        values: &[&str],
        write: impl FnOnce(&mut MetricEncoder) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(self.names.len(), values.len(), "{:?}", self.names);
        if values.is_empty() {
            return write(&mut self.encoder);
        }
        let labels: Vec<(&str, &str)> = self.names.iter().copied().zip(values.iter().copied()).collect();
        let labels = labels.as_slice();
        let mut encoder = self.encoder.encode_family(&labels)?;
        write(&mut encoder)
    }

    fn counter(&mut self, values: &[&str], n: u64) -> fmt::Result {
        self.with(values, |e| e.encode_counter::<NoLabelSet, _, f64>(&n, None))
    }
    fn counter_float(&mut self, values: &[&str], n: f64) -> fmt::Result {
        self.with(values, |e| e.encode_counter::<NoLabelSet, _, f64>(&n, None))
    }
    fn gauge(&mut self, values: &[&str], n: u64) -> fmt::Result {
        self.with(values, |e| e.encode_gauge(&n))
    }
    fn float(&mut self, values: &[&str], n: f64) -> fmt::Result {
        self.with(values, |e| e.encode_gauge(&n))
    }
    fn info(&mut self, values: &[&str]) -> fmt::Result {
        let labels: Vec<(&str, &str)> = self.names.iter().copied().zip(values.iter().copied()).collect();
        self.encoder.encode_info(&labels.as_slice())
    }
    fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> fmt::Result {
        let read = histogram.read();
        self.with(values, |e| e.encode_histogram::<NoLabelSet>(read.sum, read.count, &read.buckets, None))
    }
    fn words(&mut self, words: &[(Arc<str>, Arc<Counter>)]) -> fmt::Result {
        words.iter().try_for_each(|(word, counter)| self.counter(&[word], counter.get()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use crate::breaker::Breakers;
    use crate::buffer::{DestinationStats, LaneStats, SealingStats};
    use crate::telemetry::{DEFINITIONS, Kind, Metrics};

    use super::*;

    fn scrape() -> Scrape {
        Scrape {
            stats: Some(Stats {
                destinations: vec![DestinationStats {
                    destination: DestinationName::new("billing", "legacy"),
                    backlog: 3,
                    dead: 1,
                    oldest: Some(Timestamp(1_000)),
                    lanes: LaneStats { blocked: 2, parked: 1, oldest: Some(Timestamp(3_000)) },
                }],
                events: 9,
                disk_bytes: 100,
                max_bytes: 1000,
                free_bytes: 5000,
                sealing: Some(SealingStats {
                    key: Some("00".into()),
                    needed: vec!["00".into(), "01".into()],
                    events_left: 4,
                    stage: Some("events".into()),
                }),
            }),
            admission: Admission::Open,
            ready: true,
            routes: vec![("billing".into(), true), ("open".into(), false)],
            config_hash: "0123456789abcdef".into(),
            secrets: vec![("billing".into(), "old".into(), -2.5)],
            now: Timestamp(3_500),
            servers: vec![(
                DestinationName::new("billing", "legacy"),
                vec![ServerStatus { upstream: "http://a".into(), state: "up", in_flight: 0 }],
            )],
            paused: vec![(DestinationName::new("billing", "legacy"), true)],
            breakers: vec![Breakers::default().of(&DestinationName::new("billing", "legacy")).status()],
        }
    }

    /// Every metric with at least one series.
    fn busy() -> Metrics {
        let metrics = Metrics::default();
        metrics.client_request("billing", "acme");
        metrics.request("billing", "accepted");
        metrics.request("billing", "signature_invalid");
        metrics.request("", "no_route");
        metrics.answered("billing", Duration::from_micros(300));
        metrics.verified("billing", "new \"key\"\\\n");
        metrics.would_refuse("billing", "signature_invalid");
        metrics.quarantined("kept");
        metrics.appended(Duration::from_millis(2));
        metrics.committed(7, Duration::from_millis(1));
        metrics.buffer_trouble("full");
        metrics.delivery("billing/legacy", "delivered", Duration::from_millis(40));
        metrics.concurrency_limit("billing/legacy", 16);
        metrics.in_flight("billing/legacy", 4);
        metrics.order_key_missing("billing/legacy");
        metrics.batch_without_statuses("billing/legacy");
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        metrics.connection_refused("limit");
        metrics.body_bytes(4096);
        metrics.alerts_firing([("dead_letters", 2)].into_iter());
        metrics.alert_notice("sent");
        metrics.spans("exported", 3);
        metrics.reloaded(false);
        metrics.keys_fetched("https://user:pass@keys.example.com/jwks?token=x", true);
        metrics.ranges_fetched("acme", "ok");
        metrics.ranges_in_use("acme", 3, Timestamp(1_000));
        metrics
    }

    /// A series as `name{label="value"}` and its value; checks the grammar on the way.
    fn parsed(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
        let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(head) = line.strip_prefix("# ") {
                let mut words = head.splitn(3, ' ');
                let (word, name, rest) =
                    (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                match word {
                    "HELP" => family = name.to_owned(),
                    "TYPE" => {
                        assert!(types.insert(name.to_owned(), rest.to_owned()).is_none(), "{name} twice")
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                    _ => panic!("{line}"),
                }
                assert_eq!(family, name, "heads of one family stand together");
                continue;
            }
            assert!(line.starts_with(&family), "{line} stands under {family}");
            let (key, value) = line.rsplit_once(' ').unwrap();
            let name = key.split('{').next().unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(key == name || key.ends_with("\"}"), "{key}");
            let value: f64 = value.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(series.insert(key.to_owned(), value).is_none(), "{key} twice");
        }
        (series, types)
    }

    #[test]
    fn the_exposition_parses_and_says_what_was_counted() {
        let (series, types) = parsed(&busy().expose(scrape()));
        let expected = [
            (r#"tidegate_requests_total{route="billing",outcome="accepted"}"#, 1.0),
            (r#"tidegate_requests_total{route="billing",outcome="signature_invalid"}"#, 1.0),
            (r#"tidegate_requests_total{route="",outcome="no_route"}"#, 1.0),
            (r#"tidegate_request_duration_seconds_count{route="billing"}"#, 1.0),
            (r#"tidegate_request_duration_seconds_bucket{le="0.00025",route="billing"}"#, 0.0),
            (r#"tidegate_request_duration_seconds_bucket{le="0.0005",route="billing"}"#, 1.0),
            (r#"tidegate_request_duration_seconds_bucket{le="+Inf",route="billing"}"#, 1.0),
            (r#"tidegate_verified_total{route="billing",label="new \"key\"\\\n"}"#, 1.0),
            ("tidegate_buffer_append_duration_seconds_sum", 0.002),
            (r#"tidegate_buffer_commit_events_bucket{le="8.0"}"#, 1.0),
            (r#"tidegate_buffer_trouble_total{kind="full"}"#, 1.0),
            (r#"tidegate_deliveries_total{destination="billing/legacy",outcome="delivered"}"#, 1.0),
            (r#"tidegate_attempts_in_flight{destination="billing/legacy"}"#, 4.0),
            (r#"tidegate_backlog{destination="billing/legacy"}"#, 3.0),
            (r#"tidegate_lanes_stuck{destination="billing/legacy",state="blocked"}"#, 2.0),
            (r#"tidegate_lanes_stuck_oldest_age_seconds{destination="billing/legacy"}"#, 0.5),
            (r#"tidegate_order_key_missing_total{destination="billing/legacy"}"#, 1.0),
            (r#"tidegate_batch_without_statuses_total{destination="billing/legacy"}"#, 1.0),
            (r#"tidegate_backlog_oldest_age_seconds{destination="billing/legacy"}"#, 2.5),
            (r#"tidegate_dead_letters{destination="billing/legacy"}"#, 1.0),
            ("tidegate_buffer_bytes", 100.0),
            ("tidegate_buffer_limit_bytes", 1000.0),
            ("tidegate_buffer_free_bytes", 5000.0),
            ("tidegate_buffer_events", 9.0),
            (r#"tidegate_alerts{rule="dead_letters"}"#, 2.0),
            (r#"tidegate_alert_notices_total{outcome="sent"}"#, 1.0),
            (r#"tidegate_trace_spans_total{outcome="exported"}"#, 3.0),
            ("tidegate_buffer_open", 1.0),
            ("tidegate_connections_total", 2.0),
            ("tidegate_connections_open", 1.0),
            (r#"tidegate_connections_refused_total{reason="limit"}"#, 1.0),
            ("tidegate_bodies_in_flight_bytes", 4096.0),
            (r#"tidegate_config_reloads_total{outcome="refused"}"#, 1.0),
            (r#"tidegate_config_info{hash="0123456789ab"}"#, 1.0),
            (r#"tidegate_key_fetches_total{source="keys.example.com/jwks",outcome="ok"}"#, 1.0),
        ];
        for (key, value) in expected {
            assert_eq!(series.get(key), Some(&value), "{key}\n{series:#?}");
        }
        assert!(series["process_resident_memory_bytes"] > 1e5);
        assert_eq!(types["tidegate_requests"], "counter");
        assert_eq!(types["tidegate_request_duration_seconds"], "histogram");
    }

    #[test]
    fn what_is_exposed_is_what_the_table_says() {
        let (series, types) = parsed(&busy().expose(scrape()));
        let table: BTreeSet<String> = DEFINITIONS
            .iter()
            .map(|d| d.name().trim_end_matches("_total").trim_end_matches("_info").to_owned())
            .collect();
        assert_eq!(types.keys().cloned().collect::<BTreeSet<_>>(), table);
        for definition in DEFINITIONS {
            let name = definition.name();
            let shown = match definition.kind {
                Kind::Histogram => format!("{name}_count"),
                Kind::Counter | Kind::Gauge | Kind::Info => name,
            };
            let with_labels = definition.labels.iter().map(|label| format!("{label}=\""));
            let key = series.keys().find(|key| key.split('{').next() == Some(&shown));
            let key = key.unwrap_or_else(|| panic!("{shown} has no series"));
            with_labels.for_each(|label| assert!(key.contains(&label), "{key}"));
        }
    }

    #[test]
    fn labels_never_grow_without_bound() {
        let metrics = Metrics::default();
        for n in 0..3000 {
            metrics.request(&format!("route{n}"), "accepted");
            metrics.verified("billing", &format!("label{n}"));
            metrics.delivery(&format!("destination{n}"), "dead", Duration::ZERO);
        }
        metrics.request("route1", "a word that nobody knows");
        let text = metrics.expose(Scrape { stats: None, ..scrape() });
        let (series, _) = parsed(&text);
        let of = |name: &str| series.keys().filter(|k| k.starts_with(&format!("{name}{{"))).count();
        // `billing` has one of the 1000 places but no request, `other` comes on top, `route1` has two outcomes.
        assert_eq!(of("tidegate_requests_total"), 1001);
        assert_eq!(of("tidegate_verified_total"), 17);
        assert_eq!(of("tidegate_deliveries_total"), 1001);
        assert_eq!(series[r#"tidegate_requests_total{route="route1",outcome="other"}"#], 1.0);
        assert_eq!(series[r#"tidegate_verified_total{route="billing",label="other"}"#], 3000.0 - 16.0);
    }

    #[test]
    fn a_buffer_that_does_not_answer_leaves_its_series_out() {
        let closed = Scrape { stats: None, admission: Admission::Closed, ready: false, ..scrape() };
        let (series, _) = parsed(&busy().expose(closed));
        assert!(!series.contains_key("tidegate_buffer_bytes"));
        assert_eq!((series["tidegate_buffer_open"], series["tidegate_ready"]), (0.0, 0.0));
    }
}
