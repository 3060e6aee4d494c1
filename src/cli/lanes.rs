//! `tidegate lanes`.

use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::events::encoded;
use super::failure::{Failure, exit};
use super::output::{
    Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json, print_list, span,
};
use crate::admin::lanes::{LaneGivenUp, LaneList, WhichLane};

/// List the keys of ordered destinations whose events stand still
///
/// A key is blocked while its first event fails and is tried again, and parked while its first event is a dead letter that
/// waits for an operator: `tidegate dead replay ID` tries it again before all that wait behind it, `tidegate lanes give-up`
/// lets the next one go.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Lanes {
    #[command(subcommand)]
    action: Option<Action>,

    /// Only of this destination, ROUTE/DESTINATION
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,

    /// How many keys to list, those that have stood still the longest first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Give up the event that a key stands still for, so that the next one goes
    ///
    /// It becomes a dead letter (if it is none yet), which is kept and may be replayed: it then goes behind all that wait.
    /// While it is in flight nothing is given up: its answer settles it, and the exit code is 1.
    GiveUp(GiveUp),
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct GiveUp {
    /// Of this destination, ROUTE/DESTINATION
    #[arg(long, value_name = "NAME")]
    destination: String,

    /// The key, whole, as it stands in its events
    #[arg(long, value_name = "KEY", required_unless_present = "lane", conflicts_with = "lane")]
    key: Option<String>,

    /// The lane's name, as `lanes -o json` shows it: where the key is not known, or is hard to type
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,

    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl GiveUp {
    fn run(self) -> Result<ExitCode, Failure> {
        let Self { destination, key, lane, admin, output } = self;
        let which = WhichLane { destination, key, lane };
        let done: LaneGivenUp = Client::new(&admin, PATIENCE)?.post("/lanes/give-up", Some(&which))?;
        match &output {
            OutputArgs { output: Format::Json, .. } => print_json(&done)?,
            OutputArgs { quiet: true, .. } => {}
            _ if done.given_up => {
                let next = match done.waiting {
                    0 => "nothing waits behind it".to_owned(),
                    1 => "1 event goes on behind it".to_owned(),
                    n => format!("{n} events go on behind it"),
                };
                print(&format!("event {} is given up; {next}\n", harmless(&done.event)))?;
            }
            _ => {}
        }
        if done.given_up {
            return Ok(ExitCode::SUCCESS);
        }
        note(&format!(
            "tidegate: event {} was not given up: it is in flight, and its answer settles it",
            harmless(&done.event)
        ));
        Ok(ExitCode::from(1))
    }
}

impl Lanes {
    pub fn run(self) -> ExitCode {
        exit(match self.action {
            Some(Action::GiveUp(give_up)) => give_up.run(),
            None => self.list(),
        })
    }

    fn list(&self) -> Result<ExitCode, Failure> {
        let mut path = format!("/lanes?limit={}", self.limit);
        if let Some(name) = &self.destination {
            path += &format!("&destination={}", encoded(name));
        }
        let list: LaneList = Client::new(&self.admin, PATIENCE)?.get(&path)?;
        let names = list.lanes.iter().map(|lane| lane.lane.as_str());
        print_list(&self.output, &list, names, "every key goes on", |times| table(&list, times))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(list: &LaneList, times: Times) -> String {
    let mut rows = Rows::new(&[
        ("destination", Side::Left),
        ("key", Side::Left),
        ("state", Side::Left),
        ("since", Side::Right),
        ("age", Side::Right),
        ("waiting", Side::Right),
        ("event", Side::Left),
    ]);
    for lane in &list.lanes {
        let tone = if lane.state == "parked" { Tone::Bad } else { Tone::Waiting };
        let key = lane.key.as_ref().map_or_else(|| format!("({})", lane.lane), |key| harmless(key));
        rows.row(vec![
            (lane.destination.clone(), Tone::Plain),
            (key, Tone::Plain),
            (lane.state.clone(), tone),
            (times.show(&lane.since), Tone::Plain),
            (span(lane.age_seconds), Tone::Plain),
            (lane.waiting.to_string(), Tone::Plain),
            (lane.event.clone(), Tone::Plain),
        ]);
    }
    rows.text()
}
