//! Which requests are the same one: without an id those with the same bytes, with one those of the same sender.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::*;

const TOKEN: &str = "token-of-the-only-sender";

/// Whoever holds the token is believed, and nothing is signed.
fn token(path: &str, mode: &str) -> Route {
    let name = path.split('/').nth(1).unwrap_or_default();
    Route::new(json!({
        "name": name, "path": path, "mode": mode, "methods": ["GET", "POST", "PUT", "DELETE"],
        "verify": {"bearer": {"tokens": ["file:secrets/token"]}},
    }))
    .secret("token", TOKEN)
}

/// `signed` is signed.
fn scheme(path: &str, signed: &str) -> Route {
    let name = path.split('/').nth(1).unwrap_or_default();
    Route::new(json!({
        "name": name, "path": path, "methods": ["POST", "PUT"], "public_url": "https://hooks.example",
        "verify": {
            "algorithm": "hmac-sha256", "secret": "file:secrets/token", "signed": signed,
            "signature": {"from": "header:X-Sig", "encoding": "hex"},
        },
    }))
    .secret("token", TOKEN)
}

fn of(method: &str, target: &str, body: &str) -> Request {
    Request::new(method, target, body).header("Authorization", &format!("Bearer {TOKEN}"))
}

fn signed(method: &str, target: &str, text: &str, body: &str) -> Request {
    let signature = hex::encode(signed::hmac_sha256(TOKEN.as_bytes(), text.as_bytes()));
    Request::new(method, target, body).header("X-Sig", &signature)
}

/// Sends each once, and each once more: every one is an event of its own, and its exact repeat is none.
async fn are_told_apart(gateway: &Gateway, app: &App, requests: &[Request]) {
    let before = app.count();
    let mut ids = Vec::new();
    for request in requests {
        let answer = gateway.send(request).await;
        assert!(answer.is_success() && !answer.is_duplicate(), "{request:?}: {answer:?}");
        ids.push(answer.event_id().to_owned());
    }
    for (request, id) in requests.iter().zip(&ids) {
        let again = gateway.send(request).await;
        assert!(again.is_duplicate() && again.event_id() == id, "{request:?}: {again:?}");
    }
    app.receives(before + requests.len()).await;
    gateway.drained().await;
    let received = app.received();
    let mut received: Vec<_> = received[before..].iter().map(Received::event_id).collect();
    received.sort_unstable();
    ids.sort_unstable();
    assert_eq!(received, ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_id_another_path_method_or_query_is_another_event() {
    let app = App::start().await;
    let gateway = gateway()
        .route(token("/parameter/{id}", "buffer").to(&app))
        .route(token("/below/*", "buffer").to(&app))
        .route(token("/proxied/{id}", "proxy").to(&app))
        .route(token("/nameless", "buffer").set("idempotency", json!({"key": "header:X-Id"})).to(&app))
        .route(scheme("/all/{id}", "{method}{url}{body}").to(&app))
        .start()
        .await;
    let body = r#"{"state":"done"}"#;
    let requests = [
        of("POST", "/parameter/1", body),
        of("POST", "/parameter/2", body),
        of("PUT", "/parameter/1", body),
        of("PUT", "/parameter/1?n=1", body),
        of("PUT", "/parameter/1?n=2", body),
        of("GET", "/parameter/1?n=1", ""),
        of("GET", "/parameter/1?n=2", ""),
        of("DELETE", "/parameter/1?n=2", ""),
        of("POST", "/below/a", body),
        of("POST", "/below/b", body),
        of("POST", "/below/a/b", body),
        of("POST", "/below/a?b", body),
        of("PUT", "/below/a", body),
        of("POST", "/proxied/1", body),
        of("POST", "/proxied/2", body),
        of("PUT", "/proxied/1", body),
        of("POST", "/proxied/1?n=1", body),
        // What would name it may not be there.
        of("POST", "/nameless?n=1", body),
        of("POST", "/nameless?n=2", body),
        of("POST", "/nameless?n=2", body).header("X-Id", "2"),
        of("GET", "/nameless?n=2", ""),
    ];
    are_told_apart(&gateway, &app, &requests).await;
    let of = |method: &str, target: &str| {
        signed(method, target, &format!("{method}https://hooks.example{target}{{}}"), "{}")
    };
    let requests =
        [of("POST", "/all/1"), of("POST", "/all/2"), of("PUT", "/all/1"), of("POST", "/all/1?n=1")];
    are_told_apart(&gateway, &app, &requests).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_the_body_is_signed_another_query_makes_no_other_event() {
    let app = App::start().await;
    let gateway = gateway().route(scheme("/body/{id}", "{body}").to(&app)).start().await;
    let of = |method: &str, target: &str, body: &str| signed(method, target, body, body);
    let requests = [
        of("POST", "/body/1?n=1", "{}"),
        of("POST", "/body/2?n=1", "{}"),
        of("PUT", "/body/1?n=1", "{}"),
        of("POST", "/body/1?n=1", "{ }"),
    ];
    are_told_apart(&gateway, &app, &requests).await;
    let first = gateway.send(&requests[0]).await;
    for target in ["/body/1", "/body/1?n=2", "/body/1?n=1&m=2"] {
        let again = gateway.send(&of("POST", target, "{}")).await;
        assert!(again.is_duplicate() && again.event_id() == first.event_id(), "{target}: {again:?}");
    }
    let bare = gateway.send(&of("POST", "/body/1", "[]")).await;
    assert!(!bare.is_duplicate() && gateway.send(&of("POST", "/body/1?n=1", "[]")).await.is_duplicate());
    // A query does not make up for a body with nothing in it.
    for _ in 0..2 {
        assert!(!gateway.send(&of("POST", "/body/1?n=1", "")).await.is_duplicate());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_an_app_is_never_answered_from_memory() {
    let app = App::start().await;
    let gateway = gateway()
        .route(token("/proxied/{id}", "proxy").to(&app))
        .route(token("/spilled/{id}", "spill").to(&app))
        .start()
        .await;
    let mut asked = 0;
    for target in ["/proxied/1", "/proxied/1?n=1", "/spilled/1?n=1"] {
        for text in ["first", "second", "third"] {
            let body = text.as_bytes().to_vec();
            app.behaves_next([Behaviour::Answer { status: 200, headers: vec![], body }]);
            let answer = gateway.send(&of("GET", target, "")).await;
            assert!(!answer.is_duplicate() && answer.text() == text, "{target}: {answer:?}");
            asked += 1;
            assert_eq!(app.count(), asked);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_nothing_in_it_is_no_repeat_of_another() {
    let app = App::start().await;
    let gateway = gateway()
        .route(token("/buffered", "buffer").to(&app))
        .route(token("/nameless", "buffer").set("idempotency", json!({"key": "header:X-Id"})).to(&app))
        .route(token("/proxied", "proxy").to(&app))
        .start()
        .await;
    for request in [
        of("POST", "/buffered", ""),
        of("POST", "/nameless", ""),
        of("POST", "/buffered?", ""),
        of("GET", "/buffered", ""),
        of("POST", "/proxied", ""),
    ] {
        for _ in 0..3 {
            let answer = gateway.send(&request).await;
            assert!(answer.is_success() && !answer.is_duplicate(), "{request:?}: {answer:?}");
        }
    }
    let received = app.receives(15).await;
    let ids: HashSet<_> = received.iter().map(Received::event_id).collect();
    assert_eq!(ids.len(), 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_one_rule_tells_apart_share_no_ids() {
    let app = App::start().await;
    let route = |name: &str, mode: &str, verify: serde_json::Value| {
        Route::new(json!({
            "name": name, "path": format!("/{name}"), "mode": mode, "verify": verify, "idempotency": {"key": "body:/id"},
        }))
        .to(&app)
    };
    let basic = json!({"basic": {"users": [
        {"name": "anna", "password": "file:secrets/a"}, {"name": "ben", "password": "file:secrets/b"},
    ]}});
    let keys = json!({"api_key": {"header": "X-Key", "keys": [
        {"secret": "file:secrets/a", "label": "anna"}, {"secret": "file:secrets/b", "label": "ben"},
    ]}});
    let jwt = json!({"jwt": {"algorithms": ["HS256"], "secrets": ["file:secrets/jwt"]}});
    let mut builder = gateway();
    for (mode, suffix) in [("buffer", ""), ("proxy", "-proxied")] {
        for (name, rule) in [("basic", &basic), ("keys", &keys), ("jwt", &jwt)] {
            let route = route(&format!("{name}{suffix}"), mode, rule.clone());
            builder = builder
                .route(route.secret("a", "of-anna").secret("b", "of-ben").secret("jwt", signed::JWT_SECRET));
        }
    }
    let gateway = builder.start().await;
    let request = |path: &str, who: &str, body: &str| {
        let request = Request::post(path, body).header("X-Key", &format!("of-{who}"));
        let authorization = if path.contains("jwt") {
            format!("Bearer {}", signed::jwt(&json!({"sub": who, "exp": now() + 300})))
        } else {
            format!("Basic {}", STANDARD.encode(format!("{who}:of-{who}")))
        };
        request.header("Authorization", &authorization)
    };
    for path in ["/basic", "/keys", "/jwt", "/basic-proxied", "/keys-proxied", "/jwt-proxied"] {
        let requests = ["anna", "ben"]
            .map(|who| request(path, who, &format!(r#"{{"id":1,"path":"{path}","of":"{who}"}}"#)));
        are_told_apart(&gateway, &app, &requests).await;
        // The id alone makes it a repeat.
        assert!(gateway.send(&request(path, "anna", r#"{"id":1}"#)).await.is_duplicate(), "{path}");
    }
}
