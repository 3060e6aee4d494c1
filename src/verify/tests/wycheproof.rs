//! Project Wycheproof's vectors for the algorithms of the scheme language, each through a rule as a user would write it.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::NOW;
use crate::verify::testing::{World, request};
use crate::verify::{Compiled, compile};

#[derive(Deserialize)]
struct File {
    algorithm: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    /// The public key of all its tests.
    key: Option<String>,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Test {
    id: u32,
    comment: String,
    /// The shared key.
    key: Option<String>,
    result: Expected,
    msg: String,
    sig: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Valid,
    Invalid,
    /// Right for some, wrong for the strict.
    Acceptable,
}

/// The rule, unless the key itself is refused.
fn rule(algorithm: &str, shared: Option<&str>, public: Option<&str>) -> Option<Compiled> {
    let mut rule = json!({"algorithm": algorithm, "signature": {"from": "header:X-Sig", "encoding": "hex"}});
    if let Some(secret) = shared {
        rule["secret"] = json!(secret);
        rule["key"] = json!({"decode": "hex"});
    }
    if let Some(key) = public {
        rule["public_keys"] = json!([key]);
    }
    compile(&serde_json::from_value(rule).unwrap(), &World::default()).ok()
}

#[test]
fn every_vector_gets_its_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wycheproof");
    let (mut wrong, mut valid, mut invalid) = (Vec::new(), 0, 0);
    let mut algorithms = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let File { algorithm, groups } = serde_json::from_slice(&std::fs::read(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for Group { key, tests } in groups {
            for Test { id, comment, key: shared, result, msg, sig } in tests {
                let request = request("/", &[("X-Sig", &sig)], &hex::decode(msg).unwrap());
                let accepted = rule(&algorithm, shared.as_deref(), key.as_deref())
                    .is_some_and(|rule| rule.verifier.verify(request, None, NOW).is_ok());
                let right = match result {
                    Expected::Valid => accepted,
                    Expected::Invalid => !accepted,
                    Expected::Acceptable => true,
                };
                if !right {
                    wrong.push(format!("{algorithm} {id} ({comment}): {result:?}, accepted: {accepted}"));
                }
                valid += u32::from(result == Expected::Valid);
                invalid += u32::from(result == Expected::Invalid);
            }
        }
        algorithms.push(algorithm);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(valid > 200 && invalid > 300 && algorithms.len() == 11, "{valid} {invalid} {algorithms:?}");
}
