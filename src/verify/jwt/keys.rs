//! The keys that may verify a token: static ones from the config, or a key set, decoded once per set and not per
//! request.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use crate::verify::KeySource;
use crate::verify::window::Window;

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
    decoded: ArcSwapOption<Decoded>,
}

#[derive(Debug)]
pub(super) struct Decoded {
    /// What `keys` was decoded from; kept, so that its address can't come again for another set.
    set: Arc<JwkSet>,
    pub(super) keys: Vec<Key>,
}

impl KeySet {
    pub(super) fn new(source: Arc<dyn KeySource>) -> Self {
        Self { source, decoded: ArcSwapOption::empty() }
    }

    /// The keys known now; `None` while none could be fetched.
    pub(super) fn current(&self) -> Option<Arc<Decoded>> {
        let set = self.source.keys()?;
        if let Some(decoded) = &*self.decoded.load()
            && Arc::ptr_eq(&decoded.set, &set)
        {
            return Some(decoded.clone());
        }
        let keys = set.keys.iter().filter_map(Key::of).collect();
        let decoded = Arc::new(Decoded { set, keys });
        self.decoded.store(Some(decoded.clone()));
        Some(decoded)
    }

    pub(super) fn unknown(&self, kid: &str) {
        self.source.unknown_kid(kid);
    }
}

impl Key {
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
