//! The words of the buffer: event, destination, delivery, attempt, claim.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::message::{Headers, Method, Request, Scheme, TraceContext};
use crate::reason::Reason;
use crate::verify::Verified;

/// The id of an event: a UUIDv7, so ids sort by the time of reception.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// A new id for an event received at `now`. Cheap: no call into the operating system.
    pub fn new(now: Timestamp) -> Self {
        let mut random = [0u8; 10];
        random.iter_mut().for_each(|byte| *byte = fastrand::u8(..));
        Self(uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid().into_bytes())
    }

    /// The time in it: a UUIDv7 begins with 48 bits of milliseconds.
    pub const fn time(self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = self.0;
        Timestamp(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// The lowest possible id of a time.
    pub fn first_of(at: Timestamp) -> Self {
        Self::bound(at, 0)
    }

    /// The highest possible id of a time.
    pub fn last_of(at: Timestamp) -> Self {
        Self::bound(at, 0xff)
    }

    fn bound(at: Timestamp, rest: u8) -> Self {
        let millis = at.0.min((1 << 48) - 1);
        let mut id = [rest; 16];
        id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}
impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for EventId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(uuid::Uuid::parse_str(s)?.into_bytes()))
    }
}
impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One accepted request, stored once and never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: EventId,
    /// The name of the route that accepted it.
    pub route: Arc<str>,
    pub received_at: Timestamp,
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// `Host` as sent.
    pub authority: String,
    pub scheme: Scheme,
    /// As received: order, case and repeats.
    pub headers: Headers,
    pub body: Bytes,
    /// The client's address.
    pub source: IpAddr,
    /// What proved the sender (`stripe`, `jwt`, `none`, …), for `tidegate-verified`.
    pub verified: Arc<str>,
    /// The idempotency key in readable form, if the route has one.
    pub idempotency_key: Option<String>,
    pub event_type: Option<String>,
    pub origin: Origin,
}

/// What is out of the ordinary about how an event came in. Nothing, for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Verification would have refused it: it was let through by `enforce: observe`, or, out of quarantine, by force.
    pub would_refuse: Option<Reason>,
    /// The client whose URL it came by, on routes where each has its own.
    pub client: Option<Arc<str>>,
    /// Which of the route's rules proved it, where it has several (`any`).
    pub way: Option<Arc<str>>,
    /// It had been refused and was admitted later: the id that it had in quarantine, and when it was first received.
    pub quarantine: Option<(EventId, Timestamp)>,
    /// It was sent inline first, and the app may have had it: `mode: spill`.
    pub may_repeat: bool,
    /// It was one of several in its request.
    pub batch: Option<BatchPart>,
    /// Its trace, if that is recorded.
    pub trace: Option<TraceContext>,
}

/// Which of the events of one request an event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Of the request, which is no event itself. The same for all of its events.
    pub id: EventId,
    /// From 1, in the order of the request.
    pub number: u32,
    /// How many came in the request, those that were dropped as duplicates included.
    pub count: u32,
}

/// `ID;NUMBER;COUNT`, as in `tidegate-batch`.
impl fmt::Display for BatchPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{};{}", self.id, self.number, self.count)
    }
}

impl Event {
    /// The longest readable key, or type, that is kept with an event, in bytes. Claims are made of the whole key.
    pub const MAX_READABLE: usize = 256;

    /// At most [`Event::MAX_READABLE`] bytes of a text, and only whole characters.
    pub fn readable_key(mut text: String) -> String {
        if text.len() > Self::MAX_READABLE {
            let end = (0..=Self::MAX_READABLE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.shrink_to_fit();
        }
        text
    }

    /// An event from a verified request; there is no other way to make one for storing.
    pub fn from_verified(
        id: EventId,
        route: Arc<str>,
        request: &Verified<Request>,
        idempotency_key: Option<String>,
        event_type: Option<String>,
    ) -> Self {
        let Request { head, body, .. } = request.get();
        Self {
            id,
            route,
            received_at: head.received_at,
            method: head.method.clone(),
            target: head.target.clone(),
            authority: head.authority.clone(),
            scheme: head.scheme,
            headers: head.headers.clone(),
            body: body.clone(),
            source: head.client,
            verified: request.by().clone(),
            idempotency_key,
            event_type,
            origin: Origin {
                would_refuse: request.would_refuse().map(|r| r.reason),
                client: request.client().cloned(),
                way: request.way().cloned(),
                trace: request.trace(),
                ..Origin::default()
            },
        }
    }
}

/// `route/destination`: where deliveries go, as it stands in config, metrics and store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DestinationName(pub Arc<str>);

impl DestinationName {
    pub fn new(route: &str, destination: &str) -> Self {
        Self(format!("{route}/{destination}").into())
    }
    pub fn route(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(route, _)| route)
    }
}
impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fixed-size form of an idempotency key, scoped by its route: what claims are stored under. Keys of any length
/// cost the same, and a key of one route never meets another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimKey(pub [u8; 16]);

impl ClaimKey {
    pub fn new(route: &str, key: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((route.len() as u64).to_be_bytes());
        hash.update(route.as_bytes());
        hash.update(key);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }
}

/// Of which route, and of which idempotency key as it is shown, an answer is that a claim keeps, as unkeyed hashes: so that
/// it is found by what is known of somebody who asks to be forgotten. The claim's own key says more than that (by
/// which client it came, …), and so can't be made again from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    route: [u8; 8],
    key: [u8; 8],
}

impl Whose {
    pub const BYTES: usize = 16;

    pub fn new(route: &str, key: &str) -> Self {
        Self { route: short_hash(route), key: short_hash(key) }
    }
    pub fn is_of_route(self, route: &str) -> bool {
        self.route == short_hash(route)
    }
    pub fn is_of_key(self, key: &str) -> bool {
        self.key == short_hash(key)
    }
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.route);
        bytes[8..].copy_from_slice(&self.key);
        bytes
    }
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let (mut route, mut key) = ([0; 8], [0; 8]);
        route.copy_from_slice(&bytes[..8]);
        key.copy_from_slice(&bytes[8..]);
        Self { route, key }
    }
}

/// Eight bytes that stand for a text of which nothing is to be kept.
pub(super) fn short_hash(text: &str) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..8]);
    short
}

/// A claim to be made, atomically with its event's append.
#[derive(Clone, Debug, PartialEq)]
pub struct NewClaim {
    pub key: ClaimKey,
    /// `None`: the answer is the config's own, and says nothing of anybody.
    pub whose: Option<Whose>,
    /// How long a repeat is recognised.
    pub window: Duration,
    /// What repeats are answered.
    pub answer: FirstAnswer,
}

/// The first one's answer, kept for its repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstAnswer {
    pub status: u16,
    pub content_type: Option<String>,
    /// At most [`FirstAnswer::MAX_BODY`] bytes; a longer answer of an app is kept without its body.
    pub body: Bytes,
}

impl FirstAnswer {
    /// Bytes of an app's answer that are kept for repeats.
    pub const MAX_BODY: usize = 16 * 1024;

    /// Whether it says anything beyond its status.
    pub fn has_text(&self) -> bool {
        self.content_type.is_some() || !self.body.is_empty()
    }

    /// Its status alone.
    pub fn bare(&self) -> Self {
        Self { status: self.status, content_type: None, body: Bytes::new() }
    }
}

/// A claim that stands: who was first and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub event_id: EventId,
    pub answer: FirstAnswer,
    pub expires_at: Timestamp,
}

/// Claims whose answers are to be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub keys: Vec<ClaimKey>,
    /// Pass as `after` to go on; `None` at the end.
    pub next: Option<ClaimKey>,
}

/// Changes when answers that claims kept have been forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswersAsOf(pub(in crate::buffer) u64);

#[cfg(test)]
impl AnswersAsOf {
    /// For buffers that other areas' tests make up.
    pub(crate) const fn for_tests(number: u64) -> Self {
        Self(number)
    }
}

/// The outcome of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On disk and synced.
    Stored,
    /// The claim was taken already; nothing was stored. The first one is on disk and synced.
    Duplicate(Claimed),
}

/// The events of one request, to be stored together.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBatch {
    /// What `tidegate-batch` names, and what stands in the request's claim in an event's place.
    pub id: EventId,
    /// In the order of the request.
    pub events: Vec<NewPart>,
    /// Of the request as a whole.
    pub claim: Option<NewClaim>,
}

/// One event of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPart {
    pub event: Event,
    /// Where it goes.
    pub to: Vec<DestinationName>,
    /// Its own, if it has a key.
    pub claim: Option<NewClaim>,
}

/// The outcome of a batch's append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchAppended {
    /// All that were not there yet are on disk and synced; so are the first ones of the others.
    Stored {
        stored: usize,
        /// Dropped, because an event with their key was stored before, or stands before them in the batch.
        duplicates: usize,
    },
    /// The request's claim was taken already; nothing was stored. The first one is on disk and synced.
    Duplicate(Claimed),
}

/// One try of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Timestamp,
    pub took_ms: u64,
    #[serde(flatten)]
    pub outcome: AttemptOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The app answered; success is 2xx.
    Answered { status: u16 },
    /// No (whole) answer; `error` is a short class and text such as `connect: connection refused`.
    Failed { error: String },
}

impl AttemptOutcome {
    pub fn is_success(&self) -> bool {
        matches!(self, AttemptOutcome::Answered { status: 200..=299 })
    }
}

/// Why a delivery was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// All attempts used.
    AttemptsExhausted,
    /// Older than `retry.max_age`.
    TooOld,
    /// The app answered a status of `retry.give_up_on`.
    GivenUp,
    /// An operator gave it up.
    ByOperator,
}

impl DeadReason {
    pub const ALL: [DeadReason; 4] =
        [DeadReason::AttemptsExhausted, DeadReason::TooOld, DeadReason::GivenUp, DeadReason::ByOperator];

    pub const fn code(self) -> &'static str {
        match self {
            DeadReason::AttemptsExhausted => "attempts_exhausted",
            DeadReason::TooOld => "too_old",
            DeadReason::GivenUp => "given_up",
            DeadReason::ByOperator => "by_operator",
        }
    }
}

/// Where a delivery stands. (`in flight` is known only to the process that works on it and is shown as pending.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeliveryState {
    /// Not tried yet (or replayed): due at once.
    Pending,
    /// Tried and failed; due again at `next_at`.
    Retrying {
        next_at: Timestamp,
    },
    Delivered {
        at: Timestamp,
    },
    Dead {
        at: Timestamp,
        reason: DeadReason,
    },
}

impl DeliveryState {
    pub const fn word(&self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Retrying { .. } => "retrying",
            DeliveryState::Delivered { .. } => "delivered",
            DeliveryState::Dead { .. } => "dead",
        }
    }
}

/// One event on its way to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub destination: DestinationName,
    #[serde(flatten)]
    pub state: DeliveryState,
    /// Attempts since acceptance or the last replay.
    pub attempts: u32,
    /// When the retry budget began: acceptance, or the last replay.
    pub since: Timestamp,
    /// It is dead, and its lane waits until it is replayed or purged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parks: bool,
    /// The latest attempts, oldest first, at most [`Delivery::MAX_HISTORY`].
    pub history: Vec<Attempt>,
}

impl Delivery {
    /// Attempts kept per delivery.
    pub const MAX_HISTORY: usize = 8;

    /// Whether it waits, or holds what waits behind it.
    pub const fn may_be_given_up(&self) -> bool {
        self.parks || matches!(self.state, DeliveryState::Pending | DeliveryState::Retrying { .. })
    }
}
