//! HTTP/1 connections: one request after the other.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::answer::{
    Connection, Ending, declared_length, is_bodiless, is_passed_on, own_fields, put_head, put_switching,
    reason_of, refusal_bytes,
};
use super::app::{App, Place, refused};
use super::conn::{Conn, Next, Patience};
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
        conn.begin(parsed.framing);
        let mut exchange = HttpExchange::Http1(Box::new(Http1::new(conn, head, &parsed, stays)));
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
    let asked = app.asked(place.listener, place.peer.ip(), &headers);
    Head {
        method: parsed.method.clone(),
        target: parsed.target_in(bytes),
        authority: parsed.authority_in(bytes).to_owned(),
        asked_authority: asked.authority,
        scheme: asked.scheme.unwrap_or(scheme),
        version: parsed.version,
        client: asked.client,
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
    conn: Box<Conn>,
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
    /// An app's answer streams.
    Streaming(Ending, Flow),
    Answered,
    Broken,
}

/// When the pieces of a streamed answer leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// All at the end.
    Collect,
    /// Each at once.
    Prompt,
}

impl Http1 {
    fn new(conn: Box<Conn>, head: Head, parsed: &ParsedHead, stays: bool) -> Self {
        Self {
            conn,
            head,
            framing: parsed.framing,
            upgrade: parsed.upgrade,
            owes_continue: parsed.expects_continue,
            stays,
            state: State::Unanswered,
        }
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
            if self.conn.send(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                self.state = State::Broken;
                return Err(Reason::BodyIncomplete);
            }
        }
        let piece = self.conn.piece().await;
        self.stays &= piece.is_ok();
        piece
    }

    /// Decides whether the connection can be used again: not if a body is still to come. What of it has come already
    /// is taken off the wire, so that a small body that nobody wanted does not cost the connection.
    async fn settle(&mut self) {
        self.stays &= !self.conn.stopping();
        if self.stays && !self.conn.ended() {
            self.stays = !self.owes_continue && self.conn.skip().await;
        }
    }

    fn connection(&self) -> Connection {
        if self.stays { Connection::KeepAlive } else { Connection::Close }
    }

    pub async fn answer(&mut self, answer: Answer) -> Result<(), SenderGone> {
        if self.state != State::Unanswered {
            return Err(SenderGone);
        }
        if reason_of(&answer).is_some_and(Reason::closes_connection) {
            self.stays = false;
        }
        self.settle().await;
        let sendable = self.put_own_head(&answer);
        let answer = if sendable {
            answer
        } else {
            tracing::error!(status = answer.status, "answer replaced: its head can't be sent");
            let answer = Answer::refusal(Reason::Internal);
            self.put_own_head(&answer);
            answer
        };
        self.state = State::Broken;
        let body = if is_bodiless(&self.head.method, answer.status) { &[][..] } else { &answer.body[..] };
        self.conn.send(body).await.map_err(|_| SenderGone)?;
        self.state = State::Answered;
        Ok(())
    }

    /// Says whether the head can be sent.
    fn put_own_head(&mut self, answer: &Answer) -> bool {
        let ending = match answer.status {
            100..=199 | 204 => Ending::None,
            _ => Ending::Length(answer.body.len() as u64),
        };
        let connection = self.connection();
        put_head(self.conn.output(), answer.status, own_fields(answer), ending, connection).is_ok()
    }

    pub async fn start(&mut self, status: u16, headers: &Headers) -> Result<(), NotStarted> {
        if self.state != State::Unanswered {
            return Err(SenderGone.into());
        }
        let put = match status {
            101 if self.upgrade == Upgrade::Offered && self.conn.ended() => self.put_switch(headers),
            100..=199 => return Ok(()),
            _ => self.put_app_head(status, headers),
        };
        let Some((ending, flow)) = put else { return Err(NotStarted::Unsendable) };
        self.state = State::Broken;
        // The head waits for the first piece of the body and leaves with it; but not if that may take its time.
        if status == 101 || is_event_stream(headers) {
            self.conn.flush().await.map_err(|_| SenderGone)?;
        }
        self.state = State::Streaming(ending, flow);
        Ok(())
    }

    /// The head of `101 Switching Protocols`, after which the bytes are another protocol's.
    fn put_switch(&mut self, headers: &Headers) -> Option<(Ending, Flow)> {
        let offered = self.head.headers.first("upgrade").unwrap_or_default();
        put_switching(self.conn.output(), headers, offered).ok()?;
        self.stays = false;
        self.conn.switch();
        Some((Ending::Close, Flow::Prompt))
    }

    fn put_app_head(&mut self, status: u16, headers: &Headers) -> Option<(Ending, Flow)> {
        self.stays &= !self.conn.stopping();
        let (said, flow) = match declared_length(status, headers).ok()? {
            Some(length) if length <= COLLECTED_ANSWER => (Ending::Length(length), Flow::Collect),
            Some(length) => (Ending::Length(length), Flow::Prompt),
            None if is_bodiless(&self.head.method, status) => (Ending::None, Flow::Collect),
            None if self.head.version == Version::Http10 => {
                self.stays = false;
                (Ending::Close, Flow::Prompt)
            }
            None => (Ending::Chunked, Flow::Prompt),
        };
        let fields = headers.iter().filter(|(name, _)| is_passed_on(name));
        let connection = self.connection();
        put_head(self.conn.output(), status, fields, said, connection).ok()?;
        let ending = if is_bodiless(&self.head.method, status) { Ending::None } else { said };
        Some((ending, flow))
    }

    pub async fn write(&mut self, chunk: Bytes) -> Result<(), SenderGone> {
        let State::Streaming(ending, flow) = self.state else { return Err(SenderGone) };
        self.state = State::Broken;
        let ending = self.put(ending, &chunk).await?;
        if flow == Flow::Prompt {
            self.conn.flush().await.map_err(|_| SenderGone)?;
        }
        self.state = State::Streaming(ending, flow);
        Ok(())
    }

    /// Writes a piece of the body in the way that it is to end; returns how it is to end now.
    async fn put(&mut self, ending: Ending, chunk: &[u8]) -> Result<Ending, SenderGone> {
        if chunk.is_empty() {
            return Ok(ending);
        }
        let (before, after, ending) = match ending {
            Ending::None => return Ok(ending),
            // More than was said: the sender must not take the rest for another answer.
            Ending::Length(left) => {
                (None, "", Ending::Length(left.checked_sub(chunk.len() as u64).ok_or(SenderGone)?))
            }
            Ending::Chunked => (Some(format!("{:x}\r\n", chunk.len())), "\r\n", ending),
            Ending::Close => (None, "", ending),
        };
        for part in [before.as_deref().unwrap_or_default().as_bytes(), chunk, after.as_bytes()] {
            self.conn.write_all(part).await.map_err(|_| SenderGone)?;
        }
        Ok(ending)
    }

    pub async fn finish(&mut self) -> Result<(), SenderGone> {
        let State::Streaming(ending, _) = self.state else { return Err(SenderGone) };
        self.state = State::Broken;
        let end = match ending {
            Ending::Length(1..) => return Err(SenderGone),
            Ending::Chunked => &b"0\r\n\r\n"[..],
            Ending::None | Ending::Length(0) | Ending::Close => b"",
        };
        self.conn.send(end).await.map_err(|_| SenderGone)?;
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
        match self.state {
            // What an app did not read of a streamed request is still on the wire.
            State::Answered if self.stays && self.conn.ended() => After::Next(self.conn),
            State::Answered => After::Close(self.conn),
            State::Unanswered | State::Streaming(..) | State::Broken => After::Drop,
        }
    }
}

fn is_event_stream(headers: &Headers) -> bool {
    headers.first("content-type").is_some_and(|value| {
        value.get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"))
    })
}
