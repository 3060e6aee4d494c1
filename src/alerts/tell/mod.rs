//! Brings notices to people, and holds up nobody: each target has a short queue of its own and a task that works it
//! off. A target that is down is tried a few times; what finds its queue full is dropped, counted and logged (the next
//! notice says all that is wrong then). What is queued when the process ends is not told.

mod command;
mod mail;
mod post;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Notice, TargetStatus, Tested, shown};
use crate::clock::{Clock, Timestamp};
use crate::config::{AlertSettings, AlertTarget, TellBy};
use crate::telemetry::Metrics;

use command::Program;
use mail::Mailer;
use post::Post;

/// How long one try may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The waits between the tries of one notice.
const WAITS: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(60)];
/// Notices that wait for a target.
const QUEUE: usize = 8;

/// Those who are told, made from one config. Dropped, each still works off what it has.
#[derive(Debug, Default)]
pub struct Targets(Vec<Target>);

#[derive(Debug)]
struct Target {
    inner: Arc<Inner>,
    /// Made, with its task, for the first notice.
    queue: OnceLock<mpsc::Sender<Arc<Notice>>>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    by: By,
    last: Mutex<Option<Last>>,
}

/// How the latest notice got there.
#[derive(Clone, Debug)]
struct Last {
    at: Timestamp,
    error: Option<String>,
}

#[derive(Debug)]
enum By {
    Webhook(Post),
    Slack(Post),
    Email(Mailer),
    Command(Program),
}

/// Why a notice was not told, in words that hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct TellError(String);

impl Targets {
    /// Reads certificate files; connects to nobody. The error lists every target that can't be made.
    pub fn build(settings: &AlertSettings) -> Result<Self, Vec<String>> {
        let (mut targets, mut problems) = (Vec::new(), Vec::new());
        for target in &settings.to {
            match By::new(target) {
                Ok(by) => {
                    let inner = Arc::new(Inner { name: target.name.clone(), by, last: Mutex::default() });
                    targets.push(Target { inner, queue: OnceLock::new() });
                }
                Err(problem) => problems.push(format!("alerts.to {}: {problem}", target.name)),
            }
        }
        if problems.is_empty() { Ok(Self(targets)) } else { Err(problems) }
    }

    /// Must be called within a tokio runtime.
    pub(super) fn offer(&self, notice: Arc<Notice>, metrics: &Arc<Metrics>, clock: &Clock) {
        for target in &self.0 {
            let queue = target.queue.get_or_init(|| {
                let (queue, notices) = mpsc::channel(QUEUE);
                tokio::spawn(target.inner.clone().work(notices, metrics.clone(), clock.clone()));
                queue
            });
            if queue.try_send(notice.clone()).is_err() {
                metrics.alert_notice("dropped");
                let target = &*target.inner.name;
                tracing::error!(target, title = notice.title(), "a notice was dropped: too many wait");
            }
        }
    }

    pub(super) fn status(&self) -> Vec<TargetStatus> {
        let status = |Target { inner, .. }: &Target| {
            let last = inner.last.lock().clone();
            TargetStatus {
                target: inner.name.clone(),
                by: inner.by.word().to_owned(),
                last: shown(last.as_ref().map(|last| last.at)),
                error: last.and_then(|last| last.error),
            }
        };
        self.0.iter().map(status).collect()
    }

    /// Tells all at once, each once.
    pub(super) async fn test(&self, notice: Arc<Notice>) -> Vec<Tested> {
        let tests: Vec<_> = self
            .0
            .iter()
            .map(|target| {
                let (inner, notice) = (target.inner.clone(), notice.clone());
                (target, tokio::spawn(async move { inner.by.tell(&notice).await }))
            })
            .collect();
        let mut results = Vec::with_capacity(tests.len());
        for (target, test) in tests {
            let error = match test.await {
                Ok(told) => told.err().map(|error| error.to_string()),
                Err(_) => Some("the test broke off".to_owned()),
            };
            let (name, by) = (target.inner.name.clone(), target.inner.by.word().to_owned());
            results.push(Tested { target: name, by, error });
        }
        results
    }
}

impl Inner {
    async fn work(
        self: Arc<Self>,
        mut notices: mpsc::Receiver<Arc<Notice>>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) {
        while let Some(notice) = notices.recv().await {
            let error = self.tell_at_last(&notice).await.err().map(|error| error.to_string());
            metrics.alert_notice(if error.is_none() { "sent" } else { "failed" });
            if let Some(error) = &error {
                tracing::error!(target = self.name, %error, title = notice.title(), "a notice could not be told");
            }
            *self.last.lock() = Some(Last { at: clock.now(), error });
        }
    }

    async fn tell_at_last(&self, notice: &Notice) -> Result<(), TellError> {
        let mut waits = WAITS.into_iter();
        loop {
            match (self.by.tell(notice).await, waits.next()) {
                (Ok(()), _) => return Ok(()),
                (Err(error), None) => return Err(error),
                (Err(error), Some(wait)) => {
                    tracing::debug!(target = self.name, %error, "a notice is tried again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

impl By {
    fn new(target: &AlertTarget) -> Result<Self, String> {
        Ok(match &target.how {
            TellBy::Webhook { url, secret, ca } => {
                By::Webhook(Post::new(url, secret.as_ref(), ca.as_deref())?)
            }
            TellBy::Slack(url) => {
                let url = std::str::from_utf8(url.expose()).ok().and_then(|url| url.parse().ok());
                By::Slack(Post::new(&url.ok_or("what it refers to is no URL")?, None, None)?)
            }
            TellBy::Email(mail) => By::Email(Mailer::new(mail)?),
            TellBy::Command(line) => By::Command(Program::new(line)?),
        })
    }

    const fn word(&self) -> &'static str {
        match self {
            By::Webhook(_) => "webhook",
            By::Slack(_) => "slack",
            By::Email(_) => "email",
            By::Command(_) => "command",
        }
    }

    async fn tell(&self, notice: &Notice) -> Result<(), TellError> {
        let told = async {
            match self {
                By::Webhook(post) => post.send(notice, notice.json()).await,
                By::Slack(post) => post.send(notice, notice.slack()).await,
                By::Email(mailer) => mailer.send(notice).await,
                By::Command(program) => program.run(notice).await,
            }
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(told) => told,
            Err(_) => Err(TellError(format!("not done within {} seconds", PATIENCE.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests;
