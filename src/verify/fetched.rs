//! Public keys of a scheme that live elsewhere: which one a request names, and whether one of those known is right.

use std::sync::Arc;

use super::locate::{Location, View};
use super::public_key::{Asymmetric, PublicKey};
use super::refusal::{Refusal, at};
use super::remote::{self, KeySource, RemoteKey};
use super::scheme::Match;
use crate::clock::Timestamp;
use crate::reason::Reason;

/// Public keys that live elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) algorithm: Asymmetric,
    pub(super) source: Arc<dyn KeySource>,
    /// Where the request names its key; `None`: there is one document for all.
    pub(super) named: Option<Location>,
}

impl Fetched {
    /// The label of the fetched key that is right: its certificate must be valid now, too.
    pub(super) fn check(
        &self,
        view: View<'_>,
        now: Timestamp,
        mut verifies: impl FnMut(&PublicKey) -> bool,
    ) -> Result<Option<Match>, Refusal> {
        let name = match &self.named {
            None => (&b""[..]).into(),
            Some(location) => at(location, location.find(view))?.ok_or_else(|| {
                Refusal::new(Reason::SignatureMissing, format!("{location}, which names the key, is missing"))
            })?,
        };
        let wrong = |detail: &str| Refusal::new(Reason::SignatureInvalid, detail);
        let name = std::str::from_utf8(&name).map_err(|_| wrong("the key's name is no text"))?;
        let document = remote::known(&self.source, name, view.request.head.client, Reason::SignatureInvalid)?;
        let mut refusal = None;
        for key in document.keys() {
            let key = match key {
                RemoteKey::Jwk(_) => continue,
                RemoteKey::Text(text) => PublicKey::parse(self.algorithm, text),
                RemoteKey::Certified { from, to, .. } if now < *from || now > *to => {
                    Err("the certificate is not valid now".to_owned())
                }
                RemoteKey::Certified { spki, .. } => PublicKey::of_spki(self.algorithm, spki),
            };
            match key {
                Ok(key) if verifies(&key) => {
                    self.source.proved(name);
                    return Ok(Some(None));
                }
                Ok(_) => {}
                Err(message) => refusal = Some(wrong(&message)),
            }
        }
        match (refusal, &self.named) {
            (Some(refusal), _) => Err(refusal),
            // The one key may have been replaced by another.
            (None, None) => {
                Err(remote::lacking(&self.source, "", wrong("the signature does not match the fetched key")))
            }
            (None, Some(_)) => Ok(None),
        }
    }
}
