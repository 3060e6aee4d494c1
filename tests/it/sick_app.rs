//! Promise 6: a sick app is paused, not abandoned. Every way of being sick, and the way back.

use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use crate::support::app::Speaks;
use crate::support::*;

/// Runs cases that mostly wait side by side.
async fn all_at_once(cases: impl IntoIterator<Item = impl Future<Output = ()> + 'static>) {
    let (local, mut running) = (LocalSet::new(), JoinSet::new());
    for case in cases {
        running.spawn_local_on(case, &local);
    }
    local.run_until(running.join_all()).await;
}

/// One attempt fails as told, the next succeeds; the event arrives with its second attempt.
async fn one_failure_is_tried_again(speaks: Speaks, what: &'static str, failure: Behaviour) {
    let app = App::speaking(speaks).await;
    let mut route = github().to(&app).impatient().delivery("timeout", "300ms");
    if speaks == Speaks::Http2 {
        route = route.delivery("http", 2);
    }
    let gateway = gateway().route(route).start().await;
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
        (
            "two lengths",
            Behaviour::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ),
        ("an answer that never ends", Behaviour::Trickle),
        ("interim answers for ever", Behaviour::InterimFlood),
        ("an answer before the request was read", Behaviour::Early(413)),
    ];
    all_at_once(failures.map(|(what, failure)| one_failure_is_tried_again(Speaks::Http1, what, failure)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_failure_of_an_http2_app_is_tried_again() {
    let failures = [
        ("an error", Behaviour::status(503)),
        ("no answer", Behaviour::Hang),
        ("a connection closed without an answer", Behaviour::Close),
        ("a stream reset within the request", Behaviour::ResetWithinRequest),
        ("an answer that breaks off", Behaviour::CloseWithinAnswer),
    ];
    all_at_once(failures.map(|(what, failure)| one_failure_is_tried_again(Speaks::Http2, what, failure)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_http2_app_surely_did_not_process_is_sent_again_and_the_rest_is_not() {
    for speaks in [Speaks::Http2, Speaks::Http2Tls] {
        let app = App::speaking(speaks).await;
        let route = |route: Route| {
            let route = route.to(&app).delivery("http", 2);
            if speaks == Speaks::Http2Tls {
                route.delivery("tls", json!({"ca": "tls/ca.pem"}))
            } else {
                route
            }
        };
        let gateway =
            gateway().route(route(github().impatient())).route(route(stripe().mode("proxy"))).start().await;
        // A stream that is refused; a connection that is given up again and again, while requests are under way.
        let mut sent = std::collections::HashSet::new();
        for round in 0..10 {
            app.behaves_next(match round % 2 {
                0 => vec![Behaviour::RefuseStream, Behaviour::RefuseStream],
                _ => vec![Behaviour::status(200), Behaviour::GoAway],
            });
            let events: Vec<_> = (0..6).map(|_| signed::github(push())).collect();
            for event in &events {
                assert_eq!(gateway.send(event).await.status, 202);
                sent.insert(sha256(&event.body));
            }
            let inline = signed::stripe(invoice_paid());
            assert_eq!(gateway.send(&inline).await.status, 200, "{speaks:?}, round {round}");
            sent.insert(sha256(&inline.body));
        }
        gateway.drained().await;
        let received = app.received();
        let bodies: std::collections::HashSet<_> = received.iter().map(|r| sha256(&r.body)).collect();
        assert_eq!(bodies, sent, "{speaks:?}: all arrived");
        assert_eq!(received.len(), sent.len(), "{speaks:?}: each once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_app_is_who_it_says_and_so_are_we() {
    let (mutual, other) =
        (App::speaking(Speaks::Http1MutualTls).await, App::speaking(Speaks::Http1OtherName).await);
    let ca = json!({"ca": "tls/ca.pem"});
    let client = json!({"ca": "tls/ca.pem", "client": {"cert": "tls/client.pem", "key": "tls/client.key"}});
    let pair = &certs::authority().client;
    let gateway = gateway()
        .file("tls/client.pem", &pair.cert)
        .file("tls/client.key", &pair.key)
        .route(github().to(&mutual).impatient().delivery("tls", client.clone()))
        .route(stripe().mode("proxy").to(&mutual).delivery("tls", client))
        .route(unverified("/without-ours").to(&mutual).impatient().delivery("tls", ca.clone()))
        .route(unverified("/other-name").to(&other).impatient().delivery("tls", ca))
        .route(unverified("/unknown-authority").to(&mutual).impatient())
        .start()
        .await;
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    mutual.receives(2).await;
    // Who can't be trusted gets nothing; the events wait, and the reason stands with them.
    for target in ["/without-ours", "/other-name", "/unknown-authority"] {
        let answer = gateway.send(&Request::post(target, target)).await;
        assert_eq!(answer.status, 202);
        eventually(target, async || {
            let shown = gateway.cli_json(&["events", "show", answer.event_id()]).await.to_string();
            shown.contains("retrying") && shown.to_lowercase().contains("certificate")
        })
        .await;
    }
    eventually("only those three wait", async || gateway.backlog().await == 3.0).await;
    assert_eq!((mutual.count(), other.count()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_app_behind_proxy_and_pass_mode_is_told_apart_from_its_own_answers() {
    let app = App::start().await;
    let gateway = gateway()
        .route(stripe().mode("proxy").to(&app).delivery("timeout", "1500ms"))
        .route(pass().to(&app).delivery("timeout", "1500ms"))
        .start()
        .await;
    let unavailable = Some((502, "upstream_unavailable"));
    let late = Some((504, "upstream_timeout"));
    let cases = [
        ("no answer", Behaviour::Hang, late),
        ("a closed connection", Behaviour::Close, unavailable),
        ("a reset", Behaviour::ResetWithinRequest, unavailable),
        ("no HTTP", Behaviour::Raw(b"hello\r\n\r\n"), unavailable),
        ("a 100 and then nothing", Behaviour::Raw(b"HTTP/1.1 100 Continue\r\n\r\n"), unavailable),
        // Half an answer must not pass for a whole one: the sender sees that it broke off.
        ("an answer that breaks off", Behaviour::CloseWithinAnswer, None),
        ("an answer that never ends", Behaviour::Trickle, None),
        // Last, because these leave a connection in the pool, and a pooled one that is closed is tried once more.
        ("its own early answer", Behaviour::Early(413), Some((413, ""))),
        ("its own error", Behaviour::status(500), Some((500, ""))),
    ];
    for (what, failure, expected) in cases {
        for via in [Via::Tls, Via::Http2] {
            for request in [signed::stripe(invoice_paid()), Request::post("/app/x", what)] {
                // What passes through may stream for ever.
                if matches!(failure, Behaviour::Trickle) && request.target == "/app/x" {
                    continue;
                }
                app.behaves_next([failure.clone()]);
                let answer = gateway.try_send(via, &request).await;
                let case = format!("{what}, {via:?}, {}: {answer:?}", request.target);
                match (&answer, expected) {
                    (Ok(answer), Some(expected)) => {
                        assert_eq!((answer.status, answer.reason()), expected, "{case}");
                    }
                    (Err(problem), None) => {
                        assert_ne!(problem.kind(), std::io::ErrorKind::TimedOut, "{case}");
                    }
                    _ => panic!("{case}"),
                }
            }
        }
    }
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200, "and on it goes");
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
async fn a_slow_app_is_waited_for() {
    let slow = App::start().await;
    slow.behaves(Behaviour::Slow(Duration::from_millis(800)));
    let gateway = gateway().route(stripe().to(&slow).impatient()).start().await;
    for _ in 0..8 {
        assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 202);
    }
    gateway.drained().await;
    let attempts: Vec<_> = slow.received().iter().map(Received::attempt).collect();
    assert_eq!(attempts, [1; 8], "each once");
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
