//! How records stand on disk: small binary forms of our own, each with a version byte first.
//!
//! No checksums here: fjall keeps an xxh3 of every journal batch, table block and blob and checks it on each read, so a
//! flipped bit is an error of the read, never a wrong record (`tests/damage.rs` flips some). What these forms promise
//! is promise 4: header order, case, repeats and every byte of target, headers and body come back as they went in.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use fjall::Slice;

use super::super::{
    Attempt, AttemptOutcome, BatchPart, Claimed, DeadReason, DeliveryState, Event, EventId, FirstAnswer,
    LaneKey, Origin,
};
use super::wire::{Malformed, Reader, Result, VERSION, put_bytes, put_number, put_optional};
use crate::clock::Timestamp;
use crate::message::{Headers, Method, Scheme, TraceContext};
use crate::reason::Reason;
use crate::seal::{Keyring, Kind, NotOpened, NotSealed, OVERHEAD};

/// Longest error text of an attempt that is kept, in bytes.
const MAX_ERROR: usize = 300;

// --------------------------------------------------------------------------------------------------------------- event

/// An event as stored, with the numbers of its destinations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredEvent {
    pub(super) event: Event,
    pub(super) destinations: Vec<u32>,
    /// Of the plain record, in bytes: the same under every key.
    pub(super) size: u32,
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
pub(super) fn encode_event(
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
pub(super) fn decode_event(id: EventId, record: &[u8], keys: &Keyring) -> Result<StoredEvent> {
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

// ------------------------------------------------------------------------------------------------------------ delivery

/// What is known of a delivery once there is something to say; without one it is pending and untried.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) state: DeliveryState,
    pub(super) attempts: u32,
    pub(super) since: Timestamp,
    /// When the event was accepted.
    pub(super) accepted: Timestamp,
    pub(super) history: Vec<Attempt>,
    /// Of an ordered destination.
    pub(super) lane: Option<LaneKey>,
    /// It is dead, and its lane waits for an operator.
    pub(super) parks: bool,
}

impl Record {
    pub(super) fn untried(accepted: Timestamp, lane: Option<LaneKey>) -> Self {
        let (state, history) = (DeliveryState::Pending, Vec::new());
        Self { state, attempts: 0, since: accepted, accepted, history, lane, parks: false }
    }

    /// When it was settled, if it is.
    pub(super) const fn settled_at(&self) -> Option<Timestamp> {
        match self.state {
            DeliveryState::Delivered { at } | DeliveryState::Dead { at, .. } => Some(at),
            DeliveryState::Pending | DeliveryState::Retrying { .. } => None,
        }
    }
    pub(super) const fn is_dead(&self) -> bool {
        matches!(self.state, DeliveryState::Dead { .. })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        match &self.state {
            DeliveryState::Pending => out.push(0),
            DeliveryState::Retrying { next_at } => {
                out.push(1);
                put_number(&mut out, next_at.0);
            }
            DeliveryState::Delivered { at } => {
                out.push(2);
                put_number(&mut out, at.0);
            }
            DeliveryState::Dead { at, reason } => {
                out.push(3);
                put_number(&mut out, at.0);
                out.push(match reason {
                    DeadReason::AttemptsExhausted => 1,
                    DeadReason::TooOld => 2,
                    DeadReason::GivenUp => 3,
                });
            }
        }
        put_number(&mut out, u64::from(self.attempts));
        put_number(&mut out, self.since.0);
        put_number(&mut out, self.accepted.0);
        put_number(&mut out, self.history.len() as u64);
        for attempt in &self.history {
            put_number(&mut out, attempt.at.0);
            put_number(&mut out, attempt.took_ms);
            match &attempt.outcome {
                AttemptOutcome::Answered { status } => {
                    out.push(0);
                    put_number(&mut out, u64::from(*status));
                }
                AttemptOutcome::Failed { error } => {
                    out.push(1);
                    put_bytes(&mut out, shortened(error).as_bytes());
                }
            }
        }
        if let Some(lane) = self.lane {
            out.push(u8::from(self.parks));
            out.extend_from_slice(&lane.0);
        }
        out
    }

    pub(super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let state = match r.byte()? {
            0 => DeliveryState::Pending,
            1 => DeliveryState::Retrying { next_at: r.time()? },
            2 => DeliveryState::Delivered { at: r.time()? },
            3 => DeliveryState::Dead {
                at: r.time()?,
                reason: match r.byte()? {
                    1 => DeadReason::AttemptsExhausted,
                    2 => DeadReason::TooOld,
                    3 => DeadReason::GivenUp,
                    _ => return Err(Malformed("unknown reason")),
                },
            },
            _ => return Err(Malformed("unknown delivery state")),
        };
        let attempts = u32::try_from(r.number()?).map_err(|_| Malformed("attempts out of range"))?;
        let since = r.time()?;
        let accepted = r.time()?;
        let history = (0..r.count()?)
            .map(|_| {
                let (at, took_ms) = (r.time()?, r.number()?);
                let outcome = match r.byte()? {
                    0 => AttemptOutcome::Answered {
                        status: u16::try_from(r.number()?).map_err(|_| Malformed("status out of range"))?,
                    },
                    1 => AttemptOutcome::Failed { error: r.text()?.to_owned() },
                    _ => return Err(Malformed("unknown outcome")),
                };
                Ok(Attempt { at, took_ms, outcome })
            })
            .collect::<Result<Vec<_>>>()?;
        // Behind it stands a lane, where there is one.
        let (parks, lane) = match r.is_at_end() {
            true => (false, None),
            false => (r.byte()? == 1, Some(LaneKey(r.array()?))),
        };
        r.end()?;
        Ok(Self { state, attempts, since, accepted, history, lane, parks })
    }
}

fn shortened(text: &str) -> &str {
    let end = (0..=MAX_ERROR.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

// --------------------------------------------------------------------------------------------------------------- queue

/// What stands in the queues under a delivery's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueEntry {
    pub(super) event: EventId,
    pub(super) accepted: Timestamp,
    pub(super) told: Told,
    /// Of an ordered destination; it stands behind the rest.
    pub(super) lane: Option<LaneKey>,
}

/// Whether a delivery record exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Record,
}

impl QueueEntry {
    pub(super) fn encode(&self) -> Slice {
        let mut out = [0; 33];
        out[..16].copy_from_slice(&self.event.0);
        out[16..24].copy_from_slice(&self.accepted.0.to_be_bytes());
        out[24] = match self.told {
            Told::Nothing => 0,
            Told::Record => 1,
        };
        match self.lane {
            None => Slice::from(&out[..25]),
            Some(lane) => {
                out[25..].copy_from_slice(&lane.0);
                Slice::from(&out[..])
            }
        }
    }
    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        const WRONG: Malformed = Malformed("queue entry has a wrong length");
        let (value, lane) = value.split_first_chunk::<25>().ok_or(WRONG)?;
        let lane = match lane {
            [] => None,
            lane => Some(LaneKey(lane.try_into().map_err(|_| WRONG)?)),
        };
        let mut accepted = [0; 8];
        accepted.copy_from_slice(&value[16..24]);
        let mut event = [0; 16];
        event.copy_from_slice(&value[..16]);
        let told = match value[24] {
            0 => Told::Nothing,
            1 => Told::Record,
            _ => return Err(Malformed("unknown tag")),
        };
        let accepted = Timestamp(u64::from_be_bytes(accepted));
        Ok(Self { event: EventId(event), accepted, told, lane })
    }
}

// --------------------------------------------------------------------------------------------------------------- claim

pub(super) fn encode_claim(claim: &Claimed) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + claim.answer.body.len());
    out.push(VERSION);
    out.extend_from_slice(&claim.event_id.0);
    put_number(&mut out, claim.expires_at.0);
    put_number(&mut out, u64::from(claim.answer.status));
    put_optional(&mut out, claim.answer.content_type.as_deref());
    put_bytes(&mut out, &claim.answer.body);
    out
}

pub(super) fn decode_claim(record: &[u8]) -> Result<Claimed> {
    let mut r = Reader::versioned(record)?;
    let event_id = EventId(r.array()?);
    let expires_at = r.time()?;
    let status = u16::try_from(r.number()?).map_err(|_| Malformed("status out of range"))?;
    let content_type = r.optional()?.map(str::to_owned);
    let body = Bytes::copy_from_slice(r.bytes()?);
    r.end()?;
    Ok(Claimed { event_id, expires_at, answer: FirstAnswer { status, content_type, body } })
}

// ------------------------------------------------------------------------------------------------------------ counters

/// Written with every commit: which one it is, and what is counted over the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CommitRecord {
    /// One more than that of the commit before.
    pub(super) commit: u64,
    /// The last commit that was known to be synced when this one was written.
    pub(super) synced: u64,
    /// The last commit (this one included) that touched `events`.
    pub(super) events_commit: u64,
    /// The same before this commit.
    pub(super) events_commit_before: u64,
    pub(super) next_seq: u64,
    /// Events in the store.
    pub(super) events: u64,
    /// Bytes of the events in the delivered retention index.
    pub(super) delivered_bytes: u64,
    /// Nothing stands in the time-ordered indexes below these (in milliseconds).
    pub(super) claims_from: u64,
    pub(super) delivered_from: u64,
    pub(super) dead_from: u64,
}

impl CommitRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56);
        out.push(VERSION);
        self.numbers().into_iter().for_each(|n| put_number(&mut out, n));
        out
    }
    pub(super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let read = Self {
            commit: r.number()?,
            synced: r.number()?,
            events_commit: r.number()?,
            events_commit_before: r.number()?,
            next_seq: r.number()?,
            events: r.number()?,
            delivered_bytes: r.number()?,
            claims_from: r.number()?,
            delivered_from: r.number()?,
            dead_from: r.number()?,
        };
        r.end()?;
        Ok(read)
    }
    const fn numbers(&self) -> [u64; 10] {
        [
            self.commit,
            self.synced,
            self.events_commit,
            self.events_commit_before,
            self.next_seq,
            self.events,
            self.delivered_bytes,
            self.claims_from,
            self.delivered_from,
            self.dead_from,
        ]
    }
}

/// What is counted per destination, and where scans of its queues may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) backlog: u64,
    pub(super) dead: u64,
    /// No live entry of the fresh queue is below this seq.
    pub(super) fresh_from: u64,
    /// No live entry of the retry queue is due before this.
    pub(super) retry_from: u64,
    /// Lanes that stand still.
    pub(super) blocked: u64,
    pub(super) parked: u64,
}

impl Counters {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.push(VERSION);
        [self.backlog, self.dead, self.fresh_from, self.retry_from]
            .into_iter()
            .for_each(|n| put_number(&mut out, n));
        if self.blocked + self.parked > 0 {
            put_number(&mut out, self.blocked);
            put_number(&mut out, self.parked);
        }
        out
    }
    pub(super) fn decode(record: &[u8]) -> Result<Self> {
        let mut r = Reader::versioned(record)?;
        let mut read = Self {
            backlog: r.number()?,
            dead: r.number()?,
            fresh_from: r.number()?,
            retry_from: r.number()?,
            ..Self::default()
        };
        if !r.is_at_end() {
            (read.blocked, read.parked) = (r.number()?, r.number()?);
        }
        r.end()?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::plain_len;
    use crate::seal::testing::keyring;

    fn out_of_the_ordinary(at: u64) -> Origin {
        let reason = Reason::ALL[at as usize % Reason::ALL.len()];
        let id = EventId([at as u8; 16]);
        Origin {
            would_refuse: at.is_multiple_of(2).then_some(reason),
            quarantine: (!at.is_multiple_of(3)).then_some((id, Timestamp(at))),
            batch: (!at.is_multiple_of(5)).then_some(BatchPart { id, number: at as u32, count: u32::MAX }),
            client: at.is_multiple_of(7).then(|| "acme".into()),
            way: at.is_multiple_of(13).then(|| "bearer#2".into()),
            may_repeat: !at.is_multiple_of(7),
            trace: at
                .is_multiple_of(11)
                .then(|| TraceContext { trace: [7; 16], span: id.0[8..].try_into().unwrap() }),
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let headers = proptest::collection::vec(("[!-9;-~]{1,20}", any::<Vec<u8>>()), 0..12);
        let texts = (".*", ".*", "[a-z0-9/-]{0,12}", proptest::option::of(".*"), proptest::option::of(".*"));
        (any::<[u8; 16]>(), any::<u64>(), headers, any::<Vec<u8>>(), any::<IpAddr>(), texts, any::<bool>())
            .prop_map(|(id, at, headers, body, source, (target, authority, route, key, kind), tls)| Event {
                id: EventId(id),
                route: route.as_str().into(),
                received_at: Timestamp(at),
                method: Method::POST,
                target,
                authority,
                scheme: if tls { Scheme::Https } else { Scheme::Http },
                headers: headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect(),
                body: body.into(),
                source,
                verified: "github".into(),
                idempotency_key: key,
                event_type: kind,
                origin: if tls { Origin::default() } else { out_of_the_ordinary(at) },
            })
    }

    proptest! {
        #[test]
        fn every_byte_of_an_event_comes_back(event in any_event(), destinations: Vec<u32>) {
            let mut out = Vec::new();
            for keys in [Keyring::none(), keyring(&[1])] {
                encode_event(&mut out, &event, destinations.iter().copied(), &keys).unwrap();
                let back = decode_event(event.id, &out, &keys).unwrap();
                prop_assert_eq!(back.size as usize, plain_len(&out));
                prop_assert_eq!(back.event, event.clone());
                prop_assert_eq!(back.destinations, destinations.clone());
            }
        }

        #[test]
        fn a_cut_event_is_an_error(event in any_event(), cut: prop::sample::Index) {
            let mut out = Vec::new();
            for keys in [Keyring::none(), keyring(&[1])] {
                encode_event(&mut out, &event, [1].into_iter(), &keys).unwrap();
                let cut = cut.index(out.len());
                prop_assert!(decode_event(event.id, &out[..cut], &keys).is_err());
            }
        }

        #[test]
        fn a_flipped_bit_of_a_sealed_event_is_an_error(event in any_event(), bit: prop::sample::Index) {
            let mut out = Vec::new();
            encode_event(&mut out, &event, [1].into_iter(), &keyring(&[1])).unwrap();
            let bit = bit.index(out.len() * 8);
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_event(event.id, &out, &keyring(&[1])).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_never_a_panic(bytes: Vec<u8>) {
            let _ = decode_event(EventId([0; 16]), &bytes, &Keyring::none());
            let _ = Record::decode(&bytes);
            let _ = decode_claim(&bytes);
            let _ = CommitRecord::decode(&bytes);
            let _ = Counters::decode(&bytes);
            let _ = QueueEntry::decode(&bytes);
        }
    }

    #[test]
    fn a_delivery_comes_back_and_its_error_is_cut_at_a_character() {
        let attempt = |outcome| Attempt { at: Timestamp(5), took_ms: 7, outcome };
        let mut record = Record {
            state: DeliveryState::Dead { at: Timestamp(9), reason: DeadReason::GivenUp },
            attempts: 3,
            since: Timestamp(1),
            accepted: Timestamp(0),
            history: vec![attempt(AttemptOutcome::Answered { status: 410 })],
            lane: None,
            parks: false,
        };
        assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        (record.lane, record.parks) = (Some(LaneKey([7; 8])), true);
        assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        record.history.push(attempt(AttemptOutcome::Failed { error: "ä".repeat(400) }));
        let back = Record::decode(&record.encode()).unwrap();
        assert_eq!(back.history[1].outcome, AttemptOutcome::Failed { error: "ä".repeat(MAX_ERROR / 2) });
    }

    #[test]
    fn a_claim_comes_back() {
        let claim = Claimed {
            event_id: EventId([3; 16]),
            answer: FirstAnswer { status: 202, content_type: Some("text/plain".into()), body: "ok".into() },
            expires_at: Timestamp(99),
        };
        assert_eq!(decode_claim(&encode_claim(&claim)), Ok(claim));
    }

    #[test]
    fn a_newer_record_is_refused_not_misread() {
        let mut record = Counters::default().encode();
        record[0] = VERSION + 1;
        assert_eq!(Counters::decode(&record), Err(Malformed("unknown record version")));
    }
}
