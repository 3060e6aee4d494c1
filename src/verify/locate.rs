//! One place in a request: `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`, `form:FIELD#/pointer` (JSON inside
//! a form field), `body:/json/pointer`; and values within such a place: `PLACE#base64/pointer` (JSON in base64) and
//! `PLACE#jwt/pointer` (a claim of the token that stands there).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use super::encoding::decode_base64_secret;
use super::form;
use super::json::{self, Pointer};
use crate::message::Request;

/// Something that may be there once is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// What is looked at: a request, with its body or a part of it.
#[derive(Clone, Copy)]
pub(super) struct View<'r> {
    pub(super) request: &'r Request,
    /// The request's body, or one element of it where a scheme signs each element.
    pub(super) body: &'r [u8],
    /// What is read of the body's JSON, where several values are: see [`Values`].
    pub(super) values: Option<&'r Values<'r>>,
}

impl<'r> View<'r> {
    pub(super) fn of(request: &'r Request) -> Self {
        Self { request, body: &request.body, values: None }
    }
    /// The same request with another body.
    pub(super) fn of_body(request: &'r Request, body: &'r [u8]) -> Self {
        Self { request, body, values: None }
    }
}

/// Values of a JSON body that are asked for again and again: all are read at once, when the first is asked for.
pub(super) struct Values<'r> {
    pointers: &'r [Pointer],
    body: &'r [u8],
    found: OnceCell<Vec<Option<Value>>>,
}

/// A value, without a copy where it stands in the body as it is.
enum Value {
    Within(std::ops::Range<usize>),
    Unescaped(String),
}

impl<'r> Values<'r> {
    pub(super) fn of(pointers: &'r [Pointer], body: &'r [u8]) -> Self {
        Self { pointers, body, found: OnceCell::new() }
    }

    /// `None` if it is none of those that are read together.
    fn get(&'r self, pointer: &Pointer) -> Option<Option<&'r [u8]>> {
        let at = self.pointers.iter().position(|known| known == pointer)?;
        let found = self.found.get_or_init(|| {
            let value = |text: Cow<'_, str>| match text {
                // It is a part of the body.
                Cow::Borrowed(text) => {
                    let start = (text.as_ptr() as usize).saturating_sub(self.body.as_ptr() as usize);
                    Value::Within(start..start + text.len())
                }
                Cow::Owned(text) => Value::Unescaped(text),
            };
            json::texts(self.pointers, self.body).into_iter().map(|text| text.map(value)).collect()
        });
        Some(match found.get(at) {
            Some(Some(Value::Within(range))) => self.body.get(range.clone()),
            Some(Some(Value::Unescaped(text))) => Some(text.as_bytes()),
            Some(None) | None => None,
        })
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// Lower case.
    Header(Box<str>),
    Query(Box<str>),
    /// A parameter of the route's path, as it stands in the sent path.
    Path(Box<str>),
    Form(Box<str>),
    FormJson(Box<str>, Pointer),
    Body(Pointer),
    /// The whole body.
    Whole,
    /// A value in the JSON that the text at another place is a dress of.
    Inside(Box<Location>, Dress, Pointer),
}

/// How JSON is written where it must be one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dress {
    /// Base64, in either alphabet, with or without padding.
    Base64,
    /// The claims of a JSON Web Token. Nothing is verified here.
    Jwt,
}

impl Dress {
    fn mark(self) -> &'static str {
        match self {
            Dress::Base64 => "#base64",
            Dress::Jwt => "#jwt",
        }
    }

    /// The JSON.
    fn undo(self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Dress::Base64 => decode_base64_secret(text),
            Dress::Jwt => {
                let text = super::credentials::after_scheme(text, "bearer").unwrap_or(text);
                decode_base64_secret(text.split(|b| *b == b'.').nth(1)?)
            }
        }
    }
}

/// The kinds of places, for messages.
pub(super) const KINDS: &[&str] = &["header", "query", "path", "form", "body"];

impl Location {
    /// The error says what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        for dress in [Dress::Base64, Dress::Jwt] {
            if let Some((place, pointer)) = text.split_once(&format!("{}/", dress.mark())) {
                let place = if place == "body" { Location::Whole } else { Self::parse(place)? };
                let pointer = Pointer::parse(&format!("/{pointer}"))?;
                return Ok(Location::Inside(place.into(), dress, pointer));
            }
        }
        let Some((kind, name)) = text.split_once(':') else {
            return Err(format!(
                "`{text}` says no place: write header:NAME, query:NAME, path:NAME, form:FIELD or body:/json/pointer"
            ));
        };
        if name.is_empty() {
            return Err(format!("`{kind}:` lacks a name"));
        }
        match kind {
            "header" if is_token(name) => Ok(Location::Header(name.to_ascii_lowercase().into())),
            "header" => Err(format!("`{name}` is not a header name")),
            "query" => Ok(Location::Query(name.into())),
            "path" => Ok(Location::Path(name.into())),
            "form" => match name.split_once("#/") {
                Some((field, pointer)) if !field.is_empty() => {
                    Ok(Location::FormJson(field.into(), Pointer::parse(&format!("/{pointer}"))?))
                }
                _ => Ok(Location::Form(name.into())),
            },
            "body" => Ok(Location::Body(Pointer::parse(name)?)),
            other => Err(match super::nearest(other, KINDS.iter().copied()) {
                Some(near) => format!("unknown place `{other}:`, did you mean `{near}:`?"),
                None => format!(
                    "unknown place `{other}:`, known are header, query, path, form and body (a JSON pointer)"
                ),
            }),
        }
    }

    /// The value, header values without the white space around them.
    pub(super) fn find<'r>(&self, view: View<'r>) -> Result<Option<Cow<'r, [u8]>>, Ambiguous> {
        let head = &view.request.head;
        match self {
            Location::Header(name) => match head.headers.only(name) {
                Ok(value) => Ok(value.map(|v| Cow::Borrowed(v.trim_ascii()))),
                Err(_) => Err(Ambiguous),
            },
            Location::Query(name) => form::only(head.query().unwrap_or_default().as_bytes(), name),
            Location::Path(name) => {
                Ok(view.request.params.get(name).map(|value| Cow::Borrowed(value.as_bytes())))
            }
            Location::Form(name) => form::field(view, name),
            Location::FormJson(name, pointer) => Ok(form::field(view, name)?
                .and_then(|json| pointer.text(&json).map(|text| Cow::Owned(text.into_owned().into_bytes())))),
            Location::Whole => Ok(Some(Cow::Borrowed(view.body)).filter(|body| !body.is_empty())),
            Location::Inside(place, dress, pointer) => {
                let json = place.find(view)?.and_then(|text| dress.undo(&text));
                Ok(json.and_then(|json| {
                    pointer.text(&json).map(|text| Cow::Owned(text.into_owned().into_bytes()))
                }))
            }
            Location::Body(pointer) => {
                if let Some(known) = view.values.and_then(|values| values.get(pointer)) {
                    return Ok(known.map(Cow::Borrowed));
                }
                Ok(pointer.text(view.body).map(|text| match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                }))
            }
        }
    }

    /// What is read of the body's JSON.
    pub(super) fn pointer(&self) -> Option<&Pointer> {
        match self {
            Location::Body(pointer) => Some(pointer),
            _ => None,
        }
    }

    /// The header that is read, lower case.
    pub(super) fn header(&self) -> Option<&str> {
        match self {
            Location::Header(name) => Some(name),
            Location::Inside(place, ..) => place.header(),
            _ => None,
        }
    }

    /// Whether it is a header by itself, which can be added to a request.
    pub(super) fn is_header(&self) -> bool {
        matches!(self, Location::Header(_))
    }

    /// Where the token is whose claim this is.
    pub(super) fn token(&self) -> Option<&Location> {
        match self {
            Location::Inside(place, Dress::Jwt, _) => Some(place),
            _ => None,
        }
    }

    /// Whether it is a parameter of the path.
    pub(super) fn in_path(&self) -> bool {
        match self {
            Location::Path(_) => true,
            Location::Inside(place, ..) => place.in_path(),
            _ => false,
        }
    }

    /// Whether the body holds it.
    pub(super) fn in_body(&self) -> bool {
        match self {
            Location::Form(_) | Location::FormJson(..) | Location::Body(_) | Location::Whole => true,
            Location::Inside(place, ..) => place.in_body(),
            Location::Header(_) | Location::Query(_) | Location::Path(_) => false,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Header(name) => write!(f, "header:{name}"),
            Location::Query(name) => write!(f, "query:{name}"),
            Location::Path(name) => write!(f, "path:{name}"),
            Location::Form(name) => write!(f, "form:{name}"),
            Location::FormJson(name, pointer) => write!(f, "form:{name}#{pointer}"),
            Location::Body(pointer) => write!(f, "body:{pointer}"),
            Location::Whole => f.write_str("body"),
            Location::Inside(place, dress, pointer) => write!(f, "{place}{}{pointer}", dress.mark()),
        }
    }
}

/// RFC 9110's `token`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::request;

    fn find(location: &str, request: &Request) -> Result<Option<String>, Ambiguous> {
        let found = Location::parse(location).unwrap().find(View::of(request))?;
        Ok(found.map(|v| String::from_utf8_lossy(&v).into_owned()))
    }

    #[test]
    fn each_kind_of_place_is_found() {
        let mut r = request(
            "/hooks/a%20b?q=x+y&two=1&two=2",
            &[("X-Id", " v "), ("x-two", "1"), ("X-Two", "1")],
            b"f=1&j=%7B%22a%22%3A%22b%22%7D",
        );
        r.params.0.push(("account".into(), "a%20b".into()));
        assert_eq!(find("header:x-ID", &r), Ok(Some("v".into())));
        assert_eq!(find("header:x-two", &r), Err(Ambiguous));
        assert_eq!(find("query:q", &r), Ok(Some("x y".into())));
        assert_eq!(find("query:two", &r), Err(Ambiguous));
        assert_eq!(find("path:account", &r), Ok(Some("a%20b".into())));
        assert_eq!(find("form:f", &r), Ok(Some("1".into())));
        assert_eq!(find("form:j#/a", &r), Ok(Some("b".into())));
        assert_eq!(find("body:/id", &r), Ok(None));
        assert_eq!(find("body:/id", &request("/", &[], br#"{"id":7}"#)), Ok(Some("7".into())));
    }

    #[test]
    fn values_that_are_read_together_are_those_that_are_read_alone() {
        let r = request("/", &[], br#"{"a": {"b": 7, "c": "x\ny"}, "d": "z"}"#);
        let places =
            ["body:/a/b", "body:/a/c", "body:/d", "body:/e"].map(|text| Location::parse(text).unwrap());
        let pointers: Vec<Pointer> = places.iter().filter_map(Location::pointer).take(3).cloned().collect();
        let values = Values::of(&pointers, &r.body);
        for place in &places {
            let together = place.find(View { values: Some(&values), ..View::of(&r) });
            assert_eq!(together, place.find(View::of(&r)), "{place}");
        }
        assert!(matches!(values.get(&pointers[0]), Some(Some(b"7"))));
        let other = Pointer::parse("/e").unwrap();
        assert!(values.get(&other).is_none());
    }

    #[test]
    fn a_field_is_found_in_both_types_of_forms() {
        let multipart = b"--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n1%20+2\r\n--x\r\nContent-Disposition: \
            form-data; name=\"j\"\r\nContent-Type: application/json\r\n\r\n{\"a\":\"b\"}\r\n--x--\r\n";
        let kind = ("Content-Type", "multipart/form-data; boundary=\"x\"");
        let r = request("/", &[kind], multipart);
        assert_eq!(find("form:f", &r), Ok(Some("1%20+2".into())), "nothing is decoded");
        assert_eq!(find("form:j#/a", &r), Ok(Some("b".into())));
        assert_eq!(find("form:x", &r), Ok(None));
        // The type decides, and it must be one.
        assert_eq!(find("form:f", &request("/", &[kind], b"f=1")), Err(Ambiguous));
        assert_eq!(find("form:f", &request("/", &[kind, kind], multipart)), Err(Ambiguous));
        assert_eq!(find("form:f", &request("/", &[], multipart)), Ok(None));
    }

    #[test]
    fn a_wrong_place_is_explained() {
        assert!(Location::parse("heder:X").unwrap_err().contains("did you mean `header:`"));
        assert!(Location::parse("X-Id").unwrap_err().contains("header:NAME"));
        assert!(Location::parse("body:id").unwrap_err().contains("begins with `/`"));
        assert!(Location::parse("header:a b").unwrap_err().contains("not a header name"));
        assert!(Location::parse("header:").is_err());
    }
}
