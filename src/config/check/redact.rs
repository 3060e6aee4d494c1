//! What is hidden, and what is kept, of a route's events.

use super::Checker;
use crate::config::model::RouteKeep;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::units::Size;
use crate::redact::{Pattern, Rules};

impl Checker<'_, '_> {
    pub(super) fn redact(&mut self, raw: &raw::Redact, place: &Place) -> Rules {
        let headers = place.key("headers");
        for (at, name) in raw.headers.iter().enumerate() {
            if http::HeaderName::try_from(name.as_str()).is_err() {
                let help = "write the name of a header, such as `X-Customer`";
                self.error(&headers.index(at), format!("`{name}` is not the name of a header"), help);
            }
        }
        let body = place.key("body");
        let mut patterns = Vec::with_capacity(raw.body.len());
        for (at, text) in raw.body.iter().enumerate() {
            match Pattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(problem) => self.error(&body.index(at), problem, "such as `/card/number`"),
            }
        }
        Rules::new(&raw.headers, patterns)
    }

    /// What a route says of its own; `None` if it says nothing.
    pub(super) fn keep(&mut self, raw: &raw::Route, place: &Place) -> Option<RouteKeep> {
        let keep = raw.keep.as_ref()?;
        let place = place.key("keep");
        if !raw.mode.is_buffered() {
            let help = "remove `keep`, or set `mode: buffer` or `mode: spill`";
            self.error(&place, "the route keeps no events: it has no buffer", help);
        }
        if keep.bytes.is_some_and(|bytes| bytes < Size(1 << 10)) {
            self.error(&place.key("bytes"), "it is too little", "write 1KiB or more");
        }
        Some(RouteKeep {
            delivered: keep.delivered.map(|time| time.0),
            dead: keep.dead.map(|time| time.0),
            events: keep.events,
            bytes: keep.bytes.map(|size| size.0),
        })
    }
}
