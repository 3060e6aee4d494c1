//! Helpers of this area's tests: an app on a real socket that does exactly what a script says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::buffer::DestinationName;
use crate::config::{Destination, HostHeader};
use crate::message::Method;

use super::{Incoming, Outgoing, UpstreamError};

/// A destination with one upstream and times that no test reaches.
pub(crate) fn destination(url: &str) -> Destination {
    let name = DestinationName::new("route", "app");
    Destination {
        connect_timeout: Duration::from_secs(20),
        concurrency: 4,
        host: HostHeader::Keep,
        ..Destination::plain(name, url.parse().unwrap(), Duration::from_secs(30))
    }
}

pub(crate) fn post(target: &str) -> Outgoing {
    let headers = [("Host", &b"hooks.example"[..]), ("X-Case", b"\xffKept")].into_iter().collect();
    Outgoing { method: Method::POST, target: target.into(), headers, affinity: None, went_to: None }
}

pub(crate) fn get(target: &str) -> Outgoing {
    Outgoing { method: Method::GET, ..post(target) }
}

/// What the app does on a connection, in order; then it closes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Reads one whole request (by its Content-Length).
    Read,
    /// Reads up to the end of the head only.
    ReadHead,
    /// Reads to the end of the connection.
    ReadAll,
    Send(&'static [u8]),
    /// Sends the same again and again until the connection breaks.
    Flood(&'static [u8]),
    /// Sends a byte every few milliseconds.
    Trickle(&'static [u8]),
    Hang,
    Reset,
}

/// An app on a real socket.
#[derive(Debug)]
pub(crate) struct App {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl App {
    /// Runs the n-th script on the n-th connection, the last on all further ones.
    pub async fn start(scripts: &'static [&'static [Act]]) -> App {
        Self::with(move |socket, n| play(socket, scripts[n.min(scripts.len() - 1)])).await
    }

    pub async fn with<F, Fut>(serve: F) -> App
    where
        F: Fn(TcpStream, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(socket, n));
            }
        });
        App { address, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn play(mut socket: TcpStream, script: &[Act]) {
    for act in script {
        match act {
            Act::Read => {
                let _ = read_request(&mut socket).await;
            }
            Act::ReadHead => {
                let mut byte = [0; 1];
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).await.is_ok() {
                    head.push(byte[0]);
                }
            }
            Act::ReadAll => {
                let _ = socket.read_to_end(&mut Vec::new()).await;
            }
            Act::Send(bytes) => {
                let _ = socket.write_all(bytes).await;
            }
            Act::Flood(bytes) => while socket.write_all(bytes).await.is_ok() {},
            Act::Trickle(bytes) => {
                for byte in bytes.iter() {
                    let _ = socket.write_all(&[*byte]).await;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            Act::Hang => std::future::pending().await,
            Act::Reset => {
                let _ = socket.set_zero_linger();
                return;
            }
        }
    }
}

/// The head and body of one request with a Content-Length (or without a body); `None` at the end of the connection.
pub(crate) async fn read_request<S: AsyncReadExt + Unpin>(socket: &mut S) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    let text = head.escape_ascii().to_string();
    let length = text.split_once("Content-Length: ").map_or(0, |(_, rest)| {
        rest.split('\\').next().and_then(|digits| digits.parse().ok()).expect("a length")
    });
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((text, body))
}

/// The whole body of an answer.
pub(crate) async fn body(incoming: &mut Incoming) -> Result<Vec<u8>, UpstreamError> {
    let mut all = Vec::new();
    while let Some(chunk) = incoming.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Bytes that would show any that are lost, doubled or moved.
pub(crate) fn pattern(length: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub(crate) const SIZES: [usize; 6] = [0, 63 * 1024, 64 * 1024, 65 * 1024, 1024 * 1024, 10 * 1024 * 1024];
