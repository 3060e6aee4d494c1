//! Durations and sizes as people write them: `30s`, `1h30m`, `10MiB`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The schema keyword that tells the shape walk which of these a text must be.
pub(super) const UNIT: &str = "x-unit";

/// A duration as written: `500ms`, `30s`, `5m`, `2h`, `3d`, or several, largest first: `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time(pub Duration);

/// A number of bytes as written: `512KiB`, `10MiB`, `1MB`, or plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub u64);

/// A share as written: `0%` to `100%`, in whole percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Share(pub u8);

pub(super) const SHARE_HELP: &str = "write a share such as `50%`";
/// So many in a time, as written: `10/s`, `600/m`, `1/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub count: u32,
    pub per: Duration,
}

pub(super) const RATE_HELP: &str = "write a rate such as `10/s`, `600/m` or `100/h`";
pub(super) const TIME_HELP: &str = "write a duration such as `500ms`, `30s`, `5m`, `2h`, `3d` or `1h30m`";
pub(super) const SIZE_HELP: &str = "write a size such as `512KiB`, `10MiB`, `1GiB`, `1MB`, or plain bytes";

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];
/// A hundred years: beyond it a duration is a slip of the pen, and sums of times could overflow.
const MAX_MILLIS: u64 = 36_525 * 86_400_000;

impl Time {
    /// `None` if it is no duration, or one beyond a hundred years.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut millis, mut allowed) = (text, 0u64, &TIME_UNITS[..]);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
            let unit = allowed.iter().position(|(name, _)| *name == &rest[..letters])?;
            rest = &rest[letters..];
            millis = millis.checked_add(number.checked_mul(allowed[unit].1)?)?;
            allowed = &allowed[unit + 1..];
        }
        (!text.is_empty() && millis <= MAX_MILLIS).then(|| Self(Duration::from_millis(millis)))
    }
}

impl Rate {
    /// `None` if it is no rate, or none at all (`0/s`).
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let count = Some(count).filter(|c| c.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        let per = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        (count > 0).then_some(Self { count, per: Duration::from_secs(per) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Size {
    /// `None` if it is no size, or one beyond 2^63 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let unit = match text[digits..].trim_start_matches(' ') {
            "" => 1,
            "kB" => 1000,
            unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.checked_mul(unit).filter(|n| *n <= i64::MAX as u64).map(Self)
    }
}

impl Share {
    /// `None` if it is no share, or one beyond the whole.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('%')?;
        let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|percent| plain && *percent <= 100).map(Self)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in TIME_UNITS {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = SIZE_UNITS.iter().filter(|(name, _)| name.len() == 3);
        match fitting.into_iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a rate"))
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^\\d+/[smh]$", "x-unit": "rate" })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a duration"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a share"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a size"))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(\\d+d)?(\\d+h)?(\\d+m)?(\\d+s)?(\\d+ms)?$",
            "minLength": 2,
            "x-unit": "duration",
        })
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(\\d{1,2}|100)%$", "x-unit": "share" })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^\\d+ *([KMGT]i?B|kB|B)?$",
            "minimum": 0,
            "x-unit": "size",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("3d", 259_200_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("0s", 0),
        ] {
            assert_eq!(Time::parse(text), Some(Time(Duration::from_millis(millis))), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "30 s",
            "-1s",
            "1.5s",
            "30m1h",
            "1s1s",
            "30sec",
            "99999999999999999999s",
            "40000d",
            "5M",
            "1ä",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("10MiB", 10 << 20),
            ("512KiB", 512 << 10),
            ("1MB", 1_000_000),
            ("1 GiB", 1 << 30),
            ("4096", 4096),
            ("7B", 7),
            ("2kB", 2000),
        ] {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "10mib", "10M", "1.5GiB", "-1", "9999999999TiB", "1MiB "] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_whole_percent_up_to_all() {
        for (text, percent) in [("50%", 50), ("0%", 0), ("100%", 100), ("7%", 7)] {
            assert_eq!(Share::parse(text), Some(Share(percent)), "{text}");
            assert_eq!(Share(percent).to_string(), text);
        }
        for text in ["", "%", "50", "101%", "-1%", "+5%", "0.5", "5 %", "1000%"] {
            assert_eq!(Share::parse(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, count, secs) in [("10/s", 10, 1), ("600/m", 600, 60), ("1/h", 1, 3600)] {
            let rate = Rate { count, per: Duration::from_secs(secs) };
            assert_eq!((Rate::parse(text), rate.to_string().as_str()), (Some(rate), text));
        }
        for text in ["", "10", "10/", "/s", "0/s", "-1/s", "10/d", "10 /s", "1.5/s", "99999999999/s", "+1/s"]
        {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis in 0..=MAX_MILLIS, bytes in 0..=i64::MAX as u64) {
            let (time, size) = (Time(Duration::from_millis(millis)), Size(bytes));
            prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
            prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,12}") {
            let _ = (Time::parse(&text), Size::parse(&text));
        }
    }
}
