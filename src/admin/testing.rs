//! A gateway in memory, and its admin API on real sockets, for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::alerts::{AlertsStatus, Tested};
use crate::breaker::{BreakerStatus, Phase, Transitions};
use crate::buffer::*;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config::{AdminAddress, AdminSettings};
use crate::endpoints::Endpoints;
use crate::gateway::{LastReload, NotReady, ReloadOutcome, Reloaded};
use crate::jobs::Jobs;
use crate::keys::KeySetStatus;
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

mod memory;

pub use memory::{Memory, dead, event, pending};

pub const NOW: Timestamp = Timestamp(1_764_000_000_000);

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
            unknown_names: 0,
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
