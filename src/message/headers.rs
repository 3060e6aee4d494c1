//! Header fields as received: one block of bytes and an index into it.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// An ordered list of header fields. Names are ASCII tokens in the case they came in; values are bytes. Cloning is
/// cheap in the block (shared) and copies the index.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    block: Bytes,
    fields: Vec<Field>,
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: u32,
    name_len: u16,
    value: u32,
    value_len: u32,
}

impl Field {
    /// `None` beyond 4 GiB, or 64 KiB of a name.
    fn new(name: &Range<usize>, value: &Range<usize>) -> Option<Self> {
        Some(Self {
            name: u32::try_from(name.start).ok()?,
            name_len: u16::try_from(name.end.checked_sub(name.start)?).ok()?,
            value: u32::try_from(value.start).ok()?,
            value_len: u32::try_from(value.end.checked_sub(value.start)?).ok()?,
        })
    }
    fn lies_in(&self, block: &[u8]) -> bool {
        self.name as usize + usize::from(self.name_len) <= block.len()
            && self.value as usize + self.value_len as usize <= block.len()
    }
}

/// A byte of a token, of which names are made (`tchar` of RFC 9110 section 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Whether `bytes` hold none for which `bad` is true. Looks at all of them, many at a time.
pub fn none(bytes: &[u8], bad: impl Fn(u8) -> bool) -> bool {
    !bytes.iter().fold(false, |found, byte| found | bad(*byte))
}

/// A control byte that no field's value may hold.
pub const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// A header that must be unambiguous came more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header came more than once")]
pub struct Duplicated;

impl Headers {
    pub fn builder() -> HeadersBuilder {
        HeadersBuilder::default()
    }

    /// A builder with room for these fields and for `fields` more of `bytes` in all.
    pub fn builder_like(&self, fields: usize, bytes: usize) -> HeadersBuilder {
        HeadersBuilder {
            block: BytesMut::with_capacity(self.bytes() + bytes),
            fields: Vec::with_capacity(self.len() + fields),
        }
    }

    /// The length of all names and values.
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|f| usize::from(f.name_len) + f.value_len as usize).sum()
    }

    /// Indexes fields that stand in `block`; ranges are byte offsets into it. The caller has checked that names are
    /// ASCII tokens. Ranges outside the block are a caller's bug and are dropped.
    pub fn index(block: Bytes, ranges: impl IntoIterator<Item = (Range<usize>, Range<usize>)>) -> Self {
        let ranges = ranges.into_iter();
        let mut fields = Vec::with_capacity(ranges.size_hint().0);
        fields.extend(
            ranges.filter_map(|(name, value)| Field::new(&name, &value).filter(|f| f.lies_in(&block))),
        );
        Self { block, fields }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|f| (self.name(f), self.value(f)))
    }

    /// All values of one name (ASCII case does not matter), in order.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        self.fields.iter().filter(move |f| self.is_named(f, name)).map(|f| self.value(f))
    }

    /// The first value of a name.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|f| self.is_named(f, name)).map(|f| self.value(f))
    }

    /// The only value of a name: for headers that decide something and so must not come twice.
    pub fn only(&self, name: &str) -> Result<Option<&[u8]>, Duplicated> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { Err(Duplicated) } else { Ok(first) }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Whether a comma-separated list header holds `token` (ASCII case does not matter).
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|v| v.split(|b| *b == b','))
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    fn is_named(&self, f: &Field, name: &str) -> bool {
        usize::from(f.name_len) == name.len() && self.name_bytes(f).eq_ignore_ascii_case(name.as_bytes())
    }
    fn name_bytes(&self, f: &Field) -> &[u8] {
        &self.block[f.name as usize..f.name as usize + usize::from(f.name_len)]
    }
    fn name(&self, f: &Field) -> &str {
        // Names are ASCII tokens by construction; a wrong caller gets an empty name, not a panic.
        std::str::from_utf8(self.name_bytes(f)).unwrap_or_default()
    }
    fn value(&self, f: &Field) -> &[u8] {
        &self.block[f.value as usize..f.value as usize + f.value_len as usize]
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [u8])>>(fields: I) -> Self {
        let mut builder = Headers::builder();
        for (name, value) in fields {
            builder.push(name, value);
        }
        builder.build()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}
impl Eq for Headers {}

/// Collects fields one by one into one block.
#[derive(Debug, Default)]
pub struct HeadersBuilder {
    block: BytesMut,
    fields: Vec<Field>,
}

impl HeadersBuilder {
    /// A field that is too long for any header (4 GiB, or 64 KiB of a name) is dropped.
    pub fn push(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let start = self.block.len();
        let middle = start + name.len();
        if let Some(field) = Field::new(&(start..middle), &(middle..middle + value.len())) {
            self.block.put_slice(name.as_bytes());
            self.block.put_slice(value);
            self.fields.push(field);
        }
        self
    }
    pub fn build(self) -> Headers {
        Headers { block: self.block.freeze(), fields: self.fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Headers {
        [("Host", &b"a"[..]), ("X-A", b"1"), ("x-b", b"\xff"), ("X-a", b"2")].into_iter().collect()
    }

    #[test]
    fn order_case_and_repeats_are_kept() {
        let names: Vec<_> = sample().iter().map(|(n, _)| n.to_owned()).collect();
        assert_eq!(names, ["Host", "X-A", "x-b", "X-a"]);
    }

    #[test]
    fn lookups_do_not_care_for_case() {
        let h = sample();
        assert_eq!(h.all("x-A").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(h.first("X-B"), Some(&b"\xff"[..]));
        assert_eq!(h.only("x-a"), Err(Duplicated));
        assert_eq!(h.only("host"), Ok(Some(&b"a"[..])));
        assert_eq!(h.only("none"), Ok(None));
    }

    #[test]
    fn a_token_is_found_in_a_list_over_several_headers() {
        let h: Headers =
            [("Connection", &b"keep-alive, X-Y"[..]), ("connection", b" Upgrade ")].into_iter().collect();
        assert!(h.has_token("connection", "upgrade") && h.has_token("Connection", "x-y"));
        assert!(!h.has_token("connection", "x"));
    }
}
