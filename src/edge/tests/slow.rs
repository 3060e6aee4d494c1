//! Slow and silent senders, over an in-memory stream with the clock in our hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::edge::app::Place;
use crate::edge::conn::Conn;
use crate::edge::http1;
use crate::edge::listen::Stop;
use crate::edge::test_support::{EchoApp, limits};
use crate::edge::wire::{Transport, Wire};
use crate::message::Scheme;

struct Sender {
    stream: DuplexStream,
    stop: watch::Sender<bool>,
    app: Arc<EchoApp>,
    started: Instant,
}

/// A connection to an edge; `capacity` bytes fit into the network between.
fn sender(capacity: usize) -> Sender {
    let (stream, theirs) = duplex(capacity);
    let (stop, stopping) = watch::channel(false);
    let app = Arc::new(EchoApp::new(limits()));
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let place = Place { listener: 0, peer: address, local: address };
    let served = app.clone();
    tokio::spawn(async move {
        let wire = Transport::Plain(Wire::new(Box::new(theirs)));
        let stop = Stop::on(stopping);
        let conn = Box::new(Conn::new(wire, 1, &limits(), stop.clone()));
        http1::serve(conn, place, Scheme::Http, &served, &stop).await;
    });
    Sender { stream, stop, app, started: Instant::now() }
}

impl Sender {
    /// What comes until the edge closes, and the seconds that this took since the start.
    async fn rest(&mut self) -> (String, u64) {
        let mut said = Vec::new();
        self.stream.read_to_end(&mut said).await.unwrap();
        // The edge waits up to two seconds for our end; ours is not sent yet.
        (String::from_utf8(said).unwrap(), self.started.elapsed().as_secs())
    }
    /// A byte each second until nobody takes them.
    async fn trickle(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_cut_at_its_deadline() {
    let mut sender = sender(1 << 16);
    sender.trickle(&b"GET / HTTP/1.1\r\nHost: a\r\n"[..12]).await;
    let (said, _) = sender.rest().await;
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("request_timeout"), "{said}");
    assert!(said.contains("connection: close"));
    assert_eq!(sender.app.seen.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_without_a_word() {
    let mut sender = sender(1 << 16);
    assert_eq!(sender.rest().await, (String::new(), 10));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_later_and_a_second_head_has_its_own_deadline() {
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle = sender(1 << 16);
    idle.stream.write_all(get).await.unwrap();
    let (said, seconds) = idle.rest().await;
    assert!(said.ends_with("ok"), "{said}");
    assert_eq!(seconds, 60);

    let mut second = sender(1 << 16);
    second.stream.write_all(get).await.unwrap();
    sleep(Duration::from_secs(50)).await;
    second.stream.write_all(b"GET /x HT").await.unwrap();
    let (said, seconds) = second.rest().await;
    assert!(said.contains("HTTP/1.1 408 "), "{said}");
    assert_eq!(seconds, 60, "50 idle, 10 for the head");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_cut_at_its_deadline_however_it_is_framed() {
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut sender = sender(1 << 16);
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        sender.stream.write_all(head.as_bytes()).await.unwrap();
        if framing.starts_with('T') {
            sender.stream.write_all(b"3e8\r\n").await.unwrap();
        }
        sender.trickle(&[b'x'; 29]).await;
        assert_eq!(sender.started.elapsed().as_secs(), 29);
        let (said, seconds) = sender.rest().await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("onnection: close"), "{said}");
        assert_eq!(seconds, 30, "the whole body is due then, not the next byte");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_reads_nothing_is_given_up() {
    let mut sender = sender(1024);
    let head = "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    sender.stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat();
    while sender.stream.write_all(&chunk).await.is_ok() {}
    assert_eq!(sender.started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_an_idle_connection_at_once_and_waits_a_moment_for_a_fresh_one() {
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle = sender(1 << 16);
    idle.stream.write_all(get).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    idle.stop.send_replace(true);
    let (said, seconds) = idle.rest().await;
    assert!(said.ends_with("ok"));
    assert_eq!(seconds, 5);

    let mut fresh = sender(1 << 16);
    sleep(Duration::from_millis(10)).await;
    fresh.stop.send_replace(true);
    sleep(Duration::from_millis(500)).await;
    fresh.stream.write_all(get).await.unwrap();
    let (said, _) = fresh.rest().await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("onnection: close"), "{said}");

    let mut silent = sender(1 << 16);
    sleep(Duration::from_millis(10)).await;
    silent.stop.send_replace(true);
    assert_eq!(silent.rest().await, (String::new(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_dropped_loses_no_byte() {
    let mut sender = sender(1 << 16);
    let app = sender.app.clone();
    sender
        .stream
        .write_all(b"POST /interrupted HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    // The handler drops its read each 300 ms; the pieces come each 400 ms, cut anywhere.
    let wire =
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for piece in wire.chunks(3) {
        sender.stream.write_all(piece).await.unwrap();
        sleep(Duration::from_millis(400)).await;
    }
    let (said, _) = sender.rest().await;
    assert!(said.contains("hello world"), "{said}");
    assert_eq!(app.seen.lock().unwrap().len(), 2);
}

#[test]
fn a_tls_handshake_that_never_ends_is_cut() {
    use crate::edge::test_support::{Edge, read_all};
    use std::io::Write;
    let limits = crate::config::Limits { handshake_timeout: Duration::from_millis(300), ..limits() };
    let edge = Edge::tls_with(limits);
    let began = std::time::Instant::now();
    let (mut silent, mut half) = (edge.connect(), edge.connect());
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    assert_eq!((read_all(&mut silent), read_all(&mut half)), (String::new(), String::new()));
    assert!(began.elapsed() >= Duration::from_millis(300));
}
