//! `tidegate schema`.

use std::process::ExitCode;

use super::failure::exit;
use super::output::print;
use crate::config;

/// Print the JSON Schema of the config
///
/// Editors complete and check with it: write it to a file beside the config, and as the config's first line
/// `# yaml-language-server: $schema=schema.json`.
#[derive(clap::Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn run(self) -> ExitCode {
        exit(print(&format!("{:#}\n", config::schema())).map(|()| ExitCode::SUCCESS))
    }
}
