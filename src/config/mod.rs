//! The config: from YAML as written (`raw`, with positions) to what the program reads (`model`), checked once.
//!
//! Here live every key that a user can write, its default, its error texts and its JSON Schema. Reading the files is
//! `load`; deciding when to read them again is `gateway`'s. Carries promise 7 for config: errors give file, line,
//! column, the key and what would be right, all at once.

mod model;

use std::path::Path;
use std::sync::Arc;

pub use model::*;

/// Reads and checks a config file (or every `*.yaml` of a folder). `Err` holds everything that is wrong.
pub fn load(path: &Path, keys: &dyn KeySources) -> Result<Loaded, Problems> {
    let _ = (path, keys);
    todo!("config")
}

/// A config that may run, with what `check` would warn about.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

/// Everything that is wrong, in file order. `Display` shows each as `file:line:column: message` with a snippet.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Problem {
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// The offending key, such as `routes[0].verify.tolerance`.
    pub key: String,
    pub message: String,
    /// What would be right, or what is likely meant.
    pub help: Option<String>,
    /// The source line with a caret, ready to print; empty if the file could not be read.
    pub snippet: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.key, self.message)
    }
}

/// Gives the source of a remote key set (`jwks: https://…`); the same URL gives the same source across reloads.
pub trait KeySources {
    fn jwks(&self, url: &http::Uri) -> Arc<dyn crate::verify::KeySource>;
}
