//! Whose request it is: the client's address behind hops that we trust. Pure.
//!
//! Each hop appends the address that *it* saw to the right of `X-Forwarded-For` (or `Forwarded`), so the header is
//! read from the right, and only as far as the addresses are trusted hops. What stands left of the first stranger is
//! that stranger's word and is not read.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Headers, canonical_ip};

/// The client's address: `peer`, unless it is a trusted hop; then the rightmost address in the forwarding header that
/// is not one. If a hop's entry can't be read (`unknown`, an obfuscated name), the client is the hop that wrote it.
/// `Forwarded` is read only if there is no `X-Forwarded-For`.
pub fn client_address(peer: IpAddr, headers: &Headers, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let peer = canonical_ip(peer);
    if !trusted(peer) {
        return peer;
    }
    if headers.contains("x-forwarded-for") {
        walk(peer, entries(headers, "x-forwarded-for").map(parse_entry), trusted)
    } else {
        walk(peer, entries(headers, "forwarded").map(|entry| parse_entry(for_parameter(entry)?)), trusted)
    }
}

fn walk(
    peer: IpAddr,
    entries: impl DoubleEndedIterator<Item = Option<IpAddr>>,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for entry in entries.rev() {
        match entry {
            Some(address) => client = address,
            None => break,
        }
        if !trusted(client) {
            break;
        }
    }
    client
}

/// The elements of a list header over all its lines, left to right.
fn entries<'h>(headers: &'h Headers, name: &str) -> impl DoubleEndedIterator<Item = &'h [u8]> + use<'h> {
    // Only senders behind trusted hops come here, and their fields are bounded by the header limits.
    let lines: Vec<&[u8]> = headers.all(name).collect();
    lines.into_iter().flat_map(|line| line.split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// The value of `for=` in an element of `Forwarded` (RFC 7239), unquoted.
fn for_parameter(element: &[u8]) -> Option<&[u8]> {
    let value = element.split(|b| *b == b';').map(<[u8]>::trim_ascii).find_map(|pair| {
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
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
        client_address(peer.parse().unwrap(), &headers, hop).to_string()
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
            for name in ["x-forwarded-for", "forwarded"] {
                let headers = [(name, &value[..])].into_iter().collect();
                client_address(HOP.parse().unwrap(), &headers, hop);
            }
        }
    }
}
