//! Single values out of a JSON body by pointer (RFC 6901), in one walk and without building a tree; several of them in one
//! walk a level ([`texts`]), so that what a request costs grows with how deep they are and not with how many.
//!
//! The whole document must be well-formed. A key that stands twice on the way to the value makes it ambiguous: two
//! parsers could read two values, so there is none. Strings, numbers (digits kept) and booleans have a text;
//! `null`, objects and arrays have none. Objects and arrays that are skipped cost no stack.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A parsed JSON pointer such as `/data/object/0/id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Box<[Token]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    key: Box<str>,
    /// The token as an array index, if it can be one.
    index: Option<usize>,
}

/// Deeper pointers are a mistake, and each level costs stack while walking.
const MAX_DEPTH: usize = 32;

impl Pointer {
    /// The whole document.
    pub(super) fn root() -> Self {
        Self(Box::default())
    }

    /// Parses `/a/b/0`; `~1` stands for `/` and `~0` for `~`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("a JSON pointer begins with `/`, such as `/id` (found `{text}`)"));
        };
        let tokens = rest.split('/').map(Token::parse).collect::<Result<Vec<_>, _>>()?;
        if tokens.len() > MAX_DEPTH {
            return Err(format!("a JSON pointer may have at most {MAX_DEPTH} parts"));
        }
        Ok(Self(tokens.into()))
    }

    /// The text of the value, `None` if there is none (see the module).
    pub fn text<'b>(&self, document: &'b [u8]) -> Option<Cow<'b, str>> {
        text_of(self.raw(document)?)
    }

    /// Whether any reader could find this text there: at any of the places of a key that stands twice, behind a byte order
    /// mark, and in a document that is cut off, or that others follow, as far as it can be read. For who must rather
    /// find too much than miss something; what is decided by a value goes by [`Pointer::text`].
    pub fn may_be(&self, document: &[u8], text: &str) -> bool {
        let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
        let mut reader = serde_json::Deserializer::from_slice(document);
        let found = Cell::new(false);
        // Ends with the first document that is none, and that may be found out only behind what was found.
        while !found.get() && (Any { tokens: &self.0, text, found: &found }).deserialize(&mut reader).is_ok()
        {
        }
        found.get()
    }

    /// The elements of the array that stands there, each as it is written.
    pub fn elements<'b>(&self, document: &'b [u8]) -> Option<Vec<&'b [u8]>> {
        let raw = self.raw(document)?;
        let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
        Some(elements.into_iter().map(|e| e.get().as_bytes()).collect())
    }

    /// The same, if there are at most `max`.
    pub(super) fn elements_up_to<'b>(&self, document: &'b [u8], max: usize) -> Option<Elements<'b>> {
        let raw = self.raw(document)?;
        let mut reader = serde_json::Deserializer::from_str(raw);
        UpTo(max).deserialize(&mut reader).ok()
    }

    /// The value as it is written.
    pub(super) fn raw<'b>(&self, document: &'b [u8]) -> Option<&'b str> {
        let mut reader = serde_json::Deserializer::from_slice(document);
        let found = Walk(&self.0).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        found.map(RawValue::get)
    }
}

/// The text of a value as it is written.
fn text_of(raw: &str) -> Option<Cow<'_, str>> {
    match raw.as_bytes().first()? {
        b'"' => {
            let inside = raw.get(1..raw.len().checked_sub(1)?)?;
            if inside.contains('\\') {
                serde_json::from_str(raw).ok().map(Cow::Owned)
            } else {
                Some(Cow::Borrowed(inside))
            }
        }
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// What [`Pointer::text`] gives for each of `pointers`.
pub(super) fn texts<'b>(pointers: &[Pointer], document: &'b [u8]) -> Vec<Option<Cow<'b, str>>> {
    if let [only] = pointers {
        return vec![only.text(document)];
    }
    let mut raw = vec![None; pointers.len()];
    let targets = pointers.iter().enumerate().map(|(at, pointer)| (at, &*pointer.0)).collect();
    level(document, targets, &mut raw);
    raw.into_iter().map(|raw| text_of(raw?)).collect()
}

/// Pointers that go on in the same way.
struct Group<'p> {
    token: &'p Token,
    /// Which they are, and what is still to go behind `token`.
    targets: Vec<(usize, &'p [Token])>,
}

fn level<'b>(document: &'b [u8], targets: Vec<(usize, &[Token])>, into: &mut [Option<&'b str>]) {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (at, tokens) in targets {
        let Some((token, rest)) = tokens.split_first() else { continue };
        match groups.iter_mut().find(|group| group.token == token) {
            Some(group) => group.targets.push((at, rest)),
            None => groups.push(Group { token, targets: vec![(at, rest)] }),
        }
    }
    let Some(values) = values(document, &groups) else { return };
    for (group, value) in groups.into_iter().zip(values) {
        let Some(value) = value.map(RawValue::get) else { continue };
        let (ended, deeper): (Vec<_>, Vec<_>) =
            group.targets.into_iter().partition(|(_, rest)| rest.is_empty());
        for (at, _) in ended {
            into[at] = Some(value);
        }
        if !deeper.is_empty() {
            level(value.as_bytes(), deeper, into);
        }
    }
}

/// The values of an object or array at which the groups go on; `None` if it is neither or not well-formed.
fn values<'b>(document: &'b [u8], groups: &[Group<'_>]) -> Option<Vec<Option<&'b RawValue>>> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let found = match document.iter().find(|byte| !byte.is_ascii_whitespace())? {
        b'{' => (&mut reader).deserialize_map(Values(groups)),
        b'[' => (&mut reader).deserialize_seq(Values(groups)),
        _ => return None,
    };
    reader.end().ok()?;
    found.ok()
}

struct Values<'g>(&'g [Group<'g>]);

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        let mut seen = vec![false; self.0.len()];
        while let Some(which) = map.next_key_seed(WhichKey(self.0))? {
            match which {
                // A key that stands twice has no value.
                Some(group) if seen[group] => {
                    map.next_value::<IgnoredAny>()?;
                    found[group] = None;
                }
                Some(group) => {
                    seen[group] = true;
                    found[group] = Some(map.next_value::<&RawValue>()?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        for at in 0usize.. {
            match self.0.iter().position(|group| group.token.index == Some(at)) {
                Some(group) => match seq.next_element::<&RawValue>()? {
                    Some(value) => found[group] = Some(value),
                    None => break,
                },
                None => {
                    if seq.next_element::<IgnoredAny>()?.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Which of the keys that are looked for a key (its escapes undone) is.
struct WhichKey<'g>(&'g [Group<'g>]);

impl<'de> DeserializeSeed<'de> for WhichKey<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for WhichKey<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|group| &*group.token.key == key))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|t| write!(f, "/{}", t.key.replace('~', "~0").replace('/', "~1")))
    }
}

impl Token {
    fn parse(text: &str) -> Result<Self, String> {
        let mut escapes = text.split('~');
        let mut key = escapes.next().unwrap_or_default().to_owned();
        for part in escapes {
            let (plain, rest) = match part.as_bytes().first() {
                Some(b'0') => ('~', &part[1..]),
                Some(b'1') => ('/', &part[1..]),
                _ => return Err("in a JSON pointer `~` is written `~0`, and `/` in a key `~1`".to_owned()),
            };
            key.push(plain);
            key.push_str(rest);
        }
        let digits = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
        let index = if digits && (key == "0" || !key.starts_with('0')) { key.parse().ok() } else { None };
        Ok(Self { key: key.into(), index })
    }
}

/// The elements of an array, if they are not too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elements<'b> {
    All(Vec<&'b [u8]>),
    TooMany,
}

/// Gathers elements and stops when there are too many: what is beyond was found well-formed when the array was.
struct UpTo(usize);

impl<'de> DeserializeSeed<'de> for UpTo {
    type Value = Elements<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for UpTo {
    type Value = Elements<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            if elements.len() == self.0 {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Elements::TooMany);
            }
            elements.push(element.get().as_bytes());
        }
        Ok(Elements::All(elements))
    }
}

/// One level of the walk: the tokens that are still to go.
struct Walk<'p>(&'p [Token]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue as serde::Deserialize>::deserialize(deserializer).map(Some),
            [token, rest @ ..] => deserializer.deserialize_any(Level { token, rest }),
        }
    }
}

struct Level<'p> {
    token: &'p Token,
    rest: &'p [Token],
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut seen = 0u32;
        while let Some(here) = map.next_key_seed(IsKey(&self.token.key))? {
            if here {
                seen = seen.saturating_add(1);
                found = map.next_value_seed(Walk(self.rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(if seen == 1 { found } else { None })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0usize;
        loop {
            if self.token.index == Some(at) {
                match seq.next_element_seed(Walk(self.rest))? {
                    Some(value) => found = value,
                    None => return Ok(None),
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// One level of the walk to any of the places.
#[derive(Clone, Copy)]
struct Any<'p> {
    /// That are still to go.
    tokens: &'p [Token],
    text: &'p str,
    found: &'p Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.tokens.is_empty() {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        if text_of(raw.get()).is_some_and(|is| is == self.text) {
            self.found.set(true);
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [token, tokens @ ..] = self.tokens else { return Ok(()) };
        while let Some(here) = map.next_key_seed(IsKey(&token.key))? {
            if here {
                map.next_value_seed(Any { tokens, ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let [token, tokens @ ..] = self.tokens else { return Ok(()) };
        for at in 0.. {
            let more = match token.index == Some(at) {
                true => seq.next_element_seed(Any { tokens, ..self })?.is_some(),
                false => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Whether a key (its escapes undone) is the one that is looked for.
struct IsKey<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(pointer: &str, document: &str) -> Option<String> {
        Pointer::parse(pointer).unwrap().text(document.as_bytes()).map(Cow::into_owned)
    }

    #[test]
    fn values_are_found_as_text() {
        let document =
            r#" {"a": {"b": [1, {"c": "x\n\u00e9"}, true, null, 1e400, -0.10, 12345678901234567890123]}} "#;
        assert_eq!(text("/a/b/0", document).as_deref(), Some("1"));
        assert_eq!(text("/a/b/1/c", document).as_deref(), Some("x\né"));
        assert_eq!(text("/a/b/2", document).as_deref(), Some("true"));
        assert_eq!(text("/a/b/3", document), None);
        assert_eq!(text("/a/b/4", document).as_deref(), Some("1e400"));
        assert_eq!(text("/a/b/5", document).as_deref(), Some("-0.10"));
        assert_eq!(text("/a/b/6", document).as_deref(), Some("12345678901234567890123"));
        for absent in ["/a", "/a/b", "/a/b/7", "/a/b/01", "/a/b/-", "/x", "/a/b/0/c", "/"] {
            assert_eq!(text(absent, document), None, "{absent}");
        }
    }

    #[test]
    fn pointers_escape_slash_and_tilde_and_keys_their_own() {
        assert_eq!(text("/a~1b/~0", r#"{"a/b":{"~":"v"}}"#).as_deref(), Some("v"));
        assert_eq!(text("/id", r#"{"\u0069d":"v"}"#).as_deref(), Some("v"));
        assert_eq!(text("/", r#"{"":"v"}"#).as_deref(), Some("v"));
        assert!(
            Pointer::parse("id").is_err() && Pointer::parse("").is_err() && Pointer::parse("/~2").is_err()
        );
    }

    #[test]
    fn a_key_that_stands_twice_on_the_way_is_no_value() {
        assert_eq!(text("/id", r#"{"id":"a","id":"b"}"#), None);
        assert_eq!(text("/id", r#"{"id":"a","\u0069d":"a"}"#), None);
        assert_eq!(text("/a/id", r#"{"a":{"id":"x"},"a":1}"#), None);
        assert_eq!(text("/id", r#"{"x":1,"x":2,"id":"a"}"#).as_deref(), Some("a"));
    }

    #[test]
    fn a_document_that_is_not_well_formed_holds_nothing() {
        for bad in [
            r#"{"id":"a"} x"#,
            r#"{"id":"a""#,
            r#"{"id":"a",}"#,
            "\u{feff}{\"id\":\"a\"}",
            r#"{"id":"a"}{"id":"b"}"#,
            "",
            r#"{"id":"\ud800"}"#,
            r#"{'id':'a'}"#,
            r#"{"id":01}"#,
        ] {
            assert_eq!(text("/id", bad), None, "{bad}");
        }
        assert_eq!(Pointer::parse("/id").unwrap().text(b"{\"id\":\"\xff\"}"), None);
    }

    #[test]
    fn who_must_miss_nothing_finds_it_wherever_a_reader_could() {
        let may_be = |pointer: &str, document: &str, text: &str| {
            Pointer::parse(pointer).unwrap().may_be(document.as_bytes(), text)
        };
        for found in [
            r#"{"id":"a"}"#,
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"b","id":"a"}"#,
            r#"{"id":{"x":1},"\u0069d":"\u0061"}"#,
            "\u{feff}{\"id\":\"a\"}",
            r#"{"id":"a"} and so on"#,
            r#"{"id":"a"}} "#,
            "{\"id\":\"b\"}\n{\"id\":\"a\"}\n",
            r#"{"id":"a","cut off": [1, 2"#,
            r#"1 null {"id":"a"}"#,
        ] {
            assert!(may_be("/id", found, "a"), "{found}");
        }
        for not in [
            r#"{"id":"b"}"#,
            r#"{"x":{"id":"a"}}"#,
            r#"{"id":["a"]}"#,
            r#"{"id":null}"#,
            "",
            "id=a",
            "\u{feff}",
        ] {
            assert!(!may_be("/id", not, "a"), "{not}");
        }
        assert!(may_be("/a/1/id", r#"{"a":[0,{"id":7},0],"a":[]}"#, "7"));
        assert!(may_be("/a/1/id", r#"{"a":[],"a":[0,{"id":7},0]}"#, "7"));
        assert!(!may_be("/a/1/id", r#"{"a":[{"id":7}]}"#, "7"));
    }

    #[test]
    fn deep_nesting_beside_the_value_costs_no_stack() {
        let deep = format!(r#"{{"x":{}{},"id":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text("/id", &deep).as_deref(), Some("a"));
        let on_the_way = format!(r#"{{"id":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text("/id", &on_the_way), None);
    }

    #[test]
    fn elements_are_the_bytes_as_written() {
        let elements = Pointer::parse("/v").unwrap().elements(br#"{"v":[ {"a" : 1}, 2 ]}"#).unwrap();
        assert_eq!(elements, [&br#"{"a" : 1}"#[..], b"2"]);
        assert!(Pointer::parse("/v").unwrap().elements(br#"{"v":{}}"#).is_none());
    }

    /// Each by itself, and all together.
    fn both(pointers: &[&str], document: &[u8]) -> [Vec<Option<String>>; 2] {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
        [
            pointers.iter().map(|pointer| owned(pointer.text(document))).collect(),
            texts(&pointers, document).into_iter().map(owned).collect(),
        ]
    }

    #[test]
    fn many_values_are_found_as_each_by_itself() {
        let pointers =
            ["/a", "/a/b", "/a/b/1/c", "/a/b/01", "/a/b/0", "/x/y", "/twice", "/twice/in", "/a/deep/z", "/"];
        for document in [
            r#" {"a": {"b": [1, {"c": "x\n"}], "deep": {"z": -0.10}}, "x": 1e400, "twice": {"in": 1}, "": true} "#,
            r#"{"a": "v", "twice": {"in": 1}, "twice": {"in": 1}, "x": {"y": 1, "y": 2}}"#,
            r#"{"a": {"b": {"0": "k", "1": {"c": null}}}, "\u0061": 1}"#,
            r#"[{"a": 1}]"#,
            r#"{"a": 1} x"#,
            r#"{"a": 1"#,
            "7",
            "",
        ] {
            let [single, together] = both(&pointers, document.as_bytes());
            assert_eq!(single, together, "{document}");
        }
        let [single, together] = both(&["/a", "/b/c"], b"{\"o\":\"\xff\",\"a\":\"1\",\"b\":{\"c\":2}}");
        assert_eq!(single, together);
    }

    proptest! {
        #[test]
        fn any_document_gives_the_same_one_by_one_and_together(
            document in r#"([{}\[\],:"ab0]|"a":|"b":|\{"a":|1,|"x"){0,12}"#,
        ) {
            let [single, together] = both(&["/a", "/a/a", "/a/b/0", "/b", "/0", "/0/a"], document.as_bytes());
            prop_assert_eq!(single, together);
        }

        #[test]
        fn no_bytes_make_it_panic(document in proptest::collection::vec(any::<u8>(), 0..200), pointer in "(/[a-z0-9~/]{0,6}){1,4}") {
            if let Ok(pointer) = Pointer::parse(&pointer) {
                if let Some(text) = pointer.text(&document) {
                    prop_assert!(pointer.may_be(&document, &text));
                }
                let _ = pointer.may_be(&document, "x");
                let _ = pointer.elements(&document);
            }
        }

        #[test]
        fn a_pointer_prints_as_it_was_written(pointer in "(/[a-z0-9]{0,3}(~[01])?){1,4}") {
            prop_assert_eq!(Pointer::parse(&pointer).unwrap().to_string(), pointer);
        }

        #[test]
        fn any_string_comes_out_as_it_went_in(value in "\\PC{0,20}", key in "\\PC{0,5}") {
            let document = serde_json::json!({ "other": [1, 2], key.clone(): value.clone() }).to_string();
            prop_assume!(key != "other");
            let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
            prop_assert_eq!(text(&pointer, &document), Some(value));
        }
    }
}
