//! `tidegate buffer`: what the buffer holds, whether all of it can be read, and giving space back.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json, size};
use super::status::{buffer, destinations, sealed};
use crate::admin::buffer::Compaction;
use crate::admin::views::{BufferStatus, DestinationStatus, Status};
use crate::buffer::{Damage, RouteHolds, Verified};

/// How often a compaction is asked after.
const LOOK: Duration = Duration::from_millis(200);

/// Show what the buffer holds, check that all of it can be read, and give space back
///
/// All of it asks the running gateway, which goes on working.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate buffer stats
  tidegate buffer verify            # reads every event; exit code 1 if something is damaged
  tidegate buffer compact")]
pub struct Buffer {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// What it holds: space, destinations, keys
    Stats {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Read every event; what it holds by route and by key, and what is damaged
    Verify {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give the space of what was deleted back now
    Compact {
        #[command(flatten)]
        output: OutputArgs,
    },
}

#[derive(Serialize)]
struct Held {
    buffer: Option<BufferStatus>,
    destinations: Vec<DestinationStatus>,
}

/// Of all pages.
#[derive(Default, Serialize)]
struct All {
    events: u64,
    bytes: u64,
    routes: BTreeMap<String, RouteHolds>,
    keys: BTreeMap<String, u64>,
    damaged: Vec<Damage>,
}

impl All {
    fn add(&mut self, page: Verified) {
        self.events += page.events;
        self.bytes += page.bytes;
        for (route, of) in page.routes {
            let all = self.routes.entry(route).or_default();
            all.events += of.events;
            all.bytes += of.bytes;
            all.oldest = [all.oldest, of.oldest].into_iter().flatten().min();
        }
        for (key, events) in page.keys {
            *self.keys.entry(key).or_default() += events;
        }
        self.damaged.extend(page.damaged);
    }
}

impl Buffer {
    pub fn run(self) -> ExitCode {
        exit(match &self.action {
            Action::Stats { output } => self.stats(output),
            Action::Verify { output } => self.verify(output),
            Action::Compact { output } => self.compact(output),
        })
    }

    fn stats(&self, output: &OutputArgs) -> Result<ExitCode, Failure> {
        let running: Status = Client::new(&self.admin, PATIENCE)?.get("/status")?;
        let held = Held { buffer: running.buffer, destinations: running.destinations };
        if output.output == Format::Json {
            print_json(&held)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("{}\n", held.buffer.as_ref().map_or("it does not answer".into(), buffer));
        if let Some(sealing) = held.buffer.as_ref().and_then(|of| of.sealing.as_ref()) {
            text += &format!("sealed {}\n", sealed(sealing));
        }
        if !held.destinations.is_empty() && !output.quiet {
            text += &format!("\n{}", destinations(&held.destinations, Times::of(output)));
        }
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self, output: &OutputArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        let (mut all, mut after) = (All::default(), None);
        loop {
            let path = match after {
                None => "/buffer/verify".to_owned(),
                Some(id) => format!("/buffer/verify?after={id}"),
            };
            let page: Verified = client.get(&path)?;
            after = page.next;
            all.add(page);
            if after.is_none() {
                break;
            }
            if output.verbose {
                note(&format!("{} events read", all.events));
            }
        }
        match output.output {
            Format::Json => print_json(&all)?,
            Format::Table => print(&verified(&all, output))?,
        }
        Ok(if all.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn compact(&self, output: &OutputArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        let mut state: Compaction = client.post("/buffer/compact", None::<&()>)?;
        while state.running {
            std::thread::sleep(LOOK);
            state = client.get("/buffer/compact")?;
        }
        if output.output == Format::Json {
            print_json(&state)?;
        } else if let Some(problem) = &state.problem {
            note(&format!("it could not be compacted: {}", harmless(problem)));
        } else if !output.quiet {
            let bytes = |of: Option<u64>| of.map_or("?".into(), size);
            print(&format!("compacted: {} before, {} now\n", bytes(state.before), bytes(state.after)))?;
        }
        Ok(if state.problem.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn verified(all: &All, output: &OutputArgs) -> String {
    let mut text = String::new();
    for damage in &all.damaged {
        let what = harmless(&damage.what);
        text += &match damage.event {
            Some(id) => format!("DAMAGED event {id}: {what}\n"),
            None => format!("DAMAGED {what}\n"),
        };
    }
    let whole = if all.damaged.is_empty() { "all can be read" } else { "the others can be read" };
    text += &format!("{} events, {}: {whole}\n", all.events, size(all.bytes));
    if output.quiet || all.routes.is_empty() {
        return text;
    }
    let columns =
        [("route", Side::Left), ("events", Side::Right), ("bytes", Side::Right), ("oldest", Side::Left)];
    let mut rows = Rows::new(&columns);
    for (route, of) in &all.routes {
        let oldest = of.oldest.map_or_else(String::new, |at| Times::of(output).show(&at.to_string()));
        rows.row(vec![
            (route.clone(), Tone::Plain),
            (of.events.to_string(), Tone::Plain),
            (size(of.bytes), Tone::Plain),
            (oldest, Tone::Plain),
        ]);
    }
    text += &format!("\n{}", rows.text());
    let mut rows = Rows::new(&[("key", Side::Left), ("events", Side::Right)]);
    for (key, events) in &all.keys {
        rows.row(vec![(key.clone(), Tone::Plain), (events.to_string(), Tone::Plain)]);
    }
    text + &format!("\n{}", rows.text())
}
