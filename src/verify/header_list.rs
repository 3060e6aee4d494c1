//! Signed headers that another header lists: `name:value` with `;` between them.

use super::locate::View;
use super::template::Unbuildable;

/// Headers of a list that may be signed; more is no honest sender.
const MAX_LISTED: usize = 32;

/// Feeds the headers that `header` lists, each of which must be there once.
pub(super) fn feed(
    view: &View<'_>,
    header: &str,
    must: &[Box<str>],
    sink: &mut impl FnMut(&[u8]),
) -> Result<(), Unbuildable> {
    let only = |name: &str| match view.request.head.headers.only(name) {
        Ok(Some(value)) => Ok(value.trim_ascii()),
        Ok(None) => Err(Unbuildable::Missing(format!("header:{name} is missing"))),
        Err(_) => Err(Unbuildable::Ambiguous(format!("header:{name} is there twice"))),
    };
    let malformed = |what: String| Err(Unbuildable::Malformed(format!("header:{header} {what}")));
    let Ok(list) = std::str::from_utf8(only(header)?) else { return malformed("is no text".to_owned()) };
    let names: Vec<String> =
        list.split(',').take(MAX_LISTED + 1).map(|name| name.trim().to_ascii_lowercase()).collect();
    if names.len() > MAX_LISTED {
        return malformed(format!("lists more than {MAX_LISTED} headers"));
    }
    if let Some(lacks) = must.iter().find(|name| !names.iter().any(|listed| **listed == ***name)) {
        return malformed(format!("does not list {lacks}"));
    }
    for (at, name) in names.iter().enumerate() {
        for piece in [if at > 0 { &b";"[..] } else { b"" }, name.as_bytes(), b":", only(name)?] {
            sink(piece);
        }
    }
    Ok(())
}
