//! Remote key sets: any bytes are refused or hold keys that may verify something.
#![no_main]

use jsonwebtoken::jwk::AlgorithmParameters;
use libfuzzer_sys::fuzz_target;
use tidegate::keys::parsers::key_set;

fuzz_target!(|bytes: &[u8]| {
    if let Some(set) = key_set(bytes) {
        assert!((1..=100).contains(&set.keys.len()));
        let symmetric = |key: &jsonwebtoken::jwk::Jwk| matches!(key.algorithm, AlgorithmParameters::OctetKey(_));
        assert!(!set.keys.iter().any(symmetric), "who can fetch a key could sign with it");
    }
});
