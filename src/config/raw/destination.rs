//! A destination as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TextOrList;
use super::pace::{BalanceWord, BreakerOrOff, Health, RateText};
use super::sections::{Certificate, secs};
use super::{Batch, Order, PathRewrite, Sign, When};
use crate::config::units::Time;

/// A URL is a destination named `default`, with all its defaults.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum ForwardTo {
    Url(String),
    One(Box<Destination>),
    Several(#[schemars(length(min = 1))] Vec<Destination>),
}

/// Where events go. If the URL has a path, the app gets that path instead of the sender's; the sender's query is kept.
/// Without one (or with just `/`) the app gets the sender's path.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-later" = [
    "transform", "ramp",
]))]
pub(in crate::config) struct Destination {
    /// Its name within the route. Needed if there are several. Default: default.
    pub name: Option<String>,
    /// The app: `http://` or `https://`. Or `upstreams`.
    pub url: Option<String>,
    /// Several servers of the app, taken in turn; one that can't be reached is passed over. Or `url`.
    #[schemars(length(min = 1))]
    pub upstreams: Option<Vec<String>>,
    /// How several servers are used: `round-robin` (in turn), or `least-in-flight`. Default: round-robin.
    pub balance: Option<BalanceWord>,
    /// Use the first server that is well, in the order written, instead of all of them. Default: `false`.
    #[serde(default)]
    pub failover: bool,
    /// Ask each server whether it is well, and pass over those that are not. Default: real requests alone tell.
    pub health: Option<Health>,
    /// Which events it gets, by what must stand where, such as `{ event_type: invoice.paid }` or
    /// `{ "body:/amount": { gt: 100 } }`; with `all`, `any` and `not`. `buffer` only. Default: every event.
    pub when: Option<When>,
    /// From the start of an attempt to the end of the app's answer. Default: 30s; with `mode: proxy` the provider's own
    /// deadline if that is shorter.
    pub timeout: Option<Time>,
    /// For a connection to the app, TLS included. Default: 5s.
    pub connect_timeout: Option<Time>,
    /// Attempts in flight at once. Default: 16.
    #[schemars(range(min = 1, max = 65_536))]
    pub concurrency: Option<usize>,
    /// The HTTP version spoken to the app: `1`, or `2` (by ALPN over TLS, with prior knowledge in plain). Default: 1.
    #[serde(default)]
    pub http: HttpVersion,
    /// Which `Host` the app gets: `keep` the sender's, or the `upstream`'s own. Default: keep.
    #[serde(default)]
    pub host: HostWord,
    /// How an https app is trusted, and how we prove ourselves to it.
    pub tls: Option<DestinationTls>,
    /// When a failed delivery is tried again.
    pub retry: Option<Retry>,
    /// How many attempts may begin: `50/s`, `600/m`, `1000/h`, or with a `burst`. Default: no limit.
    pub rate: Option<RateText>,
    /// When attempts may begin: `22:00-06:00 Europe/Paris`, with days `mon-fri 22:00-06:00 UTC`, or several. Outside of it
    /// deliveries wait. Default: at any time.
    pub deliver_between: Option<TextOrList>,
    /// When deliveries are held because the app can't take them, or `off`. It never gives an event up. Default: on, with
    /// the values below.
    pub breaker: Option<BreakerOrOff>,
    /// In which order events arrive. `buffer` only. Default: in none that is promised.
    pub order: Option<Order>,
    /// Several events in one request. `buffer` only. Default: one request an event.
    pub batch: Option<Batch>,
    /// Headers that are set, removed or renamed before the app gets them.
    pub headers: Option<HeaderChanges>,
    /// Another path for the app.
    pub path: Option<PathRewrite>,
    /// What proves to the app that a request comes from this gateway. Default: nothing.
    pub sign: Option<Sign>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub(in crate::config) enum HttpVersion {
    #[default]
    Http1,
    Http2,
}
impl TryFrom<u8> for HttpVersion {
    type Error = &'static str;
    fn try_from(version: u8) -> Result<Self, Self::Error> {
        match version {
            1 => Ok(Self::Http1),
            2 => Ok(Self::Http2),
            _ => Err("1 or 2"),
        }
    }
}
impl From<HttpVersion> for u8 {
    fn from(version: HttpVersion) -> u8 {
        match version {
            HttpVersion::Http1 => 1,
            HttpVersion::Http2 => 2,
        }
    }
}
impl JsonSchema for HttpVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HttpVersion".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [1, 2] })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum HostWord {
    #[default]
    Keep,
    Upstream,
}

/// TLS to the app.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct DestinationTls {
    /// Trust these roots (PEM file) instead of the public ones.
    pub ca: Option<String>,
    /// The certificate that we show the app.
    pub client: Option<Certificate>,
    /// Accept any certificate of the app. `check` warns. Default: `false`.
    #[serde(default)]
    pub insecure: bool,
    /// The name that the app's certificate must have. Default: the host of the URL.
    pub server_name: Option<String>,
}

/// When a failed delivery is tried again: before retry `n` the wait is `first` × `factor` to the power of `n`-1, at most
/// `max`, and with `jitter: full` a random part of that.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Retry {
    /// How the waits grow. Default: exponential.
    pub backoff: Backoff,
    /// The wait before the first retry. Default: 1s.
    pub first: Time,
    /// By how much each wait is longer than the one before. Default: 2.
    #[schemars(range(min = 1, max = 100))]
    pub factor: f64,
    /// The longest wait, an app's `Retry-After` included. Default: 1h.
    pub max: Time,
    /// `full` draws each wait evenly from zero up, so that retries do not come in waves; `none` takes it whole.
    /// Default: full.
    pub jitter: JitterWord,
    /// Tries in all, then dead letter. Default: 12.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub attempts: u32,
    /// Since acceptance, then dead letter. Default: 3d.
    pub max_age: Time,
    /// Statuses of the app that end a delivery at once. Default: [410].
    #[schemars(inner(range(min = 300, max = 599)))]
    pub give_up_on: Vec<u16>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            backoff: Backoff::Exponential,
            first: secs(1),
            factor: 2.0,
            max: secs(3600),
            jitter: JitterWord::Full,
            attempts: 12,
            max_age: secs(3 * 24 * 3600),
            give_up_on: vec![410],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum Backoff {
    Exponential,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum JitterWord {
    Full,
    None,
}

/// Headers that are set, removed or renamed. Those of one hop, `Content-Length` and `tidegate-…` are the gateway's own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct HeaderChanges {
    /// Set to this value, whatever the sender sent.
    pub set: BTreeMap<String, String>,
    /// Not passed on.
    pub remove: Vec<String>,
    /// Passed on under another name, in place of what the sender sent under that one.
    pub rename: BTreeMap<String, String>,
}
