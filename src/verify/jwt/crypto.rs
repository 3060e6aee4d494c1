//! The cryptography behind `jsonwebtoken`: ring for public keys, `hmac` for shared ones. Signing is for HS* only:
//! the gateway never needs to sign otherwise.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as by_ring;

use crate::secret::same;
use crate::verify::mac::{Hash, MacKey};

/// Makes `jsonwebtoken` use this module, once a process. Must come before any token is decoded; what another part of
/// the process installed before stays.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils {
            rsa_pub_components_from_private_key: |_| Err(unsupported()),
            rsa_pub_components_from_public_key: |_| Err(unsupported()),
            ec_pub_components_from_private_key: |_, _| Err(unsupported()),
            ed_pub_components_from_private_key: |_, _| Err(unsupported()),
            compute_digest: |_, _| Err(unsupported()),
        },
    };
    INSTALLED.call_once(|| {
        let _ = PROVIDER.install_default();
    });
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

/// The digest of an HS* algorithm.
pub(super) fn hash(algorithm: Algorithm) -> Option<Hash> {
    match algorithm {
        Algorithm::HS256 => Some(Hash::Sha256),
        Algorithm::HS384 => Some(Hash::Sha384),
        Algorithm::HS512 => Some(Hash::Sha512),
        _ => None,
    }
}

struct Shared {
    algorithm: Algorithm,
    key: MacKey,
}

impl Shared {
    fn new(algorithm: Algorithm, key: &[u8]) -> Result<Self, Error> {
        let hash = hash(algorithm).ok_or_else(unsupported)?;
        let key = MacKey::new(hash, key).ok_or(ErrorKind::InvalidKeyFormat)?;
        Ok(Self { algorithm, key })
    }

    fn mac(&self, message: &[u8]) -> Result<crate::verify::mac::Output, signature::Error> {
        self.key.mac(|sink| {
            sink(message);
            Ok(())
        })
    }
}

impl Verifier<Vec<u8>> for Shared {
    fn verify(&self, message: &[u8], sent: &Vec<u8>) -> Result<(), signature::Error> {
        let expected = self.mac(message)?;
        if same(expected.as_bytes(), sent) { Ok(()) } else { Err(signature::Error::new()) }
    }
}

impl Signer<Vec<u8>> for Shared {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.mac(message)?.as_bytes().to_vec())
    }
}

impl JwtVerifier for Shared {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtSigner for Shared {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

struct Public {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], sent: &Vec<u8>) -> Result<(), signature::Error> {
        let refused = |_| signature::Error::new();
        match &self.key {
            DecodingKeyKind::SecretOrDer(bytes) => {
                let how: &dyn by_ring::VerificationAlgorithm = match self.algorithm {
                    Algorithm::ES256 => &by_ring::ECDSA_P256_SHA256_FIXED,
                    Algorithm::ES384 => &by_ring::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDSA => &by_ring::ED25519,
                    other => rsa(other).ok_or_else(signature::Error::new)?,
                };
                by_ring::UnparsedPublicKey::new(how, bytes).verify(message, sent).map_err(refused)
            }
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let how = rsa(self.algorithm).ok_or_else(signature::Error::new)?;
                // ring takes the numbers without leading zeros.
                let trimmed = |number: &[u8]| number.iter().position(|b| *b != 0).unwrap_or(number.len());
                let (n, e) = (&n[trimmed(n)..], &e[trimmed(e)..]);
                by_ring::RsaPublicKeyComponents { n, e }.verify(how, message, sent).map_err(refused)
            }
        }
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// ring's name for an RSA algorithm; each takes keys of 2048 to 8192 bits.
fn rsa(algorithm: Algorithm) -> Option<&'static by_ring::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&by_ring::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&by_ring::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&by_ring::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&by_ring::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&by_ring::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&by_ring::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    match algorithm.family() {
        AlgorithmFamily::Hmac => Ok(Box::new(Shared::new(*algorithm, key.try_get_as_bytes()?)?)),
        _ => Ok(Box::new(Public { algorithm: *algorithm, key: key.kind().clone() })),
    }
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if key.family() != AlgorithmFamily::Hmac {
        return Err(unsupported());
    }
    Ok(Box::new(Shared::new(*algorithm, key.as_bytes())?))
}
