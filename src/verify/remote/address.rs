//! Where keys are fetched from: fixed addresses, addresses made of a key's name, and addresses that the request names
//! but that must match a pattern of the config or pack.

use std::fmt;

use http::Uri;

use crate::config::is_loopback;
use crate::secret::Secret;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Address {
    /// One document.
    Fixed(Uri),
    /// One document a key: `{key}` stands for the key's name.
    PerKey(String),
    /// The request names the whole URL, which must match one of these.
    Named(Vec<UrlPattern>),
}

/// A URL in which `*` stands for one label of the host, or for characters within one segment of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern(String);

/// A text in which `{key}` stands for a key's name; may hold secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill(pub Secret);

/// The longest name of a key that is looked for, in bytes.
const MAX_NAME: usize = 512;

/// What stands for the key's name.
const KEY: &str = "{key}";

impl Address {
    /// The address of the document of this name; `None` if nothing is fetched for such a name.
    pub fn of(&self, name: &str) -> Option<Uri> {
        match self {
            Address::Fixed(url) => Some(url.clone()),
            _ if name.is_empty() || name.len() > MAX_NAME => None,
            Address::PerKey(url) => url.replace(KEY, &escaped(name)).parse().ok(),
            Address::Named(patterns) => {
                patterns.iter().any(|pattern| pattern.matches(name)).then(|| name.parse().ok()).flatten()
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Fixed(url) => url.fmt(f),
            Address::PerKey(url) => f.write_str(url),
            // The first tells them apart well enough, and is short.
            Address::Named(patterns) => f.write_str(patterns.first().map_or("", |pattern| &pattern.0)),
        }
    }
}

/// Checks that keys may be fetched from there at all: over https, or over http from this machine itself.
pub(in crate::verify) fn checked(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some("http"), Some(host)) if is_loopback(host) => Ok(uri),
        _ => Err("keys are fetched over https: write `https://…` (plain http is for loopback addresses \
                  such as `http://127.0.0.1:8080/jwks.json` only)"
            .to_owned()),
    }
}

impl UrlPattern {
    /// The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("a pattern begins with `https://`")?;
        let (host, path) =
            rest.split_once('/').ok_or("a pattern has a path, such as `https://keys.example/*.pem`")?;
        if path.contains(['?', '#']) || rest.contains('@') {
            return Err("a pattern has neither user, query nor fragment".to_owned());
        }
        let labels: Vec<&str> = host.split('.').collect();
        // A star that could be the registered domain itself would let anyone be the host.
        let starred = labels.iter().rposition(|label| label.contains('*'));
        if starred.is_some_and(|at| labels.len() < at + 3) {
            return Err("a `*` in the host stands for one label in front of a domain, as in `https://sns.*.example.com/…`".to_owned());
        }
        if labels.iter().any(|label| label.contains('*') && *label != "*") {
            return Err("in the host a `*` stands for a whole label".to_owned());
        }
        checked(&format!("{scheme}://{}/", host.replace('*', "x")))?;
        Ok(Self(text.to_owned()))
    }

    /// Whether `url` is one of those meant. Nothing in it is normalised: it must match as it is written.
    pub fn matches(&self, url: &str) -> bool {
        let split = |text: &'_ str| -> Option<(String, String)> {
            let at = text.find("://")? + 3;
            let slash = at + text[at..].find('/')?;
            Some((text[..slash].to_owned(), text[slash..].to_owned()))
        };
        let (Some((our_host, our_path)), Some((host, path))) = (split(&self.0), split(url)) else {
            return false;
        };
        let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let segment = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        parts(&our_host, &host, '.', label)
            && parts(&our_path, &path, '/', segment)
            && !path.split('/').any(|part| part == "." || part == "..")
    }
}

/// Whether `text` is `pattern`, part by part, where a `*` stands for one or more of `allowed`.
fn parts(pattern: &str, text: &str, between: char, allowed: impl Fn(u8) -> bool) -> bool {
    let (mut wanted, mut found) = (pattern.split(between), text.split(between));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) => match wanted.split_once('*') {
                None if wanted == found => {}
                Some((before, after)) => {
                    let inside = found.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                    if !inside.is_some_and(|inside| !inside.is_empty() && inside.bytes().all(&allowed)) {
                        return false;
                    }
                }
                None => return false,
            },
            _ => return false,
        }
    }
}

impl Fill {
    /// The text with a key's name in it, as the inside of a JSON string.
    pub fn json(&self, name: &str) -> Vec<u8> {
        let quoted = serde_json::Value::from(name).to_string();
        let inside = &quoted[1..quoted.len() - 1];
        String::from_utf8_lossy(self.0.expose()).replace(KEY, inside).into_bytes()
    }
}

/// A name as one segment of a path (RFC 3986, unreserved characters as they are).
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_pinned_hosts_and_paths_match() {
        let pattern = UrlPattern::parse("https://sns.*.amazonaws.com/*.pem").unwrap();
        for good in
            ["https://sns.us-east-1.amazonaws.com/Simple-1.pem", "https://sns.x.amazonaws.com/a.b.pem"]
        {
            assert!(pattern.matches(good), "{good}");
        }
        for bad in [
            "http://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/a.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.evil.example#.amazonaws.com/a.pem",
            "https://sns.a.b.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com:8443/a.pem",
            "https://u@sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.amazonaws.com/a.pem?x",
            "https://sns.us-east-1.amazonaws.com/a.pem#x",
            "https://sns.us-east-1.amazonaws.com/x/a.pem",
            "https://sns.us-east-1.amazonaws.com/../a.pem",
            "https://sns.us-east-1.amazonaws.com/.pem",
            "https://sns.us-east-1.amazonaws.com/a%2fb.pem",
            "https://sns.us-east-1.amazonaws.com\\@evil.example/a.pem",
            "https://SNS.us-east-1.amazonaws.com/a.pem",
            "",
            "/",
        ] {
            assert!(!pattern.matches(bad), "{bad}");
        }
    }

    #[test]
    fn patterns_that_pin_nothing_are_refused() {
        for bad in [
            "https://*/a.pem",
            "https://*.com/a.pem",
            "https://keys.*/a",
            "http://keys.example/a",
            "https://keys.example",
            "https://ke*s.a.example/a",
            "https://keys.example/a?b",
            "https://u@keys.example/a",
            "keys.example/a",
        ] {
            assert!(UrlPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_keys_name_can_t_leave_its_place() {
        let address = Address::PerKey("https://keys.example/v1/{key}".to_owned());
        let of = |name: &str| address.of(name).map(|url| url.to_string());
        assert_eq!(of("a-1").as_deref(), Some("https://keys.example/v1/a-1"));
        assert_eq!(of("../x?y#z").as_deref(), Some("https://keys.example/v1/%2E%2E%2Fx%3Fy%23z"));
        assert_eq!((of(""), of(&"a".repeat(MAX_NAME + 1))), (None, None));
        let fill = Fill(Secret::new(br#"{"id":"{key}"}"#.to_vec()));
        assert_eq!(fill.json(r#"a","b":"c"#), br#"{"id":"a\",\"b\":\"c"}"#);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_leaves_the_host(pattern in "\\PC{0,40}", url in "\\PC{0,60}", key in "\\PC{0,30}") {
            if let Ok(pattern) = UrlPattern::parse(&pattern) {
                let _ = pattern.matches(&url);
            }
            let pinned = Address::Named(vec![UrlPattern::parse("https://k.*.example.com/*/c.pem").unwrap()]);
            let url = pinned.of(&format!("https://k.{key}.example.com/{url}/c.pem"));
            proptest::prop_assert!(url.is_none_or(|url| url.host().unwrap().ends_with(".example.com")));
            let made = Address::PerKey("https://keys.example/{key}/x".to_owned()).of(&key);
            proptest::prop_assert!(made.is_none_or(|url| url.host() == Some("keys.example") && url.path().ends_with("/x")));
        }
    }
}
