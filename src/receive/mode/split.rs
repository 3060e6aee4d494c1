//! Mode `buffer` with `split`: each element of a batch becomes an event, all of them stored by one write.
//!
//! The sender gets one answer, about the request; its `tidegate-event-id` is the batch's, which each event carries in
//! `tidegate-batch`. A repeat of the whole request gets that answer again; elements that came before, in whatever
//! request, are left out. What is no batch is refused: an event of another shape than the app was promised is none.

use std::sync::Arc;

use bytes::Bytes;

use crate::buffer::{
    AppendError, BatchAppended, BatchPart, DestinationName, Event, EventId, FirstAnswer, NewBatch, NewClaim,
    NewPart,
};
use crate::config::{Acknowledgement, Destination, Route, Unwanted};
use crate::message::{Head, Headers, Request};
use crate::reason::Reason;
use crate::receive::exchange::Exchange;
use crate::receive::idempotency::{Identity, key_of_part, scope_of_parts};
use crate::receive::record::Outcome;
use crate::receive::refused::Refused;
use crate::receive::tracked::Tracked;
use crate::receive::{Context, answers};
use crate::verify::{Element, NotSplit, Split, Verified};

use super::buffer;

/// Bytes of all events of a batch, each with its copy of the headers: what one write to the disk may be.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What an event takes on disk beside headers and body, at most, short of its target.
const EVENT_BYTES: usize = 1024;

pub(in crate::receive) async fn accept<E: Exchange, A: Sync>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    split: &Split,
    (destinations, acknowledgement): (&[Arc<Destination>], &Acknowledgement),
    identity: Option<Identity>,
    request: Verified<Request>,
) -> Result<Outcome, Refused> {
    let answer = answers::acknowledgement(acknowledgement);
    let id = EventId::new(request.get().head.received_at);
    let Some(mut batch) = taken_apart(route, split, destinations, &request, id, &answer)? else {
        let _ = exchange.answer(answers::first(&answer, id)).await;
        return Ok(Outcome::Handshake);
    };
    drop(request);
    let is_wanted = batch.events.iter().any(|part| !part.to.is_empty());
    if route.unwanted == Unwanted::Drop {
        if !is_wanted {
            // A repeat is unwanted again, so nothing must be remembered.
            let _ = exchange.answer(answers::first(&answer, id)).await;
            return Ok(Outcome::Unwanted(id));
        }
        batch.events.retain(|part| !part.to.is_empty());
    }
    batch.claim = identity.as_ref().map(|identity| identity.claim(answer.clone()));
    let as_of = context.buffer.answers_as_of();
    match context.buffer.append_batch(batch).await {
        Ok(BatchAppended::Stored { .. }) => {
            let _ = exchange.answer(answers::first(&answer, id)).await;
            Ok(if is_wanted { Outcome::Accepted(id) } else { Outcome::Unwanted(id) })
        }
        Ok(BatchAppended::Duplicate(claimed)) => {
            let first = claimed.event_id;
            let _ = exchange.answer(answers::repeat(&claimed)).await;
            if let Some(identity) = identity {
                // Whoever repeats once does so again.
                context.intake.recent.insert(identity.key, Arc::new(claimed), as_of);
            }
            Ok(Outcome::Duplicate(first))
        }
        Err(AppendError::Full(why)) => Err(Refused::because(Reason::BufferFull, why)),
        Err(AppendError::Unavailable(why)) => Err(Refused::because(Reason::BufferUnavailable, why)),
    }
}

/// The events of a request, each with its claim and the destinations that want it; `None` if there are none: some senders
/// try an address out with a batch of nothing, and there is nothing that could be lost. The claim of the request as a
/// whole is the caller's.
pub(in crate::receive) fn taken_apart(
    route: &Route,
    split: &Split,
    destinations: &[Arc<Destination>],
    request: &Verified<Request>,
    id: EventId,
    answer: &FirstAnswer,
) -> Result<Option<NewBatch>, Refused> {
    let elements = split.elements(request.get()).map_err(|why| match why {
        NotSplit::NoArray => Refused::because(Reason::NotABatch, why.to_string()),
        NotSplit::TooMany(_) => Refused::because(Reason::BatchTooLarge, why.to_string()),
    })?;
    if elements.is_empty() {
        return Ok(None);
    }
    let headers_of_each = headers(&request.get().head.headers, split);
    let each = EVENT_BYTES + headers_of_each.bytes() + request.get().head.target.len();
    if each.saturating_mul(elements.len()) > MAX_BYTES {
        let why = format!("{} events of {each} bytes beside their bodies", elements.len());
        return Err(Refused::because(Reason::BatchTooLarge, why));
    }
    let common = super::event_type(route, request.get());
    let whole = Event::from_verified(id, route.name.clone(), request, None, common);
    let whole = Event { headers: headers_of_each.clone(), body: Bytes::new(), ..whole };
    let count = u32::try_from(elements.len()).unwrap_or(u32::MAX);
    let mut ids: Vec<EventId> = elements.iter().map(|_| EventId::new(whole.received_at)).collect();
    // Ids of one millisecond come in any order; within a batch they shall sort as its events do.
    ids.sort_unstable();
    let scope = scope_of_parts(route, request);
    let mut places = Places::of(destinations, request.get(), &headers_of_each);
    let part = |(number, (element, event_id)): (u32, (Element, EventId))| {
        let claim = claim(route, &scope, &element, whole.origin.would_refuse, answer);
        let Element { body, key, event_type } = element;
        // A copy: a part would keep the whole request in memory for as long as its own event waits there.
        let mut event = Event { id: event_id, body: Bytes::copy_from_slice(&body), ..whole.clone() };
        event.event_type = event_type.map(Event::readable_key).or(event.event_type);
        event.idempotency_key = claim.is_some().then(|| Event::readable_key(key));
        event.origin.batch = Some(BatchPart { id, number, count });
        let to = places.wanted(&event);
        NewPart { event, to, claim }
    };
    let events = (1..).zip(elements.into_iter().zip(ids)).map(part).collect();
    Ok(Some(NewBatch { id, events, claim: None }))
}

/// What the destinations' conditions are asked of.
enum Places<'d> {
    /// Every event goes to all.
    All(Vec<DestinationName>),
    /// The request as each event has it: with that one's body in turn.
    Own { destinations: &'d [Arc<Destination>], request: Box<Request> },
}

impl<'d> Places<'d> {
    fn of(destinations: &'d [Arc<Destination>], request: &Request, headers: &Headers) -> Self {
        if destinations.iter().all(|to| to.when.is_none()) {
            return Self::All(destinations.iter().map(|to| to.name.clone()).collect());
        }
        let head = Head { headers: headers.clone(), ..request.head.clone() };
        let request = Request { head, params: request.params.clone(), body: Bytes::new() };
        Self::Own { destinations, request: Box::new(request) }
    }

    /// The destinations that want this event.
    fn wanted(&mut self, event: &Event) -> Vec<DestinationName> {
        match self {
            Self::All(names) => names.clone(),
            Self::Own { destinations, request } => {
                request.body = event.body.clone();
                buffer::wanted(destinations, request, event.event_type.as_deref())
            }
        }
    }
}

/// The claim of an element.
fn claim(
    route: &Route,
    scope: &str,
    element: &Element,
    would_refuse: Option<Reason>,
    answer: &FirstAnswer,
) -> Option<NewClaim> {
    let window = route.idempotency.as_ref()?.window;
    let key = key_of_part(scope, element.key.as_bytes(), &element.body, would_refuse);
    // What its repeats would be answered, were they to come alone: nobody asks.
    Some(NewClaim { key, whose: None, window, answer: answer.clone() })
}

/// The headers of each event: the request's, but for the type of a body that is no form any more.
fn headers(sent: &Headers, split: &Split) -> Headers {
    if !split.changes_content_type() {
        return sent.clone();
    }
    let mut builder = sent.builder_like(1, 64);
    let mut is_said = false;
    for (name, value) in sent.iter() {
        match name.eq_ignore_ascii_case("content-type") {
            false => builder.push(name, value),
            true if is_said => continue,
            true => {
                is_said = true;
                builder.push(name, b"application/json")
            }
        };
    }
    if !is_said {
        builder.push("Content-Type", b"application/json");
    }
    builder.build()
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
