//! Makes sure that nothing of what was deleted is left in the store's files.
//!
//! A deleted event still stands in three places: in the journals until they are let go, in tables until they are
//! compacted, and in blob files, which the engine lets go once enough of them is garbage: a single event in one would
//! stay for as long as its neighbours do. So here the newest journal is filled up, which makes the engine begin a new
//! one; everything is flushed until the old ones are gone; and all events are written anew, slice by slice, so that
//! each old blob file is garbage altogether and goes.
//!
//! The engine keeps what a reader may still look at: a compaction leaves a deleted event in the new table for a reader
//! that began before, and a replaced file stays until the last version of the store that names it is forgotten, which
//! the engine looks after only when memory is flushed. So readers are waited for before and after, and it is done only
//! once not one of the files of before is there.
//!
//! Costs as much as the buffer is large, which is why only an erase and the end of sealing anew ask for it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use fjall::AbstractTree;
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use super::super::BufferError;
use super::Shared;
use super::flush::{self, LOOK, Patience};
use super::store::Store;

/// The engine begins a new journal when a flush finds more than 64 million bytes in it.
const JOURNAL: usize = 64_000_000;
/// Bytes of one write that fills it: a few milliseconds of the committer's time.
const FILL: usize = 1024 * 1024;
/// Bytes of events that are written anew at once: so much space is needed beside them.
const SLICE: u64 = 256 * 1024 * 1024;
type Slice = RangeInclusive<[u8; 16]>;

/// Which events the next compaction writes anew: none, but for a scrub.
#[derive(Debug, Default)]
pub(super) struct Scrub(Mutex<Option<Slice>>);

impl Scrub {
    fn set(&self, slice: Option<Slice>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = slice;
    }
}

impl Factory for Scrub {
    fn name(&self) -> &str {
        "scrub"
    }
    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Rewrite(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

struct Rewrite(Option<Slice>);

impl CompactionFilter for Rewrite {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let Some(slice) = &self.0 else { return Ok(Verdict::Keep) };
        let is_in = <[u8; 16]>::try_from(&**item.key()).is_ok_and(|key| slice.contains(&key));
        // What stands in a table itself is written anew anyway.
        if is_in && item.is_indirection() {
            return item.value().map(Verdict::ReplaceValue);
        }
        Ok(Verdict::Keep)
    }
}

/// See the module.
pub(super) async fn scrub(shared: &Arc<Shared>) -> Result<(), BufferError> {
    shared.gate.usable()?;
    // Two at once would only do the same.
    let _alone = shared.scrubbing.lock().await;
    let old = shared
        .read(|store, shared| {
            room(store, shared)?;
            journals(store)
        })
        .await?;
    let fill = |_: &Store, shared: &Shared| {
        for _ in 0..JOURNAL.div_ceil(FILL) + 1 {
            flush::fill(shared, FILL)?;
        }
        flush::fill(shared, 0)
    };
    shared.read(fill).await?;
    shared.read(move |store, shared| let_go(store, shared, &old)).await?;
    shared.read(flush::forget).await?;
    shared.read(renew).await
}

/// Writes all tables and blob files anew, until none of the old ones is left.
fn renew(store: &Store, shared: &Shared) -> Result<(), BufferError> {
    let patience = Patience::new();
    loop {
        let old = files(store);
        rewrite(store, shared)?;
        flush::forget(store, shared)?;
        // One stays if the engine moved events of it while it was written anew.
        let Some(left) = old.iter().find(|path| path.exists()) else { return Ok(()) };
        patience.is_left(store, shared, || format!("the engine does not let go of {}", left.display()))?;
    }
}

/// The tables and blob files that the store stands in.
fn files(store: &Store) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for keyspace in [&store.index, &store.events] {
        let version = keyspace.tree.current_version();
        let tables = keyspace.path().join("tables");
        files.extend(version.iter_tables().map(|table| tables.join(table.id().to_string())));
        files.extend(version.blob_files.iter().map(|blobs| blobs.path().to_owned()));
    }
    files
}

/// Refuses if there is no room to write beside what is there.
fn room(store: &Store, shared: &Shared) -> Result<(), BufferError> {
    let needed = store.events.disk_space().min(SLICE) * 2 + 2 * JOURNAL as u64;
    let free = shared.free_bytes.load(Relaxed);
    if free < needed {
        return Err(BufferError::NoSpace(format!(
            "what was deleted still stands in the files: writing them anew needs {needed} free bytes, and there are {free}; free some and try again"
        )));
    }
    Ok(())
}

fn journals(store: &Store) -> Result<BTreeSet<PathBuf>, BufferError> {
    let failed = |e: std::io::Error| BufferError::Failed(format!("the folder can't be listed: {e}"));
    let entries = std::fs::read_dir(store.folder()).map_err(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed));
    paths.filter(|path| path.as_ref().map_or(true, |p| p.extension().is_some_and(|e| e == "jnl"))).collect()
}

/// Flushes until the journals that were there are gone.
fn let_go(store: &Store, shared: &Shared, old: &BTreeSet<PathBuf>) -> Result<(), BufferError> {
    let patience = Patience::new();
    while !journals(store)?.is_disjoint(old) {
        patience.is_left(store, shared, || "the engine does not let its old journals go".into())?;
        for keyspace in [&store.index, &store.events] {
            flush::flush(store, shared, keyspace)?;
        }
        // The engine looks after its journals when a flush is done.
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn rewrite(store: &Store, shared: &Shared) -> Result<(), BufferError> {
    let failed = |e| store.failed("events", "compaction", e);
    store.index.major_compact().map_err(failed)?;
    for slice in slices(store, shared)? {
        if shared.gate.is_closed() {
            return Err(BufferError::Closed);
        }
        store.scrub.set(Some(slice));
        let compacted = store.events.major_compact();
        store.scrub.set(None);
        compacted.map_err(failed)?;
    }
    // Of files whose last living event moved with the last slice.
    store.events.major_compact().map_err(failed)
}

/// All events, in slices of about the same size.
fn slices(store: &Store, shared: &Shared) -> Result<Vec<Slice>, BufferError> {
    let events = shared.events.load(Relaxed).max(1);
    let each = (store.events.disk_space() / events).max(1);
    let at_once = (SLICE / each).max(1);
    let (mut slices, mut first, mut count) = (Vec::new(), [0; 16], 0);
    for entry in store.events.range([0u8; 16]..=[0xff; 16]) {
        let key = entry.key().map_err(|e| store.failed("events", "list", e))?;
        count += 1;
        if let (true, Ok(key)) = (count >= at_once, <[u8; 16]>::try_from(&*key)) {
            slices.push(first..=key);
            (first, count) = (key, 0);
        }
    }
    slices.push(first..=[0xff; 16]);
    Ok(slices)
}
