//! `tidegate routes`.

use std::process::ExitCode;

/// List routes, or explain which one a request would take
#[derive(clap::Args, Debug)]
pub struct Routes {}

impl Routes {
    pub fn run(self) -> ExitCode {
        todo!("routes")
    }
}
