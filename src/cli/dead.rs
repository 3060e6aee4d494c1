//! `tidegate dead`.

use std::process::ExitCode;

/// List, show, replay and purge dead letters
#[derive(clap::Args, Debug)]
pub struct Dead {}

impl Dead {
    pub fn run(self) -> ExitCode {
        todo!("dead")
    }
}
