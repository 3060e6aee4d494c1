//! The senders' side: requests over plain and encrypted HTTP/1.1, HTTP/2, or as raw bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::wire::{self, Framing, Reader};
use super::{PATIENCE, certs};

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Plain,
    Tls,
    /// HTTP/2 over TLS.
    Http2,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    ByLength,
    /// In chunks of at most so many bytes.
    ByChunks(usize),
}

/// A request to be sent as often as one likes.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub told: Told,
}

impl Request {
    pub fn new(method: &str, target: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = Bytes::from(body.into());
        Self { method: method.into(), target: target.into(), headers: vec![], body, told: Told::ByLength }
    }
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target, body)
    }
    pub fn get(target: &str) -> Self {
        Self::new("GET", target, "")
    }
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    /// Replaces every header of that name.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).header(name, value)
    }
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }
    pub fn to(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into().into();
        self
    }
    pub fn chunked(mut self, size: usize) -> Self {
        self.told = Told::ByChunks(size);
        self
    }
    pub fn value(&self, name: &str) -> &str {
        wire::field(&self.headers, name).unwrap_or_default()
    }

    /// The request as HTTP/1.1 bytes. `Host` comes first unless the request has its own.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if wire::field(&self.headers, "host").is_none() {
            text += "Host: localhost\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        // Latin-1, so that tests can send any byte.
        let mut bytes: Vec<u8> = text.chars().map(|char| char as u32 as u8).collect();
        match self.told {
            Told::ByLength if self.body.is_empty() && self.method == "GET" => bytes.extend(b"\r\n"),
            Told::ByLength => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
                bytes.extend(&self.body);
            }
            Told::ByChunks(size) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in self.body.chunks(size) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::field(&self.headers, name)
    }
    pub fn reason(&self) -> &str {
        self.header("tidegate-reason").unwrap_or_default()
    }
    pub fn event_id(&self) -> &str {
        self.header("tidegate-event-id").unwrap_or_default()
    }
    pub fn is_duplicate(&self) -> bool {
        self.header("tidegate-duplicate") == Some("true")
    }
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An open HTTP/1.1 connection.
pub struct Connection {
    reader: Reader<Box<dyn Duplex>>,
    /// The last request asked for a head only: its answer tells a length and has no body.
    asked_head: bool,
}

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

async fn in_time<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, what)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

pub async fn connect_tls(address: SocketAddr, name: &str, alpn: &[&str]) -> io::Result<Box<dyn Duplex>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(certs::client_config(alpn)).connect(name, stream).await?))
}

impl Connection {
    pub async fn plain(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: Reader::new(Box::new(stream)), asked_head: false })
    }

    pub async fn tls(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(connect_tls(address, "localhost", &["http/1.1"])).await?;
        Ok(Self { reader: Reader::new(stream), asked_head: false })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        in_time(async {
            self.reader.stream.write_all(bytes).await?;
            self.reader.stream.flush().await
        })
        .await
    }

    /// Says that nothing more will come.
    pub async fn end(&mut self) -> io::Result<()> {
        self.reader.stream.shutdown().await
    }

    /// The next answer (1xx ones too); `None` if the connection is closed instead.
    pub async fn answer(&mut self) -> io::Result<Option<Answer>> {
        in_time(async {
            let Some(head) = self.reader.head().await? else { return Ok(None) };
            let (line, headers) = wire::parse_head(&head);
            let status = line
                .split(' ')
                .nth(1)
                .and_then(|text| text.parse::<u16>().ok())
                .ok_or_else(|| io::Error::other(format!("not an answer: {line}")))?;
            let otherwise = if status < 200 || status == 204 || status == 304 {
                Framing::None
            } else {
                Framing::UntilClose
            };
            let framing = if self.asked_head { Framing::None } else { wire::framing(&headers, otherwise) };
            let body = self.reader.body(framing).await?;
            Ok(Some(Answer { status, headers, body }))
        })
        .await
    }

    /// Raw bytes, after an upgrade.
    pub async fn read_exact(&mut self, length: usize) -> io::Result<Vec<u8>> {
        in_time(self.reader.body(Framing::Length(length))).await
    }

    pub async fn send(&mut self, request: &Request) -> io::Result<Answer> {
        self.asked_head = request.method == "HEAD";
        // A refused request may be answered, and the connection closed, before all of its body is sent.
        let written = self.write(&request.bytes()).await;
        loop {
            match self.answer().await {
                Ok(Some(answer)) if answer.status == 100 => {}
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {
                    written?;
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Whether the other side closes without sending anything more.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match timeout(PATIENCE, self.reader.stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => true,
            Ok(Ok(_)) | Err(_) => false,
        }
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// An open HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub struct Http2 {
    sender: hyper::client::conn::http2::SendRequest<Body>,
    authority: Arc<str>,
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = in_time(connect_tls(address, "localhost", &["h2"])).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: format!("localhost:{}", address.port()).into() })
    }

    pub async fn send(&self, request: &Request) -> io::Result<Answer> {
        let body = match request.told {
            Told::ByLength => Full::new(request.body.clone()).map_err(|never| match never {}).boxed(),
            // No length is told: the frames simply end.
            Told::ByChunks(size) => {
                let frames: Vec<_> = request
                    .body
                    .chunks(size)
                    .map(|chunk| Ok(hyper::body::Frame::data(request.body.slice_ref(chunk))))
                    .collect();
                Frames(frames.into_iter()).boxed()
            }
        };
        self.send_body(request, body).await
    }

    /// The request's head with another body.
    async fn send_body(&self, request: &Request, body: Body) -> io::Result<Answer> {
        let mut head = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(format!("https://{}{}", self.authority, request.target));
        for (name, value) in &request.headers {
            let value: Vec<u8> = value.chars().map(|char| char as u32 as u8).collect();
            head = head.header(name.to_ascii_lowercase(), value);
        }
        let request = head.body(body).map_err(io::Error::other)?;
        let mut sender = self.sender.clone();
        in_time(async {
            let answer = sender.send_request(request).await.map_err(io::Error::other)?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
            let headers = head
                .headers
                .iter()
                .map(|(name, value)| {
                    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect();
            Ok(Answer { status: head.status.as_u16(), headers, body })
        })
        .await
    }
}

impl Http2 {
    /// A POST whose body is followed by a trailer.
    pub async fn send_with_trailers(
        &self,
        target: &str,
        body: &'static str,
        (name, value): (&'static str, &'static str),
    ) -> io::Result<Answer> {
        let mut trailers = hyper::HeaderMap::new();
        trailers.insert(name, hyper::header::HeaderValue::from_static(value));
        let frames = vec![
            Ok(hyper::body::Frame::data(Bytes::from_static(body.as_bytes()))),
            Ok(hyper::body::Frame::trailers(trailers)),
        ];
        self.send_body(&Request::post(target, ""), Frames(frames.into_iter()).boxed()).await
    }
}

type Frame = io::Result<hyper::body::Frame<Bytes>>;

/// Ready frames as a body, without a length.
struct Frames(std::vec::IntoIter<Frame>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = io::Error;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Frame>> {
        std::task::Poll::Ready(self.0.next())
    }
}
