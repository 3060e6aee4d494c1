//! The engine's keyspaces behind typed reads. Writes go through the committer's batches alone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::compaction::filter::Factory;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, UserValue,
};

use super::super::{BufferError, ClaimKey, Claimed, EventId, Job};
use super::codec::{self, CommitRecord, QueueEntry, Record, StoredEvent};
use super::filter::Filter;
use super::keys;
use super::scrub::Scrub;
use super::wire::Malformed;
use crate::seal::{Keyring, Kind, LiveKeyring};

/// Events of at least this many bytes are kept out of the tree, so that compaction does not write them again.
const BLOB_THRESHOLD: u32 = 1024;
/// Write buffer of the small records, in bytes. Claims come in no order, so each flush is merged with all of the first
/// level before long: fewer, larger ones save most of that work.
const INDEX_MEMTABLE: u64 = 16 * 1024 * 1024;
/// Cache of table blocks, in bytes.
const BLOCK_CACHE: u64 = 32 * 1024 * 1024;
/// Journals beyond this many bytes make the engine flush what holds the oldest back: the least it takes, so that a
/// full one goes soon.
const JOURNALS: u64 = 64 * 1024 * 1024;
/// Flushing and compaction. One alone would let a long compaction hold up flushing, and with it commits. Of several, the
/// engine's first never compacts and puts such work back into its queue for the others: if they are all busy it does
/// so again and again, as fast as it can. With two others that is rare.
const WORKERS: usize = 3;
/// Blob files are the unit of garbage collection: small ones give space back sooner.
const BLOB_FILE: u64 = 32 * 1024 * 1024;

pub(super) struct Store {
    pub(super) db: Database,
    pub(super) events: Keyspace,
    pub(super) index: Keyspace,
    /// Shared with whoever asks without a look at the store.
    pub(super) claims: Arc<Filter>,
    pub(super) scrub: Arc<Scrub>,
    /// What is sealed, and how it opens.
    pub(super) keys: LiveKeyring,
    folder: PathBuf,
}

impl Store {
    pub(super) fn open(folder: &Path, memtable: u64, keys: Keyring) -> fjall::Result<Self> {
        let scrub = Arc::new(Scrub::default());
        let filter = Arc::clone(&scrub);
        let db = Database::builder(folder)
            .with_compaction_filter_factories(Arc::new(move |keyspace| match keyspace {
                "events" => Some(Arc::clone(&filter) as Arc<dyn Factory>),
                _ => None,
            }))
            .cache_size(BLOCK_CACHE)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNALS)
            .worker_threads(WORKERS)
            .open()?;
        let events = db.keyspace("events", || {
            KeyspaceCreateOptions::default().max_memtable_size(memtable.max(1024 * 1024)).with_kv_separation(
                Some(
                    KvSeparationOptions::default()
                        .separation_threshold(BLOB_THRESHOLD)
                        .file_target_size(BLOB_FILE),
                ),
            )
        })?;
        let index =
            db.keyspace("index", || KeyspaceCreateOptions::default().max_memtable_size(INDEX_MEMTABLE))?;
        Ok(Self {
            db,
            events,
            index,
            claims: Arc::default(),
            scrub,
            keys: LiveKeyring::new(keys),
            folder: folder.into(),
        })
    }

    pub(super) fn event(&self, id: EventId) -> Result<Option<StoredEvent>, BufferError> {
        let Some(record) = self.events.get(id.0).map_err(|e| self.failed("events", id, e))? else {
            return Ok(None);
        };
        codec::decode_event(id, &record, &self.keys.now())
            .map(Some)
            .map_err(|e| self.malformed("event", id, e))
    }

    /// An event as it is stored.
    pub(super) fn raw_event(&self, id: EventId) -> Result<Option<UserValue>, BufferError> {
        self.events.get(id.0).map_err(|e| self.failed("events", id, e))
    }

    pub(super) fn delivery(&self, id: EventId, destination: u32) -> Result<Option<Record>, BufferError> {
        let value = self.get(&keys::delivery(id, destination))?;
        let opened = |v: UserValue| Record::open(id, destination, &v, &self.keys.now());
        value.map(|v| opened(v).map_err(|e| self.malformed("delivery", id, e))).transpose()
    }

    /// All delivery records of an event, by destination.
    pub(super) fn deliveries(&self, id: EventId) -> Result<Vec<(u32, Record)>, BufferError> {
        let ring = self.keys.now();
        self.index
            .prefix(keys::deliveries(id))
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(|e| self.failed("index", id, e))?;
                let destination =
                    keys::u32_at(&key, 17).ok_or_else(|| self.malformed("delivery", id, Malformed("key")))?;
                let record = Record::open(id, destination, &value, &ring);
                Ok((destination, record.map_err(|e| self.malformed("delivery", id, e))?))
            })
            .collect()
    }

    /// The claim of `key` if it stands at `now`.
    pub(super) fn standing(&self, key: ClaimKey, now: u64) -> Result<Option<Claimed>, BufferError> {
        if !self.claims.may_stand(key, now) {
            return Ok(None);
        }
        Ok(self.claim(key)?.filter(|claim| claim.expires_at.0 > now))
    }

    /// Makes the claims of earlier processes known to the filter, until told to stop.
    pub(super) fn know_claims(&self, now: u64, stop: impl Fn() -> bool) -> Result<(), BufferError> {
        for entry in self.scan(keys::time_floor(b'X', now), vec![b'X' + 1]) {
            if stop() {
                return Ok(());
            }
            let (key, value) = entry?;
            if let Some((at, claims)) = keys::split_expiry(&key, &value)
                && at > now
            {
                claims.into_iter().for_each(|claim| self.claims.insert(claim, at, now));
            }
        }
        self.claims.complete();
        Ok(())
    }

    pub(super) fn claim(&self, key: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        let value = self.get(&keys::claim(key))?;
        let opened = |v: UserValue| codec::open_claim(key, &v, &self.keys.now());
        value
            .map(|v| opened(v).map(|stored| stored.claimed).map_err(|e| self.malformed("claim", "", e)))
            .transpose()
    }

    /// All jobs; one that can't be read is left out.
    pub(super) fn jobs(&self) -> Result<Vec<Job>, BufferError> {
        let (mut jobs, ring) = (Vec::new(), self.keys.now());
        for entry in self.scan(keys::job(EventId([0; 16])), vec![b'J' + 1]) {
            let (key, value) = entry?;
            let name = key.get(1..).unwrap_or_default();
            let job = ring.open(Kind::Job, name, &value).map_err(|e| e.to_string());
            match job.and_then(|job| serde_json::from_slice(&job).map_err(|e| e.to_string())) {
                Ok(job) => jobs.push(job),
                Err(error) => tracing::error!(%error, "a job can't be read and is left out"),
            }
        }
        Ok(jobs)
    }

    pub(super) fn commit(&self) -> Result<Option<CommitRecord>, BufferError> {
        let value = self.get(keys::COMMIT)?;
        value.map(|v| CommitRecord::decode(&v).map_err(|e| self.malformed("commit", "", e))).transpose()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<UserValue>, BufferError> {
        self.index.get(key).map_err(|e| self.failed("index", "", e))
    }

    /// Entries of the index from `from` on (inclusive) up to `to` (exclusive), as keys and values.
    pub(super) fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl DoubleEndedIterator<Item = Result<(fjall::UserKey, UserValue), BufferError>> + '_ {
        // An empty range is no error, but the engine's ordered map would take it for one.
        let range = if from <= to { from..to } else { to.clone()..to };
        self.index.range(range).map(|entry| entry.into_inner().map_err(|e| self.failed("index", "", e)))
    }

    /// Queue entries from `from` on up to `to`: the key's numbers behind the destination, and the entry.
    pub(super) fn queue(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
    ) -> impl Iterator<Item = Result<(fjall::UserKey, QueueEntry), BufferError>> + '_ {
        self.scan(from, to).map(|entry| {
            let (key, value) = entry?;
            let entry = QueueEntry::decode(&value).map_err(|e| self.malformed("queue entry", "", e))?;
            Ok((key, entry))
        })
    }

    /// The commit as of which a keyspace stands in its tables, whatever the journals add: `(events, index)`.
    /// `None` if nothing is in tables yet.
    pub(super) fn persisted(&self) -> Result<(Option<u64>, Option<u64>), BufferError> {
        let as_of = |keyspace: &Keyspace, key: &[u8]| {
            let Some(seqno) = keyspace.tree.get_highest_persisted_seqno() else { return Ok(None) };
            keyspace.tree.get(key, seqno + 1).map_err(|e| self.failed(keyspace.name(), "", e.into()))
        };
        let events = as_of(&self.events, keys::MARK)?.and_then(|v| keys::u64_at(&v, 0));
        let index = match as_of(&self.index, keys::COMMIT)? {
            Some(value) => {
                Some(CommitRecord::decode(&value).map_err(|e| self.malformed("commit", "", e))?.commit)
            }
            None => None,
        };
        Ok((events, index))
    }

    /// The last commit that touched `events`, as it says itself.
    pub(super) fn events_mark(&self) -> Result<u64, BufferError> {
        let value = self.events.get(keys::MARK).map_err(|e| self.failed("events", "", e))?;
        Ok(value.and_then(|v| keys::u64_at(&v, 0)).unwrap_or(0))
    }

    /// What the store takes on disk: `(all of it, all that is held)`, see `Space`. Journals are reserved ahead, so what
    /// they really take is asked from the file system.
    pub(super) fn used_bytes(&self) -> std::io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let (mut journals, mut newest) = (0, (0, 0));
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "jnl") {
                continue;
            }
            let number: u64 = path.file_stem().and_then(|s| s.to_str()?.parse().ok()).unwrap_or(0);
            match std::fs::metadata(&path) {
                Ok(metadata) => {
                    let bytes = metadata.blocks() * 512;
                    journals += bytes;
                    newest = newest.max((number, bytes));
                }
                // A journal may be let go while we look.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let tables = self.events.disk_space() + self.index.disk_space();
        let used = tables + journals;
        Ok((used, used.saturating_sub(newest.1) + self.db.write_buffer_size()))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn failed(
        &self,
        part: &str,
        what: impl std::fmt::Display,
        error: fjall::Error,
    ) -> BufferError {
        use fjall::{Error, LsmError};
        let text = format!("{}: {part} {what}: {error}", self.folder.display());
        match error {
            // What refers to bytes behind a file's end is damaged itself.
            Error::Io(e) | Error::Storage(LsmError::Io(e)) if e.kind() == ErrorKind::UnexpectedEof => {
                BufferError::Damaged(text)
            }
            Error::Io(_) | Error::Poisoned | Error::Storage(LsmError::Io(_)) => BufferError::Failed(text),
            _ => BufferError::Damaged(text),
        }
    }
    pub(super) fn malformed(
        &self,
        part: &str,
        what: impl std::fmt::Display,
        error: Malformed,
    ) -> BufferError {
        BufferError::Damaged(format!("{}: {part} {what}: {error}", self.folder.display()))
    }
}
