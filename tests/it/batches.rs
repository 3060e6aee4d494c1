//! `split`: a request that carries many events becomes many events, all stored or none.

use crate::support::config::provider;
use crate::support::*;

const PACK: &str = "name: acme
title: Acme
category: other
docs: https://acme.example/webhooks
checked: 2026-11-24
setup: Acme shows the secret once.
verify: { algorithm: hmac-sha256, signature: { from: 'header:X-Hub-Signature-256', prefix: sha256=, encoding: hex } }
batch: { events: body, key: /sg_event_id, event_type: /event }
";

fn split_route(app: &App) -> Route {
    provider("./acme.yaml", "/hooks/github", signed::GITHUB_SECRET).set("split", true).to(app)
}

fn element(id: &str, event: &str) -> String {
    format!("{{\"sg_event_id\" : \"{id}\",\"event\":\"{event}\", \"n\":1.0}}")
}

fn batch(elements: &[String]) -> Request {
    signed::github(format!("[\n  {}\n]", elements.join(" ,\n  ")))
}

fn bodies(received: &[Received]) -> Vec<String> {
    let mut bodies: Vec<String> =
        received.iter().map(|r| String::from_utf8(r.body.clone()).expect("text")).collect();
    bodies.sort();
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_element_reaches_the_app_as_it_was_written_and_says_where_it_came_from() {
    let app = App::start().await;
    let gateway = gateway().route(split_route(&app)).file("acme.yaml", PACK).start().await;
    let elements = [element("a", "open"), element("b", "click"), element("a", "open")];
    let answer = gateway.send(&batch(&elements)).await;
    assert_eq!(answer.status, 202);
    let id = answer.event_id().to_owned();
    let received = app.receives(2).await;
    assert_eq!(bodies(&received), [elements[0].clone(), elements[1].clone()]);
    let mut parts: Vec<&str> = received.iter().filter_map(|r| r.header("tidegate-batch")).collect();
    parts.sort_unstable();
    assert_eq!(parts, [format!("{id};1;3"), format!("{id};2;3")]);
    assert!(received.iter().all(|r| r.event_id() != id && r.header("tidegate-verified") == Some("acme")));

    // The whole request again, and a later one that brings an element again.
    let again = gateway.send(&batch(&elements)).await;
    assert_eq!((again.status, again.event_id(), again.is_duplicate()), (202, id.as_str(), true));
    let later = gateway.send(&batch(&[element("b", "click"), element("c", "bounce")])).await;
    assert!(later.is_success() && !later.is_duplicate());
    gateway.drained().await;
    let received = app.receives(3).await;
    assert_eq!(received.len(), 3);
    let last = received.iter().find(|r| r.body == element("c", "bounce").into_bytes()).expect("the new one");
    assert_eq!(last.header("tidegate-batch"), Some(format!("{};2;2", later.event_id()).as_str()));

    let events = gateway.cli_json(&["events", "list"]).await;
    let events = events["events"].as_array().expect("events").clone();
    assert_eq!(events.len(), 3);
    let first = events.iter().find(|e| e["idempotency_key"] == "a").expect("the first");
    assert_eq!((&first["type"], &first["batch"]["number"]), (&json!("open"), &json!(1)));
    let shown = gateway.cli(&["events", "show", first["id"].as_str().expect("an id")]).await;
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains(&format!("batch     1 of 3 in {id}")), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_with_json_in_it_becomes_json_events() {
    let app = App::start().await;
    let split =
        json!({"events": "form:mandrill_events", "key": "/_id", "event_type": "/event", "max_events": 3});
    let verify = json!({"bearer": {"tokens": ["file:secrets/token"]}});
    let route = Route::new(json!({"name": "mail", "path": "/mail", "verify": verify, "split": split}))
        .secret("token", "t0ken")
        .to(&app);
    let gateway = gateway().route(route).start().await;
    let post = |body: &str| {
        Request::post("/mail", body)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Authorization", "Bearer t0ken")
    };
    let body = "mandrill_events=%5B%7B%22_id%22%3A%221%22%2C%22event%22%3A%22send%22%7D%2C+%7B%22_id%22%3A%222%22%7D%5D";
    assert_eq!(gateway.send(&post(body)).await.status, 202);
    let received = app.receives(2).await;
    assert_eq!(bodies(&received), [r#"{"_id":"1","event":"send"}"#, r#"{"_id":"2"}"#]);
    assert!(received.iter().all(|r| r.all("content-type") == ["application/json"]));

    let refused = gateway.send(&post("mandrill_events=%7B%7D")).await;
    assert_eq!((refused.status, refused.reason()), (422, "not_a_batch"));
    let refused = gateway.send(&post("mandrill_events=%5B1%2C2%2C3%2C4%5D")).await;
    assert_eq!((refused.status, refused.reason()), (413, "batch_too_large"));
    let empty = gateway.send(&post("mandrill_events=%5B%5D")).await;
    assert_eq!(empty.status, 202);
    let stranger = gateway.send(&post(body).with("Authorization", "Bearer other")).await;
    assert_eq!(stranger.status, 401);
    gateway.drained().await;
    assert_eq!(app.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_a_batch_is_there_whole_or_not_at_all() {
    let app = App::start().await;
    app.refuse().await;
    let route = split_route(&app).impatient();
    let mut gateway = gateway().route(route).file("acme.yaml", PACK).start().await;
    const SIZE: usize = 40;
    let name = |n: usize, i: usize| format!("{n}-{i}");
    let mut acknowledged = Vec::new();
    let mut sent = 0;
    for round in 0..3 {
        // Killed while batches are under way; some are answered, some are not.
        let (mut connection, until) = (gateway.connect_tls().await, 5 + round * 3);
        for _ in 0..until {
            let elements: Vec<String> = (0..SIZE).map(|i| element(&name(sent, i), "open")).collect();
            let answer = connection.send(&batch(&elements)).await.expect("an answer");
            assert_eq!(answer.status, 202);
            acknowledged.push(sent);
            sent += 1;
        }
        let elements: Vec<String> = (0..SIZE).map(|i| element(&name(sent, i), "open")).collect();
        connection.write(&batch(&elements).bytes()).await.expect("sent");
        sent += 1;
        gateway.kill().await;
        gateway.restart().await;
    }
    app.accept().await;
    gateway.drained().await;
    let mut had = vec![std::collections::BTreeSet::new(); sent];
    for received in app.received() {
        let json: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
        let (n, i) = json["sg_event_id"].as_str().and_then(|id| id.split_once('-')).expect("an id");
        had[n.parse::<usize>().expect("a number")].insert(i.to_owned());
    }
    for (n, elements) in had.iter().enumerate() {
        assert!(elements.is_empty() || elements.len() == SIZE, "batch {n}: {} of {SIZE}", elements.len());
        assert!(!acknowledged.contains(&n) || elements.len() == SIZE, "batch {n} was acknowledged");
    }
}
