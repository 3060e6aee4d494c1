//! `tidegate lanes`.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::events::encoded;
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, print, print_json, span};
use crate::admin::lanes::LaneList;

/// List the keys of ordered destinations whose events stand still
///
/// A key is blocked while its first event fails and is tried again, and parked while its first event is a dead letter that
/// waits for an operator: `tidegate dead replay ID` tries it again before all that wait behind it, `tidegate dead purge ID`
/// lets the next one go.
#[derive(clap::Args, Debug)]
pub struct Lanes {
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

impl Lanes {
    pub fn run(self) -> ExitCode {
        exit(self.list())
    }

    fn list(&self) -> Result<ExitCode, Failure> {
        let mut path = format!("/lanes?limit={}", self.limit);
        if let Some(name) = &self.destination {
            path += &format!("&destination={}", encoded(name));
        }
        let list: LaneList = Client::new(&self.admin, PATIENCE)?.get(&path)?;
        match self.output.output {
            Format::Json => print_json(&list)?,
            Format::Table => print(&text(&list, &self.output))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(list: &LaneList, output: &OutputArgs) -> String {
    if list.lanes.is_empty() {
        return if output.quiet { String::new() } else { "every key goes on\n".to_owned() };
    }
    let times = Times::of(output);
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
