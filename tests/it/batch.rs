//! Batches to the app: many events in one request, each settled by itself, and one that spoils a batch found.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::*;

fn batched(app: &App, batch: Value) -> Route {
    unverified("/in")
        .to(app)
        .delivery("retry", json!({"first": "20ms", "max": "100ms", "attempts": 3}))
        .delivery("breaker", "off")
        .delivery("batch", batch)
}

async fn send(gateway: &Gateway, numbers: std::ops::Range<usize>) {
    let mut connection = gateway.connect().await;
    for number in numbers {
        let request = Request::post("/in", json!({"n": number, "key": number % 3}).to_string());
        assert_eq!(connection.send(&request).await.expect("an answer").status, 202);
    }
}

/// The events of each request.
fn batches(app: &App) -> Vec<Vec<u64>> {
    app.received().iter().map(|received| numbers(&received.body)).collect()
}

fn numbers(body: &[u8]) -> Vec<u64> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(events)) => {
            events.iter().map(|event| event["n"].as_u64().expect("a number")).collect()
        }
        _ => panic!("no batch: {}", String::from_utf8_lossy(body)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_go_together_with_their_bytes_and_what_does_not_fit_goes_alone() {
    let app = App::start().await;
    let gateway = gateway().route(batched(&app, json!({"max_events": 3, "max_wait": "200ms"}))).start().await;
    let bodies = [r#"{ "n" : 0 }"#, "a=b&c=d", r#"{"n":1.50}"#, r#"["é"]"#];
    let mut ids = Vec::new();
    for body in bodies {
        let answer = gateway.send_via(Via::Plain, &Request::post("/in", body)).await;
        ids.push(answer.event_id().to_owned());
    }
    gateway.drained().await;
    let received = app.received();
    let whole: Vec<_> =
        received.iter().filter(|r| r.header("tidegate-batch-size").is_some()).map(|r| &r.body).collect();
    let alone: Vec<_> = received.iter().filter(|r| r.header("tidegate-batch-size").is_none()).collect();
    assert_eq!((alone.len(), &alone[0].body[..]), (1, bodies[1].as_bytes()));
    assert_eq!(alone[0].event_id(), ids[1]);
    let joined: Vec<u8> =
        whole.into_iter().flat_map(|body| body[1..body.len() - 1].iter().copied()).collect();
    for body in [bodies[0], bodies[2], bodies[3]] {
        assert!(joined.windows(body.len()).any(|w| w == body.as_bytes()), "{body}");
    }
    let all = received.iter().filter(|r| r.header("tidegate-batch-size").is_some());
    let listed: Vec<String> = all
        .flat_map(|r| r.header("tidegate-event-ids").expect("ids").split(',').map(str::to_owned))
        .collect();
    assert_eq!(listed, [&*ids[0], &ids[2], &ids[3]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_settled_by_its_own_status() {
    let app = App::start().await;
    let route = batched(&app, json!({"max_events": 10, "max_wait": "100ms", "statuses": "/results"}));
    let gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::By(|body| {
        let status = |n: &u64| if n % 4 == 3 { json!({"status": 500}) } else { json!(200) };
        let results: Vec<Value> = numbers(body).iter().map(status).collect();
        Behaviour::Answer {
            status: 207,
            headers: vec![],
            body: json!({"results": results}).to_string().into_bytes(),
        }
    }));
    send(&gateway, 0..20).await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 5.0);
    let mut tries: BTreeMap<u64, usize> = BTreeMap::new();
    batches(&app).into_iter().flatten().for_each(|n| *tries.entry(n).or_default() += 1);
    for (n, tried) in tries {
        assert_eq!(tried, if n % 4 == 3 { 3 } else { 1 }, "{n}");
    }
    assert!(app.count() < 20, "they go together");
}

/// A success of which nobody can say whose it is, is none: what failed would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_statuses_fit_no_event_loses_none() {
    let app = App::start().await;
    let route = batched(&app, json!({"max_events": 8, "max_wait": "1s", "statuses": "/results"}));
    let gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::By(|body| {
        let numbers = numbers(body);
        let status = |n: &u64| if *n == 3 { 500 } else { 200 };
        let mut results: Vec<u16> = numbers.iter().map(status).collect();
        if numbers.len() == 4 {
            results.pop(); // the app forgets one
        }
        // With many the app tells a long story.
        let story = if numbers.len() > 4 { "x".repeat(5 * 1024 * 1024) } else { String::new() };
        Behaviour::Answer {
            status: 200,
            headers: vec![],
            body: json!({"story": story, "results": results}).to_string().into_bytes(),
        }
    }));
    send(&gateway, 0..8).await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 1.0);
    let mut delivered = BTreeSet::new();
    for batch in batches(&app).into_iter().filter(|batch| batch.len() < 4) {
        delivered.extend(batch);
    }
    assert_eq!(delivered, (0..8).collect(), "all came in batches whose answer could be read");
    assert_eq!(gateway.metric("tidegate_batch_without_statuses_total", &[]).await, 0.0);

    app.behaves(Behaviour::status(200));
    send(&gateway, 8..16).await;
    gateway.drained().await;
    assert!(gateway.metric("tidegate_batch_without_statuses_total", &[]).await >= 1.0);
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_spoils_its_batch_is_found_and_costs_the_others_nothing() {
    let app = App::start().await;
    let gateway = gateway().route(batched(&app, json!({"max_events": 40, "max_wait": "1s"}))).start().await;
    app.behaves(Behaviour::By(|body| match numbers(body).contains(&13) {
        true => Behaviour::status(500),
        false => Behaviour::status(200),
    }));
    send(&gateway, 0..40).await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 1.0);
    let dead = gateway.cli_json(&["dead", "list"]).await.to_string();
    assert!(dead.contains("attempts_exhausted"), "{dead}");
    let well: Vec<u64> = batches(&app).into_iter().filter(|batch| !batch.contains(&13)).flatten().collect();
    assert_eq!(well.len(), 39, "each once: {well:?}");
    let spoiled = batches(&app).into_iter().filter(|batch| batch.contains(&13));
    assert_eq!(spoiled.filter(|batch| batch.len() == 1).count(), 3, "by itself from then on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_9_in_the_middle_loses_nothing_and_order_is_kept() {
    let app = App::start().await;
    let route = batched(&app, json!({"max_events": 8, "max_wait": "5ms"}))
        .delivery("order", json!({"by": "body:/key"}));
    let mut gateway = gateway().route(route).start().await;
    app.behaves(Behaviour::Slow(std::time::Duration::from_millis(20)));
    send(&gateway, 0..30).await;
    app.receives(3).await;
    gateway.kill().await;
    gateway.restart().await;
    send(&gateway, 30..40).await;
    gateway.drained().await;
    let all: BTreeSet<u64> = batches(&app).into_iter().flatten().collect();
    assert_eq!(all, (0..40).collect());
    for key in 0..3 {
        let mut of: Vec<u64> = batches(&app).into_iter().flatten().filter(|n| n % 3 == key).collect();
        of.dedup();
        assert!(of.is_sorted(), "{key}: {of:?}");
    }
    assert!(
        batches(&app)
            .iter()
            .all(|batch| batch.iter().map(|n| n % 3).collect::<BTreeSet<_>>().len() == batch.len())
    );
}
