//! One attempt: from a lease to its settlement.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::buffer::{Attempt, DeadReason, Event, Leased, Next};
use crate::clock::Clock;
use crate::config::Destination;
use crate::telemetry::Metrics;
use crate::upstream::{EventHeaders, Forward, Upstream, UpstreamError};

use super::classify::{self, Answered, Finding, Progress};
use super::lease::Lease;
use super::trouble::Trouble;

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
    pub trouble: Mutex<Trouble>,
}

/// What an attempt says of its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Delivered,
    /// The app failed it; the text is for the log.
    Failed(String),
    /// We failed it.
    Ours(String),
    /// Nothing was tried.
    NotTried,
}

pub(super) async fn work<A: App>(
    lease: Lease,
    settings: Arc<Settings<A>>,
    around: Arc<Surroundings>,
) -> Report {
    let Some(Leased { event, destination: name, attempts, since, .. }) = lease.leased().cloned() else {
        return Report::NotTried;
    };
    let Settings { destination, app } = &*settings;
    let retry = &destination.retry;
    let dead = |reason: DeadReason, attempts: u32, last: &str| {
        let reason = reason.code();
        tracing::error!(event = %event.id, destination = %name, reason, attempts, last, "dead letter");
    };

    let at = around.clock.now();
    if let Err(reason) = classify::may_try(Progress { attempts, since }, retry, at) {
        lease.settle(None, Next::Dead(reason));
        around.metrics.delivery(&name.0, "dead", std::time::Duration::ZERO);
        dead(reason, attempts, "not tried again");
        return Report::NotTried;
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
    let attempt = Some(Attempt { at, took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), outcome });
    let (attempt, next, report) = match classify::finding(&result, retry, now) {
        Finding::Success => (attempt, Next::Delivered, Report::Delivered),
        Finding::GivenUp => (attempt, Next::Dead(DeadReason::GivenUp), Report::Failed(text)),
        Finding::Failure { asked } => {
            let next = classify::after_failure(progress, asked, retry, now, fastrand::f64());
            (attempt, next, Report::Failed(text))
        }
        Finding::Ours => {
            let wait = around.trouble.lock().met(Instant::now());
            (None, Next::Retry(now.saturating_add(wait)), Report::Ours(text))
        }
    };
    if !matches!(report, Report::Ours(_)) {
        around.trouble.lock().over();
    }
    lease.settle(attempt, next);
    let word = match next {
        Next::Delivered => "delivered",
        Next::Dead(_) => "dead",
        Next::Retry(_) | Next::Release => "retry",
    };
    around.metrics.delivery(&name.0, word, took);
    if let (Next::Dead(reason), Report::Failed(last)) = (next, &report) {
        dead(reason, progress.attempts, last);
    }
    report
}
