//! What this gateway would sign for whoever asks: the proofs with which greetings are answered. Anybody can have such a
//! proof made, so it must never pass for the signature of an event, whichever route's rule looks at it.
//!
//! One [`Signable`] belongs to a config: each handshake with a proof adds itself, with every secret that it may have
//! signed with, and each rule with a shared secret asks once a signature is right. Public keys sign nothing here.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::mac::{Hash, MacKey, Output};
use super::refusal::Refusal;
use super::shape::Shape;
use crate::reason::Reason;
use crate::secret::same;

/// See the module.
#[derive(Debug, Default)]
pub struct Signable(ArcSwap<Vec<Arc<Proofs>>>);

/// The proofs of one greeting with one key.
#[derive(Debug)]
pub(super) struct Proofs {
    /// All that it can sign, and perhaps more.
    shape: Shape,
    by: By,
}

#[derive(Debug)]
pub(super) enum By {
    Mac(Box<MacKey>),
    /// A plain digest; the secret is within the shape.
    Digest(Hash),
}

impl Signable {
    /// The same greetings; what is added to either later is not in the other.
    pub fn copy(&self) -> Self {
        Self(ArcSwap::new(self.0.load_full()))
    }

    pub(super) fn add(&self, shape: Shape, by: By) {
        let proofs = Arc::new(Proofs { shape, by });
        self.0.rcu(|known| {
            let mut known = Vec::clone(known);
            if !known.iter().any(|one| one.is_like(&proofs)) {
                known.push(proofs.clone());
            }
            known
        });
    }

    /// Refuses a signature that is right but that a greeting's answer could be as well: `tag`, of the bytes that `feed`
    /// hands out.
    pub(super) fn refuse<E>(
        &self,
        tag: &[u8],
        feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<(), Refusal>
    where
        Refusal: From<E>,
    {
        let known = self.0.load();
        if known.is_empty() {
            return Ok(());
        }
        // Longer ones no greeting signs: they are not kept.
        let most = known.iter().map(|proofs| proofs.shape.longest()).max().unwrap_or(0);
        let mut signed = Vec::new();
        let mut fits = true;
        feed(&mut |piece| {
            fits &= signed.len() + piece.len() <= most;
            if fits {
                signed.extend_from_slice(piece);
            }
        })?;
        if fits && known.iter().any(|proofs| proofs.shape.matches(&signed) && proofs.makes(tag, &signed)) {
            return Err(Refusal::new(
                Reason::SignatureInvalid,
                "the signature is right, but a greeting is answered with the same: anybody can have it",
            ));
        }
        Ok(())
    }
}

impl Proofs {
    fn of(&self, signed: &[u8]) -> Output {
        match &self.by {
            By::Digest(hash) => hash.of(signed),
            By::Mac(key) => {
                let made = key.mac::<std::convert::Infallible>(|sink| {
                    sink(signed);
                    Ok(())
                });
                match made {
                    Ok(made) => made,
                    Err(never) => match never {},
                }
            }
        }
    }

    fn makes(&self, tag: &[u8], signed: &[u8]) -> bool {
        same(self.of(signed).as_bytes(), tag)
    }

    fn is_like(&self, other: &Self) -> bool {
        self.shape == other.shape && other.makes(self.of(b"").as_bytes(), b"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(key: &[u8]) -> MacKey {
        MacKey::new(Hash::Sha256, key).unwrap()
    }

    fn of(key: &[u8], text: &[u8]) -> Vec<u8> {
        Proofs { shape: Shape::literal(b""), by: By::Mac(Box::new(mac(key))) }.of(text).as_bytes().to_vec()
    }

    fn is_refused(signable: &Signable, tag: &[u8], text: &[u8]) -> bool {
        let fed = signable.refuse::<Refusal>(tag, |sink| {
            // In pieces, as templates feed.
            text.chunks(3).for_each(sink);
            Ok(())
        });
        fed.is_err()
    }

    #[test]
    fn only_what_a_greeting_signs_with_the_same_key_is_refused() {
        let signable = Signable::default();
        assert!(!is_refused(&signable, &of(b"k", b"12345"), b"12345"));
        let shape = Shape::parse("[0-9]{1,8}").unwrap();
        signable.add(shape.clone(), By::Mac(Box::new(mac(b"k"))));
        assert!(is_refused(&signable, &of(b"k", b"12345"), b"12345"));
        for (key, text) in
            [(&b"other"[..], &b"12345"[..]), (b"k", b"{12345}"), (b"k", b"123456789"), (b"k", b"")]
        {
            assert!(!is_refused(&signable, &of(key, text), text), "{text:?}");
        }
        // The same again is no second one, and a copy goes its own way.
        signable.add(shape.clone(), By::Mac(Box::new(mac(b"k"))));
        let copy = signable.copy();
        copy.add(shape, By::Mac(Box::new(mac(b"other"))));
        assert_eq!((signable.0.load().len(), copy.0.load().len()), (1, 2));
        assert!(
            is_refused(&copy, &of(b"other", b"1"), b"1") && !is_refused(&signable, &of(b"other", b"1"), b"1")
        );
    }

    #[test]
    fn a_digest_is_refused_with_the_secret_in_its_place() {
        let signable = Signable::default();
        let secret = Shape::literal("gehe\u{ef}m".as_bytes());
        let shape = Shape::joined([&secret, &Shape::parse("[a-z]{2}").unwrap()]);
        signable.add(shape, By::Digest(Hash::Sha256));
        let text = "gehe\u{ef}mab".as_bytes();
        assert!(is_refused(&signable, Hash::Sha256.of(text).as_bytes(), text));
        assert!(!is_refused(&signable, Hash::Sha256.of(b"geheimab").as_bytes(), b"geheimab"));
        assert!(!is_refused(&signable, Hash::Sha1.of(text).as_bytes(), text));
    }
}
