//! The other direction: the headers that a sender would add, from the same compiled rule, for tests and the command
//! line. Shared secrets are in the rule already; a public-key scheme needs the private key.

use std::cell::OnceCell;

use ring::rand::SystemRandom;
use ring::signature::{self as by_ring, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;

use super::locate::{Location, View};
use super::public_key::Asymmetric;
use super::scheme::{Keys, Scheme, TimeRule};
use super::signatures::{SignatureForm, TimeFrom};
use super::template::{Filling, Unbuildable};
use crate::clock::Timestamp;
use crate::message::{Headers, Request};

/// Why a request can't be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("{0}")]
    Impossible(&'static str),
    /// The scheme reads something outside the headers that the request lacks.
    #[error("{0}")]
    Lacks(String),
    #[error("the scheme needs a private key (PKCS#8 in PEM)")]
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
    /// The headers that `request` lacks to pass at `now`.
    pub(super) fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        private_key: Option<&PrivateKey>,
    ) -> Result<Vec<(String, String)>, SignError> {
        if self.each.is_some() {
            return Err(SignError::Impossible("each element of the body carries its own signature"));
        }
        let Some(header) = self.from.iter().find_map(Location::header) else {
            return Err(SignError::Impossible("the signature does not stand in a header"));
        };
        let mut added: Vec<(String, String)> = Vec::new();
        let time = self.timestamp.as_ref().map(|rule| (rule, rule.format.format(now)));
        if let Some((TimeRule { from: TimeFrom::At(location), .. }, text)) = &time {
            add(location, text, request, &mut added)?;
        }
        for (header, must) in self.template.header_lists() {
            let listed = std::iter::once(header).chain(must.iter().map(|name| &**name)).collect::<Vec<_>>();
            add(&Location::Header(header.into()), &listed.join(","), request, &mut added)?;
        }
        for location in self.id.iter().chain(self.template.locations()) {
            if !added.iter().any(|(name, _)| Some(name.as_str()) == location.header()) {
                add(location, &unique(), request, &mut added)?;
            }
        }
        for condition in &self.when {
            if condition.holds(View::of(request)).is_err() {
                return Err(SignError::Lacks(format!("the scheme does not apply: {}", condition.location())));
            }
        }
        let request = &with_headers(request, &added);
        let view = View::of(request);
        let found = |location: &Location| match location.find(view) {
            Ok(Some(value)) => Ok(value),
            _ => Err(SignError::Lacks(format!("{location} is missing"))),
        };
        let id = self.id.as_ref().map(&found).transpose()?.unwrap_or_default();
        let time_text = match &time {
            Some((TimeRule { from: TimeFrom::At(location), .. }, _)) => found(location)?.into_owned(),
            Some((_, text)) => text.clone().into_bytes(),
            None => Vec::new(),
        };
        let url = OnceCell::new();
        let filling = Filling { view, public_url, timestamp: &time_text, id: &id, url: &url };
        let encode = |bytes: &[u8]| self.form.encoding.encode(bytes);
        let signature = match &self.keys {
            Keys::Mac(keys) => {
                let key = keys.first().ok_or(SignError::Impossible("there is no secret"))?;
                encode(key.value.mac(|sink| self.template.feed(&filling, b"", sink))?.as_bytes())
            }
            Keys::Digest(hash, secrets) => {
                let secret = secrets.first().ok_or(SignError::Impossible("there is no secret"))?;
                let secret = secret.value.expose();
                encode(hash.digest(|sink| self.template.feed(&filling, secret, sink))?.as_bytes())
            }
            Keys::Token(tokens) => {
                let token = tokens.first().ok_or(SignError::Impossible("there is no secret"))?;
                String::from_utf8(token.value.expose().to_vec())
                    .map_err(|_| SignError::Impossible("the token is not text"))?
            }
            Keys::Public(keys) => {
                let key = keys.first().ok_or(SignError::Impossible("there is no public key"))?;
                let private_key = private_key.ok_or(SignError::NoPrivateKey)?;
                encode(&private_key.sign(key.value.algorithm(), &self.template.whole(&filling)?)?)
            }
            Keys::Fetched(fetched) => {
                let private_key = private_key.ok_or(SignError::NoPrivateKey)?;
                encode(&private_key.sign(fetched.algorithm, &self.template.whole(&filling)?)?)
            }
        };
        let time = time.as_ref().map(|(rule, text)| (&rule.from, text.as_str()));
        added.push((header.to_owned(), self.form.dress(&signature, time)));
        Ok(added)
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

/// Adds a header that the scheme reads, unless the request has it; other places can't be added to.
fn add(
    location: &Location,
    value: &str,
    request: &Request,
    added: &mut Vec<(String, String)>,
) -> Result<(), SignError> {
    match (location.find(View::of(request)), location.header().filter(|_| location.is_header())) {
        (Ok(Some(_)), _) => Ok(()),
        (Ok(None), Some(header)) => {
            added.push((header.to_owned(), value.to_owned()));
            Ok(())
        }
        _ => Err(SignError::Lacks(format!("{location} is missing, and it is not a header"))),
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
