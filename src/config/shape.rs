//! Holds the written tree against the config's schema: unknown keys, wrong types, missing keys and wrong words, all at
//! once, each with its place. What comes out is JSON with every value in the type that its key wants.
//!
//! The schema is generated from `raw`, so `raw` is the one definition of what may be written. Only the part of JSON
//! Schema that such types produce is understood.

mod view;

use serde_json::{Map, Number, Value};

use super::percent::{PERCENT_HELP, Percent};
use super::place::Place;
use super::problem::Report;
use super::source::Document;
use super::units::{RATE_HELP, Rate, SHARE_HELP, SIZE_HELP, Share, Size, TIME_HELP, Time, UNIT};
use super::yaml::{Entry, Kind, Node, Style};
use view::{Keys, View, choice, kind_of, list, nearest, plain, spelled, words};

/// The schema keyword of a mapping that lists keys (or of a list of words, words) of later versions.
pub(super) const LATER: &str = "x-later";

/// The schema keyword of a mapping that takes keys of any name, but only beside this one.
pub(super) const OTHERS_BESIDE: &str = "x-others-beside";

/// Of keys that may not be there.
static CLOSED: Value = Value::Bool(false);

/// What the document says, as far as it has the right shape.
#[derive(Debug, Default)]
pub(super) struct Shaped {
    /// What is whole: sections and items of top-level lists with a fault in them are left out (items as null, so that
    /// the others keep their places).
    pub whole: Value,
    /// The same with those parts, less the values that are wrong; a misspelt key counts as the one that was likely
    /// meant. Good only for finding what else is wrong.
    pub rest: Value,
}

/// Reports all that is wrong with the document's shape.
pub(super) fn check(report: &mut Report<'_>, schema: &Value) -> Shaped {
    let document: &Document = report.document;
    let mut walk = Walk { view: View(schema), found: Vec::new(), broken: 0, keep: Keep::Whole };
    let whole = walk.value(&document.root, schema, &Place::root()).unwrap_or_default();
    let found = std::mem::take(&mut walk.found);
    let rest = if walk.broken == 0 {
        Value::Null
    } else {
        walk.keep = Keep::Parts;
        walk.value(&document.root, schema, &Place::root()).unwrap_or_default()
    };
    for Found { place, point, message, help } in found {
        match point {
            Point::Key => report.error_at_key(&place, message, help),
            Point::Value => report.error(&place, message, help),
        }
    }
    Shaped { whole, rest }
}

struct Walk<'s> {
    view: View<'s>,
    found: Vec<Found>,
    /// How many of them leave a hole. (A key that means nothing here does not: it is left out and reading goes on.)
    broken: usize,
    keep: Keep,
}

/// What becomes of a mapping with something wrong in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Nothing: only whole ones are kept.
    Whole,
    /// Its other parts.
    Parts,
}

/// What a caret points at.
#[derive(Clone, Copy)]
enum Point {
    Key,
    Value,
}

struct Found {
    place: Place,
    point: Point,
    message: String,
    help: String,
}

impl<'s> Walk<'s> {
    fn value(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let schema = self.view.resolved(schema);
        if let Some(branches) = self.view.branches(schema) {
            return self.one_of(node, schema, &branches, place);
        }
        if let Some(words) = words(schema) {
            return self.word(node, schema, &words, place);
        }
        if let Some(unit) = schema.get(UNIT).and_then(Value::as_str) {
            return self.unit(node, unit, place);
        }
        match kind_of(schema) {
            Some("object") => self.mapping(node, schema, place),
            Some("array") => self.list(node, schema, place),
            Some("string") => self.text(node, schema, place),
            Some("integer") => self.integer(node, schema, place),
            Some("number") => self.number(node, schema, place),
            Some("boolean") => self.truth(node, schema, place),
            _ => Some(free(node)),
        }
    }

    fn mapping(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let keys = self.view.keys(schema);
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            // A section whose keys are all commented out.
            _ if node.is_null() && keys.required.is_empty() => &[],
            _ => return self.wrong(node, schema, place),
        };
        let mut map = Map::new();
        let mut meant = Vec::new();
        let before = self.broken;
        for entry in entries {
            if entry.key.starts_with("x-") && schema.get("patternProperties").is_some() {
                continue;
            }
            let place = place.key(&entry.key);
            // What is neither a text nor a list is none of the values that keys of any name have.
            let is_closed = match schema.get(OTHERS_BESIDE).and_then(Value::as_str) {
                Some(key) => {
                    matches!(entry.value.kind, Kind::Map(_)) || !entries.iter().any(|e| e.key == key)
                }
                None => false,
            };
            let additional = if is_closed { Some(&CLOSED) } else { keys.additional };
            match keys.properties.get(entry.key.as_str()).copied().or(additional) {
                Some(Value::Bool(false)) => {
                    let Some(likely) = self.unknown(entry, &keys, &place) else { continue };
                    let schema = keys.properties.get(likely).copied();
                    if let Some(schema) = schema.filter(|_| !entries.iter().any(|e| e.key == likely)) {
                        meant.push(likely);
                        let value = self.value(&entry.value, schema, &place);
                        map.extend(value.map(|value| (likely.to_owned(), value)));
                    }
                }
                None => {
                    map.insert(entry.key.clone(), free(&entry.value));
                }
                Some(schema) => {
                    if let Some(value) = self.value(&entry.value, schema, &place) {
                        map.insert(entry.key.clone(), value);
                    }
                }
            }
        }
        for key in &keys.required {
            if !meant.contains(key) && !entries.iter().any(|e| e.key == *key) {
                let help = match *key {
                    // Such a text is never written down itself.
                    "secret" | "client_secret" | "password" => {
                        format!(
                            "add `{key}: env:NAME`, an environment variable, or `{key}: file:PATH`, a file"
                        )
                    }
                    _ => {
                        let what =
                            keys.properties.get(key).map(|s| self.view.describe(s)).unwrap_or_default();
                        format!("add `{key}:` with {what}")
                    }
                };
                self.found(place.key(key), format!("the key `{key}` is missing"), help);
            }
        }
        let kept = self.broken == before || self.keep == Keep::Parts || lenient(place);
        kept.then_some(Value::Object(map))
    }

    /// Reports an unknown key, and gives the one that was likely meant.
    fn unknown(&mut self, entry: &Entry, keys: &Keys<'s>, place: &Place) -> Option<&'s str> {
        let near = nearest(&entry.key, keys.properties.keys().copied());
        let key = entry.key.as_str();
        let (message, help) = if keys.later.contains(&key) {
            let help = "this version knows the word, but can't do it; remove the key";
            (format!("`{key}` is not supported yet"), help.to_owned())
        } else {
            let help = if let Some(near) = near {
                // What was meant is missing now, so what follows from it would only confuse.
                self.broken += 1;
                format!("did you mean `{near}`?")
            } else if let Some((parent, near)) = self.view.nearest_below(key, keys) {
                format!("did you mean `{near}` under `{parent}`?")
            } else {
                format!("known here: {}", list(keys.properties.keys().copied()))
            };
            (format!("unknown key `{key}`"), help)
        };
        self.found.push(Found { place: place.clone(), point: Point::Key, message, help });
        near.filter(|_| !keys.later.contains(&key))
    }

    fn list(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let Kind::List(items) = &node.kind else { return self.wrong(node, schema, place) };
        let before = self.broken;
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.found(place.clone(), "the list is empty", format!("write {}", self.view.describe(schema)));
        }
        let values: Vec<Value> = match schema.get("items") {
            Some(schema) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.value(item, schema, &place.index(i)).unwrap_or(Value::Null))
                .collect(),
            None => items.iter().map(free).collect(),
        };
        (self.broken == before || lenient(place)).then_some(Value::Array(values))
    }

    fn text(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        match &node.kind {
            Kind::Scalar { text, .. } if !node.is_null() => Some(Value::String(text.clone())),
            _ => self.wrong(node, schema, place),
        }
    }

    fn unit(&mut self, node: &Node, unit: &str, place: &Place) -> Option<Value> {
        let (what, help) = match unit {
            "size" => ("a size", SIZE_HELP),
            "share" => ("a share", SHARE_HELP),
            "percent" => ("a share in percent", PERCENT_HELP),
            "rate" => ("a rate", RATE_HELP),
            _ => ("a duration", TIME_HELP),
        };
        if let Kind::Scalar { text, .. } = &node.kind
            && !node.is_null()
        {
            let read = match unit {
                "size" => Size::parse(text).is_some(),
                "share" => Share::parse(text).is_some(),
                "percent" => Percent::parse(text).is_some(),
                "rate" => Rate::parse(text).is_some(),
                _ => Time::parse(text).is_some(),
            };
            if read {
                return Some(Value::String(text.clone()));
            }
            let help = match unit {
                "duration" if text.bytes().all(|b| b.is_ascii_digit()) => {
                    format!("it needs a unit: `{text}s`, `{text}ms`, `{text}m`, …")
                }
                _ => help.to_owned(),
            };
            self.found(place.clone(), format!("{} is not {what}", quoted(node, place)), help);
            return None;
        }
        self.found(place.clone(), format!("expected {what}, found {}", found(node, place)), help);
        None
    }

    fn integer(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let number = match plain(node) {
            Some(text) => {
                text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from))
            }
            None => return self.wrong(node, schema, place),
        };
        match number {
            Ok(number) => self.bounded(number, schema, place),
            Err(_) => self.wrong(node, schema, place),
        }
    }

    fn number(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let number = plain(node).and_then(|text| text.parse::<f64>().ok()).and_then(Number::from_f64);
        match number {
            Some(number) => self.bounded(number, schema, place),
            None => self.wrong(node, schema, place),
        }
    }

    fn bounded(&mut self, number: Number, schema: &'s Value, place: &Place) -> Option<Value> {
        let bound = |key| schema.get(key).and_then(Value::as_f64);
        let value = number.as_f64().unwrap_or(f64::NAN);
        let (least, most) = (bound("minimum"), bound("maximum"));
        if least.is_some_and(|l| value < l) || most.is_some_and(|m| value > m) {
            let help = match (least, most) {
                (Some(least), Some(most)) => format!("write a number from {least} to {most}"),
                (Some(least), None) => format!("write {least} or more"),
                (None, most) => format!("write {} or less", most.unwrap_or_default()),
            };
            self.found(place.clone(), format!("{number} is out of range"), help);
            return None;
        }
        Some(Value::Number(number))
    }

    fn truth(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        match plain(node) {
            Some("true") => Some(Value::Bool(true)),
            Some("false") => Some(Value::Bool(false)),
            _ => self.wrong(node, schema, place),
        }
    }

    fn word(&mut self, node: &Node, schema: &'s Value, words: &[&'s Value], place: &Place) -> Option<Value> {
        let Kind::Scalar { text, .. } = &node.kind else { return self.wrong(node, schema, place) };
        if let Some(word) = words.iter().find(|w| spelled(w) == *text) {
            return Some((*word).clone());
        }
        let later = schema.get(LATER).and_then(Value::as_array);
        if later.is_some_and(|l| l.iter().any(|w| w == text)) {
            let help = format!("this version can do {}", choice(words.iter().map(|w| spelled(w))));
            self.found(place.clone(), format!("`{text}` is not supported yet"), help);
            return None;
        }
        let known: Vec<String> = words.iter().map(|w| spelled(w)).collect();
        let help = match nearest(text, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`? ({} are possible)", choice(known.iter().cloned())),
            None => format!("write {}", choice(known.iter().cloned())),
        };
        self.found(place.clone(), format!("{} is not possible here", quoted(node, place)), help);
        None
    }

    /// Takes the alternative that fits, or reports what is wrong with the one that seems meant.
    fn one_of(
        &mut self,
        node: &Node,
        schema: &'s Value,
        branches: &[&'s Value],
        place: &Place,
    ) -> Option<Value> {
        let fitting: Vec<&'s Value> =
            branches.iter().copied().filter(|b| self.view.may_be(node, b)).collect();
        if fitting.is_empty() {
            return self.wrong(node, schema, place);
        }
        if let Some(words) = self.view.all_words(&fitting) {
            let known = |w: &&Value| matches!(&node.kind, Kind::Scalar { text, .. } if spelled(w) == *text);
            return if branches.len() == fitting.len() || words.iter().any(known) {
                self.word(node, schema, &words, place)
            } else {
                self.wrong(node, schema, place)
            };
        }
        let mut best: Option<(usize, usize, Vec<Found>, Option<Value>)> = None;
        let broken = self.broken;
        for branch in fitting {
            let kept = std::mem::take(&mut self.found);
            let value = self.value(node, branch, place);
            let found = std::mem::replace(&mut self.found, kept);
            self.broken = broken;
            if found.is_empty() {
                return value;
            }
            let strange = self.view.strange_keys(node, branch);
            if best.as_ref().is_none_or(|(s, f, ..)| (strange, found.len()) < (*s, *f)) {
                best = Some((strange, found.len(), found, value));
            }
        }
        let (_, _, found, value) = best?;
        self.found.extend(found);
        self.broken += usize::from(value.is_none());
        value
    }

    fn wrong(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let wanted = self.view.describe(schema);
        let help = match (&node.kind, kind_of(self.view.resolved(schema))) {
            _ if node.is_null() => "give the key a value, or remove it".to_owned(),
            (Kind::Map(_), Some("array")) => "begin each entry of the list with `- `".to_owned(),
            (Kind::Scalar { .. }, Some("array")) if wanted.ends_with("mappings") => {
                "write a list, each entry of which begins with `- ` and holds keys".to_owned()
            }
            (Kind::Scalar { text, .. }, Some("array")) if !place.is_secret() => format!("write `[{text}]`"),
            (Kind::Scalar { text, .. }, Some("boolean"))
                if matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "y") =>
            {
                "write `true`".to_owned()
            }
            (Kind::Scalar { text, .. }, Some("boolean"))
                if matches!(text.to_ascii_lowercase().as_str(), "no" | "off" | "n") =>
            {
                "write `false`".to_owned()
            }
            (Kind::Scalar { text, .. }, _) => {
                match nearest(text, self.view.words_of(schema).iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write {wanted}"),
                }
            }
            _ => format!("write {wanted}"),
        };
        self.found(place.clone(), format!("expected {wanted}, found {}", found(node, place)), help);
        None
    }

    fn found(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.broken += 1;
        self.found.push(Found { place, point: Point::Value, message: message.into(), help: help.into() });
    }
}

/// The root, and lists in it, go on without the parts that are broken: the others are checked further.
fn lenient(place: &Place) -> bool {
    place.steps().len() <= 1
}

/// A value where no rule says of which type it is: as YAML's core schema has it.
fn free(node: &Node) -> Value {
    match &node.kind {
        Kind::Map(entries) => entries.iter().map(|e| (e.key.clone(), free(&e.value))).collect(),
        Kind::List(items) => items.iter().map(free).collect(),
        Kind::Scalar { .. } if node.is_null() => Value::Null,
        Kind::Scalar { text, style: Style::Text } => Value::String(text.clone()),
        Kind::Scalar { text, style: Style::Plain } => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => text.parse::<i64>().map(Value::from).unwrap_or_else(|_| Value::String(text.clone())),
        },
    }
}

fn quoted(node: &Node, place: &Place) -> String {
    match &node.kind {
        Kind::Scalar { text, .. } if !place.is_secret() && text.chars().count() <= 60 => format!("`{text}`"),
        _ => "this".into(),
    }
}

fn found(node: &Node, place: &Place) -> String {
    match &node.kind {
        _ if node.is_null() => "nothing".into(),
        Kind::Scalar { .. } if place.is_secret() => "text".into(),
        Kind::Scalar { .. } => quoted(node, place),
        Kind::List(_) => "a list".into(),
        Kind::Map(_) => "a mapping".into(),
    }
}
