//! A chunked body: however it is cut, it ends at the same byte or is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::edge::parsers::Chunked;

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let mut whole = Chunked::default();
    let at_once = whole.follow(bytes);
    let mut parts = Chunked::default();
    let mut used = 0;
    let mut in_parts = Ok(0);
    for part in bytes.chunks(usize::from(cut).max(1)) {
        match parts.follow(part) {
            Ok(more) => used += more,
            Err(reason) => {
                in_parts = Err(reason);
                break;
            }
        }
        in_parts = Ok(used);
        if parts.ended() {
            break;
        }
    }
    if let Ok(used) = at_once {
        assert!(used <= bytes.len());
    }
    assert_eq!(at_once, in_parts);
    assert_eq!(whole.ended(), parts.ended());
});
