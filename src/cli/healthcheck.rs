//! `tidegate healthcheck`.

use std::process::ExitCode;

/// Exit 0 if the running gateway is ready
#[derive(clap::Args, Debug)]
pub struct Healthcheck {}

impl Healthcheck {
    pub fn run(self) -> ExitCode {
        todo!("healthcheck")
    }
}
