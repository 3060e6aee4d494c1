//! Takes a chunked body apart as it comes.
//!
//! Pure. Strict where decoders differ, because the app's may be another: sizes are bare hex digits (no blanks, no sign, no `0x`), lines end in CRLF and
//! nothing else, extensions are printable and bounded, and trailer fields are refused: they would reach neither
//! verification nor the app, and dropping what was sent is no option either.

use bytes::{Buf, Bytes, BytesMut};

use crate::reason::Reason;

/// Bytes of chunk extensions in a whole body. No known sender uses any.
const EXTENSION_BYTES: u32 = 4096;

/// Where in the chunked coding the body stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    at: At,
    /// What may still come of extensions.
    extensions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size { value: u64, digits: u8 },
    Extension { size: u64 },
    SizeFeed { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataFeed,
    LastReturn,
    LastFeed,
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, extensions: EXTENSION_BYTES }
    }
}

impl Chunked {
    /// Whether the last byte of the body was seen.
    pub fn ended(&self) -> bool {
        self.at == At::End
    }

    /// The next piece of the body's data; what stood before it, and itself, is taken off the front of `input`. `None`
    /// if all that is there is taken and holds none, or if the body has [ended](Self::ended): what follows is not its.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, Reason> {
        let mut framing = 0;
        while framing < input.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                input.advance(framing);
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - here as u64;
                self.at = if left == 0 { At::DataReturn } else { At::Data { left } };
                return Ok(Some(input.split_to(here).freeze()));
            }
            self.at = self.step(input[framing]).ok_or(Reason::MalformedRequest)?;
            framing += 1;
        }
        input.advance(framing);
        Ok(None)
    }

    fn step(&mut self, byte: u8) -> Option<At> {
        Some(match (self.at, byte) {
            (At::Size { digits: 1.., value }, b'\r') => At::SizeFeed { size: value },
            (At::Size { digits: 1.., value }, b';') => At::Extension { size: value },
            (At::Size { value, digits }, _) => {
                let digit = char::from(byte).to_digit(16)?;
                // 15 digits are an exabyte, and can't overflow.
                if digits >= 15 {
                    return None;
                }
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Extension { size }, b'\r') => At::SizeFeed { size },
            (At::Extension { size }, b'\t' | b' '..=b'~') => {
                self.extensions = self.extensions.checked_sub(1)?;
                At::Extension { size }
            }
            (At::SizeFeed { size: 0 }, b'\n') => At::LastReturn,
            (At::SizeFeed { size }, b'\n') => At::Data { left: size },
            (At::DataReturn, b'\r') => At::DataFeed,
            (At::DataFeed, b'\n') => At::Size { value: 0, digits: 0 },
            (At::LastReturn, b'\r') => At::LastFeed,
            (At::LastFeed, b'\n') => At::End,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data in `bytes`, and how many of the bytes belong to the body.
    fn taken(body: &mut Chunked, bytes: &[u8]) -> Result<(Vec<u8>, usize), Reason> {
        let (mut input, mut data) = (BytesMut::from(bytes), Vec::new());
        while let Some(piece) = body.take(&mut input)? {
            data.extend_from_slice(&piece);
        }
        Ok((data, bytes.len() - input.len()))
    }

    fn whole(bytes: &[u8]) -> Result<(Vec<u8>, usize), Reason> {
        let mut body = Chunked::default();
        let taken = taken(&mut body, bytes)?;
        assert!(body.ended(), "not at the end: {}", bytes.escape_ascii());
        Ok(taken)
    }

    #[test]
    fn the_body_ends_where_its_last_chunk_says() {
        let body = |data: &[u8], end| Ok((data.to_vec(), end));
        assert_eq!(whole(b"0\r\n\r\n"), body(b"", 5));
        assert_eq!(whole(b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n"), body(b"hello", 15));
        assert_eq!(whole(b"A;x=1; y=\"2\"\r\n0123456789\r\n000\r\n\r\n"), body(b"0123456789", 33));
        assert_eq!(whole(b"00000001\r\n\n\r\n0\r\n\r\n"), body(b"\n", 18));
    }

    #[test]
    fn what_decoders_read_in_two_ways_is_refused() {
        for bad in [
            &b"-1\r\n"[..],
            b"+1\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\t\r\nhello\r\n0\r\n\r\n",
            b"5 ;x\r\nhello\r\n0\r\n\r\n",
            b"\r\n",
            b";x\r\n",
            b"5\nhello\r\n",
            b"5\r\rhello",
            b"5\rhello",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"1000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000005\r\n",
            b"5;\n\r\nhello",
            b"5;\0\r\nhello",
            b"5;\x80\r\nhello",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nHost: a\r\n\r\n",
            b"0\r\nX-Hub-Signature-256: sha256=00\r\n\r\n",
            b"0\r\n\n",
            b"g\r\n",
        ] {
            let mut body = Chunked::default();
            assert_eq!(taken(&mut body, bad), Err(Reason::MalformedRequest), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let mut body = Chunked::default();
        let chunk = [&b"1;"[..], &[b'x'; 500], b"\r\na\r\n"].concat();
        let refused_at = (0..100).position(|_| taken(&mut body, &chunk).is_err());
        assert_eq!(refused_at, Some(8), "4096 bytes of extensions");
    }

    proptest! {
        #[test]
        fn pieces_are_taken_like_the_whole(bytes in "[0-9a-f;x\r\n]{0,64}", cut in 0usize..64) {
            let bytes = bytes.as_bytes();
            let cut = cut.min(bytes.len());
            let (mut at_once, mut pieces) = (Chunked::default(), Chunked::default());
            let all = taken(&mut at_once, bytes);
            let in_two = taken(&mut pieces, &bytes[..cut]).and_then(|(mut data, used)| {
                let (more, after) = if used < cut { Default::default() } else { taken(&mut pieces, &bytes[cut..])? };
                data.extend(more);
                Ok((data, used + after))
            });
            prop_assert_eq!(all, in_two);
        }

        #[test]
        fn every_encoded_body_is_accepted_whole(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), rest in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let end = wire.len();
            wire.extend_from_slice(&rest);
            prop_assert_eq!(whole(&wire), Ok((chunks.concat(), end)));
        }
    }
}
