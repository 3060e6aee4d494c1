//! Step: who sent it? 401, 403 for whom the route is not for, or 503 while the key that would tell is not known.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::config::Route;
use crate::message::Request;
use crate::telemetry::Metrics;
use crate::verify::Verified;

use super::refused::Refused;

/// Decisions of one request: a rule of several parts may need one key after another.
const MAX_DECISIONS: usize = 4;

/// Waits at most `key_wait`, all in all, for keys that are being fetched. Nothing is held meanwhile but the request.
pub(super) async fn check(
    route: &Route,
    mut request: Request,
    clock: &Clock,
    key_wait: Duration,
    metrics: &Metrics,
) -> Result<Verified<Request>, Refused> {
    let mut deadline = None;
    for _ in 1..MAX_DECISIONS {
        let (given_back, refusal) = match decide(route, request, clock, metrics) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let Some(need) = refusal.needs else { return Err(Refused::because(refusal.reason, refusal.detail)) };
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + key_wait);
        if timeout_at(deadline, need.settled()).await.is_err() {
            return Err(Refused::because(refusal.reason, refusal.detail));
        }
        request = *given_back;
    }
    decide(route, request, clock, metrics)
        .map_err(|(_, refusal)| Refused::because(refusal.reason, refusal.detail))
}

fn decide(
    route: &Route,
    request: Request,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Verified<Request>, (Box<Request>, crate::verify::Refusal)> {
    let verified = route.verify.verify(request, route.public_url.as_deref(), clock.now())?;
    if let Some(label) = verified.label() {
        metrics.verified(&route.name, label);
    }
    Ok(verified)
}
