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
