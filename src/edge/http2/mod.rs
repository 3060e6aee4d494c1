//! HTTP/2 connections: pingora's handshake and streams, a task a stream, and the same checks as on HTTP/1.

mod ask;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::Digest;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::answer::{app_head, is_bodiless, own_head, refusal};
use super::app::{App, Place, refused};
use super::conn::Conn;
use super::exchange::HttpExchange;
use super::listen::{Open, Stop};
use crate::config::Limits;
use crate::message::{Answer, Head, Headers, Method, Scheme, Version};
use crate::reason::Reason;
use crate::receive::exchange::{NotStarted, SenderGone};

/// Received and unread bytes: of a stream, and of a whole connection. They bound what a sender can make us hold.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Unsent bytes of one answer.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that were reset and are still remembered, or not yet noticed; and resets for malformed streams.
const RESET_STREAMS: usize = 20;
/// Malformed streams after which the connection is cut.
const MALFORMED_STREAMS: u32 = 16;
/// How long an idle connection may take to end after we said so.
const GOODBYE: Duration = Duration::from_secs(1);
/// `ENHANCE_YOUR_CALM` (RFC 9113 section 7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn options(limits: &Limits) -> H2Options {
    // `h2` itself answers larger blocks, with a bare 431: no reason, log line or metric. So its bound is wider than
    // ours, and only what is far too large never gets as far as our own check.
    let header_list = limits.header_bytes.saturating_mul(2).saturating_add(limits.uri_bytes);
    let mut options = default_h2_options();
    options
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .max_local_error_reset_streams(Some(RESET_STREAMS));
    options
}

/// Streams under way on a connection, and when it was last busy.
struct Activity {
    began: Instant,
    streams: AtomicUsize,
    /// Milliseconds after `began`.
    busy: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.busy.store(now, Ordering::Relaxed);
    }
    fn busy(&self) -> Instant {
        self.began + Duration::from_millis(self.busy.load(Ordering::Relaxed))
    }
    fn enter(self: &Arc<Self>) -> Stream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Stream(self.clone())
    }
}

struct Stream(Arc<Activity>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.touch();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection's streams until it ends.
pub(super) async fn serve<A: App>(
    conn: Box<Conn>,
    place: Place,
    app: &Arc<A>,
    stop: &Stop,
    open: &Arc<Open>,
) {
    let limits = app.limits();
    let shaken = timeout(limits.header_timeout, handshake(conn, Some(options(&limits)))).await;
    let Ok(Ok(mut h2)) = shaken else {
        app.metrics().connection_refused("http2_handshake");
        return;
    };
    let digest = Arc::new(Digest::default());
    let activity =
        Arc::new(Activity { began: Instant::now(), streams: AtomicUsize::new(0), busy: AtomicU64::new(0) });
    let mut stopped = pin!(stop.wait());
    let mut idle = pin!(sleep_until(activity.began + limits.idle_timeout));
    let (mut leaving, mut malformed, mut served) = (false, 0, 0);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped, if !leaving => {
                h2.graceful_shutdown();
                leaving = true;
                idle.as_mut().reset(Instant::now() + GOODBYE);
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut h2, digest.clone()) => accepted,
            () = &mut idle => {
                let patience = if leaving { GOODBYE } else { limits.idle_timeout };
                let (now, until) = (Instant::now(), activity.busy() + patience);
                if activity.streams.load(Ordering::Relaxed) > 0 {
                    idle.as_mut().reset(now + patience);
                } else if until > now {
                    idle.as_mut().reset(until);
                } else if leaving {
                    return;
                } else {
                    h2.graceful_shutdown();
                    leaving = true;
                    idle.as_mut().reset(now + GOODBYE);
                }
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                served += 1;
                if served == limits.requests_per_connection && !leaving {
                    h2.graceful_shutdown();
                    leaving = true;
                    idle.as_mut().reset(Instant::now() + GOODBYE);
                }
                // A stream that its sender resets makes room for the next one at once, but our work on it goes on.
                if activity.streams.load(Ordering::Relaxed) >= 2 * limits.h2_streams as usize {
                    tracing::info!(source = %place.peer.ip(), listener = %place.local, "HTTP/2 streams reset too fast");
                    app.metrics().connection_refused("http2_flood");
                    h2.abrupt_shutdown(ENHANCE_YOUR_CALM.into());
                    leaving = true;
                    continue;
                }
                let stream = activity.enter();
                let (app, open) = (app.clone(), open.clone());
                tokio::spawn(async move {
                    request(session, place, &*app).await;
                    drop((stream, open));
                });
            }
            Ok(Some(H2Accept::Rejected)) => {
                refused(&**app, &place, Reason::MalformedRequest);
                malformed += 1;
                if malformed >= MALFORMED_STREAMS {
                    return;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}

async fn request<A: App>(session: HttpSession, place: Place, app: &A) {
    let limits = app.limits();
    let asked = ask::head(&session, &place, &limits, app);
    let (head, reason) = match asked {
        Ok(head) => (head, None),
        Err(reason) => (blank(&place, app), Some(reason)),
    };
    let mut exchange = Http2::begin(session, head, &limits);
    if let Some(reason) = reason {
        refused(app, &place, reason);
        let _ = exchange.answer(refusal(reason)).await;
        return exchange.end().await;
    }
    let mut exchange = HttpExchange::Http2(Box::new(exchange));
    app.handle(&mut exchange).await;
    if let HttpExchange::Http2(mut exchange) = exchange {
        exchange.end().await;
    }
}

/// The head of a request that is only refused.
fn blank<A: App>(place: &Place, app: &A) -> Head {
    Head {
        method: Method::GET,
        target: String::new(),
        authority: String::new(),
        asked_authority: None,
        scheme: Scheme::Https,
        version: Version::Http2,
        headers: Headers::default(),
        peer: place.peer,
        client: place.peer.ip().to_canonical(),
        local: place.local,
        received_at: app.clock().now(),
    }
}

/// One stream: a request and its answer.
pub(crate) struct Http2 {
    session: HttpSession,
    head: Head,
    length: Option<u64>,
    body_due: Instant,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unanswered,
    Streaming { bodiless: bool },
    Answered,
    Broken,
}

impl Http2 {
    fn begin(mut session: HttpSession, head: Head, limits: &Limits) -> Self {
        session.set_write_timeout(Some(limits.idle_timeout));
        let declared =
            head.headers.first("content-length").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
        let length = if session.is_body_empty() { Some(0) } else { declared };
        Self {
            session,
            head,
            length,
            body_due: Instant::now() + limits.body_timeout,
            state: State::Unanswered,
        }
    }

    pub fn head(&self) -> &Head {
        &self.head
    }
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    pub async fn read(&mut self) -> Result<Option<Bytes>, Reason> {
        loop {
            match timeout_at(self.body_due, self.session.read_body_bytes()).await {
                Ok(Ok(Some(bytes))) if bytes.is_empty() => {}
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(_)) => return Err(Reason::BodyIncomplete),
                Err(_) => return Err(Reason::RequestTimeout),
            }
        }
    }

    pub async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        if self.state != State::Unanswered {
            return Err(SenderGone);
        }
        let (mut head, answer) = match own_head(&answer) {
            Ok(head) => (head, answer),
            Err(error) => {
                tracing::error!(status = answer.status, %error, "answer replaced");
                let answer = Answer::refusal(Reason::Internal);
                (own_head(&answer).map_err(|_| SenderGone)?, answer)
            }
        };
        if !matches!(answer.status, 100..=199 | 204) {
            head.set_content_length(answer.body.len()).map_err(|_| SenderGone)?;
        }
        self.state = State::Broken;
        let ends = answer.body.is_empty() || is_bodiless(&self.head.method, answer.status);
        self.session.write_response_header(head, ends).map_err(|_| SenderGone)?;
        if !ends {
            self.session.write_body(answer.body, true).await.map_err(|_| SenderGone)?;
        }
        self.state = State::Answered;
        Ok(())
    }

    pub async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        if self.state != State::Unanswered {
            return Err(SenderGone.into());
        }
        let Ok((mut head, length)) = app_head(status, headers) else {
            return Err(NotStarted::Unsendable);
        };
        // There is no switching of protocols on HTTP/2, and an interim answer is not the answer.
        if matches!(status, 100..=199) {
            return Ok(());
        }
        if let Some(length) = length {
            head.append_header(http::header::CONTENT_LENGTH, length).map_err(|_| SenderGone)?;
        }
        let bodiless = is_bodiless(&self.head.method, status);
        self.state = State::Broken;
        self.session.write_response_header(head, bodiless).map_err(|_| SenderGone)?;
        self.state = State::Streaming { bodiless };
        Ok(())
    }

    pub async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        match self.state {
            State::Streaming { bodiless: true } => Ok(()),
            State::Streaming { bodiless: false } => {
                self.state = State::Broken;
                self.session.write_body(chunk, false).await.map_err(|_| SenderGone)?;
                self.state = State::Streaming { bodiless: false };
                Ok(())
            }
            State::Unanswered | State::Answered | State::Broken => Err(SenderGone),
        }
    }

    pub async fn finish(&mut self) -> Result<(), SenderGone> {
        if !matches!(self.state, State::Streaming { .. }) {
            return Err(SenderGone);
        }
        self.state = State::Broken;
        self.session.finish().map_err(|_| SenderGone)?;
        self.state = State::Answered;
        Ok(())
    }

    pub fn abort(&mut self) {
        self.state = State::Broken;
    }

    /// Ends the stream: quietly after an answer, with a reset if there is none or only a part.
    async fn end(&mut self) {
        if self.state == State::Unanswered {
            tracing::error!("a request was left without an answer");
            let _ = self.answer(Answer::refusal(Reason::Internal)).await;
        }
        if self.state != State::Answered {
            self.session.shutdown();
        }
    }
}
