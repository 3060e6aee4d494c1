//! A buffer in memory, and what may stand in it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::NOW;
use crate::buffer::*;
use crate::clock::Timestamp;
use crate::message::{Method, Scheme};

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
    async fn append_batch(&self, batch: NewBatch) -> Result<BatchAppended, AppendError> {
        let stored = batch.events.len();
        for NewPart { event, to, claim } in batch.events {
            self.append(event, &to, claim).await?;
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
