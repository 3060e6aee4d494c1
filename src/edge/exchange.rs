//! One request under way, over whichever HTTP version it came: what `receive` works on.

use bytes::Bytes;

use super::http1::Http1;
use super::http2::Http2;
use crate::message::{Answer, Head, Headers};
use crate::reason::Reason;
use crate::receive::exchange::{Exchange, NotStarted, SenderGone};

/// A request and its answer over a pingora session. `read` is safe to cancel, the others are not.
pub(crate) enum HttpExchange {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

macro_rules! forward {
    ($self:ident, $exchange:ident => $call:expr) => {
        match $self {
            HttpExchange::Http1($exchange) => $call,
            HttpExchange::Http2($exchange) => $call,
        }
    };
}

impl Exchange for HttpExchange {
    fn head(&self) -> &Head {
        forward!(self, e => e.head())
    }
    /// `Some(0)` also if the message says that it has no body at all; `None` if the body's end shows only when it
    /// comes.
    fn content_length(&self) -> Option<u64> {
        forward!(self, e => e.content_length())
    }
    async fn read(&mut self) -> Result<Option<Bytes>, Reason> {
        forward!(self, e => e.read().await)
    }
    async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        forward!(self, e => e.answer(answer).await)
    }
    async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        forward!(self, e => e.start(status, headers).await)
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        forward!(self, e => e.write(chunk).await)
    }
    async fn finish(&mut self) -> Result<(), SenderGone> {
        forward!(self, e => e.finish().await)
    }
    fn abort(&mut self) {
        forward!(self, e => e.abort());
    }
}

/// The application holds an exchange across its waits, also by shared reference.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<HttpExchange>()
};
