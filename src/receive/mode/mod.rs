//! The last step: what the route does with a request that has come this far.

pub(super) mod buffer;
pub(super) mod pass;
pub(super) mod proxy;
pub(super) mod spill;
pub(super) mod split;
mod under_way;

use crate::buffer::{AppendError, Appended, Event, EventId, Origin};
use crate::config::Route;
use crate::message::{Head, Request, TraceContext};
use crate::reason::Reason;
use crate::receive::Context;
use crate::trace::Span;

/// The type of an event of this route, as it is kept.
pub(in crate::receive) fn event_type(route: &Route, request: &Request) -> Option<String> {
    route.event_type.as_ref().and_then(|kind| kind.from(request)).map(Event::readable_key)
}

/// The request to the app, where its trace is recorded.
fn call<A>(context: &Context<'_, A>, trace: Option<TraceContext>, head: &Head) -> Option<Span> {
    Some(context.tracer?.call(trace?, &head.method))
}

/// The append of an event, where its trace is recorded; deliveries continue from there.
fn sending<A>(context: &Context<'_, A>, origin: &mut Origin, id: EventId, route: &str) -> Option<Span> {
    let mut span = context.tracer?.sending(origin.trace?, route);
    span.event(id);
    origin.trace = Some(span.context());
    Some(span)
}

/// The append has ended.
fn sent(span: Option<Span>, appended: &Result<Appended, AppendError>) {
    if let (Some(mut span), Err(error)) = (span, appended) {
        let reason = match error {
            AppendError::Full(_) => Reason::BufferFull,
            AppendError::Unavailable(_) => Reason::BufferUnavailable,
        };
        span.failed(reason.code(), error.to_string());
    }
}
