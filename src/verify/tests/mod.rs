//! Tests of rules as a whole, from what a user writes to the decision.

mod borders;
mod edges;
mod flips;
mod round_trip;
mod rules;
mod vectors;
mod wycheproof;

use super::testing::World;
use super::{Compiled, SpecProblem, VerifySpec, compile};
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
    let problems = compile(&spec(yaml), &World::default()).err().unwrap_or_default();
    for problem in &problems {
        assert!(problem.help.is_some(), "without help: {problem:?}");
    }
    problems
}

/// The reason of the refusal, `None` if the request is accepted.
fn refused(rule: &Compiled, request: &Request) -> Option<Reason> {
    rule.verifier.verify(request.clone(), None, NOW).err().map(|(_, refusal)| refusal.reason)
}
