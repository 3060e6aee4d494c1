//! HTTP/2 to the app, on hyper's client: one shared connection per thread and upstream server.
//!
//! A stream that the app refused (REFUSED_STREAM), or that came after its GOAWAY, was not processed (RFC 9113 section 8.7): it
//! is sent again a few times, and is nobody's failure if that is not enough. One on a connection that turned out closed is
//! sent again once. Until the app has said how many streams it allows there is one. Names are lower case on this wire, and
//! the order between different names is not kept by it: that is the protocol's, not ours.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::mpsc;

use crate::message::{HOP_BY_HOP, Headers};

use super::connect::Stream;
use super::limit::{Limit, Progress};
use super::origin::Origin;
use super::{From, Outgoing, UpstreamError};

/// What requests are sent through; clones share one connection.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    requests: http2::SendRequest<RequestBody>,
    /// Tells its connection from all others.
    pub connection: u64,
}

impl Sender {
    pub fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }
}

/// Bytes the app may send ahead on one stream, and on one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer's head.
const MAX_HEAD: u32 = 64 * 1024;
/// A connection with requests under way is asked for a sign of life this often, and given this long.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams before the app has said how many it allows.
const FIRST_STREAMS: usize = 1;
/// How long a request that was not processed waits before it is sent again, each time. The first time another
/// connection is most likely all it takes.
pub(super) const WAITS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(250)];

/// Begins HTTP/2 on a connection.
pub(super) async fn handshake(stream: Stream) -> Result<Sender, UpstreamError> {
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let (requests, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .initial_max_send_streams(FIRST_STREAMS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| UpstreamError::Protocol(text(&error)))?;
    // Ends by itself when the last sender is gone or the connection breaks; errors reach the streams.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Sender { requests, connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed) })
}

/// Why there is no head of an answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: UpstreamError,
    pub processed: Processed,
    /// Where it happened.
    pub connection: u64,
}

/// What is known of a request that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// The app says so, or the request never left.
    No,
    /// The connection was closed before any byte of an answer.
    Closed,
    Maybe,
}

impl Failure {
    /// How long to wait before the request goes out once more, after `repeats` repeats; `None`: it does not. A closed
    /// connection excuses it only if it came from the pool.
    pub fn again(&self, from: From, repeats: usize) -> Option<Duration> {
        match self.processed {
            Processed::No => WAITS.get(repeats).copied(),
            Processed::Closed => (from == From::Pool && repeats == 0).then_some(Duration::ZERO),
            Processed::Maybe => None,
        }
    }
}

/// The request as HTTP/2 has it. `host` as in HTTP/1: replaces `Host`, which becomes `:authority`.
pub(super) fn request(
    outgoing: &Outgoing,
    host: Option<&str>,
    origin: &Origin,
    body: RequestBody,
) -> Result<Request<RequestBody>, UpstreamError> {
    let bad =
        |what: String| UpstreamError::Protocol(format!("the request can't be sent over HTTP/2: {what}"));
    let sent_host = outgoing.headers.only("host").map_err(|_| bad("two Host headers".into()))?;
    let authority = match (host, sent_host) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(sent)) => sent,
        (None, None) => origin.authority.as_bytes(),
    };
    let uri = Uri::builder()
        .scheme(origin.scheme.as_str())
        .authority(authority)
        .path_and_query(outgoing.target.as_str())
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let mut request = Request::new(body);
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.reserve(outgoing.headers.len());
    for (name, value) in outgoing.headers.iter() {
        let hop = HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop));
        if hop || name.eq_ignore_ascii_case("content-length") {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let value = HeaderValue::from_bytes(value).map_err(|error| bad(error.to_string()))?;
        if name != HOST {
            headers.append(name, value);
        }
    }
    Ok(request)
}

/// Sends and waits for the head of the answer.
pub(super) async fn exchange(
    sender: &mut Sender,
    request: Request<RequestBody>,
) -> Result<Response<hyper::body::Incoming>, Failure> {
    let connection = sender.connection;
    if let Err(error) = sender.requests.ready().await {
        return Err(Failure { error: classified(&error), processed: Processed::No, connection });
    }
    sender.requests.try_send_request(request).await.map_err(|mut failed| {
        let unsent = failed.take_message().is_some();
        let error = failed.into_error();
        let processed = if unsent { Processed::No } else { processed(&error) };
        Failure { error: classified(&error), processed, connection }
    })
}

fn processed(error: &hyper::Error) -> Processed {
    match protocol_error(error) {
        Some(protocol) if is_refusal(protocol) => Processed::No,
        Some(_) => Processed::Maybe,
        None if is_io(error) || error.is_canceled() || error.is_closed() => Processed::Closed,
        None => Processed::Maybe,
    }
}

/// Whether the app says that it has done nothing with the stream.
fn is_refusal(error: &h2::Error) -> bool {
    // Streams that the app began to process before its GOAWAY are not ended by it.
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// hyper unpacks a broken connection's error.
fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>())
}

fn protocol_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn classified(error: &hyper::Error) -> UpstreamError {
    match protocol_error(error) {
        Some(protocol) if is_refusal(protocol) => UpstreamError::Unprocessed(text(error)),
        // What we found wrong with its frames.
        Some(protocol) if protocol.is_library() => UpstreamError::Protocol(text(error)),
        _ => UpstreamError::Broken(text(error)),
    }
}

/// What broke an answer that was begun: it was processed, whatever the app says.
fn within(error: &hyper::Error) -> UpstreamError {
    match classified(error) {
        UpstreamError::Unprocessed(why) => UpstreamError::Broken(why),
        error => error,
    }
}

/// With its cause: hyper's own text alone says little.
fn text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The fields of an answer's head.
pub(super) fn headers(response: &Response<hyper::body::Incoming>) -> Headers {
    response.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}

/// The body of a request.
#[derive(Debug)]
pub(super) enum RequestBody {
    Whole(Option<Bytes>),
    /// Written piece by piece; `left` is known if its length was declared.
    Piped {
        pieces: mpsc::Receiver<Piece>,
        left: Option<u64>,
        progress: Arc<Progress>,
    },
}

#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    /// The body is complete. Without it the stream is reset: the app must not take a part for the whole.
    End,
}

impl RequestBody {
    pub fn whole(body: Bytes) -> Self {
        RequestBody::Whole(Some(body).filter(|body| !body.is_empty()))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            RequestBody::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            RequestBody::Piped { pieces, left, progress } => match ready!(pieces.poll_recv(cx)) {
                Some(Piece::Data(data)) => {
                    progress.made();
                    if let Some(left) = left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Some(Piece::End) => Poll::Ready(None),
                None => Poll::Ready(Some(Err(io::Error::other("the request was broken off")))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, RequestBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            RequestBody::Piped { left: Some(left), .. } => SizeHint::with_exact(*left),
            RequestBody::Piped { left: None, .. } => SizeHint::default(),
        }
    }
}

/// Sends the body of a streamed request.
#[derive(Debug)]
pub(super) struct Writer {
    pieces: mpsc::Sender<Piece>,
    left: Option<u64>,
    stall: Duration,
}

impl Writer {
    pub fn new(length: Option<u64>, stall: Duration) -> (Writer, RequestBody, Arc<Progress>) {
        // One piece on its way while the next is got ready.
        let (sender, pieces) = mpsc::channel(1);
        let progress = Arc::new(Progress::new());
        let body = RequestBody::Piped { pieces, left: length, progress: progress.clone() };
        (Writer { pieces: sender, left: length, stall }, body, progress)
    }

    pub async fn write(&mut self, chunk: Bytes) -> Result<(), UpstreamError> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
                UpstreamError::Protocol("the request's body is longer than its Content-Length".into())
            })?;
        }
        if chunk.is_empty() { Ok(()) } else { self.send(Piece::Data(chunk)).await }
    }

    pub async fn finish(&mut self) -> Result<(), UpstreamError> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(UpstreamError::Protocol(
                "the request's body is shorter than its Content-Length".into(),
            ));
        }
        self.send(Piece::End).await
    }

    async fn send(&mut self, piece: Piece) -> Result<(), UpstreamError> {
        match self.pieces.send_timeout(piece, self.stall).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(UpstreamError::Timeout("body")),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                Err(UpstreamError::Broken("the app takes no more of the request".into()))
            }
        }
    }
}

/// The body of an answer. Dropped before its end, it resets its stream; the connection stays.
#[derive(Debug)]
pub(super) struct Body {
    body: hyper::body::Incoming,
    limit: Limit,
    /// Set by the first error, and given again to whoever asks on.
    failed: Option<UpstreamError>,
}

impl Body {
    pub fn new(body: hyper::body::Incoming, limit: Limit) -> Self {
        Self { body, limit, failed: None }
    }

    pub fn extend(&mut self, by: Duration) {
        self.limit.extend(by);
    }

    pub async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let chunk = std::future::poll_fn(|cx| {
            loop {
                match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.limit.progress();
                        // Trailers are not passed on.
                        if let Ok(data) = frame.into_data()
                            && !data.is_empty()
                        {
                            return Poll::Ready(Ok(Some(data)));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(within(&error))),
                    Poll::Ready(None) => return Poll::Ready(Ok(None)),
                    Poll::Pending => {
                        ready!(self.limit.poll_expired(cx));
                        return Poll::Ready(Err(UpstreamError::Timeout("body")));
                    }
                }
            }
        })
        .await;
        if let Err(error) = &chunk {
            self.failed = Some(error.clone());
        }
        chunk
    }
}
