//! Which events a destination wants.

use super::Checker;
use crate::config::place::{Place, Step};
use crate::config::raw;
use crate::filter::{At, Filter, Problem};

impl Checker<'_, '_> {
    pub(super) fn when(
        &mut self,
        raw: Option<&raw::When>,
        destination: &Place,
        mode: raw::Mode,
    ) -> Option<Filter> {
        let raw = raw?;
        let place = destination.key("when");
        if mode != raw::Mode::Buffer {
            let help = "with `mode: buffer` each destination takes the events that it wants";
            self.error(&place, "inline every request goes to the app", help);
        }
        match Filter::compile(&raw.0) {
            Ok(filter) => Some(filter),
            Err(problems) => {
                for Problem { at, message, help } in problems {
                    let at = at.iter().fold(place.clone(), |place, step| {
                        place.then(match step {
                            At::Key(key) => Step::Key(key.clone()),
                            At::Index(index) => Step::Index(*index),
                        })
                    });
                    // Where a key is what is wrong, point at the key.
                    match message.ends_with("is no place") || message.ends_with("is no comparison") {
                        true => self.report.error_at_key(&at, message, help),
                        false => self.error(&at, message, help),
                    }
                }
                None
            }
        }
    }

    /// An event that nobody wants is kept only where it is looked for. `filtered`: every destination has a `when`.
    pub(super) fn unwanted(
        &mut self,
        route: &raw::Route,
        place: &Place,
        filtered: bool,
    ) -> crate::config::Unwanted {
        use crate::config::Unwanted;
        if route.unwanted.is_some() && route.mode == raw::Mode::Buffer && !filtered {
            let help = "give every destination a `when`, or remove `unwanted`";
            let message = "a destination without `when` wants every event: `unwanted` has no effect";
            self.warning(&place.key("unwanted"), message, help);
        }
        if route.unwanted.is_some() && route.mode != raw::Mode::Buffer {
            let help = "only `mode: buffer` has destinations with `when`";
            self.error(&place.key("unwanted"), "inline every request goes to the app", help);
        }
        match route.unwanted {
            None | Some(raw::UnwantedWord::Keep) => Unwanted::Keep,
            Some(raw::UnwantedWord::Drop) => Unwanted::Drop,
        }
    }
}
