//! What an operator has paused: routes and single destinations. A pause is on disk before it is confirmed and stands
//! until it is taken back, whatever restarts meanwhile. Whoever sends to an app looks here first; events are taken as
//! ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::buffer::{Buffer, BufferError, DestinationName};
use crate::clock::Timestamp;

/// Where the buffer keeps them.
const NOTES: &str = "pause/";

/// What is paused (`route` or `route/destination`), and since when.
pub type Paused = Arc<BTreeMap<String, Timestamp>>;

/// All pauses, shared by everyone who sends.
pub struct Pauses {
    buffer: Arc<dyn Buffer>,
    paused: watch::Sender<Paused>,
    /// One change at a time, or memory and disk could differ.
    changing: tokio::sync::Mutex<()>,
}

impl Pauses {
    /// None yet: see [`Pauses::restore`].
    pub fn new(buffer: Arc<dyn Buffer>) -> Self {
        Self { buffer, paused: watch::channel(Paused::default()).0, changing: tokio::sync::Mutex::default() }
    }

    /// Reads what an earlier process has kept. To be done before anything is sent.
    pub async fn restore(&self) -> Result<(), BufferError> {
        let _one_at_a_time = self.changing.lock().await;
        let notes = self.buffer.notes(NOTES).await?;
        let paused: BTreeMap<String, Timestamp> = notes
            .into_iter()
            .map(|(key, value)| {
                // A time that can't be read is no reason to send: it is paused since the beginning of time.
                let since = value.as_slice().try_into().map_or(0, u64::from_be_bytes);
                (key[NOTES.len()..].to_owned(), Timestamp(since))
            })
            .collect();
        for name in paused.keys() {
            tracing::warn!(%name, "paused by an operator, since before this start: `tidegate resume` ends it");
        }
        self.paused.send_replace(Arc::new(paused));
        Ok(())
    }

    /// Pauses a route or a destination. `false`: it was paused already. Durable on return.
    pub async fn pause(&self, name: &str, now: Timestamp) -> Result<bool, BufferError> {
        let _one_at_a_time = self.changing.lock().await;
        if self.all().contains_key(name) {
            return Ok(false);
        }
        self.buffer.note(&format!("{NOTES}{name}"), Some(now.0.to_be_bytes().to_vec())).await?;
        self.paused.send_modify(|paused| {
            Arc::make_mut(paused).insert(name.to_owned(), now);
        });
        tracing::info!(%name, "paused by an operator");
        Ok(true)
    }

    /// Ends a pause. `false`: there was none by just this name. Durable on return.
    pub async fn resume(&self, name: &str) -> Result<bool, BufferError> {
        let _one_at_a_time = self.changing.lock().await;
        if !self.all().contains_key(name) {
            return Ok(false);
        }
        self.buffer.note(&format!("{NOTES}{name}"), None).await?;
        self.paused.send_modify(|paused| {
            Arc::make_mut(paused).remove(name);
        });
        tracing::info!(%name, "resumed by an operator");
        Ok(true)
    }

    pub fn all(&self) -> Paused {
        self.paused.borrow().clone()
    }

    /// Since when a destination is paused, by itself or with its route.
    pub fn of(&self, destination: &DestinationName) -> Option<Timestamp> {
        since(&self.paused.borrow(), destination)
    }

    /// Tells of each change.
    pub fn watch(&self) -> watch::Receiver<Paused> {
        self.paused.subscribe()
    }
}

/// Since when `paused` holds a destination back; with two pauses since the earlier one.
pub fn since(paused: &BTreeMap<String, Timestamp>, destination: &DestinationName) -> Option<Timestamp> {
    if paused.is_empty() {
        return None;
    }
    let route = destination.0.split_once('/').map(|(route, _)| route);
    let both = [Some(&*destination.0), route];
    both.into_iter().flatten().filter_map(|name| paused.get(name).copied()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_paused_by_itself_or_with_its_route() {
        let paused = BTreeMap::from([
            ("billing".to_owned(), Timestamp(5)),
            ("billing/a".to_owned(), Timestamp(3)),
            ("shop/a".to_owned(), Timestamp(9)),
        ]);
        let since = |route, name| since(&paused, &DestinationName::new(route, name)).map(|t| t.0);
        assert_eq!((since("billing", "a"), since("billing", "b")), (Some(3), Some(5)));
        assert_eq!((since("shop", "a"), since("shop", "b"), since("bill", "a")), (Some(9), None, None));
    }
}
