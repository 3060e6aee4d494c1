//! Which server of a destination a request went to, for who records that.

use std::sync::Arc;

use parking_lot::Mutex;

use super::origin::Origin;

/// Is told each server that a request is tried on, and keeps the last: the one that answered, or that failed it.
#[derive(Clone, Debug, Default)]
pub struct WentTo(Arc<Mutex<Option<(String, u16)>>>);

impl WentTo {
    pub(super) fn tell(&self, origin: &Origin) {
        *self.0.lock() = Some((origin.host.clone(), origin.port));
    }

    /// Host and port, as the config names them. `None`: it got to no server.
    pub fn server(&self) -> Option<(String, u16)> {
        self.0.lock().clone()
    }
}
