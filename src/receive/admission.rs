//! Step: could an event of this route be taken right now? 503 with `Retry-After`, before its body is read.
//!
//! Only a saving: the buffer decides again, for good, when the event is appended.

use crate::buffer::{Admission, Buffer};
use crate::config::{Mode, Route};
use crate::reason::Reason;

use super::refused::Refused;

pub(super) fn check(route: &Route, buffer: &dyn Buffer) -> Result<(), Refused> {
    match route.mode {
        Mode::Buffer { .. } => open(buffer.admission()),
        // What can't be stored may still be taken inline.
        Mode::Proxy(_) | Mode::Spill { .. } | Mode::Pass(_) => Ok(()),
    }
}

fn open(admission: Admission) -> Result<(), Refused> {
    match admission {
        Admission::Open => Ok(()),
        Admission::Full(why) => Err(Refused::because(Reason::BufferFull, why)),
        Admission::Failed(why) => Err(Refused::because(Reason::BufferUnavailable, why)),
        Admission::Closed => Err(Reason::ShuttingDown.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_takes_nothing_is_said_to_be_full_failed_or_closing() {
        let reason = |admission| open(admission).map_err(|refused| refused.reason);
        assert_eq!(reason(Admission::Open), Ok(()));
        assert_eq!(reason(Admission::Full("disk".into())), Err(Reason::BufferFull));
        assert_eq!(reason(Admission::Failed("sync".into())), Err(Reason::BufferUnavailable));
        assert_eq!(reason(Admission::Closed), Err(Reason::ShuttingDown));
    }
}
