use std::convert::Infallible;
use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::edge::test_support::*;
use crate::message::{Scheme, Version};

/// A body in pieces, with or without a declared length.
struct Pieces {
    rest: Bytes,
    declared: bool,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.rest.len().min(10_007);
        let piece = self.rest.split_to(size);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
    fn size_hint(&self) -> SizeHint {
        if self.declared { SizeHint::with_exact(self.rest.len() as u64) } else { SizeHint::default() }
    }
    fn is_end_stream(&self) -> bool {
        self.declared && self.rest.is_empty()
    }
}

fn pieces(body: &[u8], declared: bool) -> Pieces {
    Pieces { rest: Bytes::copy_from_slice(body), declared }
}

async fn client(edge: &Edge) -> SendRequest<Pieces> {
    let connector = tokio_rustls::TlsConnector::from(edge.client_config(&[b"h2"]));
    let tcp = TcpStream::connect(edge.address).await.unwrap();
    let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    send
}

fn request(method: &str, target: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://hooks.example{target}"))
}

async fn read(response: Response<Incoming>) -> Vec<u8> {
    response.into_body().collect().await.unwrap().to_bytes().to_vec()
}

#[test]
fn bodies_of_all_sizes_come_back_as_they_were() {
    let edge = Edge::tls();
    block_on(async {
        let mut client = client(&edge).await;
        for path in ["/echo", "/stream"] {
            for size in SIZES {
                for declared in [true, false] {
                    let body = body(size);
                    let request = request("POST", path).body(pieces(&body, declared)).unwrap();
                    let response = client.send_request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    assert!(response.headers().contains_key("date"));
                    assert!(!response.headers().contains_key("server"));
                    if path == "/stream" {
                        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
                    }
                    assert!(read(response).await == body, "{path} {size} {declared}");
                }
            }
        }
    });
}

#[test]
fn many_streams_share_a_connection() {
    let edge = Edge::tls();
    block_on(async {
        let client = client(&edge).await;
        let tasks: Vec<_> = (0..300usize)
            .map(|n| {
                let mut client = client.clone();
                tokio::spawn(async move {
                    let body = body(n * 500);
                    let request = request("POST", "/echo").body(pieces(&body, n % 2 == 0)).unwrap();
                    assert!(read(client.send_request(request).await.unwrap()).await == body);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(edge.seen(), 300);
}

#[test]
fn the_head_reaches_the_application_as_it_was_sent() {
    let edge = Edge::tls();
    block_on(async {
        let mut client = client(&edge).await;
        let request = request("POST", "/h/a%20b?x=%31")
            .header("x-sig", "1")
            .header("cookie", "a=1")
            .header("x-forwarded-for", "198.51.100.7")
            .header("cookie", "b=2")
            .body(pieces(b"", true))
            .unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), 200);
    });
    let head = edge.app.seen.lock().unwrap()[0].clone();
    assert_eq!(head.target, "/h/a%20b?x=%31");
    assert_eq!(head.authority, "hooks.example");
    assert_eq!((head.scheme, head.version), (Scheme::Https, Version::Http2));
    assert_eq!(head.client.to_string(), "198.51.100.7");
    assert_eq!(head.headers.all("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
    assert_eq!(head.headers.first("x-sig"), Some(&b"1"[..]));
}

#[test]
fn what_http_1_refuses_is_refused_here_too() {
    let edge = Edge::tls();
    let long = format!("/{}", "a".repeat(9000));
    let rows: &[(&str, &str, Option<&str>, u16, &str)] = &[
        ("GET", "/a/../b", None, 400, "invalid_path"),
        ("GET", "/a/%2e%2e/b", None, 400, "invalid_path"),
        ("GET", "/a%00", None, 400, "invalid_path"),
        ("TRACE", "/", None, 405, "method_not_allowed"),
        ("get", "/", None, 400, "malformed_request"),
        ("GET", &long, None, 414, "uri_too_long"),
        ("POST", "/", Some("200-ok"), 417, "expectation_failed"),
    ];
    block_on(async {
        let mut client = client(&edge).await;
        for (method, target, expect, status, code) in rows {
            let mut request = request(method, target);
            if let Some(expect) = expect {
                request = request.header("expect", *expect);
            }
            let response = client.send_request(request.body(pieces(b"", true)).unwrap()).await.unwrap();
            assert_eq!(response.status(), *status, "{method} {target}");
            assert_eq!(response.headers()["tidegate-reason"], *code, "{method} {target}");
            assert!(String::from_utf8(read(response).await).unwrap().contains(code));
        }
        let many = (0..200).fold(request("GET", "/"), |r, n| r.header(format!("x-{n}"), "1"));
        let response = client.send_request(many.body(pieces(b"", true)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 431);
        // The connection and its other streams are none the worse.
        let response =
            client.send_request(request("GET", "/x").body(pieces(b"", true)).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
    });
    assert_eq!(edge.seen(), 1);
}

#[test]
fn answers_end_as_their_kind_wants() {
    let edge = Edge::tls();
    block_on(async {
        let mut client = client(&edge).await;
        let mut get = async |method: &str, path: &str| {
            client.send_request(request(method, path).body(pieces(b"", true)).unwrap()).await.unwrap()
        };
        let response = get("GET", "/empty").await;
        assert_eq!(response.status(), 204);
        assert!(!response.headers().contains_key("content-length"));
        let response = get("HEAD", "/x").await;
        assert_eq!(response.headers()["content-length"], "2");
        assert_eq!(read(response).await, b"");
        for path in ["/split", "/unanswered", "/upgrade"] {
            assert_eq!(get("GET", path).await.status(), 500, "{path}");
        }
    });
}

#[test]
fn a_broken_off_answer_cannot_pass_for_a_whole_one() {
    let edge = Edge::tls();
    block_on(async {
        let mut client = client(&edge).await;
        let mut get =
            async |path| client.send_request(request("GET", path).body(pieces(b"", true)).unwrap()).await;
        // The reset may overtake the head.
        if let Ok(response) = get("/abort").await {
            assert!(response.into_body().collect().await.is_err());
        }
        assert_eq!(get("/x").await.unwrap().status(), 200, "other streams are none the worse");
    });
}

#[test]
fn at_shutdown_streams_in_flight_finish_and_idle_connections_end() {
    let mut edge = Edge::tls();
    let (app, shutdown) = (edge.app.clone(), edge.shutdown.clone());
    block_on(async {
        let (mut busy, mut idle) = (client(&edge).await, client(&edge).await);
        let get = |path| request("GET", path).body(pieces(b"", true)).unwrap();
        assert_eq!(idle.send_request(get("/x")).await.unwrap().status(), 200);
        let waiting = tokio::spawn(busy.send_request(get("/wait")));
        app.waiting.notified().await;
        shutdown.send_replace(true);
        tokio::time::timeout(Duration::from_secs(5), async {
            while idle.ready().await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the idle connection ends");
        app.gate.notify_one();
        let response = waiting.await.unwrap().unwrap();
        assert_eq!(read(response).await, b"waited");
    });
    edge.stop().unwrap();
}

#[test]
fn a_slow_body_has_a_deadline_and_an_idle_connection_too() {
    let short = Duration::from_millis(300);
    let edge = Edge::tls_with(Limits { body_timeout: short, idle_timeout: short, ..limits() });
    let mut raw = Raw::connect(&edge);
    raw.headers(1, &[], End::Open);
    let began = Instant::now();
    let said = raw.read_all();
    assert!(began.elapsed() >= short);
    assert!(said.contains(&Frame2 { kind: HEADERS, stream: 1 }), "408 and then the end: {said:?}");
    assert!(said.iter().any(|f| f.kind == GOAWAY), "{said:?}");
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

#[derive(Clone, Copy, PartialEq)]
enum End {
    Stream,
    Open,
}

#[derive(Debug, PartialEq)]
struct Frame2 {
    kind: u8,
    stream: u32,
}

/// HTTP/2 frames by hand.
struct Raw(tokio_rustls::rustls::StreamOwned<tokio_rustls::rustls::ClientConnection, std::net::TcpStream>);

impl Raw {
    fn connect(edge: &Edge) -> Self {
        let mut raw = Self(edge.connect_tls(&[b"h2"]));
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.frame(SETTINGS, 0, 0, b"");
        raw
    }
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The edge may have closed already; what it said before is what counts.
        let _ = self.0.write_all(&frame);
    }
    /// `POST / https` for `a`, and more fields, literal and in this order.
    fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: End) {
        let block = [&[0x83, 0x87, 0x84, 0x01, 1, b'a'][..], &literal(fields)].concat();
        self.block(stream, &block, end);
    }
    fn block(&mut self, stream: u32, block: &[u8], end: End) {
        self.frame(HEADERS, 0x4 | u8::from(end == End::Stream), stream, block);
    }
    /// The next frame; `None` at the end of the connection.
    fn next(&mut self) -> Option<Frame2> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        self.0.read_exact(&mut vec![0; length]).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame2 { kind: head[3], stream })
    }
    /// All frames until the end of the connection.
    fn read_all(&mut self) -> Vec<Frame2> {
        std::iter::from_fn(|| self.next()).collect()
    }
    /// Whether the edge answered, reset or closed.
    fn reacts(&mut self) -> bool {
        std::iter::from_fn(|| self.next()).any(|f| matches!(f.kind, HEADERS | RST_STREAM | GOAWAY))
    }
}

/// Literal fields without indexing.
fn literal(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

#[test]
fn malformed_heads_never_reach_the_application() {
    let edge = Edge::tls();
    let pseudo = |fields: &[(&str, &str)]| literal(fields);
    let good = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
    let plus = |more: &[(&'static str, &'static str)]| literal(&[&good[..], more].concat());
    for block in [
        plus(&[("X-Upper", "1")]),
        plus(&[("connection", "close")]),
        plus(&[("transfer-encoding", "chunked")]),
        plus(&[("te", "gzip")]),
        plus(&[("upgrade", "websocket")]),
        plus(&[("x", "a\r\nb: c")]),
        plus(&[("x", "a\0b")]),
        plus(&[("x\r\ny", "1")]),
        plus(&[("x", "1"), (":path", "/late")]),
        plus(&[(":path", "/twice")]),
        plus(&[("host", "b")]),
        plus(&[("host", "a"), ("host", "a")]),
        plus(&[("content-length", "5, 6")]),
        plus(&[("content-length", "+5")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":authority", "a")]),
        pseudo(&[(":scheme", "https"), (":path", "/"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", ""), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "hooks"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/a b"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "*"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "https://a/"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/\u{e4}"), (":authority", "a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "u@a")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a/b")]),
        pseudo(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a:")]),
        pseudo(&[(":method", "CONNECT"), (":authority", "a:443")]),
    ] {
        let mut raw = Raw::connect(&edge);
        raw.block(1, &block, End::Stream);
        assert!(raw.reacts(), "{}", block.escape_ascii());
        assert_eq!(edge.seen(), 0, "{}", block.escape_ascii());
    }
    let mut raw = Raw::connect(&edge);
    raw.block(1, &plus(&[("x", "1")]), End::Stream);
    assert!(raw.reacts());
    assert_eq!(edge.seen(), 1, "the good one does");
}

#[test]
fn a_length_that_the_data_does_not_keep_is_no_whole_body() {
    let edge = Edge::tls();
    for data in [&b"hel"[..], b"hello!"] {
        let mut raw = Raw::connect(&edge);
        let head = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/echo"),
            (":authority", "a"),
            ("content-length", "5"),
        ];
        raw.block(1, &literal(&head), End::Open);
        raw.frame(DATA, 1, 1, data);
        let echoed = std::iter::from_fn(|| raw.next()).find(|f| matches!(f.kind, DATA | RST_STREAM | GOAWAY));
        assert_eq!(echoed, Some(Frame2 { kind: RST_STREAM, stream: 1 }));
    }
}

/// Floods one connection and checks that the edge cuts it and still serves others.
fn floods(flood: impl Fn(&mut Raw)) {
    let edge = Edge::tls_with(Limits {
        idle_timeout: Duration::from_secs(2),
        header_timeout: Duration::from_secs(2),
        ..limits()
    });
    let mut raw = Raw::connect(&edge);
    flood(&mut raw);
    // Nothing else comes: what the edge said last may be lost, as it closes with our flood unread.
    raw.read_all();
    assert!(edge.seen() <= 2500, "{} streams were taken on", edge.seen());
    block_on(async {
        let request = request("GET", "/x").body(pieces(b"", true)).unwrap();
        assert_eq!(client(&edge).await.send_request(request).await.unwrap().status(), 200);
    });
}

#[test]
fn rapid_resets_end_the_connection() {
    floods(|raw| {
        for n in 0..10_000 {
            let block =
                literal(&[(":method", "GET"), (":scheme", "https"), (":path", "/wait"), (":authority", "a")]);
            raw.block(2 * n + 1, &block, End::Stream);
            raw.frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes());
        }
    });
}

#[test]
fn endless_continuations_end_the_connection() {
    floods(|raw| {
        raw.frame(HEADERS, 0, 1, &[0x83, 0x87, 0x84, 0x01, 1, b'a']);
        for _ in 0..10_000 {
            raw.frame(CONTINUATION, 0, 1, &literal(&[("x-flood", &"x".repeat(100))]));
        }
    });
}

#[test]
fn a_connection_of_malformed_streams_is_cut() {
    let edge = Edge::tls();
    let mut raw = Raw::connect(&edge);
    let block = literal(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "u@a")]);
    for n in 0..200 {
        raw.block(2 * n + 1, &block, End::Stream);
    }
    let said = raw.read_all();
    assert!(said.len() < 100, "{} frames", said.len());
    assert_eq!(edge.seen(), 0);
}
