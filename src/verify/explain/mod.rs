//! Why a rule decides as it does, for people: which bytes were signed, how far the time is off, which secret matched, and
//! the likeliest mistake. Pure, and slow on purpose: it tries whatever people get wrong (`guess`, `tries`, `bodies`), always with
//! the secrets that are configured, and tells which try makes the signature right.
//!
//! No secret is ever part of what is said. The signature that would be right is, as [`Way::expected`], for whoever asks
//! for it in so many words: whoever runs this has the secrets, but not everybody who is shown its output.

pub(super) mod bodies;
pub(super) mod credential;
mod guess;
mod hints;
#[cfg(test)]
mod tests;
pub(super) mod tries;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Verifier;
use super::check::{Check, How};
use super::encoding::MAX_SIGNATURE;
use super::locate::{Location, View};
use super::refusal::Refusal;
use super::scheme::{Keys, Scheme, TimeRule};
use super::signatures::{MAX_SIGNATURES, TimeFrom};
use super::template::Filling;
use super::time::distance;
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::Secret;

/// Bytes of what is signed that are shown at its beginning and end.
const SHOWN: usize = 48;

/// See [`Verifier::explain`](super::Verifier::explain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the rule decides: what proved the sender and the label of the secret, or the refusal.
    pub decision: Result<(Arc<str>, Option<Arc<str>>), Refusal>,
    /// Each way in which the rule can be met, in its order.
    pub ways: Vec<Way>,
    /// What the request as a whole tells, where no mistake makes it right.
    pub hint: Option<Likely>,
}

impl Explanation {
    /// The likeliest mistakes, the likeliest first. None if the request is accepted.
    pub fn likely(&self) -> impl Iterator<Item = &Likely> {
        let refused = self.decision.is_err();
        let found = self.hint.iter().chain(self.ways.iter().flat_map(|way| &way.likely));
        found.filter(move |likely| refused && (self.hint.is_none() || likely.code != UNKNOWN))
    }
}

/// One way in which a rule can be met: one scheme, token or credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// `stripe`, `jwt`, `api_key`; with a number where a provider signs in several ways.
    pub name: String,
    /// What was looked at, in order.
    pub steps: Vec<Step>,
    pub decision: Result<Option<Arc<str>>, Refusal>,
    pub likely: Vec<Likely>,
    /// What the signature would have to be, for each live secret: never show it unasked.
    pub expected: Vec<String>,
    /// What is signed, without the secret where that is part of it: more than one where a request carries several
    /// signatures. Empty if nothing is signed or it can't be put together.
    pub signed: Vec<Vec<u8>>,
}

impl Way {
    /// Where what is signed here and `theirs`, which the sender signed, begin to differ: one text for each of `signed`.
    pub fn differences(&self, theirs: &[u8]) -> impl Iterator<Item = String> {
        self.signed.iter().map(move |ours| {
            // Editors and shells end a file with a newline.
            let trimmed = theirs.strip_suffix(b"\n").filter(|_| !ours.ends_with(b"\n"));
            let theirs = trimmed.unwrap_or(theirs);
            if ours == theirs {
                return format!("the same {}", count(ours.len(), "byte"));
            }
            let at = bodies::first_difference(ours, theirs);
            let line = ours[..at].iter().filter(|byte| **byte == b'\n').count();
            let column =
                at - ours[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let place = match ours.contains(&b'\n') {
                true => format!("byte {at} (line {}, byte {column} of it)", line + 1),
                false => format!("byte {at}"),
            };
            format!(
                "{} here, {} there; the first difference is at {place}: here {}, there {}",
                count(ours.len(), "byte"),
                theirs.len(),
                bodies::from(ours, at),
                bodies::from(theirs, at)
            )
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// One word: `signature`, `time`, `signed`, `secrets`, `applies`, `result`; of a token `token`, `header`, `keys`,
    /// `signature`, `time`, `claim`, `digest`, `result`; of an HTTP message signature `signature`, `covers`, `params`,
    /// `time`, `signed`, `keys`, `digest`, `result`.
    pub what: &'static str,
    pub text: String,
}

/// A mistake that would explain the refusal: with it undone, the signature is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likely {
    /// One word that stays the same, such as `final_newline`.
    pub code: &'static str,
    pub text: String,
}

impl Likely {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// The code of a refusal that no mistake explains.
pub(super) const UNKNOWN: &str = "unknown";

/// Secrets of another route's rule.
pub(super) struct Foreign<'o> {
    pub(super) route: &'o str,
    pub(super) secret: Secret,
}

pub(super) fn explain(
    rule: &Verifier,
    request: &Request,
    public_url: Option<&str>,
    now: Timestamp,
    others: &[(&str, &Verifier)],
) -> Explanation {
    let connection = rule.connection(&request.head.headers);
    let mut foreign = Vec::new();
    for (route, other) in others {
        other.check.collect_given(&mut |secret| foreign.push(Foreign { route, secret: secret.clone() }));
    }
    let mut ways: Vec<Way> = connection.clone().err().map(connection_way).into_iter().collect();
    let decision = connection.and_then(|()| rule.check.run(request, public_url, now));
    let asked = Asked { request, public_url, now, foreign: &foreign };
    collect(&rule.check, None, &asked, &mut ways);
    let explained = ways.iter().flat_map(|way| &way.likely).any(|likely| likely.code != UNKNOWN);
    let hint = match &decision {
        Err(refusal) if !explained && says_little(refusal.reason) => {
            let mut own = BTreeSet::new();
            rule.check.collect_names(&mut own);
            hints::other_provider(request, &own)
        }
        _ => None,
    };
    Explanation { decision: decision.map(|proof| (proof.by, proof.label)), ways, hint }
}

/// Whether it may be that the request is not for this rule at all.
fn says_little(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::SignatureMissing
            | Reason::SignatureInvalid
            | Reason::TokenInvalid
            | Reason::CredentialsMissing
            | Reason::CredentialsInvalid
    )
}

/// One of several must hold: a way that can't be explained says nothing where another can, and says it once.
fn told_once(ways: &mut [Way]) {
    let is_unknown = |likely: &Likely| likely.code == UNKNOWN;
    let explained = ways.iter().any(|way| way.likely.iter().any(|likely| !is_unknown(likely)));
    // Of several the one for which there was something to look at.
    let unknown = |way: &Way| way.likely.iter().any(is_unknown);
    let was_looked_at = |way: &Way| {
        unknown(way) && way.decision.as_ref().is_err_and(|why| why.reason != Reason::SignatureMissing)
    };
    let telling = ways.iter().position(was_looked_at).or_else(|| ways.iter().position(unknown));
    let telling = telling.filter(|_| !explained);
    for (_, way) in ways.iter_mut().enumerate().filter(|(at, _)| telling != Some(*at)) {
        way.likely.retain(|likely| !is_unknown(likely));
    }
}

/// What is explained.
pub(super) struct Asked<'a> {
    pub(super) request: &'a Request,
    pub(super) public_url: Option<&'a str>,
    pub(super) now: Timestamp,
    pub(super) foreign: &'a [Foreign<'a>],
}

fn collect(check: &Check, name: Option<String>, asked: &Asked<'_>, ways: &mut Vec<Way>) {
    let name = name.unwrap_or_else(|| check.by.to_string());
    match &check.how {
        How::Open => ways.push(Way {
            name,
            steps: vec![Step { what: "result", text: "nothing is asked for: anyone may send".into() }],
            decision: Ok(None),
            likely: Vec::new(),
            expected: Vec::new(),
            signed: Vec::new(),
        }),
        How::Scheme(scheme) => ways.push(scheme_way(scheme, name, asked)),
        How::Jwt(jwt) => ways.push(jwt.explain(name, asked)),
        How::HttpSignature(signature) => ways.push(signature.explain(name, asked)),
        How::Credentials(credentials) => {
            let decision = credentials.check(asked.request, asked.now);
            let likely = match &decision {
                Ok(_) => Vec::new(),
                Err(_) => credential::likely(credentials, asked),
            };
            ways.push(Way {
                steps: vec![result(&decision)],
                name,
                decision,
                likely,
                expected: Vec::new(),
                signed: Vec::new(),
            });
        }
        How::Ways(rules) | How::Any(rules) | How::All(rules) => {
            let before = ways.len();
            for (index, rule) in rules.iter().enumerate() {
                let same = rules.iter().filter(|other| other.by == rule.by).count();
                let numbered = (same > 1).then(|| format!("{}, way {}", rule.by, index + 1));
                collect(rule, numbered, asked, ways);
            }
            if !matches!(check.how, How::All(_)) {
                told_once(&mut ways[before..]);
            }
        }
    }
}

/// Whatever the rule's ways say: its headers would be gone behind the next hop.
fn connection_way(refusal: Refusal) -> Way {
    let text = "a proxy on the way (or an attacker) lists a header in `Connection` that must reach the app: it belongs to no \
                single hop";
    let likely = vec![Likely::new("connection", text)];
    let decision = Err(refusal);
    Way {
        name: "connection".into(),
        steps: vec![result(&decision)],
        decision,
        likely,
        expected: Vec::new(),
        signed: Vec::new(),
    }
}

impl Check {
    /// Hands out what it is called: of a pack's rules the provider's name.
    fn collect_names(&self, into: &mut BTreeSet<String>) {
        into.insert(self.by.to_string());
        if let How::Ways(rules) | How::Any(rules) | How::All(rules) = &self.how {
            rules.iter().for_each(|rule| rule.collect_names(into));
        }
    }

    /// Hands out the shared secrets as they were given.
    fn collect_given(&self, into: &mut dyn FnMut(&Secret)) {
        match &self.how {
            How::Open => {}
            How::HttpSignature(signature) => signature.given().for_each(into),
            How::Jwt(jwt) => jwt.shared_secrets().for_each(|secret| into(&secret)),
            How::Scheme(scheme) => scheme.given.secrets.iter().for_each(|secret| into(&secret.given)),
            How::Credentials(credentials) => credentials.plain().for_each(into),
            How::Ways(rules) | How::Any(rules) | How::All(rules) => {
                rules.iter().for_each(|rule| rule.collect_given(into));
            }
        }
    }
}

pub(super) fn result<T>(decision: &Result<T, Refusal>) -> Step {
    let text = match decision {
        Ok(_) => "right".to_owned(),
        Err(refusal) => format!("{}: {}", refusal.reason.code(), refusal.detail),
    };
    Step { what: "result", text }
}

fn scheme_way(scheme: &Scheme, name: String, asked: &Asked<'_>) -> Way {
    let Asked { request, public_url, now, .. } = *asked;
    let decision = scheme.check(request, public_url, now);
    let view = View::of(request);
    let mut steps = Vec::new();
    let mut step = |what, text: String| steps.push(Step { what, text });
    let applies = scheme.when.iter().find_map(|condition| condition.holds(view).err());
    if let Some(refusal) = &applies {
        step("applies", format!("no: {}", refusal.detail));
    }
    step("signature", signature_step(scheme, view));
    if scheme.each.is_some() {
        step("signed", "each element of a list in the body carries its own signature".into());
    }
    let found = found(scheme, view);
    if let Some(rule) = &scheme.timestamp {
        step("time", time_step(rule, found.time.as_deref(), now));
    }
    let url = OnceCell::new();
    let filling = Filling {
        view,
        public_url,
        timestamp: found.time.as_deref().unwrap_or_default(),
        id: found.id.as_deref().unwrap_or_default(),
        url: &url,
    };
    let token = matches!(scheme.keys, Keys::Token(_));
    let mut signed = Vec::new();
    if !token && scheme.each.is_none() {
        // Templates that hold the secret are shown with nothing in its place.
        step(
            "signed",
            match scheme.template.whole(&filling) {
                Ok(bytes) => {
                    let text = signed_text(&bytes, scheme.template.uses_secret());
                    signed.push(bytes.into_owned());
                    text
                }
                Err(why) => format!("can't be put together: {}", Refusal::from(why).detail),
            },
        );
        if let Some(url) = url.get() {
            step("signed", url_text(url));
        }
    }
    let matched = match &decision {
        Err(refusal) if refusal.reason == Reason::TimestampOutOfTolerance => {
            guess::at_any_time(scheme, asked)
        }
        Ok(label) => Some(label.clone()),
        Err(_) => None,
    };
    step("secrets", secrets_step(scheme, matched.as_ref(), decision.is_ok(), asked.now));
    let expected =
        if decision.is_err() && applies.is_none() { expected(scheme, &filling) } else { Vec::new() };
    let likely = match &decision {
        Err(refusal) if applies.is_none() => guess::likely(scheme, refusal, asked, &filling),
        _ => Vec::new(),
    };
    steps.push(result(&decision));
    Way { name, steps, decision, likely, expected, signed }
}

/// What a scheme reads beside the signature, as far as it is there.
struct Found {
    time: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
}

fn found(scheme: &Scheme, view: View<'_>) -> Found {
    let value = |location: &Location| location.find(view).ok().flatten().map(|value| value.into_owned());
    let time = match scheme.timestamp.as_ref().map(|rule| &rule.from) {
        None => None,
        Some(TimeFrom::At(location)) => value(location),
        Some(inside) => scheme.from.iter().find_map(|location| {
            let held = value(location)?;
            scheme
                .form
                .groups(&held)
                .find_map(|group| scheme.form.time(inside, group).ok().map(<[u8]>::to_vec))
        }),
    };
    Found { time, id: scheme.id.as_ref().and_then(value) }
}

fn signature_step(scheme: &Scheme, view: View<'_>) -> String {
    let mut texts = Vec::new();
    for location in &scheme.from {
        let text = match location.find(view) {
            Err(_) => format!("{location} is there twice"),
            Ok(None) => format!("{location} is missing"),
            Ok(Some(value)) => {
                let (lengths, odd) = lengths_in(scheme, &value);
                match (matches!(scheme.keys, Keys::Token(_)), lengths.len(), odd) {
                    (true, n, odd) => format!("{location} holds {}", count(n + odd, "token")),
                    (_, 0, 0) => format!("{location} holds no {}", scheme.form.expected()),
                    (_, 0, odd) => {
                        format!(
                            "{location} holds {}, not in {:?}",
                            count(odd, "signature"),
                            scheme.form.encoding
                        )
                    }
                    (_, n, _) => format!(
                        "{location} holds {} in {:?} of {} bytes",
                        count(n, "signature"),
                        scheme.form.encoding,
                        lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
                    ),
                }
            }
        };
        texts.push(text);
    }
    texts.join("; ")
}

/// The bytes of each signature that can be read, and how many can't be.
fn lengths_in(scheme: &Scheme, value: &[u8]) -> (Vec<usize>, usize) {
    let mut buffer = [0; MAX_SIGNATURE];
    let (mut lengths, mut odd) = (Vec::new(), 0);
    for group in scheme.form.groups(value).take(MAX_SIGNATURES) {
        for signature in scheme.form.signatures(group) {
            match scheme.form.encoding.decode(signature, &mut buffer) {
                Some(bytes) => lengths.push(bytes.len()),
                None => odd += 1,
            }
        }
    }
    (lengths, odd)
}

/// The same, wherever signatures may stand.
fn signature_lengths(scheme: &Scheme, view: View<'_>) -> (Vec<usize>, usize) {
    let (mut lengths, mut odd) = (Vec::new(), 0);
    for value in scheme.from.iter().filter_map(|location| location.find(view).ok().flatten()) {
        let (more, more_odd) = lengths_in(scheme, &value);
        lengths.extend(more);
        odd += more_odd;
    }
    (lengths, odd)
}

fn time_step(rule: &TimeRule, text: Option<&[u8]>, now: Timestamp) -> String {
    let Some(text) = text else { return "is missing".into() };
    let shown = printable(text, 40);
    match rule.parse(text) {
        None => format!("`{shown}` is not {}", rule.formats()),
        Some(time) => {
            let apart = distance(time, now);
            let side = if time < now { "before" } else { "after" };
            format!(
                "{shown} is {time}, {} s {side} the time of the decision ({now}); {} s are allowed",
                apart.as_secs(),
                rule.tolerance.as_secs()
            )
        }
    }
}

fn signed_text(bytes: &[u8], without_secret: bool) -> String {
    let digest = hex::encode(Sha256::digest(bytes));
    let shown = if bytes.len() <= 2 * SHOWN {
        format!("`{}`", printable(bytes, bytes.len()))
    } else {
        let (first, last) = (&bytes[..SHOWN], &bytes[bytes.len() - SHOWN..]);
        format!("`{}` … `{}`", printable(first, SHOWN), printable(last, SHOWN))
    };
    if without_secret {
        format!("{} (without the secret): {shown}", count(bytes.len(), "byte"))
    } else {
        format!("{}, SHA-256 {digest}: {shown}", count(bytes.len(), "byte"))
    }
}

/// `matched`: the label of the key that is right, whatever the time (`in_time`: at this one).
fn secrets_step(
    scheme: &Scheme,
    matched: Option<&Option<Arc<str>>>,
    in_time: bool,
    now: Timestamp,
) -> String {
    let kind = match &scheme.keys {
        Keys::Mac(keys) => keys.first().map(|key| format!("HMAC with {}", key.value.hash().name())),
        Keys::Digest(hash, _) => Some(format!("{} over the secret and the rest", hash.name())),
        Keys::Token(_) => Some("the secret itself is sent".into()),
        Keys::Public(keys) => keys.first().map(|key| format!("{:?}", key.value.algorithm())),
        Keys::Fetched(fetched) => Some(format!("{:?}", fetched.algorithm)),
    };
    let live = match &scheme.keys {
        Keys::Public(_) => count(scheme.keys.live(now), "public key"),
        Keys::Fetched(_) => "fetched keys".into(),
        keys => count(keys.live(now), "secret"),
    };
    let apart = if in_time { "" } else { ", the time apart" };
    let matched = match matched {
        Some(Some(label)) => format!("`{label}` matches{apart}"),
        Some(None) => format!("one matches{apart}"),
        None => "none was found to match".into(),
    };
    let asleep = match scheme.keys.len() - scheme.keys.live(now) {
        0 => String::new(),
        some => format!(", {some} outside of their `from` and `until`"),
    };
    format!("{}, {live} live{asleep}: {matched}", kind.unwrap_or_default())
}

/// What the signature would have to be.
fn expected(scheme: &Scheme, filling: &Filling<'_>) -> Vec<String> {
    let encode = |bytes: &[u8]| scheme.form.encoding.encode(bytes);
    match &scheme.keys {
        Keys::Mac(keys) => keys
            .iter()
            .filter_map(|key| key.value.mac(|sink| scheme.template.feed(filling, b"", sink)).ok())
            .map(|mac| encode(mac.as_bytes()))
            .collect(),
        Keys::Digest(hash, secrets) => secrets
            .iter()
            .filter_map(|secret| {
                hash.digest(|sink| scheme.template.feed(filling, secret.value.expose(), sink)).ok()
            })
            .map(|digest| encode(digest.as_bytes()))
            .collect(),
        // A token is the secret itself; a private key is not here.
        Keys::Token(_) | Keys::Public(_) | Keys::Fetched(_) => Vec::new(),
    }
}

pub(super) fn count(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// At most `limit` bytes as text that is harmless for a terminal.
pub(super) fn printable(bytes: &[u8], limit: usize) -> String {
    bytes[..bytes.len().min(limit)].escape_ascii().to_string()
}

/// What is said of the URL that is signed.
pub(in crate::verify) fn url_text(url: &str) -> String {
    let unknown =
        if url.starts_with('/') { ", its host is not known (give the whole URL, or `Host`)" } else { "" };
    format!("its URL is {}{unknown}", printable(url.as_bytes(), 2048))
}
