//! Promise 6: a sick app is paused, not abandoned. Every way of being sick, and the way back.

use std::time::{Duration, Instant};

use crate::support::*;

/// One attempt fails as told, the next succeeds; the event arrives with its second attempt.
async fn one_failure_is_tried_again(what: &str, failure: Behaviour) {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app).impatient().delivery("timeout", "300ms")).start().await;
    app.behaves_next([failure]);
    let event = signed::github(push());
    let answer = gateway.send(&event).await;
    assert_eq!(answer.status, 202, "{what}: the sender does not feel it");
    eventually(what, async || app.received().iter().any(|received| received.attempt() == 2)).await;
    gateway.drained().await;
    let last = app.received().pop().expect("received");
    assert_eq!(last.body, event.body, "{what}");
    assert_eq!(last.event_id(), answer.event_id(), "{what}");
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 0.0, "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_failure_is_tried_again() {
    let failures = [
        ("an error", Behaviour::status(500)),
        ("a refusal", Behaviour::status(404)),
        ("a redirect, which is not followed", Behaviour::status(302)),
        ("no answer", Behaviour::Hang),
        ("a connection closed without an answer", Behaviour::Close),
        ("a reset within the request", Behaviour::ResetWithinRequest),
        ("an answer that breaks off", Behaviour::CloseWithinAnswer),
        ("an answer that is no HTTP", Behaviour::Raw(b"hello\r\n\r\n")),
        (
            "a header that is none",
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nbad header\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("a 100 and then nothing", Behaviour::Raw(b"HTTP/1.1 100 Continue\r\n\r\n")),
    ];
    for (what, failure) in failures {
        one_failure_is_tried_again(what, failure).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_down_gets_everything_once_it_is_up() {
    let app = App::start().await;
    app.refuse().await;
    let gateway = gateway().route(github().to(&app).impatient()).start().await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        let answer = gateway.send(&signed::github(push())).await;
        assert_eq!(answer.status, 202);
        ids.push(answer.event_id().to_owned());
    }
    assert_eq!(gateway.backlog().await, 50.0);
    app.accept().await;
    gateway.drained().await;
    let received: Vec<_> = app.received().iter().map(|received| received.event_id().to_owned()).collect();
    assert!(ids.iter().all(|id| received.contains(id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_hangs_holds_only_its_own_events() {
    let (healthy, hanging) = (App::start().await, App::start().await);
    hanging.behaves(Behaviour::Hang);
    let gateway = gateway()
        .route(github().to(&healthy))
        .route(stripe().to(&hanging).delivery("concurrency", 2))
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    }
    healthy.receives(10).await;
    assert_eq!(hanging.count(), 2, "no more at once than its concurrency");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed() {
    let app = App::start().await;
    let gateway = gateway()
        .route(github().to(&app).impatient().delivery("retry", json!({"first": "10ms", "max": "5s"})))
        .start()
        .await;
    app.behaves_next([Behaviour::Answer {
        status: 429,
        headers: vec![("Retry-After", "2".into())],
        body: vec![],
    }]);
    gateway.send(&signed::github(push())).await;
    let received = app.receives(2).await;
    let waited = received[1].at - received[0].at;
    assert!(waited >= Duration::from_millis(1_900), "waited only {waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absurd_retry_after_is_capped() {
    let app = App::start().await;
    let retry = json!({"first": "10ms", "max": "300ms"});
    let gateway = gateway().route(github().to(&app).delivery("retry", retry)).start().await;
    app.behaves_next([Behaviour::Answer {
        status: 503,
        headers: vec![("Retry-After", "999999".into())],
        body: vec![],
    }]);
    gateway.send(&signed::github(push())).await;
    app.receives(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backoff_without_jitter_grows_as_documented() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let retry = json!({"first": "200ms", "factor": 2, "max": "1h", "jitter": "none", "attempts": 4});
    let gateway = gateway().route(github().to(&app).delivery("retry", retry)).start().await;
    gateway.send(&signed::github(push())).await;
    let received = app.receives(4).await;
    for (number, least) in [(1, 200), (2, 400), (3, 800)] {
        let waited = received[number].at - received[number - 1].at;
        assert!(waited >= Duration::from_millis(least - 10), "before attempt {}: {waited:?}", number + 1);
    }
    let attempts: Vec<_> = received.iter().map(Received::attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_attempts_end_as_a_dead_letter_that_can_be_replayed() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let retry = json!({"first": "10ms", "max": "20ms", "attempts": 3});
    let gateway = gateway().route(github().to(&app).delivery("retry", retry)).start().await;
    let event = signed::github(push());
    let answer = gateway.send(&event).await;
    eventually("a dead letter", async || gateway.metric("tidegate_dead_letters", &[]).await == 1.0).await;
    assert_eq!(app.count(), 3);

    let listed = gateway.cli_json(&["dead", "list"]).await.to_string();
    assert!(listed.contains(answer.event_id()) && listed.contains("attempts_exhausted"), "{listed}");
    let shown = gateway.cli_json(&["dead", "show", answer.event_id()]).await.to_string();
    assert!(shown.contains("500") && shown.contains("X-GitHub-Delivery"), "{shown}");

    // A replay bypasses the duplicate check and has a fresh budget: two more failures do not kill it.
    app.behaves(Behaviour::status(200));
    app.behaves_next([Behaviour::status(500), Behaviour::status(500)]);
    let replayed = gateway.cli(&["dead", "replay", answer.event_id()]).await;
    assert!(replayed.status.success(), "{replayed:?}");
    let received = app.receives(6).await;
    assert_eq!(received[5].body, event.body);
    assert_eq!(received[5].event_id(), answer.event_id());
    gateway.drained().await;
    eventually("no dead letter", async || gateway.metric("tidegate_dead_letters", &[]).await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_replayed_or_purged_by_filter() {
    let app = App::start().await;
    app.behaves(Behaviour::status(410));
    let gateway = gateway().route(github().to(&app)).route(stripe().to(&app)).start().await;
    for _ in 0..3 {
        gateway.send(&signed::github(push())).await;
        gateway.send(&signed::stripe(invoice_paid())).await;
    }
    // 410 is given up at once by default.
    eventually("six dead letters", async || gateway.metric("tidegate_dead_letters", &[]).await == 6.0).await;
    assert_eq!(app.count(), 6);

    app.behaves(Behaviour::status(200));
    let replayed = gateway.cli(&["dead", "replay", "--route", "github"]).await;
    assert!(replayed.status.success(), "{replayed:?}");
    app.receives(9).await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_dead_letters", &[]).await, 3.0);

    let purged = gateway.cli(&["dead", "purge", "--route", "stripe", "--yes"]).await;
    assert!(purged.status.success(), "{purged:?}");
    eventually("none left", async || gateway.metric("tidegate_dead_letters", &[]).await == 0.0).await;
    assert_eq!(app.count(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_too_old_is_given_up_visibly() {
    let app = App::start().await;
    app.behaves(Behaviour::status(500));
    let retry = json!({"first": "50ms", "max": "100ms", "attempts": 1000, "max_age": "1s"});
    let gateway = gateway().route(github().to(&app).delivery("retry", retry)).start().await;
    gateway.send(&signed::github(push())).await;
    eventually("a dead letter", async || gateway.metric("tidegate_dead_letters", &[]).await == 1.0).await;
    assert!(gateway.cli_json(&["dead", "list"]).await.to_string().contains("too_old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_can_not_be_reached_is_passed_over() {
    let (down, up) = (App::start().await, App::start().await);
    down.refuse().await;
    let gateway = gateway()
        .route(github().to(&down).to(&up).impatient())
        .route(stripe().mode("proxy").to(&down).to(&up))
        .start()
        .await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    }
    up.receives(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_the_app_are_kept() {
    let app = App::start().await;
    let gateway = gateway().section("threads", json!(1)).route(stripe().mode("proxy").to(&app)).start().await;
    for _ in 0..20 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    }
    assert!(app.connections() <= 2, "{} connections for 20 requests in turn", app.connections());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxy_mode_answers_in_time_when_the_app_does_not() {
    let app = App::start().await;
    app.behaves(Behaviour::Hang);
    let gateway = gateway().route(stripe().mode("proxy").to(&app).delivery("timeout", "300ms")).start().await;
    let before = Instant::now();
    let answer = gateway.send(&signed::stripe(invoice_paid())).await;
    assert_eq!((answer.status, answer.reason()), (504, "upstream_timeout"));
    assert!(before.elapsed() < Duration::from_secs(10));
    app.refuse().await;
    let answer = gateway.send(&signed::stripe(invoice_paid())).await;
    assert_eq!((answer.status, answer.reason()), (502, "upstream_unavailable"));
}
