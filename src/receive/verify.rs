//! Step: who sent it? 401, or 503 while the key that would tell is not known. With `enforce: observe` the answer is only
//! recorded, and what would have been refused goes on as nobody's.

use crate::config::{Enforce, Route};
use crate::message::Request;
use crate::verify::{Refusal, Verified};

use super::Context;
use super::record::Record;
use super::refused::Refused;

/// What was found wrong before the body was there: refused, or kept for [`check`] where the route only observes.
pub(super) fn tolerated(route: &Route, found: Result<(), Refused>) -> Result<Option<Refusal>, Refused> {
    match (found, route.enforce) {
        (Ok(()), _) => Ok(None),
        (Err(refused), Enforce::On) => Err(refused),
        (Err(refused), Enforce::Observe) => {
            Ok(Some(Refusal { reason: refused.reason, detail: refused.detail.into_owned() }))
        }
    }
}

pub(super) fn check<A>(
    route: &Route,
    request: Request,
    suspicion: Option<Refusal>,
    context: &Context<'_, A>,
    record: &mut Record<'_>,
) -> Result<Verified<Request>, Refused> {
    let (url, now) = (route.public_url.as_deref(), context.clock.now());
    let verified = match route.enforce {
        Enforce::On => match route.verify.verify(request, url, now) {
            Ok(verified) => verified,
            Err((request, refusal)) => {
                context.quarantine.offer(route, &request, &refusal);
                return Err(Refused::because(refusal.reason, refusal.detail));
            }
        },
        Enforce::Observe => route.verify.observe(request, url, now, suspicion),
    };
    if let Some(label) = verified.label() {
        context.metrics.verified(&route.name, label);
    }
    if let Some(refusal) = verified.would_refuse() {
        record.would_refuse(refusal);
    }
    Ok(verified)
}
