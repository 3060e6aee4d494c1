//! `tidegate send`.

use std::process::ExitCode;

/// Send a signed test event
#[derive(clap::Args, Debug)]
pub struct Send {}

impl Send {
    pub fn run(self) -> ExitCode {
        todo!("send")
    }
}
