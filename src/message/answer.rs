//! Answers that the gateway itself gives (the app's own answers stream through `upstream`).

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::json;

use crate::reason::Reason;

/// A whole answer: status, headers, body. `Content-Length`, `Date` and connection headers are the edge's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(Cow<'static, str>, String)>,
    pub body: Bytes,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.headers.push((Cow::Borrowed("content-type"), content_type.to_owned()));
        self.body = body.into();
        self
    }

    /// The refusal for `reason`: its status, `tidegate-reason`, `Retry-After` where a retry may help, and a short
    /// problem body (RFC 9457).
    pub fn refusal(reason: Reason) -> Self {
        let problem = json!({
            "type": "about:blank",
            "title": reason.title(),
            "status": reason.status(),
            "reason": reason.code(),
        });
        let answer = Self::new(reason.status())
            .with("tidegate-reason", reason.code())
            .body("application/problem+json", problem.to_string());
        match reason.retry_after_secs() {
            Some(secs) => answer.with("retry-after", secs.to_string()),
            None => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_reason_in_header_and_body() {
        let answer = Answer::refusal(Reason::BufferFull);
        assert_eq!(answer.status, 503);
        assert!(answer.headers.contains(&("tidegate-reason".into(), "buffer_full".into())));
        assert!(answer.headers.contains(&("retry-after".into(), "30".into())));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["reason"], "buffer_full");
    }
}
