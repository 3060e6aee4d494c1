//! Answers on their way to the wire: response heads for pingora's sessions, and the bytes of a refusal for requests
//! that never became a session.

use bytes::Bytes;
use http::HeaderName;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use crate::message::{Answer, Headers, Method};
use crate::reason::Reason;

/// Which HTTP version the head is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Names keep their case.
    AsGiven,
    /// Names are lower case.
    Lower,
}

/// A response head that can't be sent: a bad status, name or value. Always a fault on our side of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response head can't be sent")]
pub(super) struct Unsendable;

/// Room for the fields that the edge itself adds.
const OWN_FIELDS: usize = 3;

/// The head of one of our own answers.
pub(super) fn own_head(answer: &Answer) -> Result<Box<ResponseHeader>, Unsendable> {
    let mut head = ResponseHeader::build_no_case(answer.status, Some(answer.headers.len() + OWN_FIELDS))
        .map_err(|_| Unsendable)?;
    for (name, value) in &answer.headers {
        head.append_header(*name, value.as_str()).map_err(|_| Unsendable)?;
    }
    Ok(Box::new(head))
}

/// The head of an app's answer, and its declared length. Order and repeats stay; what would frame the message
/// otherwise than we do is left out.
pub(super) fn app_head(
    status: u16,
    headers: &Headers,
    names: Names,
) -> Result<(Box<ResponseHeader>, Option<u64>), Unsendable> {
    let fields = Some(headers.len() + OWN_FIELDS);
    let mut head = match names {
        Names::AsGiven => ResponseHeader::build(status, fields),
        Names::Lower => ResponseHeader::build_no_case(status, fields),
    }
    .map_err(|_| Unsendable)?;
    let mut length = None;
    for (name, value) in headers.iter() {
        if name.eq_ignore_ascii_case("content-length") {
            let declared =
                std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok()).ok_or(Unsendable)?;
            if length.replace(declared).is_some_and(|before| before != declared) {
                return Err(Unsendable);
            }
            continue;
        }
        if ["transfer-encoding", "connection", "keep-alive"].iter().any(|n| name.eq_ignore_ascii_case(n)) {
            continue;
        }
        let added = match names {
            Names::AsGiven => head.append_header(name.to_owned(), value),
            Names::Lower => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsendable)?;
                head.append_header(name, value)
            }
        };
        added.map_err(|_| Unsendable)?;
    }
    // Such an answer must not say a length (RFC 9110 section 8.6).
    let length = length.filter(|_| !matches!(status, 100..=199 | 204));
    Ok((head.into(), length))
}

/// Whether an answer to `method` with `status` has no body (RFC 9110 section 6.4.1).
pub(super) fn is_bodiless(method: &Method, status: u16) -> bool {
    *method == Method::HEAD || matches!(status, 100..=199 | 204 | 304)
}

/// Why one of our answers refuses, if it does.
pub(super) fn reason_of(answer: &Answer) -> Option<Reason> {
    let (_, code) = answer.headers.iter().find(|(name, _)| *name == "tidegate-reason")?;
    Reason::ALL.iter().copied().find(|reason| reason.code() == code)
}

/// The refusal of a request that the edge itself does not let in.
pub(super) fn refusal(reason: Reason) -> Answer {
    let answer = Answer::refusal(reason);
    match reason {
        // The methods that no route can take are refused here; these are what is left (RFC 9110 section 15.5.6).
        Reason::MethodNotAllowed => answer.with("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        _ => answer,
    }
}

/// The whole HTTP/1.1 message that refuses and closes. `head` is what was received, whole or not.
pub(super) fn refusal_bytes(reason: Reason, head: &[u8]) -> Bytes {
    use std::fmt::Write;
    let answer = refusal(reason);
    let phrase = http::StatusCode::from_u16(answer.status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("Refused");
    let mut text = format!("HTTP/1.1 {} {phrase}\r\n", answer.status);
    for (name, value) in &answer.headers {
        // Writing to a string can't fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let date = get_cached_date();
    let date = date.to_str().unwrap_or_default();
    let _ =
        write!(text, "date: {date}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.body.len());
    let mut bytes = text.into_bytes();
    if !head.starts_with(Method::HEAD.as_str().as_bytes()) {
        bytes.extend_from_slice(&answer.body);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_order_of_an_apps_fields_stay() {
        let headers: Headers =
            [("Set-Cookie", &b"a=1"[..]), ("X-B", b"2"), ("Content-Length", b"5"), ("set-cookie", b"b=2")]
                .into_iter()
                .collect();
        let (head, length) = app_head(200, &headers, Names::AsGiven).unwrap();
        assert_eq!(length, Some(5));
        let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().map(|v| v.as_bytes()).collect();
        assert_eq!(cookies, [b"a=1", b"b=2"]);
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        assert_eq!(String::from_utf8(wire).unwrap(), "Set-Cookie: a=1\r\nset-cookie: b=2\r\nX-B: 2\r\n");
    }

    #[test]
    fn an_answer_without_content_has_no_length() {
        let headers: Headers = [("Content-Length", &b"0"[..])].into_iter().collect();
        assert_eq!(app_head(204, &headers, Names::AsGiven).unwrap().1, None);
        assert_eq!(app_head(304, &headers, Names::AsGiven).unwrap().1, Some(0));
    }

    #[test]
    fn heads_that_could_split_a_response_are_not_sent() {
        let headers: Headers = [("X", &b"a\r\nSet-Cookie: b"[..])].into_iter().collect();
        assert_eq!(app_head(200, &headers, Names::AsGiven).unwrap_err(), Unsendable);
        let headers: Headers =
            [("Content-Length", &b"5"[..]), ("Content-Length", b"6")].into_iter().collect();
        assert_eq!(app_head(200, &headers, Names::Lower).unwrap_err(), Unsendable);
        assert!(own_head(&Answer::new(200).with("location", "a\r\nb")).is_err());
        assert!(own_head(&Answer::new(7)).is_err());
    }

    #[test]
    fn a_refusal_closes_and_names_its_reason() {
        let text = String::from_utf8(refusal_bytes(Reason::UriTooLong, b"GET ").to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{text}");
        assert!(
            text.contains("\r\nconnection: close\r\n") && text.contains("tidegate-reason: uri_too_long\r\n")
        );
        assert!(text.ends_with('}'));
        let text = String::from_utf8(refusal_bytes(Reason::UriTooLong, b"HEAD /").to_vec()).unwrap();
        assert!(text.ends_with("\r\n\r\n"), "an answer to HEAD has no body");
        assert_eq!(reason_of(&refusal(Reason::MethodNotAllowed)), Some(Reason::MethodNotAllowed));
    }
}
