//! `tidegate events`.

use std::process::ExitCode;

/// List, show, replay and purge events
#[derive(clap::Args, Debug)]
pub struct Events {}

impl Events {
    pub fn run(self) -> ExitCode {
        todo!("events")
    }
}
