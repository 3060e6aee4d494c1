//! Public keys as providers show them (PEM, DER in base64, raw bytes in hex or base64) and what they verify, by ring.

use ring::signature::{self as ring_signature, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::encoding::decode_base64_secret;

/// Signature algorithms with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asymmetric {
    Ed25519,
    /// DER signatures.
    EcdsaP256Sha256,
    /// `r` and `s` side by side, 64 bytes.
    EcdsaP256Sha256Fixed,
    EcdsaP384Sha384,
    EcdsaP384Sha384Fixed,
    RsaPkcs1Sha1,
    RsaPkcs1Sha256,
    RsaPkcs1Sha384,
    RsaPkcs1Sha512,
    RsaPssSha256,
    RsaPssSha384,
    RsaPssSha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
    P384,
    Rsa,
}

impl Asymmetric {
    const ALL: &[Asymmetric] = &[
        Asymmetric::Ed25519,
        Asymmetric::EcdsaP256Sha256,
        Asymmetric::EcdsaP256Sha256Fixed,
        Asymmetric::EcdsaP384Sha384,
        Asymmetric::EcdsaP384Sha384Fixed,
        Asymmetric::RsaPkcs1Sha1,
        Asymmetric::RsaPkcs1Sha256,
        Asymmetric::RsaPkcs1Sha384,
        Asymmetric::RsaPkcs1Sha512,
        Asymmetric::RsaPssSha256,
        Asymmetric::RsaPssSha384,
        Asymmetric::RsaPssSha512,
    ];

    /// Bytes of a signature, at least; `None` where they differ too much.
    pub(super) fn signature_length(self) -> Option<usize> {
        match self {
            Asymmetric::Ed25519 | Asymmetric::EcdsaP256Sha256Fixed => Some(64),
            Asymmetric::EcdsaP384Sha384Fixed => Some(96),
            Asymmetric::EcdsaP256Sha256 | Asymmetric::EcdsaP384Sha384 => None,
            // Of the shortest keys.
            _ => Some(256),
        }
    }

    fn kind(self) -> Kind {
        match self {
            Asymmetric::Ed25519 => Kind::Ed25519,
            Asymmetric::EcdsaP256Sha256 | Asymmetric::EcdsaP256Sha256Fixed => Kind::P256,
            Asymmetric::EcdsaP384Sha384 | Asymmetric::EcdsaP384Sha384Fixed => Kind::P384,
            _ => Kind::Rsa,
        }
    }

    fn ring(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Asymmetric::Ed25519 => &ring_signature::ED25519,
            Asymmetric::EcdsaP256Sha256 => &ring_signature::ECDSA_P256_SHA256_ASN1,
            Asymmetric::EcdsaP256Sha256Fixed => &ring_signature::ECDSA_P256_SHA256_FIXED,
            Asymmetric::EcdsaP384Sha384 => &ring_signature::ECDSA_P384_SHA384_ASN1,
            Asymmetric::EcdsaP384Sha384Fixed => &ring_signature::ECDSA_P384_SHA384_FIXED,
            Asymmetric::RsaPkcs1Sha1 => &ring_signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Asymmetric::RsaPkcs1Sha256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            Asymmetric::RsaPkcs1Sha384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            Asymmetric::RsaPkcs1Sha512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
            Asymmetric::RsaPssSha256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
            Asymmetric::RsaPssSha384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
            Asymmetric::RsaPssSha512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        }
    }
}

/// A public key that fits its algorithm: 32 bytes for Ed25519, an uncompressed point for ECDSA, PKCS#1 for RSA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublicKey {
    algorithm: Asymmetric,
    bytes: Box<[u8]>,
}

impl PublicKey {
    /// Reads a key as the provider shows it. The error says what is wrong, for the user.
    pub(super) fn parse(algorithm: Asymmetric, text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the public key is empty".to_owned());
        }
        let kind = algorithm.kind();
        let der = if text.starts_with("-----BEGIN") {
            match <(SectionKind, Vec<u8>) as PemObject>::from_pem_slice(text.as_bytes()) {
                Ok((SectionKind::PublicKey, der)) => spki(&der, kind)?,
                Ok((SectionKind::Certificate, der)) => spki(
                    certificate_spki(&der).ok_or("the certificate can't be read: not X.509 in DER")?,
                    kind,
                )?,
                Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                    return Err("this is a private key; only the public one is needed here".to_owned());
                }
                Ok(_) | Err(_) => rsa_pem(text)
                    .ok_or("the PEM text holds no `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`")?,
            }
        } else {
            let compact: String = text.split_ascii_whitespace().collect();
            let is_hex = compact.len() >= 64 && compact.len().is_multiple_of(2);
            let bytes = match hex::decode(&compact) {
                Ok(bytes) if is_hex => bytes,
                _ => decode_base64_secret(compact.as_bytes())
                    .ok_or("the public key is neither PEM, hex nor base64")?,
            };
            raw(&bytes, kind)?
        };
        Self::checked(algorithm, der)
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn of_spki(algorithm: Asymmetric, der: &[u8]) -> Result<Self, String> {
        Self::checked(algorithm, spki(der, algorithm.kind())?)
    }

    fn checked(algorithm: Asymmetric, bytes: Vec<u8>) -> Result<Self, String> {
        let length = bytes.len();
        match algorithm.kind() {
            Kind::Ed25519 if length != 32 => Err(format!("an Ed25519 key has 32 bytes, this one {length}")),
            Kind::Ed25519 if is_weak(&bytes) => {
                Err("this Ed25519 key is a weak point: anybody could sign for it".to_owned())
            }
            Kind::P256 if length != 65 || bytes[0] != 4 => {
                Err("a P-256 key is an uncompressed point of 65 bytes".to_owned())
            }
            Kind::P384 if length != 97 || bytes[0] != 4 => {
                Err("a P-384 key is an uncompressed point of 97 bytes".to_owned())
            }
            Kind::Rsa => match modulus_bits(&bytes) {
                Some(bits) if bits < 2048 => Err(format!("RSA with {bits} bits is too weak: at least 2048")),
                Some(bits) if bits > 8192 => Err(format!("RSA with {bits} bits is too large: at most 8192")),
                Some(_) => Ok(Self { algorithm, bytes: bytes.into() }),
                None => Err("this is not an RSA public key".to_owned()),
            },
            _ => Ok(Self { algorithm, bytes: bytes.into() }),
        }
    }

    /// Whether `signature` over `message` is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.ring(), &self.bytes).verify(message, signature).is_ok()
    }

    /// The same key for each other algorithm that its kind is used with.
    pub(super) fn otherwise_used(&self) -> impl Iterator<Item = Self> {
        let others = Asymmetric::ALL.iter().copied();
        let others = others.filter(|other| *other != self.algorithm && other.kind() == self.algorithm.kind());
        others.map(|algorithm| Self { algorithm, bytes: self.bytes.clone() })
    }

    pub(super) fn algorithm(&self) -> Asymmetric {
        self.algorithm
    }

    /// The key's bytes (see the type).
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The encodings of Ed25519 points of small order, without the sign bit: under such a key one signature fits every message.
const WEAK: [[u8; 32]; 7] = {
    const fn ends(first: u8, others: u8, last: u8) -> [u8; 32] {
        let mut bytes = [others; 32];
        bytes[0] = first;
        bytes[31] = last;
        bytes
    }
    [
        ends(0x00, 0x00, 0x00),
        ends(0x01, 0x00, 0x00),
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
        ends(0xec, 0xff, 0x7f),
        ends(0xed, 0xff, 0x7f),
        ends(0xee, 0xff, 0x7f),
    ]
};

fn is_weak(key: &[u8]) -> bool {
    WEAK.iter().any(|weak| {
        key.split_last().is_some_and(|(last, rest)| rest == &weak[..31] && last & 0x7f == weak[31])
    })
}

/// Key bytes without PEM armour: SPKI, PKCS#1, or the raw key.
fn raw(bytes: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let is_raw = match kind {
        Kind::Ed25519 => bytes.len() == 32,
        Kind::P256 => bytes.len() == 65 && bytes[0] == 4,
        Kind::P384 => bytes.len() == 97 && bytes[0] == 4,
        Kind::Rsa => modulus_bits(bytes).is_some(),
    };
    if is_raw { Ok(bytes.to_vec()) } else { spki(bytes, kind) }
}

const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

/// The key inside a SubjectPublicKeyInfo, which must be of `kind`.
fn spki(der: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let read = || -> Option<(Option<Kind>, Vec<u8>)> {
        let (body, rest) = Der(der).take(SEQUENCE)?;
        let (algorithm, after) = Der(body).take(SEQUENCE)?;
        let (key, end) = Der(after).take(BIT_STRING)?;
        let (oid, parameters) = Der(algorithm).take(OBJECT_ID)?;
        if !rest.is_empty() || !end.is_empty() {
            return None;
        }
        let found = match oid {
            OID_ED25519 => Some(Kind::Ed25519),
            OID_RSA => Some(Kind::Rsa),
            OID_EC => match Der(parameters).take(OBJECT_ID)?.0 {
                OID_P256 => Some(Kind::P256),
                OID_P384 => Some(Kind::P384),
                _ => None,
            },
            _ => None,
        };
        // The first byte of a bit string counts its unused bits; keys use all.
        key.split_first().filter(|(unused, _)| **unused == 0).map(|(_, key)| (found, key.to_vec()))
    };
    match read() {
        Some((Some(found), key)) if found == kind => Ok(key),
        Some((Some(found), _)) => {
            Err(format!("this is a key for {found:?}, the algorithm needs one for {kind:?}"))
        }
        Some((None, _)) => Err("the key is of a kind that is not supported".to_owned()),
        None => Err(format!("this is not a public key for {kind:?}")),
    }
}

/// The SubjectPublicKeyInfo of a certificate.
pub(super) fn certificate_spki(der: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (certificate, _) = Der(der).take(SEQUENCE)?;
    let (mut rest, _) = Der(certificate).take(SEQUENCE)?;
    if let Some((_, after)) = Der(rest).take(VERSION) {
        rest = after;
    }
    (_, rest) = Der(rest).take(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        (_, rest) = Der(rest).take(SEQUENCE)?;
    }
    let (_, after) = Der(rest).take(SEQUENCE)?;
    rest.get(..rest.len() - after.len())
}

/// `-----BEGIN RSA PUBLIC KEY-----`, which the PEM reader has no name for.
fn rsa_pem(text: &str) -> Option<Vec<u8>> {
    let inside = text.strip_prefix("-----BEGIN RSA PUBLIC KEY-----")?.split("-----END").next()?;
    decode_base64_secret(inside.split_ascii_whitespace().collect::<String>().as_bytes())
}

/// The bits of the modulus in a PKCS#1 RSAPublicKey.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let (body, rest) = Der(der).take(SEQUENCE)?;
    let (modulus, after) = Der(body).take(INTEGER)?;
    let (_, end) = Der(after).take(INTEGER)?;
    let significant = &modulus[modulus.iter().position(|b| *b != 0)?..];
    let bits = significant.len() * 8 - significant.first()?.leading_zeros() as usize;
    (rest.is_empty() && end.is_empty()).then_some(bits)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;

/// A reader of DER values; never looks past its bytes.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The content of the first value, which must have `tag`, and what follows it.
    fn take(&self, tag: u8) -> Option<(&'d [u8], &'d [u8])> {
        let (found, rest) = self.0.split_first()?;
        if *found != tag {
            return None;
        }
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(*short), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        rest.split_at_checked(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    const P256_SPKI: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEy0l4SGWFbdRpkRpBZrDWf1cjs6ZjwjEjIGBkS1LIa+JwOjC51yMeBM90ALZ40MdRwjhNmGAlOuUbSbWHA4QPjA==";

    #[test]
    fn a_key_is_read_in_each_of_its_dresses() {
        let spki = STANDARD.decode(P256_SPKI).unwrap();
        let point = &spki[spki.len() - 65..];
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{P256_SPKI}\n-----END PUBLIC KEY-----\n");
        for text in
            [P256_SPKI.to_owned(), pem, hex::encode(point), STANDARD.encode(point), format!(" {P256_SPKI}\n")]
        {
            let key = PublicKey::parse(Asymmetric::EcdsaP256Sha256, &text).unwrap();
            assert_eq!(key.as_bytes(), point, "{text}");
        }
        let ed = "12b611edf90059d91a162c78f71679d9f0031a7f821656e38060e4177cc3f7d2";
        assert_eq!(PublicKey::parse(Asymmetric::Ed25519, ed).unwrap().as_bytes(), hex::decode(ed).unwrap());
    }

    #[test]
    fn a_certificate_gives_its_key() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().self_signed(&pair).unwrap();
        let key = PublicKey::parse(Asymmetric::EcdsaP256Sha256, &certificate.pem()).unwrap();
        assert_eq!(key, PublicKey::parse(Asymmetric::EcdsaP256Sha256, &pair.public_key_pem()).unwrap());
        let private = PublicKey::parse(Asymmetric::EcdsaP256Sha256, &pair.serialize_pem());
        assert!(private.unwrap_err().contains("private key"));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        for algorithm in [Asymmetric::Ed25519, Asymmetric::RsaPkcs1Sha256, Asymmetric::EcdsaP384Sha384] {
            let error = PublicKey::parse(algorithm, P256_SPKI).unwrap_err();
            assert!(error.contains("P256"), "{error}");
        }
        for bad in ["", "zz", "-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----", "AAAA"] {
            assert!(PublicKey::parse(Asymmetric::Ed25519, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn weak_rsa_is_refused() {
        // SEQUENCE { INTEGER modulus of 1024 bits, INTEGER 65537 }
        let mut inside = vec![INTEGER, 0x81, 0x81, 0];
        inside.extend([0xff; 128]);
        inside.extend([INTEGER, 3, 1, 0, 1]);
        let mut der = vec![SEQUENCE, 0x81, u8::try_from(inside.len()).unwrap()];
        der.extend(inside);
        let error = PublicKey::parse(Asymmetric::RsaPkcs1Sha256, &STANDARD.encode(der)).unwrap_err();
        assert!(error.contains("1024 bits"), "{error}");
    }

    #[test]
    fn a_zero_signature_is_none_for_ecdsa() {
        let key = PublicKey::parse(Asymmetric::EcdsaP256Sha256, P256_SPKI).unwrap();
        assert!(!key.verifies(b"m", &[0x30, 6, 2, 1, 0, 2, 1, 0]));
        let fixed = PublicKey::parse(Asymmetric::EcdsaP256Sha256Fixed, P256_SPKI).unwrap();
        assert!(!fixed.verifies(b"m", &[0; 64]));
    }

    /// Under the neutral point the signature of nothing fits everything.
    #[test]
    fn a_weak_ed25519_key_is_refused() {
        for last in ["00", "80"] {
            let key = format!("01{}{last}", "00".repeat(30));
            let of = |bytes: Vec<u8>| PublicKey { algorithm: Asymmetric::Ed25519, bytes: bytes.into() };
            let signature = [&[1][..], &[0; 63]].concat();
            if last == "00" {
                assert!(of(hex::decode(&key).unwrap()).verifies(b"anything", &signature));
            }
            assert!(PublicKey::parse(Asymmetric::Ed25519, &key).unwrap_err().contains("weak"), "{key}");
        }
        for weak in WEAK {
            assert!(PublicKey::parse(Asymmetric::Ed25519, &hex::encode(weak)).unwrap_err().contains("weak"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), text in "\\PC{0,80}") {
            for algorithm in [Asymmetric::Ed25519, Asymmetric::EcdsaP256Sha256, Asymmetric::RsaPssSha512] {
                let _ = PublicKey::parse(algorithm, &STANDARD.encode(&bytes));
                let _ = PublicKey::parse(algorithm, &hex::encode(&bytes));
                let _ = PublicKey::parse(algorithm, &text);
                let _ = certificate_spki(&bytes);
            }
        }
    }
}
