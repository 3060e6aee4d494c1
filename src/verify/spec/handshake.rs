//! What stands under `handshake:`, as written, in packs and in routes: which greetings of a sender are answered
//! directly, what they must prove, and what the answer is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{KeySpec, Texts};

/// A greeting that is answered directly: nothing is stored, and no app is asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HandshakeSpec {
    /// The methods that such a greeting has: GET, HEAD, OPTIONS or POST. Default: POST. The route then takes them, but
    /// takes no event with one that its `methods` do not name.
    pub methods: Option<Texts>,
    /// Whether the greeting is only answered once the route's rule has held. Default: true.
    pub signed: Option<bool>,
    /// What tells the greeting from an event: places and what they must be, such as
    /// `{ "body:/type": url_verification }`. A request that lacks one of them is no greeting. Places are
    /// `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`, `body:/json/pointer`, and `body` (all of it).
    pub when: BTreeMap<String, ConditionSpec>,
    /// What the greeting must prove beside that, such as `{ "query:hub.verify_token": { secret: env:NAME } }`. One
    /// that does not is refused.
    pub must: BTreeMap<String, ConditionSpec>,
    /// The status of that refusal: 403 or 404. Default: 403.
    pub refuse: Option<u16>,
    /// In a pack: parameters without which (or with the value `false`) there is no such greeting.
    pub needs: Option<Texts>,
    /// Where the value is that is sent back as `text/plain`: short for `answer: { body: "{PLACE}" }`.
    pub echo: Option<String>,
    /// What is answered. Default: status 200 and nothing more.
    pub answer: Option<ReplySpec>,
    /// Where the greeting brings the secret with which later requests are signed: it is shown to the operator in the
    /// log, once, to be stored. A pack's greeting does so only on routes with `handshake: show`.
    pub show: Option<String>,
    /// What the operator is warned of in the log when such a greeting is answered, as a template: `the hub refuses
    /// {query:hub.topic}`. At most one line a minute: who sends such greetings for fun fills no log.
    pub warn: Option<String>,
    /// A URL in the greeting that is fetched to confirm it, before the answer. Only for signed greetings.
    pub visit: Option<VisitSpec>,
}

/// What a place must be.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionSpec {
    /// One of these texts.
    Is(Texts),
    Test(Box<TestSpec>),
}

/// What a place must be, where it is not a plain text. One of `present`, `matches`, `param` and `secret`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TestSpec {
    /// `true`: it must be there and not be empty. `false`: it must not be there.
    pub present: Option<bool>,
    /// A bounded shape of all of it: characters and classes, each as often as `{n}`, `{m,n}` or `?` says, such as
    /// `[a-f0-9]{20,32}`.
    pub matches: Option<String>,
    /// In a pack: it is the value of this parameter (or one of its values), compared in constant time.
    pub param: Option<String>,
    /// It is this secret: `env:NAME` or `file:PATH`, compared in constant time.
    pub secret: Option<String>,
    /// With `param`: nothing is asked where the parameter is not given. Default: there is no such greeting then.
    pub optional: bool,
}

/// The answer to a greeting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplySpec {
    /// 200 to 299. Default: 200.
    pub status: Option<u16>,
    /// The body's type. Default: `text/plain`, with `json` `application/json`, and without a body none.
    pub content_type: Option<String>,
    /// Headers; their values are templates as `body` is.
    pub headers: BTreeMap<String, String>,
    /// The body, as a template: `{query:hub.challenge}` and other places, `{param:NAME}`, `{proof}`. `{{` and `}}`
    /// stand for braces. A value is sent back only if it is printable ASCII of at most 1 KiB.
    pub body: Option<String>,
    /// The body as JSON, whose texts are templates.
    pub json: Option<Map<String, Value>>,
    /// A value that only who has the secret can compute: `{proof}` in the templates.
    pub proof: Option<ProofSpec>,
}

/// A digest that proves to the sender who we are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProofSpec {
    /// `hmac-sha1`, `hmac-sha256`, `hmac-sha384` or `hmac-sha512`; or `sha1` or `sha256`, of a template with `{secret}`.
    pub algorithm: String,
    /// Over which bytes: a template as in a scheme's `signed`.
    pub signed: String,
    /// `hex`, `base64` or `base64url`.
    pub encoding: Option<String>,
    /// How the secret becomes the key.
    pub key: Option<KeySpec>,
    /// In a pack: the parameter that is the secret. Default: the first of the route's secrets.
    pub param: Option<String>,
    /// The secret: `env:NAME` or `file:PATH`. Default: the first of the route's secrets.
    pub secret: Option<String>,
}

/// A URL that is fetched (GET) to confirm a greeting.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VisitSpec {
    /// Where the URL is, such as `body:/SubscribeURL`.
    pub url: String,
    /// The hosts that may be asked, over https. A label may have a shape, as `matches` has it
    /// (`api.[a-z]{2}-[0-9].example.com`), or be `*`: any label, also one that a stranger could get there.
    pub hosts: Texts,
    /// Roots (PEM, or `file:PATH`; in a pack `{param:NAME}`) that are trusted there instead of the public ones.
    #[serde(default)]
    pub ca: Option<String>,
}

impl<'de> Deserialize<'de> for ConditionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = ConditionSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a text (put numbers in quotes), a list of texts, or a test such as `{ present: true }`",
                )
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<ConditionSpec, E> {
                Ok(ConditionSpec::Is(Texts(vec![text.to_owned()])))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<ConditionSpec, E> {
                Ok(ConditionSpec::Is(Texts(vec![value.to_string()])))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<ConditionSpec, A::Error> {
                Texts::deserialize(SeqAccessDeserializer::new(items)).map(ConditionSpec::Is)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ConditionSpec, A::Error> {
                let test = TestSpec::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ConditionSpec::Test(Box::new(test)))
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

impl JsonSchema for ConditionSpec {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let test = generator.subschema_for::<TestSpec>();
        json_schema!({
            "description": "What a place must be: a text, one of several texts, or a test.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }, test]
        })
    }
}
