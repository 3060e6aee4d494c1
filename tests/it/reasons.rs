//! Promise 7: errors name themselves, to the sender, in the log and in the metrics; secrets and bodies appear nowhere.

use crate::support::*;

const BODY_MARK: &str = "a-body-that-must-not-be-logged";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_its_reason_in_header_body_log_and_metric() {
    let app = App::start().await;
    let gateway = gateway().route(github().set("methods", json!(["POST"])).to(&app)).start().await;
    let cases = [
        (
            signed::github(BODY_MARK).with("X-Hub-Signature-256", "sha256=00"),
            401,
            "signature_invalid",
            "github",
        ),
        (signed::github(BODY_MARK).without("X-Hub-Signature-256"), 401, "signature_missing", "github"),
        (Request::post("/nowhere", BODY_MARK), 404, "no_route", ""),
        (Request::get("/hooks/github"), 405, "method_not_allowed", "github"),
        (Request::post("/hooks/../x", BODY_MARK), 400, "invalid_path", ""),
    ];
    for (request, status, reason, route) in cases {
        let lines = gateway.log().lines().count();
        let answer = gateway.send(&request).await;
        assert_eq!((answer.status, answer.reason()), (status, reason), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("a JSON body");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["reason"], reason);
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{problem}");
        assert!(answer.body.len() < 1024, "short");

        eventually("one log line", async || {
            gateway.log().lines().skip(lines).filter(|line| line.contains(reason)).count() == 1
        })
        .await;
        let log = gateway.log();
        let line = log.lines().skip(lines).find(|line| line.contains(reason)).expect("the line");
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let text = line.to_string();
        assert!(text.contains("127.0.0.1"), "the source address: {text}");
        assert!(text.contains(route), "the route: {text}");
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{text}");
        eventually("one more in the metric", async || {
            gateway.metric("tidegate_requests_total", &[("outcome", reason)]).await == 1.0
        })
        .await;
    }
    assert_eq!(gateway.send(&Request::get("/hooks/github")).await.header("allow"), Some("POST"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_bodies_are_never_logged_or_shown() {
    let app = App::start().await;
    app.behaves(Behaviour::status(410));
    let token = "Bearer a-token-that-must-not-be-logged";
    let mut gateway = gateway()
        .section("log", json!({"level": "debug", "access": "all"}))
        .route(github().to(&app))
        .route(stripe().mode("proxy").to(&app))
        .start()
        .await;
    let marked = |body: String| body.replacen('{', &format!("{{\"mark\":\"{BODY_MARK}\","), 1);
    let sent = [
        signed::github(marked(push())).header("Authorization", token),
        signed::github(marked(push())).with("X-Hub-Signature-256", "sha256=00"),
        signed::stripe(marked(invoice_paid())),
        signed::stripe(marked(invoice_paid())).body(BODY_MARK),
        Request::post("/nowhere", BODY_MARK).header("Authorization", token),
    ];
    for request in &sent {
        gateway.send(request).await;
    }
    eventually("a dead letter", async || gateway.metric("tidegate_dead_letters", &[]).await == 1.0).await;
    let metrics = gateway.admin("GET", "/metrics").await.expect("metrics").text();
    let status = gateway.admin("GET", "/status").await.expect("status").text();
    gateway.terminate().await;
    for (where_, text) in [("the log", gateway.log()), ("the metrics", metrics), ("the status", status)] {
        for mark in [BODY_MARK, "a-token-that", signed::GITHUB_SECRET, signed::STRIPE_SECRET] {
            assert!(!text.contains(mark), "{where_} shows {mark}");
        }
        assert!(!text.contains("panicked"), "{where_}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_happened_with_bounded_labels() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).route(stripe().mode("proxy").to(&app)).start().await;
    let event = signed::github(push());
    for _ in 0..3 {
        gateway.send(&event).await;
    }
    gateway.send(&signed::stripe(invoice_paid())).await;
    for n in 0..20 {
        gateway.send(&Request::post(&format!("/no/{n}"), "x")).await;
    }
    gateway.drained().await;
    app.receives(2).await;
    for (labels, wanted) in [
        (&[("route", "github"), ("outcome", "accepted")][..], 1.0),
        (&[("route", "github"), ("outcome", "duplicate")], 2.0),
        (&[("route", "stripe"), ("outcome", "forwarded")], 1.0),
        (&[("outcome", "no_route")], 20.0),
    ] {
        gateway.counts("tidegate_requests_total", labels, wanted).await;
    }
    let delivered = [("destination", "github/app"), ("outcome", "delivered")];
    eventually("the delivery is counted", async || {
        gateway.metric("tidegate_deliveries_total", &delivered).await == 1.0
    })
    .await;
    assert!(gateway.metric("tidegate_buffer_append_duration_seconds_count", &[]).await >= 1.0);
    let text = gateway.admin("GET", "/metrics").await.expect("metrics").text();
    assert!(!text.contains("/no/"), "no path in a label");
    assert!(!text.contains(event.value("X-GitHub-Delivery")), "no id in a label");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_readiness_answer() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(gateway.admin("GET", path).await.expect("answered").status, 200, "{path}");
    }
    let healthy = gateway.cli(&["healthcheck"]).await;
    assert!(healthy.status.success(), "{healthy:?}");
    let healthy = gateway.cli_json(&["healthcheck"]).await;
    assert_eq!(healthy["ready"], true, "{healthy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_no_body_gets_none_with_a_refusal() {
    let app = App::start().await;
    let xero =
        json!({"name": "xero", "path": "/hooks/xero", "provider": "xero", "secret": "file:secrets/xero"});
    let xero = Route::new(xero).secret("xero", "a-webhooks-key").to(&app);
    let gateway = gateway().route(xero).route(github().to(&app)).start().await;
    let refused = gateway.send(&Request::post("/hooks/xero", "{}").header("x-xero-signature", "AAAA")).await;
    assert_eq!((refused.status, refused.reason(), refused.text()), (401, "signature_invalid", String::new()));
    assert_eq!(refused.header("content-type"), None);
    let refused = gateway.send(&Request::post("/hooks/github", "{}")).await;
    assert!(refused.text().contains("signature_missing"), "{refused:?}");
}
