//! Holds the written tree against the config's schema: unknown keys, wrong types, missing keys and wrong words, all at
//! once, each with its place. What comes out is JSON with every value in the type that its key wants.
//!
//! The schema is generated from `raw`, so `raw` is the one definition of what may be written. Only the part of JSON
//! Schema that such types produce is understood.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::place::Place;
use super::problem::Report;
use super::source::Document;
use super::units::{SIZE_HELP, Size, TIME_HELP, Time, UNIT};
use super::yaml::{Entry, Kind, Node, Style};

/// The schema keyword of a mapping that lists keys (or of a list of words, words) of later versions.
pub(super) const LATER: &str = "x-later";

/// Reports all that is wrong with the document's shape. The value holds what is whole: sections and items of top-level
/// lists with a fault in them are left out (items as null, so that the others keep their places).
pub(super) fn check(report: &mut Report<'_>, schema: &Value) -> Option<Value> {
    let document: &Document = report.document;
    let mut walk = Walk { schema, found: Vec::new() };
    let value = walk.value(&document.root, schema, &Place::root());
    for Found { place, message, help } in walk.found {
        report.error(&place, message, help);
    }
    value
}

struct Walk<'s> {
    schema: &'s Value,
    found: Vec<Found>,
}

struct Found {
    place: Place,
    message: String,
    help: String,
}

/// A mapping's keys, gathered from all parts of its schema.
#[derive(Default)]
struct Keys<'s> {
    properties: BTreeMap<&'s str, &'s Value>,
    required: Vec<&'s str>,
    later: Vec<&'s str>,
    /// What any other key's value must be; `None` if there is no rule.
    additional: Option<&'s Value>,
}

impl<'s> Walk<'s> {
    fn value(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let schema = self.resolved(schema);
        if let Some(branches) = self.branches(schema) {
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
        let keys = self.keys(schema);
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            // A section whose keys are all commented out.
            _ if node.is_null() && keys.required.is_empty() => &[],
            _ => return self.wrong(node, schema, place),
        };
        let mut map = Map::new();
        let before = self.found.len();
        for entry in entries {
            if entry.key.starts_with("x-") && schema.get("patternProperties").is_some() {
                continue;
            }
            let place = place.key(&entry.key);
            match keys.properties.get(entry.key.as_str()).copied().or(keys.additional) {
                Some(Value::Bool(false)) => self.unknown(entry, &keys, place),
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
            if !entries.iter().any(|e| e.key == *key) {
                let help = keys.properties.get(key).map(|s| self.describe(s)).unwrap_or_default();
                self.found(
                    place.key(key),
                    format!("the key `{key}` is missing"),
                    format!("add `{key}:` with {help}"),
                );
            }
        }
        (self.found.len() == before || lenient(place)).then_some(Value::Object(map))
    }

    fn unknown(&mut self, entry: &Entry, keys: &Keys<'s>, place: Place) {
        let key = entry.key.as_str();
        if keys.later.contains(&key) {
            let message = format!("`{key}` is not supported yet");
            return self.found(
                place,
                message,
                "this version knows the word, but can't do it; remove the key",
            );
        }
        let help = match nearest(key, keys.properties.keys().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", list(keys.properties.keys().copied())),
        };
        self.found(place, format!("unknown key `{key}`"), help);
    }

    fn list(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let Kind::List(items) = &node.kind else { return self.wrong(node, schema, place) };
        let before = self.found.len();
        let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.found(place.clone(), "the list is empty", format!("write {}", self.describe(schema)));
        }
        let values: Vec<Value> = match schema.get("items") {
            Some(schema) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.value(item, schema, &place.index(i)).unwrap_or(Value::Null))
                .collect(),
            None => items.iter().map(free).collect(),
        };
        (self.found.len() == before || lenient(place)).then_some(Value::Array(values))
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
            _ => ("a duration", TIME_HELP),
        };
        if let Kind::Scalar { text, .. } = &node.kind
            && !node.is_null()
        {
            let read = match unit {
                "size" => Size::parse(text).is_some(),
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
        let fitting: Vec<&'s Value> = branches.iter().copied().filter(|b| self.may_be(node, b)).collect();
        if fitting.is_empty() {
            return self.wrong(node, schema, place);
        }
        if let Some(words) = self.all_words(&fitting) {
            let known = |w: &&Value| matches!(&node.kind, Kind::Scalar { text, .. } if spelled(w) == *text);
            return if branches.len() == fitting.len() || words.iter().any(known) {
                self.word(node, schema, &words, place)
            } else {
                self.wrong(node, schema, place)
            };
        }
        let mut best: Option<(usize, usize, Vec<Found>, Option<Value>)> = None;
        for branch in fitting {
            let kept = std::mem::take(&mut self.found);
            let value = self.value(node, branch, place);
            let found = std::mem::replace(&mut self.found, kept);
            if found.is_empty() {
                return value;
            }
            let strange = self.strange_keys(node, branch);
            if best.as_ref().is_none_or(|(s, f, ..)| (strange, found.len()) < (*s, *f)) {
                best = Some((strange, found.len(), found, value));
            }
        }
        if let Some((_, _, found, value)) = best {
            self.found.extend(found);
            return value;
        }
        None
    }

    /// How many keys of a mapping an alternative does not know: the one that knows the most is the one meant.
    fn strange_keys(&self, node: &Node, schema: &'s Value) -> usize {
        let Kind::Map(entries) = &node.kind else { return 0 };
        let keys = self.keys(self.resolved(schema));
        entries.iter().filter(|e| !keys.properties.contains_key(e.key.as_str())).count()
    }

    /// Whether a value of the node's kind may stand where the schema is.
    fn may_be(&self, node: &Node, schema: &'s Value) -> bool {
        let schema = self.resolved(schema);
        if let Some(branches) = self.branches(schema) {
            return branches.iter().any(|b| self.may_be(node, b));
        }
        let scalar = words(schema).is_some() || schema.get(UNIT).is_some();
        match (&node.kind, kind_of(schema)) {
            (Kind::Scalar { .. }, _) if scalar => true,
            (_, None) => !scalar,
            (Kind::Map(_), Some(kind)) => kind == "object" && !scalar,
            (Kind::List(_), Some(kind)) => kind == "array",
            (Kind::Scalar { .. }, Some(kind)) => match kind {
                "object" => node.is_null(),
                "array" => false,
                "integer" => plain(node).is_some_and(|t| t.parse::<i128>().is_ok()),
                "number" => plain(node).is_some_and(|t| t.parse::<f64>().is_ok()),
                "boolean" => matches!(plain(node), Some("true" | "false")),
                _ => !node.is_null(),
            },
        }
    }

    fn all_words(&self, branches: &[&'s Value]) -> Option<Vec<&'s Value>> {
        let lists: Option<Vec<_>> = branches.iter().map(|b| words(self.resolved(b))).collect();
        Some(lists?.concat())
    }

    /// Follows references, and a lone `allOf`.
    fn resolved(&self, mut schema: &'s Value) -> &'s Value {
        for _ in 0..16 {
            let reference = schema.get("$ref").and_then(Value::as_str);
            let lone = schema.get("allOf").and_then(Value::as_array).filter(|parts| parts.len() == 1);
            if let Some(target) = reference.and_then(|r| self.schema.pointer(r.trim_start_matches('#'))) {
                schema = target;
            } else if let Some([part]) = lone.map(Vec::as_slice)
                && schema.get("properties").is_none()
            {
                schema = part;
            } else {
                break;
            }
        }
        schema
    }

    /// Alternatives, if that is all that the schema is.
    fn branches(&self, schema: &'s Value) -> Option<Vec<&'s Value>> {
        if schema.get("properties").is_some() {
            return None;
        }
        let parts = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
        let mut all = Vec::new();
        for part in parts {
            let part = self.resolved(part);
            match self.branches(part) {
                Some(inner) => all.extend(inner),
                None => all.push(part),
            }
        }
        Some(all)
    }

    fn keys(&self, schema: &'s Value) -> Keys<'s> {
        let mut keys = Keys::default();
        self.gather(schema, &mut keys, 0);
        keys
    }

    fn gather(&self, schema: &'s Value, keys: &mut Keys<'s>, depth: usize) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            keys.properties.extend(properties.iter().map(|(k, v)| (k.as_str(), v)));
        }
        let texts =
            |key| schema.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        keys.later.extend(texts(LATER));
        if depth == 0 {
            keys.required.extend(texts("required"));
        }
        for word in ["additionalProperties", "unevaluatedProperties"] {
            keys.additional = keys.additional.or(schema.get(word));
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(word).and_then(Value::as_array).into_iter().flatten().filter(|_| depth < 8)
            {
                self.gather(self.resolved(part), keys, depth + 1);
            }
        }
    }

    fn wrong(&mut self, node: &Node, schema: &'s Value, place: &Place) -> Option<Value> {
        let wanted = self.describe(schema);
        let help = match (&node.kind, kind_of(self.resolved(schema))) {
            _ if node.is_null() => "give the key a value, or remove it".to_owned(),
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
            _ => format!("write {wanted}"),
        };
        self.found(place.clone(), format!("expected {wanted}, found {}", found(node, place)), help);
        None
    }

    fn found(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Found { place, message: message.into(), help: help.into() });
    }

    /// A schema in words: `a duration such as …`, `a list`, "`a` or `b`".
    fn describe(&self, schema: &'s Value) -> String {
        let schema = self.resolved(schema);
        if let Some(branches) = self.branches(schema) {
            if let Some(words) = self.all_words(&branches) {
                return choice(words.iter().map(|w| spelled(w)));
            }
            let mut parts: Vec<String> = Vec::new();
            for part in branches.iter().map(|b| self.describe(b)) {
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
            return parts.join(" or ");
        }
        if let Some(words) = words(schema) {
            return choice(words.iter().map(|w| spelled(w)));
        }
        match (schema.get(UNIT).and_then(Value::as_str), kind_of(schema)) {
            (Some("size"), _) => "a size such as `10MiB`".into(),
            (Some(_), _) => "a duration such as `30s`".into(),
            (None, Some("object")) => {
                let keys = self.keys(schema);
                let some: Vec<_> = keys.properties.keys().copied().take(3).collect();
                if some.is_empty() {
                    "a mapping".into()
                } else {
                    format!("a mapping (keys such as {})", list(some))
                }
            }
            (None, Some("array")) => match schema.get("items").map(|s| self.describe(s)) {
                Some(item) if item.starts_with("a mapping") => "a list of mappings".into(),
                Some(item) if item == "text" => "a list of texts".into(),
                _ => "a list".into(),
            },
            (None, Some("string")) => "text".into(),
            (None, Some("integer")) => "a whole number".into(),
            (None, Some("number")) => "a number".into(),
            (None, Some("boolean")) => "`true` or `false`".into(),
            _ => "a value".into(),
        }
    }
}

/// The root, and lists in it, go on without the parts that are broken: the others are checked further.
fn lenient(place: &Place) -> bool {
    place.steps().len() <= 1
}

fn kind_of(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => Some(kind),
        // Only ever with a unit; else the first.
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        _ if schema.get("properties").is_some() => Some("object"),
        _ => None,
    }
}

fn words(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(words)), _) => Some(words.iter().collect()),
        (_, Some(word)) => Some(vec![word]),
        _ => None,
    }
}

fn spelled(word: &Value) -> String {
    word.as_str().map_or_else(|| word.to_string(), str::to_owned)
}

fn plain(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, style: Style::Plain } => Some(text),
        _ => None,
    }
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

/// The known word that a slip of the pen most likely meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|k| (strsim::osa_distance(&lower, &k.to_ascii_lowercase()), k))
        .filter(|(distance, k)| *distance * 3 <= k.len().max(lower.len()) || *distance <= 1)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

/// "`a`, `b` or `c`".
fn choice(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".into(),
    }
}
