//! A body as it may have been before something on its way changed it: line ends, white space, JSON that was read and
//! written again.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::{count, printable};

/// A body that may have been signed in the place of the one that is here.
pub(in crate::verify) struct Other {
    pub(in crate::verify) code: &'static str,
    /// Completes "the signature is right for …".
    pub(in crate::verify) text: &'static str,
    pub(in crate::verify) body: Vec<u8>,
}

/// The longest body whose JSON is rewritten, in bytes.
const MAX_JSON: usize = 4 * 1024 * 1024;

/// Bodies that differ from `body`, each in one way.
pub(in crate::verify) fn others(body: &[u8]) -> Vec<Other> {
    let mut found: Vec<Other> = Vec::new();
    let mut add = |code, text, other: Cow<'_, [u8]>| {
        if other != body && found.iter().all(|known| known.body != *other) {
            found.push(Other { code, text, body: other.into_owned() });
        }
    };
    let with = |end: &[u8]| Cow::Owned([body, end].concat());
    if let Some(shorter) = body.strip_suffix(b"\n") {
        let text =
            "this body without its final newline: something on the way (or a file it was saved in) added one";
        add("final_newline", text, Cow::Borrowed(shorter.strip_suffix(b"\r").unwrap_or(shorter)));
        add("final_newline", text, Cow::Borrowed(shorter));
    }
    let missing = "this body with a final newline: something on the way took it off";
    add("missing_newline", missing, with(b"\n"));
    add("missing_newline", missing, with(b"\r\n"));
    add("line_ends", "this body with LF line ends in the place of CRLF", Cow::Owned(without_cr(body)));
    add("line_ends", "this body with CRLF line ends in the place of LF", Cow::Owned(with_cr(body)));
    add("white_space", "this body without the white space around it", Cow::Borrowed(body.trim_ascii()));
    if let Some(plain) = body.strip_prefix(b"\xef\xbb\xbf") {
        add("byte_order_mark", "this body without its byte order mark", Cow::Borrowed(plain));
    }
    if !body.is_empty() && body.len() <= MAX_JSON && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        const COMPACT: &str = "this JSON written compactly: something on the way read it and wrote it again";
        const SPACED: &str =
            "this JSON with spaces behind `,` and `:`: something on the way read it and wrote it again";
        const PRETTY: &str =
            "this JSON with line breaks and indentation: something on the way read it and wrote it again";
        const ESCAPED: &str = "this JSON with other escapes: something on the way read it and wrote it again";
        let forms = [
            (Spaces::None, COMPACT),
            (Spaces::One, SPACED),
            (Spaces::Indent(2), PRETTY),
            (Spaces::Indent(4), PRETTY),
        ];
        for (spaces, text) in forms {
            let written = rewritten(body, spaces);
            add("json_rewritten", text, Cow::Borrowed(&written));
            for escapes in [
                ascii_only(&written),
                unescaped(&written),
                slashes_escaped(&written),
                slashes_plain(&written),
            ] {
                let text = if spaces == Spaces::None { ESCAPED } else { text };
                add("json_rewritten", text, Cow::Owned(escapes));
            }
        }
        for escapes in [ascii_only(body), unescaped(body), slashes_escaped(body), slashes_plain(body)] {
            add("json_rewritten", ESCAPED, Cow::Owned(escapes));
        }
    }
    add("empty_body", "an empty body", Cow::Borrowed(b""));
    found
}

/// Where the body that is here and the one that was signed begin to differ. `before`: bytes that stand before the body in
/// what is signed.
pub(in crate::verify) fn difference(here: &[u8], there: &[u8], before: usize) -> String {
    let at = first_difference(here, there);
    format!(
        " ({} here, {} there; the first difference is at byte {}: here {}, there {})",
        count(here.len(), "byte"),
        there.len(),
        before + at,
        from(here, at),
        from(there, at)
    )
}

/// How many bytes are the same from the beginning on.
pub(super) fn first_difference(here: &[u8], there: &[u8]) -> usize {
    here.iter().zip(there).take_while(|(a, b)| a == b).count()
}

/// The first bytes behind `at`, to be shown.
pub(super) fn from(bytes: &[u8], at: usize) -> String {
    match bytes.get(at..).unwrap_or_default() {
        [] => "the end".to_owned(),
        rest => format!("`{}`", printable(rest, 12)),
    }
}

fn without_cr(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    for (at, byte) in body.iter().enumerate() {
        if !(*byte == b'\r' && body.get(at + 1) == Some(&b'\n')) {
            out.push(*byte);
        }
    }
    out
}

fn with_cr(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 16);
    for (at, byte) in body.iter().enumerate() {
        if *byte == b'\n' && (at == 0 || body[at - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

/// The white space between a JSON's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spaces {
    None,
    /// One behind each `,` and `:`.
    One,
    /// Line breaks, so many spaces a level.
    Indent(usize),
}

/// Valid JSON with other white space: nothing else of it changes, neither order nor numbers.
fn rewritten(json: &[u8], spaces: Spaces) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 4);
    let mut depth = 0usize;
    let mut at = 0;
    let line = |out: &mut Vec<u8>, depth: usize| {
        if let Spaces::Indent(by) = spaces {
            out.push(b'\n');
            out.resize(out.len() + by * depth, b' ');
        }
    };
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'"' => {
                out.push(byte);
                let end = string_end(json, at);
                out.extend_from_slice(&json[at..end]);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte);
                let next = json[at..].iter().find(|b| !b.is_ascii_whitespace());
                if matches!(next, Some(b'}' | b']')) {
                    continue;
                }
                depth += 1;
                line(&mut out, depth);
            }
            b'}' | b']' => {
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                match spaces {
                    Spaces::None => {}
                    Spaces::One => out.push(b' '),
                    Spaces::Indent(_) => line(&mut out, depth),
                }
            }
            b':' => {
                out.push(byte);
                if spaces != Spaces::None {
                    out.push(b' ');
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// Behind the closing quote of the string whose inside begins at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = json.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    json.len()
}

/// With `\uXXXX` for whatever is not ASCII.
fn ascii_only(json: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(json) else { return json.to_vec() };
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for char in text.chars() {
        if char.is_ascii() {
            out.push(char);
        } else {
            for unit in char.encode_utf16(&mut units) {
                out += &format!("\\u{unit:04x}");
            }
        }
    }
    out.into_bytes()
}

/// With the characters themselves for `\uXXXX`, but for those that must be escaped.
fn unescaped(json: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(json) else { return json.to_vec() };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let unit =
            |text: &str| text.strip_prefix("\\u").and_then(|hex| u16::from_str_radix(hex.get(..4)?, 16).ok());
        let (char, taken) = match unit(rest) {
            None => (None, 0),
            Some(first @ 0xD800..0xDC00) => match rest.get(6..).and_then(unit) {
                Some(second) => (char::decode_utf16([first, second]).next().and_then(Result::ok), 12),
                None => (None, 0),
            },
            Some(unit) => (char::from_u32(u32::from(unit)), 6),
        };
        match char.filter(|char| !char.is_ascii()) {
            Some(char) => {
                out.push(char);
                rest = &rest[taken..];
            }
            None => {
                // The backslash and what it escapes, so that a second backslash is not taken for a first one.
                let end = rest.char_indices().nth(2).map_or(rest.len(), |(end, _)| end);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
        }
    }
    out.push_str(rest);
    out.into_bytes()
}

/// With `\/` for each `/`, as some languages write JSON.
fn slashes_escaped(json: &[u8]) -> Vec<u8> {
    with_slashes(json, b"\\/")
}

fn slashes_plain(json: &[u8]) -> Vec<u8> {
    with_slashes(json, b"/")
}

/// Every slash written as `slash`, whether it was escaped or not. A backslash belongs to the byte behind it.
fn with_slashes(json: &[u8], slash: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + 16);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match (byte, byte == &b'\\') {
            (b'/', _) => out.extend_from_slice(slash),
            (_, false) => out.push(*byte),
            (_, true) => match bytes.next() {
                Some(b'/') => out.extend_from_slice(slash),
                escaped => {
                    out.push(*byte);
                    out.extend(escaped);
                }
            },
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backslash_before_a_slash_keeps_its_own() {
        assert_eq!(slashes_plain(br#"["\\/","\/"]"#), br#"["\\/","/"]"#);
        assert_eq!(slashes_escaped(br#"["\\/","\/"]"#), br#"["\\\/","\/"]"#);
    }

    #[test]
    fn json_is_written_as_the_usual_writers_do() {
        let json = br#"{"a": [1,2 ,{}], "b":"x, y: \" z" ,"c":[ ]}"#;
        let text = |spaces| String::from_utf8(rewritten(json, spaces)).unwrap();
        assert_eq!(text(Spaces::None), r#"{"a":[1,2,{}],"b":"x, y: \" z","c":[]}"#);
        assert_eq!(text(Spaces::One), r#"{"a": [1, 2, {}], "b": "x, y: \" z", "c": []}"#);
        let pretty =
            "{\n  \"a\": [\n    1,\n    2,\n    {}\n  ],\n  \"b\": \"x, y: \\\" z\",\n  \"c\": []\n}";
        assert_eq!(text(Spaces::Indent(2)), pretty);
    }

    #[test]
    fn escapes_come_and_go() {
        assert_eq!(ascii_only("ü😀a".as_bytes()), br"\u00fc\ud83d\ude00a");
        assert_eq!(unescaped(br"\u00fc\ud83d\ude00\u0041\n\\u00fc"), "ü😀\\u0041\\n\\\\u00fc".as_bytes());
        assert_eq!(slashes_escaped(br"a/b\/c"), br"a\/b\/c");
        assert_eq!(slashes_plain(br"a/b\/c"), br"a/b/c");
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>, text in ".{0,40}") {
            let _ = (others(&body), others(text.as_bytes()), unescaped(text.as_bytes()));
        }

        #[test]
        fn what_is_rewritten_means_the_same(value in any_json()) {
            let json = serde_json::to_vec(&value).unwrap();
            for other in others(&json).iter().filter(|other| other.code == "json_rewritten") {
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&other.body).unwrap(), &value);
            }
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::hash_map("[a-z/\"ü]{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
