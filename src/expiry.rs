//! What is looked at now and then while the gateway runs: secrets that end. Said once a day, so that neither the first
//! nor a later reader of the log misses it; the numbers are in the metrics and in `status` at any time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::gateway::Gateway;
use crate::verify::Expiry;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(60);
/// How often the same is said.
const REPEAT: Duration = Duration::from_secs(24 * 3600);

/// Watches until the task is dropped.
pub async fn watch(gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    // What is due at the start is among the config's warnings, which have been logged.
    let due = |gateway: &Gateway, told: &mut Told| {
        let config = &gateway.snapshot.load().config;
        told.due(config.expiries(), gateway.clock.now(), config.secrets.warn_before)
    };
    due(&gateway, &mut told);
    loop {
        ticks.tick().await;
        let now = gateway.clock.now();
        for (route, Expiry { name, until, .. }) in due(&gateway, &mut told) {
            if until <= now {
                tracing::warn!(%route, label = name, %until, "a secret has ended: nothing that it signs is accepted");
            } else {
                tracing::warn!(%route, label = name, %until, "a secret ends soon");
            }
        }
    }
}

/// What was said, and when.
#[derive(Debug, Default)]
struct Told(HashMap<(Arc<str>, String, Timestamp), Timestamp>);

impl Told {
    /// Those of `expiries` that are to be said now; they count as said.
    fn due(
        &mut self,
        expiries: Vec<(Arc<str>, Expiry)>,
        now: Timestamp,
        before: Duration,
    ) -> Vec<(Arc<str>, Expiry)> {
        let mut told = HashMap::new();
        let mut due = Vec::new();
        for (route, expiry) in expiries.into_iter().filter(|(_, expiry)| expiry.is_due(now, before)) {
            let key = (route.clone(), expiry.name.clone(), expiry.until);
            let last = self.0.get(&key).filter(|last| now.since(**last) < REPEAT).copied();
            told.insert(key, last.unwrap_or(now));
            if last.is_none() {
                due.push((route, expiry));
            }
        }
        // What is gone from the config is forgotten.
        self.0 = told;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    #[test]
    fn the_end_of_a_secret_is_said_once_a_day_before_and_after() {
        let expiry = |until: u64| {
            let expiry = Expiry { name: "old".into(), at: vec![], until: Timestamp::from_secs(until) };
            vec![(Arc::<str>::from("billing"), expiry)]
        };
        let mut told = Told::default();
        let mut said = |at: u64, until: u64| {
            told.due(expiry(until), Timestamp::from_secs(at), Duration::from_secs(14 * DAY)).len()
        };
        assert_eq!(said(DAY, 20 * DAY), 0);
        assert_eq!(said(6 * DAY, 20 * DAY), 1);
        assert_eq!(said(6 * DAY + 60, 20 * DAY), 0);
        assert_eq!(said(7 * DAY, 20 * DAY), 1);
        assert_eq!(said(21 * DAY, 20 * DAY), 1);
        // A moved end is news.
        assert_eq!(said(21 * DAY + 60, 22 * DAY), 1);
    }

    #[test]
    fn what_is_gone_from_the_config_is_forgotten() {
        let mut told = Told::default();
        let expiry = Expiry { name: "old".into(), at: vec![], until: Timestamp(1) };
        told.due(vec![("r".into(), expiry)], Timestamp(2), Duration::ZERO);
        assert_eq!(told.0.len(), 1);
        told.due(Vec::new(), Timestamp(3), Duration::ZERO);
        assert!(told.0.is_empty());
    }
}
