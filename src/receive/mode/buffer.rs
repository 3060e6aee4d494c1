//! Mode `buffer`: store with its claim as one write, acknowledge once that is synced.

use std::sync::Arc;

use crate::buffer::{AppendError, Appended, DestinationName, Event, EventId};
use crate::config::{Acknowledgement, Destination, Route, Unwanted};
use crate::message::Request;
use crate::reason::Reason;
use crate::receive::exchange::Exchange;
use crate::receive::idempotency::Identity;
use crate::receive::record::Outcome;
use crate::receive::refused::Refused;
use crate::receive::tracked::Tracked;
use crate::receive::{Context, answers};
use crate::verify::Verified;

use super::{event_type, sending, sent};

pub(in crate::receive) async fn accept<E: Exchange, A>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    route: &Route,
    destinations: &[Arc<Destination>],
    acknowledgement: &Acknowledgement,
    mut identity: Option<Identity>,
    request: Verified<Request>,
) -> Result<Outcome, Refused>
where
    A: Sync,
{
    let id = EventId::new(request.get().head.received_at);
    let event_type = event_type(route, request.get());
    let readable = identity.as_mut().map(|identity| std::mem::take(&mut identity.readable));
    let event = Event::from_verified(id, route.name.clone(), &request, readable, event_type);
    let names = wanted(destinations, request.get(), event.event_type.as_deref());
    // The event has its own hold of the bytes; what is parsed is no longer needed.
    drop(request);
    if !names.is_empty() {
        return store(context, exchange, event, &names, acknowledgement, identity).await;
    }
    match route.unwanted {
        // With its claim, so that its repeats are told the same.
        Unwanted::Keep => match store(context, exchange, event, &names, acknowledgement, identity).await? {
            Outcome::Accepted(id) => Ok(Outcome::Unwanted(id)),
            other => Ok(other),
        },
        // A repeat is unwanted again, so nothing must be remembered.
        Unwanted::Drop => {
            let answer = answers::acknowledgement(acknowledgement);
            let _ = exchange.answer(answers::first(&answer, id)).await;
            Ok(Outcome::Unwanted(id))
        }
    }
}

/// The destinations that want this event.
pub(in crate::receive) fn wanted(
    destinations: &[Arc<Destination>],
    request: &Request,
    event_type: Option<&str>,
) -> Vec<DestinationName> {
    let wants = |to: &&Arc<Destination>| to.when.as_ref().is_none_or(|when| when.wants(request, event_type));
    destinations.iter().filter(wants).map(|to| to.name.clone()).collect()
}

async fn store<E: Exchange, A>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    mut event: Event,
    destinations: &[DestinationName],
    acknowledgement: &Acknowledgement,
    identity: Option<Identity>,
) -> Result<Outcome, Refused>
where
    A: Sync,
{
    let id = event.id;
    let answer = answers::acknowledgement(acknowledgement);
    let claim = identity.as_ref().map(|identity| identity.claim(answer.clone()));
    let sending = sending(context, &mut event.origin, id, &event.route);
    let as_of = context.buffer.answers_as_of();
    let appended = context.buffer.append(event, destinations, claim).await;
    sent(sending, &appended);
    match appended {
        Ok(Appended::Stored) => {
            // If the sender has gone, its resend is recognised.
            let _ = exchange.answer(answers::first(&answer, id)).await;
            Ok(Outcome::Accepted(id))
        }
        Ok(Appended::Duplicate(claimed)) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{AnswersAsOf, Claimed};
    use crate::receive::testing::{FakeApp, FakeBuffer, InMemory, Scene, event, identity, now_or_never};

    fn settings() -> Acknowledgement {
        Acknowledgement { status: 202, content_type: Some("text/plain".into()), body: "taken".into() }
    }

    fn send(
        scene: &Scene<FakeApp>,
        identity: Option<Identity>,
    ) -> (Result<Outcome, Refused>, InMemory, EventId) {
        let mut exchange = InMemory::post("/");
        let event = event();
        let id = event.id;
        let destinations = [DestinationName::new("r", "d")];
        let context = scene.context();
        let mut tracked = Tracked::new(&mut exchange);
        let result = now_or_never(store(&context, &mut tracked, event, &destinations, &settings(), identity));
        (result, exchange, id)
    }

    fn remembered<A>(scene: &Scene<A>) -> Option<Arc<Claimed>> {
        scene.intake.recent.get(identity("k").key, scene.clock.now(), AnswersAsOf::for_tests(0))
    }

    #[test]
    fn what_is_stored_is_acknowledged_with_its_id() {
        let scene = Scene::new(FakeApp::default());
        let (result, exchange, id) = send(&scene, Some(identity("k")));
        assert_eq!(result, Ok(Outcome::Accepted(id)));
        let answer = exchange.answered().unwrap();
        assert_eq!((answer.status, &answer.body[..]), (202, &b"taken"[..]));
        assert!(answer.headers.contains(&("tidegate-event-id".into(), id.to_string())));
        assert_eq!(scene.buffer.stored(), [id]);
        assert!(remembered(&scene).is_none());
    }

    #[test]
    fn a_repeat_gets_the_first_answer_and_is_not_stored() {
        let scene = Scene::new(FakeApp::default());
        let (_, _, first) = send(&scene, Some(identity("k")));
        let (result, exchange, _) = send(&scene, Some(identity("k")));
        assert_eq!(result, Ok(Outcome::Duplicate(first)));
        let answer = exchange.answered().unwrap();
        assert!(answer.headers.contains(&("tidegate-event-id".into(), first.to_string())));
        assert!(answer.headers.contains(&("tidegate-duplicate".into(), "true".into())));
        assert_eq!((answer.status, &answer.body[..]), (202, &b"taken"[..]));
        assert_eq!(scene.buffer.stored(), [first]);
        assert_eq!(remembered(&scene).unwrap().event_id, first);
    }

    #[test]
    fn without_an_identity_all_are_stored() {
        let scene = Scene::new(FakeApp::default());
        assert!(send(&scene, None).0.is_ok());
        assert!(send(&scene, None).0.is_ok());
        assert_eq!(scene.buffer.stored().len(), 2);
    }

    #[test]
    fn what_the_buffer_refuses_is_not_claimed() {
        for (broken, reason) in [
            (FakeBuffer::full as fn(&FakeBuffer), Reason::BufferFull),
            (FakeBuffer::fail, Reason::BufferUnavailable),
        ] {
            let scene = Scene::new(FakeApp::default());
            broken(&scene.buffer);
            let (result, exchange, _) = send(&scene, Some(identity("k")));
            assert_eq!(result.map_err(|refused| refused.reason), Err(reason));
            assert!(exchange.answered().is_none());
            assert!(remembered(&scene).is_none());
        }
    }

    #[test]
    fn a_sender_that_has_gone_is_recognised_when_it_comes_back() {
        let scene = Scene::new(FakeApp::default());
        let event = event();
        let id = event.id;
        let mut gone = InMemory::post("/").gone();
        let context = scene.context();
        let mut tracked = Tracked::new(&mut gone);
        let names = [DestinationName::new("r", "d")];
        let result =
            now_or_never(store(&context, &mut tracked, event, &names, &settings(), Some(identity("k"))));
        assert_eq!(result, Ok(Outcome::Accepted(id)));
        assert_eq!(send(&scene, Some(identity("k"))).0, Ok(Outcome::Duplicate(id)));
    }
}
