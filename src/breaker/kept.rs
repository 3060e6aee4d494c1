//! Which breakers are open, kept over restarts: an app that was sick before is first met with a single probe again, and
//! no delivery is charged for what is known already.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Breakers, Phase};
use crate::buffer::{Buffer, BufferError, DestinationName};
use crate::clock::{Clock, Timestamp};

/// Where the buffer keeps them: by destination, since when (milliseconds since the epoch) and why.
const NOTES: &str = "breaker/";

impl Breakers {
    /// Opens those that an earlier process has left open, as far as `has_breaker` says that there still is one. To be done
    /// before anything is sent.
    pub async fn restore(
        &self,
        buffer: &dyn Buffer,
        clock: &Clock,
        has_breaker: impl Fn(&DestinationName) -> bool,
    ) -> Result<(), BufferError> {
        for (key, note) in buffer.notes(NOTES).await? {
            let destination = named(&key);
            match note.split_first_chunk().filter(|_| has_breaker(&destination)) {
                Some((since, why)) => {
                    let open_for = clock.now().since(Timestamp(u64::from_be_bytes(*since)));
                    let why = String::from_utf8_lossy(why);
                    tracing::warn!(%destination, %why, "the breaker was open before this start: one delivery probes");
                    self.of(&destination).reopen(open_for, &why);
                }
                None => buffer.note(&key, None).await?,
            }
        }
        Ok(())
    }

    /// Keeps what is open in the buffer, for as long as it is polled. What a crash comes before is not kept, which costs
    /// the next process the tries that open it again.
    pub async fn keep(self: Arc<Self>, buffer: Arc<dyn Buffer>, clock: Clock) {
        let mut changes = self.changes.subscribe();
        // What stands on disk, not what is open by now: a breaker may have changed since the restore.
        let noted = buffer.notes(NOTES).await.unwrap_or_default();
        let mut kept: BTreeSet<DestinationName> = noted.into_iter().map(|(key, _)| named(&key)).collect();
        loop {
            let open = self.open(&clock);
            for (name, note) in &open {
                if !kept.contains(name) && write(&*buffer, name, Some(note.clone())).await {
                    kept.insert(name.clone());
                }
            }
            let over: Vec<_> = kept.iter().filter(|name| !open.contains_key(*name)).cloned().collect();
            for name in over {
                if write(&*buffer, &name, None).await {
                    kept.remove(&name);
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is to be noted of those that are not closed.
    fn open(&self, clock: &Clock) -> BTreeMap<DestinationName, Vec<u8>> {
        let held = |phase: Phase| matches!(phase, Phase::Open | Phase::HalfOpen);
        let open = self.status().into_iter().filter(|breaker| held(breaker.phase));
        open.map(|breaker| {
            let now = clock.now();
            let since = breaker.since_when(now).unwrap_or(now);
            let why = breaker.why.unwrap_or_default();
            (breaker.destination, [&since.0.to_be_bytes()[..], why.as_bytes()].concat())
        })
        .collect()
    }
}

fn named(key: &str) -> DestinationName {
    DestinationName(key[NOTES.len()..].into())
}

/// Whether it is written. A buffer that takes nothing says so itself.
async fn write(buffer: &dyn Buffer, name: &DestinationName, note: Option<Vec<u8>>) -> bool {
    let is_open = note.is_some();
    let written = buffer.note(&format!("{NOTES}{name}"), note).await;
    match &written {
        Ok(()) => tracing::debug!(destination = %name, is_open, "how the breaker stands is on disk"),
        Err(error) => {
            tracing::debug!(destination = %name, %error, "how the breaker stands could not be kept")
        }
    }
    written.is_ok()
}
