//! What is sealed, hidden, and kept.

use super::*;
use crate::config::RouteKeep;
use crate::seal::testing::{key, text};

fn machine() -> Machine {
    let mut machine = Machine::default();
    for (name, value) in [("ONE", text(1)), ("TWO", text(2)), ("SHORT", "00ff00ff".to_owned())] {
        machine.env.insert(name.into(), Some(value));
    }
    machine
}

fn loaded(more: &str) -> Result<Loaded, Problems> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    fs::write(&path, routes(OPEN) + more).unwrap();
    load_from(&path, &Unfetched, &machine())
}

#[test]
fn the_first_key_seals_unless_it_is_told_not_to() {
    let config = loaded("buffer: { encryption: { keys: [env:TWO, env:ONE] } }\n").unwrap().config;
    assert_eq!(config.buffer.encryption.sealing(), Some(key(2).id()));
    assert_eq!(config.buffer.encryption.ids().collect::<Vec<_>>(), [key(2).id(), key(1).id()]);
    let off = loaded("buffer: { encryption: { keys: [env:ONE], seal: false } }\n").unwrap().config;
    assert_eq!(off.buffer.encryption.sealing(), None);
    assert_eq!(off.buffer.encryption.ids().count(), 1);
    assert_eq!(loaded("").unwrap().config.buffer.encryption.ids().count(), 0);
}

#[test]
fn a_wrong_key_is_named_with_its_place_and_not_shown() {
    let problems = loaded("buffer: { encryption: { keys: [env:ONE, env:SHORT, env:ONE] } }\n").unwrap_err().0;
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("keys[1]: this is no key: it has 4 bytes"), "{told:?}");
    assert!(told[1].contains("keys[2]: this is the same key as one before it"), "{told:?}");
    assert!(!told.concat().contains("00ff00ff"));
    assert!(loaded("buffer: { encryption: { keys: [] } }\n").is_err());
}

#[test]
fn what_a_route_hides_and_keeps_comes_to_what_all_do() {
    let own = OPEN.replace(
        "verify: none",
        "verify: none\n    keep: { delivered: 2d, events: 10 }\n    redact: { headers: [X-Own], body: [/own] }",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    fs::write(&path, routes(&own) + "redact: { headers: [X-All], body: [\"/list/*/id\"] }\n").unwrap();
    let config = load_from(&path, &Unfetched, &machine()).unwrap().config;
    let route = &config.routes[0];
    assert!(route.redact.hides_header("x-own") && route.redact.hides_header("x-all"));
    assert!(route.redact.hides_at("/own") && route.redact.hides_at("/list/3/id"));
    assert!(config.redact.hides_header("x-all") && !config.redact.hides_header("x-own"));
    let keep =
        RouteKeep { delivered: Some(Duration::from_secs(172_800)), events: Some(10), ..RouteKeep::default() };
    assert_eq!(config.buffer.keep_of_routes, [(route.name.clone(), keep)]);
}

#[test]
fn what_can_not_be_hidden_or_kept_is_refused_with_its_place() {
    let told = |more: &str| loaded(more).unwrap_err().to_string();
    assert!(told("redact: { body: [card] }\n").contains("redact.body[0]: a JSON pointer begins with `/`"));
    assert!(told("redact: { headers: [\"a b\"] }\n").contains("redact.headers[0]: `a b` is not the name"));
    assert!(told("redact: { header: [a] }\n").contains("headers"));
}
