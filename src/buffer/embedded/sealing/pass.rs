//! The pass that seals anew what is not under the key that seals now.
//!
//! It goes through all events in order of their ids, in steps of a bounded size; each step writes what it sealed anew and
//! where it goes on as one atomic write, and lets the disk rest as long as it took. What came in since the start is under
//! the right key already. Then the small records (answers of claims, how deliveries went, clients' URLs, jobs, notes), then
//! what is kept beside the buffer, and at last everything is scrubbed (`scrub.rs`): under the old key, or plain, nothing is
//! left in any file. A crash costs one step at most. Where a reload asks for other keys meanwhile, it begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use fjall::Slice;

use super::super::super::{BufferError, ClaimKey, EventId, Pressure};
use super::super::apply::{Answer, Effects, Op};
use super::super::codec::{self, Record};
use super::super::draft::Draft;
use super::super::waiting::Promise;
use super::super::{Shared, endpoints, keys, notes, scrub, tidy, waiting};
use super::{Pass, Seals, Stage};
use crate::seal::{KeyId, Keyring, Kind, key_of};

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

/// Who seals anew. Held while the record of keys is written: one that was made from an older one must not replace it.
#[derive(Debug, Default)]
pub(in super::super) struct Passes {
    /// Counts up with each change of what is asked for.
    pub(super) round: u64,
    /// Whether a thread is at it.
    pub(super) running: bool,
}

impl Passes {
    /// At the start, which sees to the thread.
    pub(in super::super) fn beginning(running: bool) -> Self {
        Self { round: 0, running }
    }
}

/// A step of the pass.
pub(in super::super) struct Reseal {
    pub(in super::super) events: Vec<Anew<EventId>>,
    pub(in super::super) records: Vec<Anew<Vec<u8>>>,
    /// As it is after this step.
    pub(in super::super) seals: Seals,
    pub(in super::super) done: Promise<Result<(), BufferError>>,
}

/// What is to be written in place of a record, if it is still what it was.
pub(in super::super) struct Anew<K> {
    pub(in super::super) key: K,
    pub(in super::super) was: Slice,
    pub(in super::super) is: Slice,
}

impl Reseal {
    pub(in super::super) fn bytes(&self) -> usize {
        self.events.iter().map(|anew| anew.is.len()).sum()
    }
}

impl Draft<'_> {
    pub(in super::super) fn reseal(&mut self, op: Reseal, effects: &mut Effects) {
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

/// Why a pass ends before it is done.
enum Stop {
    /// Something else is asked for by now.
    Overtaken,
    Failed(BufferError),
}

impl From<BufferError> for Stop {
    fn from(error: BufferError) -> Self {
        Stop::Failed(error)
    }
}

/// Goes through all that is stored until it is under the right key, or the buffer is closed. On a thread of its own, of
/// which there is one at most.
pub(in super::super) fn run(shared: &Arc<Shared>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "sealing anew could not start; it does with the next start");
            return;
        }
    };
    loop {
        let round = {
            let mut passes = shared.passes.blocking_lock();
            let seals = shared.seals.lock().clone();
            passes.running = seals.is_under_way();
            if !passes.running {
                return;
            }
            tracing::info!(
                key = %under(seals.target), events = seals.stats(u64::MAX).map_or(0, |stats| stats.events_left),
                "the buffer is being sealed anew; keep the old keys in the config until it is done"
            );
            passes.round
        };
        match runtime.block_on(pass(shared, round)) {
            Ok(()) => {
                let key = under(shared.seals.lock().target);
                tracing::info!(%key, "all of the buffer is sealed anew: no other key is needed any more");
            }
            Err(Stop::Overtaken) => {}
            Err(Stop::Failed(BufferError::Closed)) => return,
            Err(Stop::Failed(error)) => {
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

async fn pass(shared: &Arc<Shared>, round: u64) -> Result<(), Stop> {
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
        write(shared, round, step).await?;
        rest(shared, begin.elapsed().max(Duration::from_millis(1)))?;
    }
    if shared.seals.lock().pass.is_some_and(|pass| pass.stage == Stage::Records) {
        records(shared, round, &mut made).await?;
        if let Some(beside) = &shared.beside {
            let failed = |e| BufferError::Failed(format!("what is kept beside the buffer: {e}"));
            beside.reseal().map_err(failed)?;
        }
        let mut next = shared.seals.lock().clone();
        next.pass = next.pass.map(|pass| Pass { stage: Stage::Files, ..pass });
        write(shared, round, Step { seals: next, ..Step::default() }).await?;
    }
    scrub::scrub(shared).await?;
    let mut next = shared.seals.lock().clone();
    next.done();
    write(shared, round, Step { seals: next, ..Step::default() }).await
}

#[derive(Default)]
struct Step {
    events: Vec<Anew<EventId>>,
    records: Vec<Anew<Vec<u8>>>,
    seals: Seals,
}

/// Writes a step of this round.
async fn write(shared: &Arc<Shared>, round: u64, step: Step) -> Result<(), Stop> {
    let passes = shared.passes.lock().await;
    if passes.round != round {
        return Err(Stop::Overtaken);
    }
    let Step { events, records, seals } = step;
    Ok(note_down(shared, events, records, seals).await?)
}

/// Writes the record of keys, and what was sealed anew with it. Only for who holds `Shared::passes`.
pub(super) async fn note_down(
    shared: &Arc<Shared>,
    events: Vec<Anew<EventId>>,
    records: Vec<Anew<Vec<u8>>>,
    seals: Seals,
) -> Result<(), BufferError> {
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
    let (mut looked_at, mut bytes, ring) = (0, 0, store.keys.now());
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
            match anew(&ring, id, &was) {
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

/// Which of the index say something of what was sent, or was answered: claims, deliveries, clients' URLs, jobs, notes.
const RECORDS: [u8; 5] = [b'K', b'D', b'E', b'J', b'M'];

/// Goes through those, some at a time.
async fn records(shared: &Arc<Shared>, round: u64, made: &mut Option<Instant>) -> Result<(), Stop> {
    for prefix in RECORDS {
        let mut from = vec![prefix];
        loop {
            make_room(shared, made)?;
            let begin = Instant::now();
            let (step, on) = plan_records(shared, &from, prefix)?;
            if !step.records.is_empty() {
                write(shared, round, step).await?;
            }
            let Some(on) = on else { break };
            from = on;
            rest(shared, begin.elapsed())?;
        }
    }
    Ok(())
}

/// The next step, and from where to go on.
fn plan_records(shared: &Shared, from: &[u8], prefix: u8) -> Result<(Step, Option<Vec<u8>>), BufferError> {
    let mut step = Step { seals: shared.seals.lock().clone(), ..Step::default() };
    let store = shared.store()?;
    let (ring, mut bytes) = (store.keys.now(), 0);
    for (count, entry) in store.scan(from.to_vec(), vec![prefix + 1]).enumerate() {
        let (key, was) = entry?;
        if count == STEP || bytes >= STEP_BYTES {
            return Ok((step, Some(key.to_vec())));
        }
        match anew_record(&ring, &key, &was) {
            Ok(Some(is)) => {
                bytes += was.len();
                step.records.push(Anew { key: key.to_vec(), was, is: is.into() });
            }
            Ok(None) => {}
            Err(BufferError::Damaged(why)) => {
                tracing::error!(%why, "a record can't be read, and is not sealed anew");
            }
            Err(error) => return Err(error),
        }
    }
    Ok((step, None))
}

/// A record of the index as it is to be; `None` if it is so.
fn anew_record(ring: &Keyring, key: &[u8], was: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
    let damaged = |what: &str, why: &dyn std::fmt::Display| BufferError::Damaged(format!("{what}: {why}"));
    match key.first() {
        Some(b'K') => {
            let claim = key.get(1..).and_then(|key| key.try_into().ok()).map(ClaimKey);
            let claim = claim.ok_or_else(|| damaged("a claim", &"its key has another length"))?;
            codec::resealed_claim(claim, was, ring).map_err(|e| damaged("a claim", &e))
        }
        Some(b'D') => {
            let (Some(event), Some(to)) = (keys::id_at(key, 1), keys::u32_at(key, 17)) else {
                return Err(damaged("a delivery", &"its key has another length"));
            };
            Record::resealed(event, to, was, ring).map_err(|e| damaged("a delivery", &e))
        }
        Some(b'E') => endpoints::resealed(key, was, ring),
        Some(b'M') => notes::resealed(key, was, ring),
        _ if key_of(was) == ring.sealing() => Ok(None),
        _ => {
            let name = key.get(1..).unwrap_or_default();
            let plain = ring.open(Kind::Job, name, was).map_err(|e| damaged("a job", &e))?;
            let sealed = ring.seal(Kind::Job, name, &plain);
            sealed.map(Some).map_err(|e| BufferError::Failed(e.to_string()))
        }
    }
}

/// Waits while the disk has more to do than it can, or so little room that what is written anew could crowd out what
/// comes in; now and then makes room out of what was written anew before.
fn make_room(shared: &Shared, made: &mut Option<Instant>) -> Result<(), BufferError> {
    while shared.watch.pressure(shared.stall_after) != Pressure::None {
        rest(shared, BUSY)?;
    }
    let is_tight = || {
        let (used, free) = (shared.used_bytes.load(Relaxed), shared.free_bytes.load(Relaxed));
        let marks = shared.marks();
        used >= marks.max / 10 * 8 || free / 2 <= marks.min_free
    };
    while is_tight() {
        if made.is_none_or(|made| made.elapsed() >= ROOM_EVERY) {
            let store = shared.store()?;
            tidy::free(&store, shared)?;
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
