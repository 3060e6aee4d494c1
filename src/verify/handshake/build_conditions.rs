//! From written conditions to compiled ones: what tells a greeting from an event, and what it must prove.

use std::collections::BTreeMap;

use super::build::Given;
use super::condition::{Condition, Place, Secrets, Test};
use crate::verify::build::Problems;
use crate::verify::locate::Location;
use crate::verify::shape::Shape;
use crate::verify::spec::{ConditionSpec, TestSpec};

/// `None` with a problem, or where a parameter is not given.
pub(super) fn conditions(
    specs: &BTreeMap<String, ConditionSpec>,
    key: &str,
    given: &Given<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Condition>> {
    let mut all = Some(Vec::new());
    for (place, spec) in specs {
        let at = [key, place.as_str()];
        let found = match Place::parse(place) {
            Ok(place) => Some(place),
            Err(message) => problems.note(&at, message, crate::verify::PLACE_HELP),
        };
        let test = match spec {
            ConditionSpec::Is(texts) if texts.0.is_empty() => {
                problems.note(&at, "the list is empty", "name the values, or write `{ present: true }`")
            }
            ConditionSpec::Is(texts) => Some(Asked::Test(Test::Is(texts.0.clone()))),
            ConditionSpec::Test(spec) => test(spec, given, &at, problems),
        };
        match (found, test) {
            (Some(_), Some(Asked::Nothing)) => {}
            (Some(place), Some(Asked::Test(test))) => {
                if let Some(list) = &mut all {
                    list.push(Condition { place, test });
                }
            }
            _ => all = None,
        }
    }
    all
}

/// What a condition comes to.
enum Asked {
    Test(Test),
    /// It is optional, and its parameter is not given.
    Nothing,
}

fn test(spec: &TestSpec, given: &Given<'_>, at: &[&str; 2], problems: &mut Problems<'_>) -> Option<Asked> {
    let within = |key: &'static str| [at[0], at[1], key];
    if spec.optional && spec.param.is_none() {
        problems.note::<()>(
            &within("optional"),
            "`optional` goes with `param`",
            "remove it: what is asked otherwise is always asked",
        );
    }
    let test = match (spec.present, &spec.matches, &spec.param, &spec.secret) {
        (Some(true), None, None, None) => Test::Present,
        (Some(false), None, None, None) => Test::Absent,
        (None, Some(shape), None, None) => match Shape::parse(shape) {
            Ok(shape) => Test::Matches(shape),
            Err(message) => {
                return problems.note(&within("matches"), message, "such as `[a-f0-9]{20,32}`");
            }
        },
        (None, None, Some(param), None) => {
            match given.asked(param, spec.optional, &within("param"), problems) {
                Some(values) => Test::Secret(Secrets::of(values)),
                None if spec.optional => return Some(Asked::Nothing),
                None => return None,
            }
        }
        (None, None, None, Some(reference)) => {
            Test::Secret(Secrets::of([&given.secret(reference, &within("secret"), problems)?]))
        }
        _ => {
            let help = "such as `{ present: true }` or `{ matches: \"[a-f0-9]{20,32}\" }`";
            return problems.note(at, "a test is one of `present`, `matches`, `param` and `secret`", help);
        }
    };
    Some(Asked::Test(test))
}

pub(super) fn location(text: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Location> {
    match Location::parse(text) {
        Ok(location) => Some(location),
        Err(message) => problems.note(at, message, crate::verify::PLACE_HELP),
    }
}
