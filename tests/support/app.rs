//! The app behind the gateway: it remembers every request byte for byte, and can be as sick as apps get.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
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
    /// As the request's body says.
    By(fn(&[u8]) -> Behaviour),
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
    /// Answers before it has read the body, and closes.
    Early(u16),
    /// Begins an answer and sends a byte of it now and then, for ever.
    Trickle,
    /// Sends interim answers, for ever.
    InterimFlood,
    /// HTTP/2: refuses the stream before it looks at it (`REFUSED_STREAM`).
    RefuseStream,
    /// HTTP/2: answers 200, and says that this connection takes no more (`GOAWAY`).
    GoAway,
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
    /// Path and query as asked for.
    pub fn target(&self) -> &str {
        self.request_line.split(' ').nth(1).unwrap_or_default()
    }
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
    /// HTTP/1.1 over TLS, to clients that show a certificate of this run's authority.
    Http1MutualTls,
    /// HTTP/1.1 over TLS, with a certificate for another name.
    Http1OtherName,
    /// HTTP/1.1 over TLS, as Amazon SNS in eu-west-1.
    Http1Sns,
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
            _ => format!("https://localhost:{}", self.address.port()),
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
    let config = match speaks {
        Speaks::Http1 => return drop(http1(stream, number, shared).await),
        Speaks::Http2 => return drop(http2(stream, number, shared).await),
        Speaks::Http1Tls => certs::server_config(&["http/1.1"]),
        Speaks::Http2Tls => certs::server_config(&["h2"]),
        Speaks::Http1MutualTls => certs::mutual_config(&["http/1.1"]),
        Speaks::Http1OtherName => certs::other_config(&["http/1.1"]),
        Speaks::Http1Sns => certs::sns_config(&["http/1.1"]),
    };
    // Broken connections are what some tests are about; the log tells what arrived.
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    match speaks {
        Speaks::Http2Tls => drop(http2(stream, number, shared).await),
        _ => drop(http1(stream, number, shared).await),
    }
}

async fn http1(stream: impl Stream, number: usize, shared: Arc<Shared>) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head().await? {
        let (request_line, headers) = wire::parse_head(&head);
        let behaviour = shared.behaviour();
        match behaviour {
            // Unread bytes in the socket make the system send a reset.
            Behaviour::ResetWithinRequest => return Ok(()),
            Behaviour::Early(status) => {
                let headers = [("Connection", "close".to_owned())];
                answer(&mut reader.stream, status, &headers, b"not of interest").await?;
                return reader.stream.shutdown().await;
            }
            _ => {}
        }
        let upgrade = wire::field(&headers, "upgrade").is_some();
        let body = reader.body(wire::framing(&headers, Framing::None)).await?;
        let received = Received { request_line, headers, body, at: Instant::now(), connection: number };
        let behaviour = match behaviour {
            Behaviour::By(decides) => decides(&received.body),
            behaviour => behaviour,
        };
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
            Behaviour::Trickle => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                loop {
                    stream.write_all(b"1\r\nx\r\n").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Behaviour::InterimFlood => loop {
                stream.write_all(&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(100)).await?;
            },
            Behaviour::Close
            | Behaviour::By(_)
            | Behaviour::ResetWithinRequest
            | Behaviour::Early(_)
            | Behaviour::RefuseStream
            | Behaviour::GoAway => return Ok(()),
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

async fn http2(stream: impl Stream + 'static, number: usize, shared: Arc<Shared>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    let mut streams = JoinSet::new(); // ends with this task
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let behaviour = shared.behaviour();
        match behaviour {
            Behaviour::RefuseStream => respond.send_reset(h2::Reason::REFUSED_STREAM),
            Behaviour::ResetWithinRequest => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Behaviour::Close => return Ok(()),
            _ => {
                if matches!(behaviour, Behaviour::GoAway) {
                    connection.graceful_shutdown();
                }
                let shared = shared.clone();
                streams.spawn(async move { stream2(request, respond, behaviour, number, &shared).await });
            }
        }
        while streams.try_join_next().is_some() {}
    }
    Ok(())
}

/// One stream that is served.
async fn stream2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    behaviour: Behaviour,
    connection: usize,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend(data);
    }
    let headers = head.headers.iter().map(|(name, value)| {
        // Latin-1, so that every byte survives.
        (name.to_string(), value.as_bytes().iter().map(|byte| *byte as char).collect())
    });
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let request_line = format!("{} {target} HTTP/2", head.method);
    let received =
        Received { request_line, headers: headers.collect(), body, at: Instant::now(), connection };
    shared.received.lock().push(received);
    let breaks_off = matches!(behaviour, Behaviour::CloseWithinAnswer);
    let (status, headers, body) = match behaviour {
        Behaviour::Answer { status, headers, body } => (status, headers, body),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            (200, vec![], vec![])
        }
        Behaviour::CloseWithinAnswer => (200, vec![], b"only this and more".to_vec()),
        _ => (200, vec![], vec![]),
    };
    let mut answer = http::Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(name, value);
    }
    let answer = answer.body(()).expect("a valid answer");
    let mut stream = respond.send_response(answer, body.is_empty())?;
    if breaks_off {
        stream.send_data(Bytes::from_static(b"only this"), false)?;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    } else if !body.is_empty() {
        stream.send_data(body.into(), true)?;
    }
    Ok(())
}

impl Shared {
    fn behaviour(&self) -> Behaviour {
        self.next.lock().pop_front().unwrap_or_else(|| self.behaviour.lock().clone())
    }
}
