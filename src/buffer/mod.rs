//! The buffer: the durable store of events and their deliveries, behind one trait.
//!
//! Here live the trait, its words (`event.rs`) and its engines (`embedded/`). What a request or an HTTP answer is
//! stays outside. Carries promise 1 (a 2xx means on disk, synced), the atomic half of promise 3 (claim and append are
//! one write) and, for storage, promise 5 (bounded).

pub mod embedded;
mod event;
mod job;
mod order;
mod search;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Timestamp;
use crate::config::BufferSettings;
use crate::seal::Keyring;

pub use event::*;
pub use job::*;
pub use order::*;
pub use search::*;

/// A durable store of events and deliveries. All methods may be called from any task; none blocks the caller's
/// thread for longer than a memory-resident lookup.
#[async_trait]
pub trait Buffer: Send + Sync + 'static {
    /// Stores an event with one pending delivery a destination, and its claim, as one atomic write, and returns once
    /// that write is synced. If the claim stands already, nothing is stored.
    async fn append(
        &self,
        event: Event,
        destinations: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Result<Appended, AppendError>;

    /// Stores an event that came from another buffer, with its deliveries and its claim, as one atomic write. What
    /// waited there is due here at once; what was settled stays so. Nothing is stored if it is here already, or if its
    /// claim stands for another event.
    async fn import(
        &self,
        event: Event,
        deliveries: Vec<Delivery>,
        claim: Option<NewClaim>,
    ) -> Result<Imported, AppendError>;

    /// Stores the events of one request, each with its claim and one pending delivery a destination, and the request's
    /// own claim, as one atomic write, and returns once that write is synced. Events whose claim stands already are left
    /// out; if the request's stands, nothing is stored. All or nothing survives a crash.
    async fn append_batch(&self, batch: NewBatch) -> Result<BatchAppended, AppendError>;

    /// Whether a claim of `key` may stand. Asked for every request, so it must be cheap: no lookup on disk. It may say
    /// yes of a key that was never claimed, and never says no of one for which `append` or `claim` was called.
    fn may_be_claimed(&self, key: ClaimKey) -> bool {
        // An engine that can't tell this cheaply is asked each time.
        let _ = key;
        true
    }

    /// The standing claim of `key`, if any (expired ones do not stand).
    async fn claimed(&self, key: ClaimKey) -> Result<Option<Claimed>, BufferError>;

    /// Makes a claim without an event (`proxy` and `spill`, after the app's success). It stands at once, is written within
    /// some 25 ms, and synced with the next event that is: a crash of the process before the one, or of the machine before
    /// the other, forgets it, and then a repeat reaches the app again, as another event. Nobody waits for either.
    fn claim(&self, claim: NewClaim, event_id: EventId) -> Result<(), BufferError>;

    /// Claims whose answers an erase by this filter takes away, from behind `after` on, for a bounded time: answers of
    /// apps alone.
    async fn answers(&self, filter: EventFilter, after: Option<ClaimKey>) -> Result<Answers, BufferError> {
        let _ = (filter, after);
        Ok(Answers::default())
    }

    /// As of when a claim says what it does: who remembers one asks before it looks, and forgets it once this has
    /// changed, because its answer may have been erased since. Asked for every repeat, so it must be cheap.
    fn answers_as_of(&self) -> AnswersAsOf {
        AnswersAsOf(0)
    }

    /// Up to `max` deliveries of `destination` that are due at `now`, in order of acceptance (retries by due time),
    /// leased to the caller: no later call returns them until they are settled or this process ends.
    async fn lease(
        &self,
        destination: &DestinationName,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, BufferError>;

    /// Leases up to `max` retries of `destination` that are due after `beyond`: later than any is put off, so the clock has been
    /// set back since they were. Costs next to nothing while there are none.
    async fn lease_strayed(
        &self,
        destination: &DestinationName,
        max: usize,
        beyond: Timestamp,
    ) -> Result<Vec<Leased>, BufferError> {
        let _ = (destination, max, beyond);
        Ok(Vec::new())
    }

    /// When the next retry of `destination` that is not leased becomes due; `None` if nothing waits for a time.
    async fn next_due(&self, destination: &DestinationName) -> Result<Option<Timestamp>, BufferError>;

    /// Is notified when `destination` gets a new pending delivery (append, replay).
    fn arrivals(&self, destination: &DestinationName) -> Arc<Notify>;

    /// Ends a lease. Written soon, not synced: a crash repeats the delivery, it never loses one.
    fn settle(&self, settlement: Settlement) -> Result<(), BufferError>;

    /// An event with all its deliveries.
    async fn get(&self, id: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError>;

    /// A page of events that match, without headers and bodies.
    async fn search(&self, search: Search) -> Result<Page, BufferError>;

    /// Makes the matching deliveries pending again with a fresh retry budget. Returns how many. Durable on return.
    async fn replay(&self, selection: Selection) -> Result<u64, BufferError>;

    /// Gives the matching deliveries up that are pending or retrying: each becomes a dead letter, and its lane goes on
    /// with the next; so does one that a matching dead letter holds. What is leased at that moment is left alone: its
    /// settlement decides. Durable on return.
    async fn give_up(&self, selection: Selection) -> Result<GivenUp, BufferError> {
        let _ = selection;
        Err(BufferError::Failed("this buffer can't give deliveries up".into()))
    }

    /// Deletes the matching events for good (never one with a delivery still under way). Returns how many.
    async fn purge(&self, selection: Selection) -> Result<u64, BufferError>;

    /// Does a step of a job: changes its events and writes the job down, with what came of it, as one atomic write.
    /// Durable on return; returns the job as it was written.
    async fn step(&self, step: Step) -> Result<Job, BufferError>;

    /// All jobs that were written down, the oldest first.
    async fn jobs(&self) -> Result<Vec<Job>, BufferError>;

    /// Forgets a job.
    async fn forget_job(&self, id: EventId) -> Result<(), BufferError>;

    /// Makes sure that nothing of what was deleted before is left in the buffer's files. Reads and writes all that it
    /// holds: for minutes, if that is much.
    async fn scrub(&self) -> Result<(), BufferError>;

    /// All records of clients' URLs that have not ended. There are few (see `crate::endpoints::MAX`): for the start.
    async fn endpoints(&self) -> Result<Vec<StoredEndpoint>, BufferError> {
        Ok(Vec::new())
    }

    /// Writes and removes records of clients' URLs, all of them or none. Durable on return. Records that have ended go
    /// by themselves.
    async fn change_endpoints(&self, _: Vec<EndpointChange>) -> Result<(), BufferError> {
        Err(BufferError::Failed("this buffer keeps no clients' URLs".into()))
    }

    /// Reads what is stored from behind `after` on, for a bounded time, and says what can't be read.
    async fn verify(&self, after: Option<EventId>) -> Result<Verified, BufferError> {
        let _ = after;
        Err(BufferError::Failed("this buffer can't be verified".into()))
    }

    /// Gives the space of what was deleted back. Reads and writes much.
    async fn compact(&self) -> Result<(), BufferError> {
        Ok(())
    }

    /// From now on new deliveries of exactly these destinations go in lanes; those that wait already stay as they are.
    /// Within a lane a delivery is leased only when the one before it is settled.
    fn order(&self, by: Vec<(DestinationName, Arc<dyn LaneBy>)>) {
        // An engine without lanes delivers without order.
        let _ = by;
    }

    /// Lanes that stand still.
    async fn lanes(&self, search: LaneSearch) -> Result<Vec<StuckLane>, BufferError> {
        let _ = search;
        Ok(Vec::new())
    }

    /// Goes over to what a new config says, as far as a running engine can: how long what is kept, limits, keys. All of it or
    /// nothing; what needs a restart is left as it was.
    async fn adopt(&self, settings: &BufferSettings) -> Result<(), BufferError> {
        let _ = settings;
        Ok(())
    }

    /// Counts and sizes, cheap enough for every scrape.
    async fn stats(&self) -> Result<Stats, BufferError>;

    /// Whether new events are taken right now, and if not, why.
    fn admission(&self) -> Admission;

    /// Whether it has failed in a way that a restart would mend by now: the volume had no room, and has some again.
    fn needs_restart(&self) -> bool {
        false
    }

    /// Keeps a small record of another part's (a pause, …) until it is replaced, or with `None` removed. `key` begins
    /// with that part's own prefix. Durable on return.
    async fn note(&self, key: &str, value: Option<Vec<u8>>) -> Result<(), BufferError> {
        let _ = (key, value);
        Err(BufferError::Failed("this engine keeps no notes".into()))
    }

    /// All notes whose keys begin with `prefix`, in the order of their keys.
    async fn notes(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, BufferError> {
        let _ = prefix;
        Ok(Vec::new())
    }

    /// How far the disk lags behind. Asked for every request, so it must be cheap.
    fn pressure(&self) -> Pressure {
        Pressure::None
    }

    /// Finishes what is queued, syncs and closes. Later calls fail with [`BufferError::Closed`].
    async fn close(&self) -> Result<(), BufferError>;
}

/// How far the disk lags behind what is to be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    #[default]
    None,
    /// Some new work should give way.
    Some,
    /// All new work should give way, so that what was taken in gets through.
    Much,
}

/// What else is kept in the buffer's folder. Its bytes count against the buffer's limits, and it gives way to events.
pub trait Beside: Send + Sync + std::fmt::Debug + 'static {
    /// Bytes on disk.
    fn bytes(&self) -> u64;
    /// Is called when the buffer comes to its limits: gives at least these many bytes back, or all that it has, and
    /// takes nothing new for a while.
    fn give_way(&self, bytes: u64);
    /// From now on this is sealed with other keys; all of those that anything is sealed under are among them.
    fn rekey(&self, keys: &Keyring) {
        let _ = keys;
    }
    /// Seals anew what is not under the key that seals now. May block on the disk.
    ///
    /// # Errors
    ///
    /// Those of the disk: then something may still be under another key.
    fn reseal(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The outcome of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    Stored,
    /// It is here already.
    Present,
    /// Its key was claimed by this event.
    Duplicate(EventId),
}

/// A due delivery in the hands of a worker.
#[derive(Clone, Debug)]
pub struct Leased {
    pub event: Arc<Event>,
    pub destination: DestinationName,
    /// Attempts before this one, since acceptance or the last replay.
    pub attempts: u32,
    /// When the retry budget began.
    pub since: Timestamp,
    /// The lane that it goes first in, if it goes in order.
    pub lane: Option<LaneKey>,
    /// The engine's own handle of the queue entry.
    pub token: LeaseToken,
}

/// Opaque to all but the engine that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    pub(in crate::buffer) due: u64,
    pub(in crate::buffer) seq: u64,
}

#[cfg(test)]
impl LeaseToken {
    /// For buffers that other areas' tests make up.
    pub(crate) const fn for_tests(due: u64, seq: u64) -> Self {
        Self { due, seq }
    }
}

/// The record of a client's URL. What it says is not the buffer's to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEndpoint {
    /// The hash of what stands in the URL.
    pub key: [u8; 32],
    /// From then on it is as if it were not there.
    pub until: Option<Timestamp>,
    pub value: Vec<u8>,
}

/// A change of the records of clients' URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// Takes the place of what stands under the same key.
    Put(StoredEndpoint),
    Remove([u8; 32]),
}

/// What became of a lease.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub event_id: EventId,
    pub destination: DestinationName,
    pub token: LeaseToken,
    /// The attempt that was made; `None` if none was (a lease handed back).
    pub attempt: Option<Attempt>,
    pub next: Next,
}

/// Where a settled delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    /// Due again at this time.
    Retry(Timestamp),
    /// Its lane goes on, if it has one.
    Dead(DeadReason),
    /// Dead, and its lane waits until an operator replays or purges it.
    Parked(DeadReason),
    /// Due again at once, nothing charged.
    Release,
}

/// What came of giving deliveries up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Deliveries given up, and dead letters that hold their lanes no longer.
    pub count: u64,
    /// Deliveries that were leased and so were left alone.
    pub under_way: u64,
}

/// What `replay`, `give_up` and `purge` work on.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// One event's deliveries, those that meet the filter's conditions on deliveries; its other conditions are about
    /// events and do not count here.
    One(EventId, EventFilter),
    Matching(EventFilter),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    pub destinations: Vec<DestinationStats>,
    /// Events in the store, whatever their state.
    pub events: u64,
    /// Bytes on disk, journal and garbage included.
    pub disk_bytes: u64,
    /// The limit that `disk_bytes` is held against.
    pub max_bytes: u64,
    /// Free bytes on the volume.
    pub free_bytes: u64,
    /// `None` where nothing is sealed.
    #[serde(default)]
    pub sealing: Option<SealingStats>,
}

/// Under which keys events are sealed on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingStats {
    /// The id of the key that new events are sealed under; `None`: they are plain.
    pub key: Option<String>,
    /// The ids of all keys that something may still be sealed under: the config must have them.
    pub needed: Vec<String>,
    /// Events that are not yet known to be under `key`.
    pub events_left: u64,
    /// What is being sealed anew: `events`, `records`, or `files` (what is left of old ones); `None`: all is under `key`.
    pub stage: Option<String>,
}

/// What was found when a part of the buffer was read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Events read, and their bytes as stored.
    pub events: u64,
    pub bytes: u64,
    /// Of those that can be read, by route.
    pub routes: BTreeMap<String, RouteHolds>,
    /// Events by the key that they are sealed under; `plain` for those that are not.
    pub keys: BTreeMap<String, u64>,
    pub damaged: Vec<Damage>,
    /// Pass as `after` to go on; `None` at the end.
    pub next: Option<EventId>,
}

/// What of a route is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteHolds {
    pub events: u64,
    pub bytes: u64,
    /// When the oldest of them was received.
    pub oldest: Option<Timestamp>,
}

/// Something that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// `None`: not of one event alone.
    pub event: Option<EventId>,
    pub what: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationStats {
    pub destination: DestinationName,
    /// Pending and retrying.
    pub backlog: u64,
    pub dead: u64,
    /// When the oldest delivery that is pending or retrying was accepted.
    pub oldest: Option<Timestamp>,
    #[serde(default)]
    pub lanes: LaneStats,
}

/// Whether new events are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// At the high-water mark; opens by itself when space is free again.
    Full(String),
    /// A write or sync failed (or one hangs): nothing is taken until a restart (or until it returns).
    Failed(String),
    Closed,
}

/// Why an event was not stored. Nothing of it is kept, and its claim is not made.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the buffer is full: {0}")]
    Full(String),
    #[error("the buffer takes no events: {0}")]
    Unavailable(String),
}

/// Why the buffer could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    #[error("the buffer is closed")]
    Closed,
    #[error("the buffer has failed: {0}")]
    Failed(String),
    /// There is no room for what was asked; the text says how much it takes.
    #[error("no room: {0}")]
    NoSpace(String),
    /// What was asked can't be done as things are; the text says what to do first.
    #[error("{0}")]
    Refused(String),
    /// A stored record can't be read; the text names what and where.
    #[error("damaged: {0}")]
    Damaged(String),
}
