//! Why verification failed: one coarse reason for the sender, a precise detail for operators, and which of several
//! refusals tells most.

use super::locate::Ambiguous;
use super::remote::Need;
use super::template::Unbuildable;
use crate::reason::Reason;

/// Why verification failed. `detail` is for the log and `tidegate verify`, never for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
    /// What the decision waits for, if it is a key that is being fetched: then the request may be decided anew.
    pub needs: Option<Need>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), needs: None }
    }

    pub(super) fn ambiguous(what: impl std::fmt::Display) -> Self {
        Self::new(Reason::AmbiguousRequest, format!("{what} is there twice"))
    }

    /// Of two refusals by alternatives, the one that says more: what was there and wrong before what was not there,
    /// and what a retry may mend before all.
    pub(super) fn more_telling(self, other: Self) -> Self {
        if rank(other.reason) > rank(self.reason) { other } else { self }
    }
}

fn rank(reason: Reason) -> u8 {
    match reason {
        Reason::KeyUnavailable => 4,
        Reason::SenderNotAllowed => 4,
        Reason::AmbiguousRequest => 3,
        Reason::TimestampOutOfTolerance | Reason::TokenExpired => 2,
        Reason::SignatureInvalid | Reason::TokenInvalid | Reason::CredentialsInvalid => 1,
        _ => 0,
    }
}

impl From<Unbuildable> for Refusal {
    fn from(why: Unbuildable) -> Self {
        match why {
            Unbuildable::Missing(what) => Self::new(Reason::SignatureMissing, what),
            Unbuildable::Malformed(what) => Self::new(Reason::SignatureInvalid, what),
            Unbuildable::Ambiguous(what) => Self::new(Reason::AmbiguousRequest, what),
        }
    }
}

/// Names the place of something ambiguous.
pub(super) fn at<T>(place: &impl std::fmt::Display, found: Result<T, Ambiguous>) -> Result<T, Refusal> {
    found.map_err(|Ambiguous| Refusal::ambiguous(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_refusal_wins_and_the_first_of_equals() {
        let refusal = |reason: Reason| Refusal::new(reason, reason.code());
        let of = |a, b| refusal(a).more_telling(refusal(b)).reason;
        assert_eq!(of(Reason::SignatureMissing, Reason::TokenInvalid), Reason::TokenInvalid);
        assert_eq!(of(Reason::TokenInvalid, Reason::SignatureMissing), Reason::TokenInvalid);
        assert_eq!(of(Reason::TokenExpired, Reason::SignatureInvalid), Reason::TokenExpired);
        assert_eq!(of(Reason::KeyUnavailable, Reason::AmbiguousRequest), Reason::KeyUnavailable);
        assert_eq!(of(Reason::SignatureMissing, Reason::CredentialsMissing), Reason::SignatureMissing);
    }
}
