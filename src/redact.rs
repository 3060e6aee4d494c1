//! What of an event the operators' tools don't show: named headers and named values of JSON bodies. Pure; who shows
//! events (`admin`) asks here. What is stored and delivered is never touched.
//!
//! A body is changed only where a named value stands: all other bytes stay as they are. What can't be told apart is
//! hidden altogether: a body that is no well-formed JSON shows nothing, and of a key that stands twice both values go.

use std::borrow::Cow;

use serde::de::{Deserialize, IgnoredAny};

use crate::verify::{JsonPointer, decode_form};

/// In the place of what is hidden.
pub const HIDDEN: &str = "(hidden)";

/// What is hidden of the events of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Lower case.
    headers: Vec<String>,
    body: Vec<Pattern>,
    form: Vec<Field>,
}

/// A field of a form, as it is after decoding; or what stands within the JSON that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    within: Option<Pattern>,
}

/// A JSON pointer in which `*` stands for any key or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Is(String),
    Any,
}

impl Token {
    fn matches(&self, key: &str) -> bool {
        match self {
            Token::Is(own) => own == key,
            Token::Any => true,
        }
    }
}

impl Pattern {
    /// # Errors
    ///
    /// Says what a pointer looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        JsonPointer::parse(text)?;
        let token = |token: String| if token == "*" { Token::Any } else { Token::Is(token) };
        Ok(Self(tokens(text).map(token).collect()))
    }

    /// Whether one of two places is the other, or within it.
    fn touches(&self, pointer: &str) -> bool {
        self.0.iter().zip(tokens(pointer)).all(|(own, asked)| own.matches(&asked))
    }
}

/// Of a pointer that was found well-formed.
fn tokens(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

impl Rules {
    /// `headers` in any case.
    pub fn new(headers: &[String], body: Vec<Pattern>) -> Self {
        Self {
            headers: headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            body,
            form: Vec::new(),
        }
    }

    /// Credentials that stand in bodies: of which JSON, and of which fields of forms. What is no pointer is none.
    pub fn of_credentials(body: &[String], form: &[(String, Option<String>)]) -> Self {
        let field = |(name, within): &(String, Option<String>)| Field {
            name: name.clone(),
            within: within.as_ref().and_then(|pointer| Pattern::parse(pointer).ok()),
        };
        Self {
            headers: Vec::new(),
            body: body.iter().filter_map(|pointer| Pattern::parse(pointer).ok()).collect(),
            form: form.iter().map(field).collect(),
        }
    }

    /// These and those.
    pub fn and(&self, others: &Self) -> Self {
        let (mut headers, mut body, mut form) = (self.headers.clone(), self.body.clone(), self.form.clone());
        headers.extend(others.headers.iter().cloned());
        body.extend(others.body.iter().cloned());
        form.extend(others.form.iter().cloned());
        Self { headers, body, form }
    }

    pub fn hides_header(&self, name: &str) -> bool {
        self.headers.iter().any(|hidden| hidden.eq_ignore_ascii_case(name))
    }

    /// Whether something at this pointer, within it or around it is hidden.
    pub fn hides_at(&self, pointer: &str) -> bool {
        self.body.iter().any(|pattern| pattern.touches(pointer))
    }

    /// Whether what is taken from a place, written as in the config (`header:X-Card`, `body:/card`), is hidden.
    pub fn hides_place(&self, place: &str) -> bool {
        let plain = |rest: &str| rest.split('#').next().unwrap_or_default().to_owned();
        match (place.strip_prefix("header:"), place.strip_prefix("body:")) {
            (Some(name), _) => self.hides_header(&plain(name)),
            (_, Some(pointer)) => self.hides_at(&plain(pointer)),
            _ => false,
        }
    }

    /// A body as it may be shown. Borrowed where nothing is hidden.
    pub fn body<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        if body.is_empty() {
            return Cow::Borrowed(body);
        }
        // Where JSON is named as well, what is none shows nothing.
        if self.body.is_empty() && !self.form.is_empty() {
            return match self.form_body(body) {
                Some(shown) => Cow::Owned(shown),
                None => Cow::Borrowed(HIDDEN.as_bytes()),
            };
        }
        if self.body.is_empty() {
            return Cow::Borrowed(body);
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        if IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end()).is_err() {
            return Cow::Borrowed(HIDDEN.as_bytes());
        }
        match Walk::new(&self.body, body).run() {
            Some(shown) => shown,
            // Of a document that was found well-formed this can't be; if it is, nothing is shown.
            None => Cow::Borrowed(HIDDEN.as_bytes()),
        }
    }
}

impl Rules {
    /// A URL-encoded form without what is hidden of it; `None` if it has parts that are hidden, but is none.
    fn form_body(&self, body: &[u8]) -> Option<Vec<u8>> {
        // What comes in parts has lines; an encoded form has none.
        if body.trim_ascii().contains(&b'\n') || body.starts_with(b"{") || body.starts_with(b"[") {
            return None;
        }
        let mut shown = Vec::with_capacity(body.len());
        for (at, part) in body.split(|byte| *byte == b'&').enumerate() {
            if at > 0 {
                shown.push(b'&');
            }
            let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            let (name, value) = (&part[..end], part.get(end + 1..).unwrap_or_default());
            let decoded = decode_form(name);
            let mut hidden = self.form.iter().filter(|field| field.name.as_bytes() == &*decoded).peekable();
            if hidden.peek().is_none() {
                shown.extend_from_slice(part);
                continue;
            }
            let patterns: Option<Vec<Pattern>> = hidden.map(|field| field.within.clone()).collect();
            let value = match patterns {
                // The whole field.
                None => HIDDEN.as_bytes().to_vec(),
                Some(body) => {
                    let inner = Self { headers: Vec::new(), body, form: Vec::new() };
                    encode(&inner.body(&decode_form(value)))
                }
            };
            shown.extend_from_slice(name);
            shown.push(b'=');
            shown.extend(value);
        }
        Some(shown)
    }
}

/// As a form writes a value.
fn encode(value: &[u8]) -> Vec<u8> {
    let mut written = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b' ' => written.push(b'+'),
            plain if plain.is_ascii_alphanumeric() || b"-._*".contains(plain) => written.push(*plain),
            other => written.extend_from_slice(format!("%{other:02X}").as_bytes()),
        }
    }
    written
}

/// Once through a well-formed document, without recursion.
struct Walk<'p, 'b> {
    patterns: &'p [Pattern],
    body: &'b [u8],
    at: usize,
    /// The containers around the place, of which patterns hold.
    within: Vec<Within>,
    /// What is shown up to `copied`.
    shown: Vec<u8>,
    copied: usize,
}

struct Within {
    /// Patterns that all keys up to here meet.
    patterns: Vec<usize>,
    /// Of an array: which element is next.
    index: Option<usize>,
}

impl<'p, 'b> Walk<'p, 'b> {
    const fn new(patterns: &'p [Pattern], body: &'b [u8]) -> Self {
        Self { patterns, body, at: 0, within: Vec::new(), shown: Vec::new(), copied: 0 }
    }

    fn run(mut self) -> Option<Cow<'b, [u8]>> {
        let all: Vec<usize> = (0..self.patterns.len()).collect();
        self.value(all)?;
        while let Some(within) = self.within.last_mut() {
            self.at = spaces(self.body, self.at);
            match self.body.get(self.at)? {
                b'}' | b']' => {
                    self.at += 1;
                    self.within.pop();
                }
                b',' => self.at += 1,
                _ => {
                    let key = match &mut within.index {
                        Some(index) => {
                            *index += 1;
                            (*index - 1).to_string()
                        }
                        None => {
                            let end = string_end(self.body, self.at)?;
                            let key = serde_json::from_slice::<String>(self.body.get(self.at..end)?).ok()?;
                            self.at = spaces(self.body, end);
                            (self.body.get(self.at)? == &b':').then_some(())?;
                            self.at = spaces(self.body, self.at + 1);
                            key
                        }
                    };
                    let depth = self.within.len() - 1;
                    let of = &self.within.last()?.patterns;
                    let meets =
                        |at: &&usize| self.patterns[**at].0.get(depth).is_some_and(|t| t.matches(&key));
                    let next: Vec<usize> = of.iter().filter(meets).copied().collect();
                    if next.iter().any(|at| self.patterns[*at].0.len() == depth + 1) {
                        self.hide()?;
                    } else {
                        self.value(next)?;
                    }
                }
            }
        }
        if self.shown.is_empty() && self.copied == 0 {
            return Some(Cow::Borrowed(self.body));
        }
        self.shown.extend_from_slice(&self.body[self.copied..]);
        Some(Cow::Owned(self.shown))
    }

    /// Goes into the value that begins here, if a pattern may hold within, else behind it.
    fn value(&mut self, patterns: Vec<usize>) -> Option<()> {
        self.at = spaces(self.body, self.at);
        match self.body.get(self.at)? {
            b'{' | b'[' if !patterns.is_empty() => {
                let index = (self.body[self.at] == b'[').then_some(0);
                self.within.push(Within { patterns, index });
                self.at += 1;
            }
            _ => self.at = value_end(self.body, self.at)?,
        }
        Some(())
    }

    fn hide(&mut self) -> Option<()> {
        let end = value_end(self.body, self.at)?;
        self.shown.extend_from_slice(self.body.get(self.copied..self.at)?);
        self.shown.push(b'"');
        self.shown.extend_from_slice(HIDDEN.as_bytes());
        self.shown.push(b'"');
        (self.at, self.copied) = (end, end);
        Some(())
    }
}

fn spaces(body: &[u8], from: usize) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// Behind the string that begins here.
fn string_end(body: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', body.get(at..)?)?;
        if body[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Behind the value that begins here.
fn value_end(body: &[u8], from: usize) -> Option<usize> {
    let (mut at, mut depth) = (from, 0usize);
    loop {
        match body.get(at) {
            Some(b'"') => at = string_end(body, at)?,
            Some(b'{' | b'[') => {
                depth += 1;
                at += 1;
            }
            Some(b'}' | b']') if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') if depth > 0 => {
                at += 1;
                continue;
            }
            Some(_) => {
                let rest = body.get(at..)?;
                let length = rest
                    .iter()
                    .take_while(|b| !matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'));
                let length = length.count();
                if length == 0 {
                    return None;
                }
                at += length;
            }
            None => return None,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(body: &[&str]) -> Rules {
        Rules::new(&["X-Card".into()], body.iter().map(|text| Pattern::parse(text).unwrap()).collect())
    }
    fn shown(body: &[&str], document: &str) -> String {
        String::from_utf8(rules(body).body(document.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn credentials_in_bodies_are_hidden_where_they_stand() {
        let of = |body: &[&str], form: &[(&str, Option<&str>)], text: &str| {
            let body: Vec<String> = body.iter().map(|p| (*p).to_owned()).collect();
            let form: Vec<_> = form.iter().map(|(n, p)| ((*n).to_owned(), p.map(str::to_owned))).collect();
            String::from_utf8(Rules::of_credentials(&body, &form).body(text.as_bytes()).into_owned()).unwrap()
        };
        assert_eq!(
            of(&["/value/*/state"], &[], r#"{"value":[{"state":"s3cret","a":1},{"state":"s3cret"}]}"#),
            r#"{"value":[{"state":"(hidden)","a":1},{"state":"(hidden)"}]}"#
        );
        assert_eq!(of(&[], &[("token", None)], "a=1&to%6ben=s3cret&b"), "a=1&to%6ben=(hidden)&b");
        let within = [("data", Some("/token"))];
        assert_eq!(
            of(&[], &within, "data=%7B%22token%22%3A%22s3cret%22%2C%22a%22%3A%22b+c%22%7D&x=1"),
            "data=%7B%22token%22%3A%22%28hidden%29%22%2C%22a%22%3A%22b+c%22%7D&x=1"
        );
        // What can't be told apart shows nothing.
        for odd in
            ["data=%7B%22token%22%3A%22s3cret", r#"{"data":"s3cret"}"#, "--x\r\nname=\"data\"\r\n\r\ns3cret"]
        {
            assert!(!of(&[], &within, odd).contains("s3cret"), "{odd}");
        }
    }

    #[test]
    fn named_values_go_and_every_other_byte_stays() {
        let document = "{ \"card\" : {\"number\":\"4242\", \"brand\":\"v\\u0069sa\"}, \"items\":[{\"e\":1},{\"e\":[2,{}]}] }\n";
        assert_eq!(
            shown(&["/card/number", "/items/*/e"], document),
            "{ \"card\" : {\"number\":\"(hidden)\", \"brand\":\"v\\u0069sa\"}, \"items\":[{\"e\":\"(hidden)\"},{\"e\":\"(hidden)\"}] }\n"
        );
        assert_eq!(shown(&["/card"], r#"{"card":{"a":"}\"]"},"b":1}"#), r#"{"card":"(hidden)","b":1}"#);
        assert_eq!(shown(&["/1"], r"[1,2,3]"), r#"[1,"(hidden)",3]"#);
        assert_eq!(shown(&["/a~1b"], r#"{"a/b":-1.5e3}"#), r#"{"a/b":"(hidden)"}"#);
        assert!(matches!(rules(&["/x"]).body(br#"{"y":1}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_written_otherwise_is_the_same_and_both_of_two_go() {
        assert_eq!(
            shown(&["/card/no"], r#"{"c\u0061rd":{"n\u006f":1},"card":{"no":2,"no":3}}"#),
            r#"{"c\u0061rd":{"n\u006f":"(hidden)"},"card":{"no":"(hidden)","no":"(hidden)"}}"#
        );
    }

    #[test]
    fn what_is_no_json_shows_nothing() {
        for document in ["card=4242", "{\"card\":4242", "{\"card\":4242} x", "\u{feff}{\"card\":4242}", "\0"]
        {
            assert_eq!(shown(&["/card"], document), HIDDEN, "{document:?}");
            assert_eq!(shown(&[], document), document);
        }
        assert_eq!(shown(&["/card"], ""), "");
    }

    #[test]
    fn what_is_around_or_within_something_hidden_is_not_told_either() {
        let rules = rules(&["/card/number", "/items/*/e"]);
        for hidden in ["/card", "/card/number", "/card/number/0", "/items/7/e", "/items"] {
            assert!(rules.hides_at(hidden), "{hidden}");
        }
        for open in ["/card/brand", "/id", "/items/7/f"] {
            assert!(!rules.hides_at(open), "{open}");
        }
        assert!(rules.hides_header("x-CARD") && rules.hides_place("header:X-Card"));
        assert!(rules.hides_place("body:/card/number") && rules.hides_place("body:/card/number#base64"));
        assert!(!rules.hides_place("body:/id") && !rules.hides_place("query:card"));
        assert!(Pattern::parse("card").is_err());
    }

    proptest! {
        #[test]
        fn a_hidden_value_is_nowhere_and_the_rest_is_the_same_document(
            keys in proptest::collection::vec("[ab\"\\\\é]{1,2}", 1..4),
            beside in proptest::collection::vec(("[c-f]{1,3}", "\\PC{0,8}"), 0..4),
        ) {
            use serde_json::{Value, json};
            let build = |secret: Value| {
                let mut document = secret;
                for key in keys.iter().rev() {
                    let mut object = serde_json::Map::new();
                    object.extend(beside.iter().map(|(k, v)| (k.clone(), json!([v, {"k": v}]))));
                    object.insert(key.clone(), document);
                    document = Value::Object(object);
                }
                document
            };
            let escaped = keys.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")));
            let pointer: String = escaped.collect();
            let shown = shown(&[&pointer], &build(json!({"secret": ["zzzz", {}]})).to_string());
            prop_assert!(!shown.contains("zzzz"));
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), build(json!(HIDDEN)));
        }

        #[test]
        fn no_bytes_make_it_panic(document: Vec<u8>, text in "[\\[\\]{}\",:\\\\a1 ]{0,24}") {
            let _ = rules(&["/a/*", "/*/a"]).body(&document);
            let _ = rules(&["/a/*", "/*/a"]).body(text.as_bytes());
        }
    }
}
