//! What a step says when a request goes no further.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use crate::message::Answer;
use crate::providers::Refusals;
use crate::reason::Reason;
use crate::upstream::UpstreamError;

/// A refusal: the reason is for everyone, the detail for the log only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub reason: Reason,
    /// What exactly was wrong. Never sent to the sender.
    pub detail: Cow<'static, str>,
    /// How it is said.
    pub words: Refusals,
    /// The path for the log, if it is not to stand there as sent.
    pub path: Option<String>,
    /// What `Allow` says, for 405.
    pub allow: Option<String>,
    /// What `Retry-After` says, if another time than the reason's own.
    pub retry_after: Option<Duration>,
}

impl Refused {
    pub fn because(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            words: Refusals::Explained,
            path: None,
            allow: None,
            retry_after: None,
        }
    }

    /// The app is given a rest for so long.
    pub fn paused(rest: Duration, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(rest), ..Self::because(Reason::UpstreamPaused, detail) }
    }

    pub fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::because(Reason::Internal, detail)
    }

    pub fn answer(&self) -> Answer {
        let mut answer = Answer::refusal(self.reason);
        if self.words == Refusals::Empty {
            answer.body = Bytes::new();
            answer.headers.retain(|(name, _)| *name != "content-type");
        }
        if let Some(rest) = self.retry_after {
            let secs = rest.as_secs() + u64::from(rest.subsec_nanos() > 0);
            answer.headers.retain(|(name, _)| *name != "retry-after");
            answer = answer.with("retry-after", secs.max(1).to_string());
        }
        match &self.allow {
            Some(allow) => answer.with("allow", allow.clone()),
            None => answer,
        }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::because(reason, "")
    }
}

/// The sender is told that there is no answer of the app that it could get.
pub(super) fn unsendable() -> Refused {
    Refused::because(Reason::UpstreamUnavailable, "the head of the app's answer can't be passed on")
}

impl From<UpstreamError> for Refused {
    fn from(error: UpstreamError) -> Self {
        let reason = match &error {
            UpstreamError::Timeout(_) => Reason::UpstreamTimeout,
            // Whoever is to blame, the sender is told the same; the detail says it to the operator.
            _ => Reason::UpstreamUnavailable,
        };
        Self::because(reason, error.to_string())
    }
}
