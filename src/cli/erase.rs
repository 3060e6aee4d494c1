//! `tidegate erase`: what is known of somebody goes, from the files too.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::failure::{Failure, exit};
use super::output::OutputArgs;
use super::work::Pace;
use crate::admin::filter::{Conditions, When};
use crate::admin::jobs::NewJob;
use crate::clock::Timestamp;

/// Delete what is known of somebody, and make sure that no file holds it any more
///
/// For data-protection requests: deletes the events with an idempotency key, or with a value at a place of their JSON
/// body, and the app's answers that are kept for repeats of that key (or hold that value), and then writes the buffer's files
/// anew so that nothing of them is left. That reads and writes all that the buffer holds. A hash of the key stays until its
/// window ends, so that a repeat does not bring back what was erased. An event that is under way is left alone and counted: erase again once it is delivered or given up.
/// Quarantine, exports and backups are not the buffer's: see to them, too.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate erase --route billing --pointer /data/email --equals ada@example.com --dry-run
  tidegate erase --route billing --key evt_123 --yes")]
pub struct Erase {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only what this route accepted
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// With this idempotency key
    #[arg(long, value_name = "KEY", required_unless_present = "pointer")]
    key: Option<String>,
    /// With a value at this place of a JSON body, such as `/data/email`
    #[arg(long, value_name = "POINTER", requires = "equals")]
    pointer: Option<String>,
    /// What stands at --pointer
    #[arg(long, value_name = "TEXT", requires = "pointer")]
    equals: Option<String>,
    /// Received before this time: how long ago (`2h`, `3d`) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = super::select::moment)]
    until: Option<Timestamp>,
    /// Yes, delete them: there is no way back
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: OutputArgs,
}

impl Erase {
    pub fn run(self) -> ExitCode {
        exit(self.erase())
    }

    fn erase(self) -> Result<ExitCode, Failure> {
        if !self.yes && !self.pace.is_dry_run() {
            return Err(Failure::Usage(
                "an erase deletes events for good; count them with --dry-run first, then add --yes".into(),
            ));
        }
        let filter = Conditions {
            route: self.route,
            key: self.key,
            pointer: self.pointer,
            equals: self.equals,
            until: self.until.map(|t| When::Millis(t.as_millis())),
            ..Conditions::default()
        };
        let new = NewJob { task: "erase".into(), filter: Some(filter), ..NewJob::default() };
        self.pace.work(&self.admin, new, &self.output)
    }
}
