//! `tidegate sign`.

use std::process::ExitCode;

/// Print the signed headers of a test event
#[derive(clap::Args, Debug)]
pub struct Sign {}

impl Sign {
    pub fn run(self) -> ExitCode {
        todo!("sign")
    }
}
