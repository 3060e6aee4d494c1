//! Step: whose keys is the request held against? Found in memory before verification begins; a look at the disk, for who
//! is new, is done elsewhere while this request waits. 503 if what there is can't be used.

use std::sync::Arc;

use crate::config::Route;
use crate::message::PathParams;
use crate::reason::Reason;
use crate::tenants::{Client, Tenant};
use crate::verify::Verifier;

use super::refused::Refused;

/// What a request is held against.
#[derive(Debug)]
pub(super) enum Held {
    /// The route's rule: it is the same for all.
    Route,
    Tenant(Arc<Verifier>),
    /// Nobody is known by this name: whatever is sent is refused.
    Nobody,
}

pub(super) async fn find(
    route: &Route,
    params: &PathParams,
    client: Option<Client<'_>>,
) -> Result<Held, Refused> {
    let Some(tenants) = &route.tenants else { return Ok(Held::Route) };
    match tenants.find(params, client).await {
        Tenant::Known(verifier) => Ok(Held::Tenant(verifier)),
        Tenant::Unknown => Ok(Held::Nobody),
        Tenant::Broken(why) => Err(Refused::because(Reason::KeyUnavailable, why.to_string())),
    }
}
