//! Which events a destination wants: the conditions under `when`. Pure.
//!
//! As written, a condition is a mapping of places (`header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`,
//! `body:/json/pointer`, and `event_type`) to what must stand there; all of them must hold. `all` and `any` hold lists of
//! conditions, `not` holds one. What must stand there is a text or number (equal to it), a list (one of them), or a mapping
//! of `equals`, `one_of`, `prefix`, `regex`, `exists`, `gt`, `gte`, `lt` and `lte`, all of which must hold.
//!
//! As everywhere, what stands twice or is empty is not there, and of JSON only texts, numbers and booleans are there. Of
//! what is not there only `exists: false` holds. Regexes are matched in linear time. `compile` says everything that is
//! wrong at once, and where; tests of one value that no value can pass are wrong, too, as far as that is easily told (`never`).

mod compile;
mod never;
#[cfg(test)]
mod tests;

use regex::Regex;

use crate::message::Request;
use crate::verify::Extract;

pub use compile::{At, Problem};

/// A compiled condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Condition);

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// All tests hold for the one value.
    Here(Source, Vec<Test>),
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    EventType,
    At(Extract),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    OneOf(Vec<Word>),
    Prefix(String),
    Matches(Pattern),
    Exists(bool),
    Compared(Relation, f64),
}

/// A value to be equal to.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    Text(String),
    /// Written as a number: `1.0` is equal to `1`.
    Number(String, f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    More,
    AtLeast,
    Less,
    AtMost,
}

/// Equal if written the same.
#[derive(Clone, Debug)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Filter {
    /// Compiles what stands under `when`. The error is everything that is wrong.
    pub fn compile(written: &serde_json::Value) -> Result<Self, Vec<Problem>> {
        compile::compile(written).map(Self)
    }

    /// Whether the destination wants this event. `event_type` is the route's.
    pub fn wants(&self, request: &Request, event_type: Option<&str>) -> bool {
        self.0.holds(request, event_type)
    }
}

impl Condition {
    /// As deep as `compile` lets conditions be.
    fn holds(&self, request: &Request, event_type: Option<&str>) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|one| one.holds(request, event_type)),
            Condition::Any(any) => any.iter().any(|one| one.holds(request, event_type)),
            Condition::Not(one) => !one.holds(request, event_type),
            Condition::Here(Source::EventType, tests) => tests.iter().all(|test| test.holds(event_type)),
            Condition::Here(Source::At(place), tests) => {
                let found = place.from(request);
                tests.iter().all(|test| test.holds(found.as_deref()))
            }
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&str>) -> bool {
        let Some(found) = found else { return *self == Test::Exists(false) };
        match self {
            Test::OneOf(words) => words.iter().any(|word| word.is(found)),
            Test::Prefix(prefix) => found.starts_with(prefix.as_str()),
            Test::Matches(pattern) => pattern.0.is_match(found),
            Test::Exists(exists) => *exists,
            Test::Compared(relation, than) => number(found).is_some_and(|found| match relation {
                Relation::More => found > *than,
                Relation::AtLeast => found >= *than,
                Relation::Less => found < *than,
                Relation::AtMost => found <= *than,
            }),
        }
    }
}

impl Word {
    fn is(&self, found: &str) -> bool {
        match self {
            Word::Text(text) => found == text,
            Word::Number(text, number_) => found == text || number(found) == Some(*number_),
        }
    }
}

/// A decimal number, as JSON writes it; none of the other things that Rust reads as one (`inf`, `nan`).
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse::<f64>().ok().filter(|number| plain && number.is_finite())
}
