//! What the app gets: the sender's head with one hop's headers taken off and ours put on.
//!
//! Pure. Everything that is not named here goes on byte for byte and in the order received (promise 4). Taken off:
//! the headers of one hop (RFC 9110 section 7.6.1) and those that `Connection` names, the framing (`Content-Length`
//! is written anew, exactly), `Expect`, and the names that only a gateway may speak: `tidegate-*`, `x-forwarded-*`,
//! `forwarded`, `x-real-ip`, also with `_` for `-`. `Host` is never taken off, whatever `Connection` names.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::buffer::{BatchPart, EventId};
use crate::clock::Timestamp;
use crate::config::{Destination, HostHeader};
use crate::message::{HOP_BY_HOP, Headers, HeadersBuilder, Method, OUR_PREFIX, Scheme, TraceContext};
use crate::reason::Reason;

use super::origin;
use super::{Affinity, Outgoing};

/// Room for what we add to a sender's head.
const OUR_FIELDS: usize = 12;
const OUR_BYTES: usize = 512;

/// A sender's head to be passed on, inline or later.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    pub method: &'a Method,
    pub target: &'a str,
    pub authority: &'a str,
    pub scheme: Scheme,
    /// The client's address, for `Forwarded` and `X-Forwarded-For`.
    pub client: IpAddr,
    pub headers: &'a Headers,
    /// `tidegate-…` headers; `None` on `pass` routes.
    pub event: Option<EventHeaders<'a>>,
    /// Keep `Upgrade` and its `Connection` (on `pass` routes).
    pub upgrade: bool,
    /// What `traceparent` says; `None` leaves the sender's.
    pub trace: Option<TraceContext>,
    /// The key by which its server is chosen.
    pub affinity: Option<Affinity>,
}

/// What the app learns about an event.
#[derive(Clone, Copy, Debug)]
pub struct EventHeaders<'a> {
    pub id: EventId,
    /// From 1.
    pub attempt: u32,
    pub received_at: Timestamp,
    pub verified: &'a str,
    /// Which event of its request it was, where a request was split.
    pub batch: Option<BatchPart>,
    /// Why verification would have refused it, where it was let through all the same.
    pub would_refuse: Option<Reason>,
    /// The client whose URL it came by.
    pub client: Option<&'a str>,
    /// The app may have had it already, by an attempt of which nobody knows the end.
    pub may_repeat: bool,
}

impl Forward<'_> {
    /// The head for `destination`.
    ///
    /// Path rule: if the upstream's URL has a path other than `/`, that path replaces the sender's and the sender's
    /// query stays; otherwise the sender's target goes on as it is. A query in the upstream's URL comes before the
    /// sender's. Several upstreams of one destination share path and query ([`Upstream::new`](super::Upstream::new)
    /// insists); where `Host` is the upstream's own, the one that is chosen puts in its own.
    pub fn to(&self, destination: &Destination) -> Outgoing {
        let upstream = destination.upstreams.first();
        let rewritten = destination.path.as_ref().and_then(|path| path.apply(self.target));
        let sent = rewritten.as_deref().unwrap_or(self.target);
        let target = match upstream {
            Some(upstream) => origin::target(upstream, sent),
            None => sent.to_owned(),
        };
        let host = match (destination.host, upstream) {
            (HostHeader::Upstream, Some(upstream)) => Some(origin::authority(upstream)),
            _ => None,
        };
        Outgoing {
            method: self.method.clone(),
            target,
            headers: self.headers(destination, host.as_deref()),
            affinity: self.affinity,
            went_to: None,
        }
    }

    fn headers(&self, destination: &Destination, host: Option<&str>) -> Headers {
        let changes = &destination.headers;
        let changed = |name: &str| {
            changes.remove.iter().any(|n| is_like(name, n))
                || changes.set.iter().any(|(n, _)| is_like(name, n))
                || changes.rename.iter().any(|(_, to)| is_like(name, to))
        };
        let renamed = |name: &str| {
            changes.rename.iter().find(|(from, _)| is_like(name, from)).map(|(_, to)| to.as_str())
        };
        // One pass over `Connection` decides whether its list must be asked for every header.
        let named = self
            .headers
            .all("connection")
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty() && !is_usual_connection_token(token));
        let names_more = named.clone().next().is_some();
        let is_named = |name: &str| {
            names_more
                && !name.eq_ignore_ascii_case("host")
                && named.clone().any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
        };

        let mut out = self.headers.builder_like(OUR_FIELDS, OUR_BYTES);
        if !self.headers.contains("host") && !changed("host") {
            out.push("Host", host.unwrap_or(self.authority).as_bytes());
        }
        for (name, value) in self.headers.iter() {
            let is_replaced = self.trace.is_some() && name.eq_ignore_ascii_case("traceparent");
            if is_taken_off(name) || is_named(name) || is_replaced {
                continue;
            }
            if let Some(to) = renamed(name) {
                out.push(to, value);
                continue;
            }
            if changed(name) {
                continue;
            }
            match host {
                Some(host) if name.eq_ignore_ascii_case("host") => out.push(name, host.as_bytes()),
                _ => out.push(name, value),
            };
        }
        if self.upgrade && wants_upgrade(self.headers) {
            out.push("Connection", b"Upgrade");
            for value in self.headers.all("upgrade") {
                out.push("Upgrade", value);
            }
        }
        self.add_ours(&mut out, changed);
        for (name, value) in &changes.set {
            if !is_framing(name) {
                out.push(name, value.as_bytes());
            }
        }
        out.build()
    }

    fn add_ours(&self, out: &mut HeadersBuilder, changed: impl Fn(&str) -> bool) {
        let mut text = String::with_capacity(96);
        let mut add = |name: &str, value: std::fmt::Arguments<'_>| {
            if !changed(name) {
                text.clear();
                // Writing to a `String` does not fail.
                let _ = text.write_fmt(value);
                out.push(name, text.as_bytes());
            }
        };
        let host = ForwardedHost(self.authority);
        let proto = self.scheme.as_str();
        match self.client {
            IpAddr::V4(v4) => add("Forwarded", format_args!("for={v4};proto={proto}{host}")),
            IpAddr::V6(v6) => add("Forwarded", format_args!("for=\"[{v6}]\";proto={proto}{host}")),
        }
        add("X-Forwarded-For", format_args!("{}", self.client));
        add("X-Forwarded-Proto", format_args!("{proto}"));
        if !self.authority.is_empty() {
            add("X-Forwarded-Host", format_args!("{}", self.authority));
        }
        if let Some(trace) = self.trace {
            add("traceparent", format_args!("{trace}"));
        }
        if let Some(event) = self.event {
            add("tidegate-event-id", format_args!("{}", event.id));
            add("tidegate-attempt", format_args!("{}", event.attempt));
            add("tidegate-received-at", format_args!("{}", event.received_at));
            add("tidegate-verified", format_args!("{}", event.verified));
            if let Some(client) = event.client {
                add("tidegate-client", format_args!("{client}"));
            }
            if let Some(batch) = event.batch {
                add("tidegate-batch", format_args!("{batch}"));
            }
            if let Some(reason) = event.would_refuse {
                add("tidegate-would-refuse", format_args!("{reason}"));
            }
            if event.may_repeat {
                add("tidegate-may-repeat", format_args!("true"));
            }
        }
    }
}

/// The host parameter of `Forwarded` (RFC 7239), quoted because of its colon; nothing where it can't be quoted.
struct ForwardedHost<'a>(&'a str);

impl std::fmt::Display for ForwardedHost<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.is_empty() || self.0.contains(['"', '\\']) {
            true => Ok(()),
            false => write!(f, ";host=\"{}\"", self.0),
        }
    }
}

/// Tokens of `Connection` that name no header that would otherwise go on.
fn is_usual_connection_token(token: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade", b"te"].iter().any(|usual| token.eq_ignore_ascii_case(usual))
}

/// Whether this header never reaches the app as the sender sent it.
fn is_taken_off(name: &str) -> bool {
    match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b't') if starts_like(name, OUR_PREFIX) => true,
        Some(b'x') => starts_like(name, "x-forwarded-") || is_like(name, "x-real-ip"),
        Some(b'f') => name.eq_ignore_ascii_case("forwarded"),
        Some(b'e') => name.eq_ignore_ascii_case("expect"),
        Some(b'h') => name.eq_ignore_ascii_case("http2-settings"),
        Some(b'c' | b'k' | b'p' | b't' | b'u') => is_framing(name),
        _ => false,
    }
}

/// Whether a header's name begins with `prefix` for an app behind CGI, WSGI or the like, where `_` and `-` are the same
/// (both are `_` in a variable's name): `tidegate_verified` must not pass for ours.
fn starts_like(name: &str, prefix: &str) -> bool {
    let dash = |byte: &u8| matches!(byte, b'-' | b'_');
    let like = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (dash(a) && dash(b));
    name.len() >= prefix.len() && name.as_bytes().iter().zip(prefix.as_bytes()).all(like)
}

pub(super) fn is_like(name: &str, known: &str) -> bool {
    name.len() == known.len() && starts_like(name, known)
}

/// Headers that belong to one connection or to the framing of one message.
fn is_framing(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length") || HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// Whether the sender asks for another protocol on this connection. `h2c` is not passed on: it would hand the app's
/// connection over to a protocol that we then could not read.
fn wants_upgrade(headers: &Headers) -> bool {
    headers.has_token("connection", "upgrade")
        && headers.contains("upgrade")
        && !headers.has_token("upgrade", "h2c")
}

#[cfg(test)]
mod tests {
    use super::super::testing::destination;
    use super::*;

    const SENT: &[(&str, &[u8])] = &[
        ("hOsT", b"hooks.example.com:8443"),
        ("X-B", b"2"),
        ("x-a", b"\xff\x80"),
        ("X-B", b"1"),
        ("Connection", b"keep-alive, X-Hop"),
        ("x-hop", b"secret"),
        ("Content-Length", b"5"),
        ("Expect", b"100-continue"),
        ("TE", b"trailers"),
        ("tidegate-event-id", b"forged"),
        ("Tidegate-Anything", b"forged"),
        ("X-Forwarded-For", b"6.6.6.6"),
        ("x-forwarded-anything", b"x"),
        ("Forwarded", b"for=6.6.6.6"),
        ("X-Real-IP", b"6.6.6.6"),
        ("tidegate_verified", b"forged"),
        ("TIDEGATE-event_id", b"forged"),
        ("X_Forwarded_For", b"6.6.6.6"),
        ("x_real-ip", b"6.6.6.6"),
        ("Upgrade", b"websocket"),
        ("traceparent", b"00-1"),
    ];

    fn forward<'a>(headers: &'a Headers, target: &'a str) -> Forward<'a> {
        Forward {
            method: &Method::POST,
            target,
            authority: "hooks.example.com:8443",
            scheme: Scheme::Https,
            client: IpAddr::from([192, 0, 2, 7]),
            headers,
            event: Some(EventHeaders {
                id: EventId([7; 16]),
                attempt: 3,
                received_at: Timestamp(1_764_000_000_123),
                verified: "stripe",
                batch: None,
                would_refuse: None,
                client: Some("acme"),
                may_repeat: false,
            }),
            upgrade: false,
            affinity: None,
            trace: None,
        }
    }

    fn lines(headers: &Headers) -> Vec<String> {
        headers.iter().map(|(n, v)| format!("{n}: {}", v.escape_ascii())).collect()
    }

    #[test]
    fn what_is_not_ours_to_touch_goes_on_byte_for_byte_in_order_and_the_rest_is_replaced() {
        let sent = SENT.iter().copied().collect();
        let out = forward(&sent, "/a%2fb?x=1&y").to(&destination("http://app:3000"));
        assert_eq!(out.target, "/a%2fb?x=1&y");
        assert_eq!(
            lines(&out.headers),
            [
                "hOsT: hooks.example.com:8443",
                "X-B: 2",
                "x-a: \\xff\\x80",
                "X-B: 1",
                "traceparent: 00-1",
                "Forwarded: for=192.0.2.7;proto=https;host=\\\"hooks.example.com:8443\\\"",
                "X-Forwarded-For: 192.0.2.7",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: hooks.example.com:8443",
                "tidegate-event-id: 07070707-0707-0707-0707-070707070707",
                "tidegate-attempt: 3",
                "tidegate-received-at: 2025-11-24T16:00:00.123Z",
                "tidegate-verified: stripe",
                "tidegate-client: acme",
            ]
        );
    }

    #[test]
    fn the_upstreams_path_replaces_the_senders_and_the_query_stays() {
        let none = Headers::default();
        let to = |url: &str, target: &str| forward(&none, target).to(&destination(url)).target;
        assert_eq!(to("http://app/", "/in/x?q=1"), "/in/x?q=1");
        assert_eq!(to("http://app/hook", "/in/x?q=1"), "/hook?q=1");
        assert_eq!(to("http://app/hook", "/in/x"), "/hook");
        assert_eq!(to("http://app/hook?k=v", "/in?q=1"), "/hook?k=v&q=1");
        assert_eq!(to("http://app/hook?k=v", "/in"), "/hook?k=v");
        assert_eq!(to("http://app/?k=v", "/in?"), "/in?k=v&");
    }

    #[test]
    fn host_is_kept_or_the_upstreams_own_and_is_there_even_if_the_sender_had_none() {
        let sent: Headers =
            [("A", &b"1"[..]), ("Connection", b"host"), ("Host", b"h.example")].into_iter().collect();
        let mut app = destination("http://app:3000/x");
        assert_eq!(forward(&sent, "/").to(&app).headers.first("host"), Some(&b"h.example"[..]));
        app.host = HostHeader::Upstream;
        assert_eq!(lines(&forward(&sent, "/").to(&app).headers)[..2], ["A: 1", "Host: app:3000"]);
        let none = Headers::default();
        assert_eq!(lines(&forward(&none, "/").to(&app).headers)[0], "Host: app:3000");
        app.host = HostHeader::Keep;
        assert_eq!(lines(&forward(&none, "/").to(&app).headers)[0], "Host: hooks.example.com:8443");
    }

    #[test]
    fn the_operators_changes_win_but_never_touch_the_framing() {
        let sent: Headers =
            [("Cookie", &b"c"[..]), ("X-I", b"0"), ("x_i", b"0"), ("Host", b"h")].into_iter().collect();
        let mut app = destination("http://app");
        app.headers.remove = vec!["cookie".into(), "x-forwarded-host".into()];
        app.headers.set = vec![
            ("x-i".into(), "1".into()),
            ("X-Forwarded-Proto".into(), "ftp".into()),
            ("Content-Length".into(), "9".into()),
            ("Transfer-Encoding".into(), "chunked".into()),
        ];
        let out = forward(&sent, "/").to(&app).headers;
        assert_eq!(out.all("x-i").collect::<Vec<_>>(), [b"1"]);
        assert_eq!(out.all("x-forwarded-proto").collect::<Vec<_>>(), [b"ftp"]);
        for gone in ["cookie", "x_i", "x-forwarded-host", "content-length", "transfer-encoding"] {
            assert!(!out.contains(gone), "{gone}");
        }
    }

    #[test]
    fn a_header_is_renamed_in_place_of_what_the_sender_calls_so() {
        let sent: Headers =
            [("X-Old", &b"1"[..]), ("x-new", b"forged"), ("X_New", b"forged"), ("B", b"2"), ("x-old", b"3")]
                .into_iter()
                .collect();
        let mut app = destination("http://app");
        app.headers.rename = vec![("x-OLD".into(), "X-New".into())];
        let out = forward(&sent, "/").to(&app).headers;
        assert_eq!(out.all("x-new").collect::<Vec<_>>(), [b"1", b"3"]);
        assert!(!out.contains("x-old") && !out.contains("x_new"));
        assert_eq!(lines(&out)[1..4], ["X-New: 1", "B: 2", "X-New: 3"]);
    }

    #[test]
    fn a_path_is_rewritten_and_the_query_stays() {
        let none = Headers::default();
        let mut app = destination("http://app");
        let pattern = regex::Regex::new("^(?:/hooks/([^/]+)/(?P<rest>.*))$").unwrap();
        app.path = Some(crate::config::PathRewrite { pattern, to: "/v2/${rest}/of/$1".into() });
        let to = |target: &str| forward(&none, target).to(&app).target;
        assert_eq!(to("/hooks/a%2fb/c/d?q=1&/hooks/"), "/v2/c/d/of/a%2fb?q=1&/hooks/");
        assert_eq!(to("/other?q=/hooks/a/b"), "/other?q=/hooks/a/b");
    }

    #[test]
    fn an_upgrade_is_kept_only_where_asked_for_and_never_h2c() {
        let websocket: Headers =
            [("Connection", &b"keep-alive, Upgrade"[..]), ("upgrade", b"websocket")].into_iter().collect();
        let h2c: Headers = [
            ("Connection", &b"Upgrade, HTTP2-Settings"[..]),
            ("Upgrade", b"h2c"),
            ("HTTP2-Settings", b"AAM"),
        ]
        .into_iter()
        .collect();
        let app = destination("http://app");
        let pass = |headers| Forward { upgrade: true, event: None, ..forward(headers, "/ws") };
        let out = pass(&websocket).to(&app).headers;
        assert_eq!(out.first("connection"), Some(&b"Upgrade"[..]));
        assert_eq!(out.first("upgrade"), Some(&b"websocket"[..]));
        assert!(!out.iter().any(|(name, _)| name.starts_with("tidegate-")));
        let out = pass(&h2c).to(&app).headers;
        assert!(!out.contains("upgrade") && !out.contains("connection") && !out.contains("http2-settings"));
        assert!(!forward(&websocket, "/").to(&app).headers.contains("upgrade"));
    }

    #[test]
    fn an_ipv6_client_is_written_as_rfc_7239_wants_it() {
        let none = Headers::default();
        let mut f = forward(&none, "/");
        f.client = "2001:db8::1".parse().unwrap();
        let out = f.to(&destination("http://app")).headers;
        assert_eq!(out.first("x-forwarded-for"), Some(&b"2001:db8::1"[..]));
        assert!(out.first("forwarded").unwrap().starts_with(b"for=\"[2001:db8::1]\";proto=https;host="));
    }
}
