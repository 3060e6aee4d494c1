//! The command line: one file a command. Exit codes: 0 done, 1 it said no, 2 wrong usage, 3 a job goes on without
//! the command that began it, 78 the config is bad.
//!
//! Commands that ask a running gateway share `address` (where is it), `client` (ask it), `select` (which events),
//! `output` and `show` (print what it says) and `failure` (exit codes).

mod address;
mod admit;
mod alerts;
mod buffer;
mod captured;
mod check;
mod client;
mod completions;
mod dead;
mod demo;
mod destinations;
mod endpoints;
mod erase;
mod events;
mod export;
mod failure;
mod healthcheck;
mod import;
mod jobs;
mod lanes;
mod output;
mod pause;
mod providers;
mod quarantine;
mod reload;
mod replay;
mod routes;
mod run;
mod schema;
mod select;
mod send;
mod show;
mod sign;
mod status;
mod tail;
mod terminal;
mod top;
mod verify;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// A webhook receiving gateway: verify, drop duplicates, buffer on disk, deliver at the app's pace.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, about, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
First steps:
  tidegate check -c tidegate.yaml        what is wrong with a config, all at once
  tidegate run -c tidegate.yaml          run it; SIGHUP or `tidegate reload` reads it again
  tidegate send github --to https://localhost:8443/hooks/github --secret env:SECRET --insecure
  tidegate events list                   what came in, and what became of it
  tidegate dead list                     what the app did not take; `dead replay` tries again

Environment: TIDEGATE_CONFIG, TIDEGATE_ADMIN, TIDEGATE_ADMIN_TOKEN; NO_COLOR turns colours off.
Exit codes: 0 done, 1 it said no, 2 wrong usage, 3 the gateway went away and the job goes on when it is back,
78 the config is bad.
`tidegate COMMAND --help` says more than -h.";

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
    /// List the providers that are known, or show one
    Providers(providers::Providers),
    /// Verify captured requests offline against a route
    Verify(verify::Verify),
    /// Print the signed headers of a test event
    Sign(sign::Sign),
    /// Send a signed test event
    Send(send::Send),
    /// List, show, follow, replay and purge events
    Events(events::Events),
    /// Give clients URLs of their own, list, rotate and revoke them
    Endpoints(endpoints::Endpoints),
    /// List, show, replay and purge dead letters
    Dead(dead::Dead),
    /// List, show, pause, resume and cancel work on many events
    Jobs(jobs::Jobs),
    /// List the keys of ordered destinations whose events stand still
    Lanes(lanes::Lanes),
    /// Write events with their bodies into a tar archive
    Export(export::Export),
    /// Put the events of an export into the buffer
    Import(import::Import),
    /// Delete what is known of somebody, and make sure that no file holds it any more
    Erase(erase::Erase),
    /// Show what the buffer holds, check it, and give space back
    Buffer(buffer::Buffer),
    /// List destinations with their backlog and state, or show one
    Destinations(destinations::Destinations),
    /// Hold the deliveries of a route or destination
    Pause(pause::Pause),
    /// End a pause
    Resume(pause::Resume),
    /// List, show, re-verify, admit and purge refused requests
    Quarantine(quarantine::Quarantine),
    /// List what is wrong now, or send everybody a test notice
    Alerts(alerts::Alerts),
    /// Have the running gateway read its config again
    Reload(reload::Reload),
    /// Show what the running gateway does
    Status(status::Status),
    /// Watch routes, rates, backlog and breakers live
    Top(top::Top),
    /// Exit 0 if the running gateway is ready
    Healthcheck(healthcheck::Healthcheck),
    /// Print shell completions
    Completions(completions::Completions),
    /// Run the gateway in front of a demonstration app and play real events through it
    Demo(demo::Demo),
}

/// Log lines that are still queued when a command ends are waited for this long.
const FLUSH: Duration = Duration::from_secs(1);

/// Parses the arguments and runs what they ask for.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if !matches!(command, Command::Run(_) | Command::Demo(_)) {
        end_quietly_without_a_reader();
    }
    let code = command.run();
    crate::telemetry::flush(FLUSH);
    code
}

/// `println!` panics when the reader of a pipe has seen enough (`tidegate routes | head`). For a command that only
/// prints, that is a normal end; a server must go on, so this is not for it.
fn end_quietly_without_a_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if message.starts_with("failed printing to stdout") && message.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(panic);
    }));
}

impl Command {
    fn run(self) -> ExitCode {
        match self {
            Command::Run(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Schema(command) => command.run(),
            Command::Routes(command) => command.run(),
            Command::Providers(command) => command.run(),
            Command::Verify(command) => command.run(),
            Command::Sign(command) => command.run(),
            Command::Send(command) => command.run(),
            Command::Events(command) => command.run(),
            Command::Endpoints(command) => command.run(),
            Command::Dead(command) => command.run(),
            Command::Jobs(command) => command.run(),
            Command::Lanes(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Erase(command) => command.run(),
            Command::Buffer(command) => command.run(),
            Command::Destinations(command) => command.run(),
            Command::Pause(command) => command.run(),
            Command::Resume(command) => command.run(),
            Command::Quarantine(command) => command.run(),
            Command::Alerts(command) => command.run(),
            Command::Reload(command) => command.run(),
            Command::Status(command) => command.run(),
            Command::Top(command) => command.run(),
            Command::Healthcheck(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Demo(command) => command.run(),
        }
    }
}

/// For the admin API's tests: it is asked with the client that operators use.
#[cfg(test)]
pub(crate) mod testing {
    pub use super::client::Client;
    use super::client::ClientError;
    use super::failure::Failure;

    /// What the user is told.
    pub fn told(error: ClientError) -> String {
        Failure::from(error).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_usual_forms_are_understood() {
        for line in [
            "tidegate events list --route billing --state dead --since 2h --limit 10 -o json",
            "tidegate events ls --admin unix:/run/t.sock --utc",
            "tidegate events --admin 127.0.0.1:9900 show 0190b0c4-0000-7000-8000-000000000001 --body-only",
            "tidegate dead replay --all -q",
            "tidegate endpoints create --route partners --client acme -o json",
            "tidegate endpoints rotate --route partners --client acme --keep 7d",
            "tidegate endpoints revoke --route partners --client acme --yes",
            "tidegate dead purge --route billing --until 3d --yes",
            "tidegate quarantine list --route billing --reason signature_invalid --since 2h -o json",
            "tidegate quarantine re-verify --all -q",
            "tidegate quarantine admit 0190b0c4-0000-7000-8000-000000000001 --force",
            "tidegate events list --reason too_old --status 5xx --source 10.0.0.0/8 --key k --header x-a",
            "tidegate dead replay --all --to billing/new --rate 50 --dry-run",
            "tidegate events purge --until 3d --yes --background",
            "tidegate jobs ls",
            "tidegate lanes --destination billing/legacy --limit 10 -o json",
            "tidegate jobs pause 0190b0c4-0000-7000-8000-000000000001",
            "tidegate export --route billing --file all.tar",
            "tidegate import all.tar -q",
            "tidegate erase --route billing --pointer /data/email --equals a@example.com --dry-run",
            "tidegate erase --key evt_1 --yes",
            "tidegate buffer stats -o json",
            "tidegate buffer verify -v",
            "tidegate buffer compact -q",
            "tidegate status --output json -c tidegate.yaml",
            "tidegate reload --token-file token",
            "tidegate pause --route billing",
            "tidegate resume --route billing --destination legacy -o json",
            "tidegate healthcheck --timeout 1",
            "tidegate completions zsh",
            "tidegate destinations ls -o json",
            "tidegate destinations show billing/legacy --utc",
            "tidegate top --once -o json",
            "tidegate top --interval 500ms",
            "tidegate events tail --route billing --state dead -n 0 -q",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
        for line in [
            "tidegate dead list --state pending",
            "tidegate events list --since yesterday",
            "tidegate erase --route billing",
            "tidegate erase --pointer /data/email",
            "tidegate dead replay --all --rate 0",
            "tidegate events list -q -v",
            "tidegate healthcheck --timeout 0",
            "tidegate top --interval 0s",
            "tidegate destinations show",
            "tidegate events list -n 0",
            "tidegate quarantine list --limit 0",
            "tidegate status --admin https://x:1",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_command_prints_for_programs_too() {
        fn leaves(command: &clap::Command, path: &str, out: &mut Vec<(String, bool)>) {
            let path = format!("{path} {}", command.get_name());
            let mut inner = command.get_subcommands().filter(|one| one.get_name() != "help").peekable();
            if inner.peek().is_none() || !command.is_subcommand_required_set() {
                out.push((path.clone(), command.get_arguments().any(|arg| arg.get_id() == "output")));
            }
            inner.for_each(|one| leaves(one, &path, out));
        }
        let mut all = Vec::new();
        Cli::command().get_subcommands().for_each(|command| leaves(command, "", &mut all));
        let without: Vec<_> =
            all.iter().filter(|(_, json)| !json).map(|(path, _)| path.trim_start()).collect();
        // A server, a show for people, and what has one format of its own.
        assert_eq!(without, ["run", "schema", "providers page", "completions", "demo"]);
    }

    #[test]
    fn the_version_is_shown() {
        let error = Cli::try_parse_from(["tidegate", "--version"]).unwrap_err();
        assert_eq!(error.exit_code(), 0);
        assert!(error.to_string().contains(env!("CARGO_PKG_VERSION")));
    }
}
