//! Fields of forms: of `application/x-www-form-urlencoded` text (bodies and queries), decoded one by one, and of a
//! request's body in whichever of the two types of forms it is.

use std::borrow::Cow;

use super::locate::{Ambiguous, View};
use super::multipart;

/// Fields of one form, or of one query, that are looked at; what has more is refused before anything is collected. Senders
/// have far fewer, and nobody who has not proved anything may make us work for each two bytes.
const MAX_FIELDS: usize = 1000;

/// Why the fields can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoFields {
    /// It is no form that all read alike.
    Unreadable,
    /// There are more than are looked at.
    TooMany,
}

impl NoFields {
    pub(super) fn why(self) -> String {
        match self {
            NoFields::Unreadable => "the body is no form".to_owned(),
            NoFields::TooMany => format!("the form has more than {MAX_FIELDS} fields"),
        }
    }
}

/// Undoes `+` and percent-escapes; what is no escape stays as it is.
pub(crate) fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|b| matches!(b, b'+' | b'%')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => out.push(b' '),
            b'%' => match tail {
                [high, low, after @ ..] => match escaped(*high, *low) {
                    Some(byte) => {
                        out.push(byte);
                        rest = after;
                    }
                    None => out.push(b'%'),
                },
                _ => out.push(b'%'),
            },
            other => out.push(*other),
        }
    }
    Cow::Owned(out)
}

/// The byte that `%HL` stands for.
pub(super) fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Names and values, still encoded, in order.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|b| *b == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        }
    })
}

/// The decoded value of the only field of that name.
pub(super) fn only<'t>(text: &'t [u8], name: &str) -> Result<Option<Cow<'t, [u8]>>, Ambiguous> {
    let mut found = None;
    for (at, (field, value)) in pairs(text).enumerate() {
        if at == MAX_FIELDS || (is(field, name) && found.replace(value).is_some()) {
            return Err(Ambiguous);
        }
    }
    Ok(found.map(decode))
}

/// Whether an encoded name is this one. One that can't be is not decoded.
fn is(encoded: &[u8], name: &str) -> bool {
    let fits = (name.len()..=name.len().saturating_mul(3)).contains(&encoded.len());
    fits && decode(encoded).as_ref() == name.as_bytes()
}

/// The decoded value of the only field of that name in the body: `multipart/form-data` if the request says so.
pub(super) fn field<'r>(view: View<'r>, name: &str) -> Result<Option<Cow<'r, [u8]>>, Ambiguous> {
    match boundary(view)? {
        Some(boundary) => Ok(multipart::only(view.body, boundary, name)?.map(Cow::Borrowed)),
        None => only(view.body, name),
    }
}

/// All fields of the body, as [`sorted`] does it.
pub(super) fn sorted_fields(view: View<'_>) -> Result<Vec<Field<'_>>, NoFields> {
    let unreadable = |Ambiguous| NoFields::Unreadable;
    let Some(boundary) = boundary(view).map_err(unreadable)? else { return sorted(view.body) };
    let fields = multipart::fields(view.body, boundary).map_err(unreadable)?.into_iter();
    let mut fields: Vec<_> = fields.map(|(n, v)| (Cow::Borrowed(n), Cow::Borrowed(v))).collect();
    fields.sort();
    Ok(fields)
}

/// Whether the body is `multipart/form-data`, or says so.
pub(super) fn is_multipart(view: View<'_>) -> bool {
    !matches!(boundary(view), Ok(None))
}

fn boundary(view: View<'_>) -> Result<Option<&[u8]>, Ambiguous> {
    let mut kinds = view.request.head.headers.all("content-type");
    let boundary = multipart::boundary(kinds.next().unwrap_or_default())?;
    // Of two types one may be taken for the other.
    let another = kinds.map(multipart::boundary).any(|other| other != Ok(None));
    let twice = boundary.is_some() && view.request.head.headers.only("content-type").is_err();
    if another || twice { Err(Ambiguous) } else { Ok(boundary) }
}

/// A decoded name and its decoded value.
type Field<'t> = (Cow<'t, [u8]>, Cow<'t, [u8]>);

/// All fields decoded and sorted by name, then (for repeated names) by value.
pub(super) fn sorted(text: &[u8]) -> Result<Vec<Field<'_>>, NoFields> {
    if pairs(text).nth(MAX_FIELDS).is_some() {
        return Err(NoFields::TooMany);
    }
    let mut fields: Vec<_> = pairs(text).map(|(n, v)| (decode(n), decode(v))).collect();
    fields.sort();
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plus_and_percent_are_the_same_space() {
        assert_eq!(decode(b"a+b%20c%2Bd").as_ref(), b"a b c+d");
        assert_eq!(decode(b"%zz%4%").as_ref(), b"%zz%4%");
        assert_eq!(decode(b"%c3%A9").as_ref(), "é".as_bytes());
    }

    #[test]
    fn a_repeated_field_is_ambiguous() {
        assert_eq!(only(b"a=1&b=2", "b"), Ok(Some(Cow::Borrowed(&b"2"[..]))));
        assert_eq!(only(b"a=1&%61=2", "a"), Err(Ambiguous));
        assert_eq!(only(b"a&b", "a"), Ok(Some(Cow::Borrowed(&b""[..]))));
        assert_eq!(only(b"", "a"), Ok(None));
    }

    #[test]
    fn order_does_not_matter_when_sorted() {
        assert_eq!(sorted(b"b=2&a=1&B=0&a=0"), sorted(b"a=0&B=0&a=1&b=2"));
    }

    #[test]
    fn more_fields_than_anybody_sends_are_refused_before_any_is_decoded() {
        let form = |count: usize| "a&".repeat(count).into_bytes();
        assert_eq!(sorted(&form(MAX_FIELDS)).map(|fields| fields.len()), Ok(MAX_FIELDS));
        assert_eq!(sorted(&form(MAX_FIELDS + 1)), Err(NoFields::TooMany));
        assert_eq!(sorted(&form(5 << 20)), Err(NoFields::TooMany));
        assert_eq!(only(&form(MAX_FIELDS), "b"), Ok(None));
        assert_eq!(only(&form(MAX_FIELDS + 1), "b"), Err(Ambiguous));
        // What separates nothing is no field.
        assert_eq!(
            only(format!("{}b=1", "&".repeat(5000)).as_bytes(), "b"),
            Ok(Some(Cow::Borrowed(&b"1"[..])))
        );
    }

    proptest! {
        #[test]
        fn a_name_is_the_same_encoded_or_not(text in "[a+%2 =&]{0,9}", name in "[a+% ]{0,3}") {
            let expected = pairs(text.as_bytes()).filter(|(n, _)| decode(n).as_ref() == name.as_bytes()).count();
            prop_assert_eq!(pairs(text.as_bytes()).filter(|(n, _)| is(n, &name)).count(), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (decode(&text), only(&text, "a"), sorted(&text));
        }
    }
}
