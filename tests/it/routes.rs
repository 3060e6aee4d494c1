//! Which route a request takes, and who may come.

use crate::support::*;

async fn taken(gateway: &Gateway, request: Request) -> (u16, String) {
    let answer = gateway.send_via(Via::Plain, &request).await;
    let text = if answer.is_success() { answer.text() } else { answer.reason().to_owned() };
    (answer.status, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_specific_route_wins() {
    let app = App::start().await;
    // Each route's acknowledgement is its own name.
    let route = |name: &str, path: &str| {
        unverified(path)
            .named(name)
            .to(&app)
            .set("idempotency", "off")
            .set("answer", json!({"status": 200, "body": name}))
    };
    let gateway = gateway()
        .route(route("exact", "/hooks/stripe"))
        .route(route("parameter", "/hooks/{provider}"))
        .route(route("deeper", "/hooks/{provider}/{account}"))
        .route(route("below", "/hooks/*"))
        .route(route("host", "/hooks/stripe").set("host", "other.example"))
        .route(route("get", "/only").set("methods", json!(["GET"])))
        .route(route("post", "/only").set("methods", json!(["POST"])))
        .start()
        .await;
    let post = |target: &str| Request::post(target, "x");
    let cases = [
        (post("/hooks/stripe"), 200, "exact"),
        (post("/hooks/stripe?a=b"), 200, "exact"),
        (post("/hooks/github"), 200, "parameter"),
        (post("/hooks/github/acme"), 200, "deeper"),
        (post("/hooks/github/acme/more"), 200, "below"),
        (post("/hooks/stripe").header("Host", "other.example"), 200, "host"),
        (post("/hooks/stripe").header("Host", "OTHER.example.:443"), 200, "host"),
        (Request::get("/only"), 200, "get"),
        (post("/only"), 200, "post"),
        (Request::new("PUT", "/only", "x"), 405, "method_not_allowed"),
        (post("/"), 404, "no_route"),
        (post("/hooksx"), 404, "no_route"),
    ];
    for (request, status, expected) in cases {
        let what = format!("{} {} {:?}", request.method, request.target, request.headers);
        assert_eq!(taken(&gateway, request).await, (status, expected.to_owned()), "{what}");
    }
    let answer = gateway.send(&Request::new("PUT", "/only", "x")).await;
    let allow = answer.header("allow").unwrap_or_default();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");

    let explained = gateway.cli_json(&["routes", "--explain", "POST https://localhost/hooks/github"]).await;
    assert!(explained.to_string().contains("parameter"), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_routes_are_a_config_error() {
    let app = App::start().await;
    let same = |name: &str, path: &str| unverified(path).named(name).to(&app);
    let ended = gateway()
        .route(same("one", "/hooks/{a}"))
        .route(same("two", "/hooks/{b}"))
        .try_start()
        .await
        .err()
        .expect("refused");
    assert_eq!(ended.code, Some(78));
    assert!(ended.output.contains("one") && ended.output.contains("two"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_allowed_addresses_come_in_and_only_trusted_hops_speak_for_others() {
    let app = App::start().await;
    let route = |path: &str, allow: serde_json::Value| {
        unverified(path).to(&app).set("idempotency", "off").set("allow", allow)
    };
    let gateway = gateway()
        .listener("trusted_hops", json!(["127.0.0.0/8"]))
        .route(route("/office", json!(["192.0.2.0/24", "2001:db8::/32"])))
        .route(route("/local", json!(["127.0.0.1"])))
        .route(route("/mapped", json!(["::ffff:192.0.2.0/120"])))
        .start()
        .await;
    let status = async |target: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::post(target, "x"), |request, (n, v)| request.header(n, v));
        gateway.send(&request).await.status
    };
    assert_eq!(status("/local", &[]).await, 202);
    assert_eq!(status("/office", &[]).await, 403);
    assert_eq!(status("/office", &[("X-Forwarded-For", "192.0.2.7")]).await, 202);
    assert_eq!(status("/office", &[("X-Forwarded-For", "2001:db8::7")]).await, 202);
    assert_eq!(status("/office", &[("X-Forwarded-For", "::ffff:192.0.2.7")]).await, 202);
    assert_eq!(status("/mapped", &[("X-Forwarded-For", "192.0.2.7")]).await, 202);
    assert_eq!(status("/office", &[("Forwarded", "for=192.0.2.7;proto=https")]).await, 202);
    // Read from the right: what stands left of the first stranger is the stranger's word.
    assert_eq!(status("/office", &[("X-Forwarded-For", "192.0.2.7, 203.0.113.9")]).await, 403);
    assert_eq!(status("/office", &[("X-Forwarded-For", "203.0.113.9, 192.0.2.7")]).await, 202);
    assert_eq!(status("/office", &[("X-Forwarded-For", "192.0.2.7, 127.0.0.5")]).await, 202);
    assert_eq!(status("/office", &[("X-Forwarded-For", "not an address")]).await, 403);
    assert_eq!(status("/local", &[("X-Forwarded-For", "203.0.113.9")]).await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_trusted_hops_nobody_speaks_for_others() {
    let app = App::start().await;
    let gateway =
        gateway().route(unverified("/office").to(&app).set("allow", json!(["192.0.2.0/24"]))).start().await;
    let answer = gateway.send(&Request::post("/office", "x").header("X-Forwarded-For", "192.0.2.7")).await;
    assert_eq!((answer.status, answer.reason()), (403, "address_not_allowed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_before_its_body_is_read() {
    let app = App::start().await;
    let gateway =
        gateway().route(unverified("/in").to(&app).set("allow", json!(["192.0.2.1"]))).start().await;
    let mut connection = gateway.connect().await;
    let head = "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
    connection.write(head.as_bytes()).await.expect("written");
    let answer = connection.answer().await.expect("an answer").expect("not closed");
    assert_eq!(answer.status, 403, "and no 100 before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listeners_own_list_holds_for_all_its_routes() {
    let app = App::start().await;
    let gateway =
        gateway().listener("allow", json!(["192.0.2.0/24"])).route(unverified("/in").to(&app)).start().await;
    // Closed at once, or told: never served.
    if let Ok(answer) = gateway.try_send(Via::Plain, &Request::post("/in", "x")).await {
        assert_eq!(answer.status, 403);
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_100_continue_is_answered_once_the_head_is_fine() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").to(&app)).start().await;
    let mut connection = gateway.connect().await;
    let head = "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    connection.write(head.as_bytes()).await.expect("written");
    let first = connection.answer().await.expect("an answer").expect("not closed");
    assert_eq!(first.status, 100);
    connection.write(b"hello").await.expect("written");
    let second = connection.answer().await.expect("an answer").expect("not closed");
    assert_eq!(second.status, 202);
    assert_eq!(app.receives(1).await[0].body, b"hello");
}
