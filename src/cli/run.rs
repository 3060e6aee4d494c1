//! `tidegate run`.

use std::process::ExitCode;

/// Run the gateway
#[derive(clap::Args, Debug)]
pub struct Run {}

impl Run {
    pub fn run(self) -> ExitCode {
        todo!("run")
    }
}
