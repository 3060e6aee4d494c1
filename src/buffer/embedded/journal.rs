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
/// The engine's sequence numbers rise from batch to batch; its own work between two of ours takes a few at most. They
/// are not under a checksum, so a jump is damage.
const MAX_SEQNO_STEP: u64 = 1 << 20;

/// What the journals say.
#[derive(Debug, Default)]
pub(super) struct Journals {
    /// The oldest commit in them, and the last.
    pub(super) first: Option<CommitRecord>,
    pub(super) last: Option<CommitRecord>,
    /// The torn end of the newest journal: the file and where its good part ends.
    pub(super) torn: Option<(PathBuf, u64)>,
    /// The engine's sequence number of the last batch.
    seqno: Option<u64>,
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
        let scan = scan(path, seen.seqno).map_err(|source| Problem::Io { path: path.clone(), source })?;
        seen.seqno = scan.seqno;
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
    seqno: Option<u64>,
    tail: Tail,
}

/// A whole batch.
struct Batch {
    seqno: u64,
    commit: Option<CommitRecord>,
}

enum Tail {
    /// The readable part is followed by nothing but zeros (the space is reserved ahead) or the end.
    Clean,
    /// It is followed by something else; `later` are whole commits found behind it.
    Unreadable { from: u64, later: Vec<CommitRecord> },
}

fn scan(path: &Path, before: Option<u64>) -> io::Result<Scan> {
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path)?);
    let len = reader.get_ref().metadata()?.len();
    let mut found = Scan { commits: None, jump: None, seqno: before, tail: Tail::Clean };
    let mut good = 0;
    while let Some((size, Batch { seqno, commit })) = batch(&mut reader, len - good)? {
        if found.seqno.is_some_and(|before| seqno <= before || seqno - before > MAX_SEQNO_STEP) {
            break;
        }
        found.seqno = Some(seqno);
        good += size;
        let Some(commit) = commit else { continue };
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
    if !zeros(&mut reader, good)? {
        found.tail = Tail::Unreadable { from: good, later: later(&mut reader, good, len)? };
    }
    Ok(found)
}

/// Reads one batch of at most `limit` bytes, and its size. `None` if there is no whole one.
fn batch(reader: &mut BufReader<File>, limit: u64) -> io::Result<Option<(u64, Batch)>> {
    let mut input = Counted { inner: reader.take(limit), read: 0 };
    match input.batch() {
        Ok(batch) => Ok(Some((input.read, batch))),
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

    fn batch(&mut self) -> Result<Batch, Stop> {
        if self.array::<1>()? != [START] {
            return Err(Stop::End);
        }
        let items = u32::from_le_bytes(self.array()?);
        let seqno = u64::from_le_bytes(self.array()?);
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
        Ok(Batch { seqno, commit })
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
        if let Ok(Batch { commit: Some(commit), .. }) = input.batch() {
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

/// Where the batches of a journal begin, and where the last one ends.
#[cfg(test)]
pub(super) fn boundaries(path: &Path) -> Vec<u64> {
    let mut reader = BufReader::new(File::open(path).unwrap());
    let mut found = vec![0];
    while let Some((size, _)) = batch(&mut reader, u64::MAX).unwrap() {
        found.push(found.last().unwrap() + size);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as the engine writes it, with a commit record and a value.
    fn batch(commit: u64, synced: u64) -> Vec<u8> {
        let record = CommitRecord { commit, synced, ..CommitRecord::default() }.encode();
        let mut items = Vec::new();
        for (key, value) in [(&b"some key"[..], vec![b'x'; 20_000]), (keys::COMMIT, record)] {
            items.extend([ITEM, 0, 0]);
            items.extend(2u64.to_le_bytes());
            items.extend((key.len() as u16).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend((value.len() as u32).to_le_bytes());
            items.extend(key);
            items.extend(value);
        }
        let mut sum = Xxh3::new();
        sum.update(&items);
        let mut out = vec![START];
        out.extend(2u32.to_le_bytes());
        out.extend((100 + commit).to_le_bytes());
        out.extend(items);
        out.push(END);
        out.extend(sum.digest().to_le_bytes());
        out.extend(TRAILER);
        out
    }

    fn checked(journals: &[(u64, Vec<u8>)], witness: Option<u64>) -> Result<Journals, Problem> {
        let folder = tempfile::tempdir().unwrap();
        for (number, bytes) in journals {
            std::fs::write(folder.path().join(format!("{number}.jnl")), bytes).unwrap();
        }
        check(folder.path(), witness)
    }

    fn batches(commits: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        commits.flat_map(|commit| batch(commit, commit - 1)).collect()
    }

    #[test]
    fn whole_journals_are_read_to_their_reserved_end() {
        let mut newest = batches(4..=6);
        newest.extend(vec![0; 200_000]);
        let seen = checked(&[(0, batches(1..=3)), (1, newest)], Some(6)).unwrap();
        assert_eq!((seen.first.unwrap().commit, seen.last.unwrap().commit), (1, 6));
        assert!(seen.torn.is_none());
    }

    #[test]
    fn a_torn_end_that_nobody_knows_as_synced_may_go() {
        let mut torn = batches(1..=3);
        let good = torn.len() as u64;
        torn.extend(&batch(4, 3)[..5_000]);
        torn.extend(vec![0; 9_000]);
        let seen = checked(&[(7, torn.clone())], Some(3)).unwrap();
        assert_eq!(seen.torn.map(|t| t.1), Some(good));
        assert!(checked(&[(7, torn)], Some(4)).is_err(), "the witness knows it");
    }

    #[test]
    fn pages_that_reached_the_disk_out_of_order_are_no_damage() {
        // Commit 4 was not synced when 5 was written, and power went before 5 was.
        let mut torn = batches(1..=3);
        let mut hole = batch(4, 3);
        hole[4_096..8_192].fill(0);
        torn.extend(hole);
        torn.extend(batch(5, 3));
        assert!(checked(&[(0, torn.clone())], Some(3)).unwrap().torn.is_some());
        torn.extend(batch(6, 5));
        assert!(checked(&[(0, torn)], None).is_err(), "commit 6 knows 4 as synced");
    }

    #[test]
    fn a_journal_that_begins_unreadable_is_judged_by_what_follows() {
        let mut begun = batch(41, 40);
        begun[500] ^= 1;
        let seen = checked(&[(3, begun.clone())], Some(40)).unwrap();
        assert_eq!((seen.torn.map(|t| t.1), seen.acknowledged), (Some(0), Some(40)));
        begun.extend(batch(42, 41));
        assert!(checked(&[(3, begun)], None).is_err());
    }

    #[test]
    fn a_missing_journal_is_named() {
        let gone = checked(&[(0, batches(1..=2)), (2, batches(5..=6))], None).unwrap_err().to_string();
        assert!(gone.contains("1.jnl"), "{gone}");
        let jump = checked(&[(0, batches(1..=2)), (1, batches(5..=6))], None).unwrap_err().to_string();
        assert!(jump.contains("commit 5 follows commit 2"), "{jump}");
        let none = checked(&[], None).unwrap_err().to_string();
        assert!(none.contains("no journal"), "{none}");
    }

    #[test]
    fn a_sequence_number_that_jumps_is_damage() {
        let mut bytes = batches(1..=2);
        let from = bytes.len();
        bytes.extend(batches(3..=4));
        for bit in [0, 1, 2, 22, 40, 63] {
            let mut flipped = bytes.clone();
            flipped[from + 5 + bit / 8] ^= 1 << (bit % 8);
            assert!(checked(&[(0, flipped)], None).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn any_single_flip_in_what_was_acknowledged_is_seen() {
        let whole = batches(1..=3);
        // Every byte of the heads and tails, and some of the long values.
        for at in (0..whole.len()).filter(|at| at % 997 == 0 || at % 20_100 < 120) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            let checked = checked(&[(0, flipped)], Some(3));
            let last_seqno = (whole.len() / 3 * 2 + 5..whole.len() / 3 * 2 + 13).contains(&at);
            assert!(checked.is_err() || last_seqno, "byte {at}");
        }
    }
}
