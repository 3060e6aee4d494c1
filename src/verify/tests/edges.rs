//! Requests that are almost right, in the manner of Wycheproof: each must be refused, none may panic.

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Sha256;

use super::{NOW, compiled, refused};
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::Compiled;
use crate::verify::sign::with_headers;
use crate::verify::testing::request;

const BODY: &[u8] = br#"{"id":"evt_1","type":"t"}"#;

fn hmac(secret: &str, message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn github(secret: &str) -> Compiled {
    compiled(&format!("{{ provider: github, secret: '{secret}' }}"))
}

fn with_signature(header: &str, value: &str) -> Request {
    request("/in", &[(header, value)], BODY)
}

#[test]
fn a_mac_is_right_whole_and_in_either_case_only() {
    let rule = github("s");
    let right = hex::encode(hmac("s", BODY));
    let refused = |value: &str| refused(&rule, &with_signature("X-Hub-Signature-256", value));
    assert_eq!(refused(&format!("sha256={right}")), None);
    assert_eq!(refused(&format!("sha256={}", right.to_uppercase())), None);
    for wrong in [
        format!("sha256={}", &right[..62]),
        format!("sha256={}", &right[..63]),
        format!("sha256={right}00"),
        format!("sha256={right}0"),
        format!("sha256=00{}", &right[2..]),
        format!("sha256= {right}"),
        format!("sha256=0x{right}"),
        format!("sha256={right},sha256={right}"),
        format!("sha256=\u{feff}{right}"),
        "sha256=".to_owned(),
        format!("sha256={}", "0".repeat(64)),
        format!("sha256={}", "f".repeat(100_000)),
    ] {
        assert_eq!(refused(&wrong), Some(Reason::SignatureInvalid), "{wrong:.100}");
    }
    for missing in ["", " ", &right, &format!("SHA256={right}"), &format!("sha1={right}")] {
        assert_eq!(refused(missing), Some(Reason::SignatureMissing), "{missing}");
    }
}

#[test]
fn a_body_is_taken_as_it_came() {
    let rule = github("s");
    let signature = format!("sha256={}", hex::encode(hmac("s", BODY)));
    for body in [
        [BODY, b"\n"].concat(),
        [b"\xef\xbb\xbf", BODY].concat(),
        BODY[..BODY.len() - 1].to_vec(),
        BODY.to_ascii_uppercase(),
        Vec::new(),
    ] {
        let r = request("/in", &[("X-Hub-Signature-256", &signature)], &body);
        assert_eq!(refused(&rule, &r), Some(Reason::SignatureInvalid), "{body:?}");
    }
}

#[test]
fn a_secret_is_taken_as_the_resolver_gives_it() {
    let signature = format!("sha256={}", hex::encode(hmac("s\n", BODY)));
    let r = with_signature("X-Hub-Signature-256", &signature);
    assert_eq!(refused(&github("s"), &r), Some(Reason::SignatureInvalid));
    assert_eq!(refused(&compiled("{ provider: github, secret: \"s\\n\" }"), &r), None);
}

#[test]
fn base64_is_canonical() {
    use base64::Engine;
    let rule = compiled("{ provider: shopify, secret: s }");
    let right = base64::engine::general_purpose::STANDARD.encode(hmac("s", BODY));
    let refused = |value: &str| refused(&rule, &with_signature("X-Shopify-Hmac-Sha256", value));
    assert_eq!(refused(&right), None);
    // The last digit of 32 bytes carries two bits that must be zero.
    let last = right.as_bytes()[42];
    let stray = format!("{}{}=", &right[..42], char::from(if last == b'8' { b'9' } else { last + 1 }));
    let unpadded = right.trim_end_matches('=');
    let url_safe = right.replace('+', "-").replace('/', "_");
    let hex = hex::encode(hmac("s", BODY));
    for wrong in
        [&stray, unpadded, &format!("{right}="), &format!("{unpadded}=="), &hex, &right.to_lowercase()]
    {
        assert_eq!(refused(wrong), Some(Reason::SignatureInvalid), "{wrong}");
    }
    if url_safe != right {
        assert_eq!(refused(&url_safe), Some(Reason::SignatureInvalid));
    }
}

/// How long the fastest of some runs takes.
fn fastest(mut run: impl FnMut()) -> std::time::Duration {
    let time = |_| {
        let start = std::time::Instant::now();
        run();
        start.elapsed()
    };
    (0..5).map(time).min().unwrap_or_default()
}

#[test]
fn many_signed_values_of_a_body_cost_no_walk_each() {
    // Twenty places are signed, and as many have a shape; each level is walked once, whatever the number of keys.
    let rule = compiled("{ provider: paymob, secrets: [a-secret-one, a-secret-two, a-secret-three] }");
    let filler = "[1,2,3,\"some text\",{\"k\":null}],".repeat(20_000);
    let fields = crate::providers::find("paymob").unwrap().guide().samples[0].body.clone();
    let fields =
        fields.replace("${now}", "1764000000").replace("{\"type\"", &format!("{{\"x\":[{filler}0],\"type\""));
    let signature = "0".repeat(128);
    let r = request(&format!("/in?hmac={signature}"), &[], fields.as_bytes());
    assert_eq!(rule.verifier.verify(r.clone(), None, NOW).unwrap_err().1.reason, Reason::SignatureInvalid);
    let pointer = crate::verify::json::Pointer::parse("/obj/id").unwrap();
    let walk = fastest(|| assert!(pointer.text(fields.as_bytes()).is_some()));
    let all = fastest(|| assert!(rule.verifier.verify(r.clone(), None, NOW).is_err()));
    assert!(all < walk * 6, "{all:?} against {walk:?} for one walk");
}

fn stripe_header(time: &str, secret: &str) -> String {
    let signed = [time.as_bytes(), b".", BODY].concat();
    format!("t={time},v1={}", hex::encode(hmac(secret, &signed)))
}

#[test]
fn a_signed_time_is_a_plain_number_near_now() {
    let rule = compiled("{ provider: stripe, secret: s }");
    let refused = |value: &str| refused(&rule, &with_signature("Stripe-Signature", value));
    assert_eq!(refused(&stripe_header("1764000000", "s")), None);
    for time in [
        "-1764000000",
        "+1764000000",
        "1764000000.0",
        "01764000301",
        "1.764e9",
        "0x69247900",
        "18446744073709551616",
        "9223372036854775808",
        "99999999999999999999999999999999",
        "",
        "NaN",
        "1763999699",
        "1764000301",
        "1764000000000",
        "0",
    ] {
        let reason = refused(&stripe_header(time, "s"));
        assert_eq!(reason, Some(Reason::TimestampOutOfTolerance), "{time}");
    }
    let good = stripe_header("1764000000", "s");
    assert_eq!(refused(&format!("{good},t=1764000000")), Some(Reason::AmbiguousRequest));
    assert_eq!(refused(&format!("t=1764000001,{good}")), Some(Reason::AmbiguousRequest));
    assert_eq!(refused(good.split_once(',').unwrap().1), Some(Reason::SignatureMissing));
    assert_eq!(refused("t=1764000000"), Some(Reason::SignatureMissing));
    assert_eq!(refused("t=1764000000,v1="), Some(Reason::SignatureInvalid));
    assert_eq!(refused("t=1764000000,v1"), Some(Reason::SignatureMissing));
    assert_eq!(refused(&good.replace("v1=", "v2=")), Some(Reason::SignatureMissing));
    assert_eq!(refused(&good.replace("v1=", "V1=")), Some(Reason::SignatureMissing));
    assert_eq!(refused(&good.replace(',', " ,\t")), None);
}

#[test]
fn a_right_signature_behind_too_many_others_is_not_looked_for() {
    let rule = compiled("{ provider: stripe, secret: s }");
    let good = stripe_header("1764000000", "s");
    let (time, signature) = good.split_once(',').unwrap();
    let zeros = format!("v1={},", "0".repeat(64));
    let few = format!("{time},{}{signature}", zeros.repeat(3));
    let many = format!("{time},{}{signature}", zeros.repeat(3000));
    assert_eq!(refused(&rule, &with_signature("Stripe-Signature", &few)), None);
    assert_eq!(refused(&rule, &with_signature("Stripe-Signature", &many)), Some(Reason::SignatureInvalid));
}

#[test]
fn a_header_that_decides_must_not_come_twice_even_the_same() {
    let rule = compiled("{ provider: slack, secret: s }");
    let signature = format!("v0={}", hex::encode(hmac("s", &[b"v0:1764000000:", BODY].concat())));
    let time = ("X-Slack-Request-Timestamp", "1764000000");
    let one = [time, ("X-Slack-Signature", signature.as_str())];
    assert_eq!(refused(&rule, &request("/", &one, BODY)), None);
    for double in one {
        let r = request("/", &[one[0], one[1], double], BODY);
        assert_eq!(refused(&rule, &r), Some(Reason::AmbiguousRequest), "{}", double.0);
    }
}

#[test]
fn an_id_under_the_other_name_can_not_pass_for_the_signed_one() {
    let rule = compiled("{ provider: svix, secret: c2VjcmV0 }");
    let draft = request("/", &[("webhook-id", "msg_1")], BODY);
    // The pack's second way uses the standard names.
    let standard = compiled("{ provider: standard-webhooks, secret: c2VjcmV0 }");
    let signed = standard.verifier.sign(&draft, None, NOW, None).unwrap();
    let with = |more: &[(&str, &str)]| {
        let more: Vec<_> = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        refused(&rule, &with_headers(&signed, &more))
    };
    assert_eq!(with(&[]), None);
    assert_eq!(with(&[("svix-id", "msg_1")]), None);
    assert_eq!(with(&[("svix-id", "msg_fresh")]), Some(Reason::AmbiguousRequest));
    assert_eq!(with(&[("svix-timestamp", "1764000001")]), Some(Reason::AmbiguousRequest));
    assert_eq!(with(&[("svix-id", "msg_1"), ("svix-id", "msg_1")]), Some(Reason::AmbiguousRequest));
}

#[test]
fn ed25519_signatures_are_canonical() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = hex::encode(pair.public_key().as_ref());
    let rule = compiled(&format!(
        "{{ algorithm: ed25519, signature: {{ from: header:X, encoding: base64 }}, public_keys: ['{key}'] }}"
    ));
    let signature = pair.sign(BODY).as_ref().to_vec();
    let refused = |signature: &[u8]| refused(&rule, &with_signature("X", &STANDARD.encode(signature)));
    assert_eq!(refused(&signature), None);
    // S + L, the same number modulo the group's order.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut other = signature.clone();
    let mut carry = 0;
    for (byte, add) in other[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_ne!(other, signature);
    for wrong in [&other[..], &signature[..63], &[&signature[..], &[0]].concat(), &[0; 64]] {
        assert_eq!(refused(wrong), Some(Reason::SignatureInvalid), "{wrong:?}");
    }
}

#[test]
fn ecdsa_forms_are_not_taken_for_each_other() {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let pair = rcgen::KeyPair::generate().unwrap();
    let rule = |algorithm: &str| {
        let key = pair.public_key_pem().replace('\n', "\\n");
        compiled(&format!(
            "{{ algorithm: {algorithm}, signature: {{ from: header:X, encoding: hex }}, public_keys: [\"{key}\"] }}"
        ))
    };
    let random = SystemRandom::new();
    let sign = |how| {
        let pair = EcdsaKeyPair::from_pkcs8(how, &pair.serialize_der(), &random).unwrap();
        hex::encode(pair.sign(&random, BODY).unwrap())
    };
    let der = sign(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let fixed = sign(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let zero_s = format!("{}{}", &fixed[..64], "0".repeat(64));
    let zero_r = format!("{}{}", "0".repeat(64), &fixed[64..]);
    for (algorithm, right, wrong) in [
        ("ecdsa-p256-sha256", &der, vec![&fixed, &zero_s]),
        ("ecdsa-p256-sha256-fixed", &fixed, vec![&der, &zero_s, &zero_r]),
    ] {
        let rule = rule(algorithm);
        assert_eq!(refused(&rule, &with_signature("X", right)), None, "{algorithm}");
        for wrong in wrong {
            assert_eq!(
                refused(&rule, &with_signature("X", wrong)),
                Some(Reason::SignatureInvalid),
                "{wrong}"
            );
        }
        let trailing = format!("{right}00");
        assert_eq!(refused(&rule, &with_signature("X", &trailing)), Some(Reason::SignatureInvalid));
    }
}

#[test]
fn rsa_signatures_of_the_wrong_length_or_padding_are_refused() {
    // A key of 2048 bits; with exponent 3-like forgeries in mind, blocks that only look like PKCS#1 are offered.
    const KEY: &str = include_str!("rsa-2048.pub.pem");
    let key = KEY.trim().replace('\n', "\\n");
    let rule = compiled(&format!(
        "{{ algorithm: rsa-pkcs1-sha256, signature: {{ from: header:X, encoding: hex }}, public_keys: [\"{key}\"] }}"
    ));
    let mut block = vec![0, 1];
    block.extend([0xff; 8]);
    block.push(0);
    block.resize(256, 0xaa);
    for wrong in [vec![0; 256], vec![0xff; 256], block, vec![1; 255], vec![1; 257], vec![1], vec![0; 1024]] {
        let r = with_signature("X", &hex::encode(&wrong));
        assert_eq!(refused(&rule, &r), Some(Reason::SignatureInvalid), "{}", wrong.len());
    }
}

#[test]
fn each_element_of_a_signed_batch_must_be_right() {
    let rule = compiled(
        "{ algorithm: hmac-sha256, secret: s, each: /items, signed: '{body:/a}:{body:/b|optional}', \
         signature: { from: body:/sig, encoding: hex } }",
    );
    let item = |a: &str, signed: &str| {
        format!(r#"{{"a":"{a}","sig":"{}"}}"#, hex::encode(hmac("s", signed.as_bytes())))
    };
    let refused =
        |items: &str| refused(&rule, &request("/", &[], format!(r#"{{"items":[{items}]}}"#).as_bytes()));
    assert_eq!(refused(&item("x", "x:")), None);
    assert_eq!(refused(&format!("{},{}", item("x", "x:"), item("y", "y:"))), None);
    assert_eq!(refused(&format!("{},{}", item("x", "x:"), item("y", "z:"))), Some(Reason::SignatureInvalid));
    assert_eq!(refused(&format!("{},{{\"a\":\"x\"}}", item("x", "x:"))), Some(Reason::SignatureMissing));
    assert_eq!(refused(""), Some(Reason::SignatureMissing));
}

#[test]
fn no_request_makes_a_pack_panic_or_accept() {
    let rules = super::vectors::one_rule_a_pack();
    assert!(rules.len() >= crate::providers::names().len());
    let request_parts = ("[ -~]{0,80}", "[ -~]{0,12}", proptest::collection::vec(any::<u8>(), 0..60));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let held = runner.run(&request_parts, |(value, time, body)| {
        for (name, rule) in &rules {
            let used = rule.verifier.headers_used();
            let mut headers: Vec<_> = used.iter().map(|h| (h.as_str(), value.as_str())).collect();
            headers
                .iter_mut()
                .filter(|(name, _)| name.ends_with("timestamp"))
                .for_each(|header| header.1 = &time);
            prop_assert!(refused(rule, &request("/", &headers, &body)).is_some(), "{name}");
        }
        Ok(())
    });
    held.unwrap();
}
