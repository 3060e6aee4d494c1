//! The config: from YAML as written (`raw`, with positions) to what the program reads (`model`), checked once.
//!
//! Here live every key that a user can write, its default, its error texts and its JSON Schema. Deciding when to read
//! the files again is `gateway`'s. Carries promise 7 for config: errors give file, line, column, the key and what would
//! be right, all at once; and the start of promise 2: a missing secret or a broken rule is an error here.
//!
//! The way of a config: `source` reads the files, `yaml` makes a tree with positions, `shape` holds it against the
//! schema of `raw`, `check` makes the `model` and says what makes no sense. Faults found by one step do not hide those
//! of the next, but for the section or route that they are in.

mod check;
mod model;
mod order;
mod outside;
mod pace;
mod pack;
mod percent;
mod place;
mod problem;
mod raw;
mod references;
mod repeats;
mod schedule;
mod schema;
mod shape;
mod sign;
mod source;
mod units;
mod yaml;

use std::path::Path;
use std::sync::Arc;

pub use model::*;
pub use order::*;
pub use outside::Needed;
pub use pace::*;
pub use pack::load_pack;
pub use problem::{Problem, Problems};
pub use references::is_loopback;
pub use repeats::{EventKey, Idempotency};
pub use schedule::{Hours, Schedule};
pub use schema::schema;
pub use sign::*;

use outside::{Outside, Real};
use problem::{Report, sorted};

/// Reads and checks a config file (or every `*.yaml` of a folder, in the order of their names). `Err` holds everything
/// that is wrong.
pub fn load(path: &Path, keys: &dyn KeySources) -> Result<Loaded, Problems> {
    load_from(path, keys, &Real { needed: Needed::Everything })
}

/// The same for commands that only look at a config (`verify`, `routes`): remote keys are not fetched, and what is not
/// `needed` need not be here.
pub fn load_offline(path: &Path, needed: Needed) -> Result<Loaded, Problems> {
    load_from(path, &Unfetched, &Real { needed })
}

/// Everything that can be said of a config, as `tidegate check` does.
pub fn examine(path: &Path, needed: Needed) -> Examined {
    examine_from(path, &Unfetched, &Real { needed })
}

fn load_from(path: &Path, keys: &dyn KeySources, outside: &dyn Outside) -> Result<Loaded, Problems> {
    match examine_from(path, keys, outside) {
        Examined { config: Some(config), warnings, .. } => Ok(Loaded { config, warnings }),
        Examined { problems, .. } => Err(Problems(problems)),
    }
}

fn examine_from(path: &Path, keys: &dyn KeySources, outside: &dyn Outside) -> Examined {
    let source::Read { document, mut problems, mut warnings } = source::read(path);
    let mut config = None;
    if let Some(document) = document {
        let mut report = Report::new(&document);
        let shaped = shape::check(&mut report, schema::full());
        config = check::check(&mut report, &shaped, outside, keys);
        problems.extend(report.problems);
        warnings.extend(report.warnings);
    }
    Examined {
        config: config.filter(|_| problems.is_empty()),
        problems: sorted(problems),
        warnings: sorted(warnings),
    }
}

/// A config, if it may run, and what there is to say about it.
#[derive(Debug)]
pub struct Examined {
    /// `None` if there are problems.
    pub config: Option<Config>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// A config that may run, with what `check` would warn about.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

/// Gives the source of keys that are fetched; what is asked for in the same way has the same source across reloads.
pub trait KeySources {
    fn source(&self, remote: crate::verify::Remote) -> Arc<dyn crate::verify::KeySource>;
}

/// Remote keys for commands that only look at a config: nothing is fetched, so no key is ever known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfetched;

impl KeySources for Unfetched {
    fn source(&self, _: crate::verify::Remote) -> Arc<dyn crate::verify::KeySource> {
        Arc::new(crate::verify::NoKeys)
    }
}

#[cfg(test)]
mod tests;
