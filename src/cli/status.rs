//! `tidegate status`.

use std::process::ExitCode;

/// Show what the running gateway does
#[derive(clap::Args, Debug)]
pub struct Status {}

impl Status {
    pub fn run(self) -> ExitCode {
        todo!("status")
    }
}
