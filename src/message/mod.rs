//! The words of an HTTP message, as it came: [`Head`], [`Headers`], [`Request`] and our own [`Answer`].
//!
//! Here lives what a message *is*; reading one from a socket is `edge`'s, writing one to an app is `upstream`'s.
//! Carries promise 4 (bytes are sacred): header order, repeated headers, the case of names and every byte of a value
//! are kept as received.

mod answer;
mod headers;
mod trace_context;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
pub use http::Method;

pub use answer::Answer;
pub use headers::{Duplicated, Headers, HeadersBuilder};
pub(crate) use headers::{is_control, is_token, none};
pub use trace_context::TraceContext;

use crate::clock::Timestamp;

/// Whether the sender's connection to us (or to the trusted hop before us) was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
    pub const fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// HTTP versions that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// Everything of a request but its body. Made by `edge` after its checks: the target is origin-form (or `*`) and
/// ASCII, the authority is a valid `host[:port]`.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: Method,
    /// Path and query exactly as sent: `/hooks/a%20b?x=1`.
    pub target: String,
    /// `Host` / `:authority` as sent.
    pub authority: String,
    /// The `host[:port]` that the sender addressed, where a trusted hop says so (`X-Forwarded-Host`): for schemes that
    /// sign the URL, never for choosing a route.
    pub asked_authority: Option<String>,
    /// How the sender asked: us, or the trusted hop before us.
    pub scheme: Scheme,
    pub version: Version,
    pub headers: Headers,
    /// The address at the other end of the socket.
    pub peer: SocketAddr,
    /// The client's address: `peer`, or what trusted hops say. IPv4-mapped IPv6 is already IPv4.
    pub client: IpAddr,
    /// The address we accepted on.
    pub local: SocketAddr,
    pub received_at: Timestamp,
}

impl Head {
    /// The path as sent, without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query as sent, without `?`; `None` if there is no `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The host without its port, lower case, without a trailing dot: for matching, not for passing on.
    pub fn host(&self) -> String {
        host_of(&self.authority)
    }

    /// The full URL as the sender addressed it, as far as this hop can know: scheme, authority, target; the target alone
    /// where no authority is known.
    pub fn url(&self) -> String {
        let authority = self.asked_authority.as_ref().unwrap_or(&self.authority);
        if authority.is_empty() {
            return self.target.clone();
        }
        format!("{}://{authority}{}", self.scheme.as_str(), self.target)
    }
}

/// The host of an authority as routes are found by: in lower case, without port and closing dot.
pub(crate) fn host_of(authority: &str) -> String {
    let host = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Values of the `{parameters}` in a route's path, as they stand in the sent path (not percent-decoded).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathParams(pub Vec<(Arc<str>, String)>);

impl PathParams {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, v)| v.as_str())
    }
}

/// A whole request: what verification looks at and what the buffer stores.
#[derive(Clone, Debug)]
pub struct Request {
    pub head: Head,
    pub params: PathParams,
    /// The body's bytes as received (transfer coding removed, content coding untouched).
    pub body: Bytes,
}

impl Request {
    /// Puts another value into the place of a path parameter's, wherever in the path it stands.
    pub fn replace_param(&mut self, name: &str, by: &str) {
        let Some((_, value)) = self.params.0.iter_mut().find(|(known, _)| &**known == name) else { return };
        self.head.target = with_segment(&self.head.target, value, by);
        by.clone_into(value);
    }
}

/// A target in whose path each segment `value` is another.
pub(crate) fn with_segment(target: &str, value: &str, by: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let segments = path.split('/').map(|segment| if segment == value { by } else { segment });
    segments.collect::<Vec<_>>().join("/") + query
}

/// Makes `::ffff:192.0.2.1` and `192.0.2.1` the same address.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Headers that describe one hop (RFC 9110 section 7.6.1) and are never passed on. Those that `Connection` names
/// come on top.
pub const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The prefix of the header names that are ours; from outside they are removed.
pub const OUR_PREFIX: &str = "tidegate-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_parameter_stands_nowhere_in_the_path() {
        for (target, expected) in [
            ("/in/abc", "/in/x"),
            ("/in/abc/abcd?q=abc", "/in/x/abcd?q=abc"),
            ("/abc/abc?", "/x/x?"),
            ("/in/ab", "/in/ab"),
        ] {
            assert_eq!(with_segment(target, "abc", "x"), expected);
        }
    }

    fn head(authority: &str, target: &str) -> Head {
        Head {
            method: Method::POST,
            target: target.into(),
            authority: authority.into(),
            asked_authority: None,
            scheme: Scheme::Https,
            version: Version::Http11,
            headers: Headers::default(),
            peer: ([127, 0, 0, 1], 1).into(),
            client: IpAddr::from([127, 0, 0, 1]),
            local: ([127, 0, 0, 1], 2).into(),
            received_at: Timestamp(0),
        }
    }

    #[test]
    fn the_host_is_lower_case_without_port_and_final_dot() {
        assert_eq!(head("Hooks.Example.com.:8443", "/").host(), "hooks.example.com");
        assert_eq!(head("[::1]:80", "/").host(), "[::1]");
        assert_eq!(head("[::1]", "/").host(), "[::1]");
    }

    #[test]
    fn the_query_is_kept_as_sent() {
        let h = head("a", "/p?a=1?b=2");
        assert_eq!((h.path(), h.query()), ("/p", Some("a=1?b=2")));
        assert_eq!(head("a", "/p?").query(), Some(""));
        assert_eq!(head("a", "/p").query(), None);
    }
}
