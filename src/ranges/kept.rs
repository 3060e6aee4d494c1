//! The last good list of each provider on disk: `ranges/NAME-HASH.json` in the buffer's folder.
//!
//! A file is replaced as a whole (written beside it, synced, renamed), so that a crash leaves the old one or the new
//! one. One that can't be read is as good as none: the pack's snapshot takes its place.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::providers::ranges::{MAX_RANGES, range};

const VERSION: u32 = 1;
/// Far more than [`MAX_RANGES`] ranges take.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A list as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub ranges: Vec<IpNet>,
    pub fetched_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// Where it was fetched: another address of the same provider is another list.
    list: String,
    fetched_at_ms: u64,
    ranges: Vec<String>,
    /// Of all that stands above.
    sha256: String,
}

/// The file of one list.
#[derive(Clone, Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    list: String,
}

impl KeptFile {
    pub fn new(folder: &Path, provider: &str, list: &str) -> Self {
        let hash = hex::encode(&Sha256::digest(list)[..4]);
        Self { path: folder.join(format!("{provider}-{hash}.json")), list: list.to_owned() }
    }

    /// `None` if there is no file; the error says what is wrong with the one that there is.
    pub fn read(&self) -> Result<Option<Kept>, String> {
        let mut text = String::new();
        let read = File::open(&self.path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => self.parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
        .map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn parse(&self, text: &str) -> Result<Kept, String> {
        let stored: Stored = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if stored.version != VERSION {
            return Err(format!("version {} is not known", stored.version));
        }
        if stored.sha256 != digest(&stored) {
            return Err("the file is damaged: its digest differs".into());
        }
        if stored.list != self.list {
            return Err(format!("it is the list of {}", stored.list));
        }
        let ranges: Result<Vec<IpNet>, _> = stored.ranges.iter().map(|text| range(text)).collect();
        let ranges = ranges.map_err(|error| error.to_string())?;
        if ranges.is_empty() || ranges.len() > MAX_RANGES {
            return Err(format!("it holds {} ranges", ranges.len()));
        }
        Ok(Kept { ranges, fetched_at: Timestamp(stored.fetched_at_ms) })
    }

    /// Replaces the file; durable on return.
    pub fn write(&self, kept: &Kept) -> io::Result<()> {
        let mut stored = Stored {
            version: VERSION,
            list: self.list.clone(),
            fetched_at_ms: kept.fetched_at.as_millis(),
            ranges: kept.ranges.iter().map(ToString::to_string).collect(),
            sha256: String::new(),
        };
        stored.sha256 = digest(&stored);
        let text = serde_json::to_vec_pretty(&stored)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn digest(stored: &Stored) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n{}\n", stored.version, stored.list, stored.fetched_at_ms));
    for range in &stored.ranges {
        hash.update(range);
        hash.update("\n");
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "https://acme.example/ips.json";

    fn kept() -> Kept {
        let ranges = ["10.0.0.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap()).to_vec();
        Kept { ranges, fetched_at: Timestamp(1_700_000_000_000) }
    }

    #[test]
    fn what_is_written_is_read_back_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeptFile::new(&folder.path().join("ranges"), "acme", LIST);
        assert_eq!(file.read(), Ok(None));
        file.write(&kept()).unwrap();
        assert_eq!(file.read(), Ok(Some(kept())));
        let newer = Kept { fetched_at: Timestamp(1_800_000_000_000), ..kept() };
        file.write(&newer).unwrap();
        assert_eq!(file.read(), Ok(Some(newer)));
        assert_eq!(fs::read_dir(folder.path().join("ranges")).unwrap().count(), 1);
    }

    #[test]
    fn lists_of_two_addresses_never_meet() {
        let folder = tempfile::tempdir().unwrap();
        KeptFile::new(folder.path(), "acme", LIST).write(&kept()).unwrap();
        assert_eq!(KeptFile::new(folder.path(), "acme", "https://other.example/").read(), Ok(None));
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeptFile::new(folder.path(), "acme", LIST);
        file.write(&kept()).unwrap();
        let good = fs::read(&file.path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&file.path, &bad).unwrap();
            assert!(file.read().is_err(), "byte {at}");
            fs::write(&file.path, &good[..at]).unwrap();
            assert!(file.read().is_err(), "cut off at {at}");
        }
        fs::write(&file.path, [0xff; 16]).unwrap();
        assert!(file.read().unwrap_err().contains("acme-"));
    }
}
