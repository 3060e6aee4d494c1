//! Traces as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::Time;

/// Traces to an OpenTelemetry collector (OTLP): one for each request, through the buffer to each attempt. A sender's
/// `traceparent` is continued, and the app gets ours.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tracing {
    /// The collector, such as `http://127.0.0.1:4317`. With `protocol: http` and no path, `/v1/traces` is added.
    pub url: String,
    /// `grpc`, or `http` (protobuf). Default: grpc.
    #[serde(default)]
    pub protocol: OtlpWord,
    /// Headers that are sent along, by their names; each a reference: `env:NAME` or `file:PATH`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The share of traces that is recorded, from 0 to 1, chosen by their ids: whatever a sender asks for. Default: 1.
    #[schemars(range(min = 0, max = 1))]
    pub sample: Option<f64>,
    /// What the traces say they are of. Default: tidegate.
    pub service_name: Option<String>,
    /// How long one export may take. Default: 10s.
    pub timeout: Option<Time>,
    /// Trust these roots (PEM) instead of the public ones.
    pub ca: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum OtlpWord {
    #[default]
    Grpc,
    Http,
}
