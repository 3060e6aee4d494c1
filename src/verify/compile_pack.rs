//! Rules that name a provider: a pack's ways with the user's keys and parameters, and packs by themselves.

use std::sync::Arc;

use super::build::{Building, Params, Problems};
use super::build_scheme::{self, Algorithm, Given};
use super::check::{Check, How};
use super::compile::{Way, inner, point_at_secret, unknown_params, ways};
use super::remote::Roots;
use super::spec::{Rule, SchemeSpec, SecretSpec};
use super::{KeySource, NoKeys, Remote, Resolver, SpecProblem, handshake};
use crate::providers::{Pack, PackParam, ParamKind};
use crate::secret::Secret;

/// Compiles a rule that names a provider, and remembers its pack.
pub(super) fn provider(
    name: &str,
    rule: &Rule,
    secrets: &[SecretSpec],
    resolver: &dyn Resolver,
    packs: &mut Vec<Arc<Pack>>,
    problems: &mut Problems<'_>,
) -> Option<Check> {
    let pack = match resolver.pack(name) {
        Ok(pack) => pack,
        Err(message) => {
            let help = "the name of a pack (`tidegate providers list`), or the path of a pack file, such as `./packs/acme.yaml`";
            problems.note::<()>(&["provider"], message, help);
            return look_up(secrets, rule, resolver, problems);
        }
    };
    packs.push(pack.clone());
    let before = problems.count();
    let (params, param_secrets) = params(&pack, rule, resolver, problems);
    let public_keys = rule.public_keys.as_deref().unwrap_or_default();
    if problems.count() > before {
        return look_up(secrets, rule, resolver, problems);
    }
    let needs = Needs::of(&pack);
    for (key, given, takes) in [
        (if rule.secret.is_some() { "secret" } else { "secrets" }, !secrets.is_empty(), needs.secrets),
        ("public_keys", !public_keys.is_empty(), needs.public_keys),
        ("tolerance", rule.tolerance.is_some(), needs.tolerance),
    ] {
        if given && !takes {
            let message = format!("`{key}` has no meaning for {}", pack.name);
            let help = match key {
                "secret" | "secrets" if needs.public_keys => {
                    "it signs with a key pair: give `public_keys: [file:PATH]`".to_owned()
                }
                "public_keys" if needs.secrets => {
                    "it signs with a shared secret: give `secret: env:NAME`".to_owned()
                }
                _ => format!("remove it: `tidegate providers show {}` says what it takes", pack.name),
            };
            problems.note::<()>(&[key], message, help);
        }
    }
    handshake::note_pack(&pack, rule, resolver, &resolver.signable());
    let building = Building { resolver, params: &params };
    let mut ways = Vec::new();
    for way in &pack.verify {
        let asymmetric = is_asymmetric(way);
        let takes_both = way.jwt.is_some() || way.http_signature.is_some();
        let has_keys = match (asymmetric, way.http_signature.is_some()) {
            (_, true) => !secrets.is_empty() || !public_keys.is_empty(),
            (true, _) => !public_keys.is_empty(),
            (false, _) => !secrets.is_empty(),
        };
        let keyless = is_fetched(way);
        if !has_keys && param_secrets.is_empty() && !keyless {
            continue;
        }
        let (secrets, public_keys) = match (asymmetric, takes_both) {
            (_, true) => (secrets, public_keys),
            (true, _) => (&[][..], public_keys),
            (false, _) => (secrets, &[][..]),
        };
        let count = problems.count();
        let how = if way.inline == SchemeSpec::default() {
            inner(way, secrets, public_keys, &param_secrets, &building, problems).map(|check| check.how)
        } else {
            let tolerance = rule.tolerance.as_deref().filter(|_| way.inline.timestamp.is_some());
            let given = Given { secrets, public_keys, param_secrets: &param_secrets, tolerance };
            build_scheme::build(&way.inline, given, &building, problems, &["pack"])
                .map(|scheme| How::Scheme(Box::new(scheme)))
        };
        problems.lift_from_pack(count);
        ways.extend(how.map(|how| Check::new(pack.name.as_str(), how)));
    }
    if ways.is_empty() && problems.count() == before {
        let (key, what) = match needs {
            Needs { secrets: true, public_keys: true, .. } => ("secrets", "`secrets` or `public_keys`"),
            Needs { public_keys: true, .. } => ("public_keys", "`public_keys`"),
            _ => ("secrets", "a secret"),
        };
        problems.note::<()>(
            &["provider"],
            format!("{} needs {what}, and none is given", pack.name),
            format!("such as `{key}: [env:NAME]`"),
        );
    }
    point_at_secret(rule, before, problems);
    let by: Arc<str> = pack.name.as_str().into();
    match (ways.pop(), ways.is_empty()) {
        (Some(only), true) => Some(only),
        (Some(last), false) => {
            ways.push(last);
            Some(Check::new(by, How::Ways(ways)))
        }
        (None, _) => None,
    }
}

/// Only looks the secrets up, so that what is wrong with the provider does not hide what is wrong with them.
fn look_up(
    secrets: &[SecretSpec],
    rule: &Rule,
    resolver: &dyn Resolver,
    problems: &mut Problems<'_>,
) -> Option<Check> {
    let before = problems.count();
    let building = Building { resolver, params: &Params::new() };
    for (at, spec) in secrets.iter().enumerate() {
        let _ = building.secret(spec, &["secrets", &at.to_string()], problems);
    }
    point_at_secret(rule, before, problems);
    None
}

/// What a pack's ways can use.
#[derive(Clone, Copy, Default)]
struct Needs {
    secrets: bool,
    public_keys: bool,
    tolerance: bool,
}

impl Needs {
    fn of(pack: &Pack) -> Self {
        pack.verify.iter().fold(Self::default(), |needs, way| Self {
            secrets: needs.secrets || !is_asymmetric(way),
            public_keys: needs.public_keys
                || is_asymmetric(way)
                || way.jwt.is_some()
                || way.http_signature.is_some(),
            tolerance: needs.tolerance || way.inline.timestamp.is_some(),
        })
    }
}

fn is_asymmetric(way: &Rule) -> bool {
    way.inline.algorithm.as_deref().and_then(Algorithm::parse).is_some_and(Algorithm::is_asymmetric)
}

/// Whether a way needs no keys of the user's.
fn is_fetched(way: &Rule) -> bool {
    let token = way.jwt.as_ref();
    token.is_some_and(|jwt| jwt.jwks.is_some() || jwt.key_source.is_some() || jwt.x5c.is_some())
        || way.inline.key_source.is_some()
}

/// The values of a pack's parameters, and those that are secrets.
fn params(
    pack: &Pack,
    rule: &Rule,
    resolver: &dyn Resolver,
    problems: &mut Problems<'_>,
) -> (Params, Vec<Secret>) {
    let known: Vec<&str> = pack.params.keys().map(String::as_str).collect();
    unknown_params(rule, &known, problems);
    let foreign = ways(rule).into_iter().map(|(name, _)| name).find(|name| *name != "provider");
    if let Some(name) = foreign {
        let help = "keep one of the two; a rule of several is `any: [{ provider: … }, { … }]` (or `all`)";
        problems.note::<()>(&[name], format!("`{name}` has no place beside `provider`"), help);
    }
    let (mut values, mut secrets) = (Params::new(), Vec::new());
    for (name, param) in &pack.params {
        let Some(given) = rule.params.get(name).filter(|given| !given.0.0.is_empty()) else {
            if let Some(default) = &param.default {
                values.insert(name.clone(), default.clone());
            } else if param.required {
                problems.note::<()>(
                    &["provider"],
                    format!("{} needs `{name}`", pack.name),
                    format!("`{name}`: {}", param.about),
                );
            }
            continue;
        };
        let mut texts = Vec::new();
        for text in &given.0.0 {
            match param.kind {
                ParamKind::Text => match resolver.text(text) {
                    Ok(text) if text.is_empty() => {
                        problems.note(&[name], "the value is empty", &param.about).unwrap_or_default()
                    }
                    Ok(text) => texts.push(text),
                    Err(message) => {
                        problems.note(&[name], message, super::REFERENCE_HELP).unwrap_or_default()
                    }
                },
                ParamKind::Roots => {
                    match resolver.text(text).and_then(|pem| Roots::pinned(&pem).map(|_| pem)) {
                        Ok(pem) => texts.push(pem),
                        Err(message) => {
                            problems.note(&[name], message, super::REFERENCE_HELP).unwrap_or_default()
                        }
                    }
                }
                ParamKind::Credential => match resolver.secret(text).map(|secret| text_of(&secret)) {
                    Ok(Some(text)) => texts.push(text),
                    Ok(None) => {
                        problems.note(&[name], "the value is no text", &param.about).unwrap_or_default()
                    }
                    Err(message) => {
                        problems.note(&[name], message, super::REFERENCE_HELP).unwrap_or_default()
                    }
                },
                ParamKind::Secret => match resolver.secret(text) {
                    Ok(secret) => secrets.push(secret),
                    Err(message) => {
                        problems.note(&[name], message, super::REFERENCE_HELP).unwrap_or_default()
                    }
                },
            }
        }
        values.insert(name.clone(), texts);
    }
    (values, secrets)
}

fn text_of(secret: &Secret) -> Option<String> {
    std::str::from_utf8(secret.expose()).ok().map(str::to_owned)
}

/// Checks a pack's ways by themselves, as if a user had given all that they ask for. The errors are for the pack's
/// author.
pub fn check_pack(pack: &Pack) -> Result<(), Vec<SpecProblem>> {
    /// Gives something well-formed for whatever is asked.
    struct Anything;
    impl Resolver for Anything {
        fn secret(&self, _: &str) -> Result<Secret, String> {
            // Long enough for a JWT, and valid as text, hex and base64.
            Ok(Secret::new(b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_vec()))
        }
        fn text(&self, reference: &str) -> Result<String, String> {
            Ok(reference.to_owned())
        }
        fn keys(&self, _: Remote) -> Result<Arc<dyn KeySource>, String> {
            Ok(Arc::new(NoKeys))
        }
        fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
            Err(format!("a pack can't use another one (`{name}`)"))
        }
    }
    let mut list = Vec::new();
    // Roots are the one kind of which nothing made up is well-formed; they may all be left out.
    let anything = |(name, param): (&String, &PackParam)| match (&param.default, param.kind) {
        (Some(default), _) => Some((name.clone(), default.clone())),
        (None, ParamKind::Roots) => None,
        (None, _) => Some((name.clone(), vec!["x".to_owned()])),
    };
    let params = pack.params.iter().filter_map(anything).collect();
    let building = Building { resolver: &Anything, params: &params };
    let secret = [SecretSpec::of("env:X".to_owned())];
    for (at, way) in pack.verify.iter().enumerate() {
        let problems = &mut Problems::new(&mut list);
        let problems = &mut problems.within(&["verify", &at.to_string()]);
        for (key, given) in [
            ("secret", way.secret.is_some()),
            ("secrets", way.secrets.is_some()),
            ("public_keys", way.public_keys.is_some()),
            ("provider", way.provider.is_some()),
            ("scheme", way.scheme.is_some()),
            ("any", way.any.is_some()),
            ("all", way.all.is_some()),
            ("tolerance", way.tolerance.is_some()),
            ("basic", way.basic.is_some()),
        ] {
            if given {
                let help = "a pack holds no keys: each user gives them beside `provider`";
                problems.note::<()>(&[key], format!("`{key}` has no place in a pack"), help);
            }
        }
        unknown_params(way, &[], problems);
        match ways(way).as_slice() {
            [(_, Way::Scheme(scheme, _))] => {
                let asymmetric = is_asymmetric(way);
                let given = Given {
                    secrets: if asymmetric { &[] } else { &secret },
                    public_keys: &[],
                    param_secrets: &[],
                    tolerance: None,
                };
                let count = problems.count();
                build_scheme::build(scheme, given, &building, problems, &[]);
                if asymmetric {
                    // No key fits every algorithm: that there is none is no fault of the pack.
                    problems.forget(count, &["public_keys"]);
                }
            }
            [(_, Way::Jwt | Way::HttpSignature | Way::ApiKey | Way::Bearer)] => {
                let keys = if is_fetched(way) { &[][..] } else { &secret[..] };
                inner(way, keys, &[], &[], &building, problems);
            }
            _ => {
                let message = "a way is one scheme, `jwt`, `http_signature`, `api_key` or `bearer`";
                let help = "write each way as an item of its own in the list `verify`";
                problems.note::<()>(&[], message, help);
            }
        }
    }
    handshake::check_pack(pack, &Anything, &mut Problems::new(&mut list));
    if list.is_empty() { Ok(()) } else { Err(list) }
}
