//! Promise 4: bytes are sacred, in every mode, over every protocol.

use crate::support::app::Speaks;
use crate::support::*;

const KIB: usize = 1024;
const SIZES: [usize; 6] = [0, 63 * KIB, 64 * KIB, 65 * KIB, 1024 * KIB, 10 * 1024 * KIB];

/// Bodies of all sizes, by length and in chunks, over all protocols, to one route.
async fn bodies_arrive(route: Route, target: &str) {
    let app = App::start().await;
    let gateway = gateway().route(route.to(&app).set("max_body", "12MiB")).start().await;
    for via in [Via::Plain, Via::Tls, Via::Http2] {
        for size in SIZES {
            for chunk in [None, Some(7_001)] {
                app.forget();
                let body = noise(size);
                let mut request = Request::post(target, body.clone())
                    .header("Content-Type", "application/octet-stream")
                    .header("Content-Encoding", "gzip"); // a lie, which is none of the gateway's business
                if let Some(chunk) = chunk {
                    request = request.chunked(chunk);
                }
                let answer = gateway.send_via(via, &request).await;
                let case = format!("{via:?}, {size} bytes, chunks of {chunk:?}");
                assert!(answer.is_success(), "{case}: {answer:?}");
                let received = app.receives(1).await.remove(0);
                assert_eq!(received.body.len(), size, "{case}");
                assert_eq!(sha256(&received.body), sha256(&body), "{case}");
                let expected = format!("POST {target} HTTP/1.1");
                assert_eq!(received.request_line, expected, "{case}");
            }
        }
    }
}

fn open(mode: &str) -> Route {
    // Without a key, because equal bodies would be repeats.
    unverified("/in").set("idempotency", "off").mode(mode)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_arrives_whole_in_buffer_mode() {
    bodies_arrive(open("buffer"), "/in").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_arrives_whole_in_proxy_mode() {
    bodies_arrive(open("proxy"), "/in").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_arrives_whole_in_pass_mode() {
    bodies_arrive(pass(), "/app/in").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_comes_back_whole_in_proxy_and_pass_mode() {
    let app = App::start().await;
    let gateway = gateway().route(open("proxy").to(&app)).route(pass().to(&app)).start().await;
    for (target, via) in
        [("/in", Via::Tls), ("/in", Via::Http2), ("/app/in", Via::Tls), ("/app/in", Via::Http2)]
    {
        for size in SIZES {
            let body = noise(size);
            let headers = vec![
                ("X-One", "1".to_owned()),
                ("Set-Cookie", "a=1".to_owned()),
                ("Set-Cookie", "b=2".to_owned()),
                ("Connection", "X-Hop".to_owned()),
                ("X-Hop", "for the next hop only".to_owned()),
            ];
            app.behaves_next([Behaviour::Answer { status: 418, headers, body: body.clone() }]);
            let answer = gateway.send_via(via, &Request::post(target, "x")).await;
            assert_eq!(answer.status, 418, "{target} {via:?} {size}");
            assert_eq!(sha256(&answer.body), sha256(&body), "{target} {via:?} {size}");
            let cookies: Vec<_> =
                answer.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie")).collect();
            assert_eq!(cookies.len(), 2, "{answer:?}");
            assert_eq!(answer.header("x-hop"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_protocol_of_the_app_gets_the_same_bytes() {
    for speaks in [Speaks::Http1, Speaks::Http1Tls, Speaks::Http2, Speaks::Http2Tls] {
        let app = App::speaking(speaks).await;
        let mut routes = gateway();
        for mode in ["buffer", "proxy"] {
            let mut route = unverified(&format!("/{mode}"))
                .mode(mode)
                .to(&app)
                .delivery("tls", json!({"ca": "tls/ca.pem"}));
            if matches!(speaks, Speaks::Http1 | Speaks::Http2) {
                route = unverified(&format!("/{mode}")).mode(mode).to(&app);
            }
            if matches!(speaks, Speaks::Http2 | Speaks::Http2Tls) {
                route = route.delivery("http", 2);
            }
            routes = routes.route(route);
        }
        let gateway = routes.start().await;
        for mode in ["buffer", "proxy"] {
            app.forget();
            let body = noise(300 * KIB);
            let answer =
                gateway.send(&Request::post(&format!("/{mode}"), body.clone()).header("X-A", "b")).await;
            assert!(answer.is_success(), "{speaks:?} {mode}: {answer:?}");
            let received = app.receives(1).await.remove(0);
            assert_eq!(sha256(&received.body), sha256(&body), "{speaks:?} {mode}");
            assert_eq!(received.header("x-a"), Some("b"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_keep_their_order_case_and_repeats_and_lose_what_is_for_one_hop() {
    let app = App::start().await;
    let gateway = gateway()
        .route(unverified("/buffer").to(&app))
        .route(unverified("/proxy").mode("proxy").to(&app))
        .route(pass().to(&app))
        .start()
        .await;
    for target in ["/buffer", "/proxy", "/app/x"] {
        app.forget();
        let request = Request::post(target, "body")
            .header("Host", "Hooks.Example.com:8443")
            .header("X-zeta", "1")
            .header("x-ALPHA", "caf\u{e9}") // one byte that is no UTF-8
            .header("X-Zeta", "2")
            .header("Cookie", "a=b; c=d")
            .header("X-Empty", "")
            .header("X-Long", &"y".repeat(4_000))
            .header("Connection", "X-Mine, keep-alive")
            .header("X-Mine", "for you only")
            .header("Keep-Alive", "timeout=5")
            .header("TE", "trailers")
            .header("Proxy-Authorization", "Basic eDp5")
            .header("X-Omega", "last");
        let answer = gateway.send_via(Via::Plain, &request).await;
        assert!(answer.is_success(), "{target}: {answer:?}");
        let received = app.receives(1).await.remove(0);
        let theirs: Vec<_> = received
            .headers
            .iter()
            .filter(|(name, _)| {
                name.to_ascii_lowercase().starts_with("x-") && !name.to_ascii_lowercase().starts_with("x-f")
            })
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        let expected = [
            ("X-zeta", "1".to_owned()),
            ("x-ALPHA", "caf\u{e9}".to_owned()),
            ("X-Zeta", "2".to_owned()),
            ("X-Empty", String::new()),
            ("X-Long", "y".repeat(4_000)),
            ("X-Omega", "last".to_owned()),
        ];
        assert_eq!(theirs, expected, "{target}");
        assert_eq!(received.all("host"), ["Hooks.Example.com:8443"], "{target}: the sender's Host is kept");
        assert_eq!(received.header("cookie"), Some("a=b; c=d"));
        for gone in ["x-mine", "keep-alive", "te", "proxy-authorization"] {
            assert_eq!(received.header(gone), None, "{target}: {gone} is for one hop");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_and_query_arrive_as_they_were_sent() {
    let app = App::start().await;
    let gateway = gateway()
        .route(unverified("/in/*").to(&app))
        .route(unverified("/proxy/*").named("proxy").mode("proxy").to(&app))
        .route(pass().to(&app))
        .start()
        .await;
    let tails = [
        "a%20b",
        "a+b?x=1&x=2&y",
        "%E2%82%AC?q=%F0%9F%98%80",
        "a;b=c?",
        "a?u=http://h/p?x#".trim_end_matches('#'),
        "A%2fb",
    ];
    for prefix in ["/in/", "/proxy/", "/app/"] {
        for tail in tails {
            app.forget();
            let target = format!("{prefix}{tail}");
            let answer = gateway.send_via(Via::Plain, &Request::post(&target, target.clone())).await;
            assert!(answer.is_success(), "{target}: {answer:?}");
            let received = app.receives(1).await.remove(0);
            assert_eq!(received.request_line, format!("POST {target} HTTP/1.1"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_can_verify_the_signature_itself() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).route(stripe().to(&app)).start().await;
    for event in [signed::github(push()), signed::stripe(invoice_paid())] {
        app.forget();
        gateway.send(&event).await;
        let received = app.receives(1).await.remove(0);
        assert_eq!(received.body, event.body);
        for (name, value) in &event.headers {
            assert_eq!(received.all(name), [value], "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_app_learns_what_the_gateway_knows_and_no_stranger_can_pretend() {
    let app = App::start().await;
    let gateway = gateway()
        .route(github().to(&app))
        .route(unverified("/proxy").mode("proxy").to(&app))
        .route(pass().to(&app))
        .start()
        .await;
    let lies = |request: Request| {
        request
            .header("tidegate-event-id", "0")
            .header("Tidegate-Verified", "stripe")
            .header("TIDEGATE-ATTEMPT", "99")
            .header("tidegate-anything", "x")
            .header("X-Forwarded-For", "203.0.113.7")
            .header("X-Forwarded-Proto", "ftp")
            .header("X-Forwarded-Host", "evil.example")
            .header("Forwarded", "for=203.0.113.7;host=evil.example")
            .header("X-Real-IP", "203.0.113.7")
    };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = signed::github(push()).header("traceparent", trace);
    for (request, verified) in [
        (traced, Some("github")),
        (Request::post("/proxy", "x"), Some("none")),
        (Request::post("/app/x", "x"), None),
    ] {
        app.forget();
        let answer = gateway.send(&lies(request.clone())).await;
        assert!(answer.is_success(), "{answer:?}");
        let received = app.receives(1).await.remove(0);
        let case = &request.target;
        assert_eq!(received.header("tidegate-verified"), verified, "{case}");
        assert_eq!(received.all("tidegate-event-id").len(), usize::from(verified.is_some()), "{case}");
        assert_eq!(received.attempt(), u32::from(verified.is_some()), "{case}");
        assert_eq!(received.header("tidegate-anything"), None, "{case}");
        if verified.is_some() {
            assert_eq!(received.event_id(), answer.event_id(), "{case}");
            assert!(received.header("tidegate-received-at").is_some(), "{case}");
        }
        assert_eq!(received.all("x-forwarded-for"), ["127.0.0.1"], "{case}");
        assert_eq!(received.all("x-forwarded-proto"), ["https"], "{case}");
        let everything = format!("{:?}", received.headers);
        assert!(
            !everything.contains("203.0.113.7") && !everything.contains("evil.example"),
            "{case}: {everything}"
        );
    }
    let first = app.received();
    drop(first);
    app.forget();
    gateway.send(&signed::github(push()).header("traceparent", trace)).await;
    let received = app.receives(1).await.remove(0);
    let carried = received.header("traceparent").unwrap_or_default().to_owned();
    assert!(carried.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "the trace goes on: {carried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_both_ways() {
    let app = App::start().await;
    let gateway = gateway().route(pass().to(&app)).start().await;
    for tls in [false, true] {
        let mut connection = if tls { gateway.connect_tls().await } else { gateway.connect().await };
        let upgrade = "GET /app/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        connection.write(upgrade.as_bytes()).await.expect("written");
        let answer = connection.answer().await.expect("an answer").expect("not closed");
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for size in [1, 100, 70_000] {
            let bytes = noise(size);
            connection.write(&bytes).await.expect("written");
            assert_eq!(
                sha256(&connection.read_exact(size).await.expect("the echo")),
                sha256(&bytes),
                "tls: {tls}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_headers_are_set_and_removed() {
    let app = App::start().await;
    let changes = json!({"set": {"X-Internal": "1"}, "remove": ["Cookie"]});
    let gateway = gateway().route(unverified("/in").to(&app).delivery("headers", changes)).start().await;
    gateway.send(&Request::post("/in", "x").header("Cookie", "a=b").header("X-Internal", "spoofed")).await;
    let received = app.receives(1).await.remove(0);
    assert_eq!(received.all("x-internal"), ["1"]);
    assert_eq!(received.header("cookie"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_name_that_an_app_could_take_for_ours_gets_through() {
    let app = App::start().await;
    let gateway = gateway()
        .route(unverified("/buffered").to(&app))
        .route(unverified("/proxied").mode("proxy").to(&app))
        .route(pass().to(&app))
        .start()
        .await;
    // Apps behind CGI, WSGI and the like read `_` and `-` as the same.
    let names = [
        "tidegate-verified",
        "Tidegate-Event-Id",
        "tidegate_verified",
        "TIDEGATE_EVENT-ID",
        "X-Forwarded-For",
        "x_forwarded_for",
        "X_Forwarded-Proto",
        "X_Real_IP",
        "Forwarded",
    ];
    for via in [Via::Plain, Via::Http2] {
        for target in ["/buffered", "/proxied", "/app/x"] {
            app.forget();
            let request = names
                .iter()
                .fold(Request::post(target, unique_id()), |request, name| request.header(name, "forged"));
            assert!(gateway.send_via(via, &request.header("x_kept", "kept")).await.is_success());
            let received = app.receives(1).await.remove(0);
            let forged = received.headers.iter().find(|(_, value)| value.contains("forged"));
            assert_eq!(forged, None, "{via:?} {target}");
            assert_eq!(received.header("x_kept"), Some("kept"), "{via:?} {target}");
        }
    }
}
