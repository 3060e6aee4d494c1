//! A buffer in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::buffer::*;
use crate::clock::Timestamp;

/// Events and claims in memory.
#[derive(Debug, Default)]
pub struct FakeBuffer {
    state: Mutex<State>,
    pub lookups: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    stored: Vec<(Event, Vec<DestinationName>)>,
    claims: HashMap<ClaimKey, Claimed>,
    trouble: Trouble,
    backlog: Option<(DestinationName, u64)>,
    endpoints: HashMap<[u8; 32], StoredEndpoint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    Full,
    Failed,
}

impl FakeBuffer {
    pub fn full(&self) {
        self.state.lock().trouble = Trouble::Full;
    }
    pub fn fail(&self) {
        self.state.lock().trouble = Trouble::Failed;
    }
    /// What `stats` says from now on.
    pub fn backlog(&self, destination: &str, count: u64) {
        self.state.lock().backlog = Some((DestinationName(destination.into()), count));
    }
    pub fn stored(&self) -> Vec<EventId> {
        self.state.lock().stored.iter().map(|(event, _)| event.id).collect()
    }
    pub fn events(&self) -> Vec<Event> {
        self.state.lock().stored.iter().map(|(event, _)| event.clone()).collect()
    }
    /// The destinations of each event.
    pub fn went_to(&self) -> Vec<Vec<String>> {
        let names = |to: &[DestinationName]| to.iter().map(ToString::to_string).collect();
        self.state.lock().stored.iter().map(|(_, to)| names(to)).collect()
    }
    pub fn claims(&self) -> usize {
        self.state.lock().claims.len()
    }
}

#[async_trait]
impl Buffer for FakeBuffer {
    async fn append(
        &self,
        event: Event,
        destinations: &[DestinationName],
        claim: Option<NewClaim>,
    ) -> Result<Appended, AppendError> {
        let mut state = self.state.lock();
        match state.trouble {
            Trouble::None => {}
            Trouble::Full => return Err(AppendError::Full("test".into())),
            Trouble::Failed => return Err(AppendError::Unavailable("test".into())),
        }
        if let Some(claim) = claim {
            if let Some(first) = state.claims.get(&claim.key) {
                return Ok(Appended::Duplicate(first.clone()));
            }
            let expires_at = event.received_at.saturating_add(claim.window);
            state.claims.insert(claim.key, Claimed { event_id: event.id, answer: claim.answer, expires_at });
        }
        state.stored.push((event, destinations.to_vec()));
        Ok(Appended::Stored)
    }
    async fn append_batch(&self, batch: NewBatch) -> Result<BatchAppended, AppendError> {
        let NewBatch { id, events, claim } = batch;
        if let Some(claim) = &claim
            && let Some(first) = self.state.lock().claims.get(&claim.key)
        {
            return Ok(BatchAppended::Duplicate(first.clone()));
        }
        let count = events.len();
        let mut stored = 0;
        for NewPart { event, to, claim } in events {
            stored += usize::from(self.append(event, &to, claim).await? == Appended::Stored);
        }
        if let Some(claim) = claim {
            self.claim(claim, id).map_err(|error| AppendError::Unavailable(error.to_string()))?;
        }
        Ok(BatchAppended::Stored { stored, duplicates: count - stored })
    }
    fn may_be_claimed(&self, key: ClaimKey) -> bool {
        let state = self.state.lock();
        state.claims.contains_key(&key) || state.trouble == Trouble::Failed
    }
    async fn claimed(&self, key: ClaimKey) -> Result<Option<Claimed>, BufferError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let state = self.state.lock();
        match state.trouble {
            Trouble::Failed => Err(BufferError::Failed("test".into())),
            _ => Ok(state.claims.get(&key).cloned()),
        }
    }
    fn claim(&self, claim: NewClaim, event_id: EventId) -> Result<(), BufferError> {
        let claimed = Claimed { event_id, answer: claim.answer, expires_at: Timestamp(u64::MAX) };
        self.state.lock().claims.insert(claim.key, claimed);
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
    async fn get(&self, _: EventId) -> Result<Option<(Event, Vec<Delivery>)>, BufferError> {
        Ok(None)
    }
    async fn search(&self, _: Search) -> Result<Page, BufferError> {
        Ok(Page { events: Vec::new(), next: None, examined: 0 })
    }
    async fn step(&self, step: Step) -> Result<Job, BufferError> {
        Ok(step.job)
    }
    async fn jobs(&self) -> Result<Vec<Job>, BufferError> {
        Ok(Vec::new())
    }
    async fn forget_job(&self, _: EventId) -> Result<(), BufferError> {
        Ok(())
    }
    async fn replay(&self, _: Selection) -> Result<u64, BufferError> {
        Ok(0)
    }
    async fn purge(&self, _: Selection) -> Result<u64, BufferError> {
        Ok(0)
    }
    async fn import(&self, _: Event, _: Vec<Delivery>, _: Option<NewClaim>) -> Result<Imported, AppendError> {
        Ok(Imported::Stored)
    }
    async fn scrub(&self) -> Result<(), BufferError> {
        Ok(())
    }
    async fn endpoints(&self) -> Result<Vec<StoredEndpoint>, BufferError> {
        Ok(self.state.lock().endpoints.values().cloned().collect())
    }
    async fn change_endpoints(&self, changes: Vec<EndpointChange>) -> Result<(), BufferError> {
        let mut state = self.state.lock();
        if state.trouble == Trouble::Failed {
            return Err(BufferError::Failed("test".into()));
        }
        for change in changes {
            match change {
                EndpointChange::Put(endpoint) => drop(state.endpoints.insert(endpoint.key, endpoint)),
                EndpointChange::Remove(key) => drop(state.endpoints.remove(&key)),
            }
        }
        Ok(())
    }
    async fn stats(&self) -> Result<Stats, BufferError> {
        let backlog = self.state.lock().backlog.clone();
        let destinations = backlog.into_iter().map(|(destination, backlog)| DestinationStats {
            destination,
            backlog,
            dead: 0,
            oldest: None,
            lanes: Default::default(),
        });
        Ok(Stats { destinations: destinations.collect(), ..Stats::default() })
    }
    fn admission(&self) -> Admission {
        match self.state.lock().trouble {
            Trouble::None => Admission::Open,
            Trouble::Full => Admission::Full("test".into()),
            Trouble::Failed => Admission::Failed("test".into()),
        }
    }
    async fn close(&self) -> Result<(), BufferError> {
        Ok(())
    }
}
