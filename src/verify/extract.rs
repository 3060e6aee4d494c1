//! Values taken out of a request: idempotency keys, event types, handshakes.
//!
//! As text: a place (`header:X-GitHub-Delivery`, `query:NAME`, `path:NAME`, `form:FIELD`, `form:FIELD#/pointer`,
//! `body:/json/pointer`), `body-hash`, or several with `|` between them, of which the first that is there counts.
//! `body:/items/*/id` is that of every element of an array, joined.
//! What could be read in two ways (a header, field or key that stands twice) or is blank is not there: an empty id
//! would make strangers of one event.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr2;

use super::json::{Elements, Pointer};
use super::locate::{Location, View};
use crate::message::Request;

/// A compiled extraction.
#[derive(Clone, Debug, PartialEq)]
pub struct Extract(Source);

#[derive(Clone, Debug, PartialEq)]
enum Source {
    At(Location),
    /// The values at a place within each element of the body's array.
    Each(Pointer, Pointer),
    BodyHash,
    First(Box<[Extract]>),
    Joined(Box<[Extract]>),
}

impl Extract {
    /// Parses one source such as `header:X-GitHub-Delivery`, or alternatives such as
    /// `header:Idempotency-Key | header:X-Gitlab-Event-UUID`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut alternatives = Vec::new();
        for part in text.split(" | ") {
            alternatives.push(match part.trim() {
                "body-hash" => Self::body_hash(),
                place => match place.strip_prefix("body:").and_then(|pointer| pointer.split_once("/*/")) {
                    Some((array, within)) => Self(Source::Each(
                        if array.is_empty() { Pointer::root() } else { Pointer::parse(array)? },
                        Pointer::parse(&format!("/{within}"))?,
                    )),
                    None => Self(Source::At(Location::parse(place)?)),
                },
            });
        }
        match (alternatives.pop(), alternatives.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                alternatives.push(last);
                Ok(Self(Source::First(alternatives.into())))
            }
            (None, _) => Err("an extraction is empty".to_owned()),
        }
    }

    /// The value at one place.
    pub(super) const fn at(location: Location) -> Self {
        Self(Source::At(location))
    }

    /// `blake3:` and the hex BLAKE3 of the body as received. It binds ids that no signature covers to the body, for
    /// which a second SHA-256 of every body would cost several times as much.
    pub fn body_hash() -> Self {
        Self(Source::BodyHash)
    }

    /// What `body-hash` gives for this body.
    pub fn hash_of(body: &[u8]) -> String {
        let mut text = [0; PREFIX.len() + 64];
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        // Two digits for each of 32 bytes: they fit.
        let _ = hex::encode_to_slice(blake3::hash(body).as_bytes(), digits);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Whether this may be what `body-hash` gives.
    pub fn is_hash(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Whether this gives the body's hash by itself, perhaps in the place of something else.
    pub fn is_body_hash(&self) -> bool {
        match &self.0 {
            Source::BodyHash => true,
            Source::First(alternatives) => alternatives.iter().any(Self::is_body_hash),
            Source::At(_) | Source::Each(..) | Source::Joined(_) => false,
        }
    }

    /// All of these, joined unambiguously (`|` between them; `|` and `\` within them escaped by `\`); absent if any
    /// is absent.
    pub fn joined(parts: Vec<Extract>) -> Self {
        match <[Extract; 1]>::try_from(parts) {
            Ok([only]) => only,
            Err(parts) => Self(Source::Joined(parts.into())),
        }
    }

    /// The value, as text; `None` if it is not there (or is ambiguous: twice where it may be once).
    pub fn from(&self, request: &Request) -> Option<String> {
        match &self.0 {
            Source::At(location) => text(location, request).map(Cow::into_owned),
            Source::Each(array, within) => of_each(array, within, &request.body),
            Source::BodyHash => Some(Self::hash_of(&request.body)),
            Source::First(alternatives) => alternatives.iter().find_map(|one| one.from(request)),
            Source::Joined(parts) => {
                let mut joined = String::new();
                for part in parts {
                    join(&mut joined, &part.from(request)?);
                }
                (!joined.is_empty()).then_some(joined)
            }
        }
    }

    /// Whether it may look at a parameter of the route's path.
    pub fn reads_path(&self) -> bool {
        self.any(&|source| matches!(source, Source::At(location) if location.in_path()))
    }

    /// Whether it may look at the body.
    pub fn reads_body(&self) -> bool {
        self.any(&|source| match source {
            Source::At(location) => location.in_body(),
            Source::Each(..) | Source::BodyHash => true,
            Source::First(_) | Source::Joined(_) => false,
        })
    }

    fn any(&self, is: &dyn Fn(&Source) -> bool) -> bool {
        is(&self.0)
            || match &self.0 {
                Source::First(parts) | Source::Joined(parts) => parts.iter().any(|part| part.any(is)),
                Source::At(_) | Source::Each(..) | Source::BodyHash => false,
            }
    }

    /// Whether every value that this may give hangs on a place for which `covered` says yes, or on the body's hash.
    pub(super) fn is_bound(&self, covered: &dyn Fn(&Location) -> bool) -> bool {
        match &self.0 {
            Source::At(location) => covered(location),
            Source::Each(array, _) => covered(&Location::Body(array.clone())),
            Source::BodyHash => true,
            Source::First(alternatives) => alternatives.iter().all(|one| one.is_bound(covered)),
            Source::Joined(parts) => parts.iter().any(|part| part.is_bound(covered)),
        }
    }

    /// Whether the value is there and is `expected`; never allocates for a plain place.
    pub fn is(&self, request: &Request, expected: &str) -> bool {
        match &self.0 {
            Source::At(location) => text(location, request).is_some_and(|found| found == expected),
            _ => self.from(request).is_some_and(|found| found == expected),
        }
    }
}

impl fmt::Display for Extract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Extract], between: &str| {
            parts.iter().enumerate().try_for_each(|(at, part)| {
                if at > 0 {
                    f.write_str(between)?;
                }
                part.fmt(f)
            })
        };
        match &self.0 {
            Source::At(location) => location.fmt(f),
            Source::Each(array, within) => write!(f, "body:{array}/*{within}"),
            Source::BodyHash => f.write_str("body-hash"),
            Source::First(parts) => list(f, parts, " | "),
            Source::Joined(parts) => list(f, parts, " + "),
        }
    }
}

/// Puts a part (never empty) behind those that are joined already, see [`Extract::joined`].
pub(super) fn join(joined: &mut String, part: &str) {
    if !joined.is_empty() {
        joined.push('|');
    }
    let mut rest = part;
    // Both are ASCII, so each is a character.
    while let Some(special) = memchr2(b'|', b'\\', rest.as_bytes()) {
        joined.push_str(&rest[..special]);
        joined.push('\\');
        joined.push_str(&rest[special..=special]);
        rest = &rest[special + 1..];
    }
    joined.push_str(rest);
}

/// Elements of an array whose values are joined; more are known by the body's hash.
const MAX_EACH: usize = 1000;

/// The value of the only element as it is, of several joined. `None` if one of them has none.
fn of_each(array: &Pointer, within: &Pointer, body: &[u8]) -> Option<String> {
    let Elements::All(elements) = array.elements_up_to(body, MAX_EACH)? else { return None };
    let values = elements.into_iter().map(|element| within.text(element).filter(|text| !is_blank(text)));
    let values: Vec<Cow<'_, str>> = values.collect::<Option<_>>()?;
    match values.as_slice() {
        [] => None,
        [only] => Some(only.clone().into_owned()),
        several => {
            let mut joined = String::new();
            several.iter().for_each(|value| join(&mut joined, value));
            Some(joined)
        }
    }
}

fn text<'r>(location: &Location, request: &'r Request) -> Option<Cow<'r, str>> {
    let found = location.find(View::of(request)).ok()??;
    let text = match found {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    };
    (!is_blank(&text)).then_some(text)
}

/// Whether a text names nothing.
pub(super) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

const PREFIX: &str = "blake3:";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{key_of, request};
    use proptest::prelude::*;

    fn from(text: &str, r: &Request) -> Option<String> {
        Extract::parse(text).unwrap().from(r)
    }

    #[test]
    fn the_first_alternative_that_is_there_counts() {
        let both = request("/", &[("Idempotency-Key", "k"), ("X-Gitlab-Event-UUID", "u")], b"");
        let one = request("/", &[("Idempotency-Key", ""), ("X-Gitlab-Event-UUID", "u")], b"");
        let source = "header:Idempotency-Key | header:X-Gitlab-Event-UUID";
        assert_eq!(from(source, &both).as_deref(), Some("k"));
        assert_eq!(from(source, &one).as_deref(), Some("u"));
        assert_eq!(Extract::parse(source).unwrap().to_string(), source.to_ascii_lowercase());
    }

    #[test]
    fn what_is_empty_or_twice_is_not_there_and_the_key_is_the_body() {
        let r = request("/", &[("id", "a"), ("ID", "a"), ("empty", " ")], br#"{"x":1,"x":1}"#);
        let blank = request("/?q=%20+", &[], br#"{"id":" \n","ids":[{"id":"\t"}],"none":null,"no":{}}"#);
        for source in [
            "body:/id",
            "body:/ids/*/id",
            "body:/ids/0/id",
            "body:/none",
            "body:/no",
            "query:q",
            "body:/nowhere",
        ] {
            assert_eq!(from(source, &blank), None, "{source}");
        }
        for source in ["header:id", "header:empty", "body:/x", "form:x", "query:x", "path:x"] {
            assert_eq!(from(source, &r), None, "{source}");
            assert_eq!(key_of(Extract::parse(source).unwrap(), &r), Extract::body_hash().from(&r).unwrap());
        }
    }

    #[test]
    fn every_element_of_an_array_is_part_of_the_key() {
        let key = |body: &str| from("body:/items/*/a/id", &request("/", &[], body.as_bytes()));
        assert_eq!(key(r#"{"items":[{"a":{"id":"x|y"}}]}"#).as_deref(), Some("x|y"), "as `/items/0/a/id`");
        assert_eq!(key(r#"{"items":[{"a":{"id":"x"}},{"a":{"id":2}}]}"#).as_deref(), Some("x|2"));
        for without in [r#"{"items":[]}"#, r#"{"items":[{"a":{"id":"x"}},{}]}"#, "{}", "", "[]"] {
            assert_eq!(key(without), None, "{without}");
        }
        let root = Extract::parse("body:/*/id").unwrap();
        assert_eq!(root.from(&request("/", &[], br#"[{"id":1},{"id":2}]"#)).as_deref(), Some("1|2"));
        assert_eq!(root.to_string(), "body:/*/id");
        assert!(root.reads_body() && root.is_bound(&|_| true) && !root.is_bound(&|_| false));
    }

    #[test]
    fn joined_parts_are_kept_apart() {
        let join = |a: &str, b: &str| {
            let parts = vec![Extract::parse("header:a").unwrap(), Extract::parse("header:b").unwrap()];
            Extract::joined(parts).from(&request("/", &[("a", a), ("b", b)], b""))
        };
        assert_eq!(join("x", "y").as_deref(), Some("x|y"));
        assert_ne!(join("x|y", "z"), join("x", "y|z"));
        assert_ne!(join("x\\", "z"), join("x", "\\z"));
        assert_eq!(join("", "z"), None);
    }

    #[test]
    fn the_body_hash_is_over_the_bytes_as_received() {
        let r = request("/", &[], b"hello");
        assert_eq!(
            from("body-hash", &r).as_deref(),
            Some("blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic_and_no_request_extraction(
            source in "(header|body|form|query|path|x)?:?/?[a-z/#~|: ]{0,12}",
            body in proptest::collection::vec(any::<u8>(), 0..120),
            header in "[ -~]{0,20}",
        ) {
            if let Ok(extract) = Extract::parse(&source) {
                let r = request("/p?a=%", &[("a", &header)], &body);
                let key = key_of(extract.clone(), &r);
                prop_assert!(!key.is_empty());
                prop_assert_eq!(extract.from(&r).unwrap_or(key.clone()), key);
            }
        }

        #[test]
        fn joining_is_injective(a in "[|\\\\x]{1,4}", b in "[|\\\\x]{1,4}", c in "[|\\\\x]{1,4}", d in "[|\\\\x]{1,4}") {
            let parts = || vec![Extract::parse("header:a").unwrap(), Extract::parse("header:b").unwrap()];
            let of = |x: &str, y: &str| Extract::joined(parts()).from(&request("/", &[("a", x), ("b", y)], b""));
            prop_assert_eq!(of(&a, &b) == of(&c, &d), a == c && b == d);
        }
    }
}
