//! How often the edge touches its socket: the budget is one read and one write a request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::watch;

use crate::edge::app::Place;
use crate::edge::conn::Conn;
use crate::edge::http1;
use crate::edge::listen::Stop;
use crate::edge::test_support::{EchoApp, limits};
use crate::edge::wire::{Transport, Wire};
use crate::message::Scheme;

#[derive(Debug, Default)]
struct Calls {
    reads: AtomicUsize,
    writes: AtomicUsize,
}

/// Counts the reads that gave something and the writes.
#[derive(Debug)]
struct Counting(DuplexStream, Arc<Calls>);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}
impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
#[async_trait]
impl Shutdown for Counting {
    async fn shutdown(&mut self) {}
}
impl UniqueID for Counting {
    fn id(&self) -> i32 {
        0
    }
}
impl Ssl for Counting {}
impl Peek for Counting {}
impl GetTimingDigest for Counting {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}
impl GetProxyDigest for Counting {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}
impl GetSocketDigest for Counting {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

/// Sends requests one by one, each in one piece, and returns reads and writes a request.
async fn calls(request: &[u8], end: &str) -> (usize, usize) {
    let (mut sender, theirs) = duplex(1 << 20);
    let calls = Arc::new(Calls::default());
    let wire = Wire::new(Box::new(Counting(theirs, calls.clone())));
    let app = Arc::new(EchoApp::new(limits()));
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let place = Place { listener: 0, peer: address, local: address };
    let (_stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        let stop = Stop::on(stopping);
        let conn = Box::new(Conn::new(Transport::Plain(wire), 1, &limits(), stop.clone()));
        http1::serve(conn, place, Scheme::Http, &app, &stop).await;
    });
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        sender.write_all(request).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(end.as_bytes()) {
            sender.read_buf(&mut said).await.unwrap();
        }
    }
    let total = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    assert_eq!((total(&calls.reads) % ROUNDS, total(&calls.writes) % ROUNDS), (0, 0));
    (total(&calls.reads) / ROUNDS, total(&calls.writes) / ROUNDS)
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_small_request_costs_one_read_and_one_write() {
    let body = "x".repeat(2048) + "end";
    assert_eq!(calls(&post("/echo", &body), "end").await, (1, 1));
    // An app's answer with a length, streamed.
    assert_eq!(calls(&post("/stream", &body), "end").await, (1, 1));
    assert_eq!(calls(b"GET /empty HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await, (1, 1));
}

#[tokio::test]
async fn an_app_s_answer_in_chunks_costs_one_write_more() {
    let request =
        b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(calls(request, "0\r\n\r\n").await, (1, 2));
}
