//! Requests that are not signed yet: puts what a scheme reads where a sender would put it. Headers and query parameters
//! are added; in the body, whose form is the sender's own, the draft holds [`SIGNATURE`] where the signature belongs.

use std::fmt::Write;

use super::form;
use super::json::Pointer;
use super::locate::{Location, View};
use super::sign::{SignError, with_headers};
use crate::message::Request;

/// Stands in a body where the signature (or the token) belongs.
pub(super) const SIGNATURE: &str = "${signature}";

/// Adds a value that the scheme reads, unless the request has one already. Only to headers and the query.
pub(super) fn add(request: &mut Request, location: &Location, value: &str) -> Result<(), SignError> {
    match location.find(View::of(request)) {
        Ok(Some(_)) => Ok(()),
        Ok(None) if matches!(location, Location::Header(_) | Location::Query(_)) => {
            put(request, location, &[value.to_owned()])
        }
        Ok(None) => Err(SignError::Lacks(format!("{location} is missing"))),
        Err(_) => Err(SignError::Lacks(format!("{location} is there twice"))),
    }
}

/// The place among `from` where the signature belongs: that in the body which is kept free for it, else the first that
/// can be added. `each`: the array whose elements each carry their own.
pub(super) fn free<'l>(
    request: &Request,
    from: &'l [Location],
    each: Option<&Pointer>,
) -> Result<&'l Location, SignError> {
    let body = each.and_then(|each| each.elements(&request.body)?.first().copied()).unwrap_or(&request.body);
    let view = View::of_body(request, body);
    let is_free = |location: &&Location| {
        let value = location.find(view).ok().flatten();
        location.in_body() && value.is_some_and(|value| contains(&value, SIGNATURE.as_bytes()))
    };
    let added =
        |location: &&Location| each.is_none() && matches!(location, Location::Header(_) | Location::Query(_));
    from.iter().find(is_free).or_else(|| from.iter().find(added)).ok_or_else(|| {
        let places: Vec<String> = from.iter().map(ToString::to_string).collect();
        SignError::Lacks(format!(
            "the body must hold `{SIGNATURE}` in {}, where the signature belongs",
            places.join(" or ")
        ))
    })
}

/// Puts the signatures there: one, or one for each element of the body.
pub(super) fn put(request: &mut Request, location: &Location, values: &[String]) -> Result<(), SignError> {
    match (location, values) {
        (Location::Header(name), [value]) => {
            *request = with_headers(request, &[(name.to_string(), value.clone())]);
        }
        (Location::Query(name), [value]) => {
            let separator = if request.head.target.contains('?') { '&' } else { '?' };
            let added = format!("{separator}{}={}", form_encoded(name), form_encoded(value));
            request.head.target.push_str(&added);
        }
        (Location::Form(_) | Location::FormJson(..) | Location::Body(_), _) => {
            let plain = form::is_multipart(View::of(request));
            let written: Vec<String> = values.iter().map(|value| in_body(location, value, plain)).collect();
            request.body = filled(&request.body, &written)
                .ok_or_else(|| {
                    SignError::Lacks(format!("the body must hold `{SIGNATURE}` once for each signature"))
                })?
                .into();
        }
        _ => return Err(SignError::Lacks(format!("{location} can't be written"))),
    }
    Ok(())
}

/// A value as it is written at a place of the body.
fn in_body(location: &Location, value: &str, plain: bool) -> String {
    let json = || serde_json::Value::from(value).to_string();
    let bare = |json: String| json[1..json.len() - 1].to_owned();
    match location {
        Location::Form(_) if plain => value.to_owned(),
        Location::Form(_) => form_encoded(value),
        Location::FormJson(..) if plain => bare(json()),
        Location::FormJson(..) => form_encoded(&bare(json())),
        _ => bare(json()),
    }
}

fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// `body` with its free places filled in order; `None` if there are more or fewer of them than values.
fn filled(body: &[u8], values: &[String]) -> Option<Vec<u8>> {
    let mut filled = Vec::with_capacity(body.len() + 64);
    let mut rest = body;
    for value in values {
        let at = position(rest, SIGNATURE.as_bytes())?;
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(value.as_bytes());
        rest = &rest[at + SIGNATURE.len()..];
    }
    filled.extend_from_slice(rest);
    (!contains(rest, SIGNATURE.as_bytes())).then_some(filled)
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    position(text, what).is_some()
}

fn position(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::request;

    fn at(text: &str) -> Location {
        Location::parse(text).unwrap()
    }

    #[test]
    fn a_value_reads_as_it_was_put() {
        let value = "a b|\"é\"&=+%\\".to_owned();
        for (place, body) in [
            ("query:s", ""),
            ("form:s", "a=1&s=${signature}"),
            ("form:d#/s", "d=%7B%22s%22%3A%22${signature}%22%7D"),
            ("body:/s", r#"{"s":"${signature}"}"#),
        ] {
            let (mut r, place) = (request("/in?x=1", &[], body.as_bytes()), at(place));
            assert_eq!(free(&r, std::slice::from_ref(&place), None), Ok(&place));
            put(&mut r, &place, std::slice::from_ref(&value)).unwrap();
            assert_eq!(place.find(View::of(&r)).unwrap().unwrap(), value.as_bytes(), "{place}");
        }
    }

    #[test]
    fn each_element_gets_its_own() {
        let each = Pointer::parse("/v").unwrap();
        let mut r = request("/", &[], br#"{"v":[{"s":"${signature}"},{"s":"${signature}"}]}"#);
        let place = at("body:/s");
        assert_eq!(free(&r, std::slice::from_ref(&place), Some(&each)), Ok(&place));
        assert!(put(&mut r.clone(), &place, &["1".into()]).is_err());
        put(&mut r, &place, &["1".into(), "2".into()]).unwrap();
        assert_eq!(&r.body[..], br#"{"v":[{"s":"1"},{"s":"2"}]}"#);
    }

    #[test]
    fn what_can_t_be_added_is_named() {
        let mut r = request("/", &[("a", "1")], b"{}");
        assert_eq!(add(&mut r, &at("header:a"), "2"), Ok(()));
        assert_eq!(r.head.headers.first("a"), Some(&b"1"[..]));
        let error = add(&mut r, &at("body:/t"), "2").unwrap_err().to_string();
        assert_eq!(error, "body:/t is missing");
        let error = free(&r, &[at("body:/s")], None).unwrap_err().to_string();
        assert!(error.contains("`${signature}` in body:/s"), "{error}");
    }
}
