//! Header fields one by one, and what those that frame, address or steer the message say together.

use std::ops::Range;

use crate::message::{Version, is_control, none};
use crate::reason::Reason;

use super::{Framing, Persistence, Upgrade, is_token};
use crate::edge::target;

/// Collects fields and remembers where the decisive ones stand.
pub(super) struct Meaning {
    version: Version,
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    expects_continue: bool,
    connection_close: bool,
    connection_keep_alive: bool,
    connection_upgrade: bool,
    upgrade: bool,
    /// `Upgrade: h2c`: we never take it, and neither may the app (requests would pass us by unseen).
    upgrade_h2c: bool,
}

/// The conclusion from all fields.
pub(super) struct Said {
    pub host: Range<usize>,
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    pub framing: Framing,
    pub expects_continue: bool,
    pub persistence: Persistence,
    pub upgrade: Upgrade,
}

impl Meaning {
    pub fn new(version: Version) -> Self {
        Self {
            version,
            fields: Vec::with_capacity(16),
            host: None,
            length: None,
            chunked: false,
            expects_continue: false,
            connection_close: false,
            connection_keep_alive: false,
            connection_upgrade: false,
            upgrade: false,
            upgrade_h2c: false,
        }
    }

    /// Takes the field line at `line` (without CRLF).
    pub fn take(&mut self, head: &[u8], line: Range<usize>) -> Result<(), Reason> {
        let bytes = &head[line.clone()];
        let colon = bytes.iter().position(|b| !is_token(*b)).ok_or(Reason::MalformedRequest)?;
        // The first byte that no name can hold must be the colon: so there is no folding, no blank before it, and
        // the name is not empty.
        if colon == 0 || bytes[colon] != b':' || colon > usize::from(u16::MAX) {
            return Err(Reason::MalformedRequest);
        }
        let raw = &bytes[colon + 1..];
        if !none(raw, is_control) {
            return Err(Reason::MalformedRequest);
        }
        let before = raw.iter().take_while(|b| is_blank(**b)).count();
        let after = raw[before..].iter().rev().take_while(|b| is_blank(**b)).count();
        let value = line.start + colon + 1 + before..line.end - after;
        self.fields.push((line.start..line.start + colon, value.clone()));
        self.weigh(&bytes[..colon], raw, head, value)
    }

    /// `raw` is the value with its blanks: what frames the message is compared without trimming, because parsers
    /// differ in what they trim.
    fn weigh(&mut self, name: &[u8], raw: &[u8], head: &[u8], value: Range<usize>) -> Result<(), Reason> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                if self.host.is_some() {
                    return Err(Reason::InvalidHost);
                }
                target::check_authority(&head[value.clone()])?;
                self.host = Some(value);
            }
            6 if is(b"expect") => {
                if self.expects_continue || !head[value].eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reason::ExpectationFailed);
                }
                self.expects_continue = true;
            }
            7 if is(b"upgrade") => {
                self.upgrade = true;
                self.upgrade_h2c |= tokens(&head[value]).any(|t| t.eq_ignore_ascii_case(b"h2c"));
            }
            10 if is(b"connection") => {
                for token in tokens(&head[value]) {
                    self.connection_close |= token.eq_ignore_ascii_case(b"close");
                    self.connection_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    self.connection_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if is(b"content-length") => {
                if self.length.is_some() || self.chunked {
                    return Err(Reason::MalformedRequest);
                }
                self.length = Some(length(raw)?);
            }
            17 if is(b"transfer-encoding") => {
                if self.length.is_some() || self.chunked || self.version == Version::Http10 {
                    return Err(Reason::MalformedRequest);
                }
                coding(raw)?;
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    pub fn conclude(mut self, head: &[u8]) -> Result<Said, Reason> {
        let host = self.host.ok_or(Reason::InvalidHost)?;
        if self.upgrade_h2c {
            self.fields.retain(|(name, _)| {
                let name = &head[name.clone()];
                !name.eq_ignore_ascii_case(b"upgrade") && !name.eq_ignore_ascii_case(b"http2-settings")
            });
        }
        let framing = match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        let stays = match self.version {
            Version::Http10 => self.connection_keep_alive && !self.connection_close,
            Version::Http11 | Version::Http2 => !self.connection_close,
        };
        let current = self.version != Version::Http10;
        let offers = current && self.upgrade && self.connection_upgrade && !self.upgrade_h2c;
        Ok(Said {
            host,
            fields: self.fields,
            framing,
            // HTTP/1.0 knows no interim answers (RFC 9110 section 10.1.1).
            expects_continue: current && self.expects_continue && framing != Framing::None,
            persistence: if stays { Persistence::KeepAlive } else { Persistence::Close },
            upgrade: if offers { Upgrade::Offered } else { Upgrade::None },
        })
    }
}

/// `1*DIGIT` after at most one space.
fn length(raw: &[u8]) -> Result<u64, Reason> {
    let digits = raw.strip_prefix(b" ").unwrap_or(raw);
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Reason::MalformedRequest);
    }
    // 19 digits always fit in 64 bits.
    Ok(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Exactly one `chunked`; codings that we do not know are named as such.
fn coding(raw: &[u8]) -> Result<(), Reason> {
    let value = raw.strip_prefix(b" ").unwrap_or(raw);
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let unknown = |coding: &[u8]| {
        !coding.is_empty()
            && coding.iter().all(|b| is_token(*b))
            && !coding.eq_ignore_ascii_case(b"chunked")
            && !coding.eq_ignore_ascii_case(b"identity")
    };
    if unknown(value) { Err(Reason::UnknownCoding) } else { Err(Reason::MalformedRequest) }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}
