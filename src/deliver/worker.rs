//! One attempt: from a lease to its settlement.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{self, Breaker, Charge, Outcome, Permit};
use crate::buffer::{Attempt, DeadReason, Event, Leased, Next};
use crate::clock::Clock;
use crate::config::{Destination, OnFailure, Retry};
use crate::telemetry::Metrics;
use crate::upstream::{EventHeaders, Forward, Upstream, UpstreamError};

use super::backoff;
use super::classify::{self, Answered, Finding, Progress};
use super::lease::Lease;

/// Bytes of an answer's body that are read (and thrown away) so that the connection can be used again; the status
/// counts even if there are more.
const DRAINED: usize = 64 * 1024;

/// The way to the app, as a seam.
pub(super) trait App: Send + Sync + 'static {
    /// Sends `event`, for the `number`-th time (from 1).
    fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
    ) -> impl Future<Output = Result<Answered, UpstreamError>> + Send;
}

impl App for Arc<Upstream> {
    async fn attempt(
        &self,
        destination: &Destination,
        event: &Event,
        number: u32,
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
}

/// After a probe that failed its delivery waits until another has had its turn.
const ITS_TURN: Duration = Duration::from_millis(1);

pub(super) async fn work<A: App>(
    lease: Lease,
    permit: Permit,
    settings: Arc<Settings<A>>,
    around: Arc<Surroundings>,
) {
    let Some(Leased { event, destination: name, attempts, since, lane, .. }) = lease.leased().cloned() else {
        return;
    };
    let Settings { destination, app } = &*settings;
    let order = destination.order.as_deref().filter(|_| lane.is_some()).map(|order| order.on_failure);
    let budget = budget(&destination.retry, order);
    let retry = &*budget;
    let dead = |reason: DeadReason, attempts: u32, last: &str| {
        let reason = reason.code();
        tracing::error!(event = %event.id, destination = %name, reason, attempts, last, "dead letter");
    };

    let at = around.clock.now();
    if let Err(reason) = classify::may_try(Progress { attempts, since }, retry, at) {
        permit.end(Outcome::Unused, "");
        lease.settle(None, dies(reason, order));
        around.metrics.delivery(&name.0, "dead", Duration::ZERO);
        dead(reason, attempts, "not tried again");
        return;
    }

    let began = Instant::now();
    let result = app.attempt(destination, &event, attempts.saturating_add(1)).await;
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
        (Finding::GivenUp, _) => (Some(attempt), dies(DeadReason::GivenUp, order)),
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
            let next = classify::after_failure(progress, asked, retry, now, fastrand::f64());
            let next = match next {
                Next::Dead(reason) => dies(reason, order),
                next => next,
            };
            (Some(attempt), next)
        }
    };
    lease.settle(attempt, next);
    let word = match next {
        Next::Delivered => "delivered",
        Next::Dead(_) | Next::Parked(_) => "dead",
        Next::Retry(_) | Next::Release => "retry",
    };
    around.metrics.delivery(&name.0, word, took);
    if let Next::Dead(reason) | Next::Parked(reason) = next {
        dead(reason, progress.attempts, &text);
    }
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

/// What an attempt says of the app's health.
fn health(result: &Result<Answered, UpstreamError>, finding: &Finding) -> Outcome {
    match (result, finding) {
        (Err(error), _) => breaker::of_error(error),
        (Ok(answered), Finding::Failure { asked }) => breaker::of_status(answered.status, *asked),
        (Ok(_), _) => Outcome::Well,
    }
}
