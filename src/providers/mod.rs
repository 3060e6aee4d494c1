//! What we know of each provider, as data: one YAML pack each, and the loader. No provider's name stands in Rust code.
//!
//! A pack says how a provider signs (in the language of `verify::spec`), which id names an event, how it greets, and
//! what a test event looks like. It carries no secret. Users' own packs are files of the same form; `config` reads them.

mod describe;
mod file;
mod greet;
pub mod ranges;
mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

pub use describe::page;
pub(crate) use file::{PackFile, checked};
pub use ranges::Ranges;
pub use sample::{Sample, TestEvent};

use crate::verify::spec::{HandshakeSpec, Rule};
use crate::verify::{Extract, nearest};

/// A provider's pack, parsed: its signature scheme and what a route gets from it unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Pack {
    pub name: String,
    pub title: String,
    pub category: Category,
    /// The day on which the pack was held against it, such as `2026-11-24`.
    pub checked: String,
    /// The ways in which the provider signs, of which one must hold. No keys: those are the user's.
    pub verify: Vec<Rule>,
    /// What a user must or may give beside the keys.
    pub params: BTreeMap<String, PackParam>,
    pub idempotency: Repeats,
    pub event_type: Option<Extract>,
    /// The greetings that are answered directly, as written: what they need of the route is only known there.
    pub handshakes: Vec<HandshakeSpec>,
    /// The media types that it sends; empty if not known.
    pub content_types: Vec<String>,
    /// Where one request carries many events.
    pub batch: Option<Batch>,
    /// The sender's answer deadline: `check` warns when a `proxy` route waits longer.
    pub deadline: Fact<std::time::Duration>,
    /// The answers that the sender takes for success.
    pub success: Success,
    /// What the sender must be answered about an event, where a status is not enough.
    pub answer: Option<PackAnswer>,
    pub refusals: Refusals,
    /// How the sender tries again, in plain text.
    pub retries: Fact<String>,
    /// Where it sends from, if it says so.
    pub ranges: Option<Arc<Ranges>>,
    guide: GuideAt,
}

/// What people are told of a provider: no route needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Guide {
    /// Where the provider says how it signs.
    pub docs: String,
    /// Where the user finds what the route needs (secret, key, parameters), in a sentence or two.
    pub setup: String,
    /// Test events, the first is the usual one.
    pub samples: Vec<Sample>,
    /// What a user should know, in plain text.
    pub notes: Option<String>,
}

/// Where a pack's guide is.
#[derive(Clone, Debug)]
enum GuideAt {
    /// JSON in this program: it is most of a pack's text, and only read when somebody asks for it.
    Embedded(&'static str),
    Read(Guide),
}

impl Pack {
    /// What people are told of the provider.
    pub fn guide(&self) -> Guide {
        match &self.guide {
            // Made by the build script from a pack that the tests have read: it is never anything else.
            GuideAt::Embedded(json) => serde_json::from_str(json).map(Guide::trimmed).unwrap_or_default(),
            GuideAt::Read(guide) => guide.clone(),
        }
    }
}

impl Guide {
    fn trimmed(self) -> Self {
        Self { setup: self.setup.trim().to_owned(), ..self }
    }
}

/// Something about a sender that its documentation may not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    Known(T),
    /// Looked for, and no documentation of it was found.
    Undocumented,
    /// The pack does not speak of it.
    Unsaid,
}

impl<T> Fact<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(fact) => Some(fact),
            Self::Undocumented | Self::Unsaid => None,
        }
    }
}

/// How a sender is told that it was not verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Refusals {
    /// With a body that says the reason.
    #[default]
    Explained,
    /// By status and headers alone.
    Empty,
}

/// What kind of service a provider is, for whoever looks for one in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// Not one service: a standard or a way to prove a sender.
    Standard,
    Payments,
    Commerce,
    Developer,
    Monitoring,
    Communication,
    Marketing,
    Productivity,
    Identity,
    Content,
    Data,
    Crypto,
    People,
    Other,
}

/// By what a provider's repeats are known.
#[derive(Clone, Debug, PartialEq)]
pub enum Repeats {
    /// An id of the event's. Ids that the signature does not cover are already joined with the body's hash here.
    ByKey(Extract),
    /// The event itself, where what is around it in the body differs from attempt to attempt. No signature covers it, and
    /// it is not joined with the body's hash: nobody can use up this key but by sending that very event.
    ByEvent(Extract),
    /// The body, which differs from event to event.
    ByBody,
    /// Nothing: two events may be the same byte for byte, so none may be dropped.
    Unknowable,
}

impl Repeats {
    pub const fn key(&self) -> Option<&Extract> {
        match self {
            Repeats::ByKey(key) | Repeats::ByEvent(key) => Some(key),
            Repeats::ByBody | Repeats::Unknowable => None,
        }
    }

    /// Whether nobody without the sender's key can give an event another one.
    pub fn is_signed(&self) -> bool {
        match self {
            Repeats::ByKey(key) => !key.to_string().ends_with("+ body-hash"),
            Repeats::ByBody => true,
            Repeats::ByEvent(_) | Repeats::Unknowable => false,
        }
    }
}

/// A request that carries many events: a JSON array, and what each of its elements is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where the array is, such as `body:/events`; `None` if it is the body.
    pub place: Option<String>,
    /// JSON pointers within an element, joined; if none, it is known by its hash.
    pub key: Vec<String>,
    pub event_type: Option<String>,
}

/// A body that a sender wants to see in the answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackAnswer {
    pub body: String,
    #[serde(default)]
    pub content_type: Option<String>,
}

/// The answers that a sender takes for success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Success {
    Any2xx,
    Of(Vec<u16>),
}

impl Success {
    /// Whether the sender takes this status for success.
    pub fn takes(&self, status: u16) -> bool {
        match self {
            Success::Any2xx => (200..300).contains(&status),
            Success::Of(statuses) => statuses.contains(&status),
        }
    }

    /// What the sender of an event that is stored, but not done, is told: 202 if it takes that, else the first 2xx that
    /// it takes.
    pub fn of_stored(&self) -> u16 {
        match self {
            Success::Of(statuses) if !statuses.contains(&202) => {
                statuses.iter().copied().find(|status| (200..300).contains(status)).unwrap_or(202)
            }
            _ => 202,
        }
    }
}

/// A parameter that a pack asks its user for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackParam {
    pub kind: ParamKind,
    pub required: bool,
    /// What it is if the user gives none.
    pub default: Option<Vec<String>>,
    /// What it is and where to find it, in one sentence.
    pub about: String,
}

/// What a parameter's value is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// `{param:NAME}` in templates and lists, and `param: NAME` in handshakes.
    Text,
    /// A secret beside `secrets`.
    Secret,
    /// A secret that is never a key of a signature: it stands in templates (a client secret with which keys are asked
    /// for), or a greeting must bring it (a verify token).
    Credential,
    /// Root certificates in PEM (a reference such as `file:PATH`).
    Roots,
}

// `BUILT_IN`: name, pack and guide (both as JSON) of every `*.yaml` beside this file, sorted by name. The build script reads the folder.
include!(concat!(env!("OUT_DIR"), "/packs.rs"));

/// Names of the built-in packs, sorted.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, ..)| *name).collect()
}

/// A built-in pack. The error lists near names.
pub fn find(name: &str) -> Result<Arc<Pack>, String> {
    match BUILT_IN.binary_search_by_key(&name, |(known, ..)| known) {
        Ok(at) => file::built_in(BUILT_IN[at].1, BUILT_IN[at].2)
            .map(Arc::new)
            .map_err(|error| format!("the built-in pack `{name}` is broken: {error}")),
        Err(_) => Err(match nearest(name, BUILT_IN.iter().map(|(known, ..)| *known)) {
            Some(near) => format!("unknown provider `{name}`, did you mean `{near}`?"),
            None => format!(
                "unknown provider `{name}`: `tidegate providers list` shows the {} that are known; or give the path of a pack file",
                BUILT_IN.len()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_pack;
    use crate::verify::testing::{key_of, request};

    #[test]
    fn every_pack_is_whole_and_named_as_its_file() {
        for name in names() {
            let pack = find(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(pack.name, name);
            let guide = pack.guide();
            assert!(!guide.samples.is_empty(), "{name} has no sample");
            // Built-in packs are embedded as JSON and not checked when they are read: they are here, as written.
            let written = load_pack(format!("src/providers/{name}.yaml").as_ref());
            let written = written.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(guide, written.guide());
            let whole = |pack: &Pack| format!("{:?}", Pack { guide: GuideAt::Embedded(""), ..pack.clone() });
            assert_eq!(whole(&pack), whole(&written));
        }
    }

    #[test]
    fn every_pack_says_its_senders_deadline_and_retries() {
        let silent: Vec<&str> = names()
            .into_iter()
            .filter(|name| {
                let pack = find(name).unwrap();
                pack.deadline == Fact::Unsaid || pack.retries == Fact::Unsaid
            })
            .collect();
        assert!(
            silent.is_empty(),
            "write `undocumented` where the sender does not say: {}",
            silent.join(", ")
        );
    }

    /// Two events of which the bodies are the same may differ in their type alone.
    #[test]
    fn where_only_a_header_says_what_happened_the_body_alone_is_no_events_name() {
        let said_in_a_header = |pack: &Pack| {
            let places = pack.event_type.as_ref()?.to_string();
            places.split(" | ").all(|place| place.starts_with("header:")).then_some(places)
        };
        let named_by = |pack: &Pack, places: &str| match &pack.idempotency {
            Repeats::Unknowable => true,
            Repeats::ByBody => false,
            Repeats::ByKey(key) | Repeats::ByEvent(key) => {
                let key = key.to_string();
                // That very place, or an id.
                key.contains(places) || key.split(" + ").any(|part| part != "body-hash")
            }
        };
        let packs = names().into_iter().map(|name| find(name).unwrap());
        let (named, lost): (Vec<_>, Vec<_>) = packs
            .filter_map(|pack| {
                said_in_a_header(&pack).map(|places| (pack.name.clone(), named_by(&pack, &places)))
            })
            .partition(|(_, is_named)| *is_named);
        assert!(lost.is_empty(), "add the header to the key, joined with the body's hash: {lost:?}");
        assert!(named.len() > 15, "{named:?}");
    }

    #[test]
    fn a_near_name_is_suggested() {
        assert_eq!(find("strype").unwrap_err(), "unknown provider `strype`, did you mean `stripe`?");
        assert!(find("nobody-knows").unwrap_err().contains("`tidegate providers list`"));
    }

    #[test]
    fn keys_and_types_are_those_of_the_provider() {
        let facts = |name: &str, headers: &[(&str, &str)], body: &[u8]| {
            let pack = find(name).unwrap();
            let r = request("/", headers, body);
            let key = key_of(pack.idempotency.key().unwrap().clone(), &r);
            (key, pack.event_type.as_ref().unwrap().from(&r).unwrap_or_default())
        };
        let (key, kind) = facts("stripe", &[], br#"{"id":"evt_1","type":"invoice.paid"}"#);
        assert_eq!((key.as_str(), kind.as_str()), ("evt_1", "invoice.paid"));
        let (key, kind) =
            facts("gitlab", &[("X-Gitlab-Event-UUID", "u"), ("X-Gitlab-Event", "Push Hook")], b"{}");
        assert!(key.starts_with("u|blake3:") && kind == "Push Hook", "{key}");
        let (key, _) = facts("gitlab", &[("X-Gitlab-Event-UUID", "u"), ("Idempotency-Key", "k")], b"{}");
        assert!(key.starts_with("k|blake3:"), "{key}");
        let (key, kind) = facts("slack", &[], b"command=%2Fweather&trigger_id=1.2");
        assert_eq!((key.as_str(), kind.as_str()), ("1.2", "/weather"));
        let (key, kind) =
            facts("slack", &[], br#"{"type":"event_callback","event_id":"Ev1","event":{"type":"message"}}"#);
        assert_eq!((key.as_str(), kind.as_str()), ("Ev1", "message"));
        let plaid = find("plaid").unwrap();
        let kind = plaid.event_type.as_ref().unwrap();
        let of = |kind: &str| format!(r#"{{"webhook_type":"{kind}","webhook_code":"DEFAULT_UPDATE"}}"#);
        for (body, expected) in
            [("TRANSACTIONS", "TRANSACTIONS|DEFAULT_UPDATE"), ("HOLDINGS", "HOLDINGS|DEFAULT_UPDATE")]
        {
            assert_eq!(kind.from(&request("/", &[], of(body).as_bytes())).as_deref(), Some(expected));
        }
        let (key, _) = facts("github", &[], b"{}");
        assert!(key.starts_with("blake3:"), "{key}");
    }
}
