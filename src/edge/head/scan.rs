//! Finds the end of a head while its bytes arrive, and gives up early on what can't become one.

use memchr::memchr;

use crate::config::Limits;
use crate::reason::Reason;

use super::{METHOD_BYTES, is_token};

/// ` HTTP/1.1` and the line's end.
const VERSION_BYTES: usize = 11;

/// Where in the head the bytes seen so far end. One for each request.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes already looked at.
    seen: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the first field line begins; 0 while in the request line.
    fields_at: usize,
    /// Complete field lines.
    fields: usize,
}

/// What a look at the bytes says.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head ends before this offset.
    Complete(usize),
    Partial,
    Refused(Reason),
}

impl Scanner {
    /// Looks at `bytes`, which begin with all the bytes of earlier calls. Each byte is looked at once.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Scan {
        if self.seen == 0 && bytes.first().is_some_and(|b| !is_token(*b)) {
            // A TLS hello, an empty line, garbage: nothing that follows can mend it.
            return Scan::Refused(Reason::MalformedRequest);
        }
        while let Some(offset) = memchr(b'\n', &bytes[self.seen..]) {
            let feed = self.seen + offset;
            self.seen = feed + 1;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Scan::Refused(Reason::MalformedRequest);
            }
            let empty = feed - 1 == self.line;
            if self.fields_at == 0 {
                if let Some(reason) = request_line_too_long(&bytes[..feed - 1], limits) {
                    return Scan::Refused(reason);
                }
                self.fields_at = self.seen;
            } else if empty {
                return Scan::Complete(self.seen);
            } else {
                self.fields += 1;
                if self.fields > limits.header_count || self.seen - self.fields_at > limits.header_bytes {
                    return Scan::Refused(Reason::HeadersTooLarge);
                }
            }
            self.line = self.seen;
        }
        self.seen = bytes.len();
        if self.fields_at == 0 {
            request_line_too_long(bytes, limits).map_or(Scan::Partial, Scan::Refused)
        } else if self.seen - self.fields_at > limits.header_bytes {
            Scan::Refused(Reason::HeadersTooLarge)
        } else {
            Scan::Partial
        }
    }
}

fn request_line_too_long(line: &[u8], limits: &Limits) -> Option<Reason> {
    if line.len() > METHOD_BYTES && !line[..=METHOD_BYTES].contains(&b' ') {
        Some(Reason::MalformedRequest)
    } else if line.len() > METHOD_BYTES + limits.uri_bytes + VERSION_BYTES {
        Some(Reason::UriTooLong)
    } else {
        None
    }
}
