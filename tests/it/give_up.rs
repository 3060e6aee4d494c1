//! Giving up what waits: an operator makes a dead letter of it, its key goes on, and nothing is lost by it.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::*;

async fn send(gateway: &Gateway, key: &str, number: usize) -> String {
    let request = Request::post("/in", json!({"key": key, "n": number}).to_string());
    gateway.send_via(Via::Plain, &request).await.event_id().to_owned()
}

fn numbers(app: &App) -> Vec<u64> {
    let number = |received: Received| {
        let body: Value = serde_json::from_slice(&received.body).expect("JSON");
        body["n"].as_u64().expect("a number")
    };
    app.received().into_iter().map(number).collect()
}

async fn delivery(gateway: &Gateway, id: &str) -> Value {
    gateway.cli_json(&["events", "show", id]).await["deliveries"][0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_key_goes_on_when_its_first_is_given_up_also_through_kill_9() {
    let app = App::start().await;
    let route = unverified("/in")
        .to(&app)
        .delivery("retry", json!({"first": "1h", "max": "1h", "jitter": "none"}))
        .delivery("breaker", "off")
        .delivery("order", json!({"by": "body:/key"}));
    let mut gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::By(|body| {
        Behaviour::status(if body.windows(5).any(|w| w == b"\"n\":0") { 500 } else { 200 })
    }));
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(send(&gateway, "a", number).await);
    }
    eventually("the key is blocked", async || {
        gateway.metric("tidegate_lanes_stuck", &[("state", "blocked")]).await == 1.0
    })
    .await;
    let none = gateway.cli(&["lanes", "give-up", "--destination", "in/app", "--key", "b"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(printed(&none).contains("no such key of `in/app` stands still"), "{none:?}");
    // One that waits behind it goes by its id.
    let told = gateway.cli(&["events", "give-up", &ids[2], "--destination", "in/app"]).await;
    assert!(printed(&told).contains("1 delivery is given up"), "{told:?}");
    let given = gateway.cli_json(&["lanes", "give-up", "--destination", "in/app", "--key", "a"]).await;
    assert_eq!(given, json!({"event": ids[0], "given_up": true, "waiting": 2}));
    gateway.kill().await;
    app.behaves(Behaviour::status(200));
    gateway.restart().await;
    gateway.drained().await;
    let mut came = numbers(&app);
    came.dedup();
    assert_eq!(came, [0, 1, 3], "the next ones go, and what was given up does not");
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 2.0);
    let dead = delivery(&gateway, &ids[0]).await;
    assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &json!("by_operator")), "{dead}");
    assert_eq!(dead["history"].as_array().map(Vec::len), Some(1), "its attempt is kept: {dead}");
    assert_eq!(delivery(&gateway, &ids[2]).await["attempts"], json!(0));
    assert_eq!(gateway.cli_json(&["lanes"]).await["lanes"], json!([]));
    let replayed = gateway.cli(&["dead", "replay", "--reason", "by_operator"]).await;
    assert!(printed(&replayed).contains("2 deliveries are pending again"), "{replayed:?}");
    gateway.drained().await;
    // What came last before the kill may have come again.
    let all = numbers(&app);
    assert_eq!(all[all.len() - 2..], [0, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_is_settled_by_its_answer_and_that_is_said() {
    let app = App::start().await;
    app.behaves(Behaviour::Hang);
    let route = unverified("/in").to(&app).delivery("timeout", "3s").impatient();
    let gateway = gateway().route(route).start().await;
    let id = send(&gateway, "a", 0).await;
    app.receives(1).await;
    app.behaves(Behaviour::status(200));
    let told = gateway.cli(&["events", "give-up", &id]).await;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(printed(&told).contains("1 is in flight: its answer settles it"), "{told:?}");
    let told = gateway.cli(&["events", "give-up", "--route", "in"]).await;
    assert!(printed(&told).contains("1 event was left alone (in flight"), "{told:?}");
    gateway.drained().await;
    assert_eq!(delivery(&gateway, &id).await["state"], json!("delivered"));
    // Of what is done with there is nothing to give up.
    let told = gateway.cli(&["events", "give-up", &id]).await;
    assert!(told.status.code() == Some(1) && printed(&told).contains("nothing was given up"), "{told:?}");
    let counted = gateway.cli(&["events", "give-up", "--all", "--dry-run"]).await;
    assert!(printed(&counted).contains("0 events would be given up"), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_given_up_by_a_job_that_survives_kill_9_and_may_all_be_replayed() {
    const EVENTS: usize = 90;
    let app = App::start().await;
    let route = unverified("/in")
        .to(&app)
        .impatient()
        .delivery("order", json!({"by": "body:/key", "on_failure": "park"}))
        .delivery("batch", json!({"max_events": 8, "max_wait": "10ms", "format": "ndjson"}));
    let mut gateway = gateway().route(route).start().await;
    app.refuse().await;
    for number in 0..EVENTS / 3 {
        for key in ["a", "b", "-"] {
            send(&gateway, key, number).await;
        }
    }
    // What was in hand goes back.
    assert!(gateway.cli(&["pause", "--route", "in"]).await.status.success());
    let in_flight = async || gateway.metric("tidegate_attempts_in_flight", &[]).await;
    eventually("nothing is in flight", async || in_flight().await == 0.0).await;
    let counted = gateway.cli(&["events", "give-up", "--destination", "in/app", "--dry-run"]).await;
    assert!(printed(&counted).contains(&format!("{EVENTS} events would be given up")), "{counted:?}");
    let paced = ["events", "give-up", "--route", "in", "--rate", "60", "--background"];
    let job = gateway.cli_json(&paced).await;
    assert_eq!(job["task"], json!("give_up"));
    let id = job["id"].as_str().expect("an id").to_owned();
    eventually("some are given up", async || gateway.metric("tidegate_dead_letters", &[]).await > 20.0).await;
    gateway.kill().await;
    gateway.restart().await;
    eventually("the job's end", async || gateway.cli_json(&["jobs", "show", &id]).await["state"] == "done")
        .await;
    let job = gateway.cli_json(&["jobs", "show", &id]).await;
    assert_eq!((&job["changed"], &job["untouched"]), (&EVENTS.into(), &0.into()), "{job}");
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, EVENTS as f64);
    assert_eq!(gateway.backlog().await, 0.0);
    assert!(gateway.log().contains("by_operator"), "each is in the log");
    assert!(gateway.metric("tidegate_deliveries_total", &[("outcome", "dead")]).await > 0.0);
    app.accept().await;
    app.forget();
    assert!(gateway.cli(&["resume", "--route", "in"]).await.status.success());
    let told = gateway.cli(&["dead", "replay", "--all"]).await;
    assert!(printed(&told).contains(&format!("{EVENTS} deliveries")), "{told:?}");
    gateway.drained().await;
    let mut times: HashMap<String, usize> = HashMap::new();
    for received in app.received() {
        for id in received.header("tidegate-event-ids").unwrap_or(received.event_id()).split(',') {
            *times.entry(id.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(times.len(), EVENTS);
    assert!(times.values().all(|count| *count == 1), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_destination_that_was_taken_out_is_given_up_and_purged() {
    let app = App::start().await;
    app.refuse().await;
    let ordered = json!({"by": "body:/key"});
    let routes = [
        unverified("/in").to(&app).impatient(),
        unverified("/old").to(&app).impatient().delivery("order", ordered),
    ];
    let mut builder = gateway();
    builder.routes = routes.to_vec();
    let mut gateway = builder.start().await;
    for n in 0..4 {
        let event = json!({"key": n % 2}).to_string();
        assert_eq!(gateway.send_via(Via::Plain, &Request::post("/old", event)).await.status, 202);
    }
    let kept = send(&gateway, "a", 1).await;
    gateway.builder.routes = vec![routes[0].clone()];
    gateway.rewrite_config();
    let reloaded = gateway.cli(&["reload"]).await;
    let warned = printed(&reloaded);
    assert!(warned.contains("4 deliveries wait for old/app, which is not in the config"), "{warned}");

    // The very commands that it names, after a restart as well as before.
    let purge = ["events", "purge", "--destination", "old/app", "--yes"];
    let told = printed(&gateway.cli(&purge).await);
    assert!(
        told.contains("0 events are deleted; 4 events were left alone") && told.contains("give-up"),
        "{told}"
    );
    gateway.kill().await;
    gateway.restart().await;
    let give_up = ["events", "give-up", "--destination", "old/app"];
    for command in [give_up.join(" "), purge[..4].join(" ")] {
        assert!(warned.contains(&format!("`tidegate {command}")), "{command}: {warned}");
    }
    let told = printed(&gateway.cli(&give_up).await);
    assert!(told.contains("4 deliveries are given up"), "{told}");
    assert_eq!(gateway.metric("tidegate_dead_letters", &[("destination", "old/app")]).await, 4.0);
    let told = printed(&gateway.cli(&purge).await);
    assert!(told.contains("4 events are deleted"), "{told}");
    let left = gateway.cli_json(&["events", "list"]).await;
    assert_eq!(
        (left["events"].as_array().map(Vec::len), &left["events"][0]["id"]),
        (Some(1), &json!(kept)),
        "{left}"
    );
    let reloaded = printed(&gateway.cli(&["reload"]).await);
    assert!(!reloaded.contains("old/app"), "{reloaded}");
}
