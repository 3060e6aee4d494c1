//! The gateway's own trouble with a destination: no address for its name, no file descriptor. Pure.
//!
//! While it lasts the destination is paused as a whole and only a single delivery probes now and then: no attempt is
//! used up, and a backlog is not churned through. The pause is as long as the trouble has lasted, between 1 s and
//! 60 s, which doubles it with each probe.

use std::time::Duration;

use tokio::time::Instant;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) enum Trouble {
    #[default]
    None,
    Since {
        began: Instant,
        until: Instant,
    },
}

impl Trouble {
    /// An attempt failed for our own reasons. Gives how long its delivery waits.
    pub fn met(&mut self, now: Instant) -> Duration {
        let (began, until) = match *self {
            Trouble::None => (now, now),
            Trouble::Since { began, until } => (began, until),
        };
        // Attempts that were under way when the pause began do not make it longer.
        let until = if until > now { until } else { now + (now - began).clamp(SHORTEST, LONGEST) };
        *self = Trouble::Since { began, until };
        until - now
    }

    /// An attempt got as far as the app.
    pub fn over(&mut self) {
        *self = Trouble::None;
    }

    /// Until when nothing is tried.
    pub fn paused_until(&self, now: Instant) -> Option<Instant> {
        match *self {
            Trouble::Since { until, .. } if until > now => Some(until),
            _ => None,
        }
    }

    /// How many attempts may be in flight of those that the config allows.
    pub fn allows(&self, concurrency: usize, now: Instant) -> usize {
        match self {
            Trouble::None => concurrency,
            Trouble::Since { .. } if self.paused_until(now).is_some() => 0,
            Trouble::Since { .. } => concurrency.min(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_with_each_probe_and_ends_with_the_trouble() {
        let (began, mut trouble) = (Instant::now(), Trouble::default());
        let (mut now, mut pauses) = (began, Vec::new());
        for _ in 0..9 {
            assert_eq!(trouble.paused_until(now), None);
            let pause = trouble.met(now);
            // More that fail meanwhile change nothing.
            assert_eq!(trouble.met(now + pause / 2), pause - pause / 2);
            assert_eq!(trouble.allows(8, now), 0);
            pauses.push(pause.as_secs());
            now += pause;
            assert_eq!(trouble.allows(8, now), 1);
        }
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        trouble.over();
        assert_eq!(trouble.allows(8, now), 8);
    }
}
