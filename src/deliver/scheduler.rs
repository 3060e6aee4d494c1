//! What one destination does next: takes leases, starts attempts, waits. The decisions are `Load`'s, pure; the loop
//! only carries them out.
//!
//! Nothing polls: with nothing due the task waits for an arrival or for the next retry's time, and costs nothing.
//! Memory is bounded by `concurrency` deliveries, plus as many again (32 at most) held ready where bodies are small.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::breaker::Permit;
use crate::buffer::{Buffer, BufferError, DestinationName, EventId};
use crate::config::Batch;
use crate::pauses::{self, Paused};

use super::adaptive::Bounds;
use super::batch::{self, Done, Group, Making, Take};
use super::lease::Lease;
use super::pace::{Pace, Room};
use super::worker::{self, App, Settings, Surroundings};

/// Leases taken at once, at most.
const BATCH: usize = 64;
/// Leases held ready beyond those in flight, at most.
const AHEAD: usize = 32;
/// A typical body beyond this is not held ready.
const SMALL_BODY: usize = 64 * 1024;
/// A retry's time is wall time: it is looked at again after this, lest a clock that was set forward goes unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// No retry is put off for longer than this, or than its `retry.max` if that is more. One that is due later was put off
/// before the clock was set back, and is not to wait for the clock to come round again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The least wait for a retry's time.
const LEAST_WAIT: Duration = Duration::from_millis(5);
/// Deliveries that probe after others because they have failed while the app was spared, remembered at most.
const TURNS: usize = 32;
/// After an error of the buffer.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether the process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Attempts in flight may finish until then.
    At(Instant),
}

/// How much a destination has in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    /// Attempts that may be in flight now.
    allowed: usize,
    running: usize,
    /// Leased, but not begun.
    ready: usize,
    typical_body: usize,
    /// Nothing is leased beyond what may begin.
    exact: bool,
}

impl Load {
    /// How many attempts to begin.
    fn starts(&self) -> usize {
        self.allowed.saturating_sub(self.running).min(self.ready)
    }

    /// How many leases to take. Some are held ready, so that a quick app is fed in batches instead of one by one.
    fn wants(&self) -> usize {
        let small = self.typical_body <= SMALL_BODY && !self.exact;
        let ahead = if small { self.allowed.min(AHEAD) } else { 0 };
        let missing = (self.allowed + ahead).saturating_sub(self.running + self.ready);
        // As long as there is work in hand, wait until a batch is worth its while.
        let least = if self.ready > 0 { (ahead / 2).max(1) } else { 1 };
        let idle = self.running + self.ready < self.allowed;
        if missing >= least || idle { missing.min(BATCH) } else { 0 }
    }
}

/// Works on one destination until told to stop.
pub(super) struct Scheduler<A> {
    pub name: DestinationName,
    pub buffer: Arc<dyn Buffer>,
    pub around: Arc<Surroundings>,
    /// `None`: the destination is no longer in the config; its deliveries stay in the buffer.
    pub settings: watch::Receiver<Option<Arc<Settings<A>>>>,
    pub pauses: watch::Receiver<Paused>,
    pub stop: watch::Receiver<Stop>,
}

/// Whether the buffer has more that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// Perhaps: ask.
    Unknown,
    /// Not before something arrives or a retry's time comes.
    Nothing,
}

struct Hands {
    running: JoinSet<Done>,
    ready: VecDeque<Lease>,
    /// In their place, where several go at once.
    making: Making,
    /// A running mean of bodies; large until the first are known.
    typical_body: usize,
    pace: Pace,
    /// What has failed while the app was spared, the longest ago first: others probe before it.
    turns: VecDeque<EventId>,
}

impl Hands {
    /// One that failed while the app was spared has had its turn.
    fn had_its_turn(&mut self, id: EventId) {
        self.turns.retain(|known| *known != id);
        self.turns.push_back(id);
        if self.turns.len() > TURNS {
            self.turns.pop_front();
        }
    }

    fn holds_any(&self) -> bool {
        !self.ready.is_empty() || !self.making.is_empty()
    }

    /// What has not begun goes back to the buffer.
    fn let_go(&mut self) {
        self.ready.clear();
        self.making.clear();
    }

    fn begin<A: App>(
        &mut self,
        group: Group,
        permit: Permit,
        settings: &Arc<Settings<A>>,
        around: &Arc<Surroundings>,
    ) {
        let (bounds, shared) = (Bounds::of(&settings.destination), around);
        let (settings, around) = (settings.clone(), around.clone());
        match group {
            Group::Batch(leases) => self.running.spawn(batch::work(leases, permit, settings, around)),
            Group::Plain(lease) => self.running.spawn(worker::work(lease, permit, settings, around)),
        };
        if let Some(bounds) = bounds {
            shared.adaptive.begins(bounds, self.running.len(), Instant::now());
        }
    }
}

impl<A: App> Scheduler<A> {
    pub async fn run(mut self) {
        let mut hands = Hands {
            running: JoinSet::new(),
            ready: VecDeque::new(),
            making: Making::default(),
            typical_body: usize::MAX,
            pace: Pace::default(),
            turns: VecDeque::new(),
        };
        let breaker = self.around.breaker.clone();
        let mut was_paused = false;
        let arrivals: Arc<Notify> = self.buffer.arrivals(&self.name);
        // Listening begins before the first look, so that nothing arrives unnoticed in between.
        let mut arrival = Box::pin(arrivals.notified());
        arrival.as_mut().enable();
        let mut due = Due::Unknown;
        let mut buffer_pause: Option<(Duration, Instant)> = None;

        while *self.stop.borrow_and_update() == Stop::No {
            let settings = self.settings.borrow_and_update().clone();
            if settings.is_none() {
                hands.let_go();
                self.around.metrics.concurrency_limit(&self.name.0, 0);
            }
            let paused = pauses::since(&self.pauses.borrow_and_update(), &self.name).is_some();
            if was_paused && !paused {
                breaker.probe_soon("an operator has resumed it");
            }
            was_paused = paused;
            let now = Instant::now();
            let (mut grows_at, mut batch_at) = (None, None);
            let held_up = buffer_pause.map(|(_, until)| until).filter(|until| *until > now);

            if let Some(settings) = &settings {
                batch_at = self.start(&mut hands, settings, paused);
                let room = self.room(&mut hands, settings, paused);
                self.around.metrics.concurrency_limit(&self.name.0, room.limit);
                if room.held {
                    // What is in hand waits in the buffer, where it costs nothing.
                    hands.let_go();
                    batch_at = None;
                    due = Due::Unknown;
                }
                grows_at = room.grows_at;
                let mut wants = match &settings.destination.batch {
                    Some(_) if room.allowed == 0 => 0,
                    Some(batch) => hands.making.wants(batch, hands.typical_body, BATCH),
                    None => load(&hands, room).wants(),
                };
                match room.probes {
                    true if hands.running.len() >= room.allowed => {
                        // The probe is under way: what it was chosen from waits in the buffer.
                        if hands.holds_any() {
                            hands.let_go();
                            due = Due::Unknown;
                        }
                        (wants, batch_at) = (0, None);
                    }
                    true if wants > 0 => wants = (wants + hands.turns.len()).min(BATCH),
                    true => {}
                    false if room.held => {}
                    false => hands.turns.clear(),
                }
                if due == Due::Unknown && held_up.is_none() && wants > 0 {
                    match self.lease(&mut hands, settings, wants).await {
                        Ok(taken) => {
                            buffer_pause = None;
                            if taken < wants {
                                due = Due::Nothing;
                            }
                            if taken > 0 {
                                continue;
                            }
                        }
                        Err(BufferError::Closed) => break,
                        Err(error) => buffer_pause = Some(self.after(buffer_pause, &error)),
                    }
                }
            }
            let retry = match (&settings, due) {
                (Some(_), Due::Nothing) => self.next_retry(now).await,
                _ => None,
            };
            let held_up = buffer_pause.map(|(_, until)| until).filter(|until| *until > now).or(held_up);
            let wake = [grows_at, batch_at, held_up, retry].into_iter().flatten().min();

            tokio::select! {
                biased;
                gone = self.stop.changed() => if gone.is_err() { break },
                gone = self.settings.changed() => {
                    if gone.is_err() { break }
                    hands.pace.changed();
                    // What was made up for the old settings is leased again.
                    hands.let_go();
                    due = Due::Unknown;
                }
                // Who pauses may be gone at the end; what was paused then stays so.
                Ok(()) = self.pauses.changed() => {}
                Some(done) = hands.running.join_next() => {
                    due = self.done(&mut hands, done).unwrap_or(due);
                    // All that are done by now, before the next look at the buffer.
                    while let Some(done) = hands.running.try_join_next() {
                        due = self.done(&mut hands, done).unwrap_or(due);
                    }
                }
                () = breaker.turned() => due = Due::Unknown,
                // While there is work in hand, an arrival can wait; it is not forgotten.
                () = &mut arrival, if due == Due::Nothing => {
                    arrival.set(arrivals.notified());
                    arrival.as_mut().enable();
                    due = Due::Unknown;
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => due = Due::Unknown,
            }
        }
        self.finish(hands).await;
    }

    /// How many attempts may be in flight now, and when that changes by itself.
    fn room(&self, hands: &mut Hands, settings: &Settings<A>, paused: bool) -> Room {
        let running = hands.running.len();
        let Surroundings { breaker, clock, adaptive, .. } = &*self.around;
        let destination = &settings.destination;
        let most = match Bounds::of(destination) {
            Some(bounds) => adaptive.limit(bounds),
            None => destination.concurrency.max(1),
        };
        hands.pace.room(destination, breaker, paused, most, running, clock)
    }

    /// Begins what may begin, and says when to look again: where batches are in the making, or another's probe is waited
    /// for.
    fn start(&self, hands: &mut Hands, settings: &Arc<Settings<A>>, paused: bool) -> Option<Instant> {
        let room = self.room(hands, settings, paused);
        if let Some(batch) = &settings.destination.batch {
            let at = self.start_batches(hands, settings, batch, room);
            self.around.metrics.in_flight(&self.name.0, hands.running.len());
            return at;
        }
        let starts = load(hands, room).starts();
        let mut again = None;
        for _ in 0..starts {
            // What is in flight counts against the room, so there is leave for each, unless somebody who waits probes.
            let permit = match self.around.breaker.admit(settings.destination.breaker.as_ref()) {
                Ok(permit) => permit,
                Err(wait) => {
                    again = Some(Instant::now() + wait);
                    break;
                }
            };
            let Some(lease) = hands.ready.pop_front() else { break };
            hands.pace.begins(&settings.destination, &self.around.breaker);
            hands.begin(Group::Plain(lease), permit, settings, &self.around);
        }
        if starts > 0 {
            self.around.metrics.in_flight(&self.name.0, hands.running.len());
        }
        again
    }

    fn start_batches(
        &self,
        hands: &mut Hands,
        settings: &Arc<Settings<A>>,
        batch: &Batch,
        room: Room,
    ) -> Option<Instant> {
        while hands.running.len() < room.allowed {
            let group = match hands.making.take(batch, Instant::now()) {
                Take::Now(group) => group,
                Take::Wait(until) => return Some(until),
                Take::Nothing => return None,
            };
            let permit = match self.around.breaker.admit(settings.destination.breaker.as_ref()) {
                Ok(permit) => permit,
                Err(wait) => {
                    hands.making.put_back(group);
                    return Some(Instant::now() + wait);
                }
            };
            hands.pace.begins(&settings.destination, &self.around.breaker);
            hands.begin(group, permit, settings, &self.around);
        }
        None
    }

    async fn lease(
        &self,
        hands: &mut Hands,
        settings: &Settings<A>,
        wants: usize,
    ) -> Result<usize, BufferError> {
        let now = self.around.clock.now();
        let mut leased = self.buffer.lease(&self.name, wants, now).await?;
        if leased.len() < wants {
            let beyond = now.saturating_add(settings.destination.retry.max.max(LONGEST_WAIT));
            leased.extend(self.buffer.lease_strayed(&self.name, wants - leased.len(), beyond).await?);
        }
        let taken = leased.len();
        // Those that had their turn last come last; a stable sort keeps the others as they are.
        let turn = |id: EventId| hands.turns.iter().position(|known| *known == id).map_or(0, |at| at + 1);
        if !hands.turns.is_empty() {
            leased.sort_by_key(|leased| turn(leased.event.id));
        }
        for leased in leased {
            let body = leased.event.body.len();
            hands.typical_body = match hands.typical_body {
                usize::MAX => body,
                mean => (mean / 8).saturating_mul(7).saturating_add(body / 8),
            };
            let lease = Lease::new(leased, self.buffer.clone(), self.around.clock.clone());
            match &settings.destination.batch {
                Some(batch) => hands.making.add(lease, batch, Instant::now()),
                None => hands.ready.push_back(lease),
            }
        }
        Ok(taken)
    }

    /// When the next retry's time comes, as far as the wall clock can tell now.
    async fn next_retry(&self, now: Instant) -> Option<Instant> {
        match self.buffer.next_due(&self.name).await {
            Ok(Some(at)) => {
                let wait = at.since(self.around.clock.now()).clamp(LEAST_WAIT, LOOK_AGAIN);
                Some(now + wait)
            }
            Ok(None) => None,
            // The next lease will say it; until then, now and then.
            Err(_) => Some(now + LONGEST_PAUSE),
        }
    }

    /// The pause after an error of the buffer: doubling.
    fn after(&self, earlier: Option<(Duration, Instant)>, error: &BufferError) -> (Duration, Instant) {
        let pause = match earlier {
            None => {
                tracing::error!(destination = %self.name, %error, "deliveries wait for the buffer");
                FIRST_PAUSE
            }
            Some((pause, _)) => (pause * 2).min(LONGEST_PAUSE),
        };
        (pause, Instant::now() + pause)
    }

    /// What is due if that changes it.
    fn done(&self, hands: &mut Hands, done: Result<Done, tokio::task::JoinError>) -> Option<Due> {
        self.around.metrics.in_flight(&self.name.0, hands.running.len());
        match done {
            // Its lease gave itself back.
            Err(error) if error.is_panic() => {
                let destination = &self.name;
                tracing::error!(%destination, %error, "an attempt panicked; its delivery is tried again later");
                None
            }
            Ok(done) => {
                // It was given back, and the buffer does not say so.
                let mut due = None;
                if let Done::Spared(events) = &done {
                    due = Some(Due::Unknown);
                    events.iter().for_each(|id| hands.had_its_turn(*id));
                }
                let settings = self.settings.borrow();
                let batch = settings.as_ref().and_then(|settings| settings.destination.batch.as_ref());
                // Where there are no batches any more, halves give themselves back.
                if let Some(batch) = batch {
                    hands.making.done(done, batch.max_events);
                }
                due
            }
            Err(_) => None,
        }
    }

    /// Hands back what was not begun, waits for what is in flight, and breaks off what takes longer than the grace.
    async fn finish(&mut self, mut hands: Hands) {
        hands.let_go();
        let until = match *self.stop.borrow() {
            Stop::At(until) => until,
            // The deliverer is gone, or the buffer closed: there is nothing to wait for.
            Stop::No => Instant::now(),
        };
        while let Ok(Some(done)) = tokio::time::timeout_at(until, hands.running.join_next()).await {
            self.done(&mut hands, done);
            hands.let_go();
        }
        let broken_off = hands.running.len();
        if broken_off > 0 {
            let destination = &self.name;
            tracing::warn!(%destination, broken_off, "attempts were broken off by the shutdown; they are repeated");
        }
        hands.running.shutdown().await;
        self.around.metrics.in_flight(&self.name.0, 0);
    }
}

fn load(hands: &Hands, room: Room) -> Load {
    Load {
        allowed: room.allowed,
        running: hands.running.len(),
        ready: hands.ready.len(),
        typical_body: hands.typical_body,
        exact: room.exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_bodies_are_fetched_in_batches_and_large_ones_one_for_each_free_place() {
        let small = Load { allowed: 16, running: 0, ready: 0, typical_body: 2048, exact: false };
        assert_eq!(small.wants(), 32);
        assert_eq!(Load { running: 16, ready: 16, ..small }.wants(), 0);
        assert_eq!(Load { running: 16, ready: 10, ..small }.wants(), 0, "a batch is not worth its while yet");
        assert_eq!(Load { running: 16, ready: 8, ..small }.wants(), 8);
        let large = Load { typical_body: 1 << 20, ..small };
        assert_eq!(large.wants(), 16);
        assert_eq!(Load { running: 15, ..large }.wants(), 1);
        assert_eq!(Load { allowed: 1, exact: true, ..small }.wants(), 1, "a probe, and nothing beyond it");
    }

    proptest! {
        #[test]
        fn the_places_are_never_exceeded_and_never_stay_empty(
            allowed in 0usize..200, running in 0usize..200, ready in 0usize..200, typical_body in 0usize..200_000, exact in any::<bool>(),
        ) {
            let load = Load { allowed, running, ready, typical_body, exact };
            prop_assert!(running > allowed || running + load.starts() <= allowed);
            prop_assert!(load.starts() <= ready);
            let held = running + ready + load.wants();
            prop_assert!(load.wants() == 0 || held <= allowed + allowed.min(AHEAD));
            if running + ready < allowed {
                prop_assert!(load.wants() > 0, "a free place asks for work");
            }
        }
    }
}
