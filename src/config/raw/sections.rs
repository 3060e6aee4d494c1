//! Listeners and the sections that concern the whole process.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{Rate, Share, Size, Time};

/// An address that senders connect to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-later" = ["routes", "breaker", "rate", "sign", "when", "proxy_protocol", "client_ca"]))]
pub(in crate::config) struct Listener {
    /// Address and port, such as `0.0.0.0:8443` or `[::]:8443`.
    pub address: String,
    /// The certificates. Without it the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Address ranges (CIDR) or addresses that may connect, such as `10.0.0.0/8`; the word `provider` stands for the
    /// published ranges of the providers of all routes. Default: any.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub allow: Option<Vec<String>>,
    /// Proxies before us whose `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`, or `Forwarded`, are
    /// believed, as ranges or addresses. Default: none.
    #[serde(default)]
    pub trusted_hops: Vec<String>,
}

/// TLS of a listener: one certificate as `cert` and `key`, or several as `certificates`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-later" = ["acme", "client_ca", "client_auth", "ciphers"]))]
pub(in crate::config) struct Tls {
    /// The certificate chain (PEM), leaf first.
    pub cert: Option<String>,
    /// Its private key (PEM).
    pub key: Option<String>,
    /// Several certificates, chosen by the name that the client asks for (SNI); the first serves clients without.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub certificates: Option<Vec<Certificate>>,
    /// The oldest TLS version that is spoken: `1.2` or `1.3`. Default: `1.2`.
    #[serde(default)]
    pub min_version: MinVersion,
    /// Make a self-signed certificate at `cert` and `key` if neither file exists. For trying out. Default: `false`.
    #[serde(default)]
    pub generate: bool,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Certificate {
    /// The certificate chain (PEM), leaf first.
    pub cert: String,
    /// Its private key (PEM).
    pub key: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub(in crate::config) enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}
impl TryFrom<f64> for MinVersion {
    type Error = &'static str;
    fn try_from(version: f64) -> Result<Self, Self::Error> {
        match version {
            1.2 => Ok(Self::Tls12),
            1.3 => Ok(Self::Tls13),
            _ => Err("1.2 or 1.3"),
        }
    }
}
impl From<MinVersion> for f64 {
    fn from(version: MinVersion) -> f64 {
        match version {
            MinVersion::Tls12 => 1.2,
            MinVersion::Tls13 => 1.3,
        }
    }
}
impl JsonSchema for MinVersion {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MinVersion".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [1.2, 1.3] })
    }
}

/// Limits of the edge.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Limits {
    /// Open connections, all listeners together; beyond it 503. Default: 10000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: usize,
    /// Requests on one connection before it is closed. Default: 10000.
    #[schemars(range(min = 1, max = 4_000_000_000_u64))]
    pub requests_per_connection: u32,
    /// Header fields of a request; beyond it 431. Default: 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub header_count: usize,
    /// Bytes of the whole header block; beyond it 431. Default: 32KiB.
    pub header_bytes: Size,
    /// Bytes of path and query; beyond it 414. Default: 8KiB.
    pub uri_bytes: Size,
    /// Bytes of a body where the route has no `max_body`; beyond it 413. Default: 10MiB.
    pub body_bytes: Size,
    /// Bytes of all bodies held in memory at once; beyond it 503. Default: 256MiB.
    pub body_budget: Size,
    /// From the first byte of a request to the end of its header; then 408. Default: 10s.
    pub header_timeout: Time,
    /// From the end of the header to the end of the body; then 408. Default: 30s.
    pub body_timeout: Time,
    /// A TLS handshake. Default: 10s.
    pub handshake_timeout: Time,
    /// A connection without a request. Default: 60s.
    pub idle_timeout: Time,
    /// How long a request waits for a verification key that is being fetched; then 503. Default: 2s.
    pub key_wait: Time,
    /// Concurrent HTTP/2 streams a connection. Default: 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests_per_connection: 10_000,
            header_count: 100,
            header_bytes: Size(32 << 10),
            uri_bytes: Size(8 << 10),
            body_bytes: Size(10 << 20),
            body_budget: Size(256 << 20),
            header_timeout: secs(10),
            body_timeout: secs(30),
            handshake_timeout: secs(10),
            idle_timeout: secs(60),
            key_wait: secs(2),
            h2_streams: 100,
        }
    }
}

/// The durable store of events and deliveries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-later" = ["engine", "nats"]))]
pub(in crate::config) struct Buffer {
    /// The folder, from the working directory. Default: ./data.
    pub path: String,
    /// Bytes on disk at which new events are refused (503). Below 1GiB the journal comes on top, up to 64 MiB. Default: 10GiB.
    pub max_size: Size,
    /// Free bytes on the volume below which new events are refused (503). The engine needs 80 MiB and `memtable` for what it
    /// has accepted. Default: 512MiB.
    pub min_free: Size,
    /// How long delivered events are kept; the oldest go earlier before a new event is refused. Default: 1d.
    pub keep_delivered: Time,
    /// How long dead letters are kept. Default: 30d.
    pub keep_dead: Time,
    /// Delivered events beyond these many bytes go first. Default: 1GiB.
    pub keep_delivered_bytes: Size,
    /// Write buffer of the store. Default: 16MiB.
    pub memtable: Size,
    /// A commit that takes longer is reported and closes acceptance until it returns. Default: 10s.
    pub stall_after: Time,
    /// What senders sent is sealed on disk. Default: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// Events, clients' URLs and the quarantine are sealed on disk (AES-256-GCM).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Encryption {
    /// References to keys of 32 bytes, in hex or base64: `env:NAME` or `file:PATH`. The first one seals, all open. What is
    /// under another key than the first is sealed anew in the background after a start; then the others can go.
    #[schemars(length(min = 1))]
    pub keys: Vec<String>,
    /// `false`: nothing new is sealed, and what is sealed becomes plain in the background. Default: `true`.
    #[serde(default = "yes")]
    pub seal: bool,
}

const fn yes() -> bool {
    true
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            path: "./data".into(),
            max_size: Size(10 << 30),
            min_free: Size(512 << 20),
            keep_delivered: secs(24 * 3600),
            keep_dead: secs(30 * 24 * 3600),
            keep_delivered_bytes: Size(1 << 30),
            memtable: Size(16 << 20),
            stall_after: secs(10),
            encryption: None,
        }
    }
}

/// Requests that verification refused (401), kept for a while with the reason: to look at, to verify again with other
/// secrets, and to admit. In the buffer's folder, within its limits; events go before them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Quarantine {
    /// How many are kept; beyond it the oldest goes of the address that has most of the route that has most.
    /// Default: 1000.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_events: u32,
    /// Bytes of all of them; beyond it they go in the same way. At most a quarter of `buffer.max_size`. Default: 64MiB.
    pub max_size: Size,
    /// How long each is kept. Default: 7d.
    pub keep: Time,
    /// How many a route takes in, such as `10/s`; what comes faster is refused as always, but not kept. Each address has a
    /// share. Default: 10/s.
    pub rate: Rate,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            max_events: 1000,
            max_size: Size(64 << 20),
            keep: secs(7 * 24 * 3600),
            rate: Rate { count: 10, per: Duration::from_secs(1) },
        }
    }
}

/// The admin API: health, metrics, events, dead letters, reload.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-later" = ["dashboard", "tls"]))]
pub(in crate::config) struct Admin {
    /// An address such as `127.0.0.1:9900`, a socket such as `unix:/run/tidegate.sock` (from the working directory),
    /// or `off`. Anything but loopback and sockets needs a `token`. Default: 127.0.0.1:9900.
    pub listen: String,
    /// A reference to the token that callers send as `Authorization: Bearer …`: `env:NAME` or `file:PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9900".into(), token: None }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Log {
    /// `text` or `json`. Default: text on a terminal, JSON otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tidegate=debug`. Default: info.
    pub level: String,
    /// Lines for requests: `off`, `errors` (one a rejected request) or `all`. Default: errors.
    pub access: Access,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: None, level: "info".into(), access: Access::Errors }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline, extend("x-later" = ["sample"]))]
pub(in crate::config) enum Access {
    Off,
    Errors,
    All,
}

/// How the address ranges that providers publish are kept fresh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Ranges {
    /// Between two fetches of a provider's list. Default: 1d.
    pub refresh: Time,
    /// The share of the ranges in use that a new list may lack; one that lacks more changes nothing and is reported.
    /// Default: 50%.
    pub max_shrink: Share,
    /// Trust these roots (PEM) instead of the public ones when lists are fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Fetch nothing: the last list on disk counts, else the pack's snapshot. Default: `false`.
    pub offline: bool,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { refresh: secs(24 * 3600), max_shrink: Share(50), ca: None, offline: false }
    }
}

/// How the gateway goes down on SIGTERM.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Shutdown {
    /// How long requests and deliveries in flight may finish. Default: 25s.
    pub grace: Time,
    /// Readiness is false this long before the listeners close. Default: 0s.
    pub delay: Time,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: secs(25), delay: secs(0) }
    }
}

/// Secrets in files of tenants.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Secrets {
    /// How soon a file of `file:secrets/{parameter}` that was added, changed or removed is seen without a reload, from
    /// `1s` to `1h`. Default: 30s.
    pub refresh: Time,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { refresh: secs(30) }
    }
}

pub(in crate::config) const fn secs(secs: u64) -> Time {
    Time(Duration::from_secs(secs))
}
