//! Promise 3: at least once to the app, exactly once into the buffer; a claim only for what was accepted.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::config::provider;
use crate::support::sender::Connection;
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_gets_the_first_answer() {
    let app = App::start().await;
    let answer = json!({"status": 201, "body": "{\"ok\":true}", "content_type": "application/json"});
    let gateway = gateway()
        .route(github().to(&app).set("answer", answer))
        .route(stripe().to(&app))
        .route(standard_webhooks().to(&app))
        .start()
        .await;
    let events = [
        signed::github(push()),
        signed::stripe(invoice_paid()),
        signed::standard_webhooks(contact_created()),
    ];
    for (number, event) in events.iter().enumerate() {
        let first = gateway.send(event).await;
        assert!(first.is_success() && !first.is_duplicate(), "{first:?}");
        for via in [Via::Tls, Via::Plain, Via::Http2] {
            let repeat = gateway.send_via(via, event).await;
            assert!(repeat.is_duplicate(), "{repeat:?}");
            assert_eq!((repeat.status, repeat.event_id()), (first.status, first.event_id()));
            assert_eq!(repeat.body, first.body);
            assert_eq!(repeat.header("content-type"), first.header("content-type"));
        }
        app.receives(number + 1).await;
    }
    gateway.drained().await;
    assert_eq!(app.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_recognised_after_a_crash() {
    let app = App::start().await;
    let mut gateway = gateway().route(stripe().to(&app)).start().await;
    let event = signed::stripe(invoice_paid());
    let first = gateway.send(&event).await;
    gateway.kill().await;
    gateway.restart().await;
    let repeat = gateway.send(&event).await;
    assert!(repeat.is_duplicate());
    assert_eq!(repeat.event_id(), first.event_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_passes_one_rule_of_any_takes_no_id_from_who_passes_another() {
    let app = App::start().await;
    let rule = |other: serde_json::Value| json!({"any": [{"provider": "standard-webhooks", "secret": "file:secrets/standard"}, other]});
    let route = |name: &str, other: serde_json::Value| {
        Route::new(json!({"name": name, "path": format!("/{name}"), "verify": rule(other)}))
            .secret("standard", signed::STANDARD_SECRET)
            .secret("token", "token-of-a-weaker-sender")
            .to(&app)
    };
    let gateway = gateway()
        .route(route("token", json!({"bearer": {"tokens": ["file:secrets/token"]}})))
        .route(route(
            "body",
            json!({"algorithm": "hmac-sha256", "secret": "file:secrets/token",
                   "signature": {"from": "header:X-Sig", "encoding": "hex"}}),
        ))
        .start()
        .await;
    for path in ["/token", "/body"] {
        let genuine = signed::standard_webhooks(contact_created()).to(path);
        let id = genuine.headers.iter().find(|(name, _)| name == "webhook-id").expect("an id").1.clone();
        let body = format!("{{\"evil\": \"{id}\"}}");
        let signature = hex::encode(signed::hmac_sha256(b"token-of-a-weaker-sender", body.as_bytes()));
        let weaker = Request::post(path, body)
            .header("Authorization", "Bearer token-of-a-weaker-sender")
            .header("X-Sig", &signature)
            .header("webhook-id", &id);
        let first = gateway.send(&weaker).await;
        assert!(first.is_success() && !first.is_duplicate(), "{path}: {first:?}");
        let event = gateway.send(&genuine).await;
        assert!(event.is_success() && !event.is_duplicate(), "{path}: {event:?}");
        // Each is still known by its own.
        let again = gateway.send(&genuine).await;
        assert!(again.is_duplicate() && again.event_id() == event.event_id(), "{path}: {again:?}");
        let again = gateway.send(&weaker).await;
        assert!(again.is_duplicate() && again.event_id() == first.event_id(), "{path}: {again:?}");
        // Whoever holds a request of which the id is not signed makes no other event's id of it.
        if path == "/body" {
            let next = signed::standard_webhooks(contact_created()).to(path);
            let next = next.headers.iter().find(|(name, _)| name == "webhook-id").expect("an id").1.clone();
            let mut moved = weaker.clone();
            moved.headers.retain(|(name, _)| name != "webhook-id");
            assert!(!gateway.send(&moved.header("webhook-id", &next)).await.is_duplicate());
        }
    }
    gateway.drained().await;
    assert_eq!(app.received().iter().filter(|received| !received.body.starts_with(b"{\"evil")).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_batch_that_begins_with_a_known_item_is_no_repeat() {
    let app = App::start().await;
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let gateway = gateway().route(provider("adyen", "/hooks/adyen", key).to(&app)).start().await;
    let key = hex::decode(key).expect("hex");
    let item = |reference: &str| {
        let signed = format!("{reference}::Acme:order:10:EUR:AUTHORISATION:true");
        let signature = STANDARD.encode(signed::hmac_sha256(&key, signed.as_bytes()));
        json!({"NotificationRequestItem": {
            "additionalData": {"hmacSignature": signature}, "pspReference": reference, "merchantAccountCode": "Acme",
            "merchantReference": "order", "amount": {"value": 10, "currency": "EUR"},
            "eventCode": "AUTHORISATION", "success": "true",
        }})
    };
    let send = async |references: &[&str], date: &str| {
        let items: Vec<_> = references.iter().map(|reference| item(reference)).collect();
        let body = json!({"live": date, "notificationItems": items}).to_string();
        let answer = gateway.send(&Request::post("/hooks/adyen", body)).await;
        assert!(answer.is_success(), "{answer:?}");
        answer.is_duplicate()
    };
    assert!(!send(&["A"], "1").await && send(&["A"], "2").await);
    assert!(!send(&["A", "B"], "1").await && send(&["A", "B"], "2").await);
    assert!(!send(&["B"], "1").await);
}

async fn connections(gateway: &Gateway, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(gateway.connect().await);
    }
    connections
}

/// A copy of `event` on each connection, all at once.
async fn twins(connections: Vec<Connection>, event: &Request) -> Vec<std::io::Result<Answer>> {
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(connections.len()));
    let sending: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (start, event) = (start.clone(), event.clone());
            tokio::spawn(async move {
                start.wait().await;
                connection.send(&event).await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for sent in sending {
        answers.push(sent.await.expect("the sender ran"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_copies_are_one_event_with_one_answer() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app)).start().await;
    let event = signed::stripe(invoice_paid());
    let answers: Vec<_> = twins(connections(&gateway, 200).await, &event)
        .await
        .into_iter()
        .map(|answer| answer.expect("answered"))
        .collect();
    let ids: HashSet<_> = answers.iter().map(Answer::event_id).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(answers.iter().all(|answer| answer.status == 202 && answer.body == answers[0].body));
    assert_eq!(answers.iter().filter(|answer| !answer.is_duplicate()).count(), 1, "one was first");
    app.receives(1).await;
    gateway.drained().await;
    assert_eq!(app.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_across_a_crash_are_one_event() {
    let app = App::start().await;
    app.refuse().await;
    let mut gateway = gateway().route(stripe().to(&app).impatient()).start().await;
    for _ in 0..5 {
        let event = signed::stripe(invoice_paid());
        let open = connections(&gateway, 20).await;
        let (answers, ()) = tokio::join!(twins(open, &event), async {
            tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..20))).await;
            gateway.ask_to_end_now();
        });
        gateway.end().await;
        gateway.restart().await;
        let again = gateway.send(&event).await;
        assert_eq!(again.status, 202);
        let ids: HashSet<_> =
            answers.iter().flatten().filter(|a| a.is_success()).map(|a| a.event_id().to_owned()).collect();
        assert!(ids.is_empty() || (ids.len() == 1 && ids.contains(again.event_id())), "{ids:?}, {again:?}");
    }
    app.accept().await;
    gateway.drained().await;
    let bodies: HashSet<_> = app.received().iter().map(|received| sha256(&received.body)).collect();
    let ids: HashSet<_> = app.received().iter().map(|received| received.event_id().to_owned()).collect();
    assert_eq!((bodies.len(), ids.len()), (5, 5), "five events, five ids");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_forward_releases_the_claim() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app).mode("proxy").delivery("timeout", "500ms")).start().await;
    let event = signed::stripe(invoice_paid());
    // In this order no connection is pooled when the next is sent: a pooled one that is closed is tried once more.
    app.behaves_next([Behaviour::Close, Behaviour::Hang, Behaviour::status(500)]);
    let broken = gateway.send(&event).await;
    assert_eq!((broken.status, broken.reason()), (502, "upstream_unavailable"));
    let hung = gateway.send(&event).await;
    assert_eq!((hung.status, hung.reason()), (504, "upstream_timeout"));
    assert_eq!(gateway.send(&event).await.status, 500, "the app's real answer");

    let success = gateway.send(&event).await;
    assert_eq!((success.status, success.is_duplicate()), (200, false));
    let repeat = gateway.send(&event).await;
    assert_eq!((repeat.status, repeat.is_duplicate()), (200, true));
    assert_eq!(repeat.body, success.body);
    assert_eq!(repeat.event_id(), success.event_id());
    assert_eq!(app.count(), 4, "the repeat did not reach the app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_twins_reach_a_proxied_app_once() {
    let app = App::start().await;
    app.behaves(Behaviour::Slow(std::time::Duration::from_millis(200)));
    let gateway = gateway().route(stripe().to(&app).mode("proxy")).start().await;
    let answers = twins(connections(&gateway, 20).await, &signed::stripe(invoice_paid())).await;
    assert!(
        answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status == 200)),
        "{answers:?}"
    );
    assert_eq!(app.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_is_not_taken_for_a_duplicate_later() {
    let app = App::start().await;
    let disk = fault::Fault::new();
    let mut gateway = gateway().route(stripe().to(&app)).fault(&disk).start().await;
    let event = signed::stripe(invoice_paid());
    disk.on(fault::Fails::Sync);
    assert_eq!(gateway.send(&event).await.status, 503);
    disk.off();
    gateway.kill().await;
    gateway.restart().await;
    // Written but not known to be synced: it may be there after the crash, and then it must be delivered.
    let answer = gateway.send(&event).await;
    assert_eq!(answer.status, 202);
    let received = app.receives(1).await;
    assert_eq!(received[0].event_id(), answer.event_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_scoped_by_route() {
    let app = App::start().await;
    let second = stripe().named("second").set("path", "/second").to(&app);
    let gateway = gateway().route(stripe().to(&app)).route(second).start().await;
    let event = signed::stripe(invoice_paid());
    let first = gateway.send(&event).await;
    let other = gateway.send(&event.to("/second")).await;
    assert_eq!((other.status, other.is_duplicate()), (202, false));
    assert_ne!(first.event_id(), other.event_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_can_be_chosen_or_switched_off() {
    let app = App::start().await;
    let keyed = |path: &str, idempotency| unverified(path).to(&app).set("idempotency", idempotency);
    let gateway = gateway()
        .route(keyed("/header", json!({"key": "header:X-Id"})))
        .route(keyed("/body", json!({"key": "body:/data/id"})))
        .route(keyed("/form", json!({"key": "form:id"})))
        .route(keyed("/hash", json!({"key": "body-hash"})))
        .route(keyed("/both", json!({"key": ["header:X-Id", "body:/data/id"]})))
        .route(keyed("/off", json!("off")))
        .start()
        .await;
    let duplicate = async |request: Request| gateway.send(&request).await.is_duplicate();
    let body = |id: &str, rest: &str| format!(r#"{{"data":{{"id":"{id}"}},"rest":"{rest}"}}"#);

    assert!(!duplicate(Request::post("/header", "1").header("X-Id", "a")).await);
    assert!(duplicate(Request::post("/header", "2").header("X-Id", "a")).await);
    assert!(!duplicate(Request::post("/header", "2").header("X-Id", "b")).await);

    assert!(!duplicate(Request::post("/body", body("a", "1"))).await);
    assert!(duplicate(Request::post("/body", body("a", "2"))).await);
    assert!(!duplicate(Request::post("/body", body("b", "1"))).await);

    let form =
        |text: &str| Request::post("/form", text).header("Content-Type", "application/x-www-form-urlencoded");
    assert!(!duplicate(form("id=a&n=1")).await);
    assert!(duplicate(form("n=2&id=%61")).await);

    assert!(!duplicate(Request::post("/hash", "a")).await);
    assert!(duplicate(Request::post("/hash", "a")).await);

    assert!(!duplicate(Request::post("/both", body("a", "1")).header("X-Id", "a")).await);
    assert!(!duplicate(Request::post("/both", body("a", "1")).header("X-Id", "b")).await);
    assert!(duplicate(Request::post("/both", body("a", "2")).header("X-Id", "b")).await);

    assert!(!duplicate(Request::post("/off", "a")).await);
    assert!(!duplicate(Request::post("/off", "a")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_leaves_before_the_answer_and_comes_back_has_sent_one_event() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app)).start().await;
    let mut sent = HashSet::new();
    for round in 0..40 {
        let event = signed::stripe(invoice_paid());
        let bytes = event.bytes();
        // It leaves at every stage: within the head, within the body, and with everything sent.
        let until = match round % 4 {
            0 => bytes.len(),
            1 => bytes.len() - 1,
            2 => bytes.len() - event.body.len(),
            _ => fastrand::usize(1..bytes.len()),
        };
        let mut leaving = gateway.connect().await;
        leaving.write(&bytes[..until]).await.expect("written");
        drop(leaving);
        let answer = gateway.send(&event).await;
        assert_eq!(answer.status, 202, "after {until} of {} bytes", bytes.len());
        sent.insert(answer.event_id().to_owned());
    }
    app.receives(40).await;
    gateway.drained().await;
    let received: Vec<_> = app.received().iter().map(|r| r.event_id().to_owned()).collect();
    assert_eq!(received.len(), 40, "each once");
    assert_eq!(received.into_iter().collect::<HashSet<_>>(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_ends_with_its_window() {
    let app = App::start().await;
    let route = unverified("/in").set("idempotency", json!({"key": "header:X-Id", "window": "1s"})).to(&app);
    let gateway = gateway().route(route).start().await;
    let event = Request::post("/in", "x").header("X-Id", "1");
    let first = gateway.send(&event).await;
    assert!(gateway.send(&event).await.is_duplicate());
    eventually("the window ends", async || !gateway.send(&event).await.is_duplicate()).await;
    let again = gateway.send(&event).await;
    assert!(again.is_duplicate() && again.event_id() != first.event_id(), "{again:?}");
}
