//! Configs: any bytes give a config or problems with a place, in bounded time, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::config::{Unfetched, load};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, bytes).expect("written");
    if let Err(problems) = load(&path, &Unfetched) {
        assert!(!problems.0.is_empty());
        assert!(!problems.to_string().is_empty());
    }
});
