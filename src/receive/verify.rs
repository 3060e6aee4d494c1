//! Step: who sent it? 401, 403 for whom the route is not for, or 503 while the key that would tell is not known. With
//! `enforce: observe` the answer is only recorded, and what would have been refused goes on as nobody's.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::config::{Enforce, Route};
use crate::endpoints::Endpoint;
use crate::message::Request;
use crate::tenants::Held;
use crate::verify::{Refusal, Verified};

use super::Context;
use super::record::Record;
use super::refused::Refused;

/// Decisions of one request: a rule of several parts may need one key after another.
const MAX_DECISIONS: usize = 4;

/// What was found wrong before the body was there: refused, or kept for [`check`] where the route only observes.
pub(super) fn tolerated(route: &Route, found: Result<(), Refusal>) -> Result<Option<Refusal>, Refused> {
    match (found, route.enforce) {
        (Ok(()), _) => Ok(None),
        (Err(refusal), Enforce::On) => Err(Refused::because(refusal.reason, refusal.detail)),
        (Err(refusal), Enforce::Observe) => Ok(Some(refusal)),
    }
}

/// Waits at most `key_wait`, all in all, for keys that are being fetched; a route that only observes waits for none.
pub(super) async fn check<A: Sync>(
    route: &Route,
    (held, endpoint): (Result<&Held, &Refusal>, Option<&Endpoint>),
    request: Request,
    suspicion: Option<Refusal>,
    key_wait: Duration,
    context: &Context<'_, A>,
    record: &mut Record<'_>,
) -> Result<Verified<Request>, Refused> {
    let verified = match route.enforce {
        Enforce::On => {
            let proved = match held {
                Ok(held) => prove(route, held, request, key_wait, context).await,
                Err(refusal) => Err((Box::new(request), refusal.clone())),
            };
            match proved {
                Ok(verified) => verified,
                Err((request, refusal)) => {
                    context.quarantine.offer(route, &request, endpoint, &refusal);
                    return Err(Refused::because(refusal.reason, refusal.detail));
                }
            }
        }
        Enforce::Observe => {
            let (url, now) = (route.public_url.as_deref(), context.clock.now());
            let (held, suspicion) = match held {
                Ok(held) => (held, suspicion),
                Err(refusal) => (&Held::Nobody, suspicion.or_else(|| Some(refusal.clone()))),
            };
            held.observe(&route.verify, request, url, now, suspicion)
        }
    };
    if let Some(label) = verified.label() {
        context.metrics.verified(&route.name, label);
    }
    if let Some(refusal) = verified.would_refuse() {
        record.would_refuse(refusal);
    }
    Ok(verified)
}

/// Decides, and decides again once a key is there that was needed. Nothing is held meanwhile but the request.
async fn prove<A: Sync>(
    route: &Route,
    held: &Held,
    mut request: Request,
    key_wait: Duration,
    context: &Context<'_, A>,
) -> Result<Verified<Request>, (Box<Request>, Refusal)> {
    let url = route.public_url.as_deref();
    let mut deadline = None;
    for _ in 1..MAX_DECISIONS {
        let (given_back, refusal) = match held.verify(&route.verify, request, url, context.clock.now()) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let Some(need) = &refusal.needs else { return Err((given_back, refusal)) };
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + key_wait);
        if timeout_at(deadline, need.settled()).await.is_err() {
            return Err((given_back, refusal));
        }
        request = *given_back;
    }
    held.verify(&route.verify, request, url, context.clock.now())
}
