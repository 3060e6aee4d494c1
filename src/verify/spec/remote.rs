//! Keys that are fetched, and certificates that come along, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Texts;

/// Keys that are fetched: from where, how they are asked for, and what the answer is. `{param:NAME}` stands for a
/// parameter, `{key}` for the name of the key that a request (or the `kid` of a token) names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeySourceSpec {
    /// The address, `https://…`. Without `{key}` in it (or in `post`) it is one document for all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where the request itself names the address: patterns of which it must match one as it is written, such as
    /// `https://keys.[a-z]{2}-[a-z]{4,9}-[0-9].example.com/*.pem`. In the host a label may have a shape, as `matches` of a
    /// handshake has it, or be `*`: any label, also one that a stranger could get there. In the path a `*` stands for
    /// characters within one segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<Texts>,
    /// The place where the request names its key or the address, such as `header:X-Key-Id`. Tokens name it by `kid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A JSON body, which makes the request a POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<String>,
    /// Headers of the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// A token that is got first (OAuth 2, client credentials) and sent as `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth: Option<OauthSpec>,
    /// What the answer is: `jwks` or `jwk` (for tokens), `key` (PEM, base64 DER, hex or base64 of the raw key), or
    /// `certificate` (PEM, its own first).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// A JSON pointer to it, where the answer is JSON around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A JSON pointer to the key's end in seconds since the epoch (`null`: none); an ended key is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What a certificate must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSpec>,
    /// Roots (PEM, or `file:PATH`) that are trusted for the connection, and for the certificate's chain, instead of
    /// the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// What a fetched certificate must be. It must be valid now in any case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertificateSpec {
    /// DNS names of which it must be for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Texts>,
    /// `required` (the default): its chain, which comes with it, leads to a trusted root. `host`: it comes alone, and
    /// the TLS connection to the pinned host is what vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
}

/// Client credentials of OAuth 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthSpec {
    /// The token endpoint, `https://…`.
    pub url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret: a reference such as `env:NAME`, or a pack's parameter.
    pub client_secret: String,
    /// The scope that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// Certificates beside a token (`x5c`), which prove its key only because they lead to a pinned root.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct X5cSpec {
    /// The roots (PEM, `file:PATH`, or a pack's parameter); no other is trusted.
    pub roots: String,
    /// Extensions, by object identifier, that the token's own certificate must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_extensions: Option<Texts>,
    /// Extensions, by object identifier, that its issuer must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_extensions: Option<Texts>,
}

/// An HTTP message signature (RFC 9421). What must be signed and how is pinned here and never taken from the message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSignatureSpec {
    /// The accepted algorithms: `ed25519`, `ecdsa-p256-sha256`, `ecdsa-p384-sha384`, `rsa-pss-sha512`,
    /// `rsa-v1_5-sha256`, `hmac-sha256`.
    pub algorithms: Texts,
    /// The components that must be signed; more may be. Default: `@method`, `@target-uri`, `content-digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<Texts>,
    /// Only a signature of this label counts, such as `sig1`. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The accepted key ids (`keyid`), which then must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_ids: Option<Texts>,
    /// The `tag` that the signature must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// How far `created`, which must be there, may be from now. Default `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<String>,
    /// `true` if `content-digest` need not be signed: then anyone who holds a genuine request can change its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsigned_body: Option<bool>,
}
