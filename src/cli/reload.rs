//! `tidegate reload`.

use std::process::ExitCode;

/// Have the running gateway read its config again
#[derive(clap::Args, Debug)]
pub struct Reload {}

impl Reload {
    pub fn run(self) -> ExitCode {
        todo!("reload")
    }
}
