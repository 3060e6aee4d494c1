//! The sending half of a streamed request, and what it shares with the half that reads the answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, WriteHalf};
use tokio::time::Instant;

use crate::upstream::UpstreamError;
use crate::upstream::connect::Stream;
use crate::upstream::limit::{Limit, Progress};

use super::write::Length;
use super::{Asked, Conn, Reader};

/// What the two halves of a streamed exchange know of each other.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The sending half, once the request is whole: the connection can carry another one.
    finished: Mutex<Option<WriteHalf<Stream>>>,
    /// The app has answered 101: raw bytes may be sent.
    switched: AtomicBool,
    /// When the app last took a piece of the request.
    progress: Progress,
}

impl Shared {
    pub(super) fn take_finished(&self) -> Option<WriteHalf<Stream>> {
        self.finished.lock().take()
    }
    pub(super) fn switched(&self) {
        self.switched.store(true, Ordering::Release);
    }
    pub(super) fn last_progress(&self) -> Instant {
        self.progress.last()
    }
}

/// Sends the body of a request whose head is on the wire.
#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` while a piece is being written (so a cancelled write can't be followed by another) and after the end.
    write: Option<WriteHalf<Stream>>,
    left: Left,
    shared: Arc<Shared>,
    /// How long the app may take nothing.
    stall: Duration,
    timer: Option<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Known(u64),
    Chunked,
    Raw,
}

impl Writer {
    /// Splits a connection whose output holds the request's head, and sends the head.
    pub async fn start(
        conn: Conn,
        length: Length,
        asked: Asked,
        stall: Duration,
    ) -> Result<(Writer, Reader), UpstreamError> {
        let Conn { stream, output, .. } = conn;
        let (read, write) = tokio::io::split(stream);
        let shared = Arc::new(Shared {
            finished: Mutex::new(None),
            switched: AtomicBool::new(false),
            progress: Progress::new(),
        });
        let left = match length {
            Length::Known(length) => Left::Known(length),
            Length::Chunked => Left::Chunked,
            Length::Upgrade => Left::Raw,
        };
        let mut writer = Writer { write: Some(write), left, shared: shared.clone(), stall, timer: None };
        writer.send([&output, &[], &[]]).await?;
        Ok((writer, Reader::half(read, shared, asked)))
    }

    pub async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        if chunk.is_empty() {
            return Ok(());
        }
        match &mut self.left {
            Left::Known(left) => {
                *left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
                    self.write = None;
                    UpstreamError::Protocol("the request's body is longer than its Content-Length".into())
                })?;
                self.send([&chunk, &[], &[]]).await
            }
            Left::Chunked => {
                let size = format!("{:x}\r\n", chunk.len());
                self.send([size.as_bytes(), &chunk, b"\r\n"]).await
            }
            Left::Raw if self.shared.switched.load(Ordering::Acquire) => self.send([&chunk, &[], &[]]).await,
            Left::Raw => {
                Err(UpstreamError::Protocol("the app has not switched protocols: nothing may be sent".into()))
            }
        }
    }

    pub async fn finish(&mut self) -> Result<(), UpstreamError> {
        match self.left {
            Left::Known(0) => {}
            Left::Known(_) => {
                self.write = None;
                return Err(UpstreamError::Protocol(
                    "the request's body is shorter than its Content-Length".into(),
                ));
            }
            Left::Chunked => self.send([b"0\r\n\r\n", &[], &[]]).await?,
            Left::Raw => {
                if let Some(mut write) = self.write.take() {
                    let closed = std::future::poll_fn(|cx| Pin::new(&mut write).poll_shutdown(cx)).await;
                    closed.map_err(|error| UpstreamError::broken(&error))?;
                }
                return Ok(());
            }
        }
        *self.shared.finished.lock() = self.write.take();
        Ok(())
    }

    /// Writes all of the parts and flushes.
    async fn send(&mut self, parts: [&[u8]; 3]) -> Result<(), UpstreamError> {
        let Some(mut write) = self.write.take() else {
            return Err(UpstreamError::Broken("the request was broken off before".into()));
        };
        let mut slices = parts.map(IoSlice::new);
        let mut slices = &mut slices[..];
        IoSlice::advance_slices(&mut slices, 0);
        if let Some(timer) = &mut self.timer {
            timer.progress();
        }
        let sent = std::future::poll_fn(|cx| {
            loop {
                let io = Pin::new(&mut write);
                let done = match slices.is_empty() {
                    true => io.poll_flush(cx).map_ok(|()| 0),
                    false => io.poll_write_vectored(cx, slices),
                };
                match done {
                    Poll::Ready(Ok(_)) if slices.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(0)) => {
                        let error: io::Error = io::ErrorKind::WriteZero.into();
                        return Poll::Ready(Err(UpstreamError::broken(&error)));
                    }
                    Poll::Ready(Ok(sent)) => {
                        IoSlice::advance_slices(&mut slices, sent);
                        self.shared.progress.made();
                        if let Some(timer) = &mut self.timer {
                            timer.progress();
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(UpstreamError::broken(&error))),
                    Poll::Pending => {
                        // A timer only for those that block.
                        let timer = self.timer.get_or_insert_with(|| Limit::gap(self.stall));
                        ready!(timer.poll_expired(cx));
                        return Poll::Ready(Err(UpstreamError::Timeout("body")));
                    }
                }
            }
        })
        .await;
        sent?;
        self.write = Some(write);
        Ok(())
    }
}
