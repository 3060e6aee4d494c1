//! `tidegate export`: events with their bodies, as a tar archive.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::events::query;
use super::failure::{Failure, exit};
use super::output::{Format, json, note, print_json};
use super::select::{Filters, State};
use crate::admin::filter::MAX_LIMIT;
use crate::admin::transfer::NEXT;
use crate::transfer::tar::END;

/// Write events with their bodies into a tar archive
///
/// Oldest first, two files an event: its metadata (headers, deliveries and their attempts) as JSON, and its body as it
/// was received. Nothing is hidden in it, so keep it as you keep the buffer. It is written as it comes, whatever its
/// size; `tidegate import` takes it.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate export --route billing --since 2d --file billing.tar
  tidegate export --state dead | zstd > dead.tar.zst")]
pub struct Export {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    filters: Filters,
    /// With a delivery in this state
    #[arg(long, value_enum, help_heading = "Which events")]
    state: Option<State>,
    /// Where to; made new, and only whole. `-`, and the default: standard output
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How it is told what was written: on standard output, or beside an archive that goes there, on standard error
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Say nothing
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

/// What was written.
#[derive(Debug, serde::Serialize)]
struct Exported {
    /// `None`: to standard output.
    file: Option<String>,
    bytes: u64,
}

impl Export {
    pub fn run(self) -> ExitCode {
        exit(self.export())
    }

    fn export(self) -> Result<ExitCode, Failure> {
        let conditions = self.filters.conditions(self.state)?;
        let client = Client::new(&self.admin, PATIENCE)?;
        let written = match self.file.as_deref().filter(|path| *path != Path::new("-")) {
            None if std::io::stdout().is_terminal() => {
                return Err(Failure::Usage(
                    "an archive is not for a terminal: add --file FILE, or a pipe".into(),
                ));
            }
            None => all(&client, &conditions, &mut std::io::stdout().lock())?,
            Some(path) => {
                let mut name = path.as_os_str().to_owned();
                name.push(".part");
                let part = PathBuf::from(name);
                let failed = |e: std::io::Error| Failure::No(format!("{}: {e}", part.display()));
                let mut options = File::options();
                options.write(true).create(true).truncate(true);
                // It holds what was meant for the app alone.
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let mut file = options.open(&part).map_err(failed)?;
                let written = all(&client, &conditions, &mut file)?;
                file.sync_all().map_err(failed)?;
                std::fs::rename(&part, path).map_err(failed)?;
                written
            }
        };
        let file = self.file.filter(|path| *path != Path::new("-")).map(|path| path.display().to_string());
        let exported = Exported { file, bytes: written };
        match self.output {
            Format::Table if self.quiet => {}
            Format::Table => note(&format!("exported {}", super::output::size(written))),
            Format::Json if exported.file.is_some() => print_json(&exported)?,
            Format::Json => note(&json(&exported)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// All parts, and the archive's end. Returns the bytes written.
fn all(
    client: &Client,
    conditions: &crate::admin::filter::Conditions,
    out: &mut impl Write,
) -> Result<u64, Failure> {
    let (mut after, mut written) = (None, 0u64);
    loop {
        let path = format!("/export?{}", query(conditions, MAX_LIMIT, after.as_deref()));
        let (part, next) = client.part(&path, &NEXT)?;
        out.write_all(&part)?;
        written += part.len() as u64;
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if written == 0 {
        super::select::doubt(conditions, client);
    }
    out.write_all(&END)?;
    out.flush()?;
    Ok(written + END.len() as u64)
}
