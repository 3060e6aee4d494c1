//! The parts of a token, and its claims out of the second: read once, after the signature was found right.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::invalid;
use crate::verify::Refusal;

/// A token's parts as sent.
pub(super) struct Parts<'t> {
    /// Header and claims with the dot between them: what is signed.
    pub(super) signed: &'t [u8],
    pub(super) claims: &'t [u8],
    pub(super) signature: &'t str,
}

impl<'t> Parts<'t> {
    pub(super) fn of(token: &'t [u8]) -> Option<Self> {
        let mut dots = memchr::memchr_iter(b'.', token);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        let signature = std::str::from_utf8(token.get(second + 1..)?).ok()?;
        Some(Self { signed: token.get(..second)?, claims: token.get(first + 1..second)?, signature })
    }
}

/// The claims in a token's part.
pub(super) fn read(part: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(part);
    let json = json.map_err(|_| invalid("the token is not base64url"))?;
    let claims: Claims = serde_json::from_slice(&json)
        .map_err(|_| invalid("the token's claims are no JSON object in which each name stands once"))?;
    Ok(claims.0)
}

/// Claims of which none stands twice: two readers could take two different ones for the claim.
struct Claims(Map<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Claims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts() {
        let parts = Parts::of(b"aa.bb.cc").unwrap();
        assert_eq!((parts.signed, parts.claims, parts.signature), (&b"aa.bb"[..], &b"bb"[..], "cc"));
        for other in [&b""[..], b"aa", b"aa.bb", b"aa.bb.cc.dd", b"aa.bb.\xff"] {
            assert!(Parts::of(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn claims_are_an_object_in_which_each_name_stands_once() {
        let of = |json: &str| read(URL_SAFE_NO_PAD.encode(json).as_bytes());
        assert_eq!(of(r#"{"a":1,"b":{"c":[]}}"#).unwrap().len(), 2);
        for other in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "[]", "1", r#"{"a":1} x"#, ""] {
            assert!(of(other).is_err(), "{other}");
        }
        assert!(read(b"e30=").is_err() && read(b"e3 0").is_err());
    }
}
