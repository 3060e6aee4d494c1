//! What a request is held against, once it is known whose it is.

use std::sync::Arc;

use super::{Tenant, TenantRules};
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::{Handshakes, Refusal, Verified, Verifier};

/// See the module.
#[derive(Clone, Debug)]
pub enum Held {
    /// The route's rule: it is the same for all.
    Route,
    Tenant(Arc<TenantRules>),
    /// Nobody is known by this name: whatever is sent is refused.
    Nobody,
}

impl Held {
    /// `None` where keys do not depend on who sends. The refusal says that what there is can't be used.
    pub fn of(tenant: Option<Tenant>) -> Result<Self, Refusal> {
        match tenant {
            None => Ok(Held::Route),
            Some(Tenant::Known(rules)) => Ok(Held::Tenant(rules)),
            Some(Tenant::Unknown) => Ok(Held::Nobody),
            Some(Tenant::Broken(why)) => Err(Refusal::new(Reason::KeyUnavailable, why.to_string())),
        }
    }

    /// The rule; `route` is the route's own.
    pub fn rule<'a>(&'a self, route: &'a Verifier) -> &'a Verifier {
        match self {
            Held::Tenant(rules) => &rules.verifier,
            // The route's own rule has keys that nobody has in the place of a tenant's: who is unknown is refused for the
            // same reasons, after the same work, as who signs wrongly.
            Held::Route | Held::Nobody => route,
        }
    }

    /// Greetings that are told or answered with secrets of whoever sends, with those secrets.
    pub fn handshakes(&self) -> Option<&Handshakes> {
        match self {
            Held::Tenant(rules) => Some(&rules.handshakes),
            Held::Route | Held::Nobody => None,
        }
    }

    /// See [`Verifier::verify`].
    pub fn verify(
        &self,
        route: &Verifier,
        request: Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Verified<Request>, (Box<Request>, Refusal)> {
        let decided = self.rule(route).verify(request, public_url, now);
        match (self, decided) {
            (Held::Nobody, Ok(verified)) => Err((Box::new(verified.into_inner()), unknown(None))),
            (Held::Nobody, Err((request, refusal))) => Err((request, unknown(Some(refusal)))),
            (_, decided) => decided,
        }
    }

    /// See [`Verifier::observe`].
    pub fn observe(
        &self,
        route: &Verifier,
        request: Request,
        public_url: Option<&str>,
        now: Timestamp,
        earlier: Option<Refusal>,
    ) -> Verified<Request> {
        let earlier = match self {
            Held::Nobody => earlier.or_else(|| Some(unknown(None))),
            Held::Route | Held::Tenant(_) => earlier,
        };
        self.rule(route).observe(request, public_url, now, earlier)
    }
}

/// To the sender the same as a wrong signature; the log says what it was.
fn unknown(refusal: Option<Refusal>) -> Refusal {
    const WHY: &str = "there is no such tenant";
    match refusal {
        Some(refusal) => {
            let detail = format!("{WHY}; {}", refusal.detail);
            Refusal { detail, ..refusal }
        }
        None => Refusal::new(Reason::SignatureInvalid, WHY),
    }
}
