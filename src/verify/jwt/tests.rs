//! What the vectors leave out: key sets that change, weak and foreign keys, every algorithm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature as by_ring;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::reason::Reason;
use crate::verify::testing::{World, request};
use crate::verify::{Compiled, Document, KeySource, Lacking, Lookup, NoKeys, Refusal, Settled, compile};

const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

#[derive(Debug)]
struct Source {
    set: Mutex<Option<Arc<Document>>>,
    asked: AtomicUsize,
    lacking: Mutex<Lacking>,
}

impl Default for Source {
    fn default() -> Self {
        Self { set: Mutex::default(), asked: AtomicUsize::new(0), lacking: Mutex::new(Lacking::Fresh) }
    }
}

impl KeySource for Source {
    fn lookup(&self, _: &str, _: std::net::IpAddr) -> Lookup {
        self.set.lock().clone().map_or(Lookup::Asked, Lookup::Known)
    }
    fn lacks(&self, _: &str) -> Lacking {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.lacking.lock()
    }
    fn settled(&self, name: &str) -> Settled {
        NoKeys.settled(name)
    }
}

impl Source {
    fn publish(&self, keys: Value) {
        let set: JwkSet = serde_json::from_value(json!({ "keys": keys })).unwrap();
        *self.set.lock() = Some(Arc::new(Document::of_set(set)));
    }
}

struct Ec(by_ring::EcdsaKeyPair);

impl Ec {
    fn new() -> Self {
        let how = &by_ring::ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = by_ring::EcdsaKeyPair::generate_pkcs8(how, &SystemRandom::new()).unwrap();
        Self(by_ring::EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &SystemRandom::new()).unwrap())
    }
    fn jwk(&self, kid: &str) -> Value {
        let point = by_ring::KeyPair::public_key(&self.0).as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..]) })
    }
    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn rule(source: &Arc<Source>, algorithms: &str) -> Compiled {
    let world = World { keys: Some(source.clone()), ..World::default() };
    let yaml = format!("{{ jwt: {{ algorithms: [{algorithms}], jwks: 'https://keys.example/jwks' }} }}");
    compile(&serde_saphyr::from_str(&yaml).unwrap(), &world).unwrap()
}

fn check(rule: &Compiled, token: &str) -> Result<Option<String>, Refusal> {
    let r = request("/", &[("Authorization", &format!("Bearer {token}"))], b"");
    match rule.verifier.verify(r, None, NOW) {
        Ok(verified) => Ok(verified.label().map(|label| label.to_string())),
        Err((_, refusal)) => Err(refusal),
    }
}

fn claims() -> Value {
    json!({ "exp": 1_764_000_100 })
}

#[test]
fn keys_come_go_and_are_asked_for() {
    let (old, new) = (Ec::new(), Ec::new());
    let source = Arc::new(Source::default());
    let rule = rule(&source, "ES256");
    let token = |key: &Ec, kid: &str| key.token(&json!({ "alg": "ES256", "kid": kid }), &claims());
    assert_eq!(check(&rule, &token(&old, "a")).unwrap_err().reason, Reason::KeyUnavailable);
    source.publish(json!([old.jwk("a")]));
    assert_eq!(check(&rule, &token(&old, "a")), Ok(Some("a".to_owned())));
    assert_eq!(source.asked.load(Ordering::SeqCst), 0);
    assert_eq!(check(&rule, &token(&new, "b")).unwrap_err().reason, Reason::TokenInvalid);
    assert_eq!(source.asked.load(Ordering::SeqCst), 1);
    source.publish(json!([new.jwk("b")]));
    assert_eq!(check(&rule, &token(&new, "b")), Ok(Some("b".to_owned())));
    assert_eq!(check(&rule, &token(&old, "a")).unwrap_err().reason, Reason::TokenInvalid);
    assert_eq!(check(&rule, &token(&old, "b")).unwrap_err().reason, Reason::TokenInvalid);
}

#[test]
fn a_key_that_a_fresh_set_lacks_is_refused_and_one_that_is_being_looked_for_is_waited_for() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    let rule = rule(&source, "ES256");
    let token = key.token(&json!({ "alg": "ES256", "kid": "new" }), &claims());
    let asked = |lacking: Lacking| {
        *source.lacking.lock() = lacking;
        let refusal = check(&rule, &token).unwrap_err();
        (refusal.reason, refusal.needs.is_some())
    };
    assert_eq!(asked(Lacking::Asked), (Reason::KeyUnavailable, true), "there is no set yet");
    source.publish(json!([Ec::new().jwk("old")]));
    assert_eq!(asked(Lacking::Fresh), (Reason::TokenInvalid, false));
    assert_eq!(asked(Lacking::Asked), (Reason::KeyUnavailable, true));
    assert_eq!(asked(Lacking::Failing), (Reason::KeyUnavailable, false));
}

#[test]
fn a_token_that_names_no_key_may_be_any_keys() {
    let (one, two) = (Ec::new(), Ec::new());
    let source = Arc::new(Source::default());
    source.publish(json!([one.jwk("a"), two.jwk("b")]));
    let token = two.token(&json!({ "alg": "ES256" }), &claims());
    assert_eq!(check(&rule(&source, "ES256"), &token), Ok(Some("b".to_owned())));
}

#[test]
fn keys_that_are_for_something_else_are_not_used() {
    let key = Ec::new();
    let token = key.token(&json!({ "alg": "ES256", "kid": "a" }), &claims());
    for change in [json!({ "use": "enc" }), json!({ "key_ops": ["sign"] }), json!({ "alg": "ES384" })] {
        let mut jwk = key.jwk("a");
        jwk.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let source = Arc::new(Source::default());
        source.publish(json!([jwk]));
        assert_eq!(
            check(&rule(&source, "ES256"), &token).unwrap_err().reason,
            Reason::TokenInvalid,
            "{change}"
        );
    }
}

#[test]
fn a_shared_secret_in_a_public_key_set_proves_nothing() {
    let secret = "0123456789abcdef0123456789abcdef";
    let source = Arc::new(Source::default());
    source.publish(json!([{ "kty": "oct", "kid": "a", "k": URL_SAFE_NO_PAD.encode(secret) }]));
    let header = jsonwebtoken::Header { kid: Some("a".into()), ..Default::default() };
    let rule = rule(&source, "HS256, ES256");
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
    assert_eq!(check(&rule, &token).unwrap_err().reason, Reason::TokenInvalid);
}

#[test]
fn keys_and_addresses_of_keys_in_the_token_are_not_followed() {
    let (ours, attacker) = (Ec::new(), Ec::new());
    let source = Arc::new(Source::default());
    source.publish(json!([ours.jwk("a")]));
    let rule = rule(&source, "ES256");
    let certificate =
        rcgen::CertificateParams::default().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let der = base64::engine::general_purpose::STANDARD.encode(certificate.der());
    for header in [
        json!({ "jwk": attacker.jwk("a") }),
        json!({ "jku": "https://evil.example/jwks" }),
        json!({ "x5u": "https://evil.example/cert.pem" }),
        json!({ "x5c": [der] }),
        json!({ "kid": "a", "jwk": attacker.jwk("a") }),
        json!({ "kid": "../../../../dev/null" }),
        json!({ "kid": "x' UNION SELECT 'key" }),
        json!({ "kid": "|/usr/bin/id" }),
        json!({ "kid": "https://evil.example/jwks" }),
        json!({ "kid": "" }),
        json!({ "kid": "a\u{0}" }),
        json!({ "kid": "A" }),
        json!({ "kid": "a".repeat(10_000) }),
        json!({ "kid": ["a"] }),
        json!({ "kid": "a", "crit": ["exp"] }),
        json!({ "kid": "a", "b64": false, "crit": ["b64"] }),
    ] {
        let mut header = header;
        header["alg"] = json!("ES256");
        let refusal = check(&rule, &attacker.token(&header, &claims())).unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenInvalid, "{header}");
    }
    let good =
        json!({ "alg": "ES256", "kid": "a", "jku": "https://evil.example/jwks", "jwk": attacker.jwk("a") });
    assert_eq!(check(&rule, &ours.token(&good, &claims())), Ok(Some("a".to_owned())));
}

#[test]
fn a_header_that_says_a_thing_twice_or_no_algorithm_is_refused() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    source.publish(json!([key.jwk("a")]));
    let rule = rule(&source, "ES256");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    for (header, accepted) in [
        (r#"{"alg":"ES256"}"#, true),
        (r#"{"alg":"ES256","alg":"ES256"}"#, false),
        (r#"{"alg":"none","alg":"ES256"}"#, false),
        (r#"{"alg":"ES256","alg":"none"}"#, false),
        (r#"{"alg":"ES256","kid":"b","kid":"a"}"#, false),
        (r#"{"alg":"none"}"#, false),
        (r#"{"alg":"NONE"}"#, false),
        (r#"{"alg":"nOnE"}"#, false),
        (r#"{"alg":""}"#, false),
        (r#"{"alg":null}"#, false),
        (r#"{"alg":["ES256"]}"#, false),
        (r#"{}"#, false),
        (r#"{"alg":"HS256"}"#, false),
        (r#"{"alg":"ES384"}"#, false),
        (r#"{"alg":"es256"}"#, false),
    ] {
        let message = format!("{}.{}", part(header), part(&claims().to_string()));
        let signature = key.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        let signed = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
        assert_eq!(check(&rule, &signed).is_ok(), accepted, "{header}");
        for unsigned in [format!("{message}."), message, "..".to_owned()] {
            assert!(check(&rule, &unsigned).is_err(), "{header}");
        }
    }
}

#[test]
fn a_huge_token_is_not_looked_at() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    source.publish(json!([key.jwk("a")]));
    let rule = rule(&source, "ES256");
    let with = |bytes: usize| {
        let claims = json!({ "exp": 1_764_000_100, "x": "y".repeat(bytes) });
        check(&rule, &key.token(&json!({ "alg": "ES256" }), &claims))
    };
    assert!(with(40_000).is_ok());
    assert!(with(60_000).unwrap_err().detail.contains("more than"));
    assert!(with(5_000_000).is_err());
    assert!(check(&rule, &"a.".repeat(1_000_000)).is_err());
}

#[test]
fn a_signature_in_another_encoding_is_none() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    source.publish(json!([key.jwk("a")]));
    let rule = rule(&source, "ES256");
    let good = key.token(&json!({ "alg": "ES256" }), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let halves = |half: &[u8]| [&[0x02, u8::try_from(half.len() + 1).unwrap(), 0][..], half].concat();
    let inside = [halves(&raw[..32]), halves(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(inside.len()).unwrap()][..], &inside].concat();
    let texts = [
        URL_SAFE_NO_PAD.encode(der),
        URL_SAFE_NO_PAD.encode([&[0; 32][..], &[0; 32]].concat()),
        format!("{signature}="),
        hex::encode(&raw),
        String::new(),
    ];
    assert!(check(&rule, &good).is_ok());
    for text in texts {
        assert!(check(&rule, &format!("{message}.{text}")).is_err(), "{text}");
    }
}

#[test]
fn times_and_claims_are_as_configured() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    source.publish(json!([key.jwk("a")]));
    let world = World { keys: Some(source), ..World::default() };
    let yaml = "{ jwt: { algorithms: ES256, jwks: 'https://k/', max_age: 2m, leeway: 10s, required_claims: { email: [a@x, b@x], ok: true }, header: X-Token } }";
    let rule = compile(&serde_saphyr::from_str(yaml).unwrap(), &world).unwrap();
    let now = 1_764_000_000;
    let reason = |claims: Value| {
        let token = key.token(&json!({ "alg": "ES256" }), &claims);
        let r = request("/", &[("X-Token", &token)], b"");
        rule.verifier.verify(r, None, NOW).err().map(|(_, refusal)| refusal.reason)
    };
    let good = json!({ "iat": now - 60, "email": "b@x", "ok": true });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    assert_eq!(reason(good.clone()), None);
    assert_eq!(reason(with("iat", json!(now - 130))), None);
    assert_eq!(reason(with("iat", json!(now - 131))), Some(Reason::TokenExpired));
    assert_eq!(reason(with("iat", json!(now + 11))), Some(Reason::TokenExpired));
    assert_eq!(reason(with("iat", json!("now"))), Some(Reason::TokenInvalid));
    assert_eq!(reason(with("exp", json!(now - 10))), None);
    assert_eq!(reason(with("exp", json!(now - 11))), Some(Reason::TokenExpired));
    assert_eq!(reason(with("exp", json!(-1))), Some(Reason::TokenInvalid));
    assert_eq!(reason(with("nbf", json!(now + 11))), Some(Reason::TokenExpired));
    assert_eq!(reason(with("email", json!("c@x"))), Some(Reason::SenderNotAllowed));
    assert_eq!(reason(with("email", json!(["b@x"]))), Some(Reason::SenderNotAllowed));
    assert_eq!(reason(with("ok", json!(false))), Some(Reason::SenderNotAllowed));
    assert_eq!(reason(json!({ "email": "a@x", "ok": true })), Some(Reason::TokenInvalid));
}

#[test]
fn a_claim_that_stands_twice_is_no_claim() {
    let key = Ec::new();
    let source = Arc::new(Source::default());
    source.publish(json!([key.jwk("a")]));
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", part(r#"{"alg":"ES256"}"#), part(r#"{"exp":1,"exp":1764000100}"#));
    let signature = key.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(check(&rule(&source, "ES256"), &token).unwrap_err().reason, Reason::TokenInvalid);
}

proptest::proptest! {
    #[test]
    fn no_token_makes_it_panic(token in "[ -~]{0,120}", header in "\\PC{0,60}", claims in "\\PC{0,60}") {
        let source = Arc::new(Source::default());
        source.publish(json!([Ec::new().jwk("a")]));
        let rule = rule(&source, "ES256, RS256, EdDSA");
        proptest::prop_assert!(check(&rule, &token).is_err());
        let parts = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        proptest::prop_assert!(check(&rule, &parts).is_err());
    }
}
