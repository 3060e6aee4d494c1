//! Conditions: a place in a request, and what must be there.

use std::borrow::Cow;
use std::fmt;

use subtle::{Choice, ConstantTimeEq};

use super::found;
use super::shape::Shape;
use crate::message::Request;
use crate::secret::Secret;
use crate::verify::locate::{Ambiguous, Location};
use crate::verify::mac::Hash;

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

/// Digests of what one value may be: compared in constant time, so that neither length nor content shows in it.
pub(super) struct Secrets(Vec<[u8; 32]>);

impl Secrets {
    pub(super) fn of<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        Self(secrets.into_iter().map(|secret| digest(secret.expose())).collect())
    }
    fn has(&self, value: &[u8]) -> bool {
        let value = digest(value);
        // All are compared, whichever it is.
        let found = self.0.iter().fold(Choice::from(0), |found, secret| found | secret.ct_eq(&value));
        found.into()
    }
}

fn digest(value: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // As long as SHA-256 is.
    digest.copy_from_slice(Hash::Sha256.of(value).as_bytes());
    digest
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
