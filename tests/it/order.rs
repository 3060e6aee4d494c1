//! Order: events of one key reach the app one by one, as they were accepted, and no other key feels it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

fn ordered(app: &App, on_failure: &str) -> Route {
    unverified("/in")
        .to(app)
        .impatient()
        .delivery("order", json!({"by": "body:/key", "on_failure": on_failure}))
}

async fn send(gateway: &Gateway, key: &str, number: usize) {
    let request = Request::post("/in", json!({"key": key, "n": number}).to_string());
    assert_eq!(gateway.send_via(Via::Plain, &request).await.status, 202);
}

fn seen(app: &App) -> BTreeMap<String, Vec<u64>> {
    let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for received in app.received() {
        let body: Value = serde_json::from_slice(&received.body).expect("JSON");
        let key = body["key"].as_str().unwrap_or("none").to_owned();
        by_key.entry(key).or_default().push(body["n"].as_u64().expect("a number"));
    }
    by_key
}

/// Without repeats of what came last.
fn without_repeats(numbers: &[u64]) -> Vec<u64> {
    let mut all = numbers.to_vec();
    all.dedup();
    all
}

async fn lanes(gateway: &Gateway) -> Value {
    gateway.cli_json(&["lanes"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_key_that_is_redacted_is_not_shown() {
    let app = App::start().await;
    let route = unverified("/in")
        .set("redact", json!({"body": ["/key"]}))
        .to(&app)
        .delivery("retry", json!({"first": "1s", "jitter": "none"}))
        .delivery("breaker", "off")
        .delivery("order", json!({"by": "body:/key"}));
    let gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::status(500));
    send(&gateway, "jane@example.org", 0).await;
    eventually("its lane stands still", async || lanes(&gateway).await["lanes"][0]["state"] == "blocked")
        .await;
    let said = lanes(&gateway).await;
    assert_eq!(said["lanes"][0]["key"], json!("(hidden)"));
    assert!(!said.to_string().contains("jane"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_comes_in_order_over_failures_and_kill_9() {
    let app = App::start().await;
    let mut gateway = gateway().route(ordered(&app, "block")).start().await;
    app.refuse().await;
    for number in 0..12 {
        for key in ["a", "b", "c"] {
            send(&gateway, key, number).await;
        }
    }
    // A third fails the first times that it is seen.
    app.behaves(Behaviour::By(|_| Behaviour::status(if fastrand::u8(..) < 90 { 500 } else { 200 })));
    app.accept().await;
    app.receives(8).await;
    gateway.kill().await;
    gateway.restart().await;
    app.receives(24).await;
    gateway.kill().await;
    gateway.restart().await;
    app.behaves(Behaviour::status(200));
    gateway.drained().await;
    for (key, numbers) in seen(&app) {
        assert_eq!(without_repeats(&numbers), (0..12).collect::<Vec<u64>>(), "{key}: {numbers:?}");
    }
    assert_eq!(seen(&app).len(), 3);
    assert_eq!(lanes(&gateway).await["lanes"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_fails_or_is_slow_holds_up_no_other() {
    let app = App::start().await;
    let route = unverified("/in")
        .to(&app)
        .delivery("retry", json!({"first": "1s", "jitter": "none", "attempts": 2}))
        .delivery("breaker", "off")
        .delivery("order", json!({"by": "body:/key"}));
    let gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::By(|body| match body {
        b if b.windows(3).any(|w| w == b"bad") => Behaviour::status(500),
        b if b.windows(4).any(|w| w == b"slow") => Behaviour::Slow(Duration::from_millis(300)),
        _ => Behaviour::status(200),
    }));
    for number in 0..20 {
        for key in ["bad\u{1b}[2J", "slow", "well"] {
            send(&gateway, key, number).await;
        }
    }
    let started = Instant::now();
    eventually("the well key is through", async || {
        seen(&app).get("well").is_some_and(|numbers| numbers.len() == 20)
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(10));
    // `block`: its two attempts do not end it.
    eventually("it is tried beyond its budget", async || {
        seen(&app).get("bad\u{1b}[2J").is_some_and(|numbers| numbers.len() >= 3)
    })
    .await;
    assert!(seen(&app)["bad\u{1b}[2J"].iter().all(|number| *number == 0), "nothing passes the first");
    let stuck = lanes(&gateway).await;
    let lane = &stuck["lanes"][0];
    assert_eq!((&lane["state"], &lane["waiting"]), (&json!("blocked"), &json!(19)));
    assert_eq!(lane["key"], json!("bad\u{fffd}[2J"), "as given, and harmless");
    assert_eq!(gateway.metric("tidegate_lanes_stuck", &[("state", "blocked")]).await, 1.0);
    assert!(gateway.metric("tidegate_lanes_stuck_oldest_age_seconds", &[]).await > 0.5);
    let table = gateway.cli(&["lanes"]).await;
    assert!(String::from_utf8_lossy(&table.stdout).contains("blocked"));
    app.behaves(Behaviour::status(200));
    gateway.drained().await;
    for (key, numbers) in seen(&app) {
        assert_eq!(without_repeats(&numbers), (0..20).collect::<Vec<u64>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_key_waits_for_the_operator_and_a_missing_key_is_counted() {
    let app = App::start().await;
    let route = unverified("/in")
        .to(&app)
        .delivery("retry", json!({"first": "10ms", "max": "20ms", "attempts": 2}))
        .delivery("breaker", "off")
        .delivery("order", json!({"by": "body:/key", "on_failure": "park"}));
    let mut gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::status(500));
    send(&gateway, "a", 0).await;
    eventually("it is dead", async || gateway.metric("tidegate_dead_letters", &[]).await == 1.0).await;
    app.behaves(Behaviour::status(200));
    for number in 1..5 {
        send(&gateway, "a", number).await;
    }
    let keyless = Request::post("/in", r#"{"n":7}"#);
    assert_eq!(gateway.send_via(Via::Plain, &keyless).await.status, 202);
    eventually("the keyless one is through", async || seen(&app).contains_key("none")).await;
    assert_eq!(gateway.metric("tidegate_order_key_missing_total", &[]).await, 1.0);
    gateway.kill().await;
    gateway.restart().await;
    let stuck = lanes(&gateway).await;
    assert_eq!(stuck["lanes"][0]["state"], json!("parked"));
    assert_eq!(stuck["lanes"][0]["waiting"], json!(4));
    assert_eq!(stuck["counts"][0]["parked"], json!(1));
    let head = stuck["lanes"][0]["event"].as_str().expect("an id").to_owned();
    let before = seen(&app)["a"].len();
    let output = gateway.cli(&["dead", "replay", &head]).await;
    assert!(output.status.success(), "{output:?}");
    gateway.drained().await;
    assert_eq!(seen(&app)["a"][before..], [0, 1, 2, 3, 4]);
}
