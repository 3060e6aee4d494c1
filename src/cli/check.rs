//! `tidegate check`.

use std::process::ExitCode;

/// Check a config: every problem at once
#[derive(clap::Args, Debug)]
pub struct Check {}

impl Check {
    pub fn run(self) -> ExitCode {
        todo!("check")
    }
}
