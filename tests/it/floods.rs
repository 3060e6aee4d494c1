//! Promise 5 under HTTP/2: who floods a connection is cut off or held up, and nobody else notices.

use std::time::{Duration, Instant};

use crate::support::config::provider;
use crate::support::frames::{END_HEADERS, END_STREAM, Kind, Raw, block, frame, setting};
use crate::support::*;

/// MiB that the gateway holds in memory.
fn rss(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

/// A gateway that is served while `flood` runs: everybody else's requests are answered in time, and its memory stays.
async fn others_are_served_during(what: &str, flood: impl AsyncFnOnce(&Gateway)) {
    let app = App::start().await;
    let limits = json!({"header_timeout": "2s", "body_timeout": "2s", "idle_timeout": "1s"});
    let gateway = gateway()
        .section("limits", limits)
        .route(unverified("/in").to(&app))
        .route(unverified("/proxy").mode("proxy").set("idempotency", "off").to(&app))
        .start()
        .await;
    // Warm: what it needs for any load is there.
    for n in 0..200 {
        gateway.send_via(Via::Http2, &Request::post("/in", format!("warm {n}"))).await;
    }
    let before = rss(&gateway);
    let (mut served, mut most, mut slowest) = (0, before, Duration::ZERO);
    let over = std::cell::Cell::new(false);
    let others = async {
        // At least a few, however short the flood is.
        while !over.get() || served < 5 {
            let began = Instant::now();
            let answer = gateway.send_via(Via::Http2, &Request::post("/in", unique_id())).await;
            assert_eq!(answer.status, 202, "{what}");
            slowest = slowest.max(began.elapsed());
            served += 1;
            most = most.max(rss(&gateway));
        }
    };
    tokio::join!(others, async {
        flood(&gateway).await;
        over.set(true);
    });
    println!(
        "{what}: {served} others served, the slowest in {slowest:?}; {before} MiB before, {most} MiB at most"
    );
    assert!(slowest < Duration::from_secs(10), "{what}: an answer took {slowest:?}");
    assert!(most < before + 64, "{what}: from {before} to {most} MiB");
    assert_eq!(gateway.send(&Request::post("/in", unique_id())).await.status, 202, "{what}: afterwards");
    gateway.drained().await;
    let floods = app.received().iter().filter(|received| received.body.is_empty()).count();
    assert_eq!(floods, 0, "{what}: nothing of the flood is an event");
    assert!(!gateway.log().contains("panicked"), "{what}: {}", gateway.log());
}

/// Bodies of which each byte would be a field or an element, from whoever can reach the path: no work grows with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_nothing_but_fields_cost_no_more_than_their_bytes() {
    const BYTES: usize = 10 * 1024 * 1024 - 64;
    let app = App::start().await;
    let graph = json!({"provider": "microsoft-graph", "client_state": "file:secrets/twilio.secret"});
    let gateway = gateway()
        .route(provider("twilio", "/twilio", "a-secret-of-twilio").to(&app))
        .route(provider("mailgun", "/mailgun", "a-secret-of-mailgun").to(&app))
        .route(Route::new(json!({"name": "graph", "path": "/graph", "verify": graph})).to(&app))
        .start()
        .await;
    let form = |path: &str| {
        Request::post(path, b"a&".repeat(BYTES / 2))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Twilio-Signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    };
    let elements = format!("{{\"value\":[{}{{}}]}}", "{},".repeat(BYTES / 3 - 10));
    let before = rss(&gateway);
    let mut most = before;
    for (request, reason) in [
        (form("/twilio"), "ambiguous_request"),
        (form("/mailgun"), "ambiguous_request"),
        (Request::post("/graph", elements), "signature_invalid"),
    ] {
        let over = std::cell::Cell::new(false);
        let watched = async {
            while !over.get() {
                most = most.max(rss(&gateway));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let sent = async {
            let answer = gateway.send_via(Via::Plain, &request).await;
            over.set(true);
            answer
        };
        let ((), answer) = tokio::join!(watched, sent);
        println!("{}: {before} MiB before, {most} at most until now", request.target);
        assert_eq!((answer.status, answer.reason()), (401, reason), "{}", request.target);
    }
    // Three bodies, each at most twice while it is put together, and the allocator gives nothing back at once: 60 MiB.
    // One word of memory for each field would be 40 MiB a body, a pair of texts 160.
    assert!(most < before + 128, "from {before} to {most} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rapid_reset() {
    others_are_served_during("rapid reset", async |gateway| {
        let mut raw = Raw::connect(gateway, &[]).await;
        let head = block("/in", &[]);
        let times = raw
            .flood(10_000, |time| {
                let stream = 2 * time as u32 + 1;
                let cancel = 8u32.to_be_bytes();
                [frame(Kind::Headers, END_HEADERS, stream, &head), frame(Kind::RstStream, 0, stream, &cancel)]
                    .concat()
            })
            .await;
        assert!(raw.closes_within(PATIENCE).await, "the connection is cut after {times} resets");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_continuations() {
    others_are_served_during("continuations", async |gateway| {
        let mut raw = Raw::connect(gateway, &[]).await;
        let head = block("/in", &[]);
        raw.write(&frame(Kind::Headers, 0, 1, &head)).await.expect("written");
        let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(100);
        let times = raw.flood(10_000, |_| frame(Kind::Continuation, 0, 1, &field)).await;
        assert!(times < 1_000, "{times} frames were taken");
        assert!(raw.closes_within(PATIENCE).await, "the connection is cut");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_want_an_answer() {
    let cases = [
        ("pings", frame(Kind::Ping, 0, 0, &[0; 8])),
        ("settings", frame(Kind::Settings, 0, 0, &setting(4, 65_535))),
        ("window updates", frame(Kind::WindowUpdate, 0, 0, &1u32.to_be_bytes())),
        ("priorities", frame(Kind::Priority, 0, 1, &[0, 0, 0, 3, 16])),
    ];
    for (what, one) in cases {
        others_are_served_during(what, async |gateway| {
            let mut raw = Raw::connect(gateway, &[]).await;
            // Whatever it does about it: what we never read does not pile up on its side.
            raw.flood(2_000, |_| one.repeat(100)).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_empty_data() {
    others_are_served_during("empty data", async |gateway| {
        let mut raw = Raw::connect(gateway, &[]).await;
        raw.write(&frame(Kind::Headers, END_HEADERS, 1, &block("/in", &[]))).await.expect("written");
        raw.flood(2_000, |_| frame(Kind::Data, 0, 1, &[]).repeat(100)).await;
        assert!(raw.closes_within(PATIENCE).await, "a body that never comes has its deadline");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_never_opens() {
    others_are_served_during("a zero window", async |gateway| {
        // Answers that nobody takes: SETTINGS_INITIAL_WINDOW_SIZE is 0.
        let mut raw = Raw::connect(gateway, &setting(4, 0)).await;
        for stream in 0..50 {
            let head = frame(Kind::Headers, END_HEADERS, 2 * stream + 1, &block("/proxy", &[]));
            let body = frame(Kind::Data, END_STREAM, 2 * stream + 1, b"x");
            raw.write(&[head, body].concat()).await.expect("written");
        }
        assert!(raw.closes_within(PATIENCE).await, "who takes nothing is hung up on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_break_the_rules_are_refused_before_anybody_sees_them() {
    let app = App::start().await;
    let gateway =
        gateway().route(unverified("/in").mode("proxy").set("idempotency", "off").to(&app)).start().await;
    let rows: [(&str, Vec<u8>); 9] = [
        ("a name in upper case", block("/in", &[("X-Upper", "1")])),
        ("connection", block("/in", &[("connection", "close")])),
        ("transfer-encoding", block("/in", &[("transfer-encoding", "chunked")])),
        ("a line feed in a value", block("/in", &[("x-a", "b\nc: d")])),
        ("a path without a slash", block("in", &[])),
        ("an empty path", block("", &[])),
        ("a space in the path", block("/in HTTP/1.1\r\nx: y", &[])),
        ("a pseudo-header too late", [block("/in", &[("x-a", "b")]), vec![0x84]].concat()),
        ("another host", block("/in", &[("host", "elsewhere.example")])),
    ];
    for (what, head) in rows {
        let mut raw = Raw::connect(&gateway, &[]).await;
        raw.write(&frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &head)).await.expect("written");
        // Answered 400, reset, or hung up on; the ping shows that it has been dealt with.
        let _ = raw.write(&frame(Kind::Ping, 0, 0, &[7; 8])).await;
        raw.closes_within(Duration::from_millis(100)).await;
        assert_eq!(app.count(), 0, "{what}");
    }
    // A body that is not what its length says.
    for (what, told, body) in [("too long", "3", "hello"), ("too short", "9", "hello")] {
        let mut raw = Raw::connect(&gateway, &[]).await;
        let head = frame(Kind::Headers, END_HEADERS, 1, &block("/in", &[("content-length", told)]));
        raw.write(&[head, frame(Kind::Data, END_STREAM, 1, body.as_bytes())].concat())
            .await
            .expect("written");
        raw.closes_within(Duration::from_millis(100)).await;
        assert_eq!(app.count(), 0, "a body that is {what}");
    }
    assert_eq!(gateway.send_via(Via::Http2, &Request::post("/in", "x")).await.status, 200);
    assert_eq!(app.count(), 1);
}
