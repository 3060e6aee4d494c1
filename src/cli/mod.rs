//! The command line: one file a command. Exit codes: 0 done, 1 it said no, 2 wrong usage, 78 the config is bad.

mod check;
mod completions;
mod dead;
mod demo;
mod events;
mod healthcheck;
mod reload;
mod routes;
mod run;
mod schema;
mod send;
mod sign;
mod status;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A webhook receiving gateway: verify, drop duplicates, buffer on disk, deliver at the app's pace.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the gateway
    Run(run::Run),
    /// Check a config: every problem at once
    Check(check::Check),
    /// Print the JSON Schema of the config
    Schema(schema::Schema),
    /// List routes, or explain which one a request would take
    Routes(routes::Routes),
    /// Verify captured requests offline against a route
    Verify(verify::Verify),
    /// Print the signed headers of a test event
    Sign(sign::Sign),
    /// Send a signed test event
    Send(send::Send),
    /// List, show, replay and purge events
    Events(events::Events),
    /// List, show, replay and purge dead letters
    Dead(dead::Dead),
    /// Have the running gateway read its config again
    Reload(reload::Reload),
    /// Show what the running gateway does
    Status(status::Status),
    /// Exit 0 if the running gateway is ready
    Healthcheck(healthcheck::Healthcheck),
    /// Print shell completions
    Completions(completions::Completions),
    /// Run the gateway in front of a demonstration app and play real events through it
    Demo(demo::Demo),
}

/// Parses the arguments and runs what they ask for.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Routes(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Sign(command) => command.run(),
        Command::Send(command) => command.run(),
        Command::Events(command) => command.run(),
        Command::Dead(command) => command.run(),
        Command::Reload(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Healthcheck(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Demo(command) => command.run(),
    }
}
