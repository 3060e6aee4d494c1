//! Where events go.

use super::*;

#[test]
fn destinations_are_checked() {
    let told = |forward_to: &str| only(&routes(&OPEN.replace("http://127.0.0.1:3000", forward_to)));
    for (forward_to, message) in [
        ("{}", "the destination has no `url`"),
        ("{ url: http://a, upstreams: [http://b] }", "both `url` and `upstreams` are given"),
        ("[]", "the list is empty"),
        ("a:3000", "`a:3000` is not"),
        ("http://user:pass@a", "a URL with a user"),
        ("http://a/?x=1", "the URL has a query"),
        ("[{ name: a, url: http://a }, { url: http://b }]", "the key `name` is missing"),
        ("[{ name: a, url: http://a }, { name: a, url: http://b }]", "the destination `a` stands in"),
        ("{ url: http://a, tls: { server_name: a } }", "`tls` has no effect on `http://`"),
        ("{ url: http://a, retry: { first: 1h, max: 1s } }", "1s is less than `first` (1h)"),
        ("{ url: http://a, retry: { give_up_on: [200] } }", "200 is out of range"),
        ("{ url: http://a, timeout: 0s }", "it can't be zero"),
        ("{ url: http://a, http: 3 }", "`3` is not possible here"),
        ("{ url: http://a, headers: { set: { Host: b } } }", "`Host` is not set here"),
        ("{ url: http://a, headers: { remove: [Connection] } }", "`Connection` belongs to the connection"),
        ("{ url: http://a, headers: { set: { Transfer-Encoding: b } } }", "`Transfer-Encoding` belongs to"),
        ("{ url: http://a, headers: { set: { content-length: \"1\" } } }", "`content-length` belongs to"),
        ("{ url: http://a, headers: { set: { Expect: 100-continue } } }", "`Expect` belongs to"),
        ("{ url: http://a, headers: { set: { Tidegate-X: b } } }", "`Tidegate-X` is the gateway's own"),
        (
            "{ url: http://a, headers: { set: { tidegate_verified: b } } }",
            "`tidegate_verified` is the gateway's",
        ),
        ("{ url: http://a, headers: { set: { X: \"a\\nb\" } } }", "the value holds control characters"),
        ("{ url: https://a, tls: { ca: c.pem, insecure: true } }", "`insecure` makes `ca` pointless"),
    ] {
        let problem = told(forward_to);
        assert!(problem.message.starts_with(message), "{forward_to}: {problem}");
    }
    let text = routes(&OPEN.replace(
        "http://127.0.0.1:3000",
        "{ upstreams: [\"http://a/in\", \"http://b/in\", \"http://c/other\"] }",
    ));
    let problem = only(&text);
    assert_eq!(problem.message, "the path `/other` is not that of the first (`/in`)");
    assert_eq!(problem.key, "routes[0].forward_to.upstreams[2]");
    let line = text.lines().nth(problem.line as usize - 1).unwrap();
    assert!(line[problem.column as usize - 1..].starts_with("\"http://c/other\""), "{problem}");
    assert!(
        load_text(&routes(&OPEN.replace("http://127.0.0.1:3000", "{ upstreams: [http://a, http://b/] }")))
            .is_ok()
    );
    let two =
        OPEN.replace("http://127.0.0.1:3000", "[{ name: a, url: http://a }, { name: b, url: http://b }]");
    let problem = only(&routes(&format!("{two}    mode: proxy\n")));
    assert_eq!(problem.message, "inline forwarding takes exactly one destination");
    let retried = OPEN.replace("http://127.0.0.1:3000", "{ url: http://a, retry: { attempts: 3 } }");
    assert_eq!(
        only(&routes(&format!("{retried}    mode: proxy\n"))).message,
        "inline forwarding is not retried"
    );
    let paced = OPEN.replace("http://127.0.0.1:3000", "{ url: http://a, concurrency: 3 }");
    let loaded = load_text(&routes(&format!("{paced}    mode: proxy\n"))).unwrap();
    assert_eq!(loaded.warnings[0].message, "`concurrency` has no effect inline");
}

#[test]
fn a_key_that_chooses_the_server_must_be_where_it_can_be_read() {
    let of = |balance: &str, more: &str| {
        let to = format!("{{ upstreams: [http://a, http://b], balance: {balance} }}");
        let route = OPEN.replace("http://127.0.0.1:3000", &to);
        // A `pass` route verifies nothing.
        let route = if more.is_empty() { route } else { route.replace("    verify: none\n", "") };
        routes(&format!("{route}{more}\n"))
    };
    let balance =
        |text: &str| load_text(text).unwrap().config.routes[0].mode.destinations()[0].balance.clone();
    let by = |source: &str| Balancing::Hash { by: crate::verify::Extract::parse(source).unwrap() };
    assert_eq!(balance(&of("{ hash: \"body:/customer\" }", "")), by("body:/customer"));
    assert_eq!(
        balance(&of("{ hash: \"header:x-shop | query:shop\" }", "    mode: pass")),
        by("header:x-shop | query:shop")
    );
    assert!(matches!(balance(&of("{ hash: [\"header:x-shop\", body-hash] }", "")), Balancing::Hash { .. }));
    assert_eq!(balance(&of("least-in-flight", "")), Balancing::LeastInFlight);
    let told = |balance: &str, more: &str| only(&of(balance, more)).message;
    assert_eq!(told("{ hash: \"path:shop\" }", ""), "a parameter of the path can't choose the server");
    assert_eq!(told("{ hash: body-hash }", "    mode: pass"), "on a `pass` route nothing is read of a body");
    assert!(told("{ hash: shop }", "").contains("says no place"));
    let batch = "{ hash: \"header:x\" }, batch: { max_events: 5 }";
    assert_eq!(
        told(batch, ""),
        "a batch holds events of several keys and goes to one server, so none can be kept to the server of its key"
    );
    let slip = load_text(&of("{ by: \"header:x\" }", "")).unwrap_err();
    let said: Vec<&str> = slip.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(said, ["the key `hash` is missing", "unknown key `by`"]);
    assert!(only(&of("hash", "")).help.is_some_and(|help| !help.is_empty()));
}

#[test]
fn an_adaptive_concurrency_has_bounds() {
    let of =
        |concurrency: &str| {
            routes(&OPEN.replace(
                "http://127.0.0.1:3000",
                &format!("{{ url: http://a, concurrency: {concurrency} }}"),
            ))
        };
    let limits = |concurrency: &str| {
        let config = load_text(&of(concurrency)).unwrap().config;
        let destination = config.routes[0].mode.destinations()[0].clone();
        (destination.concurrency, destination.adaptive)
    };
    assert_eq!(limits("7"), (7, None));
    assert_eq!(limits("{ adaptive: true }"), (64, Some(1)));
    assert_eq!(limits("{ adaptive: true, min: 4, max: 4 }"), (4, Some(4)));
    assert_eq!(limits("{ adaptive: false, max: 9 }"), (9, None));
    assert_eq!(only(&of("{ adaptive: true, min: 9, max: 4 }")).message, "`min` (9) is more than `max` (4)");
    assert!(only(&of("0")).message.contains("out of range"));
    assert!(only(&of("{ adaptive: true, max: 0 }")).message.contains("out of range"));
    assert!(only(&of("{ max: 4 }")).message.contains("`adaptive`"));
}

#[test]
fn files_of_a_destination_are_looked_at() {
    let text = routes(&OPEN.replace("http://127.0.0.1:3000", "{ url: https://a, tls: { ca: ca.pem } }"));
    let machine =
        |file| Machine { files: HashMap::from([("ca.pem".to_owned(), file)]), ..Machine::default() };
    let gone = load_text_on(&machine(Err("No such file".into())), &text).unwrap_err();
    assert!(gone[0].message.ends_with("ca.pem: No such file"), "{gone:?}");
    let empty = load_text_on(&machine(Ok(b"hello".to_vec())), &text).unwrap_err();
    assert!(empty[0].message.ends_with("holds no certificate in PEM form"), "{empty:?}");
    assert!(load_text(&text).is_ok());
}
