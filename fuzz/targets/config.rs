//! Configs: any bytes give a config or problems with a place, in bounded time, never a panic.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tidegate::config::{KeySources, load};
use tidegate::verify::KeySource;

#[derive(Debug)]
struct NoKeys;

impl KeySources for NoKeys {
    fn jwks(&self, _url: &http::Uri) -> Arc<dyn KeySource> {
        Arc::new(NoKeys)
    }
}
impl KeySource for NoKeys {
    fn keys(&self) -> Option<Arc<jsonwebtoken::jwk::JwkSet>> {
        None
    }
    fn unknown_kid(&self, _kid: &str) {}
}

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, bytes).expect("written");
    if let Err(problems) = load(&path, &NoKeys) {
        assert!(!problems.0.is_empty());
        assert!(!problems.to_string().is_empty());
    }
});
