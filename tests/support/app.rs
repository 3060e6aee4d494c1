//! The app behind the gateway: it remembers every request byte for byte, and can be as sick as apps get.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::wire::{self, Framing, Reader};
use super::{certs, eventually};

/// What the app does with a request once it has read it.
#[derive(Clone, Debug)]
pub enum Behaviour {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Answers 200, after this long.
    Slow(Duration),
    /// Never answers.
    Hang,
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection after the head, before the body is read.
    ResetWithinRequest,
    /// Promises a longer answer than it gives.
    CloseWithinAnswer,
    /// Answers these bytes, whatever they are, and closes.
    Raw(&'static [u8]),
}

impl Behaviour {
    pub fn status(status: u16) -> Self {
        Behaviour::Answer { status, headers: vec![], body: b"from the app\n".to_vec() }
    }
}

/// A request as it stood on the wire.
#[derive(Clone, Debug)]
pub struct Received {
    pub request_line: String,
    /// Names in their case, in order, repeats kept.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub at: Instant,
    /// Which of the app's connections it came on.
    pub connection: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::field(&self.headers, name)
    }
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }
    pub fn event_id(&self) -> &str {
        self.header("tidegate-event-id").unwrap_or_default()
    }
    pub fn attempt(&self) -> u32 {
        self.header("tidegate-attempt").and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Shared {
    received: Mutex<Vec<Received>>,
    behaviour: Mutex<Behaviour>,
    next: Mutex<VecDeque<Behaviour>>,
    connections: Mutex<usize>,
}

/// What the app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    Http1Tls,
    /// With prior knowledge.
    Http2,
    Http2Tls,
}

#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    speaks: Speaks,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl App {
    pub async fn start() -> Self {
        Self::speaking(Speaks::Http1).await
    }

    pub async fn speaking(speaks: Speaks) -> Self {
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            behaviour: Mutex::new(Behaviour::status(200)),
            next: Mutex::default(),
            connections: Mutex::default(),
        });
        let listener = loop {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port())).await {
                break listener;
            }
        };
        let address = listener.local_addr().expect("an address");
        let app = Self { address, speaks, shared, serving: Mutex::default() };
        app.serve(listener);
        app
    }

    /// The URL for `forward_to`, without a path: the sender's is kept.
    pub fn url(&self) -> String {
        match self.speaks {
            Speaks::Http1 | Speaks::Http2 => format!("http://{}", self.address),
            Speaks::Http1Tls | Speaks::Http2Tls => format!("https://localhost:{}", self.address.port()),
        }
    }

    fn serve(&self, listener: TcpListener) {
        let (shared, speaks) = (self.shared.clone(), self.speaks);
        *self.serving.lock() = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new(); // ends with this task
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                connections.spawn(connection(stream, speaks, shared.clone()));
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Refuses connections from now on and breaks those that are open.
    pub async fn refuse(&self) {
        let serving = self.serving.lock().take();
        if let Some(serving) = serving {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Takes connections again, at the same address.
    pub async fn accept(&self) {
        // A child process that is just being started may hold a copy of the old socket for a moment.
        eventually("the app's address is free", async || match TcpListener::bind(self.address).await {
            Ok(listener) => {
                self.serve(listener);
                true
            }
            Err(_) => false,
        })
        .await;
    }

    /// What it does from now on.
    pub fn behaves(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock() = behaviour;
    }

    /// What it does with the next requests, before it returns to its habit.
    pub fn behaves_next(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.next.lock().extend(behaviours);
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.received.lock().len()
    }

    pub fn forget(&self) {
        self.shared.received.lock().clear();
    }

    /// Connections that were ever made to it.
    pub fn connections(&self) -> usize {
        *self.shared.connections.lock()
    }

    /// Waits until at least `count` requests have come; gives them all.
    pub async fn receives(&self, count: usize) -> Vec<Received> {
        eventually(&format!("the app has received {count}"), async || self.count() >= count).await;
        self.received()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().take() {
            serving.abort();
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connection(stream: TcpStream, speaks: Speaks, shared: Arc<Shared>) {
    let number = {
        let mut connections = shared.connections.lock();
        *connections += 1;
        *connections
    };
    let alpn = match speaks {
        Speaks::Http1 | Speaks::Http1Tls => "http/1.1",
        Speaks::Http2 | Speaks::Http2Tls => "h2",
    };
    let acceptor = TlsAcceptor::from(certs::server_config(&[alpn]));
    // Broken connections are what some tests are about; the log tells what arrived.
    match speaks {
        Speaks::Http1 => drop(http1(stream, number, shared).await),
        Speaks::Http2 => http2(stream, number, shared).await,
        Speaks::Http1Tls | Speaks::Http2Tls => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            match speaks {
                Speaks::Http1Tls => drop(http1(stream, number, shared).await),
                _ => http2(stream, number, shared).await,
            }
        }
    }
}

async fn http1(stream: impl Stream, number: usize, shared: Arc<Shared>) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head().await? {
        let (request_line, headers) = wire::parse_head(&head);
        let behaviour = shared.behaviour();
        if matches!(behaviour, Behaviour::ResetWithinRequest) {
            return Ok(()); // unread bytes in the socket make the system send a reset
        }
        let upgrade = wire::field(&headers, "upgrade").is_some();
        let body = reader.body(wire::framing(&headers, Framing::None)).await?;
        let received = Received { request_line, headers, body, at: Instant::now(), connection: number };
        shared.received.lock().push(received);
        if upgrade {
            let (mut stream, early) = reader.into_parts();
            return echo(&mut stream, early).await;
        }
        let stream = &mut reader.stream;
        match behaviour {
            Behaviour::Answer { status, headers, body } => answer(stream, status, &headers, &body).await?,
            Behaviour::Slow(delay) => {
                tokio::time::sleep(delay).await;
                answer(stream, 200, &[], b"").await?;
            }
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Close | Behaviour::ResetWithinRequest => return Ok(()),
            Behaviour::CloseWithinAnswer => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await?;
                return stream.shutdown().await;
            }
            Behaviour::Raw(bytes) => {
                stream.write_all(bytes).await?;
                return stream.shutdown().await;
            }
        }
    }
    Ok(())
}

async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let message = [text.as_bytes(), b"\r\n", body].concat();
    stream.write_all(&message).await?;
    // What TLS could not write at once would else wait for the next write.
    stream.flush().await
}

/// The protocol behind an upgrade: every byte comes back.
async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), early: Vec<u8>) -> io::Result<()> {
    let accept =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n").as_bytes()).await?;
    stream.write_all(&early).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        stream.flush().await?;
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}

/// HTTP/2 answers only as [`Behaviour::Answer`]; the rest is HTTP/1.1's.
async fn http2(stream: impl Stream + 'static, number: usize, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let shared = shared.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let headers = head
                .headers
                .iter()
                .map(|(name, value)| {
                    let value = value.as_bytes().iter().map(|byte| *byte as char).collect();
                    (name.to_string(), value)
                })
                .collect();
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            let request_line = format!("{} {target} HTTP/2", head.method);
            let at = Instant::now();
            shared.received.lock().push(Received { request_line, headers, body, at, connection: number });
            let status = match shared.behaviour() {
                Behaviour::Answer { status, .. } => status,
                _ => 200,
            };
            let answer = hyper::Response::builder().status(status).body(Full::new(Bytes::new()));
            Ok::<_, hyper::Error>(answer.expect("a valid answer"))
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        self.next.lock().pop_front().unwrap_or_else(|| self.behaviour.lock().clone())
    }
}
