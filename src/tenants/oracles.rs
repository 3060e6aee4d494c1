//! What greetings sign that are answered with a tenant's secret, for rules with a secret out of the same file: on
//! another route, too, none of them may take such a signature for that of an event.
//!
//! A file counts as the same if its path is. The same secret in two files is two secrets here, except on one route, where a
//! rule always knows of its own greetings.

use std::path::{Component, Path, PathBuf};

use parking_lot::RwLock;

use super::Reference;
use crate::secret::Secret;
use crate::verify::Signable;
use crate::verify::handshake::Oracle;

/// Those of one config. Complete once the config is read.
#[derive(Debug, Default)]
pub struct Oracles(RwLock<Vec<(Vec<Reference>, Oracle)>>);

impl Oracles {
    /// Adds a greeting that is answered with a secret out of one of `files`, below `base`.
    pub fn add(&self, files: &[Reference], base: &Path, oracle: Oracle) {
        let whole = |file: &Reference| file.normal(base);
        self.0.write().push((files.iter().filter_map(whole).collect(), oracle));
    }

    /// Adds to `into` whatever is signed with a secret, if `file` is where the greeting's stands.
    pub fn note(&self, file: &Path, secret: &Secret, into: &Signable) {
        let known = self.0.read();
        if known.is_empty() {
            return;
        }
        let file = normal(file);
        let Some(file) = file.to_str() else { return };
        for (files, oracle) in &*known {
            if files.iter().any(|one| one.could_be(file)) {
                oracle.note(secret, into);
            }
        }
    }
}

/// Without `.` and `..`, as far as the text tells.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    normal.push(part);
                }
            }
            part => normal.push(part),
        }
    }
    normal
}
