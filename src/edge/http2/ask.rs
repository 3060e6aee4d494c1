//! What an HTTP/2 stream asks, under the same rules as an HTTP/1 head.
//!
//! `h2` has already refused what RFC 9113 calls malformed. A fragment in `:path` is dropped below us, unseen.

use http::HeaderMap;
use pingora::protocols::http::v2::server::HttpSession;

use crate::config::Limits;
use crate::edge::app::{App, Place};
use crate::edge::target;
use crate::message::{Head, Headers, Method, Scheme, Version};
use crate::reason::Reason;

/// Checks what pingora and `h2` let through and makes the head.
pub(super) fn head<A: App>(
    session: &HttpSession,
    place: &Place,
    limits: &Limits,
    app: &A,
) -> Result<Head, Reason> {
    let request = session.req_header();
    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotAllowed);
    }
    if request.method.as_str().bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(Reason::MalformedRequest);
    }
    let sent = request.raw_path();
    if sent.len() > limits.uri_bytes {
        return Err(Reason::UriTooLong);
    }
    if !sent.iter().all(u8::is_ascii_graphic) {
        return Err(Reason::InvalidPath);
    }
    match sent {
        b"*" if request.method == Method::OPTIONS => {}
        [b'/', ..] if !sent.contains(&b'#') => target::check(sent)?,
        _ => return Err(Reason::MalformedRequest),
    }
    let target = std::str::from_utf8(sent).map_err(|_| Reason::InvalidPath)?.to_owned();
    let authority = authority(request.uri.authority().map(http::uri::Authority::as_str), &request.headers)?;
    let headers = headers(&request.headers, limits)?;
    let asked = app.asked(place.listener, place.peer.ip(), &headers);
    Ok(Head {
        method: request.method.clone(),
        target,
        authority,
        asked_authority: asked.authority,
        scheme: asked.scheme.unwrap_or(Scheme::Https),
        version: Version::Http2,
        client: asked.client,
        headers,
        peer: place.peer,
        local: place.local,
        received_at: app.clock().now(),
    })
}

/// `:authority`, or `Host` where there is none; both must say the same.
fn authority(pseudo: Option<&str>, headers: &HeaderMap) -> Result<String, Reason> {
    let mut hosts = headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(|h| h.to_str().map_err(|_| Reason::InvalidHost)).transpose()?;
    if hosts.next().is_some() {
        return Err(Reason::InvalidHost);
    }
    let authority = match (pseudo, host) {
        (Some(pseudo), Some(host)) if !pseudo.eq_ignore_ascii_case(host) => return Err(Reason::InvalidHost),
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return Err(Reason::InvalidHost),
    };
    target::check_authority(authority.as_bytes())?;
    Ok(authority.to_owned())
}

/// The fields, with the crumbs of `cookie` joined again as every hop out of HTTP/2 must (RFC 9113 section 8.2.3).
fn headers(map: &HeaderMap, limits: &Limits) -> Result<Headers, Reason> {
    if map.len() > limits.header_count {
        return Err(Reason::HeadersTooLarge);
    }
    let mut bytes = 0;
    let mut cookies: Vec<u8> = Vec::new();
    let mut expects = false;
    let mut builder = Headers::builder();
    for (name, value) in map {
        let value = value.as_bytes();
        // As HTTP/1 would write it.
        bytes += name.as_str().len() + value.len() + 4;
        if bytes > limits.header_bytes {
            return Err(Reason::HeadersTooLarge);
        }
        if value.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 0x7f) {
            return Err(Reason::MalformedRequest);
        }
        match name.as_str() {
            "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
                return Err(Reason::MalformedRequest);
            }
            "expect" if expects || !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Reason::ExpectationFailed);
            }
            "expect" => {
                expects = true;
                builder.push("expect", value);
            }
            "cookie" => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
            }
            name => {
                builder.push(name, value);
            }
        }
    }
    if !cookies.is_empty() {
        builder.push("cookie", &cookies);
    }
    Ok(builder.build())
}
