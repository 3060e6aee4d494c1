//! Secrets in memory. Where they come from (`env:`, `file:`) is `config`'s.

use std::sync::Arc;

/// A secret's bytes: zeroed on drop, never printed.
#[derive(Clone)]
pub struct Secret(Arc<zeroize::Zeroizing<Vec<u8>>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(zeroize::Zeroizing::new(bytes)))
    }
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        subtle::ConstantTimeEq::ct_eq(self.expose(), other.expose()).into()
    }
}
