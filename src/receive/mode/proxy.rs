//! Mode `proxy`: forward inline and stream the app's real answer back. The claim is made with the app's success and
//! released with anything else; of concurrent twins one at a time is forwarded. Around a crash that is at least once: the
//! answer does not wait for the claim to be written.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::breaker::{self, Breaker};
use crate::buffer::{Claimed, EventId, FirstAnswer};
use crate::clock::Clock;
use crate::config::{BreakerSettings, Destination};
use crate::message::Request;
use crate::reason::Reason;
use crate::receive::app::{App, AppAnswer};
use crate::receive::exchange::{Exchange, NotStarted, SenderGone};
use crate::receive::idempotency::Identity;
use crate::receive::in_flight::{self, Entered, Turn};
use crate::receive::record::Outcome;
use crate::receive::refused::{Refused, unsendable};
use crate::receive::tracked::Tracked;
use crate::receive::{Context, answers};
use crate::trace::Span;
use crate::upstream::{Affinity, EventHeaders, Forward, Outgoing, UpstreamError, retry_after};
use crate::verify::Verified;

use super::call;
use super::under_way::UnderWay;

pub(in crate::receive) async fn forward<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    destination: &Destination,
    identity: Option<Identity>,
    request: Verified<Request>,
) -> Result<Outcome, Refused> {
    let call = Call::of(context, destination, &request)?;
    // The call has its own hold of the bytes; what is parsed is no longer needed.
    drop(request);
    match identity {
        None => call.relay(exchange).await,
        Some(identity) => call.relay_once(context, exchange, &identity).await,
    }
}

/// One event for the app.
pub(super) struct Call<'a, A> {
    app: &'a A,
    breaker: Guarded<'a>,
    clock: &'a Clock,
    route: &'a str,
    pub id: EventId,
    outgoing: Outgoing,
    body: Bytes,
    timeout: Duration,
    /// Where its trace is recorded; ends with the call.
    span: Option<Mutex<Span>>,
}

/// What spares the app.
struct Guarded<'a> {
    breaker: Arc<Breaker>,
    /// `None`: off.
    settings: Option<&'a BreakerSettings>,
}

impl<'a, A: App> Call<'a, A> {
    pub fn of(
        context: &Context<'a, A>,
        destination: &'a Destination,
        request: &Verified<Request>,
    ) -> Result<Self, Refused> {
        let head = &request.get().head;
        let id = EventId::new(head.received_at);
        let mut span = call(context, request.trace(), head);
        if let Some(span) = &mut span {
            span.event(id);
        }
        let outgoing = Forward {
            method: &head.method,
            target: &head.target,
            authority: &head.authority,
            scheme: head.scheme,
            client: head.client,
            headers: &head.headers,
            event: Some(EventHeaders {
                id,
                attempt: 1,
                received_at: head.received_at,
                verified: request.by(),
                batch: None,
                would_refuse: request.would_refuse().map(|refusal| refusal.reason),
                client: request.client().map(|client| &**client),
                may_repeat: false,
            }),
            upgrade: false,
            trace: span.as_ref().map(Span::context),
            affinity: Affinity::of(&destination.balance, request.get()),
        }
        .to(destination);
        let outgoing = Outgoing { went_to: span.as_ref().and_then(Span::went_to), ..outgoing };
        let Some(app) = context.upstreams.get(&destination.name) else {
            return Err(Refused::internal(format!("no client for {}", destination.name)));
        };
        let body = request.get().body.clone();
        let breaker = Guarded {
            breaker: context.breakers.of(&destination.name),
            settings: destination.breaker.as_ref(),
        };
        Ok(Self {
            app: &**app,
            breaker,
            clock: context.clock,
            route: destination.name.route(),
            id,
            outgoing,
            body,
            timeout: destination.timeout,
            span: span.map(Mutex::new),
        })
    }

    /// Sends it, if the app is not given a rest.
    pub async fn send(&self) -> Result<UnderWay<A::Answer>, Refused> {
        let Guarded { breaker, settings } = &self.breaker;
        let permit = match breaker.admit_inline(*settings) {
            Ok(permit) => permit,
            Err(rest) => {
                return Err(Refused::paused(
                    rest,
                    "the destination is spared: its breaker is open, or in its slow start",
                ));
            }
        };
        match self.app.send(&self.outgoing, self.body.clone()).await {
            Ok(incoming) => {
                let status = incoming.status();
                let asked = incoming.headers().first("retry-after");
                let asked = asked.and_then(|value| retry_after(value, self.clock.now()));
                if let Some(span) = &self.span {
                    span.lock().app_answered(status);
                }
                Ok(UnderWay::new(incoming, asked, permit))
            }
            Err(error) => {
                permit.end(breaker::of_error(&error), &error.to_string());
                if let Some(span) = &self.span {
                    span.lock().failed(error.class(), error.to_string());
                }
                Err(error.into())
            }
        }
    }

    async fn relay<E: Exchange>(&self, exchange: &mut Tracked<'_, E>) -> Result<Outcome, Refused> {
        let mut incoming = self.send().await?;
        let sender = self.start(exchange, &mut incoming).await?;
        self.stream(&mut incoming, sender, |_| ()).await?.finish().await;
        Ok(Outcome::Forwarded(self.id))
    }

    /// Like `relay`, but only if no other request with the same key has succeeded.
    async fn relay_once<E: Exchange>(
        &self,
        context: &Context<'_, A>,
        exchange: &mut Tracked<'_, E>,
        identity: &Identity,
    ) -> Result<Outcome, Refused> {
        let turn = match self.turn(context, identity).await? {
            Permitted::Forward(turn) => turn,
            Permitted::Known(claimed) => return Ok(repeat(exchange, &claimed).await),
        };

        let mut incoming = self.send().await?;
        if !(200..300).contains(&incoming.status()) {
            // Not a success: the next may try, while this sender is told what the app said.
            drop(turn);
            let sender = self.start(exchange, &mut incoming).await?;
            self.stream(&mut incoming, sender, |_| ()).await?.finish().await;
            return Ok(Outcome::Forwarded(self.id));
        }
        let mut kept = answers::Kept::of(incoming.status(), incoming.headers());
        let sender = self.start(exchange, &mut incoming).await?;
        let sender = self.stream(&mut incoming, sender, |chunk| kept.push(chunk)).await?;
        // Claimed before the sender sees the end: from then on a repeat of what it saw succeed is recognised, but for a
        // crash within moments, which forgets what is not written yet (see `Buffer::claim`).
        turn.succeed(&self.claim(context, identity, kept.into_answer()));
        sender.finish().await;
        Ok(Outcome::Forwarded(self.id))
    }

    /// Waits until it is our turn, or until somebody has succeeded.
    pub async fn turn(&self, context: &Context<'_, A>, identity: &Identity) -> Result<Permitted, Refused> {
        let turn = match self.next_turn(context, identity).await? {
            Permitted::Forward(turn) => turn,
            known => return Ok(known),
        };
        // Whoever was first before us has made its claim before it gave the turn back: look again.
        let as_of = context.buffer.answers_as_of();
        let Some(claimed) = known(context, identity).await? else { return Ok(Permitted::Forward(turn)) };
        context.intake.recent.insert(identity.key, claimed.clone(), as_of);
        turn.succeed(&claimed);
        Ok(Permitted::Known(claimed))
    }

    async fn next_turn(&self, context: &Context<'_, A>, identity: &Identity) -> Result<Permitted, Refused> {
        let twin = match context.intake.in_flight.enter(identity.key) {
            Entered::First(turn) => return Ok(Permitted::Forward(turn)),
            Entered::Twin(twin) => twin,
            Entered::Full => {
                return Err(Refused::because(
                    Reason::TooManyConnections,
                    "too many claims are being forwarded",
                ));
            }
        };
        // Long enough for the first to fail and the next to have its try; a queue of all twins at a sick app would
        // keep each of them longer than any sender waits.
        match timeout(self.timeout.saturating_mul(2), twin).await {
            Ok(Ok(in_flight::Outcome::Succeeded(claimed))) => Ok(Permitted::Known(claimed)),
            Ok(Ok(in_flight::Outcome::YourTurn(turn))) => Ok(Permitted::Forward(turn)),
            Ok(Err(_)) => Err(Refused::internal("a turn was lost")),
            Err(_) => Err(Refused::because(
                Reason::UpstreamTimeout,
                "the same event was being forwarded all the time",
            )),
        }
    }

    pub async fn start<'s, 'e, E: Exchange>(
        &self,
        exchange: &'s mut Tracked<'e, E>,
        incoming: &mut UnderWay<A::Answer>,
    ) -> Result<Sender<'s, 'e, E>, Refused> {
        let started = Sender::start(exchange, incoming, self.id, self.timeout).await;
        if started.is_err() {
            // It does not fit the sender; the app has said what it had to say.
            incoming.is_enough();
        }
        started
    }

    /// Passes the app's answer on to its end. A sender that leaves does not end it: whether the app has succeeded
    /// must be known. An `Err` is the app's break.
    pub async fn stream<'s, 'e, E: Exchange>(
        &self,
        incoming: &mut UnderWay<A::Answer>,
        mut sender: Sender<'s, 'e, E>,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Sender<'s, 'e, E>, UpstreamError> {
        while let Some(chunk) = self.next(incoming).await? {
            seen(&chunk);
            // The destination's timeout is the app's: a sender that reads slowly does not use it up.
            incoming.extend(sender.write(chunk).await);
        }
        Ok(sender)
    }

    /// The next piece of the app's answer.
    pub async fn next(&self, incoming: &mut UnderWay<A::Answer>) -> Result<Option<Bytes>, UpstreamError> {
        let chunk = incoming.chunk().await;
        if let (Err(error), Some(span)) = (&chunk, &self.span) {
            span.lock().failed(error.class(), error.to_string());
        }
        chunk
    }

    pub fn claim(&self, context: &Context<'_, A>, identity: &Identity, answer: FirstAnswer) -> Arc<Claimed> {
        let now = context.clock.now();
        let expires_at = now.saturating_add(identity.window);
        let as_of = context.buffer.answers_as_of();
        let written = context.buffer.claim(identity.claim_of_app(self.route, answer.clone()), self.id);
        let claimed = Arc::new(Claimed { event_id: self.id, answer, expires_at });
        if let Err(error) = written {
            // The app has it and the sender will be told so; only a repeat after a restart may reach the app again.
            tracing::error!(event = %self.id, %error, "a claim could not be written");
            context.intake.recent.insert(identity.key, claimed.clone(), as_of);
        }
        claimed
    }
}

pub(super) enum Permitted {
    Forward(Turn),
    Known(Arc<Claimed>),
}

/// The standing claim, from memory or from the buffer. If the buffer can't tell, nothing is forwarded: the sender
/// tries again, and the app is not given twice what it may have had.
async fn known<A>(context: &Context<'_, A>, identity: &Identity) -> Result<Option<Arc<Claimed>>, Refused>
where
    A: Sync,
{
    if !context.buffer.may_be_claimed(identity.key) {
        return Ok(None);
    }
    if let Some(claimed) = context.remembered(identity) {
        return Ok(Some(claimed));
    }
    match context.buffer.claimed(identity.key).await {
        Ok(claimed) => Ok(claimed.map(Arc::new)),
        Err(error) => Err(Refused::because(Reason::BufferUnavailable, error.to_string())),
    }
}

pub(super) async fn repeat<E: Exchange>(exchange: &mut Tracked<'_, E>, claimed: &Claimed) -> Outcome {
    let _ = exchange.answer(answers::repeat(claimed)).await;
    Outcome::Duplicate(claimed.event_id)
}

/// The sender's side of a streamed answer; once the sender has gone, nothing more is written.
pub(super) struct Sender<'s, 'e, E> {
    exchange: &'s mut Tracked<'e, E>,
    gone: bool,
    /// How long it may still keep us waiting; then it counts as gone.
    patience: Duration,
}

impl<'s, 'e, E: Exchange> Sender<'s, 'e, E> {
    async fn start(
        exchange: &'s mut Tracked<'e, E>,
        incoming: &impl AppAnswer,
        id: EventId,
        patience: Duration,
    ) -> Result<Self, Refused> {
        let headers = answers::with_event_id(incoming.headers(), id);
        match exchange.start(incoming.status(), &headers).await {
            Ok(()) => Ok(Self { exchange, gone: false, patience }),
            Err(NotStarted::Gone(_)) => Ok(Self { exchange, gone: true, patience }),
            Err(NotStarted::Unsendable) => Err(unsendable()),
        }
    }
    /// Returns how long it took.
    pub async fn write(&mut self, chunk: Bytes) -> Duration {
        if self.gone {
            return Duration::ZERO;
        }
        let waited = {
            let mut write = pin!(self.exchange.write(chunk));
            // Nearly always the connection takes it at once: no clock and no timer then.
            if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await {
                self.gone = matches!(written, Err(SenderGone));
                return Duration::ZERO;
            }
            let began = Instant::now();
            let written = timeout(self.patience, write).await;
            written.map(|written| (written, began.elapsed()))
        };
        match waited {
            Ok((written, took)) => {
                self.gone = matches!(written, Err(SenderGone));
                self.patience = self.patience.saturating_sub(took);
                took
            }
            Err(_) => {
                self.gone = true;
                // It must not take the pieces that it has for the whole.
                self.exchange.abort();
                std::mem::take(&mut self.patience)
            }
        }
    }
    pub async fn finish(self) {
        if !self.gone {
            let _ = self.exchange.finish().await;
        }
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
