//! From a fetched document to the keys in it.

use std::sync::Arc;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde_json::Value;

use super::certificate::CertificateRule;
use super::{Remote, jwks};
use crate::clock::Timestamp;
use crate::verify::json::Pointer;

/// Keys, as they were fetched.
#[derive(Clone, Debug)]
pub struct Document {
    keys: Vec<RemoteKey>,
}

/// A public key out of a document.
#[derive(Clone, Debug)]
pub enum RemoteKey {
    Jwk(Arc<Jwk>),
    /// PEM, base64 DER, hex or base64 of the raw key, as `public_keys` takes it.
    Text(Arc<str>),
    /// A SubjectPublicKeyInfo out of a certificate, and when that is valid.
    Certified {
        spki: Arc<[u8]>,
        from: Timestamp,
        to: Timestamp,
    },
}

/// What a document is.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    kind: Kind,
    /// Where in a JSON answer the key stands; `None`: it is the answer.
    at: Option<Pointer>,
    /// Where a JSON answer says when the key ends, in seconds since the epoch; `null` for never.
    expires: Option<Pointer>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Jwks,
    Jwk,
    Key,
    Certificate(CertificateRule),
}

/// What keeps a document from being used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Set(#[from] jwks::BadSet),
    #[error("the answer is no text")]
    NotText,
    #[error("the answer holds nothing at {0}")]
    NotThere(String),
    #[error("the answer holds no usable key: {0}")]
    Key(String),
    #[error("the key has ended")]
    Ended,
}

impl Format {
    pub const JWKS: Self = Self { kind: Kind::Jwks, at: None, expires: None };

    /// The format of a name; the error lists those that there are.
    pub(in crate::verify) fn new(
        name: &str,
        certificate: CertificateRule,
        at: Option<Pointer>,
        expires: Option<Pointer>,
    ) -> Option<Self> {
        let kind = match name {
            "jwks" => Kind::Jwks,
            "jwk" => Kind::Jwk,
            "key" => Kind::Key,
            "certificate" => Kind::Certificate(certificate),
            _ => return None,
        };
        Some(Self { kind, at, expires })
    }

    pub(in crate::verify) const NAMES: &[&str] = &["jwks", "jwk", "key", "certificate"];

    /// Whether its keys are JSON Web Keys, as only tokens use them.
    pub(in crate::verify) fn is_jwk(&self) -> bool {
        matches!(self.kind, Kind::Jwks | Kind::Jwk)
    }
}

impl Document {
    pub(in crate::verify) fn of_set(set: JwkSet) -> Self {
        Self { keys: set.keys.into_iter().map(|key| RemoteKey::Jwk(Arc::new(key))).collect() }
    }

    pub fn keys(&self) -> &[RemoteKey] {
        &self.keys
    }
}

impl Remote {
    /// The keys in an answer; a certificate's chain is checked as of `now`.
    pub fn read(&self, answer: &[u8], now: Timestamp) -> Result<Document, Unreadable> {
        let Format { kind, at, expires } = &self.format;
        if let Some(pointer) = expires
            && let Some(text) = pointer.text(answer)
        {
            let end = text.parse::<u64>().map_err(|_| Unreadable::Key(format!("{pointer} is no time")))?;
            if Timestamp::from_secs(end) <= now {
                return Err(Unreadable::Ended);
            }
        }
        let there = |pointer: &Pointer| Unreadable::NotThere(pointer.to_string());
        let key = match kind {
            Kind::Jwks => {
                let set = match at {
                    None => answer,
                    Some(pointer) => pointer.raw(answer).ok_or_else(|| there(pointer))?.as_bytes(),
                };
                return Ok(Document::of_set(jwks::parse(set)?));
            }
            Kind::Jwk => {
                let jwk = match at {
                    None => std::str::from_utf8(answer).map_err(|_| Unreadable::NotText)?,
                    Some(pointer) => pointer.raw(answer).ok_or_else(|| there(pointer))?,
                };
                // Some issuers write members that are no strings, or `null` for what is absent.
                let mut value: Value =
                    serde_json::from_str(jwk).map_err(|e| Unreadable::Key(e.to_string()))?;
                if let Value::Object(members) = &mut value {
                    members.retain(|_, value| !value.is_null());
                }
                return Ok(Document::of_set(jwks::parse_values(vec![value])?));
            }
            Kind::Key | Kind::Certificate(_) => match at {
                None => std::str::from_utf8(answer).map_err(|_| Unreadable::NotText)?.into(),
                Some(pointer) => pointer.text(answer).ok_or_else(|| there(pointer))?,
            },
        };
        let key = match kind {
            Kind::Certificate(rule) => {
                let leaf = rule.read(&key, now).map_err(Unreadable::Key)?;
                RemoteKey::Certified { spki: leaf.spki.into(), from: leaf.from, to: leaf.to }
            }
            // Whether it fits is for the algorithm to say.
            _ if key.trim().is_empty() => return Err(Unreadable::Key("it is empty".to_owned())),
            _ => RemoteKey::Text(pem_lines(&key).into()),
        };
        Ok(Document { keys: vec![key] })
    }
}

/// PEM whose line breaks were lost on the way (`-----BEGIN PUBLIC KEY-----MFkw…-----END PUBLIC KEY-----`) with its
/// lines again; any other text as it is.
fn pem_lines(text: &str) -> String {
    let text = text.trim();
    let parts: Vec<&str> = text.split("-----").collect();
    match parts.as_slice() {
        ["", begin, inside, end, ""] if begin.starts_with("BEGIN ") && !inside.trim().contains('\n') => {
            format!("-----{begin}-----\n{}\n-----{end}-----\n", inside.trim())
        }
        _ => text.to_owned(),
    }
}
