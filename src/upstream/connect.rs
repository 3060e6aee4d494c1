//! From an upstream's name to an open connection: DNS, TCP, TLS, all within one deadline.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{UpstreamHttp, UpstreamTls};
use crate::message::Scheme;

use super::origin::Origin;
use super::{SetupError, UpstreamError, tls};

/// Addresses of a name are asked for again after this.
const ADDRESSES_FRESH: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried in turn.
const MAX_ADDRESSES: usize = 8;

/// One upstream server, ready to be connected to.
#[derive(Debug)]
pub(super) struct Server {
    pub origin: Origin,
    tls: Option<Tls>,
    /// Known without asking: the host is an address.
    literal: Option<SocketAddr>,
    /// What the name had lately.
    found: Mutex<Option<(Instant, Arc<[SocketAddr]>)>>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    http: UpstreamHttp,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// `connector` is shared by the servers of a destination (and with it the resumed sessions).
    pub fn new(
        origin: Origin,
        settings: &UpstreamTls,
        http: UpstreamHttp,
        connector: Option<&TlsConnector>,
    ) -> Result<Self, SetupError> {
        let tls = match (origin.scheme, connector) {
            (Scheme::Https, Some(connector)) => {
                let name = tls::server_name(&origin.host, settings)?;
                Some(Tls { connector: connector.clone(), name, http })
            }
            _ => None,
        };
        let literal = origin.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, origin.port));
        Ok(Self { origin, tls, literal, found: Mutex::new(None) })
    }

    /// Connects, handshake included, until `deadline`.
    pub async fn connect(&self, deadline: Instant) -> Result<Stream, UpstreamError> {
        match timeout_at(deadline, self.open(deadline)).await {
            Ok(done) => done,
            Err(_) => Err(UpstreamError::Timeout("connect")),
        }
    }

    async fn open(&self, deadline: Instant) -> Result<Stream, UpstreamError> {
        let tcp = match self.literal {
            Some(address) => tcp(address).await?,
            None => first_that_answers(&self.addresses().await?, deadline).await?,
        };
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let stream = tls
            .connector
            .connect(tls.name.clone(), tcp)
            .await
            .map_err(|error| UpstreamError::Tls(error.to_string()))?;
        if tls.http == UpstreamHttp::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(UpstreamError::Tls("the app does not offer HTTP/2 (ALPN h2)".into()));
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn addresses(&self) -> Result<Arc<[SocketAddr]>, UpstreamError> {
        if let Some((at, addresses)) = &*self.found.lock()
            && at.elapsed() < ADDRESSES_FRESH
        {
            return Ok(addresses.clone());
        }
        let Origin { host, port, .. } = &self.origin;
        let addresses: Arc<[SocketAddr]> = tokio::net::lookup_host((host.as_str(), *port))
            .await
            .map_err(|error| UpstreamError::Dns(format!("{host}: {error}")))?
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(UpstreamError::Dns(format!("{host}: the name has no address")));
        }
        *self.found.lock() = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// Tries addresses in turn; each gets a fair share of what is left, so that a silent one does not use it all up.
async fn first_that_answers(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, UpstreamError> {
    let mut failure = UpstreamError::Timeout("connect");
    for (n, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - n).unwrap_or(1);
        match timeout_at(Instant::now() + share, tcp(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = UpstreamError::Timeout("connect"),
        }
    }
    Err(failure)
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, UpstreamError> {
    let stream = TcpStream::connect(address).await.map_err(|error| UpstreamError::connecting(&error))?;
    // Requests are written whole: waiting to fill a segment would only add latency.
    stream.set_nodelay(true).map_err(|error| UpstreamError::connecting(&error))?;
    Ok(stream)
}

/// An open connection to an app.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether an idle connection can still be used: the app has neither closed it nor said anything unasked. Costs no
    /// system call while nothing has arrived.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0u8; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut nobody, &mut buf).is_pending()
    }
}

macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
