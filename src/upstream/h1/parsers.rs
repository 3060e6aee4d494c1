//! An app's answer read from bytes alone, for fuzzing.

use bytes::BytesMut;

use super::chunked::{Chunked, Piece};
use super::head::{Asked, Framing, Scan};

/// An answer as far as its bytes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether the body has come to its end; one that only the connection's end ends never has.
    pub whole: bool,
}

/// Reads what an app answers to a POST, however it arrives. `None` if the head is not complete, an error if it is
/// none of HTTP/1.
pub fn answer<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Result<Option<Answer>, String> {
    let mut input = BytesMut::new();
    let (mut scan, mut found) = (Scan::default(), None);
    for part in parts {
        input.extend_from_slice(part);
        if found.is_none() {
            let Some(head) = scan.next(&mut input)? else { continue };
            let framing = head.framing(Asked::Other)?;
            let fields =
                head.headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
            let answer = Answer { status: head.status, fields, body: Vec::new(), whole: false };
            found = Some((answer, framing, Chunked::new()));
        }
        let Some((answer, framing, chunked)) = &mut found else { continue };
        match *framing {
            Framing::None => answer.whole = true,
            Framing::UntilClose => answer.body.extend_from_slice(&input.split()),
            Framing::Length(length) => {
                let missing = length.saturating_sub(answer.body.len() as u64);
                let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
                answer.body.extend_from_slice(&input.split_to(taken));
                answer.whole = answer.body.len() as u64 == length;
            }
            Framing::Chunked => loop {
                match chunked.next(&mut input).map_err(|bad| bad.to_string())? {
                    Piece::Data(data) => answer.body.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::End => {
                        answer.whole = true;
                        break;
                    }
                }
            },
        }
    }
    Ok(found.map(|(answer, ..)| answer))
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn an_answer_is_the_same_however_it_arrives() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nmore";
        let whole = answer([&bytes[..]]).unwrap().unwrap();
        assert_eq!((whole.status, whole.body.as_slice(), whole.whole), (200, &b"abc"[..], true));
        assert_eq!(answer(bytes.chunks(1)).unwrap().unwrap(), whole);
        assert_eq!(answer([&bytes[..20]]).unwrap(), None);
        assert!(answer([&b"SSH-2.0"[..]]).is_err());
    }
}
