//! `tidegate verify`.

use std::process::ExitCode;

/// Verify captured requests offline against a route
#[derive(clap::Args, Debug)]
pub struct Verify {}

impl Verify {
    pub fn run(self) -> ExitCode {
        todo!("verify")
    }
}
