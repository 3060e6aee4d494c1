//! An edge on loopback in front of a plain handler, and raw clients for it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, watch};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::app::App;
use super::client::{Asked, asked};
use super::exchange::HttpExchange;
use super::{ServeError, Sockets, bind, listen};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::config::{AccessLog, CertificateFiles, Limits, Tls, TlsVersion};
use crate::message::{Answer, Head, Headers};
use crate::receive::exchange::Exchange;
use crate::telemetry::Metrics;

/// The documented defaults.
pub(super) fn limits() -> Limits {
    Limits {
        connections: 10_000,
        requests_per_connection: 10_000,
        header_count: 100,
        header_bytes: 32 * 1024,
        uri_bytes: 8 * 1024,
        body_bytes: 10 << 20,
        body_budget: 256 << 20,
        header_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        key_wait: Duration::from_secs(2),
        h2_streams: 100,
    }
}

/// Answers by path; see `handle`.
pub(super) struct EchoApp {
    pub limits: Limits,
    pub tls: Mutex<Option<Arc<ServerConfig>>>,
    pub admits: AtomicBool,
    pub grace: Duration,
    pub metrics: Metrics,
    pub clock: Clock,
    /// Heads that reached the handler.
    pub seen: Mutex<Vec<Head>>,
    /// Holds `/wait` until told.
    pub gate: Notify,
    /// Tells when `/wait` was reached.
    pub waiting: Notify,
}

impl EchoApp {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            tls: Mutex::new(None),
            admits: AtomicBool::new(true),
            grace: Duration::from_secs(10),
            metrics: Metrics::default(),
            clock: Clock::Manual(ManualClock::at(Timestamp(7))),
            seen: Mutex::new(Vec::new()),
            gate: Notify::new(),
            waiting: Notify::new(),
        }
    }
}

impl App for EchoApp {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }
    fn tls(&self, _: usize) -> Option<Arc<ServerConfig>> {
        self.tls.lock().unwrap().clone()
    }
    fn admits(&self, _: usize, _: IpAddr) -> bool {
        self.admits.load(Ordering::SeqCst)
    }
    fn asked(&self, _: usize, peer: IpAddr, headers: &Headers) -> Asked {
        asked(peer, headers, |ip| ip.is_loopback())
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    fn access_log(&self) -> AccessLog {
        AccessLog::Errors
    }
    fn grace(&self) -> Duration {
        self.grace
    }

    async fn handle(&self, exchange: &mut HttpExchange) {
        self.seen.lock().unwrap().push(exchange.head().clone());
        let path = exchange.head().path().to_owned();
        let headers =
            |fields: &[(&str, &str)]| fields.iter().map(|(n, v)| (*n, v.as_bytes())).collect::<Headers>();
        // A sender that has gone is what some tests are about.
        let _ = match path.as_str() {
            // The body, whole.
            "/echo" => match whole(exchange).await {
                Ok(body) => exchange.answer(Answer::new(200).body("application/octet-stream", body)).await,
                Err(reason) => exchange.answer(Answer::refusal(reason)).await,
            },
            // The body is not looked at.
            "/ignore" => exchange.answer(Answer::new(404)).await,
            "/empty" => exchange.answer(Answer::new(204)).await,
            // The body, piece by piece, with its length if that is known.
            "/stream" => {
                let length = exchange.content_length().map(|n| n.to_string());
                let mut fields = vec![("X-One", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")];
                if let Some(length) = &length {
                    fields.push(("Content-Length", length));
                }
                if exchange.start(200, &headers(&fields)).await.is_err() {
                    return;
                }
                while let Ok(Some(piece)) = exchange.read().await {
                    if exchange.write(piece).await.is_err() {
                        return exchange.abort();
                    }
                }
                exchange.finish().await
            }
            "/abort" => {
                let _ = exchange.start(200, &Headers::default()).await;
                let _ = exchange.write(Bytes::from_static(b"half")).await;
                exchange.abort();
                Ok(())
            }
            "/wait" => {
                self.waiting.notify_one();
                self.gate.notified().await;
                exchange.answer(Answer::new(200).body("text/plain", "waited")).await
            }
            "/upgrade" => {
                let _ = exchange.start(101, &headers(&[("Upgrade", "echo")])).await;
                while let Ok(Some(bytes)) = exchange.read().await {
                    if exchange.write(bytes).await.is_err() {
                        return exchange.abort();
                    }
                }
                exchange.finish().await
            }
            // Reads that are given up again and again.
            "/interrupted" => {
                let mut body = BytesMut::new();
                loop {
                    match tokio::time::timeout(Duration::from_millis(300), exchange.read()).await {
                        Err(_) => {}
                        Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
                        Ok(_) => break,
                    }
                }
                exchange.answer(Answer::new(200).body("text/plain", body.freeze())).await
            }
            "/split" => exchange.answer(Answer::new(200).with("x", "a\r\nb")).await,
            "/unanswered" => Ok(()),
            "/panic" => panic!("asked for"),
            _ => exchange.answer(Answer::new(200).body("text/plain", "ok")).await,
        };
    }
}

async fn whole(exchange: &mut HttpExchange) -> Result<Bytes, crate::reason::Reason> {
    let mut body = BytesMut::new();
    while let Some(piece) = exchange.read().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// A running edge; ends with it.
pub(super) struct Edge {
    pub app: Arc<EchoApp>,
    pub address: SocketAddr,
    pub shutdown: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<Result<(), ServeError>>>,
    certificate: Option<tempfile::TempDir>,
}

impl Edge {
    pub fn plain() -> Self {
        Self::with(limits())
    }
    pub fn with(limits: Limits) -> Self {
        Self::start(EchoApp::new(limits), None)
    }
    pub fn tls() -> Self {
        Self::tls_with(limits())
    }
    pub fn tls_with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = EchoApp::new(limits);
        *app.tls.lock().unwrap() = Some(settings(&folder));
        Self::start(app, Some(folder))
    }

    pub fn start(app: EchoApp, certificate: Option<tempfile::TempDir>) -> Self {
        let sockets: Sockets = bind(["127.0.0.1:0".parse().unwrap()]).unwrap();
        let address = sockets.addresses().next().unwrap();
        let app = Arc::new(app);
        let (shutdown, stop) = watch::channel(false);
        let (ready, is_ready) = watch::channel(false);
        let served = app.clone();
        let thread = std::thread::spawn(move || listen::serve(sockets, served, 2, stop, ready));
        let mut is_ready = is_ready;
        block_on(async { is_ready.wait_for(|ready| *ready).await.map(drop) }).unwrap();
        Self { app, address, shutdown, thread: Some(thread), certificate }
    }

    /// Shuts down and waits for the end.
    pub fn stop(&mut self) -> Result<(), ServeError> {
        self.shutdown.send_replace(true);
        self.thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }

    /// A new certificate for new connections.
    pub fn rotate(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        *self.app.tls.lock().unwrap() = Some(settings(&folder));
        self.certificate = Some(folder);
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Trusts this edge's certificate only.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        use rustls_pki_types::{CertificateDer, pem::PemObject};
        let pem = self.certificate.as_ref().unwrap().path().join("cert.pem");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pem).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    pub fn connect_tls(&self, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
        let connection =
            ClientConnection::new(self.client_config(alpn), "localhost".try_into().unwrap()).unwrap();
        StreamOwned::new(connection, self.connect())
    }

    /// Sends bytes on a new plain connection and returns all that comes until the edge closes.
    pub fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The edge may close before all is written.
        let _ = stream.write_all(bytes);
        read_all(&mut stream)
    }

    pub fn seen(&self) -> usize {
        self.app.seen.lock().unwrap().len()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.app.gate.notify_waiters();
        let _ = self.stop();
    }
}

fn settings(folder: &tempfile::TempDir) -> Arc<ServerConfig> {
    let file = |name: &str| folder.path().join(name);
    let files = CertificateFiles { cert: file("cert.pem"), key: file("key.pem") };
    let tls = Tls { certificates: vec![files], min_version: TlsVersion::Tls12, generate: true };
    crate::tls::server_config(&tls).unwrap()
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) fn read_all(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        let fine =
            matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::UnexpectedEof);
        assert!(fine, "{error}, after {}", bytes.escape_ascii());
    }
    bytes.escape_ascii().to_string().replace("\\r\\n", "\r\n").replace("\\\"", "\"")
}

/// An HTTP/1 response as it came.
#[derive(Debug)]
pub(super) struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// Reads one response (not to HEAD) and leaves the rest.
pub(super) fn read_response(stream: &mut impl Read) -> Response {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}, after {}", head.escape_ascii()));
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (n, v) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then(|| v.to_owned())
        })
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
    } else if field("transfer-encoding").is_some() {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Response { status: head[9..12].parse().unwrap(), head, body }
}

/// Bytes without a pattern that framing could hide.
pub(super) fn body(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        })
        .collect()
}

/// The same, in chunks of uneven size.
pub(super) fn chunked(body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let (mut rest, mut size) = (body, 1);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        write!(wire, "{:x}\r\n", chunk.len()).unwrap();
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        (rest, size) = (after, size * 3 % 70_001 + 1);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

pub(super) const SIZES: [usize; 9] =
    [0, 1, 16 * 1024, 63 * 1024, 64 * 1024, 65 * 1024, 64 * 1024 + 1, 1 << 20, 10 << 20];
