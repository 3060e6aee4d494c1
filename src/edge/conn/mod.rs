//! One connection's bytes between the socket and HTTP.
//!
//! On HTTP/1, [`Conn`] takes each head off the wire (strictly, bounded, with a deadline) and then its body, which ends
//! where the head said: a body can't run into the next request, and pipelined requests wait here. What is written is
//! collected, so that a small answer leaves in one TLS record and one system call. Under HTTP/2 the bytes pass as they
//! are; it reads and writes a [`Conn`] as a plain stream.

mod session_io;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pingora::protocols::UniqueIDType;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::chunked::Chunked;
use super::deadline::Deadline;
use super::head::{Framing, Scan, Scanner};
use super::listen::Stop;
use super::wire::Transport;
use crate::config::Limits;
use crate::reason::Reason;

/// What is there of a body is passed on in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;
/// Memory for a body grows by at most this before its bytes come.
const AHEAD_BYTES: usize = 32 * 1024;
/// Written bytes are collected up to this: a TLS record.
const WRITE_BYTES: usize = 16 * 1024;
/// Collecting buffers that grew beyond this are given back between requests.
const KEPT_BYTES: usize = 4 * 1024;
/// A closing connection still reads this much, this long, so that the sender gets to read the answer.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// At shutdown, how long a connection that has not asked anything yet may still do so.
pub(super) const FRESH_GRACE: Duration = Duration::from_secs(1);

/// A connection. See the module.
pub(super) struct Conn {
    io: Transport,
    id: UniqueIDType,
    /// Received and not yet passed on.
    received: BytesMut,
    message: Message,
    body_timeout: Duration,
    read_deadline: Deadline,
    /// Written and not yet sent.
    written: BytesMut,
    write_stall: Deadline,
    write_timeout: Duration,
    stop: Stop,
}

/// What may be read after the head.
#[derive(Debug)]
enum Message {
    /// All of one message was read, or none has begun.
    Ended,
    /// So many bytes.
    Length(u64),
    Chunked(Chunked),
    /// Whatever comes, until the sender ends.
    Raw,
}

/// What came instead of a head, or the head.
#[derive(Debug)]
pub(super) enum Next {
    Head(Bytes),
    Refused(Reason),
    /// The sender left, stayed silent, or we are shutting down: there is nothing to answer.
    Closed,
}

/// How long to wait for a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// The first request of a connection: its whole head is due.
    First,
    /// Between requests.
    Idle,
}

impl Conn {
    pub fn new(io: Transport, id: UniqueIDType, limits: &Limits, stop: Stop) -> Self {
        Self {
            io,
            id,
            received: BytesMut::new(),
            message: Message::Ended,
            body_timeout: limits.body_timeout,
            read_deadline: Deadline::default(),
            written: BytesMut::new(),
            write_stall: Deadline::default(),
            write_timeout: limits.idle_timeout,
            stop,
        }
    }

    /// Whether the shutdown has begun.
    pub fn stopping(&self) -> bool {
        self.stop.stopping()
    }

    /// Where an answer's head is put; it leaves with what is written after it.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.written
    }

    /// Waits for the next request's head. `stop` ends the wait while no byte of one has come.
    pub async fn next_head(
        &mut self,
        limits: &Limits,
        patience: Patience,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Next {
        self.message = Message::Ended;
        self.body_timeout = limits.body_timeout;
        self.write_timeout = limits.idle_timeout;
        self.read_deadline.clear();
        if self.received.is_empty() {
            // Idle connections hold no memory of the request before.
            self.received = BytesMut::new();
        }
        if self.written.capacity() > KEPT_BYTES && self.written.is_empty() {
            self.written = BytesMut::new();
        }
        let mut scanner = Scanner::default();
        let mut begun = matches!(patience, Patience::First);
        if begun {
            self.read_deadline.set(Instant::now() + limits.header_timeout);
        }
        let mut stopped = false;
        loop {
            match scanner.advance(&self.received, limits) {
                Scan::Complete(end) => {
                    self.read_deadline.clear();
                    return Next::Head(self.received.split_to(end).freeze());
                }
                Scan::Refused(reason) => return Next::Refused(reason),
                Scan::Partial if self.received.is_empty() && !self.read_deadline.is_set() => {
                    self.read_deadline.set(Instant::now() + limits.idle_timeout);
                }
                Scan::Partial if !self.received.is_empty() && !begun => {
                    begun = true;
                    self.read_deadline.set(Instant::now() + limits.header_timeout);
                }
                Scan::Partial => {}
            }
            let more = poll_fn(|cx| {
                if let Poll::Ready(read) = self.poll_receive(cx, 0) {
                    return Poll::Ready(Some(read));
                }
                if self.received.is_empty() && !stopped && stop.as_mut().poll(cx).is_ready() {
                    stopped = true;
                    if matches!(patience, Patience::Idle) {
                        return Poll::Ready(None);
                    }
                    // Its first request may be on the way already.
                    self.read_deadline.set(Instant::now() + FRESH_GRACE);
                }
                self.read_deadline.poll_expired(cx).map(|()| None)
            })
            .await;
            match more {
                Some(Ok(1..)) => {}
                Some(Ok(0)) if !self.received.is_empty() => return Next::Refused(Reason::MalformedRequest),
                Some(Ok(0) | Err(_)) => return Next::Closed,
                None if self.received.is_empty() => return Next::Closed,
                None => return Next::Refused(Reason::RequestTimeout),
            }
        }
    }

    /// Begins the message behind a head: from now on its body is read.
    pub fn begin(&mut self, framing: Framing) {
        self.message = match framing {
            Framing::None | Framing::Length(0) => Message::Ended,
            Framing::Length(length) => Message::Length(length),
            Framing::Chunked => Message::Chunked(Chunked::default()),
        };
    }

    /// Lets whatever comes after the message pass, for another protocol. Not while the message has not ended.
    pub fn switch(&mut self) {
        self.message = Message::Raw;
    }

    /// Whether the message's body was read to its end.
    pub fn ended(&self) -> bool {
        matches!(self.message, Message::Ended)
    }

    /// The next piece of the body, `None` at its end. What is there already comes in one piece. Safe to cancel.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Reason> {
        poll_fn(|cx| {
            if let Poll::Ready(piece) = self.poll_piece(cx) {
                return Poll::Ready(piece);
            }
            if matches!(self.message, Message::Raw) {
                return Poll::Pending;
            }
            // The whole body is due then: set at the first wait, never moved by what trickles in.
            if !self.read_deadline.is_set() {
                self.read_deadline.set(Instant::now() + self.body_timeout);
            }
            self.read_deadline.poll_expired(cx).map(|()| Err(Reason::RequestTimeout))
        })
        .await
    }

    /// The rest of the body, if it is here already, read and thrown away. Says whether the body has ended.
    pub async fn skip(&mut self) -> bool {
        poll_fn(|cx| {
            while let Poll::Ready(Ok(Some(_))) = self.poll_piece(cx) {}
            Poll::Ready(self.ended())
        })
        .await
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Reason>> {
        loop {
            // How many of the next bytes are the body's, and how many make a piece without waiting for more.
            let (all, enough) = match &mut self.message {
                Message::Ended => return Poll::Ready(Ok(None)),
                Message::Length(left) => {
                    let left = usize::try_from(*left).unwrap_or(usize::MAX);
                    (left, left.min(PIECE_BYTES))
                }
                Message::Raw => (usize::MAX, 1),
                Message::Chunked(body) => match body.take(&mut self.received)? {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None if body.ended() => {
                        self.message = Message::Ended;
                        continue;
                    }
                    // All that had come was framing.
                    None => (usize::MAX, 1),
                },
            };
            let here = self.received.len();
            if here < enough {
                match self.poll_receive(cx, all - here) {
                    Poll::Ready(Ok(1..)) => continue,
                    // The next call meets the end or the error again.
                    _ if here > 0 => {}
                    Poll::Ready(Ok(_)) if matches!(self.message, Message::Raw) => {
                        return Poll::Ready(Ok(None));
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Reason::BodyIncomplete)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            let piece = self.received.split_to(all.min(self.received.len())).freeze();
            if let Message::Length(left) = &mut self.message {
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.message = Message::Ended;
                }
            }
            return Poll::Ready(Ok(Some(piece)));
        }
    }

    /// Reads what is there into `received`, where `expected` bytes more are due; 0 at the sender's end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<io::Result<usize>> {
        self.io.poll_receive(cx, &mut self.received, expected.min(AHEAD_BYTES))
    }

    /// Sends what was collected.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.written.is_empty() {
            let sent = Pin::new(&mut self.io).poll_write(cx, &self.written);
            match ready!(self.poll_moved(cx, sent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.written.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends a write that makes no progress for too long: a receiver that reads nothing holds nothing for ever.
    fn poll_moved<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_stall.clear();
            return result;
        }
        if !self.write_stall.is_set() {
            self.write_stall.set(Instant::now() + self.write_timeout);
        }
        ready!(self.write_stall.poll_expired(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes a whole answer and sends it.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Ends a connection on which nothing is under way.
    pub async fn close_idle(mut self: Box<Self>) {
        let _ = timeout(LINGER_TIME, AsyncWriteExt::shutdown(&mut *self)).await;
    }

    /// Ends our side, lets the sender read what was sent, and closes.
    pub async fn close(mut self: Box<Self>) {
        let polite = async {
            if AsyncWriteExt::shutdown(&mut *self).await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            self.received = BytesMut::new();
            while let Ok(read @ 1..) = poll_fn(|cx| self.poll_receive(cx, 0)).await {
                self.received.clear();
                match left.checked_sub(read) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = timeout(LINGER_TIME, polite).await;
    }
}

/// For HTTP/2, which is there from the first byte on: nothing was received here.
impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.written.len() >= WRITE_BYTES {
            ready!(this.poll_send(cx))?;
        }
        if this.written.is_empty() && buf.len() >= WRITE_BYTES {
            let sent = Pin::new(&mut this.io).poll_write(cx, buf);
            return this.poll_moved(cx, sent);
        }
        let now = buf.len().min(WRITE_BYTES - this.written.len());
        this.written.extend_from_slice(&buf[..now]);
        Poll::Ready(Ok(now))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.poll_moved(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let done = Pin::new(&mut this.io).poll_shutdown(cx);
        this.poll_moved(cx, done)
    }
}
