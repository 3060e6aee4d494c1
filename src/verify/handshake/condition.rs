//! Conditions: a place in a request, and what must be there.

use std::borrow::Cow;
use std::fmt;

use super::found;
use crate::message::Request;
use crate::secret::Secret;
use crate::verify::locate::{Ambiguous, Location};
use crate::verify::shape::Shape;

/// A compiled condition.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) place: Place,
    pub(super) test: Test,
}

/// Where it is looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole body.
    Body,
    At(Location),
}

#[derive(Debug)]
pub(super) enum Test {
    Is(Vec<String>),
    Present,
    Absent,
    Matches(Shape),
    Secret(Secrets),
}

/// What one value may be.
pub(super) struct Secrets(Vec<Secret>);

impl Secrets {
    pub(super) fn of<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        Self(secrets.into_iter().cloned().collect())
    }
    fn has(&self, value: &[u8]) -> bool {
        // All are compared, whichever it is.
        self.0.iter().fold(false, |found, secret| found | secret.is(value))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Place {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "body" { Ok(Place::Body) } else { Location::parse(text).map(Place::At) }
    }
    fn find<'r>(&self, request: &'r Request) -> Result<Option<Cow<'r, [u8]>>, Ambiguous> {
        match self {
            Place::Body => Ok((!request.body.is_empty()).then_some(Cow::Borrowed(&request.body))),
            Place::At(location) => found(location, request),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Body => f.write_str("body"),
            Place::At(location) => location.fmt(f),
        }
    }
}

impl Condition {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What is there twice is neither there nor not there.
    pub(super) fn holds(&self, request: &Request) -> bool {
        let Ok(value) = self.place.find(request) else { return false };
        match (&self.test, value.as_deref()) {
            (Test::Absent, value) => value.is_none(),
            (_, None) => false,
            (Test::Present, Some(value)) => !value.is_empty(),
            (Test::Is(texts), Some(value)) => texts.iter().any(|text| text.as_bytes() == value),
            (Test::Matches(shape), Some(value)) => shape.matches(value),
            (Test::Secret(secrets), Some(value)) => secrets.has(value),
        }
    }
}
