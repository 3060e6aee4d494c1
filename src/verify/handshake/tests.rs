//! The greetings of `tests/handshakes.yaml` through the pure functions, and what can't be said in the language.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::*;
use crate::clock::Timestamp;
use crate::providers::{self, Pack};
use crate::verify::spec::HandshakeSpec;
use crate::verify::testing::{World, request};
use crate::verify::{PrivateKey, VerifySpec, awaiting_keys};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sender {
    provider: String,
    #[serde(default)]
    route: Option<String>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    public_key: bool,
    #[serde(default)]
    shows: bool,
    #[serde(default)]
    rule: Map<String, Value>,
    #[serde(default)]
    verify: Option<Value>,
    #[serde(default)]
    params: Option<Value>,
    #[serde(default)]
    handshake: Option<Value>,
    asks: Vec<Ask>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    query: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    answer: Option<(u16, String, String)>,
    #[serde(default)]
    has: BTreeMap<String, String>,
    #[serde(default)]
    shown: Option<String>,
    #[serde(default)]
    refused: Option<(u16, String)>,
}

fn senders() -> Vec<Sender> {
    serde_saphyr::from_str(include_str!("../../../tests/handshakes.yaml")).unwrap()
}

fn pack_of(text: &str) -> Result<Arc<Pack>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack.yaml");
    std::fs::write(&path, text).unwrap();
    crate::config::load_pack(&path).map_err(|problems| problems.to_string())
}

fn written(name: &str, verify: &Value, params: &Value, handshake: &Value) -> String {
    let head = json!({
        "name": name, "title": name, "category": "other", "docs": "https://example.com", "checked": "2026-11-24",
        "setup": "x", "verify": verify, "params": params, "handshake": handshake
    });
    head.to_string()
}

fn pack(sender: &Sender) -> Arc<Pack> {
    providers::find(&sender.provider).unwrap_or_else(|_| {
        let of = |part: &Option<Value>| part.clone().unwrap_or_else(|| json!({}));
        let text =
            written(&sender.provider, &of(&sender.verify), &of(&sender.params), &of(&sender.handshake));
        pack_of(&text).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// What the way in does with a request, as far as handshakes are concerned: `None` for an event.
fn asked(
    handshakes: &Handshakes,
    verifier: &crate::verify::Verifier,
    request: Request,
) -> Result<Option<Reply>, (u16, &'static str)> {
    let refused = |why: Refusal| (why.reason.status(), why.reason.code());
    let greeting = handshakes.recognise(&request);
    match greeting {
        Some(greeting) if !greeting.is_signed() => {
            return greeting.reply(&request, None).map(Some).map_err(refused);
        }
        None if request.head.method != Method::POST => return Err((405, "method_not_allowed")),
        _ => {}
    }
    let verified = verifier.verify(request, None, NOW).map_err(|(_, why)| refused(why))?;
    greeting.map(|greeting| greeting.reply(verified.get(), None)).transpose().map_err(refused)
}

#[test]
fn each_greeting_gets_its_exact_answer_and_nothing_else_gets_one() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let private = PrivateKey::from_pem(&pair.serialize_pem()).unwrap();
    for sender in senders() {
        let name = &sender.provider;
        let pack = pack(&sender);
        let world = World { packs: [(name.clone(), pack.clone())].into(), ..World::default() };
        let mut rule = sender.rule.clone();
        rule.insert("provider".into(), name.as_str().into());
        if let Some(secret) = &sender.secret {
            rule.insert("secret".into(), secret.as_str().into());
        }
        if sender.public_key {
            rule.insert("public_keys".into(), json!([pair.public_key_pem()]));
        }
        let spec: VerifySpec = serde_json::from_value(Value::Object(rule)).unwrap();
        let compiled = match awaiting_keys(&spec, &world) {
            Some(compiled) => compiled,
            None => crate::verify::compile(&spec, &world)
                .unwrap_or_else(|problems| panic!("{name}: {problems:?}")),
        };
        let written = Written::Pack { pack: &pack, shows: sender.shows };
        let handshakes = compile(written, &spec, Policy::Answer, &world).unwrap();
        for ask in &sender.asks {
            let headers: Vec<_> = ask.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut request = request(&format!("/hooks/x{}", ask.query), &headers, ask.body.as_bytes());
            request.head.method = ask.method.as_deref().unwrap_or("GET").parse().unwrap();
            if ask.signed {
                request = compiled.verifier.sign(&request, None, NOW, Some(&private)).unwrap();
            }
            let what = format!(
                "{name}: {} {} {:?} {}",
                request.head.method, request.head.target, ask.headers, ask.body
            );
            match (asked(&handshakes, &compiled.verifier, request), &ask.answer, &ask.refused) {
                (Ok(Some(Reply { answer, show, visit: None, .. })), Some((status, kind, body)), None) => {
                    assert_eq!((answer.status, &answer.body[..]), (*status, body.as_bytes()), "{what}");
                    let find = |name: &str| {
                        let mut found = answer.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
                        found.next().map(|(_, value)| value.as_str())
                    };
                    assert_eq!(find("content-type"), (kind != "-").then_some(kind.as_str()), "{what}");
                    assert_eq!(find("x-content-type-options"), Some("nosniff"), "{what}");
                    for (name, value) in &ask.has {
                        assert_eq!(find(name), Some(value.as_str()), "{what}");
                    }
                    assert_eq!(show.map(|(secret, _)| secret), ask.shown, "{what}");
                }
                (Err((status, reason)), None, Some((expected, code))) => {
                    assert_eq!((status, reason), (*expected, code.as_str()), "{what}");
                }
                (Ok(None), None, None) => {}
                (other, ..) => panic!("{what}: {other:?}"),
            }
        }
    }
}

fn own(handshake: &str, rule: &str) -> Result<Handshakes, String> {
    let specs: Vec<HandshakeSpec> =
        serde_saphyr::from_str(&format!("[{handshake}]")).map_err(|e| e.to_string())?;
    let rule: VerifySpec = serde_saphyr::from_str(rule).unwrap();
    compile(Written::Own(&specs), &rule, Policy::Answer, &World::default()).map_err(|problems| {
        let lines = problems.iter().map(|problem| {
            format!(
                "{}: {} ({})",
                problem.at.join("."),
                problem.message,
                problem.help.as_deref().unwrap_or_default()
            )
        });
        lines.collect::<Vec<_>>().join("; ")
    })
}

#[test]
fn what_makes_no_sense_is_named() {
    const HMAC: &str = "proof: { algorithm: hmac-sha256, signed: '{query:a}', encoding: hex }";
    for (handshake, expected) in [
        ("{ echo: query:a }", "0.when: every request would be a greeting"),
        ("{ methods: [GET, PUT], echo: query:a }", "0.methods: unknown method of a greeting `PUT`"),
        ("{ methods: [] }", "0.methods: the list is empty"),
        ("{ when: { boddy:/a: b } }", "did you mean `body:`"),
        ("{ when: { body:/a: [] } }", "0.when.body:/a: the list is empty"),
        ("{ when: { body:/a: { presnt: true } } }", "presnt"),
        ("{ when: { body:/a: {} } }", "a test is one of"),
        ("{ when: { body:/a: { present: true, matches: a } } }", "a test is one of"),
        ("{ when: { body:/a: { matches: 'a+' } } }", "0.when.body:/a.matches: `*` and `+` have no bound"),
        ("{ when: { body:/a: { param: x } } }", "parameters are for packs"),
        ("{ when: { body:/a: { secret: env:NOT_SET } } }", "0.when.body:/a.secret: `NOT_SET` is not set"),
        ("{ when: { body:/a: b }, refuse: 401 }", "403 or 404"),
        ("{ when: { body:/a: b }, echo: a }", "0.echo: `a` says no place"),
        ("{ when: { body:/a: b }, echo: query:a, answer: { status: 204 } }", "either `echo` or `answer`"),
        ("{ when: { body:/a: b }, answer: { status: 302 } }", "200 to 299"),
        ("{ when: { body:/a: b }, answer: { status: 204, body: x } }", "has no body"),
        ("{ when: { body:/a: b }, answer: { body: x, json: { a: b } } }", "either `body` or `json`"),
        ("{ when: { body:/a: b }, answer: { body: '{query:a' } }", "not closed"),
        (
            "{ when: { body:/a: b }, answer: { body: '{query:a}', content_type: text/html } }",
            "`text/plain` or",
        ),
        (
            "{ when: { body:/a: b }, answer: { body: '\"{query:a}\"', content_type: application/json } }",
            "write `json",
        ),
        (
            "{ when: { body:/a: b }, answer: { headers: { Set-Cookie: a } } }",
            "`Set-Cookie` can't be set here",
        ),
        ("{ when: { body:/a: b }, answer: { body: '{proof}' } }", "`proof` does not say what it is"),
        (
            "{ when: { query:a: b }, answer: { proof: { algorithm: hmac-sha256, signed: '{query:a}', encoding: hex } } }",
            "sent nowhere",
        ),
        (
            "{ when: { body:/a: b }, answer: { body: '{proof}', proof: { algorithm: md5, signed: a, encoding: hex } } }",
            "unknown algorithm",
        ),
        (
            "{ when: { body:/a: b }, answer: { body: '{proof}', proof: { algorithm: sha256, signed: a, encoding: hex } } }",
            "without `{secret}`",
        ),
        (
            "{ signed: false, when: { query:a: { present: true } }, answer: { body: '{proof}', HMAC } }",
            "could have anything signed",
        ),
        (
            "{ signed: false, when: { query:a: { matches: 'a{9}' } }, answer: { body: '{proof}', proof: { algorithm: hmac-sha256, signed: '{query:a}{body}', encoding: hex } } }",
            "could have anything signed",
        ),
        (
            "{ signed: false, when: { query:a: b }, visit: { url: body:/u, hosts: a.example } }",
            "only a URL that is signed",
        ),
        ("{ when: { query:a: b }, visit: { url: body:/u, hosts: '*.com' } }", "no host such as"),
    ] {
        let error =
            own(&handshake.replace("HMAC", HMAC), "{ provider: github, secret: s }").map(|_| ()).unwrap_err();
        assert!(error.contains(expected), "{handshake}: {error}");
    }
    let shaped = format!(
        "{{ signed: false, when: {{ query:a: {{ matches: 'a{{9}}' }} }}, answer: {{ body: '{{proof}}', {HMAC} }} }}"
    );
    own(&shaped, "{ provider: github, secret: s }").unwrap();
    assert!(own(&shaped, "none").unwrap_err().contains("has no secret"));
}

#[test]
fn a_packs_handshakes_are_checked_when_it_is_read() {
    let verify = json!({"algorithm": "token", "signature": {"from": "header:X"}});
    let error = |handshake: Value| pack_of(&written("acme", &verify, &json!({}), &handshake)).unwrap_err();
    let near = error(json!({"when": {"body:/a": {"param": "topics"}}}));
    assert!(near.contains("handshake.when.body:/a.param: unknown parameter `topics`"), "{near}");
    assert!(error(json!({"when": {"body:/a": {"secret": "env:X"}}})).contains("no place in a pack"));
    assert!(error(json!({"when": {}})).contains("every request would be a greeting"));
    assert!(error(json!({"when": {"a": "b"}, "ecko": "query:a"})).contains("ecko"));
}

#[test]
fn a_url_is_visited_only_on_a_pinned_host() {
    let handshakes = own(
        "{ when: { body:/Type: SubscriptionConfirmation }, \
           visit: { url: body:/SubscribeURL, hosts: [\"sns.[a-z]{2}-[a-z-]{4,20}-[0-9]{1,2}.amazonaws.com\", sns.*.amazonaws.com.cn, 127.0.0.1] } }",
        "none",
    )
    .unwrap();
    let visit = |url: &str| {
        let body = json!({"Type": "SubscriptionConfirmation", "SubscribeURL": url}).to_string();
        let r = request("/", &[], body.as_bytes());
        handshakes.recognise(&r).unwrap().reply(&r, None).map(|reply| reply.visit.unwrap().url.to_string())
    };
    for good in [
        "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=2336",
        "https://SNS.cn-north-1.amazonaws.com.cn:443/?a",
        "http://127.0.0.1:8080/confirm?x=1",
    ] {
        assert_eq!(visit(good).map(|url| url.to_ascii_lowercase()), Ok(good.to_ascii_lowercase()));
    }
    for bad in [
        "http://sns.us-west-2.amazonaws.com/",
        "https://sns.us-west-2.amazonaws.com:8443/",
        "https://sns.us-west-2.amazonaws.com.evil.example/",
        "https://sns.s3.amazonaws.com/",
        "https://sns.s3-us-west-2.amazonaws.com/",
        "https://sns.us-west-2.amazonaws.com./",
        "https://sns.us-west-2.amazonaws.com:443@evil.example/",
        "https://sns.us-west-2%2eevil.amazonaws.com/",
        "https://sns.a.b.amazonaws.com/",
        "https://sns..amazonaws.com/",
        "https://sns.us-west-2.amazonaws.com@evil.example/",
        "https://evil.example/sns.us-west-2.amazonaws.com",
        "https://evil.example/#@sns.us-west-2.amazonaws.com",
        "https://evil.example\\@sns.us-west-2.amazonaws.com/",
        "ftp://sns.us-west-2.amazonaws.com/",
        "//sns.us-west-2.amazonaws.com/",
        "/relative",
        "",
    ] {
        assert!(visit(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_refused_subscription_is_warned_of_once_a_minute() {
    let rule: VerifySpec =
        serde_saphyr::from_str("{ provider: websub, secret: abc, topics: 'https://feeds.example.com/news' }")
            .unwrap();
    let pack = crate::providers::find("websub").unwrap();
    let written = Written::Pack { pack: &pack, shows: false };
    let handshakes = compile(written, &rule, Policy::Answer, &World::default()).unwrap();
    let warned = |topic: &str, at: u64| {
        let mut r = request(&format!("/in?hub.mode=denied&hub.topic={topic}&hub.reason=no"), &[], b"");
        r.head.method = Method::GET;
        r.head.received_at = crate::clock::Timestamp::from_secs(at);
        handshakes.recognise(&r).unwrap().reply(&r, None).map(|reply| reply.warn).ok().flatten()
    };
    let ours = "https://feeds.example.com/news";
    assert_eq!(warned("https://other.example/", 1000), None, "not a topic of ours");
    let text = warned(ours, 1000).unwrap();
    assert!(text.contains(ours) && text.contains("refuse"), "{text}");
    assert_eq!(warned(ours, 1059), None);
    assert!(warned(ours, 1060).is_some());
}

#[test]
fn a_secret_is_shown_only_so_often() {
    let handshakes = own(
        "{ signed: false, when: { header:X-Hook-Secret: { present: true } }, show: header:X-Hook-Secret }",
        "none",
    )
    .unwrap();
    let r = request("/", &[("X-Hook-Secret", "s3cret")], b"");
    let shown = (0..100).filter(|_| handshakes.recognise(&r).unwrap().reply(&r, None).is_ok()).count();
    assert_eq!(shown, MAX_SHOWN as usize);
}

#[test]
fn what_is_long_or_not_plain_is_not_sent_back() {
    let handshakes =
        own("{ methods: [GET], when: { query:a: { present: true } }, echo: query:a }", "none").unwrap();
    let echo = |value: &str| {
        let mut r = request(&format!("/?a={value}"), &[], b"");
        r.head.method = Method::GET;
        handshakes.recognise(&r).unwrap().reply(&r, None).map(|reply| reply.answer.body.len())
    };
    assert_eq!(echo(&"a".repeat(1024)), Ok(1024));
    for bad in [&"a".repeat(1025), "a%0ab", "%C3%BC", "%00", "%7f", "%ff"] {
        assert_eq!(echo(bad).unwrap_err().reason, Reason::HandshakeMalformed, "{bad}");
    }
}

#[test]
fn forwarded_greetings_are_recognised_without_what_only_the_app_knows() {
    let sender =
        senders().into_iter().find(|sender| sender.route.as_deref() == Some("meta-without-a-token")).unwrap();
    let pack = pack(&sender);
    let spec = VerifySpec::of_provider("meta", vec![crate::verify::spec::SecretSpec::of("s".into())]);
    let world = World { packs: [(pack.name.clone(), pack.clone())].into(), ..World::default() };
    let handshakes =
        |policy| compile(Written::Pack { pack: &pack, shows: false }, &spec, policy, &world).unwrap();
    assert!(handshakes(Policy::Answer).is_empty());
    assert_eq!(handshakes(Policy::Forward).methods().collect::<Vec<_>>(), [&Method::GET]);
}

#[test]
fn a_handshake_does_not_swallow_events() {
    let probe = own("{ methods: [GET, HEAD], signed: false }", "none").unwrap();
    assert_eq!(probe.swallows(&[Method::POST]), None);
    assert_eq!(probe.swallows(&[Method::POST, Method::GET]), Some(&Method::GET));
    let told = own("{ methods: [GET], when: { query:a: b } }", "none").unwrap();
    assert_eq!(told.swallows(&[Method::GET]), None);
}

/// Everything that a greeting of an unsigned handshake can be answered with, held against rules with the same secret.
#[test]
fn what_a_greeting_is_answered_passes_no_rule_with_the_same_secret() {
    let handshake = r#"{ methods: [GET], signed: false, when: { query:c: { matches: "[!-~]{1,200}" } },
        answer: { body: "{proof}", proof: { algorithm: hmac-sha256, signed: "{query:c}", encoding: hex } } }"#;
    let secret = "a-secret-of-at-least-thirty-two-bytes";
    let world = World::default();
    let verifier = |yaml: &str| {
        let spec: VerifySpec = serde_saphyr::from_str(yaml).unwrap();
        (crate::verify::compile(&spec, &world).unwrap().verifier, spec)
    };
    let hmac = format!(
        "{{ algorithm: hmac-sha256, signature: {{ from: header:S, encoding: hex }}, secret: {secret} }}"
    );
    let jwt = format!("{{ jwt: {{ algorithms: HS256, secrets: [{secret}] }} }}");
    let timed = format!(
        "{{ algorithm: hmac-sha256, signed: '{{timestamp}}.{{body}}', timestamp: {{ from: header:T }}, signature: {{ from: header:S, encoding: hex }}, secret: {secret} }}"
    );
    // The route that answers has the secret as its second, left over from a rotation.
    let (_, rule) =
        verifier(&hmac.replace(&format!("secret: {secret}"), &format!("secrets: [a-new-secret, {secret}]")));
    let specs: Vec<HandshakeSpec> = serde_saphyr::from_str(&format!("[{handshake}]")).unwrap();
    compile(Written::Own(&specs), &rule, Policy::Answer, &world).unwrap();

    for yaml in [&hmac, &timed] {
        let (verifier, _) = verifier(yaml);
        let signed = verifier.sign(&request("/", &[], b"{\"a\":1}"), None, NOW, None).unwrap();
        let (_, refusal) = verifier.verify(signed, None, NOW).unwrap_err();
        assert!(refusal.detail.contains("a greeting is answered with the same"), "{refusal:?}");
        // A space is no part of the shape.
        let signed = verifier.sign(&request("/", &[], b"{\"a\": 1}"), None, NOW, None).unwrap();
        assert!(verifier.verify(signed, None, NOW).is_ok());
    }
    let (verifier, _) = verifier(&jwt);
    let signed = verifier.sign(&request("/", &[], b"x"), None, NOW, None).unwrap();
    let (_, refusal) = verifier.verify(signed, None, NOW).unwrap_err();
    assert!(refusal.detail.contains("a greeting is answered with the same"), "{refusal:?}");
}
