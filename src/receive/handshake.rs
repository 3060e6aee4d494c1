//! Step: is a request only a greeting of its sender? Then it is answered directly; nothing is stored, and no app is
//! asked unless the route says `handshake: forward`. What is a greeting and what it is answered is `verify`'s.

use crate::config::{Clients, Route};
use crate::message::{Method, Request};
use crate::reason::Reason;
use crate::tenants::Held;
use crate::verify::handshake::{Handshake, Reply};
use crate::verify::{Policy, Verified};

use super::app::App;
use super::exchange::Exchange;
use super::record::Outcome;
use super::refused::Refused;
use super::route::lacks;
use super::tracked::Tracked;
use super::{Context, endpoint, mode, visit};

/// The handshake that the request is, if it is one. A method that only greetings have is allowed to nothing else.
pub(super) fn recognise<'r>(
    route: &'r Route,
    held: Option<&'r Held>,
    request: &Request,
) -> Result<Option<&'r Handshake>, Refused> {
    let found = route.handshakes.recognise_of(held.and_then(Held::handshakes), request);
    if found.is_none() && route.greeting_methods.contains(&request.head.method) {
        if route.clients == Clients::Endpoints {
            return Err(Reason::NoRoute.into());
        }
        let events = route.methods.iter().filter(|method| !route.greeting_methods.contains(method));
        let allow = events.map(Method::as_str).collect::<Vec<_>>().join(", ");
        let refused = match route.handshakes.lacks(&request.head) {
            Some(setting) => Refused::because(Reason::MethodNotAllowed, lacks(&route.name, setting)),
            None => Refused::because(
                Reason::MethodNotAllowed,
                "only a handshake has this method here, and this is none",
            ),
        };
        return Err(Refused { allow: Some(allow), ..refused });
    }
    Ok(found)
}

/// A greeting that its sender does not sign.
pub(super) async fn unsigned<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    greeting: &Handshake,
    request: Request,
) -> Result<Outcome, Refused> {
    match route.handshakes.policy {
        Policy::Answer => answer(exchange, route, greeting, &request).await,
        Policy::Forward => forward(context, exchange, route, greeting.forwarded(request)).await,
    }
}

/// The greeting, if the route's rule has held for it. Where the route only observes and it has not, it is an event, but
/// with a method that events do not have, it is refused all the same.
pub(super) fn proved<'r>(
    route: &Route,
    greeting: Option<&'r Handshake>,
    request: &Verified<Request>,
) -> Result<Option<&'r Handshake>, Refused> {
    match request.would_refuse() {
        None => Ok(greeting),
        Some(why) if greeting.is_some() && route.greeting_methods.contains(&request.get().head.method) => {
            Err(Refused::because(why.reason, why.detail.clone()))
        }
        Some(_) => Ok(None),
    }
}

/// A greeting for which the route's rule has held.
pub(super) async fn signed<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    greeting: &Handshake,
    request: Verified<Request>,
) -> Result<Outcome, Refused> {
    match route.handshakes.policy {
        Policy::Answer if greeting.lacks_sender() => Err(Refused::because(
            Reason::HandshakeRefused,
            "the secret that it would be answered with is not there for this sender",
        )),
        Policy::Answer => answer(exchange, route, greeting, request.get()).await,
        Policy::Forward => forward(context, exchange, route, request).await,
    }
}

async fn answer<E: Exchange>(
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    greeting: &Handshake,
    request: &Request,
) -> Result<Outcome, Refused> {
    let reply = greeting.reply(request, route.public_url.as_deref());
    let Reply { answer, show, warn, visit } =
        reply.map_err(|why| Refused::because(why.reason, why.detail))?;
    if let Some(visited) = &visit {
        visit::fetch(visited).await.map_err(|error| {
            Refused::because(
                Reason::UpstreamUnavailable,
                format!("the handshake's URL can't be visited: {error}"),
            )
        })?;
    }
    if let Some((secret, place)) = show {
        // The one place where something that will be a secret is shown, because only its sender knows it and nobody else
        // can tell the operator. Never without `handshake: show` or a handshake of the route's own that says `show`.
        tracing::info!(
            route = &*route.name,
            source = %request.head.client,
            place,
            secret,
            "the sender brings the secret of this route: if you are setting it up now, store it in a file or variable, \
             name it as the route's `secret`, remove `handshake: show`, and reload"
        );
    }
    if let Some(warning) = warn {
        tracing::warn!(route = &*route.name, source = %request.head.client, "{warning}");
    }
    tracing::debug!(
        target: "tidegate::request",
        route = &*route.name,
        source = %request.head.client,
        method = %request.head.method,
        status = answer.status,
        visited = visit.map(|visited| tracing::field::display(visited.url)),
        "a handshake is answered"
    );
    let _ = exchange.answer(answer).await;
    Ok(Outcome::Handshake)
}

/// The first destination answers: a greeting has one answer.
async fn forward<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    request: Verified<Request>,
) -> Result<Outcome, Refused> {
    match route.mode.destinations().first() {
        Some(destination) => {
            let request = endpoint::hidden(route, request);
            mode::proxy::forward(context, exchange, destination, None, request).await
        }
        None => Err(Refused::internal("a route without a destination")),
    }
}
