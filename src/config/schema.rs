//! The config's JSON Schema, generated from `raw`.

use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::raw::Root;
use super::shape::{LATER, OTHERS_BESIDE};
use super::units::UNIT;
use crate::providers::PackFile;

/// The schema that editors get: draft 7, which they all know, with a description of every key.
pub fn schema() -> Value {
    let mut schema = full().clone();
    strip(&mut schema);
    schema
}

/// With our own keywords, for the check of shape. Generated once.
pub(super) fn full() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(generated::<Root>)
}

/// The same of a pack file.
pub(super) fn of_pack() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(generated::<PackFile>)
}

fn generated<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    schema
}

/// An optional key is left out, not set to null: takes null out of types and alternatives, and tidies what is left.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Array(kinds)) = map.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [kind] = kinds.as_slice() {
                    let kind = kind.clone();
                    map.insert("type".into(), kind);
                }
            }
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if map.get("default").is_some_and(Value::is_null) {
                map.remove("default");
            }
            for word in ["anyOf", "oneOf"] {
                let Some(Value::Array(parts)) = map.get_mut(word) else { continue };
                parts.retain(|part| part.get("type").is_none_or(|kind| kind != "null"));
                if let [_] = parts.as_slice()
                    && let Some(part) = parts.pop()
                {
                    map.remove(word);
                    collapse(map, part);
                }
            }
            // In draft 7 nothing beside a reference counts.
            let siblings = map.len() > 1;
            if let (Some(reference), true) = (map.get("$ref").cloned(), siblings) {
                map.remove("$ref");
                let mut part = Map::new();
                part.insert("$ref".into(), reference);
                map.insert("allOf".into(), Value::Array(vec![Value::Object(part)]));
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// What is left of alternatives when only one is: it joins its surroundings, whose own words stay.
fn collapse(map: &mut Map<String, Value>, part: Value) {
    if let Value::Object(part) = part {
        for (key, value) in part {
            map.entry(key).or_insert(value);
        }
    }
}

fn strip(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove(LATER);
            map.remove(OTHERS_BESIDE);
            map.remove(UNIT);
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
