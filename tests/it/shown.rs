//! What operators see and don't see, what is kept for how long, and looking after the buffer: with the real binary.

use crate::support::*;

fn event(n: usize) -> Request {
    signed::github(format!(
        "{{\"n\":{n},\"card\":{{\"number\":\"4242-{n}\",\"brand\":\"visa\"}},\"id\":{}}}",
        unique()
    ))
    .header("X-Customer", "Blue Whale")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redacted_is_shown_nowhere_found_by_nobody_and_delivered_whole() {
    let app = App::start().await;
    let route = github().to(&app).set("redact", json!({"body": ["/card/number"]}));
    let gateway = gateway()
        .section("redact", json!({"headers": ["X-Customer"]}))
        .section("quarantine", json!({}))
        .route(route)
        .start()
        .await;
    let sent = event(7);
    let answer = gateway.send(&sent).await;
    assert_eq!(answer.status, 202);
    let received = app.receives(1).await.remove(0);
    assert_eq!(received.body, sent.body, "the app gets every byte");
    assert_eq!(received.header("x-customer"), Some("Blue Whale"));
    gateway.drained().await;
    let mut forged = event(8);
    forged.body = b"{\"card\":{\"number\":\"4242-8\"}}".to_vec().into();
    assert_eq!(gateway.send(&forged).await.status, 401);
    eventually("it is in quarantine", async || gateway.metric("tidegate_quarantine_items", &[]).await == 1.0)
        .await;

    let id = answer.event_id();
    let mut told = String::new();
    for command in [
        &["events", "show", id][..],
        &["events", "show", id, "-o", "json"],
        &["events", "show", id, "--body-only"],
        &["events", "list", "-o", "json", "-v"],
        &["quarantine", "list", "-o", "json"],
    ] {
        let output = gateway.cli(command).await;
        assert!(output.status.success(), "{output:?}");
        told += &String::from_utf8_lossy(&output.stdout);
    }
    let item = gateway.cli_json(&["quarantine", "list"]).await["items"][0]["id"].clone();
    let item = item.as_str().expect("an id").to_owned();
    told += &gateway.cli_json(&["quarantine", "show", &item]).await.to_string();
    told += &gateway.admin("GET", &format!("/quarantine/{item}/body")).await.expect("answered").text();
    told += &gateway.log();
    assert!(told.contains("(hidden)") && told.contains("visa"), "{told}");
    // In base64 too: the shown body is the changed one.
    let shown = gateway.cli_json(&["events", "show", id]).await;
    assert!(
        shown["body"]["text"].as_str().is_some_and(|text| text.contains("\"number\":\"(hidden)\"")),
        "{shown}"
    );
    assert!(!told.contains("4242-") && !told.contains("Blue Whale"), "{told}");

    let found = async |arguments: &[&str]| {
        let page = gateway.cli_json(&[&["events", "list"], arguments].concat()).await;
        page["events"].as_array().expect("events").len()
    };
    assert_eq!(found(&["--pointer", "/card/number", "--equals", "4242-7"]).await, 0);
    assert_eq!(found(&["--header", "blue whale"]).await, 0);
    assert_eq!(found(&["--pointer", "/card/brand", "--equals", "visa"]).await, 1);
    // Who asks to be forgotten is found by what nobody else may see.
    let erase = ["erase", "--pointer", "/card/number", "--equals", "4242-7", "--yes"];
    let erased = gateway.cli(&erase).await;
    assert!(String::from_utf8_lossy(&erased.stdout).contains("1 event is deleted"), "{erased:?}");
}

/// Some senders put their secret into the body: whoever may look at events has no need to know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_stands_in_a_body_is_shown_to_nobody_and_delivered() {
    let secret = "s3cret-of-the-body-0123456789";
    let app = App::start().await;
    let graph = Route::new(json!({
        "name": "graph", "path": "/graph", "verify": {"provider": "microsoft-graph", "client_state": "file:secrets/graph"},
    }));
    let gateway = gateway()
        .section("quarantine", json!({}))
        .route(config::provider("figma", "/figma", secret).to(&app))
        .route(config::provider("ko-fi", "/ko-fi", secret).to(&app))
        .route(graph.secret("graph", secret).to(&app))
        .start()
        .await;
    let json_type = |path: &str, body: serde_json::Value| {
        Request::post(path, body.to_string()).header("Content-Type", "application/json")
    };
    let form = format!(
        "data=%7B%22verification_token%22%3A%22{secret}%22%2C%22message_id%22%3A%22m1%22%2C%22type%22%3A%22Donation%22%7D"
    );
    let element = |state: &str| json!({"clientState": state, "changeType": "created", "resource": "users/1"});
    let sent = [
        json_type(
            "/figma",
            json!({"event_type": "FILE_COMMENT", "passcode": secret, "file_name": "visible"}),
        ),
        Request::post("/ko-fi", form).header("Content-Type", "application/x-www-form-urlencoded"),
        json_type("/graph", json!({"value": [element(secret)]})),
    ];
    let mut told = String::new();
    for request in &sent {
        let answer = gateway.send(request).await;
        assert!(answer.is_success(), "{answer:?}");
        for more in [&[][..], &["-o", "json"], &["--body-only"]] {
            let output = gateway.cli(&[&["events", "show", answer.event_id()], more].concat()).await;
            assert!(output.status.success(), "{output:?}");
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(shown.contains("hidden"), "{shown}");
            told += &shown;
        }
    }
    let received = app.receives(3).await;
    for request in &sent {
        assert!(received.iter().any(|got| got.body == request.body), "the app gets every byte");
    }
    // Refused, but with a secret that is right in it.
    let refused = [
        json_type("/graph", json!({"value": [element(secret), element("another")]})),
        json_type("/figma", json!({"passcode": format!("{secret}x"), "file_name": "visible"})),
    ];
    for request in &refused {
        assert_eq!(gateway.send(request).await.status, 401);
    }
    eventually("both are in quarantine", async || {
        gateway.metric("tidegate_quarantine_items", &[]).await == 2.0
    })
    .await;
    let list = gateway.cli_json(&["quarantine", "list"]).await;
    told += &list.to_string();
    for item in list["items"].as_array().expect("items") {
        let id = item["id"].as_str().expect("an id");
        told += &gateway.cli_json(&["quarantine", "show", id]).await.to_string();
        told += &gateway.admin("GET", &format!("/quarantine/{id}/body")).await.expect("answered").text();
    }
    for command in [&["events", "list", "-o", "json", "-v"][..], &["routes"]] {
        told += &String::from_utf8_lossy(&gateway.cli(command).await.stdout);
    }
    told += &gateway.log();
    assert!(told.contains("visible") && told.contains("FILE_COMMENT"), "{told}");
    assert!(!told.contains(secret), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_whole() {
    let app = App::start().await;
    let gateway = gateway()
        .section("redact", json!({"headers": ["X-Customer"], "body": ["/card"]}))
        .route(github().to(&app))
        .start()
        .await;
    gateway.send(&event(3)).await;
    app.receives(1).await;
    let exported = gateway.cli(&["export", "--file", "all.tar"]).await;
    assert!(exported.status.success(), "{exported:?}");
    let archive = std::fs::read(gateway.path("all.tar")).expect("the archive");
    assert!(String::from_utf8_lossy(&archive).contains("4242-3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_keeps_as_much_as_it_says_while_events_come_in() {
    const EVENTS: usize = 400;
    let (app, other) = (App::start().await, App::start().await);
    let gateway = gateway()
        .route(github().to(&app).set("keep", json!({"events": 25})))
        .route(stripe().to(&other))
        .start()
        .await;
    for n in 0..EVENTS {
        assert_eq!(gateway.send(&event(n)).await.status, 202);
        if n % 20 == 0 {
            assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
        }
    }
    gateway.drained().await;
    assert_eq!(app.count(), EVENTS, "nothing goes before it is delivered");
    let left = async || gateway.cli_json(&["buffer", "verify"]).await["routes"].clone();
    eventually("the oldest of the one route are gone", async || left().await["github"]["events"] == 25).await;
    assert_eq!(left().await["stripe"]["events"], EVENTS / 20, "and none of the other's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_buffer_is_looked_at_read_and_compacted_while_it_works() {
    let app = App::start().await;
    let gateway = gateway()
        .env("KEY", "6f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f21")
        .section("buffer", json!({"encryption": {"keys": ["env:KEY"]}}))
        .route(github().to(&app))
        .start()
        .await;
    for n in 0..30 {
        gateway.send(&event(n)).await;
    }
    gateway.drained().await;
    let stats = gateway.cli_json(&["buffer", "stats"]).await;
    let key = stats["buffer"]["sealing"]["key"].as_str().expect("a key").to_owned();
    assert_eq!(
        (&stats["buffer"]["events"], &stats["destinations"][0]["destination"]),
        (&30.into(), &"github/app".into())
    );
    let read = gateway.cli_json(&["buffer", "verify"]).await;
    assert_eq!((&read["keys"][&key], &read["damaged"]), (&30.into(), &json!([])), "{read}");
    let purged = gateway.cli(&["events", "purge", "--route", "github", "--yes"]).await;
    assert!(purged.status.success(), "{purged:?}");
    let compacted = gateway.cli_json(&["buffer", "compact"]).await;
    assert_eq!((&compacted["running"], &compacted["problem"]), (&false.into(), &json!(null)), "{compacted}");
    let read = gateway.cli(&["buffer", "verify"]).await;
    assert!(String::from_utf8_lossy(&read.stdout).contains("0 events"), "{read:?}");
}
