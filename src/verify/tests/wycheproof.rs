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

/// All algorithms of the scheme language that have such vectors.
const ALGORITHMS: [&str; 16] = [
    "ecdsa-p256-sha256",
    "ecdsa-p256-sha256-fixed",
    "ecdsa-p384-sha384",
    "ecdsa-p384-sha384-fixed",
    "ed25519",
    "hmac-sha1",
    "hmac-sha256",
    "hmac-sha384",
    "hmac-sha512",
    "rsa-pkcs1-sha1",
    "rsa-pkcs1-sha256",
    "rsa-pkcs1-sha384",
    "rsa-pkcs1-sha512",
    "rsa-pss-sha256",
    "rsa-pss-sha384",
    "rsa-pss-sha512",
];

fn files() -> Vec<File> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wycheproof");
    let read = |algorithm: &&str| {
        let path = folder.join(format!("{algorithm}.json"));
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let files: Vec<File> = ALGORITHMS.iter().map(read).collect();
    assert!(files.iter().zip(ALGORITHMS).all(|(file, name)| file.algorithm == name));
    files
}

fn accepts(rule: Option<&Compiled>, msg: &[u8], sig: &str) -> bool {
    let request = request("/", &[("X-Sig", sig)], msg);
    rule.is_some_and(|rule| rule.verifier.verify(request, None, NOW).is_ok())
}

#[test]
fn every_vector_gets_its_answer() {
    let (mut wrong, mut valid, mut invalid) = (Vec::new(), 0, 0);
    for File { algorithm, groups } in files() {
        for Group { key, tests } in groups {
            let public = key.as_deref().map(|key| rule(&algorithm, None, Some(key)));
            for Test { id, comment, key: shared, result, msg, sig } in tests {
                let own = shared.as_deref().and_then(|key| rule(&algorithm, Some(key), None));
                let rule = public.as_ref().map_or(own.as_ref(), Option::as_ref);
                let accepted = accepts(rule, &hex::decode(msg).unwrap(), &sig);
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
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(valid > 300 && invalid > 600, "{valid} {invalid}");
}

/// For SHA-1 there are hardly any wrong signatures among the vectors: what is right for one word is wrong for the others.
#[test]
fn a_valid_rsa_signature_holds_for_its_own_algorithm_and_bytes_only() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for File { algorithm, groups } in files() {
        if !algorithm.starts_with("rsa-") {
            continue;
        }
        for Group { key, tests } in groups {
            let key = key.unwrap();
            let own = rule(&algorithm, None, Some(&key));
            let others = ALGORITHMS.iter().filter(|name| name.starts_with("rsa-") && **name != algorithm);
            let others: Vec<_> = others.map(|name| (*name, rule(name, None, Some(&key)))).collect();
            for Test { id, msg, sig, .. } in
                tests.into_iter().filter(|test| test.result == Expected::Valid).take(3)
            {
                let msg = hex::decode(msg).unwrap();
                for (name, rule) in &others {
                    if accepts(rule.as_ref(), &msg, &sig) {
                        wrong.push(format!("{algorithm} {id} by {name}"));
                    }
                }
                let mut flipped = hex::decode(&sig).unwrap();
                for bit in [0, flipped.len() * 4, flipped.len() * 8 - 1] {
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    if accepts(own.as_ref(), &msg, &hex::encode(&flipped)) {
                        wrong.push(format!("{algorithm} {id} with bit {bit} flipped"));
                    }
                    flipped[bit / 8] ^= 1 << (bit % 8);
                }
                if accepts(own.as_ref(), &[&msg[..], b"!"].concat(), &sig) {
                    wrong.push(format!("{algorithm} {id} over another text"));
                }
                assert!(accepts(own.as_ref(), &msg, &sig), "{algorithm} {id}");
                seen += 1;
            }
        }
    }
    assert!(wrong.is_empty() && seen > 50, "{seen}\n{}", wrong.join("\n"));
}
