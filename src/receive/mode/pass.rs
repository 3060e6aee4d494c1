//! Mode `pass`: stream through, both ways at once. Nothing is verified, stored, claimed or held in memory but the
//! piece that is under way.
//!
//! The app may answer before it has the whole body, and may agree to an `Upgrade`; then the two connections become
//! one pipe. While a piece of the answer is being written nothing is read from the sender: a sender that writes
//! without reading is held up until it reads, or until the edge's deadline ends it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::call;
use crate::config::Destination;
use crate::message::{Head, Headers, TraceContext, Version};
use crate::reason::Reason;
use crate::receive::Context;
use crate::receive::answers::{Upgraded, passed_on};
use crate::receive::app::{App, AppAnswer, AppBody, AppPending};
use crate::receive::exchange::{Exchange, NotStarted};
use crate::receive::record::Outcome;
use crate::receive::refused::{Refused, unsendable};
use crate::receive::tracked::Tracked;
use crate::trace::Span;
use crate::upstream::{Affinity, Forward, Outgoing, UpstreamError};

/// `max_body` is the route's; `idle` is how long an upgraded connection may be silent in both directions.
pub(in crate::receive) async fn stream<E: Exchange, A: App>(
    context: &Context<'_, A>,
    exchange: &mut Tracked<'_, E>,
    max_body: u64,
    idle: Duration,
    destination: &Destination,
    trace: Option<TraceContext>,
) -> Result<Outcome, Refused> {
    let Some(app) = context.upstreams.get(&destination.name) else {
        return Err(Refused::internal(format!("no client for {}", destination.name)));
    };
    let body = Body::of(exchange, max_body).await?;
    let head = exchange.head();
    // Ends with this function.
    let mut call = call(context, trace, head);
    let outgoing = Forward {
        method: &head.method,
        target: &head.target,
        authority: &head.authority,
        scheme: head.scheme,
        client: head.client,
        headers: &head.headers,
        event: None,
        upgrade: matches!(body, Body::AfterUpgrade),
        trace: call.as_ref().map(Span::context),
        affinity: Affinity::of_head(&destination.balance, head),
    }
    .to(destination);
    let outgoing = Outgoing { went_to: call.as_ref().and_then(Span::went_to), ..outgoing };
    let result = both_ways(&**app, exchange, &outgoing, body, max_body, idle).await;
    if let Some(call) = &mut call {
        match (&result, exchange.status()) {
            (Err(refused), _) => call.failed(refused.reason.code(), refused.detail.clone()),
            (Ok(_), Some(status)) => call.app_answered(status),
            (Ok(_), None) => {}
        }
    }
    result
}

/// What of the request follows its head.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    /// Of unknown length; the first piece may be here already.
    Unknown(Option<Bytes>),
    /// No body, but raw bytes if the app agrees to switch.
    AfterUpgrade,
}

impl Body {
    async fn of<E: Exchange>(exchange: &mut E, max: u64) -> Result<Body, Refused> {
        match exchange.content_length() {
            Some(length) if length > max => return Err(too_large(max)),
            Some(0) if !asks_for_upgrade(exchange.head()) => return Ok(Body::None),
            Some(length) if length > 0 => return Ok(Body::Length(length)),
            _ => {}
        }
        if exchange.head().headers.contains("transfer-encoding") {
            return Ok(Body::Unknown(None));
        }
        if asks_for_upgrade(exchange.head()) {
            return Ok(Body::AfterUpgrade);
        }
        // HTTP/2 does not say beforehand whether there is a body; a request without one must not become chunked.
        match exchange.read().await? {
            Some(piece) => Ok(Body::Unknown(Some(piece))),
            None => Ok(Body::None),
        }
    }

    const fn length(&self) -> Option<u64> {
        match self {
            Body::None => Some(0),
            Body::Length(length) => Some(*length),
            Body::Unknown(_) | Body::AfterUpgrade => None,
        }
    }
}

/// Whether the sender would switch protocols, to one that may be passed through. Another HTTP or TLS inside this
/// connection would go round every check that follows; such a wish is not passed on, and the request is an ordinary
/// one.
fn asks_for_upgrade(head: &Head) -> bool {
    let mut protocols = head.headers.all("upgrade").flat_map(|value| value.split(|byte| *byte == b','));
    let allowed = |protocol: &[u8]| {
        let name = protocol.trim_ascii().to_ascii_lowercase();
        !name.is_empty() && ![&b"h2"[..], b"h3", b"http", b"tls"].iter().any(|no| name.starts_with(no))
    };
    head.version == Version::Http11
        && head.headers.has_token("connection", "upgrade")
        && head.headers.contains("upgrade")
        && protocols.all(allowed)
}

async fn both_ways<E: Exchange, A: App>(
    app: &A,
    exchange: &mut Tracked<'_, E>,
    outgoing: &Outgoing,
    body: Body,
    max_body: u64,
    idle: Duration,
) -> Result<Outcome, Refused> {
    let (writer, pending) = app.start(outgoing, body.length()).await?;
    // One piece is on its way to the app while the next is read.
    let (room, pieces) = mpsc::channel(1);
    let mut upload = pin!(upload(writer, pieces));
    let mut sending = Sending { room: None, sent: 0, max: max_body, upload: Upload::Running };
    let upgrade = matches!(body, Body::AfterUpgrade);
    let mut held = None;
    let mut kept = None;
    match body {
        // Nothing to send: dropping the other end is the end of the body.
        Body::None => drop(room),
        Body::Length(_) | Body::Unknown(None) => sending.room = Some(room),
        Body::Unknown(Some(first)) => {
            sending.sent = counted(0, &first, max_body)?;
            // The channel is empty and holds one.
            let _ = room.try_send(first);
            sending.room = Some(room);
        }
        // Only once the app has agreed may bytes follow.
        Body::AfterUpgrade => held = Some(room),
    }

    let mut head = pin!(pending.head());
    let mut incoming = loop {
        tokio::select! {
            biased;
            answer = &mut head => break answer?,
            ended = &mut upload, if sending.upload == Upload::Running => kept = sending.ended(ended),
            piece = sending.next(exchange), if sending.room.is_some() => piece?,
        }
    };

    if incoming.status() == 101 {
        if !upgrade {
            return Err(UpstreamError::Protocol("a switch that was not asked for".into()).into());
        }
        let headers = passed_on(incoming.headers(), Upgraded::Yes).collect();
        match exchange.start(101, &headers).await {
            Ok(()) => {}
            Err(NotStarted::Gone(_)) => return Ok(Outcome::Passed),
            Err(NotStarted::Unsendable) => return Err(unsendable()),
        }
        sending = Sending { room: held, sent: 0, max: u64::MAX, upload: sending.upload };
        let mut deadline = pin!(sleep(idle));
        loop {
            tokio::select! {
                biased;
                chunk = incoming.chunk() => {
                    // The app has ended it, or one side is gone: there is nobody left to pass bytes to.
                    let Ok(Some(chunk)) = chunk else { break };
                    if exchange.write(chunk).await.is_err() { break }
                }
                ended = &mut upload, if sending.upload == Upload::Running => kept = sending.ended(ended),
                // A sender that has no more to say may still listen; one that broke off does not.
                piece = sending.next(exchange), if sending.room.is_some() => if piece.is_err() { break },
                () = &mut deadline => break,
            }
            deadline.as_mut().reset(Instant::now() + idle);
        }
        let _ = exchange.finish().await;
        drop(kept);
        return Ok(Outcome::Passed);
    }

    let headers: Headers = passed_on(incoming.headers(), Upgraded::No).collect();
    match exchange.start(incoming.status(), &headers).await {
        Ok(()) => {}
        Err(NotStarted::Gone(_)) => return Ok(Outcome::Passed),
        Err(NotStarted::Unsendable) => return Err(unsendable()),
    }
    loop {
        tokio::select! {
            biased;
            chunk = incoming.chunk() => match chunk? {
                Some(chunk) => if exchange.write(chunk).await.is_err() { return Ok(Outcome::Passed) },
                None => break,
            },
            ended = &mut upload, if sending.upload == Upload::Running => kept = sending.ended(ended),
            piece = sending.next(exchange), if sending.room.is_some() => piece?,
        }
    }
    let _ = exchange.finish().await;
    drop(kept);
    Ok(Outcome::Passed)
}

/// Writes pieces to the app until there are no more, and then ends the body. Returns the writer, because letting go
/// of it before the answer's end would close the connection.
async fn upload<W: AppBody>(mut writer: W, mut pieces: mpsc::Receiver<Bytes>) -> Result<W, UpstreamError> {
    while let Some(piece) = pieces.recv().await {
        writer.write(piece).await?;
    }
    writer.finish().await?;
    Ok(writer)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Running,
    Ended,
}

/// The sender's half.
struct Sending {
    /// Where pieces for the app go; `None` when there are no more, or the app takes none.
    room: Option<mpsc::Sender<Bytes>>,
    sent: u64,
    max: u64,
    upload: Upload,
}

impl Sending {
    /// Passes on the next piece, once there is room for it. Safe to cancel.
    async fn next<E: Exchange>(&mut self, exchange: &mut E) -> Result<(), Refused> {
        let Some(room) = &self.room else { return Ok(()) };
        let Ok(permit) = room.reserve().await else {
            self.room = None;
            return Ok(());
        };
        match exchange.read().await? {
            Some(piece) => {
                self.sent = counted(self.sent, &piece, self.max)?;
                permit.send(piece);
            }
            None => {
                drop(permit);
                self.room = None;
            }
        }
        Ok(())
    }

    /// The app has the whole body, or takes no more of it: then its answer says why. The writer is handed back.
    fn ended<W>(&mut self, upload: Result<W, UpstreamError>) -> Option<W> {
        self.upload = Upload::Ended;
        if upload.is_err() {
            self.room = None;
        }
        upload.ok()
    }
}

/// The bytes sent with `piece`, if they are no more than `max`.
fn counted(sent: u64, piece: &Bytes, max: u64) -> Result<u64, Refused> {
    let sent = sent.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
    if sent > max { Err(too_large(max)) } else { Ok(sent) }
}

fn too_large(max: u64) -> Refused {
    Refused::because(Reason::BodyTooLarge, format!("more than {max} bytes"))
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
