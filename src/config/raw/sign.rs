//! How requests to an app are rewritten and signed, as written.

use schemars::JsonSchema;
use serde::Deserialize;

/// What proves to the app that a request comes from this gateway. The sender's own headers of the same names are
/// replaced.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Sign {
    /// `standard-webhooks`: `webhook-id` (the event's id), `webhook-timestamp` and `webhook-signature`. `hmac`: a MAC of
    /// `signed` in `header`. `basic` and `bearer`: `Authorization`. `oauth2`: a token that is fetched from `token_url` with
    /// client credentials, kept, renewed before it ends, and fetched once more if the app answers 401 (at most every
    /// 10 s; in between its 401 counts).
    pub scheme: SignScheme,
    /// A reference to the secret: `env:NAME` or `file:PATH`. The signing secret (for `standard-webhooks` as `whsec_…`), the
    /// password, the bearer token, or the client's secret.
    pub secret: String,
    /// `hmac`: the signed bytes, a template of `{body}`, `{timestamp}`, `{id}`, `{method}` and `{target}`. Default:
    /// `{body}`.
    pub signed: Option<String>,
    /// `hmac`: the header that gets the signature. Default: X-Signature.
    pub header: Option<String>,
    /// `hmac`: what stands before the signature, such as `sha256=`. Default: nothing.
    pub prefix: Option<String>,
    /// `hmac`: `sha256` or `sha512`. Default: sha256.
    pub hash: Option<SignHash>,
    /// `hmac`: `hex` or `base64`. Default: hex.
    pub encoding: Option<SignEncoding>,
    /// `hmac`: the header that gets the time in Unix seconds. Needed with `{timestamp}`.
    pub timestamp_header: Option<String>,
    /// `basic`: the user.
    pub user: Option<String>,
    /// `oauth2`: where tokens come from, over https.
    pub token_url: Option<String>,
    /// `oauth2`: trust these roots (PEM file) at `token_url` instead of the public ones.
    pub ca: Option<String>,
    /// `oauth2`: the client's id.
    pub client_id: Option<String>,
    /// `oauth2`: the scope to ask for. Default: none.
    pub scope: Option<String>,
    /// `oauth2`: the audience to ask for. Default: none.
    pub audience: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(in crate::config) enum SignScheme {
    StandardWebhooks,
    Hmac,
    Basic,
    Bearer,
    Oauth2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum SignHash {
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum SignEncoding {
    Hex,
    Base64,
}

/// Another path for the app. The sender's query is kept, and a path that does not match stays as it is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct PathRewrite {
    /// A regex (linear time) that the whole path must match, such as `/hooks/(.*)`.
    #[serde(rename = "match")]
    pub matches: String,
    /// What the path becomes, with `$1` or `${name}` for what a group matched, such as `/v2/$1`.
    pub to: String,
}
