//! Names of routes and destinations, and hosts.

/// A name in config, metrics and store.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A route's name where none is written: the path's words, joined. Depends on the path alone, so that it stays the same
/// when other routes come and go.
pub(super) fn name_of_path(path: &str) -> String {
    let mut name = String::new();
    for byte in path.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_') => name.push(char::from(b)),
            b'*' => name.push_str("all"),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(64);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "root".to_owned() } else { name.to_owned() }
}

/// A host as it is matched: lower case, without a final dot. The error says what is wrong.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        let legal = address.parse::<std::net::Ipv6Addr>().is_ok();
        return if legal { Ok(host) } else { Err("what stands in brackets is not an IPv6 address") };
    }
    if host.contains('*') {
        return Err("hosts are exact: `*` is not supported");
    }
    if host.contains('/') {
        return Err("a host has no scheme and no path");
    }
    if host.contains(':') {
        return Err("a host has no port here: the route takes every port that listeners have");
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.len() <= 253 && host.split('.').all(label) { Ok(host) } else { Err("this is not a host name") }
}

pub(super) fn whole_url(text: &str) -> Option<http::Uri> {
    let url: http::Uri = text.parse().ok()?;
    let whole =
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|h| !h.is_empty());
    whole.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_route_is_named_after_its_path() {
        for (path, name) in [
            ("/hooks/github", "hooks-github"),
            ("/hooks/stripe/{account}", "hooks-stripe-account"),
            ("/", "root"),
            ("/*", "all"),
            ("/a/*", "a-all"),
            ("/a//b-c/", "a-b-c"),
        ] {
            assert_eq!(name_of_path(path), name);
        }
    }

    #[test]
    fn a_host_is_matched_in_one_spelling() {
        assert_eq!(host("Hooks.Example.COM."), Ok("hooks.example.com".into()));
        assert_eq!(host("[::1]"), Ok("[::1]".into()));
        for wrong in ["", "a b", "*.example.com", "https://a", "a:443", "a..b", "[x]", "ä.example"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_made_name_is_a_name(path in "/[!-~]{0,80}") {
            prop_assert!(is_name(&name_of_path(&path)));
        }
    }
}
