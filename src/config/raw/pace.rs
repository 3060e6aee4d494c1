//! How an app is spared, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sections::secs;
use super::{Off, TextOrList};
use crate::config::percent::Percent;
use crate::config::units::{self, Time};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum BreakerOrOff {
    Off(Off),
    On(Breaker),
}

/// When deliveries are held because the app can't take them. It opens on `failures` in a row, or on a `share` of
/// failures; while it is open nothing is tried and no attempt is used up. Then one delivery probes, and if it succeeds,
/// concurrency and rate grow back over `slow_start`. With `mode: proxy` what it holds back is answered 503.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Breaker {
    /// Failures in a row that open it: no answer, 408, 425, 429 and 5xx. Default: 5.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failures: u32,
    /// The share of failures among the attempts of the `window` that opens it. Default: 50%.
    pub share: Percent,
    /// Default: 1m.
    pub window: Time,
    /// Attempts in the window below which the share says nothing. Default: 20.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_attempts: u32,
    /// How long it is open before a delivery probes. Default: 30s.
    pub probe_after: Time,
    /// How long concurrency and rate take to grow back; `0s`: at once. Default: 30s.
    pub slow_start: Time,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            share: Percent(50),
            window: secs(60),
            min_attempts: 20,
            probe_after: secs(30),
            slow_start: secs(30),
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum RateText {
    Plain(units::Rate),
    With(Rate),
}

/// How many attempts may begin, and how many at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Rate {
    /// Attempts a second, minute or hour: `50/s`, `600/m`, `1000/h`.
    pub limit: units::Rate,
    /// How many may begin at once after a rest. Default: as many as the limit gives in 50 ms, at least 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum BalanceText {
    Word(BalanceWord),
    Hash(BalanceHash),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum BalanceWord {
    RoundRobin,
    LeastInFlight,
}

/// Each key has a server of its own; while that is not well, its keys go to others, and no other key moves.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct BalanceHash {
    /// Where the key stands: `header:NAME`, `query:NAME`, `form:FIELD`, `body:/json/pointer` or `body-hash`; several are
    /// joined. An event without it takes turns. On `pass` routes only `header:` and `query:`.
    pub hash: TextOrList,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum ConcurrencyText {
    Fixed(#[schemars(range(min = 1, max = 65_536))] usize),
    Adaptive(Adaptive),
}

/// Attempts in flight that follow the app's latency: more while its answers take no longer than usual, fewer when they
/// do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Adaptive {
    /// Whether it adapts. With `false` it is `max`.
    pub adaptive: bool,
    /// Never fewer. Default: 1.
    #[schemars(range(min = 1, max = 65_536))]
    pub min: Option<usize>,
    /// Never more. Default: 64.
    #[schemars(range(min = 1, max = 65_536))]
    pub max: Option<usize>,
}

/// A check that each server of the destination is asked with. One that fails it is passed over while another is well.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Health {
    /// What is asked for with GET, such as `/healthz`.
    pub path: String,
    /// Default: 5s.
    pub every: Option<Time>,
    /// Default: 2s.
    pub timeout: Option<Time>,
    /// The statuses of a server that is well. Default: [200].
    #[schemars(length(min = 1), inner(range(min = 200, max = 599)))]
    pub status: Option<Vec<u16>>,
    /// Good checks in a row until a server is up again. Default: 2.
    #[schemars(range(min = 1, max = 1000))]
    pub rise: Option<u32>,
    /// Bad checks in a row until a server is down. Default: 3.
    #[schemars(range(min = 1, max = 1000))]
    pub fall: Option<u32>,
}
