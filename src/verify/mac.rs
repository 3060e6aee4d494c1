//! Shared secrets: keyed MAC states (made once, cloned per request) and plain digests over a secret.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The digests that schemes are built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    /// Legacy, for HMAC only.
    Md5,
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// A digest's bytes on the stack.
#[derive(Clone, Copy)]
pub(super) struct Output {
    bytes: [u8; 64],
    length: usize,
}

impl Output {
    fn of(digest: &[u8]) -> Self {
        let mut bytes = [0; 64];
        let length = digest.len().min(64);
        bytes[..length].copy_from_slice(&digest[..length]);
        Self { bytes, length }
    }
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Hash {
    pub(super) const ALL: &[Hash] = &[Hash::Sha256, Hash::Sha1, Hash::Sha512, Hash::Sha384];

    /// Bytes of a digest.
    pub(super) const fn length(self) -> usize {
        match self {
            Hash::Md5 => 16,
            Hash::Sha1 => 20,
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Hash::Md5 => "MD5",
            Hash::Sha1 => "SHA-1",
            Hash::Sha256 => "SHA-256",
            Hash::Sha384 => "SHA-384",
            Hash::Sha512 => "SHA-512",
        }
    }

    /// The digest of what `feed` hands out.
    pub(super) fn digest<E>(
        self,
        feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Output, E> {
        fn run<D: Digest, E>(feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<Output, E> {
            let mut digest = D::new();
            feed(&mut |piece| digest.update(piece))?;
            Ok(Output::of(&digest.finalize()))
        }
        match self {
            Hash::Md5 => run::<Md5, E>(feed),
            Hash::Sha1 => run::<Sha1, E>(feed),
            Hash::Sha256 => run::<Sha256, E>(feed),
            Hash::Sha384 => run::<Sha384, E>(feed),
            Hash::Sha512 => run::<Sha512, E>(feed),
        }
    }

    /// The digest of `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> Output {
        match self {
            Hash::Md5 => Output::of(&Md5::digest(bytes)),
            Hash::Sha1 => Output::of(&Sha1::digest(bytes)),
            Hash::Sha256 => Output::of(&Sha256::digest(bytes)),
            Hash::Sha384 => Output::of(&Sha384::digest(bytes)),
            Hash::Sha512 => Output::of(&Sha512::digest(bytes)),
        }
    }
}

/// A keyed HMAC state.
#[derive(Clone)]
pub(super) enum MacKey {
    Md5(Hmac<Md5>),
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl MacKey {
    pub(super) fn new(hash: Hash, key: &[u8]) -> Option<Self> {
        // HMAC takes keys of any length, so this never is `None`; the trait can't say so.
        match hash {
            Hash::Md5 => Hmac::new_from_slice(key).ok().map(MacKey::Md5),
            Hash::Sha1 => Hmac::new_from_slice(key).ok().map(MacKey::Sha1),
            Hash::Sha256 => Hmac::new_from_slice(key).ok().map(MacKey::Sha256),
            Hash::Sha384 => Hmac::new_from_slice(key).ok().map(MacKey::Sha384),
            Hash::Sha512 => Hmac::new_from_slice(key).ok().map(MacKey::Sha512),
        }
    }

    pub(super) const fn hash(&self) -> Hash {
        match self {
            MacKey::Md5(_) => Hash::Md5,
            MacKey::Sha1(_) => Hash::Sha1,
            MacKey::Sha256(_) => Hash::Sha256,
            MacKey::Sha384(_) => Hash::Sha384,
            MacKey::Sha512(_) => Hash::Sha512,
        }
    }

    /// The MAC of what `feed` hands out.
    pub(super) fn mac<E>(
        &self,
        feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<Output, E> {
        fn run<M: Mac + Clone, E>(
            keyed: &M,
            feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
        ) -> Result<Output, E> {
            let mut mac = keyed.clone();
            feed(&mut |piece| mac.update(piece))?;
            Ok(Output::of(&mac.finalize().into_bytes()))
        }
        match self {
            MacKey::Md5(keyed) => run(keyed, feed),
            MacKey::Sha1(keyed) => run(keyed, feed),
            MacKey::Sha256(keyed) => run(keyed, feed),
            MacKey::Sha384(keyed) => run(keyed, feed),
            MacKey::Sha512(keyed) => run(keyed, feed),
        }
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_those_of_rfc_2202_and_4231() {
        let mac = |hash| {
            let key = MacKey::new(hash, b"Jefe").unwrap();
            let out = key.mac::<()>(|sink| {
                sink(b"what do ya want ");
                sink(b"for nothing?");
                Ok(())
            });
            hex::encode(out.unwrap().as_bytes())
        };
        assert_eq!(mac(Hash::Md5), "750c783e6ab0b503eaa86e310a5db738");
        assert_eq!(mac(Hash::Sha1), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        assert_eq!(mac(Hash::Sha256), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(mac(Hash::Sha384).starts_with("af45d2e376484031617f78d2b58a6b1b"));
        assert!(mac(Hash::Sha512).starts_with("164b7a7bfcf819e2e395fbe73b56e0a3"));
    }

    #[test]
    fn a_digest_in_pieces_is_the_digest_of_the_whole() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            let pieces = hash.digest::<()>(|sink| {
                sink(b"ab");
                sink(b"c");
                Ok(())
            });
            assert_eq!(pieces.unwrap().as_bytes(), hash.of(b"abc").as_bytes());
        }
    }
}
