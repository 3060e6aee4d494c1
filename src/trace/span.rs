//! What a span says of itself: OpenTelemetry's conventions for HTTP servers, HTTP clients and messaging.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::Tracer;
use crate::buffer::EventId;
use crate::message::{Head, Method, TraceContext, Version};
use crate::upstream::WentTo;

/// Links of a span, as OpenTelemetry limits them.
pub(super) const MOST_LINKS: usize = 128;
/// As many as a reception has.
pub(super) const ATTRIBUTES: usize = 16;

/// What a span of messaging does with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messaging {
    /// Stores it, for those who deliver.
    Send,
    /// Brings it to a destination.
    Process,
}

/// The method as a word of few, as the conventions have it: `None` for one that only sender and app know.
pub fn method_word(method: &Method) -> Option<&str> {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    )
    .then_some(method.as_str())
}

pub(super) fn span_context(context: TraceContext) -> SpanContext {
    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Something that takes time, and is recorded when it ends: when it is dropped.
#[derive(Debug)]
pub struct Span {
    pub(super) tracer: Arc<Tracer>,
    pub(super) context: TraceContext,
    /// A request to an app: which of its servers that was.
    pub(super) went_to: Option<WentTo>,
    /// `None` once it has ended.
    pub(super) data: Option<Box<SpanData>>,
}

impl Span {
    pub const fn context(&self) -> TraceContext {
        self.context
    }
    pub fn name(&mut self, name: String) {
        if let Some(data) = &mut self.data {
            data.name = name.into();
        }
    }
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(data) = &mut self.data {
            data.attributes.push(KeyValue::new(key, value));
        }
    }
    /// It has to do with that one. Beyond [`MOST_LINKS`] they are only counted.
    pub fn link(&mut self, to: TraceContext) {
        let Some(links) = self.data.as_mut().map(|data| &mut data.links) else { return };
        if links.links.len() < MOST_LINKS {
            links.links.push(Link::with_context(span_context(to)));
        } else {
            links.dropped_count += 1;
        }
    }
    /// What it was to do did not come off. `kind` is a word of few, `why` for who reads the trace.
    pub fn failed(&mut self, kind: impl Into<Value>, why: impl Into<Cow<'static, str>>) {
        self.set("error.type", kind);
        if let Some(data) = &mut self.data {
            data.status = Status::error(why);
        }
    }
    /// The answer's status is a failure, and says all there is to say.
    pub fn failed_with(&mut self, status: u16) {
        self.failed(status.to_string(), "");
    }
    /// There is an answer with this status. Only the caller knows whether that is a failure.
    pub fn answered(&mut self, status: u16) {
        self.set("http.response.status_code", i64::from(status));
    }

    /// The app has answered a request with this status.
    pub fn app_answered(&mut self, status: u16) {
        self.answered(status);
        if status >= 400 {
            self.failed_with(status);
        }
    }

    /// It is the reception of a request.
    pub(super) fn received(&mut self, head: &Head) {
        self.method(&head.method);
        self.set("url.scheme", head.scheme.as_str());
        let (host, port) = address(head);
        if !host.is_empty() {
            self.set("server.address", host);
            self.set("server.port", i64::from(port));
        }
        self.set("client.address", head.client.to_string());
        self.set("network.peer.address", head.peer.ip().to_canonical().to_string());
        self.set("network.peer.port", i64::from(head.peer.port()));
        let version = match head.version {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2",
        };
        self.set("network.protocol.version", version);
    }

    /// It is a request to an app.
    pub(super) fn calls(&mut self, method: &Method) {
        self.method(method);
        self.went_to = Some(WentTo::default());
    }

    fn method(&mut self, method: &Method) {
        match method_word(method) {
            Some(word) => self.set("http.request.method", word.to_owned()),
            None => {
                self.set("http.request.method", "_OTHER");
                self.set("http.request.method_original", method.as_str().to_owned());
            }
        }
    }

    /// Where to tell which server the request goes to.
    pub fn went_to(&self) -> Option<WentTo> {
        self.went_to.clone()
    }

    /// It does that with events of this route, or for this destination.
    pub fn messaging(&mut self, operation: Messaging, destination: &str) {
        let word = match operation {
            Messaging::Send => "send",
            Messaging::Process => "process",
        };
        self.set("messaging.system", "tidegate");
        self.set("messaging.operation.name", word);
        self.set("messaging.operation.type", word);
        self.set("messaging.destination.name", destination.to_owned());
    }
    /// It is about so many stored events.
    pub fn events(&mut self, count: usize) {
        self.set("messaging.batch.message_count", i64::try_from(count).unwrap_or(i64::MAX));
    }
    /// It is about this event.
    pub fn event(&mut self, id: EventId) {
        self.set("messaging.message.id", id.to_string());
    }
}

/// The host and port that the sender asked for, as far as this hop can know.
fn address(head: &Head) -> (String, u16) {
    let authority = head.asked_authority.as_ref().unwrap_or(&head.authority);
    let host = crate::message::host_of(authority);
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    (
        host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port.unwrap_or(head.scheme.default_port()),
    )
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut data) = self.data.take() {
            data.end_time = SystemTime::now();
            if let Some((host, port)) = self.went_to.take().and_then(|to| to.server()) {
                data.attributes.push(KeyValue::new("server.address", host));
                data.attributes.push(KeyValue::new("server.port", i64::from(port)));
            }
            self.tracer.processor.on_end(*data);
        }
    }
}
