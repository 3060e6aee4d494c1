//! Promise 5: bounded everything. Each limit has its documented answer, and others are unaffected.

use std::time::{Duration, Instant};

use crate::support::sender::Connection;
use crate::support::*;

async fn limited(limits: serde_json::Value) -> (App, Gateway) {
    let app = App::start().await;
    let gateway = gateway().section("limits", limits).route(unverified("/in").to(&app)).start().await;
    (app, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_its_own_status() {
    let (app, gateway) = limited(json!({
        "header_count": 20, "header_bytes": "8KiB", "uri_bytes": "2KiB", "body_bytes": "64KiB"
    }))
    .await;
    let many = (0..30).fold(Request::post("/in", "x"), |request, n| request.header(&format!("X-{n}"), "1"));
    let cases = [
        ("a long target", Request::post(&format!("/in?{}", "a".repeat(3_000)), "x"), 414, "uri_too_long"),
        ("many headers", many, 431, "headers_too_large"),
        (
            "a large header",
            Request::post("/in", "x").header("X-A", &"a".repeat(10_000)),
            431,
            "headers_too_large",
        ),
        ("a large body", Request::post("/in", noise(65 * 1024)), 413, "body_too_large"),
        (
            "a large body in chunks",
            Request::post("/in", noise(65 * 1024)).chunked(5_000),
            413,
            "body_too_large",
        ),
    ];
    for via in [Via::Plain, Via::Tls, Via::Http2] {
        for (what, request, status, reason) in &cases {
            let answer = gateway.send_via(via, request).await;
            assert_eq!((answer.status, answer.reason()), (*status, *reason), "{via:?}: {what}");
        }
        let fits = Request::post("/in", noise(64 * 1024)).header("X-Via", &format!("{via:?}"));
        assert!(gateway.send_via(via, &fits).await.is_success(), "{via:?}: at the limit");
    }
    app.receives(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_length_beyond_the_limit_is_refused_before_the_body_is_sent() {
    let (_app, gateway) = limited(json!({"body_bytes": "64KiB"})).await;
    let mut connection = gateway.connect().await;
    let head =
        "POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\nExpect: 100-continue\r\n\r\n";
    connection.write(head.as_bytes()).await.expect("written");
    let answer = connection.answer().await.expect("an answer").expect("not closed");
    assert_eq!((answer.status, answer.reason()), (413, "body_too_large"), "no 100 first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_senders_are_cut_off_and_others_are_not() {
    let (_app, gateway) = limited(json!({
        "header_timeout": "1s", "body_timeout": "1s", "handshake_timeout": "1s", "idle_timeout": "1s"
    }))
    .await;
    let beginnings: [(&str, &[u8]); 4] = [
        ("a head that stops", b"POST /in HTTP/1.1\r\nHost: loc"),
        ("a body that stops", b"POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"),
        (
            "a chunk that stops",
            b"POST /in HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ),
        ("nothing at all", b""),
    ];
    let before = Instant::now();
    // One that never stops, but never gets on.
    let mut dripping = gateway.connect().await;
    let dripping = tokio::spawn(async move {
        dripping.write(b"POST /in HTTP/1.1\r\nHost: localhost\r\n").await?;
        loop {
            dripping.write(b"X-A: b\r\n").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    });
    for (what, beginning) in beginnings {
        let mut connection = gateway.connect().await;
        connection.write(beginning).await.expect("written");
        match connection.answer().await {
            Ok(Some(answer)) => {
                assert_eq!((answer.status, answer.reason()), (408, "request_timeout"), "{what}")
            }
            Ok(None) => {}
            Err(problem) => {
                assert_ne!(problem.kind(), std::io::ErrorKind::TimedOut, "{what} is never cut off")
            }
        }
        assert!(gateway.send(&Request::post("/in", what)).await.is_success(), "others go on");
    }
    let dripped = tokio::time::timeout(PATIENCE, dripping).await.expect("dripping is cut off");
    assert!(dripped.expect("ran").is_err());
    // A TLS hello that never comes.
    let mut silent = Connection::plain(gateway.tls()).await.expect("connected");
    assert!(silent.is_closed().await);
    assert!(before.elapsed() < Duration::from_secs(20), "deadlines, not defaults");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_of_bodies_in_flight_is_kept() {
    let (_app, gateway) =
        limited(json!({"body_budget": "1MiB", "body_bytes": "900KiB", "body_timeout": "20s"})).await;
    let body = noise(800 * 1024);
    let request = Request::post("/in", body).bytes();
    // One sender holds most of the budget.
    let mut holding = gateway.connect().await;
    holding.write(&request[..request.len() - 10]).await.expect("written");
    eventually("the next one is refused", async || {
        let answer = gateway.send_via(Via::Plain, &Request::post("/in", noise(700 * 1024))).await;
        let refused = (answer.status, answer.reason()) == (503, "body_budget_exhausted");
        assert!(!refused || answer.header("retry-after").is_some());
        refused
    })
    .await;
    assert!(gateway.send(&Request::post("/in", "small")).await.is_success(), "small ones still fit");
    holding.write(&request[request.len() - 10..]).await.expect("written");
    let answer = holding.answer().await.expect("an answer").expect("not closed");
    assert_eq!(answer.status, 202);
    // A moment after the answer.
    eventually("the budget is free again", async || {
        gateway.send(&Request::post("/in", noise(700 * 1024 + 1))).await.status == 202
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited() {
    let (_app, gateway) = limited(json!({"connections": 10})).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut connection = gateway.connect().await;
        let answer = connection.send(&Request::post("/in", unique_id())).await.expect("within the limit");
        assert_eq!(answer.status, 202);
        open.push(connection);
    }
    // The next one is told so or closed, and never served.
    let sent =
        async { Connection::plain(gateway.plain()).await?.send(&Request::post("/in", unique_id())).await };
    if let Ok(answer) = sent.await {
        assert_eq!((answer.status, answer.reason()), (503, "too_many_connections"));
    }
    drop(open);
    eventually("there is room again", async || {
        gateway.try_send(Via::Plain, &Request::post("/in", unique_id())).await.is_ok_and(|a| a.status == 202)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_it_waits_and_goes_on() {
    let (_app, gateway) = limited(json!({"idle_timeout": "20s"})).await;
    let mut before = gateway.connect().await;
    assert_eq!(before.send(&Request::post("/in", unique_id())).await.expect("answered").status, 202);
    let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("its descriptors").count();
    let limit = libc::rlimit { rlim_cur: open as u64 + 20, rlim_max: open as u64 + 20 };
    // SAFETY: it reads `limit`, and writes nothing where there is nothing to be written.
    let set =
        unsafe { libc::prlimit(gateway.pid() as i32, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0, "the limit is set");
    let mut waiting = Vec::new();
    for _ in 0..60 {
        // The system accepts on the gateway's behalf, so these are open on our side.
        waiting.push(gateway.connect().await);
    }
    for _ in 0..20 {
        let answer = before.send(&Request::post("/in", unique_id())).await.expect("who is in is served");
        assert_eq!(answer.status, 202);
    }
    drop(waiting);
    eventually("there is room again", async || {
        let sent = gateway.try_send(Via::Plain, &Request::post("/in", unique_id())).await;
        sent.is_ok_and(|answer| answer.status == 202)
    })
    .await;
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    assert!(gateway.log().lines().count() < 1_000, "the log is not flooded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_serves_so_many_requests_and_no_more() {
    let (_app, gateway) = limited(json!({"requests_per_connection": 3})).await;
    let mut connection = gateway.connect().await;
    for _ in 0..3 {
        let answer = connection.send(&Request::post("/in", unique_id())).await.expect("within the limit");
        assert_eq!(answer.status, 202);
    }
    assert!(connection.is_closed().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_backlog() {
    let app = App::start().await;
    app.refuse().await;
    let gateway = gateway().route(unverified("/in").to(&app)).start().await;
    let rss = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    };
    let mut connection = gateway.connect().await;
    let noise = noise(64 * 1024);
    let mut send = async |count: usize| {
        for _ in 0..count {
            let body = [noise.as_slice(), unique_id().as_bytes()].concat();
            let answer = connection.send(&Request::post("/in", body)).await.expect("answered");
            assert_eq!(answer.status, 202);
        }
    };
    send(800).await;
    let early = rss();
    send(1_600).await;
    let late = rss();
    // 100 MiB more are queued; far less may be held.
    assert!(late < early + 60, "from {early} to {late} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_that_only_declare_a_length_hold_none_of_the_budget() {
    let (_app, gateway) =
        limited(json!({"body_budget": "1MiB", "body_bytes": "900KiB", "body_timeout": "20s"})).await;
    let mut silent = Vec::new();
    for number in 0..20 {
        let mut connection = gateway.connect().await;
        connection
            .write(b"POST /in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n")
            .await
            .expect("written");
        if number % 2 == 0 {
            connection.write(b"x").await.expect("written");
        }
        silent.push(connection);
    }
    // Those with a byte have begun; then they hold what came.
    eventually("their bodies are waited for", async || {
        (10.0..1_000.0).contains(&gateway.metric("tidegate_bodies_in_flight_bytes", &[]).await)
    })
    .await;
    for via in [Via::Plain, Via::Tls, Via::Http2] {
        let answer = gateway.send_via(via, &Request::post("/in", noise(800 * 1024))).await;
        assert_eq!((answer.status, answer.reason()), (202, ""), "{via:?}");
    }
}
