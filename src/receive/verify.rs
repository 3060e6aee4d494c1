//! Step: who sent it? 401, or 503 while the key that would tell is not known.

use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::Request;
use crate::reason::Reason;
use crate::telemetry::Metrics;
use crate::verify::Verified;

use super::refused::Refused;
use super::tenant::Held;

pub(super) fn check(
    route: &Route,
    held: &Held,
    request: Request,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<Verified<Request>, Refused> {
    let verifier = match held {
        Held::Tenant(verifier) => verifier,
        // The route's own rule has keys that nobody has in the place of a tenant's: who is unknown is refused for the same
        // reasons, after the same work, as who signs wrongly.
        Held::Route | Held::Nobody => &route.verify,
    };
    match (verifier.verify(request, route.public_url.as_deref(), now), held) {
        (Ok(_), Held::Nobody) => Err(Refused::because(
            Reason::SignatureInvalid,
            "right for the route, but this tenant is not known",
        )),
        (Ok(verified), _) => {
            if let Some(label) = verified.label() {
                metrics.verified(&route.name, label);
            }
            Ok(verified)
        }
        (Err((_, refusal)), Held::Nobody) => {
            Err(Refused::because(refusal.reason, format!("this tenant is not known; {}", refusal.detail)))
        }
        (Err((_, refusal)), _) => Err(Refused::because(refusal.reason, refusal.detail)),
    }
}
