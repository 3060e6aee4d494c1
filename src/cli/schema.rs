//! `tidegate schema`.

use std::process::ExitCode;

use super::check::print;
use crate::config;

/// Print the JSON Schema of the config
#[derive(clap::Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> ExitCode {
        print(&format!("{:#}\n", config::schema()));
        ExitCode::SUCCESS
    }
}
