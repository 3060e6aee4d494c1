//! Traces: what happens to one request, told to an OpenTelemetry collector, from its reception through the buffer to
//! each attempt at the app.
//!
//! A span is one thing that takes time, and ends when it is dropped. Reception is the trace's first span here; its
//! context goes into the store with the event, so that each attempt, whenever it is made, is of the same trace and
//! linked to the append. A sender's `traceparent` is continued, and the app gets ours. Whether a trace is recorded is
//! our own decision, by its id and a number that nobody else knows: a sender can't make us record, neither by a flag nor
//! by the id that it picks. Where none is, `traceparent` goes on as it came, and nothing is allocated.
//!
//! `export` is the way to the collector, `span` what a span says of itself. Nothing of a path, a query, a body, or a
//! header but `Host` gets into one: they may hold what only sender and app should know. Of a path there is what the
//! route says of it.

mod export;
mod span;
#[cfg(test)]
pub(crate) mod testing;

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor};

use crate::config::TraceSettings;
use crate::message::{Head, Method, TraceContext};
use crate::telemetry::Metrics;

use span::span_context;
pub use span::{Messaging, Span, method_word};

/// Why there can be no tracer.
#[derive(Debug, thiserror::Error)]
#[error("tracing: {0}")]
pub struct TraceError(String);

/// What records traces. Where tracing is off there is none.
#[derive(Debug)]
pub struct Tracer {
    processor: Box<dyn SpanProcessor>,
    /// Traces the hash of whose id is below it are recorded, out of 2^[`SAMPLED_BITS`].
    below: u64,
    /// Made anew with each process, so that no sender can pick an id that is recorded.
    hasher: RandomState,
    scope: InstrumentationScope,
}

/// Bits of a hash that are looked at: a share of 1 is then a number, too.
const SAMPLED_BITS: u32 = 63;

impl Tracer {
    /// Within the runtime that shall export. Connects to nobody yet.
    pub fn new(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Arc<Self>, TraceError> {
        let mut processor = export::queue(settings, metrics)?;
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        processor.set_resource(&resource);
        Ok(Arc::new(Self::over(Box::new(processor), settings.sample)))
    }

    fn over(processor: Box<dyn SpanProcessor>, sample: f64) -> Self {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        // A cast saturates, and a share needs no more digits than a float has.
        let below = (sample.clamp(0.0, 1.0) * (1u64 << SAMPLED_BITS) as f64) as u64;
        let scope = InstrumentationScope::builder("tidegate").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { processor, below, hasher: RandomState::new(), scope }
    }

    /// The reception of a request: continues its sender's trace, or begins one. `None`: it is not recorded.
    pub fn request(self: &Arc<Self>, head: &Head) -> Option<Span> {
        let mut fields = head.headers.all("traceparent");
        let parent = match (fields.next(), fields.next()) {
            (Some(text), None) => TraceContext::parse(text),
            _ => None,
        };
        let trace = parent.map_or_else(|| fastrand::u128(1..).to_be_bytes(), |parent| parent.trace);
        if !self.records(trace) {
            return None;
        }
        let mut span = self.span(trace, parent.map(|parent| parent.span), SpanKind::Server, "request".into());
        if let Some(data) = &mut span.data {
            data.parent_span_is_remote = parent.is_some();
        }
        span.received(head);
        Some(span)
    }

    /// A part of what has this context: the append of an event to the buffer.
    pub fn sending(self: &Arc<Self>, within: TraceContext, route: &str) -> Span {
        let mut span =
            self.span(within.trace, Some(within.span), SpanKind::Producer, format!("send {route}").into());
        span.messaging(Messaging::Send, route);
        span
    }

    /// A part of what has this context: a request to an app.
    pub fn call(self: &Arc<Self>, within: TraceContext, method: &Method) -> Span {
        let name = method_word(method).unwrap_or("HTTP").to_owned();
        let mut call = self.span(within.trace, Some(within.span), SpanKind::Client, name.into());
        call.calls(method);
        call
    }

    /// Work on an event that was stored with this context.
    pub fn stored(self: &Arc<Self>, context: TraceContext, destination: &str) -> Span {
        let name = format!("process {destination}");
        let mut span = self.span(context.trace, Some(context.span), SpanKind::Consumer, name.into());
        if let Some(data) = &mut span.data {
            data.parent_span_is_remote = true;
        }
        span.link(context);
        span.messaging(Messaging::Process, destination);
        span
    }

    /// A request to an app that carries several stored events. It is of none of their traces, and linked to each that is
    /// recorded, as far as there is room.
    pub fn batch(self: &Arc<Self>, of: &[TraceContext], method: &Method) -> Span {
        let trace = fastrand::u128(1..).to_be_bytes();
        let name = method_word(method).unwrap_or("HTTP").to_owned();
        let mut span = self.span(trace, None, SpanKind::Client, name.into());
        span.calls(method);
        of.iter().for_each(|context| span.link(*context));
        span
    }

    /// Exports what there is, for so long at most. Blocks.
    pub fn shutdown(&self, patience: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(patience) {
            tracing::warn!(%error, "the last traces could not be exported");
        }
    }

    fn records(&self, trace: [u8; 16]) -> bool {
        self.hasher.hash_one(trace) >> (u64::BITS - SAMPLED_BITS) < self.below
    }

    fn span(
        self: &Arc<Self>,
        trace: [u8; 16],
        parent: Option<[u8; 8]>,
        kind: SpanKind,
        name: Cow<'static, str>,
    ) -> Span {
        let context = TraceContext { trace, span: fastrand::u64(1..).to_be_bytes() };
        let data = SpanData {
            span_context: span_context(context),
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: SystemTime::now(),
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::with_capacity(span::ATTRIBUTES),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        };
        Span { tracer: self.clone(), context, went_to: None, data: Some(Box::new(data)) }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Spans, tracer};
    use super::*;
    use crate::verify::testing::request;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn head(headers: &[(&str, &str)]) -> Head {
        request("/in", headers, b"").head
    }

    #[test]
    fn a_senders_trace_is_continued_and_one_is_begun_where_there_is_none() {
        let spans = Spans::default();
        let tracer = tracer(&spans, 1.0);
        let span = tracer.request(&head(&[("Traceparent", PARENT)])).unwrap();
        assert_eq!(span.context().to_string()[..36], PARENT[..36]);
        assert_ne!(span.context().to_string()[36..52], PARENT[36..52]);
        drop(span);
        let span = &spans.take()[0];
        assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert!(span.parent_span_is_remote && span.end_time >= span.start_time);
        for unusable in
            [&[][..], &[("traceparent", "nonsense")], &[("traceparent", PARENT), ("traceparent", PARENT)]]
        {
            let span = tracer.request(&head(unusable)).unwrap();
            assert_ne!(span.context().to_string()[..36], PARENT[..36]);
            drop(span);
            assert_eq!(spans.take()[0].parent_span_id, SpanId::INVALID);
        }
    }

    #[test]
    fn a_share_of_the_traces_is_recorded_whatever_senders_say() {
        let spans = Spans::default();
        let all = |tracer: Arc<Tracer>| (0..2000).filter_map(|_| tracer.request(&head(&[]))).count();
        assert_eq!(all(tracer(&spans, 0.0)), 0);
        assert_eq!(all(tracer(&spans, 1.0)), 2000);
        let half = all(tracer(&spans, 0.5));
        assert!((800..1200).contains(&half), "{half}");
        let sampled = PARENT.replace("b7-00", "b7-01");
        assert!(tracer(&spans, 0.0).request(&head(&[("traceparent", &sampled)])).is_none());
    }

    #[test]
    fn no_id_that_a_sender_picks_is_always_recorded_and_one_trace_is_recorded_whole() {
        let spans = Spans::default();
        for id in ["00000000000000000000000000000001", "4bf92f3577b34da60000000000000000"] {
            let parent = format!("00-{id}-00f067aa0ba902b7-01");
            let picked = head(&[("traceparent", &parent)]);
            let recorded: Vec<bool> = (0..200)
                .map(|_| {
                    let tracer = tracer(&spans, 0.5);
                    let first = tracer.request(&picked).is_some();
                    assert_eq!(tracer.request(&picked).is_some(), first, "one decision for one trace");
                    first
                })
                .collect();
            let share = recorded.iter().filter(|recorded| **recorded).count();
            assert!((50..150).contains(&share), "{id}: {share} of 200");
        }
    }

    #[test]
    fn a_batch_is_linked_to_each_of_its_events_up_to_a_bound() {
        let spans = Spans::default();
        let tracer = tracer(&spans, 1.0);
        let of: Vec<TraceContext> =
            (1..=130).map(|n| TraceContext { trace: [n; 16], span: [n; 8] }).collect();
        drop(tracer.batch(&of[..2], &Method::POST));
        drop(tracer.batch(&of, &Method::POST));
        let [two, many] = <[SpanData; 2]>::try_from(spans.take()).unwrap();
        let linked: Vec<_> =
            two.links.links.iter().map(|link| link.span_context.trace_id().to_bytes()).collect();
        assert_eq!(linked, [[1; 16], [2; 16]]);
        assert_eq!((two.span_kind.clone(), two.parent_span_id), (SpanKind::Client, SpanId::INVALID));
        assert_eq!((many.links.links.len(), many.links.dropped_count), (span::MOST_LINKS, 2));
    }

    #[test]
    fn parts_and_work_of_later_are_of_the_same_trace() {
        let spans = Spans::default();
        let tracer = tracer(&spans, 1.0);
        let reception = tracer.request(&head(&[])).unwrap();
        let sending = tracer.sending(reception.context(), "in");
        let (root, stored) = (reception.context(), sending.context());
        drop(sending);
        drop(reception);
        let work = tracer.stored(stored, "in/app");
        drop(tracer.call(work.context(), &Method::POST));
        drop(work);
        let [sending, reception, call, work] = <[SpanData; 4]>::try_from(spans.take()).unwrap();
        assert!(
            [&sending, &call, &work].iter().all(|span| span.span_context.trace_id().to_bytes() == root.trace)
        );
        assert_eq!(sending.parent_span_id, reception.span_context.span_id());
        assert_eq!(work.parent_span_id, sending.span_context.span_id());
        assert_eq!(work.links[0].span_context.span_id(), sending.span_context.span_id());
        assert_eq!(call.parent_span_id, work.span_context.span_id());
        assert_eq!((work.span_kind, call.span_kind), (SpanKind::Consumer, SpanKind::Client));
    }
}
