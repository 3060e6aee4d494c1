//! Packs of the user's own: what is wrong in one is said where it stands.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::config::{Needed, Problem, examine, load_pack};

const PACK: &str = "\
name: acme
title: Acme
category: other
docs: https://acme.example/webhooks
checked: 2026-11-24
setup: Acme shows the secret once.
verify:
  algorithm: hmac-sha256
  signed: '{body}'
  signature: { from: header:X-Acme, encoding: hex }
idempotency: { key: header:X-Id, covered: false }
deadline: 10s
";

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn problems(text: &str) -> Vec<Problem> {
    let (_folder, path) = file(text);
    load_pack(&path).err().map(|problems| problems.0).unwrap_or_default()
}

#[test]
fn a_pack_of_the_users_is_read_from_its_file() {
    let (_folder, path) = file(PACK);
    assert_eq!(load_pack(&path).unwrap().name, "acme");
}

#[test]
fn what_is_wrong_in_a_pack_is_named_where_it_stands() {
    for (from, to, at, expected) in [
        ("hmac-sha256", "hmac-sha265", (8, 14), "did you mean `hmac-sha256`"),
        ("'{body}'", "'{timestamp}.{body}'", (9, 11), "does not say where it is"),
        ("header:X-Acme", "heder:X-Acme", (10, 22), "did you mean `header:`"),
        ("encoding: hex", "encoding: hexx", (10, 47), "did you mean `hex`"),
        ("encoding: hex", "encodin: hex", (10, 37), "did you mean `encoding`"),
        ("algorithm:", "algoritm:", (8, 3), "did you mean `algorithm`"),
        ("algorithm:", "secret: env:X\n  algorithm:", (8, 3), "no place in a pack"),
        (", covered: false", "", (11, 1), "covered"),
        ("header:X-Id", "X-Id", (11, 21), "says no place"),
        ("idempotency: { key: header:X-Id, covered: false }", "idempotency: of", (11, 14), "`off`"),
        ("deadline: 10s", "deadline: soon", (12, 11), "not a duration"),
        ("2026-11-24", "yesterday", (5, 10), "not a date"),
        ("name: acme", "name: Acme Inc", (1, 7), "lower-case"),
        ("title: Acme", "titel: Acme", (2, 1), "did you mean `title`"),
        ("category: other", "category: othr", (3, 11), "did you mean `other`"),
        ("setup: Acme shows the secret once.", "setup: ' '", (6, 8), "`setup` is empty"),
        ("deadline: 10s", "success: [200, ok]", (12, 16), "neither `2xx` nor a status"),
        ("deadline: 10s", "batch: { events: bdy, key: /id }", (12, 1), "says no place"),
        ("deadline: 10s", "batch: { events: body, key: id }", (12, 1), "a JSON pointer begins with `/`"),
        (
            "deadline: 10s",
            "handshake: { when: {}, echo: body:/x }",
            (12, 14),
            "every request would be a greeting",
        ),
        ("deadline: 10s", "params: { team: { about: x, as: sekret } }", (12, 33), "none of `text`"),
        ("deadline: 10s", "nonsense: 1", (12, 1), "known here"),
    ] {
        let problems = problems(&PACK.replacen(from, to, 1));
        let told = |p: &&Problem| {
            (p.line, p.column) == at && p.file.ends_with("acme.yaml") && p.to_string().contains(expected)
        };
        assert!(problems.iter().any(|p| told(&p)), "{to}: {problems:#?}");
    }
}

#[test]
fn what_is_wrong_with_a_packs_ranges_is_named_where_it_stands() {
    for (ranges, column, expected) in [
        ("snapshot: [10.0.0.0/33], snapshot_date: 2026-11-24", 22, "10.0.0.0/33"),
        ("snapshot: [], snapshot_date: 2026-11-24", 11, "`snapshot` is empty"),
        ("snapshot: [0.0.0.0/0], snapshot_date: 2026-11-24", 22, "0.0.0.0/0"),
        ("snapshot: [10.0.0.1], snapshot_date: soon", 48, "not a date"),
        ("list: 'http://a.example', at: /x, snapshot: [10.0.0.1], snapshot_date: 2026-11-24", 17, "no https"),
        ("list: 'https://a.example', snapshot: [10.0.0.1], snapshot_date: 2026-11-24", 1, "`at` is missing"),
        ("at: /x, snapshot: [10.0.0.1], snapshot_date: 2026-11-24", 1, "none is given"),
    ] {
        let problems = problems(&PACK.replacen("deadline: 10s", &format!("ranges: {{ {ranges} }}"), 1));
        let told = |p: &Problem| (p.line, p.column) == (12, column) && p.message.contains(expected);
        assert!(problems.iter().any(told), "{ranges}: {problems:#?}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = PACK.replace("2026-11-24", "yesterday").replace("10s", "soon").replace("header:X-Id", "X-Id");
    let lines: Vec<u64> = problems(&text).iter().map(|p| p.line).collect();
    assert_eq!(lines, [5, 11, 12]);
}

#[test]
fn what_is_missing_hides_nothing_of_what_is_wrong() {
    let text = PACK
        .replace("category: other\ndocs: https://acme.example/webhooks\n", "")
        .replace("setup: Acme shows the secret once.\n", "")
        .replace("hmac-sha256", "hmac-sha265")
        .replace("header:X-Id", "X-Id");
    let said = problems(&text);
    for expected in
        ["`category` is missing", "`docs` is missing", "`setup` is missing", "`hmac-sha265`", "says no place"]
    {
        assert!(said.iter().any(|p| p.message.contains(expected)), "{expected}: {said:#?}");
    }
    assert_eq!(said.len(), 5, "{said:#?}");
}

#[test]
fn a_config_shows_what_is_wrong_in_its_pack() {
    let (folder, _) = file(&PACK.replace("encoding: hex", "encoding: hexx"));
    let config = folder.path().join("tidegate.yml");
    let text = "allow_inline_secrets: true\nlisteners: [{ address: 127.0.0.1:0 }]\nroutes:\n  - path: /x\n    \
                provider: ./acme.yaml\n    secret: not-to-be-seen\n    forward_to: http://127.0.0.1:9\n";
    std::fs::write(&config, text).unwrap();
    let problems = examine(&config, Needed::Secrets).problems;
    let at: Vec<_> =
        problems.iter().map(|p| (p.file.rsplit('/').next().unwrap(), p.line, p.column)).collect();
    assert_eq!(at, [("acme.yaml", 10, 47), ("tidegate.yml", 5, 15)], "{problems:#?}");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean `hex`?"));
    assert!(problems[0].snippet.contains("encoding: hexx"));
    let missing = text.replace("acme.yaml", "acne.yaml");
    std::fs::write(&config, missing).unwrap();
    let problems = examine(&config, Needed::Secrets).problems;
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].line, 5);
    assert!(problems[0].message.contains("acne.yaml can't be read"), "{}", problems[0].message);
    assert!(!problems.iter().any(|p| p.to_string().contains("not-to-be-seen")));
}
