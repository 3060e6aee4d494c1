//! A table of mistakes: what people get wrong, and what they are told.

use super::super::testing::{compiled, request};
use super::*;
use crate::message::Head;
use crate::reason::Reason;

const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

/// A sender's request: signed for `rule` over `body`.
fn signed(rule: &str, target: &str, body: &[u8]) -> Request {
    let bare = request(target, &[], body);
    compiled(rule).verifier.sign(&bare, None, NOW, None).unwrap()
}

fn with_body(request: &Request, body: &[u8]) -> Request {
    Request { body: body.to_vec().into(), ..request.clone() }
}

fn codes(rule: &str, request: &Request) -> Vec<&'static str> {
    let explanation = compiled(rule).verifier.explain(request, None, NOW, &[]);
    assert!(explanation.decision.is_err(), "{rule}: accepted");
    explanation.likely().map(|likely| likely.code).collect()
}

const GITHUB: &str = "{ provider: github, secret: abcdef }";

#[test]
fn a_body_that_was_changed_on_its_way_is_recognised() {
    let json = br#"{"a":[1,2],"b":"x"}"#;
    for (sent, arrived, code) in [
        (&json[..], &b"{\"a\":[1,2],\"b\":\"x\"}\n"[..], "final_newline"),
        (b"{}", b"{}\r\n", "final_newline"),
        (b"{}\n", b"{}", "missing_newline"),
        (b"a\nb", b"a\r\nb", "line_ends"),
        (b"a\r\nb", b"a\nb", "line_ends"),
        (b"a b", b" a b ", "white_space"),
        (b"{}", b"\xef\xbb\xbf{}", "byte_order_mark"),
        (json, br#"{"a": [1, 2], "b": "x"}"#, "json_rewritten"),
        (br#"{"a": [1, 2], "b": "x"}"#, json, "json_rewritten"),
        (b"{\n  \"a\": 1\n}", b"{\"a\":1}", "json_rewritten"),
        (br#"{"u":"http:\/\/x"}"#, br#"{"u":"http://x"}"#, "json_rewritten"),
        (br#"{"u":"\u00fc"}"#, "{\"u\":\"\u{fc}\"}".as_bytes(), "json_rewritten"),
        (b"", b"something", "empty_body"),
    ] {
        let request = with_body(&signed(GITHUB, "/in", sent), arrived);
        assert_eq!(codes(GITHUB, &request).first(), Some(&code), "{:?}", arrived.escape_ascii().to_string());
    }
}

#[test]
fn what_a_plain_digest_lacks_is_named_and_a_path_alone_is_no_url() {
    const RULE: &str = "{ provider: hubspot-legacy, secret: abcdef }";
    let request = with_body(&signed(RULE, "/in", b"[1]\n"), b"[1]");
    assert_eq!(codes(RULE, &request), ["missing_newline"]);
    let mut bare = request;
    bare.head.authority.clear();
    let explanation = compiled(RULE).verifier.explain(&bare, None, NOW, &[]);
    let said = format!("{explanation:?}");
    assert!(said.contains("its URL is /in, its host is not known") && !said.contains("https://"), "{said}");
}

#[test]
fn the_first_difference_is_named() {
    let request = with_body(&signed(GITHUB, "/in", b"{}"), b"{}\n");
    let explanation = compiled(GITHUB).verifier.explain(&request, None, NOW, &[]);
    let text = &explanation.likely().next().unwrap().text;
    assert!(
        text.contains("3 bytes here, 2 there; the first difference is at byte 2: here `\\n`, there the end"),
        "{text}"
    );
}

#[test]
fn a_secret_that_was_copied_wrongly_is_recognised() {
    // What the sender signs with, what the config says.
    let own = |secret: &str| {
        format!(
            "{{ algorithm: hmac-sha256, signature: {{ from: 'header:x-sig', encoding: hex }}, secret: \"{secret}\" }}"
        )
    };
    for (right, configured, code) in [
        ("abcdef", " abcdef ", "secret_trimmed"),
        ("abcdef", "\\\"abcdef\\\"", "secret_quotes"),
        ("abcdef", "whsec_abcdef", "secret_prefix"),
        ("abcdef", "sk_abcdef", "secret_prefix"),
        ("whsec_abcdef", "abcdef", "secret_prefix"),
        ("abcdef\\n", "abcdef", "secret_newline"),
        ("hello", "aGVsbG8=", "secret_base64"),
        ("hello", "whsec_aGVsbG8=", "secret_base64"),
        ("hello", "68656c6c6f", "secret_hex"),
        ("aGVsbG8=", "hello", "secret_base64"),
    ] {
        let request = signed(&own(right), "/in", b"{}");
        let found = codes(&own(configured), &request);
        assert_eq!(found.first(), Some(&code), "{configured} for {right}: {found:?}");
    }
    // Where the scheme decodes, the sender may not.
    let decodes = |decode: &str| {
        format!(
            "{{ algorithm: hmac-sha256, key: {{ prefix: whsec_, decode: {decode} }}, signature: {{ from: 'header:x-sig', encoding: hex }}, secret: whsec_aGVsbG8= }}"
        )
    };
    let request = signed(&decodes("text"), "/in", b"{}");
    assert_eq!(codes(&decodes("base64"), &request), ["secret_prefix"]);
    let request = signed(&own("whsec_aGVsbG8="), "/in", b"{}");
    assert_eq!(codes(&decodes("base64"), &request), ["secret_text"]);
}

#[test]
fn another_routes_secret_is_named_by_its_route() {
    let other = compiled("{ provider: github, secret: other-secret }");
    let request = signed("{ provider: github, secret: other-secret }", "/in", b"{}");
    let explanation = compiled(GITHUB).verifier.explain(&request, None, NOW, &[("billing", &other.verifier)]);
    let likely: Vec<_> = explanation.likely().collect();
    assert_eq!(likely[0].code, "other_route");
    assert!(likely[0].text.contains("`billing`"), "{}", likely[0].text);
    let token = compiled("{ api_key: { header: x-key, keys: [theirs] } }");
    let rule = compiled("{ api_key: { header: x-key, keys: [ours] } }");
    let sent = super::super::testing::request("/in", &[("x-key", "theirs")], b"");
    let explanation = rule.verifier.explain(&sent, None, NOW, &[("billing", &token.verifier)]);
    assert_eq!(explanation.likely().next().unwrap().code, "other_route");
}

#[test]
fn an_address_that_the_sender_knows_otherwise_is_recognised() {
    let rule = "{ algorithm: hmac-sha256, signed: '{url}{body}', signature: { from: 'header:x-sig', encoding: hex }, secret: s }";
    let signed_for = |url: &str| {
        let bare = request("/in?x=1", &[], b"{}");
        compiled(rule).verifier.sign(&bare, Some(url), NOW, None).unwrap()
    };
    assert_eq!(codes(rule, &signed_for("http://hooks.example.com")), ["url_scheme"]);
    assert_eq!(codes(rule, &signed_for("https://hooks.example.com:443")), ["url_port"]);
    let slash = signed(rule, "/in/?x=1", b"{}");
    let mut arrived = slash.clone();
    arrived.head.target = "/in?x=1".into();
    assert_eq!(codes(rule, &arrived), ["url_slash"]);
    arrived.head.target = "/in/".into();
    assert!(codes(rule, &arrived).contains(&"unknown"));
    // The rule has a public URL, but the sender was given another.
    let own = signed(rule, "/in?x=1", b"{}");
    let explanation = compiled(rule).verifier.explain(&own, Some("https://elsewhere.example"), NOW, &[]);
    assert_eq!(explanation.likely().next().unwrap().code, "url_public");
}

#[test]
fn a_signature_of_another_form_is_recognised() {
    let own = |algorithm: &str, encoding: &str, prefix: &str| {
        format!(
            "{{ algorithm: {algorithm}, signature: {{ from: 'header:x-sig', encoding: {encoding}, prefix: '{prefix}' }}, secret: abc }}"
        )
    };
    let ours = own("hmac-sha256", "hex", "");
    for (theirs, code) in [
        (own("hmac-sha256", "base64", ""), "encoding"),
        (own("hmac-sha1", "hex", ""), "hash"),
        (own("hmac-sha512", "hex", ""), "hash"),
        (own("hmac-sha256", "hex", "sha256="), "prefix"),
    ] {
        let request = signed(&theirs, "/in", b"{}");
        assert_eq!(codes(&ours, &request).first(), Some(&code), "{theirs}");
    }
    let request = signed(&ours, "/in", b"{}");
    assert_eq!(codes(&own("hmac-sha256", "hex", "sha256="), &request).first(), Some(&"prefix"));
    // Two mistakes at once.
    let request = with_body(&signed(&own("hmac-sha1", "hex", ""), "/in", b"{}"), b"{}\n");
    let explanation = compiled(&ours).verifier.explain(&request, None, NOW, &[]);
    let text = &explanation.likely().next().unwrap().text;
    assert!(text.contains("final newline") && text.contains("SHA-1"), "{text}");
}

#[test]
fn a_header_under_nearly_the_right_name_is_recognised() {
    let request = signed(GITHUB, "/in", b"{}");
    let value = request.head.headers.first("x-hub-signature-256").unwrap();
    let value = std::str::from_utf8(value).unwrap();
    for name in
        ["X-Hub-Signature256", "Hub-Signature-256", "X_Hub_Signature_256", "X-Original-Hub-Signature-256"]
    {
        let renamed = super::super::testing::request("/in", &[(name, value)], b"{}");
        let explanation = compiled(GITHUB).verifier.explain(&renamed, None, NOW, &[]);
        let likely = explanation.likely().next().unwrap();
        assert_eq!(likely.code, "header_name", "{name}");
        assert!(likely.text.contains(name), "{}", likely.text);
    }
    assert_eq!(codes(GITHUB, &super::super::testing::request("/in", &[], b"{}")), ["unknown"]);
}

#[test]
fn a_time_that_is_off_is_told_apart_from_a_wrong_signature() {
    let stripe = "{ provider: stripe, secret: whsec_abc }";
    let request = signed(stripe, "/in", b"{}");
    let rule = compiled(stripe);
    let late = Timestamp::from_secs(NOW.as_secs() + 3600);
    let explanation = rule.verifier.explain(&request, None, late, &[]);
    let likely: Vec<_> = explanation.likely().collect();
    assert_eq!((likely.len(), likely[0].code), (1, "clock"));
    assert!(likely[0].text.contains("3600 s"), "{}", likely[0].text);
    let secrets = explanation.ways[0].steps.iter().find(|step| step.what == "secrets").unwrap();
    assert!(secrets.text.contains("one matches, the time apart"), "{}", secrets.text);
    let wrong = with_body(&request, b"{ }");
    let explanation = rule.verifier.explain(&wrong, None, late, &[]);
    assert_eq!(explanation.decision.as_ref().unwrap_err().reason, Reason::TimestampOutOfTolerance);
    assert!(explanation.likely().any(|likely| likely.code == "json_rewritten"));
    // Milliseconds where the rule says seconds.
    let timed = |format: &str| {
        format!(
            "{{ algorithm: hmac-sha256, signed: '{{timestamp}}.{{body}}', timestamp: {{ from: 'header:x-time', format: {format} }}, signature: {{ from: 'header:x-sig', encoding: hex }}, secret: s }}"
        )
    };
    let request = signed(&timed("unix-ms"), "/in", b"{}");
    assert_eq!(codes(&timed("unix"), &request).first(), Some(&"time_unit"));
}

#[test]
fn a_provider_of_several_ways_has_one_word_for_what_is_wrong() {
    let twilio = "{ provider: twilio, secret: abcdef }";
    let form = |request: Request| Request {
        head: Head {
            headers: request
                .head
                .headers
                .iter()
                .chain([("Content-Type", &b"application/x-www-form-urlencoded"[..])])
                .collect(),
            ..request.head
        },
        ..request
    };
    let mut sent = form(signed(twilio, "/in?b=2&a=1", b"x=1"));
    sent.head.scheme = crate::message::Scheme::Http;
    assert_eq!(codes(twilio, &sent), ["url_scheme"]);
    let other = form(signed("{ provider: twilio, secret: another-one }", "/in", b"x=1"));
    assert_eq!(codes(twilio, &other), ["unknown"]);
    // Sorted on the way, with two parts and with more than are tried one by one.
    for (sent, arrived) in [("/in?b=2&a=1", "/in?a=1&b=2"), ("/in?e&d&c&b&a", "/in?a&b&c&d&e")] {
        let mut request = form(signed(twilio, sent, b"x=1"));
        request.head.target = arrived.into();
        assert_eq!(codes(twilio, &request), ["url_query_order"], "{sent}");
    }
}

#[test]
fn a_request_of_another_provider_is_known_by_its_headers() {
    let stripe = signed("{ provider: stripe, secret: whsec_abc }", "/in", b"{}");
    assert_eq!(codes(GITHUB, &stripe), ["other_provider"]);
    let explanation = compiled(GITHUB).verifier.explain(&stripe, None, NOW, &[]);
    let text = &explanation.likely().next().unwrap().text;
    assert!(text.contains("Stripe") && text.contains("stripe-signature"), "{text}");
    // GitHub's name for its signature others have, too; its other headers tell.
    let mut github = signed(GITHUB, "/in", b"{}");
    github = crate::verify::sign::with_headers(&github, &[("X-GitHub-Event".into(), "push".into())]);
    let explanation =
        compiled("{ provider: stripe, secret: whsec_abc }").verifier.explain(&github, None, NOW, &[]);
    let text = &explanation.likely().next().unwrap().text;
    assert!(text.contains("GitHub"), "{text}");
}

#[test]
fn what_the_request_tells_of_itself_is_said() {
    let stripe = "{ provider: stripe, secret: whsec_abc }";
    let other = "{ provider: stripe, secret: whsec_of_test_mode }";
    assert_eq!(codes(stripe, &signed(other, "/in", br#"{"id":"e","livemode":false}"#)), ["test_mode"]);
    assert_eq!(codes(stripe, &signed(other, "/in", br#"{"id":"e","livemode":true}"#)), ["unknown"]);
    // A part of a signature.
    let cut = request("/in", &[("X-Hub-Signature-256", "sha256=ab")], b"{}");
    let explanation = compiled(GITHUB).verifier.explain(&cut, None, NOW, &[]);
    let likely = explanation.likely().next().unwrap();
    assert_eq!(
        (likely.code, likely.text.contains("1 byte, and 32")),
        ("signature_cut", true),
        "{}",
        likely.text
    );
    // The older one of two.
    let sha1 = "{ algorithm: hmac-sha1, signature: { from: header:X-Hub-Signature, prefix: 'sha1=', encoding: hex }, secret: abcdef }";
    assert_eq!(codes(GITHUB, &signed(sha1, "/in", b"{}")), ["older_signature"]);
}

#[test]
fn what_can_not_be_explained_says_so() {
    let request = signed("{ provider: github, secret: quite-another }", "/in", b"{}");
    assert_eq!(codes(GITHUB, &request), ["unknown"]);
}

#[test]
fn an_accepted_request_has_steps_and_no_mistakes() {
    let rule = compiled(
        "{ provider: stripe, secrets: [{ secret: whsec_a, label: old }, { secret: whsec_b, label: new }] }",
    );
    let request = signed("{ provider: stripe, secret: whsec_b }", "/in", b"{\"id\":1}");
    let explanation = rule.verifier.explain(&request, None, NOW, &[]);
    assert_eq!(explanation.decision.as_ref().unwrap().1.as_deref(), Some("new"));
    assert_eq!(explanation.likely().count(), 0);
    let text: Vec<_> =
        explanation.ways[0].steps.iter().map(|step| format!("{}: {}", step.what, step.text)).collect();
    let all = text.join("\n");
    for part in
        ["19 bytes, SHA-256", "`1764000000.{\\\"id\\\":1}`", "0 s after", "2 secrets live: `new` matches"]
    {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert!(explanation.ways[0].expected.is_empty());
}

#[test]
fn no_secret_and_no_right_signature_is_said_unasked() {
    let secret = "very-secret-value";
    let rule = format!("{{ provider: stripe, secret: {secret} }}");
    let right = signed(&rule, "/in", b"{}");
    let value = String::from_utf8_lossy(right.head.headers.first("stripe-signature").unwrap()).into_owned();
    let right = value.split("v1=").nth(1).unwrap();
    let forged = request("/in", &[("Stripe-Signature", "t=1764000000,v1=00")], b"{}");
    let explanation = compiled(&rule).verifier.explain(&forged, None, NOW, &[]);
    assert_eq!(explanation.ways[0].expected, [right]);
    let mut said = format!("{:?}{:?}", explanation.decision, explanation.ways[0].likely);
    explanation.ways[0].steps.iter().for_each(|step| said += &step.text);
    assert!(!said.contains(secret) && !said.contains(right), "{said}");
}

proptest::proptest! {
    #[test]
    fn no_request_makes_it_panic(target in "/[ -~]{0,20}", value in "[ -~]{0,80}", body: Vec<u8>) {
        for rule in [GITHUB, "{ provider: stripe, secret: whsec_a }", "{ provider: slack, secret: abc }"] {
            let names = ["X-Hub-Signature-256", "Stripe-Signature", "X-Slack-Signature", "X-Slack-Request-Timestamp"];
            let headers: Vec<(&str, &str)> = names.iter().map(|name| (*name, value.as_str())).collect();
            let _ = compiled(rule).verifier.explain(&request(&target, &headers, &body), None, NOW, &[]);
        }
    }
}
