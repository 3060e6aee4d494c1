//! A route as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sections::secs;
use super::{ForwardTo, Off, RateLimit, TextOrList};
use super::{Keep, Redact};
use crate::config::units::{Size, Time};
use crate::verify::VerifySpec;
use crate::verify::spec::{HandshakeSpec, SecretSpec};

/// Which requests, from whom, and what happens to them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-later" = ["breaker", "inspect", "transform"]))]
pub(in crate::config) struct Route {
    /// Its name in logs, metrics and the buffer; unique. Letters, digits, `.`, `_` and `-`. Keep it when the path
    /// changes: waiting events belong to it. Default: made from the path, `/hooks/github` is `hooks-github`.
    pub name: Option<String>,
    /// The host that senders use, without a port. Default: any.
    pub host: Option<String>,
    /// The path as sent: exact, with `{parameter}` for one segment, or ending in `/*` for everything below. Nothing is
    /// decoded or merged; `/hooks/` is not `/hooks`. The most specific route wins.
    pub path: String,
    /// The methods of events. Default: POST; on `pass` routes any. Greetings have those that their handshakes say.
    #[schemars(length(min = 1))]
    pub methods: Option<Vec<Verb>>,
    /// Address ranges (CIDR) or addresses that may send, such as `10.0.0.0/8`; the word `provider` stands for the ranges
    /// that the route's provider publishes, kept fresh. Default: any.
    #[schemars(length(min = 1))]
    pub allow: Option<Vec<String>>,
    /// How much is taken in, of all, of each source, and of each proved sender. Default: no limit.
    pub rate_limit: Option<RateLimit>,
    /// The provider that sends, a built-in name such as `github` or the path of a pack file: short for `verify` with
    /// `provider` and `secrets`. It brings the signature scheme, idempotency key, event type and handshake.
    pub provider: Option<String>,
    /// The provider's secret: a reference such as `env:NAME` or `file:PATH`.
    pub secret: Option<SecretSpec>,
    /// Several secrets for rotation, each a reference, or `{ secret: env:NAME, label: new, from: TIME, until: TIME }`.
    #[schemars(length(min = 1))]
    pub secrets: Option<Vec<SecretSpec>>,
    /// How senders prove who they are, or the word `none`. Needed without `provider`, except on `pass` routes, which
    /// never verify.
    pub verify: Option<Verify>,
    /// `endpoints`: only clients that were given a URL of their own with `tidegate endpoints create` may send. The path
    /// then holds `{endpoint}`, and `secret: client:secret` is the secret that was made with the URL.
    #[serde(default)]
    pub clients: Option<Clients>,
    /// `on`: what verification refuses is refused. `observe`: it is let through, and what verification said is logged,
    /// counted, and told to the app: for the time before one trusts a new rule. `check` warns about it. Default: on.
    pub enforce: Option<Enforce>,
    /// `off`: nothing that is refused here is kept in quarantine. Default: as the section `quarantine` says.
    pub quarantine: Option<Off>,
    /// The sender is expected to send at least this often; a longer silence is an alert. Default: nothing is expected.
    pub expect_every: Option<Time>,
    /// The URL that senders were given (or its beginning), without a query, for schemes that sign it:
    /// `https://hooks.example.com`.
    /// Default: scheme and host as received, or as a trusted hop says.
    pub public_url: Option<String>,
    /// How repeats are recognised, or `off`. Default: the provider's key, else the request's bytes; with `verify: none`
    /// off.
    pub idempotency: Option<IdempotencyOrOff>,
    /// Where the event's type stands, such as `header:X-GitHub-Event` or `body:/type`; several are joined. Default: the
    /// provider's.
    pub event_type: Option<TextOrList>,
    /// Take requests that carry many events apart: each element of the array becomes an event, all stored by one write.
    /// `true` where the provider says what its batches look like, else a mapping. `buffer` only. Default: `false`.
    pub split: Option<SplitOrNot>,
    /// Bytes of a body; beyond it 413. Default: `limits.body_bytes`; on `pass` routes no limit.
    pub max_body: Option<Size>,
    /// `buffer`: store, acknowledge, deliver later. `proxy`: forward and give the app's own answer. `spill`: like
    /// `proxy`, but what the app can't take in time is stored, acknowledged and delivered later. `pass`: stream through,
    /// nothing verified or stored. Default: buffer.
    #[serde(default)]
    pub mode: Mode,
    /// When an event of a `spill` route is stored instead of waited for.
    pub spill: Option<Spill>,
    /// What the sender of a buffered event is answered.
    pub answer: Option<Answer>,
    /// What becomes of an event that no destination wants (by their `when`): `keep` it in the buffer, to look at, or
    /// `drop` it. It is acknowledged and counted either way. Default: keep.
    pub unwanted: Option<UnwantedWord>,
    /// How long, and how much, of the route's settled events is kept. Default: as `buffer` says.
    pub keep: Option<Keep>,
    /// What of its events is hidden from operators, beside what the section `redact` says.
    pub redact: Option<Redact>,
    /// How greetings of the sender (URL checks) are answered: one handshake, a list, or a word. `off`: not at all.
    /// `forward`: the provider's are recognised and passed to the app, which answers. `show`: the provider's are
    /// answered, and a secret that the sender brings is shown in the log, to be stored. Default: the provider's, of
    /// which none is shown.
    pub handshake: Option<Handshake>,
    /// Where events go: a URL, a destination, or a list of destinations (each gets every event). `proxy`, `spill` and
    /// `pass` take one.
    pub forward_to: ForwardTo,
}

/// What stands under `verify:`, kept as JSON: its own type says what is right, and where it is wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct Verify(pub Value);

impl JsonSchema for Verify {
    fn schema_name() -> Cow<'static, str> {
        VerifySpec::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        VerifySpec::schema_id()
    }
    fn inline_schema() -> bool {
        VerifySpec::inline_schema()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        VerifySpec::json_schema(generator)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum Enforce {
    On,
    Observe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum UnwantedWord {
    Keep,
    Drop,
}

/// A method that a route may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub(in crate::config) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum Clients {
    Endpoints,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline, extend("x-later" = ["inspect"]))]
pub(in crate::config) enum Mode {
    #[default]
    Buffer,
    Proxy,
    Spill,
    Pass,
}

impl Mode {
    /// Whether events may come into the buffer, to be delivered later.
    pub(in crate::config) const fn is_buffered(self) -> bool {
        matches!(self, Mode::Buffer | Mode::Spill)
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum IdempotencyOrOff {
    Off(Off),
    On(Idempotency),
}

/// How repeats are recognised.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Idempotency {
    /// Where the key stands: `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`, `body:/json/pointer` or
    /// `body-hash`; several are joined. Take one that the signature covers, or join it with `body-hash`. Default: the
    /// provider's, else `body-hash`.
    pub key: Option<TextOrList>,
    /// How long repeats are recognised. Default: 72h.
    pub window: Option<Time>,
}

/// When an event of a `spill` route is stored instead of waited for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Spill {
    /// How long the app has for its whole answer (the first 16 KiB of it, if it is longer). Default: 3s.
    pub deadline: Time,
}

impl Default for Spill {
    fn default() -> Self {
        Self { deadline: secs(3) }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum SplitOrNot {
    Whether(bool),
    Own(Split),
}

/// What batches look like.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Split {
    /// Where the array is: `body`, `body:/json/pointer`, or JSON in a form field, `form:FIELD`. Default: the provider's.
    pub events: Option<String>,
    /// Where the idempotency key stands in an element, a JSON pointer such as `/id`; several are joined. An element
    /// without it is known by its hash. Default: the provider's.
    pub key: Option<TextOrList>,
    /// Where the event's type stands in an element, a JSON pointer. Default: the provider's, else the route's.
    pub event_type: Option<String>,
    /// Events of one request; beyond it 413. Default: 10000.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_events: Option<usize>,
}

/// What the sender of a buffered event is answered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Answer {
    /// A status of success. Default: 202, or the first that the provider takes if 202 is none for it.
    #[schemars(range(min = 200, max = 299))]
    pub status: Option<u16>,
    /// The body's type. Default: none, and `text/plain` with a body.
    pub content_type: Option<String>,
    /// The body. Default: what the provider asks for, else empty.
    pub body: Option<String>,
}

/// How greetings are answered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum Handshake {
    Word(HandshakeWord),
    One(Box<HandshakeSpec>),
    Many(#[schemars(length(min = 1))] Vec<HandshakeSpec>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum HandshakeWord {
    Off,
    Forward,
    Show,
}
