//! The address ranges that a provider publishes: the snapshot of a pack, and how its list is read.
//!
//! Pure: fetching, keeping and the decision to believe a new list are `crate::ranges`'.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use serde_json::Value;

use crate::clock::Timestamp;

/// Ranges of one list. More is another document by mistake.
pub const MAX_RANGES: usize = 10_000;
/// Wider ranges are no provider's: a list that holds one would open the route to strangers.
const MIN_PREFIX_V4: u8 = 8;
const MIN_PREFIX_V6: u8 = 16;

/// Where a provider sends from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// `None`: it publishes no list that a machine could read.
    pub list: Option<RangeList>,
    /// As of `snapshot_date`; never empty.
    pub snapshot: Vec<IpNet>,
    pub snapshot_date: jiff::civil::Date,
}

impl Ranges {
    /// The beginning of the snapshot's day, UTC.
    pub fn snapshot_day(&self) -> Timestamp {
        let day = self.snapshot_date.to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let seconds = day.map_or(0, |day| day.timestamp().as_second());
        Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// A list that is published for machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeList {
    pub url: Uri,
    pub format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A range a line; `#` begins a comment.
    Lines,
    /// The texts at these places. A text counts only if the object that holds it has all of `only`: the value itself,
    /// or a list with it.
    Json { at: Vec<Place>, only: Vec<(String, String)> },
}

/// A JSON pointer in which `*` stands for every element of an array (or every value of an object).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Every,
}

/// Why a document is no list of ranges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadList {
    #[error("the list is no JSON: {0}")]
    Json(String),
    #[error("the list is no text")]
    Text,
    #[error("the list has nothing at `{0}`")]
    Missing(String),
    #[error("the list holds `{0}`, which is no address range")]
    NoRange(String),
    #[error("the list holds {0}, which is wider than any provider's ranges")]
    TooWide(IpNet),
    #[error("the list is empty")]
    Empty,
    #[error("the list has more than {MAX_RANGES} ranges")]
    TooMany,
}

impl Place {
    /// The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("`{text}` begins with no `/`: write a JSON pointer such as `/hooks/*`"));
        };
        let step = |part: &str| match part {
            "*" => Step::Every,
            key => Step::Key(key.replace("~1", "/").replace("~0", "~")),
        };
        Ok(Self(rest.split('/').map(step).collect()))
    }

    /// The values there, each with the object that holds it. `None` if a key on the way is missing.
    fn find<'v>(&self, document: &'v Value) -> Option<Vec<(&'v Value, Option<&'v Value>)>> {
        let mut found = vec![(document, None)];
        for step in &self.0 {
            let mut next = Vec::new();
            for (value, holder) in found {
                match (step, value) {
                    (Step::Every, Value::Array(items)) => {
                        next.extend(items.iter().map(|item| (item, holder)));
                    }
                    (Step::Every, Value::Object(map)) => {
                        next.extend(map.values().map(|item| (item, Some(value))));
                    }
                    (Step::Every, _) => return None,
                    (Step::Key(key), Value::Array(items)) => {
                        next.push((items.get(key.parse::<usize>().ok()?)?, holder));
                    }
                    (Step::Key(key), _) => next.push((value.get(key)?, Some(value))),
                }
            }
            found = next;
        }
        Some(found)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Every => f.write_str("/*"),
            Step::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
        })
    }
}

impl RangeList {
    /// The ranges of a fetched document: at least one, each once, sorted. One that can't be read makes the whole
    /// document unbelievable.
    pub fn read(&self, document: &[u8]) -> Result<Vec<IpNet>, BadList> {
        match &self.format {
            Format::Lines => {
                let text = std::str::from_utf8(document).map_err(|_| BadList::Text)?;
                let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
                gather(lines.filter(|line| !line.is_empty()))
            }
            Format::Json { at, only } => {
                let json: Value =
                    serde_json::from_slice(document).map_err(|error| BadList::Json(error.to_string()))?;
                let mut texts = Vec::new();
                for place in at {
                    let found = place.find(&json).ok_or_else(|| BadList::Missing(place.to_string()))?;
                    for (value, holder) in found {
                        let chosen = only.iter().all(|(key, wanted)| match holder.and_then(|h| h.get(key)) {
                            Some(Value::String(text)) => text == wanted,
                            Some(Value::Array(items)) => items.iter().any(|item| item == wanted.as_str()),
                            _ => false,
                        });
                        match value {
                            _ if !chosen => {}
                            Value::String(text) => texts.push(text.as_str()),
                            other => return Err(no_range(&other.to_string())),
                        }
                    }
                }
                gather(texts.into_iter())
            }
        }
    }
}

fn gather<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<IpNet>, BadList> {
    let mut ranges = texts.take(MAX_RANGES + 1).map(range).collect::<Result<Vec<_>, _>>()?;
    if ranges.len() > MAX_RANGES {
        return Err(BadList::TooMany);
    }
    ranges.sort_unstable();
    ranges.dedup();
    if ranges.is_empty() { Err(BadList::Empty) } else { Ok(ranges) }
}

/// A range or an address as providers write them; bits behind the prefix are cut off.
pub fn range(text: &str) -> Result<IpNet, BadList> {
    let range = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| no_range(text))?.trunc(),
    };
    let least = match range {
        IpNet::V4(_) => MIN_PREFIX_V4,
        IpNet::V6(_) => MIN_PREFIX_V6,
    };
    if range.prefix_len() < least { Err(BadList::TooWide(range)) } else { Ok(range) }
}

/// With as much of the text as a log line bears.
fn no_range(text: &str) -> BadList {
    BadList::NoRange(text.chars().take(60).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(at: &[&str], only: &[(&str, &str)]) -> RangeList {
        let at = at.iter().map(|text| Place::parse(text).unwrap()).collect();
        let only = only.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RangeList { url: Uri::from_static("https://x.example/"), format: Format::Json { at, only } }
    }
    fn lines() -> RangeList {
        RangeList { url: Uri::from_static("https://x.example/"), format: Format::Lines }
    }
    fn texts(list: &RangeList, document: &str) -> Result<Vec<String>, BadList> {
        Ok(list.read(document.as_bytes())?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_star_stands_for_every_element() {
        let github = r#"{"hooks":["192.30.252.0/22","2a0a:a440::/29"],"web":["1.1.1.1/32"]}"#;
        assert_eq!(texts(&json(&["/hooks/*"], &[]), github).unwrap(), ["192.30.252.0/22", "2a0a:a440::/29"]);
        let both = json(&["/v4/*", "/v6/*/cidr"], &[]);
        let document = r#"{"v4":["10.1.2.3"],"v6":[{"cidr":"2001:db8::/32"}]}"#;
        assert_eq!(texts(&both, document).unwrap(), ["10.1.2.3/32", "2001:db8::/32"]);
        let nested = json(&["/*/ips/*"], &[]);
        assert_eq!(
            texts(&nested, r#"{"us":{"ips":["10.0.0.2"]},"eu":{"ips":["10.0.0.1"]}}"#).unwrap().len(),
            2
        );
        assert_eq!(texts(&json(&["/0"], &[]), r#"["10.0.0.1"]"#).unwrap(), ["10.0.0.1/32"]);
    }

    #[test]
    fn only_the_objects_that_are_meant_count() {
        let list = json(&["/items/*/cidr"], &[("product", "bitbucket"), ("direction", "egress")]);
        let document = r#"{"items":[
            {"cidr":"10.0.0.0/24","product":["jira","bitbucket"],"direction":["egress"]},
            {"cidr":"10.0.1.0/24","product":["jira"],"direction":["egress"]},
            {"cidr":"10.0.2.0/24","product":"bitbucket","direction":"egress"},
            {"cidr":"10.0.3.0/24","product":["bitbucket"]}]}"#;
        assert_eq!(texts(&list, document).unwrap(), ["10.0.0.0/24", "10.0.2.0/24"]);
    }

    #[test]
    fn lines_may_have_comments() {
        let read = texts(&lines(), "# ours\n10.0.0.5\r\n\n10.1.0.0/16 # new\n10.0.0.5\n");
        assert_eq!(read.unwrap(), ["10.0.0.5/32", "10.1.0.0/16"]);
    }

    #[test]
    fn one_thing_that_is_no_range_makes_the_list_unbelievable() {
        let hooks = json(&["/hooks/*"], &[]);
        let no = |text: &str| texts(&hooks, text).unwrap_err();
        assert!(matches!(no("<html>"), BadList::Json(_)));
        assert_eq!(no(r#"{"hook":["10.0.0.1"]}"#), BadList::Missing("/hooks/*".into()));
        assert_eq!(no(r#"{"hooks":"10.0.0.1"}"#), BadList::Missing("/hooks/*".into()));
        assert_eq!(no(r#"{"hooks":[]}"#), BadList::Empty);
        assert_eq!(no(r#"{"hooks":["10.0.0.1",7]}"#), BadList::NoRange("7".into()));
        assert_eq!(no(r#"{"hooks":["10.0.0.1","10.0.0.0/33"]}"#), BadList::NoRange("10.0.0.0/33".into()));
        assert!(matches!(no(r#"{"hooks":["10.0.0.1","0.0.0.0/0"]}"#), BadList::TooWide(_)));
        assert!(matches!(no(r#"{"hooks":["::/0"]}"#), BadList::TooWide(_)));
        assert_eq!(texts(&lines(), "<html>\n"), Err(BadList::NoRange("<html>".into())));
        assert_eq!(texts(&lines(), "\n# none\n"), Err(BadList::Empty));
        let many: String = (0..=MAX_RANGES).map(|n| format!("10.{}.{}.1\n", n / 250, n % 250)).collect();
        assert_eq!(texts(&lines(), &many), Err(BadList::TooMany));
        assert!(Place::parse("hooks").unwrap_err().contains("JSON pointer"));
    }

    proptest! {
        #[test]
        fn no_document_makes_reading_panic(document in "\\PC{0,80}", place in "/[a-z*/~0-9]{0,12}") {
            let _ = lines().read(document.as_bytes());
            let _ = json(&[&place], &[("a", "b")]).read(document.as_bytes());
            prop_assert!(Place::parse(&place).is_ok());
        }

        #[test]
        fn what_is_written_is_read_back(addresses in prop::collection::btree_set(any::<u32>(), 1..40)) {
            let ranges: Vec<IpNet> =
                addresses.iter().map(|a| IpNet::from(IpAddr::V4((*a).into()))).collect();
            let texts: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            prop_assert_eq!(lines().read(texts.join("\n").as_bytes()).unwrap(), ranges.clone());
            let document = serde_json::json!({"a": [{"b": texts}]}).to_string();
            prop_assert_eq!(json(&["/a/0/b/*"], &[]).read(document.as_bytes()).unwrap(), ranges);
        }
    }
}
