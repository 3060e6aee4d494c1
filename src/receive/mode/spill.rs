//! Mode `spill`: forward inline and give the app's real answer, if there is one in time; else store the event under the
//! same id and acknowledge it.
//!
//! An answer is held back until it is whole (or longer than [`HELD`]), so that the choice between the two is made
//! before the sender has seen anything: it never gets two answers, and never none. An answer of 5xx is none. Of
//! concurrent twins one at a time is forwarded, as in `proxy`; the claim is made with the app's success, or with the
//! append. Whoever is stopped in between (`kill -9`) leaves neither answer nor claim, and the sender tries again.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::buffer::{AppendError, Appended, Claimed, Event, FirstAnswer};
use crate::config::{Acknowledgement, Destination, Route};
use crate::message::Request;
use crate::reason::Reason;
use crate::receive::app::{App, AppAnswer};
use crate::receive::exchange::Exchange;
use crate::receive::idempotency::Identity;
use crate::receive::in_flight::Turn;
use crate::receive::record::Outcome;
use crate::receive::refused::Refused;
use crate::receive::tracked::Tracked;
use crate::receive::{Context, answers};
use crate::verify::Verified;

use super::proxy::{Call, Permitted, repeat};
use super::under_way::UnderWay;
use super::{event_type, sending, sent};

/// Bytes of an answer's body that are held back: as much as is kept of an answer for repeats.
const HELD: usize = FirstAnswer::MAX_BODY;

/// What the route says.
pub(in crate::receive) struct Spill<'a> {
    pub route: &'a Route,
    pub destination: &'a Destination,
    pub answer: &'a Acknowledgement,
    /// How long the app has for what is held back of its answer.
    pub deadline: Duration,
}

pub(in crate::receive) async fn forward<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    spill: Spill<'_>,
    identity: Option<Identity>,
    request: Verified<Request>,
) -> Result<Outcome, Refused> {
    let call = Call::of(context, spill.destination, &request)?;
    let one = One { context, call, request, identity, spill };
    one.forward(exchange).await
}

/// One event of a spill route.
struct One<'a, A> {
    context: &'a Context<'a, A>,
    call: Call<'a, A>,
    /// What is stored if the app does not take it.
    request: Verified<Request>,
    identity: Option<Identity>,
    spill: Spill<'a>,
}

/// What the app answered in time.
struct Heard<Answer> {
    incoming: Answer,
    /// The beginning of its body, or all of it.
    held: Vec<Bytes>,
    extent: Extent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Whole,
    /// Too long to be held back: the rest is streamed.
    More,
}

impl<A: App> One<'_, A> {
    async fn forward<E: Exchange>(mut self, exchange: &mut Tracked<'_, E>) -> Result<Outcome, Refused> {
        let turn = match &self.identity {
            None => None,
            Some(identity) => match self.call.turn(self.context, identity).await? {
                Permitted::Forward(turn) => Some(turn),
                Permitted::Known(claimed) => return Ok(repeat(exchange, &claimed).await),
            },
        };
        let heard = match timeout(self.spill.deadline, self.hear()).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(why)) => return self.store(exchange, turn, &why).await,
            Err(_) => return self.store(exchange, turn, "no whole answer within the deadline").await,
        };
        let Heard { mut incoming, held, extent } = heard;
        let status = incoming.status();
        let success = (200..300).contains(&status);
        let mut sender = match self.call.start(&mut *exchange, &mut incoming).await {
            Ok(sender) => sender,
            // Nothing was sent: the app's answer has a head that can't be said.
            Err(refused) => return self.store(exchange, turn, &refused.detail).await,
        };
        // The app has it and does not want it: the next may try, while this sender is told what the app said.
        let turn = turn.filter(|_| success);
        let mut kept = answers::Kept::of(status, incoming.headers());
        for piece in held {
            kept.push(&piece);
            incoming.extend(sender.write(piece).await);
        }
        let streamed = match extent {
            Extent::Whole => Ok(sender),
            Extent::More => self.call.stream(&mut incoming, sender, |chunk| kept.push(chunk)).await,
        };
        match streamed {
            Ok(sender) => {
                // Claimed before the sender sees the end; as durable as in `proxy`.
                if let (Some(turn), Some(identity)) = (turn, &self.identity) {
                    turn.succeed(&self.call.claim(self.context, identity, kept.into_answer()));
                }
                sender.finish().await;
                Ok(Outcome::Forwarded(self.call.id))
            }
            Err(error) if success => {
                // The sender may go by the head alone, which said that all is well; so that it is, the event is stored.
                self.append(turn, &error.to_string()).await?;
                exchange.abort();
                Ok(Outcome::Spilled(self.call.id))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends it and waits for an answer that settles what happens. An `Err` says why there is none.
    async fn hear(&self) -> Result<Heard<UnderWay<A::Answer>>, Cow<'static, str>> {
        if self.context.pauses.of(&self.spill.destination.name).is_some() {
            return Err("paused by an operator".into());
        }
        let mut incoming = self.call.send().await.map_err(|refused| refused.detail)?;
        if incoming.status() >= 500 {
            return Err(format!("status {}", incoming.status()).into());
        }
        let (mut held, mut bytes) = (Vec::new(), 0);
        while bytes <= HELD {
            match self.call.next(&mut incoming).await {
                Ok(Some(piece)) => {
                    bytes += piece.len();
                    held.push(piece);
                }
                Ok(None) => return Ok(Heard { incoming, held, extent: Extent::Whole }),
                Err(error) => return Err(error.to_string().into()),
            }
        }
        Ok(Heard { incoming, held, extent: Extent::More })
    }

    /// Stores and acknowledges it. Nothing was answered yet.
    async fn store<E: Exchange>(
        &mut self,
        exchange: &mut Tracked<'_, E>,
        turn: Option<Turn>,
        why: &str,
    ) -> Result<Outcome, Refused> {
        match self.append(turn, why).await? {
            None => {
                let answer = answers::acknowledgement(self.spill.answer);
                // If the sender has gone, its resend is recognised.
                let _ = exchange.answer(answers::first(&answer, self.call.id)).await;
                Ok(Outcome::Spilled(self.call.id))
            }
            Some(claimed) => Ok(repeat(exchange, &claimed).await),
        }
    }

    /// Stores it with its claim, under the id that the app was sent; the claim that was there already, if one was.
    async fn append(&mut self, turn: Option<Turn>, why: &str) -> Result<Option<Arc<Claimed>>, Refused> {
        let Self { context, call, request, identity, spill } = self;
        tracing::debug!(event = %call.id, route = %spill.route.name, why, "stored instead of waited for");
        let event_type = event_type(spill.route, request.get());
        let readable = identity.as_mut().map(|identity| std::mem::take(&mut identity.readable));
        let mut event =
            Event::from_verified(call.id, spill.route.name.clone(), request, readable, event_type);
        event.origin.may_repeat = true;
        let received_at = event.received_at;
        let answer = answers::acknowledgement(spill.answer);
        let claim = identity.as_ref().map(|identity| identity.claim(answer.clone()));
        let to = std::slice::from_ref(&spill.destination.name);
        let refused = |reason, error: &str| {
            Refused::because(reason, format!("not taken by the app ({why}) and not stored: {error}"))
        };
        let sending = sending(context, &mut event.origin, call.id, &spill.route.name);
        let as_of = context.buffer.answers_as_of();
        let appended = context.buffer.append(event, to, claim).await;
        sent(sending, &appended);
        let claimed = match appended {
            Ok(Appended::Stored) => {
                if let (Some(turn), Some(identity)) = (turn, identity) {
                    let expires_at = received_at.saturating_add(identity.window);
                    turn.succeed(&Arc::new(Claimed { event_id: call.id, answer, expires_at }));
                }
                return Ok(None);
            }
            Ok(Appended::Duplicate(claimed)) => Arc::new(claimed),
            Err(AppendError::Full(error)) => return Err(refused(Reason::BufferFull, &error)),
            Err(AppendError::Unavailable(error)) => return Err(refused(Reason::BufferUnavailable, &error)),
        };
        if let Some(identity) = identity {
            // Whoever repeats once does so again.
            context.intake.recent.insert(identity.key, claimed.clone(), as_of);
        }
        if let Some(turn) = turn {
            turn.succeed(&claimed);
        }
        Ok(Some(claimed))
    }
}

#[cfg(test)]
#[path = "spill_tests.rs"]
mod tests;
