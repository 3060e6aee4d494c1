//! A table of what goes wrong with tokens, and what people are told.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::message::Request;
use crate::verify::compile;
use crate::verify::testing::{World, compiled, explained, request, steps};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);
const RULE: &str =
    "{ jwt: { algorithms: HS256, secrets: ['0123456789abcdef0123456789abcdef'], issuer: 'https://i.example',
    audience: tidegate, required_claims: { scope: hooks }, body_hash: { claim: digest, hash: sha256 } } }";

fn good() -> Value {
    json!({
        "iss": "https://i.example", "aud": "tidegate", "scope": "hooks", "private": "not asked for",
        "iat": 1_764_000_000, "exp": 1_764_000_100,
        "digest": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    })
}

fn token_by(secret: &str, algorithm: Algorithm, claims: &Value) -> String {
    // Whatever the rule pins: what compiling installs signs.
    compiled(RULE);
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .unwrap()
}

fn token(claims: &Value) -> String {
    token_by(SECRET, Algorithm::HS256, claims)
}

fn with(name: &str, value: Value) -> String {
    let mut claims = good();
    claims[name] = value;
    token(&claims)
}

fn without(name: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    token(&claims)
}

fn sent(authorization: &str) -> Request {
    request("/in", &[("Authorization", authorization)], b"{}")
}

fn bearer(token: &str) -> Request {
    sent(&format!("Bearer {token}"))
}

#[test]
fn a_good_token_is_told_step_by_step() {
    let explanation = explained(RULE, &bearer(&token(&good())), NOW);
    assert!(explanation.decision.is_ok() && explanation.likely().next().is_none(), "{explanation:?}");
    let steps = steps(&explanation);
    for part in [
        "token: header:authorization holds a token of ",
        "header: alg HS256, accepted (HS256); no kid",
        "keys: 1 key in the config, 1 live for HS256",
        "signature: right",
        "time: exp (the end) is 2025-11-24T16:01:40.000Z, 100 s after the time of the decision",
        "60 s of difference are allowed",
        "time: iat (made) is 2025-11-24T16:00:00.000Z, 0 s",
        "claim: iss is `https://i.example`; accepted: `https://i.example`",
        "claim: aud is `tidegate`; accepted: `tidegate`",
        "claim: scope is `hooks`; accepted: `hooks`",
        "digest: digest is `44136fa3",
        "the SHA-256 of the body in Hex is `44136fa3",
        "result: right",
    ] {
        assert!(steps.contains(part), "{part}\n{steps}");
    }
    assert!(!steps.contains(SECRET) && !steps.contains("not asked for"), "{steps}");
}

#[test]
fn the_likeliest_mistake_is_named() {
    let good_token = token(&good());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let unsigned = format!("{none}.{}.", good_token.split('.').nth(1).unwrap());
    for (request, code) in [
        (request("/in", &[], b"{}"), "unknown"),
        (request("/in", &[("X-Token", &good_token)], b"{}"), "header_name"),
        (sent(&good_token), "bearer"),
        (sent("Basic YTpi"), "other_scheme"),
        (bearer(&format!("\"{good_token}\"")), "token_quotes"),
        (bearer("sk_live_abc"), "not_a_token"),
        (bearer(&unsigned), "unsigned"),
        (bearer(&token_by(SECRET, Algorithm::HS512, &good())), "algorithm"),
        (bearer(&token_by("another-secret-another-secret-1234", Algorithm::HS256, &good())), "secret"),
        (bearer(&token_by(&STANDARD.encode(SECRET), Algorithm::HS256, &good())), "secret_base64"),
        (bearer(&token_by(&format!("{SECRET}\n"), Algorithm::HS256, &good())), "secret_newline"),
        (
            bearer(&token_by("the-secret-of-another-route-0123456789", Algorithm::HS256, &good())),
            "other_route",
        ),
        (bearer(&with("exp", json!(1_763_999_000))), "clock"),
        (bearer(&with("nbf", json!(1_764_000_900))), "clock"),
        (bearer(&with("exp", json!(1_764_000_100_000_u64))), "time_unit"),
        (bearer(&without("exp")), "claim_missing"),
        (bearer(&with("iss", json!("https://I.example/"))), "claim_form"),
        (bearer(&with("iss", json!("https://j.example"))), "claim"),
        (bearer(&with("aud", json!(["a", "b"]))), "claim"),
        (bearer(&without("aud")), "claim_missing"),
        (bearer(&with("scope", json!("other"))), "claim"),
        (bearer(&without("digest")), "claim_missing"),
        (bearer(&with("digest", json!("RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o="))), "digest_form"),
        (bearer(&with("digest", json!("0".repeat(64)))), "body"),
        (Request { body: b"{}\n".to_vec().into(), ..bearer(&good_token) }, "final_newline"),
    ] {
        let explanation = explained(RULE, &request, NOW);
        assert!(explanation.decision.is_err(), "{code}: {}", steps(&explanation));
        let likely: Vec<_> = explanation.likely().map(|likely| likely.code).collect();
        assert_eq!(likely, [code], "{}", steps(&explanation));
        assert!(!format!("{explanation:?}").contains(SECRET), "{code}");
    }
}

#[test]
fn a_key_that_would_be_fetched_is_said_to_be_absent() {
    let rule = "{ jwt: { algorithms: RS256, jwks: 'https://keys.example/jwks' } }";
    let world = World { keys: Some(std::sync::Arc::new(crate::verify::NoKeys)), ..World::default() };
    let compiled = compile(&serde_saphyr::from_str(rule).unwrap(), &world).unwrap();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.AAAA", part(r#"{"alg":"RS256","kid":"k1"}"#), part("{}"));
    let explanation = compiled.verifier.explain(&bearer(&token), None, NOW, &[]);
    assert_eq!(explanation.likely().map(|likely| likely.code).collect::<Vec<_>>(), ["key_fetched"]);
    assert!(steps(&explanation).contains("header: alg RS256, accepted (RS256); kid `k1`"));
    assert!(steps(&explanation).contains("keys: key set: "), "{}", steps(&explanation));
}
