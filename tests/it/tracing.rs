//! One trace from reception through the buffer to each attempt, told to a collector by OTLP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;

use crate::support::*;

const SENDERS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn spans(message: &[u8]) -> Vec<Span> {
    let export = ExportTraceServiceRequest::decode(message).expect("an export");
    let scopes = export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// By their kind: of each there must be one.
fn by_kind(spans: Vec<Span>) -> HashMap<SpanKind, Span> {
    let mut found = HashMap::new();
    for span in spans {
        assert!(found.insert(span.kind(), span).is_none());
    }
    found
}

fn says(span: &Span, key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::{IntValue, StringValue};
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(StringValue(text)) => text.clone(),
        Some(IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?} in {span:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_senders_trace_goes_on_through_the_buffer_to_each_attempt_even_after_a_crash() {
    let (app, collector) = (App::start().await, App::start().await);
    app.behaves(Behaviour::status(503));
    let retry = json!({"first": "50ms", "max": "50ms", "attempts": 1000});
    let mut gateway = gateway()
        .route(unverified("/in").delivery("retry", retry).delivery("breaker", "off").to(&app))
        .section(
            "tracing",
            json!({"url": collector.url(), "protocol": "http", "headers": {"x-key": "env:COLLECTOR_KEY"}}),
        )
        .env("COLLECTOR_KEY", "hush")
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    let request =
        Request::post("/in?token=hush", "{}").header("traceparent", SENDERS).header("tracestate", "a=b");
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status, 202);
    app.receives(2).await;
    // What is stored with the event carries the trace over the crash; the restart exports what comes then.
    let told = async |n: usize| {
        eventually("spans are exported", async || exported(&collector).len() >= n).await;
        exported(&collector)
    };
    told(4).await;
    gateway.kill().await;
    app.behaves(Behaviour::status(200));
    gateway.restart().await;
    gateway.drained().await;
    gateway.terminate().await;

    let all = exported(&collector);
    assert!(all.iter().all(|span| hex::encode(&span.trace_id) == TRACE), "one trace: {all:?}");
    let of = |kind: SpanKind| all.iter().filter(move |span| span.kind() == kind).collect::<Vec<_>>();
    let [reception] = of(SpanKind::Server)[..] else { panic!("{all:?}") };
    assert_eq!(
        (hex::encode(&reception.parent_span_id), &*reception.name),
        ("00f067aa0ba902b7".into(), "POST in")
    );
    assert_eq!(
        (says(reception, "http.response.status_code"), says(reception, "tidegate.outcome")),
        ("202".into(), "accepted".into())
    );
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/in"),
        ("url.scheme", "https"),
        ("server.address", "localhost"),
        ("server.port", "443"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(says(reception, key), value, "{key}");
    }
    assert!(!has(reception, "error.type") && !has(reception, "url.path"));
    let [sending] = of(SpanKind::Producer)[..] else { panic!("{all:?}") };
    for (span, operation) in [(sending, "send"), (of(SpanKind::Consumer)[0], "process")] {
        assert_eq!(says(span, "messaging.system"), "tidegate");
        assert_eq!(says(span, "messaging.operation.name"), operation);
        assert_eq!(says(span, "messaging.operation.type"), operation);
    }
    assert_eq!(says(sending, "messaging.destination.name"), "in");
    assert_eq!(sending.parent_span_id, reception.span_id);
    assert_eq!(says(sending, "messaging.message.id"), answer.event_id());
    let (work, calls) = (of(SpanKind::Consumer), of(SpanKind::Client));
    assert!(work.len() >= 2 && work.len() == calls.len(), "{all:?}");
    for span in &work {
        assert_eq!((&span.parent_span_id, &span.links[0].span_id), (&sending.span_id, &sending.span_id));
        assert_eq!(
            (&*span.name, says(span, "messaging.destination.name")),
            ("process in/app", "in/app".into())
        );
    }
    let last = calls.iter().max_by_key(|span| span.end_time_unix_nano).expect("a call");
    assert_eq!(says(last, "http.response.status_code"), "200");
    assert!(calls.iter().all(|call| is_to(call, &app) && says(call, "http.request.method") == "POST"));
    assert!(
        !has(last, "error.type")
            && calls.iter().any(|call| has(call, "error.type") && says(call, "error.type") == "503")
    );
    assert!(work.iter().any(|span| has(span, "error.type") && says(span, "error.type") == "503"));
    assert!(calls.iter().filter(|call| call.span_id != last.span_id).all(|call| {
        says(call, "http.response.status_code") == "503" && call.status.as_ref().is_some_and(|s| s.code == 2)
    }));
    let received = app.received();
    let received = received.last().expect("an attempt");
    assert_eq!(received.all("traceparent"), [format!("00-{TRACE}-{}-01", hex::encode(&last.span_id))]);
    assert_eq!(received.header("tracestate"), Some("a=b"));

    let export = &collector.received()[0];
    assert!(export.request_line.starts_with("POST /v1/traces "), "{}", export.request_line);
    assert_eq!(
        (export.header("x-key"), export.header("content-type")),
        (Some("hush"), Some("application/x-protobuf"))
    );
    let told = String::from_utf8_lossy(&export.body).into_owned();
    assert!(!told.contains("hush") && told.contains("tidegate"), "nothing of the URL gets into a trace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_has_a_trace_of_its_own_that_is_linked_to_those_of_its_events() {
    let (app, collector) = (App::start().await, App::start().await);
    let batch = json!({"max_events": 2, "max_wait": "20s", "format": "multipart"});
    let mut gateway = gateway()
        .route(unverified("/in").to(&app).delivery("batch", batch))
        .section("tracing", json!({"url": collector.url(), "protocol": "http"}))
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    let first = gateway.send(&Request::post("/in", "{}").header("traceparent", SENDERS)).await;
    let second = gateway.send(&Request::post("/in", "{}")).await;
    gateway.drained().await;
    gateway.terminate().await;

    let all = exported(&collector);
    let of = |kind: SpanKind| all.iter().filter(move |span| span.kind() == kind).collect::<Vec<_>>();
    let [call] = of(SpanKind::Client)[..] else { panic!("{all:?}") };
    assert!(call.parent_span_id.is_empty() && hex::encode(&call.trace_id) != TRACE);
    assert_eq!(says(call, "messaging.batch.message_count"), "2");
    assert_eq!(says(call, "messaging.operation.name"), "process");
    assert!(is_to(call, &app));
    assert_eq!(says(call, "http.response.status_code"), "200");
    let (sent, work) = (of(SpanKind::Producer), of(SpanKind::Consumer));
    let linked: Vec<_> = call.links.iter().map(|link| &link.span_id).collect();
    assert_eq!((linked.len(), work.len()), (2, 2));
    assert!(sent.iter().all(|append| linked.contains(&&append.span_id)));
    let received = app.received();
    let traceparent =
        |span: &Span| format!("00-{}-{}-01", hex::encode(&span.trace_id), hex::encode(&span.span_id));
    assert_eq!(received[0].all("traceparent"), [traceparent(call)]);
    let body = String::from_utf8_lossy(&received[0].body);
    for id in [first.event_id(), second.event_id()] {
        let own = work.iter().find(|span| says(span, "messaging.message.id") == id).expect("its work");
        assert!(own.links.iter().any(|link| link.span_id == call.span_id), "{own:?}");
        let part = body.split("--tidegate-").find(|part| part.contains(id)).expect("its part");
        assert_eq!(part.matches("traceparent: ").count(), 1);
        assert!(part.contains(&format!("traceparent: {}\r\n", traceparent(own))), "{part}");
    }
}

fn exported(collector: &App) -> Vec<Span> {
    collector.received().iter().flat_map(|export| spans(&export.body)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_takes_its_trace_and_its_attempts_along_to_another_gateway() {
    let (app, collector) = (App::start().await, App::start().await);
    app.behaves(Behaviour::status(503));
    let traced = |app: &App| {
        let retry = json!({"first": "1h", "max": "1h"});
        gateway()
            .route(unverified("/in").delivery("retry", retry).delivery("breaker", "off").to(app))
            .section("tracing", json!({"url": collector.url(), "protocol": "http"}))
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    };
    let mut first = traced(&app).start().await;
    let answer = first.send(&Request::post("/in", "{}").header("traceparent", SENDERS)).await;
    app.receives(1).await;
    eventually("it is tried", async || {
        first.cli_json(&["events", "show", answer.event_id()]).await["deliveries"][0]["attempts"] == 1
    })
    .await;
    assert!(first.cli(&["export", "--file", "all.tar"]).await.status.success());
    assert!(first.terminate().await.success());
    let told_by_first = exported(&collector).len();
    app.behaves(Behaviour::status(200));

    let mut second = traced(&app).start().await;
    let archive = first.path("all.tar");
    let imported = second.cli(&["import", archive.to_str().expect("a path")]).await;
    assert!(String::from_utf8_lossy(&imported.stdout).contains("1 imported"), "{imported:?}");
    second.drained().await;
    let shown = second.cli_json(&["events", "show", answer.event_id()]).await;
    let history = shown["deliveries"][0]["history"].as_array().expect("attempts");
    let statuses: Vec<_> = history.iter().map(|attempt| attempt["status"].clone()).collect();
    assert_eq!(statuses, [503, 200], "{shown}");
    assert!(second.terminate().await.success());
    let told = exported(&collector).split_off(told_by_first);
    assert!(!told.is_empty() && told.iter().all(|span| hex::encode(&span.trace_id) == TRACE), "{told:?}");
    let received = app.received();
    let last = received.last().and_then(|received| received.header("traceparent"));
    assert!(last.is_some_and(|text| text.contains(TRACE)), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inline_request_is_told_by_grpc() {
    let (app, collector) = (App::start().await, Collector::start().await);
    let gateway = gateway()
        .route(unverified("/in").mode("proxy").to(&app))
        .section("tracing", json!({"url": format!("http://{}", collector.address)}))
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    assert_eq!(gateway.send(&Request::post("/in", "{}")).await.status, 200);
    assert_eq!(gateway.send(&Request::post("/nowhere", "{}")).await.status, 404);
    eventually("spans are exported", async || collector.exports.lock().len() >= 3).await;
    let mut all = std::mem::take(&mut *collector.exports.lock());
    let refused =
        all.iter().position(|span| says_outcome(span) == Some("no_route".into())).expect("the refusal");
    let refused = all.remove(refused);
    assert_eq!((refused.parent_span_id.len(), refused.status.unwrap_or_default().code), (0, 0));
    let all = by_kind(all);
    let (reception, call) = (&all[&SpanKind::Server], &all[&SpanKind::Client]);
    assert_eq!(call.parent_span_id, reception.span_id);
    assert_eq!(says(call, "http.response.status_code"), "200");
    let traceparent = format!("00-{}-{}-01", hex::encode(&call.trace_id), hex::encode(&call.span_id));
    assert_eq!(app.received()[0].header("traceparent"), Some(&*traceparent));
    eventually("spans are counted", async || {
        gateway.metric("tidegate_trace_spans_total", &[("outcome", "exported")]).await >= 3.0
    })
    .await;
}

fn has(span: &Span, key: &str) -> bool {
    span.attributes.iter().any(|attribute| attribute.key == key)
}

fn is_to(call: &Span, app: &App) -> bool {
    app.url() == format!("http://{}:{}", says(call, "server.address"), says(call, "server.port"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_names_the_server_that_failed_and_how() {
    let (app, collector) = (App::start().await, App::start().await);
    app.behaves(Behaviour::status(500));
    let nobody = free_port();
    let dead = format!("http://127.0.0.1:{nobody}");
    let mut gateway = gateway()
        .route(unverified("/dead").mode("proxy").forwards_to(&dead))
        .route(unverified("/some").mode("proxy").forwards_to(&dead).to(&app))
        .route(pass().set("path", "/through/*").to(&app))
        .section("tracing", json!({"url": collector.url(), "protocol": "http"}))
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .start()
        .await;
    for (path, status) in [("/dead", 502), ("/some", 500), ("/through/x", 500)] {
        assert_eq!(gateway.send(&Request::post(path, "{}")).await.status, status, "{path}");
    }
    gateway.terminate().await;
    let all = exported(&collector);
    let of = |route: &str| {
        let reception = all.iter().find(|span| has(span, "http.route") && says(span, "http.route") == route);
        let reception = reception.expect("the reception");
        let call = all.iter().find(|span| span.parent_span_id == reception.span_id).expect("the request");
        assert_eq!((reception.kind(), call.kind()), (SpanKind::Server, SpanKind::Client));
        (reception, call)
    };
    let (reception, call) = of("/dead");
    assert_eq!(
        (says(reception, "error.type"), says(call, "error.type")),
        ("upstream_unavailable".into(), "connect".into())
    );
    assert_eq!(says(call, "server.port"), nobody.to_string());
    assert!(!has(call, "http.response.status_code"));
    for route in ["/some", "/through/*"] {
        let (reception, call) = of(route);
        assert!(is_to(call, &app), "{call:?}");
        for span in [reception, call] {
            assert_eq!(
                (says(span, "error.type"), says(span, "http.response.status_code")),
                ("500".into(), "500".into())
            );
            assert_eq!(span.status.as_ref().map(|status| status.code), Some(2));
        }
    }
}

fn says_outcome(span: &Span) -> Option<String> {
    span.attributes.iter().any(|a| a.key == "tidegate.outcome").then(|| says(span, "tidegate.outcome"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_recorded_goes_on_as_it_came_and_a_dead_collector_holds_up_nothing() {
    let app = App::start().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for (sample, senders) in [(0.0, true), (1.0, false)] {
        let mut gateway = gateway()
            .route(unverified("/in").to(&app))
            .section("tracing", json!({"url": nobody, "sample": sample, "timeout": "200ms"}))
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .start()
            .await;
        let before = app.count();
        assert_eq!(
            gateway.send(&Request::post("/in", "{}").header("traceparent", SENDERS)).await.status,
            202
        );
        let received = app.receives(before + 1).await;
        let is_senders = received.last().and_then(|r| r.header("traceparent")) == Some(SENDERS);
        assert_eq!(is_senders, senders);
        if sample > 0.0 {
            eventually("the loss is counted", async || {
                gateway.metric("tidegate_trace_spans_total", &[("outcome", "lost")]).await >= 1.0
            })
            .await;
            assert!(gateway.log().contains("traces don't reach their collector"));
        }
        gateway.terminate().await;
    }
}

/// A collector that speaks gRPC.
struct Collector {
    address: SocketAddr,
    exports: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let exports: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = exports.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(socket, kept.clone()));
            }
        });
        Self { address, exports }
    }
}

async fn serve(socket: tokio::net::TcpStream, kept: Arc<Mutex<Vec<Span>>>) {
    let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let kept = kept.clone();
        tokio::spawn(async move {
            let path = request.uri().path().to_owned();
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            let (mut body, mut message) = (request.into_body(), Vec::new());
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                message.extend_from_slice(&piece);
            }
            // One message behind its five bytes of length.
            kept.lock().extend(spans(&message[5..]));
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .expect("a head");
            let mut stream = respond.send_response(head, false).expect("a stream");
            stream.send_data(Bytes::from_static(&[0; 5]), false).expect("an answer");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().expect("a value"));
            stream.send_trailers(trailers).expect("trailers");
        });
    }
}
