//! One attempt: from a lease to its settlement.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{self, Breaker, Charge, Outcome, Permit};
use crate::buffer::{Attempt, DeadReason, Event, EventId, Leased, Next};
use crate::clock::{Clock, Timestamp};
use crate::config::{Batch, Destination, OnFailure, Retry};
use crate::message::TraceContext;
use crate::telemetry::Metrics;
use crate::trace::{Messaging, Span, Tracer};
use crate::upstream::batch::{self, Part};
use crate::upstream::{Affinity, Forward, Outgoing, Upstream, UpstreamError};

use super::adaptive::{Adaptive, Bounds};
use super::backoff;
use super::batch::{BatchAnswered, Done};
use super::classify::{self, Answered, Finding, Progress};
use super::lease::Lease;

/// Bytes of an answer's body that are read (and thrown away) so that the connection can be used again; the status
/// counts even if there are more.
const DRAINED: usize = 64 * 1024;
/// The same where a status for each event is looked for; one that is longer counts as none.
const STATUSES: usize = 4 * 1024 * 1024;

/// The way to the app, as a seam.
pub(super) trait App: Send + Sync + 'static {
    /// Sends `event`, for the `number`-th time (from 1). `call` records it.
    fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
        call: Option<&Span>,
    ) -> impl Future<Output = Result<Answered, UpstreamError>> + Send;

    /// Sends events as one request. `call` records it.
    fn batch(
        &self,
        destination: &Destination,
        settings: &Batch,
        parts: &[Part<'_>],
        call: Option<&Span>,
    ) -> impl Future<Output = Result<BatchAnswered, UpstreamError>> + Send;
}

impl App for Arc<Upstream> {
    async fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
        call: Option<&Span>,
    ) -> Result<Answered, UpstreamError> {
        let affinity = Affinity::of_event(&destination.balance, event);
        let alone = batch::alone(event, number, call.map(Span::context));
        let head = Forward { affinity, ..alone }.to(destination);
        let head = Outgoing { went_to: call.and_then(Span::went_to), ..head };
        let mut answer = self.send(&head, event.body.clone()).await?;
        // An answer that breaks off is no answer, whatever its status: the app may have failed while it wrote it.
        let mut drained = 0;
        while let Some(chunk) = answer.chunk().await? {
            drained += chunk.len();
            if drained > DRAINED {
                break;
            }
        }
        let retry_after = answer.headers.first("retry-after").map(<[u8]>::to_vec);
        Ok(Answered { status: answer.status, retry_after })
    }

    async fn batch(
        &self,
        destination: &Destination,
        settings: &Batch,
        parts: &[Part<'_>],
        call: Option<&Span>,
    ) -> Result<BatchAnswered, UpstreamError> {
        let id = EventId::new(Clock::System.now());
        let Some((head, body)) =
            batch::join(parts, settings.format, destination, id, call.map(Span::context))
        else {
            return Err(UpstreamError::Local("a batch of nothing".into()));
        };
        let head = Outgoing { went_to: call.and_then(Span::went_to), ..head };
        let mut answer = self.send(&head, body).await?;
        let most = if settings.statuses.is_some() { STATUSES } else { DRAINED };
        let (mut body, mut cut) = (Vec::new(), false);
        while let Some(chunk) = answer.chunk().await? {
            cut = body.len() + chunk.len() > most;
            if cut {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let retry_after = answer.headers.first("retry-after").map(<[u8]>::to_vec);
        Ok(BatchAnswered { answered: Answered { status: answer.status, retry_after }, body, cut })
    }
}

/// What an attempt needs besides its lease. Those of one destination share it; a reload replaces it for the next ones.
pub(super) struct Settings<A> {
    pub destination: Arc<Destination>,
    pub app: A,
}

/// What the attempts of one destination share across reloads.
pub(super) struct Surroundings {
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub breaker: Arc<Breaker>,
    /// How many at once the app bears, where that is to be found out.
    pub adaptive: Adaptive,
    /// `None`: nothing is recorded.
    pub tracer: Option<Arc<Tracer>>,
}

impl Surroundings {
    /// An attempt that began then has ended: what its latency says of how many the app bears.
    pub fn answered(&self, destination: &Destination, began: Instant, health: Outcome) {
        if let Some(bounds) = Bounds::of(destination) {
            self.adaptive.ends(bounds, began, health, Instant::now());
        }
    }
}

pub(super) async fn work<A: App>(
    lease: Lease,
    permit: Permit,
    settings: Arc<Settings<A>>,
    around: Arc<Surroundings>,
) -> Done {
    let Some(leased) = lease.leased().cloned() else { return Done::Nothing };
    let Settings { destination, app } = &*settings;
    let (order, retry) = (order_of(&leased, destination), &destination.retry);

    let at = around.clock.now();
    if let Err(reason) = classify::may_try(leased.attempts, &budget(retry, order)) {
        permit.end(Outcome::Unused, "");
        settle(&around, lease, &leased, None, dies(reason, order), Duration::ZERO, "not tried again");
        return Done::Nothing;
    }

    let began = Instant::now();
    let spans = Spans::of(around.tracer.as_ref(), &leased);
    let call = spans.as_ref().and_then(|spans| spans.call.as_ref());
    let result = app.attempt(destination, &leased.event, leased.attempts.saturating_add(1), call).await;
    let (took, now) = (began.elapsed(), around.clock.now());

    let text = text(&result);
    let attempt = Attempt { at, took_ms: millis(took), outcome: classify::outcome(&result) };
    let finding = classify::finding(&result, retry, now);
    let health = health(&result, &finding);
    around.answered(destination, began, health);
    let charge = permit.end(health, &text);
    let (attempt, next) = next(&leased, attempt, finding, charge, retry, order, now);
    settle(&around, lease, &leased, attempt, next, took, &text);
    if let Some(spans) = spans {
        spans.end(&result, &text, next);
    }
    match charge {
        Charge::Spared => Done::Spared(vec![leased.event.id]),
        Charge::Counts => Done::Nothing,
    }
}

pub(super) fn text(result: &Result<Answered, UpstreamError>) -> String {
    match result {
        Ok(answered) => format!("status {}", answered.status),
        Err(error) => error.to_string(),
    }
}

pub(super) fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// What follows from an attempt: what is charged for it, and where its delivery goes.
pub(super) fn next(
    leased: &Leased,
    attempt: Attempt,
    finding: Finding,
    charge: Charge,
    retry: &Retry,
    order: Option<OnFailure>,
    now: Timestamp,
) -> (Option<Attempt>, Next) {
    match (finding, charge) {
        (Finding::Success, _) => (Some(attempt), Next::Delivered),
        (Finding::GivenUp, _) => (Some(attempt), dies(DeadReason::GivenUp, order)),
        // Held, nothing charged: it is due, and goes when the breaker lets it.
        (Finding::Failure { .. } | Finding::Ours, Charge::Spared) => (None, Next::Release),
        // The breaker holds what is ours; what is left was not processed, and is charged to nobody.
        (Finding::Ours, Charge::Counts) => {
            (None, Next::Retry(now.saturating_add(backoff::ceiling(retry, 1))))
        }
        (Finding::Failure { asked }, Charge::Counts) => {
            let progress = Progress { attempts: leased.attempts.saturating_add(1), since: leased.since };
            let budget = budget(retry, order);
            let next = match classify::after_failure(progress, asked, &budget, now, fastrand::f64()) {
                Next::Dead(reason) => dies(reason, order),
                next => next,
            };
            (Some(attempt), next)
        }
    }
}

/// Ends a lease, and says so. `last`: what the latest attempt came to.
pub(super) fn settle(
    around: &Surroundings,
    lease: Lease,
    leased: &Leased,
    attempt: Option<Attempt>,
    next: Next,
    took: Duration,
    last: &str,
) {
    let attempts = leased.attempts.saturating_add(u32::from(attempt.is_some()));
    lease.settle(attempt, next);
    let Leased { event, destination, .. } = leased;
    let word = match next {
        Next::Delivered => "delivered",
        Next::Dead(reason) | Next::Parked(reason) => {
            let reason = reason.code();
            tracing::error!(event = %event.id, %destination, reason, attempts, last, "dead letter");
            "dead"
        }
        Next::Retry(_) | Next::Release => "retry",
    };
    around.metrics.delivery(&destination.0, word, took);
}

/// What is to happen if a delivery fails that goes in order.
pub(super) fn order_of(leased: &Leased, destination: &Destination) -> Option<OnFailure> {
    leased.lane.and(destination.order.as_deref()).map(|order| order.on_failure)
}

/// How long a delivery is tried: one that nothing may pass, until it gets through.
pub(super) fn budget(retry: &Retry, order: Option<OnFailure>) -> Cow<'_, Retry> {
    match order {
        Some(OnFailure::Block) => {
            Cow::Owned(Retry { attempts: u32::MAX, max_age: Duration::MAX, ..retry.clone() })
        }
        Some(OnFailure::Park | OnFailure::Skip) | None => Cow::Borrowed(retry),
    }
}

/// Where a delivery goes that is given up: only `skip` lets its lane go on without an operator.
pub(super) const fn dies(reason: DeadReason, order: Option<OnFailure>) -> Next {
    match order {
        Some(OnFailure::Block | OnFailure::Park) => Next::Parked(reason),
        Some(OnFailure::Skip) | None => Next::Dead(reason),
    }
}

/// An attempt, where its event's trace is recorded.
pub(super) struct Spans {
    /// From the lease to its settlement.
    work: Span,
    /// The request; `None` if it is shared with others.
    call: Option<Span>,
}

impl Spans {
    pub fn of(tracer: Option<&Arc<Tracer>>, leased: &Leased) -> Option<Self> {
        let mut spans = Self::shared(tracer, leased)?;
        let mut call = tracer?.call(spans.work.context(), &leased.event.method);
        if leased.attempts > 0 {
            call.set("http.request.resend_count", i64::from(leased.attempts));
        }
        spans.call = Some(call);
        Some(spans)
    }

    /// Of an event whose request carries others, too.
    fn shared(tracer: Option<&Arc<Tracer>>, leased: &Leased) -> Option<Self> {
        let Leased { event, destination, .. } = leased;
        let (tracer, stored, name) = (tracer?, event.origin.trace?, &*destination.0);
        let mut work = tracer.stored(stored, name);
        work.event(event.id);
        Some(Self { work, call: None })
    }

    /// Of the work: what stands in a part of a batch.
    pub fn context(&self) -> TraceContext {
        self.work.context()
    }

    pub fn end(mut self, result: &Result<Answered, UpstreamError>, text: &str, next: Next) {
        let failed = !matches!(next, Next::Delivered);
        if failed {
            fails(&mut self.work, result, text);
        }
        // The part ends before the whole.
        if let Some(mut call) = self.call.take() {
            ends(&mut call, result, text, failed);
        }
    }
}

fn ends(call: &mut Span, result: &Result<Answered, UpstreamError>, text: &str, failed: bool) {
    if let Ok(answered) = result {
        call.answered(answered.status);
    }
    if failed {
        fails(call, result, text);
    }
}

fn fails(span: &mut Span, result: &Result<Answered, UpstreamError>, text: &str) {
    match result {
        Ok(answered) => span.failed(answered.status.to_string(), text.to_owned()),
        Err(error) => span.failed(error.class(), text.to_owned()),
    }
}

/// The request of a batch, where the trace of any of its events is recorded, and each of these.
pub(super) struct BatchSpans {
    call: Option<Span>,
    pub each: Vec<Option<Spans>>,
}

impl BatchSpans {
    pub fn of<'a>(
        tracer: Option<&Arc<Tracer>>,
        destination: &Destination,
        leased: impl Iterator<Item = &'a Leased> + Clone,
    ) -> Self {
        let mut each: Vec<Option<Spans>> = leased.clone().map(|one| Spans::shared(tracer, one)).collect();
        let stored: Vec<TraceContext> = leased.clone().filter_map(|one| one.event.origin.trace).collect();
        let call = match (tracer, leased.clone().next()) {
            (Some(tracer), Some(first)) if !stored.is_empty() => {
                let mut call = tracer.batch(&stored, &first.event.method);
                call.messaging(Messaging::Process, &destination.name.0);
                call.events(leased.count());
                Some(call)
            }
            _ => None,
        };
        if let Some(call) = &call {
            // From the trace of an event one finds the request, too.
            each.iter_mut().flatten().for_each(|spans| spans.work.link(call.context()));
        }
        Self { call, each }
    }

    pub fn call(&self) -> Option<&Span> {
        self.call.as_ref()
    }

    /// The request has ended.
    pub fn answered(&mut self, result: &Result<Answered, UpstreamError>, text: &str) {
        if let Some(mut call) = self.call.take() {
            let failed = !matches!(result, Ok(Answered { status: 200..=299, .. }));
            ends(&mut call, result, text, failed);
        }
    }
}

/// What an attempt says of the app's health.
pub(super) fn health(result: &Result<Answered, UpstreamError>, finding: &Finding) -> Outcome {
    match (result, finding) {
        (Err(error), _) => breaker::of_error(error),
        (Ok(answered), Finding::Failure { asked }) => breaker::of_status(answered.status, *asked),
        (Ok(_), _) => Outcome::Well,
    }
}
