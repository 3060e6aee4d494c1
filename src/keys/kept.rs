//! The names of keys that have proved something, on disk: `keys/names.json` in the buffer's folder. After a restart they
//! are looked for without drawing from the budget of strangers. Names only: the keys themselves are fetched again.
//!
//! The file is replaced as a whole. One that can't be read is as good as none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// Far more than the names of a few sources take.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The names of all sources. Without a file ([`Names::open`]) they are only remembered.
#[derive(Debug, Default)]
pub(super) struct Names {
    file: Mutex<Option<PathBuf>>,
    of: Mutex<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// By the digest of the source's address.
    sources: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Takes what an earlier process has left, and keeps what comes there from now on. Reads a file.
    pub(super) fn open(&self, folder: &Path) {
        let path = folder.join("names.json");
        match read(&path) {
            Ok(before) => self.of.lock().extend(before),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "the names of known keys can't be read: they begin anew");
            }
        }
        *self.file.lock() = Some(path);
    }

    pub(super) fn of(&self, source: &str) -> Vec<String> {
        self.of.lock().get(source).cloned().unwrap_or_default()
    }

    pub(super) fn set(&self, source: &str, names: Vec<String>) {
        self.of.lock().insert(source.to_owned(), names);
    }

    /// Writes all of it, if there is a file. Not for a thread that serves.
    pub(super) fn write(&self) {
        // Held while writing: two at once would write the same file.
        let file = self.file.lock();
        let Some(path) = &*file else { return };
        let stored = Stored { version: VERSION, sources: self.of.lock().clone() };
        if let Err(error) = write(path, &stored) {
            tracing::warn!(%error, file = %path.display(), "the names of known keys can't be kept");
        }
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Vec<String>>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    let stored: Stored = serde_json::from_str(&text)?;
    match stored.version {
        VERSION => Ok(stored.sources),
        other => Err(io::Error::other(format!("version {other} is not known"))),
    }
}

fn write(path: &Path, stored: &Stored) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outlive_the_process_and_a_broken_file_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let names = Names::default();
        names.set("s", vec!["a".into()]);
        names.write();
        assert!(!keys.exists(), "there is no file to write to yet");
        names.open(&keys);
        names.set("s", vec!["a".into(), "b".into()]);
        names.write();
        let next = Names::default();
        next.open(&keys);
        assert_eq!((next.of("s"), next.of("other")), (vec!["a".to_owned(), "b".into()], Vec::new()));
        fs::write(keys.join("names.json"), "{\"version\":1,\"sources\":").unwrap();
        let broken = Names::default();
        broken.open(&keys);
        assert_eq!(broken.of("s"), Vec::<String>::new());
        broken.set("s", vec!["c".into()]);
        broken.write();
        next.open(&keys);
        assert_eq!(next.of("s"), ["c"]);
    }
}
