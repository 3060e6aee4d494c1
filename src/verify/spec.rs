//! What stands under `verify:`, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// See `conf/reference.yaml`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VerifySpec {}

impl VerifySpec {
    /// What the short form of a route means: `provider: NAME` with `secret:`/`secrets:`.
    pub fn of_provider(provider: &str, secrets: Vec<String>) -> Self {
        let _ = (provider, secrets);
        todo!("spec")
    }
}
