//! From a written rule to a compiled one.

use std::time::Duration;

use super::{ALGORITHMS, DIGEST, HttpSignature, Key, Material};
use crate::secret::Secret;
use crate::verify::build::{Building, Problems};
use crate::verify::build_scheme::tolerance;
use crate::verify::mac::{Hash, MacKey};
use crate::verify::public_key::{Asymmetric, PublicKey};
use crate::verify::scheme::Labelled;
use crate::verify::spec::{HttpSignatureSpec, SecretSpec, Texts};

const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);
/// RFC 2104 asks for keys no shorter than the digest.
const MIN_SECRET: usize = 32;

/// Compiles what stands under `http_signature:`, where `problems` stands.
pub(in crate::verify) fn build(
    spec: &HttpSignatureSpec,
    secrets: &[SecretSpec],
    public_keys: &[SecretSpec],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<HttpSignature> {
    let before = problems.count();
    let names: Vec<&str> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    let mut algorithms: Vec<(&'static str, Option<Asymmetric>)> = Vec::new();
    for name in building.expand_all(&spec.algorithms.0, &["algorithms"], problems) {
        match ALGORITHMS.iter().find(|(known, _)| *known == name) {
            Some(known) => algorithms.push(*known),
            None => problems.unknown(&["algorithms"], "algorithm", &name, &names).unwrap_or_default(),
        }
    }
    if spec.algorithms.0.is_empty() {
        problems.note::<()>(
            &["algorithms"],
            "the accepted algorithms must be named",
            "such as `algorithms: [ed25519]`; they are never taken from the message",
        );
    }
    let mut given = Vec::new();
    let keys = keys(&algorithms, secrets, public_keys, building, problems, &mut given);
    let components = components(spec, building, problems);
    let list = |texts: &Option<Texts>, key: &str, problems: &mut Problems<'_>| match texts {
        Some(texts) => building.expand_given(&texts.0, &[key], problems),
        None => Vec::new(),
    };
    let key_ids = list(&spec.key_ids, "key_ids", problems);
    let one = |text: &Option<String>, key: &str, problems: &mut Problems<'_>| {
        list(&text.clone().map(|text| Texts(vec![text])), key, problems).into_iter().next()
    };
    let (label, tag) = (one(&spec.label, "label", problems), one(&spec.tag, "tag", problems));
    let tolerance = match one(&spec.tolerance, "tolerance", problems) {
        None => Some(DEFAULT_TOLERANCE),
        Some(text) => tolerance(&text, &["tolerance"], problems),
    };
    if problems.count() > before {
        return None;
    }
    let signable = building.resolver.signable();
    Some(HttpSignature { keys, components, label, key_ids, tag, tolerance: tolerance?, given, signable })
}

fn components(spec: &HttpSignatureSpec, building: &Building<'_>, problems: &mut Problems<'_>) -> Vec<String> {
    let written = match &spec.components {
        Some(texts) => building.expand_all(&texts.0, &["components"], problems),
        None => ["@method", "@target-uri", DIGEST].map(str::to_owned).to_vec(),
    };
    let mut components = Vec::new();
    for text in written {
        let (name, params) = match text.split_once(';') {
            Some((name, params)) => (name, format!(";{params}")),
            None => (text.as_str(), String::new()),
        };
        let legal = name.strip_prefix('@').unwrap_or(name);
        let known = params.is_empty() || (name == "@query-param" && params.starts_with(";name=\""));
        if !crate::verify::locate::is_token(legal) || !known || name == "@signature-params" {
            problems.note::<()>(
                &["components"],
                format!("`{text}` is no component of a request"),
                "such as `@method`, `@query-param;name=\"id\"`, or a header's name",
            );
        }
        components.push(format!("\"{}\"{params}", name.to_ascii_lowercase()));
    }
    if spec.unsigned_body != Some(true) && !components.iter().any(|id| id.trim_matches('"') == DIGEST) {
        problems.note::<()>(
            &["components"],
            "the body is not signed: anyone who holds a genuine request could change it",
            "add `content-digest`, or write `unsigned_body: true`",
        );
    }
    components
}

fn keys(
    algorithms: &[(&'static str, Option<Asymmetric>)],
    secrets: &[SecretSpec],
    public_keys: &[SecretSpec],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
    given: &mut Vec<Labelled<Secret>>,
) -> Vec<Labelled<Key>> {
    let mut keys = Vec::new();
    if secrets.is_empty() && public_keys.is_empty() {
        problems.note::<()>(
            &["public_keys"],
            "there is no key",
            "give `public_keys`, or `secrets` for hmac-sha256",
        );
    }
    let shared = algorithms.iter().find(|(_, asymmetric)| asymmetric.is_none());
    for (at, spec) in secrets.iter().enumerate() {
        let at = ["secrets", &at.to_string()];
        let Some((algorithm, _)) = shared else {
            let help = "add `hmac-sha256` to `algorithms`, or give the sender's `public_keys` instead";
            problems.note::<()>(&at, "secrets are for hmac-sha256, which is not in `algorithms`", help);
            continue;
        };
        let Some(secret) = building.secret(spec, &at, problems) else { continue };
        if secret.expose().len() < MIN_SECRET {
            problems.note::<()>(
                &at,
                "the secret is too short",
                format!("use at least {MIN_SECRET} random bytes"),
            );
        }
        let named = building.labelled((), spec, &at, problems);
        // The registered way to write such keys is base64; who has no base64 has text.
        let text = secret.expose().trim_ascii();
        let decoded =
            crate::verify::encoding::decode_base64_secret(text).filter(|key| key.len() >= MIN_SECRET);
        given.push(Labelled { value: secret.clone(), label: named.label.clone(), window: named.window });
        for key in [Some(secret.expose().to_vec()), decoded].into_iter().flatten() {
            let material = MacKey::new(Hash::Sha256, &zeroize::Zeroizing::new(key))
                .map(|key| Material::Shared(Box::new(key)));
            keys.extend(material.map(|material| Labelled {
                value: Key { algorithm, material },
                label: named.label.clone(),
                window: named.window,
            }));
        }
    }
    for (at, spec) in public_keys.iter().enumerate() {
        let at = ["public_keys", &at.to_string()];
        let Some(text) = building.public_key(&spec.secret, &at, problems) else { continue };
        let named = building.labelled((), spec, &at, problems);
        let mut error = Some("public keys fit none of `algorithms`".to_owned());
        for (algorithm, kind) in algorithms.iter().filter_map(|(name, kind)| kind.map(|kind| (*name, kind))) {
            match PublicKey::parse(kind, &text) {
                Ok(key) => {
                    let value = Key { algorithm, material: Material::Public(key) };
                    keys.push(Labelled { value, label: named.label.clone(), window: named.window });
                    error = None;
                }
                Err(message) => error = error.map(|_| message),
            }
        }
        if let Some(message) = error {
            let names: Vec<&str> = algorithms.iter().map(|(name, _)| *name).collect();
            problems.note::<()>(
                &at,
                message,
                format!("the key must be for one of the `algorithms` ({})", names.join(", ")),
            );
        }
    }
    keys
}
