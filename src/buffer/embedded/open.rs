//! Opening and making a store: one process at a time, never a silent reset.
//!
//! The folder of a buffer holds `tidegate.lock` (held and naming the process as long as it runs), `tidegate.format`
//! (written last when a store is made, so what has it is complete), `tidegate.witness` (see `witness.rs`, written first)
//! and `store/` (the engine's own). The engine repairs what it finds in ways that hide losses: it takes the readable part of a
//! journal for all of it, and deletes a keyspace whose manifest pointer is gone. So everything is looked at before the
//! engine may touch it, and compared again once it is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::PersistMode;

use super::codec::CommitRecord;
use super::journal::{self, Problem};
use super::sealing::{self, Seals};
use super::store::Store;
use super::witness::Witness;
use super::{OpenError, keys};
use crate::config::BufferSettings;
use crate::seal::Keyring;

/// The version of everything in `store/` that is ours. Whatever a version before would not read as it is meant raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Its records are read as they are, but small ones stand in the clear beside sealed events: opening has them
    /// sealed, and makes it format 2.
    One = 1,
    /// Lanes, retention of routes' own, answers of claims and error texts sealed.
    Two = 2,
}

impl Format {
    const NOW: Self = Format::Two;

    fn text(self) -> String {
        format!("{FORMAT_WORDS}{}\n", self as u32)
    }
}

/// Write buffer of the store where nothing is written.
const MEMTABLE: u64 = 1024 * 1024;
const FORMAT_WORDS: &str = "tidegate buffer, format ";
/// The number of the commit that makes a store.
pub(super) const FIRST_COMMIT: u64 = 1;

/// A store that may be used, and what it takes to go on with it.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) commit: CommitRecord,
    pub(super) seals: Seals,
    pub(super) witness: Witness,
    pub(super) lock: Lock,
}

/// Held for the life of the process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

struct Files {
    folder: PathBuf,
    lock: PathBuf,
    format: PathBuf,
    witness: PathBuf,
    store: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            lock: folder.join("tidegate.lock"),
            format: folder.join("tidegate.format"),
            witness: folder.join("tidegate.witness"),
            store: folder.join("store"),
        }
    }
}

pub(super) fn open(settings: &BufferSettings) -> Result<Opened, OpenError> {
    let files = Files::of(&settings.path);
    make_folder(&files.folder)?;
    let lock = lock(&files.lock)?;
    let witnessed = Witness::read(&files.witness).map_err(|e| of_file(&files.witness, e))?;
    let format = match (exists(&files.format)?, exists(&files.store)?) {
        (true, true) => check_format(&files.format)?,
        (true, false) => {
            check_format(&files.format)?;
            return Err(damaged(&files.store, "this folder is missing"));
        }
        // Nothing can have been accepted before the format was written.
        (false, false) if witnessed.is_none_or(|commit| commit == FIRST_COMMIT) => {
            return make(&files, settings, lock);
        }
        (false, false) => {
            return Err(damaged(&files.store, "this folder is missing, but its witness is here"));
        }
        (false, true) if witnessed == Some(FIRST_COMMIT) => {
            std::fs::remove_dir_all(&files.store).map_err(|e| of_file(&files.store, e))?;
            return make(&files, settings, lock);
        }
        (false, true) => return Err(damaged(&files.format, "this file is missing")),
    };
    if witnessed.is_none() {
        tracing::warn!(
            file = %files.witness.display(),
            "the buffer's witness is missing or torn: a journal that was cut short can't be noticed this time"
        );
    }
    let (store, mut commit) = open_checked(&files, settings.memtable, &settings.encryption, witnessed)?;
    let seals = sealing::take_up(&store, &mut commit, format)?;
    if format != Format::NOW {
        // Before anything is written that the version before does not know.
        write_synced(&files.format, Format::NOW.text().as_bytes())?;
        tracing::info!(
            from = format as u32,
            to = Format::NOW as u32,
            "the buffer was upgraded: versions of tidegate that know only the old format refuse it now"
        );
    }
    let witness = match witnessed {
        Some(_) => Witness::open(&files.witness),
        None => Witness::create(&files.witness, commit.commit),
    };
    let witness = witness.map_err(|e| of_file(&files.witness, e))?;
    // What was read is on disk once the engine has opened (it syncs the journal), so it counts as acknowledged now.
    witness.write(commit.commit).map_err(|e| of_file(&files.witness, e))?;
    Ok(Opened { store, commit, seals, witness, lock })
}

/// A store that is there, looked at before the engine may touch it and after.
fn open_checked(
    files: &Files,
    memtable: u64,
    keys: &Keyring,
    witnessed: Option<u64>,
) -> Result<(Store, CommitRecord), OpenError> {
    check_engine_files(&files.store)?;
    let journals = journal::check(&files.store, witnessed).map_err(of_journal)?;
    if let Some((path, good)) = &journals.torn {
        tracing::info!(
            journal = %path.display(),
            from = good,
            "cutting off the torn end of a write that was never acknowledged"
        );
        journal::mend(path, *good).map_err(|e| of_file(path, e))?;
    }
    let store = open_engine(&files.store, memtable, keys)?;
    let commit = check_opened(&store, &files.store, &journals)?;
    Ok((store, commit))
}

/// One that no gateway has open, to be read only: nothing is taken up, upgraded or made. What the engine does to open it
/// (it mends the torn end of a write that was never acknowledged) happens here, too.
pub(super) fn open_to_read(folder: &Path, keys: &Keyring) -> Result<(Store, CommitRecord, Lock), OpenError> {
    let files = Files::of(folder);
    if !exists(&files.format)? {
        return Err(OpenError::NoBuffer { path: text(&files.folder) });
    }
    let lock = lock(&files.lock)?;
    check_format(&files.format)?;
    if !exists(&files.store)? {
        return Err(damaged(&files.store, "this folder is missing"));
    }
    let witnessed = Witness::read(&files.witness).map_err(|e| of_file(&files.witness, e))?;
    let (store, commit) = open_checked(&files, MEMTABLE, keys, witnessed)?;
    sealing::check_keys(&store, &commit)?;
    Ok((store, commit, lock))
}

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(OpenError::NotAFolder { path: text(folder) }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // Events hold what senders trust us with, their credentials too: nobody else on this machine reads them.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| of_file(folder, e))
        }
        Err(e) => Err(of_file(folder, e)),
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| of_file(path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let pid = (&file).take(20).read_to_string(&mut holder).ok();
            return Err(OpenError::Locked {
                path: text(path.parent().unwrap_or(path)),
                pid: pid.and_then(|_| holder.trim().parse().ok()),
            });
        }
        Err(TryLockError::Error(e)) => return Err(of_file(path, e)),
    }
    let told = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(|e| of_file(path, e))?;
    Ok(Lock { _file: file })
}

fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|e| of_file(path, e))
}

/// Makes an empty store. A crash on the way leaves no format, and a witness that says that nothing was accepted.
fn make(files: &Files, settings: &BufferSettings, lock: Lock) -> Result<Opened, OpenError> {
    let witness = Witness::create(&files.witness, FIRST_COMMIT).map_err(|e| of_file(&files.witness, e))?;
    sync_folder(&files.folder)?;
    let store = open_engine(&files.store, settings.memtable, &settings.encryption)?;
    let mut commit = CommitRecord { commit: FIRST_COMMIT, next_seq: 1, ..CommitRecord::default() };
    let mut batch = store.db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&store.index, keys::COMMIT, commit.encode());
    batch.commit().map_err(|e| engine(&files.store, &e))?;
    let seals = sealing::take_up(&store, &mut commit, Format::NOW)?;
    write_synced(&files.format, Format::NOW.text().as_bytes())?;
    witness.write(commit.commit).map_err(|e| of_file(&files.witness, e))?;
    Ok(Opened { store, commit, seals, witness, lock })
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let draft = path.with_extension("draft");
    let written = File::create(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|e| of_file(path, e))?;
    sync_folder(path.parent().unwrap_or(path))
}

fn sync_folder(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| of_file(path, e))
}

fn check_format(path: &Path) -> Result<Format, OpenError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(200).read_to_string(&mut text));
    match read {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(damaged(path, "this is not text")),
        Err(e) => return Err(of_file(path, e)),
        Ok(_) => {}
    }
    match text.strip_prefix(FORMAT_WORDS).and_then(|n| n.trim_end().parse::<u32>().ok()) {
        Some(1) => Ok(Format::One),
        Some(2) => Ok(Format::Two),
        Some(found) if found > Format::NOW as u32 => Err(OpenError::Newer {
            path: self::text(path.parent().unwrap_or(path)),
            found,
            known: Format::NOW as u32,
        }),
        _ => Err(damaged(path, "this is not the format file of a buffer")),
    }
}

/// The files without which the engine would begin anew, or throw a keyspace away.
fn check_engine_files(store: &Path) -> Result<(), OpenError> {
    let version = store.join("version");
    let mut bytes = Vec::new();
    match File::open(&version).and_then(|file| file.take(16).read_to_end(&mut bytes)) {
        Ok(_) if bytes == b"FJL\x03" => {}
        Ok(_) => return Err(damaged(&version, "this is not the version file of the engine (fjall 3)")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(damaged(&version, "this file is missing"));
        }
        Err(e) => return Err(of_file(&version, e)),
    }
    // 0 is the engine's own list of keyspaces, 1 and 2 are ours.
    for keyspace in 0..=2 {
        let folder = store.join("keyspaces").join(keyspace.to_string());
        for part in [folder.clone(), folder.join("current"), folder.join("tables")] {
            if !exists(&part)? {
                return Err(damaged(&part, "this is missing"));
            }
        }
    }
    Ok(())
}

/// The engine panics on some damage; that too is an error with a name.
fn open_engine(folder: &Path, memtable: u64, keys: &Keyring) -> Result<Store, OpenError> {
    match catch_unwind(AssertUnwindSafe(|| Store::open(folder, memtable, keys.clone()))) {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) => Err(engine(folder, &error)),
        Err(panic) => Err(damaged(folder, &format!("the engine gave up: {}", super::panic_text(&*panic)))),
    }
}

/// Does what was opened reach as far as what was acknowledged?
fn check_opened(
    store: &Store,
    folder: &Path,
    journals: &journal::Journals,
) -> Result<CommitRecord, OpenError> {
    let unreadable = |e: super::super::BufferError| damaged(folder, &e.to_string());
    let commit = store.commit().map_err(unreadable)?.ok_or_else(|| damaged(folder, "it holds no commit"))?;
    if let Some(acknowledged) = journals.acknowledged
        && commit.commit < acknowledged
    {
        return Err(damaged(
            folder,
            &format!("it ends with commit {}, but commit {acknowledged} was acknowledged", commit.commit),
        ));
    }
    let mark = store.events_mark().map_err(unreadable)?;
    if mark != commit.events_commit {
        return Err(damaged(
            folder,
            &format!("its events end with commit {mark}, its index says {}", commit.events_commit),
        ));
    }
    // What the journals don't hold must be in tables.
    let (events, index) = store.persisted().map_err(unreadable)?;
    if let Some(first) = journals.first
        && first.commit > FIRST_COMMIT
        && (index.unwrap_or(0) + 1 < first.commit || events.unwrap_or(0) < first.events_commit_before)
    {
        return Err(damaged(
            folder,
            &format!(
                "the oldest journal begins with commit {}, but the tables end with commit {} (events: {}): \
                 older journals are missing",
                first.commit,
                index.unwrap_or(0),
                events.unwrap_or(0)
            ),
        ));
    }
    Ok(commit)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn damaged(path: &Path, what: &str) -> OpenError {
    OpenError::Damaged { path: text(path), what: what.into() }
}

fn of_file(path: &Path, error: io::Error) -> OpenError {
    let path = text(path);
    match error.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Denied { path, what: error.to_string() },
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
        io::ErrorKind::NotADirectory => OpenError::NotAFolder { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenError::NoSpace { path },
        _ => OpenError::Io { path, source: error },
    }
}

fn of_journal(problem: Problem) -> OpenError {
    match problem {
        Problem::Damaged { path, what } => damaged(&path, &what),
        Problem::Io { path, source } => of_file(&path, source),
    }
}

pub(super) fn engine(folder: &Path, error: &fjall::Error) -> OpenError {
    use fjall::{Error, LsmError};
    match error {
        Error::Io(e) | Error::Storage(LsmError::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => {
            of_file(folder, io::Error::new(e.kind(), e.to_string()))
        }
        Error::Locked => OpenError::Locked { path: text(folder), pid: None },
        Error::InvalidVersion(found) => {
            damaged(folder, &format!("the engine does not know version {found:?}"))
        }
        other => damaged(folder, &format!("the engine can't read it: {other}")),
    }
}
