//! `tidegate top`: routes, rates, backlog and breakers, live.
//!
//! What happens a second is the difference between two looks at `/status`; here is only arithmetic and drawing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::address::AdminArgs;
use super::client::Client;
use super::destinations::breaker;
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, print, print_json, size, span};
use super::status::{held, in_flight};
use super::terminal::{Screen, Then};
use crate::admin::views::{BufferStatus, DestinationStatus, RouteTraffic, Status};

/// A gateway that takes longer is shown as silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Watch routes, rates, backlog and breakers live
///
/// `q` or Ctrl-C ends it. Where standard output is no terminal, and with `--once` or `--output json`, one frame is
/// printed, after one interval.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate top
  tidegate top --once -o json | jq '.destinations[] | select(.delivered_per_second == 0).destination'")]
pub struct Top {
    /// Print one frame and end
    #[arg(long)]
    once: bool,

    /// Between two frames, and what rates are measured over: 200ms to 1h
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = interval)]
    interval: Duration,

    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Top {
    pub fn run(self) -> ExitCode {
        exit(self.watch())
    }

    fn watch(&self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        let mut last = Look::now(&client)?;
        let screen = match self.once || self.output.output == Format::Json {
            true => None,
            false => Screen::open()?,
        };
        let Some(screen) = screen else {
            std::thread::sleep(self.interval);
            let frame = Frame::between(&last, &Look::now(&client)?);
            match self.output.output {
                Format::Json => print_json(&frame)?,
                Format::Table => print(&text(&frame, Times::of(&self.output)))?,
            }
            return Ok(ExitCode::SUCCESS);
        };
        let mut shown = text(&Frame::between(&last, &last), Times::of(&self.output));
        let mut silent: Option<String> = None;
        loop {
            let trouble = silent.as_ref().map(|why| format!("NO ANSWER: {}\n", harmless(why)));
            screen.draw(&(trouble.unwrap_or_default() + &shown))?;
            if screen.wait(self.interval) == Then::Quit {
                return Ok(ExitCode::SUCCESS);
            }
            // A key asks for a frame before its time: too short a span says nothing.
            if silent.is_none() && last.at.elapsed() < self.interval / 2 {
                continue;
            }
            match Look::now(&client) {
                Ok(look) => {
                    shown = text(&Frame::between(&last, &look), Times::of(&self.output));
                    (last, silent) = (look, None);
                }
                Err(error) => silent = Some(error.to_string()),
            }
        }
    }
}

/// What the gateway said, and when.
struct Look {
    at: Instant,
    status: Status,
}

impl Look {
    fn now(client: &Client) -> Result<Self, Failure> {
        let status = client.get("/status")?;
        Ok(Self { at: Instant::now(), status })
    }
}

/// What is shown at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Frame {
    version: String,
    uptime_seconds: u64,
    ready: bool,
    reasons: Vec<String>,
    /// What the rates were measured over.
    seconds: f64,
    buffer: Option<BufferStatus>,
    routes: Vec<RouteRates>,
    destinations: Vec<DestinationRates>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct RouteRates {
    route: String,
    mode: String,
    /// Since the start.
    requests: u64,
    requests_per_second: f64,
    /// New events of the sender itself.
    taken_per_second: f64,
    duplicates_per_second: f64,
    unverified_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct DestinationRates {
    delivered_per_second: f64,
    retried_per_second: f64,
    dead_per_second: f64,
    #[serde(flatten)]
    status: DestinationStatus,
}

impl Frame {
    fn between(before: &Look, after: &Look) -> Self {
        let (was, is) = (&before.status, &after.status);
        let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
        // Of another process nothing is known from before.
        let is_same = was.started_at == is.started_at;
        let rate = |was: u64, is: u64| match is_same && seconds > 0.0 {
            #[allow(clippy::cast_precision_loss)] // shown with one digit after the point
            true => is.saturating_sub(was) as f64 / seconds,
            false => 0.0,
        };
        let route = |is: &RouteTraffic| {
            let was = was.traffic.iter().find(|was| was.route == is.route).cloned().unwrap_or_default();
            let mode = after.status.setup.routes.iter().find(|setup| setup.name == is.route);
            RouteRates {
                route: is.route.clone(),
                mode: mode.map(|setup| setup.mode.clone()).unwrap_or_default(),
                requests: is.requests,
                requests_per_second: rate(was.requests, is.requests),
                taken_per_second: rate(
                    was.arrived.saturating_sub(was.duplicates),
                    is.arrived.saturating_sub(is.duplicates),
                ),
                duplicates_per_second: rate(was.duplicates, is.duplicates),
                unverified_per_second: rate(was.unverified, is.unverified),
            }
        };
        let destination = |is: &DestinationStatus| {
            let was = was.destinations.iter().find(|was| was.destination == is.destination);
            let was = was.map(|was| was.attempts).unwrap_or_default();
            DestinationRates {
                delivered_per_second: rate(was.delivered, is.attempts.delivered),
                retried_per_second: rate(was.retried, is.attempts.retried),
                dead_per_second: rate(was.dead, is.attempts.dead),
                status: is.clone(),
            }
        };
        let mut routes: Vec<RouteRates> = is.traffic.iter().map(route).collect();
        let mut destinations: Vec<DestinationRates> = is.destinations.iter().map(destination).collect();
        // The busiest first: on a small screen the others are cut off.
        routes.sort_by(|a, b| b.requests_per_second.total_cmp(&a.requests_per_second));
        destinations.sort_by(|a, b| {
            let waits = b.status.backlog.cmp(&a.status.backlog);
            waits.then(b.delivered_per_second.total_cmp(&a.delivered_per_second))
        });
        Self {
            version: is.version.clone(),
            uptime_seconds: is.uptime_seconds,
            ready: is.ready,
            reasons: is.reasons.clone(),
            seconds,
            buffer: is.buffer.clone(),
            routes,
            destinations,
        }
    }
}

fn text(of: &Frame, times: Times) -> String {
    let ready = match of.ready {
        true => "ready".to_owned(),
        false => format!("NOT READY: {}", harmless(&of.reasons.join("; "))),
    };
    let mut text = format!("tidegate {}, up {}: {ready}\n", harmless(&of.version), span(of.uptime_seconds));
    let sum = |rate: fn(&DestinationRates) -> f64| of.destinations.iter().map(rate).sum::<f64>();
    let requests: f64 = of.routes.iter().map(|route| route.requests_per_second).sum();
    let backlog: u64 = of.destinations.iter().map(|to| to.status.backlog).sum();
    let dead: u64 = of.destinations.iter().map(|to| to.status.dead).sum();
    text += &format!(
        "in {}/s, out {}/s, to be tried again {}/s; backlog {backlog}, dead letters {dead}\n",
        number(requests),
        number(sum(|to| to.delivered_per_second)),
        number(sum(|to| to.retried_per_second)),
    );
    text += &match &of.buffer {
        Some(buffer) => format!(
            "buffer {}: {} events, {} of {}\n",
            harmless(&buffer.admission),
            buffer.events,
            size(buffer.disk_bytes),
            size(buffer.max_bytes)
        ),
        None => "buffer: does not answer\n".to_owned(),
    };
    text += &format!("\n{}", routes(&of.routes));
    if !of.destinations.is_empty() {
        text += &format!("\n{}", destinations(&of.destinations, times));
    }
    text
}

fn routes(of: &[RouteRates]) -> String {
    let mut rows = Rows::new(&[
        ("route", Side::Left),
        ("mode", Side::Left),
        ("req/s", Side::Right),
        ("new/s", Side::Right),
        ("repeat/s", Side::Right),
        ("unverified/s", Side::Right),
        ("requests", Side::Right),
    ]);
    for route in of {
        let plain = |text: String| (text, Tone::Plain);
        let unverified = if route.unverified_per_second > 0.0 { Tone::Bad } else { Tone::Plain };
        rows.row(vec![
            plain(route.route.clone()),
            plain(route.mode.clone()),
            plain(number(route.requests_per_second)),
            plain(number(route.taken_per_second)),
            plain(number(route.duplicates_per_second)),
            (number(route.unverified_per_second), unverified),
            plain(route.requests.to_string()),
        ]);
    }
    rows.text()
}

fn destinations(of: &[DestinationRates], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("destination", Side::Left),
        ("backlog", Side::Right),
        ("oldest", Side::Right),
        ("in flight", Side::Right),
        ("ok/s", Side::Right),
        ("retry/s", Side::Right),
        ("dead/s", Side::Right),
        ("dead", Side::Right),
        ("breaker", Side::Left),
        ("", Side::Left),
    ]);
    for to in of {
        let plain = |text: String| (text, Tone::Plain);
        let tone = |is: bool, tone| if is { tone } else { Tone::Plain };
        let status = &to.status;
        rows.row(vec![
            plain(status.destination.clone()),
            (status.backlog.to_string(), tone(status.backlog > 0, Tone::Waiting)),
            plain(status.oldest_age_seconds.map_or("-".into(), span)),
            plain(in_flight(status)),
            plain(number(to.delivered_per_second)),
            (number(to.retried_per_second), tone(to.retried_per_second > 0.0, Tone::Waiting)),
            (number(to.dead_per_second), tone(to.dead_per_second > 0.0, Tone::Bad)),
            (status.dead.to_string(), tone(status.dead > 0, Tone::Bad)),
            breaker(status),
            (held(status, times), Tone::Waiting),
        ]);
    }
    rows.text()
}

/// A rate for people: `0`, `0.3`, `12.5`, `1340`.
fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = super::select::duration(text)?;
    match (Duration::from_millis(200)..=Duration::from_secs(3600)).contains(&span) {
        true => Ok(span),
        false => Err("from 200ms to 1h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(at: Instant, started_at: &str, requests: u64, delivered: u64) -> Look {
        let status = serde_json::from_value(json!({
            "version": "1.2.3", "pid": 7, "started_at": started_at, "uptime_seconds": 75, "ready": true,
            "reasons": [], "config_hash": "abc", "admin": "127.0.0.1:9900", "listeners": [],
            "routes": [
                {"name": "quiet", "host": null, "path": "/q", "methods": [], "mode": "proxy", "destinations": []},
                {"name": "billing", "host": null, "path": "/b", "methods": [], "mode": "buffer", "destinations": []},
            ],
            "traffic": [
                {"route": "quiet", "requests": 5, "arrived": 5, "duplicates": 0, "unverified": 0},
                {"route": "billing", "requests": requests, "arrived": requests, "duplicates": requests / 4, "unverified": 0},
            ],
            "buffer": null,
            "destinations": [
                {"destination": "quiet/default", "configured": true, "backlog": 0, "dead": 0, "oldest": null,
                 "oldest_age_seconds": null},
                {"destination": "billing/legacy", "configured": true, "backlog": 40, "dead": 3,
                 "oldest": "2025-11-24T16:00:00.000Z", "oldest_age_seconds": 125, "in_flight": 3,
                 "concurrency_limit": 4, "attempts": {"delivered": delivered, "retried": 0, "dead": 0},
                 "breaker": {"state": "open", "since": null, "next_probe": null, "why": "status 503"}},
            ],
        }));
        Look { at, status: status.unwrap() }
    }

    #[test]
    fn rates_are_what_happened_between_two_looks_and_the_busiest_come_first() {
        let began = Instant::now();
        let (first, second) = (look(began, "a", 100, 10), look(began + Duration::from_secs(2), "a", 180, 25));
        let frame = Frame::between(&first, &second);
        let route = &frame.routes[0];
        assert_eq!((route.route.as_str(), route.mode.as_str()), ("billing", "buffer"));
        assert_eq!(
            (route.requests_per_second, route.taken_per_second, route.duplicates_per_second),
            (40.0, 30.0, 10.0)
        );
        assert_eq!(frame.destinations[0].status.destination, "billing/legacy");
        assert_eq!(frame.destinations[0].delivered_per_second, 7.5);
        let shown = text(&frame, Times::Utc);
        for what in
            ["up 1m 15s: ready", "in 40.0/s, out 7.5/s", "3 of 4", "2m 5s", "breaker open: status 503"]
        {
            assert!(shown.contains(what), "{what}: {shown}");
        }
        let json = serde_json::to_value(&frame).unwrap();
        assert_eq!(json["destinations"][0]["backlog"], 40);
    }

    #[test]
    fn a_restart_or_no_time_in_between_makes_no_wild_rates() {
        let began = Instant::now();
        let later = began + Duration::from_secs(1);
        let restarted = Frame::between(&look(began, "a", 900, 90), &look(later, "b", 100, 10));
        let at_once = Frame::between(&look(began, "a", 0, 0), &look(began, "a", 100, 10));
        for frame in [restarted, at_once] {
            assert_eq!(
                (frame.routes[0].requests_per_second, frame.destinations[0].delivered_per_second),
                (0.0, 0.0)
            );
        }
        assert_eq!([0.0, 0.25, 99.94, 1340.2].map(number), ["0", "0.2", "99.9", "1340"]);
    }
}
