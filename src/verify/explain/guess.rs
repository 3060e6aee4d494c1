//! Mistakes that are tried one by one, then two by two: which one, undone, makes the signature right?

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::super::encoding::Encoding;
use super::super::locate::View;
use super::super::mac::{Hash, MacKey};
use super::super::refusal::Refusal;
use super::super::scheme::{Keys, Labelled, Scheme, TimeRule};
use super::super::sign::with_headers;
use super::super::template::{Filling, Template};
use super::super::time::TimeFormat;
use super::{Asked, Likely, UNKNOWN, bodies, count, hints, signature_lengths, tries};
use crate::reason::Reason;
use crate::secret::Secret;

/// Pairs of mistakes that are tried at most, and bytes that are hashed for them.
const MAX_PAIRS: usize = 4096;
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// One mistake, undone. What is `None` stays as it is.
#[derive(Clone, Default)]
pub(in crate::verify) struct Try {
    pub(in crate::verify) code: &'static str,
    /// Completes "the signature is right for …".
    pub(in crate::verify) text: String,
    pub(super) body: Option<Vec<u8>>,
    /// The path and query, and the public URL.
    pub(in crate::verify) address: Option<(String, String)>,
    /// Where one of the headers that are read stands, and where it should.
    pub(super) header: Option<(String, String)>,
    /// The key, derived.
    pub(super) key: Option<Secret>,
    pub(super) hash: Option<Hash>,
    pub(super) encoding: Option<Encoding>,
    pub(super) prefix: Option<String>,
    pub(super) template: Option<Template>,
    pub(super) time: Option<TimeFormat>,
}

pub(super) fn likely(
    scheme: &Scheme,
    refusal: &Refusal,
    asked: &Asked<'_>,
    filling: &Filling<'_>,
) -> Vec<Likely> {
    let mut found = Vec::new();
    if refusal.reason == Reason::TimestampOutOfTolerance && passes(scheme, asked, &[]) {
        return vec![Likely::new("clock", clock_text(scheme, refusal))];
    }
    let tries = tries::tries(scheme, asked);
    for one in &tries {
        if passes(scheme, asked, &[one]) {
            let differs = difference(scheme, one, asked, filling);
            found.push(Likely::new(one.code, format!("the signature is right for {}{differs}", one.text)));
        }
    }
    let mut left = MAX_PAIRS.min(MAX_BYTES / (asked.request.body.len() + 1024));
    if found.is_empty() {
        'pairs: for (at, one) in tries.iter().enumerate() {
            for other in tries[at + 1..].iter().filter(|other| other.may_join(one)) {
                if left == 0 {
                    break 'pairs;
                }
                left -= 1;
                if passes(scheme, asked, &[one, other]) {
                    let text = format!("the signature is right for {}, and {}", one.text, other.text);
                    found.push(Likely::new(one.code, text));
                    break 'pairs;
                }
            }
        }
    }
    found.dedup_by(|a, b| a.code == b.code);
    // Its time is off, too, unless it was only written otherwise.
    let time = found.iter().all(|likely| likely.code != "time_unit");
    if time && !found.is_empty() && refusal.reason == Reason::TimestampOutOfTolerance {
        found.push(Likely::new("clock", format!("its time is off, too: {}", refusal.detail)));
    }
    if found.is_empty() {
        found.extend(unexplained(scheme, refusal, asked));
    }
    found
}

fn clock_text(scheme: &Scheme, refusal: &Refusal) -> String {
    let allowed = scheme.timestamp.as_ref().map_or(0, |rule| rule.tolerance.as_secs());
    format!(
        "the signature is right, only its time is not ({}): sent or captured longer ago than {allowed} s, sent again, or a \
         clock that is wrong",
        refusal.detail
    )
}

/// The label of the key for which the request is right but for its time.
pub(super) fn at_any_time(scheme: &Scheme, asked: &Asked<'_>) -> Option<Option<Arc<str>>> {
    let mut scheme = scheme.clone();
    if let Some(rule) = &mut scheme.timestamp {
        rule.tolerance = Duration::MAX;
    }
    scheme.check(asked.request, asked.public_url, asked.now).ok()
}

fn unexplained(scheme: &Scheme, refusal: &Refusal, asked: &Asked<'_>) -> Option<Likely> {
    if let Some(cut) = cut_off(scheme, asked) {
        return Some(cut);
    }
    if refusal.reason != Reason::SignatureMissing
        && !scheme.given.secrets.is_empty()
        && let Some(test_mode) = hints::test_mode(asked.request)
    {
        return Some(test_mode);
    }
    let text = match (refusal.reason, &scheme.keys) {
        (Reason::SignatureMissing, _) => {
            "nothing that could hold the signature is there: another provider, a request that was not sent by the provider \
             at all, or a proxy that takes unknown headers away"
        }
        (Reason::AmbiguousRequest, _) => {
            "something that must be there once is there twice: a proxy on the way, or an attack"
        }
        (_, Keys::Public(_)) => {
            "it is not signed with the key that belongs to this public key: most likely a key of another environment, or a \
             body that was changed on its way"
        }
        (_, Keys::Token(_)) => {
            "it is none of the configured tokens: most likely an old one, or one of another endpoint or environment"
        }
        _ => {
            "nothing that was tried makes it right: most likely another secret (of another endpoint, an old one, or of the \
             provider's test mode), or a body that was changed on its way in a way that can't be undone"
        }
    };
    Some(Likely::new(UNKNOWN, text))
}

/// No signature that is there has the length that signatures have here.
fn cut_off(scheme: &Scheme, asked: &Asked<'_>) -> Option<Likely> {
    let wanted = match &scheme.keys {
        Keys::Mac(keys) => keys.first()?.value.hash().length(),
        Keys::Digest(hash, _) => hash.length(),
        Keys::Public(keys) => keys.first()?.value.algorithm().signature_length()?,
        Keys::Fetched(fetched) => fetched.algorithm.signature_length()?,
        Keys::Token(_) => return None,
    };
    let (lengths, odd) = signature_lengths(scheme, View::of(asked.request));
    let longest = lengths.iter().max().filter(|longest| odd == 0 && **longest < wanted)?;
    let text =
        format!("the signature is cut off: it has {}, and {wanted} are needed", count(*longest, "byte"));
    Some(Likely::new("signature_cut", text))
}

impl Try {
    pub(super) fn of(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), ..Self::default() }
    }

    /// Whether two can be undone at once: they change different things.
    fn may_join(&self, other: &Self) -> bool {
        let both = |a: bool, b: bool| a && b;
        !both(self.body.is_some(), other.body.is_some())
            && !both(self.address.is_some(), other.address.is_some())
            && !both(self.header.is_some(), other.header.is_some())
            && !both(self.key.is_some(), other.key.is_some())
            && !both(self.hash.is_some(), other.hash.is_some())
            && !both(self.encoding.is_some(), other.encoding.is_some())
            && !both(self.prefix.is_some(), other.prefix.is_some())
            && !both(self.template.is_some(), other.template.is_some())
            && !both(self.time.is_some(), other.time.is_some())
    }
}

/// Whether the scheme accepts the request with these mistakes undone, at whatever time it is.
fn passes(scheme: &Scheme, asked: &Asked<'_>, undone: &[&Try]) -> bool {
    let mut scheme = Cow::Borrowed(scheme);
    if let Some(TimeRule { tolerance, .. }) = &mut scheme.to_mut().timestamp {
        *tolerance = Duration::MAX;
    }
    let mut request = Cow::Borrowed(asked.request);
    let mut public_url = asked.public_url.map(Cow::Borrowed);
    let key = undone.iter().find_map(|one| one.key.as_ref());
    let hash = undone.iter().find_map(|one| one.hash);
    if (key.is_some() || hash.is_some())
        && let Some(keys) = other_keys(&scheme, key, hash)
    {
        scheme.to_mut().keys = keys;
    }
    for one in undone {
        let scheme = scheme.to_mut();
        if let Some(encoding) = one.encoding {
            scheme.form.encoding = encoding;
        }
        if let Some(prefix) = &one.prefix {
            scheme.form.prefix = prefix.as_str().into();
        }
        if let Some(template) = &one.template {
            scheme.template = template.clone();
        }
        if let (Some(format), Some(rule)) = (one.time, &mut scheme.timestamp) {
            rule.formats = [format].into();
        }
        if let Some(body) = &one.body {
            request.to_mut().body = body.clone().into();
        }
        if let Some((target, url)) = &one.address {
            request.to_mut().head.target.clone_from(target);
            public_url = Some(Cow::Owned(url.clone()));
        }
        if let Some((there, wanted)) = &one.header
            && let Some(value) = request.head.headers.first(there)
        {
            let value = String::from_utf8_lossy(value).into_owned();
            request = Cow::Owned(with_headers(&request, &[(wanted.clone(), value)]));
        }
    }
    scheme.check(&request, public_url.as_deref(), asked.now).is_ok()
}

/// The keys with another secret, another hash, or both.
fn other_keys(scheme: &Scheme, key: Option<&Secret>, hash: Option<Hash>) -> Option<Keys> {
    let configured = || scheme.given.secrets.iter().map(|secret| &secret.key);
    let secrets: Vec<&Secret> = key.map_or_else(|| configured().collect(), |key| vec![key]);
    let labelled = |secret: &Secret| Labelled::unnamed(secret.clone());
    match &scheme.keys {
        Keys::Mac(keys) => {
            let hash = hash.or_else(|| keys.first().map(|key| key.value.hash()))?;
            let keys = secrets.iter().filter_map(|secret| MacKey::new(hash, secret.expose()));
            Some(Keys::Mac(keys.map(Labelled::unnamed).collect()))
        }
        Keys::Digest(own, _) => {
            Some(Keys::Digest(hash.unwrap_or(*own), secrets.into_iter().map(labelled).collect()))
        }
        Keys::Token(_) => Some(Keys::Token(secrets.into_iter().map(labelled).collect())),
        Keys::Public(_) | Keys::Fetched(_) => None,
    }
}

/// Where what is signed here and what would have to be begin to differ.
fn difference(scheme: &Scheme, one: &Try, asked: &Asked<'_>, filling: &Filling<'_>) -> String {
    let Some(body) = &one.body else { return String::new() };
    if !scheme.template.covers_body() {
        return String::new();
    }
    let here = &asked.request.body[..];
    // As the signed bytes count, where the body is in them as it is.
    let before = match scheme.template.whole(filling) {
        Ok(whole) if whole.ends_with(here) => whole.len() - here.len(),
        _ => 0,
    };
    bodies::difference(here, body, before)
}
