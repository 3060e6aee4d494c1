//! Sealing of what senders sent, where it is kept on disk: pure, over records in memory. Which records are sealed, and
//! when they are sealed anew, is for those who keep them (`buffer`, `quarantine`).
//!
//! AES-256-GCM under a key of its own for each record: HKDF-SHA256 of the operator's key with 192 random bits that stand
//! in the record. Such a key is used once, so the nonce is always zero, and there is no counter that a restored backup
//! or a copied machine could repeat. Two of 2^40 records get the same bits with a chance below 2^-112, two of 2^64 below
//! 2^-64. What a record is and whose it is (its kind and name) and the key's id are bound to it: one in the place of
//! another does not open.
//!
//! | bytes | of a sealed record |
//! |---|---|
//! | 1 | [`SEALED`], which no plain record begins with |
//! | 8 | the id of the operator's key, derived from it |
//! | 24 | random |
//! | … | what was sealed |
//! | 16 | the tag |

mod live;

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::secret::Secret;

pub use live::LiveKeyring;

/// The first byte of a sealed record.
pub const SEALED: u8 = 2;
/// Bytes before what was sealed.
const HEAD: usize = 1 + KeyId::LEN + RANDOM;
const RANDOM: usize = 24;
const TAG: usize = 16;
/// By how many bytes a record is longer when it is sealed.
pub const OVERHEAD: usize = HEAD + TAG;
/// Bytes of an operator's key.
const KEY: usize = 32;
/// Longest name of a record.
const NAME: usize = 32;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Named by its id.
    Event = 1,
    /// The record of a client's URL, named by its key.
    Endpoint = 2,
    /// Named by its id.
    Job = 3,
    /// A request in quarantine, named by its id.
    Refused = 4,
    /// Known words that show that a key is the right one.
    Proof = 5,
    /// The answer that a repeated request gets, named by the key of its claim.
    Claim = 6,
    /// How a delivery went, named by its event and destination.
    Delivery = 7,
    /// A small record of another part's, named by a hash of its key.
    Note = 8,
}

/// Which of the operator's keys: derived from the key, so that it stays the same wherever the key stands in the config.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KeyId::LEN]);

impl KeyId {
    pub const LEN: usize = 8;
}
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("it is neither hex nor base64")]
    NoText,
    #[error("it has {0} bytes")]
    Length(usize),
    #[error("all its bytes are the same")]
    Trivial,
}

/// An operator's key, ready to seal and open.
pub struct Key {
    id: KeyId,
    derive: Prk,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// For the derivation of so many bytes.
struct Bytes8;
impl KeyType for Bytes8 {
    fn len(&self) -> usize {
        KeyId::LEN
    }
}

impl Key {
    /// A key from its text: 32 bytes in hex or base64 (with or without padding, either alphabet).
    ///
    /// # Errors
    ///
    /// Says what is wrong with the text, but not what it is.
    pub fn parse(text: &Secret) -> Result<Self, BadKey> {
        let bytes = decoded(text.expose()).ok_or(BadKey::NoText)?;
        if bytes.len() != KEY {
            return Err(BadKey::Length(bytes.len()));
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(BadKey::Trivial);
        }
        let derive = Salt::new(HKDF_SHA256, b"tidegate buffer").extract(&bytes);
        let mut id = [0; KeyId::LEN];
        let filled = derive.expand(&[b"id"], Bytes8).and_then(|okm| okm.fill(&mut id));
        // Refused only where more than 255 hashes' worth is asked for.
        filled.map_err(|_| BadKey::NoText)?;
        Ok(Self { id: KeyId(id), derive })
    }

    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The key of the one record that has these random bytes.
    fn of_record(&self, random: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
        let info = [&b"record"[..], random];
        Ok(LessSafeKey::new(UnboundKey::from(self.derive.expand(&info, &AES_256_GCM)?)))
    }
}

fn decoded(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_ascii();
    let base64 = || {
        let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |at| at + 1);
        let padded: Vec<u8> =
            text[..end].iter().copied().chain(std::iter::repeat_n(b'=', (4 - end % 4) % 4)).collect();
        let padded = Zeroizing::new(padded);
        STANDARD.decode(&*padded).or_else(|_| URL_SAFE.decode(&*padded)).ok().map(Zeroizing::new)
    };
    let hex = hex::decode(text).ok().map(Zeroizing::new);
    match (hex, base64()) {
        // A key in base64 may look like hex.
        (Some(hex), Some(base64)) if hex.len() != KEY && base64.len() == KEY => Some(base64),
        (hex, base64) => hex.or(base64),
    }
}

/// A record could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record can't be sealed: the operating system gives no random bytes")]
pub struct NotSealed;

/// Why a sealed record does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("it is sealed under the key {0}, which `buffer.encryption.keys` does not have")]
    UnknownKey(KeyId),
    #[error("it does not open: its bytes are not those that were sealed")]
    Changed,
}

/// Whether new records are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// With the first key.
    On,
    /// Only what was sealed is opened.
    Off,
}

/// The keys of the config: the first one seals, all open.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Arc<[Key]>,
    sealing: Sealing,
}

impl Default for Keyring {
    fn default() -> Self {
        Self::none()
    }
}

/// Whether they do the same; a key is known by its id.
impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.sealing == other.sealing && self.ids().eq(other.ids())
    }
}

impl Keyring {
    /// Nothing is sealed, nothing sealed can be opened.
    pub fn none() -> Self {
        Self { keys: Arc::new([]), sealing: Sealing::Off }
    }

    pub fn new(keys: Vec<Key>, sealing: Sealing) -> Self {
        Self { keys: keys.into(), sealing }
    }

    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.iter().map(Key::id)
    }

    /// The key under which new records are sealed, if they are.
    pub fn sealing(&self) -> Option<KeyId> {
        self.sealer().map(Key::id)
    }

    fn sealer(&self) -> Option<&Key> {
        match self.sealing {
            Sealing::On => self.keys.first(),
            Sealing::Off => None,
        }
    }

    /// Begins a record: what is put behind what this leaves in `out` is sealed by [`finish`](Self::finish), in place.
    pub fn begin(&self, out: &mut Vec<u8>) {
        out.clear();
        if self.sealer().is_some() {
            out.resize(HEAD, 0);
        }
    }

    /// Seals the record that was begun, if records are sealed. `name`: 32 bytes at most.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random bytes: nothing must be kept then.
    pub fn finish(&self, kind: Kind, name: &[u8], out: &mut Vec<u8>) -> Result<(), NotSealed> {
        let Some(key) = self.sealer() else { return Ok(()) };
        // One extension at most, and only of a buffer that is reused.
        out.reserve(TAG);
        let (head, plain) = out.split_at_mut_checked(HEAD).ok_or(NotSealed)?;
        head[0] = SEALED;
        head[1..=KeyId::LEN].copy_from_slice(&key.id.0);
        let random = &mut head[1 + KeyId::LEN..];
        SystemRandom::new().fill(random).map_err(|_| NotSealed)?;
        let once = key.of_record(random).map_err(|_| NotSealed)?;
        let bound = Bound::new(kind, key.id, name);
        let tag = once.seal_in_place_separate_tag(ZERO(), Aad::from(bound.bytes()), plain);
        out.extend_from_slice(tag.map_err(|_| NotSealed)?.as_ref());
        Ok(())
    }

    /// A small record, sealed if records are sealed.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub fn seal(&self, kind: Kind, name: &[u8], plain: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let mut out = Vec::with_capacity(plain.len() + OVERHEAD);
        self.begin(&mut out);
        out.extend_from_slice(plain);
        self.finish(kind, name, &mut out)?;
        Ok(out)
    }

    /// The plain form of a record, sealed or not. Copies it once.
    ///
    /// # Errors
    ///
    /// Of a sealed one: its key is not here, or a bit of it, its kind or its name is another.
    pub fn open(&self, kind: Kind, name: &[u8], record: &[u8]) -> Result<Bytes, NotOpened> {
        let Some(id) = key_of(record) else {
            return match record.first() {
                Some(&SEALED) => Err(NotOpened::Changed),
                _ => Ok(Bytes::copy_from_slice(record)),
            };
        };
        let key = self.keys.iter().find(|key| key.id == id).ok_or(NotOpened::UnknownKey(id))?;
        let once = key.of_record(&record[1 + KeyId::LEN..HEAD]).map_err(|_| NotOpened::Changed)?;
        let mut inner = record[HEAD..].to_vec();
        let bound = Bound::new(kind, id, name);
        let opened = once.open_in_place(ZERO(), Aad::from(bound.bytes()), &mut inner);
        let length = opened.map_err(|_| NotOpened::Changed)?.len();
        inner.truncate(length);
        Ok(inner.into())
    }
}

/// Each key of a record is used for it alone, so one nonce does for all.
#[allow(non_snake_case)] // reads as the constant that ring's type can't be
fn ZERO() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The key under which a record is sealed; `None` if it is plain, or too short to be a sealed one.
pub fn key_of(record: &[u8]) -> Option<KeyId> {
    if record.first() != Some(&SEALED) || record.len() < OVERHEAD {
        return None;
    }
    Some(KeyId(record.get(1..=KeyId::LEN)?.try_into().ok()?))
}

/// Bytes of a record's plain form.
pub fn plain_len(record: &[u8]) -> usize {
    if key_of(record).is_some() { record.len() - OVERHEAD } else { record.len() }
}

/// What a record is bound to.
struct Bound {
    bytes: [u8; 1 + KeyId::LEN + 1 + NAME],
    len: usize,
}

impl Bound {
    fn new(kind: Kind, key: KeyId, name: &[u8]) -> Self {
        debug_assert!(name.len() <= NAME, "longer names would be cut");
        let name = &name[..name.len().min(NAME)];
        let mut bytes = [0; 1 + KeyId::LEN + 1 + NAME];
        bytes[0] = kind as u8;
        bytes[1..=KeyId::LEN].copy_from_slice(&key.0);
        bytes[1 + KeyId::LEN] = name.len() as u8;
        let from = 2 + KeyId::LEN;
        bytes[from..from + name.len()].copy_from_slice(name);
        Self { bytes, len: from + name.len() }
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A key that is always the same for the same number.
    pub(crate) fn key(n: u8) -> Key {
        Key::parse(&Secret::new(text(n).into_bytes())).unwrap()
    }
    pub(crate) fn text(n: u8) -> String {
        hex::encode((0..32).map(|at| at ^ n.wrapping_mul(41)).collect::<Vec<u8>>())
    }
    /// The first one seals.
    pub(crate) fn keyring(keys: &[u8]) -> Keyring {
        Keyring::new(keys.iter().map(|n| key(*n)).collect(), Sealing::On)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{key, keyring, text};
    use super::*;

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_never_looks_the_same_twice(plain: Vec<u8>, name: [u8; 16]) {
            let keys = keyring(&[1]);
            let sealed = keys.seal(Kind::Event, &name, &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(plain_len(&sealed), plain.len());
            prop_assert_eq!(&keys.open(Kind::Event, &name, &sealed).unwrap()[..], &plain[..]);
            prop_assert_ne!(keys.seal(Kind::Event, &name, &plain).unwrap(), sealed.clone());
            if plain.len() > 8 {
                prop_assert!(memchr::memmem::find(&sealed, &plain).is_none());
            }
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(plain: Vec<u8>, bit: prop::sample::Index) {
            let keys = keyring(&[1, 2]);
            let mut sealed = keys.seal(Kind::Job, b"name", &plain).unwrap();
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            match keys.open(Kind::Job, b"name", &sealed) {
                // The first byte says that it is sealed: without it a record's own version is refused.
                Ok(same) => prop_assert!(bit < 8 && same[0] != 1 && same[0] != SEALED),
                Err(error) => {
                    let in_id = (8..72).contains(&bit);
                    prop_assert_eq!(matches!(error, NotOpened::UnknownKey(_)), in_id);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_never_a_panic(mut bytes: Vec<u8>) {
            let keys = keyring(&[1]);
            let _ = keys.open(Kind::Event, &[0; 16], &bytes);
            if bytes.len() > 8 {
                bytes[0] = SEALED;
                bytes[1..9].copy_from_slice(&key(1).id().0);
            }
            let _ = keys.open(Kind::Event, &[0; 16], &bytes);
        }
    }

    #[test]
    fn a_record_in_the_place_of_another_does_not_open() {
        let keys = keyring(&[1]);
        let sealed = keys.seal(Kind::Event, &[7; 16], b"body").unwrap();
        for (kind, name) in [(Kind::Job, &[7; 16][..]), (Kind::Event, &[8; 16]), (Kind::Event, &[7; 15])] {
            assert_eq!(keys.open(kind, name, &sealed), Err(NotOpened::Changed));
        }
        assert_eq!(
            keyring(&[2]).open(Kind::Event, &[7; 16], &sealed),
            Err(NotOpened::UnknownKey(key(1).id()))
        );
        // A cut one, down to nothing of it.
        for end in 1..sealed.len() {
            assert!(keys.open(Kind::Event, &[7; 16], &sealed[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open_in_any_order() {
        let old = keyring(&[1]).seal(Kind::Event, b"", b"old").unwrap();
        let both = keyring(&[2, 1]);
        assert_eq!(&both.open(Kind::Event, b"", &old).unwrap()[..], b"old");
        let new = both.seal(Kind::Event, b"", b"new").unwrap();
        assert_eq!((key_of(&old), key_of(&new)), (Some(key(1).id()), Some(key(2).id())));
        assert_eq!(&keyring(&[1, 2]).open(Kind::Event, b"", &new).unwrap()[..], b"new");
        let off = Keyring::new(vec![key(1)], Sealing::Off);
        assert_eq!(off.seal(Kind::Event, b"", b"\x01plain").unwrap(), b"\x01plain");
        assert_eq!(&off.open(Kind::Event, b"", &old).unwrap()[..], b"old");
        assert_eq!(&off.open(Kind::Event, b"", b"\x01plain").unwrap()[..], b"\x01plain");
    }

    #[test]
    fn a_key_is_32_bytes_in_hex_or_base64() {
        let bytes: Vec<u8> = (200..232).collect();
        let parse = |text: &str| Key::parse(&Secret::new(text.as_bytes().to_vec()));
        let id = parse(&hex::encode(&bytes)).unwrap().id();
        let standard = STANDARD.encode(&bytes);
        for text in [
            hex::encode(&bytes).to_uppercase(),
            standard.trim_end_matches('=').to_owned(),
            URL_SAFE.encode(&bytes),
            format!(" {standard}\n"),
            standard,
        ] {
            assert_eq!(parse(&text).unwrap().id(), id, "{text}");
        }
        assert_eq!(parse("correct horse").unwrap_err(), BadKey::NoText);
        assert_eq!(parse(&hex::encode(&bytes[1..])).unwrap_err().to_string(), "it has 31 bytes");
        assert_eq!(parse(&STANDARD.encode(&bytes[1..])).unwrap_err(), BadKey::Length(31));
        assert_eq!(parse(&"00".repeat(32)).unwrap_err(), BadKey::Trivial);
        assert_eq!(format!("{:?}", key(1)), format!("Key({})", key(1).id()));
        assert!(!format!("{:?}", keyring(&[1])).contains(&text(1)));
    }

    /// So that stores that were sealed once open for ever: made with an independent implementation of HKDF and AES-GCM.
    #[test]
    fn keys_are_derived_as_the_standards_say() {
        use hmac::{Hmac, KeyInit, Mac};
        let mac = |key: &[u8], parts: &[&[u8]]| {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
            parts.iter().for_each(|part| mac.update(part));
            mac.finalize().into_bytes()
        };
        let prk = mac(b"tidegate buffer", &[&hex::decode(text(1)).unwrap()]);
        assert_eq!(key(1).id().0[..], mac(&prk, &[b"id", &[1]])[..8]);
        let sealed = keyring(&[1]).seal(Kind::Event, &[7; 16], b"body").unwrap();
        let once = mac(&prk, &[b"record", &sealed[9..33], &[1]]);
        let once = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &once).unwrap());
        let mut aad = vec![1];
        aad.extend(key(1).id().0);
        aad.push(16);
        aad.extend([7; 16]);
        let mut inner = sealed[33..].to_vec();
        assert_eq!(once.open_in_place(ZERO(), Aad::from(&aad), &mut inner).unwrap(), b"body");
    }
}
