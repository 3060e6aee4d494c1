//! Routes and what takes requests for them.

use super::*;

#[test]
fn clients_urls_need_a_place_in_the_path() {
    let route = |path: &str, more: &str| {
        routes(&format!("  - {{ name: r, path: '{path}', forward_to: 'http://127.0.0.1:1', {more} }}\n"))
    };
    let config = load_text(&route("/in/{endpoint}", "clients: endpoints, verify: none"));
    // Whoever has the URL is known, so nobody is warned of events from anyone.
    assert!(config.is_ok_and(|loaded| loaded.warnings.is_empty()));
    let rule = "clients: endpoints, provider: github, secret: client:secret";
    assert!(load_text(&route("/in/{endpoint}", rule)).unwrap().config.routes[0].tenants.is_some());
    let said = problems(&route("/in/{client}", rule));
    assert!(said.len() == 1 && said[0].starts_with("routes[0].path: "), "{said:?}");
    let said = problems(&route("/in/{endpoint}", "clients: endpoints, mode: pass"));
    assert!(said.len() == 1 && said[0].starts_with("routes[0].clients: "), "{said:?}");
}

#[test]
fn the_word_provider_needs_a_provider_that_publishes_its_ranges() {
    let of = |provider: &str, allow: &str| {
        format!(
            "  - path: /x\n    provider: {provider}\n    secret: env:S\n    allow: {allow}\n    forward_to: http://a\n"
        )
    };
    let told = |text: &str| only(&routes(text));
    let open = told(&format!("{OPEN}    allow: [10.0.0.0/8, provider]\n"));
    assert_eq!(
        (open.key.as_str(), open.message.as_str()),
        ("routes[0].allow[1]", "the route names no provider whose ranges `provider` could stand for",)
    );
    assert_eq!(told(&of("slack", "[provider]")).message, "Slack publishes no address ranges that we know");
    let listener = |routes: &str| {
        format!("listeners: [{{ address: \"127.0.0.1:0\", allow: [provider] }}]\nroutes:\n{routes}")
    };
    let nobody = only(&listener(&of("slack", "[10.0.0.0/8]")));
    assert_eq!(nobody.message, "no route has a provider that publishes its address ranges");
    let hop =
        "listeners: [{ address: \"127.0.0.1:0\", trusted_hops: [provider] }]\nroutes:\n".to_owned() + OPEN;
    assert!(only(&hop).message.contains("no meaning here"));
    let settings = |written: &str| format!("{}ranges: {{ {written} }}\n", routes(OPEN));
    assert_eq!(only(&settings("max_shrink: 150%")).message, "`150%` is not a share");
    assert_eq!(only(&settings("refresh: 0s")).message, "0s is too little");
}

#[test]
fn only_what_is_buffered_and_known_to_be_a_batch_is_split() {
    let of = |provider: &str, more: &str| {
        format!(
            "  - path: /x\n    provider: {provider}\n    secret: env:S\n    forward_to: http://a\n{more}\n"
        )
    };
    let route = |text: &str| load_text(&routes(text)).unwrap().config.routes[0].clone();
    assert!(route(&of("gocardless", "    split: true")).split.is_some());
    assert!(route(&of("gocardless", "    split: false")).split.is_none());
    assert!(route(&of("gocardless", "    split: { max_events: 5 }")).split.is_some());
    assert!(route(&of("github", "    split: { events: body, key: [/a, /b] }")).split.is_some());
    let told = |text: &str| only(&routes(text)).message;
    assert_eq!(told(&of("github", "    split: true")), "GitHub is not known to send batches");
    assert!(told(&format!("{OPEN}    split: true\n")).contains("not known to send batches"));
    assert_eq!(
        told(&of("gocardless", "    split: true\n    mode: proxy")),
        "only buffered requests are taken apart"
    );
    assert!(told(&of("github", "    split: { events: body }")).contains("need a `key`"));
    assert!(told(&of("github", "    split: { events: \"header:x\", key: /id }")).contains("an array is at"));
    assert!(told(&of("github", "    split: { events: body, key: id }")).contains("begins with `/`"));
    let slip = only(&routes(&of("github", "    split: { event: body, key: /id }")));
    assert!(slip.help.unwrap().contains("did you mean `events`"));
}

#[test]
fn a_pass_route_never_verifies_and_reads_nothing() {
    let pass = |keys: &str| {
        problems(&routes(&format!("  - path: /*\n    mode: pass\n    forward_to: http://a\n{keys}\n")))
    };
    assert_eq!(
        pass("    verify: none\n    idempotency: { key: body-hash }\n    event_type: \"header:X\""),
        [
            "routes[0].verify: `verify` has no effect on a `pass` route, which never verifies",
            "routes[0].idempotency: `idempotency` has no meaning on a `pass` route",
            "routes[0].event_type: `event_type` has no meaning on a `pass` route",
        ]
    );
}

#[test]
fn listeners_are_checked() {
    let told = |listener: &str| only(&format!("listeners: [{listener}]\nroutes:\n{OPEN}"));
    for (listener, message) in [
        ("{ address: \":8443\" }", "`:8443` is not an address with a port"),
        ("{ address: 127.0.0.1 }", "`127.0.0.1` is not an address with a port"),
        ("{ address: \"127.0.0.1:1\", tls: {} }", "no certificate is given"),
        ("{ address: \"127.0.0.1:1\", tls: { cert: a } }", "the key `key` is missing"),
        ("{ address: \"127.0.0.1:1\", tls: { cert: a, key: b, certificates: [] } }", "the list is empty"),
        ("{ address: \"127.0.0.1:1\", tls: { cert: a, key: b, min_version: 1.1 } }", "`1.1` is not possible"),
        (
            "{ address: \"127.0.0.1:1\" }, { address: \"127.0.0.1:1\" }",
            "127.0.0.1:1 is taken by listeners[0]",
        ),
    ] {
        let problem = told(listener);
        assert!(problem.message.starts_with(message), "{listener}: {problem}");
    }
    assert_eq!(
        problems("x-free: 1\n"),
        [
            ": the key `listeners` is missing".replace(": the", "listeners: the"),
            "routes: the key `routes` is missing".into()
        ]
    );
}

#[test]
fn an_admin_listener_that_others_reach_needs_a_token() {
    let admin = |keys: &str| format!("{}admin: {{ {keys} }}\n", routes(OPEN));
    let problem = only(&admin("listen: 0.0.0.0:9900"));
    assert!(problem.message.contains("there is no `token`"), "{problem}");
    assert!(load_text(&admin("listen: 0.0.0.0:9900, token: env:T")).is_ok());
    assert!(load_text(&admin("listen: 127.0.0.1:9900")).is_ok());
    let unix = load_text(&admin("listen: unix:/run/t.sock")).unwrap().config.admin.listen;
    assert_eq!(unix, AdminAddress::Unix("/run/t.sock".into()));
    assert_eq!(load_text(&admin("listen: off")).unwrap().config.admin.listen, AdminAddress::Off);
    assert!(only(&admin("listen: everywhere")).message.contains("not a place to listen on"));
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let limits = |keys: &str| only(&format!("{}limits: {{ {keys} }}\n", routes(OPEN))).message;
    assert!(limits("body_budget: 1MiB").contains("less than one body"));
    assert!(limits("uri_bytes: 1MiB").contains("more than `header_bytes`"));
    assert!(limits("idle_timeout: 0s").contains("zero"));
    assert!(limits("connections: 0").contains("out of range"));
    let log = format!("{}log: {{ level: inf }}\n", routes(OPEN));
    assert_eq!(only(&log).message, "`inf` is not a log filter");
}

#[test]
fn ambiguous_routes_are_both_named() {
    let text = routes(
        "  - { name: one, path: \"/a/{x}\", verify: none, forward_to: \"http://a\" }\n  \
         - { name: two, path: \"/a/{y}\", verify: none, methods: [GET, POST], forward_to: \"http://a\" }\n  \
         - { name: one, path: /b, verify: none, forward_to: \"http://a\" }\n",
    );
    let problems = load_text(&text).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!((problems[0].key.as_str(), problems[0].line), ("routes[1].path", 4));
    assert!(problems[0].message.contains("`one` (") && problems[0].message.contains("`two` both take POST"));
    assert_eq!(problems[1].key, "routes[2].name");
    assert!(problems[1].message.contains("two routes are named `one`"));
}

#[test]
fn a_snapshot_of_ranges_that_is_old_and_stays_is_warned_of() {
    let warnings = |provider: &str, more: &str| {
        let route = format!(
            "  - path: /x\n    provider: {provider}\n    secret: env:S\n    allow: [provider]\n    forward_to: http://a\n"
        );
        let loaded = load_text(&format!("{}{more}", routes(&route))).unwrap();
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // No list that one refresh could follow, and a snapshot of 2022.
    let told = warnings("pagerduty", "");
    assert!(told.len() == 1 && told[0].contains("are those of 2022-05-05"), "{told:?}");
    assert!(told[0].contains("routes[0].allow"), "{told:?}");
    assert_eq!(warnings("bitbucket", ""), [""; 0]);
}

#[test]
fn providers_that_greet_beside_another_are_warned_of() {
    let route = |any: &str, more: &str| {
        routes(&format!(
            "  - path: /x\n    verify: {{ any: [{any}] }}\n    forward_to: http://127.0.0.1:3000\n{more}"
        ))
    };
    let github = "{ provider: github, secret: \"file:secret\" }";
    let slack = "{ provider: slack, secret: \"file:secret\" }";
    let gone = "routes[0]: greetings of Slack are not answered: the rule names several providers";
    let said = |text: &str| warnings(text).iter().any(|line| line.starts_with(gone));
    assert!(
        said(&route(&format!("{github}, {slack}"), "")),
        "{:?}",
        warnings(&route(&format!("{github}, {slack}"), ""))
    );
    assert!(!said(&route(&format!("{github}, {slack}"), "    handshake: \"off\"\n")));
    assert!(!said(&route(slack, "")) && !said(&route(github, "")));
}

#[test]
fn a_providers_key_that_another_rule_does_not_cover_is_bound_to_the_body() {
    let route = |other: &str| {
        routes(&format!(
            "  - path: /x\n    verify: {{ any: [{{ provider: twitch, secret: \"file:secret\" }}, {other}] }}\n    \
             forward_to: http://127.0.0.1:3000\n"
        ))
    };
    let said = |text: &str| {
        warnings(text).iter().any(|line| line.contains("is not covered by every rule that may hold"))
    };
    let own = "{ algorithm: hmac-sha256, secret: \"file:secret\", signature: { from: \"header:X\", encoding: hex } }";
    assert!(said(&route(own)), "{:?}", warnings(&route(own)));
    assert!(!said(&route("{ bearer: { tokens: [\"file:secret\"] } }")));
}
