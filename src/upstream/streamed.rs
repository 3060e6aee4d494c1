//! Requests whose body streams while the answer is awaited (`pass` routes), upgrades included.
//!
//! Limits differ from a whole request's: the answer's head must come within the destination's `timeout` of the app's
//! last sign of taking the request, and every later gap, in either direction, may be as long as `timeout`, but at
//! least a minute. A tunnel after 101 has no limit here: who uses it watches both ends.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::config::UpstreamHttp;
use crate::message::Method;

use super::balance::Turn;
use super::limit::{Limit, Progress};
use super::{Body, From, Incoming, Outgoing, Upstream, UpstreamError, h1, h2, pool, worse};

/// The least gap in a stream that is taken for a stall.
const LEAST_STALL: Duration = Duration::from_secs(60);
/// A pooled connection that was idle for longer is not used for a request that can't be repeated: the app may be
/// closing it just now.
const FRESH_ENOUGH: Duration = Duration::from_secs(2);

impl Upstream {
    /// Starts a request whose body streams. `length` is its `Content-Length`; `None` streams chunked (or, if the
    /// request has `Upgrade`, as raw bytes after the app's 101). On HTTP/2 an `Upgrade` is not sent.
    pub async fn start(
        &self,
        request: &Outgoing,
        length: Option<u64>,
    ) -> Result<(BodyWriter, Answering), UpstreamError> {
        // Whatever signs the body is not for streams: `check` sees to it.
        let signed = self.inner.signer.sign(request, b"").await?;
        let request = signed.as_ref().map_or(request, |signed| &signed.request);
        let mut failure = None;
        for server in self.inner.balance.order(request.affinity) {
            let turn = self.inner.balance.turn(server);
            self.goes_to(server, request);
            let connected = match self.inner.http {
                UpstreamHttp::Http1 => self.connection(server, request, length).await.map(Wire::H1),
                UpstreamHttp::Http2 => {
                    let limit = Limit::whole(self.inner.timeout);
                    self.sender(server, &limit).await.map(|(sender, _)| Wire::H2(sender))
                }
            };
            match connected {
                Ok(Wire::H1((conn, from))) => {
                    let (writer, answering) = self.start_h1(conn, from, server, request, length).await?;
                    return Ok((writer, Answering { turn: Some(turn), ..answering }));
                }
                Ok(Wire::H2(sender)) => {
                    let (writer, answering) = self.start_h2(sender, server, request, length)?;
                    return Ok((writer, Answering { turn: Some(turn), ..answering }));
                }
                Err(error) => failure = Some(worse(failure, error)),
            }
        }
        Err(failure.unwrap_or(UpstreamError::Timeout("connect")))
    }

    async fn connection(
        &self,
        server: usize,
        request: &Outgoing,
        length: Option<u64>,
    ) -> Result<(h1::Conn, From), UpstreamError> {
        let idle = if may_repeat(request, length) { pool::IDLE_TIMEOUT } else { FRESH_ENOUGH };
        if !is_upgrade(request, length)
            && let Some(conn) = pool::take(self.key(server), idle)
        {
            return Ok((conn, From::Pool));
        }
        let stream = self.connect(server, &Limit::whole(self.inner.timeout)).await?;
        Ok((h1::Conn::new(stream), From::Connect))
    }

    async fn start_h1(
        &self,
        mut conn: h1::Conn,
        from: From,
        server: usize,
        request: &Outgoing,
        length: Option<u64>,
    ) -> Result<(BodyWriter, Answering), UpstreamError> {
        let (framing, asked) = match length {
            Some(length) => (h1::Length::Known(length), h1::Asked::Other),
            None if is_upgrade(request, length) => (h1::Length::Upgrade, h1::Asked::Upgrade),
            None => (h1::Length::Chunked, h1::Asked::Other),
        };
        let asked = if request.method == Method::HEAD { h1::Asked::Head } else { asked };
        self.encode(&mut conn, server, request, framing)?;
        let repeat = (from == From::Pool && may_repeat(request, length)).then(|| request.clone());
        let (writer, reader) = match length {
            // Nothing follows: the head is written while the answer is awaited.
            Some(0) => (Sending::Nothing, h1::Reader::whole(conn, Bytes::new(), asked)),
            _ => {
                let (writer, reader) = h1::Writer::start(conn, framing, asked, self.stall()).await?;
                (Sending::H1(writer), reader)
            }
        };
        let exchange = Exchange::H1 { reader: Box::new(reader), repeat };
        Ok((
            BodyWriter { sending: writer },
            Answering { upstream: self.clone(), server, exchange, turn: None },
        ))
    }

    fn start_h2(
        &self,
        mut sender: h2::Sender,
        server: usize,
        request: &Outgoing,
        length: Option<u64>,
    ) -> Result<(BodyWriter, Answering), UpstreamError> {
        let (sending, body, progress) = if length == Some(0) || is_upgrade(request, length) {
            (Sending::Nothing, h2::RequestBody::whole(Bytes::new()), Arc::new(Progress::new()))
        } else {
            let (writer, body, progress) = h2::Writer::new(length, self.stall());
            (Sending::H2(writer), body, progress)
        };
        let head = self.h2_request(server, request, body)?;
        let repeat = may_repeat(request, length).then(|| request.clone());
        let answer = Box::pin(async move { h2::exchange(&mut sender, head).await });
        let exchange = Exchange::H2 { answer, progress, repeat };
        Ok((BodyWriter { sending }, Answering { upstream: self.clone(), server, exchange, turn: None }))
    }

    fn stall(&self) -> Duration {
        self.inner.timeout.max(LEAST_STALL)
    }
}

enum Wire {
    H1((h1::Conn, From)),
    H2(h2::Sender),
}

/// Whether the request may go out once more if its connection turns out closed.
fn may_repeat(request: &Outgoing, length: Option<u64>) -> bool {
    length == Some(0) && request.method.is_idempotent()
}

fn is_upgrade(request: &Outgoing, length: Option<u64>) -> bool {
    length.is_none() && request.headers.contains("upgrade")
}

/// The sending half of a streamed request. Dropped before `finish`, it leaves the request incomplete, and the app can
/// tell.
#[derive(Debug)]
pub struct BodyWriter {
    sending: Sending,
}

#[derive(Debug)]
enum Sending {
    /// The request has no body.
    Nothing,
    H1(h1::Writer),
    H2(h2::Writer),
}

impl BodyWriter {
    /// Sends a piece; waits until the connection takes it. An error means that the app takes no more; its answer may
    /// still say why. After a cancelled or failed write nothing more can be sent.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        match &mut self.sending {
            Sending::Nothing if chunk.is_empty() => Ok(()),
            Sending::Nothing => Err(UpstreamError::Protocol("the request has no body".into())),
            Sending::H1(writer) => writer.write(chunk).await,
            Sending::H2(writer) => writer.write(chunk).await,
        }
    }

    /// Ends the body; after a 101 closes our direction of the tunnel.
    pub async fn finish(&mut self) -> Result<(), UpstreamError> {
        match &mut self.sending {
            Sending::Nothing => Ok(()),
            Sending::H1(writer) => writer.finish().await,
            Sending::H2(writer) => writer.finish().await,
        }
    }
}

/// The receiving half of a streamed request: waits for the answer's head. May come before the body is sent.
#[derive(Debug)]
pub struct Answering {
    upstream: Upstream,
    server: usize,
    exchange: Exchange,
    turn: Option<Turn>,
}

type H2Answer = dyn Future<Output = Result<http::Response<hyper::body::Incoming>, h2::Failure>> + Send;

enum Exchange {
    H1 { reader: Box<h1::Reader>, repeat: Option<Outgoing> },
    H2 { answer: Pin<Box<H2Answer>>, progress: Arc<Progress>, repeat: Option<Outgoing> },
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Exchange::H1 { .. } => "Http1",
            Exchange::H2 { .. } => "Http2",
        })
    }
}

impl Answering {
    /// The head of the answer. On HTTP/2 the request goes out with the first poll of this.
    pub async fn head(mut self) -> Result<Incoming, UpstreamError> {
        let turn = self.turn.take();
        let incoming = self.await_head().await?;
        Ok(Incoming { turn, ..incoming })
    }

    async fn await_head(self) -> Result<Incoming, UpstreamError> {
        let Self { upstream, server, exchange, .. } = self;
        let mut limit = Limit::gap(upstream.inner.timeout);
        match exchange {
            Exchange::H1 { reader, repeat } => {
                let (head, unread) = match (reader.head(&mut limit).await, repeat) {
                    (Ok(done), _) => done,
                    (Err(failure), Some(request)) if failure.unanswered => {
                        return upstream.once_more(server, &request).await;
                    }
                    (Err(failure), _) => return Err(failure.error),
                };
                let limit = if head.status == 101 { Limit::None } else { Limit::gap(upstream.stall()) };
                let body = h1::Body::new(&head, unread, upstream.key(server), limit);
                Ok(Incoming {
                    status: head.status,
                    headers: head.headers,
                    body: Body::H1(Box::new(body)),
                    turn: None,
                })
            }
            Exchange::H2 { answer, progress, repeat } => {
                let mut answer = pin!(answer);
                let answered = std::future::poll_fn(|cx| {
                    if let Poll::Ready(done) = answer.as_mut().poll(cx) {
                        return Poll::Ready(Some(done));
                    }
                    limit.progress_at(progress.last());
                    ready!(limit.poll_expired(cx));
                    Poll::Ready(None)
                })
                .await;
                match (answered, repeat) {
                    (None, _) => Err(UpstreamError::Timeout("answer")),
                    (Some(Ok(response)), _) => Ok(Incoming::h2(response, Limit::gap(upstream.stall()))),
                    (Some(Err(failure)), Some(request)) if failure.again(From::Pool, 0).is_some() => {
                        pool::unshare(upstream.key(server), failure.connection);
                        upstream.once_more(server, &request).await
                    }
                    (Some(Err(failure)), _) => Err(failure.error),
                }
            }
        }
    }
}

impl Upstream {
    /// A request without a body, on a fresh connection.
    async fn once_more(&self, server: usize, request: &Outgoing) -> Result<Incoming, UpstreamError> {
        let (_, answering) = match self.inner.http {
            UpstreamHttp::Http1 => {
                let stream = self.connect(server, &Limit::whole(self.inner.timeout)).await?;
                self.start_h1(h1::Conn::new(stream), From::Connect, server, request, Some(0)).await?
            }
            UpstreamHttp::Http2 => {
                let (sender, _) = self.sender(server, &Limit::whole(self.inner.timeout)).await?;
                let (writer, mut answering) = self.start_h2(sender, server, request, Some(0))?;
                if let Exchange::H2 { repeat, .. } = &mut answering.exchange {
                    *repeat = None;
                }
                (writer, answering)
            }
        };
        Box::pin(answering.head()).await
    }
}
