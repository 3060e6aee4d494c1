//! Where keys are fetched from: fixed addresses, addresses made of a key's name, and addresses that the request names
//! but that must match a pattern of the config or pack.

use std::fmt;

use http::Uri;

use crate::config::is_loopback;
use crate::secret::Secret;
use crate::verify::host::HostPattern;

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

/// A URL whose host may have labels that vary (see [`HostPattern`]), and in whose path a `*` stands for characters
/// within one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPattern {
    text: String,
    /// With `://`.
    scheme: String,
    host: HostPattern,
    /// With its `:`; empty if there is none.
    port: String,
    /// With its first `/`.
    path: String,
}

/// A text in which `{key}` stands for a key's name; may hold secrets.
#[derive(Clone, Debug)]
pub struct Fill(pub Secret);

impl PartialEq for Fill {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(other.0.expose())
    }
}

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
            Address::Named(patterns) => f.write_str(patterns.first().map_or("", |pattern| &pattern.text)),
        }
    }
}

/// Checks that keys may be fetched from there at all: over https, or over http from this machine itself.
pub(in crate::verify) fn checked(url: &str) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some("http"), Some(host)) if is_loopback(host) => Ok(uri),
        _ => Err(HTTPS_ONLY.to_owned()),
    }
}

const HTTPS_ONLY: &str = "keys are fetched over https: write `https://…` (plain http is for loopback addresses \
                          such as `http://127.0.0.1:8080/jwks.json` only)";

impl UrlPattern {
    /// The error says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let at = text.find("://").ok_or("a pattern begins with `https://`")? + 3;
        let (scheme, rest) = text.split_at(at);
        let slash = rest.find('/').ok_or("a pattern has a path, such as `https://keys.example/*.pem`")?;
        let (authority, path) = rest.split_at(slash);
        if path.contains(['?', '#']) || rest.contains('@') {
            return Err("a pattern has neither user, query nor fragment".to_owned());
        }
        let number = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let (host, port) = match authority.rfind(':').filter(|colon| number(&authority[colon + 1..])) {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        };
        let pattern = HostPattern::parse(host)?;
        match (scheme, is_loopback(host)) {
            ("https://", _) | ("http://", true) => {}
            _ => return Err(HTTPS_ONLY.to_owned()),
        }
        let [text, scheme, port, path] = [text, scheme, port, path].map(str::to_owned);
        Ok(Self { text, scheme, host: pattern, port, path })
    }

    /// Whether `url` is one of those meant. Nothing in it is normalised: it must match as it is written.
    pub fn matches(&self, url: &str) -> bool {
        let Some(rest) = url.strip_prefix(&self.scheme) else { return false };
        let Some((authority, path)) = rest.find('/').map(|slash| rest.split_at(slash)) else { return false };
        let Some(host) = authority.strip_suffix(&self.port) else { return false };
        let segment = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        self.host.matches(host)
            && parts(&self.path, path, '/', segment)
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
        let pattern =
            UrlPattern::parse("https://sns.[a-z]{2}-[a-z-]{4,20}-[0-9]{1,2}.amazonaws.com/*.pem").unwrap();
        for good in [
            "https://sns.us-east-1.amazonaws.com/Simple-1.pem",
            "https://sns.us-gov-west-1.amazonaws.com/a.b.pem",
        ] {
            assert!(pattern.matches(good), "{good}");
        }
        let any = UrlPattern::parse("https://k.*.example.com:8443/*.pem").unwrap();
        assert!(any.matches("https://k.x.example.com:8443/a.pem"));
        for bad in [
            "https://k.x.example.com/a.pem",
            "https://k.x.example.com:443/a.pem",
            "https://k.x:8443.example.com:8443/a.pem",
        ] {
            assert!(!any.matches(bad), "{bad}");
        }
        for bad in [
            "https://sns.s3.amazonaws.com/evil.pem",
            "https://sns.s3-us-west-2.amazonaws.com/evil.pem",
            "https://sns.us-east-1.amazonaws.com./a.pem",
            "https://sns.us-east-1.amazonaws.com:443/a.pem",
            "https://sns.us-east-1.amazonaws.com%2fx/a.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/a.pem",
            "https://sns.us-east-1.amazonaws.com:a@evil.example/a.pem",
            "HTTPS://sns.us-east-1.amazonaws.com/a.pem",
            "https://sns.us-east-1.am\u{e0}zonaws.com/a.pem",
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
            "https:///a",
            "https://k.*.example.com:x/a",
            "http://127.0.0.1.evil.example/a",
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
