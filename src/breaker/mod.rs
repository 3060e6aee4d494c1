//! The circuit breaker of each destination: when an app is spared, and how it gets its work back.
//!
//! It only ever pauses (promise 6): a breaker holds deliveries and refuses inline requests for a while, and never
//! disables a route or discards an event. `state` is the pure machine, `window` counts for it; here the machines have
//! names, their changes are logged (and what is open is `kept` over restarts), and a try that ends without a word (dropped, panicked) gives its place back.
//! Who works on a destination (`deliver`, and `receive` for inline routes) asks for a [`Permit`] before each try.

mod kept;
mod state;
mod window;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::buffer::DestinationName;
use crate::clock::Timestamp;
use crate::config::BreakerSettings;
use crate::upstream::UpstreamError;

use state::{Change, State, Ticket};
pub use state::{Charge, Outcome, Phase, Room};

/// All breakers of the process. They outlive reloads, as the destinations' tasks do: there are as many as destinations
/// that were ever configured.
#[derive(Debug)]
pub struct Breakers {
    all: RwLock<HashMap<DestinationName, Arc<Breaker>>>,
    /// Told of each that opens or closes.
    changes: watch::Sender<()>,
}

impl Default for Breakers {
    fn default() -> Self {
        Self { all: RwLock::default(), changes: watch::channel(()).0 }
    }
}

impl Breakers {
    /// The breaker of a destination, made with its first use.
    pub fn of(&self, name: &DestinationName) -> Arc<Breaker> {
        if let Some(breaker) = self.all.read().get(name) {
            return breaker.clone();
        }
        let new = || Arc::new(Breaker::new(name.clone(), self.changes.clone()));
        self.all.write().entry(name.clone()).or_insert_with(new).clone()
    }

    /// How all of them stand, by name.
    pub fn status(&self) -> Vec<BreakerStatus> {
        let mut all: Vec<_> = self.all.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.iter().map(|breaker| breaker.status()).collect()
    }
}

/// How a breaker stands at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerStatus {
    pub destination: DestinationName,
    pub phase: Phase,
    /// How long it has stood so; `None` if it was never open.
    pub since: Option<Duration>,
    /// Until the next probe may begin; `None` if nothing is held back.
    pub next_probe: Option<Duration>,
    /// Why it opened; `None` if it is closed.
    pub why: Option<String>,
    pub transitions: Transitions,
}

impl BreakerStatus {
    /// Since when it stands so; `None` if it was never open.
    pub fn since_when(&self, now: Timestamp) -> Option<Timestamp> {
        Some(now.saturating_sub(self.since?))
    }
}

/// Changes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transitions {
    pub opened: u64,
    pub half_opened: u64,
    pub closed: u64,
}

/// One destination's breaker. Its settings come with each call, so that a reload holds at once.
#[derive(Debug)]
pub struct Breaker {
    name: DestinationName,
    changes: watch::Sender<()>,
    /// Told whenever more, or something else, may be tried than before.
    turned: Notify,
    inner: Mutex<Inner>,
}

/// Inline requests at the end of a slow start: beyond it they are as many as senders send.
const MOST_INLINE: usize = 16;
/// How long an inline request that a slow start has no room for is to wait.
const NO_ROOM_YET: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// Inline tries under way.
    inline: usize,
    /// What the failure was that opened it.
    why: String,
    transitions: Transitions,
}

impl Breaker {
    fn new(name: DestinationName, changes: watch::Sender<()>) -> Self {
        Self { name, changes, turned: Notify::new(), inner: Mutex::default() }
    }

    /// Opens it, as it has been for so long before this process.
    fn reopen(&self, open_for: Duration, why: &str) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        // A clock that counts from the machine's start may not reach back so far.
        inner.state.reopen(now.checked_sub(open_for).unwrap_or(now), now);
        inner.why = why.to_owned();
    }

    /// How many tries may be under way, of the `most` that the config allows. `settings` is `None` where the breaker is
    /// `off`: then only the gateway's own failures pause.
    pub fn room(&self, settings: Option<&BreakerSettings>, most: usize) -> Room {
        self.inner.lock().state.room(settings, most, Instant::now())
    }

    /// The share of the destination's rate that it may get now, above 0 and at most 1: less than 1 in a slow start.
    pub fn strength(&self, settings: Option<&BreakerSettings>) -> f64 {
        self.inner.lock().state.strength(settings, Instant::now())
    }

    /// Resolves when the breaker has opened, closed, or lost a probe, or is to probe now. For the one who works on the
    /// destination: others would take its wakes.
    pub async fn turned(&self) {
        self.turned.notified().await;
    }

    /// There is reason to hope that the app is well again (a health check, an operator): if it is open, the next try
    /// probes at once.
    pub fn probe_soon(&self, why: &str) {
        if self.inner.lock().state.probe_soon(Instant::now()) {
            tracing::info!(destination = %self.name, why, "the breaker probes before its time");
            self.turned.notify_one();
        }
    }

    /// Leave for one try, or for how long there is none.
    pub fn admit(self: &Arc<Self>, settings: Option<&BreakerSettings>) -> Result<Permit, Duration> {
        self.admit_as(Kind::Delivery, settings)
    }

    /// The same for a request that its sender waits for. Nobody else bounds how many of them are under way: in a slow
    /// start it is this.
    pub fn admit_inline(self: &Arc<Self>, settings: Option<&BreakerSettings>) -> Result<Permit, Duration> {
        self.admit_as(Kind::Inline, settings)
    }

    fn admit_as(
        self: &Arc<Self>,
        kind: Kind,
        settings: Option<&BreakerSettings>,
    ) -> Result<Permit, Duration> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if kind == Kind::Inline {
            let room = inner.state.room(settings, MOST_INLINE, now);
            if room.grows_at.is_some() && !room.probes && inner.inline >= room.allowed {
                return Err(NO_ROOM_YET);
            }
        }
        let (ticket, change) =
            inner.state.begin(settings, now).map_err(|until| until.saturating_duration_since(now))?;
        inner.inline += usize::from(kind == Kind::Inline);
        self.told(&mut inner, change, "", now);
        Ok(Permit { breaker: self.clone(), settings: settings.cloned(), kind, ticket: Some(ticket) })
    }

    pub fn status(&self) -> BreakerStatus {
        let now = Instant::now();
        let inner = self.inner.lock();
        let phase = inner.state.phase(now);
        BreakerStatus {
            destination: self.name.clone(),
            phase,
            since: inner.state.since().map(|since| now.saturating_duration_since(since)),
            next_probe: inner.state.next_probe().map(|at| at.saturating_duration_since(now)),
            why: (phase != Phase::Closed).then(|| inner.why.clone()),
            transitions: inner.transitions,
        }
    }

    fn ended(
        &self,
        ticket: Ticket,
        kind: Kind,
        outcome: Outcome,
        why: &str,
        settings: Option<&BreakerSettings>,
    ) -> Charge {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.inline = inner.inline.saturating_sub(usize::from(kind == Kind::Inline));
        let (charge, change) = inner.state.end(ticket, outcome, settings, now);
        if change.is_some() || inner.state.is_open() {
            self.turned.notify_one();
        }
        self.told(&mut inner, change, why, now);
        charge
    }

    fn told(&self, inner: &mut Inner, change: Option<Change>, why: &str, now: Instant) {
        let destination = &self.name;
        match change {
            None => {}
            Some(Change::Opened { until }) => {
                inner.transitions.opened += 1;
                inner.why = why.to_owned();
                let probe_in = until.saturating_duration_since(now);
                tracing::warn!(%destination, why, ?probe_in, "the breaker opened: deliveries are held, none is lost");
                self.changes.send_replace(());
            }
            Some(Change::HalfOpened) => {
                inner.transitions.half_opened += 1;
                tracing::debug!(%destination, "the breaker is half open: one delivery probes");
            }
            Some(Change::Reopened { until }) => {
                inner.transitions.opened += 1;
                inner.why = why.to_owned();
                let probe_in = until.saturating_duration_since(now);
                tracing::debug!(%destination, why, ?probe_in, "the probe failed, the breaker is open again");
            }
            Some(Change::Closed { after }) => {
                inner.transitions.closed += 1;
                inner.why.clear();
                tracing::info!(%destination, ?after, "the breaker closed: the destination has recovered");
                self.changes.send_replace(());
            }
        }
    }
}

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A delivery out of the buffer.
    Delivery,
    /// A request whose sender waits.
    Inline,
}

/// Leave for one try. Dropped without a word, it is given back: nothing was learned.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    settings: Option<BreakerSettings>,
    kind: Kind,
    /// `None` once it has ended.
    ticket: Option<Ticket>,
}

impl Permit {
    /// Tells what came of the try; `why` is for the log and the status, if it was a failure. Gives whether the try
    /// counts for its delivery.
    pub fn end(mut self, outcome: Outcome, why: &str) -> Charge {
        match self.ticket.take() {
            Some(ticket) => self.breaker.ended(ticket, self.kind, outcome, why, self.settings.as_ref()),
            None => Charge::Counts,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.breaker.ended(ticket, self.kind, Outcome::Unknown, "", self.settings.as_ref());
        }
    }
}

/// What a failure to get an answer says about the app.
pub fn of_error(error: &UpstreamError) -> Outcome {
    match error {
        UpstreamError::Unprocessed(_) => Outcome::Unknown,
        error if error.is_ours() => Outcome::Ours,
        _ => Outcome::Sick { asked: None },
    }
}

/// What an answer says about the app: a server error, a time-out and "too many" mean that it can't, whatever it is
/// sent. Other refusals are about the one event, by an app that is well enough to say so. `asked` is its
/// `Retry-After`, obeyed for 429 and 503.
pub fn of_status(status: u16, asked: Option<Duration>) -> Outcome {
    match status {
        429 | 503 => Outcome::Sick { asked },
        408 | 425 | 500..=599 => Outcome::Sick { asked: None },
        _ => Outcome::Well,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(breaker: &Arc<Breaker>, settings: &BreakerSettings, times: usize) -> Vec<Permit> {
        (0..times).map_while(|_| breaker.admit_inline(Some(settings)).ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_app_did_not_process_says_nothing_about_it() {
        let breaker = Breakers::default().of(&DestinationName::new("r", "d"));
        let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
        let outcome = of_error(&UpstreamError::Unprocessed("refused".into()));
        for permit in begun(&breaker, &settings, 20) {
            permit.end(outcome, "");
        }
        assert_eq!(breaker.status().phase, Phase::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn inline_requests_come_back_slowly_too() {
        let breaker = Breakers::default().of(&DestinationName::new("r", "d"));
        let settings = BreakerSettings::default();
        assert_eq!(begun(&breaker, &settings, 1000).len(), 1000, "in health there is no bound");
        for permit in begun(&breaker, &settings, 5) {
            permit.end(Outcome::Sick { asked: None }, "status 500");
        }
        assert_eq!(begun(&breaker, &settings, 1).len(), 0, "open");
        tokio::time::advance(settings.probe_after).await;
        for permit in begun(&breaker, &settings, 100) {
            permit.end(Outcome::Well, "");
        }
        assert_eq!(breaker.status().phase, Phase::SlowStart);
        let mut last = 0;
        for tenth in 0..10 {
            let under_way = begun(&breaker, &settings, 1000);
            assert!(under_way.len() <= 1 + tenth * MOST_INLINE / 10, "{tenth}: {}", under_way.len());
            assert!(under_way.len() >= last.max(1), "{tenth}: it grows");
            last = under_way.len();
            assert_eq!(breaker.admit_inline(Some(&settings)).unwrap_err(), NO_ROOM_YET);
            // However they end, their places are free again.
            drop(under_way);
            tokio::time::advance(settings.slow_start / 10).await;
        }
        assert_eq!(begun(&breaker, &settings, 1000).len(), 1000);
        assert_eq!(breaker.inner.lock().inline, 0);
    }
}
