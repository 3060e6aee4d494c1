//! How many refused requests a route may put into quarantine: the configured rate, in which each address of a sender has
//! a share.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::config::QuarantineSettings;
use crate::shares::{Origin, Rate, Shares};

/// One budget a route. Routes come from the config, so there are few; a reload begins anew.
#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<String, Shares>>);

impl Rates {
    /// Takes one, if there is one left for this client.
    pub(super) fn take(
        &self,
        route: &str,
        client: IpAddr,
        settings: &QuarantineSettings,
        now: Timestamp,
    ) -> bool {
        let rate = Rate { count: settings.rate, per: settings.rate_per };
        let mut routes = self.0.lock();
        let shares = match routes.get_mut(route) {
            Some(shares) => shares,
            None => routes.entry(route.to_owned()).or_insert_with(|| Shares::new(rate, now)),
        };
        shares.take(Origin::of(client), rate, now)
    }

    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn routes_do_not_take_from_each_other() {
        let rate_per = Duration::from_secs(3600);
        let settings =
            QuarantineSettings { max_events: 1, max_size: 1, keep: Duration::ZERO, rate: 1, rate_per };
        let (rates, client, now) = (Rates::default(), IpAddr::from([192, 0, 2, 1]), Timestamp(10_000_000));
        assert!(rates.take("a", client, &settings, now) && !rates.take("a", client, &settings, now));
        assert!(rates.take("b", client, &settings, now));
        rates.forget();
        assert!(rates.take("a", client, &settings, now));
    }
}
