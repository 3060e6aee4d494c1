//! When the next attempt of a destination may begin: breaker, rate, schedule and pauses put together. The decisions are
//! theirs; here is only what follows from all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::clock::{Clock, Timestamp};
use crate::config::{Destination, Hours};

use super::rate::Bucket;

/// A schedule is wall time: it is looked at again after this, lest a clock that was set goes unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What of a destination's work may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Attempts that may be in flight, those under way included.
    pub allowed: usize,
    /// The same without regard to the rate.
    pub limit: usize,
    /// Nothing may begin whatever ends: what is in hand goes back to the buffer.
    pub held: bool,
    /// Nothing is leased beyond what may begin.
    pub exact: bool,
    /// What begins now probes.
    pub probes: bool,
    /// When it may be more without anything ending.
    pub grows_at: Option<Instant>,
}

impl Room {
    pub const HELD: Room =
        Room { allowed: 0, limit: 0, held: true, exact: true, probes: false, grows_at: None };
}

/// One destination's pace, across reloads.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bucket: Bucket,
    hours: Option<Known>,
}

/// What the schedule said last.
#[derive(Clone, Copy, Debug)]
struct Known {
    hours: Hours,
    at: Timestamp,
}

impl Pace {
    /// `paused`: an operator holds it. `most`: attempts in flight that the config, or the app, bears.
    pub fn room(
        &mut self,
        destination: &Destination,
        breaker: &Breaker,
        paused: bool,
        most: usize,
        running: usize,
        clock: &Clock,
    ) -> Room {
        let now = Instant::now();
        if paused {
            return Room::HELD;
        }
        if let Some(opens) = self.closed(destination, clock.now()) {
            return Room { grows_at: Some(now + opens), ..Room::HELD };
        }
        let spared = breaker.room(destination.breaker.as_ref(), most);
        let room = Room {
            allowed: spared.allowed,
            limit: spared.allowed,
            held: spared.allowed == 0,
            exact: spared.probes,
            probes: spared.probes,
            grows_at: spared.grows_at,
        };
        let Some(rate) = &destination.rate else { return room };
        let strength = breaker.strength(destination.breaker.as_ref());
        let (tokens, next) = self.bucket.available(rate, strength, now);
        Room {
            allowed: room.allowed.min(running.saturating_add(tokens)),
            exact: true,
            grows_at: room.grows_at.into_iter().chain(next).min(),
            ..room
        }
    }

    /// An attempt begins.
    pub fn begins(&mut self, destination: &Destination, breaker: &Breaker) {
        if let Some(rate) = &destination.rate {
            self.bucket.take(rate, breaker.strength(destination.breaker.as_ref()), Instant::now());
        }
    }

    /// The settings are others now.
    pub fn changed(&mut self) {
        self.hours = None;
    }

    /// For how long the schedule keeps it closed, as far as the wall clock can tell now.
    fn closed(&mut self, destination: &Destination, now: Timestamp) -> Option<Duration> {
        let schedule: &Arc<_> = destination.deliver_between.as_ref()?;
        let fresh = self.hours.filter(|known| {
            let (Hours::Open { until } | Hours::Closed { until }) = known.hours;
            now >= known.at && now < until && now.since(known.at) < LOOK_AGAIN
        });
        let known = fresh.unwrap_or_else(|| Known { hours: schedule.at(now), at: now });
        self.hours = Some(known);
        match known.hours {
            Hours::Open { .. } => None,
            Hours::Closed { until } => Some(until.since(now).clamp(Duration::from_millis(1), LOOK_AGAIN)),
        }
    }
}
