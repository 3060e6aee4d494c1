use std::io::{Read, Write};
use std::net::Shutdown;

use crate::edge::test_support::*;
use crate::message::{Scheme, Version};

#[test]
fn bodies_of_all_sizes_come_back_as_they_were_plain_and_over_tls() {
    let (plain, tls) = (Edge::plain(), Edge::tls());
    for path in ["/echo", "/stream"] {
        let mut streams: [Box<dyn ReadWrite>; 2] =
            [Box::new(plain.connect()), Box::new(tls.connect_tls(&[b"http/1.1"]))];
        for stream in &mut streams {
            for size in SIZES {
                let body = body(size);
                for coding in [Coding::Length, Coding::Chunked] {
                    let (fields, wire) = coding.of(&body);
                    // `/stream` answers while it reads: both directions must move.
                    let response = std::thread::scope(|scope| {
                        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
                        let (mut to, from) = stream.halves();
                        scope.spawn(move || {
                            to(head.as_bytes());
                            to(&wire);
                        });
                        from()
                    });
                    assert_eq!(response.status, 200, "{path} {size} {coding:?}");
                    assert!(response.body == body, "{path} {size} {coding:?}: {} bytes", response.body.len());
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Length,
    Chunked,
}

impl Coding {
    fn of(self, body: &[u8]) -> (String, Vec<u8>) {
        match self {
            Coding::Length => (format!("Content-Length: {}", body.len()), body.to_vec()),
            Coding::Chunked => ("Transfer-Encoding: chunked".into(), chunked(body)),
        }
    }
}

/// A stream whose writing half can be moved to a thread, if it has one.
type To<'s> = Box<dyn FnMut(&[u8]) + Send + 's>;
type From<'s> = Box<dyn FnOnce() -> Response + 's>;

trait ReadWrite {
    fn halves(&mut self) -> (To<'_>, From<'_>);
}

impl ReadWrite for std::net::TcpStream {
    fn halves(&mut self) -> (To<'_>, From<'_>) {
        let mut to = self.try_clone().unwrap();
        (Box::new(move |bytes| to.write_all(bytes).unwrap()), Box::new(move || read_response(self)))
    }
}

/// TLS state can't be halved: everything is written before the first read, from a copy of the bytes.
type Tls = tokio_rustls::rustls::StreamOwned<tokio_rustls::rustls::ClientConnection, std::net::TcpStream>;

impl ReadWrite for Tls {
    fn halves(&mut self) -> (To<'_>, From<'_>) {
        let (sender, receiver) = std::sync::mpsc::channel::<Vec<u8>>();
        let to = Box::new(move |bytes: &[u8]| sender.send(bytes.to_vec()).unwrap());
        let from = Box::new(move || {
            self.sock.set_nonblocking(true).unwrap();
            let mut echo = Duplex { tls: self, out: Vec::new(), sent: 0, input: receiver };
            let response = read_response(&mut echo);
            echo.tls.sock.set_nonblocking(false).unwrap();
            response
        });
        (to, from)
    }
}

/// Reads while it writes.
struct Duplex<'t> {
    tls: &'t mut Tls,
    out: Vec<u8>,
    sent: usize,
    input: std::sync::mpsc::Receiver<Vec<u8>>,
}

impl Read for Duplex<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            while let Ok(more) = self.input.try_recv() {
                self.out.extend_from_slice(&more);
            }
            if self.sent < self.out.len() {
                let end = (self.sent + 16 * 1024).min(self.out.len());
                match self.tls.write(&self.out[self.sent..end]) {
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            } else {
                let _ = self.tls.flush();
            }
            match self.tls.read(buf) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => return other,
            }
        }
    }
}

#[test]
fn the_head_reaches_the_application_as_it_was_sent() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream
        .write_all(b"POST /h/a%20b?x=%31 HTTP/1.1\r\nHost: Hooks.example:8080\r\nX-Sig: 1\r\nx-sig: 2 \r\nX-Forwarded-For: 1.1.1.1, 198.51.100.7\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
    let head = edge.app.seen.lock().unwrap()[0].clone();
    assert_eq!(head.target, "/h/a%20b?x=%31");
    assert_eq!(head.authority, "Hooks.example:8080");
    assert_eq!((head.scheme, head.version), (Scheme::Http, Version::Http11));
    assert_eq!(head.client.to_string(), "198.51.100.7");
    assert_eq!(head.peer, stream.local_addr().unwrap());
    assert_eq!(head.local, edge.address);
    assert_eq!(head.received_at.0, 7);
    let names: Vec<_> = head.headers.iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["Host", "X-Sig", "x-sig", "X-Forwarded-For", "Content-Length"]);
}

#[test]
fn a_connection_serves_requests_one_after_the_other_also_pipelined() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    let one = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let two = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let three = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(&[&one[..], two, three, one].concat()).unwrap();
    for expected in [&b"hello"[..], b"abc", b"ok", b"hello"] {
        let response = read_response(&mut stream);
        assert_eq!(response.body, expected);
        assert!(!response.head.contains("close"), "{}", response.head);
    }
    stream.write_all(one).unwrap();
    assert_eq!(read_response(&mut stream).body, b"hello");
}

#[test]
fn a_request_after_a_refused_one_is_never_answered() {
    let edge = Edge::plain();
    let bad = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let said = edge.send(&[&bad[..], b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    assert_eq!(edge.seen(), 0);
}

#[test]
fn a_small_body_that_nobody_reads_does_not_cost_the_connection_and_a_pending_one_does() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream.write_all(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_eq!(read_response(&mut stream).status, 404);
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    assert_eq!(read_response(&mut stream).body, b"hi");

    stream
        .write_all(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nGET /x HTTP/1.1\r\n")
        .unwrap();
    let said = read_all(&mut stream);
    assert!(said.starts_with("HTTP/1.1 404 ") && said.contains("onnection: close"), "{said}");
    assert_eq!(edge.seen(), 3);
}

#[test]
fn a_large_body_that_nobody_reads_still_lets_the_answer_be_read() {
    let edge = Edge::plain();
    let mut request = b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n".to_vec();
    request.resize(request.len() + 2_000_000, b'x');
    for _ in 0..5 {
        let mut stream = edge.connect();
        // The edge may close before all is written; or all has come in time, and the connection stays.
        let _ = stream.write_all(&request);
        assert_eq!(read_response(&mut stream).status, 404);
    }
}

#[test]
fn continue_is_said_when_the_body_is_wanted_and_not_before() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    let head = |path| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    stream.write_all(head("/echo").as_bytes()).unwrap();
    let interim = read_response(&mut stream);
    assert_eq!((interim.status, interim.body.len()), (100, 0));
    assert_eq!(interim.head, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    let response = read_response(&mut stream);
    assert_eq!(response.body, b"hello");
    assert!(!response.head.contains("close"), "the connection stays: {}", response.head);

    stream.write_all(head("/ignore").as_bytes()).unwrap();
    let said = read_all(&mut stream);
    assert!(
        said.starts_with("HTTP/1.1 404 ") && said.contains("onnection: close"),
        "no 100 and no reuse: {said}"
    );
}

#[test]
fn answers_without_a_body_have_none() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream.write_all(b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let response = read_response(&mut stream);
    assert_eq!(response.status, 204);
    assert!(!response.head.to_ascii_lowercase().contains("content-length"), "{}", response.head);
    for path in ["/x", "/stream"] {
        stream.write_all(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    }
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let said = read_all(&mut stream);
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 3, "{said}");
    assert!(
        said.contains("ontent-Length: 2") && said.contains("ontent-Length: 0"),
        "HEAD keeps its length: {said}"
    );
    assert_eq!(said.matches("\r\n\r\nok").count(), 1, "{said}");
}

#[test]
fn answers_carry_a_date_and_no_server_name_and_repeated_fields() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream.write_all(b"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    let head = read_response(&mut stream).head;
    assert!(head.contains("Date: ") || head.contains("date: "), "{head}");
    assert!(!head.to_ascii_lowercase().contains("server:"), "{head}");
    assert_eq!(head.matches("Set-Cookie: ").count(), 2, "{head}");
    assert!(head.find("a=1") < head.find("b=2"));
}

#[test]
fn http_1_0_gets_no_chunks_and_is_closed_unless_it_asks() {
    let edge = Edge::plain();
    let said = edge.send(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(said.contains("onnection: close") && said.ends_with("ok"), "{said}");

    let mut stream = edge.connect();
    stream.write_all(b"GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert!(read_response(&mut stream).head.contains("keep-alive"));
    stream.write_all(b"GET /abort HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let said = read_all(&mut stream);
    assert!(!said.contains("chunked") && said.ends_with("half"), "{said}");
}

#[test]
fn a_broken_off_answer_cannot_pass_for_a_whole_one() {
    let edge = Edge::plain();
    let said = edge.send(b"GET /abort HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        said.contains("chunked") && said.contains("4\r\nhalf\r\n") && !said.contains("0\r\n\r\n"),
        "{said}"
    );
}

#[test]
fn faults_of_the_handler_are_answered_or_cut() {
    let edge = Edge::plain();
    for path in ["/split", "/unanswered"] {
        let mut stream = edge.connect();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream).status, 500, "{path}");
    }
    assert_eq!(edge.send(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert!(
        edge.send(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 200"),
        "others are served on"
    );
}

#[test]
fn an_upgrade_passes_bytes_both_ways_until_the_sender_ends() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
        .unwrap();
    let response = read_response(&mut stream);
    assert_eq!(response.status, 101);
    assert!(response.head.contains("Upgrade: echo\r\n") && response.head.contains("Connection: Upgrade\r\n"));
    let mut five = [0; 5];
    stream.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"early");
    stream.write_all(b"GET /").unwrap();
    stream.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"GET /");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), "");
    assert_eq!(edge.seen(), 1);
}

#[test]
fn a_sender_that_has_ended_its_side_still_gets_its_answer() {
    let edge = Edge::plain();
    let mut stream = edge.connect();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut stream).ends_with("hi"));
}

#[test]
fn a_connection_has_so_many_requests_and_the_edge_so_many_connections() {
    let edge = Edge::with(crate::config::Limits { requests_per_connection: 2, connections: 2, ..limits() });
    let mut one = edge.connect();
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    one.write_all(get).unwrap();
    assert!(!read_response(&mut one).head.contains("close"));
    let mut two = edge.connect();
    two.write_all(get).unwrap();
    read_response(&mut two);

    let said = edge.send(get);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("too_many_connections"), "{said}");
    assert!(said.contains("retry-after: "), "{said}");

    one.write_all(get).unwrap();
    assert!(read_response(&mut one).head.contains("close"));
    assert_eq!(read_all(&mut one), "");
    drop(one);
    // The edge lingers for the sender's end, and has it: now there is room again.
    let room = (0..200).any(|_| edge.send(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 200"));
    assert!(room);
}

#[test]
fn addresses_that_are_not_admitted_are_closed_at_once() {
    let edge = Edge::plain();
    edge.app.admits.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(edge.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert_eq!(edge.seen(), 0);
}

#[test]
fn new_connections_get_the_new_certificate_and_old_ones_live_on() {
    let mut edge = Edge::tls();
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut old = edge.connect_tls(&[b"http/1.1"]);
    old.write_all(get).unwrap();
    assert_eq!(read_response(&mut old).status, 200);
    let before = old.conn.peer_certificates().unwrap()[0].to_vec();
    edge.rotate();
    let mut new = edge.connect_tls(&[]);
    new.write_all(get).unwrap();
    assert_eq!(read_response(&mut new).status, 200);
    assert_ne!(new.conn.peer_certificates().unwrap()[0].to_vec(), before);
    old.write_all(get).unwrap();
    assert_eq!(read_response(&mut old).status, 200);
    assert_eq!(edge.app.seen.lock().unwrap()[0].scheme, Scheme::Https);
}

#[test]
fn a_port_in_use_is_named() {
    let edge = Edge::plain();
    let error = crate::edge::bind([edge.address]).unwrap_err().to_string();
    assert!(error.contains(&edge.address.to_string()) && error.contains("another process"), "{error}");
}

#[test]
fn a_returning_client_resumes_its_session() {
    use tokio_rustls::rustls::{ClientConnection, HandshakeKind, StreamOwned};
    let edge = Edge::tls();
    let config = edge.client_config(&[b"http/1.1"]);
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let client = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
            let mut stream = StreamOwned::new(client, edge.connect());
            stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(read_response(&mut stream).status, 200);
            stream.conn.handshake_kind()
        })
        .collect();
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}
