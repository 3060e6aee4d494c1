//! The store's records: any bytes are refused or are a record that means one thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::buffer::embedded::parsers::read_again;

fuzz_target!(|bytes: &[u8]| {
    // Every record begins with its version.
    let versioned = [&[1], bytes].concat();
    for bytes in [bytes, &versioned] {
        assert_eq!(read_again(bytes), Ok(()));
    }
});
