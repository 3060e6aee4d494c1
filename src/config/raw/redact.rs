//! What operators don't see.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is hidden wherever events are shown: in the admin API, listings, searches and the quarantine. What is stored and
/// delivered stays as it is, and an export is whole. Headers that hold credentials are hidden in any case.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Redact {
    /// Names of headers whose values are hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// JSON pointers of values in bodies, such as `/card/number`; `*` stands for any key or index. Of a body that is no
    /// JSON nothing is shown then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<String>,
}
