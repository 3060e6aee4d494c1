//! Shares as people write them: `50%`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A share as written: `50%`. From 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Percent(pub u8);

pub(super) const PERCENT_HELP: &str = "write a share from `1%` to `100%`";

impl Percent {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('%')?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok().filter(|n| (1..=100).contains(n)).map(Self)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).ok_or_else(|| D::Error::custom("not a share"))
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([1-9]\\d?|100)%$", "x-unit": "percent" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_people_write_them() {
        for (text, share) in [("50%", 50), ("1%", 1), ("100%", 100)] {
            assert_eq!(Percent::parse(text), Some(Percent(share)));
            assert_eq!(Percent(share).to_string(), text);
        }
        for text in ["", "%", "50", "0%", "101%", "-1%", "+5%", "0.5%", "50 %", "999999%"] {
            assert_eq!(Percent::parse(text), None, "{text}");
        }
    }
}
