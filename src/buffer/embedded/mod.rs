//! The embedded engine of the buffer, on fjall.
//!
//! One thread writes ([`committer`]): it groups what is pending into one atomic batch and one sync, so that an event,
//! its claim and its deliveries are on disk together or not at all. Readers look at what is committed. What is due is
//! kept in two ordered queues on disk with a small memory of what workers hold ([`lane`]); a process that ends gives
//! all leases back. Opening looks for damage before the engine repairs it away ([`open`], [`journal`], [`witness`]).
//!
//! Carries promise 1 (a 2xx means on disk, synced), the atomic half of promise 3, and for storage promise 5.

mod admission;
mod apply;
mod batch;
mod change;
mod check;
mod claims;
mod codec;
mod committer;
mod directory;
mod draft;
mod endpoints;
mod engine;
mod filter;
mod flush;
mod give_up;
mod inbox;
mod journal;
mod keys;
mod lane;
mod lanes;
mod lease;
mod notes;
mod open;
pub mod parsers;
mod retention;
mod scrub;
mod sealing;
mod select;
mod shared;
mod store;
mod take_in;
mod tidy;
mod verify;
mod waiting;
mod watch;
mod wire;
mod witness;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use super::{Beside, Buffer, Verified};
use crate::clock::Clock;
use crate::config::BufferSettings;
use crate::seal::{KeyId, Keyring, NotSealed};
use crate::telemetry::Metrics;
use engine::Embedded;
use shared::Shared;

/// Opens (or makes) the store.
///
/// # Errors
///
/// Says what is wrong with which file and what to do. Never is a store begun anew over what is there.
pub fn open(
    settings: &BufferSettings,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Arc<dyn Buffer>, OpenError> {
    Ok(Arc::new(Embedded::open(settings, None, metrics, clock)?))
}

/// The same for a folder in which something else is kept, too.
///
/// # Errors
///
/// As [`open`].
pub fn open_beside(
    settings: &BufferSettings,
    beside: Arc<dyn Beside>,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Result<Arc<dyn Buffer>, OpenError> {
    Ok(Arc::new(Embedded::open(settings, Some(beside), metrics, clock)?))
}

/// Reads all that a buffer holds which no gateway has open, and tells what it finds: the events part by part, and at last
/// what does not fit together. Nothing is upgraded, sealed anew or made.
///
/// # Errors
///
/// If it can't be opened, [`OpenError::Damaged`] included, or is in use.
pub fn verify(folder: &Path, keys: &Keyring, tell: &mut dyn FnMut(Verified)) -> Result<(), OpenError> {
    verify::closed(folder, keys, tell)
}

/// Why the store could not be opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process uses the buffer at {path}{}: stop it, or give this one its own buffer.path", .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked { path: String, pid: Option<u32> },
    #[error(
        "{path}: this directory was written by a newer Tidegate (format {found}); this version knows formats up to {known}. Nothing was changed: run the newer version, or move the directory away to begin with an empty buffer"
    )]
    Newer { path: String, found: u32, known: u32 },
    #[error("{path} holds no buffer of tidegate")]
    NoBuffer { path: String },
    #[error(
        "the buffer is damaged: {path}: {what}. Nothing was thrown away. Restore the folder from a backup, or move it away to begin with an empty buffer (what it still holds is then not delivered)"
    )]
    Damaged { path: String, what: String },
    #[error(
        "no permission for {path} ({what}): the buffer's folder and all in it must be readable and writable for the user that runs tidegate"
    )]
    Denied { path: String, what: String },
    #[error("{path} is on a read-only volume: the buffer needs a writable one (buffer.path)")]
    ReadOnly { path: String },
    #[error("{path} is not a folder: buffer.path must name one, or a name that is free")]
    NotAFolder { path: String },
    #[error("no space left for {path}: free some, and the buffer opens as it was")]
    NoSpace { path: String },
    #[error(
        "{path} holds what is sealed under the key {}, and `buffer.encryption.keys` {}: list the missing key, too. Nothing was taken or changed",
        listed(.missing), told(.given)
    )]
    NoKey { path: String, missing: Vec<KeyId>, given: Vec<KeyId> },
    #[error("{0}")]
    NotSealed(#[from] NotSealed),
    #[error("the buffer can't be opened: {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("a thread of the buffer can't be started: {0}")]
    Thread(std::io::Error),
}

fn listed(keys: &[KeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn told(keys: &[KeyId]) -> String {
    match keys {
        [] => "lists none".into(),
        keys => format!("has {} only", listed(keys)),
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}
