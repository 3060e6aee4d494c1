//! Reads the engine's journals before the engine does, and changes nothing: are they whole?
//!
//! The engine (fjall 3.1) takes the first thing it can't read in a journal for its end and cuts the rest off, so a
//! flipped bit in the middle would make every later commit vanish; it skips a journal that is gone without a word;
//! and a batch whose pages reached the disk out of order in a power loss stops it with a checksum error, although
//! nothing acknowledged is in it. Here the three are told apart, by the commit record that each of our batches
//! carries: its number, and the last number that was known to be synced when it was written.
//!
//! - Behind the unreadable place stands a commit that knows a missing one as synced, or the witness does: damage.
//! - Otherwise it is the torn end of a write that was never acknowledged: it may be cut off ([`mend`]).
//! - Numbers don't follow each other, from journal to journal: one is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::codec::CommitRecord;
use super::keys;

/// Ends every batch (after its checksum).
const TRAILER: &[u8; 4] = b"FJL\x03";
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;

/// Longest commit record that is looked at; real ones have some 60 bytes.
const MAX_COMMIT_RECORD: u32 = 256;

/// What the journals say.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// The oldest commit in them, and the last.
    pub(super) first: Option<CommitRecord>,
    pub(super) last: Option<CommitRecord>,
    /// The torn end of the newest journal: the file and where its good part ends.
    pub(super) torn: Option<(PathBuf, u64)>,
    /// The highest commit that anything here, or the witness, knows as synced: the opened store must reach it.
    pub(super) acknowledged: Option<u64>,
}

/// Why the journals can't be those that were written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{}: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Problem {
    fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Problem::Damaged { path: path.into(), what: what.into() }
    }
}

/// Checks all journals in `folder` against each other and against the witness' commit.
pub(super) fn check(folder: &Path, witness: Option<u64>) -> Result<Journals, Problem> {
    let files = list(folder)?;
    let mut seen = Journals { acknowledged: witness, ..Journals::default() };
    let Some((newest, _)) = files.last() else {
        return Err(Problem::damaged(folder, "there is no journal (*.jnl) in it"));
    };
    let newest = *newest;
    for pair in files.windows(2) {
        if pair[1].0 != pair[0].0 + 1 {
            let missing = folder.join(format!("{}.jnl", pair[0].0 + 1));
            return Err(Problem::damaged(&missing, "this journal is missing"));
        }
    }
    for (number, path) in &files {
        let scan = scan(path).map_err(|source| Problem::Io { path: path.clone(), source })?;
        follow(&mut seen, &scan, path)?;
        if let Tail::Unreadable { from, later } = scan.tail {
            seen.acknowledged = seen.acknowledged.max(later.iter().map(|c| c.synced).max());
            judge(&seen, &later, path, from, witness)?;
            if *number == newest {
                seen.torn = Some((path.clone(), from));
            }
        }
    }
    if let (Some(last), Some(witness), Some((_, path))) = (seen.last, witness, files.last())
        && last.commit < witness
    {
        return Err(Problem::damaged(
            path,
            format!("it ends with commit {}, but commit {witness} was acknowledged", last.commit),
        ));
    }
    Ok(seen)
}

/// Cuts the torn end off: nothing in it was acknowledged.
pub(super) fn mend(path: &Path, good: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(good)?;
    file.sync_all()
}

fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Problem> {
    let io = |source| Problem::Io { path: folder.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "jnl") {
            let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            let number = number.ok_or_else(|| Problem::damaged(&path, "its name is not a number"))?;
            files.push((number, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn follow(seen: &mut Journals, scan: &Scan, path: &Path) -> Result<(), Problem> {
    let Some((first, last)) = scan.commits else { return Ok(()) };
    if let Some((before, next)) = scan.jump.or_else(|| {
        let before = seen.last?.commit;
        (first.commit != before + 1).then_some((before, first.commit))
    }) {
        return Err(Problem::damaged(path, format!("commit {next} follows commit {before}")));
    }
    seen.first.get_or_insert(first);
    seen.last = Some(last);
    seen.acknowledged = seen.acknowledged.max(Some(last.synced));
    Ok(())
}

fn judge(
    seen: &Journals,
    later: &[CommitRecord],
    path: &Path,
    from: u64,
    witness: Option<u64>,
) -> Result<(), Problem> {
    let synced = later.iter().map(|c| c.synced).max();
    let (missing, known) = match (seen.last, later.first()) {
        (Some(last), _) => (last.commit + 1, synced.max(witness)),
        // Nothing readable before it: the witness may mean commits of journals that are rightly gone, but the one just
        // before the first that is found must have stood here.
        (None, Some(found)) => (found.commit.saturating_sub(1), synced),
        (None, None) => return Ok(()),
    };
    match known {
        Some(known) if known >= missing => Err(Problem::damaged(
            path,
            format!("it can't be read from byte {from} on, and commits up to {known} were acknowledged"),
        )),
        _ => Ok(()),
    }
}

struct Scan {
    /// The first and last commit of the readable part.
    commits: Option<(CommitRecord, CommitRecord)>,
    /// Two neighbouring commits whose numbers don't follow each other.
    jump: Option<(u64, u64)>,
    tail: Tail,
}

enum Tail {
    /// The readable part is followed by nothing but zeros (the space is reserved ahead) or the end.
    Clean,
    /// It is followed by something else; `later` are whole commits found behind it.
    Unreadable { from: u64, later: Vec<CommitRecord> },
}

fn scan(path: &Path) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let len = reader.get_ref().metadata()?.len();
    let mut found = Scan { commits: None, jump: None, tail: Tail::Clean };
    let mut good = 0;
    loop {
        match batch(&mut reader, len - good)? {
            Some((size, commit)) => {
                good += size;
                if let Some(commit) = commit {
                    match &mut found.commits {
                        None => found.commits = Some((commit, commit)),
                        Some((_, last)) => {
                            if commit.commit != last.commit + 1 {
                                found.jump.get_or_insert((last.commit, commit.commit));
                            }
                            *last = commit;
                        }
                    }
                }
            }
            None => break,
        }
    }
    if !zeros(&mut reader, good)? {
        found.tail = Tail::Unreadable { from: good, later: later(&mut reader, good, len)? };
    }
    Ok(found)
}

/// Reads one batch of at most `limit` bytes: its size and its commit record. `None` if there is no whole one.
fn batch(reader: &mut BufReader<File>, limit: u64) -> io::Result<Option<(u64, Option<CommitRecord>)>> {
    let mut input = Counted { inner: reader.take(limit), read: 0 };
    match input.batch() {
        Ok(commit) => Ok(Some((input.read, commit))),
        Err(Stop::End) => Ok(None),
        Err(Stop::Io(e)) => Err(e),
    }
}

enum Stop {
    /// This is no batch, or not a whole one.
    End,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        if e.kind() == io::ErrorKind::UnexpectedEof { Stop::End } else { Stop::Io(e) }
    }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Counted<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.read += N as u64;
        Ok(bytes)
    }

    fn batch(&mut self) -> Result<Option<CommitRecord>, Stop> {
        if self.array::<1>()? != [START] {
            return Err(Stop::End);
        }
        let items = u32::from_le_bytes(self.array()?);
        let _seqno: [u8; 8] = self.array()?;
        let mut sum = Xxh3::new();
        let mut commit = None;
        for _ in 0..items {
            self.item(&mut sum, &mut commit)?;
        }
        if self.array::<1>()? != [END] {
            return Err(Stop::End);
        }
        let expected = u64::from_le_bytes(self.array()?);
        if self.array()? != *TRAILER || expected != sum.digest() {
            return Err(Stop::End);
        }
        Ok(commit)
    }

    /// tag, value type, compression, keyspace (8), key length (2), value length (4), stored length (4), key, value.
    fn item(&mut self, sum: &mut Xxh3, commit: &mut Option<CommitRecord>) -> Result<(), Stop> {
        let head: [u8; 21] = self.array()?;
        if head[0] != ITEM {
            return Err(Stop::End);
        }
        sum.update(&head);
        let key_len = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let stored_len = u32::from_le_bytes([head[17], head[18], head[19], head[20]]);
        let mut chunk = [0; 8 * 1024];
        let mut is_commit = key_len == keys::COMMIT.len() && stored_len <= MAX_COMMIT_RECORD;
        let mut left = key_len;
        while left > 0 {
            let part = left.min(chunk.len());
            self.fill(&mut chunk[..part], sum)?;
            is_commit &= chunk[..part] == *keys::COMMIT;
            left -= part;
        }
        let mut left = stored_len as usize;
        while left > 0 {
            let part = left.min(chunk.len());
            self.fill(&mut chunk[..part], sum)?;
            left -= part;
        }
        if is_commit {
            *commit = CommitRecord::decode(&chunk[..stored_len as usize]).ok();
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8], sum: &mut Xxh3) -> Result<(), Stop> {
        self.inner.read_exact(bytes)?;
        self.read += bytes.len() as u64;
        sum.update(bytes);
        Ok(())
    }
}

/// Whether nothing but zeros follows.
fn zeros(reader: &mut BufReader<File>, from: u64) -> io::Result<bool> {
    const CHUNK: usize = 64 * 1024;
    let zero = vec![0; CHUNK];
    let mut chunk = vec![0; CHUNK];
    reader.seek(SeekFrom::Start(from))?;
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            return Ok(true);
        }
        if chunk[..read] != zero[..read] {
            return Ok(false);
        }
    }
}

/// Whole commits behind `from`: a batch begins right behind the trailer of the one before.
fn later(reader: &mut BufReader<File>, from: u64, len: u64) -> io::Result<Vec<CommitRecord>> {
    let mut found = Vec::new();
    let mut bytes = Vec::new();
    reader.seek(SeekFrom::Start(from))?;
    // At most the size of one journal (64 MiB and what one group adds), and only after a crash or damage.
    reader.by_ref().take(len.saturating_sub(from)).read_to_end(&mut bytes)?;
    let mut at = 0;
    while let Some(place) = find(&bytes[at..], TRAILER) {
        at += place + TRAILER.len();
        let mut input = Counted { inner: &bytes[at..], read: 0 };
        if let Ok(Some(commit)) = input.batch() {
            found.push(commit);
        }
    }
    Ok(found)
}

fn find(haystack: &[u8], needle: &[u8; 4]) -> Option<usize> {
    let mut at = 0;
    while let Some(step) = haystack.get(at..)?.iter().position(|b| *b == needle[0]) {
        at += step;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}
