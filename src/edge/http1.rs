//! HTTP/1 connections: one request after the other, each a pingora session of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession;

use super::answer::{Names, app_head, is_bodiless, own_head, reason_of, refusal_bytes};
use super::app::{App, Place, refused};
use super::conn::{Conn, Flow, Next, Patience};
use super::exchange::HttpExchange;
use super::head::{Framing, ParsedHead, Persistence, Upgrade, parse};
use super::listen::Stop;
use crate::message::{Answer, Head, Headers, Scheme, Version};
use crate::reason::Reason;
use crate::receive::exchange::{NotStarted, SenderGone};

/// Whole answers up to this size wait in the connection's buffer for their end.
const COLLECTED_ANSWER: u64 = 16 * 1024;

/// Serves requests until the sender, an error, a limit or the shutdown ends the connection.
pub(super) async fn serve<A: App>(
    mut conn: Box<Conn>,
    place: Place,
    scheme: Scheme,
    app: &Arc<A>,
    stop: &Stop,
) {
    let mut patience = Patience::First;
    let mut stopped = pin!(stop.wait());
    let mut served = 0u32;
    loop {
        let limits = app.limits();
        let bytes = match conn.next_head(&limits, patience, stopped.as_mut()).await {
            Next::Head(bytes) => bytes,
            Next::Refused(reason) => return refuse(conn, &place, app, reason, b"").await,
            Next::Closed => return conn.close_idle().await,
        };
        let parsed = match parse(&bytes, &limits) {
            Ok(parsed) => parsed,
            Err(reason) => return refuse(conn, &place, app, reason, &bytes).await,
        };
        served += 1;
        let stays = parsed.persistence == Persistence::KeepAlive && served < limits.requests_per_connection;
        let head = head(&bytes, &parsed, &place, scheme, app);
        drop(bytes);
        conn.begin(&parsed);
        let Some(exchange) = Http1::begin(conn, head, &parsed, stays).await else { return };
        let mut exchange = HttpExchange::Http1(Box::new(exchange));
        app.handle(&mut exchange).await;
        let HttpExchange::Http1(exchange) = exchange else { return };
        conn = match exchange.end().await {
            After::Next(conn) => conn,
            After::Close(conn) => return conn.close().await,
            After::Drop => return,
        };
        patience = Patience::Idle;
    }
}

async fn refuse<A: App>(mut conn: Box<Conn>, place: &Place, app: &Arc<A>, reason: Reason, head: &[u8]) {
    refused(&**app, place, reason);
    if conn.send(&refusal_bytes(reason, head)).await.is_ok() {
        conn.close().await;
    }
}

fn head<A: App>(bytes: &Bytes, parsed: &ParsedHead, place: &Place, scheme: Scheme, app: &Arc<A>) -> Head {
    let headers = Headers::index(bytes.clone(), parsed.fields.iter().cloned());
    Head {
        method: parsed.method.clone(),
        target: parsed.target_in(bytes),
        authority: parsed.authority_in(bytes).to_owned(),
        scheme,
        version: parsed.version,
        client: app.client(place.listener, place.peer.ip(), &headers),
        headers,
        peer: place.peer,
        local: place.local,
        received_at: app.clock().now(),
    }
}

/// What becomes of the connection after a request.
enum After {
    Next(Box<Conn>),
    Close(Box<Conn>),
    /// Cut, so that a truncated answer can't pass for a whole one.
    Drop,
}

/// One request and its answer.
pub(crate) struct Http1 {
    session: HttpSession,
    head: Head,
    framing: Framing,
    upgrade: Upgrade,
    /// `100 Continue` is owed before the body is read.
    owes_continue: bool,
    /// The connection can be used again after this request, as far as is known.
    stays: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unanswered,
    /// An app's answer streams; without a body nothing that is written is sent.
    Streaming {
        bodiless: bool,
    },
    Answered,
    Broken,
}

impl Http1 {
    async fn begin(conn: Box<Conn>, head: Head, parsed: &ParsedHead, stays: bool) -> Option<Self> {
        let mut session = HttpSession::new(conn);
        // Deadlines and framing are the connection's; see `conn`.
        session.set_read_timeout(None);
        session.set_close_on_response_before_downstream_finish(false);
        if let Err(error) = session.read_request().await {
            // It read what `Conn::begin` wrote.
            tracing::error!(%error, "the framing head was not understood");
            return None;
        }
        Some(Self {
            session,
            head,
            framing: parsed.framing,
            upgrade: parsed.upgrade,
            owes_continue: parsed.expects_continue,
            stays,
            state: State::Unanswered,
        })
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    pub fn content_length(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        }
    }

    pub async fn read(&mut self) -> Result<Option<Bytes>, Reason> {
        if self.owes_continue && self.state == State::Unanswered {
            self.owes_continue = false;
            if self.session.write_continue_response().await.is_err() {
                self.state = State::Broken;
                return Err(Reason::BodyIncomplete);
            }
        }
        loop {
            match self.session.read_body_bytes().await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(bytes),
                Err(_) => {
                    self.stays = false;
                    let fault = Conn::of(self.session.stream()).and_then(Conn::fault);
                    return Err(fault.unwrap_or(Reason::BodyIncomplete));
                }
            }
        }
    }

    /// Decides whether the connection can be used again: not if a body is still to come. What of it has come already
    /// is taken off the wire, so that a small body that nobody wanted does not cost the connection.
    async fn settle(&mut self) {
        if self.stopping() {
            self.stays = false;
        }
        while self.stays && !self.session.is_body_done() {
            let taken = if self.owes_continue {
                None
            } else {
                let mut read = pin!(self.session.read_body_bytes());
                poll_fn(|cx| match read.as_mut().poll(cx) {
                    Poll::Ready(Ok(bytes)) => Poll::Ready(Some(bytes)),
                    Poll::Ready(Err(_)) | Poll::Pending => Poll::Ready(None),
                })
                .await
            };
            self.stays = taken.is_some();
        }
        // Seconds; 0 is "no limit of the session's own".
        self.session.set_server_keepalive(self.stays.then_some(0));
    }

    fn stopping(&self) -> bool {
        Conn::of(self.session.stream()).is_none_or(Conn::stopping)
    }

    fn set_flow(&self, flow: Flow) {
        if let Some(conn) = Conn::of(self.session.stream()) {
            conn.set_flow(flow);
        }
    }

    pub async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        if self.state != State::Unanswered {
            return Err(SenderGone);
        }
        if reason_of(&answer).is_some_and(Reason::closes_connection) {
            self.stays = false;
        }
        let (mut head, answer) = match own_head(&answer) {
            Ok(head) => (head, answer),
            Err(error) => {
                tracing::error!(status = answer.status, %error, "answer replaced");
                let answer = Answer::refusal(Reason::Internal);
                (own_head(&answer).map_err(|_| SenderGone)?, answer)
            }
        };
        self.settle().await;
        let bodiless = is_bodiless(&self.head.method, answer.status);
        if !matches!(answer.status, 100..=199 | 204) {
            head.set_content_length(answer.body.len()).map_err(|_| SenderGone)?;
        }
        self.state = State::Broken;
        self.session.write_response_header(head).await.map_err(|_| SenderGone)?;
        if !bodiless && !answer.body.is_empty() {
            self.session.write_body(&answer.body).await.map_err(|_| SenderGone)?;
        }
        self.session.finish_body().await.map_err(|_| SenderGone)?;
        self.state = State::Answered;
        Ok(())
    }

    pub async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        if self.state != State::Unanswered {
            return Err(SenderGone.into());
        }
        let built = app_head(status, headers, Names::AsGiven);
        let Ok((mut head, length)) = built else {
            return Err(NotStarted::Unsendable);
        };
        let bodiless = is_bodiless(&self.head.method, status);
        let flow = match status {
            101 if self.upgrade == Upgrade::Offered => {
                self.switch(&mut head)?;
                Flow::Eager
            }
            100..=199 => return Ok(()),
            _ => {
                self.stays &= !self.stopping();
                self.session.set_server_keepalive(self.stays.then_some(0));
                self.frame(&mut head, length, bodiless)?
            }
        };
        self.state = State::Broken;
        // The head waits for the first piece of the body and leaves with it; but not if that may take its time.
        let waits = status != 101 && !bodiless && !is_event_stream(headers);
        self.set_flow(if waits { Flow::Hold } else { flow });
        self.session.write_response_header(head).await.map_err(|_| SenderGone)?;
        self.set_flow(flow);
        self.state = State::Streaming { bodiless: bodiless && status != 101 };
        Ok(())
    }

    /// The head of `101 Switching Protocols`: its hop-by-hop fields are this hop's.
    fn switch(&mut self, head: &mut ResponseHeader) -> Result<(), SenderGone> {
        if !head.headers.contains_key(http::header::UPGRADE) {
            let protocol = self.head.headers.first("upgrade").unwrap_or_default();
            head.append_header("Upgrade", protocol).map_err(|_| SenderGone)?;
        }
        head.append_header("Connection", "Upgrade").map_err(|_| SenderGone)?;
        self.stays = false;
        Ok(())
    }

    /// Says how the body ends, and how its bytes leave.
    fn frame(
        &mut self,
        head: &mut ResponseHeader,
        length: Option<u64>,
        bodiless: bool,
    ) -> Result<Flow, SenderGone> {
        match length {
            Some(length) => {
                head.append_header("Content-Length", length.to_string()).map_err(|_| SenderGone)?;
                Ok(if length <= COLLECTED_ANSWER { Flow::Collect } else { Flow::Eager })
            }
            None if bodiless => Ok(Flow::Collect),
            None if self.head.version == Version::Http10 => {
                // Its end is the connection's.
                self.stays = false;
                self.session.set_server_keepalive(None);
                Ok(Flow::Eager)
            }
            None => {
                head.append_header("Transfer-Encoding", "chunked").map_err(|_| SenderGone)?;
                Ok(Flow::Collect)
            }
        }
    }

    pub async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        match self.state {
            State::Streaming { bodiless: true } => Ok(()),
            State::Streaming { bodiless: false } => {
                self.state = State::Broken;
                if !chunk.is_empty() {
                    self.session.write_body(&chunk).await.map_err(|_| SenderGone)?;
                }
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
        self.set_flow(Flow::Collect);
        self.session.finish_body().await.map_err(|_| SenderGone)?;
        self.state = State::Answered;
        Ok(())
    }

    pub fn abort(&mut self) {
        self.state = State::Broken;
    }

    async fn end(mut self: Box<Self>) -> After {
        if self.state == State::Unanswered {
            tracing::error!("a request was left without an answer");
            let _ = self.answer(Answer::refusal(Reason::Internal)).await;
        }
        // What an app did not read of a streamed request is still on the wire.
        let (state, stays) = (self.state, self.stays && self.session.is_body_done());
        let Some(conn) = Conn::from(self.session.into_inner()) else { return After::Drop };
        match state {
            State::Answered if stays => After::Next(conn),
            State::Answered => After::Close(conn),
            State::Unanswered | State::Streaming { .. } | State::Broken => After::Drop,
        }
    }
}

fn is_event_stream(headers: &Headers) -> bool {
    headers.first("content-type").is_some_and(|value| {
        value.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    })
}
