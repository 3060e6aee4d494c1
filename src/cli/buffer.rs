//! `tidegate buffer`: what the buffer holds, whether all of it can be read, and giving space back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use super::address::AdminArgs;
use super::check::usual_path;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, harmless, note, print, print_json, size};
use super::status::{buffer, destinations, sealed};
use crate::admin::buffer::Compaction;
use crate::admin::views::{BufferStatus, DestinationStatus, Status};
use crate::buffer::embedded::{self, OpenError};
use crate::buffer::{Damage, RouteHolds, Verified};
use crate::config::{self, Needed};
use crate::seal::Keyring;

/// How often a compaction is asked after.
const LOOK: Duration = Duration::from_millis(200);

/// Show what the buffer holds, check that all of it can be read, and give space back
///
/// All of it asks the running gateway, which goes on working; `verify --offline` looks at the folder of one that does not run.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate buffer stats
  tidegate buffer verify            # reads every event; exit code 1 if something is damaged
  tidegate buffer verify --offline --config tidegate.yaml     # while the gateway is stopped
  tidegate buffer verify --dir /backup/data
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
    ///
    /// With --offline or --dir it reads the folder itself, which no gateway may have open, and also checks that queues,
    /// lanes, claims, retention and counters fit together. Nothing is upgraded or repaired, but for the torn end of a write
    /// that was never acknowledged, which the engine cuts off. Exit code 1 if something is damaged, or if it can't be
    /// opened.
    Verify {
        /// Look at the buffer of the config, whose gateway does not run
        #[arg(long)]
        offline: bool,
        /// Look at the buffer in this folder; --config names the config that has its keys, if it is encrypted
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
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

    fn tell(&self, output: &OutputArgs) -> Result<ExitCode, Failure> {
        match output.output {
            Format::Json => print_json(self)?,
            Format::Table => print(&verified(self, output))?,
        }
        Ok(if self.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Buffer {
    pub fn run(self) -> ExitCode {
        exit(match &self.action {
            Action::Stats { output } => self.stats(output),
            Action::Verify { offline: false, dir: None, output } => self.verify(output),
            Action::Verify { dir, output, .. } => self.verify_offline(dir.as_deref(), output),
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
        all.tell(output)
    }

    fn verify_offline(&self, folder: Option<&Path>, output: &OutputArgs) -> Result<ExitCode, Failure> {
        let settings = match (folder, self.admin.config()) {
            (Some(_), None) => None,
            (_, path) => {
                let path = path.map_or_else(usual_path, Path::to_owned);
                Some(config::load_offline(&path, Needed::Secrets)?.config.buffer)
            }
        };
        let keys = settings.as_ref().map_or_else(Keyring::none, |of| of.encryption.clone());
        let Some(folder) = folder.or(settings.as_ref().map(|of| of.path.as_path())) else {
            return Err(Failure::Usage("give --offline or --dir FOLDER".into()));
        };
        let mut all = All::default();
        let read = embedded::verify(folder, &keys, &mut |page| {
            all.add(page);
            if output.verbose {
                note(&format!("{} events read", all.events));
            }
        });
        match read {
            Ok(()) => all.tell(output),
            Err(OpenError::Damaged { path, what }) => {
                all.damaged.push(Damage { event: None, what: format!("{path}: {what}") });
                all.tell(output)
            }
            Err(error @ OpenError::Locked { .. }) => Err(Failure::No(format!(
                "{error}; `tidegate buffer verify` without --offline or --dir asks the gateway that runs"
            ))),
            Err(error) => Err(Failure::No(error.to_string())),
        }
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
