//! What a schema says: references followed, alternatives and keys gathered, and the whole in words.

use std::collections::BTreeMap;

use serde_json::Value;

use super::LATER;
use crate::config::units::UNIT;
use crate::config::yaml::{Kind, Node, Style};

/// A mapping's keys, gathered from all parts of its schema.
#[derive(Default)]
pub(super) struct Keys<'s> {
    pub properties: BTreeMap<&'s str, &'s Value>,
    pub required: Vec<&'s str>,
    pub later: Vec<&'s str>,
    /// What any other key's value must be; `None` if there is no rule.
    pub additional: Option<&'s Value>,
}

/// The whole schema, to find in it what references mean.
#[derive(Clone, Copy)]
pub(super) struct View<'s>(pub &'s Value);

impl<'s> View<'s> {
    /// Follows references, and a lone `allOf`.
    pub fn resolved(self, mut schema: &'s Value) -> &'s Value {
        for _ in 0..16 {
            let reference = schema.get("$ref").and_then(Value::as_str);
            let lone = schema.get("allOf").and_then(Value::as_array).filter(|parts| parts.len() == 1);
            if let Some(target) = reference.and_then(|r| self.0.pointer(r.trim_start_matches('#'))) {
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
    pub fn branches(self, schema: &'s Value) -> Option<Vec<&'s Value>> {
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

    pub fn keys(self, schema: &'s Value) -> Keys<'s> {
        let mut keys = Keys::default();
        self.gather(schema, &mut keys, 0);
        keys
    }

    fn gather(self, schema: &'s Value, keys: &mut Keys<'s>, depth: usize) {
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

    pub fn all_words(self, branches: &[&'s Value]) -> Option<Vec<&'s Value>> {
        let lists: Option<Vec<_>> = branches.iter().map(|b| words(self.resolved(b))).collect();
        Some(lists?.concat())
    }

    /// Words that are possible among others.
    pub fn words_of(self, schema: &'s Value) -> Vec<String> {
        let schema = self.resolved(schema);
        let parts = self.branches(schema).unwrap_or_else(|| vec![schema]);
        parts.into_iter().filter_map(words).flatten().map(spelled).collect()
    }

    /// A key of one of the sections here that was likely meant: `tolerance` stands under `verify`.
    pub fn nearest_below(self, key: &str, keys: &Keys<'s>) -> Option<(&'s str, &'s str)> {
        keys.properties.iter().find_map(|(parent, schema)| {
            let schema = self.resolved(schema);
            let parts = self.branches(schema).unwrap_or_else(|| vec![schema]);
            let near = parts.into_iter().find_map(|part| {
                let item = part.get("items").map_or(part, |item| self.resolved(item));
                nearest(key, self.keys(item).properties.keys().copied())
            });
            near.map(|near| (*parent, near))
        })
    }

    /// Whether a value of the node's kind may stand where the schema is.
    pub fn may_be(self, node: &Node, schema: &'s Value) -> bool {
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

    /// How many keys of a mapping an alternative does not know: the one that knows the most is the one meant.
    pub fn strange_keys(self, node: &Node, schema: &'s Value) -> usize {
        let Kind::Map(entries) = &node.kind else { return 0 };
        let keys = self.keys(self.resolved(schema));
        entries.iter().filter(|e| !keys.properties.contains_key(e.key.as_str())).count()
    }

    /// A schema in words: `a duration such as …`, `a list`, "`a` or `b`".
    pub fn describe(self, schema: &'s Value) -> String {
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
            (Some("share"), _) => "a share such as `50%`".into(),
            (Some("rate"), _) => "a rate such as `10/s`".into(),
            (Some(_), _) => "a duration such as `30s`".into(),
            (None, Some("object")) => {
                let keys = self.keys(schema);
                match keys.properties.len() {
                    1..=6 => format!("a mapping with {}", list(keys.properties.keys().copied())),
                    _ => "a mapping".into(),
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

pub(super) fn kind_of(schema: &Value) -> Option<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => Some(kind),
        // Only ever with a unit; else the first.
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        _ if schema.get("properties").is_some() => Some("object"),
        _ => None,
    }
}

pub(super) fn words(schema: &Value) -> Option<Vec<&Value>> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(words)), _) => Some(words.iter().collect()),
        (_, Some(word)) => Some(vec![word]),
        _ => None,
    }
}

pub(super) fn spelled(word: &Value) -> String {
    word.as_str().map_or_else(|| word.to_string(), str::to_owned)
}

pub(super) fn plain(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Scalar { text, style: Style::Plain } => Some(text),
        _ => None,
    }
}

/// The known word that a slip of the pen most likely meant.
pub(in crate::config) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    known
        .map(|k| (strsim::osa_distance(&lower, &k.to_ascii_lowercase()), k))
        .filter(|(distance, k)| {
            *distance * 3 <= k.len().max(lower.len())
                || strsim::jaro_winkler(&lower, &k.to_ascii_lowercase()) > 0.88
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

/// "`a`, `b` or `c`".
pub(super) fn choice(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".into(),
    }
}
