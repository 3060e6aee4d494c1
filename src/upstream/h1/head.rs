//! The head of an HTTP/1 answer, read strictly, and what it says about the body. Pure.
//!
//! Refused rather than repaired: lines without CR, a length beside chunked, lengths that differ, codings other than
//! one `chunked`, heads beyond the limits.

use std::mem::MaybeUninit;

use bytes::BytesMut;

use crate::message::Headers;

/// Bytes of one answer's head.
const MAX_HEAD: usize = 64 * 1024;
/// Fields of one answer's head.
const MAX_FIELDS: usize = 128;

/// An answer's head. `headers` share the bytes it was read from.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub status: u16,
    pub headers: Headers,
    pub version: Http1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http1 {
    V10,
    V11,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the request was, as far as it decides how its answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The answer has no body.
    Head,
    /// 101 may be the answer.
    Upgrade,
    Other,
}

/// Finds the end of a head as it arrives; every byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    seen: usize,
}

impl Scan {
    /// Takes the head off the front of `input`; `None` if it is not complete.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<ResponseHead>, String> {
        if let Some(first) = input.first()
            && *first != b'H'
        {
            return Err("the answer does not begin with HTTP/1".into());
        }
        while let Some(offset) = input[self.seen..].iter().position(|b| *b == b'\n') {
            let at = self.seen + offset;
            if at == 0 || input[at - 1] != b'\r' {
                return Err("a line of the answer's head does not end in CR LF".into());
            }
            self.seen = at + 1;
            if self.seen > MAX_HEAD {
                break;
            }
            if at >= 3 && &input[at - 3..at] == b"\r\n\r" {
                let head = parse(input.split_to(self.seen))?;
                self.seen = 0;
                return Ok(Some(head));
            }
        }
        if input.len() > MAX_HEAD {
            return Err(format!("the answer's head is larger than {MAX_HEAD} bytes"));
        }
        self.seen = input.len();
        Ok(None)
    }
}

fn parse(block: BytesMut) -> Result<ResponseHead, String> {
    let block = block.freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let (status, version) = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        &block,
        &mut fields,
    ) {
        Ok(httparse::Status::Complete(_)) => (parsed.code, parsed.version),
        Ok(httparse::Status::Partial) => return Err("the answer's head ends early".into()),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(format!("the answer has more than {MAX_FIELDS} header fields"));
        }
        Err(error) => return Err(format!("the answer's head is malformed: {error}")),
    };
    let (Some(status @ 100..=999), Some(version)) = (status, version) else {
        return Err("the answer's status is no status".into());
    };
    let version = if version == 0 { Http1::V10 } else { Http1::V11 };
    let start = block.as_ptr() as usize;
    // An empty value may stand outside of the block.
    let range = |part: &[u8]| match part.is_empty() {
        true => 0..0,
        false => {
            let from = part.as_ptr() as usize - start;
            from..from + part.len()
        }
    };
    let ranges: Vec<_> = parsed.headers.iter().map(|f| (range(f.name.as_bytes()), range(f.value))).collect();
    Ok(ResponseHead { status, headers: Headers::index(block, ranges), version })
}

impl ResponseHead {
    /// How the body's end is found (RFC 9112 section 6.3), or what is wrong.
    pub fn framing(&self, asked: Asked) -> Result<Framing, String> {
        let length = self.content_length()?;
        let coded = self.headers.contains("transfer-encoding");
        if coded {
            if length.is_some() {
                return Err("the answer has both Content-Length and Transfer-Encoding".into());
            }
            let only = self.headers.only("transfer-encoding").ok().flatten().unwrap_or_default();
            if !only.eq_ignore_ascii_case(b"chunked") || self.version == Http1::V10 {
                return Err("the answer's transfer coding is not exactly chunked".into());
            }
        }
        Ok(match (asked, self.status, length) {
            (Asked::Head, ..) | (_, 100..=199 | 204 | 304, _) => Framing::None,
            _ if coded => Framing::Chunked,
            (_, _, Some(0)) => Framing::None,
            (_, _, Some(length)) => Framing::Length(length),
            (_, _, None) => Framing::UntilClose,
        })
    }

    /// Whether the connection may carry another request after this answer.
    pub fn keeps_alive(&self) -> bool {
        self.version == Http1::V11 && !self.headers.has_token("connection", "close")
    }

    fn content_length(&self) -> Result<Option<u64>, String> {
        let mut length = None;
        for value in self.headers.all("content-length").flat_map(|v| v.split(|b| *b == b',')) {
            let this = digits(value.trim_ascii())
                .ok_or_else(|| "the answer's Content-Length is not a number".to_owned())?;
            if length.is_some_and(|earlier| earlier != this) {
                return Err("the answer has differing Content-Lengths".into());
            }
            length = Some(this);
        }
        Ok(length)
    }
}

/// A plain decimal number of at most 18 digits.
fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 18 && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Option<ResponseHead>, String> {
        Scan::default().next(&mut BytesMut::from(text))
    }
    fn framing(head: &str) -> Result<Framing, String> {
        read(head.as_bytes()).unwrap().unwrap().framing(Asked::Other)
    }

    #[test]
    fn a_head_is_read_in_place_with_names_and_values_as_they_came() {
        let mut input = BytesMut::from(&b"HTTP/1.1 202 Fine by me\r\nX-A:  b \r\nx-a:\xff\r\n\r\nbody"[..]);
        let head = Scan::default().next(&mut input).unwrap().unwrap();
        assert_eq!(head.status, 202);
        let fields: Vec<_> = head.headers.iter().collect();
        assert_eq!(fields, [("X-A", &b"b"[..]), ("x-a", b"\xff")]);
        assert_eq!(&input[..], b"body");
    }

    #[test]
    fn the_body_rules_of_rfc_9112_hold() {
        let head = |text: &str| read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(framing("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), Ok(Framing::Length(7)));
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\ncontent-length: 7\r\n\r\n"),
            Ok(Framing::Length(7))
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n"), Ok(Framing::UntilClose));
        assert_eq!(framing("HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n"), Ok(Framing::None));
        assert_eq!(framing("HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n"), Ok(Framing::None));
        let to_head = head("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").framing(Asked::Head);
        assert_eq!(to_head, Ok(Framing::None));
        assert!(!head("HTTP/1.0 200 OK\r\n\r\n").keeps_alive());
        assert!(!head("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n").keeps_alive());
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").keeps_alive());
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1, 2",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert!(framing(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).is_err(), "{fields}");
        }
        assert!(framing("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn malformed_heads_are_refused() {
        for text in [
            &b"\r\nHTTP/1.1 200 OK\r\n\r\n"[..],
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 000 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
        ] {
            assert!(read(text).is_err(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_head_has_limits() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(read(many.as_bytes()).unwrap_err().contains("128"));
        let large = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD));
        assert!(read(large.as_bytes()).unwrap_err().contains("65536"));
        let whole = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        assert!(read(whole.as_bytes()).unwrap_err().contains("65536"));
    }

    proptest! {
        #[test]
        fn a_head_is_found_in_any_cutting(cut in 1usize..30) {
            let text = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\nrest";
            let (mut scan, mut input, mut heads) = (Scan::default(), BytesMut::new(), 0);
            for piece in text.chunks(cut) {
                input.extend_from_slice(piece);
                if heads == 0 && let Some(head) = scan.next(&mut input).unwrap() {
                    prop_assert_eq!(head.headers.len(), 2);
                    heads += 1;
                }
            }
            prop_assert_eq!((heads, &input[..]), (1, &b"rest"[..]));
        }

        #[test]
        fn garbage_never_panics(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&input);
            let _ = read(&[b"HTTP/1.1 200 OK\r\n", &input[..], b"\r\n\r\n"].concat());
        }
    }
}
