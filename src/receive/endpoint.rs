//! Step: whose URL is it, on routes where each client has its own? 404 for one that is nobody's, as for any path that
//! leads nowhere: who tries learns nothing, not even that a URL once worked.

use std::sync::Arc;

use crate::config::{Clients, Route};
use crate::endpoints::{ENDPOINT, Endpoint, Endpoints, HIDDEN};
use crate::message::{Head, PathParams, Request};
use crate::quarantine::Item;
use crate::reason::Reason;
use crate::tenants::Client;
use crate::verify::Verified;

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

/// The same for what is in quarantine, where only the URL's id is kept.
pub(super) fn of_item(
    route: &Route,
    item: &Item,
    params: &PathParams,
    endpoints: &Endpoints,
) -> Result<Option<Arc<Endpoint>>, Refused> {
    match (route.clients, &item.endpoint) {
        (Clients::Endpoints, Some(id)) => {
            endpoints.by_id(&route.name, id).map(Some).ok_or_else(|| Reason::NoRoute.into())
        }
        (Clients::Any, _) | (Clients::Endpoints, None) => find(route, params, endpoints),
    }
}

/// The request without what only the client knows: nothing below verification may keep it or pass it on.
pub(super) fn hidden(route: &Route, mut request: Verified<Request>) -> Verified<Request> {
    if route.clients == Clients::Endpoints {
        request.replace_param(ENDPOINT, HIDDEN);
    }
    request
}

/// A path that leads nowhere may be a slip of a client's.
pub(super) fn unlogged(refused: Refused, head: &Head, endpoints: &Endpoints) -> Refused {
    Refused { path: endpoints.hidden(head.path()), ..refused }
}

/// What its rule depends on.
pub(super) fn as_client(endpoint: Option<&Endpoint>) -> Option<Client<'_>> {
    endpoint.map(|endpoint| Client { id: &endpoint.id, secret: endpoint.secret.as_ref() })
}
