//! Why an HTTP message signature is taken or refused, step by step, for people. Nothing of what it says is decided here:
//! that is `check`'s. No secret is shown, nor the value of a signed header whose name sounds like a credential.

use super::base::{self, Unsigned};
use super::fields::{self, Input};
use super::{DIGEST, HttpSignature, Key, Material, combined, likely, mac_of};
use crate::clock::Timestamp;
use crate::message::{Headers, Request};
use crate::verify::encoding::Encoding;
use crate::verify::explain::{Asked, Step, Way, count, result, url_text};
use crate::verify::mac::Hash;
use crate::verify::scheme::{Labelled, live};
use crate::verify::time::distance;
use crate::verify::url;

/// Characters of a name, an id or a header's value that are shown.
const SHOWN: usize = 160;

/// What makes a header's name a credential's.
const CREDENTIALS: &[&str] = &["auth", "cookie", "token", "secret", "passw", "key", "session", "credential"];

/// A header of the three as far as it can be read.
pub(super) enum Field<T> {
    Missing,
    Malformed,
    Members(Vec<T>),
}

impl<T> Field<T> {
    fn of<'t>(text: Option<&'t str>, read: impl FnOnce(&'t str) -> Option<Vec<T>>) -> Self {
        match text.map(read) {
            None => Field::Missing,
            Some(None) => Field::Malformed,
            Some(Some(members)) => Field::Members(members),
        }
    }

    pub(super) fn members(&self) -> &[T] {
        match self {
            Field::Members(members) => members,
            Field::Missing | Field::Malformed => &[],
        }
    }
}

/// The headers of a request's signatures, taken apart.
pub(super) struct Seen<'t> {
    pub(super) inputs: Field<Input<'t>>,
    pub(super) signatures: Field<(&'t str, Vec<u8>)>,
}

impl Seen<'_> {
    pub(super) fn signature(&self, label: &str) -> Option<&[u8]> {
        let found = self.signatures.members().iter().find(|(known, _)| *known == label);
        found.map(|(_, signature)| signature.as_slice())
    }
}

impl HttpSignature {
    pub(in crate::verify) fn explain(&self, name: String, asked: &Asked<'_>) -> Way {
        let decision = self.check(asked.request, asked.public_url, asked.now);
        let headers = &asked.request.head.headers;
        let (inputs, signatures) = (combined(headers, "signature-input"), combined(headers, "signature"));
        let seen = Seen {
            inputs: Field::of(inputs.as_deref(), fields::inputs),
            signatures: Field::of(signatures.as_deref(), fields::byte_sequences),
        };
        let mut way = Way {
            name,
            steps: Vec::new(),
            likely: Vec::new(),
            expected: Vec::new(),
            signed: Vec::new(),
            decision: decision.clone(),
        };
        self.headers_steps(&seen, &mut |text| way.steps.push(Step { what: "signature", text }));
        let looked_at: Vec<&Input<'_>> = self.looked_at(&seen).collect();
        for input in &looked_at {
            self.explain_one(input, &seen, asked, looked_at.len() > 1, &mut way);
        }
        if let Err(refusal) = &decision {
            way.likely = likely::likely(self, refusal, &seen, asked);
        } else {
            way.expected.clear();
        }
        way.steps.push(result(&decision));
        way
    }

    /// Those that the rule looks at.
    pub(super) fn looked_at<'s, 't>(&'s self, seen: &'s Seen<'t>) -> impl Iterator<Item = &'s Input<'t>> {
        let wanted = move |input: &&Input<'t>| self.label.as_deref().is_none_or(|label| label == input.label);
        seen.inputs.members().iter().filter(wanted)
    }

    fn headers_steps(&self, seen: &Seen<'_>, step: &mut dyn FnMut(String)) {
        step(match &seen.inputs {
            Field::Missing => "header:signature-input is missing".to_owned(),
            Field::Malformed => "header:signature-input is malformed, or names a label twice".to_owned(),
            Field::Members(inputs) => {
                let labels: Vec<String> = inputs.iter().map(|input| quoted(input.label)).collect();
                let wanted = match &self.label {
                    Some(label) => format!("the rule's label is {}", quoted(label)),
                    None => "any label is looked at".to_owned(),
                };
                format!("header:signature-input describes {}; {wanted}", labels.join(", "))
            }
        });
        step(match &seen.signatures {
            Field::Missing => "header:signature is missing".to_owned(),
            Field::Malformed => "header:signature is malformed, or names a label twice".to_owned(),
            Field::Members(signatures) => {
                let each = signatures
                    .iter()
                    .map(|(label, bytes)| format!("{} of {}", quoted(label), count(bytes.len(), "byte")));
                format!("header:signature holds {}", each.collect::<Vec<_>>().join(", "))
            }
        });
    }

    fn explain_one(
        &self,
        input: &Input<'_>,
        seen: &Seen<'_>,
        asked: &Asked<'_>,
        several: bool,
        way: &mut Way,
    ) {
        let Asked { request, public_url, now, .. } = *asked;
        let which = if several { format!("{}: ", quoted(input.label)) } else { String::new() };
        let mut step = |what, text: String| way.steps.push(Step { what, text: format!("{which}{text}") });
        step("covers", self.covers_step(input));
        step("params", self.params_step(input));
        self.time_steps(input, now, &mut |text| step("time", text));
        let url = url::public(&request.head, public_url);
        lines(input, request, &url, &mut |text| step("signed", text));
        if input.components.iter().any(|component| component.name.starts_with('@')) {
            step("signed", url_text(&url));
        }
        let base = base::of(input, request, public_url).ok();
        step(
            "keys",
            match (&base, seen.signature(input.label)) {
                (Some(base), Some(signature)) => self.keys_step(input, base, signature, now),
                (None, _) => "what is signed can't be put together".to_owned(),
                (_, None) => format!("header:signature has no {}", quoted(input.label)),
            },
        );
        for text in digest_steps(input, request) {
            step("digest", text);
        }
        if let Some(base) = base {
            let macs = self.fitting(input, now).filter_map(|key| match &key.value.material {
                Material::Shared(mac) => Some(Encoding::Base64.encode(&mac_of(mac, &base))),
                Material::Public(_) => None,
            });
            way.expected.extend(macs.map(|mac| format!("{}=:{mac}:", input.label)));
            way.signed.push(base);
        }
    }

    fn covers_step(&self, input: &Input<'_>) -> String {
        let covered: Vec<String> =
            input.components.iter().map(|one| printable(one.raw.as_bytes(), SHOWN)).collect();
        let lacks: Vec<&str> = self.lacking(input).collect();
        let asked_for = match lacks.as_slice() {
            [] => "all that the rule asks for".to_owned(),
            lacks => format!("NOT what the rule asks for: {} lacking", lacks.join(", ")),
        };
        match covered.as_slice() {
            [] => format!("nothing; {asked_for}"),
            some => format!("{}: {}; {asked_for}", count(some.len(), "component"), some.join(", ")),
        }
    }

    /// What the rule asks for and the signature does not cover.
    pub(super) fn lacking(&self, input: &Input<'_>) -> impl Iterator<Item = &str> {
        let there = |id: &&str| !input.components.iter().any(|component| component.raw == *id);
        self.components.iter().map(String::as_str).filter(there)
    }

    fn params_step(&self, input: &Input<'_>) -> String {
        let algorithms = algorithms(&self.keys);
        let alg = match input.algorithm.as_deref() {
            None => format!("no alg (the rule's: {})", algorithms.join(", ")),
            Some(name) if algorithms.contains(&name) => format!("alg {}, accepted", quoted(name)),
            Some(name) => format!("alg {}, NOT accepted ({})", quoted(name), algorithms.join(", ")),
        };
        let said = |name: &str, found: Option<&str>, accepted: &[String]| {
            let found_text =
                found.map_or_else(|| format!("no {name}"), |text| format!("{name} {}", quoted(text)));
            let fits = found.is_some_and(|text| accepted.iter().any(|one| one == text));
            match accepted {
                [] => found_text,
                _ if fits => format!("{found_text}, accepted"),
                some => {
                    let names: Vec<String> = some.iter().map(|one| quoted(one)).collect();
                    format!("{found_text}, NOT accepted ({})", names.join(", "))
                }
            }
        };
        let key_id = said("keyid", input.key_id.as_deref(), &self.key_ids);
        format!("{key_id}; {alg}; {}", said("tag", input.tag.as_deref(), self.tag.as_slice()))
    }

    fn time_steps(&self, input: &Input<'_>, now: Timestamp, step: &mut dyn FnMut(String)) {
        let apart = |at: Timestamp| {
            let side = if at < now { "before" } else { "after" };
            format!("{at}, {} s {side} the time of the decision ({now})", distance(at, now).as_secs())
        };
        step(match input.created {
            None => "created is missing".to_owned(),
            Some(at) => {
                let at = Timestamp::from_secs(at);
                format!("created is {}; {} s are allowed", apart(at), self.tolerance.as_secs())
            }
        });
        if let Some(at) = input.expires {
            step(format!("expires is {}", apart(Timestamp::from_secs(at))));
        }
    }

    fn keys_step(&self, input: &Input<'_>, base: &[u8], signature: &[u8], now: Timestamp) -> String {
        let live: Vec<&Labelled<Key>> = live(&self.keys, now).collect();
        let mut names: Vec<String> = live.iter().map(|key| key_name(key)).collect();
        // A secret that may be base64 is two keys of one name.
        names.dedup();
        let asleep = match self.keys.len() - live.len() {
            0 => String::new(),
            some => format!(", {some} outside of their `from` and `until`"),
        };
        let meant = self.fitting(input, now).count();
        let matched = self.fitting(input, now).find(|key| key.value.verifies(base, signature));
        let verdict = match (matched, meant) {
            (Some(key), _) => format!("{} matches", key_name(key)),
            (None, 0) => "none is for this key id and algorithm".to_owned(),
            (None, _) => "none was found to match".to_owned(),
        };
        format!("{} live ({}){asleep}: {verdict}", count(names.len(), "key"), names.join(", "))
    }
}

/// Each line of the signature base, with its length.
fn lines(input: &Input<'_>, request: &Request, url: &str, step: &mut dyn FnMut(String)) {
    for (at, component) in input.components.iter().enumerate() {
        let mut value = Vec::new();
        let written = base::value(component, request, url, &mut value);
        let name = printable(component.raw.as_bytes(), SHOWN);
        let (length, value) = match written {
            Err(why) => {
                let why = match why {
                    Unsigned::Missing(_) => "is missing in the request",
                    Unsigned::Unsupported(_) => "is not supported",
                };
                step(format!("line {}, {name} {why}", at + 1));
                continue;
            }
            Ok(()) if is_credential(&component.name) => (value.len(), "(not shown)".to_owned()),
            Ok(()) => (value.len(), shown(&value)),
        };
        let length = component.raw.len() + 2 + length;
        step(format!("line {}, {}: {name}: {value}", at + 1, count(length, "byte")));
    }
    let line = format!("\"@signature-params\": {}", input.raw);
    let shown = printable(line.as_bytes(), 2048);
    step(format!("line {}, {}: {shown}", input.components.len() + 1, count(line.len(), "byte")));
}

fn is_credential(header: &str) -> bool {
    !header.starts_with('@') && CREDENTIALS.iter().any(|part| header.contains(part))
}

/// Whether the body is the one whose digest was signed.
fn digest_steps(input: &Input<'_>, request: &Request) -> Vec<String> {
    let covered =
        if covers_digest(input) { "covered" } else { "NOT covered: the signature says nothing of the body" };
    match digests(&request.head.headers) {
        Field::Missing => vec![format!("content-digest is {covered}; the header is missing")],
        Field::Malformed => vec![format!("content-digest is {covered}; the header is malformed")],
        Field::Members(digests) => {
            let each = digests.iter().map(|(name, sent)| {
                let Some(hash) = hash(name) else { return format!("{} is not known here", quoted(name)) };
                let own = hash.of(&request.body);
                let verdict = if own.as_bytes() == sent.as_slice() { "right" } else { "NOT the body's" };
                format!(
                    "{name} is `{}`, {verdict}; that of the {} here is `{}`",
                    Encoding::Base64.encode(sent),
                    count(request.body.len(), "byte"),
                    Encoding::Base64.encode(own.as_bytes())
                )
            });
            std::iter::once(format!("content-digest is {covered}")).chain(each).collect()
        }
    }
}

pub(super) fn covers_digest(input: &Input<'_>) -> bool {
    input.components.iter().any(|component| component.name == DIGEST)
}

/// What stands in `Content-Digest`.
pub(super) fn digests(headers: &Headers) -> Field<(String, Vec<u8>)> {
    let text = combined(headers, DIGEST);
    let owned = |text: &str| {
        let members = fields::byte_sequences(text)?;
        Some(members.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect())
    };
    Field::of(text.as_deref(), owned)
}

/// The digests that are known, by the names that they have in `Content-Digest`.
pub(super) fn hash(name: &str) -> Option<Hash> {
    match name {
        "sha-256" => Some(Hash::Sha256),
        "sha-512" => Some(Hash::Sha512),
        _ => None,
    }
}

/// The algorithms of `keys`, each once.
pub(super) fn algorithms(keys: &[Labelled<Key>]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = keys.iter().map(|key| key.value.algorithm).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a key is called, with its algorithm: never the key.
pub(super) fn key_name(key: &Labelled<Key>) -> String {
    match &key.label {
        Some(label) => format!("{} {}", key.value.algorithm, quoted(label)),
        None => format!("{} without a label", key.value.algorithm),
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", printable(text.as_bytes(), SHOWN))
}

/// At most `limit` bytes as text that is harmless for a terminal. Quotes stay as they are: here they are part of names.
fn printable(bytes: &[u8], limit: usize) -> String {
    let escaped = |byte: &u8| match byte {
        b'"' | b'\'' => char::from(*byte).to_string(),
        other => other.escape_ascii().to_string(),
    };
    bytes[..bytes.len().min(limit)].iter().map(escaped).collect()
}

fn shown(value: &[u8]) -> String {
    let more = if value.len() > SHOWN { "…" } else { "" };
    format!("{}{more}", printable(value, SHOWN))
}

#[cfg(test)]
mod tests;
