//! Alerts as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Off;
use super::sections::secs;
use crate::config::units::Time;

/// `off`, or what a rule takes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(in crate::config) enum OrOff<T> {
    Off(Off),
    On(T),
}

/// What is watched, and who is told. The rules hold whether anybody is told or not: what they say is in the log, in the
/// metrics and in `tidegate alerts list`. What is known of the past (windows, silence) begins anew with the process.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Alerts {
    /// What notices call this gateway. Default: the host's name.
    pub name: Option<String>,
    /// Who is told. Default: nobody.
    pub to: Vec<AlertTarget>,
    /// How often the rules are looked at. Default: 15s.
    pub every: Time,
    /// How long the first of several alerts waits for the others, so that one notice tells of all. Default: 30s.
    pub group: Time,
    /// The least time between two notices; what happens meanwhile stands in the next. Default: 5m.
    pub pause: Time,
    /// What still holds after this time is told again, or `off`. Default: 4h.
    pub repeat: OrOff<Time>,
    /// How long the oldest waiting delivery of a destination may wait, or `off`. Default: 15m.
    pub backlog_age: OrOff<Time>,
    /// By how much a destination's backlog may grow, or `off`.
    pub backlog_growth: OrOff<Growth>,
    /// How many new dead letters of a destination are worth an alert, or `off`.
    pub dead_letters: OrOff<Growth>,
    /// How long a key of an ordered destination may stand still, or `off`. Default: 15m.
    pub lane_stuck: OrOff<Time>,
    /// How long a destination's breaker may be open, or `off`. Default: 5m.
    pub breaker_open: OrOff<Time>,
    /// How many requests of a route may fail verification (401, or let through by `enforce: observe`), or `off`.
    pub verification_failures: OrOff<Surge>,
    /// How many requests of a route may be duplicates, or `off`.
    pub duplicates: OrOff<Surge>,
    /// How full the buffer may be, in percent of `buffer.max_size`, or of the way to `buffer.min_free` on its volume; or
    /// `off`. A buffer that takes no events is told with it. Default: 80.
    pub disk: OrOff<Percent>,
    /// How long before its end a certificate (of a listener, or one shown to an app) is told of, or `off`. Default: 14d.
    pub certificate_expiry: OrOff<Time>,
    /// How long before its `until` a secret is told of, or `off`; `check` and, once a day, the log warn with it. Default:
    /// 14d.
    pub secret_expiry: OrOff<Time>,
    /// How old keys that are fetched may become, or `off`. Default: 6h.
    pub stale_keys: OrOff<Time>,
    /// How old a provider's published ranges may become (those of `allow: [provider]`), or `off`. If those that
    /// are published are not believed, it is told at once. Default: 3d.
    pub stale_ranges: OrOff<Time>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            name: None,
            to: Vec::new(),
            every: secs(15),
            group: secs(30),
            pause: secs(300),
            repeat: OrOff::On(secs(4 * 3600)),
            backlog_age: OrOff::On(secs(900)),
            backlog_growth: OrOff::On(Growth::default()),
            dead_letters: OrOff::On(Growth::default()),
            lane_stuck: OrOff::On(secs(15 * 60)),
            breaker_open: OrOff::On(secs(300)),
            verification_failures: OrOff::On(Surge::default()),
            duplicates: OrOff::On(Surge::default()),
            disk: OrOff::On(Percent(80)),
            certificate_expiry: OrOff::On(secs(14 * 24 * 3600)),
            secret_expiry: OrOff::On(secs(14 * 24 * 3600)),
            stale_keys: OrOff::On(secs(6 * 3600)),
            stale_ranges: OrOff::On(secs(3 * 24 * 3600)),
        }
    }
}

/// So many more within a time.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Growth {
    /// How many more. Default: 10000 for the backlog, 1 for dead letters.
    #[schemars(range(min = 1))]
    pub more: Option<u64>,
    /// Within this time, at most 7d. Default: 10m for the backlog, 1h for dead letters.
    pub within: Option<Time>,
}

/// So many within a time, and so large a part of all requests of the route.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Surge {
    /// How many. Default: 20 failures, 100 duplicates.
    #[schemars(range(min = 1))]
    pub at_least: Option<u64>,
    /// Which part of all requests of the route. Default: 10 for failures, 50 for duplicates.
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u8>,
    /// Within this time, at most 7d. Default: 5m for failures, 10m for duplicates.
    pub within: Option<Time>,
}

/// A whole number from 1 to 100.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct Percent(pub u8);

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 100 })
    }
}

/// Who is told, and how: one of `webhook`, `slack`, `email` and `command`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AlertTarget {
    /// Its name in logs and in `tidegate alerts`. Default: `webhook`, `slack`, `email` or `command`.
    pub name: Option<String>,
    /// A JSON notice by POST, signed by Standard Webhooks.
    pub webhook: Option<AlertWebhook>,
    /// A webhook that takes Slack's messages: a reference to its URL, which is a secret.
    pub slack: Option<String>,
    /// A mail.
    pub email: Option<AlertEmail>,
    /// A program and its arguments, started without a shell; it gets the JSON notice on standard input and has 20
    /// seconds.
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
}

/// A JSON notice by POST.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AlertWebhook {
    /// Where to: `https://` or `http://`.
    pub url: String,
    /// A reference to the secret that signs (`whsec_…`, or any text). Default: not signed.
    pub secret: Option<String>,
    /// Trust these roots (PEM file) instead of the public ones.
    pub ca: Option<String>,
}

/// A mail by SMTP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AlertEmail {
    /// The mail server.
    pub host: String,
    /// Its port. Default: 587; 465 with `security: tls`, 25 with `security: none`.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// `starttls`, `tls` from the first byte, or `none`. Default: starttls, which is never gone without.
    #[serde(default)]
    pub security: MailSecurity,
    /// Who we are to the mail server. Default: nobody in particular.
    pub username: Option<String>,
    /// A reference to the password: `env:NAME` or `file:PATH`.
    pub password: Option<String>,
    /// The sender, such as `Tidegate <tidegate@example.com>`.
    pub from: String,
    /// Who gets it.
    #[schemars(length(min = 1))]
    pub to: Vec<String>,
    /// Trust these roots (PEM file) as well as the public ones.
    pub ca: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(in crate::config) enum MailSecurity {
    #[default]
    Starttls,
    Tls,
    None,
}
