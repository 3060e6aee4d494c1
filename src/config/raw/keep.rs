//! What is kept of a route's events once they are settled.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{Size, Time};

/// How long, and how much, of what is settled is kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Keep {
    /// How long delivered events are kept. Default: `buffer.keep_delivered`.
    pub delivered: Option<Time>,
    /// How long dead letters are kept. Default: `buffer.keep_dead`.
    pub dead: Option<Time>,
    /// How many delivered events are kept; beyond it the oldest go. Default: no limit.
    pub events: Option<u64>,
    /// Bytes of delivered events that are kept; beyond it the oldest go. Default: `buffer.keep_delivered_bytes`.
    pub bytes: Option<Size>,
}
