//! One attempt: from a lease to its settlement.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{self, Breaker, Charge, Outcome, Permit};
use crate::buffer::{Attempt, DeadReason, Event, Leased, Next};
use crate::clock::Clock;
use crate::config::Destination;
use crate::message::TraceContext;
use crate::telemetry::Metrics;
use crate::trace::{Span, Tracer};
use crate::upstream::{EventHeaders, Forward, Upstream, UpstreamError};

use super::backoff;
use super::classify::{self, Answered, Finding, Progress};
use super::lease::Lease;

/// Bytes of an answer's body that are read (and thrown away) so that the connection can be used again; the status
/// counts even if there are more.
const DRAINED: usize = 64 * 1024;

/// The way to the app, as a seam.
pub(super) trait App: Send + Sync + 'static {
    /// Sends `event`, for the `number`-th time (from 1), as the part of a trace that `trace` names.
    fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
        trace: Option<TraceContext>,
    ) -> impl Future<Output = Result<Answered, UpstreamError>> + Send;
}

impl App for Arc<Upstream> {
    async fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
        trace: Option<TraceContext>,
    ) -> Result<Answered, UpstreamError> {
        let head = Forward {
            method: &event.method,
            target: &event.target,
            authority: &event.authority,
            scheme: event.scheme,
            client: event.source,
            headers: &event.headers,
            event: Some(EventHeaders {
                id: event.id,
                attempt: number,
                received_at: event.received_at,
                verified: &event.verified,
                batch: event.origin.batch,
                would_refuse: event.origin.would_refuse,
                client: event.origin.client.as_deref(),
                may_repeat: event.origin.may_repeat,
            }),
            upgrade: false,
            trace,
        }
        .to(destination);
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
    /// `None`: nothing is recorded.
    pub tracer: Option<Arc<Tracer>>,
}

/// After a probe that failed its delivery waits until another has had its turn.
const ITS_TURN: Duration = Duration::from_millis(1);

pub(super) async fn work<A: App>(
    lease: Lease,
    permit: Permit,
    settings: Arc<Settings<A>>,
    around: Arc<Surroundings>,
) {
    let Some(Leased { event, destination: name, attempts, since, .. }) = lease.leased().cloned() else {
        return;
    };
    let Settings { destination, app } = &*settings;
    let retry = &destination.retry;
    let dead = |reason: DeadReason, attempts: u32, last: &str| {
        let reason = reason.code();
        tracing::error!(event = %event.id, destination = %name, reason, attempts, last, "dead letter");
    };

    let at = around.clock.now();
    if let Err(reason) = classify::may_try(Progress { attempts, since }, retry, at) {
        permit.end(Outcome::Unused, "");
        lease.settle(None, Next::Dead(reason));
        around.metrics.delivery(&name.0, "dead", Duration::ZERO);
        dead(reason, attempts, "not tried again");
        return;
    }

    let began = Instant::now();
    let mut spans = Spans::of(around.tracer.as_ref(), &event, &name.0, attempts);
    let trace = spans.as_ref().map(|spans| spans.call.context());
    let result = app.attempt(destination, &event, attempts.saturating_add(1), trace).await;
    let (took, now) = (began.elapsed(), around.clock.now());

    let outcome = classify::outcome(&result);
    let text = match &result {
        Ok(answered) => format!("status {}", answered.status),
        Err(error) => error.to_string(),
    };
    let progress = Progress { attempts: attempts.saturating_add(1), since };
    let attempt = Attempt { at, took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), outcome };
    let finding = classify::finding(&result, retry, now);
    let charge = permit.end(health(&result, &finding), &text);
    let (attempt, next) = match (finding, charge) {
        (Finding::Success, _) => (Some(attempt), Next::Delivered),
        (Finding::GivenUp, _) => (Some(attempt), Next::Dead(DeadReason::GivenUp)),
        // Held, nothing charged: it waits for the next probe, and lets others have their turn with it.
        (Finding::Failure { .. } | Finding::Ours, Charge::Spared { until }) => {
            let wait = until.saturating_duration_since(Instant::now()) + ITS_TURN;
            (None, Next::Retry(now.saturating_add(wait)))
        }
        // The breaker never charges for what is ours.
        (Finding::Ours, Charge::Counts) => {
            (None, Next::Retry(now.saturating_add(backoff::ceiling(retry, 1))))
        }
        (Finding::Failure { asked }, Charge::Counts) => {
            (Some(attempt), classify::after_failure(progress, asked, retry, now, fastrand::f64()))
        }
    };
    lease.settle(attempt, next);
    if let Some(spans) = spans.take() {
        spans.end(&result, &text, next);
    }
    let word = match next {
        Next::Delivered => "delivered",
        Next::Dead(_) => "dead",
        Next::Retry(_) | Next::Release => "retry",
    };
    around.metrics.delivery(&name.0, word, took);
    if let Next::Dead(reason) = next {
        dead(reason, progress.attempts, &text);
    }
}

/// An attempt, where its event's trace is recorded.
struct Spans {
    /// From the lease to its settlement.
    work: Span,
    /// The request.
    call: Span,
}

impl Spans {
    fn of(tracer: Option<&Arc<Tracer>>, event: &Event, name: &str, attempts: u32) -> Option<Self> {
        let (tracer, stored) = (tracer?, event.origin.trace?);
        let mut work = tracer.stored(stored, format!("process {name}"));
        work.event(event.id, name);
        let mut call = tracer.call(work.context(), event.method.as_str());
        if attempts > 0 {
            call.set("http.request.resend_count", i64::from(attempts));
        }
        Some(Self { work, call })
    }

    fn end(mut self, result: &Result<Answered, UpstreamError>, text: &str, next: Next) {
        if let Ok(answered) = result {
            self.call.answered(answered.status);
        }
        if !matches!(next, Next::Delivered) {
            self.call.failed(text.to_owned());
            self.work.failed(text.to_owned());
        }
        // The part ends before the whole.
        drop(self.call);
    }
}

/// What an attempt says of the app's health.
fn health(result: &Result<Answered, UpstreamError>, finding: &Finding) -> Outcome {
    match (result, finding) {
        (Err(error), _) => breaker::of_error(error),
        (Ok(answered), Finding::Failure { asked }) => breaker::of_status(answered.status, *asked),
        (Ok(_), _) => Outcome::Well,
    }
}
