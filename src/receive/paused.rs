//! Is the app of an inline route given a rest by an operator? Buffered routes take events as ever: what waits for them
//! is `deliver`'s.

use std::time::Duration;

use crate::config::{Mode, Route};
use crate::pauses::Pauses;

use super::refused::Refused;

/// Nobody knows how long an operator takes.
const TRY_AGAIN: Duration = Duration::from_secs(30);

pub(super) fn check(route: &Route, pauses: &Pauses) -> Result<(), Refused> {
    let (Mode::Proxy(destination) | Mode::Pass(destination)) = &route.mode else { return Ok(()) };
    match pauses.of(&destination.name) {
        None => Ok(()),
        Some(since) => Err(Refused::paused(TRY_AGAIN, format!("paused by an operator since {since}"))),
    }
}
