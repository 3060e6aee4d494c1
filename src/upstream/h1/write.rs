//! A request on the wire: its head as bytes, and head and body written in as few calls as the socket allows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::Method;
use tokio::io::AsyncWrite;

use crate::message::{is_token, none};
use crate::upstream::Outgoing;

/// A body up to this size is copied behind its head; a larger one is written from where it is.
const COPIED: usize = 4 * 1024;
/// A connection's output buffer beyond this is not kept for the next request.
const KEPT: usize = 16 * 1024;

/// How the app learns where the request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Known(u64),
    Chunked,
    /// No body: another protocol follows after the app's 101.
    Upgrade,
}

/// Appends the head to `out`. Names, values, order and repeats are `request`'s; only the framing is ours. `host`
/// replaces the value of `Host`; `authority` is used if there is none. Refuses what would not be one well-formed head
/// whatever it is made from: nothing that could split a request leaves here.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    request: &Outgoing,
    host: Option<&str>,
    authority: &str,
    length: Length,
) -> Result<(), &'static str> {
    let method = request.method.as_str();
    if request.target.is_empty() || !request.target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the request's target holds a byte that can't be sent");
    }
    for part in [method.as_bytes(), b" ", request.target.as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    let mut has_host = false;
    for (name, value) in request.headers.iter() {
        let is_host = name.eq_ignore_ascii_case("host");
        let value = if is_host { host.map_or(value, str::as_bytes) } else { value };
        if is_framing(name) {
            continue;
        }
        if is_host && std::mem::replace(&mut has_host, true) {
            return Err("the request has two Host headers");
        }
        field(out, name, value)?;
    }
    if !has_host {
        field(out, "Host", host.unwrap_or(authority).as_bytes())?;
    }
    match length {
        Length::Known(0) if !expects_a_body(&request.method) => {}
        Length::Known(length) => {
            use io::Write as _;
            // Writing to a `Vec` does not fail.
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Length::Upgrade => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), &'static str> {
    if name.is_empty() || !none(name.as_bytes(), |b| !is_token(b)) {
        return Err("a header's name can't be sent");
    }
    if !none(value, |b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err("a header's value holds a line end or NUL");
    }
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn is_framing(name: &str) -> bool {
    match name.len() {
        14 => name.eq_ignore_ascii_case("content-length"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        _ => false,
    }
}

/// Methods whose empty body is announced, as RFC 9110 section 8.6 asks.
fn expects_a_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// A whole request being written.
#[derive(Debug)]
pub(crate) enum Sending {
    UnderWay {
        written: usize,
        body: Bytes,
    },
    Done,
    /// Writing failed: the app closed its side, perhaps after an answer that is still to be read.
    Broken(io::Error),
    /// The app's answer says that it does not want the rest.
    Stopped,
}

impl Sending {
    /// `output` holds the head; a small body is put behind it.
    pub fn new(output: &mut Vec<u8>, body: Bytes) -> Self {
        let body = if body.len() <= COPIED {
            output.extend_from_slice(&body);
            Bytes::new()
        } else {
            body
        };
        Sending::UnderWay { written: 0, body }
    }

    /// Writes as much as the socket takes. Ready when there is nothing more to write, for whatever reason.
    pub fn poll<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        output: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Sending::UnderWay { written, body } = self {
            match ready!(poll_all(io, output, written, body, cx)) {
                Ok(()) => {
                    *self = Sending::Done;
                    if output.capacity() > KEPT {
                        *output = Vec::new();
                    }
                }
                Err(error) => *self = Sending::Broken(error),
            }
        }
        Poll::Ready(())
    }
}

fn poll_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    output: &[u8],
    written: &mut usize,
    body: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let head = &output[*written..];
        let sent = match (head.is_empty(), body.is_empty()) {
            (true, true) => return Pin::new(io).poll_flush(cx),
            (false, true) => ready!(Pin::new(&mut *io).poll_write(cx, head))?,
            (true, false) => ready!(Pin::new(&mut *io).poll_write(cx, body))?,
            (false, false) => {
                let both = [IoSlice::new(head), IoSlice::new(body)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &both))?
            }
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_head = sent.min(head.len());
        *written += of_head;
        body.advance(sent - of_head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Headers;

    fn request(method: Method, target: &str, fields: &[(&str, &[u8])]) -> Outgoing {
        Outgoing {
            method,
            target: target.into(),
            headers: fields.iter().copied().collect(),
            affinity: None,
            went_to: None,
        }
    }
    fn encoded(request: &Outgoing, length: Length) -> Result<String, &'static str> {
        let mut out = Vec::new();
        encode(&mut out, request, None, "app:1", length)?;
        Ok(out.escape_ascii().to_string())
    }

    #[test]
    fn a_head_is_written_as_given_with_our_framing() {
        let fields: &[(&str, &[u8])] = &[
            ("hOst", b"h"),
            ("X-A", b"\xff 1"),
            ("content-length", b"99"),
            ("x-a", b""),
            ("Transfer-Encoding", b"x"),
        ];
        let post = request(Method::POST, "/a?b", fields);
        assert_eq!(
            encoded(&post, Length::Known(7)).unwrap(),
            r"POST /a?b HTTP/1.1\r\nhOst: h\r\nX-A: \xff 1\r\nx-a: \r\nContent-Length: 7\r\n\r\n"
        );
        assert!(encoded(&post, Length::Known(0)).unwrap().contains("Content-Length: 0"));
        assert!(encoded(&post, Length::Chunked).unwrap().contains("Transfer-Encoding: chunked"));
        let get = request(Method::GET, "/", &[]);
        assert_eq!(encoded(&get, Length::Known(0)).unwrap(), r"GET / HTTP/1.1\r\nHost: app:1\r\n\r\n");
    }

    #[test]
    fn nothing_that_could_split_a_request_is_written() {
        for bad in [
            request(Method::GET, "/ HTTP/1.1", &[]),
            request(Method::GET, "/\r\nX: y", &[]),
            request(Method::GET, "", &[]),
            request(Method::GET, "/", &[("X", b"a\r\nY: b")]),
            request(Method::GET, "/", &[("X", b"a\0")]),
            request(Method::GET, "/", &[("X y", b"a")]),
            request(Method::GET, "/", &[("", b"a")]),
            request(Method::GET, "/", &[("Host", b"a"), ("host", b"b")]),
        ] {
            assert!(encoded(&bad, Length::Known(0)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_hosts_value_can_be_replaced_in_its_place() {
        let mut out = Vec::new();
        let headers: Headers = [("A", &b"1"[..]), ("host", b"theirs"), ("B", b"2")].into_iter().collect();
        let get =
            Outgoing { method: Method::GET, target: "/".into(), headers, affinity: None, went_to: None };
        encode(&mut out, &get, Some("ours"), "x", Length::Known(0)).unwrap();
        assert_eq!(out, b"GET / HTTP/1.1\r\nA: 1\r\nhost: ours\r\nB: 2\r\n\r\n");
    }
}
