//! The bytes below HTTP: a TCP stream as pingora accepted it, plain or under TLS, without a buffer while idle.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// One read from a socket takes at most this much: a TLS record and its frame.
const READ_BYTES: usize = 17 * 1024;

thread_local! {
    /// Where reads of this thread land first. A connection owns memory only for what it could not pass on at once,
    /// so ten thousand idle connections cost no read buffers.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// The accepted stream. rustls asks for 4 KiB a read; this reads as much as is there in one call and keeps the rest.
pub(super) struct Wire {
    tcp: Stream,
    rest: BytesMut,
}

impl Wire {
    pub fn new(tcp: Stream) -> Self {
        Self { tcp, rest: BytesMut::new() }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            if buf.remaining() >= READ_BYTES {
                return Pin::new(&mut this.tcp).poll_read(cx, buf);
            }
            return LANDING.with_borrow_mut(|landing| {
                let mut read = ReadBuf::new(landing);
                ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut read))?;
                let (now, later) = read.filled().split_at(buf.remaining().min(read.filled().len()));
                buf.put_slice(now);
                this.rest.extend_from_slice(later);
                Poll::Ready(Ok(()))
            });
        }
        let now = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest[..now]);
        this.rest.advance(now);
        if this.rest.is_empty() {
            this.rest = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Plain bytes, or those inside TLS.
pub(super) enum Transport {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

impl Transport {
    /// Appends what is there to `received`, with room for `expected` bytes; returns how many came, 0 at the end.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut BytesMut,
        expected: usize,
    ) -> Poll<io::Result<usize>> {
        let mut append = |come: &[u8]| {
            received.reserve(if come.is_empty() { 0 } else { come.len().max(expected) });
            received.extend_from_slice(come);
            come.len()
        };
        match self {
            Transport::Plain(wire) => LANDING.with_borrow_mut(|landing| {
                let mut read = ReadBuf::new(landing);
                ready!(Pin::new(wire).poll_read(cx, &mut read))?;
                Poll::Ready(Ok(append(read.filled())))
            }),
            Transport::Tls(tls) => {
                let come = match ready!(Pin::new(&mut **tls).poll_fill_buf(cx)) {
                    Ok(plain) => append(plain),
                    // A close without `close_notify`. Every body is framed, so its truncation shows without TLS's help.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                Pin::new(&mut **tls).consume(come);
                Poll::Ready(Ok(come))
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Transport::Tls(tls) => match Pin::new(tls).poll_read(cx, buf) {
                // As above.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Plain(wire) => Pin::new(wire).poll_write(cx, buf),
            Transport::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Transport::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
