//! Request targets and authorities: what may stand in them, alike for HTTP/1 and HTTP/2. Pure.
//!
//! Nothing is normalised here or anywhere behind: routes match the path as sent and the app gets the path as sent.
//! What an app would normalise into *another* path (`..`, also encoded; overlong UTF-8; `%00`; a backslash) is refused.

use std::net::Ipv6Addr;

use crate::reason::Reason;

/// Longest authority: a DNS name (253), brackets or a final dot, and a port.
const AUTHORITY_BYTES: usize = 262;

/// Checks an origin-form target (`/path?query`; the path may be empty for a target cut from absolute-form).
pub fn check(target: &[u8]) -> Result<(), Reason> {
    let cut = target.iter().position(|b| *b == b'?');
    let (path, query) = match cut {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    if !path.iter().all(|b| is_path_byte(*b)) || !query.iter().all(|b| is_query_byte(*b)) {
        return Err(Reason::InvalidPath);
    }
    // Most paths have neither escapes nor dots: one look each.
    if path.contains(&b'%') {
        check_escapes(path)?;
    }
    if path.contains(&b'.') || path.contains(&b'%') {
        check_segments(path)?;
    }
    Ok(())
}

/// RFC 3986 `pchar` and `/`.
const fn is_path_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'
        | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'%' | b'[' | b']' | b'|')
}

/// Wider than RFC 3986, because real senders put JSON and the like into queries; but never what an HTTP client behind
/// us would have to re-encode.
const fn is_query_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'#')
}

/// Every `%` begins a valid escape, none gives a control byte, and none is an overlong form of an ASCII character.
fn check_escapes(path: &[u8]) -> Result<(), Reason> {
    let mut at = 0;
    let mut lead = None;
    while at < path.len() {
        if path[at] != b'%' {
            (at, lead) = (at + 1, None);
            continue;
        }
        let byte = unescape(&path[at..]).ok_or(Reason::InvalidPath)?;
        let overlong = match lead {
            Some(0xc0 | 0xc1) => matches!(byte, 0x80..=0xbf),
            Some(0xe0) => matches!(byte, 0x80..=0x9f),
            Some(0xf0) => matches!(byte, 0x80..=0x8f),
            _ => false,
        };
        if byte < b' ' || byte == 0x7f || overlong {
            return Err(Reason::InvalidPath);
        }
        (at, lead) = (at + 3, Some(byte));
    }
    Ok(())
}

/// No segment is `.` or `..` after unescaping, whatever stands behind a `;` (some apps cut it off), and an escaped
/// `/` or `\` parts segments too (some apps unescape first).
fn check_segments(path: &[u8]) -> Result<(), Reason> {
    #[derive(Clone, Copy, PartialEq)]
    enum Segment {
        Dots(u8),
        Other,
    }
    let mut segment = Segment::Dots(0);
    let mut at = 0;
    let mut parameters = false;
    while at <= path.len() {
        let (byte, width) = match path.get(at) {
            None => (b'/', 1),
            Some(b'%') => (unescape(&path[at..]).ok_or(Reason::InvalidPath)?, 3),
            Some(byte) => (*byte, 1),
        };
        at += width;
        match byte {
            b'/' | b'\\' => {
                if matches!(segment, Segment::Dots(1 | 2)) {
                    return Err(Reason::InvalidPath);
                }
                (segment, parameters) = (Segment::Dots(0), false);
            }
            _ if parameters => {}
            b';' => parameters = true,
            b'.' => {
                segment = match segment {
                    Segment::Dots(n) if n < 3 => Segment::Dots(n + 1),
                    _ => Segment::Other,
                }
            }
            _ => segment = Segment::Other,
        }
    }
    Ok(())
}

/// The byte of the escape (`%41`) that `at` begins with.
fn unescape(at: &[u8]) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    match at {
        [b'%', high, low, ..] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}

/// Checks `host[:port]`: a name, an IPv4 address or a bracketed IPv6 address; no userinfo, no empty port.
pub fn check_authority(authority: &[u8]) -> Result<(), Reason> {
    let valid = authority.len() <= AUTHORITY_BYTES
        && std::str::from_utf8(authority).is_ok_and(|authority| match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').is_some_and(|(ip, port)| {
                ip.parse::<Ipv6Addr>().is_ok()
                    && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
            }),
            None => match authority.split_once(':') {
                Some((name, port)) => is_name(name) && is_port(port),
                None => is_name(authority),
            },
        });
    if valid { Ok(()) } else { Err(Reason::InvalidHost) }
}

fn is_port(port: &str) -> bool {
    (1..=5).contains(&port.len())
        && port.bytes().all(|b| b.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Labels of letters, digits, `-` and `_` between single dots; one final dot may stand.
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_targets_pass_as_they_are() {
        for target in [
            "/",
            "/hooks/github",
            "//hooks",
            "/hooks;x",
            "/hooks%2Fgithub",
            "/a%20b?x=1&y=%00",
            "/a.b/c..d/...",
            "/caf%C3%A9",
            "/latin1%E9x",
            "/x?{\"a\":1}".replace('"', "'").as_str(),
            "/x?a|b[]=1",
            "/.well-known/x",
            "?q",
            "",
        ] {
            assert_eq!(check(target.as_bytes()), Ok(()), "{target}");
        }
    }

    #[test]
    fn targets_that_an_app_may_read_as_another_path_are_refused() {
        for target in [
            "/hooks/../admin",
            "/hooks/..",
            "/..",
            "/hooks/%2e%2e/x",
            "/hooks/.%2E/x",
            "/hooks/./x",
            "/hooks/%2e/x",
            "/hooks/..;/admin",
            "/hooks/..%2fadmin",
            "/hooks/x%2f..%2fadmin",
            "/hooks/..%5cadmin",
            "/hooks\\..\\admin",
            "/hooks%00",
            "/hooks%0d%0aX:1",
            "/hooks%7f",
            "/hooks/%c0%ae%c0%ae/x",
            "/hooks/%e0%80%ae/x",
            "/hooks/%f0%80%80%ae/x",
            "/hooks/%",
            "/hooks/%4",
            "/hooks/%zz",
            "/a\"b",
            "/a<b>",
            "/a{b}",
            "/a`b",
            "/a^b",
            "/x?a=<b>",
            "/x?a=\"b\"",
        ] {
            assert_eq!(check(target.as_bytes()), Err(Reason::InvalidPath), "{target}");
        }
    }

    #[test]
    fn authorities_are_a_host_and_perhaps_a_port() {
        for good in [
            "a",
            "Hooks.Example.com",
            "a.",
            "a:1",
            "a.b.:65535",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8443",
            "a_b-c",
        ] {
            assert_eq!(check_authority(good.as_bytes()), Ok(()), "{good}");
        }
        let long = "a".repeat(300);
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "u@a",
            "u:p@a",
            "a/b",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a:x",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[x]",
            "[::1%25eth0]",
            "a,b",
            "a?b",
            "a#b",
            "a%20",
            "ä",
            ":80",
            &long,
        ] {
            assert_eq!(check_authority(bad.as_bytes()), Err(Reason::InvalidHost), "{bad}");
        }
    }
}
