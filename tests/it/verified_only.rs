//! Promise 2: only verified requests have effects, and what is not sure fails closed.

use crate::support::*;

/// Requests that a GitHub or Stripe route must refuse, with the reason that it must give.
fn forgeries() -> Vec<(&'static str, Request, &'static str)> {
    let github = signed::github(push());
    let stripe = signed::stripe(invoice_paid());
    let signature = github.value("X-Hub-Signature-256").to_owned();
    let upper = signature.to_ascii_uppercase();
    vec![
        ("no signature", github.clone().without("X-Hub-Signature-256"), "signature_missing"),
        (
            "an empty signature",
            github.clone().with("X-Hub-Signature-256", ""),
            "signature_missing|signature_invalid",
        ),
        ("another body", github.clone().body(issue_opened()), "signature_invalid"),
        ("an empty body", github.clone().body(""), "signature_invalid"),
        ("another secret", signed::github_with("another", push()), "signature_invalid"),
        ("an empty secret", signed::github_with("", push()), "signature_invalid"),
        (
            "a prefix of the signature",
            github.clone().with("X-Hub-Signature-256", &signature[..40]),
            "signature_invalid",
        ),
        ("a scheme of its own", github.clone().with("X-Hub-Signature-256", &upper), "signature_missing"),
        ("two signatures", github.clone().header("X-Hub-Signature-256", &signature), "ambiguous_request"),
        ("the right and a wrong one", github.header("x-hub-signature-256", "sha256=00"), "ambiguous_request"),
        ("an old time", signed::stripe_at(now() - 3600, invoice_paid()), "timestamp_out_of_tolerance"),
        ("a time to come", signed::stripe_at(now() + 3600, invoice_paid()), "timestamp_out_of_tolerance"),
        (
            "only v0",
            stripe.clone().with("Stripe-Signature", &format!("t={},v0=00", now())),
            "signature_missing|signature_invalid",
        ),
        ("no time", stripe.with("Stripe-Signature", "v1=00"), "signature_missing|signature_invalid"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_request_is_refused_and_leaves_nothing_behind() {
    for mode in ["buffer", "proxy"] {
        let app = App::start().await;
        let gateway =
            gateway().route(github().to(&app).mode(mode)).route(stripe().to(&app).mode(mode)).start().await;
        for (what, request, reasons) in forgeries() {
            let answer = gateway.send(&request).await;
            assert_eq!(answer.status, 401, "{mode}, {what}: {answer:?}");
            assert!(reasons.split('|').any(|reason| reason == answer.reason()), "{mode}, {what}: {answer:?}");
            assert_eq!(answer.event_id(), "", "{mode}, {what}");
        }
        // A good one passes, so the silence of the app meant something.
        let answer = gateway.send(&signed::github(push())).await;
        assert!(answer.is_success(), "{answer:?}");
        app.receives(1).await;
        gateway.drained().await;
        assert_eq!(app.count(), 1, "{mode}: nothing forged reached the app");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attacker_can_not_burn_an_id() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).route(stripe().to(&app)).start().await;
    for event in [signed::github(push()), signed::stripe(invoice_paid())] {
        // The attacker knows the id and sends first, with bytes of its own.
        let mut forged = event.body.to_vec();
        forged.push(b' ');
        assert_eq!(gateway.send(&event.clone().body(forged)).await.status, 401);
        let answer = gateway.send(&event).await;
        assert_eq!((answer.status, answer.is_duplicate()), (202, false), "{answer:?}");
    }
    app.receives(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_genuine_request_with_another_unsigned_id_is_no_new_route_into_a_claim() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let first = signed::github(push());
    let id = first.value("X-GitHub-Delivery").to_owned();
    gateway.send(&first).await;
    // The same id over another genuine body (an id burnt in advance): it is another event, not a repeat.
    let second = signed::github(issue_opened()).with("X-GitHub-Delivery", &id);
    let answer = gateway.send(&second).await;
    assert_eq!((answer.status, answer.is_duplicate()), (202, false));
    app.receives(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_answered_only_if_it_is_signed() {
    let app = App::start().await;
    let route = config::provider("slack", "/hooks/slack", signed::SLACK_SECRET).to(&app);
    let gateway = gateway().route(route).start().await;
    let greeting = signed::slack(
        r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#,
    );

    let answer = gateway.send(&greeting).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    let forged = greeting.with("X-Slack-Signature", "v0=00");
    let answer = gateway.send(&forged).await;
    assert_eq!(answer.status, 401);
    assert!(!answer.text().contains("3eZbrw1aBm2"));
    assert_eq!(app.count(), 0, "a greeting is not an event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_method_gets_around_verification() {
    const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "POST"];
    let app = App::start().await;
    let every = config::provider("github", "/hooks/every", signed::GITHUB_SECRET)
        .set("methods", json!(METHODS))
        .mode("proxy")
        .to(&app);
    let gateway = gateway().route(github().mode("proxy").to(&app)).route(every).start().await;
    // On one connection: what an answer has too much (a body after HEAD) would break the next one.
    let mut connection = gateway.connect().await;
    for method in METHODS {
        let answer = connection.send(&Request::new(method, "/hooks/every", "")).await.expect("an answer");
        assert_eq!(answer.status, 401, "{method}: {answer:?}");
        assert_eq!(answer.reason(), "signature_missing", "{method}");
        let expected = if method == "POST" { 401 } else { 405 };
        let answer = connection.send(&Request::new(method, "/hooks/github", "")).await.expect("an answer");
        assert_eq!(answer.status, expected, "{method}: {answer:?}");
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_could_not_verify_does_not_start() {
    let app = App::start().await;
    let broken = [
        ("an empty secret", github().to(&app).secret("github.secret", "")),
        ("a secret of one line feed", github().to(&app).secret("github.secret", "\n")),
        ("a file that is not there", github().to(&app).set("secret", "file:secrets/nowhere")),
        ("a variable that is not set", github().to(&app).set("secret", "env:TIDEGATE_TEST_NOT_SET")),
        ("an unknown provider", github().to(&app).set("provider", "gihtub")),
        ("no verification said", Route::new(json!({"name": "x", "path": "/x"})).to(&app)),
        ("any of nothing", Route::new(json!({"name": "x", "path": "/x", "verify": {"any": []}})).to(&app)),
    ];
    for (what, route) in broken {
        match gateway().route(route).try_start().await {
            Ok(_) => panic!("{what}: it started"),
            Err(ended) => assert_eq!(ended.code, Some(78), "{what}: {}", ended.output),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_line_feed_of_a_secret_file_does_not_count() {
    let app = App::start().await;
    let route = github().to(&app).secret("github.secret", &format!("{}\n", signed::GITHUB_SECRET));
    let gateway = gateway().route(route).start().await;
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_captured_request_cannot_take_a_later_events_place() {
    let own = json!({"key": "header:X-GitHub-Delivery"});
    for (what, route) in
        [("the pack's key", github()), ("a key of one's own", github().set("idempotency", own))]
    {
        for mode in ["buffer", "proxy"] {
            let app = App::start().await;
            let gateway = gateway().route(route.clone().mode(mode).to(&app)).start().await;
            let (captured, later) = (signed::github(push()), signed::github(issue_opened()));
            let forged = captured.clone().with("X-GitHub-Delivery", later.value("X-GitHub-Delivery"));
            for request in [&captured, &forged, &later] {
                let answer = gateway.send(request).await;
                assert!(answer.is_success() && !answer.is_duplicate(), "{what}, {mode}: {answer:?}");
            }
            assert!(gateway.send(&later).await.is_duplicate(), "{what}, {mode}: its own repeat is one");
            let bodies = app.receives(3).await;
            assert!(bodies.iter().any(|received| received.body == later.body), "{what}, {mode}");
        }
    }
}

/// Two signed places side by side: whoever holds one request and moves the border between them has no other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_border_between_two_signed_places_can_not_be_moved() {
    let app = App::start().await;
    let secret = "a-signing-key-0123456789abcdef";
    let gateway = gateway()
        .route(config::provider("mailgun", "/mailgun", secret).to(&app))
        .route(config::provider("lever", "/lever", secret).to(&app))
        .route(config::provider("bluesnap", "/bluesnap", secret).to(&app))
        .start()
        .await;
    let sign = |text: &str| hex::encode(signed::hmac_sha256(secret.as_bytes(), text.as_bytes()));
    let json_type = |request: Request| request.header("Content-Type", "application/json");
    let (time, token) = (now().to_string(), "b8ab9e0f3cd7c9d47d4ae7d1a8d0c0c3e1f2a3b4c5d6e7f809");
    let at = format!("{}000", now());

    let mailgun = |time: &str, token: &str, signature: &str| {
        let signature = json!({"timestamp": time, "token": token, "signature": signature});
        json_type(Request::post(
            "/mailgun",
            json!({"signature": signature, "event-data": {"x": time}}).to_string(),
        ))
    };
    let lever = |token: &str, at: &str, signature: &str| {
        let body = json!({"token": token, "triggeredAt": at, "signature": signature, "event": at});
        json_type(Request::post("/lever", body.to_string()))
    };
    let bluesnap = |time: &str, body: &str, signature: &str| {
        Request::post("/bluesnap", body)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("bls-ipn-timestamp", time)
            .header("bls-signature", signature)
    };
    let (form, date) = ("transactionType=CHARGE&amount=10", "2026-11-24 16:00:00.12");
    type Make<'m> = &'m dyn Fn(&str, &str, &str) -> Request;
    let cases: [(&str, &str, &str, Make<'_>); 3] = [
        ("mailgun", &time, token, &mailgun),
        ("lever", "a1b2c3d4e5f6", &at, &lever),
        ("bluesnap", date, form, &bluesnap),
    ];
    for (what, first, second, make) in cases {
        let whole = format!("{first}{second}");
        let signature = sign(&whole);
        assert!(gateway.send(&make(first, second, &signature)).await.is_success(), "{what}");
        for border in (1..whole.len()).filter(|border| *border != first.len()) {
            let (left, right) = whole.split_at(border);
            let answer = gateway.send(&make(left, right, &signature)).await;
            assert_eq!(answer.status, 401, "{what}: {left} {right}: {answer:?}");
        }
    }
    // And none is good again once its token may be forgotten.
    let old = (now() - 3 * 86_400).to_string();
    let answer = gateway.send(&mailgun(&old, token, &sign(&format!("{old}{token}")))).await;
    assert_eq!((answer.status, answer.reason()), (401, "timestamp_out_of_tolerance"));
    app.receives(3).await;
    gateway.drained().await;
    assert_eq!(app.count(), 3);
}
