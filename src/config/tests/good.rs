//! What good configs become, and what is warned about.

use super::*;

fn first(text: &str) -> Arc<Route> {
    load_text(text).unwrap_or_else(|problems| panic!("{problems:#?}")).config.routes[0].clone()
}

#[test]
fn an_open_route_has_its_documented_defaults() {
    let route = first(&routes(OPEN));
    assert_eq!((&*route.name, route.path.as_str(), &route.host), ("x", "/x", &None));
    assert_eq!(route.methods, [Method::POST]);
    assert!(route.allow.is_none() && route.idempotency.is_none() && route.handshakes.is_empty());
    assert_eq!(route.max_body, 10 << 20);
    let Mode::Buffer { answer, destinations } = &route.mode else { panic!("no buffer") };
    assert_eq!(*answer, Acknowledgement { status: 202, content_type: None, body: String::new() });
    let destination = &destinations[0];
    assert_eq!(destination.name.to_string(), "x/default");
    assert_eq!(destination.timeout, Duration::from_secs(30));
    assert_eq!((destination.concurrency, &destination.retry), (16, &Retry::default()));
    assert_eq!((destination.host, destination.http), (HostHeader::Keep, UpstreamHttp::Http1));
}

#[test]
fn sections_have_their_documented_defaults() {
    let config = load_text(&routes(OPEN)).unwrap().config;
    assert_eq!(config.limits.body_budget, 256 << 20);
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(60));
    assert_eq!(config.buffer.path, Path::new("./data"));
    assert_eq!(config.buffer.keep_dead, Duration::from_secs(30 * 24 * 3600));
    assert_eq!(config.admin.listen, AdminAddress::Tcp("127.0.0.1:9900".parse().unwrap()));
    assert_eq!((config.log.format, config.log.access), (None, AccessLog::Errors));
    assert_eq!(config.shutdown, Shutdown { grace: Duration::from_secs(25), delay: Duration::ZERO });
    assert!(config.threads >= 1);
    assert_eq!(config.hash.len(), 64);
}

#[test]
fn a_route_enforces_unless_it_says_observe_which_is_warned_about() {
    let proved = OPEN.replace("verify: none", "verify: { bearer: { tokens: [env:T] } }");
    assert_eq!(
        (first(&routes(&proved)).enforce, first(&routes(&proved)).verification()),
        (Enforce::On, "on")
    );
    assert_eq!(first(&routes(OPEN)).verification(), "none");
    assert_eq!(first(&routes(&format!("{proved}    enforce: on\n"))).enforce, Enforce::On);
    let observing = load_text(&routes(&format!("{proved}    enforce: observe\n"))).unwrap();
    assert_eq!(observing.config.routes[0].verification(), "observe");
    let warning = observing.warnings.iter().find(|w| w.key == "routes[0].enforce").unwrap();
    assert!(warning.message.contains("anyone may send"), "{warning}");
    let problem = only(&routes(&format!("{OPEN}    enforce: observe\n")));
    assert_eq!(problem.key, "routes[0].enforce");
    let slip = only(&routes(&format!("{proved}    enforce: observ\n")));
    assert!(slip.help.unwrap().contains("did you mean `observe`"));
}

#[test]
fn quarantine_is_off_unless_written_and_bounded() {
    assert_eq!(load_text(&routes(OPEN)).unwrap().config.quarantine, None);
    let of = |section: &str| load_text(&format!("{}{section}", routes(OPEN))).map(|loaded| loaded.config);
    let bare = of("quarantine: {}\n").unwrap().quarantine.unwrap();
    let expected = QuarantineSettings {
        max_events: 1000,
        max_size: 64 << 20,
        keep: Duration::from_secs(7 * 24 * 3600),
        rate: 10,
        rate_per: Duration::from_secs(1),
    };
    assert_eq!(bare, expected);
    let own = of("quarantine: { max_events: 5, rate: 100/h }\n").unwrap().quarantine.unwrap();
    assert_eq!((own.max_events, own.rate, own.rate_per), (5, 100, Duration::from_secs(3600)));
    for (wrong, key) in [
        ("quarantine: { rate: 10 }\n", "quarantine.rate"),
        ("quarantine: { max_events: 0 }\n", "quarantine.max_events"),
        ("quarantine: { keep: 0s }\n", "quarantine.keep"),
        ("quarantine: { max_size: 3GiB }\n", "quarantine.max_size"),
        ("quarantine: { max_sise: 2MiB }\n", "quarantine.max_sise"),
    ] {
        let problem = only(&format!("{}{wrong}", routes(OPEN)));
        assert_eq!(problem.key, key, "{problem}");
    }
    let never = first(&routes(&format!("{OPEN}    quarantine: off\n")));
    assert_eq!(never.quarantine, KeepRefused::Never);
}

#[test]
fn a_section_whose_keys_are_all_commented_out_is_as_good_as_none() {
    assert!(load_text(&format!("{}limits:\nlog:\n", routes(OPEN))).is_ok());
}

#[test]
fn a_route_without_words_about_repeats_drops_them_only_if_senders_are_proved() {
    assert!(first(&routes(&format!("{OPEN}    idempotency: {{}}\n"))).idempotency.is_some());
    let window = first(&routes(&format!("{OPEN}    idempotency: {{ window: 5m }}\n")));
    assert_eq!(window.idempotency.as_ref().unwrap().window, Duration::from_secs(300));
    assert!(first(&routes(&format!("{OPEN}    idempotency: off\n"))).idempotency.is_none());
    let proved = OPEN.replace("verify: none", "verify: { bearer: { tokens: [env:T] } }");
    let idempotency = &first(&routes(&proved)).idempotency;
    assert_eq!(idempotency.as_ref().unwrap().window, Duration::from_secs(72 * 3600));
    assert_eq!(idempotency.as_ref().unwrap().key, None);
}

#[test]
fn a_provider_brings_its_defaults_and_the_route_may_say_otherwise() {
    let pack = crate::providers::find("github").unwrap();
    let short = "  - path: /x\n    provider: github\n    secret: env:S\n    forward_to: http://a\n";
    let route = first(&routes(short));
    assert_eq!(route.idempotency.as_ref().and_then(|i| i.key.clone()), pack.idempotency.key().cloned());
    assert_eq!(route.event_type.clone(), pack.event_type.clone());
    let own = format!("{short}    event_type: \"header:X-Own\"\n    handshake: off\n    idempotency: off\n");
    let route = first(&routes(&own));
    assert_eq!(route.event_type, Some(crate::verify::Extract::parse("header:X-Own").unwrap()));
    assert!(route.idempotency.is_none() && route.handshakes.is_empty());
    let long = "  - path: /x\n    verify: { provider: github, secrets: [env:S] }\n    forward_to: http://a\n";
    assert_eq!(
        first(&routes(long)).idempotency.as_ref().and_then(|i| i.key.clone()),
        pack.idempotency.key().cloned()
    );
}

#[test]
fn a_rule_that_is_wrong_is_reported_where_it_is_written() {
    let machine = Machine { env: HashMap::from([("GONE".into(), None)]), ..Machine::default() };
    let keys = |text: &str| {
        let problems = load_text_on(&machine, &routes(text)).map(|_| ()).unwrap_err();
        problems.into_iter().map(|p| (p.key, p.line)).collect::<Vec<_>>()
    };
    let short = "  - path: /x\n    provider: github\n    secret: env:GONE\n    forward_to: http://a\n";
    assert_eq!(keys(short), [("routes[0].secret".to_owned(), 5)]);
    let several = short.replace("secret: env:GONE", "secrets: [env:A, env:GONE]");
    assert_eq!(keys(&several), [("routes[0].secrets[1]".to_owned(), 5)]);
    let unknown = short.replace("github", "githup").replace("GONE", "A");
    assert_eq!(keys(&unknown), [("routes[0].provider".to_owned(), 4)]);
    let slip = "  - path: /x\n    forward_to: http://a\n    verify: { provider: github, secrets: [env:A], tolerence: 5m }\n";
    let problem = only(&routes(slip));
    assert_eq!(
        (problem.key.as_str(), problem.line, problem.column),
        ("routes[0].verify.tolerence", 5, 51),
        "{problem}"
    );
    let long = "  - path: /x\n    forward_to: http://a\n    verify:\n      provider: github\n      secrets:\n      - env:GONE\n";
    assert_eq!(keys(long), [("routes[0].verify.secrets[0]".to_owned(), 8)]);
}

#[test]
fn a_handshake_opens_its_methods_and_no_others() {
    let own =
        "    handshake: { methods: [GET], when: { \"query:mode\": subscribe }, echo: \"query:challenge\" }\n";
    let route = first(&routes(&format!("{OPEN}{own}")));
    assert_eq!(route.methods, [Method::POST, Method::GET]);
    assert_eq!(route.greeting_methods, [Method::GET]);
    let route = first(&routes(&format!("{OPEN}    methods: [GET, PUT]\n{own}")));
    assert_eq!((&route.methods[..], &route.greeting_methods[..]), (&[Method::GET, Method::PUT][..], &[][..]));
    let slack = "  - path: /x\n    provider: slack\n    secret: env:S\n    forward_to: http://a\n";
    let route = first(&routes(slack));
    assert_eq!((route.methods.len(), route.handshakes.is_empty()), (1, false));
}

#[test]
fn own_handshakes_are_checked_where_they_are_written() {
    let open = wrong_in_route("    handshake: { when: {}, echo: \"query:c\" }");
    assert_eq!(
        (open.message.as_str(), open.key.as_str()),
        ("every request would be a greeting", "routes[0].handshake.when")
    );
    let second = wrong_in_route("    handshake: [{ methods: [GET] }, { when: { a: b } }]");
    assert_eq!(second.key, "routes[0].handshake[1].when.a");
    let probe = wrong_in_route("    methods: [GET, POST]\n    handshake: { methods: [GET] }");
    assert!(probe.message.starts_with("every GET would be taken for a greeting"), "{probe}");
    let alone = wrong_in_route("    handshake: forward");
    assert!(alone.message.starts_with("the route has no provider"), "{alone}");
    let dull = only(&routes(
        "  - path: /x\n    provider: slack\n    secret: env:S\n    handshake: show\n    forward_to: http://a\n",
    ));
    assert_eq!(dull.message, "no greeting of slack brings a secret");
}

#[test]
fn values_are_read_by_their_key_and_not_by_their_looks() {
    let text = routes(
        "  - name: 2024\n    host: Hooks.Example.com\n    path: /x\n    verify: none\n    max_body: 2048\n    answer: { \
         status: 200, body: true }\n    forward_to:\n      url: http://a\n      http: 2\n      headers: { set: { X-N: 1.10 } }\n",
    );
    let route = first(&text);
    assert_eq!(
        (&*route.name, route.host.as_deref(), route.max_body),
        ("2024", Some("hooks.example.com"), 2048)
    );
    let Mode::Buffer { answer, destinations } = &route.mode else { panic!("no buffer") };
    assert_eq!((answer.body.as_str(), answer.content_type.as_deref()), ("true", Some("text/plain")));
    assert_eq!(destinations[0].headers.set, [("X-N".to_owned(), "1.10".to_owned())]);
    assert_eq!(destinations[0].http, UpstreamHttp::Http2);
    let tls = |version: &str| {
        let listener =
            format!("{{ address: \"127.0.0.1:1\", tls: {{ cert: a, key: b, min_version: {version} }} }}");
        load_text(&format!("listeners: [{listener}]\nroutes:\n{OPEN}")).unwrap().config.listeners[0]
            .tls
            .clone()
    };
    assert_eq!(tls("1.3").unwrap().min_version, TlsVersion::Tls13);
    assert_eq!(tls("\"1.2\"").unwrap().min_version, TlsVersion::Tls12);
}

#[test]
fn paths_of_certificates_start_from_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    let listener = "listeners: [{ address: \"127.0.0.1:1\", tls: { cert: tls/a.pem, key: /abs/a.key } }]\n";
    fs::write(&path, format!("{listener}routes:\n{OPEN}")).unwrap();
    let config = load_from(&path, &Unfetched, &Machine::default()).unwrap().config;
    let certificate = &config.listeners[0].tls.as_ref().unwrap().certificates[0];
    assert_eq!(
        (certificate.cert.clone(), certificate.key.as_path()),
        (folder.path().join("tls/a.pem"), Path::new("/abs/a.key"))
    );
}

#[test]
fn the_table_finds_the_routes_by_their_place_in_the_config() {
    let text = routes(
        "  - { path: \"/*\", mode: pass, forward_to: \"http://a\" }\n  - { path: \"/h/{id}\", verify: none, forward_to: \
         \"http://a\" }\n",
    );
    let config = load_text(&text).unwrap().config;
    let Match::Route { index, params } = config.table.find("any", "/h/7", &Method::POST) else {
        panic!("not found")
    };
    assert_eq!((&*config.routes[index].name, params.get("id")), ("h-id", Some("7")));
    assert_eq!(config.routes[0].max_body, u64::MAX);
    assert!(config.routes[0].methods.is_empty());
}

#[test]
fn what_runs_but_should_be_known_is_warned_about() {
    let open = "routes[0].verify: this route takes events from anyone";
    assert_eq!(warnings(&routes(OPEN)), [open]);
    let text = format!("listeners: [{{ address: \"0.0.0.0:1\", allow: [10.1.0.0/8] }}]\nroutes:\n{OPEN}");
    assert_eq!(
        warnings(&text),
        [
            "listeners[0].address: this listener speaks plain HTTP to other machines",
            "listeners[0].allow[0]: `10.1.0.0/8` is taken as 10.0.0.0/8",
            open
        ]
    );
    let insecure = OPEN.replace("http://127.0.0.1:3000", "{ url: https://a, tls: { insecure: true } }");
    let insecure = warnings(&routes(&format!("{insecure}    mode: proxy\n")));
    assert_eq!(insecure, ["routes[0].forward_to.tls.insecure: any certificate is taken for the app's"]);
    let collapsed = "  - { path: \"/a/*\", mode: pass, forward_to: \"http://a/b\" }\n";
    assert_eq!(
        warnings(&routes(collapsed)),
        ["routes[0].forward_to: every path below the route becomes `/b` for the app"]
    );
}

#[test]
fn a_key_that_anyone_could_mint_is_joined_with_the_body() {
    let route = |keys: &str| {
        routes(&format!(
            "  - path: /x/{{id}}\n    verify: {{ provider: stripe, secrets: [env:S], tolerance: 10m }}\n    forward_to: http://a\n{keys}"
        ))
    };
    let joined =
        "routes[0].idempotency.key: the signature does not cover this key: it is joined with the body's hash";
    for key in ["\"header:X-Id\"", "\"header:X-Id | body:/id\"", "\"query:id\"", "\"path:id\""] {
        let text = route(&format!("    idempotency: {{ key: {key} }}\n"));
        assert_eq!(warnings(&text), [joined], "{key}");
        let shown = first(&text).idempotency.as_ref().unwrap().key.as_ref().unwrap().to_string();
        assert!(shown.ends_with(" + body-hash"), "{shown}");
    }
    for key in
        ["[\"header:X-Id\", body-hash]", "[\"header:X-Id\", \"body:/id\"]", "\"body:/data/id\"", "body-hash"]
    {
        assert!(warnings(&route(&format!("    idempotency: {{ key: {key} }}\n"))).is_empty(), "{key}");
    }
    // Whoever holds a request with a key in it holds the key.
    let keyed = routes(
        "  - path: /x\n    verify: { bearer: { tokens: [env:S] } }\n    forward_to: http://a\n    idempotency: { key: \"header:X-Id\" }\n",
    );
    assert!(warnings(&keyed).is_empty());
    assert_eq!(first(&keyed).idempotency.as_ref().unwrap().key.as_ref().unwrap().to_string(), "header:x-id");
    assert_eq!(
        warnings(&route("    idempotency: { window: 15m }\n")),
        ["routes[0].idempotency.window: repeats are forgotten after 15m, but accepted for twice 10m"]
    );
    assert!(warnings(&route("    idempotency: { window: 20m }\n")).is_empty());
}

#[test]
fn a_secret_in_the_config_is_taken_only_if_asked_and_warned_about() {
    let text = format!("{}admin: {{ token: {SECRET} }}\nallow_inline_secrets: true\n", routes(OPEN));
    let loaded = load_text(&text).unwrap();
    assert_eq!(loaded.config.admin.token.as_ref().unwrap().expose(), SECRET.as_bytes());
    let warning = loaded.warnings.iter().find(|w| w.key == "admin.token").unwrap();
    assert!(
        warning.message.contains("a secret stands in the config") && !warning.to_string().contains(SECRET)
    );
    let text = format!(
        "{}allow_inline_secrets: true\n",
        routes(&format!(
            "  - path: /x\n    provider: github\n    secret: {SECRET}\n    forward_to: http://a\n"
        ))
    );
    assert_eq!(warnings(&text), ["routes[0].secret: a secret stands in the config itself"]);
}

#[test]
fn an_inline_route_does_not_wait_longer_than_its_sender() {
    let pack = crate::providers::find("github").unwrap();
    let deadline = *pack.deadline.known().unwrap();
    let proxy = |to: &str| {
        routes(&format!(
            "  - path: /x\n    provider: github\n    secret: env:S\n    mode: proxy\n    forward_to: {to}\n"
        ))
    };
    assert_eq!(
        first(&proxy("http://a")).mode.destinations()[0].timeout,
        deadline.min(Duration::from_secs(30))
    );
    let warned = warnings(&proxy("{ url: http://a, timeout: 1h }"));
    assert!(warned[0].starts_with("routes[0].forward_to.timeout: the sender gives up after"), "{warned:?}");
}

#[test]
fn the_ranges_of_a_provider_are_one_set_for_all_who_ask() {
    let route = |path: &str| {
        format!(
            "  - {{ path: {path}, provider: github, secret: env:S, allow: [provider, 10.0.0.0/8], forward_to: \"http://a\" }}\n"
        )
    };
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\", allow: [provider] }}]\nroutes:\n{}{}{OPEN}",
        route("/a"),
        route("/b")
    );
    let loaded = load_text(&text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let config = loaded.config;
    assert_eq!(config.provider_ranges.len(), 1);
    let allow = config.routes[0].allow.as_ref().unwrap();
    let lets_in = |address: &str| allow.contains(address.parse().unwrap());
    assert!(lets_in("192.30.252.1") && lets_in("10.1.1.1") && !lets_in("8.8.8.8"));
    config.provider_ranges[0].live.store(Arc::default());
    assert!(!lets_in("192.30.252.1") && lets_in("10.1.1.1"));
    assert!(!config.listeners[0].allow.is_unset());
    let warned = loaded.warnings.iter().any(|w| w.message.contains("senders of x may not connect here"));
    assert!(warned, "{:?}", loaded.warnings);
    assert_eq!(config.ranges, RangeSettings::default());
}

#[test]
fn an_event_is_acknowledged_as_its_provider_takes_it_unless_the_route_says_otherwise() {
    let route = |provider: &str, more: &str| {
        routes(&format!(
            "  - path: /x\n    provider: {provider}\n    secret: env:S\n    forward_to: http://a\n{more}"
        ))
    };
    let answer = |text: &str| match &first(text).mode {
        Mode::Buffer { answer, .. } => (answer.status, answer.content_type.clone(), answer.body.clone()),
        other => panic!("{other:?}"),
    };
    let plain = |status: u16| (status, None, String::new());
    assert_eq!(answer(&route("github", "")), plain(202));
    assert_eq!(answer(&route("mailgun", "")), plain(200));
    let hello = "Hello API Event Received".to_owned();
    let kind = Some("text/plain".to_owned());
    assert_eq!(answer(&route("dropbox-sign", "")), (200, kind.clone(), hello.clone()));
    assert!(warnings(&route("dropbox-sign", "")).is_empty());

    let own = route("dropbox-sign", "    answer: { status: 202 }\n");
    assert_eq!(answer(&own), (202, kind.clone(), hello));
    assert_eq!(
        warnings(&own),
        ["routes[0].answer.status: Dropbox Sign (HelloSign) does not take 202 for success"]
    );
    let empty = route("dropbox-sign", "    answer: { body: \"\" }\n");
    assert_eq!(answer(&empty), plain(200));
}

#[test]
fn a_greeting_that_would_be_refused_for_lack_of_a_setting_is_warned_of() {
    let route = |provider: &str, more: &str| {
        warnings(&routes(&format!(
            "  - path: /x\n    provider: {provider}\n    secret: env:S\n    forward_to: http://a\n{more}"
        )))
    };
    let warned = route("meta", "");
    assert_eq!(
        warned,
        [
            "routes[0]: greetings of Meta (Facebook, Messenger, Instagram) (GET) will be refused: `verify_token` is not set"
        ]
    );
    assert!(route("meta", "    handshake: \"off\"\n").is_empty());
    assert!(route("dropbox", "").is_empty());
    // `origins` only narrows who may ask.
    let refused = |line: &String| line.contains("will be refused");
    assert!(!route("azure-event-grid", "").iter().any(refused));
    // Said once, though two greetings need it; `leaving` has a default.
    assert_eq!(
        route("websub", ""),
        ["routes[0]: greetings of WebSub (GET) will be refused: `topics` is not set"]
    );
}

#[test]
fn events_that_come_in_again_for_ever_are_an_error_and_a_hand_over_to_another_route_is_none() {
    let route = |name: &str, more: &str, to: &str| {
        format!("  - name: {name}\n    path: /{name}\n    verify: none\n{more}    forward_to: {to}\n")
    };
    let own = |list: &[String]| routes(&list.concat()).replace("127.0.0.1:0", "0.0.0.0:8080");
    let problem = only(&own(&[route("x", "", "http://localhost:8080")]));
    assert_eq!((problem.key.as_str(), problem.line), ("routes[0].forward_to", 6));
    assert!(problem.message.contains("the gateway's own listener 0.0.0.0:8080"), "{problem}");
    assert!(problem.to_string().contains("(x -> x)"), "{problem}");
    let is_told = |told: &[String]| told.iter().any(|told| told.contains("own listener"));
    let free = |list: &[String]| assert!(!is_told(&warnings(&own(list))), "{list:?}");

    // Through its own path, by a rewritten one, below a pattern, over another route, with a host of its own.
    only(&own(&[route("x", "", "http://127.0.0.1:8080/x")]));
    only(&own(&[route("x", "", "{ url: \"http://127.0.0.1:8080\", path: { match: \"/x\", to: \"/x\" } }")]));
    only(&own(&["  - path: /x/{a}/*\n    mode: pass\n    forward_to: http://127.0.0.1:8080\n".to_owned()]));
    only(&own(&[route("x", "    host: a.example\n", "http://127.0.0.1:8080")]));
    let there =
        || route("x", "    host: a.example\n", "{ url: \"http://127.0.0.1:8080/y\", host: upstream }");
    // The `Host` of what comes to /y is not a.example, so it ends there.
    warnings(&own(&[there(), route("y", "", "http://127.0.0.1:8080/x")]));
    let back = "{ url: \"http://localhost:8080/x\", host: upstream }";
    let here = there().replace("a.example", "localhost");
    let two = load_text(&own(&[here, route("y", "", back)])).map(|_| ()).unwrap_err();
    assert_eq!(two.iter().filter(|p| p.message.contains("own listener")).count(), 2, "{two:?}");
    assert!(two[0].to_string().contains("(x -> y -> x)"), "{two:?}");

    // To other routes, which forward to an app.
    let app = |more: &str| {
        "  - name: b\n    path: /x\n    verify: none\n".to_owned() + more + "    forward_to: http://app\n"
    };
    free(&[there(), route("y", "", "http://app")]);
    free(&[
        route("x", "    host: a.example\n", "{ url: \"http://localhost:8080\", host: upstream }"),
        app("    host: localhost\n"),
    ]);
    free(&[route("x", "", "http://127.0.0.1:8081")]);
    // To nobody.
    assert!(is_told(&warnings(&own(&[route("x", "", "http://127.0.0.1:8080/other")]))));
}

#[test]
fn a_secret_or_a_label_that_stands_twice_is_warned_of() {
    let machine = || {
        let mut machine = Machine::default();
        for (name, value) in [("A", "first-secret"), ("B", "other-secret"), ("SAME", "first-secret")] {
            machine.env.insert(name.into(), Some(value.into()));
        }
        machine
    };
    let doubles = |keys: &str| {
        let route = format!("  - path: /x\n    forward_to: http://127.0.0.1:3000\n{keys}\n");
        let loaded = load_text_on(&machine(), &routes(&route)).unwrap_or_else(|all| panic!("{all:#?}"));
        loaded.warnings.iter().map(|w| format!("{}: {}", w.key, w.message)).collect::<Vec<_>>()
    };
    let short = |secrets: &str| doubles(&format!("    provider: github\n    secrets: [{secrets}]"));
    assert_eq!(short("{ secret: env:A, label: a }, { secret: env:B, label: b }"), Vec::<String>::new());
    for twice in ["env:A, env:A", "env:A, env:SAME"] {
        let same = "routes[0].secrets[1]: this is the same secret as routes[0].secrets[0]";
        assert_eq!(short(twice), [same]);
    }
    let label = "routes[0].secrets[1].label: the label `a` is that of routes[0].secrets[0], too";
    assert_eq!(short("{ secret: env:A, label: a }, { secret: env:B, label: a }"), [label]);
    // One sender's secret in two rules of a route is no slip.
    let any = |second: &str| {
        let rule =
            |secret: &str| format!("{{ provider: github, secrets: [{{ secret: env:{secret}, label: a }}] }}");
        doubles(&format!("    verify: {{ any: [{}, {}] }}", rule("A"), rule(second)))
    };
    assert_eq!(any("A"), Vec::<String>::new());
    let label = "routes[0].verify.any[1].secrets[0].label: the label `a` is that of routes[0].verify.any[0].secrets[0], too";
    assert_eq!(any("B"), [label]);
}
