//! Secrets and what stands for them: found, warned of, and never shown.

use super::*;

#[test]
fn a_misspelt_key_does_not_show_its_secret() {
    for key in ["secrt", "tokne", "pasword"] {
        let problems = load_text(&routes(&format!("{OPEN}    {key}: hunter22\n"))).unwrap_err();
        assert!(!format!("{problems:?}").contains("hunter22"), "{problems:#?}");
    }
}

#[test]
fn a_header_named_like_a_credential_does_not_show_its_value() {
    let names = [
        "Authorization",
        "authorization",
        "X-Api-Key",
        "Cookie",
        "X-Session-Id",
        "Proxy-Authorization",
        "x-auth",
    ];
    for name in names {
        // The `set` was forgotten; a wrong value beside it; and no YAML at all.
        for headers in [
            format!("{{ {name}: \"Bearer hunter22\" }}"),
            format!("{{ set: {{ {name}: \"Bearer hunter22\" }}, sett: 1 }}"),
            format!("{{ set: {{ {name}: [\"Bearer hunter22\"] }}"),
        ] {
            let text = format!(
                "  - path: /x\n    verify: none\n    forward_to: {{ url: 'http://a', headers: {headers} }}\n"
            );
            let problems = load_text(&routes(&text)).unwrap_err();
            assert!(!format!("{problems:?}").contains("hunter22"), "{name}: {problems:#?}");
            assert!(!serde_json::to_string(&problems).unwrap().contains("hunter22"), "{name}");
        }
    }
    let other = routes(
        "  - path: /x\n    verify: none\n    forward_to: { url: 'http://a', headers: { X-Tenant: acme } }\n",
    );
    assert!(format!("{:?}", load_text(&other).unwrap_err()).contains("acme"));
}

#[test]
fn a_url_with_a_password_is_refused_and_not_shown() {
    let text = routes(&OPEN.replace("http://127.0.0.1:3000", "http://bob:hunter22@127.0.0.1:3000/x"));
    let problem = only(&text);
    assert!(problem.message.contains("user or password") && problem.snippet.contains("***"), "{problem}");
    assert!(!format!("{problem:?}").contains("hunter22"), "{problem:?}");
}

#[test]
fn the_end_of_a_secret_is_warned_of_where_it_is_written() {
    let config = routes(
        "  - path: /a\n    provider: github\n    forward_to: http://127.0.0.1:1\n    secrets:\n      \
         - { secret: env:NEW, label: new }\n      - { secret: env:OLD, label: old, until: 2020-01-01T00:00:00Z }\n      \
         - { secret: env:LAST, until: 2999-01-01T00:00:00Z }\n",
    );
    let mut machine = Machine::default();
    for name in ["NEW", "OLD", "LAST"] {
        machine.env.insert(name.into(), Some(format!("the secret {name}")));
    }
    let warnings = |text: &str| load_text_on(&machine, text).unwrap().warnings;
    let of_ended = warnings(&config);
    assert_eq!(of_ended.len(), 1, "{of_ended:?}");
    assert_eq!(of_ended[0].key, "routes[0].secrets[1]");
    assert!(of_ended[0].message.contains("`old` has ended at 2020-01-01"), "{}", of_ended[0].message);
    assert_eq!(warnings(&format!("{config}alerts: {{ secret_expiry: 36500d }}\n")).len(), 1);
    let near = config.replace("2999-01-01", "2100-01-01");
    assert_eq!(warnings(&format!("{near}alerts: {{ secret_expiry: 36500d }}\n")).len(), 2);
    let said = problems(&config.replace("2020-01-01T", "2020-13-01T"));
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("routes[0].secrets[1].until: `2020-13-01T00:00:00Z` is not a time"),
        "{said:?}"
    );
}

#[test]
fn a_time_of_a_secret_is_quoted_where_it_is_wrong() {
    let text = routes(
        "  - { path: /x, provider: github, secrets: [{ secret: env:SECRET, until: tomorrow }], forward_to: 'http://a' }\n",
    );
    let problem = only(&text);
    assert!(problem.snippet.contains("until: tomorrow"), "{problem}");
}

#[test]
fn an_algorithm_of_tokens_that_nothing_verifies_is_warned_of() {
    let warnings = |jwt: &str| {
        let text =
            routes(&format!("  - {{ path: /x, verify: {{ jwt: {{ {jwt} }} }}, forward_to: 'http://a' }}\n"));
        load_text(&text).unwrap().warnings
    };
    let said = warnings("algorithms: [HS256, RS256], jwks: 'https://id.example.com/keys'");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].message.starts_with("there is no key for HS256"), "{}", said[0].message);
    assert_eq!(said[0].key, "routes[0].verify.jwt.algorithms");
    assert!(warnings("algorithms: [RS256], jwks: 'https://id.example.com/keys'").is_empty());
}

#[test]
fn a_secret_that_depends_on_the_path_is_checked_as_far_as_it_can_be() {
    let route = |path: &str, secret: &str| {
        routes(&format!(
            "  - {{ name: r, path: '{path}', provider: github, secret: '{secret}', forward_to: 'http://127.0.0.1:1' }}\n"
        ))
    };
    let config = load_text(&route("/in/{account}", "file:secrets/{account}")).unwrap().config;
    assert!(config.routes[0].tenants.is_some());
    let config = load_text(&route("/in/{account}", "file:secrets/all")).unwrap().config;
    assert!(config.routes[0].tenants.is_none());
    for (path, secret, expected) in [
        ("/in/{account}", "file:secrets/{acount}", "has no parameter `{acount}`, did you mean `{account}`?"),
        ("/in", "file:secrets/{account}", "has no parameter `{account}`"),
        ("/in/{account}", "file:nowhere/{account}", "nowhere can't be used: No such file"),
        ("/in/{account}", "file:secrets/{account", "without its `}`"),
        ("/in/{account}", "env:SECRET_{account}", "takes the name of an environment variable"),
        ("/in/{account}", "client:secret", "needs `clients: endpoints`"),
    ] {
        let said = problems(&route(path, secret));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("routes[0].secret: ") && said[0].contains(expected), "{said:?}");
    }
}

#[test]
fn key_sets_come_over_https_or_from_this_machine() {
    let of = |url: &str| {
        load_text(&routes(&format!(
            "  - path: /x\n    verify: {{ jwt: {{ algorithms: [RS256], jwks: \"{url}\" }} }}\n    forward_to: http://a\n"
        )))
    };
    for good in ["https://id.example.com/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]:8080/jwks"] {
        assert!(of(good).is_ok(), "{good}: {:?}", of(good));
    }
    for bad in ["http://id.example.com/jwks", "http://10.0.0.1/jwks"] {
        assert!(of(bad).unwrap_err()[0].message.contains("over https"), "{bad}");
    }
}

#[test]
fn a_missing_secret_is_named_and_never_shown() {
    let token = |reference: &str| format!("{}admin: {{ token: {reference} }}\n", routes(OPEN));
    let machine = Machine {
        env: HashMap::from([("GONE".into(), None), ("EMPTY".into(), Some(String::new()))]),
        files: HashMap::from([
            ("empty".into(), Ok(b"\n".to_vec())),
            ("gone".into(), Err("No such file".into())),
        ]),
    };
    for (reference, message) in [
        ("env:GONE", "the environment variable GONE is not set"),
        ("env:EMPTY", "the environment variable EMPTY is empty"),
        ("file:secrets/gone", "secrets/gone: No such file"),
        ("file:empty", "empty is empty"),
        ("\"env:\"", "takes the name of an environment variable"),
    ] {
        let problems = load_text_on(&machine, &token(reference)).unwrap_err();
        assert!(problems.len() == 1 && problems[0].message.contains(message), "{problems:?}");
        assert_eq!(problems[0].key, "admin.token");
    }
    let problem = only(&token("hunter2-and-more"));
    assert!(problem.message.contains("allow_inline_secrets"), "{problem}");
    assert!(!problem.to_string().contains("hunter2"), "{problem}");
}

#[test]
fn a_secret_file_ends_before_its_line_feed() {
    let secret = |bytes: &[u8]| {
        let files = HashMap::from([("s".to_owned(), Ok(bytes.to_vec()))]);
        let text = format!("{}admin: {{ token: \"file:s\" }}\n", routes(OPEN));
        let loaded = load_text_on(&Machine { files, ..Machine::default() }, &text).unwrap();
        loaded.config.admin.token.unwrap().expose().to_vec()
    };
    assert_eq!(secret(b"abc\n"), b"abc");
    assert_eq!(secret(b"abc\r\n"), b"abc");
    assert_eq!(secret(b"abc\n\n"), b"abc\n");
    assert_eq!(secret(b" abc "), b" abc ");
}

#[test]
fn a_secret_in_the_config_is_not_quoted_by_neighbouring_problems() {
    let text = routes(
        "  - { path: /x, provider: github, secrets: [whsec_topsecret], colour: red, forward_to: \"http://a\" }\n",
    );
    let problems = load_text(&text).map(|_| ()).unwrap_err();
    let shown = Problems(problems).to_string();
    assert!(shown.contains("colour") && shown.contains("****") && !shown.contains("topsecret"), "{shown}");
    // Not even while the file is no YAML.
    let shown =
        Problems(load_text("routes:\n  - secret: whsec_topsecret]\n   x: [").map(|_| ()).unwrap_err());
    assert!(!shown.to_string().contains("topsecret"), "{shown}");
}
