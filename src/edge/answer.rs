//! Answers on their way to the wire: response heads, as bytes for HTTP/1 and as maps for pingora's HTTP/2 sessions, and
//! the whole message of a refusal for requests that never became one.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderName;
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;

use crate::message::{Answer, Headers, Method, is_control, is_token, none};
use crate::reason::Reason;

/// A response head that can't be sent: a bad status, name or value. Always a fault on our side of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the response head can't be sent")]
pub(super) struct Unsendable;

/// Room for a usual head on HTTP/1.
const HEAD_BYTES: usize = 512;
/// Room for the fields that the edge itself adds.
const OWN_FIELDS: usize = 3;

/// The head of one of our own answers over HTTP/2.
pub(super) fn own_head(answer: &Answer) -> Result<Box<ResponseHeader>, Unsendable> {
    let mut head = ResponseHeader::build_no_case(answer.status, Some(answer.headers.len() + OWN_FIELDS))
        .map_err(|_| Unsendable)?;
    for (name, value) in &answer.headers {
        match name {
            Cow::Borrowed(name) => head.append_header(*name, value.as_str()),
            Cow::Owned(name) => head.append_header(name.clone(), value.as_str()),
        }
        .map_err(|_| Unsendable)?;
    }
    Ok(Box::new(head))
}

/// The head of an app's answer over HTTP/2, and its declared length. What would frame the message otherwise than we do
/// is left out.
pub(super) fn app_head(
    status: u16,
    headers: &Headers,
) -> Result<(Box<ResponseHeader>, Option<u64>), Unsendable> {
    let length = declared_length(status, headers)?;
    let mut head =
        ResponseHeader::build_no_case(status, Some(headers.len() + OWN_FIELDS)).map_err(|_| Unsendable)?;
    for (name, value) in headers.iter().filter(|(name, _)| is_passed_on(name)) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unsendable)?;
        head.append_header(name, value).map_err(|_| Unsendable)?;
    }
    Ok((head.into(), length))
}

/// How long an app says that its answer's body is; `None` also where an answer must not say it (RFC 9110 section 8.6).
pub(super) fn declared_length(status: u16, headers: &Headers) -> Result<Option<u64>, Unsendable> {
    let mut length = None;
    for value in headers.all("content-length") {
        let declared =
            std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok()).ok_or(Unsendable)?;
        if length.replace(declared).is_some_and(|before| before != declared) {
            return Err(Unsendable);
        }
    }
    Ok(length.filter(|_| !matches!(status, 100..=199 | 204)))
}

/// Whether a field of an app's answer says something else than how the app's own message is framed.
pub(super) fn is_passed_on(name: &str) -> bool {
    match name.len() {
        10 => !["connection", "keep-alive"].iter().any(|n| name.eq_ignore_ascii_case(n)),
        14 => !name.eq_ignore_ascii_case("content-length"),
        17 => !name.eq_ignore_ascii_case("transfer-encoding"),
        _ => true,
    }
}

/// How an HTTP/1 answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// There is none, and nothing says how long it would be.
    None,
    /// After so many bytes.
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

/// What an HTTP/1 answer says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    KeepAlive,
    Close,
}

/// The fields of one of our own answers.
pub(super) fn own_fields(answer: &Answer) -> impl Iterator<Item = (&str, &[u8])> {
    answer.headers.iter().map(|(name, value)| (&**name, value.as_bytes()))
}

/// Appends an HTTP/1 head to `out`: `fields` as they are, in their order, then ours. On an error nothing is appended.
pub(super) fn put_head<'f>(
    out: &mut BytesMut,
    status: u16,
    fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ending: Ending,
    connection: Connection,
) -> Result<(), Unsendable> {
    put_all(out, |out| {
        put_status(out, status)?;
        let mut dated = false;
        for (name, value) in fields {
            dated |= name.eq_ignore_ascii_case("date");
            put_field(out, name, value)?;
        }
        if !dated {
            put_field(out, "Date", get_cached_date().as_bytes())?;
        }
        match ending {
            Ending::None | Ending::Close => {}
            Ending::Length(length) => {
                out.put_slice(b"Content-Length: ");
                put_number(out, length);
                out.put_slice(b"\r\n");
            }
            Ending::Chunked => out.put_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        out.put_slice(match connection {
            Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n",
            Connection::Close => b"Connection: close\r\n\r\n",
        });
        Ok(())
    })
}

/// Appends the head of `101 Switching Protocols`: its hop-by-hop fields are this hop's. The protocol is what the app
/// says, or what was offered.
pub(super) fn put_switching(out: &mut BytesMut, headers: &Headers, offered: &[u8]) -> Result<(), Unsendable> {
    put_all(out, |out| {
        put_status(out, 101)?;
        for (name, value) in headers.iter().filter(|(name, _)| is_passed_on(name)) {
            put_field(out, name, value)?;
        }
        if !headers.contains("upgrade") {
            put_field(out, "Upgrade", offered)?;
        }
        out.put_slice(b"Connection: Upgrade\r\n\r\n");
        Ok(())
    })
}

/// All that `put` appends, or nothing.
fn put_all(
    out: &mut BytesMut,
    put: impl FnOnce(&mut BytesMut) -> Result<(), Unsendable>,
) -> Result<(), Unsendable> {
    let before = out.len();
    put(out).inspect_err(|_| out.truncate(before))
}

fn put_status(out: &mut BytesMut, status: u16) -> Result<(), Unsendable> {
    let status = http::StatusCode::from_u16(status).map_err(|_| Unsendable)?;
    out.reserve(HEAD_BYTES);
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        out.put_slice(part.as_bytes());
    }
    Ok(())
}

/// Refuses what would not be one field: nothing that could split an answer leaves here.
fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) -> Result<(), Unsendable> {
    if name.is_empty() || !none(name.as_bytes(), |b| !is_token(b)) || !none(value, is_control) {
        return Err(Unsendable);
    }
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.put_slice(part);
    }
    Ok(())
}

fn put_number(out: &mut BytesMut, number: u64) {
    use std::fmt::Write;
    // Writing to a growing buffer can't fail.
    let _ = write!(out, "{number}");
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

    fn put(status: u16, headers: &Headers, ending: Ending) -> Result<String, Unsendable> {
        let mut out = BytesMut::from("before ");
        let fields = headers.iter().filter(|(name, _)| is_passed_on(name));
        let put = put_head(&mut out, status, fields, ending, Connection::KeepAlive);
        let text = String::from_utf8(out.to_vec()).unwrap();
        match put {
            Ok(()) => Ok(text.strip_prefix("before ").unwrap().to_owned()),
            Err(unsendable) => {
                assert_eq!(text, "before ", "nothing of a head that can't be sent is left");
                Err(unsendable)
            }
        }
    }

    #[test]
    fn an_apps_fields_stay_as_they_are_but_for_the_framing() {
        let headers: Headers = [
            ("Set-Cookie", &b"a=1"[..]),
            ("X-B", b"\xff"),
            ("Content-Length", b"5"),
            ("set-cookie", b"b=2"),
            ("Keep-Alive", b"1"),
            ("Date", b"d"),
        ]
        .into_iter()
        .collect();
        assert_eq!(declared_length(200, &headers), Ok(Some(5)));
        let headers: Headers = headers.iter().filter(|(name, _)| *name != "X-B").collect();
        assert_eq!(
            put(200, &headers, Ending::Chunked).unwrap(),
            "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nDate: d\r\n\
             Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
        );
        let (head, length) = app_head(200, &headers).unwrap();
        assert_eq!(length, Some(5));
        let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().map(|v| v.as_bytes()).collect();
        assert_eq!(cookies, [b"a=1", b"b=2"]);
        let dated = put(599, &Headers::default(), Ending::Length(7)).unwrap();
        assert!(dated.starts_with("HTTP/1.1 599 \r\nDate: ") && dated.contains("\r\nContent-Length: 7\r\n"));
    }

    #[test]
    fn a_switch_names_its_protocol() {
        let mut out = BytesMut::new();
        let headers: Headers = [("Connection", &b"upgrade"[..]), ("X", b"1")].into_iter().collect();
        put_switching(&mut out, &headers, b"echo").unwrap();
        assert_eq!(
            out,
            "HTTP/1.1 101 Switching Protocols\r\nX: 1\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_without_content_has_no_length() {
        let headers: Headers = [("Content-Length", &b"0"[..])].into_iter().collect();
        assert_eq!(declared_length(204, &headers), Ok(None));
        assert_eq!(declared_length(304, &headers), Ok(Some(0)));
    }

    #[test]
    fn heads_that_could_split_a_response_are_not_sent() {
        for (name, value) in [("X", &b"a\r\nSet-Cookie: b"[..]), ("X", b"\0"), ("X y", b""), ("", b"")] {
            let headers: Headers = [(name, value)].into_iter().collect();
            assert_eq!(put(200, &headers, Ending::None), Err(Unsendable));
            assert!(app_head(200, &headers).is_err());
        }
        let headers: Headers =
            [("Content-Length", &b"5"[..]), ("Content-Length", b"6")].into_iter().collect();
        assert_eq!(app_head(200, &headers).unwrap_err(), Unsendable);
        assert!(own_head(&Answer::new(200).with("location", "a\r\nb")).is_err());
        assert!(own_head(&Answer::new(7)).is_err());
        assert!(put(7, &Headers::default(), Ending::None).is_err());
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
