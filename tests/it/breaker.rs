//! The breaker through the real binary: a sick app is left alone, its events wait at no cost, and it gets its work back
//! slowly. Times are short; every wait is for a condition.

use std::time::Duration;

use crate::support::*;

const DESTINATION: &str = "github/app";

fn quick() -> serde_json::Value {
    json!({"failures": 3, "probe_after": "300ms", "slow_start": "2s"})
}

/// As the gauge says: 0 closed, 1 half open, 2 open.
async fn breaker(gateway: &Gateway, destination: &str) -> f64 {
    gateway.metric("tidegate_breaker", &[("destination", destination)]).await
}

async fn transitions(gateway: &Gateway, state: &str) -> f64 {
    gateway
        .metric("tidegate_breaker_transitions_total", &[("destination", DESTINATION), ("state", state)])
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_app_is_left_alone_at_no_cost_of_attempts_and_gets_all_of_it_once_it_is_well() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let retry = json!({"first": "10ms", "max": "20ms", "attempts": 4});
    let route = github().to(&app).delivery("retry", retry).delivery("breaker", quick());
    let gateway = gateway().route(route.delivery("concurrency", 8)).start().await;
    for _ in 0..100 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202, "senders feel nothing");
    }
    eventually("it has opened and probed in vain", async || transitions(&gateway, "half_open").await >= 6.0)
        .await;
    // Of four attempts each, more probes than that were made.
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 0.0);
    assert_eq!(gateway.backlog().await, 100.0);
    let sent = app.count();
    assert!(sent < 8 + 3 + 30, "only probes: {sent}");

    let status = gateway.cli_json(&["status"]).await;
    let shown = &status["destinations"][0]["breaker"];
    assert!(shown["state"] == "open" || shown["state"] == "half_open", "{shown}");
    assert!(shown["why"].as_str().is_some_and(|why| why.contains("500")), "{shown}");
    assert!(shown["since"].is_string() && shown["next_probe"].is_string(), "{shown}");
    let text = String::from_utf8(gateway.cli(&["status"]).await.stdout).expect("text");
    assert!(text.contains("breaker"), "{text}");

    app.forget();
    app.behaves(Behaviour::Slow(Duration::from_millis(20)));
    gateway.drained().await;
    let received = app.received();
    assert_eq!(received.len(), 100, "each once");
    assert!(received.iter().all(|received| received.attempt() <= 4));
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 0.0);
    assert_eq!(breaker(&gateway, DESTINATION).await, 0.0);
    assert_eq!(transitions(&gateway, "closed").await, 1.0);
    // The slow start: with room for one at first, the first of them do not come all at once.
    let first_eight = received[7].at - received[0].at;
    assert!(first_eight >= Duration::from_millis(7 * 20 / 2), "{first_eight:?}");
    let lines: Vec<_> = gateway.log_lines();
    let said = |what: &str| lines.iter().filter(|line| line.to_string().contains(what)).count();
    assert_eq!((said("the breaker opened"), said("the breaker closed")), (1, 1), "one line a change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_is_open_is_so_after_a_crash_and_one_delivery_probes() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let long = json!({"failures": 3, "probe_after": "1h", "slow_start": "0s"});
    let mut gateway = gateway()
        .route(github().to(&app).delivery("breaker", long).delivery("concurrency", 2))
        .section("log", json!({"level": "debug"}))
        .start()
        .await;
    let noted = |gateway: &Gateway| gateway.log().matches("how the breaker stands is on disk").count();
    for _ in 0..20 {
        gateway.send(&signed::github(push())).await;
    }
    eventually("it has opened", async || breaker(&gateway, DESTINATION).await == 2.0).await;
    eventually("that is on disk", async || noted(&gateway) >= 1).await;
    gateway.kill().await;
    let crashed = tidegate::clock::Clock::System.now().to_string();
    app.forget();
    gateway.restart().await;
    eventually("it has probed", async || app.count() >= 1 && breaker(&gateway, DESTINATION).await == 2.0)
        .await;
    assert_eq!(transitions(&gateway, "half_open").await, 1.0);
    assert_eq!(app.count(), 1, "nothing but the probe");
    let status = gateway.cli_json(&["status"]).await;
    let shown = &status["destinations"][0]["breaker"];
    assert!(shown["why"].as_str().is_some_and(|why| why.contains("500")), "{shown}");
    assert!(shown["since"].as_str().is_some_and(|since| *since < *crashed), "{shown}");

    app.behaves(Behaviour::status(200));
    gateway.kill().await;
    gateway.restart().await;
    // What was spared waits for no time that the breaker once gave it.
    eventually("it has closed", async || breaker(&gateway, DESTINATION).await == 0.0).await;
    gateway.drained().await;
    eventually("that is on disk, too", async || noted(&gateway) >= 1).await;
    gateway.terminate().await;
    gateway.restart().await;
    assert_eq!(breaker(&gateway, DESTINATION).await, 0.0, "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sick_destination_does_not_hold_another() {
    let (well, sick) = (App::start().await, App::start().await);
    sick.refuse().await;
    let gateway = gateway()
        .route(github().to(&well))
        .route(stripe().to(&sick).impatient().delivery("breaker", quick()))
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    well.receives(20).await;
    eventually("the other is open", async || breaker(&gateway, "stripe/app").await == 2.0).await;
    assert_eq!(breaker(&gateway, DESTINATION).await, 0.0);
    sick.accept().await;
    gateway.drained().await;
    assert!(sick.count() >= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_breaker_holds_survives_a_crash() {
    let app = App::start().await;
    app.refuse().await;
    let route = github().to(&app).impatient().delivery("breaker", quick());
    let mut gateway = gateway().route(route).start().await;
    for _ in 0..30 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    eventually("it is open", async || breaker(&gateway, DESTINATION).await == 2.0).await;
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(gateway.backlog().await, 30.0);
    app.accept().await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_breaker_answers_inline_requests_at_once() {
    let app = App::start().await;
    let route = stripe().mode("proxy").to(&app).delivery("timeout", "500ms");
    let breaker = json!({"failures": 2, "probe_after": "3s"});
    let gateway = gateway().route(route.delivery("breaker", breaker)).start().await;
    app.behaves(Behaviour::Hang);
    for _ in 0..2 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 504);
    }
    let sent = app.count();
    let answer = gateway.send(&signed::stripe(invoice_paid())).await;
    assert_eq!((answer.status, answer.reason()), (503, "upstream_paused"));
    let rest = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(rest.is_some_and(|seconds| (1..=3).contains(&seconds)), "{answer:?}");
    assert_eq!(app.count(), sent, "the app was not asked");
    app.behaves(Behaviour::status(200));
    // The sender's own retries are the probes.
    let event = signed::stripe(invoice_paid());
    eventually("a probe succeeds", async || gateway.send(&event).await.status == 200).await;
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_off_nothing_is_held_and_attempts_count() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let retry = json!({"first": "10ms", "max": "20ms", "attempts": 3});
    let route = github().to(&app).delivery("retry", retry).delivery("breaker", "off");
    let gateway = gateway().route(route).start().await;
    for _ in 0..10 {
        gateway.send(&signed::github(push())).await;
    }
    eventually("all are dead", async || gateway.metric("tidegate_dead_letters", &[]).await == 10.0).await;
    assert_eq!(app.count(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_health_check_that_finds_the_app_well_lets_the_next_inline_request_probe() {
    let app = App::start().await;
    app.behaves(Behaviour::status(503));
    let health = json!({"path": "/healthz", "every": "50ms", "timeout": "5s", "rise": 1, "fall": 1});
    let breaker = json!({"failures": 2, "probe_after": "1h", "slow_start": "0s"});
    let route = unverified("/in").mode("proxy").to(&app).delivery("health", health);
    let gateway = gateway().route(route.delivery("breaker", breaker)).start().await;
    let send = async || gateway.send(&Request::post("/in", "{}")).await;
    eventually("it is open", async || {
        send().await.header("tidegate-reason") == Some("upstream_paused")
            && gateway.metric("tidegate_upstream_up", &[]).await == 0.0
    })
    .await;
    app.behaves(Behaviour::status(200));
    eventually("it is tried again, an hour before its time", async || send().await.status == 200).await;
}
