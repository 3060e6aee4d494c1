//! Just enough of the tar format (POSIX ustar): regular files with short names, written so that any tar reads them,
//! and read as any tar may have written them.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// An archive ends with so many bytes of nothing.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The longest name that is written.
const MAX_NAME: usize = 100;

/// Where the fields of a header stand.
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const OWNER: std::ops::Range<usize> = 108..116;
const GROUP: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const TIME: std::ops::Range<usize> = 136..148;
const SUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..265;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Writes a file: header, content, and what fills the last block up.
///
/// # Errors
///
/// Those of `out`; a name that is too long, or content of 8 GiB and more.
pub fn put(out: &mut impl Write, name: &str, at_secs: u64, content: &[u8]) -> io::Result<()> {
    let size = content.len() as u64;
    if name.len() > MAX_NAME || size >= 1 << 33 {
        return Err(io::Error::other("this does not fit into a tar archive"));
    }
    let mut header = [0; BLOCK];
    header[NAME][..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut header[MODE], 0o600);
    octal(&mut header[OWNER], 0);
    octal(&mut header[GROUP], 0);
    octal(&mut header[SIZE], size);
    octal(&mut header[TIME], at_secs.min((1 << 33) - 1));
    header[KIND] = b'0';
    header[MAGIC].copy_from_slice(b"ustar\x0000");
    let sum = sum(&header);
    octal(&mut header[SUM][..7], sum);
    header[SUM][7] = b' ';
    out.write_all(&header)?;
    out.write_all(content)?;
    out.write_all(&END[..padding(content.len())])
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(BLOCK) - len
}

/// Digits up to a closing zero byte.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for digit in field[..digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Of all bytes, with blanks where the sum itself stands.
fn sum(header: &[u8; BLOCK]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| u64::from(if SUM.contains(&at) { b' ' } else { *byte });
    header.iter().enumerate().map(byte).sum()
}

fn number(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    std::str::from_utf8(&field[..end]).ok()
}

/// A file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub content: Vec<u8>,
}

/// Reads regular files one after the other, each whole.
pub struct Reader<R> {
    from: R,
    /// Bytes of one file's content.
    max: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    pub const fn new(from: R, max: u64) -> Self {
        Self { from, max, ended: false }
    }

    /// Whether the archive's own end was read: without it, something may be missing that should stand before it.
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next regular file; `None` at the end of the archive. What is no regular file is passed over.
    ///
    /// # Errors
    ///
    /// Those of the source; what is no tar archive; a file that is too long.
    pub fn read(&mut self) -> io::Result<Option<Entry>> {
        loop {
            let mut header = [0; BLOCK];
            if !self.fill(&mut header)? {
                return Ok(None);
            }
            if header == [0; BLOCK] {
                self.ended = true;
                return Ok(None);
            }
            let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
            if number(&header[SUM]) != Some(sum(&header)) {
                return Err(wrong("this is no tar archive, or it is damaged: a checksum is wrong"));
            }
            let size = number(&header[SIZE]).ok_or_else(|| wrong("a file of the archive has no size"))?;
            let padded = size.next_multiple_of(BLOCK as u64);
            if !matches!(header[KIND], b'0' | 0) {
                let skipped = io::copy(&mut (&mut self.from).take(padded), &mut io::sink())?;
                if skipped < padded {
                    return Err(wrong("the archive breaks off"));
                }
                continue;
            }
            let name = text(&header[NAME]).zip(text(&header[PREFIX]));
            let name = match name.ok_or_else(|| wrong("a name in the archive is not UTF-8"))? {
                (name, "") => name.to_owned(),
                (name, prefix) => format!("{prefix}/{name}"),
            };
            if size > self.max {
                return Err(wrong(&format!("{name} is too long: {size} bytes, at most {}", self.max)));
            }
            let mut content = Vec::new();
            (&mut self.from).take(padded).read_to_end(&mut content)?;
            if (content.len() as u64) < size {
                return Err(wrong(&format!("the archive breaks off within {name}")));
            }
            // It fits: it was read.
            content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
            return Ok(Some(Entry { name, content }));
        }
    }

    /// `false` if nothing is left; a part of a block is an error.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.from.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive breaks off")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(archive: &[u8]) -> io::Result<Vec<Entry>> {
        let mut reader = Reader::new(archive, 1 << 20);
        std::iter::from_fn(|| reader.read().transpose()).collect()
    }

    proptest! {
        #[test]
        fn files_come_back(contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..5)) {
            let mut archive = Vec::new();
            for (n, content) in contents.iter().enumerate() {
                put(&mut archive, &format!("a/{n}"), 1_764_000_000, content).unwrap();
            }
            archive.extend(END);
            let found = all(&archive).unwrap();
            prop_assert_eq!(found.len(), contents.len());
            for (n, (entry, content)) in found.iter().zip(&contents).enumerate() {
                prop_assert_eq!((&entry.name, &entry.content), (&format!("a/{n}"), content));
            }
        }

        #[test]
        fn whatever_is_read_ends_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = all(&bytes);
        }
    }

    #[test]
    fn an_archive_that_breaks_off_or_is_changed_is_an_error() {
        let mut archive = Vec::new();
        put(&mut archive, "a", 0, &[7; 700]).unwrap();
        assert_eq!(all(&archive).unwrap().len(), 1);
        let ended = |archive: &[u8]| {
            let mut reader = Reader::new(archive, 1 << 20);
            while reader.read().unwrap().is_some() {}
            reader.has_ended()
        };
        assert!(ended(&[&archive[..], &END].concat()) && ended(&END));
        assert!(!ended(&archive) && !ended(b""), "its end is missing, and that is told");
        for len in [1, 511, 513, 900] {
            assert!(all(&archive[..len]).is_err(), "{len}");
        }
        archive[3] ^= 1;
        assert!(all(&archive).is_err());
        let mut long = Vec::new();
        put(&mut long, "b", 0, &[0; 4096]).unwrap();
        assert!(Reader::new(&*long, 4095).read().is_err());
    }
}
