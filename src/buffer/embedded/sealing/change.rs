//! Other keys for a buffer that runs: what a reload asks for.

use std::sync::Arc;

use super::super::super::BufferError;
use super::super::{Shared, listed};
use super::pass::{note_down, run};
use crate::seal::Keyring;

/// Goes over to other keys: from the return on everything new is under them, and what stands under others is being sealed
/// anew. Refused if one is missing under which something may be sealed; nothing has changed then.
pub(in super::super) async fn rekey(shared: &Arc<Shared>, ring: &Keyring) -> Result<(), BufferError> {
    let mut passes = shared.passes.lock().await;
    if shared.keys.now() == *ring {
        return Ok(());
    }
    let mut seals = shared.seals.lock().clone();
    let missing = seals.missing(ring);
    if !missing.is_empty() {
        return Err(BufferError::Refused(format!(
            "buffer.encryption.keys: the key {} is still needed for what is stored: list it, too, behind the new one, until \
             `tidegate status` no longer names it",
            listed(&missing)
        )));
    }
    let failed = |error: crate::seal::NotSealed| BufferError::Failed(error.to_string());
    let events = shared.events.load(std::sync::atomic::Ordering::Relaxed);
    // What a process that seals nothing has stored since it began is in no record.
    seals.plain |= seals.target.is_none();
    let is_news = seals.aim(ring, events).map_err(failed)?;
    if is_news {
        // Before anything is under the new key.
        note_down(shared, Vec::new(), Vec::new(), seals.clone()).await?;
    }
    let keys = shared.keys.clone();
    let (all, beside) = (ring.clone(), shared.beside.clone());
    // It waits for those who are sealing.
    let set = tokio::task::spawn_blocking(move || {
        keys.set(all.clone());
        if let Some(beside) = beside {
            beside.rekey(&all);
        }
    });
    set.await.map_err(|error| BufferError::Failed(error.to_string()))?;
    if !is_news {
        return Ok(());
    }
    // Behind whatever was sealed with the old key and is on its way: the pass finds it.
    note_down(shared, Vec::new(), Vec::new(), seals.clone()).await?;
    passes.round += 1;
    if seals.is_under_way() && !passes.running {
        let sealed = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("tidegate-seal".into());
        match thread.spawn(move || run(&sealed)) {
            Ok(_) => passes.running = true,
            Err(error) => {
                tracing::error!(%error, "sealing anew could not start; it does with the next start")
            }
        }
    }
    Ok(())
}
