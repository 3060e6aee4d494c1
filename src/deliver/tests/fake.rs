//! A buffer in memory that checks how it is used, and an app that does what a test says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::buffer::*;
use crate::clock::{Clock, Timestamp};
use crate::config::{Batch, Destination};
use crate::deliver::Seams;
use crate::deliver::batch::BatchAnswered;
use crate::deliver::classify::Answered;
use crate::deliver::worker::App;
use crate::message::{Headers, Method, Scheme};
use crate::pauses::Pauses;
use crate::trace::Span;
use crate::upstream::UpstreamError;
use crate::upstream::batch::Part;

/// Wall time that moves with tokio's paused time.
pub(crate) fn clock() -> Clock {
    Clock::Tokio { began: tokio::time::Instant::now(), at: Timestamp::from_secs(1_764_000_000) }
}

/// All that deliveries meet, fresh but for the buffer and the clock.
pub(crate) fn seams(buffer: Arc<dyn Buffer>, clock: &Clock) -> Seams {
    let pauses = Pauses::new(buffer.clone()).watch();
    Seams {
        buffer,
        breakers: Arc::default(),
        pauses,
        metrics: Arc::default(),
        clock: clock.clone(),
        tracer: None,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub event: Arc<Event>,
    pub since: Timestamp,
    pub attempts: Vec<Attempt>,
    pub state: State,
    pub lane: Option<LaneKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Due(Timestamp),
    Leased { token: LeaseToken },
    Delivered,
    Dead(DeadReason),
}

/// One destination's queue.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub entries: Mutex<BTreeMap<u64, Entry>>,
    by_id: Mutex<HashMap<EventId, u64>>,
    arrivals: Arc<Notify>,
    pub lease_calls: AtomicUsize,
    /// Lanes that a dead letter holds.
    parked: Mutex<BTreeMap<LaneKey, u64>>,
}

impl Memory {
    pub fn add(&self, now: Timestamp, body: &'static [u8]) -> EventId {
        self.add_to(None, now, body)
    }
    pub fn add_to(&self, lane: Option<LaneKey>, now: Timestamp, body: &'static [u8]) -> EventId {
        let mut entries = self.entries.lock();
        let n = entries.len() as u64;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        let id = EventId(id);
        let event = Arc::new(event(id, now, body));
        let state = State::Due(Timestamp(0));
        entries.insert(n, Entry { event, since: now, attempts: Vec::new(), state, lane });
        self.by_id.lock().insert(id, n);
        self.arrivals.notify_one();
        id
    }
    pub fn fill(&self, events: usize, now: Timestamp, body: &'static [u8]) {
        for _ in 0..events {
            self.add(now, body);
        }
    }
    /// The first of a lane that is not done with.
    pub fn first_of(&self, lane: LaneKey) -> Option<EventId> {
        let entries = self.entries.lock();
        let is_open = |entry: &&Entry| matches!(entry.state, State::Due(_) | State::Leased { .. });
        entries.values().filter(|entry| entry.lane == Some(lane)).find(is_open).map(|entry| entry.event.id)
    }
    /// As an operator does: what is leased is left alone. Whether it did something.
    pub fn give_up(&self, id: EventId) -> bool {
        let n = self.by_id.lock()[&id];
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&n).unwrap();
        let holds = entry.lane.filter(|lane| self.parked.lock().get(lane) == Some(&n));
        if let Some(lane) = holds {
            self.parked.lock().remove(&lane);
        } else if let State::Due(_) = entry.state {
            entry.state = State::Dead(DeadReason::ByOperator);
        } else {
            return false;
        }
        self.arrivals.notify_one();
        true
    }
    /// Replays the dead letters that hold their lanes: they come first.
    pub fn unpark(&self, now: Timestamp) {
        let mut entries = self.entries.lock();
        for (_, n) in std::mem::take(&mut *self.parked.lock()) {
            let entry = entries.get_mut(&n).unwrap();
            (entry.state, entry.since) = (State::Due(Timestamp(0)), now);
            entry.attempts.clear();
        }
        self.arrivals.notify_one();
    }
    pub fn entry(&self, id: EventId) -> Entry {
        self.entries.lock()[&self.by_id.lock()[&id]].clone()
    }
    pub fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.entries.lock().values().filter(|entry| is(&entry.state)).count()
    }
    pub fn settled(&self) -> bool {
        self.count(|state| matches!(state, State::Due(_) | State::Leased { .. })) == 0
    }
    pub async fn until_settled(&self) {
        while !self.settled() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What may be leased: of each lane its first, if nothing holds it.
fn heads<'a>(
    entries: &'a BTreeMap<u64, Entry>,
    parked: &BTreeMap<LaneKey, u64>,
) -> impl Iterator<Item = (u64, &'a Entry)> {
    let mut seen: HashSet<LaneKey> = parked.keys().copied().collect();
    entries.iter().filter_map(move |(n, entry)| {
        let is_open = matches!(entry.state, State::Due(_) | State::Leased { .. });
        (is_open && entry.lane.is_none_or(|lane| seen.insert(lane))).then_some((*n, entry))
    })
}

fn event(id: EventId, now: Timestamp, body: &'static [u8]) -> Event {
    Event {
        id,
        route: "route".into(),
        received_at: now,
        method: Method::POST,
        target: "/hook?x=%20".into(),
        authority: "hooks.example".into(),
        scheme: Scheme::Https,
        headers: [("Host", &b"hooks.example"[..]), ("X-SIG", b"\xff")].into_iter().collect::<Headers>(),
        body: body.into(),
        source: IpAddr::from([192, 0, 2, 1]),
        verified: "none".into(),
        idempotency_key: None,
        event_type: None,
        origin: Default::default(),
    }
}

#[async_trait]
impl Buffer for Memory {
    async fn lease(
        &self,
        destination: &DestinationName,
        max: usize,
        now: Timestamp,
    ) -> Result<Vec<Leased>, BufferError> {
        let calls = self.lease_calls.fetch_add(1, Ordering::SeqCst);
        let mut entries = self.entries.lock();
        let mut due: Vec<(Timestamp, u64)> = heads(&entries, &self.parked.lock())
            .filter_map(|(n, entry)| match entry.state {
                State::Due(at) if at <= now => Some((at, n)),
                _ => None,
            })
            .collect();
        due.sort();
        due.truncate(max);
        Ok(due
            .into_iter()
            .filter_map(|(_, n)| {
                let entry = entries.get_mut(&n)?;
                let token = LeaseToken::for_tests(calls as u64, n);
                entry.state = State::Leased { token };
                Some(Leased {
                    event: entry.event.clone(),
                    destination: destination.clone(),
                    attempts: entry.attempts.len() as u32,
                    since: entry.since,
                    lane: entry.lane,
                    token,
                })
            })
            .collect())
    }

    async fn next_due(&self, _: &DestinationName) -> Result<Option<Timestamp>, BufferError> {
        let next = |entry: &Entry| match entry.state {
            State::Due(at) => Some(at),
            _ => None,
        };
        Ok(heads(&self.entries.lock(), &self.parked.lock()).filter_map(|(_, entry)| next(entry)).min())
    }

    fn arrivals(&self, _: &DestinationName) -> Arc<Notify> {
        self.arrivals.clone()
    }

    fn settle(&self, settlement: Settlement) -> Result<(), BufferError> {
        let n = self.by_id.lock()[&settlement.event_id];
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&n).unwrap();
        assert_eq!(entry.state, State::Leased { token: settlement.token }, "settled once, by its holder");
        entry.attempts.extend(settlement.attempt);
        if let (Next::Parked(_), Some(lane)) = (settlement.next, entry.lane) {
            assert_eq!(self.parked.lock().insert(lane, n), None, "one holds a lane");
        }
        let lane_goes_on = entry.lane.is_some() && matches!(settlement.next, Next::Delivered | Next::Dead(_));
        entry.state = match settlement.next {
            Next::Delivered => State::Delivered,
            Next::Dead(reason) | Next::Parked(reason) => State::Dead(reason),
            Next::Retry(at) => State::Due(at),
            Next::Release => State::Due(Timestamp(0)),
        };
        if lane_goes_on {
            self.arrivals.notify_one();
        }
        Ok(())
    }

    async fn append(
        &self,
        _: Event,
        _: &[DestinationName],
        _: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    async fn append_batch(&self, _: NewBatch) -> Result<BatchAppended, AppendError> {
        unimplemented!()
    }
    async fn claimed(&self, _: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        unimplemented!()
    }
    fn claim(&self, _: NewClaim, _: EventId) -> Result<(), BufferError> {
        unimplemented!()
    }
    async fn get(&self, _: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError> {
        unimplemented!()
    }
    async fn search(&self, _: Search) -> Result<Page, BufferError> {
        unimplemented!()
    }
    async fn step(&self, _: Step) -> Result<Job, BufferError> {
        unimplemented!()
    }
    async fn jobs(&self) -> Result<Vec<Job>, BufferError> {
        unimplemented!()
    }
    async fn forget_job(&self, _: EventId) -> Result<(), BufferError> {
        unimplemented!()
    }
    async fn replay(&self, _: Selection) -> Result<u64, BufferError> {
        unimplemented!()
    }
    async fn purge(&self, _: Selection) -> Result<u64, BufferError> {
        unimplemented!()
    }
    async fn import(&self, _: Event, _: Vec<Delivery>, _: Option<NewClaim>) -> Result<Imported, AppendError> {
        unimplemented!()
    }
    async fn scrub(&self) -> Result<(), BufferError> {
        unimplemented!()
    }
    async fn stats(&self) -> Result<Stats, BufferError> {
        unimplemented!()
    }
    /// Kept by nobody.
    async fn note(&self, _: &str, _: Option<Vec<u8>>) -> Result<(), BufferError> {
        Ok(())
    }
    fn admission(&self) -> Admission {
        Admission::Open
    }
    async fn close(&self) -> Result<(), BufferError> {
        Ok(())
    }
}

pub(crate) type Result2 = Result<Answered, UpstreamError>;
type Doing = Pin<Box<dyn Future<Output = Result2> + Send>>;

/// An app that counts, and otherwise does what a closure says for (event, attempt number).
#[derive(Clone)]
pub(crate) struct Simulated {
    does: Arc<dyn Fn(EventId, u32) -> Doing + Send + Sync>,
    pub seen: Arc<Seen>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub calls: AtomicUsize,
    pub now: AtomicUsize,
    pub most: AtomicUsize,
}

impl Simulated {
    pub fn new<F, Fut>(does: F) -> Self
    where
        F: Fn(EventId, u32) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result2> + Send + 'static,
    {
        Self { does: Arc::new(move |id, number| Box::pin(does(id, number))), seen: Arc::default() }
    }
    pub fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }
    pub fn most_at_once(&self) -> usize {
        self.seen.most.load(Ordering::SeqCst)
    }
}

/// Leaves, however the attempt ends.
struct Inside(Arc<Seen>);
impl Drop for Inside {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl App for Simulated {
    async fn attempt(&self, _: &Destination, event: &Event, number: u32, _: Option<&Span>) -> Result2 {
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(now, Ordering::SeqCst);
        let _inside = Inside(self.seen.clone());
        (self.does)(event.id, number).await
    }

    /// A batch is as good as its worst event.
    async fn batch(
        &self,
        _: &Destination,
        settings: &Batch,
        events: &[Part<'_>],
        _: Option<&Span>,
    ) -> Result<BatchAnswered, UpstreamError> {
        assert!(!events.is_empty() && events.len() <= settings.max_events);
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(now, Ordering::SeqCst);
        let _inside = Inside(self.seen.clone());
        let mut answered = Answered { status: 200, retry_after: None };
        // All begin with the request.
        let begun: Vec<_> = events.iter().map(|part| (self.does)(part.event.id, part.attempt)).collect();
        for one in begun {
            let own = one.await?;
            answered.status = answered.status.max(own.status);
        }
        Ok(BatchAnswered { answered, body: Vec::new(), cut: false })
    }
}

pub(crate) fn status(status: u16) -> Result2 {
    Ok(Answered { status, retry_after: None })
}
