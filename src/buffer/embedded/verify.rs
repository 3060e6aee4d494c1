//! Reading everything that is stored, to see whether it can be read: page by page, each for a bounded time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::{BufferError, Damage, EventId, Verified};
use super::store::Store;
use super::{OpenError, check, codec, keys, open, panic_text};
use crate::seal::{Keyring, key_of};

/// How long one page may take: at least one event is read.
const PAGE: Duration = Duration::from_millis(500);
/// Events of a page that are named as damaged, at most; a page ends there.
const DAMAGED: usize = 100;

pub(super) fn page(store: &Store, after: Option<EventId>) -> Result<Verified, BufferError> {
    let until = Instant::now() + PAGE;
    let (mut found, ring) = (Verified::default(), store.keys.now());
    let from = after.map_or(std::ops::Bound::Unbounded, |id| std::ops::Bound::Excluded(id.0));
    let mut last = after;
    for entry in store.events.range((from, std::ops::Bound::Included([0xff; 16]))) {
        if found.events > 0 && (Instant::now() >= until || found.damaged.len() >= DAMAGED) {
            found.next = last;
            return Ok(found);
        }
        let (key, record) = match entry.into_inner() {
            Ok(entry) => entry,
            // Where it goes on can't be told any more: what comes behind is named as a whole.
            Err(error) => {
                let behind = last.map_or("the first event".into(), |id| format!("event {id}"));
                let what = store.failed("events", format!("from behind {behind} on"), error).to_string();
                found.damaged.push(Damage { event: None, what });
                return Ok(found);
            }
        };
        let Some(id) = keys::id_at(&key, 0).filter(|_| key.len() == 16) else { continue };
        last = Some(id);
        found.events += 1;
        found.bytes += record.len() as u64;
        let under = key_of(&record).map_or_else(|| "plain".to_owned(), |key| key.to_string());
        *found.keys.entry(under).or_default() += 1;
        let stored = codec::decode_event(id, &record, &ring).map_err(|e| e.to_string());
        let deliveries = store.deliveries(id).map_err(|e| e.to_string());
        match stored.and_then(|stored| deliveries.map(|_| stored)) {
            Ok(stored) => {
                let of = found.routes.entry(stored.event.route.to_string()).or_default();
                of.events += 1;
                of.bytes += record.len() as u64;
                let at = stored.event.received_at;
                of.oldest = Some(of.oldest.map_or(at, |oldest| oldest.min(at)));
            }
            Err(what) => found.damaged.push(Damage { event: Some(id), what }),
        }
    }
    Ok(found)
}

/// Reads a whole store that no gateway has open: its events page by page, and then whether all fits together.
pub(super) fn closed(folder: &Path, ring: &Keyring, tell: &mut dyn FnMut(Verified)) -> Result<(), OpenError> {
    let (store, commit, lock) = open::open_to_read(folder, ring)?;
    let mut after = None;
    loop {
        let found = caught(|| page(&store, after)).unwrap_or_else(of_all);
        after = found.next;
        tell(found);
        if after.is_none() {
            break;
        }
    }
    tell(
        caught(|| Ok(Verified { damaged: check::check(&store, commit), ..Verified::default() }))
            .unwrap_or_else(of_all),
    );
    // The lock is not to be let go while the engine runs.
    drop(store);
    drop(lock);
    Ok(())
}

/// The engine panics on some damage.
fn caught(read: impl FnOnce() -> Result<Verified, BufferError>) -> Result<Verified, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("the engine gave up: {}", panic_text(&*panic))),
    }
}

fn of_all(what: String) -> Verified {
    Verified { damaged: vec![Damage { event: None, what }], ..Verified::default() }
}
