//! An answer off the wire: its head, then its body in pieces. While a request is still being written, reading and
//! writing go on together, so that an early answer (a 413, say) is seen.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadHalf};

use crate::upstream::UpstreamError;
use crate::upstream::connect::Stream;
use crate::upstream::limit::Limit;
use crate::upstream::pool::{self, Key};

use super::Conn;
use super::chunked::{Chunked, Piece};
use super::head::{Asked, Framing, ResponseHead, Scan};
use super::stream::Shared;
use super::write::Sending;

/// Informational answers (1xx) that are read over before the answer.
const MAX_INTERIM: u8 = 16;
/// Room for a read, at least.
const READ: usize = 8 * 1024;
/// Room for a read of a large body.
const READ_LARGE: usize = 32 * 1024;

/// Why there is no head of an answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: UpstreamError,
    /// The connection was closed or reset before any byte of an answer: if it came from the pool, the app had
    /// probably closed it before it saw the request.
    pub unanswered: bool,
}

impl Failure {
    fn protocol(problem: impl Into<String>) -> Self {
        Self { error: UpstreamError::Protocol(problem.into()), unanswered: false }
    }
}

/// A connection from which an answer is read.
#[derive(Debug)]
enum Wire {
    /// Ours alone; a whole request may still be under way.
    Whole { conn: Conn, sending: Sending },
    /// The sending half is a [`Writer`](super::Writer)'s.
    Half { read: ReadHalf<Stream>, input: BytesMut, shared: Arc<Shared> },
}

impl Wire {
    fn input(&mut self) -> &mut BytesMut {
        match self {
            Wire::Whole { conn, .. } => &mut conn.input,
            Wire::Half { input, .. } => input,
        }
    }

    /// Reads more input, and writes what is left of the request meanwhile.
    fn poll_fill(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match self {
            Wire::Whole { conn, sending } => {
                let written = sending.poll(&mut conn.stream, &mut conn.output, cx);
                let read = ready!(poll_read(&mut conn.stream, &mut conn.input, room, cx));
                // If there is nothing to read, a failed write says better why.
                match (written, read, &mut *sending) {
                    (Poll::Ready(()), Ok(0) | Err(_), Sending::Broken(error)) => {
                        let error = std::mem::replace(error, io::ErrorKind::BrokenPipe.into());
                        Poll::Ready(Err(error))
                    }
                    (_, read, _) => Poll::Ready(read),
                }
            }
            Wire::Half { read, input, .. } => poll_read(read, input, room, cx),
        }
    }

    /// Finishes writing the request after a complete answer.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Wire::Whole { conn, sending } => sending.poll(&mut conn.stream, &mut conn.output, cx),
            Wire::Half { .. } => Poll::Ready(()),
        }
    }

    fn is_sent(&self) -> bool {
        match self {
            Wire::Whole { sending, .. } => matches!(sending, Sending::Done),
            Wire::Half { .. } => true,
        }
    }

    /// Gives the connection to the pool if it is between two messages; closes it otherwise.
    fn release(self, key: Key) {
        match self {
            Wire::Whole { conn, sending: Sending::Done } if conn.input.is_empty() => pool::put(key, conn),
            Wire::Half { read, input, shared } if input.is_empty() => {
                if let Some(write) = shared.take_finished() {
                    pool::put(key, Conn { stream: read.unsplit(write), input, output: Vec::new() });
                }
            }
            _ => {}
        }
    }
}

fn poll_read<R: AsyncRead + Unpin>(
    io: &mut R,
    input: &mut BytesMut,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if input.capacity() - input.len() < READ / 4 {
        input.reserve(room);
    }
    pin!(io.read_buf(input)).poll(cx)
}

/// Waits for the head of an answer.
#[derive(Debug)]
pub(crate) struct Reader {
    wire: Wire,
    asked: Asked,
    scan: Scan,
    interim: u8,
    /// Whether any byte of an answer has come.
    heard: bool,
}

impl Reader {
    /// The request's head stands in the connection's output; it and `body` are written while the answer is awaited.
    pub fn whole(mut conn: Conn, body: Bytes, asked: Asked) -> Self {
        let sending = Sending::new(&mut conn.output, body);
        Self::new(Wire::Whole { conn, sending }, asked)
    }

    /// The answer to a request that a [`Writer`](super::Writer) sends.
    pub(super) fn half(read: ReadHalf<Stream>, shared: Arc<Shared>, asked: Asked) -> Self {
        Self::new(Wire::Half { read, input: BytesMut::new(), shared }, asked)
    }

    fn new(wire: Wire, asked: Asked) -> Self {
        Self { wire, asked, scan: Scan::default(), interim: 0, heard: false }
    }

    /// The answer's head and its body still to be read. Interim answers are read over.
    pub async fn head(mut self, limit: &mut Limit) -> Result<(ResponseHead, Unread), Failure> {
        let head = std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_head(cx) {
                return Poll::Ready(done);
            }
            if let Wire::Half { shared, .. } = &self.wire {
                limit.progress_at(shared.last_progress());
            }
            ready!(limit.poll_expired(cx));
            Poll::Ready(Err(Failure { error: UpstreamError::Timeout("answer"), unanswered: false }))
        })
        .await?;
        let framing = head.framing(self.asked).map_err(Failure::protocol)?;
        if let Wire::Whole { sending, .. } = &mut self.wire
            && head.status >= 300
            && !matches!(sending, Sending::Done)
        {
            // The app does not want the rest. After a success it may: it could be working on what it reads.
            *sending = Sending::Stopped;
        }
        if head.status == 101
            && let Wire::Half { shared, .. } = &self.wire
        {
            shared.switched();
        }
        Ok((head, Unread { wire: self.wire, framing }))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failure>> {
        loop {
            while let Some(head) = self.scan.next(self.wire.input()).map_err(Failure::protocol)? {
                match head.status {
                    101 if self.asked == Asked::Upgrade => return Poll::Ready(Ok(head)),
                    101 => return Poll::Ready(Err(Failure::protocol("a 101 that was not asked for"))),
                    100..=199 if self.interim == MAX_INTERIM => {
                        return Poll::Ready(Err(Failure::protocol("too many interim (1xx) answers")));
                    }
                    100..=199 => self.interim += 1,
                    _ => return Poll::Ready(Ok(head)),
                }
            }
            match ready!(self.wire.poll_fill(READ, cx)) {
                Ok(0) => {
                    let error =
                        UpstreamError::Broken("the app closed the connection without an answer".into());
                    return Poll::Ready(Err(Failure { error, unanswered: !self.heard }));
                }
                Ok(_) => self.heard = true,
                Err(error) => {
                    let closed = matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionReset
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::BrokenPipe
                            | io::ErrorKind::NotConnected
                            | io::ErrorKind::UnexpectedEof
                    );
                    let unanswered = closed && !self.heard;
                    return Poll::Ready(Err(Failure { error: UpstreamError::broken(&error), unanswered }));
                }
            }
        }
    }
}

/// A connection behind the head of an answer.
#[derive(Debug)]
pub(crate) struct Unread {
    wire: Wire,
    framing: Framing,
}

/// The body of an answer. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(crate) struct Body {
    /// `None` once the connection is given up or given back.
    wire: Option<Wire>,
    left: Left,
    reusable: Reusable,
    key: Key,
    limit: Limit,
}

#[derive(Debug)]
enum Left {
    /// The whole rest, already here.
    Here(Bytes),
    Length(u64),
    Chunked(Chunked),
    /// Until the app closes; also a tunnel after 101.
    UntilClose,
    Nothing,
    Failed(UpstreamError),
}

/// Whether the app keeps the connection open after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reusable {
    Yes,
    No,
}

impl Body {
    pub fn new(head: &ResponseHead, unread: Unread, key: Key, limit: Limit) -> Self {
        let Unread { mut wire, framing } = unread;
        let tunnel = head.status == 101;
        let reusable = if head.keeps_alive() && !tunnel { Reusable::Yes } else { Reusable::No };
        let left = match framing {
            _ if tunnel => Left::UntilClose,
            Framing::None => Left::Nothing,
            Framing::Chunked => Left::Chunked(Chunked::new()),
            Framing::UntilClose => Left::UntilClose,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= wire.input().len() => {
                    Left::Here(wire.input().split_to(length).freeze())
                }
                _ => Left::Length(length),
            },
        };
        let mut body = Self { wire: Some(wire), left, reusable, key, limit };
        if matches!(body.left, Left::Here(_) | Left::Nothing) {
            body.release_if_sent();
        }
        body
    }

    pub fn extend(&mut self, by: Duration) {
        self.limit.extend(by);
    }

    /// The next piece, `None` at the end. Safe to cancel.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        std::future::poll_fn(|cx| {
            let timed_out = match self.poll_chunk(cx) {
                Poll::Ready(Ok(chunk)) => {
                    self.limit.progress();
                    return Poll::Ready(Ok(chunk));
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => {
                    ready!(self.limit.poll_expired(cx));
                    if matches!(self.left, Left::Nothing) {
                        // The answer is whole; only the app's taking of the request was awaited.
                        self.wire = None;
                        return Poll::Ready(Ok(None));
                    }
                    UpstreamError::Timeout("body")
                }
            };
            self.wire = None;
            self.left = Left::Failed(timed_out.clone());
            Poll::Ready(Err(timed_out))
        })
        .await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UpstreamError>> {
        loop {
            match &mut self.left {
                Left::Failed(error) => return Poll::Ready(Err(error.clone())),
                Left::Here(_) => {
                    if let Left::Here(rest) = std::mem::replace(&mut self.left, Left::Nothing) {
                        return Poll::Ready(Ok(Some(rest)));
                    }
                }
                Left::Nothing => {
                    if let Some(wire) = &mut self.wire {
                        ready!(wire.poll_sent(cx));
                        self.release_if_sent();
                        self.wire = None;
                    }
                    return Poll::Ready(Ok(None));
                }
                _ => {}
            }
            let Some(wire) = &mut self.wire else {
                // Not reachable: the states above are the only ones without a connection.
                return Poll::Ready(Err(UpstreamError::Broken("the connection is gone".into())));
            };
            let mut room = READ;
            match &mut self.left {
                Left::Length(left) => {
                    let input = wire.input();
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    if take > 0 {
                        let chunk = input.split_to(take).freeze();
                        *left -= take as u64;
                        if *left == 0 {
                            self.left = Left::Nothing;
                            self.release_if_sent();
                        }
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                    if *left > READ as u64 {
                        room = READ_LARGE;
                    }
                }
                Left::Chunked(decoder) => match decoder.next(wire.input()) {
                    Ok(Piece::Data(data)) => return Poll::Ready(Ok(Some(data))),
                    Ok(Piece::End) => {
                        self.left = Left::Nothing;
                        continue;
                    }
                    Ok(Piece::More) => room = READ_LARGE,
                    Err(bad) => return Poll::Ready(Err(UpstreamError::Protocol(bad.to_string()))),
                },
                _ => {
                    let input = wire.input();
                    if !input.is_empty() {
                        return Poll::Ready(Ok(Some(input.split().freeze())));
                    }
                }
            }
            match ready!(wire.poll_fill(room, cx)) {
                Ok(0) if matches!(self.left, Left::UntilClose) => {
                    self.left = Left::Nothing;
                    self.wire = None;
                }
                Ok(0) => {
                    let error =
                        UpstreamError::Broken("the app closed the connection within its answer".into());
                    return Poll::Ready(Err(error));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(UpstreamError::broken(&error))),
            }
        }
    }

    /// Gives the connection up as soon as it is not needed: before the caller has taken the last piece.
    fn release_if_sent(&mut self) {
        if let Some(wire) = self.wire.take_if(|wire| wire.is_sent())
            && self.reusable == Reusable::Yes
        {
            wire.release(self.key);
        }
    }
}
