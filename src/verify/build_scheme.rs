//! From a written signature scheme to a compiled one.

use std::collections::BTreeMap;
use std::time::Duration;

use zeroize::Zeroizing;

use super::border::{self, Places};
use super::build::{Building, Problems, digest_hash, encoding};
use super::build_keys;
use super::condition::Condition;
use super::encoding::{Encoding, decode_base64_secret};
use super::json::Pointer;
use super::locate::Location;
use super::mac::{Hash, MacKey};
use super::public_key::{Asymmetric, PublicKey};
use super::scheme::{self, BodyDigest, GivenSecret, GivenSecrets, Keys, Labelled, Scheme, TimeRule};
use super::shape::Shape;
use super::signatures::{SignatureForm, TimeFrom};
use super::spec::{KeySpec, SchemeSpec, SecretSpec, SignatureSpec, Texts, TimestampSpec};
use super::template::Template;
use super::time::{self, TimeFormat};
use crate::secret::Secret;

const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);

/// A longer tolerance is a mistake: it is how long a stolen request may be sent again.
const MAX_TOLERANCE: Duration = Duration::from_secs(24 * 3600);

/// What kind of key an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hmac(Hash),
    /// A plain digest over a template that holds the secret.
    Digest(Hash),
    Token,
    Asymmetric(Asymmetric),
}

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("hmac-md5", Algorithm::Hmac(Hash::Md5)),
    ("hmac-sha1", Algorithm::Hmac(Hash::Sha1)),
    ("hmac-sha256", Algorithm::Hmac(Hash::Sha256)),
    ("hmac-sha384", Algorithm::Hmac(Hash::Sha384)),
    ("hmac-sha512", Algorithm::Hmac(Hash::Sha512)),
    ("sha1", Algorithm::Digest(Hash::Sha1)),
    ("sha256", Algorithm::Digest(Hash::Sha256)),
    ("token", Algorithm::Token),
    ("ed25519", Algorithm::Asymmetric(Asymmetric::Ed25519)),
    ("ecdsa-p256-sha256", Algorithm::Asymmetric(Asymmetric::EcdsaP256Sha256)),
    ("ecdsa-p256-sha256-fixed", Algorithm::Asymmetric(Asymmetric::EcdsaP256Sha256Fixed)),
    ("ecdsa-p384-sha384", Algorithm::Asymmetric(Asymmetric::EcdsaP384Sha384)),
    ("ecdsa-p384-sha384-fixed", Algorithm::Asymmetric(Asymmetric::EcdsaP384Sha384Fixed)),
    ("rsa-pkcs1-sha1", Algorithm::Asymmetric(Asymmetric::RsaPkcs1Sha1)),
    ("rsa-pkcs1-sha256", Algorithm::Asymmetric(Asymmetric::RsaPkcs1Sha256)),
    ("rsa-pkcs1-sha384", Algorithm::Asymmetric(Asymmetric::RsaPkcs1Sha384)),
    ("rsa-pkcs1-sha512", Algorithm::Asymmetric(Asymmetric::RsaPkcs1Sha512)),
    ("rsa-pss-sha256", Algorithm::Asymmetric(Asymmetric::RsaPssSha256)),
    ("rsa-pss-sha384", Algorithm::Asymmetric(Asymmetric::RsaPssSha384)),
    ("rsa-pss-sha512", Algorithm::Asymmetric(Asymmetric::RsaPssSha512)),
];

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether it takes `public_keys`, not `secrets`.
    pub(super) fn is_asymmetric(self) -> bool {
        matches!(self, Algorithm::Asymmetric(_))
    }
}

/// The keys that a rule gives, and where in the rule they stand (`secrets`, `public_keys`).
#[derive(Clone, Copy)]
pub(super) struct Given<'s> {
    pub(super) secrets: &'s [SecretSpec],
    pub(super) public_keys: &'s [SecretSpec],
    /// Secrets that came as parameters of the pack.
    pub(super) param_secrets: &'s [Secret],
    pub(super) tolerance: Option<&'s str>,
}

/// Compiles a scheme. `problems` stands at the rule, `within` leads from there to the scheme.
pub(super) fn build(
    spec: &SchemeSpec,
    given: Given<'_>,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
    within: &[&str],
) -> Option<Scheme> {
    let algorithm = algorithm(spec, &mut problems.within(within));
    let keys = match (algorithm, &spec.key_source) {
        (Some(Algorithm::Asymmetric(algorithm)), Some(source)) if given.public_keys.is_empty() => {
            let problems = &mut problems.within(within);
            build_keys::fetched(algorithm, source, building, &mut problems.within(&["key_source"]))
                .map(|fetched| (Keys::Fetched(fetched), GivenSecrets::default()))
        }
        (Some(algorithm), source) => {
            if source.is_some() && !algorithm.is_asymmetric() {
                let help = "remove it, or name the `algorithm` of the key that is fetched, such as `ed25519`";
                problems.within(within).note::<()>(&["key_source"], "only public keys are fetched", help);
            }
            keys(algorithm, spec.key.as_deref(), given, building, problems)
        }
        (None, _) => None,
    };
    let (keys, given_secrets) = keys.unzip();
    let tolerance = given.tolerance.and_then(|text| tolerance(text, &["tolerance"], problems));
    if given.tolerance.is_some() && spec.timestamp.is_none() {
        problems.note::<()>(
            &["tolerance"],
            "this scheme signs no time, so there is nothing to tolerate",
            "remove it, or say with `timestamp` where the signed time is",
        );
    }
    let problems = &mut problems.within(within);
    let template = template(spec, algorithm, building, problems);
    let signature = match &spec.signature {
        Some(signature) => signature_form(signature, algorithm, building, problems),
        None => problems.note(
            &["signature"],
            "where the signature is, is missing",
            "such as `signature: { from: header:X-Signature, encoding: hex }`",
        ),
    };
    let timestamp = spec.timestamp.as_ref().map(|rule| time_rule(rule, tolerance, problems));
    let id = spec.id.as_deref().map(|text| location(text, &["id"], problems));
    let each = spec.each.as_deref().map(|text| match Pointer::parse(text) {
        Ok(pointer) => Some(pointer),
        Err(message) => {
            problems.note(&["each"], message, "a JSON pointer to an array of the body, such as `/events`")
        }
    });
    let body_digest = spec.body_digest.as_ref().map(|digest| {
        let from = location(&digest.from, &["body_digest", "from"], problems);
        let hash = digest_hash(digest.hash.as_deref(), &["body_digest", "hash"], problems);
        let encoding =
            encoding(digest.encoding.as_deref().or(Some("hex")), &["body_digest", "encoding"], problems);
        Some(BodyDigest { from: from?, hash: hash?, encoding: encoding? })
    });
    let mut when = Vec::new();
    if let Some(text) = spec.if_present.as_deref() {
        when.extend(location(text, &["if_present"], problems).map(Condition::Present));
    }
    if let Some(text) = spec.if_absent.as_deref() {
        when.extend(location(text, &["if_absent"], problems).map(Condition::Absent));
    }
    let mut places = |map: &BTreeMap<String, Texts>, key: &str| {
        let mut places = Vec::new();
        for (place, values) in map {
            let values = building.expand_all(&values.0, &[key, place], problems);
            if let Some(location) = location(place, &[key, place], problems) {
                places.push((location, values));
            }
        }
        places
    };
    when.extend(
        places(&spec.if_equal, "if_equal").into_iter().map(|(at, values)| Condition::Equal(at, values)),
    );
    let only = places(&spec.only, "only");
    let mut shapes = Vec::new();
    for (place, shape) in &spec.matches {
        let at = ["matches", place];
        match (location(place, &at, problems), Shape::parse(shape)) {
            (Some(location), Ok(shape)) => shapes.push((location, shape)),
            (_, Err(message)) => problems.note(&at, message, "such as `[0-9]{10}`").unwrap_or_default(),
            (None, Ok(_)) => {}
        }
    }
    let (from, form) = signature?;
    let apart = match timestamp.as_ref().and_then(Option::as_ref).map(|rule: &TimeRule| &rule.from) {
        Some(TimeFrom::Item(_)) => Some("item"),
        Some(TimeFrom::Position(1..)) => Some("position"),
        _ => None,
    };
    if let (Some(word), None) = (apart, &form.list) {
        problems.note::<()>(
            &["timestamp", "from"],
            format!("`{word}:` is one of several items beside the signature, and `signature` has no `list`"),
            "say what stands between the items, such as `signature: { list: \",\" }`",
        );
    }
    let signs_itself = |place: &&Location| place.is_header() && from.len() == 1 && from.contains(place);
    if let Some(place) = template.as_ref().and_then(|template| template.required().find(signs_itself)) {
        problems.note::<()>(
            &["signed"],
            format!("`{{{place}}}` is where the signature itself stands: it can't be signed"),
            "leave it out of `signed`",
        );
    }
    let (template, timestamp, id) = (template?, lift(timestamp)?, lift(id)?);
    let time = timestamp.as_ref().map(|rule: &TimeRule| {
        let place = match &rule.from {
            TimeFrom::At(location) => Some(location),
            TimeFrom::Item(_) | TimeFrom::Position(_) => None,
        };
        (place, &*rule.formats)
    });
    let borders = Places { shapes: &shapes, time, id: id.as_ref() };
    // A token is no signature: nothing is signed.
    let open_border =
        (algorithm != Some(Algorithm::Token)).then(|| border::open(&template, borders)).flatten();
    let edges = border::edges(&template, borders);
    let mut scheme = Scheme {
        when,
        only,
        from,
        form,
        timestamp,
        id,
        template,
        edges,
        open_border,
        shapes,
        body_digest: lift(body_digest)?,
        each: lift(each)?,
        pointers: Box::default(),
        keys: keys?,
        given: given_secrets?,
        signable: building.resolver.signable(),
    };
    check_coverage(&scheme, problems);
    scheme.pointers = scheme::pointers(&scheme);
    Some(scheme)
}

/// Absent is fine, wrong is not.
pub(super) fn lift<T>(part: Option<Option<T>>) -> Option<Option<T>> {
    match part {
        None => Some(None),
        Some(Some(part)) => Some(Some(part)),
        Some(None) => None,
    }
}

fn algorithm(spec: &SchemeSpec, problems: &mut Problems<'_>) -> Option<Algorithm> {
    let names: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    match spec.algorithm.as_deref() {
        None => {
            problems.note(&["algorithm"], "the algorithm is missing", format!("one of {}", names.join(", ")))
        }
        Some(name) => match Algorithm::parse(name) {
            Some(algorithm) => Some(algorithm),
            None => problems.unknown(&["algorithm"], "algorithm", name, &names),
        },
    }
}

fn template(
    spec: &SchemeSpec,
    algorithm: Option<Algorithm>,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Template> {
    if algorithm == Some(Algorithm::Token) && spec.signed.is_some() {
        return problems.note(
            &["signed"],
            "a token is no signature: nothing is signed",
            "remove `signed`, or name the `algorithm` that the sender signs with",
        );
    }
    let text = spec.signed.as_deref().unwrap_or("{body}");
    let template = match Template::parse(text, &|name| building.param(name)) {
        Ok(template) => template,
        Err(message) => return problems.note(&["signed"], message, building.template_help()),
    };
    if template.uses_timestamp() && spec.timestamp.is_none() {
        problems.note::<()>(
            &["signed"],
            "`{timestamp}` is signed, but `timestamp` does not say where it is",
            "add `timestamp: { from: header:NAME }`, or `from: item:t` if it stands beside the signature",
        );
    }
    if template.uses_id() && spec.id.is_none() {
        problems.note::<()>(
            &["signed"],
            "`{id}` is signed, but `id` does not say where it is",
            "add `id: header:NAME`",
        );
    }
    match algorithm {
        Some(Algorithm::Digest(_)) if !template.uses_secret() => problems.note(
            &["signed"],
            "a plain digest proves nothing without `{secret}` in what is signed",
            "put `{secret}` where the sender has it, or use `hmac-sha256`",
        ),
        Some(Algorithm::Hmac(_) | Algorithm::Asymmetric(_)) if template.uses_secret() => problems.note(
            &["signed"],
            "`{secret}` belongs only into plain digests (`sha1`, `sha256`)",
            "remove it: with an HMAC the secret is the key already",
        ),
        _ => Some(template),
    }
}

fn signature_form(
    spec: &SignatureSpec,
    algorithm: Option<Algorithm>,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<(Vec<Location>, SignatureForm)> {
    let problems = &mut problems.within(&["signature"]);
    if spec.from.0.is_empty() {
        problems.note::<()>(
            &["from"],
            "where the signature is, is missing",
            "such as `from: header:X-Signature`",
        );
    }
    let mut from = Vec::new();
    for text in &spec.from.0 {
        from.extend(location(text, &["from"], problems));
    }
    for (key, separator) in [("groups", &spec.groups), ("list", &spec.list), ("assign", &spec.assign)] {
        if separator.as_deref() == Some("") {
            problems.note::<()>(&[key], "a separator can't be empty", "such as `,`; or leave the key out");
        }
    }
    let items = spec.item.as_ref().map(|items| building.expand_all(&items.0, &["item"], problems));
    let encoding = match (algorithm, spec.encoding.as_deref()) {
        // A token is compared as it is sent.
        (Some(Algorithm::Token), None) => Some(Encoding::Hex),
        (Some(Algorithm::Token), Some(_)) => problems.note(
            &["encoding"],
            "a token has no encoding",
            "remove `encoding`: a token is compared as it is",
        ),
        (_, name) => encoding(name, &["encoding"], problems),
    };
    let form = SignatureForm {
        groups: spec.groups.as_deref().map(Into::into),
        list: spec.list.as_deref().map(Into::into),
        assign: spec.assign.as_deref().unwrap_or("=").into(),
        items: items.unwrap_or_default().into_iter().map(Into::into).collect(),
        ignored: spec.ignored.iter().flat_map(|keys| &keys.0).map(|key| key.as_str().into()).collect(),
        skip: spec.skip.unwrap_or(0).into(),
        prefix: spec.prefix.as_deref().unwrap_or_default().into(),
        encoding: encoding?,
    };
    (!from.is_empty()).then_some((from, form))
}

fn time_rule(
    spec: &TimestampSpec,
    user_tolerance: Option<Duration>,
    problems: &mut Problems<'_>,
) -> Option<TimeRule> {
    let problems = &mut problems.within(&["timestamp"]);
    let formats = match &spec.format {
        None => Some(vec![TimeFormat::Unix]),
        Some(Texts(names)) if names.is_empty() => {
            problems.note(&["format"], "the list is empty", "such as `unix`; or leave the key out")
        }
        Some(Texts(names)) => {
            let known = TimeFormat::ALL.map(TimeFormat::name);
            let format = |name: &String| {
                let format = TimeFormat::parse_name(name);
                format.or_else(|| problems.unknown(&["format"], "time format", name, &known))
            };
            names.iter().map(format).collect()
        }
    };
    let own = match spec.tolerance.as_deref() {
        None => Some(DEFAULT_TOLERANCE),
        Some(text) => tolerance(text, &["tolerance"], problems),
    };
    let from = match spec.from.split_once(':') {
        Some(("item", name)) if !name.is_empty() => Some(TimeFrom::Item(name.into())),
        Some(("position", text)) => match text.parse::<u8>() {
            Ok(at) => Some(TimeFrom::Position(at.into())),
            Err(_) => problems.note(
                &["from"],
                "`position:` takes a number from 0",
                "such as `position:0` for the first item",
            ),
        },
        _ => location(&spec.from, &["from"], problems).map(TimeFrom::At),
    };
    Some(TimeRule { from: from?, formats: formats?.into(), tolerance: user_tolerance.or(own)? })
}

pub(super) fn tolerance(text: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Duration> {
    match time::duration(text) {
        Ok(zero) if zero.is_zero() => problems.note(
            at,
            "a tolerance of nothing refuses everything",
            "such as `5m`, which is the default",
        ),
        Ok(long) if long > MAX_TOLERANCE => problems.note(
            at,
            "the tolerance may be at most 24h: so long a stolen request can be sent again",
            "`5m` is usual; a sender that repeats late signs each try anew",
        ),
        Ok(duration) => Some(duration),
        Err(message) => problems.note(at, message, "`5m` is the default"),
    }
}

pub(super) fn location(text: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Location> {
    match Location::parse(text) {
        Ok(location) => Some(location),
        Err(message) => problems.note(at, message, super::PLACE_HELP),
    }
}

/// What decides but is not signed could be changed by anyone who holds one genuine request.
fn check_coverage(scheme: &Scheme, problems: &mut Problems<'_>) {
    if matches!(scheme.keys, Keys::Token(_)) {
        return;
    }
    let template = &scheme.template;
    let covered =
        |location: &Location| template.covers(location) || (location.in_body() && template.covers_body());
    if let Some(TimeRule { from, .. }) = &scheme.timestamp {
        let signed = template.uses_timestamp()
            || match from {
                TimeFrom::At(location) => covered(location),
                TimeFrom::Item(_) | TimeFrom::Position(_) => false,
            };
        if !signed {
            problems.note::<()>(
                &["timestamp"],
                "the time is checked, but not signed: anyone could renew it",
                "put `{timestamp}` into `signed`",
            );
        }
    }
    for (location, _) in &scheme.only {
        if !covered(location) {
            problems.note::<()>(
                &["only"],
                format!("{location} decides who is let in, but is not signed"),
                "put it into `signed`",
            );
        }
    }
    if let Some(id) = &scheme.id
        && !template.uses_id()
        && !covered(id)
    {
        problems.note::<()>(&["id"], "the id is not signed", "put `{id}` into `signed`, or leave `id` out");
    }
}

fn keys(
    algorithm: Algorithm,
    key: Option<&KeySpec>,
    given: Given<'_>,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<(Keys, GivenSecrets)> {
    if algorithm.is_asymmetric() {
        if !given.secrets.is_empty() {
            problems.note::<()>(
                &["secrets"],
                "this algorithm takes `public_keys`, not secrets",
                "give the sender's public key as `public_keys: [file:PATH]`",
            );
        }
        if given.public_keys.is_empty() {
            return problems.note(
                &["public_keys"],
                "there is no public key",
                "such as `public_keys: [file:PATH]`",
            );
        }
    } else {
        if !given.public_keys.is_empty() {
            problems.note::<()>(
                &["public_keys"],
                "this algorithm takes `secrets`, not public keys",
                "give what both sides know as `secret: env:NAME`",
            );
        }
        if given.secrets.is_empty() && given.param_secrets.is_empty() {
            return problems.note(&["secrets"], "there is no secret", "such as `secret: env:NAME`");
        }
    }
    if let Algorithm::Asymmetric(algorithm) = algorithm {
        let mut keys = Vec::new();
        for (at, spec) in given.public_keys.iter().enumerate() {
            let at = ["public_keys", &at.to_string()];
            let Some(text) = building.public_key(&spec.secret, &at, problems) else { continue };
            let text = text.trim();
            let prefix = key.and_then(|key| key.prefix.as_deref()).unwrap_or_default();
            match PublicKey::parse(algorithm, text.strip_prefix(prefix).unwrap_or(text)) {
                Ok(key) => keys.push(building.labelled(key, spec, &at, problems)),
                Err(message) => {
                    let help = "the sender's public key as it shows it: PEM, or the bytes in base64 or hex";
                    problems.note(&at, message, help).unwrap_or_default()
                }
            }
        }
        return Some((Keys::Public(keys), GivenSecrets::default()));
    }
    let mut secrets = Vec::new();
    for (at, spec) in given.secrets.iter().enumerate() {
        let at = ["secrets", &at.to_string()];
        if let Some(secret) = building.secret(spec, &at, problems)
            && let Some(key) = derive(&secret, key, &at, problems)
        {
            let Labelled { value: key, label, window } = building.labelled(key, spec, &at, problems);
            secrets.push(GivenSecret { given: secret, key, label, window });
        }
    }
    for secret in given.param_secrets {
        let derived = derive(secret, key, &[], problems).map(Labelled::unnamed);
        secrets.extend(derived.map(|Labelled { value: key, label, window }| GivenSecret {
            given: secret.clone(),
            key,
            label,
            window,
        }));
    }
    let given = GivenSecrets { secrets, key: key.cloned() };
    Some((keys_of(algorithm, &given.secrets), given))
}

/// The keys of an algorithm that takes shared secrets.
fn keys_of(algorithm: Algorithm, secrets: &[GivenSecret]) -> Keys {
    let labelled = secrets.iter().map(|GivenSecret { key, label, window, .. }| Labelled {
        value: key.clone(),
        label: label.clone(),
        window: *window,
    });
    match algorithm {
        Algorithm::Hmac(hash) => Keys::Mac(
            labelled
                .filter_map(|secret| {
                    let value = MacKey::new(hash, secret.value.expose())?;
                    Some(Labelled { value, label: secret.label, window: secret.window })
                })
                .collect(),
        ),
        Algorithm::Digest(hash) => Keys::Digest(hash, labelled.collect()),
        _ => Keys::Token(labelled.collect()),
    }
}

/// The key that a configured secret would stand for, if it can.
pub(super) fn derived(secret: &Secret, spec: Option<&KeySpec>) -> Option<Secret> {
    derive(secret, spec, &[], &mut Problems::new(&mut Vec::new()))
}

/// The key that a configured secret stands for.
pub(super) fn derive(
    secret: &Secret,
    spec: Option<&KeySpec>,
    at: &[&str],
    problems: &mut Problems<'_>,
) -> Option<Secret> {
    let Some(spec) = spec else { return Some(secret.clone()) };
    let text = secret.expose();
    let text = spec.prefix.as_deref().and_then(|prefix| text.strip_prefix(prefix.as_bytes())).unwrap_or(text);
    let mut key = Zeroizing::new(match spec.decode.as_deref() {
        None | Some("text") => text.to_vec(),
        Some("base64") => match decode_base64_secret(text.trim_ascii()) {
            Some(key) => key,
            None => {
                return problems.note(
                    at,
                    "the secret is not base64, as this scheme's secrets are",
                    "copy it again from the sender's settings, whole and as it is shown there",
                );
            }
        },
        Some("hex") => match hex::decode(text.trim_ascii()) {
            Ok(key) => key,
            Err(_) => {
                return problems.note(
                    at,
                    "the secret is not hex, as this scheme's secrets are",
                    "copy it again from the sender's settings, whole and as it is shown there",
                );
            }
        },
        Some(other) => {
            return problems.unknown(&["key", "decode"], "decoding", other, &["text", "base64", "hex"]);
        }
    });
    if key.is_empty() {
        return problems.note(
            at,
            "the secret is empty",
            "nothing is left of it without its prefix: copy it again, whole",
        );
    }
    if let Some(name) = spec.hash.as_deref() {
        let hash = digest_hash(Some(name), &["key", "hash"], problems)?;
        *key = hash.of(&key).as_bytes().to_vec();
    }
    key.extend_from_slice(spec.append.as_deref().unwrap_or_default().as_bytes());
    Some(Secret::new(std::mem::take(&mut *key)))
}
