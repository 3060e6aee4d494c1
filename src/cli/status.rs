//! `tidegate status`.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{
    Format, OutputArgs, Rows, Side, Times, Tone, harmless, harmless_lines, print, print_json, size, span,
};
use crate::admin::views::{
    BreakerView, BufferStatus, DestinationStatus, KeySet, QuarantineStatus, RangesInUse, ReloadStatus,
    Status as Running,
};
use crate::buffer::SealingStats;

/// Show what the running gateway does
#[derive(clap::Args, Debug)]
pub struct Status {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    pub fn run(self) -> ExitCode {
        exit(self.status())
    }

    fn status(&self) -> Result<ExitCode, Failure> {
        let running: Running = Client::new(&self.admin, PATIENCE)?.get("/status")?;
        match self.output.output {
            Format::Json => print_json(&running)?,
            Format::Table => print(&text(&running, &self.output))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(of: &Running, output: &OutputArgs) -> String {
    let mut text = format!(
        "tidegate {}, pid {}, up {}: {}\n",
        harmless(&of.version),
        of.pid,
        span(of.uptime_seconds),
        if of.ready { "ready" } else { "not ready" },
    );
    for reason in &of.reasons {
        text += &format!("  {}\n", harmless(reason));
    }
    if output.quiet {
        return text;
    }
    let hash: String = of.setup.config_hash.chars().take(12).collect();
    text += &format!("config    {}, admin on {}\n", harmless(&hash), harmless(&of.setup.admin));
    if let Some(last) = &of.last_reload {
        text += &format!("reload    {}\n", reload(last, Times::of(output)));
    }
    if let Some(held) = &of.quarantine {
        text += &format!("quarantine {}\n", quarantine(held));
    }
    text += &format!("buffer    {}\n", of.buffer.as_ref().map_or("does not answer".into(), buffer));
    if let Some(sealing) = of.buffer.as_ref().and_then(|buffer| buffer.sealing.as_ref()) {
        text += &format!("sealed    {}\n", sealed(sealing));
    }
    let listeners: Vec<String> = of
        .setup
        .listeners
        .iter()
        .map(|l| format!("{} ({})", harmless(&l.address), if l.tls { "TLS" } else { "plain" }))
        .collect();
    text += &format!("listening {}\n", listeners.join(", "));
    for set in &of.key_sets {
        text += &format!("keys      {}\n", key_set(set, Times::of(output)));
    }
    for secret in &of.secrets {
        let verb = if secret.ended { "ENDED" } else { "ends" };
        let (route, label) = (harmless(&secret.route), harmless(&secret.label));
        text += &format!("secret    {route}: {label} {verb} {}\n", Times::of(output).show(&secret.until));
    }
    for ranges in &of.ranges {
        text += &format!("ranges    {}\n", ranges_in_use(ranges, Times::of(output)));
    }
    text += &format!("\n{}", routes(of));
    if !of.destinations.is_empty() {
        text += &format!("\n{}", destinations(&of.destinations, Times::of(output)));
    }
    text
}

fn reload(of: &ReloadStatus, times: Times) -> String {
    match &of.problem {
        None => format!("accepted {}", times.show(&of.at)),
        Some(problem) => {
            let problem = harmless_lines(problem).replace('\n', "\n          ");
            format!("REFUSED {}, the config before it still runs:\n          {problem}", times.show(&of.at))
        }
    }
}

fn key_set(of: &KeySet, times: Times) -> String {
    if of.unknown_names > 0 {
        let (names, were) = if of.unknown_names == 1 { ("name", "was") } else { ("names", "were") };
        let error =
            of.error.as_deref().map(|e| format!(" (one of them: {})", harmless(e))).unwrap_or_default();
        let (url, count) = (harmless(&of.url), of.unknown_names);
        return format!(
            "{url}: {count} {names} in requests that never {were} a key's, which were refused{error}"
        );
    }
    let fetched = match &of.fetched_at {
        Some(at) => {
            let keys = if of.keys == 1 { "key" } else { "keys" };
            format!("{} {keys}, fetched {}", of.keys, times.show(at))
        }
        None => "never fetched: nothing verifies with it".into(),
    };
    let error = of.error.as_deref().map(|e| format!("; the latest fetch failed: {}", harmless(e)));
    format!("{}: {fetched}{}", harmless(&of.url), error.unwrap_or_default())
}

fn ranges_in_use(of: &RangesInUse, times: Times) -> String {
    let count = format!("{} {}", of.ranges, if of.ranges == 1 { "range" } else { "ranges" });
    let from = match of.source.as_str() {
        "list" => format!("fetched {}", times.show(&of.as_of)),
        _ => format!("the pack's snapshot of {}", harmless(of.as_of.get(..10).unwrap_or(&of.as_of))),
    };
    let error = of.error.as_deref().map(|e| format!("; the latest list was not taken: {}", harmless(e)));
    format!("{}: {count}, {from}{}", harmless(&of.provider), error.unwrap_or_default())
}

pub(super) fn buffer(of: &BufferStatus) -> String {
    let detail = of.detail.as_deref().map(|d| format!(": {}", harmless(d))).unwrap_or_default();
    format!(
        "{}{detail}; {} events, {} of {} used, {} free on the volume",
        harmless(&of.admission),
        of.events,
        size(of.disk_bytes),
        size(of.max_bytes),
        size(of.free_bytes),
    )
}

pub(super) fn sealed(of: &SealingStats) -> String {
    let key = of
        .key
        .as_deref()
        .map_or("new events are plain".into(), |key| format!("under the key {}", harmless(key)));
    let left = match of.stage.as_deref() {
        None => String::new(),
        Some("events") => format!("; being sealed anew: {} events left", of.events_left),
        Some("records") => "; being sealed anew: clients' URLs and the quarantine left".into(),
        Some(_) => "; being sealed anew: what is left in old files goes".into(),
    };
    let needed: Vec<_> = of.needed.iter().map(|key| harmless(key).to_string()).collect();
    format!("{key}{left}; needed keys: {}", needed.join(", "))
}

fn quarantine(of: &QuarantineStatus) -> String {
    let bounds = match (of.max_events, of.max_bytes) {
        (Some(events), Some(bytes)) if of.on => format!("at most {events} and {}", size(bytes)),
        _ => "off: what is there stays until its time is over".into(),
    };
    format!("{} refused, {} used ({bounds})", of.items, size(of.bytes))
}

fn routes(of: &Running) -> String {
    let mut rows = Rows::new(&[
        ("route", Side::Left),
        ("mode", Side::Left),
        ("verified", Side::Left),
        ("host", Side::Left),
        ("path", Side::Left),
        ("forward to", Side::Left),
    ]);
    for route in &of.setup.routes {
        let upstreams: Vec<&str> =
            route.destinations.iter().flat_map(|d| &d.upstreams).map(String::as_str).collect();
        let host = route.host.as_deref().unwrap_or("*");
        // What is not verified is never a surprise.
        let tone = if route.verification == "observe" { Tone::Bad } else { Tone::Plain };
        let plain = |cell: &str| (cell.to_owned(), Tone::Plain);
        rows.row(vec![
            plain(&route.name),
            plain(&route.mode),
            (route.verification.clone(), tone),
            plain(host),
            plain(&route.path),
            plain(&upstreams.join(", ")),
        ]);
    }
    rows.text()
}

pub(super) fn destinations(of: &[DestinationStatus], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("destination", Side::Left),
        ("backlog", Side::Right),
        ("oldest", Side::Right),
        ("in flight", Side::Right),
        ("dead", Side::Right),
        ("", Side::Left),
    ]);
    for destination in of {
        let tone = |n: u64, tone| if n == 0 { Tone::Plain } else { tone };
        rows.row(vec![
            (destination.destination.clone(), Tone::Plain),
            (destination.backlog.to_string(), tone(destination.backlog, Tone::Waiting)),
            (destination.oldest.as_deref().map_or("-".into(), |t| times.show(t)), Tone::Plain),
            (in_flight(destination), Tone::Plain),
            (destination.dead.to_string(), tone(destination.dead, Tone::Bad)),
            (held(destination, times), Tone::Waiting),
        ]);
    }
    rows.text()
}

/// Attempts under way, and how many there may be: `3 of 16`.
pub(super) fn in_flight(of: &DestinationStatus) -> String {
    match of.concurrency_limit {
        Some(limit) => format!("{} of {limit}", of.in_flight),
        None => of.in_flight.to_string(),
    }
}

/// Why deliveries wait, if they do.
pub(super) fn held(of: &DestinationStatus, times: Times) -> String {
    if !of.configured {
        return "not in the config".into();
    }
    if let Some(since) = &of.paused_since {
        return format!("paused by an operator since {}", times.show(since));
    }
    if let Some(until) = &of.closed_until {
        return format!("closed until {}", times.show(until));
    }
    of.breaker.as_ref().map(|breaker| spared(breaker, times)).unwrap_or_default()
}

fn spared(of: &BreakerView, times: Times) -> String {
    let why = of.why.as_deref().map(|why| format!(": {}", harmless(why))).unwrap_or_default();
    let since = of.since.as_deref().map(|at| format!(" since {}", times.show(at))).unwrap_or_default();
    match of.state.as_str() {
        "closed" => String::new(),
        "open" => {
            let probe = of.next_probe.as_deref().map(|at| format!(", next probe {}", times.show(at)));
            format!("breaker open{since}{why}{}", probe.unwrap_or_default())
        }
        "half_open" => format!("breaker half open{since}{why}"),
        "slow_start" => "slow start".into(),
        other => harmless(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2025-11-24T16:00:00.000Z";

    #[test]
    fn a_refused_reload_is_loud_and_says_why() {
        let of = |problem: Option<&str>| {
            reload(&ReloadStatus { at: AT.into(), problem: problem.map(Into::into) }, Times::Utc)
        };
        assert_eq!(of(None), format!("accepted {AT}"));
        assert_eq!(
            of(Some("a.yaml:1:2: x\n  |\x1b")),
            format!(
                "REFUSED {AT}, the config before it still runs:\n          a.yaml:1:2: x\n            |\\u{{1b}}"
            )
        );
    }

    #[test]
    fn the_age_of_keys_is_shown_with_what_keeps_them_old() {
        let set = |keys, fetched: bool, error: Option<&str>| {
            let set = KeySet {
                url: "https://a/jwks".into(),
                keys,
                fetched_at: fetched.then(|| AT.into()),
                age_seconds: None,
                error: error.map(Into::into),
                unknown_names: 0,
            };
            key_set(&set, Times::Utc)
        };
        let strangers = KeySet {
            url: "https://a/{key}".into(),
            keys: 0,
            fetched_at: None,
            age_seconds: None,
            error: Some("the server answered 404".into()),
            unknown_names: 3,
        };
        assert_eq!(
            key_set(&strangers, Times::Utc),
            "https://a/{key}: 3 names in requests that never were a key's, which were refused (one of them: the server answered 404)"
        );
        assert_eq!(set(1, true, None), format!("https://a/jwks: 1 key, fetched {AT}"));
        assert_eq!(
            set(2, true, Some("refused")),
            format!("https://a/jwks: 2 keys, fetched {AT}; the latest fetch failed: refused")
        );
        assert!(
            set(0, false, Some("refused"))
                .contains("never fetched: nothing verifies with it; the latest fetch failed")
        );
    }
}
