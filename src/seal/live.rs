//! The keys that are in force now: a reload can give others.

use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};

use super::Keyring;

/// Shared by all that seal and open the same records; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LiveKeyring(Arc<RwLock<Keyring>>);

impl LiveKeyring {
    pub fn new(keys: Keyring) -> Self {
        Self(Arc::new(RwLock::new(keys)))
    }

    /// Those in force now: to open with, and to seal where others can't come between the sealing and the writing.
    pub fn now(&self) -> Keyring {
        self.0.read().clone()
    }

    /// The same, and they stay in force until this is dropped: to be held (never across an await) until what was sealed is
    /// written, or on its way in a fixed order.
    pub fn hold(&self) -> RwLockReadGuard<'_, Keyring> {
        self.0.read()
    }

    /// Waits for those who hold the ones before: on return nothing more comes that is sealed with them.
    pub fn set(&self, keys: Keyring) {
        *self.0.write() = keys;
    }
}
