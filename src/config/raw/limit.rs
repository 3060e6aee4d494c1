//! Rate limits of a route as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TextOrList;
use crate::config::units::Rate;

/// How much a route takes in; beyond it 429 with `Retry-After`. A limit of `100/s` lets 100 through at once, and then one
/// every 10 ms; one of `6000/m` as many in a minute, but 6000 at once.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RateLimit {
    /// All requests of the route, proved or not. Asked before the body is read. Default: no limit.
    pub route: Option<Rate>,
    /// Each client address, IPv6 by its /64; asked first. The 65 536 addresses that are nearest to the limit are
    /// remembered. Default: no limit.
    pub source: Option<Rate>,
    /// Each proved sender; asked once it is proved. Default: no limit.
    pub identity: Option<Rate>,
    /// What tells proved senders apart, beside the secret or key that proved them: a place in the request, such as
    /// `body:/account`; several are joined. Default: nothing.
    pub identity_by: Option<TextOrList>,
}
