use std::io::Write;
use std::net::Shutdown;

use crate::edge::test_support::*;

/// Sends a request as it is and checks status, reason, close, and that the application saw nothing of it.
fn refused(edge: &Edge, request: &[u8], status: u16, code: &str) {
    let before = edge.seen();
    let said = edge.send(request);
    let shown = request[..request.len().min(200)].escape_ascii().to_string();
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}\n{said}");
    assert!(said.contains(&format!("tidegate-reason: {code}\r\n")), "{shown}\n{said}");
    assert!(
        said.contains("application/problem+json") && said.contains(&format!("\"reason\":\"{code}\"")),
        "{said}"
    );
    assert!(said.to_ascii_lowercase().contains("connection: close\r\n"), "{shown}\n{said}");
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{shown}\n{said}");
    assert_eq!(edge.seen(), before, "{shown}");
}

#[test]
fn every_row_of_the_catalogue_is_refused_with_its_status() {
    let edge = Edge::plain();
    let mal = "malformed_request";
    let rows: &[(&str, u16, &str)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            mal,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, mal),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400, mal),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, mal),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            501,
            "unknown_transfer_coding",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, mal),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            mal,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 400, mal),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, mal),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400, mal),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, mal),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\nY: 1\r\n\r\n", 400, mal),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, mal),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, mal),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_host"),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, mal),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, mal),
        ("GET /\r\n\r\n", 400, mal),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "unsupported_http_version"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "unsupported_http_version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_http_version"),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400, mal),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_path"),
        ("GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_path"),
        ("GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_path"),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "invalid_path"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "invalid_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "invalid_host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "invalid_host"),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "invalid_host"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405, "method_not_allowed"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\nhi",
            417,
            "expectation_failed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            400,
            "invalid_host",
        ),
        ("\x16\x03\x01\x02\0\x01\0\x01", 400, mal),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, mal),
    ];
    for (request, status, code) in rows {
        refused(&edge, request.as_bytes(), *status, code);
    }
    assert!(edge.send(rows[36].0.as_bytes()).contains("allow: GET, HEAD, POST"), "405 says what is allowed");
}

#[test]
fn large_heads_are_refused_before_they_end() {
    let edge = Edge::plain();
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: 1\r\n".repeat(257));
    refused(&edge, many.as_bytes(), 431, "headers_too_large");
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(64 * 1024));
    refused(&edge, large.as_bytes(), 431, "headers_too_large");
    let all = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "x".repeat(20_000)).repeat(50));
    refused(&edge, all.as_bytes(), 431, "headers_too_large");
    refused(&edge, format!("GET /{}", "a".repeat(64 * 1024)).as_bytes(), 414, "uri_too_long");
    // An endless head is read no further than the limit.
    let mut stream = edge.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&[b'x'; 4096]).is_ok() {
        sent += 4096;
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
}

#[test]
fn broken_chunks_reach_nobody_as_a_body() {
    let edge = Edge::plain();
    for body in [
        "-1\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nX-Hub-Signature-256: x\r\n\r\n",
        "\r\n",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let said = edge.send(request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("malformed_request"), "{body:?}\n{said}");
        assert!(said.contains("onnection: close"), "{said}");
    }
    let bomb = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;{}",
        "x".repeat(100_000)
    );
    assert!(edge.send(bomb.as_bytes()).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_sender_that_breaks_off_is_told_if_it_still_listens() {
    let edge = Edge::plain();
    for (request, code) in [
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", "body_incomplete"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "body_incomplete"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Le", "malformed_request"),
    ] {
        let mut stream = edge.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let said = read_all(&mut stream);
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains(code), "{request}\n{said}");
    }
}

#[test]
fn targets_that_only_look_odd_pass_as_sent() {
    let edge = Edge::plain();
    for target in ["//hooks", "/hooks;x", "/hooks%2Fgithub", "/?q=%00", "/x?y=../..", "/..a/b.."] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: A.example.:80\r\nConnection: close\r\n\r\n");
        assert!(edge.send(request.as_bytes()).starts_with("HTTP/1.1 200 "), "{target}");
        let head = edge.app.seen.lock().unwrap().last().unwrap().clone();
        assert_eq!((head.target.as_str(), head.authority.as_str()), (target, "A.example.:80"));
    }
}

#[test]
fn an_upgrade_that_nobody_takes_is_an_ordinary_request() {
    let edge = Edge::plain();
    for upgrade in ["h2c", "websocket", "h2c, websocket"] {
        let mut stream = edge.connect();
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        for _ in 0..2 {
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(read_response(&mut stream).status, 200, "{upgrade}");
        }
        let passed = edge.app.seen.lock().unwrap().last().unwrap().headers.contains("upgrade");
        assert_eq!(passed, !upgrade.contains("h2c"));
    }
    // The handler would switch, but the sender offered nothing that may be taken.
    let mut stream = edge.connect();
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut stream).status, 500);
}

#[test]
fn plain_http_on_the_tls_port_gets_no_http_answer() {
    let edge = Edge::tls();
    let said = edge.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!said.contains("HTTP/1.1"), "{said}");
    assert_eq!(edge.seen(), 0);
}
