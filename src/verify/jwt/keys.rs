//! The keys that may verify a token: static ones from the config, or a key set, decoded once per set and not per
//! request.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::build::public_key;
use super::invalid;
use crate::reason::Reason;
use crate::verify::public_key::{Asymmetric, PublicKey};
use crate::verify::remote::{self, Document, RemoteKey};
use crate::verify::window::Window;
use crate::verify::{KeySource, Refusal};

/// A key that may verify, and for what.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) label: Option<Arc<str>>,
    /// When it is live; keys of a set are as long as they are in it.
    pub(super) window: Window,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// A source of keys with the decoded form of its last set.
#[derive(Debug)]
pub(super) struct KeySet {
    source: Arc<dyn KeySource>,
    /// Whether each key is a document of its own, which the `kid` names.
    per_key: bool,
    /// The pinned algorithms.
    algorithms: Vec<Algorithm>,
    decoded: ArcSwapOption<Decoded>,
}

#[derive(Debug)]
pub(super) struct Decoded {
    /// What `keys` was decoded from; kept, so that its address can't come again for another set.
    document: Arc<Document>,
    pub(super) keys: Vec<Key>,
}

impl KeySet {
    pub(super) fn new(source: Arc<dyn KeySource>, per_key: bool, algorithms: Vec<Algorithm>) -> Self {
        Self { source, per_key, algorithms, decoded: ArcSwapOption::empty() }
    }

    /// The keys known now that a token with this `kid` may be signed with.
    pub(super) fn current(&self, kid: Option<&str>, asker: IpAddr) -> Result<Arc<Decoded>, Refusal> {
        if self.per_key {
            let kid = kid.ok_or_else(|| invalid("the token names no key"))?;
            return Ok(Arc::new(self.decode(remote::known(&self.source, kid, asker, Reason::TokenInvalid)?)));
        }
        let document = remote::known(&self.source, "", asker, Reason::TokenInvalid)?;
        if let Some(decoded) = &*self.decoded.load()
            && Arc::ptr_eq(&decoded.document, &document)
        {
            return Ok(decoded.clone());
        }
        let decoded = Arc::new(self.decode(document));
        self.decoded.store(Some(decoded.clone()));
        Ok(decoded)
    }

    fn decode(&self, document: Arc<Document>) -> Decoded {
        let keys = document.keys().iter().filter_map(|key| Key::of_remote(key, &self.algorithms)).collect();
        Decoded { document, keys }
    }

    /// A key that was fetched by this name has verified something.
    pub(super) fn proved(&self, kid: &str) {
        if self.per_key {
            self.source.proved(kid);
        }
    }

    pub(super) fn is_per_key(&self) -> bool {
        self.per_key
    }

    /// The refusal of a token that names a key which the set lacks.
    pub(super) fn lacks(&self, refusal: Refusal) -> Refusal {
        if self.per_key { refusal } else { remote::lacking(&self.source, "", refusal) }
    }
}

/// The kind of key that verifies tokens of this algorithm, if it is a public one.
pub(super) fn asymmetric(algorithm: Algorithm) -> Option<Asymmetric> {
    match algorithm {
        Algorithm::ES256 => Some(Asymmetric::EcdsaP256Sha256),
        Algorithm::ES384 => Some(Asymmetric::EcdsaP384Sha384),
        Algorithm::EdDSA => Some(Asymmetric::Ed25519),
        other if other.family() == AlgorithmFamily::Rsa => Some(Asymmetric::RsaPkcs1Sha256),
        _ => None,
    }
}

/// The same key for the library.
pub(super) fn decoding(key: &PublicKey) -> DecodingKey {
    match key.algorithm() {
        Asymmetric::Ed25519 => DecodingKey::from_ed_der(key.as_bytes()),
        Asymmetric::EcdsaP256Sha256 | Asymmetric::EcdsaP384Sha384 => DecodingKey::from_ec_der(key.as_bytes()),
        _ => DecodingKey::from_rsa_der(key.as_bytes()),
    }
}

/// The key in a SubjectPublicKeyInfo, for one of these algorithms.
pub(super) fn of_spki(spki: &[u8], algorithms: &[Algorithm]) -> Option<Key> {
    algorithms.iter().find_map(|algorithm| {
        let key = PublicKey::of_spki(asymmetric(*algorithm)?, spki).ok()?;
        let same = |other: &&Algorithm| other.family() == algorithm.family();
        let algorithms = match algorithm.family() {
            AlgorithmFamily::Rsa => algorithms.iter().filter(same).copied().collect(),
            _ => vec![*algorithm],
        };
        Some(Key { kid: None, label: None, window: Window::default(), algorithms, key: decoding(&key) })
    })
}

impl Key {
    /// A fetched key, for the pinned algorithms.
    fn of_remote(key: &RemoteKey, algorithms: &[Algorithm]) -> Option<Self> {
        match key {
            RemoteKey::Jwk(jwk) => Self::of(jwk),
            RemoteKey::Text(text) => {
                let (algorithms, key) = public_key(text, algorithms).ok()?;
                Some(Self { kid: None, label: None, window: Window::default(), algorithms, key })
            }
            RemoteKey::Certified { spki, .. } => of_spki(spki, algorithms),
        }
    }

    /// A key of a set, if it may verify signatures at all. Shared secrets in key sets are never used: a set is
    /// public, and an HS* token "signed" with what is public proves nothing.
    pub(super) fn of(jwk: &Jwk) -> Option<Self> {
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
            return None;
        }
        if common.key_operations.as_ref().is_some_and(|ops| !ops.contains(&KeyOperations::Verify)) {
            return None;
        }
        let mut algorithms: Vec<Algorithm> = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(named) = common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == format!("{named:?}"));
        }
        Some(Self {
            kid: common.key_id.clone(),
            label: common.key_id.as_deref().map(Into::into),
            window: Window::default(),
            algorithms,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}
