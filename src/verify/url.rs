//! The URL that a sender signs: the one that it was given, which this hop can't see for itself behind other proxies.

use std::borrow::Cow;

use super::form::escaped;
use crate::message::Head;

/// The URL of a request as its sender knows it. `public_url` is `scheme://host`, optionally with a prefix that a
/// proxy before us takes off; or the whole URL, as the provider's form shows it, when its path ends in the path that
/// we received. The query is always the request's own, as sent.
pub(super) fn public(head: &Head, public_url: Option<&str>) -> String {
    let Some(base) = public_url else { return head.url() };
    let base = base.split(['?', '#']).next().unwrap_or(base);
    let path_at = base.find("://").map_or(0, |at| at + 3);
    let path_at = base[path_at..].find('/').map(|at| path_at + at);
    match path_at {
        Some(at) if at + 1 < base.len() && base[at..].ends_with(head.path()) && head.path() != "/" => {
            match head.query() {
                Some(query) => format!("{base}?{query}"),
                None => base.to_owned(),
            }
        }
        _ => format!("{}{}", base.trim_end_matches('/'), head.target),
    }
}

/// The same URL with its scheme's default port written out, or left out if it was written.
pub(super) fn other_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    match authority.strip_suffix(port) {
        Some(host) => Some(format!("{scheme}://{host}{target}")),
        None if authority.rfind(':').is_some_and(|at| !authority[at..].contains(']')) => None,
        None => Some(format!("{scheme}://{authority}{port}{target}")),
    }
}

/// Undoes the percent-escapes of the given characters and leaves all others.
pub(super) fn unescape<'t>(text: &'t str, characters: &[u8]) -> Cow<'t, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let byte = match rest.as_bytes() {
            [_, high, low, ..] => escaped(*high, *low).filter(|b| b.is_ascii() && characters.contains(b)),
            _ => None,
        };
        match byte {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[3..];
            }
            None => {
                out.push('%');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::request;

    #[test]
    fn the_public_url_is_a_base_a_prefix_or_the_whole() {
        let r = request("/in/x?a=b%20c", &[], b"");
        let url = |base: Option<&str>| public(&r.head, base);
        assert_eq!(url(None), "https://hooks.example.com/in/x?a=b%20c");
        assert_eq!(url(Some("https://h.example")), "https://h.example/in/x?a=b%20c");
        assert_eq!(url(Some("https://h.example/")), "https://h.example/in/x?a=b%20c");
        assert_eq!(url(Some("https://h.example/pre")), "https://h.example/pre/in/x?a=b%20c");
        assert_eq!(url(Some("https://h.example/in/x")), "https://h.example/in/x?a=b%20c");
        assert_eq!(url(Some("https://h.example/pre/in/x?old=1")), "https://h.example/pre/in/x?a=b%20c");
        assert_eq!(public(&request("/", &[], b"").head, Some("https://h.example/")), "https://h.example/");
    }

    #[test]
    fn the_default_port_comes_and_goes() {
        assert_eq!(other_port("https://a/b?c").as_deref(), Some("https://a:443/b?c"));
        assert_eq!(other_port("https://a:443/b").as_deref(), Some("https://a/b"));
        assert_eq!(other_port("http://a").as_deref(), Some("http://a:80"));
        assert_eq!(other_port("https://[::1]/b").as_deref(), Some("https://[::1]:443/b"));
        assert_eq!(other_port("https://a:8443/b"), None);
    }

    #[test]
    fn only_the_named_escapes_are_undone() {
        assert_eq!(unescape("/a%3Ab%20c%2f%", b":/"), "/a:b%20c/%");
        assert_eq!(unescape("é%é%3", b":"), "é%é%3");
    }
}
