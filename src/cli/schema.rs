//! `tidegate schema`.

use std::process::ExitCode;

/// Print the JSON Schema of the config
#[derive(clap::Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> ExitCode {
        todo!("schema")
    }
}
