//! Every vector of `tests/vectors` gets the answer that it asks for.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::message::Request;
use crate::verify::testing::{World, key_of, request};
use crate::verify::{Compiled, VerifySpec, compile};

#[derive(Deserialize)]
pub(super) struct Vector {
    pub(super) provider: String,
    pub(super) name: String,
    config: Map<String, Value>,
    pub(super) request: Sent,
    pub(super) now: u64,
    pub(super) expect: String,
    reason: Option<String>,
    event_key: Option<String>,
    /// What would be fetched, by URL.
    #[serde(default)]
    documents: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct Sent {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body_base64: String,
}

impl Sent {
    pub(super) fn request(&self) -> Request {
        let (scheme, rest) = self.url.split_once("://").unwrap();
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let headers: Vec<_> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut request = request(target, &headers, &STANDARD.decode(&self.body_base64).unwrap());
        assert_eq!(scheme, "https");
        request.head.authority = authority.to_owned();
        request.head.method = self.method.parse().unwrap();
        request
    }
}

impl Vector {
    /// What a user would write under `verify:`.
    pub(super) fn spec(&self) -> VerifySpec {
        let mut rule = self.config.clone();
        rule.remove("public_url");
        let json = if self.provider == "jwt" {
            if let Some(jwks) = rule.get_mut("jwks") {
                *jwks = json!(jwks.to_string());
            }
            json!({ "jwt": rule })
        } else {
            rule.insert("provider".to_owned(), json!(self.provider));
            if let Some(Value::Object(params)) = rule.remove("params") {
                rule.extend(params);
            }
            Value::Object(rule)
        };
        serde_json::from_value(json)
            .unwrap_or_else(|error| panic!("{} / {}: {error}", self.provider, self.name))
    }

    pub(super) fn compiled(&self, world: &World) -> Compiled {
        compile(&self.spec(), &self.within(world))
            .unwrap_or_else(|e| panic!("{} / {}: {e:?}", self.provider, self.name))
    }

    /// Rule and world as a text: what compiles to the same.
    pub(super) fn rule(&self) -> String {
        format!("{:?} {} {:?}", self.spec(), self.now, self.documents)
    }

    /// The world with what would be fetched.
    pub(super) fn within(&self, world: &World) -> World {
        World {
            documents: self.documents.clone(),
            now: Timestamp::from_secs(self.now),
            packs: world.packs.clone(),
            ..World::default()
        }
    }

    pub(super) fn public_url(&self) -> Option<&str> {
        self.config.get("public_url").and_then(Value::as_str)
    }

    /// What is wrong with the answer that it gets.
    fn failure(&self, world: &World) -> Option<String> {
        let compiled = match compile(&self.spec(), &self.within(world)) {
            Ok(compiled) => compiled,
            Err(problems) => return Some(format!("does not compile: {problems:?}")),
        };
        let public_url = self.public_url();
        let now = Timestamp::from_secs(self.now);
        match (compiled.verifier.verify(self.request.request(), public_url, now), self.expect.as_str()) {
            (Ok(verified), "accept") => {
                let wanted = self.event_key.as_ref()?;
                let Some(idempotency) = compiled.pack.as_ref().and_then(|pack| pack.idempotency.key()) else {
                    return Some("the pack names no idempotency key".to_owned());
                };
                let key = key_of(idempotency.clone(), verified.get());
                (!key.contains(wanted)).then(|| format!("the key `{key}` does not hold `{wanted}`"))
            }
            (Err(_), "reject") => None,
            (Ok(_), _) => Some("was accepted".to_owned()),
            (Err((_, refusal)), _) => Some(format!("was refused: {refusal}")),
        }
    }
}

/// A rule for each provider, as the first of its vectors writes it.
pub(super) fn one_rule_a_pack() -> BTreeMap<String, Compiled> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let (vectors, world) = (vectors(&folder), World::default());
    let mut rules = BTreeMap::new();
    for vector in &vectors {
        rules.entry(vector.provider.clone()).or_insert_with(|| vector.compiled(&world));
    }
    rules
}

pub(super) fn vectors(folder: &Path) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                vectors
                    .push(serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
            }
        }
    }
    vectors
}

#[test]
fn every_vector_gets_its_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let (vectors, world) = (vectors(&folder), World::default());
    // The 683 of the reference among them: `tests/it/providers.rs` says which.
    assert!(vectors.len() >= 2420, "{} vectors", vectors.len());
    let failures: Vec<String> = vectors
        .iter()
        .filter_map(|v| v.failure(&world).map(|failure| format!("{} / {}: {failure}", v.provider, v.name)))
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), vectors.len(), failures.join("\n"));
}

#[test]
fn the_requests_of_rfc_9421_are_explained() {
    let world = World::default();
    let (mut seen, mut wrong) = (0, Vec::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    for vector in vectors(&folder).iter().filter(|vector| vector.provider == "http-signature") {
        let rule = vector.compiled(&world).verifier;
        let now = Timestamp::from_secs(vector.now);
        let explanation = rule.explain(&vector.request.request(), vector.public_url(), now, &[]);
        let steps = explanation.ways.iter().flat_map(|way| &way.steps);
        let told: String = steps.map(|step| format!("{}: {}\n", step.what, step.text)).collect();
        let codes: Vec<_> = explanation.likely().map(|likely| likely.code).collect();
        let expected: &[&str] = match vector.name.as_str() {
            "B.2.2 with another body" | "tampered body" => &["body"],
            "one of two digests wrong" => &["digest_form"],
            "B.2.2 with another parameter" | "B.2.3 with another date" | "wrong key" => &["unknown"],
            "another method" | "another URL" => &["unknown"],
            "public key as a shared secret" => &["algorithm"],
            "B.2.2 lacks a component that is asked for" | "digest not signed" => &["not_covered"],
            "B.2.1 signs nothing" | "B.2.6 does not sign the body" => &["not_covered"],
            "B.2.2 without the asked-for tag" => &["tag"],
            "B.2.2 with another label than asked for" => &["label"],
            "B.2.3 with another key id pinned" => &["key_id"],
            "key of another id" => &["other_key"],
            "B.2.3 too old" | "B.2.3 from the future" | "too old" | "from the future" | "expired" => {
                &["clock"]
            }
            "B.2.3 with another algorithm pinned" => &["algorithm"],
            "algorithm that the message names is not the key's" => &["algorithm"],
            "missing signature" | "missing input" => &["header_missing"],
            "digest of an unknown kind only" => &["hash"],
            "label there twice" | "malformed input" => &["malformed"],
            // Taken out of one that was signed with it.
            "no created" => &["unknown", "created_missing"],
            "component with parameters that are not supported" => &["not_covered", "component_unsupported"],
            other => {
                assert!(vector.expect == "accept", "{other} is not in the table: {codes:?}\n{told}");
                assert!(told.contains(" matches"), "{other}\n{told}");
                &[]
            }
        };
        if codes != expected {
            wrong.push(format!("{}: {codes:?}, not {expected:?}\n{told}", vector.name));
        }
        seen += 1;
    }
    assert!(wrong.is_empty() && seen >= 41, "{seen}\n{}", wrong.join("\n"));
}

/// What the vectors of a pack must show, by words of their `reason`s.
#[test]
fn every_pack_has_vectors_of_each_kind() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let vectors = vectors(&folder);
    let mut missing = Vec::new();
    for name in crate::providers::names() {
        let pack = crate::providers::find(name).unwrap();
        let of_pack = || vectors.iter().filter(|vector| vector.provider == name);
        let rejects = |word: &str| {
            of_pack().any(|v| {
                v.expect == "reject" && v.reason.as_ref().is_some_and(|reason| reason.contains(word))
            })
        };
        let timed = pack.verify.iter().any(|way| way.inline.timestamp.is_some());
        for (kind, there) in [
            ("an accepted one", of_pack().any(|vector| vector.expect == "accept")),
            ("a wrong signature, key or token", rejects("signature") || rejects("token") || rejects("key")),
            ("a missing one", rejects("missing")),
            ("a time out of bounds", !timed || rejects("timestamp")),
        ] {
            if !there {
                missing.push(format!("{name}: {kind}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
