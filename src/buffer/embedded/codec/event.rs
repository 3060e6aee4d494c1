//! Events: every byte of target, headers and body.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::super::{BatchPart, Event, EventId, Origin};
use super::super::wire::{Malformed, Reader, Result, VERSION, put_bytes, put_number, put_optional};
use crate::message::{Headers, Method, Scheme, TraceContext};
use crate::reason::Reason;
use crate::seal::{Keyring, Kind, NotOpened, NotSealed, OVERHEAD};

/// An event as stored, with the numbers of its destinations.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct StoredEvent {
    pub(in super::super) event: Event,
    pub(in super::super) destinations: Vec<u32>,
    /// Of the plain record, in bytes: the same under every key.
    pub(in super::super) size: u32,
}

impl From<NotOpened> for Malformed {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::UnknownKey(_) => {
                Malformed("it is sealed under a key that `buffer.encryption.keys` does not have")
            }
            NotOpened::Changed => Malformed("it does not open: its bytes are not those that were sealed"),
        }
    }
}

/// Writes an event in place of what stands in `out`, and seals it there if events are sealed.
pub(in super::super) fn encode_event(
    out: &mut Vec<u8>,
    event: &Event,
    destinations: impl ExactSizeIterator<Item = u32>,
    keys: &Keyring,
) -> std::result::Result<(), NotSealed> {
    keys.begin(out);
    let headers: usize = event.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
    out.reserve(192 + event.target.len() + headers + event.body.len() + OVERHEAD);
    put_event(out, event, destinations);
    keys.finish(Kind::Event, &event.id.0, out)
}

fn put_event(out: &mut Vec<u8>, event: &Event, destinations: impl ExactSizeIterator<Item = u32>) {
    out.push(VERSION);
    let scheme = match event.scheme {
        Scheme::Http => 0,
        Scheme::Https => 1,
    };
    let Origin { would_refuse, quarantine, batch, client, way, may_repeat, trace } = &event.origin;
    let has_origin =
        would_refuse.is_some() || quarantine.is_some() || batch.is_some() || *may_repeat || trace.is_some();
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags =
        flag(has_origin, HAS_ORIGIN) | flag(client.is_some(), HAS_CLIENT) | flag(way.is_some(), HAS_WAY);
    out.push(scheme | flags);
    put_number(out, event.received_at.as_millis());
    match event.source {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    put_bytes(out, event.route.as_bytes());
    put_bytes(out, event.method.as_str().as_bytes());
    put_bytes(out, event.target.as_bytes());
    put_bytes(out, event.authority.as_bytes());
    put_bytes(out, event.verified.as_bytes());
    put_optional(out, event.idempotency_key.as_deref());
    put_optional(out, event.event_type.as_deref());
    put_number(out, destinations.len() as u64);
    destinations.for_each(|id| put_number(out, u64::from(id)));
    put_number(out, event.headers.len() as u64);
    for (name, value) in event.headers.iter() {
        put_number(out, name.len() as u64);
        put_number(out, value.len() as u64);
    }
    for (name, value) in event.headers.iter() {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    put_bytes(out, &event.body);
    if has_origin {
        put_origin(out, &event.origin);
    }
    if let Some(client) = client {
        put_bytes(out, client.as_bytes());
    }
    if let Some(way) = way {
        put_bytes(out, way.as_bytes());
    }
}

/// In the byte of the scheme: how the event came in is out of the ordinary, and stands behind its body.
const HAS_ORIGIN: u8 = 0x80;
/// In the same byte: the name of the client whose URL it came by stands behind that.
const HAS_CLIENT: u8 = 0x40;
/// In the same byte: which of the route's rules proved it stands last.
const HAS_WAY: u8 = 0x20;

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    put_optional(out, origin.would_refuse.map(Reason::code));
    let quarantine = if origin.quarantine.is_some() { FROM_QUARANTINE } else { 0 };
    let tag = |is: bool, tag: u8| if is { tag } else { 0 };
    out.push(quarantine | tag(origin.may_repeat, MAY_REPEAT) | tag(origin.trace.is_some(), TRACED));
    if let Some((id, received_at)) = origin.quarantine {
        out.extend_from_slice(&id.0);
        put_number(out, received_at.as_millis());
    }
    match origin.batch {
        None => out.push(0),
        Some(BatchPart { id, number, count }) => {
            out.push(1);
            out.extend_from_slice(&id.0);
            put_number(out, u64::from(number));
            put_number(out, u64::from(count));
        }
    }
    if let Some(TraceContext { trace, span }) = origin.trace {
        out.extend_from_slice(&trace);
        out.extend_from_slice(&span);
    }
}

/// What is said of an event's origin, in one byte.
const FROM_QUARANTINE: u8 = 1;
const MAY_REPEAT: u8 = 2;
/// The context of its trace stands last of its origin.
const TRACED: u8 = 4;

fn origin(r: &mut Reader<'_>) -> Result<Origin> {
    let small = |n: u64| u32::try_from(n).map_err(|_| Malformed("number out of range"));
    let would_refuse = match r.optional()? {
        None => None,
        Some(code) => Some(Reason::from_code(code).ok_or(Malformed("unknown reason"))?),
    };
    let tags = r.byte()?;
    if tags & !(FROM_QUARANTINE | MAY_REPEAT | TRACED) != 0 {
        return Err(Malformed("unknown tag"));
    }
    let quarantine = match tags & FROM_QUARANTINE {
        0 => None,
        _ => Some((EventId(r.array()?), r.time()?)),
    };
    let batch = match r.byte()? {
        0 => None,
        1 => {
            let (id, number, count) = (EventId(r.array()?), small(r.number()?)?, small(r.number()?)?);
            Some(BatchPart { id, number, count })
        }
        _ => return Err(Malformed("unknown tag")),
    };
    let trace = match tags & TRACED {
        0 => None,
        _ => Some(TraceContext { trace: r.array()?, span: r.array()? }),
    };
    let may_repeat = tags & MAY_REPEAT != 0;
    Ok(Origin { would_refuse, quarantine, batch, client: None, way: None, may_repeat, trace })
}

/// Reads an event, sealed or not. Copies the record once; headers and body share that copy.
pub(in super::super) fn decode_event(id: EventId, record: &[u8], keys: &Keyring) -> Result<StoredEvent> {
    let shared = keys.open(Kind::Event, &id.0, record)?;
    let size = u32::try_from(shared.len()).map_err(|_| Malformed("record is too long"))?;
    let mut r = Reader::versioned(&shared)?;
    let first = r.byte()?;
    let scheme = match first & !(HAS_ORIGIN | HAS_CLIENT | HAS_WAY) {
        0 => Scheme::Http,
        1 => Scheme::Https,
        _ => return Err(Malformed("unknown scheme")),
    };
    let received_at = r.time()?;
    let source: IpAddr = match r.byte()? {
        4 => r.array::<4>()?.into(),
        6 => r.array::<16>()?.into(),
        _ => return Err(Malformed("unknown address family")),
    };
    let route: Arc<str> = r.text()?.into();
    let method = Method::from_bytes(r.bytes()?).map_err(|_| Malformed("method is not a token"))?;
    let target = r.text()?.to_owned();
    let authority = r.text()?.to_owned();
    let verified: Arc<str> = r.text()?.into();
    let idempotency_key = r.optional()?.map(str::to_owned);
    let event_type = r.optional()?.map(str::to_owned);
    let destinations = (0..r.count()?)
        .map(|_| u32::try_from(r.number()?).map_err(|_| Malformed("destination out of range")))
        .collect::<Result<Vec<_>>>()?;
    let lengths = (0..r.count()?).map(|_| Ok((r.len()?, r.len()?))).collect::<Result<Vec<_>>>()?;
    let mut ranges = Vec::with_capacity(lengths.len());
    for (name, value) in lengths {
        let start = r.at;
        r.take(name)?;
        let middle = r.at;
        r.take(value)?;
        ranges.push((start..middle, middle..r.at));
    }
    let count = ranges.len();
    let headers = Headers::index(shared.clone(), ranges);
    if headers.len() != count {
        return Err(Malformed("header out of range"));
    }
    let len = r.len()?;
    let start = r.at;
    r.take(len)?;
    let mut origin = if first & HAS_ORIGIN == 0 { Origin::default() } else { origin(&mut r)? };
    if first & HAS_CLIENT != 0 {
        origin.client = Some(r.text()?.into());
    }
    if first & HAS_WAY != 0 {
        origin.way = Some(r.text()?.into());
    }
    r.end()?;
    let body = shared.slice(start..start + len);
    let event = Event {
        id,
        route,
        received_at,
        method,
        target,
        authority,
        scheme,
        headers,
        body,
        source,
        verified,
        idempotency_key,
        event_type,
        origin,
    };
    Ok(StoredEvent { event, destinations, size })
}
