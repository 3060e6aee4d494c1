//! The open buffer: the trait's methods.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::super::Pressure;
use super::super::{
    Admission, Answers, AnswersAsOf, AppendError, Appended, BatchAppended, Beside, Buffer, BufferError,
    ClaimKey, Claimed, Delivery, DestinationName, DestinationStats, EndpointChange, Event, EventFilter,
    EventId, GivenUp, Imported, Job, LaneBy, LaneSearch, LaneStats, Leased, NewBatch, NewClaim, Next, Page,
    Search, Selection, Settlement, Stats, Step, StoredEndpoint, StuckLane, Task, Verified,
};
use super::admission::{Gate, Marks, Space, Want, Watch};
use super::apply::{Op, Settle};
use super::change::{Change, Changed, Only, What};
use super::codec::Counters;
use super::committer::Committer;
use super::directory::Directory;
use super::endpoints::{self, ChangeEndpoints};
use super::inbox::Inbox;
use super::lane::{Lane, Lease};
use super::notes::{self, Note};
use super::retention::Keep;
use super::sealing::{self, Passes};
use super::shared::Shared;
use super::store::Store;
use super::{
    OpenError, apply, claims, give_up, keys, lane, lanes, lease, open, scrub, select, tidy, verify, waiting,
    wire,
};
use crate::clock::{Clock, Timestamp};
use crate::config::BufferSettings;
use crate::telemetry::Metrics;

/// Events that one replay or purge commit works on at most.
const CHANGE_STEP: usize = 256;
/// How long dropping a buffer that was not closed waits for its committer.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// The engine behind the trait.
pub(super) struct Embedded {
    pub(super) shared: Arc<Shared>,
    committer: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    pub(super) fn open(
        settings: &BufferSettings,
        beside: Option<Arc<dyn Beside>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let open::Opened { store, commit, seals, witness, lock } = open::open(settings)?;
        let store = Arc::new(store);
        let damaged = |e: BufferError| OpenError::Damaged {
            path: settings.path.display().to_string(),
            what: e.to_string(),
        };
        let (directory, counters) =
            restore(&store, commit.next_seq, Arc::clone(&metrics)).map_err(damaged)?;
        let keep = Keep::open(settings, &store).map_err(damaged)?;
        let marks = Marks::new(settings);
        let space =
            Space::measure(&store, beside.as_deref(), &marks).map_err(|source| io_error(settings, source))?;
        let shared = Arc::new(Shared {
            store: RwLock::new(Some(Arc::clone(&store))),
            inbox: Inbox::default(),
            gate: Gate::default(),
            watch: Watch::default(),
            want: Want::default(),
            marks: RwLock::new(Arc::new(marks)),
            beside,
            keep,
            stall_after: settings.stall_after,
            directory,
            claims: Mutex::default(),
            forgotten: AtomicU64::new(0),
            filter: Arc::clone(&store.claims),
            keys: store.keys.clone(),
            metrics,
            clock,
            events: AtomicU64::new(commit.events),
            next_seq: AtomicU64::new(commit.next_seq),
            used_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            passes: tokio::sync::Mutex::new(Passes::beginning(seals.is_under_way())),
            seals: Mutex::new(seals),
            scrubbing: tokio::sync::Mutex::default(),
        });
        shared.publish(space);
        shared.gate.set_full(shared.marks().judge(space, false));
        let committer = Committer {
            shared: Arc::clone(&shared),
            store,
            witness,
            lock,
            totals: commit,
            counters,
            synced: commit.commit,
            space,
            measured: Instant::now(),
            appended: 0,
            sweep_at: Instant::now(),
            tidy: tidy::Tidy::new(),
        };
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let committer =
            thread("tidegate-commit").spawn(move || committer.run()).map_err(OpenError::Thread)?;
        let (watched, knowing, sealed) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
        let buffer = Self { shared, committer: Some(committer) };
        thread("tidegate-watch").spawn(move || watched.watch_over()).map_err(OpenError::Thread)?;
        // Until it is done, claims are looked up in the store.
        thread("tidegate-claims").spawn(move || knowing.know_claims()).map_err(OpenError::Thread)?;
        if buffer.shared.seals.lock().is_under_way() {
            thread("tidegate-seal").spawn(move || sealing::run(&sealed)).map_err(OpenError::Thread)?;
        }
        Ok(buffer)
    }

    /// See [`Shared::read`].
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store, &Shared) -> Result<T, BufferError> + Send + 'static,
    ) -> Result<T, BufferError> {
        self.shared.read(read).await
    }

    async fn apply(&self, what: What, events: Vec<EventId>, only: Only) -> Result<Changed, BufferError> {
        self.apply_step(what, events, only, Vec::new(), None).await
    }

    async fn apply_step(
        &self,
        what: What,
        events: Vec<EventId>,
        only: Only,
        answers: Vec<ClaimKey>,
        job: Option<Box<Job>>,
    ) -> Result<Changed, BufferError> {
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::Change(Change { what, events, only, answers, job, done }))?;
        outcome.await.unwrap_or_else(|| Err(BufferError::Failed(self.shared.gate.failure())))
    }

    /// What the committer is to do to these events.
    async fn what(&self, task: &Task, events: &[EventId], only: &Only) -> Result<What, BufferError> {
        Ok(match task {
            Task::Replay => What::Replay,
            Task::ReplayTo { to } => What::ReplayTo(self.shared.lane(to)),
            Task::GiveUp => {
                let (events, only) = (events.to_vec(), only.clone());
                let find = move |store: &Store, shared: &Shared| {
                    let next_seq = shared.next_seq.load(Ordering::Acquire);
                    give_up::find(store, &shared.directory, &events, &only, next_seq)
                };
                What::GiveUp(self.read(find).await?)
            }
            Task::Purge | Task::Erase => What::Purge,
        })
    }

    /// Does something to all that a selection holds, in order of acceptance, step by step.
    async fn change(&self, selection: Selection, task: Task) -> Result<GivenUp, BufferError> {
        self.shared.gate.usable()?;
        let filter = match selection {
            Selection::One(id, filter) => {
                let only = select::only(&self.shared.directory, &filter);
                let what = self.what(&task, &[id], &only).await?;
                let Changed { count, under_way, .. } = self.apply(what, vec![id], only).await?;
                return Ok(GivenUp { count, under_way });
            }
            Selection::Matching(filter) => filter,
        };
        let only = select::only(&self.shared.directory, &filter);
        let mut search = Search::new(filter, CHANGE_STEP).oldest_first();
        search.upto = Some(EventId::last_of(self.shared.clock.now()));
        let mut done = GivenUp::default();
        loop {
            let found = self.search(search.clone()).await?;
            let ids: Vec<_> = found.events.iter().map(|(event, _)| event.id).collect();
            if !ids.is_empty() {
                let what = self.what(&task, &ids, &only).await?;
                let changed = self.apply(what, ids, only.clone()).await?;
                done.count += changed.count;
                done.under_way += changed.under_way;
            }
            match found.next {
                Some(next) => search.after = Some(next),
                None => return Ok(done),
            }
        }
    }

    /// Deletes all that is past its time now, without waiting for the next round.
    #[cfg(test)]
    pub(super) async fn sweep(&self) -> Result<(), BufferError> {
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::Sweep(done))?;
        outcome.await.unwrap_or(Err(BufferError::Closed))
    }
}

/// Destinations and their counters, as on disk.
fn restore(
    store: &Store,
    next_seq: u64,
    metrics: Arc<Metrics>,
) -> Result<(Directory, HashMap<u32, Counters>), BufferError> {
    let directory = Directory::new(metrics);
    let mut counters = HashMap::new();
    for entry in store.scan(keys::name(0), vec![b'N' + 1]) {
        let (key, value) = entry?;
        let unreadable = |what| store.malformed("destination", what, wire::Malformed("can't be read"));
        let id = keys::u32_at(&key, 1).ok_or_else(|| unreadable("key"))?;
        let name = std::str::from_utf8(&value).map_err(|_| unreadable("name"))?;
        let counted = match store.get(&keys::counters(id))? {
            Some(value) => Counters::decode(&value).map_err(|e| store.malformed("counters", name, e))?,
            None => Counters::default(),
        };
        directory.restore(Lane::stored(id, DestinationName(name.into()), counted, next_seq));
        counters.insert(id, counted);
    }
    Ok((directory, counters))
}

fn lane_stats(store: &Store, lane: &Lane) -> Result<LaneStats, BufferError> {
    let (blocked, parked) = (lane.blocked.load(Ordering::Relaxed), lane.parked.load(Ordering::Relaxed));
    let oldest = if blocked + parked == 0 { None } else { lanes::oldest(store, lane)? };
    Ok(LaneStats { blocked, parked, oldest })
}

fn io_error(settings: &BufferSettings, source: std::io::Error) -> OpenError {
    OpenError::Io { path: settings.path.display().to_string(), source }
}

#[async_trait]
impl Buffer for Embedded {
    async fn append(
        &self,
        event: Event,
        destinations: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        let outcome = self.shared.push_event(event, destinations, claim)?;
        outcome.await.unwrap_or_else(|| Err(self.shared.gone()))
    }

    async fn import(
        &self,
        event: Event,
        deliveries: Vec<Delivery>,
        claim: Option<NewClaim>,
    ) -> Result<Imported, AppendError> {
        let outcome = self.shared.push_import(event, deliveries, claim)?;
        outcome.await.unwrap_or_else(|| Err(self.shared.gone()))
    }

    async fn append_batch(&self, batch: NewBatch) -> Result<BatchAppended, AppendError> {
        let outcome = self.shared.push_batch(batch)?;
        outcome.await.unwrap_or_else(|| Err(self.shared.gone()))
    }

    fn may_be_claimed(&self, key: ClaimKey) -> bool {
        self.shared.filter.may_stand(key, self.shared.clock.now().0)
    }

    async fn claimed(&self, key: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        let store = self.shared.store()?;
        let now = self.shared.clock.now();
        let under_way = self.shared.claims.lock().get(&key).cloned();
        // Asked in this order, a claim that gets to disk meanwhile is met in one place or the other.
        let stands = |claim: &Claimed| claim.expires_at > now;
        Ok(store.standing(key, now.0)?.or(under_way.filter(stands)))
    }

    fn claim(&self, claim: NewClaim, event_id: EventId) -> Result<(), BufferError> {
        let (key, now) = (claim.key, self.shared.clock.now());
        let expires_at = now.saturating_add(claim.window);
        // Also of a claim that can't be written: whoever made it remembers it.
        self.shared.filter.insert(key, expires_at.0, now.0);
        self.shared.gate.usable()?;
        let standing = Claimed { event_id, answer: claim.answer.clone(), expires_at };
        self.shared.claims.lock().entry(key).or_insert(standing);
        self.shared.inbox.push(Op::Claim { claim, event_id }).map_err(|refused| {
            self.shared.claims.lock().remove(&key);
            refused.into()
        })
    }

    async fn answers(&self, filter: EventFilter, after: Option<ClaimKey>) -> Result<Answers, BufferError> {
        self.read(move |store, _| claims::find(store, &filter, after)).await
    }

    fn answers_as_of(&self) -> AnswersAsOf {
        AnswersAsOf(self.shared.forgotten.load(Ordering::Acquire))
    }

    async fn lease(
        &self,
        destination: &DestinationName,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, BufferError> {
        self.shared.gate.usable()?;
        let Some(lane) = self.shared.known_lane(destination) else { return Ok(Vec::new()) };
        if let Some(granted) = lease::from_memory(&lane, max, now) {
            return Ok(granted.accept(max));
        }
        let granted = self.read(move |store, _| lease::from_disk(store, &lane, max, now)).await?;
        Ok(granted.accept(max))
    }

    async fn lease_strayed(
        &self,
        destination: &DestinationName,
        max: usize,
        beyond: Timestamp,
    ) -> Result<Vec<Leased>, BufferError> {
        self.shared.gate.usable()?;
        let Some(lane) = self.shared.known_lane(destination) else { return Ok(Vec::new()) };
        if !lease::may_stray(&lane, beyond) {
            return Ok(Vec::new());
        }
        let granted = self.read(move |store, _| lease::strayed(store, &lane, max, beyond)).await?;
        Ok(granted.accept(max))
    }

    async fn next_due(&self, destination: &DestinationName) -> Result<Option<Timestamp>, BufferError> {
        let store = self.shared.store()?;
        match self.shared.known_lane(destination) {
            Some(lane) => lease::next_due(&store, &lane),
            None => Ok(None),
        }
    }

    fn arrivals(&self, destination: &DestinationName) -> Arc<Notify> {
        Arc::clone(&self.shared.lane(destination).arrivals)
    }

    fn settle(&self, settlement: Settlement) -> Result<(), BufferError> {
        self.shared.gate.usable()?;
        let Settlement { event_id, destination, token, attempt, next } = settlement;
        let Some(lane) = self.shared.known_lane(&destination) else { return Ok(()) };
        let place = lease::place(token);
        let mut state = lane.state();
        let op = {
            let held = match state.leases.get(&place) {
                Some(Lease::Out(held)) if held.event.id == event_id => held.clone(),
                // Settled already, or never leased by this process.
                _ => return Ok(()),
            };
            if next == Next::Release {
                state.hand_back(place);
                return Ok(());
            }
            let next = match next {
                // A retry gets a place of its own, even if it is due in the same millisecond as the last one, or as one
                // before it that is still on its way to disk: what becomes of an old place must not touch the new one.
                // Mostly it is due later than the last one; if the clock has been set back it is not.
                Next::Retry(mut at) => {
                    at = at.max(Timestamp(1));
                    while state.knows((at.0, place.1)) {
                        at.0 += 1;
                    }
                    Next::Retry(at)
                }
                next => next,
            };
            let record = apply::settled(&held, attempt, next, self.shared.clock.now());
            state.leases.insert(place, Lease::Settling(held.event.received_at));
            let (siblings, size) = (held.siblings, held.size);
            // Others waited behind it, perhaps more do, and there is nothing else to work on.
            let urgent = held.lane.is_some() && place.0 > 0 && state.starved;
            if let super::super::DeliveryState::Retrying { next_at } = record.state {
                state.retries((next_at.0, place.1), lane::Held { record: Some(record.clone()), ..held });
            }
            Settle { lane: Arc::clone(&lane), place, event: event_id, siblings, size, record, urgent }
        };
        // Before another can lease what it makes due: its settlement must come behind this one.
        let pushed = self.shared.inbox.push(Op::Settle(Box::new(op)));
        drop(state);
        pushed.map_err(Into::into)
    }

    async fn get(&self, id: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError> {
        self.read(move |store, shared| {
            let Some(stored) = store.event(id)? else { return Ok(None) };
            let deliveries = select::deliveries(store, &shared.directory, &stored)?;
            Ok(Some((stored.event, deliveries.into_iter().map(|(_, d)| d).collect())))
        })
        .await
    }

    async fn search(&self, search: Search) -> Result<Page, BufferError> {
        self.read(move |store, shared| select::find(store, &shared.directory, &search)).await
    }

    async fn replay(&self, selection: Selection) -> Result<u64, BufferError> {
        self.change(selection, Task::Replay).await.map(|done| done.count)
    }

    async fn give_up(&self, selection: Selection) -> Result<GivenUp, BufferError> {
        self.change(selection, Task::GiveUp).await
    }

    async fn purge(&self, selection: Selection) -> Result<u64, BufferError> {
        self.change(selection, Task::Purge).await.map(|done| done.count)
    }

    async fn step(&self, step: Step) -> Result<Job, BufferError> {
        self.shared.gate.usable()?;
        let Step { job, events, answers } = step;
        let only = select::only(&self.shared.directory, &job.filter);
        let what = self.what(&job.task, &events, &only).await?;
        let changed = self.apply_step(what, events, only, answers, Some(Box::new(job))).await?;
        // It comes back with what it was sent with.
        changed.job.map(|job| *job).ok_or(BufferError::Closed)
    }

    async fn jobs(&self) -> Result<Vec<Job>, BufferError> {
        self.read(|store, _| store.jobs()).await
    }

    async fn forget_job(&self, id: EventId) -> Result<(), BufferError> {
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::ForgetJob(id, done))?;
        outcome.await.unwrap_or_else(|| Err(BufferError::Failed(self.shared.gate.failure())))
    }

    async fn scrub(&self) -> Result<(), BufferError> {
        scrub::scrub(&self.shared).await
    }

    async fn note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), BufferError> {
        self.shared.gate.usable()?;
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::Note(Note { key: key.to_owned(), value, done }))?;
        let outcome = outcome.await.unwrap_or_else(|| Err(BufferError::Failed(self.shared.gate.failure())));
        outcome.map(|_| ())
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, BufferError> {
        let prefix = prefix.to_owned();
        self.read(move |store, _| notes::all(store, &prefix)).await
    }

    async fn endpoints(&self) -> Result<Vec<StoredEndpoint>, BufferError> {
        let now = self.shared.clock.now();
        self.read(move |store, _| endpoints::all(store, now)).await
    }

    async fn change_endpoints(&self, changes: Vec<EndpointChange>) -> Result<(), BufferError> {
        self.shared.gate.usable()?;
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::Endpoints(ChangeEndpoints { changes, done }))?;
        let written = outcome.await.unwrap_or_else(|| Err(BufferError::Failed(self.shared.gate.failure())));
        written.map(|_| ())
    }

    async fn verify(&self, after: Option<EventId>) -> Result<Verified, BufferError> {
        self.read(move |store, _| verify::page(store, after)).await
    }

    async fn compact(&self) -> Result<(), BufferError> {
        self.shared.gate.usable()?;
        let _alone = self.shared.scrubbing.lock().await;
        self.read(tidy::free).await
    }

    async fn adopt(&self, settings: &BufferSettings) -> Result<(), BufferError> {
        sealing::rekey(&self.shared, &settings.encryption).await?;
        self.shared.keep.adopt(settings);
        self.shared.set_marks(Marks::new(settings));
        Ok(())
    }

    async fn stats(&self) -> Result<Stats, BufferError> {
        self.read(|store, shared| {
            let destinations = shared
                .directory
                .all()
                .into_iter()
                .map(|lane| {
                    let backlog = lane.backlog.load(Ordering::Relaxed);
                    let oldest = if backlog == 0 { None } else { lease::oldest(store, &lane)? };
                    Ok(DestinationStats {
                        destination: lane.name.clone(),
                        backlog,
                        dead: lane.dead.load(Ordering::Relaxed),
                        oldest,
                        lanes: lane_stats(store, &lane)?,
                    })
                })
                .collect::<Result<_, BufferError>>()?;
            Ok(Stats {
                destinations,
                events: shared.events.load(Ordering::Relaxed),
                disk_bytes: shared.used_bytes.load(Ordering::Relaxed),
                max_bytes: shared.marks().max,
                free_bytes: shared.free_bytes.load(Ordering::Relaxed),
                sealing: shared.seals.lock().stats(shared.events.load(Ordering::Relaxed)),
            })
        })
        .await
    }

    fn order(&self, by: Vec<(DestinationName, Arc<dyn LaneBy>)>) {
        let mut unordered = self.shared.directory.all();
        for (name, by) in by {
            unordered.retain(|lane| lane.name != name);
            *self.shared.lane(&name).order.write() = Some(by);
        }
        unordered.iter().for_each(|lane| *lane.order.write() = None);
    }

    async fn lanes(&self, search: LaneSearch) -> Result<Vec<StuckLane>, BufferError> {
        self.read(move |store, shared| lanes::stuck(store, &shared.directory, &search)).await
    }

    fn admission(&self) -> Admission {
        self.shared.gate.admission()
    }

    fn needs_restart(&self) -> bool {
        self.shared.want.is_over()
    }

    fn pressure(&self) -> Pressure {
        self.shared.watch.pressure(self.shared.stall_after)
    }

    async fn close(&self) -> Result<(), BufferError> {
        let (done, outcome) = waiting::pair();
        match self.shared.inbox.push(Op::Close(done)) {
            Ok(()) => self.shared.closed(outcome).await,
            Err(_) => Err(BufferError::Closed),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let (done, _) = waiting::pair();
        // Refused only if it is closed or closing already.
        let _ = self.shared.inbox.push(Op::Close(done));
        let Some(committer) = self.committer.take() else { return };
        let until = Instant::now() + DROP_PATIENCE;
        while !committer.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !committer.is_finished() {
            tracing::error!("the buffer's disk hangs: the process ends without its last commit");
        }
    }
}
