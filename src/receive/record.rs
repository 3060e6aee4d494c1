//! What became of a request: exactly one metric, and one log line where the config asks for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::EventId;
use crate::config::{AccessLog, Route};
use crate::message::{Head, Method, TraceContext};
use crate::reason::Reason;
use crate::telemetry::Metrics;
use crate::trace::{Span, method_word};
use crate::verify::{Refusal, Verified};

use super::exchange::Exchange;
use super::refused::Refused;
use super::tracked::Tracked;

/// How a request that was not refused ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Stored.
    Accepted(EventId),
    /// Recognised as a repeat of this event.
    Duplicate(EventId),
    /// The app answered, whatever it said.
    Forwarded(EventId),
    /// The app could not take it now: stored, and acknowledged.
    Spilled(EventId),
    /// No destination wants it.
    Unwanted(EventId),
    Passed,
    Handshake,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Outcome::Accepted(_) => "accepted",
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Forwarded(_) => "forwarded",
            Outcome::Spilled(_) => "spilled",
            Outcome::Unwanted(_) => "unwanted",
            Outcome::Passed => "passed",
            Outcome::Handshake => "handshake",
        }
    }
    const fn event(self) -> Option<EventId> {
        match self {
            Outcome::Accepted(id)
            | Outcome::Duplicate(id)
            | Outcome::Forwarded(id)
            | Outcome::Spilled(id)
            | Outcome::Unwanted(id) => Some(id),
            Outcome::Passed | Outcome::Handshake => None,
        }
    }
}

/// The longest piece of a path that is logged, in bytes.
const MAX_PATH: usize = 256;

/// Is begun with each request and counts it when it ends, even if its work is dropped half-way.
pub(super) struct Record<'a> {
    metrics: &'a Metrics,
    access: AccessLog,
    began: Instant,
    source: IpAddr,
    method: Method,
    route: Option<Arc<str>>,
    /// Whose URL it came by.
    client: Option<Arc<str>>,
    /// Of the secret or key that verified the request.
    label: Option<Arc<str>>,
    /// Why verification would have refused it, where it was let through.
    would_refuse: Option<Refusal>,
    counted: bool,
    /// Where its trace is recorded.
    span: Option<Span>,
}

impl<'a> Record<'a> {
    pub fn begin(metrics: &'a Metrics, access: AccessLog, head: &Head, span: Option<Span>) -> Self {
        Self {
            metrics,
            access,
            began: Instant::now(),
            source: head.client,
            method: head.method.clone(),
            route: None,
            client: None,
            label: None,
            would_refuse: None,
            counted: false,
            span,
        }
    }

    /// The span of the reception, where it is recorded.
    pub fn trace(&self) -> Option<TraceContext> {
        self.span.as_ref().map(Span::context)
    }

    pub fn route(&mut self, route: &Route) {
        self.route = Some(route.name.clone());
        if let Some(span) = &mut self.span {
            span.set("http.route", route.path.clone());
        }
    }

    pub fn client(&mut self, client: &Arc<str>) {
        self.client = Some(client.clone());
    }

    pub fn verified<T>(&mut self, verified: &Verified<T>) {
        self.label = verified.label().cloned();
        if let Some(client) = verified.client().filter(|_| verified.would_refuse().is_none()) {
            self.metrics.client_request(self.route.as_deref().unwrap_or_default(), client);
        }
    }

    pub fn would_refuse(&mut self, refusal: &Refusal) {
        self.metrics.would_refuse(self.route.as_deref().unwrap_or_default(), refusal.reason.code());
        self.would_refuse = Some(refusal.clone());
    }

    /// Counts and logs the end.
    pub fn end<E: Exchange>(mut self, result: &Result<Outcome, Refused>, exchange: &Tracked<'_, E>) {
        let took = match exchange.answered_at() {
            Some(at) => at.saturating_duration_since(self.began),
            None => self.began.elapsed(),
        };
        let outcome = match result {
            Ok(outcome) => outcome.word(),
            Err(refused) => refused.reason.code(),
        };
        self.count(outcome, took);
        let status = exchange.status().unwrap_or_default();
        if let Some(mut span) = self.span.take() {
            self.tell(&mut span, result, status);
        }
        if let (Some(refusal), Ok(outcome)) = (&self.would_refuse, result)
            && self.access != AccessLog::Off
        {
            self.log_would_refuse(refusal, *outcome, status, took);
        }
        match (result, self.access) {
            (_, AccessLog::Off) | (Ok(_), AccessLog::Errors) => {}
            (Err(refused), _) => {
                let how = if exchange.broke_off() { "broken off" } else { "refused" };
                self.log_refused(how, refused, status, took, exchange.head());
            }
            (Ok(outcome), AccessLog::All) => self.log_taken(*outcome, status, took),
        }
    }

    fn tell(&self, span: &mut Span, result: &Result<Outcome, Refused>, status: u16) {
        if status != 0 {
            span.answered(status);
        }
        if let Some(name) = &self.route {
            span.name(format!("{} {name}", method_word(&self.method).unwrap_or("HTTP")));
            span.set("tidegate.route", name.clone());
        }
        match result {
            Ok(outcome) => {
                span.set("tidegate.outcome", outcome.word());
                if let Some(id) = outcome.event() {
                    span.event(id);
                }
                if status >= 500 {
                    span.failed_with(status);
                }
            }
            Err(refused) => {
                let code = refused.reason.code();
                span.set("tidegate.outcome", code);
                // What the sender did wrong is no failure of ours (OpenTelemetry's conventions for HTTP servers).
                if refused.reason.status() >= 500 {
                    span.failed(code, code);
                }
            }
        }
    }

    fn count(&mut self, outcome: &'static str, took: Duration) {
        self.counted = true;
        let route = self.route.as_deref().unwrap_or_default();
        self.metrics.request(route, outcome);
        self.metrics.answered(route, took);
    }

    /// `how` it ended: with an answer of ours, or within the app's, of which `status` is then the beginning.
    fn log_refused(&self, how: &str, refused: &Refused, status: u16, took: Duration, head: &Head) {
        // Below a route its name says enough, and the path may hold something that only the sender should know.
        let path = match self.route {
            Some(_) => None,
            None => Some(clipped(refused.path.as_deref().unwrap_or(head.path()))),
        };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "tidegate::request",
                    reason = refused.reason.code(),
                    route = self.route.as_deref(),
                    client = self.client.as_deref(),
                    trace = self.trace().map(|trace| hex::encode(trace.trace)),
                    source = %self.source,
                    method = %self.method,
                    path,
                    label = self.label.as_deref(),
                    status,
                    took_ms = millis(took),
                    detail = (!refused.detail.is_empty()).then_some(&*refused.detail),
                    "{how}"
                )
            };
        }
        match refused.reason {
            Reason::Internal => line!(error),
            reason if reason.status() >= 500 => line!(warn),
            _ => line!(info),
        }
    }

    fn log_would_refuse(&self, refusal: &Refusal, outcome: Outcome, status: u16, took: Duration) {
        tracing::info!(
            target: "tidegate::request",
            reason = refusal.reason.code(),
            route = self.route.as_deref(),
                    client = self.client.as_deref(),
            trace = self.trace().map(|trace| hex::encode(trace.trace)),
            source = %self.source,
            method = %self.method,
            outcome = outcome.word(),
            status,
            took_ms = millis(took),
            event = outcome.event().map(tracing::field::display),
            detail = (!refusal.detail.is_empty()).then_some(&*refusal.detail),
            "would refuse"
        );
    }

    fn log_taken(&self, outcome: Outcome, status: u16, took: Duration) {
        tracing::info!(
            target: "tidegate::request",
            outcome = outcome.word(),
            route = self.route.as_deref(),
                    client = self.client.as_deref(),
            trace = self.trace().map(|trace| hex::encode(trace.trace)),
            source = %self.source,
            method = %self.method,
            label = self.label.as_deref(),
            status,
            took_ms = millis(took),
            event = outcome.event().map(tracing::field::display),
            "answered"
        );
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.counted {
            // Only a connection's end cuts a request short, and only the end of the grace period does that to it.
            self.count(Reason::ShuttingDown.code(), self.began.elapsed());
        }
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of a path; the edge lets only ASCII pass, so any byte is a boundary, and if not, nothing is shown.
fn clipped(path: &str) -> &str {
    path.get(..path.len().min(MAX_PATH)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parking_lot::Mutex;

    use super::super::testing::{InMemory, now_or_never};
    use super::*;
    use crate::message::Answer;

    /// Lines logged by `work`, as JSON.
    fn logged(work: impl FnOnce()) -> Vec<serde_json::Value> {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);
        impl Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ends(access: AccessLog, result: Result<Outcome, Refused>) -> Vec<serde_json::Value> {
        logged(|| {
            let metrics = Metrics::default();
            let mut exchange = InMemory::post("/hooks/x?token=secret");
            let record = Record::begin(&metrics, access, exchange.head(), None);
            let mut tracked = Tracked::new(&mut exchange);
            match &result {
                Ok(_) => now_or_never(tracked.answer(Answer::new(202))).unwrap(),
                Err(refused) => now_or_never(tracked.refuse(refused)),
            }
            record.end(&result, &tracked);
        })
    }

    #[test]
    fn a_refusal_is_one_line_with_reason_source_and_detail() {
        let refused = Refused::because(Reason::SignatureInvalid, "no secret of 2 matched");
        let lines = ends(AccessLog::Errors, Err(refused));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["reason"], "signature_invalid");
        assert_eq!(lines[0]["source"], "192.0.2.1");
        assert_eq!(lines[0]["status"], 401);
        assert_eq!(lines[0]["detail"], "no secret of 2 matched");
        assert_eq!((&lines[0]["level"], &lines[0]["path"]), (&"INFO".into(), &"/hooks/x".into()));
        assert!(!lines[0].to_string().contains("token"));
    }

    #[test]
    fn an_answer_that_broke_off_within_is_not_called_refused() {
        let lines = logged(|| {
            let metrics = Metrics::default();
            let mut exchange = InMemory::post("/hooks/x");
            let record = Record::begin(&metrics, AccessLog::Errors, exchange.head(), None);
            let mut tracked = Tracked::new(&mut exchange);
            now_or_never(tracked.start(200, &crate::message::Headers::default())).unwrap();
            let refused = Refused::because(Reason::UpstreamUnavailable, "broken: early end");
            now_or_never(tracked.refuse(&refused));
            record.end(&Err(refused), &tracked);
        });
        assert_eq!((&lines[0]["message"], &lines[0]["status"]), (&"broken off".into(), &200.into()));
        assert_eq!(lines[0]["reason"], "upstream_unavailable");
    }

    #[test]
    fn our_own_troubles_are_louder() {
        let level = |reason: Reason| ends(AccessLog::Errors, Err(reason.into()))[0]["level"].clone();
        assert_eq!(level(Reason::Internal), "ERROR");
        assert_eq!(level(Reason::BufferFull), "WARN");
        assert_eq!(level(Reason::NoRoute), "INFO");
    }

    #[test]
    fn the_config_says_which_requests_are_logged() {
        let refused = || Err(Reason::NoRoute.into());
        assert_eq!(ends(AccessLog::Off, refused()).len(), 0);
        assert_eq!(ends(AccessLog::Errors, Ok(Outcome::Passed)).len(), 0);
        assert_eq!(ends(AccessLog::All, refused()).len(), 1);
        let id = EventId::new(crate::clock::Timestamp(1));
        let lines = ends(AccessLog::All, Ok(Outcome::Accepted(id)));
        assert_eq!((&lines[0]["outcome"], &lines[0]["status"]), (&"accepted".into(), &202.into()));
        assert_eq!(lines[0]["event"], id.to_string());
    }

    #[test]
    fn a_long_path_is_clipped() {
        assert_eq!(clipped(&"/".repeat(1000)).len(), MAX_PATH);
        assert_eq!(clipped("/a"), "/a");
    }
}
