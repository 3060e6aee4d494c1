//! A gateway in memory, and its admin API on real sockets, for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::alerts::{AlertsStatus, Tested};
use crate::breaker::{BreakerStatus, Phase, Transitions};
use crate::buffer::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config::{AdminAddress, AdminSettings};
use crate::endpoints::Endpoints;
use crate::gateway::{LastReload, NotReady, ReloadOutcome, Reloaded};
use crate::jobs::Jobs;
use crate::keys::KeySetStatus;
use crate::message::{Method, Scheme};
use crate::pauses::Paused;
use crate::quarantine::{Item, Quarantine};
use crate::ranges::{RangesStatus, Source};
use crate::receive::testing::FakeBuffer;
use crate::receive::{self, Force, Recheck};
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::tenants::Needs;
use crate::upstream::ServerStatus;
use crate::verify::CredentialPlaces;

use super::control::{Control, EndpointRoute, NoEndpoints};
use super::guard::Place;
use super::listen;
use super::redact::Redact;
use super::views::{DestinationSetup, ListenerSetup, RouteSetup, Setup};

pub const NOW: Timestamp = Timestamp(1_764_000_000_000);

/// Events in the order of acceptance.
#[derive(Default)]
pub struct Memory {
    pub events: Mutex<Vec<(Event, Vec<Delivery>)>>,
    pub failed: Mutex<Option<&'static str>>,
    pub jobs: Mutex<Vec<Job>>,
}

impl Memory {
    fn check(&self) -> Result<(), BufferError> {
        match *self.failed.lock() {
            Some(why) => Err(BufferError::Failed(why.into())),
            None => Ok(()),
        }
    }
}

fn meets(filter: &EventFilter, (event, deliveries): &(Event, Vec<Delivery>)) -> bool {
    let EventFilter { route, destination, state, event_type, since, until, .. } = filter;
    let delivery = |d: &Delivery| {
        destination.as_ref().is_none_or(|n| *n == *d.destination.0)
            && state.as_ref().is_none_or(|s| *s == d.state.word())
    };
    route.as_ref().is_none_or(|r| *r == *event.route)
        && event_type.as_ref().is_none_or(|t| Some(t) == event.event_type.as_ref())
        && since.is_none_or(|t| event.received_at >= t)
        && until.is_none_or(|t| event.received_at < t)
        && ((destination.is_none() && state.is_none()) || deliveries.iter().any(delivery))
}

fn selected(selection: &Selection, stored: &(Event, Vec<Delivery>)) -> bool {
    match selection {
        Selection::One(id, only) => stored.0.id == *id && meets(only, stored),
        Selection::Matching(filter) => meets(filter, stored),
    }
}

#[async_trait]
impl Buffer for Memory {
    async fn append(
        &self,
        event: Event,
        destinations: &[DestinationName],
        _: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        let deliveries =
            destinations.iter().map(|d| delivery(&d.0, DeliveryState::Pending, vec![])).collect();
        self.events.lock().push((event, deliveries));
        Ok(Appended::Stored)
    }
    async fn append_batch(
        &self,
        batch: NewBatch,
        destinations: &[DestinationName],
    ) -> Result<BatchAppended, AppendError> {
        let stored = batch.events.len();
        for (event, claim) in batch.events {
            self.append(event, destinations, claim).await?;
        }
        Ok(BatchAppended::Stored { stored, duplicates: 0 })
    }
    async fn claimed(&self, _: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        Ok(None)
    }
    fn claim(&self, _: NewClaim, _: EventId) -> Result<(), BufferError> {
        Ok(())
    }
    async fn lease(&self, _: &DestinationName, _: usize, _: Timestamp) -> Result<Vec<Leased>, BufferError> {
        Ok(Vec::new())
    }
    async fn next_due(&self, _: &DestinationName) -> Result<Option<Timestamp>, BufferError> {
        Ok(None)
    }
    fn arrivals(&self, _: &DestinationName) -> Arc<Notify> {
        Arc::default()
    }
    fn settle(&self, _: Settlement) -> Result<(), BufferError> {
        Ok(())
    }
    async fn get(&self, id: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError> {
        self.check()?;
        Ok(self.events.lock().iter().find(|(event, _)| event.id == id).cloned())
    }
    async fn search(&self, search: Search) -> Result<Page, BufferError> {
        self.check()?;
        let Search { filter, order, after, limit, .. } = search;
        let events = self.events.lock();
        let mut ordered: Vec<_> = events.iter().filter(|stored| meets(&filter, stored)).collect();
        if order == Order::NewestFirst {
            ordered.reverse();
        }
        let mut behind = ordered.into_iter();
        if let Some(after) = after {
            behind.by_ref().find(|(event, _)| event.id == after);
        }
        let page: Vec<_> =
            behind.by_ref().take(limit).map(|(event, of)| (Head::from(event), of.clone())).collect();
        let next = behind.next().and_then(|_| page.last().map(|(event, _)| event.id));
        Ok(Page { examined: page.len() as u64, events: page, next })
    }
    async fn step(&self, step: Step) -> Result<Job, BufferError> {
        self.check()?;
        let Step { mut job, events, .. } = step;
        for id in events {
            let one = Selection::One(id, job.filter.of_deliveries());
            job.changed += match job.task {
                Task::Replay | Task::ReplayTo { .. } => self.replay(one).await?,
                Task::GiveUp => self.give_up(one).await?.count,
                Task::Purge | Task::Erase => self.purge(one).await?,
            };
        }
        let mut jobs = self.jobs.lock();
        jobs.retain(|known| known.id != job.id);
        jobs.push(job.clone());
        Ok(job)
    }
    async fn jobs(&self) -> Result<Vec<Job>, BufferError> {
        Ok(self.jobs.lock().clone())
    }
    async fn forget_job(&self, id: EventId) -> Result<(), BufferError> {
        self.jobs.lock().retain(|job| job.id != id);
        Ok(())
    }
    async fn replay(&self, selection: Selection) -> Result<u64, BufferError> {
        self.check()?;
        let mut replayed = 0;
        for stored in self.events.lock().iter_mut().filter(|stored| selected(&selection, stored)) {
            for delivery in &mut stored.1 {
                if matches!(delivery.state, DeliveryState::Dead { .. } | DeliveryState::Delivered { .. }) {
                    delivery.state = DeliveryState::Pending;
                    replayed += 1;
                }
            }
        }
        Ok(replayed)
    }
    async fn purge(&self, selection: Selection) -> Result<u64, BufferError> {
        self.check()?;
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|stored| !selected(&selection, stored));
        Ok((before - events.len()) as u64)
    }
    async fn import(
        &self,
        event: Event,
        deliveries: Vec<Delivery>,
        _: Option<NewClaim>,
    ) -> Result<Imported, AppendError> {
        let mut events = self.events.lock();
        if events.iter().any(|(known, _)| known.id == event.id) {
            return Ok(Imported::Present);
        }
        events.push((event, deliveries));
        Ok(Imported::Stored)
    }
    async fn scrub(&self) -> Result<(), BufferError> {
        Ok(())
    }
    async fn stats(&self) -> Result<Stats, BufferError> {
        self.check()?;
        let events = self.events.lock();
        let mut destinations: Vec<DestinationStats> = Vec::new();
        for (event, deliveries) in events.iter() {
            for delivery in deliveries {
                let place = destinations.iter().position(|d| d.destination == delivery.destination);
                let place = place.unwrap_or_else(|| {
                    destinations.push(DestinationStats {
                        destination: delivery.destination.clone(),
                        backlog: 0,
                        dead: 0,
                        oldest: None,
                        lanes: LaneStats::default(),
                    });
                    destinations.len() - 1
                });
                let of = &mut destinations[place];
                match delivery.state {
                    DeliveryState::Pending | DeliveryState::Retrying { .. } => {
                        of.backlog += 1;
                        of.oldest = of.oldest.or(Some(event.received_at));
                    }
                    DeliveryState::Dead { .. } => of.dead += 1,
                    DeliveryState::Delivered { .. } => {}
                }
            }
        }
        Ok(Stats {
            destinations,
            events: events.len() as u64,
            disk_bytes: 4096,
            max_bytes: 10 << 30,
            free_bytes: 50 << 30,
            sealing: None,
        })
    }
    fn admission(&self) -> Admission {
        match *self.failed.lock() {
            Some(why) => Admission::Failed(why.into()),
            None => Admission::Open,
        }
    }
    async fn close(&self) -> Result<(), BufferError> {
        Ok(())
    }
}

fn delivery(destination: &str, state: DeliveryState, history: Vec<Attempt>) -> Delivery {
    let attempts = u32::try_from(history.len()).unwrap();
    let destination = DestinationName(destination.into());
    Delivery { destination, state, attempts, since: NOW, parks: false, history }
}

/// An event of route `billing`, received `secs` after [`NOW`].
pub fn event(secs: u64, event_type: &str, body: &[u8]) -> Event {
    let received_at = Timestamp(NOW.0 + secs * 1000);
    Event {
        id: EventId::new(received_at),
        route: "billing".into(),
        received_at,
        method: Method::POST,
        target: "/hooks/stripe?token=very-secret&x=1".into(),
        authority: "hooks.example.com".into(),
        scheme: Scheme::Https,
        headers: [
            ("Stripe-Signature", &b"t=1,v1=abc"[..]),
            ("Authorization", b"Bearer very-secret"),
            ("X-Shop", b"very-secret"),
            ("X-Bytes", b"\xff"),
        ]
        .into_iter()
        .collect(),
        body: Bytes::copy_from_slice(body),
        source: [192, 0, 2, 1].into(),
        verified: "stripe".into(),
        idempotency_key: Some("evt_1".into()),
        event_type: Some(event_type.into()),
        origin: Default::default(),
    }
}

pub fn dead(event: Event) -> (Event, Vec<Delivery>) {
    let attempt = |ms, outcome| Attempt { at: Timestamp(event.received_at.0 + ms), took_ms: 7, outcome };
    let history = vec![
        attempt(10, AttemptOutcome::Failed { error: "connect: connection refused".into() }),
        attempt(900, AttemptOutcome::Answered { status: 410 }),
    ];
    let state = DeliveryState::Dead { at: event.received_at, reason: DeadReason::GivenUp };
    let deliveries = vec![delivery("billing/legacy", state, history)];
    (event, deliveries)
}

pub fn pending(event: Event) -> (Event, Vec<Delivery>) {
    (event, vec![delivery("billing/legacy", DeliveryState::Pending, vec![])])
}

/// What stands in for the gateway.
pub struct Fake {
    pub memory: Arc<Memory>,
    buffer: Arc<dyn Buffer>,
    jobs: Jobs,
    metrics: Arc<Metrics>,
    clock: Clock,
    pub quarantine: Arc<Quarantine>,
    endpoints: Endpoints,
    pub token: Mutex<Option<Secret>>,
    pub not_ready: Mutex<Vec<String>>,
    pub hash: Mutex<String>,
    /// What the next reload finds.
    pub next: Mutex<Result<&'static str, &'static str>>,
    pub paused: Mutex<Paused>,
}

impl Fake {
    pub fn new(events: Vec<(Event, Vec<Delivery>)>) -> Arc<Self> {
        let memory = Arc::new(Memory { events: Mutex::new(events), ..Memory::default() });
        let clock = Clock::Manual(ManualClock::at(Timestamp(NOW.0 + 60_000)));
        Arc::new(Self {
            buffer: memory.clone(),
            jobs: Jobs::new(memory.clone(), clock.clone()),
            endpoints: Endpoints::new(Arc::new(FakeBuffer::default()), Clock::System),
            memory,
            metrics: Arc::default(),
            clock,
            quarantine: Arc::new(Quarantine::new(
                Path::new("/nowhere"),
                Default::default(),
                Arc::default(),
                Clock::System,
            )),
            token: Mutex::default(),
            not_ready: Mutex::default(),
            hash: Mutex::new("0123456789abcdef".into()),
            next: Mutex::new(Err("tidegate.yaml:3:5: routes[0].path: missing")),
            paused: Mutex::default(),
        })
    }
    pub fn with_token(self: Arc<Self>, token: &str) -> Arc<Self> {
        *self.token.lock() = Some(Secret::new(token.as_bytes().to_vec()));
        self
    }
}

#[async_trait]
impl Control for Fake {
    fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }
    fn claim_of(&self, event: &Event) -> Result<Option<NewClaim>, String> {
        match &*event.route {
            "billing" => Ok(None),
            other => Err(format!("the running config has no route `{other}`")),
        }
    }
    fn jobs(&self) -> &Jobs {
        &self.jobs
    }
    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn readiness(&self) -> NotReady {
        self.not_ready.lock().clone()
    }
    fn token(&self) -> Option<Secret> {
        self.token.lock().clone()
    }
    fn setup(&self) -> Setup {
        Setup {
            config_hash: self.hash.lock().clone(),
            admin: "127.0.0.1:9900".into(),
            listeners: vec![ListenerSetup { address: "0.0.0.0:8443".into(), tls: true }],
            routes: vec![RouteSetup {
                name: "billing".into(),
                host: None,
                path: "/hooks/stripe".into(),
                methods: vec!["POST".into()],
                mode: "buffer".into(),
                verification: "on".into(),
                destinations: vec![DestinationSetup {
                    name: "billing/legacy".into(),
                    upstreams: vec!["http://127.0.0.1:3000".into()],
                    concurrency: 16,
                    rate: Some("50/s".into()),
                }],
            }],
        }
    }
    fn redact(&self, route: &str) -> Redact {
        let headers = match route {
            "billing" => vec!["stripe-signature".into(), "x-shop".into()],
            _ => Vec::new(),
        };
        Redact::new(headers, CredentialPlaces::default())
    }
    async fn reload(&self) -> Result<Reloaded, String> {
        let hash = (*self.next.lock())?;
        *self.hash.lock() = hash.into();
        Ok(Reloaded { hash: hash.into(), warnings: vec!["verify: none on `open`".into()] })
    }
    fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }
    async fn recheck(&self, _: &Item) -> Recheck {
        Recheck::NoRoute
    }
    async fn admit(&self, _: &Item, _: Force) -> receive::Admission {
        receive::Admission::NoRoute
    }
    fn last_reload(&self) -> Option<LastReload> {
        let outcome = ReloadOutcome::Refused { problem: "tidegate.yaml:3:5: missing".into() };
        Some(LastReload { at: NOW, outcome })
    }
    fn servers(&self) -> Vec<(DestinationName, Vec<ServerStatus>)> {
        Vec::new()
    }
    fn paused(&self) -> Paused {
        self.paused.lock().clone()
    }
    async fn pause(&self, name: &str) -> Result<bool, BufferError> {
        Ok(Arc::make_mut(&mut *self.paused.lock()).insert(name.into(), NOW).is_none())
    }
    async fn resume(&self, name: &str) -> Result<bool, BufferError> {
        Ok(Arc::make_mut(&mut *self.paused.lock()).remove(name).is_some())
    }
    fn closed(&self) -> Vec<(DestinationName, Timestamp)> {
        Vec::new()
    }
    fn breakers(&self) -> Vec<BreakerStatus> {
        vec![BreakerStatus {
            destination: DestinationName::new("billing", "legacy"),
            phase: Phase::Open,
            since: Some(Duration::from_secs(60)),
            next_probe: Some(Duration::from_secs(12)),
            why: Some("connect: connection refused".into()),
            transitions: Transitions::default(),
        }]
    }
    fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }
    fn endpoint_route(&self, route: &str) -> Result<EndpointRoute, NoEndpoints> {
        match route {
            "partners" => Ok(EndpointRoute {
                path: "/in/{endpoint}".into(),
                origin: Some("https://hooks.example.com".into()),
                needs: Needs::Secret,
            }),
            "billing" => Err(NoEndpoints::NotAsked),
            _ => Err(NoEndpoints::NoRoute { near: Some("partners".into()) }),
        }
    }
    fn order_key(&self, _: &DestinationName, event: &Event) -> Option<String> {
        event.idempotency_key.clone()
    }
    fn expiries(&self) -> Vec<(Arc<str>, crate::verify::Expiry)> {
        let at = vec!["secrets".into(), "0".into()];
        let until = self.now().saturating_add(Duration::from_secs(60));
        vec![("hooks".into(), crate::verify::Expiry { name: "old".into(), at, until })]
    }
    fn key_sets(&self) -> Vec<KeySetStatus> {
        vec![KeySetStatus {
            url: "https://id.example.com/jwks".into(),
            keys: 2,
            fetched_at: Some(NOW),
            age_s: Some(60),
            error: Some("the server answered 503".into()),
            alarming: true,
        }]
    }
    fn alerts(&self) -> AlertsStatus {
        AlertsStatus { gateway: "edge-1".into(), firing: Vec::new(), targets: Vec::new() }
    }
    async fn test_alerts(&self) -> Vec<Tested> {
        vec![Tested {
            target: "ops".into(),
            by: "slack".into(),
            error: Some("the server answered 404".into()),
        }]
    }
    fn ranges(&self) -> Vec<RangesStatus> {
        vec![RangesStatus {
            provider: "acme".into(),
            ranges: 3,
            source: Source::List,
            as_of: NOW,
            age_s: 60,
            list: Some("https://acme.example/ips.json".into()),
            error: None,
            refused: None,
        }]
    }
}

/// An admin API that runs until it is dropped.
pub struct Served {
    pub place: Place,
    pub shutdown: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub fn on_loopback(fake: Arc<Fake>) -> Self {
        Self::start(fake, AdminAddress::Tcp(([127, 0, 0, 1], 0).into())).unwrap()
    }

    pub fn on_unix(fake: Arc<Fake>, path: &Path) -> Result<Self, String> {
        Self::start(fake, AdminAddress::Unix(path.to_owned()))
    }

    pub fn start(fake: Arc<Fake>, listen: AdminAddress) -> Result<Self, String> {
        let settings = AdminSettings { listen, token: fake.token() };
        let (shutdown, is_down) = watch::channel(false);
        let (opened, place) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                match super::open(&settings).await {
                    Ok(socket) => {
                        let socket = socket.unwrap();
                        // Fails with a buffer that a test has made to fail.
                        let _ = fake.jobs.start(Arc::new(|_| Box::new(|_| false))).await;
                        opened.send(Ok(socket.place())).unwrap();
                        listen::run(socket, fake, is_down).await;
                    }
                    Err(error) => opened.send(Err(error)).unwrap(),
                }
            });
        });
        Ok(Self { place: place.recv().unwrap()?, shutdown, thread: Some(thread) })
    }

    pub fn address(&self) -> String {
        match self.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix => panic!("not on TCP"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.shutdown.send(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the API panicked");
        }
    }
}
