//! HTTP message signatures (RFC 9421) over requests, with `Content-Digest` (RFC 9530). What must be signed, by which
//! algorithm and whose key is pinned by config; the message only says which of its signatures covers what.
//!
//! Components with parameters other than `@query-param`'s `name` are not supported: a signature that covers one is
//! refused.

mod base;
mod build;
mod explain;
mod fields;
mod likely;
mod tries;

use std::sync::Arc;
use std::time::Duration;

use super::locate::Location;
use super::mac::{Hash, MacKey};
use super::public_key::{Asymmetric, PublicKey};
use super::refusal::Refusal;
use super::scheme::{Labelled, Match, live};
use super::sign::{PrivateKey, SignError};
use super::signable::Signable;
use crate::clock::Timestamp;
use crate::message::{Headers, Request};
use crate::reason::Reason;
use crate::secret::{Secret, same};
use base::Unsigned;
use fields::Input;

pub(super) use build::build;

const DIGEST: &str = "content-digest";

/// A compiled rule.
#[derive(Debug)]
pub(super) struct HttpSignature {
    keys: Vec<Labelled<Key>>,
    /// Identifiers as they stand in `Signature-Input`, such as `"@method"`.
    components: Vec<String>,
    label: Option<String>,
    key_ids: Vec<String>,
    tag: Option<String>,
    tolerance: Duration,
    /// The shared secrets as they were given: only looked at to explain a refusal.
    given: Vec<Labelled<Secret>>,
    signable: Arc<Signable>,
}

/// A key with the algorithm that it is for.
#[derive(Debug)]
struct Key {
    algorithm: &'static str,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Shared(Box<MacKey>),
    Public(PublicKey),
}

/// The algorithms, by their registered names.
const ALGORITHMS: &[(&str, Option<Asymmetric>)] = &[
    ("ed25519", Some(Asymmetric::Ed25519)),
    ("ecdsa-p256-sha256", Some(Asymmetric::EcdsaP256Sha256Fixed)),
    ("ecdsa-p384-sha384", Some(Asymmetric::EcdsaP384Sha384Fixed)),
    ("rsa-pss-sha512", Some(Asymmetric::RsaPssSha512)),
    ("rsa-v1_5-sha256", Some(Asymmetric::RsaPkcs1Sha256)),
    ("hmac-sha256", None),
];

impl HttpSignature {
    pub(super) fn check(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Match, Refusal> {
        let headers = &request.head.headers;
        let missing =
            |what: &str| Refusal::new(Reason::SignatureMissing, format!("header:{what} is missing"));
        let input_text = combined(headers, "signature-input").ok_or_else(|| missing("signature-input"))?;
        let signature_text = combined(headers, "signature").ok_or_else(|| missing("signature"))?;
        let inputs = fields::inputs(&input_text)
            .ok_or_else(|| wrong("header:signature-input is malformed, or names a label twice"))?;
        let signatures = fields::byte_sequences(&signature_text)
            .ok_or_else(|| wrong("header:signature is malformed, or names a label twice"))?;
        let mut refused: Option<Refusal> = None;
        for input in
            inputs.iter().filter(|input| self.label.as_deref().is_none_or(|label| label == input.label))
        {
            let signature = signatures.iter().find(|(label, _)| *label == input.label);
            let checked = match signature {
                None => Err(missing(&format!("signature with the label {}", input.label))),
                Some((_, signature)) => self.check_one(input, signature, request, public_url, now),
            };
            match checked {
                Ok(label) => return Ok(label),
                Err(refusal) => {
                    refused = Some(match refused {
                        Some(earlier) => earlier.more_telling(refusal),
                        None => refusal,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| missing("signature with the configured label")))
    }

    fn check_one(
        &self,
        input: &Input<'_>,
        signature: &[u8],
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Match, Refusal> {
        self.check_times(input, now)?;
        if let Some(lacks) = self.components.iter().find(|id| !input.components.iter().any(|c| c.raw == **id))
        {
            return Err(wrong(format!("{lacks} is not among what is signed")));
        }
        if !self.key_ids.is_empty() && !input.key_id.as_ref().is_some_and(|id| self.key_ids.contains(id)) {
            return Err(wrong("the key id is not one of the configured"));
        }
        if self.tag.is_some() && self.tag != input.tag {
            return Err(wrong("the tag is not the configured"));
        }
        let message = base::of(input, request, public_url).map_err(|why| match why {
            Unsigned::Missing(what) => {
                Refusal::new(Reason::SignatureMissing, format!("{what} is signed, but missing"))
            }
            Unsigned::Unsupported(what) => wrong(format!("{what} is signed, which is not supported")),
        })?;
        let Some(key) = self.fitting(input, now).find(|key| key.value.verifies(&message, signature)) else {
            return Err(wrong(format!("the signature {} does not match any live key", input.label)));
        };
        if let Material::Shared(_) = key.value.material {
            self.signable.refuse::<Refusal>(signature, |sink| {
                sink(&message);
                Ok(())
            })?;
        }
        if input.components.iter().any(|component| component.name == DIGEST) {
            check_digest(request)?;
        }
        Ok(key.label.clone())
    }

    /// The live keys that the signature may be by.
    fn fitting<'k>(
        &'k self,
        input: &'k Input<'_>,
        now: Timestamp,
    ) -> impl Iterator<Item = &'k Labelled<Key>> {
        let named =
            |key: &Labelled<Key>| input.key_id.as_deref().is_some_and(|id| key.label.as_deref() == Some(id));
        // A key that is called what the signature calls its key is meant; otherwise it may be any.
        let is_named = live(&self.keys, now).any(named);
        live(&self.keys, now).filter(move |key| {
            input.algorithm.as_deref().is_none_or(|algorithm| algorithm == key.value.algorithm)
                && (!is_named || named(key))
        })
    }

    /// The shared secrets as they were given.
    pub(super) fn given(&self) -> impl Iterator<Item = &Secret> {
        self.given.iter().map(|secret| &secret.value)
    }

    fn check_times(&self, input: &Input<'_>, now: Timestamp) -> Result<(), Refusal> {
        let out = |detail: &str| Err(Refusal::new(Reason::TimestampOutOfTolerance, detail));
        let Some(created) = input.created.map(Timestamp::from_secs) else {
            return out("the signature says no time (`created`)");
        };
        if super::time::distance(created, now) > self.tolerance {
            return out("the signed time is too far from now");
        }
        if input.expires.is_some_and(|expires| Timestamp::from_secs(expires) < now) {
            return out("the signature has expired");
        }
        Ok(())
    }

    /// Whether what stands at `location` can't be changed without the key.
    pub(super) fn covers(&self, location: &Location) -> bool {
        let signed = |names: &[&str]| self.components.iter().any(|id| names.contains(&id.trim_matches('"')));
        match location {
            location if location.in_body() => signed(&[DIGEST]),
            Location::Query(_) => signed(&["@target-uri", "@request-target", "@query"]),
            Location::Path(_) => signed(&["@target-uri", "@request-target", "@path"]),
            other => other.header().is_some_and(|name| signed(&[name])),
        }
    }

    /// Headers that the decision depends on.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        let signed = self.components.iter().map(|id| id.trim_matches('"')).filter(|id| !id.starts_with('@'));
        ["signature", "signature-input", DIGEST].into_iter().chain(signed.filter(|id| !id.contains('"')))
    }

    /// What is signed, and the signatures: for tests that ask what a change touches.
    #[cfg(test)]
    pub(super) fn signed(request: &Request, public_url: Option<&str>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let header = |name| request.head.headers.only(name).ok()?;
        let inputs = fields::inputs(std::str::from_utf8(header("signature-input")?).ok()?)?;
        let pairs = inputs.iter().map(|input| {
            let mut signed = base::of(input, request, public_url).ok()?;
            if input.components.iter().any(|component| component.name == DIGEST) {
                signed.extend_from_slice(&request.body);
            }
            Some((signed, header("signature")?.to_vec()))
        });
        pairs.collect()
    }

    /// `request` with the headers that it lacks to pass at `now`.
    pub(super) fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        private_key: Option<&PrivateKey>,
    ) -> Result<Request, SignError> {
        let key = live(&self.keys, now).next().ok_or(SignError::Impossible("no key is live"))?;
        let mut added = Vec::new();
        let digest = format!("\"{DIGEST}\"");
        if self.components.contains(&digest) && !request.head.headers.contains(DIGEST) {
            let value = super::encoding::Encoding::Base64.encode(Hash::Sha256.of(&request.body).as_bytes());
            added.push((DIGEST.to_owned(), format!("sha-256=:{value}:")));
        }
        let request = &super::sign::with_headers(request, &added);
        let label = self.label.as_deref().unwrap_or("sig1");
        let mut raw = format!("({});created={}", self.components.join(" "), now.as_secs());
        let key_id = key.label.as_deref().or(self.key_ids.first().map(String::as_str));
        for (name, value) in
            [("keyid", key_id), ("alg", Some(key.value.algorithm)), ("tag", self.tag.as_deref())]
        {
            if let Some(value) = value {
                raw.push_str(&format!(";{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
            }
        }
        let text = format!("{label}={raw}");
        let inputs =
            fields::inputs(&text).ok_or(SignError::Impossible("the rule's words fit in no header"))?;
        let input = inputs.first().ok_or(SignError::Impossible("there is nothing to sign"))?;
        let message =
            base::of(input, request, public_url).map_err(|why| SignError::Lacks(why.to_string()))?;
        let signature = match &key.value.material {
            Material::Shared(mac) => mac_of(mac, &message),
            Material::Public(public) => {
                private_key.ok_or(SignError::NoPrivateKey)?.sign(public.algorithm(), &message)?
            }
        };
        let signature = super::encoding::Encoding::Base64.encode(&signature);
        let added = [
            ("signature-input".to_owned(), text),
            ("signature".to_owned(), format!("{label}=:{signature}:")),
        ];
        Ok(super::sign::with_headers(request, &added))
    }
}

impl Key {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Shared(mac) => same(&mac_of(mac, message), signature),
            Material::Public(key) => key.verifies(message, signature),
        }
    }
}

fn mac_of(key: &MacKey, message: &[u8]) -> Vec<u8> {
    let fed = key.mac::<std::convert::Infallible>(|sink| {
        sink(message);
        Ok(())
    });
    match fed {
        Ok(mac) => mac.as_bytes().to_vec(),
        Err(never) => match never {},
    }
}

/// All values of a header as one text (RFC 9110 section 5.3).
fn combined(headers: &Headers, name: &str) -> Option<String> {
    let values = headers.all(name).map(std::str::from_utf8).collect::<Result<Vec<_>, _>>().ok()?;
    let trimmed: Vec<&str> = values.into_iter().map(|value| value.trim_ascii()).collect();
    (!trimmed.is_empty()).then(|| trimmed.join(", "))
}

/// Every digest of a kind that we know must be the body's, and there must be one.
fn check_digest(request: &Request) -> Result<(), Refusal> {
    let text = combined(&request.head.headers, DIGEST).unwrap_or_default();
    let digests = fields::byte_sequences(&text).ok_or_else(|| wrong("header:content-digest is malformed"))?;
    let mut known = 0;
    for (algorithm, digest) in &digests {
        let hash = match *algorithm {
            "sha-256" => Hash::Sha256,
            "sha-512" => Hash::Sha512,
            _ => continue,
        };
        known += 1;
        if !same(hash.of(&request.body).as_bytes(), digest) {
            return Err(wrong("header:content-digest is not the body's digest"));
        }
    }
    if known == 0 { Err(wrong("header:content-digest holds neither sha-256 nor sha-512")) } else { Ok(()) }
}

fn wrong(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::SignatureInvalid, detail)
}
