//! The committer: one thread that groups whatever is pending into one atomic write and one sync.
//!
//! A commit starts when the last one ended, so under load groups grow by themselves and at low load nobody waits.
//! What nobody waits for (settlements, claims alone) is collected for some milliseconds, or goes with the next group.
//! Whoever was promised durability (append, replay, purge) is told only after the sync. What survives what: a synced
//! commit survives power loss; an unsynced one (settlements, claims alone) survives the end of the process and is
//! lost at worst with the machine's power, and then a delivery repeats.
//!
//! A failed write or sync poisons the buffer for good; a panic does the same. Nothing is ever tried again on a store
//! that has failed.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::PersistMode;

use super::super::{AppendError, BufferError, DeadReason};
use super::admission::Space;
use super::apply::{Answer, Effects, Op};
use super::codec::{CommitRecord, Counters};
use super::draft::{Draft, Finished};
use super::endpoints::ChangeEndpoints;
use super::give_up::Gone;
use super::retention::{Gave, Swept};
use super::store::Store;
use super::waiting::{Promise, Wakes};
use super::witness::Witness;
use super::{Shared, watch};

/// How often the disk is asked for its space, and what is past its time is looked for.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The committer looks around this often when nothing comes in.
const TICK: Duration = Duration::from_secs(1);
/// How long closing waits for readers to end.
const READERS_END: Duration = Duration::from_secs(5);

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) witness: Witness,
    /// Held until the store is closed.
    pub(super) lock: super::open::Lock,
    /// As of the last commit.
    pub(super) totals: CommitRecord,
    pub(super) counters: HashMap<u32, Counters>,
    /// The last commit known to be synced.
    pub(super) synced: u64,
    pub(super) space: Space,
    pub(super) measured: Instant,
    /// Bytes appended since.
    pub(super) appended: u64,
    pub(super) sweep_at: Instant,
    pub(super) tidy: super::tidy::Tidy,
}

impl Committer {
    pub(super) fn run(mut self) {
        let closed = loop {
            let busy = self.sweep_at <= Instant::now() || self.tidy.owed() > 0;
            let patience = if busy { Duration::ZERO } else { TICK };
            let group = self.shared.inbox.take(patience);
            // Promises in a group that panics are dropped, and so answered.
            match catch_unwind(AssertUnwindSafe(|| self.turn(group))) {
                Ok(None) => {}
                Ok(Some(closed)) => break closed,
                Err(panic) => {
                    self.shared.fail(&format!("the committer failed: {}", super::panic_text(&*panic)))
                }
            }
        };
        self.close(closed);
    }

    fn turn(&mut self, group: Vec<Op>) -> Option<Promise<()>> {
        if self.shared.gate.is_failed() {
            return self.refuse(group);
        }
        self.measure_if_due(&group);
        let shared = Arc::clone(&self.shared);
        let store = Arc::clone(&self.store);
        let now = shared.clock.now();
        let mut effects = Effects::default();
        let mut closed = None;
        let mut draft = Draft::new(&store, &shared.directory, self.totals, &self.counters, &shared.keep);
        let mut wanted = Vec::new();
        let mut swept = None;
        if self.sweep_at <= Instant::now() || group.iter().any(|op| matches!(op, Op::Sweep(_))) {
            swept = Some(draft.sweep(now));
        }
        let owed = self.tidy.owed();
        if owed > 0 {
            match draft.give_way(owed, now) {
                Ok(Gave { bytes, more }) => self.tidy.given(bytes, more),
                Err(error) => {
                    tracing::error!(%error, "delivered events could not be deleted to make room");
                    self.tidy.given(0, false);
                }
            }
        }
        // Not before all that is to go has gone, or nothing is left that could.
        if (shared.gate.is_full() || self.tidy.is_wanted()) && self.tidy.owed() == 0 {
            self.tidy.start(&shared, &store);
        }
        for op in group {
            match op {
                Op::Append(append) => match shared.gate.admit() {
                    Ok(()) => draft.append(*append, now, &mut effects),
                    Err(refused) => {
                        let answer = Answer { done: append.done, outcome: Err(refused) };
                        effects.appended.push((answer, append.queued));
                    }
                },
                Op::Import(import) => match shared.gate.admit() {
                    Ok(()) => draft.import(*import, now, &mut effects),
                    Err(refused) => {
                        effects.imported.push(Answer { done: import.done, outcome: Err(refused) });
                    }
                },
                Op::AppendBatch(append) => match shared.gate.admit() {
                    Ok(()) => draft.append_batch(*append, now, &mut effects),
                    Err(refused) => {
                        let answer = Answer { done: append.done, outcome: Err(refused) };
                        effects.batches.push((answer, append.queued));
                    }
                },
                Op::Claim { claim, event_id } => draft.claim_alone(claim, event_id, now, &mut effects),
                Op::Settle(settle) => draft.settle(&settle, now, &mut effects),
                Op::Change(change) => draft.change(change, now, &mut effects),
                Op::ForgetJob(id, done) => draft.forget_job(id, done, &mut effects),
                Op::Fill(bytes, done) => draft.fill(bytes, done, &mut effects),
                Op::Note(note) => draft.note(note, &mut effects),
                Op::Endpoints(ChangeEndpoints { changes, done }) => {
                    let outcome = draft.change_endpoints(changes).map(|_| ());
                    effects.swept.push(Answer { done, outcome });
                }
                Op::Reseal(reseal) => draft.reseal(reseal, &mut effects),
                Op::Sweep(done) => wanted.push(done),
                Op::Close(done) => closed = Some(done),
                #[cfg(test)]
                Op::Run(run) => run(),
            }
        }
        let finished = (!draft.is_empty()).then(|| draft.finish(self.synced));
        if let Some(swept) = swept {
            self.plan_sweep(swept, wanted, &mut effects);
        }
        match finished {
            Some(finished) => self.commit(finished, effects),
            None => self.tell(effects, None),
        }
        closed
    }

    fn plan_sweep(
        &mut self,
        swept: Result<Swept, BufferError>,
        wanted: Vec<Promise<Result<(), BufferError>>>,
        effects: &mut Effects,
    ) {
        match swept {
            Ok(Swept::All) => {
                self.sweep_at = Instant::now() + SWEEP_EVERY;
                effects.swept.extend(wanted.into_iter().map(|done| Answer { done, outcome: Ok(()) }));
            }
            Ok(Swept::Part) => {
                // The next group brings the next step; who asked for all of it waits for the last.
                self.sweep_at = Instant::now();
                for done in wanted {
                    if self.shared.inbox.push(Op::Sweep(done)).is_err() {
                        break;
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "what is past its time could not be deleted");
                self.sweep_at = Instant::now() + SWEEP_EVERY * 60;
                let text = error.to_string();
                effects.swept.extend(wanted.into_iter().map(|done| {
                    let outcome = Err(BufferError::Damaged(text.clone()));
                    Answer { done, outcome }
                }));
            }
        }
    }

    fn commit(&mut self, finished: Finished, effects: Effects) {
        let Finished { batch, totals, counters, sync } = finished;
        let start = Instant::now();
        self.shared.watch.start();
        let written = watch::until_taken(&self.store).and_then(|()| batch.commit());
        self.shared.watch.end();
        // Before the watch notices: what waited for this commit is not to be refused for it.
        if self.shared.gate.set_stalled(None) {
            tracing::warn!("the commit that hung has returned");
        }
        if let Err(error) = written {
            self.shared.engine_failed("a write or sync failed", &error);
            self.tell(effects, Some(self.shared.gate.failure()));
            return;
        }
        let took = start.elapsed();
        self.tidy.deleted(self.totals.events + effects.stored as u64, totals.events);
        self.totals = totals;
        for (id, counted) in counters {
            if let Some(lane) = self.shared.directory.by_id(id) {
                lane.backlog.store(counted.backlog, Ordering::Relaxed);
                lane.dead.store(counted.dead, Ordering::Relaxed);
                lane.blocked.store(counted.blocked, Ordering::Relaxed);
                lane.parked.store(counted.parked, Ordering::Relaxed);
            }
            self.counters.insert(id, counted);
        }
        self.shared.events.store(totals.events, Ordering::Relaxed);
        self.shared.next_seq.store(totals.next_seq, Ordering::Release);
        if sync {
            self.synced = totals.commit;
            if let Err(error) = self.witness.write(totals.commit) {
                tracing::error!(%error, "the buffer's witness could not be written");
            }
            if effects.stored > 0 {
                self.shared.metrics.committed(effects.stored, took);
            }
        }
        self.appended += effects.bytes;
        self.tell(effects, None);
    }

    /// Tells everyone what became of their work: `failed` if it did not get to disk.
    fn tell(&self, effects: Effects, failed: Option<String>) {
        let mut wakes = Wakes::default();
        if !effects.claimed.is_empty() {
            let mut claims = self.shared.claims.lock();
            effects.claimed.iter().for_each(|key| {
                claims.remove(key);
            });
        }
        if failed.is_none() {
            if effects.forgotten {
                self.shared.forgotten.fetch_add(1, Ordering::AcqRel);
            }
            for (lane, place, upcoming) in effects.settled {
                let mut state = lane.state();
                state.leases.remove(&place);
                if let Some(place) = upcoming {
                    state.upcoming.remove(&place);
                }
            }
            for Gone { lane, event, attempts, place } in effects.given_up {
                if let Some(place) = place {
                    lane.state().is_withdrawn(place);
                }
                let (destination, reason) = (&lane.name, DeadReason::ByOperator.code());
                tracing::warn!(%event, %destination, reason, attempts, "dead letter");
                self.shared.metrics.given_up(&destination.0);
            }
            for (lane, place) in effects.promoted {
                lane.state().promoted(place);
                lane.arrivals.notify_one();
            }
            effects.aged.iter().for_each(|(lane, seq)| lane.state().aged(*seq));
            effects.stuck.iter().for_each(|(lane, since)| lane.state().stuck(*since));
            for (lane, seq, held) in effects.arrived {
                lane.state().arrived(seq, held);
                lane.arrivals.notify_one();
            }
        }
        for (Answer { done, outcome }, queued) in effects.appended {
            let outcome = match &failed {
                Some(why) => Err(AppendError::Unavailable(why.clone())),
                None => outcome,
            };
            if outcome.is_ok() {
                self.shared.metrics.appended(queued.elapsed());
            }
            done.keep(outcome, &mut wakes);
        }
        for Answer { done, outcome } in effects.imported {
            let failure = failed.clone().map(AppendError::Unavailable);
            done.keep(failure.map_or(outcome, Err), &mut wakes);
        }
        for (Answer { done, outcome }, queued) in effects.batches {
            let outcome = match &failed {
                Some(why) => Err(AppendError::Unavailable(why.clone())),
                None => outcome,
            };
            if outcome.is_ok() {
                self.shared.metrics.appended(queued.elapsed());
            }
            done.keep(outcome, &mut wakes);
        }
        let failure = || failed.clone().map(BufferError::Failed);
        for Answer { done, outcome } in effects.changed {
            done.keep(failure().map_or(outcome, Err), &mut wakes);
        }
        for Answer { done, outcome } in effects.swept {
            done.keep(failure().map_or(outcome, Err), &mut wakes);
        }
        wakes.send();
    }

    /// Answers work that comes to a store that has failed.
    fn refuse(&mut self, group: Vec<Op>) -> Option<Promise<()>> {
        let why = self.shared.gate.failure();
        let mut wakes = Wakes::default();
        let mut closed = None;
        for op in group {
            match op {
                Op::Append(append) => {
                    append.done.keep(Err(AppendError::Unavailable(why.clone())), &mut wakes);
                }
                Op::AppendBatch(append) => {
                    append.done.keep(Err(AppendError::Unavailable(why.clone())), &mut wakes);
                }
                Op::Import(import) => {
                    import.done.keep(Err(AppendError::Unavailable(why.clone())), &mut wakes);
                }
                Op::Change(change) => change.done.keep(Err(BufferError::Failed(why.clone())), &mut wakes),
                Op::Sweep(done) | Op::ForgetJob(_, done) | Op::Fill(_, done) => {
                    done.keep(Err(BufferError::Failed(why.clone())), &mut wakes)
                }
                Op::Note(note) => note.done.keep(Err(BufferError::Failed(why.clone())), &mut wakes),
                Op::Endpoints(change) => {
                    change.done.keep(Err(BufferError::Failed(why.clone())), &mut wakes);
                }
                Op::Reseal(reseal) => {
                    reseal.done.keep(Err(BufferError::Failed(why.clone())), &mut wakes);
                }
                Op::Claim { .. } | Op::Settle(_) => {}
                Op::Close(done) => closed = Some(done),
                #[cfg(test)]
                Op::Run(_) => {}
            }
        }
        self.sweep_at = Instant::now() + SWEEP_EVERY;
        closed
    }

    /// Asks the disk for its space now and then, and whenever what came in since could have used up the rest.
    fn measure_if_due(&mut self, group: &[Op]) {
        let coming: u64 = group.iter().map(|op| op.bytes() as u64).sum();
        let marks = self.shared.marks();
        let tight = coming > 0 && self.appended + coming > marks.headroom(self.space);
        if !self.tidy.has_ended() && !tight && self.measured.elapsed() < MEASURE_EVERY {
            return;
        }
        self.measured = Instant::now();
        let beside = self.shared.beside.as_deref();
        let mut measured = Space::measure(&self.store, beside, &marks);
        if let (Some(beside), Ok(space)) = (beside, &measured) {
            let excess = marks.excess(*space, coming, self.shared.gate.is_full());
            if excess > 0 && beside.bytes() > 0 {
                beside.give_way(excess);
                measured = Space::measure(&self.store, Some(beside), &marks);
            }
        }
        match measured {
            Ok(space) => {
                self.space = space;
                self.appended = 0;
                self.shared.publish(space);
                // Also how a failed flush of the engine's own threads comes to light while nothing is written.
                if let Err(error) = self.store.db.persist(PersistMode::Buffer) {
                    self.shared.engine_failed("the engine has failed", &error);
                }
            }
            Err(error) => tracing::error!(%error, "the buffer's disk could not be asked for its space"),
        }
        let full = marks.judge(self.space, self.shared.gate.is_full());
        if self.shared.gate.set_full(full.clone()) {
            match full {
                Some(why) => {
                    tracing::warn!(%why, "the buffer is full: new events are refused, deliveries go on");
                    self.shared.metrics.buffer_trouble("full");
                }
                None => tracing::info!("the buffer has room again and takes new events"),
            }
        }
        self.tidy.wants(marks.wanted(self.space));
    }

    fn close(self, closed: Promise<()>) {
        let Committer { shared, store, witness, lock, totals, tidy, .. } = self;
        shared.gate.close();
        drop(shared.store.write().take());
        if !shared.gate.is_failed() {
            match store.db.persist(PersistMode::SyncAll) {
                Ok(()) => {
                    if let Err(error) = witness.write(totals.commit) {
                        tracing::error!(%error, "the buffer's witness could not be written");
                    }
                }
                Err(error) => tracing::error!(%error, "the last sync of the buffer failed"),
            }
        }
        if !shared.gate.is_failed() {
            tidy.join();
        }
        // Whoever still reads ends soon; the lock must not be let go while the engine runs.
        let until = Instant::now() + READERS_END;
        while Arc::strong_count(&store) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(store);
        drop(lock);
        closed.keep((), &mut Wakes::default());
    }
}
