//! Tests of rules as a whole, from what a user writes to the decision.

mod edges;
mod round_trip;
mod rules;
mod vectors;

use super::testing::World;
use super::{Compiled, SpecProblem, VerifySpec, compile, spec as written};
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;

/// 2025-11-24T16:00:00Z, the time of most vectors.
const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

fn spec(yaml: &str) -> VerifySpec {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

fn compiled(yaml: &str) -> Compiled {
    compile(&spec(yaml), &World::default()).unwrap_or_else(|problems| panic!("{yaml}: {problems:?}"))
}

fn problems(yaml: &str) -> Vec<SpecProblem> {
    compile(&spec(yaml), &World::default()).err().unwrap_or_default()
}

/// The reason of the refusal, `None` if the request is accepted.
fn refused(rule: &Compiled, request: &Request) -> Option<Reason> {
    rule.verifier.verify(request.clone(), None, NOW).err().map(|(_, refusal)| refusal.reason)
}

/// The rule of a built-in pack as a user writes it who has only a shared secret; `None` if the pack wants a key of its
/// own kind.
fn pack_rule(name: &str, secret: &str) -> Option<Compiled> {
    let pack = crate::providers::find(name).unwrap_or_else(|error| panic!("{error}"));
    let mut rule = written::Rule { provider: Some(name.to_owned()), ..written::Rule::default() };
    for (name, _) in pack.params.iter().filter(|(_, param)| param.required) {
        rule.params.insert(name.clone(), written::Param(written::Texts(vec![secret.to_owned()])));
    }
    let with_secret = written::Rule { secret: Some(written::SecretSpec::of(secret.to_owned())), ..rule.clone() };
    [with_secret, rule]
        .into_iter()
        .find_map(|rule| compile(&VerifySpec::Rule(Box::new(rule)), &World::default()).ok())
}
