//! The witness: a small file beside the store that knows the last commit which was acknowledged.
//!
//! The store alone can't tell a journal that ends because the process ended from one that was cut, emptied or deleted
//! afterwards: its engine takes the end of what it can read for the end of what was written. The witness is written
//! after each synced group, in place, and never synced itself. After a crash of the process it is exact; after a power
//! loss it may be behind; it is never ahead of what was synced. So a store that ends before its witness has lost
//! something acknowledged, and opening it would hide that.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"TGWITN\0\x01";
const LEN: usize = 24;

#[derive(Debug)]
pub(super) struct Witness {
    file: File,
}

impl Witness {
    pub(super) fn create(path: &Path, commit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let witness = Self { file };
        witness.write(commit)?;
        witness.file.sync_all()?;
        Ok(witness)
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).open(path)? })
    }

    /// What the file says; `None` if it is missing or was not written whole.
    pub(super) fn read(path: &Path) -> io::Result<Option<u64>> {
        let mut bytes = Vec::with_capacity(LEN);
        match File::open(path) {
            Ok(file) => file.take(LEN as u64 + 1).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(decode(&bytes))
    }

    pub(super) fn write(&self, commit: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(commit), 0)
    }
}

fn encode(commit: u64) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&commit.to_be_bytes());
    let sum = xxh3_64(&bytes[..16]);
    bytes[16..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let commit = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == encode(commit)).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        assert_eq!(Witness::read(&path).unwrap(), None);
        let witness = Witness::create(&path, 1).unwrap();
        witness.write(u64::MAX).unwrap();
        assert_eq!(Witness::read(&path).unwrap(), Some(u64::MAX));
    }

    #[test]
    fn a_torn_witness_says_nothing() {
        let mut bytes = encode(5);
        bytes[15] ^= 1;
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&bytes[..20]), None);
        assert_eq!(decode(b""), None);
    }
}
