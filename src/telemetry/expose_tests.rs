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
            let (word, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
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
