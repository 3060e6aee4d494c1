//! Follows a chunked body on the wire, byte by byte, so that only well-formed chunks reach the decoder behind.
//!
//! Pure. Strict where decoders differ: sizes are bare hex digits (no blanks, no sign, no `0x`), lines end in CRLF and
//! nothing else, extensions are printable and bounded, and trailer fields are refused: they would reach neither
//! verification nor the app, and dropping what was sent is no option either.

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

    /// Follows `bytes` and says how many of them belong to this body: all, or those up to its end.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Reason> {
        let mut used = 0;
        while used < bytes.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - used);
                used += here;
                let left = left - here as u64;
                self.at = if left == 0 { At::DataReturn } else { At::Data { left } };
                continue;
            }
            self.at = self.step(bytes[used]).ok_or(Reason::MalformedRequest)?;
            used += 1;
        }
        Ok(used)
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

    fn follow(bytes: &[u8]) -> Result<usize, Reason> {
        let mut body = Chunked::default();
        let used = body.follow(bytes)?;
        assert!(body.ended(), "not at the end: {}", bytes.escape_ascii());
        Ok(used)
    }

    #[test]
    fn the_body_ends_where_its_last_chunk_says() {
        assert_eq!(follow(b"0\r\n\r\n"), Ok(5));
        assert_eq!(follow(b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n"), Ok(15));
        assert_eq!(follow(b"A;x=1; y=\"2\"\r\n0123456789\r\n000\r\n\r\n"), Ok(33));
        assert_eq!(follow(b"00000001\r\n\n\r\n0\r\n\r\n"), Ok(18));
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
            assert_eq!(body.follow(bad), Err(Reason::MalformedRequest), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let mut body = Chunked::default();
        let chunk = [&b"1;"[..], &[b'x'; 500], b"\r\na\r\n"].concat();
        let refused_at = (0..100).position(|_| body.follow(&chunk).is_err());
        assert_eq!(refused_at, Some(8), "4096 bytes of extensions");
    }

    proptest! {
        #[test]
        fn pieces_are_followed_like_the_whole(bytes in "[0-9a-f;x\r\n]{0,64}", cut in 0usize..64) {
            let bytes = bytes.as_bytes();
            let cut = cut.min(bytes.len());
            let (mut whole, mut pieces) = (Chunked::default(), Chunked::default());
            let all = whole.follow(bytes);
            let first = pieces.follow(&bytes[..cut]);
            let second = first.and_then(|used| if used < cut { Ok(used) } else { Ok(used + pieces.follow(&bytes[cut..])?) });
            prop_assert_eq!(all, second);
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
            prop_assert_eq!(follow(&wire), Ok(end));
        }
    }
}
