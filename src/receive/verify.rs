//! Step: who sent it? 401, or 503 while the key that would tell is not known.

use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::Request;
use crate::telemetry::Metrics;
use crate::verify::Verified;

use super::refused::Refused;

pub(super) fn check(
    route: &Route,
    request: Request,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<Verified<Request>, Refused> {
    match route.verify.verify(request, route.public_url.as_deref(), now) {
        Ok(verified) => {
            if let Some(label) = verified.label() {
                metrics.verified(&route.name, label);
            }
            Ok(verified)
        }
        Err((_, refusal)) => Err(Refused::because(refusal.reason, refusal.detail)),
    }
}
