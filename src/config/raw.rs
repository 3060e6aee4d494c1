//! The config as written: every key, its type, its default and its meaning. This is the one definition that the
//! parser, the checks of shape, `tidegate schema` and the defaults come from.
//!
//! Words of this file are read by users: the doc comments are the descriptions in the schema.

mod alerts;
mod destination;
mod keep;
mod limit;
mod order;
mod pace;
mod redact;
mod route;
mod sections;
mod sign;
mod tracing;
mod when;

pub(super) use alerts::*;
pub(super) use destination::*;
pub(super) use keep::*;
pub(super) use limit::*;
pub(super) use order::*;
pub(super) use pace::*;
pub(super) use redact::*;
pub(super) use route::*;
pub(super) use sections::*;
pub(super) use sign::*;
pub(super) use tracing::*;
pub(super) use when::*;

use schemars::JsonSchema;
use serde::Deserialize;

/// The word that turns something off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Off {
    Off,
}

/// One text, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(super) enum TextOrList {
    Text(String),
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// Tidegate's config: where senders connect, which routes there are, and what happens to their requests.
///
/// Durations are written `500ms`, `30s`, `5m`, `2h`, `3d` or `1h30m`; sizes `512KiB`, `10MiB`, `1MB` or plain bytes.
/// Secrets are references: `env:NAME` or `file:PATH`. Paths of certificates, secrets and packs start from the folder
/// of the config file; `buffer.path` and the admin socket start from the working directory. Keys at the top that
/// begin with `x-` are free, for anchors.
#[derive(Debug, JsonSchema)]
#[allow(dead_code)] // read section by section, so that a fault in one does not hide faults in others
#[schemars(title = "Tidegate config", deny_unknown_fields)]
#[schemars(extend("patternProperties" = { "^x-": true }))]
#[schemars(extend("x-later" = [
    "cluster", "nats", "dashboard", "acme", "providers", "include",
]))]
pub(super) struct Root {
    /// Where senders connect. At least one.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// What happens to which requests. At least one.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
    /// Limits of the edge. Each has a documented answer when it is reached.
    #[schemars(default)]
    pub limits: Limits,
    /// The durable store of events and their deliveries.
    #[schemars(default)]
    pub buffer: Buffer,
    /// A bounded store of requests that verification refused, to look at and to admit later. Default: none is kept.
    pub quarantine: Option<Quarantine>,
    /// The admin API.
    #[schemars(default)]
    pub admin: Admin,
    /// What of events is hidden from operators, on all routes.
    #[schemars(default)]
    pub redact: Redact,
    /// What is watched, and who is told.
    #[schemars(default)]
    pub alerts: Alerts,
    /// What is logged, and how.
    #[schemars(default)]
    pub log: Log,
    /// Traces to an OpenTelemetry collector. Default: none.
    pub tracing: Option<Tracing>,
    /// How the address ranges that providers publish are kept fresh, for `allow: [provider]`.
    #[schemars(default)]
    pub ranges: Ranges,
    /// How the gateway goes down.
    #[schemars(default)]
    pub shutdown: Shutdown,
    /// Secrets in files of tenants.
    #[schemars(default)]
    pub secrets: Secrets,
    /// Worker threads, each with its own runtime. Default: one a processor.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Whether secrets may stand in this file itself. `check` warns about each. Default: `false`.
    #[schemars(default)]
    pub allow_inline_secrets: bool,
}
