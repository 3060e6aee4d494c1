//! Which keys a store needs, and sealing anew what stands under another key than new events do.
//!
//! One small record says it all: the keys under which something may be sealed, each with known words sealed under it;
//! whether plain records may be there; under which key everything is to be; and how far the pass is that brings it
//! there. The record is written before anything is sealed under a new key, and a key leaves it only when nothing under it
//! is left, so opening can say which key is missing before anything is read or changed.
//!
//! The pass goes through all events in order of their ids, in steps of a bounded size; each step writes what it sealed
//! anew and where it goes on as one atomic write, and lets the disk rest as long as it took. What came in since the start
//! is under the right key already. Then the small records, then what is kept beside the buffer, and at last everything is
//! scrubbed (`scrub.rs`): under the old key, or plain, nothing is left in any file. A crash costs one step at most.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fjall::{PersistMode, Slice};

use super::super::{BufferError, EventId, Pressure, SealingStats};
use super::apply::{Answer, Effects, Op};
use super::codec::CommitRecord;
use super::draft::Draft;
use super::open::{FIRST_COMMIT, damaged, engine};
use super::store::Store;
use super::waiting::Promise;
use super::wire::{Malformed, Reader, Result as Read, VERSION, put_bytes, put_number};
use super::{OpenError, Shared, endpoints, keys, scrub, tidy, waiting};
use crate::seal::{KeyId, Keyring, Kind, NotSealed, key_of};

/// What is sealed to show later that a key is the right one.
const PROOF: &[u8] = b"tidegate";
/// Events that a step looks at, and bytes of them that it seals anew, at most.
const STEP: usize = 256;
const STEP_BYTES: usize = 1024 * 1024;
/// How long the pass waits where the disk is busy or nearly full, and after a failure.
const BUSY: Duration = Duration::from_millis(50);
const TIGHT: Duration = Duration::from_secs(2);
/// How often room is made: it reads and writes much.
const ROOM_EVERY: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// How soon it notices that the buffer is closed.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seals {
    /// Under which something may be sealed, with the proof of each.
    keys: BTreeMap<KeyId, Vec<u8>>,
    /// Whether plain records may be there.
    plain: bool,
    /// Under which everything is to be; `None`: plain.
    target: Option<KeyId>,
    /// `None` when everything is.
    pass: Option<Pass>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pass {
    /// It goes on behind this event.
    cursor: Option<EventId>,
    /// Events looked at, of those that there were when it began.
    examined: u64,
    total: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Events,
    /// Records of the index, and what is kept beside the buffer.
    Records,
    /// What stands in files that nothing refers to any more.
    Files,
}

impl Seals {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.plain)];
        put_number(&mut out, self.keys.len() as u64);
        for (id, proof) in &self.keys {
            out.extend_from_slice(&id.0);
            put_bytes(&mut out, proof);
        }
        put_bytes(&mut out, self.target.as_ref().map_or(&[][..], |id| &id.0));
        if let Some(Pass { cursor, examined, total, stage }) = self.pass {
            out.push(match stage {
                Stage::Events => 1,
                Stage::Records => 2,
                Stage::Files => 3,
            });
            put_number(&mut out, examined);
            put_number(&mut out, total);
            put_bytes(&mut out, cursor.as_ref().map_or(&[][..], |id| &id.0));
        } else {
            out.push(0);
        }
        out
    }

    fn decode(record: &[u8]) -> Read<Self> {
        let mut r = Reader::versioned(record)?;
        let plain = match r.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("unknown tag")),
        };
        let keys =
            (0..r.count()?).map(|_| Ok((KeyId(r.array()?), r.bytes()?.to_vec()))).collect::<Read<_>>()?;
        let target = match r.bytes()? {
            [] => None,
            id => Some(KeyId(id.try_into().map_err(|_| Malformed("a key id has another length"))?)),
        };
        let stage = match r.byte()? {
            0 => None,
            1 => Some(Stage::Events),
            2 => Some(Stage::Records),
            3 => Some(Stage::Files),
            _ => return Err(Malformed("unknown tag")),
        };
        let pass = match stage {
            None => None,
            Some(stage) => {
                let (examined, total) = (r.number()?, r.number()?);
                let cursor = match r.bytes()? {
                    [] => None,
                    id => Some(EventId(id.try_into().map_err(|_| Malformed("an id has another length"))?)),
                };
                Some(Pass { cursor, examined, total, stage })
            }
        };
        r.end()?;
        Ok(Self { keys, plain, target, pass })
    }

    /// Takes up what the config says now. Returns whether that changes anything.
    fn aim(&mut self, ring: &Keyring, events: u64) -> Result<bool, NotSealed> {
        let wanted = ring.sealing();
        if wanted == self.target {
            return Ok(false);
        }
        match wanted {
            Some(id) => {
                if let Entry::Vacant(entry) = self.keys.entry(id) {
                    entry.insert(ring.seal(Kind::Proof, &id.0, PROOF)?);
                }
            }
            None => self.plain = true,
        }
        self.target = wanted;
        let others = self.keys.keys().any(|id| Some(*id) != wanted) || (wanted.is_some() && self.plain);
        self.pass = others.then(|| Pass { total: events, ..Pass::default() });
        Ok(true)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.pass.is_some()
    }

    /// The pass is over.
    fn done(&mut self) {
        self.pass = None;
        self.plain = self.target.is_none();
        let target = self.target;
        self.keys.retain(|id, _| Some(*id) == target);
    }

    pub(super) fn stats(&self, events: u64) -> Option<SealingStats> {
        if self.keys.is_empty() {
            return None;
        }
        let left = self.pass.map_or(0, |pass| match pass.stage {
            Stage::Events => pass.total.saturating_sub(pass.examined).min(events),
            Stage::Records | Stage::Files => 0,
        });
        Some(SealingStats {
            key: self.target.map(|id| id.to_string()),
            needed: self.keys.keys().map(ToString::to_string).collect(),
            events_left: left,
            stage: self.pass.map(|pass| match pass.stage {
                Stage::Events => "events".to_owned(),
                Stage::Records => "records".to_owned(),
                Stage::Files => "files".to_owned(),
            }),
        })
    }
}

/// Checks that every key that the store needs is there, and takes up under which key everything is to be. Writes that
/// down, synced, if it is news.
pub(super) fn take_up(store: &Store, commit: &mut CommitRecord) -> Result<Seals, OpenError> {
    let folder = store.folder();
    let unreadable = |what: &dyn std::fmt::Display| damaged(folder, &format!("its record of keys: {what}"));
    let mut seals = match store.get(keys::SEALING).map_err(|e| unreadable(&e))? {
        Some(record) => Seals::decode(&record).map_err(|e| unreadable(&e))?,
        None => Seals { plain: commit.commit > FIRST_COMMIT, ..Seals::default() },
    };
    let given: Vec<KeyId> = store.keys.ids().collect();
    let missing: Vec<KeyId> = seals.keys.keys().copied().filter(|id| !given.contains(id)).collect();
    if !missing.is_empty() {
        return Err(OpenError::NoKey { path: folder.display().to_string(), missing, given });
    }
    for (id, proof) in &seals.keys {
        match store.keys.open(Kind::Proof, &id.0, proof) {
            Ok(words) if *words == *PROOF => {}
            Ok(_) => return Err(unreadable(&"other words than those that were sealed")),
            Err(error) => return Err(unreadable(&error)),
        }
    }
    if seals.aim(&store.keys, commit.events)? {
        let next = CommitRecord {
            commit: commit.commit + 1,
            synced: commit.commit,
            events_commit_before: commit.events_commit,
            ..*commit
        };
        let mut batch = store.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&store.index, keys::SEALING, seals.encode());
        batch.insert(&store.index, keys::COMMIT, next.encode());
        batch.commit().map_err(|e| engine(folder, &e))?;
        *commit = next;
    }
    Ok(seals)
}

/// A step of the pass.
pub(super) struct Reseal {
    pub(super) events: Vec<Anew<EventId>>,
    pub(super) records: Vec<Anew<Vec<u8>>>,
    /// As it is after this step.
    pub(super) seals: Seals,
    pub(super) done: Promise<Result<(), BufferError>>,
}

/// What is to be written in place of a record, if it is still what it was.
pub(super) struct Anew<K> {
    key: K,
    was: Slice,
    is: Slice,
}

impl Reseal {
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|anew| anew.is.len()).sum()
    }
}

impl Draft<'_> {
    pub(super) fn reseal(&mut self, op: Reseal, effects: &mut Effects) {
        let Reseal { events, records, seals, done } = op;
        let outcome = self.write_anew(events, records, &seals);
        effects.swept.push(Answer { done, outcome });
    }

    fn write_anew(
        &mut self,
        events: Vec<Anew<EventId>>,
        records: Vec<Anew<Vec<u8>>>,
        seals: &Seals,
    ) -> Result<(), BufferError> {
        // What is gone, or was written meanwhile (and so under the right key), is left as it is. Read first: see `apply.rs`.
        let mut events_left = Vec::with_capacity(events.len());
        for anew in events {
            if self.raw_event(anew.key)?.is_some_and(|now| now == anew.was) {
                events_left.push(anew);
            }
        }
        let mut records_left = Vec::with_capacity(records.len());
        for anew in records {
            if self.get(&anew.key)?.is_some_and(|now| now == anew.was) {
                records_left.push(anew);
            }
        }
        events_left.into_iter().for_each(|anew| self.rewrite_event(anew.key, anew.is));
        records_left.into_iter().for_each(|anew| self.put(anew.key, anew.is));
        self.put(keys::SEALING.to_vec(), seals.encode());
        // A key that is no longer needed may be gone for good right after.
        self.sync |= seals.pass.is_none_or(|pass| pass.stage != Stage::Events);
        Ok(())
    }
}

/// Goes through all that is stored until it is under the right key, or the buffer is closed. On a thread of its own.
pub(super) fn run(shared: &Arc<Shared>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "sealing anew could not start; it does with the next start");
            return;
        }
    };
    let seals = shared.seals.lock().clone();
    tracing::info!(
        key = %under(seals.target), events = seals.stats(u64::MAX).map_or(0, |stats| stats.events_left),
        "the buffer is being sealed anew; keep the old keys in the config until it is done"
    );
    loop {
        match runtime.block_on(pass(shared)) {
            Ok(()) => {
                let key = under(shared.seals.lock().target);
                tracing::info!(%key, "all of the buffer is sealed anew: no other key is needed any more");
                return;
            }
            Err(BufferError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "sealing the buffer anew failed and is tried again later");
                if rest(shared, AFTER_FAILURE).is_err() {
                    return;
                }
            }
        }
    }
}

fn under(key: Option<KeyId>) -> String {
    key.map_or_else(|| "none".to_owned(), |id| id.to_string())
}

async fn pass(shared: &Arc<Shared>) -> Result<(), BufferError> {
    // What is stored from here on is under the right key.
    let last = {
        let store = shared.store()?;
        let last = store.events.last_key_value().map(fjall::Guard::key);
        let last = last.transpose().map_err(|e| store.failed("events", "list", e))?;
        last.and_then(|key| keys::id_at(&key, 0))
    };
    let mut made = None;
    loop {
        make_room(shared, &mut made)?;
        let begin = Instant::now();
        let Some(step) = plan(shared, last)? else { break };
        write(shared, step).await?;
        rest(shared, begin.elapsed().max(Duration::from_millis(1)))?;
    }
    if shared.seals.lock().pass.is_some_and(|pass| pass.stage == Stage::Records) {
        records(shared).await?;
        if let Some(beside) = &shared.beside {
            let failed = |e| BufferError::Failed(format!("what is kept beside the buffer: {e}"));
            beside.reseal().map_err(failed)?;
        }
        let mut next = shared.seals.lock().clone();
        next.pass = next.pass.map(|pass| Pass { stage: Stage::Files, ..pass });
        write(shared, Step { seals: next, ..Step::default() }).await?;
    }
    scrub::scrub(shared).await?;
    let mut next = shared.seals.lock().clone();
    next.done();
    write(shared, Step { seals: next, ..Step::default() }).await
}

#[derive(Default)]
struct Step {
    events: Vec<Anew<EventId>>,
    records: Vec<Anew<Vec<u8>>>,
    seals: Seals,
}

async fn write(shared: &Arc<Shared>, step: Step) -> Result<(), BufferError> {
    let Step { events, records, seals } = step;
    let (done, outcome) = waiting::pair();
    shared.inbox.push(Op::Reseal(Reseal { events, records, seals: seals.clone(), done }))?;
    outcome.await.unwrap_or_else(|| Err(BufferError::Failed(shared.gate.failure())))?;
    *shared.seals.lock() = seals;
    Ok(())
}

/// The next step through the events; `None` behind the last.
fn plan(shared: &Shared, last: Option<EventId>) -> Result<Option<Step>, BufferError> {
    let mut next = shared.seals.lock().clone();
    let Some(pass) = next.pass.as_mut().filter(|pass| pass.stage == Stage::Events) else { return Ok(None) };
    let store = shared.store()?;
    let mut step = Step::default();
    let (mut looked_at, mut bytes) = (0, 0);
    if let Some(last) = last {
        let from = pass.cursor.map_or(std::ops::Bound::Unbounded, |id| std::ops::Bound::Excluded(id.0));
        let range = store.events.range((from, std::ops::Bound::Included(last.0)));
        for entry in range {
            if looked_at == STEP || bytes >= STEP_BYTES {
                break;
            }
            let (key, was) = entry.into_inner().map_err(|e| store.failed("events", "read", e))?;
            // The mark is no event's.
            let Some(id) = keys::id_at(&key, 0).filter(|_| key.len() == 16) else { continue };
            looked_at += 1;
            pass.cursor = Some(id);
            if key_of(&was) == next.target {
                continue;
            }
            match anew(&store.keys, id, &was) {
                Ok(is) => {
                    bytes += was.len();
                    step.events.push(Anew { key: id, was, is });
                }
                Err(BufferError::Damaged(why)) => {
                    tracing::error!(event = %id, %why, "an event can't be read, and is not sealed anew");
                }
                Err(error) => return Err(error),
            }
        }
    }
    pass.examined += looked_at as u64;
    if looked_at == 0 {
        pass.stage = Stage::Records;
    }
    step.seals = next;
    Ok(Some(step))
}

fn anew(ring: &Keyring, id: EventId, was: &[u8]) -> Result<Slice, BufferError> {
    let plain = ring.open(Kind::Event, &id.0, was).map_err(|e| BufferError::Damaged(e.to_string()))?;
    let is = ring.seal(Kind::Event, &id.0, &plain).map_err(|e| BufferError::Failed(e.to_string()))?;
    Ok(is.into())
}

/// Clients' URLs and jobs, some at a time.
async fn records(shared: &Arc<Shared>) -> Result<(), BufferError> {
    for prefix in [b'E', b'J'] {
        let mut from = vec![prefix];
        while let Some(on) = records_step(shared, &from, prefix).await? {
            from = on;
        }
    }
    Ok(())
}

/// Returns from where to go on.
async fn records_step(shared: &Arc<Shared>, from: &[u8], prefix: u8) -> Result<Option<Vec<u8>>, BufferError> {
    let mut step = Step { seals: shared.seals.lock().clone(), ..Step::default() };
    let mut on = None;
    {
        let store = shared.store()?;
        for (count, entry) in store.scan(from.to_vec(), vec![prefix + 1]).enumerate() {
            let (key, was) = entry?;
            if count == STEP {
                on = Some(key.to_vec());
                break;
            }
            let is = match prefix {
                b'E' => endpoints::resealed(&key, &was, &store.keys)?,
                _ if key_of(&was) == store.keys.sealing() => None,
                _ => {
                    let name = key.get(1..).unwrap_or_default();
                    let plain = store.keys.open(Kind::Job, name, &was);
                    let plain = plain.map_err(|e| BufferError::Damaged(format!("a job: {e}")))?;
                    let sealed = store.keys.seal(Kind::Job, name, &plain);
                    Some(sealed.map_err(|e| BufferError::Failed(e.to_string()))?)
                }
            };
            if let Some(is) = is {
                step.records.push(Anew { key: key.to_vec(), was, is: is.into() });
            }
        }
    }
    if !step.records.is_empty() {
        write(shared, step).await?;
    }
    Ok(on)
}

/// Waits while the disk has more to do than it can, or so little room that what is written anew could crowd out what
/// comes in; now and then makes room out of what was written anew before.
fn make_room(shared: &Shared, made: &mut Option<Instant>) -> Result<(), BufferError> {
    while shared.watch.pressure(shared.stall_after) != Pressure::None {
        rest(shared, BUSY)?;
    }
    let is_tight = || {
        let (used, free) = (shared.used_bytes.load(Relaxed), shared.free_bytes.load(Relaxed));
        used >= shared.marks.max / 10 * 8 || free / 2 <= shared.marks.min_free
    };
    while is_tight() {
        if made.is_none_or(|made| made.elapsed() >= ROOM_EVERY) {
            let store = shared.store()?;
            tidy::free(&store, shared).map_err(|e| store.failed("events", "compaction", e))?;
            *made = Some(Instant::now());
        }
        rest(shared, TIGHT)?;
        // What is there fills it: it goes on slowly rather than never, as long as new events are taken.
        if !shared.gate.is_full() {
            break;
        }
    }
    Ok(())
}

/// Sleeps, unless the buffer is closed.
fn rest(shared: &Shared, length: Duration) -> Result<(), BufferError> {
    let until = Instant::now() + length;
    loop {
        if shared.gate.is_closed() || shared.gate.is_failed() {
            return Err(BufferError::Closed);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::testing::{key, keyring};
    use crate::seal::{Key, Sealing};

    fn off(keys: Vec<Key>) -> Keyring {
        Keyring::new(keys, Sealing::Off)
    }

    #[test]
    fn the_record_of_keys_comes_back() {
        let mut seals = Seals { plain: true, ..Seals::default() };
        assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        assert!(seals.aim(&keyring(&[1]), 7).unwrap());
        assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        for stage in [Stage::Events, Stage::Records, Stage::Files] {
            seals.pass = Some(Pass { cursor: Some(EventId([9; 16])), examined: 3, total: 300, stage });
            assert_eq!(Seals::decode(&seals.encode()), Ok(seals.clone()));
        }
        let whole = seals.encode();
        for end in 0..whole.len() {
            assert!(Seals::decode(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_new_store_needs_no_pass_and_one_with_plain_events_does() {
        let mut fresh = Seals::default();
        assert!(!fresh.aim(&Keyring::none(), 0).unwrap());
        assert!(fresh.aim(&keyring(&[1]), 0).unwrap() && fresh.pass.is_none());
        let mut old = Seals { plain: true, ..Seals::default() };
        assert!(old.aim(&keyring(&[1]), 5).unwrap());
        assert_eq!(old.stats(5).unwrap().events_left, 5);
        // Where a key stands in the list, and others beside it, change nothing.
        assert!(!old.aim(&keyring(&[1, 2]), 5).unwrap());
    }

    #[test]
    fn keys_are_needed_until_the_pass_is_done_and_no_longer() {
        let mut seals = Seals::default();
        seals.aim(&keyring(&[1]), 0).unwrap();
        seals.aim(&keyring(&[2, 1]), 9).unwrap();
        // Changed again before it was done.
        seals.aim(&keyring(&[3, 2, 1]), 9).unwrap();
        assert_eq!(seals.keys.len(), 3);
        seals.done();
        assert_eq!(seals.keys.keys().copied().collect::<Vec<_>>(), [key(3).id()]);
        assert!(seals.aim(&off(vec![key(3)]), 9).unwrap() && seals.pass.is_some() && seals.plain);
        seals.done();
        assert!(seals.keys.is_empty() && seals.plain && seals.stats(9).is_none());
    }
}
