//! `tidegate completions`.

use std::process::ExitCode;

/// Print shell completions
#[derive(clap::Args, Debug)]
pub struct Completions {}

impl Completions {
    pub fn run(self) -> ExitCode {
        todo!("completions")
    }
}
