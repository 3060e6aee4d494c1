//! A lease in our hands. However its holder ends (settled, dropped, aborted, panicked), the buffer gets it back: no
//! delivery is ever stuck in this process.

use std::sync::Arc;
use std::time::Duration;

use crate::buffer::{Attempt, Buffer, Leased, Next, Settlement};
use crate::clock::Clock;

/// How long a delivery waits whose attempt panicked: a panic that comes back each time must not become a loop.
const AFTER_PANIC: Duration = Duration::from_secs(30);

pub(super) struct Lease {
    /// `None` once it is settled.
    leased: Option<Leased>,
    buffer: Arc<dyn Buffer>,
    clock: Clock,
}

impl Lease {
    pub fn new(leased: Leased, buffer: Arc<dyn Buffer>, clock: Clock) -> Self {
        Self { leased: Some(leased), buffer, clock }
    }

    /// What is leased; `None` never comes before `settle`, which takes the lease itself.
    pub fn leased(&self) -> Option<&Leased> {
        self.leased.as_ref()
    }

    pub fn settle(mut self, attempt: Option<Attempt>, next: Next) {
        self.give_back(attempt, next);
    }

    fn give_back(&mut self, attempt: Option<Attempt>, next: Next) {
        let Some(leased) = self.leased.take() else { return };
        let event_id = leased.event.id;
        let Leased { destination, token, .. } = leased;
        let settlement = Settlement { event_id, destination, token, attempt, next };
        if let Err(error) = self.buffer.settle(settlement) {
            // The buffer says loudly what is wrong with it; after a restart the delivery is due again.
            tracing::warn!(event = %event_id, %error, "the outcome of a delivery could not be recorded");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let next = if std::thread::panicking() {
            Next::Retry(self.clock.now().saturating_add(AFTER_PANIC))
        } else {
            Next::Release
        };
        self.give_back(None, next);
    }
}
