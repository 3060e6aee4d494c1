//! Step: may this address use the route? 403.

use crate::config::Route;
use crate::message::Head;
use crate::reason::Reason;

use super::refused::Refused;

pub(super) fn check(route: &Route, head: &Head) -> Result<(), Refused> {
    match &route.allow {
        Some(allow) if !allow.contains(head.client) => Err(Reason::AddressNotAllowed.into()),
        _ => Ok(()),
    }
}
