//! The HTTP/1 head: from the bytes as they stood on the wire to what was asked, or to the reason why not.
//!
//! Pure, and strict on purpose: what could be read in two ways is refused, never repaired, because the app behind
//! us may read it the other way. [`Scanner`] finds a head's end while bytes arrive and stops unbounded or hopeless
//! ones early; [`parse`] then decides the whole grammar. Carries promise 4 for the head (field ranges point into the
//! received bytes) and promise 5 (count and size of fields, length of the target).

mod fields;
mod scan;
#[cfg(test)]
mod tests;

use std::ops::Range;

use memchr::memchr;

use crate::config::Limits;
pub(super) use crate::message::is_token;
use crate::message::{Method, Version};
use crate::reason::Reason;

use super::target;
use fields::Meaning;
pub use scan::{Scan, Scanner};

/// Longest method that is looked at; the longest registered one has 17 letters.
pub(super) const METHOD_BYTES: usize = 32;

/// A head that may be acted on. Ranges are byte offsets into the parsed bytes.
#[derive(Debug)]
pub struct ParsedHead {
    pub method: Method,
    /// Path and query exactly as sent, or `*`.
    pub target: Range<usize>,
    /// `false` if the absolute-form had no path, so that the target begins at `?` (or is empty) and a `/` belongs
    /// in front of it.
    pub rooted: bool,
    /// The value of `Host`.
    pub authority: Range<usize>,
    pub version: Version,
    /// Name and value (without surrounding blanks) of each field that is passed on, in order.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    pub framing: Framing,
    /// The sender waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// What the sender wants with the connection afterwards.
    pub persistence: Persistence,
    /// The sender offers to switch protocols (never to `h2c`).
    pub upgrade: Upgrade,
}

/// How the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither length nor coding: there is no body.
    None,
    Length(u64),
    Chunked,
}

/// Whether the sender would use the connection again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// Whether the sender offers another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    Offered,
    None,
}

impl ParsedHead {
    /// The target in origin-form (or `*`); `head` are the bytes that were parsed.
    pub fn target_in(&self, head: &[u8]) -> String {
        let sent = text(&head[self.target.clone()]);
        if self.rooted { sent.to_owned() } else { format!("/{sent}") }
    }

    pub fn authority_in<'h>(&self, head: &'h [u8]) -> &'h str {
        text(&head[self.authority.clone()])
    }
}

/// Parses exactly one head, from the first byte of the request line to the empty line's line feed.
///
/// Errors are the reason to refuse the request with; the connection must then be closed, because where the next
/// request would begin is not known.
pub fn parse(head: &[u8], limits: &Limits) -> Result<ParsedHead, Reason> {
    let mut lines = Lines { head, at: 0 };
    let line = lines.next().ok_or(Reason::MalformedRequest)?;
    let request = request_line(head, line, limits)?;
    if head.len() - lines.at > limits.header_bytes {
        return Err(Reason::HeadersTooLarge);
    }

    let mut meaning = Meaning::new(request.version);
    loop {
        let line = lines.next().ok_or(Reason::MalformedRequest)?;
        if line.is_empty() {
            break;
        }
        if meaning.fields.len() >= limits.header_count {
            return Err(Reason::HeadersTooLarge);
        }
        meaning.take(head, line)?;
    }
    if lines.at != head.len() {
        return Err(Reason::MalformedRequest);
    }
    let said = meaning.conclude(head)?;

    if matches!(request.method, Method::CONNECT | Method::TRACE) {
        return Err(Reason::MethodNotAllowed);
    }
    let (target, rooted) = match request.form {
        Form::Origin => (request.target.clone(), true),
        Form::Asterisk if request.method == Method::OPTIONS => (request.target.clone(), true),
        Form::Asterisk => return Err(Reason::MalformedRequest),
        Form::Absolute { authority, path } => {
            // The target wins, and it must not disagree with `Host`: whoever routes on the other one is misled.
            if !head[authority.clone()].eq_ignore_ascii_case(&head[said.host.clone()]) {
                return Err(Reason::InvalidHost);
            }
            let rooted = head[path.clone()].first() == Some(&b'/');
            (path, rooted)
        }
    };
    if request.method != Method::OPTIONS || head[target.clone()] != *b"*" {
        target::check(&head[target.clone()])?;
    }
    Ok(ParsedHead {
        method: request.method,
        target,
        rooted,
        authority: said.host,
        version: request.version,
        fields: said.fields,
        framing: said.framing,
        expects_continue: said.expects_continue,
        persistence: said.persistence,
        upgrade: said.upgrade,
    })
}

/// Lines that end in CRLF, as ranges without it. `None` at the first line that does not, or at the end.
struct Lines<'h> {
    head: &'h [u8],
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;
    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        let feed = start + memchr(b'\n', self.head.get(start..)?)?;
        if feed == start || self.head[feed - 1] != b'\r' {
            return None;
        }
        self.at = feed + 1;
        Some(start..feed - 1)
    }
}

struct RequestLine {
    method: Method,
    target: Range<usize>,
    form: Form,
    version: Version,
}

enum Form {
    Origin,
    Asterisk,
    Absolute { authority: Range<usize>, path: Range<usize> },
}

/// `METHOD SP target SP HTTP/1.x`, with exactly one space in each place.
fn request_line(head: &[u8], line: Range<usize>, limits: &Limits) -> Result<RequestLine, Reason> {
    let bytes = &head[line.clone()];
    let space = bytes.iter().take(METHOD_BYTES + 1).position(|b| *b == b' ');
    let space = space.ok_or(Reason::MalformedRequest)?;
    let method = &bytes[..space];
    if method.is_empty() || !method.iter().all(|b| is_token(*b) && !b.is_ascii_lowercase()) {
        return Err(Reason::MalformedRequest);
    }
    let method = Method::from_bytes(method).map_err(|_| Reason::MalformedRequest)?;

    let rest = &bytes[space + 1..];
    let last = rest.iter().rposition(|b| *b == b' ').ok_or(Reason::MalformedRequest)?;
    let (target, version) = (&rest[..last], &rest[last + 1..]);
    if target.len() > limits.uri_bytes {
        return Err(Reason::UriTooLong);
    }
    if target.is_empty() || target.contains(&b' ') {
        return Err(Reason::MalformedRequest);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Reason::UnsupportedVersion);
        }
        _ => return Err(Reason::MalformedRequest),
    };
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Reason::InvalidPath);
    }
    if target.contains(&b'#') {
        return Err(Reason::MalformedRequest);
    }

    let start = line.start + space + 1;
    let range = start..start + target.len();
    let form = match target {
        [b'/', ..] => Form::Origin,
        b"*" => Form::Asterisk,
        // Its target is an authority; it is refused by its method.
        _ if method == Method::CONNECT => Form::Origin,
        _ => {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|s| target.len() > s.len() && target[..s.len()].eq_ignore_ascii_case(s))
                .ok_or(Reason::MalformedRequest)?;
            let after = &target[scheme.len()..];
            let length = after.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(after.len());
            let authority = start + scheme.len()..start + scheme.len() + length;
            let path = authority.end..range.end;
            Form::Absolute { authority, path }
        }
    };
    Ok(RequestLine { method, target: range, form, version })
}

/// What was checked to be ASCII; a wrong caller gets an empty text, not a panic.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
