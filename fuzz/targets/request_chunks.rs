//! A chunked body: however it is cut, it holds the same bytes and ends at the same one, or is refused.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tidegate::edge::parsers::Chunked;

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let (mut whole, mut parts) = (Chunked::default(), Chunked::default());
    let at_once = read(&mut whole, [bytes]);
    let in_parts = read(&mut parts, bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(at_once, in_parts);
    assert_eq!(whole.ended(), parts.ended());
});

/// The body's data and how many bytes belong to it; `None` if it is refused.
fn read<'b>(body: &mut Chunked, parts: impl IntoIterator<Item = &'b [u8]>) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut used) = (Vec::new(), 0);
    for part in parts {
        let mut input = BytesMut::from(part);
        while let Some(piece) = body.take(&mut input).ok()? {
            data.extend_from_slice(&piece);
        }
        used += part.len() - input.len();
    }
    Some((data, used))
}
