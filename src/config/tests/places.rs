//! What could never match, and what has no effect.

use super::*;

fn filtered(path: &str, route: &str, when: &str) -> String {
    routes(&format!(
        "  - path: {path}\n    verify: none\n{route}    forward_to:\n      - {{ upstreams: [http://127.0.0.1:3000], when: {when} }}\n"
    ))
}

#[test]
fn a_filter_on_what_no_event_has_is_refused() {
    let problem = only(&filtered("/in/{account}", "", "{ all: [{ path:acount: x }] }"));
    assert_eq!(problem.key, "routes[0].forward_to[0].when.all[0].path:acount");
    assert_eq!(problem.message, "the route's path has no parameter `{acount}`");
    assert_eq!(problem.help.as_deref(), Some("did you mean `path:account`?"));
    let problem = only(&filtered("/in", "", "{ not: { event_type: paid } }"));
    assert_eq!(problem.key, "routes[0].forward_to[0].when.not.event_type");
    assert!(problem.message.contains("have no type") && problem.column > 1, "{problem}");
    assert!(load_text(&filtered("/in/{account}", "", "{ path:account: x }")).is_ok());
    assert!(load_text(&filtered("/in", "    event_type: header:X-E\n", "{ event_type: x }")).is_ok());
}

#[test]
fn a_key_at_a_parameter_that_the_path_lacks_is_refused() {
    for (key, place) in [
        ("event_type: path:nope", "routes[0].event_type"),
        ("event_type: header:X-E | path:nope", "routes[0].event_type"),
        ("idempotency: { key: [body-hash, path:nope] }", "routes[0].idempotency.key[1]"),
    ] {
        let problem = only(&routes(&format!("{OPEN}    {key}\n")));
        assert_eq!(problem.key, place);
        assert_eq!(problem.message, "the route's path has no parameter `{nope}`");
    }
}

fn signed(template: &str, from: &str) -> String {
    routes(&format!(
        "  - path: /in/{{account}}\n    forward_to: http://127.0.0.1:3000\n    verify:\n      algorithm: hmac-sha256\n      secret: env:S\n      signed: \"{template}\"\n      signature: {{ from: \"{from}\", encoding: hex }}\n"
    ))
}

#[test]
fn a_rule_that_reads_a_parameter_that_the_path_lacks_is_refused() {
    let problem = only(&signed("{path:acount|optional}.{body}", "header:X"));
    assert_eq!(problem.key, "routes[0].verify.signed");
    assert_eq!(problem.help.as_deref(), Some("did you mean `path:account`?"));
    assert_eq!(only(&signed("{body}", "path:sig")).key, "routes[0].verify.signature.from");
    assert!(load_text(&signed("{path:account}.{body}", "header:X")).is_ok());
}

#[test]
fn a_signature_that_leaves_the_body_out_is_warned_of() {
    let warned = |template: &str| {
        warnings(&signed(template, "header:X")).iter().any(|w| w.contains("does not cover the body"))
    };
    assert!(warned("{header:X-Id}") && warned("{url}"));
    assert!(!warned("{body}") && !warned("{header:X-Id}{body|sha256}"));
}

#[test]
fn what_has_no_effect_or_a_great_one_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let warned = |text: &str, key: &str| {
        fs::write(&path, text).unwrap();
        let examined = examine_from(&path, &Unfetched, &Machine::default());
        assert!(examined.config.is_some(), "{:#?}", examined.problems);
        examined.warnings.iter().any(|warning| warning.key == key)
    };
    assert!(warned(&routes(&format!("{OPEN}    unwanted: drop\n")), "routes[0].unwanted"));
    let wanted = filtered("/in", "    unwanted: drop\n", "{ header:X: y }");
    assert!(!warned(&wanted, "routes[0].unwanted"));
    let trusting = |range: &str| {
        format!("listeners: [{{ address: \"127.0.0.1:1\", trusted_hops: [\"{range}\"] }}]\nroutes:\n{OPEN}")
    };
    assert!(warned(&trusting("0.0.0.0/0"), "listeners[0].trusted_hops[0]"));
    assert!(!warned(&trusting("10.0.0.0/8"), "listeners[0].trusted_hops[0]"));
}

#[test]
fn what_a_section_lacks_is_said_once() {
    let text = format!("{}tracing: {{ endpoint: \"http://127.0.0.1:4317\" }}\n", routes(OPEN));
    assert_eq!(
        problems(&text),
        ["tracing.url: the key `url` is missing", "tracing.endpoint: unknown key `endpoint`"]
    );
}
