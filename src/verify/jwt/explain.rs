//! Why a token is taken or refused, step by step, for people. Nothing of what it says is decided here: that is `check`'s.
//! Only claims that the rule asks for are shown, and no secret.

use jsonwebtoken::{Algorithm, AlgorithmFamily, Header};
use serde_json::{Map, Value};

use super::claims::{self, Parts};
use super::{ClaimDigest, Jwt, Match, claim, likely, time_claim};
use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::verify::Refusal;
use crate::verify::explain::{Asked, Step, Way, count, printable, result};
use crate::verify::locate::View;
use crate::verify::time::distance;
use crate::verify::url;

/// Characters of a claim or an id that are shown.
const SHOWN: usize = 120;

/// A token taken apart, as far as that went; nothing of it is proved.
pub(super) struct Seen<'t> {
    pub(super) token: &'t [u8],
    pub(super) parts: Parts<'t>,
    pub(super) header: Header,
    pub(super) claims: Option<Map<String, Value>>,
}

impl<'t> Seen<'t> {
    fn of(token: &'t [u8]) -> Option<Self> {
        let parts = Parts::of(token)?;
        let header = jsonwebtoken::decode_header(token).ok()?;
        let claims = claims::read(parts.claims).ok();
        Some(Self { token, parts, header, claims })
    }
}

impl Jwt {
    pub(in crate::verify) fn explain(&self, name: String, asked: &Asked<'_>) -> Way {
        let decision = self.prove(asked.request, asked.public_url, asked.now).map(|(label, _)| label);
        let value = self.location.find(View::of(asked.request)).ok().flatten();
        let token = self.token(value.as_deref());
        let seen = token.as_ref().ok().and_then(|token| Seen::of(token));
        let mut steps = Vec::new();
        let mut step = |what, text: String| steps.push(Step { what, text });
        step(
            "token",
            match &token {
                Ok(token) => format!("{} holds a token of {}", self.location, count(token.len(), "byte")),
                Err(refusal) => refusal.detail.clone(),
            },
        );
        if let Some(seen) = &seen {
            step("header", self.header_step(&seen.header));
            step("keys", self.keys_step(&seen.header, asked));
            let proved = self.verified_claims(seen.token, asked.request.head.client, asked.now);
            step("signature", signature_step(&proved));
            match &seen.claims {
                None => step("claim", "what it claims can't be read".into()),
                Some(claims) => {
                    self.times(claims, asked.now, &mut |text| step("time", text));
                    self.claims(claims, &mut |text| step("claim", text));
                    if let Some(rule) = &self.body_hash {
                        step("digest", rule.explain(claims, &asked.request.body, "body"));
                    }
                    if let Some(rule) = &self.url_hash {
                        let url = url::public(&asked.request.head, asked.public_url);
                        let shown = printable(url.as_bytes(), 2048);
                        step("digest", rule.explain(claims, url.as_bytes(), &format!("URL {shown}")));
                    }
                }
            }
        }
        let likely = match &decision {
            Ok(_) => Vec::new(),
            Err(refusal) => likely::likely(self, refusal, value.as_deref(), seen.as_ref(), asked),
        };
        steps.push(result(&decision));
        Way { name, steps, decision, likely, expected: Vec::new(), signed: Vec::new() }
    }

    /// The secrets that tokens are signed with.
    pub(in crate::verify) fn shared_secrets(&self) -> impl Iterator<Item = Secret> {
        let shared = |key: &&super::Key| key.key.family() == AlgorithmFamily::Hmac;
        let bytes = self.keys.iter().filter(shared).filter_map(|key| key.key.try_get_as_bytes().ok());
        bytes.map(|bytes| Secret::new(bytes.to_vec()))
    }

    fn header_step(&self, header: &Header) -> String {
        let kid = match &header.kid {
            Some(kid) => format!("kid {}", quoted(kid)),
            None => "no kid".to_owned(),
        };
        let pinned = if self.algorithms.contains(&header.alg) { "accepted" } else { "NOT accepted" };
        format!("alg {:?}, {pinned} ({}); {kid}", header.alg, names(&self.algorithms))
    }

    fn keys_step(&self, header: &Header, asked: &Asked<'_>) -> String {
        let mut texts = Vec::new();
        if !self.keys.is_empty() {
            let fits = self.keys.iter().filter(|key| key.algorithms.contains(&header.alg));
            let (live, asleep): (Vec<_>, Vec<_>) = fits.partition(|key| key.window.is_open(asked.now));
            let outside = match asleep.len() {
                0 => String::new(),
                some => format!(", {some} outside of their `from` and `until`"),
            };
            texts.push(format!(
                "{} in the config, {} live for {:?}{outside}",
                count(self.keys.len(), "key"),
                live.len(),
                header.alg
            ));
        }
        if let Some(set) = &self.set {
            texts.push(match set.current(header.kid.as_deref(), asked.request.head.client) {
                Err(refusal) => format!("key set: {}", refusal.detail),
                Ok(decoded) => {
                    let ids = decoded.keys.iter().filter_map(|key| key.kid.as_deref());
                    let ids: Vec<String> = ids.take(16).map(quoted).collect();
                    let there = match &header.kid {
                        Some(kid) if decoded.keys.iter().any(|key| key.kid.as_ref() == Some(kid)) => {
                            "the token's is among them"
                        }
                        Some(_) => "the token's is NOT among them",
                        None => "the token names none",
                    };
                    let ids = if ids.is_empty() { "without ids".to_owned() } else { ids.join(", ") };
                    format!("key set: {} ({ids}); {there}", count(decoded.keys.len(), "key"))
                }
            });
        }
        if self.x5c.is_some() {
            let sent = header.x5c.as_ref().map_or(0, Vec::len);
            texts.push(format!("{} in the token, for the pinned root", count(sent, "certificate")));
        }
        texts.join("; ")
    }

    fn times(&self, claims: &Map<String, Value>, now: Timestamp, step: &mut dyn FnMut(String)) {
        let age = self.max_age.map(|age| format!(", at most {} s old", age.as_secs())).unwrap_or_default();
        for (name, what) in [("exp", "the end"), ("nbf", "the beginning"), ("iat", "made")] {
            step(match (time_claim(claims, name), claims.get(name)) {
                (Ok(None), _) if name == "exp" && self.expires && self.max_age.is_none() => {
                    "exp is missing".to_owned()
                }
                (Ok(None), _) if name == "iat" && self.max_age.is_some() => "iat is missing".to_owned(),
                (Ok(None), _) => continue,
                (Err(_), found) => format!("{name} is {}: not a time in seconds", shown(found)),
                (Ok(Some(at)), _) => {
                    let side = if at < now { "before" } else { "after" };
                    let age = if name == "iat" { &*age } else { "" };
                    format!(
                        "{name} ({what}) is {at}, {} s {side} the time of the decision ({now}); {} s of difference are allowed{age}",
                        distance(at, now).as_secs(),
                        self.leeway.as_secs()
                    )
                }
            });
        }
    }

    fn claims(&self, claims: &Map<String, Value>, step: &mut dyn FnMut(String)) {
        let mut told = |name: &str, accepted: &[String], found: Option<&Value>| {
            let wanted = match accepted {
                [] => "any value is accepted".to_owned(),
                some => {
                    format!("accepted: {}", some.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", "))
                }
            };
            step(format!("{name} is {}; {wanted}", shown(found)));
        };
        if !self.issuers.is_empty() {
            told("iss", &self.issuers, claims.get("iss"));
        }
        if !self.audiences.is_empty() {
            told("aud", &self.audiences, claims.get("aud"));
        }
        for (name, accepted) in &self.claims {
            told(name, accepted, claim(claims, name));
        }
    }
}

impl ClaimDigest {
    fn explain(&self, claims: &Map<String, Value>, of: &[u8], what: &str) -> String {
        format!(
            "{} is {}; the {} of the {what} in {:?} is `{}`",
            self.claim,
            shown(claims.get(&self.claim)),
            self.hash.name(),
            self.encoding,
            self.encoding.encode(self.hash.of(of).as_bytes())
        )
    }
}

fn signature_step(proved: &Result<(Map<String, Value>, Match), Refusal>) -> String {
    match proved {
        Ok((_, Some(label))) => format!("right, by the key {}", quoted(label)),
        Ok((_, None)) => "right".to_owned(),
        Err(refusal) => format!("{}; so nothing proves what follows", refusal.detail),
    }
}

pub(super) fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect::<Vec<_>>().join(", ")
}

/// A claim as found.
pub(super) fn shown(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(other) => printable(other.to_string().as_bytes(), SHOWN),
    }
}

fn quoted(text: &str) -> String {
    format!("`{}`", printable(text.as_bytes(), SHOWN))
}

#[cfg(test)]
mod tests;
