//! One connection's bytes between the socket and pingora's sessions.
//!
//! On HTTP/1, [`Conn`] takes each head off the wire itself (strictly, bounded, with a deadline), and then lets the
//! session see no more than this one message: a short head that only frames it, and exactly its body's bytes. So
//! nothing that we refused is ever parsed behind, a body can't run into the next request, and pipelined requests
//! wait here. On HTTP/2 and after an upgrade the bytes pass as they are. What is written is collected, so that a small
//! answer leaves in one TLS record and one system call.

mod session_io;

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use pingora::protocols::{Stream, UniqueIDType};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use super::chunked::Chunked;
use super::deadline::Deadline;
use super::head::{Framing, ParsedHead, Scan, Scanner, Upgrade};
use super::listen::Stop;
use super::wire::Transport;
use crate::config::Limits;
use crate::message::Version;
use crate::reason::Reason;

/// One read takes at most this much plaintext: a TLS record.
const READ_BYTES: usize = 16 * 1024;
/// Written bytes are collected up to this: a TLS record.
const WRITE_BYTES: usize = 16 * 1024;
/// Collecting buffers that grew beyond this are given back between requests.
const KEPT_BYTES: usize = 4 * 1024;
/// A closing connection still reads this much, this long, so that the sender gets to read the answer.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// At shutdown, how long a connection that has not asked anything yet may still do so.
pub(super) const FRESH_GRACE: Duration = Duration::from_secs(1);

thread_local! {
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A connection. See the module.
pub(super) struct Conn {
    io: Transport,
    id: UniqueIDType,
    /// Received and not yet passed on.
    received: BytesMut,
    /// The framing head for the session, and how much of it was read.
    framing_head: Vec<u8>,
    framing_read: usize,
    message: Message,
    /// What went wrong while the session read; it only sees an I/O error.
    fault: Option<Reason>,
    body_timeout: Duration,
    read_deadline: Deadline,
    /// Written and not yet sent.
    written: BytesMut,
    /// A [`Flow`], set through the session's shared reference.
    flow: AtomicU8,
    write_stall: Deadline,
    write_timeout: Duration,
    stop: Stop,
}

/// What the session may read after the head.
#[derive(Debug)]
enum Message {
    /// All of one message was read, or none has begun.
    Ended,
    /// So many bytes; afterwards raw ones, if the sender offered an upgrade.
    Length(u64, Upgrade),
    Chunked(Chunked),
    /// Whatever comes.
    Raw,
}

/// When written bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Flow {
    /// When a record is full or at a flush.
    Collect = 0,
    /// When a record is full: flushes wait.
    Hold = 1,
    /// At each write.
    Eager = 2,
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
            framing_head: Vec::new(),
            framing_read: 0,
            message: Message::Ended,
            fault: None,
            body_timeout: limits.body_timeout,
            read_deadline: Deadline::default(),
            written: BytesMut::new(),
            flow: AtomicU8::new(Flow::Collect as u8),
            write_stall: Deadline::default(),
            write_timeout: limits.idle_timeout,
            stop,
        }
    }

    /// The connection inside a session's stream.
    pub fn of(stream: &Stream) -> Option<&Conn> {
        (**stream).as_any().downcast_ref()
    }
    /// Takes the connection out of a session's stream.
    pub fn from(stream: Stream) -> Option<Box<Conn>> {
        let any: Box<dyn Any> = stream.into_any();
        any.downcast().ok()
    }

    pub fn fault(&self) -> Option<Reason> {
        self.fault
    }
    /// Whether the shutdown has begun.
    pub fn stopping(&self) -> bool {
        self.stop.stopping()
    }
    pub fn set_flow(&self, flow: Flow) {
        self.flow.store(flow as u8, Ordering::Relaxed);
    }
    fn flows(&self, flow: Flow) -> bool {
        self.flow.load(Ordering::Relaxed) == flow as u8
    }

    /// Lets all bytes pass, for HTTP/2.
    pub fn pass_raw(&mut self) {
        self.message = Message::Raw;
    }

    /// Waits for the next request's head. `stop` ends the wait while no byte of one has come.
    pub async fn next_head(
        &mut self,
        limits: &Limits,
        patience: Patience,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Next {
        self.message = Message::Ended;
        self.fault = None;
        self.body_timeout = limits.body_timeout;
        self.write_timeout = limits.idle_timeout;
        self.read_deadline.clear();
        self.set_flow(Flow::Collect);
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
                if let Poll::Ready(read) = self.poll_receive(cx) {
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

    /// Begins the message of `head`: from now on the session reads its framing and its body.
    pub fn begin(&mut self, head: &ParsedHead) {
        use std::io::Write;
        self.framing_read = 0;
        self.framing_head.clear();
        let version = if head.version == Version::Http10 { "1.0" } else { "1.1" };
        // Writing to a vector can't fail.
        let _ = write!(self.framing_head, "{} / HTTP/{version}\r\nHost: framing\r\n", head.method);
        let _ = match head.framing {
            Framing::None => Ok(()),
            Framing::Length(length) => write!(self.framing_head, "Content-Length: {length}\r\n"),
            Framing::Chunked => write!(self.framing_head, "Transfer-Encoding: chunked\r\n"),
        };
        if head.upgrade == Upgrade::Offered {
            let _ = write!(self.framing_head, "Upgrade: offered\r\n");
        }
        let _ = write!(self.framing_head, "\r\n");
        self.message = match head.framing {
            Framing::None => Message::Length(0, head.upgrade),
            Framing::Length(length) => Message::Length(length, head.upgrade),
            Framing::Chunked => Message::Chunked(Chunked::default()),
        };
    }

    /// Reads what is there into `received`; 0 at the sender's end.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        LANDING.with_borrow_mut(|landing| {
            let mut read = ReadBuf::new(landing);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            self.received.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Body bytes for the session. Nothing is read at a body's end.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let allowed = loop {
            match &mut self.message {
                Message::Ended | Message::Length(0, Upgrade::None) => return Poll::Ready(Ok(())),
                Message::Raw | Message::Length(0, Upgrade::Offered) => {
                    self.message = Message::Raw;
                    if self.received.is_empty() {
                        return Pin::new(&mut self.io).poll_read(cx, buf);
                    }
                    break self.received.len();
                }
                Message::Length(left, _) => {
                    let left = usize::try_from(*left).unwrap_or(usize::MAX);
                    if !self.received.is_empty() {
                        break left;
                    }
                    // The session asks for no more than the body has, and then the bytes need no stop here.
                    if buf.remaining() <= left {
                        let before = buf.filled().len();
                        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
                        let read = buf.filled().len() - before;
                        return Poll::Ready(self.passed(read));
                    }
                }
                Message::Chunked(body) if body.ended() => return Poll::Ready(Ok(())),
                Message::Chunked(_) if !self.received.is_empty() => break usize::MAX,
                Message::Chunked(_) => {}
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(self.passed(0));
            }
        };
        let mut now = allowed.min(self.received.len()).min(buf.remaining());
        if let Message::Chunked(body) = &mut self.message {
            now = match body.follow(&self.received[..now]) {
                Ok(used) => used,
                Err(reason) => return Poll::Ready(Err(self.fail(reason, io::ErrorKind::InvalidData))),
            };
        }
        buf.put_slice(&self.received[..now]);
        self.received.advance(now);
        Poll::Ready(self.passed(now))
    }

    /// Accounts for `read` body bytes; 0 means that the sender ended before the body did.
    fn passed(&mut self, read: usize) -> io::Result<()> {
        if read == 0 {
            return Err(self.fail(Reason::BodyIncomplete, io::ErrorKind::UnexpectedEof));
        }
        if let Message::Length(left, _) = &mut self.message {
            *left = left.saturating_sub(read as u64);
        }
        Ok(())
    }

    fn fail(&mut self, reason: Reason, kind: io::ErrorKind) -> io::Error {
        self.fault = Some(reason);
        kind.into()
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

    /// Writes an answer past any session (for heads that were refused) and sends it.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.set_flow(Flow::Collect);
        self.write_all(bytes).await?;
        self.flush().await
    }

    /// Ends a connection on which nothing is under way.
    pub async fn close_idle(mut self: Box<Self>) {
        let _ = timeout(LINGER_TIME, AsyncWriteExt::shutdown(&mut *self)).await;
    }

    /// Ends our side, lets the sender read what was sent, and closes.
    pub async fn close(mut self: Box<Self>) {
        self.set_flow(Flow::Collect);
        let polite = async {
            if AsyncWriteExt::shutdown(&mut *self).await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            self.received = BytesMut::new();
            while let Ok(read @ 1..) = poll_fn(|cx| self.poll_receive(cx)).await {
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

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let head = &this.framing_head[this.framing_read..];
        if !head.is_empty() {
            let now = head.len().min(buf.remaining());
            buf.put_slice(&head[..now]);
            this.framing_read += now;
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(read) = this.poll_body(cx, buf) {
            return Poll::Ready(read);
        }
        if !matches!(this.message, Message::Raw) {
            // The whole body is due then: set at the first wait, never moved by what trickles in.
            if !this.read_deadline.is_set() {
                this.read_deadline.set(Instant::now() + this.body_timeout);
            }
            ready!(this.read_deadline.poll_expired(cx));
            return Poll::Ready(Err(this.fail(Reason::RequestTimeout, io::ErrorKind::TimedOut)));
        }
        Poll::Pending
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
        if this.flows(Flow::Eager) && now == buf.len() {
            // What the socket does not take now goes with the next write or flush.
            if let Poll::Ready(sent) = this.poll_send(cx) {
                sent?;
                if let Poll::Ready(flushed) = Pin::new(&mut this.io).poll_flush(cx) {
                    flushed?;
                }
            }
        }
        Poll::Ready(Ok(now))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flows(Flow::Hold) {
            return Poll::Ready(Ok(()));
        }
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
