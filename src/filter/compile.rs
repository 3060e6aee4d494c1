//! From what is written under `when` to a condition.

use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::{Condition, Pattern, Relation, Source, Test, Word, never, number};
use crate::verify::{Extract, nearest};

/// Conditions within conditions.
const MAX_DEPTH: usize = 16;
/// Tests in one filter: each may walk the body.
const MAX_TESTS: usize = 200;
/// Memory of one compiled regex, in bytes.
const MAX_REGEX: usize = 1 << 20;

const EVENT_TYPE: &str = "event_type";
const OPERATORS: [&str; 9] = ["equals", "one_of", "prefix", "regex", "exists", "gt", "gte", "lt", "lte"];
const WORDS: [&str; 4] = ["all", "any", "not", EVENT_TYPE];

/// Something wrong in a filter. `at` leads to it from `when`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: Vec<At>,
    pub message: String,
    pub help: String,
}

/// One step into what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    Key(String),
    Index(usize),
}

pub(super) fn compile(written: &Value) -> Result<Condition, Vec<Problem>> {
    let mut compiler = Compiler::default();
    let condition = compiler.condition(written);
    if compiler.tests > MAX_TESTS {
        let message = format!("{} tests are more than {MAX_TESTS}", compiler.tests);
        compiler.problem::<()>(message, "let one place be `one_of` a list, or use a `regex`");
    }
    match condition {
        Some(condition) if compiler.problems.is_empty() => Ok(condition),
        _ => Err(compiler.problems),
    }
}

#[derive(Default)]
struct Compiler {
    at: Vec<At>,
    depth: usize,
    tests: usize,
    problems: Vec<Problem>,
}

impl Compiler {
    /// `None` only with a problem noted.
    fn problem<T>(&mut self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.problems.push(Problem { at: self.at.clone(), message: message.into(), help: help.into() });
        None
    }

    fn within<T>(&mut self, step: At, work: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(step);
        let done = work(self);
        self.at.pop();
        done
    }

    fn condition(&mut self, written: &Value) -> Option<Condition> {
        const HELP: &str = "write `{ event_type: invoice.paid }` or `{ \"body:/amount\": { gt: 100 } }`";
        let Value::Object(map) = written else { return self.problem("a condition is a mapping", HELP) };
        if map.is_empty() {
            return self.problem("the condition is empty", HELP);
        }
        if self.depth == MAX_DEPTH {
            return self.problem(format!("conditions are more than {MAX_DEPTH} deep"), "write it flatter");
        }
        self.depth += 1;
        let parts: Vec<Option<Condition>> = map
            .iter()
            .map(|(key, value)| self.within(At::Key(key.clone()), |compiler| compiler.part(key, value)))
            .collect();
        self.depth -= 1;
        let mut parts: Vec<Condition> = parts.into_iter().collect::<Option<_>>()?;
        if parts.len() == 1 { parts.pop() } else { Some(Condition::All(parts)) }
    }

    fn part(&mut self, key: &str, value: &Value) -> Option<Condition> {
        match key {
            "all" => self.list(value).map(Condition::All),
            "any" => self.list(value).map(Condition::Any),
            "not" => self.condition(value).map(|one| Condition::Not(Box::new(one))),
            EVENT_TYPE => self.tests(value).map(|tests| Condition::Here(Source::EventType, tests)),
            place => {
                // Both are looked at, whatever the first is like.
                let source = match Extract::parse(place) {
                    Ok(extract) => Some(Source::At(extract)),
                    Err(_) if !place.contains(':') => {
                        let help = match nearest(place, WORDS.into_iter()) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => "write `event_type`, a place such as `header:X-Event` or `body:/type`, or `all`, `any`, \
                                     `not`"
                                .into(),
                        };
                        self.problem(format!("`{place}` is no place"), help)
                    }
                    Err(message) => self.problem(
                        message,
                        "places are `header:NAME`, `query:NAME`, `path:NAME`, \
                                                           `form:FIELD` and `body:/json/pointer`",
                    ),
                };
                let tests = self.tests(value);
                Some(Condition::Here(source?, tests?))
            }
        }
    }

    fn list(&mut self, value: &Value) -> Option<Vec<Condition>> {
        let help = "write a list of conditions";
        match value {
            Value::Array(list) if !list.is_empty() => {
                let all: Vec<Option<Condition>> = list
                    .iter()
                    .enumerate()
                    .map(|(at, one)| self.within(At::Index(at), |compiler| compiler.condition(one)))
                    .collect();
                all.into_iter().collect()
            }
            Value::Array(_) => self.problem("the list is empty", help),
            _ => self.problem("this is not a list", help),
        }
    }

    fn tests(&mut self, value: &Value) -> Option<Vec<Test>> {
        match value {
            Value::Object(map) if map.is_empty() => {
                self.problem("nothing is asked of it", "write `exists: true`")
            }
            Value::Object(map) => self.operators(map),
            Value::Array(_) => Some(vec![Test::OneOf(self.words(value)?)]),
            _ => Some(vec![Test::OneOf(vec![self.word(value)?])]),
        }
    }

    fn operators(&mut self, map: &Map<String, Value>) -> Option<Vec<Test>> {
        let tests: Vec<Option<Test>> = map
            .iter()
            .map(|(key, value)| self.within(At::Key(key.clone()), |compiler| compiler.operator(key, value)))
            .collect();
        let tests: Vec<Test> = tests.into_iter().collect::<Option<_>>()?;
        match never::why(&tests) {
            Some((message, help)) => self.problem(message, help),
            None => Some(tests),
        }
    }

    fn operator(&mut self, name: &str, value: &Value) -> Option<Test> {
        self.tests += 1;
        match (name, value) {
            ("equals", _) => Some(Test::OneOf(vec![self.word(value)?])),
            ("one_of", _) => Some(Test::OneOf(self.words(value)?)),
            ("prefix", Value::String(text)) => Some(Test::Prefix(text.clone())),
            ("prefix", _) => self.problem("a prefix is text", "put it in quotes"),
            ("regex", Value::String(text)) => {
                match RegexBuilder::new(text).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build() {
                    Ok(regex) => Some(Test::Matches(Pattern(regex))),
                    Err(error) => {
                        // Its own texts draw over several lines.
                        let text = error.to_string();
                        let said = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                        let help = "look-around and back-references can't be matched in linear time, and are not known";
                        self.problem(format!("this is not a regex: {said}"), help)
                    }
                }
            }
            ("regex", _) => self.problem("a regex is text", "put it in quotes"),
            ("exists", Value::Bool(exists)) => Some(Test::Exists(*exists)),
            ("exists", _) => self.problem("it exists or does not", "write `true` or `false`"),
            ("gt", _) => self.compared(Relation::More, value),
            ("gte", _) => self.compared(Relation::AtLeast, value),
            ("lt", _) => self.compared(Relation::Less, value),
            ("lte", _) => self.compared(Relation::AtMost, value),
            (other, _) => {
                let help = match nearest(other, OPERATORS.into_iter()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known are `{}`", OPERATORS.join("`, `")),
                };
                self.problem(format!("`{other}` is no comparison"), help)
            }
        }
    }

    fn compared(&mut self, relation: Relation, value: &Value) -> Option<Test> {
        let than = match value {
            Value::Number(number_) => number(&number_.to_string()),
            // Numbers with a fraction come as text.
            Value::String(text) => number(text),
            _ => None,
        };
        match than {
            Some(than) => Some(Test::Compared(relation, than)),
            None => self.problem("this is not a number", "write a number such as `100` or `9.5`"),
        }
    }

    fn words(&mut self, value: &Value) -> Option<Vec<Word>> {
        match value {
            Value::Array(list) if !list.is_empty() => {
                let words: Vec<Option<Word>> = list
                    .iter()
                    .enumerate()
                    .map(|(at, one)| self.within(At::Index(at), |compiler| compiler.word(one)))
                    .collect();
                words.into_iter().collect()
            }
            _ => self.problem("this is not a list of texts", "write `[a, b]`"),
        }
    }

    fn word(&mut self, value: &Value) -> Option<Word> {
        self.tests += 1;
        match value {
            Value::String(text) if !text.is_empty() => Some(Word::Text(text.clone())),
            Value::String(_) => self.problem("nothing is equal to an empty text", "write `exists: false`"),
            Value::Bool(yes) => Some(Word::Text(yes.to_string())),
            Value::Number(written) => {
                let text = written.to_string();
                match number(&text) {
                    Some(number) => Some(Word::Number(text, number)),
                    None => self.problem("this number is out of range", "put it in quotes"),
                }
            }
            _ => self.problem("this is no text, number or boolean", "write the value that must stand there"),
        }
    }
}
