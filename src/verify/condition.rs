//! When a scheme applies to a request.

use super::locate::{Location, View};
use super::refusal::{Refusal, at};
use crate::reason::Reason;

/// What must be so of a place.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    Present(Location),
    Absent(Location),
    Equal(Location, Vec<String>),
}

impl Condition {
    pub(super) fn location(&self) -> &Location {
        match self {
            Condition::Present(location) | Condition::Absent(location) | Condition::Equal(location, _) => {
                location
            }
        }
    }

    pub(super) fn holds(&self, view: View<'_>) -> Result<(), Refusal> {
        let (location, wanted) = match self {
            Condition::Present(location) => (location, true),
            Condition::Absent(location) => (location, false),
            Condition::Equal(location, accepted) => {
                let value = at(location, location.find(view))?;
                if value.is_some_and(|value| accepted.iter().any(|one| one.as_bytes() == &*value)) {
                    return Ok(());
                }
                let why = format!("{location} has another value than this scheme is for");
                return Err(Refusal::new(Reason::SignatureMissing, why));
            }
        };
        let present = at(location, location.find(view))?.is_some();
        if present == wanted {
            return Ok(());
        }
        let why = if wanted { "is missing" } else { "is there, and this scheme does not apply then" };
        Err(Refusal::new(Reason::SignatureMissing, format!("{location} {why}")))
    }
}
