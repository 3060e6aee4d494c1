//! A pack as written in YAML, and its checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::ranges::{self, Format, Place, RangeList, Ranges};
use super::{Batch, Category, Pack, PackAnswer, PackParam, ParamKind, Repeats, Sample, Success};
use crate::verify::spec::{HandshakeSpec, Rule, Texts};
use crate::verify::{Extract, Split, check_pack, parse_duration};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackFile {
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
    #[serde(default)]
    event_type: Option<String>,
    #[serde(default)]
    handshake: Option<OneOrMany<HandshakeSpec>>,
    #[serde(default)]
    batch: Option<BatchFile>,
    #[serde(default)]
    deadline: Option<String>,
    #[serde(default)]
    success: Option<OneOrMany<Word>>,
    #[serde(default)]
    answer: Option<PackAnswer>,
    #[serde(default)]
    retries: Option<String>,
    #[serde(default)]
    ranges: Option<RangesFile>,
    #[serde(default)]
    samples: Vec<Sample>,
    #[serde(default)]
    notes: Option<String>,
}

#[derive(Deserialize)]
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

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::Many(many) => many,
            OneOrMany::One(one) => vec![*one],
        }
    }
}

#[derive(Deserialize)]
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdempotencyFile {
    /// One source, or several that are joined.
    key: Texts,
    /// Whether the signature covers all of it. If not, it is joined with the body's hash: whoever holds one genuine
    /// request could otherwise use up the id of another.
    covered: bool,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchFile {
    /// Where the array is: `body`, `body:/json/pointer`, or `form:FIELD`.
    events: String,
    /// Pointers within an element.
    key: Texts,
    #[serde(default)]
    event_type: Option<String>,
}

#[derive(Deserialize)]
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

/// Reads a pack in YAML and checks it; the error says where and what, for its author.
pub(super) fn parse(text: &str) -> Result<Pack, String> {
    let pack = pack(serde_saphyr::from_str(text).map_err(|error| error.to_string())?)?;
    check_pack(&pack).map_err(|problems| {
        let lines = problems.iter().map(|problem| {
            let help = problem.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("`{}`: {}{help}", problem.at.join("."), problem.message)
        });
        lines.collect::<Vec<_>>().join("; ")
    })?;
    Ok(pack)
}

/// Reads a pack of our own in the form that the build script gave it. The tests have checked it.
pub(super) fn built_in(json: &str) -> Result<Pack, String> {
    pack(serde_json::from_str(json).map_err(|error| error.to_string())?)
}

fn pack(file: PackFile) -> Result<Pack, String> {
    let named = !file.name.is_empty()
        && file.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !named {
        return Err(format!("`name`: `{}` is not lower-case letters, digits and `-`", file.name));
    }
    if file.title.trim().is_empty() {
        return Err("`title` is empty".to_owned());
    }
    if file.checked.parse::<jiff::civil::Date>().is_err() {
        return Err(format!("`checked`: `{}` is not a date such as 2026-11-24", file.checked));
    }
    let source = |key: &str, text: &str| Extract::parse(text).map_err(|error| format!("`{key}`: {error}"));
    let idempotency = match &file.idempotency {
        None => Repeats::ByBody,
        Some(IdempotencyOrOff::Off) => Repeats::Unknowable,
        Some(IdempotencyOrOff::On(IdempotencyFile { key, covered })) => {
            let mut parts = Vec::new();
            for text in &key.0 {
                parts.push(source("idempotency.key", text)?);
            }
            if parts.is_empty() {
                return Err("`idempotency.key` is empty".to_owned());
            }
            if !covered {
                parts.push(Extract::body_hash());
            }
            Repeats::ByKey(Extract::joined(parts))
        }
    };
    if file.setup.trim().is_empty() {
        return Err("`setup` is empty: say where the user finds what the route needs".to_owned());
    }
    let pack = Pack {
        category: file.category,
        setup: file.setup.trim().to_owned(),
        content_types: file.content_types,
        batch: file.batch.map(batch).transpose()?,
        success: success(file.success)?,
        answer: file.answer,
        retries: file.retries,
        ranges: file.ranges.map(ranges).transpose()?.map(Arc::new),
        idempotency,
        handshakes: file.handshake.map(OneOrMany::into_vec).unwrap_or_default(),
        event_type: file.event_type.as_deref().map(|text| source("event_type", text)).transpose()?,
        deadline: file.deadline.as_deref().map(deadline).transpose()?,
        params: file
            .params
            .into_iter()
            .map(|(name, file)| Ok((name, param(file)?)))
            .collect::<Result<_, String>>()?,
        verify: file.verify.into_vec(),
        name: file.name,
        title: file.title,
        docs: file.docs,
        checked: file.checked,
        samples: file.samples,
        notes: file.notes,
    };
    if pack.verify.is_empty() {
        return Err("`verify` is empty".to_owned());
    }
    Ok(pack)
}

/// The statuses that the sender takes for success: `2xx`, or a list of numbers.
fn success(written: Option<OneOrMany<Word>>) -> Result<Success, String> {
    let words = match written.map(OneOrMany::into_vec) {
        None => return Ok(Success::Any2xx),
        Some(words) if matches!(words.as_slice(), [Word(only)] if only == "2xx") => {
            return Ok(Success::Any2xx);
        }
        Some(words) => words,
    };
    let statuses = words.iter().map(|Word(word)| match word.parse() {
        Ok(status @ 100..=599) => Ok(status),
        _ => Err(format!("`success`: `{word}` is neither `2xx` nor a status such as 200")),
    });
    match statuses.collect::<Result<Vec<u16>, _>>()? {
        none if none.is_empty() => Err("`success` is empty".to_owned()),
        statuses => Ok(Success::Of(statuses)),
    }
}

fn batch(file: BatchFile) -> Result<Batch, String> {
    let place = (file.events != "body").then_some(file.events);
    let batch = Batch { place, key: file.key.0, event_type: file.event_type };
    Split::compile(&batch, Split::MAX).map_err(|error| format!("`batch`: {error}"))?;
    Ok(batch)
}

fn ranges(file: RangesFile) -> Result<Ranges, String> {
    let wrong = |error: String| format!("`ranges`: {error}");
    let list = match (&file.list, file.format.as_deref()) {
        (None, None) if file.at.0.is_empty() && file.only.is_empty() => None,
        (None, _) => {
            return Err(wrong("`format`, `at` and `only` are about a `list`, and none is given".into()));
        }
        (Some(list), format) => {
            let url = list.parse::<http::Uri>().ok().filter(crate::fetch::may_be_fetched);
            let url = url.ok_or_else(|| wrong(format!("`{list}` is no https address")))?;
            let format = match format {
                Some("lines") if file.at.0.is_empty() && file.only.is_empty() => Format::Lines,
                Some("lines") => return Err(wrong("`at` and `only` are for JSON".into())),
                None | Some("json") if file.at.0.is_empty() => {
                    return Err(wrong(
                        "`at` is missing: where in the JSON the ranges are, such as `/hooks/*`".into(),
                    ));
                }
                None | Some("json") => {
                    let at = file.at.0.iter().map(|text| Place::parse(text).map_err(wrong));
                    Format::Json { at: at.collect::<Result<_, _>>()?, only: file.only.into_iter().collect() }
                }
                Some(other) => return Err(wrong(format!("`format: {other}` is neither `json` nor `lines`"))),
            };
            Some(RangeList { url, format })
        }
    };
    let mut snapshot = Vec::with_capacity(file.snapshot.len());
    for text in &file.snapshot {
        snapshot.push(
            ranges::range(text).map_err(|_| wrong(format!("`{text}` is no address range of a provider")))?,
        );
    }
    if snapshot.is_empty() {
        return Err(wrong("`snapshot` is empty: a first start without network would let nobody in".into()));
    }
    snapshot.sort_unstable();
    snapshot.dedup();
    let date = file.snapshot_date.parse();
    let snapshot_date =
        date.map_err(|_| wrong(format!("`{}` is not a date such as 2026-11-24", file.snapshot_date)))?;
    Ok(Ranges { list, snapshot, snapshot_date })
}

fn deadline(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("`deadline`: {error}"))
}

fn param(file: ParamFile) -> Result<PackParam, String> {
    let kind = match file.kind.as_deref() {
        None | Some("text") => ParamKind::Text,
        Some("secret") => ParamKind::Secret,
        Some("credential") => ParamKind::Credential,
        Some("roots") => ParamKind::Roots,
        Some(other) => {
            return Err(format!(
                "`params`: `as: {other}` is none of `text`, `secret`, `credential` and `roots`"
            ));
        }
    };
    if file.required && file.default.is_some() {
        return Err("`params`: what has a default is not required".to_owned());
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
    use crate::verify::testing::request;

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

    #[test]
    fn an_id_that_is_not_signed_is_joined_with_the_body() {
        let key = |pack: &str, body: &[u8]| {
            let r = request("/", &[("X-Id", "42")], body);
            parse(pack).unwrap().idempotency.key().unwrap().key(&r)
        };
        assert!(key(PACK, b"a").starts_with("42|blake3:"));
        assert_ne!(key(PACK, b"a"), key(PACK, b"b"));
        assert_eq!(key(&PACK.replace("covered: false", "covered: true"), b"a"), "42");
    }

    #[test]
    fn a_pack_may_say_that_repeats_cannot_be_told() {
        let off = PACK.replace("idempotency: { key: header:X-Id, covered: false }", "idempotency: off");
        assert_eq!(parse(&off).unwrap().idempotency, Repeats::Unknowable);
        let none = PACK.replace("idempotency: { key: header:X-Id, covered: false }", "");
        assert_eq!(parse(&none).unwrap().idempotency, Repeats::ByBody);
    }

    #[test]
    fn what_is_wrong_in_a_pack_is_named() {
        for (from, to, expected) in [
            ("hmac-sha256", "hmac-sha265", "did you mean `hmac-sha256`"),
            ("'{body}'", "'{timestamp}.{body}'", "does not say where it is"),
            ("header:X-Acme", "heder:X-Acme", "did you mean `header:`"),
            ("encoding: hex", "encoding: hexx", "did you mean `hex`"),
            (", covered: false", "", "covered"),
            ("header:X-Id", "X-Id", "says no place"),
            ("idempotency: { key: header:X-Id, covered: false }", "idempotency: of", "is not `off`"),
            ("deadline: 10s", "deadline: soon", "not a duration"),
            ("2026-11-24", "yesterday", "not a date"),
            ("name: acme", "name: Acme Inc", "lower-case"),
            ("title: Acme", "titel: Acme", "titel"),
            ("category: other", "category: othr", "othr"),
            ("setup: Acme shows the secret once.", "setup: ' '", "`setup` is empty"),
            ("deadline: 10s", "success: [200, ok]", "neither `2xx` nor a status"),
            ("deadline: 10s", "batch: { events: bdy, key: /id }", "says no place"),
            (
                "deadline: 10s",
                "ranges: { snapshot: [10.0.0.0/33], snapshot_date: 2026-11-24 }",
                "10.0.0.0/33",
            ),
            ("deadline: 10s", "ranges: { snapshot: [], snapshot_date: 2026-11-24 }", "`snapshot` is empty"),
            ("deadline: 10s", "ranges: { snapshot: [0.0.0.0/0], snapshot_date: 2026-11-24 }", "0.0.0.0/0"),
            ("deadline: 10s", "ranges: { snapshot: [10.0.0.1], snapshot_date: soon }", "not a date"),
            (
                "deadline: 10s",
                "ranges: { list: 'http://a.example', at: /x, snapshot: [10.0.0.1], snapshot_date: 2026-11-24 }",
                "no https",
            ),
            (
                "deadline: 10s",
                "ranges: { list: 'https://a.example', snapshot: [10.0.0.1], snapshot_date: 2026-11-24 }",
                "`at` is missing",
            ),
            (
                "deadline: 10s",
                "ranges: { at: /x, snapshot: [10.0.0.1], snapshot_date: 2026-11-24 }",
                "none is given",
            ),
            ("deadline: 10s", "batch: { events: body, key: id }", "a JSON pointer begins with `/`"),
            ("algorithm:", "secret: env:X, algorithm:", "no place in a pack"),
            ("algorithm:", "algoritm:", "did you mean `algorithm`"),
            ("deadline: 10s", "handshake: { when: {}, echo: body:/x }", "every request would be a greeting"),
        ] {
            let text = PACK.replacen(from, to, 1);
            let error = parse(&text).err().unwrap_or_default();
            assert!(error.contains(expected), "{to}: {error}");
        }
        assert!(parse(PACK).is_ok());
    }
}
