//! The open buffer: the trait's methods, and what all parts share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fjall::Slice;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::super::Pressure;
use super::super::{
    Admission, AppendError, Appended, BatchAppended, Beside, Buffer, BufferError, ClaimKey, Claimed,
    Delivery, DestinationName, DestinationStats, EndpointChange, Event, EventId, Imported, Job, LaneBy,
    LaneSearch, LaneStats, Leased, NewBatch, NewClaim, Next, Page, Search, Selection, Settlement, Stats,
    Step, StoredEndpoint, StuckLane, Task, Verified,
};
use super::admission::{Gate, Marks, Space, Want, Watch};
use super::apply::{Append, Change, Changed, Import, Note, Only, Op, Settle, What};
use super::batch::{self, AppendBatch};
use super::codec::Counters;
use super::committer::{Committer, Inbox};
use super::directory::Directory;
use super::endpoints::{self, ChangeEndpoints};
use super::filter::Filter;
use super::lane::{Lane, Lease, Target};
use super::retention::Keep;
use super::sealing::Seals;
use super::store::Store;
use super::{
    OpenError, apply, codec, keys, lane, lanes, lease, open, panic_text, scrub, sealing, select, tidy,
    verify, waiting, wire,
};
use crate::clock::{Clock, Timestamp};
use crate::config::BufferSettings;
use crate::seal::Keyring;
use crate::telemetry::Metrics;

/// Events that one replay or purge commit works on at most.
const CHANGE_STEP: usize = 256;
/// Longest event in bytes, headers included. The engine takes values of up to 4 GiB.
const MAX_EVENT: usize = 1 << 30;
/// Between two looks whether a volume without room has some again.
const ROOM_EVERY: Duration = Duration::from_secs(1);
/// How long dropping a buffer that was not closed waits for its committer.
const DROP_PATIENCE: Duration = Duration::from_secs(10);

/// What all parts of an open buffer share.
pub(super) struct Shared {
    /// Taken out on close.
    pub(super) store: RwLock<Option<Arc<Store>>>,
    pub(super) inbox: Inbox,
    pub(super) gate: Gate,
    pub(super) watch: Watch,
    pub(super) want: Want,
    pub(super) marks: Marks,
    /// Counts against the marks, and gives way.
    pub(super) beside: Option<Arc<dyn Beside>>,
    pub(super) keep: Keep,
    pub(super) stall_after: Duration,
    pub(super) directory: Directory,
    /// Claims without an event on their way to disk.
    pub(super) claims: Mutex<HashMap<ClaimKey, Claimed>>,
    /// Which claims may stand.
    pub(super) filter: Arc<Filter>,
    pub(super) keys: Keyring,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Published by the committer.
    pub(super) events: AtomicU64,
    pub(super) next_seq: AtomicU64,
    pub(super) used_bytes: AtomicU64,
    pub(super) free_bytes: AtomicU64,
    /// As of the last step of sealing anew.
    pub(super) seals: Mutex<Seals>,
    /// Held by a scrub.
    pub(super) scrubbing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn store(&self) -> Result<Arc<Store>, BufferError> {
        self.store.read().clone().ok_or(BufferError::Closed)
    }

    /// Runs a read that may block on the disk where it holds nobody up.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Store, &Shared) -> Result<T, BufferError> + Send + 'static,
    ) -> Result<T, BufferError> {
        let shared = Arc::clone(self);
        let store = shared.store()?;
        let outcome = tokio::task::spawn_blocking(move || read(&store, &shared)).await;
        match outcome {
            Ok(outcome) => outcome,
            // The engine panics on some damage; that is the caller's to hear, not to die of.
            Err(error) if error.is_panic() => {
                Err(BufferError::Damaged(format!("the engine gave up: {}", panic_text(&*error.into_panic()))))
            }
            Err(_) => Err(BufferError::Closed),
        }
    }

    /// Poisons the buffer.
    pub(super) fn fail(&self, why: &str) {
        if self.gate.fail(why) {
            tracing::error!(%why, "the buffer has failed and takes no new events until a restart; what was acknowledged is kept");
            self.metrics.buffer_trouble("write_failed");
        }
    }

    pub(super) fn publish(&self, space: Space) {
        self.used_bytes.store(space.used, Ordering::Relaxed);
        self.free_bytes.store(space.free, Ordering::Relaxed);
    }

    /// The lane of a destination, if anything is known of it.
    pub(super) fn known_lane(&self, name: &DestinationName) -> Option<Arc<Lane>> {
        self.directory.find(&name.0)
    }

    pub(super) fn lane(&self, name: &DestinationName) -> Arc<Lane> {
        self.directory.lane(name, || self.next_seq.load(Ordering::Acquire))
    }

    /// Those of several destinations, each once.
    fn lanes(&self, destinations: &[DestinationName]) -> Vec<Arc<Lane>> {
        let mut lanes: Vec<Arc<Lane>> = Vec::with_capacity(destinations.len());
        for name in destinations {
            let lane = self.lane(name);
            if !lanes.iter().any(|known| known.id == lane.id) {
                lanes.push(lane);
            }
        }
        lanes
    }

    /// Where an event's deliveries go.
    fn targets(&self, lanes: &[Arc<Lane>], event: &Event) -> Vec<Target> {
        let target =
            |lane: &Arc<Lane>| Target { lane: Arc::clone(lane), key: lane.key_of(event, &self.metrics) };
        lanes.iter().map(target).collect()
    }

    /// Fills the filter of claims with those of earlier processes.
    fn know_claims(&self) {
        let Ok(store) = self.store() else { return };
        if let Err(error) = store.know_claims(self.clock.now().0, || self.gate.is_closed()) {
            tracing::error!(%error, "not all claims could be read; each is looked up on disk");
        }
    }

    /// Watches over commits until the buffer is closed: one that hangs is loud, and nothing new is taken meanwhile.
    pub(super) fn watch_over(&self) {
        let look = (self.stall_after / 4).clamp(Duration::from_millis(5), Duration::from_millis(500));
        let mut looked = Instant::now();
        while !self.gate.is_closed() {
            std::thread::park_timeout(look);
            if self.gate.is_failed() && looked.elapsed() >= ROOM_EVERY {
                self.want.look(&self.marks);
                looked = Instant::now();
            }
            let stalled = self.watch.running().filter(|running| *running >= self.stall_after);
            let why =
                stalled.map(|running| format!("a commit has been running for {} ms", running.as_millis()));
            if self.gate.set_stalled(why.clone()) {
                match why {
                    Some(why) => {
                        tracing::error!(%why, "the buffer's disk hangs: nothing new is taken until it returns");
                        self.metrics.buffer_trouble("stalled");
                    }
                    None => tracing::warn!("the commit that hung has returned"),
                }
            }
        }
    }
}

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
            marks,
            beside,
            keep,
            stall_after: settings.stall_after,
            directory,
            claims: Mutex::default(),
            filter: Arc::clone(&store.claims),
            keys: store.keys.clone(),
            metrics,
            clock,
            events: AtomicU64::new(commit.events),
            next_seq: AtomicU64::new(commit.next_seq),
            used_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(0),
            seals: Mutex::new(seals),
            scrubbing: tokio::sync::Mutex::default(),
        });
        shared.publish(space);
        shared.gate.set_full(shared.marks.judge(space, false));
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

    async fn apply(
        &self,
        what: What,
        events: Vec<EventId>,
        only: Only,
        job: Option<Box<Job>>,
    ) -> Result<Changed, BufferError> {
        let (done, outcome) = waiting::pair();
        self.shared.inbox.push(Op::Change(Change { what, events, only, job, done }))?;
        outcome.await.unwrap_or_else(|| Err(BufferError::Failed(self.shared.gate.failure())))
    }

    /// Applies a replay or purge to all that a selection holds, in order of acceptance, step by step.
    async fn change(&self, selection: Selection, what: What) -> Result<u64, BufferError> {
        self.shared.gate.usable()?;
        let filter = match selection {
            Selection::One(id, filter) => {
                let only = select::only(&self.shared.directory, &filter);
                return Ok(self.apply(what, vec![id], only, None).await?.count);
            }
            Selection::Matching(filter) => filter,
        };
        let only = select::only(&self.shared.directory, &filter);
        let mut search = Search::new(filter, CHANGE_STEP).oldest_first();
        search.upto = Some(EventId::last_of(self.shared.clock.now()));
        let mut count = 0;
        loop {
            let found = self.search(search.clone()).await?;
            let ids: Vec<_> = found.events.iter().map(|(event, _)| event.id).collect();
            if !ids.is_empty() {
                count += self.apply(what.clone(), ids, only.clone(), None).await?.count;
            }
            match found.next {
                Some(next) => search.after = Some(next),
                None => return Ok(count),
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

thread_local! {
    /// Reused between appends of a thread, so that encoding allocates once, in the end's size.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of the scratch that a thread keeps.
const SCRATCH_KEPT: usize = 256 * 1024;

pub(super) fn encode(event: &Event, lanes: &[Arc<Lane>], keys: &Keyring) -> Result<Slice, AppendError> {
    SCRATCH.with_borrow_mut(|scratch| {
        let written = codec::encode_event(scratch, event, lanes.iter().map(|lane| lane.id), keys);
        let encoded = Slice::from(scratch.as_slice());
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT);
        match written {
            Ok(()) => Ok(encoded),
            Err(error) => Err(AppendError::Unavailable(error.to_string())),
        }
    })
}

#[async_trait]
impl Buffer for Embedded {
    async fn append(
        &self,
        event: Event,
        destinations: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        self.shared.gate.admit()?;
        let lanes = self.shared.lanes(destinations);
        let encoded = encode(&event, &lanes, &self.shared.keys)?;
        if encoded.len() > MAX_EVENT {
            return Err(AppendError::Unavailable(format!("an event of {} bytes is too long", encoded.len())));
        }
        let (done, outcome) = waiting::pair();
        let targets = self.shared.targets(&lanes, &event);
        let append = Append { event: Arc::new(event), encoded, targets, claim, queued: Instant::now(), done };
        self.shared.inbox.push(Op::Append(Box::new(append)))?;
        match outcome.await {
            Some(outcome) => outcome,
            None => Err(AppendError::Unavailable(self.shared.gate.failure())),
        }
    }

    async fn import(
        &self,
        event: Event,
        deliveries: Vec<Delivery>,
        claim: Option<NewClaim>,
    ) -> Result<Imported, AppendError> {
        self.shared.gate.admit()?;
        let mut known: Vec<(Arc<Lane>, Delivery)> = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            let lane = self.shared.lane(&delivery.destination);
            if !known.iter().any(|(of, _)| of.id == lane.id) {
                known.push((lane, delivery));
            }
        }
        let lanes: Vec<Arc<Lane>> = known.iter().map(|(lane, _)| Arc::clone(lane)).collect();
        let encoded = encode(&event, &lanes, &self.shared.keys)?;
        if encoded.len() > MAX_EVENT {
            return Err(AppendError::Unavailable(format!("an event of {} bytes is too long", encoded.len())));
        }
        let (done, outcome) = waiting::pair();
        let target = |(lane, delivery): (Arc<Lane>, Delivery)| {
            let key = lane.key_of(&event, &self.shared.metrics);
            (Target { lane, key }, delivery)
        };
        let deliveries = known.into_iter().map(target).collect();
        let import = Import { event, encoded, deliveries, claim, done };
        self.shared.inbox.push(Op::Import(Box::new(import)))?;
        match outcome.await {
            Some(outcome) => outcome,
            None => Err(AppendError::Unavailable(self.shared.gate.failure())),
        }
    }

    async fn append_batch(
        &self,
        batch: NewBatch,
        destinations: &[DestinationName],
    ) -> Result<BatchAppended, AppendError> {
        self.shared.gate.admit()?;
        let lanes = self.shared.lanes(destinations);
        let NewBatch { id, events, claim } = batch;
        let part = |(event, claim): (Event, Option<NewClaim>)| {
            let encoded = encode(&event, &lanes, &self.shared.keys)?;
            let targets = self.shared.targets(&lanes, &event);
            Ok(batch::Part { event: Arc::new(event), encoded, targets, claim })
        };
        let events: Vec<batch::Part> = events.into_iter().map(part).collect::<Result<_, AppendError>>()?;
        let (done, outcome) = waiting::pair();
        let append = AppendBatch { events, claim, id, queued: Instant::now(), done };
        if append.bytes() > batch::MAX_BYTES {
            return Err(AppendError::Unavailable(format!("a batch of {} bytes is too long", append.bytes())));
        }
        self.shared.inbox.push(Op::AppendBatch(Box::new(append)))?;
        match outcome.await {
            Some(outcome) => outcome,
            None => Err(AppendError::Unavailable(self.shared.gate.failure())),
        }
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
        let op = {
            let mut state = lane.state();
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
                // A retry gets a place of its own, even if it is due in the same millisecond as the last one: what
                // becomes of the old place must not touch the new one. It is due earlier than the last one was if the
                // clock has been set back.
                Next::Retry(at) if at.0 == place.0 => Next::Retry(Timestamp(place.0.saturating_add(1))),
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
        self.shared.inbox.push(Op::Settle(Box::new(op))).map_err(Into::into)
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
        self.change(selection, What::Replay).await
    }

    async fn purge(&self, selection: Selection) -> Result<u64, BufferError> {
        self.change(selection, What::Purge).await
    }

    async fn step(&self, step: Step) -> Result<Job, BufferError> {
        self.shared.gate.usable()?;
        let Step { job, events } = step;
        let what = match &job.task {
            Task::Replay => What::Replay,
            Task::ReplayTo { to } => What::ReplayTo(self.shared.lane(to)),
            Task::Purge | Task::Erase => What::Purge,
        };
        let only = select::only(&self.shared.directory, &job.filter);
        let changed = self.apply(what, events, only, Some(Box::new(job))).await?;
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
        let from = keys::note(prefix);
        self.read(move |store, _| {
            let mut notes = Vec::new();
            for entry in store.scan(from.clone(), vec![b'M' + 1]) {
                let (key, value) = entry?;
                if !key.starts_with(&from) {
                    break;
                }
                let name = std::str::from_utf8(&key[1..])
                    .map_err(|_| store.malformed("note", "", wire::Malformed("its key is no text")))?;
                notes.push((name.to_owned(), value.to_vec()));
            }
            Ok(notes)
        })
        .await
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
        self.read(|store, shared| {
            tidy::free(store, shared).map_err(|e| store.failed("store", "compaction", e))
        })
        .await
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
                max_bytes: shared.marks.max,
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
            Ok(()) => outcome.await.ok_or(BufferError::Closed),
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
