//! Several destinations of a route: who gets what, and in which form.

use serde_json::Value;

use crate::support::*;

/// A route with these destinations, each `(name, url of its app, more keys)`.
fn to(route: Route, destinations: &[(&str, &App, Value)]) -> Route {
    let list: Vec<Value> = destinations
        .iter()
        .map(|(name, app, more)| {
            let mut destination = json!({"name": name, "url": app.url()});
            let own = more.as_object().expect("keys").clone();
            destination.as_object_mut().expect("keys").extend(own);
            destination
        })
        .collect();
    route.set("forward_to", list)
}

fn event(kind: &str, amount: u32) -> Request {
    signed::stripe(json!({"id": unique_id(), "type": kind, "amount": amount}).to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_destination_gets_the_events_that_it_wants() {
    let (all, paid, large) = (App::start().await, App::start().await, App::start().await);
    let route = to(
        stripe(),
        &[
            ("all", &all, json!({})),
            ("paid", &paid, json!({"when": {"event_type": {"prefix": "invoice.p"}}})),
            (
                "large",
                &large,
                json!({"when": {"any": [{"body:/amount": {"gt": 100}}, {"query:all": "yes"}]}}),
            ),
        ],
    );
    let gateway = gateway().route(route).start().await;
    for event in
        [event("invoice.paid", 50), event("invoice.sent", 500), event("x", 1).to("/hooks/stripe?all=yes")]
    {
        assert_eq!(gateway.send(&event).await.status, 202);
    }
    gateway.drained().await;
    assert_eq!((all.count(), paid.count(), large.count()), (3, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_is_acknowledged_and_counted_and_kept_or_not() {
    let app = App::start().await;
    let only = json!({"when": {"event_type": "invoice.paid"}});
    for (unwanted, kept) in [(None, 1.0), (Some("keep"), 1.0), (Some("drop"), 0.0)] {
        let mut route = to(stripe(), &[("app", &app, only.clone())]);
        if let Some(word) = unwanted {
            route = route.set("unwanted", word);
        }
        let gateway = gateway().route(route).start().await;
        let nobodys = event("customer.created", 1);
        let answer = gateway.send(&nobodys).await;
        assert_eq!(answer.status, 202);
        assert_eq!(gateway.send(&nobodys).await.is_duplicate(), kept > 0.0);
        // One that is kept is there when it comes again; one that is dropped is unwanted again.
        let unwanted = if kept > 0.0 { 1.0 } else { 2.0 };
        gateway.counts("tidegate_requests_total", &[("outcome", "unwanted")], unwanted).await;
        assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, kept);
        assert_eq!((gateway.backlog().await, app.count()), (0.0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_added_gets_what_comes_and_not_what_was() {
    let (old, new) = (App::start().await, App::start().await);
    let mut gateway = gateway().route(to(stripe(), &[("old", &old, json!({}))])).start().await;
    assert_eq!(gateway.send(&event("a", 1)).await.status, 202);
    gateway.drained().await;
    gateway.builder.routes = vec![to(stripe(), &[("old", &old, json!({})), ("new", &new, json!({}))])];
    gateway.rewrite_config();
    gateway.reload().await;
    assert_eq!(gateway.send(&event("b", 1)).await.status, 202);
    gateway.drained().await;
    assert_eq!((old.count(), new.count()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_filter_is_refused_with_its_place() {
    let app = App::start().await;
    let route =
        to(stripe(), &[("app", &app, json!({"when": {"body:/n": {"gt": "many"}, "event_tpye": "a"}}))]);
    let output = match gateway().route(route).try_start().await {
        Ok(_) => panic!("it must not start"),
        Err(ended) => ended.output,
    };
    for text in [
        "this is not a number",
        "`event_tpye` is no place",
        "did you mean `event_type`?",
        "forward_to[0].when",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_destination_gets_its_own_form_of_the_head_and_the_same_body() {
    let (plain, own) = (App::start().await, App::start().await);
    let form = json!({
        "headers": {"rename": {"Stripe-Signature": "X-Stripe"}, "set": {"X-Own": "1"}, "remove": ["X-Gone"]},
        "path": {"match": "/hooks/(.*)", "to": "/v2/$1/in"},
    });
    let route = to(stripe(), &[("plain", &plain, json!({})), ("own", &own, form)]);
    let gateway = gateway().route(route).start().await;
    let sent = event("a", 1).header("X-Gone", "1").header("X-Stripe", "forged").to("/hooks/stripe?a=%2f&b");
    assert_eq!(gateway.send(&sent).await.status, 202);
    let (plain, own) = (plain.receives(1).await.remove(0), own.receives(1).await.remove(0));
    assert!(plain.request_line.starts_with("POST /hooks/stripe?a=%2f&b "), "{}", plain.request_line);
    assert!(own.request_line.starts_with("POST /v2/stripe/in?a=%2f&b "), "{}", own.request_line);
    assert_eq!(own.all("x-stripe"), [plain.header("stripe-signature").unwrap()]);
    assert_eq!(
        (own.header("stripe-signature"), own.header("x-gone"), own.header("x-own")),
        (None, None, Some("1"))
    );
    assert_eq!((plain.header("x-gone"), plain.header("x-own")), (Some("1"), None));
    assert_eq!(plain.body, own.body);
    assert_eq!(plain.body, sent.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_of_signing_proves_to_the_app_who_sends() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let apps = [App::start().await, App::start().await, App::start().await, App::start().await];
    let hmac = json!({"scheme": "hmac", "secret": "env:SIGNING", "signed": "{timestamp}.{id}.{body}",
        "header": "X-Sig", "prefix": "v1=", "timestamp_header": "X-Time"});
    let route = to(
        stripe(),
        &[
            (
                "standard",
                &apps[0],
                json!({"sign": {"scheme": "standard-webhooks", "secret": "env:STANDARD"}}),
            ),
            ("hmac", &apps[1], json!({"sign": hmac})),
            ("basic", &apps[2], json!({"sign": {"scheme": "basic", "user": "u", "secret": "env:SIGNING"}})),
            ("bearer", &apps[3], json!({"sign": {"scheme": "bearer", "secret": "env:SIGNING"}})),
        ],
    );
    let gateway = gateway()
        .route(route)
        .env("SIGNING", "between-us")
        .env("STANDARD", &format!("whsec_{}", STANDARD.encode("a standard key")))
        .start()
        .await;
    let sent = event("a", 1)
        .header("webhook-signature", "v1,forged")
        .header("Authorization", "Bearer forged")
        .header("X_Sig", "forged");
    let id = gateway.send(&sent).await.event_id().to_owned();
    let mut got = Vec::new();
    for app in &apps {
        got.push(app.receives(1).await.remove(0));
    }
    assert!(got.iter().all(|one| one.body == sent.body));
    let time = got[0].header("webhook-timestamp").unwrap();
    assert!(time.parse::<u64>().unwrap().abs_diff(now()) < 60);
    let signed_bytes = [format!("{id}.{time}.").as_bytes(), &sent.body[..]].concat();
    let expected = STANDARD.encode(signed::hmac_sha256(b"a standard key", &signed_bytes));
    assert_eq!(got[0].all("webhook-signature"), [format!("v1,{expected}")]);
    assert_eq!(got[0].header("webhook-id"), Some(id.as_str()));
    let time = got[1].header("x-time").unwrap();
    let signed_bytes = [format!("{time}.{id}.").as_bytes(), &sent.body[..]].concat();
    let expected = format!("v1={}", hex::encode(signed::hmac_sha256(b"between-us", &signed_bytes)));
    assert_eq!((got[1].all("x-sig"), got[1].header("x_sig")), (vec![expected.as_str()], None));
    let basic = format!("Basic {}", STANDARD.encode("u:between-us"));
    assert_eq!(got[2].all("authorization"), [basic]);
    assert_eq!(got[3].all("authorization"), ["Bearer between-us"]);
}

fn token(text: &str, secs: u64) -> Behaviour {
    let body = json!({"access_token": text, "token_type": "Bearer", "expires_in": secs}).to_string();
    Behaviour::Answer { status: 200, headers: vec![], body: body.into_bytes() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_from_an_issuer_whose_certificate_is_of_a_private_authority() {
    let (app, issuer) = (App::start().await, App::speaking(app::Speaks::Http1Tls).await);
    issuer.behaves(token("one", 3600));
    let sign = json!({"scheme": "oauth2", "secret": "env:CLIENT", "client_id": "tidegate", "ca": "tls/ca.pem",
        "token_url": format!("{}/token", issuer.url())});
    let gateway = gateway().route(to(stripe(), &[("app", &app, json!({"sign": sign}))]));
    let gateway = gateway.env("CLIENT", "s").start().await;
    assert_eq!(gateway.send(&event("a", 1)).await.status, 202);
    assert_eq!(app.receives(1).await[0].all("authorization"), ["Bearer one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_fetched_once_shared_and_renewed_when_the_app_refuses_it() {
    let (app, issuer) = (App::start().await, App::start().await);
    let sign = json!({"scheme": "oauth2", "secret": "env:CLIENT", "client_id": "tide gate", "scope": "hooks write",
        "token_url": format!("{}/token", issuer.url())});
    issuer.behaves_next([Behaviour::status(503), token("one", 3600)]);
    let route = to(stripe(), &[("app", &app, json!({"sign": sign}))]);
    let gateway = gateway().route(route).env("CLIENT", "s:1").start().await;
    // Without a token nothing is tried and nothing is lost: the first fetch fails.
    for n in 0..5 {
        assert_eq!(gateway.send(&event("a", n)).await.status, 202);
    }
    let received = app.receives(5).await;
    assert!(received.iter().all(|one| one.all("authorization") == ["Bearer one"] && one.attempt() == 1));
    let asked = issuer.received();
    assert_eq!(asked.len(), 2, "one that failed, and one for all");
    assert_eq!(asked[1].header("authorization"), Some("Basic dGlkZSUyMGdhdGU6cyUzQTE="));
    assert_eq!(asked[1].body, b"grant_type=client_credentials&scope=hooks%20write");

    // Neither does a token that can't be renewed use up an attempt, though the app refuses the last one.
    app.forget();
    app.behaves(Behaviour::status(401));
    issuer.behaves(Behaviour::status(503));
    assert_eq!(gateway.send(&event("a", 10)).await.status, 202);
    eventually("the issuer was asked", async || issuer.count() >= 3).await;
    eventually("the log says it", async || gateway.log().contains("no OAuth2 token: status 503")).await;
    app.behaves(Behaviour::By(|_| Behaviour::status(200)));
    gateway.drained().await;
    assert!(app.received().iter().all(|one| one.attempt() == 1), "nothing was charged");

    app.forget();
    app.behaves_next([Behaviour::status(401)]);
    issuer.behaves(token("two", 3600));
    let fetches = issuer.count();
    assert_eq!(gateway.send(&event("a", 9)).await.status, 202);
    let received = app.receives(2).await;
    assert_eq!(received[0].all("authorization"), ["Bearer one"]);
    assert_eq!(received[1].all("authorization"), ["Bearer two"]);
    assert!(received.iter().all(|one| one.attempt() == 1), "one attempt");
    gateway.drained().await;
    assert_eq!(issuer.count(), fetches + 1);

    // An app that refuses fresh tokens as well does not have a new one fetched for each request.
    app.forget();
    app.behaves(Behaviour::status(401));
    for n in 20..25 {
        assert_eq!(gateway.send(&event("a", n)).await.status, 202);
    }
    app.receives(5).await;
    assert_eq!(issuer.count(), fetches + 1);
    app.behaves(Behaviour::By(|_| Behaviour::status(200)));
    gateway.drained().await;
}
