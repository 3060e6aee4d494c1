//! Pace through the real binary: rates, hours, and an operator's pauses that outlive the process.

use std::time::Duration;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_spreads_what_came_at_once() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app).delivery("rate", "20/s")).start().await;
    for _ in 0..30 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    let received = app.receives(30).await;
    let took = received[29].at - received[0].at;
    assert!(took >= Duration::from_millis(29 * 50 - 100), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_survives_a_crash_and_ends_when_it_is_told_to() {
    let (app, other) = (App::start().await, App::start().await);
    let mut gateway = gateway().route(github().to(&app)).route(stripe().to(&other)).start().await;
    let paused = gateway.cli_json(&["pause", "--route", "github"]).await;
    assert_eq!(paused, json!({"name": "github", "changed": true}));
    let paused = gateway.cli_json(&["pause", "--route", "stripe", "--destination", "app"]).await;
    assert_eq!(paused, json!({"name": "stripe/app", "changed": true}));
    assert_eq!(
        gateway.cli_json(&["resume", "--route", "stripe", "--destination", "app"]).await["changed"],
        true
    );
    for _ in 0..5 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202, "events are taken");
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
    }
    other.receives(5).await;
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
    other.receives(6).await;
    assert_eq!(app.count(), 0);
    assert_eq!(gateway.metric("tidegate_paused", &[("destination", "github/app")]).await, 1.0);
    assert_eq!(gateway.metric("tidegate_paused", &[("destination", "stripe/app")]).await, 0.0);
    let status = gateway.cli_json(&["status"]).await;
    let destinations = status["destinations"].as_array().expect("a list").clone();
    let held = destinations.iter().find(|d| d["destination"] == "github/app").expect("shown");
    assert!(held["paused_since"].is_string(), "{held}");
    let text = String::from_utf8(gateway.cli(&["status"]).await.stdout).expect("text");
    assert!(text.contains("paused by an operator"), "{text}");

    assert_eq!(gateway.cli_json(&["pause", "--route", "github"]).await["changed"], false);
    assert_eq!(gateway.cli_json(&["resume", "--route", "github"]).await["changed"], true);
    app.receives(5).await;
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    app.receives(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_what_is_not_there_is_refused_and_inline_senders_are_told_to_wait() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().mode("proxy").to(&app)).route(pass().to(&app)).start().await;
    for line in [&["pause", "--route", "strip"][..], &["pause", "--route", "stripe", "--destination", "b"]] {
        let refused = gateway.cli(line).await;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains(line[line.len() - 1]), "{text}");
    }
    for route in ["stripe", "pass"] {
        assert!(gateway.cli(&["pause", "--route", route]).await.status.success());
    }
    for request in [signed::stripe(invoice_paid()), Request::post("/app/x", "x")] {
        let answer = gateway.send(&request).await;
        assert_eq!((answer.status, answer.reason()), (503, "upstream_paused"));
        assert_eq!(answer.header("retry-after"), Some("30"));
    }
    assert_eq!(app.count(), 0);
    assert!(gateway.cli(&["resume", "--route", "stripe"]).await.status.success());
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_its_hours_a_destination_waits_and_says_until_when() {
    let app = App::start().await;
    // Two windows of a minute, twelve hours apart: at least one of these routes is closed now, whatever the clock says.
    let closed = |path: &str, hours: &str| unverified(path).to(&app).delivery("deliver_between", hours);
    let gateway = gateway()
        .route(closed("/one", "00:00-00:01 UTC"))
        .route(closed("/two", "12:00-12:01 UTC"))
        .route(closed("/ever", "00:00-24:00 Europe/Paris"))
        .start()
        .await;
    for target in ["/one", "/two", "/ever"] {
        assert_eq!(gateway.send(&Request::post(target, target)).await.status, 202);
    }
    eventually("what is open is delivered", async || {
        app.received().iter().any(|received| received.body == b"/ever")
    })
    .await;
    let status = gateway.cli_json(&["status"]).await.to_string();
    assert!(status.contains("\"closed_until\":\"2"), "{status}");
    assert!(gateway.backlog().await >= 1.0);
}
