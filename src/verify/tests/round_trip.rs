//! What is signed by a rule passes it; one change, and it does not.

use proptest::prelude::*;

use super::{NOW, compiled, refused};
use crate::message::Request;
use crate::verify::sign::with_headers;
use crate::verify::testing::request;
use crate::verify::{Compiled, PrivateKey};

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn signed(rule: &Compiled, draft: &Request, private_key: Option<&PrivateKey>) -> Request {
    let headers = rule.verifier.sign(draft, None, NOW, private_key).unwrap_or_else(|error| panic!("{error}"));
    with_headers(draft, &headers)
}

/// Rules for every shared-secret algorithm and every form in which signatures are written.
fn rules() -> Vec<String> {
    let mut rules = Vec::new();
    for algorithm in ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"] {
        for encoding in ["hex", "base64", "base64url"] {
            for (signed, rest) in [
                ("{body}", "from: header:X-Sig, prefix: 'p='"),
                ("{timestamp}.{body}", "from: header:X-Sig, list: ',', item: v1"),
                ("{id}{method}{url}{header:X-Nonce}{body|sha256}{timestamp}", "from: header:X-Sig"),
            ] {
                let time = match signed {
                    "{body}" => "",
                    "{timestamp}.{body}" => "timestamp: { from: 'item:t', format: unix-ms },",
                    _ => "timestamp: { from: header:X-Time, format: rfc3339 }, id: header:X-Id,",
                };
                rules.push(format!(
                    "{{ algorithm: {algorithm}, signed: '{signed}', {time} secret: {SECRET}, \
                     signature: {{ {rest}, encoding: {encoding} }} }}"
                ));
            }
        }
    }
    for hash in ["sha1", "sha256"] {
        rules.push(format!(
            "{{ algorithm: {hash}, signed: '{{body}}{{secret}}', secret: {SECRET}, signature: {{ from: header:X, encoding: hex }} }}"
        ));
    }
    for decode in ["text", "hex", "base64"] {
        rules.push(format!(
            "{{ algorithm: hmac-sha256, key: {{ prefix: whsec_, decode: {decode}, hash: sha1, append: '&' }}, \
             secret: whsec_{SECRET}, signature: {{ from: header:X, encoding: hex }} }}"
        ));
    }
    rules.push(format!(
        "{{ algorithm: token, secret: {SECRET}, signature: {{ from: header:X, prefix: 'T ' }} }}"
    ));
    rules.push(format!("{{ jwt: {{ algorithms: HS512, secrets: [{SECRET}], issuer: i, audience: [a, b], body_hash: {{ claim: h }} }} }}"));
    rules.push(format!("{{ api_key: {{ header: X-Key, keys: [{SECRET}] }} }}"));
    rules.push("{ bearer: { tokens: [abc] } }".to_owned());
    rules.push("{ basic: { users: [{ name: u, password: p }] } }".to_owned());
    rules.push(format!(
        "{{ all: [{{ bearer: {{ tokens: [abc] }} }}, {{ provider: github, secret: {SECRET} }}] }}"
    ));
    rules.push(format!("{{ http_signature: {{ algorithms: hmac-sha256 }}, secret: {SECRET} }}"));
    // Of each kind one: all packs are held against requests that were signed elsewhere, see `vectors`.
    for pack in ["github", "gitlab", "shopify", "slack", "standard-webhooks", "stripe"] {
        rules.push(format!("{{ provider: {pack}, secret: {SECRET} }}"));
    }
    rules
}

#[test]
fn what_is_signed_passes() {
    for rule in rules() {
        let compiled = compiled(&rule);
        let r = signed(&compiled, &request("/in?x=1", &[], b"{}"), None);
        assert_eq!(refused(&compiled, &r), None, "{rule}");
    }
}

#[test]
fn another_body_does_not_pass_where_the_body_is_signed() {
    for rule in rules().into_iter().filter(|rule| rule.contains("{body")) {
        let compiled = compiled(&rule);
        let mut r = signed(&compiled, &request("/in?x=1", &[], b"{}"), None);
        r.body = b"{ }".to_vec().into();
        assert!(refused(&compiled, &r).is_some(), "{rule}");
    }
}

#[test]
fn public_keys_verify_what_their_private_keys_sign() {
    use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    for (algorithm, kind) in [
        ("ed25519", &PKCS_ED25519),
        ("ecdsa-p256-sha256", &PKCS_ECDSA_P256_SHA256),
        ("ecdsa-p256-sha256-fixed", &PKCS_ECDSA_P256_SHA256),
        ("ecdsa-p384-sha384", &PKCS_ECDSA_P384_SHA384),
        ("ecdsa-p384-sha384-fixed", &PKCS_ECDSA_P384_SHA384),
    ] {
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let key = pair.public_key_pem().replace('\n', "\\n");
        let rule = compiled(&format!(
            "{{ algorithm: {algorithm}, signed: '{{timestamp}}{{body}}', timestamp: {{ from: header:T }}, \
             signature: {{ from: header:X, encoding: base64 }}, public_keys: [{{ secret: \"{key}\", label: new }}] }}"
        ));
        let private = PrivateKey::from_pem(&pair.serialize_pem()).unwrap();
        let draft = request("/", &[], b"{}");
        let mut r = signed(&rule, &draft, Some(&private));
        assert_eq!(refused(&rule, &r), None, "{algorithm}");
        let verified = rule.verifier.verify(r.clone(), None, NOW).unwrap();
        assert_eq!((&**verified.by(), verified.label().map(|l| &**l)), (algorithm, Some("new")));
        r.body = b"{ }".to_vec().into();
        assert!(refused(&rule, &r).is_some(), "{algorithm}");
        assert!(rule.verifier.sign(&draft, None, NOW, None).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_body_that_is_signed_passes_and_with_one_bit_changed_does_not(
        body in proptest::collection::vec(any::<u8>(), 1..300),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let rule = compiled(&format!("{{ provider: stripe, secret: {SECRET} }}"));
        let mut r = signed(&rule, &request("/", &[], &body), None);
        prop_assert_eq!(refused(&rule, &r), None);
        let mut changed = body.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        r.body = changed.into();
        prop_assert!(refused(&rule, &r).is_some());
    }
}
