//! Step: could an event of this route be taken right now? 503 with `Retry-After`, before its body is read. Also what is
//! shed when the disk lags.
//!
//! Only a saving: the buffer decides again, for good, when the event is appended.

use crate::buffer::{Admission, Buffer, Pressure};
use crate::config::{Mode, Route};
use crate::reason::Reason;

use super::refused::Refused;

pub(super) fn check(route: &Route, buffer: &dyn Buffer) -> Result<(), Refused> {
    match route.mode {
        Mode::Buffer { .. } => {
            open(buffer.admission())?;
            shed(buffer.pressure(), route.verification())
        }
        // What can't be stored may still be taken inline.
        Mode::Proxy(_) | Mode::Spill { .. } | Mode::Pass(_) => Ok(()),
    }
}

/// The newest work gives way first: what comes now, while all that was taken in waits for its turn. Of that, first what
/// nobody will have to prove.
fn shed(pressure: Pressure, verification: &str) -> Result<(), Refused> {
    match (pressure, verification) {
        (Pressure::None, _) | (Pressure::Some, "on") => Ok(()),
        (Pressure::Some, _) => {
            Err(Refused::because(Reason::Overloaded, "the disk lags: senders without proof wait"))
        }
        (Pressure::Much, _) => Err(Refused::because(Reason::Overloaded, "the disk lags: new requests wait")),
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

    #[test]
    fn without_proof_comes_without_room_first() {
        let taken = |pressure, verification| shed(pressure, verification).is_ok();
        for verification in ["none", "observe", "on"] {
            assert!(taken(Pressure::None, verification));
            assert_eq!(taken(Pressure::Some, verification), verification == "on");
            assert!(!taken(Pressure::Much, verification));
        }
    }
}
