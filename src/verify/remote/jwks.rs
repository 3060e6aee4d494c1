//! From a key set's JSON to the keys that may verify something. Pure.
//!
//! A set is taken or refused as a whole only for its size and shape; single keys that can't or must not verify
//! signatures are left out: symmetric ones (anyone who could fetch them could sign), RSA below 2048 bits, keys for
//! encryption, and kinds that we do not know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use serde::Deserialize;

/// Keys of one set, at most.
const MAX_KEYS: usize = 100;
/// Bits of an RSA modulus, at least.
const MIN_RSA_BITS: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSet {
    #[error("the answer is no JWK set: {0}")]
    Json(String),
    #[error("the set has {0} keys, more than {MAX_KEYS}")]
    TooMany(usize),
    #[error("the set holds no key that may verify a signature")]
    NoUsableKey,
}

pub(crate) fn parse(json: &[u8]) -> Result<JwkSet, BadSet> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a serde_json::value::RawValue>,
    }
    let set: Set<'_> = serde_json::from_slice(json).map_err(|error| BadSet::Json(error.to_string()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(BadSet::TooMany(set.keys.len()));
    }
    usable(set.keys.iter().filter_map(|key| serde_json::from_str(key.get()).ok()))
}

/// The same for keys that are read already.
pub(super) fn parse_values(keys: Vec<serde_json::Value>) -> Result<JwkSet, BadSet> {
    usable(keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()))
}

fn usable(keys: impl Iterator<Item = Jwk>) -> Result<JwkSet, BadSet> {
    let keys: Vec<Jwk> = keys.filter(may_verify).collect();
    if keys.is_empty() { Err(BadSet::NoUsableKey) } else { Ok(JwkSet { keys }) }
}

fn may_verify(key: &Jwk) -> bool {
    let strong = match &key.algorithm {
        AlgorithmParameters::OctetKey(_) => false,
        AlgorithmParameters::RSA(rsa) => bits(&rsa.n) >= MIN_RSA_BITS,
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => true,
        // A kind that we do not know proves nothing.
        _ => false,
    };
    strong && key.common.public_key_use != Some(PublicKeyUse::Encryption)
}

/// The length of a number in base64url; 0 if it is none.
fn bits(number: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(number).unwrap_or_default();
    let mut significant = bytes.iter().skip_while(|byte| **byte == 0);
    match significant.next() {
        Some(first) => significant.count() * 8 + (u8::BITS - first.leading_zeros()) as usize,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rsa(kid: &str, modulus: &[u8], more: &str) -> String {
        let n = URL_SAFE_NO_PAD.encode(modulus);
        format!(r#"{{"kty":"RSA","kid":"{kid}","n":"{n}","e":"AQAB"{more}}}"#)
    }
    fn kids(keys: &[String]) -> Result<Vec<String>, BadSet> {
        let set = parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())?;
        Ok(set.keys.into_iter().filter_map(|key| key.common.key_id).collect())
    }

    #[test]
    fn keys_that_must_not_verify_are_left_out_and_the_rest_stays() {
        let short = [&[0, 0][..], &[0x7f; 1], &[0xff; 255]].concat();
        let keys = [
            rsa("good", &[0xff; 256], ""),
            rsa("signing", &[0x80; 256], r#","use":"sig","alg":"RS256""#),
            rsa("encryption", &[0xff; 256], r#","use":"enc""#),
            rsa("short", &short, ""),
            rsa("old", &[0xff; 128], ""),
            r#"{"kty":"oct","kid":"shared","k":"AAAA"}"#.into(),
            r#"{"kty":"XYZ","kid":"unknown"}"#.into(),
            r#"{"kty":"EC","kid":"ec","crv":"P-256","x":"AA","y":"AA"}"#.into(),
            r#"{"kty":"OKP","kid":"ed","crv":"Ed25519","x":"AA"}"#.into(),
            "17".into(),
        ];
        assert_eq!(kids(&keys).unwrap(), ["good", "signing", "ec", "ed"]);
    }

    #[test]
    fn sets_without_use_or_measure_are_refused() {
        let good = rsa("k", &[0xff; 256], "");
        assert_eq!(kids(&vec![good.clone(); MAX_KEYS]).unwrap().len(), MAX_KEYS);
        assert_eq!(kids(&vec![good; MAX_KEYS + 1]), Err(BadSet::TooMany(MAX_KEYS + 1)));
        assert_eq!(kids(&[]), Err(BadSet::NoUsableKey));
        assert!(matches!(parse(b"<html>"), Err(BadSet::Json(_))));
        assert!(matches!(parse(b"{}"), Err(BadSet::Json(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..200), n in ".{0,40}") {
            let _ = parse(&input);
            let _ = bits(&n);
        }
    }
}
