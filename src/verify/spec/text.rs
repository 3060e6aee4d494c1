//! Small values that may be written in more than one way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One text or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

/// A pack's parameter as a user gives it: a text, or a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Param(pub Texts);

/// A secret: a reference, or a reference with a label and the times between which it is live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSpec {
    pub secret: String,
    /// Names the secret in logs and metrics; never secret itself.
    pub label: Option<String>,
    /// RFC 3339; before it the secret verifies nothing.
    pub from: Option<String>,
    /// RFC 3339; from then on the secret verifies nothing.
    pub until: Option<String>,
}

impl SecretSpec {
    pub fn of(reference: String) -> Self {
        Self { secret: reference, ..Self::default() }
    }
}

/// Claims that must be there, with the values that are accepted; none means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(pub BTreeMap<String, Texts>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text (put numbers in quotes), or a list of texts")
            }
            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Texts, E> {
                Ok(Texts(vec![value.to_string()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only),
            many => many.serialize(serializer),
        }
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "One text or a list of texts.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Whatever stands there is taken, so that a mistyped key is reported as one (by `compile`) and not as a
        // value of the wrong type.
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Param;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_str<E>(self, text: &str) -> Result<Param, E> {
                Ok(Param(Texts(vec![text.to_owned()])))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Param, E> {
                Ok(Param(Texts(vec![value.to_string()])))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Param, E> {
                Ok(Param(Texts(vec![value.to_string()])))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Param, E> {
                Ok(Param(Texts(vec![value.to_string()])))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Param, E> {
                Ok(Param(Texts(vec![value.to_string()])))
            }
            fn visit_unit<E>(self) -> Result<Param, E> {
                Ok(Param::default())
            }
            fn visit_none<E>(self) -> Result<Param, E> {
                Ok(Param::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Param, A::Error> {
                let mut texts = Vec::new();
                while let Some(Param(Texts(inner))) = items.next_element::<Param>()? {
                    texts.extend(inner);
                }
                Ok(Param(Texts(texts)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Param, A::Error> {
                while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                Ok(Param::default())
            }
        }
        deserializer.deserialize_any(Anything)
    }
}

impl JsonSchema for Param {
    fn schema_name() -> Cow<'static, str> {
        "Param".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Texts::json_schema(generator)
    }
}

/// The long form of a secret.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Labelled {
    /// The reference: `env:NAME` or `file:PATH`, where `{parameter}`s of the route's path may stand in the file's name.
    secret: String,
    /// Names the secret in logs and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    /// When it begins to be live, such as `2026-12-01T00:00:00Z`. Default: it is already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// When it ends to be live, such as `2026-12-15T00:00:00Z`; before and after that it is warned of. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl<'de> Deserialize<'de> for SecretSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrMap;
        impl<'de> Visitor<'de> for TextOrMap {
            type Value = SecretSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a reference such as `env:NAME` or `file:PATH`, or `{ secret: env:NAME, label: NAME }`",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<SecretSpec, E> {
                Ok(SecretSpec::of(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSpec, A::Error> {
                let Labelled { secret, label, from, until } =
                    Labelled::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(SecretSpec { secret, label, from, until })
            }
        }
        deserializer.deserialize_any(TextOrMap)
    }
}

impl Serialize for SecretSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if (&self.label, &self.from, &self.until) == (&None, &None, &None) {
            return serializer.serialize_str(&self.secret);
        }
        let Self { secret, label, from, until } = self.clone();
        Labelled { secret, label, from, until }.serialize(serializer)
    }
}

impl JsonSchema for SecretSpec {
    fn schema_name() -> Cow<'static, str> {
        "SecretSpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let labelled = generator.subschema_for::<Labelled>();
        json_schema!({
            "description": "A secret: a reference, or a reference with a label and the times between which it is live.",
            "anyOf": [{ "type": "string" }, labelled]
        })
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesOrValues;
        impl<'de> Visitor<'de> for NamesOrValues {
            type Value = Claims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of claim names, or claim names with their values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some(name) = names.next_element::<String>()? {
                    claims.insert(name, Texts::default());
                }
                Ok(Claims(claims))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, values)) = map.next_entry::<String, Texts>()? {
                    claims.insert(name, values);
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_any(NamesOrValues)
    }
}

impl Serialize for Claims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Claims {
    fn schema_name() -> Cow<'static, str> {
        "Claims".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let texts = generator.subschema_for::<Texts>();
        json_schema!({
            "description": "A list of claim names, or claim names with the values that are accepted.",
            "anyOf": [
                { "type": "array", "items": { "type": "string" } },
                { "type": "object", "additionalProperties": texts }
            ]
        })
    }
}
