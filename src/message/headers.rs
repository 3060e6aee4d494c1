//! Header fields as received: one block of bytes and an index into it.

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

/// A header that must be unambiguous came more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header came more than once")]
pub struct Duplicated;

impl Headers {
    pub fn builder() -> HeadersBuilder {
        HeadersBuilder::default()
    }

    /// Indexes fields that stand in `block`; ranges are byte offsets into it. The caller has checked that names are
    /// ASCII tokens. Ranges outside the block are a caller's bug and are dropped.
    pub fn index(
        block: Bytes,
        ranges: impl IntoIterator<Item = (std::ops::Range<usize>, std::ops::Range<usize>)>,
    ) -> Self {
        let fields = ranges
            .into_iter()
            .filter(|(n, v)| {
                n.start <= n.end && n.end <= block.len() && v.start <= v.end && v.end <= block.len()
            })
            .filter_map(|(n, v)| {
                Some(Field {
                    name: u32::try_from(n.start).ok()?,
                    name_len: u16::try_from(n.len()).ok()?,
                    value: u32::try_from(v.start).ok()?,
                    value_len: u32::try_from(v.len()).ok()?,
                })
            })
            .collect();
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
    ranges: Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>,
}

impl HeadersBuilder {
    pub fn push(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let start = self.block.len();
        self.block.put_slice(name.as_bytes());
        self.block.put_slice(value);
        let middle = start + name.len();
        self.ranges.push((start..middle, middle..middle + value.len()));
        self
    }
    pub fn build(self) -> Headers {
        Headers::index(self.block.freeze(), self.ranges)
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
