//! Whole configs: what is said about bad ones, and what good ones become.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use super::*;
use crate::message::Method;
use crate::route::Match;

mod alerts;
mod examples;
mod good;
mod kept;
mod order;
mod packs;
mod places;
mod whole;

/// A machine that has every secret and certificate, but for those that a test takes away.
#[derive(Default)]
struct Machine {
    env: HashMap<String, Option<String>>,
    files: HashMap<String, Result<Vec<u8>, String>>,
}

/// Fits every scheme: text, and base64 of 32 bytes behind the usual prefix.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

impl Outside for Machine {
    fn host_name(&self) -> String {
        "machine".into()
    }
    fn env(&self, name: &str) -> Option<OsString> {
        let value = self.env.get(name).cloned().unwrap_or_else(|| Some(SECRET.to_owned()));
        value.map(OsString::from)
    }
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(file) = self.files.get(&name) {
            return file.clone();
        }
        if name.ends_with("-url") {
            return Ok(b"https://hooks.example.com/services/T0/B0/x\n".to_vec());
        }
        match name.rsplit_once('.') {
            Some((_, "pem" | "key")) => {
                let made = rcgen::generate_simple_self_signed(vec!["app.internal".into()]).unwrap();
                let pem = made.cert.pem() + &made.signing_key.serialize_pem();
                Ok(pem.into_bytes())
            }
            _ => Ok(format!("{SECRET}\n").into_bytes()),
        }
    }
    fn folder(&self, path: &Path) -> Result<(), String> {
        match path.ends_with("nowhere") {
            true => Err("No such file or directory".into()),
            false => Ok(()),
        }
    }
    fn program(&self, name: &str) -> Result<(), String> {
        match name.ends_with("missing") {
            true => Err(format!("{name} does not exist")),
            false => Ok(()),
        }
    }
    fn certificates(&self, _: &Tls) -> Result<(), String> {
        Ok(())
    }
    fn pem(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        self.read(path).map(Some)
    }
}

fn load_text_on(machine: &Machine, text: &str) -> Result<Loaded, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    fs::write(&path, text).unwrap();
    load_from(&path, &Unfetched, machine).map_err(|problems| problems.0)
}

fn load_text(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_text_on(&Machine::default(), text)
}

/// A config with these routes.
fn routes(routes: &str) -> String {
    format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nroutes:\n{routes}")
}

/// `key: message` of each problem.
fn problems(text: &str) -> Vec<String> {
    let problems = load_text(text).map(|_| ()).unwrap_err();
    problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

fn only(text: &str) -> Problem {
    let mut problems = load_text(text).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

/// The one thing that is wrong with an open route that has these keys on top.
fn wrong_in_route(keys: &str) -> Problem {
    only(&routes(&format!("  - path: /x\n    verify: none\n    forward_to: http://127.0.0.1:3000\n{keys}\n")))
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = load_text(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    loaded.warnings.iter().map(|w| format!("{}: {}", w.key, w.message)).collect()
}

const OPEN: &str = "  - path: /x\n    verify: none\n    forward_to: http://127.0.0.1:3000\n";

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
fn a_misspelt_key_does_not_show_its_secret() {
    for key in ["secrt", "tokne", "pasword"] {
        let problems = load_text(&routes(&format!("{OPEN}    {key}: hunter22\n"))).unwrap_err();
        assert!(!format!("{problems:?}").contains("hunter22"), "{problems:#?}");
    }
}

#[test]
fn a_url_with_a_password_is_refused_and_not_shown() {
    let text = routes(&OPEN.replace("http://127.0.0.1:3000", "http://bob:hunter22@127.0.0.1:3000/x"));
    let problem = only(&text);
    assert!(problem.message.contains("user or password") && problem.snippet.contains("***"), "{problem}");
    assert!(!format!("{problem:?}").contains("hunter22"), "{problem:?}");
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
    assert_eq!(told(batch, ""), "`batch` and a server for each key do not go together");
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
