//! How a record's parts stand on disk: numbers as LEB128, bytes and texts with their length before them.

use crate::clock::Timestamp;

/// A record can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// The first byte of every record.
pub(super) const VERSION: u8 = 1;

pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_bytes(out, text.as_bytes());
        }
    }
}

/// Reads a record from front to back.
pub(super) struct Reader<'a> {
    all: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    /// Starts behind the version byte.
    pub(super) fn versioned(all: &'a [u8]) -> Result<Self> {
        Self::of_version(all, VERSION)
    }
    pub(super) fn of_version(all: &'a [u8], version: u8) -> Result<Self> {
        let mut reader = Self { all, at: 0 };
        match reader.byte()? {
            read if read == version => Ok(reader),
            _ => Err(Malformed("unknown record version")),
        }
    }
    pub(super) fn byte(&mut self) -> Result<u8> {
        let byte = *self.all.get(self.at).ok_or(Malformed("record ends early"))?;
        self.at += 1;
        Ok(byte)
    }
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or(Malformed("length out of range"))?;
        let taken = self.all.get(self.at..end).ok_or(Malformed("record ends early"))?;
        self.at = end;
        Ok(taken)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed("record ends early"))
    }
    pub(super) fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("number out of range"))
    }
    pub(super) fn len(&mut self) -> Result<usize> {
        usize::try_from(self.number()?).map_err(|_| Malformed("length out of range"))
    }
    /// How many items follow; each takes at least one byte, so a damaged count can't ask for much memory.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.len()?;
        if count > self.all.len() { Err(Malformed("count out of range")) } else { Ok(count) }
    }
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.len()?;
        self.take(len)
    }
    pub(super) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text is not UTF-8"))
    }
    pub(super) fn optional(&mut self) -> Result<Option<&'a str>> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(Malformed("unknown tag")),
        }
    }
    pub(super) fn time(&mut self) -> Result<Timestamp> {
        self.number().map(Timestamp)
    }
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.all.len()
    }
    pub(super) fn end(&self) -> Result<()> {
        if self.is_at_end() { Ok(()) } else { Err(Malformed("record is too long")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64) {
            let mut out = vec![VERSION];
            put_number(&mut out, value);
            let mut reader = Reader::versioned(&out).unwrap();
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_an_error() {
        let mut out = vec![VERSION];
        out.extend([0xff; 9]);
        out.push(2);
        assert!(Reader::versioned(&out).unwrap().number().is_err());
    }
}
