//! Files and folders.

use super::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Loaded, Problems>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let loaded = load_from(folder.path(), &Unfetched, &Machine::default());
    (folder, loaded)
}

const LISTENER: &str = "listeners: [{ address: \"127.0.0.1:0\" }]\n";

#[test]
fn the_files_of_a_folder_are_one_config_in_the_order_of_their_names() {
    let second = format!("routes:\n{}", OPEN.replace("/x", "/second"));
    let first = format!("routes:\n{}limits: {{ header_count: 7 }}\n", OPEN.replace("/x", "/first"));
    let files =
        [("20.yaml", second.as_str()), ("10.yaml", &first), ("00.yaml", LISTENER), ("note.txt", "x: [")];
    let (_folder, loaded) = folder(&files);
    let loaded = loaded.unwrap();
    let names: Vec<_> = loaded.config.routes.iter().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(loaded.config.limits.header_count, 7);
    let all = format!("{LISTENER}{first}{second}");
    assert_eq!(loaded.config.hash, hex::encode(Sha256::digest(all.as_bytes())));
}

#[test]
fn a_section_that_stands_in_two_files_is_an_error_in_the_second() {
    let routes = format!("{LISTENER}routes:\n{OPEN}limits: {{ header_count: 7 }}\n");
    let (_folder, loaded) = folder(&[("a.yaml", &routes), ("b.yaml", "threads: 1\nlimits: {}\n")]);
    let problems = loaded.unwrap_err().0;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].file.ends_with("b.yaml") && problems[0].line == 2, "{problems:?}");
    assert!(problems[0].message.contains("a.yaml:6 already"), "{problems:?}");
}

#[test]
fn problems_of_all_files_are_said_at_once_each_with_its_file() {
    let (_folder, loaded) =
        folder(&[("a.yaml", LISTENER), ("b.yaml", "routes: [\n"), ("c.yaml", "a: 1\na: 2\n")]);
    let problems = loaded.unwrap_err().0;
    let files: Vec<_> = problems.iter().map(|p| p.file.rsplit('/').next().unwrap()).collect();
    assert_eq!(files, ["b.yaml", "c.yaml"], "{problems:?}");
}

#[test]
fn a_file_with_the_other_ending_is_pointed_out() {
    let routes = format!("{LISTENER}routes:\n{OPEN}");
    let (_folder, loaded) = folder(&[("a.yaml", &routes), ("b.yml", "x: 1\n")]);
    let warnings = loaded.unwrap().warnings;
    assert!(
        warnings.iter().any(|w| w.file.ends_with("b.yml") && w.message.contains("is not read")),
        "{warnings:?}"
    );
}

#[test]
fn what_can_not_be_read_is_one_problem() {
    let load = |path: &Path| load(path, &Unfetched).map(|_| ()).unwrap_err().0;
    let empty = tempfile::tempdir().unwrap();
    let gone = load(&empty.path().join("none.yaml"));
    assert!(gone.len() == 1 && gone[0].message.contains("can't be read") && gone[0].line == 0, "{gone:?}");
    assert!(!gone[0].to_string().contains(":0:0"), "{}", gone[0]);
    assert!(load(empty.path())[0].message.contains("holds no `*.yaml`"));
    let binary = empty.path().join("binary.yaml");
    fs::write(&binary, b"a: 1\nb: \xff\n").unwrap();
    let problems = load(&binary);
    assert!(problems[0].message.contains("not UTF-8") && problems[0].line == 2, "{problems:?}");
}

#[test]
fn commands_that_neither_listen_nor_connect_need_no_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    let listener = "listeners: [{ address: \"127.0.0.1:0\", tls: { cert: gone.pem, key: gone.key } }]\n";
    let route = OPEN.replace("http://127.0.0.1:3000", "{ url: https://a, tls: { ca: gone.pem } }");
    fs::write(&path, format!("{listener}routes:\n{route}")).unwrap();
    assert_eq!(load_offline(&path, Needed::Secrets).unwrap().config.listeners.len(), 1);
}

#[test]
fn a_config_can_be_looked_at_where_its_secrets_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.yaml");
    let rules = [
        "{ provider: stripe, secret: env:TIDEGATE_TEST_GONE }",
        "{ provider: standard-webhooks, secrets: [file:gone] }",
        "{ provider: slack, secret: file:gone }",
        "{ algorithm: hmac-sha256, signature: { from: \"header:X\", encoding: hex }, key: { decode: hex }, secret: file:gone }",
        "{ jwt: { algorithms: [HS256], secrets: [file:gone] } }",
        "{ api_key: { header: X, keys: [{ secret: file:gone, label: a }, file:gone] } }",
        "{ basic: { users: [{ name: a, password: file:gone }] } }",
    ];
    let route = |(i, rule): (usize, &&str)| {
        format!("  - {{ path: /{i}, verify: {rule}, forward_to: \"http://a\" }}\n")
    };
    let routes: String = rules.iter().enumerate().map(route).collect();
    let admin = "admin: { token: file:gone }\n";
    fs::write(&path, format!("{LISTENER}routes:\n{routes}{admin}")).unwrap();
    let there = examine(&path, Needed::Nothing);
    assert!(there.config.is_some(), "{:#?}", there.problems);
    assert_eq!(examine(&path, Needed::Secrets).problems.len(), rules.len() + 2);
    // The config itself is checked all the same.
    fs::write(&path, format!("{LISTENER}routes:\n{}", routes.replace("env:TIDEGATE_TEST_GONE", "\"env:\"")))
        .unwrap();
    let problems = examine(&path, Needed::Nothing).problems;
    assert!(problems.len() == 1 && problems[0].message.starts_with("`env:` takes"), "{problems:#?}");
}

#[test]
fn a_root_that_is_no_mapping_is_refused() {
    for text in ["- a\n", "hello\n", "null\n", ""] {
        assert!(load_text(text).is_err(), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A config with a piece torn out and another put in: whatever that is, it is told and nothing falls over.
    #[test]
    fn a_damaged_config_is_told_where(at in 0.0..1.0f64, torn in 0usize..40, put in "[ -~\n]{0,12}|(: |- |\\[|\\{|\\}|null|0|\"|\t){1,3}") {
        let whole = include_str!("../../../conf/reference.yaml");
        prop_assume!(whole.is_char_boundary((at * whole.len() as f64) as usize));
        let from = (at * whole.len() as f64) as usize;
        let rest: String = whole[from..].chars().skip(torn).collect();
        let text = format!("{}{put}{rest}", &whole[..from]);
        if let Err(problems) = load_text(&text) {
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(problem.line >= 1 && problem.line as usize <= text.lines().count() + 1, "{problem}");
                prop_assert!(!problem.message.is_empty());
            }
        }
    }
}
