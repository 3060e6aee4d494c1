//! How much a route takes in.

use super::Checker;
use super::rules::Proof;
use crate::config::model::{Limit, RateLimits};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::units::Rate;

impl Checker<'_, '_> {
    pub(super) fn rate_limit(
        &mut self,
        route: &raw::Route,
        place: &Place,
        proof: Option<&Proof<'_>>,
    ) -> Option<RateLimits> {
        let raw = route.rate_limit.as_ref()?;
        let place = place.key("rate_limit");
        let (route_, source, identity) = (raw.route, raw.source, raw.identity);
        if route_.is_none() && source.is_none() && identity.is_none() {
            let help = "write `route: 100/s`, `source: 10/s` or `identity: 10/s`";
            self.error(&place, "nothing is limited", help);
        }
        let proves = !proof.is_some_and(Proof::is_none);
        if identity.is_some() && !proves {
            let help = "limit each `source`, or the `route` as a whole";
            self.error(&place.key("identity"), "the route verifies nothing, so no sender is proved", help);
        }
        let by = place.key("identity_by");
        if raw.identity_by.is_some() && identity.is_none() {
            self.error(&by, "there is no limit for it", "write `identity: 10/s` beside it");
        }
        let identity_by = raw.identity_by.as_ref().and_then(|texts| self.extract(texts, &by));
        if let (Some(key), Some(proof)) = (&identity_by, proof)
            && proves
            && !proof.compiled.verifier.covers(key)
        {
            let help =
                "whoever repeats a captured request could set it; take a place that the signature covers";
            self.warning(&by, "the signature does not cover this place", help);
        }
        if let (Some(all), Some(one)) = (route_, source)
            && per_day(one) > per_day(all)
        {
            let message = format!("one source may send {one}, and all of them together {all}");
            self.warning(&place.key("source"), message, "a source's limit is below that of the route");
        }
        Some(RateLimits {
            route: route_.map(limit),
            source: source.map(limit),
            identity: identity.map(limit),
            identity_by,
        })
    }
}

const fn limit(rate: Rate) -> Limit {
    Limit { count: rate.count, per: rate.per }
}

fn per_day(rate: Rate) -> u64 {
    u64::from(rate.count) * (86_400 / rate.per.as_secs().max(1))
}
