//! The chunked transfer coding (RFC 9112 section 7.1), strictly: pure, bytes in, bytes out.
//!
//! Refused rather than repaired: bare line feeds, spaces around a size, sizes beyond 64 bits, extensions and trailers
//! beyond their limits. Extensions and trailers are read over, never passed on: a trailer never becomes a header.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of one chunk's size line, extensions included.
const MAX_SIZE_LINE: usize = 256;
/// Bytes of all extensions of one body, so that one-byte chunks can't carry megabytes of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of the whole trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Takes a chunked body apart as it arrives.
#[derive(Debug)]
pub(crate) struct Chunked {
    state: State,
    extensions: usize,
    trailers: usize,
}

#[derive(Debug)]
enum State {
    SizeLine,
    Data {
        left: u64,
    },
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
    Done,
}

/// What a look at the input gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// Nothing without more input.
    More,
    /// The body is complete; what is left of the input is not part of it.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadChunk {
    #[error("a chunk's size is not a plain hexadecimal number")]
    Size,
    #[error("a chunk's size line is too long")]
    SizeLineTooLong,
    #[error("too many bytes of chunk extensions")]
    Extensions,
    #[error("a line of the chunked body does not end in CR LF")]
    LineEnd,
    #[error("a control byte in a chunk extension or trailer")]
    Control,
    #[error("the trailer section is too long")]
    Trailers,
}

impl Chunked {
    pub fn new() -> Self {
        Self { state: State::SizeLine, extensions: 0, trailers: 0 }
    }

    /// The next piece from the front of `input`, which is consumed. Call until it says `More` or `End`.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Piece, BadChunk> {
        loop {
            match &mut self.state {
                State::SizeLine => {
                    let Some(length) = line(input, MAX_SIZE_LINE, BadChunk::SizeLineTooLong)? else {
                        return Ok(Piece::More);
                    };
                    let (size, extensions) = size(&input[..length])?;
                    self.extensions += extensions;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(BadChunk::Extensions);
                    }
                    input.advance(length + 2);
                    self.state = if size == 0 { State::Trailers } else { State::Data { left: size } };
                }
                State::Data { left } => {
                    if input.is_empty() {
                        return Ok(Piece::More);
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Piece::Data(input.split_to(take).freeze()));
                }
                State::DataEnd => match input.as_ref() {
                    [] | [b'\r'] => return Ok(Piece::More),
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::SizeLine;
                    }
                    _ => return Err(BadChunk::LineEnd),
                },
                State::Trailers => {
                    let room = MAX_TRAILERS - self.trailers;
                    let Some(length) = line(input, room, BadChunk::Trailers)? else {
                        return Ok(Piece::More);
                    };
                    clean(&input[..length])?;
                    self.trailers += length;
                    input.advance(length + 2);
                    if length == 0 {
                        self.state = State::Done;
                    }
                }
                State::Done => return Ok(Piece::End),
            }
        }
    }
}

/// The length of the first line without its CR LF; `None` if it is not there yet.
fn line(input: &[u8], max: usize, too_long: BadChunk) -> Result<Option<usize>, BadChunk> {
    match input.iter().take(max + 2).position(|b| *b == b'\n') {
        Some(0) => Err(BadChunk::LineEnd),
        Some(at) if input[at - 1] != b'\r' => Err(BadChunk::LineEnd),
        Some(at) => Ok(Some(at - 1)),
        None if input.len() >= max + 2 => Err(too_long),
        None => Ok(None),
    }
}

/// A size line's number, and how many bytes of extensions follow it.
fn size(line: &[u8]) -> Result<(u64, usize), BadChunk> {
    let digits = line.iter().position(|b| *b == b';').unwrap_or(line.len());
    let (number, extensions) = line.split_at(digits);
    if number.is_empty() || number.len() > 16 {
        return Err(BadChunk::Size);
    }
    let mut value = 0u64;
    for byte in number {
        let digit = char::from(*byte).to_digit(16).ok_or(BadChunk::Size)?;
        // At most 16 digits: no overflow.
        value = value << 4 | u64::from(digit);
    }
    clean(extensions)?;
    Ok((value, extensions.len()))
}

fn clean(text: &[u8]) -> Result<(), BadChunk> {
    match text.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)) {
        true => Ok(()),
        false => Err(BadChunk::Control),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A body, and what followed its end.
    type Decoded = Option<(Vec<u8>, Vec<u8>)>;

    /// Decodes input that comes in the given pieces.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoded, BadChunk> {
        let (mut decoder, mut input, mut body, mut ended) =
            (Chunked::new(), BytesMut::new(), Vec::new(), false);
        for piece in pieces {
            input.extend_from_slice(piece);
            while !ended {
                match decoder.next(&mut input)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::End => ended = true,
                }
            }
        }
        Ok(ended.then(|| (body, input.to_vec())))
    }

    #[test]
    fn good_bodies_come_out_whole_and_leave_what_follows() {
        let whole = |input: &[u8]| decode([input]).unwrap().map(|(body, rest)| (body, rest.len()));
        assert_eq!(whole(b"0\r\n\r\n"), Some((vec![], 0)));
        assert_eq!(whole(b"5\r\nhello\r\n0\r\n\r\nHTTP"), Some((b"hello".to_vec(), 4)));
        assert_eq!(
            whole(b"00A;a=\"b\"\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
            Some((b"0123456789".to_vec(), 0))
        );
        assert_eq!(whole(b"5\r\nhel"), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let bad = |input: &[u8]| decode([input]).expect_err(&input.escape_ascii().to_string());
        for size in ["", " 5", "5 ", "+5", "-5", "0x5", "5_0", "g", "10000000000000000"] {
            assert_eq!(bad(format!("{size}\r\nhello\r\n").as_bytes()), BadChunk::Size, "{size}");
        }
        assert_eq!(bad(b"5\nhello\r\n"), BadChunk::LineEnd);
        assert_eq!(bad(b"\n"), BadChunk::LineEnd);
        assert_eq!(bad(b"5\r\nhelloX"), BadChunk::LineEnd);
        assert_eq!(bad(b"5\r\nhello\n"), BadChunk::LineEnd);
        assert_eq!(bad(b"5\r\nhello\rX"), BadChunk::LineEnd);
        assert_eq!(bad(b"5;a\rb\r\nhello\r\n"), BadChunk::Control);
        assert_eq!(bad(b"0\r\nX: \0\r\n\r\n"), BadChunk::Control);
        assert_eq!(bad(b"0\r\nX: y\n\r\n"), BadChunk::LineEnd);
    }

    #[test]
    fn lines_extensions_and_trailers_have_limits() {
        let long = vec![b'0'; MAX_SIZE_LINE + 2];
        assert_eq!(decode([&long[..]]), Err(BadChunk::SizeLineTooLong));
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(200));
        assert_eq!(decode([chunk.repeat(100).as_bytes()]), Err(BadChunk::Extensions));
        let trailers = format!("0\r\n{}", "X: 12345678\r\n".repeat(1000));
        assert_eq!(decode([trailers.as_bytes()]), Err(BadChunk::Trailers));
    }

    proptest! {
        #[test]
        fn a_body_survives_any_chunking_and_any_cutting(
            body in proptest::collection::vec(any::<u8>(), 0..600),
            chunk in 1usize..80,
            cut in 1usize..40,
        ) {
            let mut wire = Vec::new();
            for piece in body.chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nTrailer: gone\r\n\r\n");
            let (out, rest) = decode(wire.chunks(cut)).unwrap().unwrap();
            prop_assert_eq!(out, body);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn garbage_never_panics_and_gives_the_same_in_any_cutting(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), Just(b';'), any::<u8>()], 0..200),
            cut in 1usize..20,
        ) {
            prop_assert_eq!(decode([&input[..]]), decode(input.chunks(cut)));
        }
    }
}
