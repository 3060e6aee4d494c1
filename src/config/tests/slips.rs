//! What people mistype, and what is said of it.

use super::*;

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_likely_meaning() {
    let problem = only(&routes(&format!("{OPEN}    max_bodi: 1MiB\n")));
    assert_eq!((problem.line, problem.column), (6, 5));
    assert_eq!(problem.key, "routes[0].max_bodi");
    assert_eq!(problem.help.as_deref(), Some("did you mean `max_body`?"));
    assert_eq!(problem.snippet, "  |\n6 |     max_bodi: 1MiB\n  |     ^^^^^^^^");
    let text = problem.to_string();
    assert!(text.contains("tidegate.yaml:6:5: routes[0].max_bodi: unknown key `max_bodi`"), "{text}");
}

#[test]
fn an_unknown_key_of_a_rule_is_no_parameter_of_a_pack() {
    let route =
        |verify: &str| routes(&format!("  - path: /a\n    verify:\n{verify}    forward_to: http://a\n"));
    let text = route(
        "      algorithm: hmac-sha256\n      signatur: { from: \"header:X\", encoding: hex }\n      secret: env:SECRET\n",
    );
    let problem = only(&text);
    assert_eq!((problem.line, problem.column), (6, 7), "{problem}");
    assert_eq!(problem.message, "unknown key `signatur`");
    assert_eq!(problem.help.as_deref(), Some("did you mean `signature`?"));
    // Beside a provider a text may be its parameter; a mapping never is.
    let text = route("      provider: github\n      secret: env:SECRET\n      toleranc: { of: 5m }\n");
    assert!(problems(&text)[0].contains("unknown key `toleranc`"), "{:?}", problems(&text));
    let text = route(
        "      any:\n        - { provider: github, secret: env:SECRET }\n        - { berer: { tokens: [env:SECRET] } }\n",
    );
    assert!(problems(&text).iter().any(|said| said.contains("unknown key `berer`")), "{:?}", problems(&text));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_order() {
    let text = routes(
        "  - path: /a\n    forward_to: ftp://a\n  - path: b\n    verify: none\n    forward_to: http://a\n    \
         methods: [post]\nlimits: { body_bytes: ten, conections: 1 }\nshutdown: { grace: 5 }\n",
    );
    assert_eq!(
        problems(&text),
        [
            "routes[0]: the route says nothing about who may send",
            "routes[0].forward_to: `ftp://a` is not an http or https URL",
            "routes[1].path: a path begins with `/`",
            "routes[1].methods[0]: `post` is not possible here",
            "limits.body_bytes: `ten` is not a size",
            "limits.conections: unknown key `conections`",
            "shutdown.grace: `5` is not a duration",
        ]
    );
}

#[test]
fn an_unknown_key_does_not_hide_what_else_is_wrong() {
    let text = routes("  - path: nowhere\n    verify: none\n    forward_to: http://a\n    colour: red\n");
    assert_eq!(
        problems(&text),
        ["routes[0].path: a path begins with `/`", "routes[0].colour: unknown key `colour`"]
    );
}

#[test]
fn a_slip_hides_nothing_and_nothing_is_missed_that_only_follows_from_it() {
    let text = routes(
        "  - path: /a\n    provider: githb\n    secrt: env:A\n    forwardto: { url: htp://x, timeout: soon, concurency: 4 }\n",
    );
    assert_eq!(
        problems(&text),
        [
            "routes[0].provider: unknown provider `githb`, did you mean `github`?",
            "routes[0].secrt: unknown key `secrt`",
            "routes[0].forwardto: unknown key `forwardto`",
            "routes[0].forwardto.timeout: `soon` is not a duration",
            "routes[0].forwardto.concurency: unknown key `concurency`",
        ]
    );
    // The value of a key that is wrong stands for nothing: no second message about what it leaves open.
    let text = routes("  - path: /a\n    provider: [github]\n    secret: env:A\n    forward_to: htp://x\n");
    assert_eq!(
        problems(&text),
        [
            "routes[0].provider: expected text, found a list",
            "routes[0].forward_to: `htp://x` is not an http or https URL",
        ]
    );
}

#[test]
fn warnings_are_said_beside_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    fs::write(&path, routes(&format!("{OPEN}  - path: y\n    verify: none\n    forward_to: http://a\n")))
        .unwrap();
    let examined = examine_from(&path, &Unfetched, &Machine::default());
    assert!(examined.config.is_none());
    assert_eq!(examined.problems.len(), 1, "{examined:#?}");
    assert_eq!(examined.warnings.len(), 2, "{examined:#?}");
}

#[test]
fn what_other_programs_would_take_is_explained() {
    let secret = |secret: &str| {
        let text =
            format!("  - path: /x\n    provider: github\n    secret: {secret}\n    forward_to: http://a\n");
        only(&routes(&text)).message
    };
    for written in ["$GITHUB_SECRET", "${GITHUB_SECRET}"] {
        assert!(secret(written).ends_with("write `env:GITHUB_SECRET`"), "{}", secret(written));
    }
    assert!(wrong_in_route("    allow: { a: b }").help.unwrap().contains("`- `"));
    let listeners = only(&format!("listeners: 127.0.0.1:1\nroutes:\n{OPEN}"));
    assert!(listeners.help.as_deref().unwrap().contains("holds keys"), "{listeners}");
    let text = format!("listeners: [{{ address: \"127.0.0.1:9900\" }}]\nroutes:\n{OPEN}");
    assert_eq!(only(&text).message, "127.0.0.1:9900 is taken by listeners[0] already");
    for url in ["http://a:99999", "http://a:0", "http://[::1]:x"] {
        let problem = only(&routes(&OPEN.replace("http://127.0.0.1:3000", &format!("\"{url}\""))));
        assert!(problem.key == "routes[0].forward_to", "{problem}");
    }
    for (written, help) in
        [("\t- path: /x", "spaces"), ("  - *nowhere", "`&name`"), ("  - path: [", "close each")]
    {
        let problem = only(&format!("routes:\n{written}\n"));
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{problem}");
    }
}

#[test]
fn case_is_the_likeliest_slip() {
    let text = "  - path: /x\n    verify: { jwt: { algorithms: [rs256], jwks: \"https://a/\" } }\n    forward_to: http://a\n";
    assert_eq!(only(&routes(text)).help.as_deref(), Some("did you mean `RS256`?"));
}

#[test]
fn a_key_that_stands_one_level_deeper_is_found() {
    let problem = only(&routes(&format!("{OPEN}    concurrency: 4\n")));
    assert_eq!(problem.help.as_deref(), Some("did you mean `concurrency` under `forward_to`?"));
}

#[test]
fn words_of_later_versions_are_told_apart_from_slips() {
    let told = |keys: &str| wrong_in_route(keys).message;
    assert_eq!(told("    mode: inspect"), "`inspect` is not supported yet");
    let problem = only(&routes(&OPEN.replace("http://127.0.0.1:3000", "{ url: http://a, ramp: 5m }")));
    assert_eq!(problem.message, "`ramp` is not supported yet");
    let text = format!("listeners: [{{ address: \"127.0.0.1:0\", routes: [] }}]\nroutes:\n{OPEN}");
    assert_eq!(only(&text).message, "`routes` is not supported yet");
}

#[test]
fn values_of_the_wrong_type_say_what_would_be_right() {
    for (keys, message, help) in [
        ("    max_body: 10M", "`10M` is not a size", "512KiB"),
        ("    allow: 10.0.0.0/8", "expected a list of texts, found `10.0.0.0/8`", "write `[10.0.0.0/8]`"),
        ("    allow: []", "the list is empty", "a list of texts"),
        ("    allow:", "expected a list of texts, found nothing", "give the key a value"),
        ("    name: [a]", "expected text, found a list", "text"),
        ("    mode: bufer", "`bufer` is not possible here", "did you mean `buffer`?"),
        (
            "    idempotency: of",
            "expected `off` or a mapping with `key`, `window`, found `of`",
            "did you mean `off`?",
        ),
        ("    idempotency: { window: 72 }", "`72` is not a duration", "it needs a unit: `72s`"),
        ("    answer: { status: 404 }", "404 is out of range", "from 200 to 299"),
        ("    answer: { status: ok }", "expected a whole number, found `ok`", "whole number"),
        ("    handshake: { wen: { a: b } }", "unknown key `wen`", "did you mean `when`?"),
        ("    allow: [10.0.0.0/33]", "`10.0.0.0/33` is not an address range", "10.0.0.0/8"),
        ("    host: example.com:443", "a host has no port", "hooks.example.com"),
        ("    name: a/b", "`a/b` is not a name", "letters"),
        ("    public_url: hooks.example.com", "`hooks.example.com` is not a whole URL", "https://"),
        ("    max_body: 1GiB", "1GiB is more than `limits.body_budget` (256MiB)", "raise the budget"),
        ("    answer: { status: 204, body: x }", "an answer 204 has no body", "200 or 202"),
        ("    mode: proxy\n    answer: { status: 200 }", "inline the app's own answer is given", "remove"),
        ("    secret: env:A", "`secret` belongs to `provider`, which is missing", "secrets"),
        ("    provider: github", "both `provider` and `verify` are given", "keep one"),
    ] {
        let problem = wrong_in_route(keys);
        assert!(problem.message.starts_with(message), "{keys}: {problem}");
        assert!(problem.help.as_deref().unwrap_or_default().contains(help), "{keys}: {problem}");
        assert!(problem.line >= 6 || problem.line == 4, "{keys}: {problem}");
    }
}

#[test]
fn a_query_in_a_public_url_is_warned_of() {
    let of = |url: &str| {
        let config = load_text(&routes(&format!("{OPEN}    public_url: {url}\n"))).unwrap();
        config.warnings.into_iter().find(|warning| warning.key.ends_with("public_url"))
    };
    assert_eq!(of("https://hooks.example.com/in"), None);
    let warned = of("https://hooks.example.com/in?token=1").unwrap();
    assert!(warned.message.starts_with("the query is not taken from here"), "{warned}");
}
