//! How spans get to the collector: OTLP over gRPC or HTTP. Batches are the SDK's; which spans there are is `super`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter as SpanExport, SpanProcessor,
};
use tokio::runtime::Handle;

use super::TraceError;
use crate::config::{OtlpProtocol, TraceSettings, TrustedRoots, header_value};
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::upstream::Ask;

/// Bytes of a collector's answer that are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Spans that wait for the collector, where `OTEL_BSP_MAX_QUEUE_SIZE` does not say it; the SDK's own default.
const ROOM: usize = 2048;

/// The way to the collector that the settings ask for. Within the runtime that shall do the work.
pub(super) fn queue(settings: &TraceSettings, metrics: Arc<Metrics>) -> Result<Queue, TraceError> {
    let exporter = match settings.protocol {
        OtlpProtocol::Grpc => grpc(settings)?,
        OtlpProtocol::Http => http(settings)?,
    };
    let room = std::env::var("OTEL_BSP_MAX_QUEUE_SIZE").ok().and_then(|size| size.parse().ok());
    Ok(Queue::new(exporter, room.unwrap_or(ROOM), metrics))
}

fn grpc(settings: &TraceSettings) -> Result<SpanExporter, TraceError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(settings.url.to_string())
        .with_timeout(settings.timeout)
        .with_metadata(MetadataMap::from_headers(headers(settings)));
    if settings.url.scheme_str() == Some("https") {
        let mut tls = ClientTlsConfig::new().with_webpki_roots();
        if let Some(ca) = &settings.ca {
            let pem = std::fs::read(ca).map_err(|e| TraceError(format!("{}: {e}", ca.display())))?;
            tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        }
        builder = builder.with_tls_config(tls);
    }
    builder.build().map_err(|error| TraceError(error.to_string()))
}

fn http(settings: &TraceSettings) -> Result<SpanExporter, TraceError> {
    let url = match settings.url.path() {
        // The base of a collector, as its documentation gives it.
        "" | "/" => format!("{}/v1/traces", settings.url.to_string().trim_end_matches('/')),
        _ => settings.url.to_string(),
    };
    let ask: Uri = url.parse().map_err(|_| TraceError(format!("{url} is no URL")))?;
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers: HashMap<String, String> =
        headers(settings).iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new(settings, &ask)?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(settings.timeout)
        .with_headers(headers)
        .build()
        .map_err(|error| TraceError(error.to_string()))
}

/// The config has checked that all can be sent.
fn headers(settings: &TraceSettings) -> HeaderMap {
    let value = |(name, secret): &(HeaderName, Secret)| Some((name.clone(), header_value(secret)?));
    settings.headers.iter().filter_map(value).collect()
}

/// Our own HTTP client, for the SDK.
#[derive(Debug)]
struct Client {
    ask: Arc<Ask>,
    runtime: Handle,
}

impl Client {
    fn new(settings: &TraceSettings, url: &Uri) -> Result<Self, TraceError> {
        let roots = settings.ca.clone().map(TrustedRoots::File);
        let ask = Ask::new("tracing", url, roots, settings.timeout, settings.timeout);
        let ask = ask.map_err(|error| TraceError(error.to_string()))?;
        Ok(Self { ask: Arc::new(ask), runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let ask = self.ask.clone();
        // The SDK waits in a thread of its own, outside of any runtime.
        let sent = self.runtime.spawn(async move {
            let own = |(name, _): &(&HeaderName, &HeaderValue)| *name != "user-agent";
            let headers = parts.headers.iter().filter(own);
            let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
            let mut answer = ask.send(parts.method, headers, body).await?;
            let mut read = BytesMut::new();
            while let Some(chunk) = answer.chunk().await? {
                if read.len() + chunk.len() > MAX_ANSWER {
                    break;
                }
                read.extend_from_slice(&chunk);
            }
            Ok::<_, crate::upstream::UpstreamError>((answer.status, read.freeze()))
        });
        let (status, body) = sent.await??;
        Ok(http::Response::builder().status(status).body(body)?)
    }
}

/// Where spans wait. The SDK drops what finds its own queue full and tells nobody, so what finds no room is dropped here,
/// and counted.
#[derive(Debug)]
pub(super) struct Queue {
    inner: BatchSpanProcessor,
    /// Handed over, and neither exported nor lost yet.
    waiting: Arc<AtomicUsize>,
    room: usize,
    metrics: Arc<Metrics>,
    /// Whether it was said that spans are lost.
    full: AtomicBool,
}

impl Queue {
    fn new(exporter: impl SpanExport + 'static, room: usize, metrics: Arc<Metrics>) -> Self {
        let waiting = Arc::<AtomicUsize>::default();
        let counted = Counted {
            inner: exporter,
            waiting: waiting.clone(),
            metrics: metrics.clone(),
            failing: AtomicBool::new(false),
        };
        let config = BatchConfigBuilder::default().with_max_queue_size(room).build();
        let inner = BatchSpanProcessor::builder(counted).with_batch_config(config).build();
        Self { inner, waiting, room, metrics, full: AtomicBool::new(false) }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, context: &opentelemetry::Context) {
        self.inner.on_start(span, context);
    }
    fn on_end(&self, span: SpanData) {
        let waited = self.waiting.fetch_add(1, Ordering::Relaxed);
        if waited < self.room {
            if waited <= self.room / 2 && self.full.load(Ordering::Relaxed) {
                self.full.store(false, Ordering::Relaxed);
            }
            return self.inner.on_end(span);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.metrics.spans("lost", 1);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!("traces come faster than their collector takes them: some are lost");
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter whose outcomes are counted and, as far as they are failures, logged when they begin and when they end.
#[derive(Debug)]
struct Counted<E> {
    inner: E,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    failing: AtomicBool,
}

impl<E: SpanExport> SpanExport for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let spans = count as u64;
        let result = self.inner.export(batch).await;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.metrics.spans("exported", spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces reach their collector again");
                }
            }
            Err(error) => {
                self.metrics.spans("lost", spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "traces don't reach their collector: those of now are lost");
                }
            }
        }
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::message::{Method, TraceContext};

    /// A collector that takes nothing until it is let.
    #[derive(Debug)]
    struct Hangs(Arc<Mutex<()>>);
    impl SpanExport for Hangs {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            drop(self.0.lock());
            Ok(())
        }
    }

    #[test]
    fn spans_that_find_no_room_are_counted_as_lost() {
        let metrics = Arc::new(Metrics::default());
        let collector = Arc::<Mutex<()>>::default();
        let hangs = collector.lock();
        let queue = Queue::new(Hangs(collector.clone()), 4, metrics.clone());
        let tracer = Arc::new(super::super::Tracer::over(Box::new(queue), 1.0));
        let part_of = TraceContext { trace: [1; 16], span: [2; 8] };
        (0..10).for_each(|_| drop(tracer.call(part_of, &Method::POST)));
        assert_eq!((metrics.spans_counted("lost"), metrics.spans_counted("exported")), (6, 0));
        drop(hangs);
        tracer.shutdown(Duration::from_secs(60));
        assert_eq!((metrics.spans_counted("lost"), metrics.spans_counted("exported")), (6, 4));
    }
}
