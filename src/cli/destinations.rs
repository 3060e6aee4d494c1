//! `tidegate destinations`: where events go, how much waits, and what holds it.

use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, print, print_json, print_list};
use super::status::{held, in_flight};
use crate::admin::views::{DestinationStatus, Destinations as All};
use crate::verify::nearest;

/// List destinations with their backlog and state, or show one
///
/// Those of the running config, and those that only the buffer still knows.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate destinations list
  tidegate destinations list -o json | jq '.destinations[] | select(.backlog > 1000).destination'
  tidegate destinations show billing/legacy")]
pub struct Destinations {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List destinations, by name
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Show one destination and its servers; exit code 1 if there is none of this name
    Show(Show),
}

#[derive(clap::Args, Debug)]
struct Show {
    /// Its name as listed (`route/destination`), or its route's if that has only one
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

impl Destinations {
    pub fn run(self) -> ExitCode {
        exit(self.ask())
    }

    fn ask(&self) -> Result<ExitCode, Failure> {
        let all: All = Client::new(&self.admin, PATIENCE)?.get("/destinations")?;
        match &self.action {
            Action::List(output) => list(&all, output)?,
            Action::Show(Show { name, output }) => show(find(&all.destinations, name)?, output)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(all: &All, output: &OutputArgs) -> Result<(), Failure> {
    let names = all.destinations.iter().map(|of| &*of.destination);
    print_list(output, all, names, "no destinations", |times| table(&all.destinations, times))
}

fn table(all: &[DestinationStatus], times: Times) -> String {
    let mut rows = Rows::new(&[
        ("destination", Side::Left),
        ("backlog", Side::Right),
        ("oldest", Side::Right),
        ("in flight", Side::Right),
        ("rate", Side::Right),
        ("dead", Side::Right),
        ("breaker", Side::Left),
        ("", Side::Left),
    ]);
    for of in all {
        let tone = |n: u64, tone| if n == 0 { Tone::Plain } else { tone };
        rows.row(vec![
            (of.destination.clone(), Tone::Plain),
            (of.backlog.to_string(), tone(of.backlog, Tone::Waiting)),
            (of.oldest.as_deref().map_or("-".into(), |at| times.show(at)), Tone::Plain),
            (in_flight(of), Tone::Plain),
            (of.rate.clone().unwrap_or_else(|| "-".into()), Tone::Plain),
            (of.dead.to_string(), tone(of.dead, Tone::Bad)),
            breaker(of),
            (held(of, times), Tone::Waiting),
        ]);
    }
    rows.text()
}

/// How its breaker stands, in a word.
pub(super) fn breaker(of: &DestinationStatus) -> (String, Tone) {
    let word = of.breaker.as_ref().map_or("closed", |breaker| &breaker.state);
    let tone = match word {
        "closed" => Tone::Plain,
        "open" => Tone::Bad,
        _ => Tone::Waiting,
    };
    (word.replace('_', " "), tone)
}

fn find<'a>(all: &'a [DestinationStatus], name: &str) -> Result<&'a DestinationStatus, Failure> {
    if let Some(of) = all.iter().find(|of| of.destination == name) {
        return Ok(of);
    }
    let of_route = |of: &&DestinationStatus| of.destination.split('/').next() == Some(name);
    match all.iter().filter(of_route).collect::<Vec<_>>()[..] {
        [only] => Ok(only),
        [] => {
            let near = nearest(name, all.iter().map(|of| of.destination.as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(Failure::No(format!("there is no destination `{}`{}", harmless(name), harmless(&near))))
        }
        [first, ..] => Err(Failure::No(format!(
            "`{}` has several destinations: write one as `{}`",
            harmless(name),
            harmless(&first.destination)
        ))),
    }
}

fn show(of: &DestinationStatus, output: &OutputArgs) -> Result<(), Failure> {
    match output {
        OutputArgs { output: Format::Json, .. } => print_json(of),
        OutputArgs { quiet: true, .. } => print(&format!("{}\n", harmless(&of.destination))),
        output => print(&text(of, Times::of(output))),
    }
}

fn text(of: &DestinationStatus, times: Times) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| text += &format!("{what:12} {}\n", harmless(value));
    line("destination", &of.destination);
    let oldest = of.oldest.as_deref().map(|at| format!(", the oldest accepted {}", times.show(at)));
    line("backlog", &format!("{}{}", of.backlog, oldest.unwrap_or_default()));
    line("dead", &of.dead.to_string());
    line("in flight", &in_flight(of));
    line("rate", of.rate.as_deref().unwrap_or("as fast as it takes them"));
    let counts = of.attempts;
    let so_far = format!(
        "{} delivered, {} to be tried again, {} given up since the start",
        counts.delivered, counts.retried, counts.dead
    );
    line("attempts", &so_far);
    line("breaker", &breaker(of).0);
    match held(of, times) {
        held if held.is_empty() => {}
        held => line("held", &held),
    }
    for server in &of.upstreams {
        line("server", &format!("{} {}, {} in flight", server.upstream, server.state, server.in_flight));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn destination(name: &str) -> DestinationStatus {
        serde_json::from_value(json!({
            "destination": name, "configured": true, "backlog": 12, "dead": 3, "in_flight": 4,
            "concurrency_limit": 8, "rate": "50/s", "oldest": "2025-11-24T15:57:00.000Z",
            "oldest_age_seconds": 180, "attempts": {"delivered": 9, "retried": 2, "dead": 3},
            "breaker": {"state": "half_open", "since": null, "next_probe": null, "why": "status 503\u{1b}"},
            "upstreams": [{"upstream": "http://a", "state": "up", "in_flight": 4}],
        }))
        .unwrap()
    }

    #[test]
    fn one_is_found_by_its_name_or_by_its_route() {
        let all = ["billing/default", "shop/new", "shop/old"].map(destination);
        let found = |name: &str| find(&all, name).map(|of| of.destination.clone()).map_err(|e| e.to_string());
        assert_eq!(found("shop/old").unwrap(), "shop/old");
        assert_eq!(found("billing").unwrap(), "billing/default");
        assert_eq!(found("shop").unwrap_err(), "`shop` has several destinations: write one as `shop/new`");
        assert!(found("billing/defualt").unwrap_err().ends_with("did you mean `billing/default`?"));
    }

    #[test]
    fn everything_that_matters_is_shown_and_nothing_that_harms() {
        let of = destination("billing/legacy");
        let shown = text(&of, Times::Utc) + &table(&[of], Times::Utc);
        for what in [
            "12, the oldest",
            "4 of 8",
            "50/s",
            "9 delivered",
            "half open",
            "status 503\\u{1b}",
            "http://a up",
        ] {
            assert!(shown.contains(what), "{what}: {shown}");
        }
        assert!(!shown.contains('\u{1b}'));
    }
}
