//! The other direction: the request as its sender would send it, from the same compiled rule, for tests and the command
//! line. Shared secrets are in the rule already; a public-key scheme needs the private key.

use std::cell::OnceCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{self as by_ring, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::draft;
use super::locate::{Location, View};
use super::public_key::Asymmetric;
use super::scheme::{Keys, Scheme, TimeRule, live};
use super::signatures::{SignatureForm, TimeFrom};
use super::template::{Filling, Unbuildable};
use crate::clock::Timestamp;
use crate::message::{Headers, Request};

/// Why a request can't be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("{0}")]
    Impossible(&'static str),
    /// The scheme reads something that the request lacks and that can't be added.
    #[error("{0}")]
    Lacks(String),
    #[error("its sender signs with a private key, and none is given")]
    NoPrivateKey,
    #[error("the private key does not fit the scheme's algorithm")]
    WrongPrivateKey,
}

/// A private key, for signing test requests.
pub struct PrivateKey(zeroize::Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Reads PKCS#8 in PEM (`-----BEGIN PRIVATE KEY-----`).
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "this is not a private key in PKCS#8 (`-----BEGIN PRIVATE KEY-----`)".to_owned())?;
        Ok(Self(zeroize::Zeroizing::new(key.secret_pkcs8_der().to_vec())))
    }

    /// The public key that belongs to it, as a rule takes it; `None` if its kind is none that signs.
    pub fn public_key(&self) -> Option<String> {
        let random = SystemRandom::new();
        let ecdsa = |how| EcdsaKeyPair::from_pkcs8(how, &self.0, &random).ok();
        let key = if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.0) {
            pair.public_key().as_ref().to_vec()
        } else if let Some(pair) = ecdsa(&by_ring::ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|| ecdsa(&by_ring::ECDSA_P384_SHA384_ASN1_SIGNING))
        {
            pair.public_key().as_ref().to_vec()
        } else {
            RsaKeyPair::from_pkcs8(&self.0).ok()?.public_key().as_ref().to_vec()
        };
        Some(STANDARD.encode(key))
    }

    pub(super) fn sign(&self, algorithm: Asymmetric, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        let wrong = |_| SignError::WrongPrivateKey;
        let ecdsa = |how: &'static by_ring::EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::from_pkcs8(how, &self.0, &random).map_err(wrong)?;
            Ok(pair.sign(&random, message).map_err(|_| SignError::WrongPrivateKey)?.as_ref().to_vec())
        };
        let rsa = |how: &'static dyn by_ring::RsaEncoding| {
            let pair = RsaKeyPair::from_pkcs8(&self.0).map_err(wrong)?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(how, &random, message, &mut signature).map_err(|_| SignError::WrongPrivateKey)?;
            Ok(signature)
        };
        match algorithm {
            Asymmetric::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.0).map_err(wrong)?;
                Ok(pair.sign(message).as_ref().to_vec())
            }
            Asymmetric::EcdsaP256Sha256 => ecdsa(&by_ring::ECDSA_P256_SHA256_ASN1_SIGNING),
            Asymmetric::EcdsaP256Sha256Fixed => ecdsa(&by_ring::ECDSA_P256_SHA256_FIXED_SIGNING),
            Asymmetric::EcdsaP384Sha384 => ecdsa(&by_ring::ECDSA_P384_SHA384_ASN1_SIGNING),
            Asymmetric::EcdsaP384Sha384Fixed => ecdsa(&by_ring::ECDSA_P384_SHA384_FIXED_SIGNING),
            Asymmetric::RsaPkcs1Sha256 => rsa(&by_ring::RSA_PKCS1_SHA256),
            Asymmetric::RsaPkcs1Sha384 => rsa(&by_ring::RSA_PKCS1_SHA384),
            Asymmetric::RsaPkcs1Sha512 => rsa(&by_ring::RSA_PKCS1_SHA512),
            Asymmetric::RsaPssSha256 => rsa(&by_ring::RSA_PSS_SHA256),
            Asymmetric::RsaPssSha384 => rsa(&by_ring::RSA_PSS_SHA384),
            Asymmetric::RsaPssSha512 => rsa(&by_ring::RSA_PSS_SHA512),
            Asymmetric::RsaPkcs1Sha1 => Err(SignError::Impossible("nothing is signed with SHA-1 any more")),
        }
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl From<Unbuildable> for SignError {
    fn from(why: Unbuildable) -> Self {
        match why {
            Unbuildable::Missing(what) | Unbuildable::Malformed(what) | Unbuildable::Ambiguous(what) => {
                SignError::Lacks(what)
            }
        }
    }
}

impl Scheme {
    /// `request` as its sender would send it at `now`.
    pub(super) fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        private_key: Option<&PrivateKey>,
    ) -> Result<Request, SignError> {
        for condition in &self.when {
            if condition.holds(View::of(request)).is_err() {
                return Err(SignError::Lacks(format!("the scheme does not apply: {}", condition.location())));
            }
        }
        let mut request = request.clone();
        let time = self.timestamp.as_ref().map(|rule| (rule, rule.format(now)));
        if let Some((TimeRule { from: TimeFrom::At(location), .. }, text)) = &time {
            draft::add(&mut request, location, text)?;
        }
        for (header, must) in self.template.header_lists() {
            let listed: Vec<&str> = std::iter::once(header).chain(must.iter().map(|name| &**name)).collect();
            draft::add(&mut request, &Location::Header(header.into()), &listed.join(","))?;
        }
        for location in self.id.iter().chain(self.template.required()) {
            draft::add(&mut request, location, &self.made_up(location, now))?;
        }
        let place = draft::free(&request, &self.from, self.each.as_ref())?;
        let bodies = match &self.each {
            Some(pointer) => pointer
                .elements(&request.body)
                .ok_or_else(|| SignError::Lacks(format!("body:{pointer} is not an array")))?,
            None => vec![&request.body[..]],
        };
        let time_beside = time.as_ref().map_or("", |(_, text)| text);
        let signatures: Result<Vec<String>, SignError> = bodies
            .into_iter()
            .map(|body| {
                self.value(View::of_body(&request, body), public_url, (now, time_beside), private_key)
            })
            .collect();
        draft::put(&mut request, place, &signatures?)?;
        Ok(request)
    }

    /// A value for a place of which the request says nothing: unique, or a time where only that has its shape.
    fn made_up(&self, location: &Location, now: Timestamp) -> String {
        let shape = self.shapes.iter().find(|(place, _)| place == location).map(|(_, shape)| shape);
        let fits = |text: &String| shape.is_none_or(|shape| shape.matches(text.as_bytes()));
        [unique(), now.to_string(), now.as_secs().to_string()].into_iter().find(fits).unwrap_or_else(unique)
    }

    /// The whole value that holds the signature over `view`.
    fn value(
        &self,
        view: View<'_>,
        public_url: Option<&str>,
        (now, written): (Timestamp, &str),
        private_key: Option<&PrivateKey>,
    ) -> Result<String, SignError> {
        let found = |location: &Location| match location.find(view) {
            Ok(Some(value)) => Ok(value),
            _ => Err(SignError::Lacks(format!("{location} is missing"))),
        };
        let id = self.id.as_ref().map(&found).transpose()?.unwrap_or_default();
        let time = match &self.timestamp {
            Some(TimeRule { from: TimeFrom::At(location), .. }) => found(location)?,
            _ => written.as_bytes().into(),
        };
        let url = OnceCell::new();
        let filling = Filling { view, public_url, timestamp: &time, id: &id, url: &url };
        let encode = |bytes: &[u8]| self.form.encoding.encode(bytes);
        let signature = match &self.keys {
            Keys::Mac(keys) => {
                let key = live(keys, now).next().ok_or(SignError::Impossible("no secret is live"))?;
                encode(key.value.mac(|sink| self.template.feed(&filling, b"", sink))?.as_bytes())
            }
            Keys::Digest(hash, secrets) => {
                let secret = live(secrets, now).next().ok_or(SignError::Impossible("no secret is live"))?;
                let secret = secret.value.expose();
                encode(hash.digest(|sink| self.template.feed(&filling, secret, sink))?.as_bytes())
            }
            Keys::Token(tokens) => {
                let token = live(tokens, now).next().ok_or(SignError::Impossible("no secret is live"))?;
                String::from_utf8(token.value.expose().to_vec())
                    .map_err(|_| SignError::Impossible("the token is not text"))?
            }
            Keys::Public(keys) => {
                let key = live(keys, now).next().ok_or(SignError::Impossible("no public key is live"))?;
                let private_key = private_key.ok_or(SignError::NoPrivateKey)?;
                encode(&private_key.sign(key.value.algorithm(), &self.template.whole(&filling)?)?)
            }
            Keys::Fetched(fetched) => {
                let private_key = private_key.ok_or(SignError::NoPrivateKey)?;
                encode(&private_key.sign(fetched.algorithm, &self.template.whole(&filling)?)?)
            }
        };
        Ok(self.form.dress(&signature, self.timestamp.as_ref().map(|rule| (&rule.from, written))))
    }
}

impl SignatureForm {
    /// The whole value that holds one signature, with the time where it stands beside it.
    fn dress(&self, signature: &str, time: Option<(&TimeFrom, &str)>) -> String {
        let Self { prefix, assign, .. } = self;
        let list = self.list.as_deref().unwrap_or_default();
        let signature = match self.items.first() {
            Some(name) => format!("{name}{assign}{prefix}{signature}"),
            None => format!("{prefix}{signature}"),
        };
        match time {
            Some((TimeFrom::Item(name), text)) => format!("{name}{assign}{text}{list}{signature}"),
            Some((TimeFrom::Position(_), text)) => format!("{text}{list}{signature}"),
            _ => signature,
        }
    }
}

pub(super) fn with_headers(request: &Request, added: &[(String, String)]) -> Request {
    let mut headers = Headers::builder();
    for (name, value) in request.head.headers.iter() {
        headers.push(name, value);
    }
    for (name, value) in added {
        headers.push(name, value.as_bytes());
    }
    let mut request = request.clone();
    request.head.headers = headers.build();
    request
}

/// An id for a test event. Not secret, not for security.
pub(super) fn unique() -> String {
    let text: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    format!("msg_{text}")
}
