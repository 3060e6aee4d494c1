//! `tidegate dead`: `events` for dead letters only.

use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::events::{List, Purge, Replay, Show};
use super::failure::exit;
use super::select::State;

/// List, show, replay and purge dead letters
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate dead list
  tidegate dead replay --route billing          once the app is well again
  tidegate dead replay --all
  tidegate dead purge --until 30d --yes         what is older than 30 days")]
pub struct Dead {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List events with a delivery that was given up, newest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one event: headers, body, deliveries and their attempts
    Show(Show),
    /// Try again, with a fresh retry budget
    Replay(Replay),
    /// Delete dead letters for good
    Purge(Purge),
}

impl Dead {
    pub fn run(self) -> ExitCode {
        let admin = &self.admin;
        exit(match self.action {
            Action::List(list) => list.run(admin, Some(State::Dead)),
            Action::Show(show) => show.run(admin),
            Action::Replay(replay) => replay.run(admin, None, Some(State::Dead)),
            Action::Purge(purge) => purge.run(admin, None, Some(State::Dead)),
        })
    }
}
