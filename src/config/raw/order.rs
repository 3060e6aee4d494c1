//! Order and batches, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TextOrList;
use super::sections::secs;
use crate::config::units::{Size, Time};

/// Events with one key reach the app in the order they were accepted in; others in parallel, and keys take turns. An event
/// without the key goes without order, and is counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Order {
    /// Where the key stands: `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD` or `body:/json/pointer`; several are
    /// joined.
    pub by: TextOrList,
    /// What becomes of a key whose event fails. `block`: the event is tried until it gets through, whatever `retry` says,
    /// and nothing with its key passes it. `park`: once it is a dead letter, the later ones wait until it is replayed or
    /// purged. `skip`: once it is a dead letter, the next one goes. Default: block.
    #[serde(default)]
    pub on_failure: OnFailureWord,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum OnFailureWord {
    #[default]
    Block,
    Park,
    Skip,
}

/// Several events in one request to the app.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Batch {
    /// Events of one request. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    pub max_events: usize,
    /// Bytes of their bodies together; a larger event goes by itself. Default: 1MiB.
    pub max_bytes: Size,
    /// How long events wait for others. Default: 1s.
    pub max_wait: Time,
    /// How they stand in the request: `json-array`, `ndjson` (one a line), or `multipart` (each with its own headers). A
    /// body that does not fit its form as it is goes by itself. Default: json-array.
    pub format: BatchFormatWord,
    /// Where the app's JSON answer holds an array with a status for each event, a JSON pointer such as `/results`: numbers,
    /// or mappings with a `status`. Default: none; the answer's status is that of all.
    pub statuses: Option<String>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_events: 100,
            max_bytes: Size(1024 * 1024),
            max_wait: secs(1),
            format: BatchFormatWord::JsonArray,
            statuses: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum BatchFormatWord {
    #[default]
    JsonArray,
    Ndjson,
    Multipart,
}
