//! What stands under `verify:`, as written: the language that packs and users share. Values stay text here; what they
//! mean is decided once, by [`compile`](super::compile), which then can say everything that is wrong at once.

mod handshake;
mod remote;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use handshake::{ConditionSpec, HandshakeSpec, ProofSpec, ReplySpec, TestSpec, VisitSpec};
pub use remote::{CertificateSpec, HttpSignatureSpec, KeySourceSpec, OauthSpec, X5cSpec};
pub use text::{Claims, Param, SecretSpec, Texts};

/// How a route proves who sent a request: the word `none`, or a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum VerifySpec {
    /// `none`: nothing is proved, on purpose.
    None,
    Rule(Box<Rule>),
}

/// Exactly one way to prove a sender: `provider`, a scheme (in `scheme` or inline), `jwt`, `http_signature`,
/// `api_key`, `basic`, `bearer`, or several of them in `any` or `all`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-others-beside" = "provider"))]
pub struct Rule {
    /// The pack that says how this provider signs: a built-in name such as `stripe`, or the path of a pack file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// One secret: a reference such as `env:NAME` or `file:PATH`, or `{ secret: env:NAME, label: NAME }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSpec>,
    /// Several secrets that are live at once, for rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretSpec>>,
    /// Public keys as the provider shows them: PEM, base64 DER, hex or base64 of the raw key, or `file:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_keys: Option<Vec<SecretSpec>>,
    /// How far the signed time may be from now, in both directions, such as `5m`. Replaces the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<String>,
    /// A declared signature scheme. The same keys may also stand inline, beside `secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Box<SchemeSpec>>,
    /// A JSON Web Token that proves the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Box<JwtSpec>>,
    /// An HTTP message signature (RFC 9421).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_signature: Option<Box<HttpSignatureSpec>>,
    /// A fixed key in a header or in the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Box<ApiKeySpec>>,
    /// HTTP basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Box<BasicSpec>>,
    /// A fixed token in `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Box<BearerSpec>>,
    /// What this rule is called within an `any`: an idempotency id counts within the rule that proved it, which is otherwise
    /// told by what it proves with and, from the second of the same kind on, by its number in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Rules of which one must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<VerifySpec>>,
    /// Rules that must all hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<VerifySpec>>,
    /// A scheme's keys, inline.
    #[serde(flatten)]
    pub inline: SchemeSpec,
    /// Parameters that the pack asks for, such as `webhook_id`: a text, a reference (`env:NAME`), or a list.
    #[serde(flatten)]
    pub params: BTreeMap<String, Param>,
}

/// How a sender signs: which bytes, by which algorithm, and where in the request signature and time are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SchemeSpec {
    /// `hmac-md5` (legacy), `hmac-sha1`, `hmac-sha256`, `hmac-sha384`, `hmac-sha512`; `sha1`, `sha256` (of a template with `{secret}`);
    /// `token` (the secret itself is sent); `ed25519`; `ecdsa-p256-sha256`, `ecdsa-p384-sha384` (DER; `-fixed` for
    /// r and s side by side); `rsa-pkcs1-sha1` (legacy), `rsa-pkcs1-sha256`, `rsa-pkcs1-sha384`,
    /// `rsa-pkcs1-sha512`, `rsa-pss-sha256`, `rsa-pss-sha384`, `rsa-pss-sha512`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// The signed bytes, as a template. `{body}`, `{body|sha256}`, `{body|crc32}`, `{timestamp}`, `{id}`,
    /// `{secret}`, `{method}`, `{target}` (path and query), `{path}`, `{query}`, `{url}` (the route's public URL),
    /// `{url|other-port}`, `{url|unescape:CHARACTERS}`, `{form|sorted}`, `{form|sorted-unique}`, `{param:NAME}`, and
    /// places: `{header:NAME}`, `{query:NAME}`, `{form:FIELD}`, `{body:/json/pointer}`, each with `|optional` if it
    /// may be absent, `|base64` if it must be nothing but base64 and line feeds, or `|line:NAME` for two lines (the name
    /// and the value) if it is there. `{header-list:NAME|must,be,listed}` stands for the headers that the header of this
    /// name lists, as `name:value` with `;` between them. `{{` and `}}` stand for braces. Default `{body}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed: Option<String>,
    /// The shapes that places must have as a whole, such as `{ header:X-Time: "[0-9]{10}" }`: characters and classes, each a
    /// bounded number of times. Signed places that stand side by side need them, or a separator that they can't hold:
    /// else the border between them could be moved, and one genuine request makes many. An `{id}` before a separator can
    /// never hold it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, String>,
    /// Where the signature is and how it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureSpec>,
    /// Where the signed time is, and how far it may be from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Box<TimestampSpec>>,
    /// Where the `{id}` of the template is, such as `header:webhook-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// How the configured secret (or public key) becomes the key. Default: its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<KeySpec>>,
    /// A digest of the body that the request carries and that must be right, where the signed bytes hold the
    /// digest's place but not the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_digest: Option<Box<BodyDigestSpec>>,
    /// A JSON pointer to an array in the body, each of whose elements carries its own signature. All must be right;
    /// an empty array is refused. Pointers and `{body}` then mean the element.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// Where the keys are fetched from, instead of `public_keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_source: Option<Box<KeySourceSpec>>,
    /// The scheme applies only if these places have one of these values, such as `{ body:/Type: Notification }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub if_equal: BTreeMap<String, Texts>,
    /// Who is let in: signed places that must have one of these values; else 403.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub only: BTreeMap<String, Texts>,
    /// The scheme applies only if this place is there, such as `query:bodySHA256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_present: Option<String>,
    /// The scheme applies only if this place is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_absent: Option<String>,
}

/// Where the signature is and how it is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureSpec {
    /// `header:NAME`, `query:NAME`, `form:FIELD` or `body:/json/pointer`; or a list of them, of which any that is
    /// there may hold the signature.
    pub from: Texts,
    /// The separator of groups that each have their own time and signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// The separator of a list that may hold several signatures, such as `,`; white space around items is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// What stands between an item's key and its value. Default `=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assign: Option<String>,
    /// The key (or keys) of the items that are signatures, such as `v1`. Others are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Texts>,
    /// Keys of items that are signatures of another kind, such as `v0`: never compared, but a malformed one means that
    /// the value did not arrive whole, and the request is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<Texts>,
    /// Items at the list's beginning that are no signatures. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<u8>,
    /// What must stand before the signature, such as `sha256=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `hex`, `base64` or `base64url`; not for `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// Where the signed time is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimestampSpec {
    /// A place such as `header:NAME` or `body:/json/pointer`, `item:KEY` (an item beside the signature, such as
    /// `item:t`), or `position:N` (the item at that position, from 0).
    pub from: String,
    /// `unix` (seconds, the default), `unix-ms`, `rfc3339`, `rfc3339-utc` (in UTC where no zone is written), or
    /// `http-date` (`Tue, 24 Nov 2026 16:00:00 GMT`); or a list of them, if it may be written in each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Texts>,
    /// How far it may be from now, in both directions. Default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<String>,
}

/// How a configured secret becomes the key, step by step in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// A prefix that is taken off if it is there, such as `whsec_`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// `text` (the default), `base64` or `hex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<String>,
    /// `sha1` or `sha256`: the key is this digest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// A text that is put behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
}

/// A digest of the body that stands elsewhere in the request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyDigestSpec {
    /// Where, such as `query:bodySHA256`. The signed bytes must cover it.
    pub from: String,
    /// `sha256` (the default), `sha1`, `sha384` or `sha512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// `hex` (the default), `base64` or `base64url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// A JSON Web Token (RFC 7519). What is accepted is pinned here and never taken from the token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSpec {
    /// The accepted algorithms: `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`,
    /// `ES256`, `ES384`, `EdDSA`.
    #[serde(default)]
    pub algorithms: Texts,
    /// The accepted issuers (`iss`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Texts>,
    /// The accepted audiences (`aud`): the token must name one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Texts>,
    /// Shared secrets, for HS256, HS384 and HS512: at least 32 bytes each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretSpec>>,
    /// Public keys (PEM, base64 DER), for the other algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_keys: Option<Vec<SecretSpec>>,
    /// A JSON Web Key Set: `https://…`, fetched and refreshed, or `file:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Keys that are fetched otherwise, such as one by one by their `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_source: Option<Box<KeySourceSpec>>,
    /// Roots (PEM, or `file:PATH`) that are trusted when `jwks` is fetched, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Certificates in the token's header (`x5c`), whose chain must lead to a pinned root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5c: Option<Box<X5cSpec>>,
    /// The header that holds the token. Default `Authorization`, as `Bearer TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Where else the token is: a place such as `body:/signedPayload` or `form:token`, or `body` for the whole body; or
    /// `header:Authorization` if it stands there without `Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Claims that must be there: a list of names (or JSON pointers such as `/data/id`), or names with the values that
    /// are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_claims: Option<Claims>,
    /// A claim that holds a digest of the body, which must be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hash: Option<ClaimDigestSpec>,
    /// A claim that holds a digest of the public URL, which must be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_hash: Option<ClaimDigestSpec>,
    /// How far the sender's clock may be off when `exp`, `nbf` and `iat` are checked. Default `60s`, at most `300s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leeway: Option<String>,
    /// How old a token may be by its `iat`, which then must be there. `exp` may then be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    /// `false` if the sender's tokens hold no `exp`, so that an old one stays good. Default `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<bool>,
    /// How long a shared secret must be, in bytes, where a provider issues shorter ones than RFC 7518 asks for (32).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_secret: Option<usize>,
}

/// A claim that holds a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimDigestSpec {
    /// The claim's name.
    pub claim: String,
    /// `true` if the claim is absent where there is nothing to digest. Default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_if_empty: Option<bool>,
    /// `hex` (the default), `base64` or `base64url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// `sha256` (the default), `sha1`, `sha384` or `sha512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// A fixed key that comes with each request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySpec {
    /// The header that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Or the query parameter that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The live keys, as they are or as `sha256:` with their SHA-256 in hex.
    #[serde(default)]
    pub keys: Vec<SecretSpec>,
}

/// HTTP basic authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSpec {
    /// Who may send.
    pub users: Vec<BasicUser>,
}

/// A user of HTTP basic authentication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicUser {
    /// The user's name, also the label of what it sends.
    pub name: String,
    /// The password: a reference such as `env:NAME`, whose value may also be `sha256:` with the SHA-256 in hex.
    pub password: String,
}

/// A fixed token in `Authorization: Bearer`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BearerSpec {
    /// The live tokens, as they are or as `sha256:` with their SHA-256 in hex.
    pub tokens: Vec<SecretSpec>,
}

impl VerifySpec {
    /// What the short form of a route means: `provider: NAME` with `secret:`/`secrets:`.
    pub fn of_provider(provider: &str, secrets: Vec<SecretSpec>) -> Self {
        VerifySpec::Rule(Box::new(Rule {
            provider: Some(provider.to_owned()),
            secrets: (!secrets.is_empty()).then_some(secrets),
            ..Rule::default()
        }))
    }
}

impl<'de> Deserialize<'de> for VerifySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> serde::de::Visitor<'de> for Words {
            type Value = VerifySpec;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the word `none`, or a rule such as `{ provider: github, secret: env:NAME }`")
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<VerifySpec, E> {
                match word {
                    "none" => Ok(VerifySpec::None),
                    other => Err(E::custom(format!(
                        "the only word here is `none`; for a provider write `verify: {{ provider: {other}, secret: … }}`"
                    ))),
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<VerifySpec, A::Error> {
                Rule::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(|rule| VerifySpec::Rule(Box::new(rule)))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl Serialize for VerifySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            VerifySpec::None => serializer.serialize_str("none"),
            VerifySpec::Rule(rule) => rule.serialize(serializer),
        }
    }
}

impl JsonSchema for VerifySpec {
    fn schema_name() -> Cow<'static, str> {
        "VerifySpec".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rule = generator.subschema_for::<Rule>();
        json_schema!({
            "description": "How a route proves who sent a request: the word `none`, or a rule.",
            "anyOf": [{ "const": "none" }, rule]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<VerifySpec, String> {
        serde_saphyr::from_str(yaml).map_err(|e| e.to_string())
    }
    fn rule(yaml: &str) -> Rule {
        match read(yaml).unwrap() {
            VerifySpec::Rule(rule) => *rule,
            VerifySpec::None => panic!("no rule"),
        }
    }

    #[test]
    fn the_word_none_and_rules_are_read() {
        assert_eq!(read("none"), Ok(VerifySpec::None));
        assert!(read("github").unwrap_err().contains("verify: { provider: github"));
        let r = rule(
            "{ provider: x, secrets: [env:A, {secret: env:B, label: old}], webhook_id: W1, topics: [a, b], tolerance: 5m }",
        );
        let secrets = r.secrets.unwrap();
        assert_eq!((secrets[1].secret.as_str(), secrets[1].label.as_deref()), ("env:B", Some("old")));
        assert_eq!(r.params["webhook_id"], Param(Texts(vec!["W1".into()])));
        assert_eq!(r.params["topics"], Param(Texts(vec!["a".into(), "b".into()])));
        assert_eq!(r.tolerance.as_deref(), Some("5m"));
        assert_eq!(r.inline, SchemeSpec::default());
    }

    #[test]
    fn a_scheme_reads_the_same_inline_and_apart() {
        let scheme =
            "{ algorithm: hmac-sha256, signed: '{body}', signature: { from: header:X, encoding: hex } }";
        let inline = rule(&scheme.replace(" }}", " }, secret: env:A }"));
        let apart = rule(&format!("{{ scheme: {scheme} }}"));
        assert_eq!(Some(Box::new(inline.inline)), apart.scheme);
        assert!(inline.params.is_empty());
    }

    #[test]
    fn unknown_keys_of_parts_are_refused() {
        for bad in [
            "{ jwt: { algorithm: HS256 } }",
            "{ scheme: { algoritm: x } }",
            "{ signature: { from: header:X, encodin: hex } }",
            "{ basic: { user: [] } }",
            "{ secrets: [{ secret: a, labell: b }] }",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for yaml in [
            "none",
            "{ any: [{ bearer: { tokens: [env:T] } }, { jwt: { algorithms: HS256, required_claims: { a: b } } }] }",
            "{ provider: p, secret: env:A, topics: [a, b], signature: { from: [header:A, header:B], item: v1 } }",
        ] {
            let spec = read(yaml).unwrap();
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<VerifySpec>(&json).unwrap(), spec, "{json}");
        }
    }

    #[test]
    fn each_key_has_a_description_in_the_schema() {
        let schema = schemars::schema_for!(VerifySpec);
        let mut properties = 0;
        let mut todo = vec![schema.as_value()];
        while let Some(value) = todo.pop() {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(serde_json::Value::Object(known)) = map.get("properties") {
                        for (name, property) in known {
                            properties += 1;
                            assert!(property.get("description").is_some(), "`{name}` has no description");
                        }
                    }
                    todo.extend(map.values());
                }
                serde_json::Value::Array(items) => todo.extend(items),
                _ => {}
            }
        }
        assert!(properties > 50, "{properties}");
    }
}
