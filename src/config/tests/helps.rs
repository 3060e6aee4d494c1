//! A rule that cannot work is refused with line, column and what to do about it. Whether there is a help at all, every
//! test of this module asks; here is what some of them say.

use super::*;

#[test]
fn a_rule_that_cannot_work_says_what_would() {
    let scheme = |keys: &str| {
        format!(
            "{{ algorithm: hmac-sha256, secret: env:S, signature: {{ from: 'header:X', encoding: hex }}, {keys} }}"
        )
    };
    for (rule, message, help) in [
        ("{ any: [] }".to_owned(), "`any` is empty", "list at least one rule"),
        ("{ all: [] }".to_owned(), "`all` is empty", "`all: [{ provider: github, secret: env:NAME }]`"),
        ("{ any: [none] }".to_owned(), "`none` within `any`", "`verify: none` alone"),
        ("{ provider: nobody-knows }".to_owned(), "unknown provider", "tidegate providers list"),
        (
            "{ provider: github, secret: env:S, tolerance: 5m }".to_owned(),
            "has no meaning for github",
            "tidegate providers show github",
        ),
        (
            "{ provider: github, secret: env:S, jwt: { algorithms: HS256 } }".to_owned(),
            "in one way",
            "put several rules under `any`",
        ),
        ("{ provider: github }".to_owned(), "", "env:"),
        (scheme("signed: '{header:}'"), "", "such as `{timestamp}.{body}`"),
        (scheme("signed: '{param:x}.{body}'"), "there is no parameter `x`", "such as `{timestamp}.{body}`"),
        (
            scheme("signed: '{timestamp}.{body}'"),
            "`timestamp` does not say where",
            "`timestamp: { from: header:NAME }`",
        ),
        (scheme("signed: '{id}.{body}'"), "`id` does not say where", "`id: header:NAME`"),
        (scheme("tolerance: 5m"), "signs no time", "`timestamp`"),
        (scheme("id: 'nowhere'"), "", "`header:NAME`"),
        (
            "{ algorithm: hmac-sha256, signature: { from: 'header:X', encoding: hex } }".to_owned(),
            "no secret",
            "env:NAME",
        ),
        (
            "{ algorithm: ed25519, secret: env:S, signature: { from: 'header:X', encoding: hex } }"
                .to_owned(),
            "",
            "file:PATH",
        ),
        (
            "{ api_key: { header: X-Key, query: k, keys: [env:S] } }".to_owned(),
            "either `header` or `query`",
            "X-Api-Key",
        ),
        ("{ bearer: { tokens: [] } }".to_owned(), "nobody could send", "env:NAME"),
        ("{ http_signature: { algorithms: [] }, secret: env:S }".to_owned(), "", "ed25519"),
        ("{ http_signature: { algorithms: ed25519 }, secret: env:S }".to_owned(), "", "hmac-sha256"),
        (
            "{ jwt: { algorithms: HS256, secrets: [env:S], leeway: 1h } }".to_owned(),
            "at most 300s",
            "max_age",
        ),
    ] {
        let text =
            routes(&format!("  - path: /x\n    forward_to: http://127.0.0.1:3000\n    verify: {rule}\n"));
        let found = load_text(&text).map(|_| ()).unwrap_err();
        are_helpful(&found);
        let fits = |problem: &&Problem| {
            problem.message.contains(message) && problem.help.as_ref().is_some_and(|text| text.contains(help))
        };
        assert!(found.iter().any(|problem| fits(&problem)), "{rule}: {found:#?}");
    }
}

#[test]
fn what_is_signed_for_the_app_needs_a_secret_by_reference() {
    let text = routes(
        "  - path: /x\n    verify: none\n    mode: proxy\n    forward_to: { url: 'http://127.0.0.1:3000', sign: { scheme: bearer } }\n",
    );
    let problem = only(&text);
    assert_eq!(problem.message, "the key `secret` is missing");
    assert_eq!(
        problem.help.as_deref(),
        Some("add `secret: env:NAME`, an environment variable, or `secret: file:PATH`, a file")
    );
}
