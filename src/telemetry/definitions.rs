//! Every metric of the process in one table: name, unit, kind, labels, help. What is not here is not exposed, and
//! what is here appears in the exposition under exactly this name (a test holds both).

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// What a metric counts in; becomes the suffix of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// A plain number.
    Number,
    Seconds,
    Bytes,
}

impl In {
    pub(super) fn unit(self) -> Option<Unit> {
        match self {
            In::Number => None,
            In::Seconds => Some(Unit::Seconds),
            In::Bytes => Some(Unit::Bytes),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

impl Kind {
    pub(super) fn metric_type(self) -> MetricType {
        match self {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Without the unit and without `_total` / `_info`.
    pub stem: &'static str,
    pub unit: In,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Definition {
    /// The name that queries use: `tidegate_requests_total`, `tidegate_request_duration_seconds`.
    pub fn name(&self) -> String {
        let unit = self.unit.unit();
        let unit = unit.as_ref().map(|u| format!("_{}", u.as_str())).unwrap_or_default();
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{unit}{suffix}", self.stem)
    }
}

macro_rules! metrics {
    ($( $id:ident = $stem:literal, $unit:ident, $kind:ident, [$($label:literal),*], $help:literal; )*) => {
        $( pub(super) const $id: Definition = Definition {
            stem: $stem, unit: In::$unit, kind: Kind::$kind, labels: &[$($label),*], help: $help,
        }; )*
        /// The whole table, in the order of the exposition.
        pub const ALL: &[Definition] = &[ $( $id, )* ];
    };
}

metrics! {
    REQUESTS = "tidegate_requests", Number, Counter, ["route", "outcome"],
        "Requests answered, by outcome: accepted, duplicate, forwarded, spilled, unwanted, passed, handshake, or a reason code";
    REQUEST_DURATION = "tidegate_request_duration", Seconds, Histogram, ["route"],
        "From the end of a request's header to its answer";
    VERIFIED = "tidegate_verified", Number, Counter, ["route", "label"],
        "Requests verified, by the label of the secret or key that matched";
    CLIENT_REQUESTS = "tidegate_client_requests", Number, Counter, ["route", "client"],
        "Requests verified on routes with a URL for each client, by client; `other` beyond 200 clients of a route";
    SECRET_EXPIRES_IN = "tidegate_secret_expires_in", Seconds, Gauge, ["route", "label"],
        "Until a secret that has an end is refused, by its label or place in the rule; negative after that";
    WOULD_REFUSE = "tidegate_would_refuse", Number, Counter, ["route", "reason"],
        "Requests let through by `enforce: observe` that verification would have refused, by reason code";
    CONNECTIONS = "tidegate_connections", Number, Counter, [],
        "Connections accepted";
    CONNECTIONS_OPEN = "tidegate_connections_open", Number, Gauge, [],
        "Connections open right now";
    CONNECTIONS_REFUSED = "tidegate_connections_refused", Number, Counter, ["reason"],
        "Connections that ended before a request: tls_handshake, handshake_timeout, limit, address";
    BODIES_IN_FLIGHT = "tidegate_bodies_in_flight", Bytes, Gauge, [],
        "Bytes of request bodies held in memory, counted against limits.body_budget";
    APPEND_DURATION = "tidegate_buffer_append_duration", Seconds, Histogram, [],
        "How long an append waited until its group was on disk and synced";
    COMMIT_DURATION = "tidegate_buffer_commit_duration", Seconds, Histogram, [],
        "Write and sync of one group of events";
    COMMIT_EVENTS = "tidegate_buffer_commit_events", Number, Histogram, [],
        "Events in one group commit";
    BUFFER_TROUBLE = "tidegate_buffer_trouble", Number, Counter, ["kind"],
        "Times that the buffer refused or failed: full, write_failed, stalled";
    DELIVERIES = "tidegate_deliveries", Number, Counter, ["destination", "outcome"],
        "Attempts that ended, by what became of the delivery: delivered, retry, dead";
    ATTEMPT_DURATION = "tidegate_attempt_duration", Seconds, Histogram, ["destination"],
        "From the start of an attempt to the end of the app's answer";
    ATTEMPTS_IN_FLIGHT = "tidegate_attempts_in_flight", Number, Gauge, ["destination"],
        "Attempts under way right now";
    CONCURRENCY_LIMIT = "tidegate_concurrency_limit", Number, Gauge, ["destination"],
        "Attempts to a buffered destination that may be under way right now: what `concurrency` (also adaptive) and a slow start allow; 0 while it is held";
    BREAKER = "tidegate_breaker", Number, Gauge, ["destination"],
        "How a destination's breaker stands: 0 closed, 1 half open, 2 open";
    BREAKER_TRANSITIONS = "tidegate_breaker_transitions", Number, Counter, ["destination", "state"],
        "Changes of a destination's breaker, by what it became: open, half_open, closed";
    UPSTREAM_UP = "tidegate_upstream_up", Number, Gauge, ["destination", "upstream"],
        "1 if a server of a destination is used, 0 if it is passed over: requests or health checks fail";
    PAUSED = "tidegate_paused", Number, Gauge, ["destination"],
        "1 if an operator has paused the destination or its route, else 0";
    BACKLOG = "tidegate_backlog", Number, Gauge, ["destination"],
        "Deliveries pending or retrying";
    BACKLOG_OLDEST_AGE = "tidegate_backlog_oldest_age", Seconds, Gauge, ["destination"],
        "Age of the oldest delivery that is pending or retrying; 0 without one";
    ORDER_KEY_MISSING = "tidegate_order_key_missing", Number, Counter, ["destination"],
        "Events of ordered destinations without an order key, which go without order";
    BATCH_WITHOUT_STATUSES = "tidegate_batch_without_statuses", Number, Counter, ["destination"],
        "Successful answers to batches without the array that `statuses` points to: their status is that of all events";
    LANES_STUCK = "tidegate_lanes_stuck", Number, Gauge, ["destination", "state"],
        "Lanes of ordered destinations that stand still: blocked behind a failing event, or parked behind a dead letter";
    LANES_STUCK_OLDEST_AGE = "tidegate_lanes_stuck_oldest_age", Seconds, Gauge, ["destination"],
        "How long the lane that has stood still the longest does; 0 without one";
    DEAD_LETTERS = "tidegate_dead_letters", Number, Gauge, ["destination"],
        "Deliveries given up, kept for replay";
    BUFFER_EVENTS = "tidegate_buffer_events", Number, Gauge, [],
        "Events in the buffer, whatever their state";
    BUFFER_USED = "tidegate_buffer", Bytes, Gauge, [],
        "Bytes of the buffer on disk";
    BUFFER_LIMIT = "tidegate_buffer_limit", Bytes, Gauge, [],
        "Bytes on disk at which new events are refused";
    BUFFER_FREE = "tidegate_buffer_free", Bytes, Gauge, [],
        "Bytes free on the buffer's volume";
    BUFFER_UNSEALED = "tidegate_buffer_unsealed_events", Number, Gauge, [],
        "Events not yet known to be sealed under the first key of buffer.encryption.keys; absent without encryption";
    QUARANTINED = "tidegate_quarantined", Number, Counter, ["outcome"],
        "Refused requests that quarantine was to keep: kept, rate (too many), busy (too much at once), no_room, failed";
    QUARANTINE_ITEMS = "tidegate_quarantine_items", Number, Gauge, [],
        "Refused requests in quarantine";
    QUARANTINE_USED = "tidegate_quarantine", Bytes, Gauge, [],
        "Bytes of the quarantine on disk; part of tidegate_buffer_bytes";
    BUFFER_OPEN = "tidegate_buffer_open", Number, Gauge, [],
        "1 if the buffer takes new events, else 0";
    READY = "tidegate_ready", Number, Gauge, [],
        "1 if the gateway is ready (as /readyz says), else 0";
    ROUTE_VERIFIED_ONLY = "tidegate_route_verified_only", Number, Gauge, ["route"],
        "1 if only verified requests have effects on the route; 0 with `enforce: observe`, `verify: none` or `mode: pass`";
    RELOADS = "tidegate_config_reloads", Number, Counter, ["outcome"],
        "Config reloads: accepted or refused";
    CONFIG = "tidegate_config", Number, Info, ["hash"],
        "The config that runs: the first 12 digits of its SHA-256";
    KEY_FETCHES = "tidegate_key_fetches", Number, Counter, ["source", "outcome"],
        "Fetches of remote key sets: ok or failed";
    KEYS_FETCHED_AT = "tidegate_keys_fetched_timestamp", Seconds, Gauge, ["source"],
        "Unix time of the last good fetch of a remote key set; absent before the first";
    RANGE_FETCHES = "tidegate_range_fetches", Number, Counter, ["provider", "outcome"],
        "Fetches of a provider's address ranges: ok, failed, or refused (the list came and is not believed)";
    RANGES = "tidegate_ranges", Number, Gauge, ["provider"],
        "Address ranges of a provider in use";
    RANGES_AS_OF = "tidegate_ranges_timestamp", Seconds, Gauge, ["provider"],
        "Unix time of the ranges in use: the fetch of the list, or the day of the pack's snapshot";
    ALERTS = "tidegate_alerts", Number, Gauge, ["rule"],
        "Alerts that hold right now, by rule; `tidegate alerts list` names them";
    ALERT_NOTICES = "tidegate_alert_notices", Number, Counter, ["outcome"],
        "Notices of alerts, one for each target: sent, failed (given up), dropped (too many waited)";
    TRACE_SPANS = "tidegate_trace_spans", Number, Counter, ["outcome"],
        "Spans of traces: exported to their collector, or lost because it could not be reached or did not keep up";
    LOG_LINES_DROPPED = "tidegate_log_lines_dropped", Number, Counter, [],
        "Log lines dropped because whatever reads standard error did not keep up";
    BUILD = "tidegate_build", Number, Info, ["version"],
        "The version that runs";
    PROCESS_START = "process_start_time", Seconds, Gauge, [],
        "Unix time at which the process started";
    PROCESS_CPU = "process_cpu", Seconds, Counter, [],
        "User and system CPU time used";
    PROCESS_RSS = "process_resident_memory", Bytes, Gauge, [],
        "Resident memory";
    PROCESS_VIRTUAL = "process_virtual_memory", Bytes, Gauge, [],
        "Virtual memory";
    PROCESS_FDS = "process_open_fds", Number, Gauge, [],
        "Open file descriptors";
    PROCESS_MAX_FDS = "process_max_fds", Number, Gauge, [],
        "Limit of open file descriptors";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut seen = std::collections::BTreeSet::new();
        for definition in ALL {
            let name = definition.name();
            assert!(seen.insert(name.clone()), "{name} stands twice");
            assert!(name.starts_with("tidegate_") || name.starts_with("process_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            for suffix in ["_total", "_info", "_seconds", "_bytes", "_count", "_sum", "_bucket"] {
                assert!(!definition.stem.ends_with(suffix), "{name}: the suffix comes from unit and kind");
            }
            for word in ["millis", "_ms", "_kb", "_mib", "minutes", "percent"] {
                assert!(!name.contains(word), "{name}: base units only");
            }
            for label in definition.labels {
                assert!(
                    [
                        "route",
                        "outcome",
                        "label",
                        "reason",
                        "rule",
                        "kind",
                        "destination",
                        "hash",
                        "source",
                        "client",
                        "provider",
                        "state",
                        "upstream",
                        "version"
                    ]
                    .contains(label),
                    "{name}: is {label} bounded?"
                );
            }
            assert!(definition.help.len() > 8 && !definition.help.contains(['\n', '\\']), "{name}");
            assert!(!definition.help.ends_with('.'), "{name}: help has no final full stop");
        }
    }

    #[test]
    fn the_manual_lists_each_metric_as_it_is() {
        let row = |definition: &Definition| {
            let labels: Vec<String> = definition.labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
            let kind = format!("{:?}", definition.kind).to_lowercase();
            format!("| `{}` | {kind} | {labels} | {} |", definition.name(), definition.help)
        };
        let manual = include_str!("../../conf/MANUAL.md");
        let section = manual.split("\n## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
        let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(documented, ALL.iter().map(row).collect::<Vec<_>>(), "conf/MANUAL.md is not true");
    }
}
