//! The embedded engine through the trait, on real folders.

mod basics;
mod batches;
mod checked;
mod crash;
mod damage;
mod endpoints;
mod erased;
mod format;
mod imports;
mod limits;
mod model;
mod order;
mod queue;
mod retained;
mod sealed;
mod search;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::apply::{Append, Op};
use super::engine::Embedded;
use super::take_in::encode;
use super::*;
use crate::buffer::*;
use crate::clock::{ManualClock, Timestamp};
use crate::message::{Headers, Method, Scheme};
use crate::seal::Keyring;

/// Where the tests' time begins.
pub(super) const START: Timestamp = Timestamp(1_700_000_000_000);

pub(super) fn settings(path: &Path) -> BufferSettings {
    BufferSettings {
        path: path.into(),
        max_size: 1 << 30,
        min_free: 0,
        keep_delivered: Duration::from_secs(3600),
        keep_dead: Duration::from_secs(86_400),
        keep_delivered_bytes: 1 << 30,
        memtable: 16 << 20,
        stall_after: Duration::from_secs(60),
        encryption: Keyring::none(),
        keep_of_routes: Vec::new(),
    }
}

/// A buffer in a folder of its own, with a clock that only moves when told to.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) clock: ManualClock,
    pub(super) settings: BufferSettings,
    pub(super) buffer: Embedded,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }
    pub(super) fn with(change: impl FnOnce(&mut BufferSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path());
        change(&mut settings);
        let clock = ManualClock::at(START);
        let buffer = open_at(&settings, &clock).unwrap();
        Self { folder, clock, settings, buffer }
    }
    pub(super) fn reopen(self) -> Self {
        let Self { folder, clock, settings, buffer } = self;
        drop(buffer);
        let buffer = open_at(&settings, &clock).unwrap();
        Self { folder, clock, settings, buffer }
    }
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
    pub(super) fn event(&self, body: &str) -> Event {
        event(self.now(), body)
    }
    pub(super) async fn stored(&self, body: &str) -> EventId {
        let event = self.event(body);
        let id = event.id;
        assert_eq!(self.buffer.append(event, &[app()], None).await.unwrap(), Appended::Stored);
        id
    }
    pub(super) async fn lease(&self, max: usize) -> Vec<Leased> {
        self.buffer.lease(&app(), max, self.now()).await.unwrap()
    }
    pub(super) async fn lease_one(&self) -> Leased {
        let mut leased = self.lease(1).await;
        leased.pop().expect("one delivery is due")
    }
    pub(super) fn settle(&self, leased: &Leased, next: Next) {
        self.buffer.settle(settlement(leased, self.now(), next)).unwrap();
    }
    /// Waits until all that was told to the buffer is on disk.
    pub(super) async fn settled(&self) {
        self.buffer.sweep().await.unwrap();
    }
    pub(super) async fn state(&self, id: EventId) -> DeliveryState {
        self.deliveries(id).await.remove(0).state
    }
    pub(super) async fn deliveries(&self, id: EventId) -> Vec<Delivery> {
        self.buffer.get(id).await.unwrap().expect("the event is there").1
    }
    pub(super) async fn stats_of(&self, name: &DestinationName) -> DestinationStats {
        let stats = self.buffer.stats().await.unwrap();
        stats.destinations.into_iter().find(|d| d.destination == *name).expect("the destination is known")
    }
}

pub(super) fn open_at(settings: &BufferSettings, clock: &ManualClock) -> Result<Embedded, OpenError> {
    Embedded::open(settings, None, Arc::new(Metrics::default()), Clock::Manual(clock.clone()))
}

pub(super) fn app() -> DestinationName {
    DestinationName::new("hooks", "app")
}
pub(super) fn other() -> DestinationName {
    DestinationName::new("hooks", "other")
}

pub(super) fn event(now: Timestamp, body: &str) -> Event {
    Event {
        id: EventId::new(now),
        route: "hooks".into(),
        received_at: now,
        method: Method::POST,
        target: "/hooks/a%20b?x=1".into(),
        authority: "Hooks.example".into(),
        scheme: Scheme::Https,
        headers: Headers::from_iter([
            ("X-Sig", &b"one"[..]),
            ("x-SIG", b"two"),
            ("Content-Type", b"application/json"),
            ("X-Bin", b"\xff\x00"),
        ]),
        body: body.to_owned().into(),
        source: IpAddr::from([192, 0, 2, 7]),
        verified: "github".into(),
        idempotency_key: Some("key".into()),
        event_type: Some("push".into()),
        origin: Default::default(),
    }
}

pub(super) fn claim(key: u64) -> NewClaim {
    NewClaim {
        key: ClaimKey::new("hooks", &key.to_be_bytes()),
        whose: None,
        window: Duration::from_secs(60),
        answer: FirstAnswer { status: 202, content_type: None, body: "ok".into() },
    }
}

pub(super) fn attempt(at: Timestamp, status: u16) -> Attempt {
    Attempt { at, took_ms: 12, outcome: AttemptOutcome::Answered { status } }
}

pub(super) fn settlement(leased: &Leased, now: Timestamp, next: Next) -> Settlement {
    let status = if next == Next::Delivered { 200 } else { 500 };
    Settlement {
        event_id: leased.event.id,
        destination: leased.destination.clone(),
        token: leased.token,
        attempt: (next != Next::Release).then(|| attempt(now, status)),
        next,
    }
}

/// Copies a folder with all in it.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
