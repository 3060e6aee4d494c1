//! An app's answer: however it is cut, it means the same or is refused, and its body is no longer than it may be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::upstream::parsers::answer;

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let at_once = answer([bytes]);
    let in_parts = answer(bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(at_once, in_parts);
    if let Ok(Some(answer)) = at_once {
        assert!((100..1000).contains(&answer.status));
        assert!(answer.body.len() <= bytes.len());
        for (name, value) in answer.fields {
            assert!(!name.is_empty() && !name.contains(&b'\n'));
            assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }
});
