//! `tidegate import`: the events of an export, into the buffer.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, harmless, note, print, print_json};
use crate::admin::transfer::{ImportDone, MAX_IMPORT};
use crate::transfer::{self, Events};

/// Put the events of an export into the buffer
///
/// Each keeps its id. What waited in the other buffer is delivered from here; what was delivered or given up stays so.
/// An event that is here already is passed over, so the same archive may be imported again; one whose idempotency key
/// another event has claimed here is a repeat and passed over, too. Stop the other gateway first: both would deliver.
#[derive(clap::Args, Debug)]
pub struct Import {
    #[command(flatten)]
    admin: AdminArgs,
    /// The archive; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// Bytes of events that are sent at once.
const PART: usize = 4 * 1024 * 1024;
/// Where nothing follows, but should.
const NO_END: &str = "the archive's end (two blocks of zeros) is missing: it is empty, or was cut off; what stood before is \
                      taken in, the rest is not";
/// Refused events that are told one by one.
const TOLD: usize = 20;

impl Import {
    pub fn run(self) -> ExitCode {
        exit(self.import())
    }

    fn import(self) -> Result<ExitCode, Failure> {
        let client = Client::new(&self.admin, PATIENCE)?;
        let name = self.file.display().to_string();
        let source: Box<dyn Read> = match self.file == Path::new("-") {
            true => Box::new(std::io::stdin().lock()),
            false => Box::new(File::open(&self.file).map_err(|e| Failure::No(format!("{name}: {e}")))?),
        };
        let mut events = Events::new(std::io::BufReader::new(source), MAX_IMPORT as u64);
        let (mut all, mut part) = (ImportDone::default(), Vec::new());
        let read = loop {
            match events.read() {
                Ok(Some((event, deliveries))) => transfer::put(&mut part, &event, deliveries)?,
                Ok(None) if events.has_ended() => break Ok(()),
                Ok(None) => break Err(NO_END.to_owned()),
                Err(error) => break Err(error.to_string()),
            }
            if part.len() >= PART {
                send(&client, std::mem::take(&mut part), &mut all)?;
            }
        };
        // What stands before a fault is good.
        if !part.is_empty() {
            send(&client, part, &mut all)?;
        }
        let ImportDone { stored, present, duplicates, refused } = &all;
        match &self.output {
            OutputArgs { output: Format::Json, .. } => print_json(&all)?,
            OutputArgs { quiet: true, .. } => {}
            _ => print(&format!(
                "{stored} imported, {present} here already, {duplicates} repeats, {} refused\n",
                refused.len()
            ))?,
        }
        for one in refused.iter().take(TOLD) {
            note(&format!("tidegate: {}: {}", one.id, harmless(&one.why)));
        }
        read.map_err(|why| Failure::No(format!("{name}: {}", harmless(&why))))?;
        Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

fn send(client: &Client, part: Vec<u8>, all: &mut ImportDone) -> Result<(), Failure> {
    let done: ImportDone = client.post_tar("/import", part)?;
    all.stored += done.stored;
    all.present += done.present;
    all.duplicates += done.duplicates;
    all.refused.extend(done.refused);
    Ok(())
}
