//! `tidegate demo`.

use std::process::ExitCode;

/// Run the gateway in front of a demonstration app and play real events through it
#[derive(clap::Args, Debug)]
pub struct Demo {}

impl Demo {
    pub fn run(self) -> ExitCode {
        todo!("demo")
    }
}
