//! Events on their way out of a buffer and into another: a tar archive with two files an event, its metadata as JSON
//! and its body as it was received.
//!
//! Here is the form alone; what asks for events and what takes them in is the admin API's and the command line's.
//! Nothing is hidden in it: with its headers an event can be verified again by the app that gets it.

pub mod tar;

use std::io::{self, Read};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::buffer::{BatchPart, Delivery, Event, EventId, Origin};
use crate::clock::Timestamp;
use crate::message::{Headers, Method, Scheme, TraceContext, is_control, is_token};
use crate::reason::Reason;
use tar::Reader;

/// Of the form below.
const VERSION: u32 = 1;
/// Bytes of one event's metadata.
const MAX_METADATA: u64 = 16 * 1024 * 1024;

/// An event's metadata.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    version: u32,
    id: EventId,
    route: String,
    /// Milliseconds since the epoch.
    received_at: Timestamp,
    method: String,
    target: String,
    authority: String,
    scheme: String,
    headers: Vec<Field>,
    source: IpAddr,
    verified: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    would_refuse: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quarantine: Option<(EventId, Timestamp)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    way: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    may_repeat: bool,
    /// The request's id, which of its events this was, and of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<(EventId, u32, u32)>,
    /// The span that its attempts go on from, where its trace is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Field {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// Where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Writes an event behind what `out` holds already. Nothing is written of one that does not fit.
pub fn put(out: &mut Vec<u8>, event: &Event, deliveries: Vec<Delivery>) -> io::Result<()> {
    let field = |(name, value): (&str, &[u8])| match std::str::from_utf8(value) {
        Ok(text) => Field { name: name.into(), value: Some(text.into()), base64: None },
        Err(_) => Field { name: name.into(), value: None, base64: Some(STANDARD.encode(value)) },
    };
    let metadata = Metadata {
        version: VERSION,
        id: event.id,
        route: event.route.to_string(),
        received_at: event.received_at,
        method: event.method.to_string(),
        target: event.target.clone(),
        authority: event.authority.clone(),
        scheme: event.scheme.as_str().into(),
        headers: event.headers.iter().map(field).collect(),
        source: event.source,
        verified: event.verified.to_string(),
        idempotency_key: event.idempotency_key.clone(),
        event_type: event.event_type.clone(),
        would_refuse: event.origin.would_refuse.map(|reason| reason.code().to_owned()),
        quarantine: event.origin.quarantine,
        client: event.origin.client.as_deref().map(str::to_owned),
        way: event.origin.way.as_deref().map(str::to_owned),
        may_repeat: event.origin.may_repeat,
        batch: event.origin.batch.map(|BatchPart { id, number, count }| (id, number, count)),
        traceparent: event.origin.trace.map(|trace| trace.to_string()),
        deliveries,
    };
    let metadata = serde_json::to_vec_pretty(&metadata)?;
    let (begin, at) = (out.len(), event.received_at.as_secs());
    let written = tar::put(out, &format!("events/{}.json", event.id), at, &metadata)
        .and_then(|()| tar::put(out, &format!("events/{}.body", event.id), at, &event.body));
    if written.is_err() {
        out.truncate(begin);
    }
    written
}

/// Reads events out of an archive, one at a time.
pub struct Events<R> {
    files: Reader<R>,
}

impl<R: Read> Events<R> {
    /// `max_body`: bytes of one body.
    pub fn new(from: R, max_body: u64) -> Self {
        Self { files: Reader::new(from, max_body.max(MAX_METADATA)) }
    }

    /// Whether the archive's own end was read. A part of one has none.
    pub const fn has_ended(&self) -> bool {
        self.files.has_ended()
    }

    /// The next event; `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of the source, and whatever is not as [`put`] wrote it: the text says what and where.
    pub fn read(&mut self) -> io::Result<Option<(Event, Vec<Delivery>)>> {
        let Some(file) = self.files.read()? else { return Ok(None) };
        let wrong =
            |name: &str, what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {what}"));
        let Some(stem) = file.name.strip_suffix(".json") else {
            return Err(wrong(&file.name, "an export holds a `.json` and then a `.body` for each event"));
        };
        let metadata: Metadata =
            serde_json::from_slice(&file.content).map_err(|e| wrong(&file.name, &e.to_string()))?;
        let body = match self.files.read()? {
            Some(body) if body.name.strip_suffix(".body") == Some(stem) => body.content,
            _ => return Err(wrong(&file.name, "its `.body` does not follow")),
        };
        metadata.event(body).map(Some).map_err(|what| wrong(&file.name, what))
    }
}

impl Metadata {
    fn event(self, body: Vec<u8>) -> Result<(Event, Vec<Delivery>), &'static str> {
        if self.version != VERSION {
            return Err("it was written by another version");
        }
        // It goes out to an app: what a sender could not have sent must not come in this way.
        let is_visible = |text: &str| !text.is_empty() && text.bytes().all(|b| (b'!'..=b'~').contains(&b));
        if !is_visible(&self.target) || !self.target.starts_with('/') {
            return Err("`target` is no path");
        }
        if !self.authority.is_empty() && !is_visible(&self.authority) {
            return Err("`authority` is no host");
        }
        let mut headers = Vec::with_capacity(self.headers.len());
        for Field { name, value, base64 } in self.headers {
            let value = match (value, base64) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(text)) => STANDARD.decode(text).map_err(|_| "a header is not base64")?,
                _ => return Err("a header has `value`, or `base64`"),
            };
            let is_name = !name.is_empty() && name.bytes().all(is_token);
            if !is_name || value.iter().any(|byte| is_control(*byte)) {
                return Err("a header is none");
            }
            headers.push((name, value));
        }
        let would_refuse = match self.would_refuse {
            None => None,
            Some(code) => Some(Reason::from_code(&code).ok_or("`would_refuse` is no reason code")?),
        };
        let trace = match self.traceparent {
            None => None,
            Some(text) => Some(TraceContext::parse(text.as_bytes()).ok_or("`traceparent` is none")?),
        };
        let event = Event {
            id: self.id,
            route: self.route.into(),
            received_at: self.received_at,
            method: Method::from_bytes(self.method.as_bytes()).map_err(|_| "`method` is none")?,
            target: self.target,
            authority: self.authority,
            scheme: match self.scheme.as_str() {
                "http" => Scheme::Http,
                "https" => Scheme::Https,
                _ => return Err("`scheme` is http or https"),
            },
            headers: headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_slice()))
                .collect::<Headers>(),
            body: body.into(),
            source: self.source,
            verified: self.verified.into(),
            idempotency_key: self.idempotency_key,
            event_type: self.event_type,
            origin: Origin {
                would_refuse,
                client: self.client.map(Into::into),
                way: self.way.map(Into::into),
                may_repeat: self.may_repeat,
                quarantine: self.quarantine,
                batch: self.batch.map(|(id, number, count)| BatchPart { id, number, count }),
                trace,
            },
        };
        Ok((event, self.deliveries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Attempt, AttemptOutcome, DeadReason, DeliveryState, DestinationName};

    fn one() -> (Event, Vec<Delivery>) {
        let at = Timestamp(1_764_000_000_123);
        let event = Event {
            id: EventId::new(at),
            route: "billing".into(),
            received_at: at,
            method: Method::POST,
            target: "/hooks/a%20b?x=1".into(),
            authority: "hooks.example.com".into(),
            scheme: Scheme::Https,
            headers: Headers::from_iter([("X-Sig", &b"one"[..]), ("x-SIG", b"two"), ("X-Bin", b"\xff")]),
            body: b"\x00\xff body"[..].into(),
            source: [192, 0, 2, 7].into(),
            verified: "github".into(),
            idempotency_key: Some("evt_1".into()),
            event_type: None,
            origin: Origin {
                would_refuse: Some(Reason::SignatureInvalid),
                client: Some("acme".into()),
                way: Some("bearer".into()),
                may_repeat: true,
                quarantine: Some((EventId::new(at), at)),
                batch: Some(BatchPart { id: EventId::new(at), number: 2, count: 3 }),
                trace: Some(TraceContext { trace: [7; 16], span: [9; 8] }),
            },
        };
        let outcome = AttemptOutcome::Answered { status: 503 };
        let dead = Delivery {
            destination: DestinationName::new("billing", "legacy"),
            state: DeliveryState::Dead { at, reason: DeadReason::TooOld },
            attempts: 3,
            since: at,
            parks: true,
            history: vec![
                Attempt { at, took_ms: 7, outcome },
                Attempt { at, took_ms: 30_000, outcome: AttemptOutcome::Failed { error: "timeout".into() } },
            ],
        };
        (event, vec![dead])
    }

    #[test]
    fn an_event_comes_back_byte_for_byte() {
        let (event, deliveries) = one();
        let mut archive = Vec::new();
        put(&mut archive, &event, deliveries.clone()).unwrap();
        put(&mut archive, &event, Vec::new()).unwrap();
        archive.extend(tar::END);
        let mut events = Events::new(&*archive, 1 << 20);
        assert_eq!(events.read().unwrap(), Some((event.clone(), deliveries)));
        assert_eq!(events.read().unwrap(), Some((event, Vec::new())));
        assert_eq!(events.read().unwrap(), None);
    }

    #[test]
    fn what_no_sender_could_have_sent_is_refused() {
        let (event, _) = one();
        let refused = |change: fn(&mut Event), what: &str| {
            let mut event = event.clone();
            change(&mut event);
            let mut archive = Vec::new();
            put(&mut archive, &event, Vec::new()).unwrap();
            let problem = Events::new(&*archive, 1 << 20).read().unwrap_err().to_string();
            assert!(problem.contains(what), "{problem}");
        };
        refused(|e| e.headers = Headers::from_iter([("X-A", &b"a\r\nX-B: b"[..])]), "header");
        refused(|e| e.target = "/a b".into(), "target");
        refused(|e| e.target = "http://x/".into(), "target");
        refused(|e| e.authority = "a\nb".into(), "authority");
        refused(|e| e.origin.trace = Some(TraceContext { trace: [0; 16], span: [1; 8] }), "traceparent");
    }
}
