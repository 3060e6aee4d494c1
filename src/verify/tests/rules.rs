//! What compiles, what does not and where it says so, and how rules combine.

use super::{NOW, compiled, problems, refused, spec};
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::spec::SecretSpec;
use crate::verify::testing::{World, request};
use crate::verify::{Extract, VerifySpec, compile};

/// Each problem as `at: message (help)`.
fn said(yaml: &str) -> Vec<String> {
    problems(yaml)
        .iter()
        .map(|p| format!("{}: {} ({})", p.at.join("."), p.message, p.help.as_deref().unwrap_or_default()))
        .collect()
}

#[test]
fn none_proves_nobody_and_says_so() {
    let rule = compiled("none");
    let verified = rule.verifier.verify(request("/", &[], b""), None, NOW).unwrap();
    assert_eq!(&**verified.by(), "none");
    assert!(rule.verifier.headers_used().is_empty() && rule.pack.is_none());
}

#[test]
fn the_short_form_is_a_provider_with_its_secrets() {
    let short =
        VerifySpec::of_provider("github", vec![SecretSpec::of("a".into()), SecretSpec::of("b".into())]);
    assert_eq!(short, spec("{ provider: github, secrets: [a, b] }"));
    assert!(compile(&VerifySpec::of_provider("github", vec![]), &World::default()).is_err());
}

#[test]
fn outside_its_window_a_secret_proves_nothing_whatever_the_scheme() {
    let before = "until: \"2025-11-24T16:00:00Z\"";
    let after = "from: \"2025-11-24T16:00:01Z\"";
    let within = "from: \"2025-11-24T16:00:00Z\", until: \"2025-11-24T16:00:01Z\", label: this";
    for scheme in [
        "{ algorithm: hmac-sha256, signature: { from: header:X, encoding: hex }, secrets: [KEY] }",
        "{ algorithm: sha256, signed: '{secret}{body}', signature: { from: header:X, encoding: hex }, secrets: [KEY] }",
        "{ algorithm: token, signature: { from: header:X }, secrets: [KEY] }",
        "{ provider: github, secret: KEY }",
        "{ api_key: { header: X, keys: [KEY] } }",
        "{ bearer: { tokens: [KEY] } }",
        "{ jwt: { algorithms: HS256, issuer: i, secrets: [KEY] } }",
    ] {
        let rule = |window: &str| {
            let secret = "00112233445566778899aabbccddeeff";
            compiled(&scheme.replace("KEY", &format!("{{ secret: {secret}, {window} }}")))
        };
        let bare = request("/", &[], b"{}");
        let signed = rule(within).verifier.sign(&bare, None, NOW, None).unwrap();
        let verified = rule(within).verifier.verify(signed.clone(), None, NOW).unwrap();
        assert_eq!(verified.label().map(|label| &**label), Some("this"), "{scheme}");
        assert!(refused(&rule(before), &signed).is_some(), "{scheme}");
        assert!(refused(&rule(after), &signed).is_some(), "{scheme}");
        assert!(rule(after).verifier.sign(&bare, None, NOW, None).is_err(), "{scheme}");
    }
    let said = said("{ provider: github, secret: { secret: s, until: \"soon\" } }");
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("secret.until: `soon` is not a time"), "{}", said[0]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_where() {
    let said = said(
        "{ any: [{ provider: githup, secret: env:LOST }, { provider: stripe, secret: env:GONE, tolerance: soon }, \
         { algorithm: hmac-sha265, secret: s, signed: '{bdoy}', signature: { from: heder:X, encoding: hexx } }, none] }",
    );
    for expected in [
        "any.0.provider: unknown provider `githup`, did you mean `github`?",
        "any.0.secret: `LOST` is not set",
        "any.1.secret: `GONE` is not set",
        "any.1.tolerance: `soon` is not a duration",
        "any.2.algorithm: unknown algorithm `hmac-sha265` (did you mean `hmac-sha256`?)",
        "any.2.signed: unknown `{bdoy}`, did you mean `{body}`?",
        "any.2.signature.from: unknown place `heder:`, did you mean `header:`?",
        "any.2.signature.encoding: unknown encoding `hexx` (did you mean `hex`?)",
        "any.3: `none` within `any` would make the rule mean nothing",
    ] {
        assert!(said.iter().any(|line| line.starts_with(expected)), "{expected}\n{}", said.join("\n"));
    }
    assert_eq!(said.len(), 9, "{}", said.join("\n"));
}

#[test]
fn what_makes_no_sense_does_not_compile() {
    for (rule, expected) in [
        ("{ }", "does not say what proves the sender"),
        ("{ any: [] }", "any: `any` is empty"),
        ("{ any: [{ provider: gitlab, secret: s, name: 'a b' }] }", "any.0.name: `a b` is not a name"),
        (
            "{ any: [{ provider: gitlab, secret: s, name: a }, { provider: github, secret: s, name: a }] }",
            "any.1.name: another rule of this `any` is named `a`",
        ),
        ("{ provider: gitlab, secret: s, name: a }", "name: `name` has no meaning here"),
        ("{ all: [] }", "all: `all` is empty"),
        ("{ provider: github }", "github needs a secret"),
        ("{ provider: github, secrets: [] }", "github needs a secret"),
        ("{ provider: github, secret: '' }", "secret: the secret is empty"),
        ("{ provider: github, secret: a, secrets: [b] }", "either `secret` or `secrets`"),
        ("{ provider: github, secret: a, public_keys: [b] }", "`public_keys` has no meaning for github"),
        ("{ provider: github, secret: a, tolerance: 5m }", "`tolerance` has no meaning for github"),
        (
            "{ provider: github, secret: a, jwt: { algorithms: HS256 } }",
            "in one way, this one has provider, jwt",
        ),
        ("{ provider: github, secert: a }", "unknown key `secert` (did you mean `secret`?)"),
        ("{ provider: standard-webhooks, secret: '***' }", "secret: the secret is not base64"),
        (
            "{ provider: standard-webhooks, public_keys: [whpk_AAAA] }",
            "public_keys.0: this is not a public key",
        ),
        ("{ provider: standard-webhooks }", "needs `secrets` or `public_keys`"),
        ("{ provider: stripe, secret: a, tolerance: 0s }", "refuses everything"),
        ("{ provider: stripe, secret: a, tolerance: 3d }", "not a duration"),
        ("{ provider: stripe, secret: a, tolerance: 25h }", "at most 24h"),
        ("{ algorithm: hmac-sha256, secret: a }", "where the signature is, is missing"),
        ("{ algorithm: hmac-sha256, secret: a, signature: { from: header:X } }", "the encoding is missing"),
        (
            "{ algorithm: hmac-sha256, signature: { from: header:X, encoding: hex } }",
            "secrets: there is no secret",
        ),
        (
            "{ algorithm: ed25519, secret: a, signature: { from: header:X, encoding: hex } }",
            "takes `public_keys`, not secrets",
        ),
        (
            "{ algorithm: sha256, secret: a, signature: { from: header:X, encoding: hex } }",
            "proves nothing without `{secret}`",
        ),
        (
            "{ algorithm: hmac-sha256, secret: a, signed: '{body}', timestamp: { from: header:T }, signature: { from: header:X, encoding: hex } }",
            "timestamp: the time is checked, but not signed",
        ),
        (
            "{ algorithm: hmac-sha256, secret: a, signed: '{timestamp}{body}', signature: { from: header:X, encoding: hex } }",
            "does not say where it is",
        ),
        (
            "{ algorithm: hmac-sha256, secret: a, signed: '{timestamp}{body}', timestamp: { from: 'item:t' }, signature: { from: header:X, item: v1, encoding: hex } }",
            "timestamp.from: `item:` is one of several items beside the signature, and `signature` has no `list`",
        ),
        (
            "{ algorithm: hmac-sha256, secret: a, signed: '{header:x-acme}{body}', signature: { from: header:X-Acme, encoding: hex } }",
            "signed: `{header:x-acme}` is where the signature itself stands",
        ),
        ("{ api_key: { keys: [a] } }", "either `header` or `query`"),
        ("{ api_key: { header: X, keys: [] } }", "api_key.keys: the list is empty"),
        ("{ api_key: { header: X, keys: ['sha256:12'] } }", "64 hex digits"),
        ("{ bearer: { tokens: [] } }", "bearer.tokens: the list is empty"),
        ("{ basic: { users: [] } }", "basic.users: the list is empty"),
        ("{ basic: { users: [{ name: 'a:b', password: c }] } }", "has no `:`"),
        ("{ bearer: { tokens: [a] }, secret: b }", "`secret` has no meaning here"),
        ("{ jwt: { secrets: [a] } }", "the accepted algorithms must be named"),
        ("{ jwt: { algorithms: [none], secrets: [a] } }", "unknown algorithm `none`"),
        ("{ jwt: { algorithms: HS256 } }", "there is no key"),
        ("{ jwt: { algorithms: HS256, secrets: [short] } }", "too weak for a JWT"),
        (
            "{ jwt: { algorithms: RS256, secrets: [a123456789012345678901234567890123456789] } }",
            "none is in `algorithms`",
        ),
        ("{ jwt: { algorithms: RS256, jwks: '{}' } }", "not a JSON Web Key Set"),
        ("{ jwt: { algorithms: RS256, jwks: '{\"keys\":[]}' } }", "holds no key"),
        ("{ jwt: { algorithms: HS256, jwks: 'https://x/' } }", "never used for HS256"),
        (
            "{ jwt: { algorithms: HS256, secrets: [a123456789012345678901234567890123456789], leeway: 10m } }",
            "at most 300s",
        ),
        (
            "{ jwt: { algorithms: HS256, secrets: [a123456789012345678901234567890123456789], issuer: [] } }",
            "the list is empty",
        ),
    ] {
        let said = said(rule);
        assert!(said.iter().any(|line| line.contains(expected)), "{rule}\n{}", said.join("\n"));
    }
}

#[test]
fn any_takes_the_first_that_holds_and_else_the_most_telling_refusal() {
    let rule = compiled(
        "{ any: [{ bearer: { tokens: [{ secret: t, label: ci }] } }, { provider: gitlab, secret: s }] }",
    );
    let verified = rule.verifier.verify(request("/", &[("X-Gitlab-Token", "s")], b""), None, NOW).unwrap();
    assert_eq!(&**verified.by(), "gitlab");
    let verified =
        rule.verifier.verify(request("/", &[("Authorization", "bearer t")], b""), None, NOW).unwrap();
    assert_eq!((&**verified.by(), verified.label().map(|l| &**l)), ("bearer", Some("ci")));
    assert_eq!(refused(&rule, &request("/", &[], b"")), Some(Reason::CredentialsMissing));
    let r = request("/", &[("X-Gitlab-Token", "x")], b"");
    assert_eq!(refused(&rule, &r), Some(Reason::SignatureInvalid));
    assert_eq!(rule.verifier.headers_used(), ["authorization", "x-gitlab-token"]);
    assert_eq!(rule.pack.unwrap().name, "gitlab");
}

#[test]
fn which_rule_of_several_held_is_told_apart() {
    let gitlab = request("/", &[("X-Gitlab-Token", "s")], b"");
    let bearer = |token: &str| request("/?k=a", &[("Authorization", &format!("Bearer {token}"))], b"");
    let way = |rule: &str, r: &Request| {
        compiled(rule).verifier.verify(r.clone(), None, NOW).unwrap().way().map(|way| way.to_string())
    };
    let many = "{ any: [{ bearer: { tokens: [t] } }, { provider: gitlab, secret: s }, { bearer: { tokens: [u] } }] }";
    assert_eq!(way(many, &bearer("t")).as_deref(), Some("bearer"));
    assert_eq!(way(many, &bearer("u")).as_deref(), Some("bearer#2"));
    assert_eq!(way(many, &gitlab).as_deref(), Some("gitlab"));
    // A name goes with its rule, and those without are counted as before.
    let named = "{ any: [{ bearer: { tokens: [u] }, name: them }, { provider: gitlab, secret: s }, { bearer: { tokens: [t] } }] }";
    assert_eq!(way(named, &bearer("u")).as_deref(), Some("@them"));
    assert_eq!(way(named, &bearer("t")).as_deref(), Some("bearer"));
    // Where there is one rule, all is as it was.
    for one in ["{ provider: gitlab, secret: s }", "{ any: [{ provider: gitlab, secrets: [x, s] }] }"] {
        assert_eq!(way(one, &gitlab), None, "{one}");
    }
    let within = "{ all: [{ api_key: { query: k, keys: [a] } }, { any: [{ any: [{ bearer: { tokens: [t] } }, { bearer: { tokens: [u] } }] }, { provider: gitlab, secret: s }] }] }";
    assert_eq!(way(within, &bearer("u")).as_deref(), Some("any/bearer#2"));
}

#[test]
fn a_credential_beside_a_signature_covers_nothing_that_is_not_signed() {
    const BODY: &str = "{ algorithm: hmac-sha256, secret: s, signature: { from: header:X, encoding: hex } }";
    const ID: &str = "{ algorithm: hmac-sha256, secret: s, signed: '{header:webhook-id}.{body}', signature: { from: header:X, encoding: hex } }";
    const BEARER: &str = "{ bearer: { tokens: [t] } }";
    const KEY: &str = "{ api_key: { query: k, keys: [a] } }";
    let id = Extract::parse("header:webhook-id").unwrap();
    let covers = |rule: &str| compiled(rule).verifier.covers(&id);
    assert!(covers(BEARER) && covers(ID) && !covers(BODY));
    assert!(
        covers(&format!("{{ all: [{BEARER}, {KEY}] }}")) && covers(&format!("{{ any: [{BEARER}, {ID}] }}"))
    );
    assert!(covers(&format!("{{ all: [{BODY}, {ID}] }}")) && covers(&format!("{{ all: [{BEARER}, {ID}] }}")));
    assert!(!covers(&format!("{{ all: [{BEARER}, {BODY}] }}")));
    assert!(
        !covers(&format!("{{ any: [{BEARER}, {BODY}] }}")) && !covers(&format!("{{ any: [{ID}, {BODY}] }}"))
    );
    // A provider's own key is asked of the others.
    let of_pack = |other: &str| {
        let rule =
            compiled(&format!("{{ any: [{{ provider: standard-webhooks, secret: c2VjcmV0 }}, {other}] }}"));
        rule.verifier.covers_key_of(&rule.pack.unwrap(), &id)
    };
    assert!(of_pack(BEARER) && of_pack(ID) && !of_pack(BODY));
}

#[test]
fn all_wants_each() {
    let rule = compiled("{ all: [{ api_key: { query: k, keys: [a] } }, { provider: gitlab, secret: s }] }");
    let send =
        |target: &str, token: &str| refused(&rule, &request(target, &[("X-Gitlab-Token", token)], b""));
    assert_eq!(send("/?k=a", "s"), None);
    assert_eq!(send("/?k=b", "s"), Some(Reason::CredentialsInvalid));
    assert_eq!(send("/?k=a", "x"), Some(Reason::SignatureInvalid));
    assert_eq!(send("/", "s"), Some(Reason::CredentialsMissing));
    let r = request("/?k=a", &[("X-Gitlab-Token", "s")], b"");
    assert_eq!(&**rule.verifier.verify(r, None, NOW).unwrap().by(), "api_key+gitlab");
}

#[test]
fn the_matching_secret_is_named() {
    let rule =
        compiled("{ provider: gitlab, secrets: [{ secret: a, label: old }, { secret: b, label: new }, c] }");
    let label = |token: &str| {
        let r = request("/", &[("X-Gitlab-Token", token)], b"");
        rule.verifier.verify(r, None, NOW).unwrap().label().map(|label| label.to_string())
    };
    assert_eq!((label("a").as_deref(), label("b").as_deref(), label("c")), (Some("old"), Some("new"), None));
}

#[test]
fn a_users_tolerance_replaces_the_packs() {
    let within = |tolerance: &str, seconds: u64| {
        let rule = compiled(&format!("{{ provider: stripe, secret: s, tolerance: {tolerance} }}"));
        let draft = request("/", &[], b"{}");
        let r = rule.verifier.sign(&draft, None, NOW, None).unwrap();
        let later = NOW.saturating_add(std::time::Duration::from_secs(seconds));
        rule.verifier.verify(r, None, later).is_ok()
    };
    assert!(within("10s", 10) && !within("10s", 11) && within("1h", 3600) && !within("1h", 3601));
}

#[test]
fn a_pack_without_keys_of_its_own_does_not_hide_unknown_keys() {
    let said = said("{ provider: stripe, secret: a, endpoint: x }");
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("endpoint: unknown key `endpoint`"), "{}", said[0]);
}

#[test]
fn what_concerns_several_ways_of_a_pack_is_said_once() {
    assert_eq!(said("{ provider: svix, secret: c2VjcmV0, tolerance: soon }").len(), 1);
}

#[test]
fn nothing_secret_is_printed() {
    for rule in [
        "{ provider: stripe, secret: hush-hush }",
        "{ provider: gitlab, secret: hush-hush }",
        "{ bearer: { tokens: [hush-hush] } }",
        "{ jwt: { algorithms: HS256, secrets: [hush-hush-hush-hush-hush-hush-hush-hush] } }",
        "{ algorithm: sha1, signed: '{secret}', secret: hush-hush, signature: { from: header:X, encoding: hex } }",
    ] {
        let shown = format!("{:?}", compiled(rule));
        assert!(!shown.contains("hush") && !shown.contains("104, 117, 115, 104"), "{shown}");
    }
}
