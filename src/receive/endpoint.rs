//! Step: whose URL is it, on routes where each client has its own? 404 for one that is nobody's, as for any path that
//! leads nowhere: who tries learns nothing, not even that a URL once worked.

use std::sync::Arc;

use crate::config::{Clients, Route};
use crate::endpoints::{ENDPOINT, Endpoint, Endpoints};
use crate::message::PathParams;
use crate::reason::Reason;
use crate::tenants::Client;

use super::refused::Refused;

pub(super) fn find(
    route: &Route,
    params: &PathParams,
    endpoints: &Endpoints,
) -> Result<Option<Arc<Endpoint>>, Refused> {
    match route.clients {
        Clients::Any => Ok(None),
        Clients::Endpoints => {
            let token = params.get(ENDPOINT).unwrap_or_default();
            endpoints.find(&route.name, token).map(Some).ok_or_else(|| Reason::NoRoute.into())
        }
    }
}

/// What its rule depends on.
pub(super) fn as_client(endpoint: Option<&Endpoint>) -> Option<Client<'_>> {
    endpoint.map(|endpoint| Client { id: &endpoint.id, secret: endpoint.secret.as_ref() })
}
