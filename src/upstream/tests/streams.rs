use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::config::Destination;
use crate::message::Method;
use crate::upstream::testing::*;
use crate::upstream::{Outgoing, Upstream, pool};

use Act::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn upstream(app: &App) -> Upstream {
    Upstream::new(&destination(&app.url())).unwrap()
}

/// An app that gives out the raw bytes of each request, up to `until`, and answers `OK`.
async fn recording(until: &'static [u8]) -> (App, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (received, requests) = mpsc::unbounded_channel();
    let app = App::with(move |mut socket, _| {
        let received = received.clone();
        async move {
            let mut raw = Vec::new();
            while socket.read_buf(&mut raw).await.is_ok_and(|n| n > 0) {
                if raw.ends_with(until) {
                    received.send(std::mem::take(&mut raw)).unwrap();
                    socket.write_all(OK).await.unwrap();
                }
            }
        }
    })
    .await;
    (app, requests)
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_chunked_and_its_connection_used_again() {
    let (app, mut requests) = recording(b"0\r\n\r\n").await;
    let upstream = upstream(&app);
    for _ in 0..2 {
        let (mut writer, answering) = upstream.start(&post("/up"), None).await.unwrap();
        writer.write("hello".into()).await.unwrap();
        writer.write(Bytes::new()).await.unwrap();
        writer.write(" you".into()).await.unwrap();
        writer.finish().await.unwrap();
        let mut incoming = answering.head().await.unwrap();
        assert_eq!(body(&mut incoming).await.unwrap(), b"ok");
        let raw = requests.recv().await.unwrap();
        assert!(raw.ends_with(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n"));
        assert_eq!(pool::idle(upstream.key(0)), 1);
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn bodies_of_every_size_stream_whole_in_both_directions() {
    let app = App::with(|mut socket, _| async move {
        while let Some((_, body)) = read_request(&mut socket).await {
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for chunk in body.chunks(50_000) {
                socket.write_all(format!("{:X}\r\n", chunk.len()).as_bytes()).await.unwrap();
                socket.write_all(chunk).await.unwrap();
                socket.write_all(b"\r\n").await.unwrap();
            }
            socket.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let upstream = upstream(&app);
    for size in SIZES {
        let sent = pattern(size);
        let (mut writer, answering) = upstream.start(&post("/"), Some(size as u64)).await.unwrap();
        let upload = async {
            for start in (0..size).step_by(30_000) {
                writer.write(sent.slice(start..size.min(start + 30_000))).await.unwrap();
            }
            writer.finish().await.unwrap();
        };
        let download = async { body(&mut answering.head().await.unwrap()).await.unwrap() };
        let ((), echoed) = tokio::join!(upload, download);
        assert_eq!(echoed, sent, "{size}");
        assert!(pool::idle(upstream.key(0)) > 0, "the connection was given back after {size}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_declared_is_an_error_and_the_connection_is_not_kept() {
    let app = App::start(&[&[ReadHead, Send(OK), ReadAll]]).await;
    let upstream = upstream(&app);
    let (mut writer, answering) = upstream.start(&post("/"), Some(3)).await.unwrap();
    assert_eq!(writer.write("four".into()).await.unwrap_err().class(), "protocol");
    assert!(writer.finish().await.is_err());
    let mut incoming = answering.head().await.unwrap();
    body(&mut incoming).await.unwrap();
    let (mut writer, answering) = upstream.start(&post("/"), Some(3)).await.unwrap();
    writer.write("2!".into()).await.unwrap();
    assert_eq!(writer.finish().await.unwrap_err().class(), "protocol");
    let mut incoming = answering.head().await.unwrap();
    body(&mut incoming).await.unwrap();
    assert_eq!((app.connections(), pool::idle(upstream.key(0))), (2, 0));
}

#[tokio::test]
async fn a_request_without_a_body_is_repeated_on_a_closed_connection_and_one_with_a_body_is_not() {
    let app = App::start(&[&[Read, Send(OK), ReadHead], &[Read, Send(OK), ReadHead], &[Hang]]).await;
    let upstream = upstream(&app);
    for connections in 1..=2 {
        let (mut writer, answering) = upstream.start(&get("/"), Some(0)).await.unwrap();
        writer.finish().await.unwrap();
        body(&mut answering.head().await.unwrap()).await.unwrap();
        assert_eq!(app.connections(), connections);
    }
    let (mut writer, answering) = upstream.start(&post("/"), Some(1)).await.unwrap();
    let _ = writer.write("x".into()).await;
    assert_eq!(answering.head().await.unwrap_err().class(), "broken");
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn after_a_101_bytes_go_both_ways_and_each_side_can_end_its_own() {
    let app = App::with(|mut socket, _| async move {
        let (head, _) = read_request(&mut socket).await.unwrap();
        assert!(head.contains(r"Upgrade: websocket\r\n") && !head.contains("Transfer-Encoding"));
        socket.write_all(b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\nfirst").await.unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        socket.write_all(&all).await.unwrap();
    })
    .await;
    let upstream = upstream(&app);
    let headers =
        [("Host", &b"h"[..]), ("Connection", b"Upgrade"), ("Upgrade", b"websocket")].into_iter().collect();
    let upgrade =
        Outgoing { method: Method::GET, target: "/ws".into(), headers, affinity: None, went_to: None };
    let (mut writer, answering) = upstream.start(&upgrade, None).await.unwrap();
    assert!(writer.write("smuggled".into()).await.is_err(), "nothing may be sent before the app agrees");
    let mut incoming = answering.head().await.unwrap();
    assert_eq!(incoming.status, 101);
    assert_eq!(incoming.chunk().await.unwrap().unwrap(), "first");
    writer.write("echo ".into()).await.unwrap();
    writer.write("me".into()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(body(&mut incoming).await.unwrap(), b"echo me");
    assert_eq!(pool::idle(upstream.key(0)), 0);
}

#[tokio::test]
async fn a_refused_upgrade_leaves_nothing_to_smuggle_through() {
    let app = App::start(&[&[Read, Send(OK), ReadAll]]).await;
    let upstream = upstream(&app);
    let mut upgrade = get("/ws");
    upgrade.headers = [("Host", &b"h"[..]), ("Upgrade", b"websocket")].into_iter().collect();
    let (mut writer, answering) = upstream.start(&upgrade, None).await.unwrap();
    let mut incoming = answering.head().await.unwrap();
    assert_eq!((incoming.status, body(&mut incoming).await.unwrap()), (200, b"ok".to_vec()));
    assert!(writer.write("GET /admin HTTP/1.1\r\n\r\n".into()).await.is_err());
}

/// Uploads for longer than `timeout`, with gaps of a fifth of it. The longest gap that it came to, and the answer's status.
async fn an_upload_longer_than(timeout: Duration) -> (Duration, Result<u16, String>) {
    const PIECES: usize = 7;
    let app = App::with(|mut socket, _| async move {
        let mut taken = Vec::new();
        while !taken.ends_with(b"end") && socket.read_buf(&mut taken).await.is_ok_and(|n| n > 0) {}
        let _ = socket.write_all(OK).await;
    })
    .await;
    let settings = Destination { timeout, ..destination(&app.url()) };
    let upstream = Upstream::new(&settings).unwrap();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut gap = || {
        longest = longest.max(last.elapsed());
        last = Instant::now();
    };
    let outcome = match upstream.start(&post("/"), Some(3 * PIECES as u64)).await {
        Err(error) => Err(error.to_string()),
        Ok((mut writer, answering)) => {
            let upload = async {
                for piece in (1..PIECES).map(|_| "aaa").chain(["end"]) {
                    tokio::time::sleep(timeout / 5).await;
                    gap();
                    if writer.write(piece.into()).await.is_err() {
                        return;
                    }
                }
                let _ = writer.finish().await;
            };
            let (incoming, ()) = tokio::join!(answering.head(), upload);
            incoming.map(|incoming| incoming.status).map_err(|error| error.to_string())
        }
    };
    gap();
    (longest, outcome)
}

#[tokio::test]
async fn a_stream_is_limited_by_its_gaps_not_by_its_length() {
    let mut timeout = Duration::from_millis(200);
    loop {
        let (longest, outcome) = an_upload_longer_than(timeout).await;
        // A machine that is too busy for gaps so short has shown nothing: it gets longer ones.
        if longest < timeout / 2 {
            assert_eq!(outcome, Ok(200));
            break;
        }
        timeout *= 2;
        assert!(timeout < Duration::from_secs(60), "a gap of {longest:?}");
    }

    let mut settings = destination("http://app");
    let app = App::start(&[&[ReadHead, Hang]]).await;
    settings.upstreams = vec![app.url().parse().unwrap()];
    settings.timeout = Duration::from_millis(40);
    let upstream = Upstream::new(&settings).unwrap();
    let (_writer, answering) = upstream.start(&post("/"), Some(15)).await.unwrap();
    assert_eq!(answering.head().await.unwrap_err().to_string(), "timeout: answer");
}
