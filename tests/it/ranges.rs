//! `allow: [provider]`: the ranges that a provider publishes, kept fresh over https.

use crate::support::app::Speaks;
use crate::support::config::provider;
use crate::support::*;

/// Signs as GitHub does, sends from 192.0.2.0/24 as of the snapshot, and publishes its list on this machine.
fn pack(list: &App) -> String {
    format!(
        "name: acme
title: Acme
category: other
docs: https://acme.example/webhooks
checked: 2026-11-24
setup: Acme shows the secret once.
verify: {{ algorithm: hmac-sha256, signature: {{ from: 'header:X-Hub-Signature-256', prefix: sha256=, encoding: hex }} }}
ranges:
  list: {}/ips
  at: /hooks/*
  snapshot: [192.0.2.0/24]
  snapshot_date: 2026-11-01
",
        list.url()
    )
}

fn publishes(list: &App, ranges: &[&str]) {
    list.behaves(Behaviour::Answer {
        status: 200,
        headers: vec![],
        body: json!({"hooks": ranges, "web": ["0.0.0.0/0"]}).to_string().into_bytes(),
    });
}

fn gateway_with(list: &App, app: &App, settings: serde_json::Value) -> GatewayBuilder {
    let route = provider("./acme.yaml", "/hooks/github", signed::GITHUB_SECRET)
        .set("allow", json!(["provider", "10.0.0.0/8"]))
        .to(app);
    gateway()
        .route(route)
        .file("acme.yaml", &pack(list))
        .file("ca.pem", &certs::authority().ca)
        .listener("trusted_hops", json!(["127.0.0.1"]))
        .section("ranges", settings)
}

async fn status_from(gateway: &Gateway, address: &str) -> (u16, String) {
    let answer = gateway.send(&signed::github(unique_id()).header("X-Forwarded-For", address)).await;
    (answer.status, answer.reason().to_owned())
}

async fn ranges(gateway: &Gateway) -> serde_json::Value {
    gateway.cli_json(&["status"]).await["ranges"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_list_decides_who_comes_in_and_outlives_a_kill() {
    let (list, app) = (App::speaking(Speaks::Http1Tls).await, App::start().await);
    publishes(&list, &["192.0.2.0/24", "198.51.100.0/24"]);
    let mut gateway = gateway_with(&list, &app, json!({"ca": "ca.pem"})).start().await;
    eventually("the list is in use", async || ranges(&gateway).await["source"] == "list").await;
    assert_eq!(status_from(&gateway, "198.51.100.7").await.0, 202);
    assert_eq!(status_from(&gateway, "192.0.2.7").await.0, 202);
    assert_eq!(status_from(&gateway, "10.1.1.1").await.0, 202);
    assert_eq!(status_from(&gateway, "203.0.113.7").await, (403, "address_not_allowed".into()));
    assert_eq!(gateway.metric("tidegate_ranges", &[("provider", "acme")]).await, 2.0);
    let fetched = [("provider", "acme"), ("outcome", "ok")];
    eventually("counted", async || gateway.metric("tidegate_range_fetches_total", &fetched).await == 1.0)
        .await;
    let kept = gateway.path("buffer/ranges");
    let is_kept = || {
        std::fs::read_dir(&kept).is_ok_and(|files| {
            files.flatten().any(|file| file.path().extension().is_some_and(|e| e == "json"))
        })
    };
    eventually("the list is on disk", async || is_kept()).await;

    // Without network it begins with what it knew, and a reload keeps it.
    list.refuse().await;
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(status_from(&gateway, "198.51.100.7").await.0, 202);
    gateway.reload().await;
    assert_eq!(status_from(&gateway, "198.51.100.7").await.0, 202);
    assert_eq!(ranges(&gateway).await["source"], "list");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_shrinks_too_much_is_an_alarm_and_changes_nothing() {
    let (list, app) = (App::speaking(Speaks::Http1Tls).await, App::start().await);
    publishes(&list, &["203.0.113.0/24"]);
    let gateway = gateway_with(&list, &app, json!({"ca": "ca.pem", "refresh": "1s"}))
        .section("alerts", json!({"every": "1s", "group": "1s", "to": []}))
        .start()
        .await;
    let refused = [("provider", "acme"), ("outcome", "refused")];
    eventually("an alarm", async || gateway.metric("tidegate_range_fetches_total", &refused).await > 0.0)
        .await;
    assert_eq!(status_from(&gateway, "192.0.2.7").await.0, 202);
    assert_eq!(status_from(&gateway, "203.0.113.7").await.0, 403);
    let status = ranges(&gateway).await;
    assert_eq!((&status["source"], &status["ranges"]), (&json!("snapshot"), &json!(1)));
    assert!(status["error"].as_str().is_some_and(|e| e.contains("lacks 1 of the 1 ranges")), "{status}");
    let alarm = |line: &serde_json::Value| {
        line["level"] == "ERROR" && line["message"].as_str().is_some_and(|m| m.contains("not believed"))
    };
    assert!(gateway.log_lines().iter().any(alarm), "{}", gateway.log());
    let text = String::from_utf8(gateway.cli(&["status"]).await.stdout).expect("text");
    assert!(text.contains("the pack's snapshot of 2026-11-01"), "{text}");
    let alerts = async || gateway.metric("tidegate_alerts", &[("rule", "stale_ranges")]).await;
    eventually("people are told", async || alerts().await == 1.0).await;
    let told = gateway.cli(&["alerts", "list"]).await;
    let told = String::from_utf8_lossy(&told.stdout);
    assert!(told.contains("acme") && told.contains("what was published is not believed"), "{told}");

    // What comes right again is taken.
    publishes(&list, &["192.0.2.0/24", "203.0.113.0/24"]);
    eventually("the new list", async || status_from(&gateway, "203.0.113.7").await.0 == 202).await;
    eventually("no trouble", async || ranges(&gateway).await["error"].is_null()).await;
    eventually("and that it is over", async || alerts().await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_proves_nothing_and_one_elsewhere_are_not_believed() {
    let (list, app) = (App::speaking(Speaks::Http1Tls).await, App::start().await);
    publishes(&list, &["192.0.2.0/24", "203.0.113.0/24"]);
    // The public roots do not know this run's authority.
    let failed = [("provider", "acme"), ("outcome", "failed")];
    let stranger = gateway_with(&list, &app, json!({"refresh": "1s"})).start().await;
    eventually("a failure", async || stranger.metric("tidegate_range_fetches_total", &failed).await > 0.0)
        .await;
    assert_eq!(status_from(&stranger, "192.0.2.7").await.0, 202);
    assert_eq!(status_from(&stranger, "203.0.113.7").await.0, 403);
    drop(stranger);

    let elsewhere = App::speaking(Speaks::Http1Tls).await;
    publishes(&elsewhere, &["192.0.2.0/24", "203.0.113.0/24"]);
    list.behaves(Behaviour::Answer {
        status: 302,
        headers: vec![("Location", elsewhere.url())],
        body: vec![],
    });
    let led = gateway_with(&list, &app, json!({"ca": "ca.pem", "refresh": "1s"})).start().await;
    eventually("a failure", async || led.metric("tidegate_range_fetches_total", &failed).await > 0.0).await;
    assert_eq!(status_from(&led, "203.0.113.7").await.0, 403);
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_can_ask_for_the_ranges_of_all_its_providers() {
    let (list, app) = (App::speaking(Speaks::Http1Tls).await, App::start().await);
    publishes(&list, &["192.0.2.0/24", "127.0.0.0/8"]);
    let mut builder =
        gateway_with(&list, &app, json!({"ca": "ca.pem"})).listener("allow", json!(["provider"]));
    builder.routes[0].value.remove("allow");
    let gateway = builder.start().await;
    eventually("we are on the list", async || ranges(&gateway).await["source"] == "list").await;
    assert_eq!(gateway.send(&signed::github(unique_id())).await.status, 202);
    // Off the list again, connections are closed before TLS.
    publishes(&list, &["192.0.2.0/24"]);
    gateway.write_config(
        &std::fs::read_to_string(gateway.path("tidegate.yaml"))
            .expect("the config")
            .replace("\"ca.pem\"", "\"ca.pem\", \"max_shrink\": \"100%\", \"refresh\": \"1s\""),
    );
    gateway.reload().await;
    eventually("we are off the list", async || {
        gateway.try_send(Via::Tls, &signed::github(unique_id())).await.is_err()
    })
    .await;
}
