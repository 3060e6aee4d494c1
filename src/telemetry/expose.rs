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
#[path = "expose_tests.rs"]
mod tests;
