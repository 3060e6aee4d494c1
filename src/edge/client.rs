//! Whose request it is, and what its sender asked: address, scheme and host before the hops that we trust. Pure.
//!
//! Each hop appends the address that *it* saw to the right of `X-Forwarded-For` (or `Forwarded`), so the header is
//! read from the right, and only as far as the addresses are trusted hops. What stands left of the first stranger is
//! that stranger's word and is not read.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Headers, Scheme, canonical_ip};

use super::target::check_authority;

/// The request as its sender made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub client: IpAddr,
    /// What a trusted hop says it was asked by; `None` where none says it.
    pub scheme: Option<Scheme>,
    /// The `host[:port]` that a trusted hop says it was asked for; `None` where none says it.
    pub authority: Option<String>,
}

/// The client is `peer`, unless that is a trusted hop; then the rightmost address in the forwarding header that is not
/// one. If a hop's entry can't be read (`unknown`, an obfuscated name), the client is the hop that wrote it. `Forwarded`
/// is read only if there is no `X-Forwarded-For`.
///
/// Scheme and host are from `X-Forwarded-Proto` and `X-Forwarded-Host`, or from `Forwarded` where there is no
/// `X-Forwarded-*`. Of a list, the element counts that was written by the hop which saw the client.
pub fn asked(peer: IpAddr, headers: &Headers, trusted: impl Fn(IpAddr) -> bool) -> Asked {
    let peer = canonical_ip(peer);
    if !trusted(peer) {
        return Asked { client: peer, scheme: None, authority: None };
    }
    let (client, depth) = walk_headers(peer, headers, trusted);
    // As with addresses: a hop that writes one kind passes the sender's word on in the other.
    let old = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
    let old = old.iter().any(|name| headers.contains(name));
    let said = |name: &str, parameter: &[u8]| match old {
        true => written_at(entries(headers, name), depth),
        false => self::parameter(written_at(entries(headers, "forwarded"), depth)?, parameter),
    };
    let scheme = match said("x-forwarded-proto", b"proto=") {
        Some(word) if word.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
        Some(word) if word.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
        _ => None,
    };
    let authority = said("x-forwarded-host", b"host=")
        .filter(|host| check_authority(host).is_ok())
        .and_then(|host| std::str::from_utf8(host).ok().map(str::to_owned));
    Asked { client, scheme, authority }
}

/// The element so many from the right, or the first there is.
fn written_at<'h>(mut entries: impl DoubleEndedIterator<Item = &'h [u8]>, depth: usize) -> Option<&'h [u8]> {
    let mut last = None;
    for _ in 0..=depth {
        match entries.next_back() {
            Some(entry) => last = Some(entry),
            None => break,
        }
    }
    last
}

/// The client, and how many elements from the right it stands (or would stand, could it be read).
fn walk_headers(peer: IpAddr, headers: &Headers, trusted: impl Fn(IpAddr) -> bool) -> (IpAddr, usize) {
    if headers.contains("x-forwarded-for") {
        walk(peer, entries(headers, "x-forwarded-for").map(parse_entry), trusted)
    } else {
        let addresses = entries(headers, "forwarded").map(|entry| parse_entry(parameter(entry, b"for=")?));
        walk(peer, addresses, trusted)
    }
}

fn walk(
    peer: IpAddr,
    entries: impl DoubleEndedIterator<Item = Option<IpAddr>>,
    trusted: impl Fn(IpAddr) -> bool,
) -> (IpAddr, usize) {
    let (mut client, mut depth) = (peer, 0);
    for (at, entry) in entries.rev().enumerate() {
        depth = at;
        match entry {
            Some(address) => client = address,
            None => break,
        }
        if !trusted(client) {
            break;
        }
    }
    (client, depth)
}

/// The elements of a list header over all its lines, left to right.
fn entries<'h>(headers: &'h Headers, name: &str) -> impl DoubleEndedIterator<Item = &'h [u8]> + use<'h> {
    // Only senders behind trusted hops come here, and their fields are bounded by the header limits.
    let lines: Vec<&[u8]> = headers.all(name).collect();
    lines.into_iter().flat_map(|line| line.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// The value of a parameter (`for=`) in an element of `Forwarded` (RFC 7239), unquoted.
fn parameter<'e>(element: &'e [u8], wanted: &[u8]) -> Option<&'e [u8]> {
    let value = element.split(|b| *b == b';').map(<[u8]>::trim_ascii).find_map(|pair| {
        let (name, value) = pair.split_at_checked(wanted.len())?;
        name.eq_ignore_ascii_case(wanted).then_some(value)
    })?;
    Some(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address with or without port and brackets.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?;
    let address = entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|a| a.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok())?;
    Some(canonical_ip(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOP: &str = "10.0.0.1";

    fn hop(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 10)
    }

    fn client(peer: &str, fields: &[(&str, &str)]) -> String {
        let headers = fields.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        asked(peer.parse().unwrap(), &headers, hop).client.to_string()
    }

    #[test]
    fn a_strangers_word_is_not_taken() {
        assert_eq!(client("192.0.2.1", &[("X-Forwarded-For", "198.51.100.7")]), "192.0.2.1");
        assert_eq!(client("192.0.2.1", &[("Forwarded", "for=198.51.100.7")]), "192.0.2.1");
    }

    #[test]
    fn trusted_hops_are_passed_from_the_right() {
        assert_eq!(client(HOP, &[]), HOP);
        assert_eq!(client(HOP, &[("X-Forwarded-For", "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client(HOP, &[("x-forwarded-for", "1.1.1.1, 198.51.100.7, 10.0.0.9")]), "198.51.100.7");
        assert_eq!(
            client(HOP, &[("x-forwarded-for", "1.1.1.1"), ("X-Forwarded-For", "198.51.100.7 ,10.0.0.9")]),
            "198.51.100.7"
        );
        assert_eq!(client(HOP, &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
    }

    #[test]
    fn what_cannot_be_read_stops_at_the_hop_that_wrote_it() {
        assert_eq!(client(HOP, &[("x-forwarded-for", "198.51.100.7, unknown")]), HOP);
        assert_eq!(client(HOP, &[("x-forwarded-for", "198.51.100.7, , 10.0.0.9")]), "10.0.0.9");
        assert_eq!(client(HOP, &[("forwarded", "for=198.51.100.7, proto=https")]), HOP);
        assert_eq!(client(HOP, &[("forwarded", "for=_hidden")]), HOP);
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        assert_eq!(client(HOP, &[("x-forwarded-for", "198.51.100.7:1234")]), "198.51.100.7");
        assert_eq!(client(HOP, &[("x-forwarded-for", "[2001:db8::1]:1234")]), "2001:db8::1");
        assert_eq!(client(HOP, &[("x-forwarded-for", "::ffff:198.51.100.7")]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.7")]), "198.51.100.7");
        assert_eq!(client(HOP, &[("Forwarded", "proto=https;For=\"[2001:db8::1]:80\"")]), "2001:db8::1");
        assert_eq!(client(HOP, &[("Forwarded", "for=[2001:db8::1]")]), "2001:db8::1");
        assert_eq!(
            client(HOP, &[("Forwarded", "for=1.1.1.1"), ("X-Forwarded-For", "198.51.100.7")]),
            "198.51.100.7"
        );
    }

    fn asked_of(peer: &str, fields: &[(&str, &str)]) -> (Option<Scheme>, Option<String>) {
        let headers = fields.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        let asked = asked(peer.parse().unwrap(), &headers, hop);
        (asked.scheme, asked.authority)
    }

    #[test]
    fn scheme_and_host_are_taken_from_trusted_hops_only() {
        let fields = [("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-Host", "hooks.example.com:8443")];
        let told = (Some(Scheme::Https), Some("hooks.example.com:8443".to_owned()));
        assert_eq!(asked_of(HOP, &fields), told);
        assert_eq!(asked_of("192.0.2.1", &fields), (None, None));
        assert_eq!(asked_of(HOP, &[]), (None, None));
        let forwarded = [("Forwarded", "for=192.0.2.1;proto=https;host=\"hooks.example.com:8443\"")];
        assert_eq!(asked_of(HOP, &forwarded), told);
        let [sent] = forwarded;
        assert_eq!(asked_of(HOP, &[sent, ("X-Forwarded-For", "192.0.2.1")]), (None, None));
        for bad in ["a b", "u@a", "", "a/b", "a\"b"] {
            assert_eq!(
                asked_of(HOP, &[("X-Forwarded-Host", bad), ("X-Forwarded-Proto", "wss")]),
                (None, None)
            );
        }
    }

    #[test]
    fn what_a_sender_puts_before_the_hops_word_does_not_count() {
        let of = |addresses: &str, schemes: &str| {
            asked_of(HOP, &[("X-Forwarded-For", addresses), ("X-Forwarded-Proto", schemes)]).0
        };
        assert_eq!(of("192.0.2.1", "http, https"), Some(Scheme::Https));
        // The hop that saw the sender was asked by https, the inner one by http.
        assert_eq!(of("192.0.2.1, 10.0.0.2", "https, http"), Some(Scheme::Https));
        assert_eq!(of("192.0.2.1, 10.0.0.2", "http, https, http"), Some(Scheme::Https));
        assert_eq!(of("192.0.2.1, 10.0.0.2", "https"), Some(Scheme::Https));
        assert_eq!(of("unknown", "http, https"), Some(Scheme::Https));
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_prepends_changes_nothing(
            forged in prop::collection::vec("[0-9a-f.:]{0,15}|unknown|10\\.0\\.0\\.[0-9]", 0..5),
            stranger in 11u8..=255, hops in prop::collection::vec(0u8..=255, 0..4),
        ) {
            let real = format!("{stranger}.9.9.9");
            let mut list = forged;
            list.push(real.clone());
            list.extend(hops.iter().map(|h| format!("10.1.1.{h}")));
            prop_assert_eq!(client(HOP, &[("x-forwarded-for", &list.join(", "))]), real);
        }

        #[test]
        fn no_header_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
            for name in ["x-forwarded-for", "forwarded", "x-forwarded-proto", "x-forwarded-host"] {
                let headers = [(name, &value[..])].into_iter().collect();
                asked(HOP.parse().unwrap(), &headers, hop);
            }
        }
    }
}
