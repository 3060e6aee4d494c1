//! A table of what goes wrong with HTTP message signatures, and what people are told; the requests of RFC 9421's own
//! appendix are among `verify`'s vectors.

use crate::clock::Timestamp;
use crate::message::Request;
use crate::verify::Explanation;
use crate::verify::http_signature::base;
use crate::verify::http_signature::fields;
use crate::verify::testing::{compiled, explained, request, steps};

const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const RULE: &str = "{ http_signature: { algorithms: hmac-sha256, label: sig1 }, \
                    secrets: [{ secret: '0123456789abcdef0123456789abcdef', label: ours }] }";

fn signed(rule: &str, bare: &Request, public_url: Option<&str>) -> Request {
    compiled(rule).verifier.sign(bare, public_url, NOW, None).unwrap()
}

fn sent() -> Request {
    signed(RULE, &request("/in?a=1", &[], b"{}"), None)
}

fn codes(explanation: &Explanation) -> Vec<&'static str> {
    explanation.likely().map(|likely| likely.code).collect()
}

fn header(request: &Request, name: &str) -> String {
    String::from_utf8_lossy(request.head.headers.first(name).unwrap()).into_owned()
}

/// The request with these headers in the place of those of the same name; an empty one is taken away.
fn with(request: &Request, headers: &[(&str, &str)]) -> Request {
    let kept = request
        .head
        .headers
        .iter()
        .filter(|(name, _)| !headers.iter().any(|(changed, _)| name.eq_ignore_ascii_case(changed)));
    let kept: Vec<(String, Vec<u8>)> = kept.map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    let added = headers.iter().filter(|(_, value)| !value.is_empty());
    let added = added.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    let all: Vec<(String, Vec<u8>)> = kept.into_iter().chain(added).collect();
    let mut changed = request.clone();
    changed.head.headers = all.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    changed
}

/// The request signed over its own `signature-input` by whatever `sign` makes of the base.
fn signed_by(request: &Request, sign: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Request {
    use base64::Engine;
    let text = header(request, "signature-input");
    let inputs = fields::inputs(&text).unwrap();
    let signature = sign(base::of(&inputs[0], request, None).unwrap());
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    with(request, &[("signature", &format!("{}=:{signature}:", inputs[0].label))])
}

fn hmac(secret: &str, message: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[test]
fn a_good_signature_is_told_step_by_step() {
    let explanation = explained(RULE, &sent(), NOW);
    assert!(explanation.decision.is_ok() && explanation.likely().next().is_none(), "{explanation:?}");
    let steps = steps(&explanation);
    for part in [
        "signature: header:signature-input describes `sig1`; the rule's label is `sig1`",
        "signature: header:signature holds `sig1` of 32 bytes",
        r#"covers: 3 components: "@method", "@target-uri", "content-digest"; all that the rule asks for"#,
        "params: keyid `ours`; alg `hmac-sha256`, accepted; no tag",
        "time: created is 2025-11-24T16:00:00.000Z, 0 s after the time of the decision",
        "300 s are allowed",
        r#"signed: line 1, 15 bytes: "@method": POST"#,
        r#"signed: line 2, 47 bytes: "@target-uri": https://hooks.example.com/in?a=1"#,
        r#"signed: line 4, "#,
        "signed: its URL is https://hooks.example.com/in?a=1",
        "keys: 1 key live (hmac-sha256 `ours`): hmac-sha256 `ours` matches",
        "digest: content-digest is covered",
        "digest: sha-256 is `RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=`, right",
        "result: right",
    ] {
        assert!(steps.contains(part), "{part}\n{steps}");
    }
    assert!(explanation.ways[0].expected.is_empty());
    assert!(!steps.contains(SECRET), "{steps}");
}

#[test]
fn the_likeliest_mistake_is_named() {
    let good = sent();
    let input = header(&good, "signature-input");
    let changed_input = |from: &str, to: &str| {
        assert!(input.contains(from), "{from}: {input}");
        with(&good, &[("signature-input", &input.replace(from, to))])
    };
    let resigned = |request: &Request| signed_by(request, |base| hmac(SECRET, &base));
    let body = |body: &[u8]| Request { body: body.to_vec().into(), ..good.clone() };
    let mut at = good.clone();
    at.head.target = "/in/?a=1".into();
    let moved = with(&resigned(&at), &[]);
    let moved = Request { head: crate::message::Head { target: "/in?a=1".into(), ..moved.head }, ..moved };
    let host = r#"("@method" "@authority" "content-digest" "@target-uri")"#;
    let method = r#"("@method" "@target-uri" "content-digest")"#;
    let with_digest = |digest: &str| resigned(&with(&good, &[("content-digest", digest)]));
    let later = Timestamp::from_secs(NOW.as_secs() - 10_000).as_secs().to_string();
    for (request, code) in [
        (request("/in", &[], b"{}"), "unknown"),
        (with(&good, &[("signature", "")]), "header_missing"),
        (with(&good, &[("signature-input", "")]), "header_missing"),
        (with(&good, &[("signature-input", ""), ("x-signature-input", &input)]), "header_name"),
        (
            with(&good, &[("signature-input", ""), ("signature", "keyId=\"a\",headers=\"date\"")]),
            "other_scheme",
        ),
        (changed_input("created=1764000000", "created=\"1764000000\""), "malformed"),
        (with(&good, &[("signature", "sig1=abc")]), "malformed"),
        (resigned(&changed_input(r#""@target-uri" "#, "")), "not_covered"),
        (resigned(&changed_input("sig1=", "other=")), "label"),
        (with(&good, &[("signature", "other=:AAAA:")]), "label"),
        (changed_input("content-digest\")", "content-digest\" \"x-gone\")"), "component_missing"),
        (changed_input("content-digest\")", "content-digest\" \"date\";sf)"), "component_unsupported"),
        (resigned(&changed_input("alg=\"hmac-sha256\"", "alg=\"ed25519\"")), "algorithm"),
        (resigned(&changed_input("created=1764000000", &format!("created={later}"))), "clock"),
        (resigned(&changed_input("created=1764000000", "created=1764000000;expires=1763999990")), "clock"),
        (resigned(&changed_input("created=1764000000", "created=1764000000000")), "time_unit"),
        (resigned(&changed_input(";created=1764000000", "")), "created_missing"),
        (body(b"{}\n"), "final_newline"),
        (body(b"{ }"), "json_rewritten"),
        (body(b"{\"other\":1}"), "body"),
        (
            with_digest(
                "sha-256=:NDQxMzZmYTM1NWIzNjc4YTExNDZhZDE2ZjdlODY0OWU5NGZiNGZjMjFmZTc3ZTgzMTBjMDYwZjYxY2FhZmY4YQ==:",
            ),
            "digest_form",
        ),
        (with_digest("md5=:AAAA:"), "hash"),
        (signed(RULE, &request("/in?a=1", &[], b"{}"), Some("http://hooks.example.com")), "url_scheme"),
        (moved, "url_slash"),
        (
            signed_by(&changed_input(method, host), |base| {
                let base = String::from_utf8(base).unwrap();
                hmac(
                    SECRET,
                    base.replace("hooks.example.com\n\"content", "hooks.example.com:443\n\"content")
                        .as_bytes(),
                )
            }),
            "url_port",
        ),
        (signed_by(&good, |base| hmac(SECRET, &[&base[..], b"\n"].concat())), "base_newline"),
        (signed_by(&good, |base| hex::encode(hmac(SECRET, &base)).into_bytes()), "encoding"),
        (signed_by(&good, |base| hmac(&format!("{SECRET}\n"), &base)), "secret_newline"),
        (signed_by(&good, |base| hmac("the-secret-of-another-route-0123456789", &base)), "other_route"),
        (signed_by(&good, |base| hmac("quite-another-secret", &base)), "unknown"),
    ] {
        let explanation = explained(RULE, &request, NOW);
        assert!(explanation.decision.is_err(), "{code}: {}", steps(&explanation));
        assert_eq!(codes(&explanation).first(), Some(&code), "{}", steps(&explanation));
        assert!(!format!("{:?}{:?}", explanation.ways[0].steps, explanation.ways[0].likely).contains(SECRET));
    }
}

/// A rule for public keys, with the pair that signs for each.
fn by_keys(algorithms: &str, keys: &[(&str, &rcgen::KeyPair)], more: &str) -> String {
    let keys: Vec<_> = keys
        .iter()
        .map(|(label, pair)| serde_json::json!({ "secret": pair.public_key_pem(), "label": label }))
        .collect();
    let keys = serde_json::to_string(&keys).unwrap();
    format!("{{ http_signature: {{ algorithms: [{algorithms}] {more} }}, public_keys: {keys} }}")
}

#[test]
fn keys_that_sign_otherwise_than_they_should_are_recognised() {
    let pair = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (one, two) = (pair(), pair());
    let rule = by_keys("ecdsa-p256-sha256", &[("one", &one), ("two", &two)], "");
    let input = |key: &str| {
        let digest = "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:";
        let input = format!(
            "sig1=(\"@method\" \"@target-uri\" \"content-digest\");created=1764000000;keyid=\"{key}\""
        );
        request("/in", &[("content-digest", digest), ("signature-input", &input)], b"{}")
    };
    let asn1 = |pair: &rcgen::KeyPair, base: &[u8]| rcgen::SigningKey::sign(pair, base).unwrap();
    let raw = |pair: &rcgen::KeyPair, base: &[u8]| {
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = pair.serialize_der();
        let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, &der, &random).unwrap();
        pair.sign(&random, base).unwrap().as_ref().to_vec()
    };
    let right = signed_by(&input("one"), |base| raw(&one, &base));
    let explanation = explained(&rule, &right, NOW);
    assert!(explanation.decision.is_ok());
    assert!(steps(&explanation).contains("ecdsa-p256-sha256 `one` matches"));
    for (rule, request, code) in [
        (&rule, signed_by(&input("one"), |base| asn1(&one, &base)), "ecdsa_form"),
        (&rule, signed_by(&input("one"), |base| raw(&two, &base)), "other_key"),
        (&rule, signed_by(&input("one"), |base| raw(&pair(), &base)), "unknown"),
        (&by_keys("ecdsa-p256-sha256", &[("one", &one)], ", key_ids: [other]"), right.clone(), "key_id"),
        (&by_keys("ecdsa-p256-sha256", &[("one", &one)], ", tag: other"), right.clone(), "tag"),
        (
            &by_keys("ecdsa-p256-sha256", &[("one", &one)], "")
                .replace("\"label\"", "\"until\":\"2025-01-01T00:00:00Z\",\"label\""),
            right,
            "key_window",
        ),
    ] {
        let explanation = explained(rule, &request, NOW);
        assert_eq!(codes(&explanation), [code], "{}", steps(&explanation));
    }
}

#[test]
fn the_signed_bytes_are_compared_with_those_of_the_sender() {
    let explanation = explained(RULE, &sent(), NOW);
    let way = &explanation.ways[0];
    let ours = String::from_utf8(way.signed[0].clone()).unwrap();
    let told = |theirs: &str| way.differences(theirs.as_bytes()).collect::<Vec<_>>().join("|");
    assert!(told(&ours).starts_with("the same "), "{}", told(&ours));
    assert_eq!(told(&ours), told(&format!("{ours}\n")), "a file ends with a newline");
    let other = told(&ours.replace("hooks.example.com", "hooks.example.org"));
    let place = "the first difference is at byte 53 (line 2, byte 37 of it): here `com/in?a=1\\n\\\"`, there `org/in?a=1\\n\\\"`";
    assert!(other.ends_with(place), "{other}");
    // Schemes of one line have no lines.
    let github = explained("{ provider: github, secret: abc }", &request("/in", &[], b"{}"), NOW);
    let told: Vec<String> = github.ways[0].differences(b"{ }").collect();
    assert_eq!(told, ["2 bytes here, 3 there; the first difference is at byte 1: here `}`, there ` }`"]);
}

#[test]
fn the_right_signature_is_only_said_when_asked_for_and_credentials_never() {
    let bare = request("/in", &[("authorization", "Bearer very-secret")], b"{}");
    let rule =
        RULE.replace("label: sig1", "label: sig1, components: ['@method', content-digest, authorization]");
    let right = signed(&rule, &bare, None);
    let forged = with(&right, &[("signature", "sig1=:AAAA:")]);
    let explanation = explained(&rule, &forged, NOW);
    assert_eq!(explanation.ways[0].expected, [header(&right, "signature")]);
    let said = format!("{}{:?}", steps(&explanation), explanation.ways[0].likely);
    assert!(!said.contains(&header(&right, "signature")[6..]), "{said}");
    assert!(!said.contains("very-secret") && said.contains("\"authorization\": (not shown)"), "{said}");
}

proptest::proptest! {
    #[test]
    fn no_request_makes_it_panic(
        input in "(sig1=\\(\"(@query|@path|date|content-digest)\"\\);created=17640000[0-9]{2}|[ -~]{0,60})",
        signature in "(sig1=:[A-Za-z0-9]{0,8}:|[ -~]{0,40})",
        digest in "(sha-256=:[A-Za-z0-9]{0,8}:|[ -~]{0,20})",
        body: Vec<u8>,
    ) {
        let headers = [("signature-input", &*input), ("signature", &*signature), ("content-digest", &*digest)];
        let _ = explained(RULE, &request("/in", &headers, &body), NOW);
    }
}
