//! A pack as written, and what it means. Its form is data too: the schema of [`PackFile`] says which keys there are, and
//! `config` holds a user's file against it before it comes here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::ranges::{self, Format, Place, RangeList, Ranges};
use super::{
    Batch, Category, Fact, Guide, GuideAt, Pack, PackAnswer, PackParam, ParamKind, Refusals, Repeats, Sample,
    Success,
};
use crate::verify::spec::{HandshakeSpec, Rule, Texts};
use crate::verify::{Extract, PLACE_HELP, SpecProblem, Split, check_pack, parse_duration};

/// A pack as written.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackFile {
    /// As users write it in `provider:`; lower case, digits and `-`.
    name: String,
    title: String,
    category: Category,
    docs: String,
    checked: String,
    /// Where the user finds what the route needs (secret, key, parameters).
    setup: String,
    verify: OneOrMany<Rule>,
    #[serde(default)]
    content_types: Vec<String>,
    #[serde(default)]
    params: BTreeMap<String, ParamFile>,
    #[serde(default)]
    idempotency: Option<IdempotencyOrOff>,
    /// Where the event's type stands; several are joined.
    #[serde(default)]
    event_type: Option<Texts>,
    #[serde(default)]
    handshake: Option<OneOrMany<HandshakeSpec>>,
    #[serde(default)]
    batch: Option<BatchFile>,
    /// How long the sender waits for an answer, such as `10s`; `undocumented` if nothing was found on it.
    #[serde(default)]
    deadline: Option<String>,
    #[serde(default)]
    success: Option<OneOrMany<Word>>,
    #[serde(default)]
    answer: Option<PackAnswer>,
    /// `empty`: the sender takes no refusal that has a body.
    #[serde(default)]
    refusals: Refusals,
    /// How the sender tries again, in a short sentence; `undocumented` if nothing was found on it.
    #[serde(default)]
    retries: Option<String>,
    #[serde(default)]
    ranges: Option<RangesFile>,
    #[serde(default)]
    samples: Vec<Sample>,
    #[serde(default)]
    notes: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(Box<T>),
}

/// A text, or a number as one writes it.
struct Word(String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Word;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a number")
            }
            fn visit_str<E>(self, word: &str) -> Result<Word, E> {
                Ok(Word(word.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for Word {
    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::Many(many) => many,
            OneOrMany::One(one) => vec![*one],
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ParamFile {
    about: String,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    default: Option<Texts>,
    /// `text` (the default), `secret`, `credential` or `roots`.
    #[serde(default, rename = "as")]
    kind: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IdempotencyFile {
    /// One source, or several that are joined.
    key: Texts,
    /// Whether the signature covers all of it. If not, it is joined with the body's hash: whoever holds one genuine
    /// request could otherwise use up the id of another. `event`: it does not, but the key is all of the event, where what
    /// is around it in the body differs from attempt to attempt.
    covered: Coverage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coverage {
    Signed,
    Unsigned,
    Event,
}

// As below: a word or a boolean, with errors that say so.
impl<'de> Deserialize<'de> for Coverage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl serde::de::Visitor<'_> for Words {
            type Value = Coverage;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`true`, `false` or `event`")
            }
            fn visit_bool<E: serde::de::Error>(self, signed: bool) -> Result<Coverage, E> {
                Ok(if signed { Coverage::Signed } else { Coverage::Unsigned })
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Coverage, E> {
                match word {
                    "event" => Ok(Coverage::Event),
                    other => {
                        Err(E::custom(format!("`covered`: `{other}` is none of `true`, `false` and `event`")))
                    }
                }
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for Coverage {
    fn schema_name() -> Cow<'static, str> {
        "Coverage".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [true, false, "event"] })
    }
}

/// `off` where the sender's requests carry nothing by which a repeat differs from the next event.
enum IdempotencyOrOff {
    Off,
    On(IdempotencyFile),
}

// Not an untagged enum, whose errors would say nothing of the key that is wrong.
impl<'de> Deserialize<'de> for IdempotencyOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> serde::de::Visitor<'de> for Words {
            type Value = IdempotencyOrOff;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`off`, or `{ key: …, covered: … }`")
            }
            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<IdempotencyOrOff, E> {
                if on { Err(E::custom("say which key")) } else { Ok(IdempotencyOrOff::Off) }
            }
            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<IdempotencyOrOff, E> {
                match word {
                    "off" => Ok(IdempotencyOrOff::Off),
                    other => Err(E::custom(format!("`idempotency`: `{other}` is not `off`"))),
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<IdempotencyOrOff, A::Error> {
                IdempotencyFile::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(IdempotencyOrOff::On)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for IdempotencyOrOff {
    fn schema_name() -> Cow<'static, str> {
        "IdempotencyOrOff".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let key = generator.subschema_for::<IdempotencyFile>();
        json_schema!({ "anyOf": [{ "const": "off" }, key] })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchFile {
    /// Where the array is: `body`, `body:/json/pointer`, or `form:FIELD`.
    events: String,
    /// Pointers within an element. Without them, and where one is not there, an element is known by its hash.
    #[serde(default)]
    key: Option<Texts>,
    #[serde(default)]
    event_type: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RangesFile {
    /// The https address of the list that the provider publishes for machines, if it does.
    #[serde(default)]
    list: Option<String>,
    /// `json` (the default) or `lines`.
    #[serde(default)]
    format: Option<String>,
    /// JSON pointers to the ranges, with `*` for every element.
    #[serde(default)]
    at: Texts,
    /// Only ranges in objects that have these texts.
    #[serde(default)]
    only: BTreeMap<String, String>,
    snapshot: Vec<String>,
    snapshot_date: String,
}

/// What is wrong at a key of a pack, and what would be right.
fn wrong(at: &[&str], message: impl Into<String>, help: &str) -> SpecProblem {
    SpecProblem {
        at: at.iter().map(|step| (*step).to_owned()).collect(),
        message: message.into(),
        help: Some(help.to_owned()),
    }
}

/// What a user's pack means, if it can work; else everything that is wrong with it.
pub(crate) fn checked(file: PackFile) -> Result<Pack, Vec<SpecProblem>> {
    let mut faults = Vec::new();
    for (key, text, help) in [
        ("title", &file.title, "what people call the sender"),
        ("setup", &file.setup, "say where the user finds what the route needs"),
    ] {
        if text.trim().is_empty() {
            faults.push(wrong(&[key], format!("`{key}` is empty"), help));
        }
    }
    let (pack, more) = pack(file);
    faults.extend(more);
    // What refers to a parameter that is not whole would be said to be wrong, too.
    let is_of_params = |fault: &SpecProblem| fault.at.first().is_some_and(|key| key == "params");
    if !faults.iter().any(is_of_params)
        && let Err(more) = check_pack(&pack)
    {
        faults.extend(more);
    }
    if faults.is_empty() { Ok(pack) } else { Err(faults) }
}

/// Reads a pack of our own in the form that the build script gave it. The tests have checked it.
pub(super) fn built_in(json: &str, guide: &'static str) -> Result<Pack, String> {
    let file = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let (pack, faults) = pack(file);
    if !faults.is_empty() {
        let lines = faults.iter().map(|fault| format!("`{}`: {}", fault.at.join("."), fault.message));
        return Err(lines.collect::<Vec<_>>().join("; "));
    }
    Ok(Pack { guide: GuideAt::Embedded(guide), ..pack })
}

/// Collects what is wrong, and goes on.
struct Faults(Vec<SpecProblem>);

impl Faults {
    fn take<T>(&mut self, result: Result<T, SpecProblem>) -> Option<T> {
        result.map_err(|fault| self.0.push(fault)).ok()
    }
}

/// What a pack means, but for what is wrong with it.
fn pack(file: PackFile) -> (Pack, Vec<SpecProblem>) {
    let mut faults = Faults(Vec::new());
    let named = !file.name.is_empty()
        && file.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named {
        let message = format!("`{}` is no name of a pack", file.name);
        faults.0.push(wrong(&["name"], message, "write it in lower-case letters, digits and `-`"));
    }
    faults.take(date(&["checked"], &file.checked));
    let batch = file.batch.and_then(|file| faults.take(batch(file)));
    let success = faults.take(success(file.success));
    let ranges = file.ranges.and_then(|file| faults.take(ranges(file)));
    let idempotency = faults.take(idempotency(file.idempotency));
    let event_type = file.event_type.and_then(|texts| faults.take(joined(&["event_type"], &texts)));
    let deadline = match fact(file.deadline) {
        Fact::Known(text) => faults.take(deadline(&text)).map_or(Fact::Unsaid, Fact::Known),
        Fact::Undocumented => Fact::Undocumented,
        Fact::Unsaid => Fact::Unsaid,
    };
    let mut params = BTreeMap::new();
    for (name, file) in file.params {
        params.extend(faults.take(param(&name, file)).map(|param| (name, param)));
    }
    let verify = file.verify.into_vec();
    if verify.is_empty() {
        faults.0.push(wrong(&["verify"], "`verify` is empty", "say how the sender signs"));
    }
    let pack = Pack {
        category: file.category,
        content_types: file.content_types,
        batch,
        success: success.unwrap_or(Success::Any2xx),
        answer: file.answer,
        refusals: file.refusals,
        retries: fact(file.retries),
        ranges: ranges.map(Arc::new),
        idempotency: idempotency.unwrap_or(Repeats::ByBody),
        handshakes: file.handshake.map(OneOrMany::into_vec).unwrap_or_default(),
        event_type,
        deadline,
        params,
        verify,
        name: file.name,
        title: file.title,
        checked: file.checked,
        guide: GuideAt::Read(
            Guide { docs: file.docs, setup: file.setup, samples: file.samples, notes: file.notes }.trimmed(),
        ),
    };
    (pack, faults.0)
}

fn source(at: &[&str], text: &str) -> Result<Extract, SpecProblem> {
    Extract::parse(text).map_err(|error| wrong(at, error, PLACE_HELP))
}

fn joined(at: &[&str], texts: &Texts) -> Result<Extract, SpecProblem> {
    let parts = texts.0.iter().map(|text| source(at, text)).collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Err(wrong(at, "it is empty", PLACE_HELP));
    }
    Ok(Extract::joined(parts))
}

fn date(at: &[&str], text: &str) -> Result<jiff::civil::Date, SpecProblem> {
    text.parse().map_err(|_| wrong(at, format!("`{text}` is not a date"), "write one such as `2026-11-24`"))
}

fn idempotency(written: Option<IdempotencyOrOff>) -> Result<Repeats, SpecProblem> {
    let IdempotencyFile { key, covered } = match written {
        None => return Ok(Repeats::ByBody),
        Some(IdempotencyOrOff::Off) => return Ok(Repeats::Unknowable),
        Some(IdempotencyOrOff::On(file)) => file,
    };
    let at = &["idempotency", "key"];
    let mut parts =
        key.0.iter().map(|text| source(at, text)).collect::<Result<Vec<Extract>, SpecProblem>>()?;
    if parts.is_empty() {
        return Err(wrong(at, "`key` is empty", "name where the id is, or write `idempotency: off`"));
    }
    match covered {
        Coverage::Signed => {}
        Coverage::Unsigned => parts.push(Extract::body_hash()),
        Coverage::Event => return Ok(Repeats::ByEvent(Extract::joined(parts))),
    }
    Ok(Repeats::ByKey(Extract::joined(parts)))
}

/// The statuses that the sender takes for success: `2xx`, or a list of numbers.
fn success(written: Option<OneOrMany<Word>>) -> Result<Success, SpecProblem> {
    let words = match written.map(OneOrMany::into_vec) {
        None => return Ok(Success::Any2xx),
        Some(words) if matches!(words.as_slice(), [Word(only)] if only == "2xx") => {
            return Ok(Success::Any2xx);
        }
        Some(words) => words,
    };
    let statuses = words.iter().enumerate().map(|(index, Word(word))| match word.parse() {
        Ok(status @ 100..=599) => Ok(status),
        _ => {
            let at = &["success", &index.to_string()];
            Err(wrong(
                at,
                format!("`{word}` is neither `2xx` nor a status such as 200"),
                "write `2xx`, or the statuses",
            ))
        }
    });
    match statuses.collect::<Result<Vec<u16>, _>>()? {
        none if none.is_empty() => {
            Err(wrong(&["success"], "`success` is empty", "write `2xx`, or the statuses"))
        }
        statuses => Ok(Success::Of(statuses)),
    }
}

fn batch(file: BatchFile) -> Result<Batch, SpecProblem> {
    let place = (file.events != "body").then_some(file.events);
    let batch =
        Batch { place, key: file.key.map(|key| key.0).unwrap_or_default(), event_type: file.event_type };
    Split::compile(&batch, Split::MAX)
        .map_err(|error| wrong(&["batch"], error, "such as `{ events: body:/events, key: /id }`"))?;
    Ok(batch)
}

fn ranges(file: RangesFile) -> Result<Ranges, SpecProblem> {
    let wrong = |key: &str, error: String, help: &str| wrong(&["ranges", key], error, help);
    let list = match (&file.list, file.format.as_deref()) {
        (None, None) if file.at.0.is_empty() && file.only.is_empty() => None,
        (None, _) => {
            let error = "`format`, `at` and `only` are about a `list`, and none is given";
            return Err(wrong("list", error.into(), "add the address of the `list`, or remove them"));
        }
        (Some(list), format) => {
            let url = list.parse::<http::Uri>().ok().filter(crate::fetch::may_be_fetched);
            let url = url.ok_or_else(|| {
                wrong(
                    "list",
                    format!("`{list}` is no https address"),
                    "such as `https://api.example.com/meta`",
                )
            })?;
            let format = match format {
                Some("lines") if file.at.0.is_empty() && file.only.is_empty() => Format::Lines,
                Some("lines") => {
                    return Err(wrong(
                        "format",
                        "`at` and `only` are for JSON".into(),
                        "remove them, or write `format: json`",
                    ));
                }
                None | Some("json") if file.at.0.is_empty() => {
                    let error = "`at` is missing: where in the JSON the ranges are";
                    return Err(wrong("at", error.into(), "such as `/hooks/*`"));
                }
                None | Some("json") => {
                    let at = file.at.0.iter().map(|text| {
                        Place::parse(text).map_err(|e| wrong("at", e, "a JSON pointer, such as `/hooks/*`"))
                    });
                    Format::Json { at: at.collect::<Result<_, _>>()?, only: file.only.into_iter().collect() }
                }
                Some(other) => {
                    return Err(wrong(
                        "format",
                        format!("`{other}` is neither `json` nor `lines`"),
                        "`lines` is one range a line",
                    ));
                }
            };
            Some(RangeList { url, format })
        }
    };
    let mut snapshot = Vec::with_capacity(file.snapshot.len());
    for (index, text) in file.snapshot.iter().enumerate() {
        snapshot.push(ranges::range(text).map_err(|_| {
            let at = &["ranges", "snapshot", &index.to_string()];
            self::wrong(at, format!("`{text}` is no address range of a provider"), "such as `192.0.2.0/24`")
        })?);
    }
    if snapshot.is_empty() {
        let error = "`snapshot` is empty: a first start without network would let nobody in";
        return Err(wrong("snapshot", error.into(), "copy the ranges that the provider publishes today"));
    }
    snapshot.sort_unstable();
    snapshot.dedup();
    let snapshot_date = date(&["ranges", "snapshot_date"], &file.snapshot_date)?;
    Ok(Ranges { list, snapshot, snapshot_date })
}

/// `undocumented` is what one writes who looked and found nothing.
fn fact(text: Option<String>) -> Fact<String> {
    match text {
        None => Fact::Unsaid,
        Some(text) if text == "undocumented" => Fact::Undocumented,
        Some(text) => Fact::Known(text),
    }
}

fn deadline(text: &str) -> Result<Duration, SpecProblem> {
    parse_duration(text).map_err(|error| {
        wrong(&["deadline"], error, "such as `10s`; `undocumented` if the sender does not say")
    })
}

fn param(name: &str, file: ParamFile) -> Result<PackParam, SpecProblem> {
    let kind = match file.kind.as_deref() {
        None | Some("text") => ParamKind::Text,
        Some("secret") => ParamKind::Secret,
        Some("credential") => ParamKind::Credential,
        Some("roots") => ParamKind::Roots,
        Some(other) => {
            let message = format!("`{other}` is none of `text`, `secret`, `credential` and `roots`");
            return Err(wrong(&["params", name, "as"], message, "leave it out for `text`"));
        }
    };
    if file.required && file.default.is_some() {
        let message = "what has a default is not required";
        return Err(wrong(&["params", name, "required"], message, "remove one of the two"));
    }
    Ok(PackParam {
        kind,
        required: file.required,
        default: file.default.map(|texts| texts.0),
        about: file.about,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{key_of, request};

    const PACK: &str = "
name: acme
title: Acme
category: other
docs: https://acme.example/webhooks
checked: 2026-11-24
setup: Acme shows the secret once.
verify: { algorithm: hmac-sha256, signed: '{body}', signature: { from: header:X-Acme, encoding: hex } }
idempotency: { key: header:X-Id, covered: false }
deadline: 10s
";

    fn parse(text: &str) -> Pack {
        checked(serde_saphyr::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn an_id_that_is_not_signed_is_joined_with_the_body() {
        let key = |pack: &str, body: &[u8]| {
            let r = request("/", &[("X-Id", "42")], body);
            key_of(parse(pack).idempotency.key().unwrap().clone(), &r)
        };
        assert!(key(PACK, b"a").starts_with("42|blake3:"));
        assert_ne!(key(PACK, b"a"), key(PACK, b"b"));
        assert_eq!(key(&PACK.replace("covered: false", "covered: true"), b"a"), "42");
        // All of the event, which nothing covers: as it is, and known to be unsigned.
        let event = PACK.replace("covered: false", "covered: event");
        assert_eq!(key(&event, b"a"), "42");
        assert!(!parse(&event).idempotency.is_signed());
    }

    #[test]
    fn a_pack_may_say_that_repeats_cannot_be_told() {
        let off = PACK.replace("idempotency: { key: header:X-Id, covered: false }", "idempotency: off");
        assert_eq!(parse(&off).idempotency, Repeats::Unknowable);
        let none = PACK.replace("idempotency: { key: header:X-Id, covered: false }", "");
        assert_eq!(parse(&none).idempotency, Repeats::ByBody);
    }
}
