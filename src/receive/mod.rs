//! The way in: what happens to a request, top to bottom, one file a step.
//!
//! [`receive`] takes one request through all steps and answers it; the list itself is [`way_in`]. A step is a small
//! module with its own reasons to refuse next to it. Sockets and HTTP's grammar are `edge`'s, what a signature means
//! is `verify`'s, what is on disk is `buffer`'s; here they are only put in order. Carries promise 2 (only verified
//! requests have effects: every effect stands below `verify` in the list), the request's half of promise 3 (claims
//! are made with a success and released with a failure), promise 5 for bodies, and promise 7 for refusals: one reason
//! in header, log line and metric for each request.

mod admission;
mod admit;
mod allowlist;
mod answers;
mod app;
mod body;
mod budget;
mod contain;
mod endpoint;
pub mod exchange;
mod handshake;
mod idempotency;
mod in_flight;
mod mode;
mod paused;
mod rates;
mod record;
mod refused;
mod route;
mod tenant;
#[cfg(test)]
pub(crate) mod testing;
mod tracked;
mod verify;
mod visit;

use std::collections::HashMap;
use std::sync::Arc;

use crate::breaker::Breakers;
use crate::buffer::{Buffer, Claimed, DestinationName};
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::endpoints::Endpoints;
use crate::gateway::Gateway;
use crate::message::Request;
use crate::pauses::Pauses;
use crate::quarantine::Quarantine;
use crate::telemetry::Metrics;
use crate::trace::Tracer;

pub use admit::{Admission, Force, Recheck, admit, recheck};
use app::App;
use budget::Budget;
use exchange::Exchange;
pub use idempotency::claim_of;
use idempotency::{Identity, Recent};
use in_flight::InFlight;
use rates::Rates;
use record::{Outcome, Record};
use refused::Refused;
use tracked::Tracked;

/// What the way in remembers between requests, shared by all threads and kept across reloads. All of it is bounded
/// and none of it is needed after a restart.
#[derive(Debug)]
pub struct Intake {
    /// Body bytes in memory.
    budget: Budget,
    /// Claims that were met again lately, in front of the buffer's index.
    recent: Recent,
    /// Claims of `proxy` and `spill` routes whose forward is under way.
    in_flight: InFlight,
    /// What is used up of the routes' limits.
    rates: Rates,
}

impl Intake {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            budget: Budget::new(metrics),
            recent: Recent::default(),
            in_flight: InFlight::default(),
            rates: Rates::default(),
        }
    }
}

/// What a step may use. The snapshot's part of it is the same for the whole of a request.
struct Context<'a, A> {
    upstreams: &'a HashMap<DestinationName, Arc<A>>,
    buffer: &'a dyn Buffer,
    metrics: &'a Metrics,
    clock: &'a Clock,
    intake: &'a Intake,
    breakers: &'a Breakers,
    pauses: &'a Pauses,
    quarantine: &'a Quarantine,
    endpoints: &'a Endpoints,
    /// `None`: nothing is recorded.
    tracer: Option<&'a Arc<Tracer>>,
}

impl<A> Context<'_, A> {
    /// The claim in memory. Nearly all keys are new, and of most of these the buffer knows at once that there is none.
    fn remembered(&self, identity: &Identity) -> Option<Arc<Claimed>> {
        if !self.buffer.may_be_claimed(identity.key) {
            return None;
        }
        self.intake.recent.get(identity.key, self.clock.now(), self.buffer.answers_as_of())
    }
}

/// Takes one request through all steps and answers it. Never panics and never fails: whatever goes wrong is answered,
/// counted and logged here. The snapshot that it begins with is the one it ends with.
pub async fn receive<E: Exchange>(gateway: &Arc<Gateway>, exchange: &mut E) {
    let snapshot = gateway.snapshot.load_full();
    let context = Context {
        upstreams: &snapshot.upstreams,
        buffer: &*gateway.buffer,
        metrics: &gateway.metrics,
        clock: &gateway.clock,
        intake: &gateway.intake,
        breakers: &gateway.breakers,
        pauses: &gateway.pauses,
        quarantine: &gateway.quarantine,
        endpoints: &gateway.endpoints,
        tracer: gateway.tracer.as_ref(),
    };
    answered(&snapshot.config, &context, exchange).await;
}

/// Runs the steps, contains what may go wrong in them, and sees to it that there is one answer, one metric and at
/// most one log line.
async fn answered<E: Exchange, A: App>(config: &Config, context: &Context<'_, A>, exchange: &mut E) {
    let span = context.tracer.and_then(|tracer| tracer.request(exchange.head()));
    let mut record = Record::begin(context.metrics, config.log.access, exchange.head(), span);
    let mut exchange = Tracked::new(exchange);
    let result = match contain::contain(way_in(config, context, &mut exchange, &mut record)).await {
        Ok(result) => result,
        Err(panicked) => Err(Refused::internal(panicked.to_string())),
    };
    if let Err(refused) = &result {
        exchange.refuse(refused).await;
    }
    record.end(&result, &exchange);
}

/// The list. Nothing above `verify` has an effect beyond memory that is given back; everything below it is from a
/// sender that the route trusts.
async fn way_in<E: Exchange, A: App>(
    config: &Config,
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    record: &mut Record<'_>,
) -> Result<Outcome, Refused> {
    // Which rule is asked for? 404, 405.
    let found = route::find(config, exchange.head());
    let (route, params) =
        found.map_err(|refused| endpoint::unlogged(refused, exchange.head(), context.endpoints))?;
    record.route(route);

    // Is the address allowed? 403, before a byte of the body is read.
    allowlist::check(route, exchange.head())?;

    // Whose URL is it, where each client has its own? 404, as for any path that leads nowhere.
    let endpoint = endpoint::find(route, &params, context.endpoints)?;
    if let Some(endpoint) = &endpoint {
        record.client(&endpoint.client);
    }

    // Is its app given a rest by an operator? 503, on inline routes.
    paused::check(route, context.pauses)?;
    // Is it too much, from there or of all? 429.
    rates::before_body(&context.intake.rates, route, exchange.head())?;

    // Other paths of the app stream through: no body is held, nothing is verified, stored or claimed.
    if let Mode::Pass(destination) = &route.mode {
        let idle = config.limits.idle_timeout;
        let trace = record.trace();
        let passed = mode::pass::stream(context, exchange, route.max_body, idle, destination, trace);
        return Box::pin(passed).await;
    }

    // Could the event be taken at all, and if the disk lags, is it worth it? 503, before the body is read in vain.
    admission::check(route, context.buffer)?;

    // Does `Connection` try to take a header away that verification reads? 401, unless the route only observes.
    let suspicion = verify::tolerated(route, route.verify.connection(&exchange.head().headers))?;

    // The whole body, bounded by the route and by the budget of all bodies. 413, 408, 503. The reservation ends with
    // this request.
    let limit = config.limits.body_budget;
    let (body, _reserved) = body::read(exchange, route.max_body, &context.intake.budget, limit).await?;
    let request = Request { head: exchange.head().clone(), params, body };

    // Whose keys is it held against, where they depend on who sends?
    let held = tenant::find(route, &request.params, endpoint::as_client(endpoint.as_deref())).await;

    // Is it only a greeting? One that its sender does not sign is answered now, with nothing but words. 405 if it has
    // the method of one and is none. Whose secret would answer it and who is nobody is refused below, as with an event.
    let greeting = handshake::recognise(route, held.as_ref().ok(), &request)?;
    if let Some(greeting) = greeting.filter(|greeting| !greeting.is_signed() && !greeting.lacks_sender()) {
        return handshake::unsigned(context, exchange, route, greeting, request).await;
    }

    // Who sent it? 401, 403, 503; a route that only observes records the answer and goes on. Only from here on may
    // anything have an effect.
    let key_wait = config.limits.key_wait;
    let whose = (held.as_ref(), endpoint.as_deref());
    let checked = verify::check(route, whose, request, suspicion, key_wait, context, record).await;
    let request = checked.map_err(|refused| Refused { words: route.refusals, ..refused })?;
    let request = request.by_client(endpoint.map(|endpoint| endpoint.client.clone())).traced(record.trace());
    record.verified(&request);

    // Is it too much from this sender? 429.
    rates::of_sender(&context.intake.rates, route, &request)?;

    // A greeting that is signed: answered directly. 403, 404. One that is not goes on as anything else does where the
    // route only observes: its answer could be a proof that only the sender may have.
    if let Some(greeting) = handshake::proved(route, greeting, &request)? {
        return handshake::signed(context, exchange, route, greeting, request).await;
    }

    // What only a client's URL has was looked at: it is neither kept nor passed on.
    let request = endpoint::hidden(route, request);

    // Did we have it before? Then it gets the first one's answer.
    let identity = route.idempotency.as_ref().and_then(|rule| idempotency::identify(route, rule, &request));
    if let Some(first) = identity.as_ref().and_then(|identity| context.remembered(identity)) {
        let _ = exchange.answer(answers::repeat(&first)).await;
        return Ok(Outcome::Duplicate(first.event_id));
    }

    match &route.mode {
        Mode::Buffer { answer, destinations } => match &route.split {
            None => {
                mode::buffer::accept(context, exchange, route, destinations, answer, identity, request).await
            }
            Some(split) => {
                let to = (&**destinations, answer);
                Box::pin(mode::split::accept(context, exchange, route, split, to, identity, request)).await
            }
        },
        Mode::Proxy(destination) => {
            mode::proxy::forward(context, exchange, destination, identity, request).await
        }
        Mode::Spill { answer, destination, deadline } => {
            let spill = mode::spill::Spill { route, destination, answer, deadline: *deadline };
            Box::pin(mode::spill::forward(context, exchange, spill, identity, request)).await
        }
        // Taken above; a request that came here anyway must not be sent on as if it had been streamed.
        Mode::Pass(_) => Err(Refused::internal("a pass route went past its step")),
    }
}

#[cfg(test)]
mod tests;
