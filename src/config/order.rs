//! In which order, and how many at once, an app gets its events.

use std::time::Duration;

use crate::buffer::{Event, LaneBy, LaneKey};
use crate::message::{Head, Request, Version};
use crate::route::PathPattern;
use crate::verify::{Extract, JsonPointer};

/// Events with one key reach the app in the order they were accepted in.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub by: Extract,
    pub on_failure: OnFailure,
    /// Of the route, for keys that stand in the path.
    pub path: PathPattern,
}

/// What becomes of a lane whose first event fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is tried until it gets through, whatever its retry budget; nothing passes it. If the app gives it up for good,
    /// it parks the lane.
    #[default]
    Block,
    /// Once it is dead the lane waits until an operator replays or purges it.
    Park,
    /// Once it is dead the next one goes.
    Skip,
}

impl Order {
    /// The key as it stands in the event.
    pub fn key(&self, event: &Event) -> Option<String> {
        let path = event.target.split('?').next().unwrap_or_default();
        let nowhere = std::net::SocketAddr::new(event.source, 0);
        let request = Request {
            params: self.path.params(path).unwrap_or_default(),
            head: Head {
                method: event.method.clone(),
                target: event.target.clone(),
                authority: event.authority.clone(),
                asked_authority: None,
                scheme: event.scheme,
                version: Version::Http11,
                headers: event.headers.clone(),
                peer: nowhere,
                client: event.source,
                local: nowhere,
                received_at: event.received_at,
            },
            body: event.body.clone(),
        };
        self.by.from(&request).filter(|key| !key.is_empty())
    }
}

impl LaneBy for Order {
    fn lane(&self, event: &Event) -> Option<LaneKey> {
        self.key(event).map(|key| LaneKey::new(key.as_bytes()))
    }
}

/// Several events in one request to the app.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// At most; at least 1.
    pub max_events: usize,
    /// Of the bodies together, in bytes. An event that is larger goes by itself.
    pub max_bytes: usize,
    /// How long events wait for others, from when they could have gone.
    pub max_wait: Duration,
    pub format: BatchFormat,
    /// Where the app's answer holds an array of statuses, one for each event.
    pub statuses: Option<JsonPointer>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchFormat {
    #[default]
    JsonArray,
    Ndjson,
    Multipart,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::EventId;
    use crate::clock::Timestamp;
    use crate::message::{Method, Scheme};

    #[test]
    fn a_key_is_found_in_the_path_and_in_the_body_and_may_be_missing() {
        let event = Event {
            id: EventId([0; 16]),
            route: "r".into(),
            received_at: Timestamp(0),
            method: Method::POST,
            target: "/hooks/acme?x=1".into(),
            authority: String::new(),
            scheme: Scheme::Https,
            headers: Default::default(),
            body: r#"{"customer":"c1","empty":""}"#.into(),
            source: [192, 0, 2, 1].into(),
            verified: "none".into(),
            idempotency_key: None,
            event_type: None,
            origin: Default::default(),
        };
        let key = |by: &str| {
            let path = PathPattern::parse("/hooks/{account}").unwrap();
            Order { by: Extract::parse(by).unwrap(), on_failure: OnFailure::Block, path }.key(&event)
        };
        assert_eq!(key("path:account").as_deref(), Some("acme"));
        assert_eq!(key("body:/customer").as_deref(), Some("c1"));
        assert_eq!(key("query:x").as_deref(), Some("1"));
        assert_eq!((key("body:/other"), key("body:/empty")), (None, None));
    }
}
