//! What operators ask of quarantine: would a refused request be verified now, and if so, into the buffer with it. The
//! same verification, identity, claim and append as on the way in; only the answer goes to nobody.

use std::sync::Arc;

use crate::buffer::{AppendError, Appended, BatchAppended, Event, EventId, NewBatch};
use crate::config::{Mode, Route};
use crate::endpoints::Endpoints;
use crate::gateway::{Gateway, Snapshot};
use crate::message::{PathParams, Request};
use crate::quarantine::Item;
use crate::route::Match;
use crate::tenants::Held;
use crate::verify::{Refusal, Verified};

use super::idempotency;
use super::mode::buffer::wanted;
use super::mode::event_type;
use super::mode::split::taken_apart;
use super::{answers, endpoint, tenant};

/// What verification says of an item with the secrets of the config that runs, at the time of its reception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recheck {
    Verifies {
        by: Arc<str>,
        label: Option<Arc<str>>,
    },
    Refused(Refusal),
    /// Its route is not in the config any more.
    NoRoute,
}

/// Whether an item must be verified to be admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    #[default]
    No,
    /// The operator vouches for it; the event says so for ever.
    Yes,
}

/// What became of an admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in the buffer, synced. (With `split` the id is its batch's.)
    Admitted(EventId),
    /// It was in the buffer before: as this event.
    Duplicate(EventId),
    /// Still not verified.
    Refused(Refusal),
    NoRoute,
    /// Its route has no buffer; the word is the route's mode.
    NotBuffered(&'static str),
    /// It is a greeting of the sender, not an event.
    Greeting,
    /// The buffer does not take it now.
    NotStored(String),
}

pub async fn recheck(snapshot: &Snapshot, endpoints: &Endpoints, item: &Item) -> Recheck {
    let Some((route, request)) = found(snapshot, item) else { return Recheck::NoRoute };
    match verified(route, request, item, endpoints, Force::No).await {
        Ok(verified) => Recheck::Verifies { by: verified.by().clone(), label: verified.label().cloned() },
        Err(refusal) => Recheck::Refused(refusal),
    }
}

/// Puts an item into the buffer: at most once, however often it is asked for. The event counts as received now, so that
/// its retries have their whole time.
pub async fn admit(gateway: &Gateway, item: &Item, force: Force) -> Admission {
    let snapshot = gateway.snapshot.load_full();
    let Some((route, request)) = found(&snapshot, item) else { return Admission::NoRoute };
    let (answer, destinations) = match &route.mode {
        Mode::Buffer { answer, destinations } => (answer, destinations.as_slice()),
        Mode::Spill { answer, destination, .. } => (answer, std::slice::from_ref(destination)),
        Mode::Proxy(_) | Mode::Pass(_) => return Admission::NotBuffered(route.mode.word()),
    };
    let mut verified = match verified(route, request, item, &gateway.endpoints, force).await {
        Ok(verified) => verified,
        Err(refusal) => return Admission::Refused(refusal),
    };
    if route.handshakes.recognise(verified.get()).is_some() {
        return Admission::Greeting;
    }
    let now = gateway.clock.now();
    let identity = route.idempotency.as_ref().and_then(|rule| idempotency::identify(route, rule, &verified));
    let (identity, readable) = match identity {
        Some(mut identity) => {
            let readable = std::mem::take(&mut identity.readable);
            (identity, Some(readable))
        }
        None => (idempotency::of_admission(route, item.id), None),
    };
    verified.receive_at(now);
    let answer = answers::acknowledgement(answer);
    if let Some(split) = &route.split {
        let claim = identity.claim(answer.clone());
        return match taken_apart(route, split, destinations, &verified, EventId::new(now), &answer) {
            Ok(None) => Admission::Greeting,
            Ok(Some(batch)) => admit_batch(gateway, item, NewBatch { claim: Some(claim), ..batch }).await,
            Err(refused) => Admission::NotStored(refused.detail.into_owned()),
        };
    }
    let event_type = event_type(route, verified.get());
    let names = wanted(destinations, verified.get(), event_type.as_deref());
    let mut event =
        Event::from_verified(EventId::new(now), route.name.clone(), &verified, readable, event_type);
    event.origin.quarantine = Some((item.id, item.received_at));
    let id = event.id;
    match gateway.buffer.append(event, &names, Some(identity.claim(answer))).await {
        Ok(Appended::Stored) => Admission::Admitted(id),
        Ok(Appended::Duplicate(first)) => Admission::Duplicate(first.event_id),
        Err(AppendError::Full(why) | AppendError::Unavailable(why)) => Admission::NotStored(why),
    }
}

/// Where the route takes batches apart: all of the item's events, or none.
async fn admit_batch(gateway: &Gateway, item: &Item, mut batch: NewBatch) -> Admission {
    for part in &mut batch.events {
        part.event.origin.quarantine = Some((item.id, item.received_at));
    }
    let id = batch.id;
    match gateway.buffer.append_batch(batch).await {
        Ok(BatchAppended::Stored { .. }) => Admission::Admitted(id),
        Ok(BatchAppended::Duplicate(first)) => Admission::Duplicate(first.event_id),
        Err(AppendError::Full(why) | AppendError::Unavailable(why)) => Admission::NotStored(why),
    }
}

async fn verified(
    route: &Route,
    request: Request,
    item: &Item,
    endpoints: &Endpoints,
    force: Force,
) -> Result<Verified<Request>, Refusal> {
    let (rule, url, at) = (&route.verify, route.public_url.as_deref(), item.received_at);
    // A URL that has ended since: who used it can't be told any more.
    let client = match endpoint::of_item(route, item, &request.params, endpoints) {
        Ok(client) => client,
        Err(ended) => return Err(Refusal::new(ended.reason, "the client's URL has ended")),
    };
    let held = tenant::find(route, &request.params, endpoint::as_client(client.as_deref())).await;
    let verified = match (held, force) {
        (Ok(held), Force::No) => {
            held.verify(rule, request, url, at).map_err(|(_, refusal)| match item.endpoint {
                Some(_) if rule.signs_url() => {
                    let why = "the client's part of the URL is not kept, and the signature may cover it";
                    Refusal { detail: format!("{why}; {}", refusal.detail), ..refusal }
                }
                _ => refusal,
            })
        }
        (Ok(held), Force::Yes) => Ok(held.observe(rule, request, url, at, None)),
        (Err(refusal), Force::No) => Err(refusal),
        (Err(refusal), Force::Yes) => Ok(Held::Nobody.observe(rule, request, url, at, Some(refusal))),
    }?;
    Ok(endpoint::hidden(route, verified.by_client(client.map(|client| client.client.clone()))))
}

/// The route that refused an item, as it is now, and the request with the parameters of its path.
fn found<'s>(snapshot: &'s Snapshot, item: &Item) -> Option<(&'s Arc<Route>, Request)> {
    let config = &snapshot.config;
    let at = config.routes.iter().position(|route| *route.name == *item.route)?;
    let mut request = item.request(PathParams::default());
    let head = &request.head;
    if let Match::Route { index, params } = config.table.find(&head.host(), head.path(), &head.method)
        && index == at
    {
        request.params = params;
    }
    Some((&config.routes[at], request))
}
