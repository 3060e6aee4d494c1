//! By what a route knows that it had an event before.

use std::time::Duration;

use crate::message::Request;
use crate::verify::Extract;

/// By what repeats are known.
#[derive(Debug)]
pub struct Idempotency {
    /// What names an event, as the user or the provider's pack says. `None` if neither says anything: then an event is
    /// known by its request's bytes, as it is where this names nothing.
    pub key: Option<Extract>,
    /// Whether the query is one of these bytes. Not where the body is signed and the query is not: whoever holds a genuine
    /// request could make new events of it.
    pub by_query: bool,
    pub window: Duration,
}

/// The key of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKey {
    Named(String),
    /// Nothing names it: the hash of its body, which is not all that it is known by.
    Bytes(String),
}

impl EventKey {
    pub fn into_text(self) -> String {
        let (Self::Named(text) | Self::Bytes(text)) = self;
        text
    }
}

impl Idempotency {
    pub fn key_of(&self, request: &Request) -> EventKey {
        match self.key.as_ref().and_then(|key| key.from(request)) {
            Some(named) => EventKey::Named(named),
            None => EventKey::Bytes(Extract::hash_of(&request.body)),
        }
    }

    /// The same of an event that was kept with `key` and `body`.
    pub fn key_again(&self, key: &str, body: &[u8]) -> EventKey {
        let names_hash = self.key.as_ref().is_some_and(Extract::is_body_hash);
        if !names_hash && Extract::is_hash(key) && key == Extract::hash_of(body) {
            return EventKey::Bytes(key.to_owned());
        }
        EventKey::Named(key.to_owned())
    }
}
