//! In which order, and how many at once, an app gets its events.

use super::Checker;
use super::destinations::Purpose;
use crate::config::order::{Batch, BatchFormat, OnFailure, Order};
use crate::config::place::Place;
use crate::config::raw;
use crate::verify::JsonPointer;

/// Their ids stand in a header: so many take 7 KiB, and few servers take more than 8.
const MANY: usize = 190;

impl Checker<'_, '_> {
    pub(super) fn order(
        &mut self,
        raw: Option<&raw::Order>,
        destination: &Place,
        purpose: Purpose<'_>,
    ) -> Option<Order> {
        let raw = raw?;
        if !self.only_stored("order", destination, purpose) {
            return None;
        }
        let place = destination.key("order").key("by");
        let by = self.extract(&raw.by, &place)?;
        let path = purpose.path?.clone();
        let on_failure = match raw.on_failure {
            raw::OnFailureWord::Block => OnFailure::Block,
            raw::OnFailureWord::Park => OnFailure::Park,
            raw::OnFailureWord::Skip => OnFailure::Skip,
        };
        Some(Order { by, on_failure, path })
    }

    pub(super) fn batch(
        &mut self,
        raw: Option<&raw::Batch>,
        destination: &Place,
        purpose: Purpose<'_>,
    ) -> Option<Batch> {
        let raw = raw?;
        if !self.only_stored("batch", destination, purpose) {
            return None;
        }
        let place = destination.key("batch");
        if raw.max_events > MANY {
            let message = format!(
                "the ids of {} events make a header of {} KiB",
                raw.max_events,
                raw.max_events * 37 / 1024
            );
            let help = "few servers take more than 8 KiB of headers";
            self.warning(&place.key("max_events"), message, help);
        }
        if raw.max_bytes.0 == 0 {
            self.error(&place.key("max_bytes"), "no event fits", "write a size such as `1MiB`");
        }
        let statuses = raw.statuses.as_ref().and_then(|text| match JsonPointer::parse(text) {
            Ok(pointer) => Some(pointer),
            Err(problem) => {
                self.error(&place.key("statuses"), problem, "write a JSON pointer such as `/results`");
                None
            }
        });
        Some(Batch {
            max_events: raw.max_events,
            max_bytes: usize::try_from(raw.max_bytes.0).unwrap_or(usize::MAX),
            max_wait: raw.max_wait.0,
            format: match raw.format {
                raw::BatchFormatWord::JsonArray => BatchFormat::JsonArray,
                raw::BatchFormatWord::Ndjson => BatchFormat::Ndjson,
                raw::BatchFormatWord::Multipart => BatchFormat::Multipart,
            },
            statuses,
        })
    }

    /// What goes to the app while its sender waits has no order and no company.
    fn only_stored(&mut self, key: &str, destination: &Place, purpose: Purpose<'_>) -> bool {
        let stored = purpose.mode == raw::Mode::Buffer;
        if !stored {
            let why = match purpose.mode {
                raw::Mode::Spill => {
                    "a `spill` route forwards each event at once, and what it has stored is overtaken"
                }
                _ => "each event is forwarded at once, while its sender waits",
            };
            let help = "use `mode: buffer`, where all are stored first and can go in order and together";
            self.error(
                &destination.key(key),
                format!("no `{key}` here: {why}"),
                format!("{help}, or remove `{key}`"),
            );
        }
        stored
    }
}
