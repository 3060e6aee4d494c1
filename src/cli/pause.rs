//! `tidegate pause` and `tidegate resume`.

use std::process::ExitCode;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, harmless, print, print_json};
use crate::admin::views::{PauseChanged, PauseOf};

/// Hold the deliveries of a route or destination
///
/// Events are taken and kept as ever, and what is in flight is finished. The pause survives restarts; `tidegate resume`
/// with the same words ends it. Inline routes (`proxy`, `pass`) answer 503 meanwhile.
#[derive(clap::Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    of: Of,
}

/// End a pause
#[derive(clap::Args, Debug)]
pub struct Resume {
    #[command(flatten)]
    of: Of,
}

#[derive(clap::Args, Debug)]
struct Of {
    /// The route
    #[arg(long, value_name = "NAME")]
    route: String,

    /// Only this destination of it
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,

    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Pause {
    pub fn run(self) -> ExitCode {
        exit(self.of.change("/pause", "paused", "was paused already"))
    }
}

impl Resume {
    pub fn run(self) -> ExitCode {
        exit(self.of.change("/resume", "resumed", "was not paused by this name"))
    }
}

impl Of {
    fn change(&self, path: &str, done: &str, already: &str) -> Result<ExitCode, Failure> {
        // `route/destination` as it stands in listings is understood too.
        let route = format!("{}/", self.route);
        let destination =
            self.destination.as_ref().map(|name| name.strip_prefix(&route).unwrap_or(name).to_owned());
        let body = PauseOf { route: self.route.clone(), destination };
        let changed: PauseChanged = Client::new(&self.admin, PATIENCE)?.post(path, Some(&body))?;
        match self.output.output {
            Format::Json => print_json(&changed)?,
            Format::Table if self.output.quiet => {}
            Format::Table => {
                let what = if changed.changed { done } else { already };
                print(&format!("{} {what}\n", harmless(&changed.name)))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
