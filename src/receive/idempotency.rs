//! Step: did we have it before? The key of a verified request, and a bounded memory of late claims in front of the
//! buffer's index.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use crate::buffer::{AnswersAsOf, ClaimKey, Claimed, Event, EventId, FirstAnswer, NewClaim, Origin, Whose};
use crate::clock::Timestamp;
use crate::config::{EventKey, Idempotency, Mode, Route};
use crate::message::{Head, Method, PathParams, Request};
use crate::reason::Reason;
use crate::verify::Verified;

use super::answers;

/// How long an admission without a key of its own is remembered: longer than two attempts at it are apart.
const ADMITTED: Duration = Duration::from_secs(24 * 3600);

/// Memory of the claims that are remembered, in bytes.
const MEMORY: u64 = 32 * 1024 * 1024;
/// What an entry costs beside its answer's texts: itself, its key, and the cache's own bookkeeping. Measured as growth
/// of the resident set, 1 million keys through a full cache.
const ENTRY_BYTES: usize = 550;

/// What makes a request the same as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub key: ClaimKey,
    /// For people; shortened.
    pub readable: String,
    pub window: Duration,
}

impl Identity {
    /// With an answer of the config's.
    pub fn claim(&self, answer: FirstAnswer) -> NewClaim {
        NewClaim { key: self.key, whose: None, window: self.window, answer }
    }

    /// With the app's answer, which an erase must be able to find.
    pub fn claim_of_app(&self, route: &str, answer: FirstAnswer) -> NewClaim {
        let whose = answer.has_text().then(|| Whose::new(route, &self.readable));
        NewClaim { whose, ..self.claim(answer) }
    }
}

/// Who was let through without proof claims in a place of its own, and only for the very same body: nobody may take the
/// place of a proved sender's event. `None` where nothing tells one event from the next.
pub(super) fn identify(route: &Route, rule: &Idempotency, request: &Verified<Request>) -> Option<Identity> {
    let key = rule.key_of(request.get());
    let by_bytes = matches!(key, EventKey::Bytes(_));
    let by_query = by_bytes && rule.by_query;
    if by_bytes && !bytes_tell(route, by_query, request.get()) {
        return None;
    }
    let scope = scope(route, request, by_query);
    let key = key.into_text();
    let claimed = match request.would_refuse() {
        None => ClaimKey::new(&scope, key.as_bytes()),
        Some(_) => unproved(&scope, &request.get().body, key.as_bytes()),
    };
    Some(Identity { key: claimed, readable: Event::readable_key(key), window: rule.window })
}

/// Whether a request may be known by its bytes alone. What is asked of an app by GET may have another answer each time,
/// and a request with nothing in it is like every other.
fn bytes_tell(route: &Route, by_query: bool, request: &Request) -> bool {
    let Head { method, .. } = &request.head;
    let is_asked =
        matches!(*method, Method::GET | Method::HEAD) && !matches!(route.mode, Mode::Buffer { .. });
    let is_empty =
        request.body.is_empty() && !(by_query && request.head.query().is_some_and(|q| !q.is_empty()));
    !is_asked && !is_empty
}

fn unproved(scope: &str, body: &[u8], key: &[u8]) -> ClaimKey {
    // No route's name has a space.
    ClaimKey::new(&format!("{scope} unproved"), &[&Sha256::digest(body), key].concat())
}

/// The key of one of several events of a request, in a scope of its own: no request's ends in `/`. One that was let
/// through unproved is bound to its bytes besides, and never meets a proved one.
pub(super) fn key_of_part(scope: &str, key: &[u8], body: &[u8], would_refuse: Option<Reason>) -> ClaimKey {
    match would_refuse {
        None => ClaimKey::new(&format!("{scope}/"), key),
        Some(_) => ClaimKey::new(&format!("{scope}/unproved"), &[&Sha256::digest(body)[..], key].concat()),
    }
}

/// The claim of an event that was accepted at another time (it comes from another buffer), for what is left of its
/// window at `now`. `params` are those of its path. `None` if nothing is left, if the route drops no repeats, or if
/// the key was too long to be kept whole.
///
/// # Errors
///
/// Says why the route takes no such events.
pub fn claim_of(
    route: &Route,
    params: &PathParams,
    event: &Event,
    now: Timestamp,
) -> Result<Option<NewClaim>, String> {
    let (Mode::Buffer { answer, .. } | Mode::Spill { answer, .. }) = &route.mode else {
        return Err(format!("the route `{}` keeps no events: its mode is {}", route.name, route.mode.word()));
    };
    let (Some(rule), Some(key)) = (&route.idempotency, &event.idempotency_key) else { return Ok(None) };
    // A shortened one ends at a character's border near the limit.
    let is_whole = key.len() < Event::MAX_READABLE - 3;
    let window = rule.window.saturating_sub(now.since(event.received_at));
    if key.is_empty() || !is_whole || window.is_zero() {
        return Ok(None);
    }
    let Origin { client, way, .. } = &event.origin;
    let asked = Asked { method: &event.method, target: &event.target, params };
    let is_part = event.origin.batch.is_some();
    let by_query = rule.by_query
        && match is_part {
            true => rule.key.is_none(),
            false => matches!(rule.key_again(key, &event.body), EventKey::Bytes(_)),
        };
    let scope = scope_of(route, &asked, by_query, client.as_deref(), way.as_deref());
    let key = match event.origin.would_refuse {
        would_refuse if is_part => key_of_part(&scope, key.as_bytes(), &event.body, would_refuse),
        None => ClaimKey::new(&scope, key.as_bytes()),
        Some(_) => unproved(&scope, &event.body, key.as_bytes()),
    };
    Ok(Some(NewClaim { key, whose: None, window, answer: answers::acknowledgement(answer) }))
}

/// Within what a key is one key: the route, which of its paths and methods was asked for, and where its senders don't
/// know each other, the sender. Two of them may give the same id to different events; and where any of several rules or
/// credentials proves a sender, who passes one of them must not take the id of another's event. `by_query`: and which
/// query it was asked for with.
pub(super) fn scope<'r>(route: &'r Route, request: &Verified<Request>, by_query: bool) -> Cow<'r, str> {
    let (client, way) = (request.client().map(|client| &**client), request.way().map(|way| &**way));
    let Request { head, params, .. } = request.get();
    scope_of(route, &Asked { method: &head.method, target: &head.target, params }, by_query, client, way)
}

/// The same of the parts of a request.
pub(super) fn scope_of_parts<'r>(route: &'r Route, request: &Verified<Request>) -> Cow<'r, str> {
    let by_bytes = |rule: &Idempotency| rule.key.is_none() && rule.by_query;
    scope(route, request, route.idempotency.as_ref().is_some_and(by_bytes))
}

/// What a request asks for.
struct Asked<'r> {
    method: &'r Method,
    target: &'r str,
    params: &'r PathParams,
}

fn scope_of<'r>(
    route: &'r Route,
    asked: &Asked<'_>,
    by_query: bool,
    client: Option<&str>,
    way: Option<&str>,
) -> Cow<'r, str> {
    let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
    let one_method = route.methods.len() == 1;
    let query = if by_query { query } else { "" };
    let is_below = route.path.ends_with("/*");
    let is_one = asked.params.0.is_empty() && !is_below && one_method && query.is_empty();
    if is_one && client.is_none() && way.is_none() {
        return Cow::Borrowed(&route.name);
    }
    // No route's name has a space.
    let mut scope = format!("{} of", route.name);
    // The lengths keep two values from being read as one.
    for (_, value) in &asked.params.0 {
        let _ = write!(scope, " {}:{value}", value.len());
    }
    if !one_method {
        let _ = write!(scope, " {}", asked.method);
    }
    if is_below {
        let _ = write!(scope, " at {}:{path}", path.len());
    }
    if !query.is_empty() {
        let _ = write!(scope, " ?{}:{query}", query.len());
    }
    if let Some(client) = client {
        let _ = write!(scope, " client {client}");
    }
    if let Some(way) = way {
        let _ = write!(scope, " by {}:{way}", way.len());
    }
    Cow::Owned(scope)
}

/// Of what an operator admits to a route that drops no repeats: so that it is admitted once.
pub(super) fn of_admission(route: &Route, item: EventId) -> Identity {
    // No route's name has a space.
    let key = ClaimKey::new(&format!("{} quarantine", route.name), &item.0);
    Identity { key, readable: String::new(), window: ADMITTED }
}

/// Claims that were met again lately. An entry is only ever made for a claim that stands; that one is missing means
/// nothing. Most keys come once, so a claim comes in here with its first repeat, and the least lately used is forgotten
/// first. The cache keeps no time of its own, because whether a claim still stands is the clock's to say. What was looked up
/// before answers were erased counts as forgotten.
#[derive(Debug)]
pub(super) struct Recent(Cache<ClaimKey, (AnswersAsOf, Arc<Claimed>), HashOfClaim>);

type HashOfClaim = BuildHasherDefault<KeyHasher>;

/// A map by claims' keys.
pub(super) type ByClaim<T> = HashMap<ClaimKey, T, HashOfClaim>;

impl Default for Recent {
    fn default() -> Self {
        let weigh = |_: &ClaimKey, (_, claimed): &(AnswersAsOf, Arc<Claimed>)| {
            let answer = &claimed.answer;
            let texts = answer.body.len() + answer.content_type.as_ref().map_or(0, String::len);
            u32::try_from(ENTRY_BYTES + texts).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .max_capacity(MEMORY)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(HashOfClaim::default()),
        )
    }
}

impl Recent {
    pub fn get(&self, key: ClaimKey, now: Timestamp, as_of: AnswersAsOf) -> Option<Arc<Claimed>> {
        let (known_as_of, claimed) = self.0.get(&key)?;
        (known_as_of == as_of && claimed.expires_at > now).then_some(claimed)
    }
    /// `as_of`: from before it was looked up.
    pub fn insert(&self, key: ClaimKey, claimed: Arc<Claimed>, as_of: AnswersAsOf) {
        self.0.insert(key, (as_of, claimed));
    }
}

/// Claim keys are hashes already, of which a part is as good as the whole.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    /// The length of the key, which is the same for all.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_OF: AnswersAsOf = AnswersAsOf::for_tests(0);

    fn claimed(expires_at: u64) -> Arc<Claimed> {
        let answer = FirstAnswer { status: 202, content_type: None, body: Default::default() };
        Arc::new(Claimed { event_id: EventId::new(Timestamp(1)), answer, expires_at: Timestamp(expires_at) })
    }

    #[test]
    fn a_claim_is_remembered_until_its_window_ends() {
        let recent = Recent::default();
        let key = ClaimKey::new("r", b"k");
        assert_eq!(recent.get(key, Timestamp(0), AS_OF), None);
        recent.insert(key, claimed(100), AS_OF);
        assert!(recent.get(key, Timestamp(99), AS_OF).is_some());
        assert_eq!(recent.get(key, Timestamp(100), AS_OF), None);
        assert_eq!(recent.get(ClaimKey::new("other", b"k"), Timestamp(0), AS_OF), None);
    }

    #[test]
    fn what_was_looked_up_before_answers_were_erased_is_forgotten() {
        let recent = Recent::default();
        let key = ClaimKey::new("r", b"k");
        recent.insert(key, claimed(100), AS_OF);
        assert_eq!(recent.get(key, Timestamp(0), AnswersAsOf::for_tests(1)), None);
        // Found before, remembered after.
        recent.insert(key, claimed(100), AS_OF);
        assert_eq!(recent.get(key, Timestamp(0), AnswersAsOf::for_tests(1)), None);
    }

    #[test]
    fn the_memory_of_claims_is_bounded_and_the_latest_stay() {
        let recent = Recent::default();
        let key = |n: u32| ClaimKey::new("r", &n.to_be_bytes());
        let count = 200_000;
        for n in 0..count {
            recent.insert(key(n), claimed(u64::MAX), AS_OF);
        }
        recent.0.run_pending_tasks();
        assert!(recent.0.weighted_size() <= MEMORY);
        assert!(recent.0.entry_count() > MEMORY / ENTRY_BYTES as u64 / 2);
        assert!((count - 10_000..count).all(|n| recent.get(key(n), Timestamp(0), AS_OF).is_some()));
        assert!(recent.get(key(0), Timestamp(0), AS_OF).is_none());
    }

    #[test]
    fn long_answers_count_with_their_length() {
        let recent = Recent::default();
        let answer = FirstAnswer { status: 200, content_type: None, body: vec![0; 1 << 20].into() };
        for n in 0..1000u32 {
            let claimed = Claimed {
                event_id: EventId::new(Timestamp(1)),
                answer: answer.clone(),
                expires_at: Timestamp(9),
            };
            recent.insert(ClaimKey::new("r", &n.to_be_bytes()), Arc::new(claimed), AS_OF);
        }
        recent.0.run_pending_tasks();
        assert!(recent.0.weighted_size() <= MEMORY && recent.0.entry_count() < 32);
    }

    #[test]
    fn a_long_key_is_shortened_at_a_boundary() {
        assert_eq!(Event::readable_key("k".repeat(Event::MAX_READABLE)).len(), Event::MAX_READABLE);
        let long = Event::readable_key("ü".repeat(Event::MAX_READABLE));
        assert_eq!(long, "ü".repeat(Event::MAX_READABLE / 2));
        assert_eq!(
            Event::readable_key(format!("k{}", "ü".repeat(Event::MAX_READABLE))).len(),
            Event::MAX_READABLE - 1
        );
    }
}
