//! JSON Web Tokens (RFC 7519, RFC 8725): header and signature by `jsonwebtoken`, each read once; claims here, against
//! our own clock; everything that is trusted pinned by config. The token chooses neither its algorithm nor its key: `alg` must be one of the configured, `kid` only
//! picks among our keys, and keys or addresses of keys inside the token (`jwk`, `jku`, `x5u`) are ignored; certificates (`x5c`) too,
//! unless the rule pins the root that they must lead to.

mod build;
mod claims;
mod crypto;
mod explain;
mod keys;
mod likely;
mod sign;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value};

use super::encoding::{Encoding, MAX_SIGNATURE};
use super::locate::Location;
use super::mac::Hash;
use super::refusal::{Refusal, at};
use super::scheme::Match;
use super::signable::Signable;
use super::url;
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::same;
use crate::verify::locate::View;
use crate::verify::remote::{X5c, x5c_key};
use claims::Parts;
use keys::{Key, KeySet};

pub(super) use build::build;

/// Keys of a set that are tried for a token that names none.
const MAX_KEYS_TRIED: usize = 8;

/// Bytes of a token; a larger one is not looked at.
const MAX_TOKEN: usize = 64 * 1024;

/// A compiled JWT rule.
#[derive(Debug)]
pub(super) struct Jwt {
    location: Location,
    /// Whether the token may stand in `Authorization` without `Bearer`.
    bare: bool,
    /// The pinned ones.
    algorithms: Vec<Algorithm>,
    keys: Vec<Key>,
    set: Option<KeySet>,
    /// Those of `algorithms` for which there is no key.
    idle: Vec<Algorithm>,
    x5c: Option<X5c>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    /// Claims that must be there, with the values that are accepted (none: any).
    claims: Vec<(String, Vec<String>)>,
    body_hash: Option<ClaimDigest>,
    url_hash: Option<ClaimDigest>,
    leeway: Duration,
    max_age: Option<Duration>,
    /// Whether `exp` must be there, unless `max_age` bounds the age.
    expires: bool,
    signable: Arc<Signable>,
}

#[derive(Debug)]
struct ClaimDigest {
    claim: String,
    hash: Hash,
    encoding: Encoding,
    absent_if_empty: bool,
}

impl Jwt {
    /// The label of the key that signed the token, and whose the token is (`sub`).
    pub(super) fn prove(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<(Match, Option<Arc<str>>), Refusal> {
        let value = at(&self.location, self.location.find(View::of(request)))?;
        let token = self.token(value.as_deref())?;
        let (claims, label) = self.verified_claims(token, request.head.client, now)?;
        self.check_times(&claims, now)?;
        self.check_issuer(&claims)?;
        if let Some(rule) = &self.body_hash {
            rule.check(&claims, &request.body, "body")?;
        }
        if let Some(rule) = &self.url_hash {
            let url = OnceCell::new();
            let url = url.get_or_init(|| url::public(&request.head, public_url));
            rule.check(&claims, url.as_bytes(), "URL")?;
        }
        // Last: whose token is right in all else may be told that this route is not for it.
        self.check_claims(&claims)?;
        let subject = claims.get("sub").and_then(Value::as_str).map(Into::into);
        Ok((label, subject))
    }

    /// Names of algorithms that are accepted and for which there is no key.
    pub(super) fn idle(&self) -> impl Iterator<Item = String> {
        self.idle.iter().map(|algorithm| format!("{algorithm:?}"))
    }

    /// Whether the token says for which URL it is.
    pub(super) const fn signs_url(&self) -> bool {
        self.url_hash.is_some()
    }

    /// The token in what stands at its place.
    fn token<'v>(&self, value: Option<&'v [u8]>) -> Result<&'v [u8], Refusal> {
        let missing =
            || Refusal::new(Reason::CredentialsMissing, format!("{} holds no token", self.location));
        let value = value.ok_or_else(missing)?;
        let token = match super::credentials::after_scheme(value, "bearer") {
            Some(token) => token,
            None if !self.bare && self.location.header() == Some("authorization") => return Err(missing()),
            None => value,
        };
        if token.is_empty() {
            return Err(missing());
        }
        if token.len() > MAX_TOKEN {
            return Err(invalid(format!("the token has more than {MAX_TOKEN} bytes")));
        }
        Ok(token)
    }

    /// The claims of a token whose signature is right, and the label of the key.
    fn verified_claims(
        &self,
        token: &[u8],
        asker: IpAddr,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Match), Refusal> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|e| invalid(format!("the token's header can't be read: {}", describe(e.kind()))))?;
        if header.crit.is_some() {
            return Err(invalid("the token has critical extensions that are not supported"));
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(invalid(format!("the algorithm {:?} is not one of the configured", header.alg)));
        }
        let parts = Parts::of(token).ok_or_else(|| invalid(describe(&ErrorKind::InvalidToken)))?;
        let decoded = self.set.as_ref().map(|set| set.current(header.kid.as_deref(), asker)).transpose()?;
        let certified = match &self.x5c {
            None => None,
            Some(rule) => Some(certified(rule, header.x5c.as_deref(), header.alg, now)?),
        };
        let remote = decoded.as_ref().map(|decoded| decoded.keys.as_slice()).unwrap_or_default();
        let named = |key: &&Key| match (&header.kid, &key.kid) {
            (Some(asked), Some(kid)) => asked == kid,
            // Static keys have no id, and a token without one may be any key's.
            (None, _) | (Some(_), None) => true,
        };
        let mut tried = 0;
        let mut failure = None;
        // Keys of a set are picked by `kid`; a key without id is no answer to a token that names one, unless it was
        // fetched by that name.
        let per_key = self.set.as_ref().is_some_and(KeySet::is_per_key);
        let remote = remote.iter().filter(|key| per_key || header.kid.is_none() || key.kid.is_some());
        for key in self.keys.iter().chain(remote).filter(named).chain(&certified) {
            if !key.algorithms.contains(&header.alg) || !key.window.is_open(now) || tried == MAX_KEYS_TRIED {
                continue;
            }
            tried += 1;
            match jsonwebtoken::crypto::verify(parts.signature, parts.signed, &key.key, header.alg) {
                Ok(true) => {
                    self.refuse_signable(&parts)?;
                    let fetched =
                        decoded.as_ref().is_some_and(|d| d.keys.iter().any(|k| std::ptr::eq(k, key)));
                    if let (true, Some(set), Some(kid)) = (fetched, &self.set, &header.kid) {
                        set.proved(kid);
                    }
                    return Ok((claims::read(parts.claims)?, key.label.clone()));
                }
                Ok(false) => failure = Some(ErrorKind::InvalidSignature),
                Err(error) => failure = Some(error.into_kind()),
            }
        }
        Err(match (failure, &header.kid, &self.set) {
            (Some(failure), ..) => invalid(describe(&failure)),
            (None, Some(kid), Some(set)) => {
                let known = decoded.is_some_and(|d| d.keys.iter().any(|key| key.kid.as_deref() == Some(kid)));
                if known {
                    invalid(format!("the key `{}` is not for {:?}", printable(kid), header.alg))
                } else {
                    set.lacks(invalid(format!("the key `{}` is not in the key set", printable(kid))))
                }
            }
            (None, ..) => invalid(format!("there is no key for {:?}", header.alg)),
        })
    }

    /// A proof that a greeting is answered with is no token, either.
    fn refuse_signable(&self, parts: &Parts<'_>) -> Result<(), Refusal> {
        let mut buffer = [0; MAX_SIGNATURE];
        match Encoding::Base64Url.decode(parts.signature.as_bytes(), &mut buffer) {
            Some(tag) => self.signable.refuse::<Refusal>(tag, |sink| {
                sink(parts.signed);
                Ok(())
            }),
            None => Ok(()),
        }
    }

    fn check_times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), Refusal> {
        let out = |detail: String| Err(Refusal::new(Reason::TokenExpired, detail));
        let (earliest, latest) = (now.saturating_sub(self.leeway), now.saturating_add(self.leeway));
        match time_claim(claims, "exp")? {
            Some(expiry) if expiry < earliest => return out(format!("expired at {expiry}")),
            Some(_) => {}
            None if self.max_age.is_some() || !self.expires => {}
            None => return Err(invalid("the claim `exp` is missing")),
        }
        if let Some(from) = time_claim(claims, "nbf")?.filter(|from| *from > latest) {
            return out(format!("not valid before {from}"));
        }
        let issued = time_claim(claims, "iat")?;
        if let Some(issued) = issued.filter(|issued| *issued > latest) {
            return out(format!("issued in the future, at {issued}"));
        }
        match (self.max_age, issued) {
            (Some(_), None) => Err(invalid("the claim `iat` is missing")),
            (Some(age), Some(issued)) if issued < earliest.saturating_sub(age) => {
                out(format!("too old: issued at {issued}"))
            }
            _ => Ok(()),
        }
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if !self.issuers.is_empty() {
            match claims.get("iss") {
                Some(Value::String(issuer)) if self.issuers.contains(issuer) => {}
                Some(_) => return Err(invalid("the issuer (`iss`) is not one of the configured")),
                None => return Err(invalid("the claim `iss` is missing")),
            }
        }
        Ok(())
    }

    /// Whether the token is for this route. One that says nothing of it is none; one that says that it is for another, or
    /// somebody else's, is refused as a sender that is known.
    fn check_claims(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        if !self.audiences.is_empty() {
            let ours =
                |value: &Value| value.as_str().is_some_and(|one| self.audiences.iter().any(|a| a == one));
            match claims.get("aud") {
                Some(Value::Array(audiences)) if audiences.iter().any(ours) => {}
                Some(one) if ours(one) => {}
                Some(_) => return Err(elsewhere("the audience (`aud`) is not one of the configured")),
                None => return Err(invalid("the claim `aud` is missing")),
            }
        }
        for (name, accepted) in &self.claims {
            let Some(value) = claim(claims, name).filter(|value| !value.is_null()) else {
                return Err(invalid(format!("the claim `{name}` is missing")));
            };
            let right = accepted.is_empty()
                || match value {
                    Value::String(text) => accepted.contains(text),
                    other => accepted.contains(&other.to_string()),
                };
            if !right {
                return Err(elsewhere(format!("the claim `{name}` does not have an accepted value")));
            }
        }
        Ok(())
    }

    /// Whether a token is good for one body only: it holds the body's digest, or is in the body itself.
    pub(super) fn signs_body(&self) -> bool {
        self.body_hash.is_some()
    }

    /// Whether what stands there can't be changed without the key.
    pub(super) fn covers(&self, location: &Location) -> bool {
        location.token() == Some(&self.location)
            || (self.signs_body() && location.in_body())
            || (self.signs_url() && matches!(location, Location::Query(_)))
    }

    /// Every place that the decision depends on.
    pub(super) fn locations(&self) -> impl Iterator<Item = &Location> {
        std::iter::once(&self.location)
    }
}

impl ClaimDigest {
    fn check(&self, claims: &Map<String, Value>, of: &[u8], what: &str) -> Result<(), Refusal> {
        let claim = &self.claim;
        if self.absent_if_empty && of.is_empty() && !claims.contains_key(claim) {
            return Ok(());
        }
        let Some(Value::String(text)) = claims.get(claim) else {
            return Err(invalid(format!("the claim `{claim}` is missing or no text")));
        };
        let mut buffer = [0; MAX_SIGNATURE];
        match self.encoding.decode(text.as_bytes(), &mut buffer) {
            Some(digest) if same(digest, self.hash.of(of).as_bytes()) => Ok(()),
            _ => Err(invalid(format!("the claim `{claim}` is not the {what}'s digest"))),
        }
    }
}

/// The claim of this name, or at this pointer (`/data/bundleId`).
fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let mut parts = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Object(members) => members.get(&part),
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A NumericDate (seconds, perhaps with a fraction).
fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds));
    let Some(seconds) = seconds else {
        return Err(invalid(format!("the claim `{name}` is not a time")));
    };
    // In range by the filter above.
    Ok(Some(Timestamp((seconds * 1000.0) as u64)))
}

/// The key of the token's own certificates, whose chain must hold.
fn certified(
    rule: &X5c,
    chain: Option<&[String]>,
    algorithm: Algorithm,
    now: Timestamp,
) -> Result<Key, Refusal> {
    let chain = chain.ok_or_else(|| invalid("the token holds no certificates"))?;
    let ders = chain.iter().map(|text| STANDARD.decode(text)).collect::<Result<Vec<_>, _>>();
    let ders = ders.map_err(|_| invalid("the token's certificates are not base64"))?;
    let spki = x5c_key(rule, &ders, now).map_err(invalid)?;
    keys::of_spki(&spki, &[algorithm])
        .ok_or_else(|| invalid("the certificate's key is for another algorithm"))
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::TokenInvalid, detail)
}

/// The token is right, but not for here.
fn elsewhere(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::SenderNotAllowed, detail)
}

fn printable(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The library's errors in our words; none repeats what the token holds.
fn describe(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidToken => "not three parts".to_owned(),
        ErrorKind::InvalidSignature => "the token's signature does not match any live key".to_owned(),
        ErrorKind::Base64(_) => "the token is not base64url".to_owned(),
        ErrorKind::Json(_) => "the token is not JSON, or its algorithm is not known".to_owned(),
        ErrorKind::InvalidAlgorithm => "the key is of another kind than the token's algorithm".to_owned(),
        _ => "the token can't be verified".to_owned(),
    }
}
