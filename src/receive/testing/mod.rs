//! What the tests of this module share: an exchange, a buffer and an app in memory.

mod app;
mod buffer;
mod exchange;

use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::idempotency::Identity;
use super::{Context, Intake};
use crate::breaker::Breakers;
use crate::buffer::{ClaimKey, DestinationName, Event, EventId};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::endpoints::Endpoints;
use crate::message::{Head, Headers, Method, Scheme, Version};
use crate::pauses::Pauses;
use crate::quarantine::Quarantine;
use crate::telemetry::Metrics;
use crate::upstream::Outgoing;

pub use app::{FakeApp, Says, Script};
pub use buffer::FakeBuffer;
pub use exchange::InMemory;

/// Runs what never has to wait.
pub fn now_or_never<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

pub(super) fn identity(key: &str) -> Identity {
    Identity {
        key: ClaimKey::new("r", key.as_bytes()),
        readable: key.into(),
        window: Duration::from_secs(3600),
    }
}

pub fn head(method: Method, target: &str) -> Head {
    Head {
        method,
        target: target.into(),
        authority: "hooks.example.com".into(),
        asked_authority: None,
        scheme: Scheme::Https,
        version: Version::Http11,
        headers: Headers::default(),
        peer: ([192, 0, 2, 1], 1).into(),
        client: [192, 0, 2, 1].into(),
        local: ([127, 0, 0, 1], 2).into(),
        received_at: Timestamp::from_secs(1_800_000_000),
    }
}

pub fn event() -> Event {
    let head = head(Method::POST, "/");
    Event {
        id: EventId::new(head.received_at),
        route: "r".into(),
        received_at: head.received_at,
        method: head.method,
        target: head.target,
        authority: head.authority,
        scheme: head.scheme,
        headers: head.headers,
        body: Bytes::from_static(b"{}"),
        source: head.client,
        verified: "test".into(),
        idempotency_key: None,
        event_type: None,
        origin: Default::default(),
    }
}

pub fn outgoing() -> Outgoing {
    Outgoing {
        method: Method::POST,
        target: "/".into(),
        headers: Headers::default(),
        affinity: None,
        went_to: None,
    }
}

/// What a request runs in.
pub struct Scene<A> {
    pub upstreams: HashMap<DestinationName, Arc<A>>,
    pub app: Arc<A>,
    pub buffer: FakeBuffer,
    /// None, over a buffer of their own.
    pub endpoints: Endpoints,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub intake: Intake,
    pub breakers: Breakers,
    pub pauses: Pauses,
    /// Off, and on no disk.
    pub quarantine: Quarantine,
}

impl<A> Scene<A> {
    pub fn new(app: A) -> Self {
        let app = Arc::new(app);
        let metrics = Arc::new(Metrics::default());
        Self {
            upstreams: HashMap::from([(DestinationName::new("r", "d"), app.clone())]),
            app,
            buffer: FakeBuffer::default(),
            endpoints: Endpoints::new(Arc::new(FakeBuffer::default()), Clock::System),
            intake: Intake::new(metrics.clone()),
            breakers: Breakers::default(),
            pauses: Pauses::new(Arc::new(FakeBuffer::default())),
            quarantine: Quarantine::new(
                Path::new("/nowhere"),
                Default::default(),
                metrics.clone(),
                Clock::System,
            ),
            metrics,
            clock: Clock::Manual(ManualClock::at(Timestamp::from_secs(1_800_000_000))),
        }
    }

    pub(super) fn context(&self) -> Context<'_, A> {
        Context {
            upstreams: &self.upstreams,
            buffer: &self.buffer,
            metrics: &self.metrics,
            clock: &self.clock,
            intake: &self.intake,
            breakers: &self.breakers,
            pauses: &self.pauses,
            quarantine: &self.quarantine,
            endpoints: &self.endpoints,
            tracer: None,
        }
    }
}
