//! What people get wrong about tokens: the first thing that is wrong, and what would make it right.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use serde_json::{Map, Value};

use super::claims::Parts;
use super::explain::{Seen, names, shown};
use super::{ClaimDigest, Jwt};
use crate::reason::Reason;
use crate::verify::Refusal;
use crate::verify::encoding::Encoding;
use crate::verify::explain::credential::unquoted;
use crate::verify::explain::{Asked, Likely, bodies, tries};
use crate::verify::mac::Hash;
use crate::verify::url;

/// The likeliest mistakes behind `refusal`. `value` is what stands at the token's place.
pub(super) fn likely(
    rule: &Jwt,
    refusal: &Refusal,
    value: Option<&[u8]>,
    seen: Option<&Seen<'_>>,
    asked: &Asked<'_>,
) -> Vec<Likely> {
    if refusal.reason == Reason::KeyUnavailable {
        let text = "its key would be fetched, and is not here: a gateway that runs may decide otherwise";
        return vec![Likely::new("key_fetched", text)];
    }
    let found = match (value, seen) {
        (None, _) => absent(rule, asked),
        (Some(value), None) => unreadable(rule, value),
        (Some(_), Some(seen)) => of_token(rule, refusal, seen, asked),
    };
    vec![found.unwrap_or_else(|| {
        Likely::new(
            "unknown",
            "nothing that was tried explains it: most likely a token for another environment",
        )
    })]
}

fn absent(rule: &Jwt, asked: &Asked<'_>) -> Option<Likely> {
    let wanted = rule.location.header()?;
    let carries = |value: &[u8]| {
        let bare = super::super::credentials::after_scheme(value, "bearer").unwrap_or(value);
        is_token(bare)
    };
    let mut headers = asked.request.head.headers.iter();
    if let Some((name, _)) = headers.find(|(_, value)| carries(value)) {
        let text =
            format!("the request has no `{wanted}`, but a token in `{name}`: set `jwt.header: {name}`");
        return Some(Likely::new("header_name", text));
    }
    Some(match tries::header_alike(wanted, asked.request) {
        Some(there) => Likely::new(
            "header_name",
            format!("the request has no `{wanted}`, but `{there}`: is that what holds the token?"),
        ),
        None => Likely::new(
            "unknown",
            "there is no token: another provider, a request that was not sent by the provider at all, or a proxy that \
             takes the header away",
        ),
    })
}

fn unreadable(rule: &Jwt, value: &[u8]) -> Option<Likely> {
    let bare = super::super::credentials::after_scheme(value, "bearer").unwrap_or(value);
    if is_token(bare) {
        return Some(match algorithm(bare) {
            Some(name) if name.eq_ignore_ascii_case("none") => {
                Likely::new("unsigned", "the token says `alg: none`: it is not signed, and never accepted")
            }
            // The word is only missing: without it nothing is looked at.
            _ if std::ptr::eq(bare, value) && rule.location.header() == Some("authorization") => Likely::new(
                "bearer",
                "the token stands in `Authorization` without the word `Bearer` before it",
            ),
            _ => Likely::new("algorithm", "the token's header names no algorithm that is known here"),
        });
    }
    if is_token(unquoted(bare)) {
        return Some(Likely::new("token_quotes", "the token is written in quotes"));
    }
    if super::super::credentials::after_scheme(value, "basic").is_some() {
        return Some(Likely::new(
            "other_scheme",
            "it is HTTP basic authentication: `basic` is the rule for that",
        ));
    }
    Some(Likely::new(
        "not_a_token",
        "it is no JSON Web Token (three parts with dots between them): if it is a fixed token or key, `bearer` or \
         `api_key` is the rule for that",
    ))
}

fn of_token(rule: &Jwt, refusal: &Refusal, seen: &Seen<'_>, asked: &Asked<'_>) -> Option<Likely> {
    let alg = seen.header.alg;
    if !rule.algorithms.contains(&alg) {
        return Some(Likely::new(
            "algorithm",
            format!("the sender signs with {alg:?}, and the rule accepts only {}", names(&rule.algorithms)),
        ));
    }
    if rule.verified_claims(seen.token, asked.request.head.client, asked.now).is_err() {
        return signature(rule, seen, asked);
    }
    let claims = seen.claims.as_ref()?;
    if refusal.reason == Reason::TokenExpired {
        return Some(Likely::new(
            "clock",
            format!(
                "the signature is right, only its time is not ({}): a token that was kept or sent again, or a clock that \
                 is wrong",
                refusal.detail
            ),
        ));
    }
    for name in ["exp", "nbf", "iat"] {
        if claims.get(name).and_then(Value::as_f64).is_some_and(|number| number >= 1e12) {
            let text = format!("`{name}` is written in milliseconds; a token's times are in seconds");
            return Some(Likely::new("time_unit", text));
        }
    }
    for (name, accepted) in [("iss", &rule.issuers), ("aud", &rule.audiences)] {
        if let Some(found) = claims.get(name).filter(|_| !accepted.is_empty())
            && let Some(likely) = other_value(name, found, accepted)
        {
            return Some(likely);
        }
    }
    for (name, accepted) in rule.claims.iter().filter(|(_, accepted)| !accepted.is_empty()) {
        if let Some(found) = super::claim(claims, name)
            && let Some(likely) = other_value(name, found, accepted)
        {
            return Some(likely);
        }
    }
    if refusal.detail.ends_with("is missing") {
        let text = format!("{}: a token for another purpose, or another issuer's", refusal.detail);
        return Some(Likely::new("claim_missing", text));
    }
    if let Some(digest) = &rule.body_hash
        && digest.check(claims, &asked.request.body, "body").is_err()
    {
        return Some(body(digest, claims, &asked.request.body));
    }
    rule.url_hash.as_ref().map(|_| {
        let url = url::public(&asked.request.head, asked.public_url);
        Likely::new(
            "url",
            format!("the token is for another URL than {url}: set `public_url` to what the sender calls"),
        )
    })
}

fn signature(rule: &Jwt, seen: &Seen<'_>, asked: &Asked<'_>) -> Option<Likely> {
    let alg = seen.header.alg;
    let right = |secret: &[u8]| {
        let key = DecodingKey::from_secret(secret);
        matches!(jsonwebtoken::crypto::verify(seen.parts.signature, seen.parts.signed, &key, alg), Ok(true))
    };
    if alg.family() != AlgorithmFamily::Hmac {
        if let (Some(set), Some(kid)) = (&rule.set, &seen.header.kid)
            && let Ok(decoded) = set.current(Some(kid), asked.request.head.client)
            && decoded.keys.iter().all(|key| key.kid.as_ref() != Some(kid))
        {
            let text = "the key that the token names is not in the key set: it is of another issuer or environment, or \
                        the set here is older than the key";
            return Some(Likely::new("key_id", text));
        }
        let text =
            "it is not signed with a key that is accepted here: most likely of another issuer or environment";
        return Some(Likely::new("key", text));
    }
    for secret in rule.shared_secrets() {
        for (code, form, how) in tries::forms(secret.expose()) {
            if right(&form) {
                return Some(Likely::new(code, format!("the signature is right for the secret {how}")));
            }
        }
    }
    if let Some(other) = asked.foreign.iter().find(|other| right(other.secret.expose())) {
        let text = format!("the signature is right for the secret of the route `{}`", other.route);
        return Some(Likely::new("other_route", text));
    }
    let text = "it is signed with a secret that is not configured: most likely an old one, or one of another endpoint or \
                environment";
    Some(Likely::new("secret", text))
}

/// `None` if the value is accepted.
fn other_value(name: &str, found: &Value, accepted: &[String]) -> Option<Likely> {
    let texts: Vec<String> = match found {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) if name == "aud" => {
            values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        }
        other => vec![other.to_string()],
    };
    if texts.iter().any(|text| accepted.contains(text)) {
        return None;
    }
    let bare = |text: &str| text.trim().trim_end_matches('/').to_ascii_lowercase();
    let near = accepted.iter().find(|one| texts.iter().any(|text| bare(text) == bare(one)));
    Some(match near {
        Some(near) => Likely::new(
            "claim_form",
            format!(
                "`{name}` is {} and `{near}` is accepted: they differ only in case, white space or a final slash, and must \
                 be the same",
                shown(Some(found))
            ),
        ),
        None => Likely::new(
            "claim",
            format!(
                "`{name}` is {}, which is not accepted: a token for another purpose or environment",
                shown(Some(found))
            ),
        ),
    })
}

fn body(rule: &ClaimDigest, claims: &Map<String, Value>, body: &[u8]) -> Likely {
    if !claims.contains_key(&rule.claim) {
        let text = format!("the token has no `{}`: it says nothing of the body", rule.claim);
        return Likely::new("claim_missing", text);
    }
    for hash in Hash::ALL {
        for (encoding, name) in
            [(Encoding::Hex, "hex"), (Encoding::Base64, "base64"), (Encoding::Base64Url, "base64url")]
        {
            let other = ClaimDigest { hash: *hash, encoding, claim: rule.claim.clone(), ..*rule };
            if other.check(claims, body, "body").is_ok() {
                let text =
                    format!("`{}` is the body's {} in {name}: say so in the rule", rule.claim, hash.name());
                return Likely::new("digest_form", text);
            }
        }
    }
    let before =
        bodies::others(body).into_iter().find(|other| rule.check(claims, &other.body, "body").is_ok());
    match before {
        Some(other) => Likely::new(other.code, format!("the digest is right for {}", other.text)),
        None => Likely::new(
            "body",
            "the body is not the one that the token was made for: another request's, or changed",
        ),
    }
}

/// Whether it has a token's form: three parts, of which the first is JSON.
fn is_token(bytes: &[u8]) -> bool {
    Parts::of(bytes).is_some() && algorithm(bytes).is_some()
}

/// The algorithm as the header names it.
fn algorithm(token: &[u8]) -> Option<String> {
    let header = token.split(|byte| *byte == b'.').next()?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    header.get("alg")?.as_str().map(str::to_owned)
}
