//! The alert rules and the dashboard that we ship speak only of metrics, labels and words that there are. What `promtool` says
//! of the rules is asked in `tests/it/promtool.rs`.

use std::collections::BTreeSet;

use super::{DEFINITIONS, Definition, Kind};
use crate::alerts::Rule;
use crate::reason::Reason;

const RULES: &str = include_str!("../../conf/alert-rules.yml");
const DASHBOARD: &str = include_str!("../../conf/grafana-dashboard.json");

/// Every name by which a metric's series can be asked for.
fn series(definition: &Definition) -> Vec<String> {
    let name = definition.name();
    match definition.kind {
        Kind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
        Kind::Counter | Kind::Gauge | Kind::Info => vec![name],
    }
}

fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Fails if an expression asks for what there is not.
fn check(expression: &str, asked: &mut BTreeSet<String>) {
    let metric = |name: &str| DEFINITIONS.iter().find(|d| series(d).iter().any(|s| s == name));
    let names =
        words(expression).filter(|word| word.starts_with("tidegate_") || word.starts_with("process_"));
    let found: Vec<&Definition> = names
        .map(|name| {
            asked.insert(name.to_owned());
            metric(name).unwrap_or_else(|| panic!("no metric {name}: {expression}"))
        })
        .collect();
    assert!(!found.is_empty(), "{expression}");
    // Labels in matchers and in `by (…)`.
    let within = |open: char, close: char| {
        expression.split(open).skip(1).filter_map(move |rest| rest.split(close).next()).map(str::to_owned)
    };
    let matched = within('{', '}').flat_map(|matchers| {
        let labels = matchers.split(',').filter_map(|m| m.split(['=', '!']).next().map(str::to_owned));
        labels.collect::<Vec<_>>()
    });
    let grouped = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let grouped = grouped.flat_map(|labels| labels.split(", ").map(str::to_owned).collect::<Vec<_>>());
    for label in matched.chain(grouped) {
        let ours = found.iter().any(|definition| definition.labels.contains(&label.as_str()));
        assert!(
            ours || ["instance", "job", "le"].contains(&label.as_str()),
            "no label {label}: {expression}"
        );
    }
}

/// The expressions of the rules: in one line, or in a block that is set in further.
fn expressions() -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut block = false;
    for line in RULES.lines() {
        if let Some(expression) = line.trim_start().strip_prefix("expr: ") {
            block = expression == "|";
            found.push(if block { String::new() } else { expression.to_owned() });
        } else if block && line.starts_with("          ") {
            if let Some(last) = found.last_mut() {
                *last += line.trim();
                *last += " ";
            }
        } else {
            block = false;
        }
    }
    found
}

#[test]
fn the_alert_rules_ask_for_what_there_is() {
    let expressions = expressions();
    assert_eq!(expressions.len(), RULES.matches("- alert: ").count());
    let mut asked = BTreeSet::new();
    expressions.iter().for_each(|expression| check(expression, &mut asked));
    for needed in ["tidegate_backlog_oldest_age_seconds", "tidegate_buffer_open", "tidegate_dead_letters"] {
        assert!(asked.contains(needed), "{needed}");
    }
    for line in RULES.lines().filter_map(|line| line.split("tidegate_alerts{rule=~\"").nth(1)) {
        for rule in line.split('"').next().unwrap().split('|') {
            assert!(Rule::ALL.iter().any(|known| known.word() == rule), "{rule}");
        }
    }
    // What counts as a failure to verify is what is answered 401, and nothing else.
    let pattern = RULES.split("outcome=~\"").nth(1).unwrap().split('"').next().unwrap();
    for reason in Reason::ALL {
        let meant = pattern.split('|').any(|part| match part.strip_suffix(".*") {
            Some(prefix) => reason.code().starts_with(prefix),
            None => reason.code() == part,
        });
        assert_eq!(meant, reason.status() == 401, "{}", reason.code());
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut asked, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            check(target["expr"].as_str().unwrap(), &mut asked);
        }
    }
    assert!(asked.len() > 25, "{asked:?}");
}
