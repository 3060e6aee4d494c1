//! From what stands under `verify:` to a rule that may run.

use std::sync::Arc;

use super::build::{Building, Params, Problems};
use super::build_scheme::{self, Given};
use super::check::{Check, How};
use super::compile_pack::provider;
use super::credentials::{Credential, Credentials, Dress};
use super::locate::Location;
use super::scheme::Labelled;
use super::spec::{Rule, SchemeSpec, SecretSpec, VerifySpec};
use super::window::{self, Window};
use super::{Compiled, Resolver, SpecProblem, Verifier, http_signature, jwt, nearest};
use crate::providers::Pack;
use crate::secret::Secret;

/// Longest name of a rule, in bytes.
const MAX_NAME: usize = 64;

/// Rules within rules; deeper ones are a mistake.
const MAX_DEPTH: usize = 8;

/// Compiles what stands under `verify:`. Everything that is wrong is reported at once; nothing is left to be found
/// out by a request.
pub fn compile(spec: &VerifySpec, resolver: &dyn Resolver) -> Result<Compiled, Vec<SpecProblem>> {
    let mut list = Vec::new();
    let mut packs = Vec::new();
    let check = match spec {
        VerifySpec::None => Some(Check::new("none", How::Open)),
        VerifySpec::Rule(rule) => {
            let problems = &mut Problems::new(&mut list);
            nameless(rule, problems);
            rule_of(rule, resolver, &mut packs, problems, 0)
        }
    };
    match check {
        Some(check) if list.is_empty() => {
            let pack = match packs.as_slice() {
                [first, rest @ ..] if rest.iter().all(|pack| pack.name == first.name) => Some(first.clone()),
                _ => None,
            };
            Ok(Compiled { verifier: Verifier::of(check, window::expiries(spec)), pack })
        }
        _ => {
            // A pack's ways share the user's keys: what is wrong with one is said once.
            let mut said = Vec::new();
            for problem in list {
                if !said.contains(&problem) {
                    said.push(problem);
                }
            }
            Err(said)
        }
    }
}

/// A rule that names a provider and gives no key, where the provider's own greeting will bring it: until then nobody is
/// proved. `None` for any other rule.
pub fn awaiting_keys(spec: &VerifySpec, resolver: &dyn Resolver) -> Option<Compiled> {
    let VerifySpec::Rule(rule) = spec else { return None };
    let name = rule.provider.as_deref()?;
    if rule.secret.is_some() || rule.secrets.is_some() || rule.public_keys.is_some() {
        return None;
    }
    let pack = resolver.pack(name).ok()?;
    if !pack.handshakes.iter().any(|handshake| handshake.show.is_some()) {
        return None;
    }
    // One of none must hold: none ever does.
    let check = Check::new(pack.name.as_str(), How::Any(Vec::new()));
    Some(Compiled { verifier: Verifier::of(check, Vec::new()), pack: Some(pack) })
}

/// The keys of a rule, for suggestions.
const RULE_KEYS: &[&str] = &[
    "provider",
    "secret",
    "secrets",
    "public_keys",
    "tolerance",
    "scheme",
    "jwt",
    "http_signature",
    "api_key",
    "basic",
    "bearer",
    "any",
    "all",
    "name",
    "algorithm",
    "signed",
    "matches",
    "signature",
    "timestamp",
    "id",
    "key",
    "body_digest",
    "each",
    "key_source",
    "if_equal",
    "only",
    "if_present",
    "if_absent",
];

/// What a rule's keys say proves the sender.
pub(super) enum Way<'r> {
    Provider(&'r str),
    Scheme(&'r SchemeSpec, &'static [&'static str]),
    Jwt,
    HttpSignature,
    ApiKey,
    Basic,
    Bearer,
    Any(&'r [VerifySpec]),
    All(&'r [VerifySpec]),
}

pub(super) fn ways(rule: &Rule) -> Vec<(&'static str, Way<'_>)> {
    let mut ways = Vec::new();
    let mut add = |name, way: Option<_>| ways.extend(way.map(|way| (name, way)));
    add("provider", rule.provider.as_deref().map(Way::Provider));
    add("scheme", rule.scheme.as_ref().map(|scheme| Way::Scheme(scheme, &["scheme"])));
    add("algorithm", (rule.inline != SchemeSpec::default()).then_some(Way::Scheme(&rule.inline, &[])));
    add("jwt", rule.jwt.as_ref().map(|_| Way::Jwt));
    add("http_signature", rule.http_signature.as_ref().map(|_| Way::HttpSignature));
    add("api_key", rule.api_key.as_ref().map(|_| Way::ApiKey));
    add("basic", rule.basic.as_ref().map(|_| Way::Basic));
    add("bearer", rule.bearer.as_ref().map(|_| Way::Bearer));
    add("any", rule.any.as_deref().map(Way::Any));
    add("all", rule.all.as_deref().map(Way::All));
    ways
}

fn rule_of(
    rule: &Rule,
    resolver: &dyn Resolver,
    packs: &mut Vec<Arc<Pack>>,
    problems: &mut Problems<'_>,
    depth: usize,
) -> Option<Check> {
    if depth >= MAX_DEPTH {
        return problems.note(
            &[],
            format!("rules within rules may be {MAX_DEPTH} deep"),
            "an `any` within an `any` (an `all` within an `all`) can be written as one list",
        );
    }
    let mut ways = ways(rule);
    let way = match (ways.pop(), ways.as_slice()) {
        (Some((_, way)), []) => way,
        (Some((last, _)), others) => {
            let names: Vec<_> = others.iter().map(|(name, _)| *name).chain([last]).collect();
            return problems.note(
                &[last],
                format!("a rule proves a sender in one way, this one has {}", names.join(", ")),
                "put several rules under `any` (one must hold) or `all` (all must hold)",
            );
        }
        (None, _) => {
            unknown_params(rule, &[], problems);
            return problems.note(
                &[],
                "the rule does not say what proves the sender",
                "name a `provider`, or a signature scheme, `jwt`, `http_signature`, `api_key`, `basic` or `bearer`; or write \
                 `verify: none` if nobody shall be proved",
            );
        }
    };
    let secrets = given_secrets(rule, problems);
    let before = problems.count();
    let check = match way {
        Way::Provider(name) => return provider(name, rule, &secrets, resolver, packs, problems),
        Way::Any(rules) => several(rules, "any", resolver, packs, problems, depth),
        Way::All(rules) => several(rules, "all", resolver, packs, problems, depth),
        Way::Scheme(scheme, within) => {
            let building = Building { resolver, params: &Params::new() };
            let public_keys = rule.public_keys.as_deref().unwrap_or_default();
            let tolerance = rule.tolerance.as_deref();
            let given = Given { secrets: &secrets, public_keys, param_secrets: &[], tolerance };
            let built = build_scheme::build(scheme, given, &building, problems, within);
            let by = scheme.algorithm.as_deref().unwrap_or("scheme");
            built.map(|scheme| Check::new(by, How::Scheme(Box::new(scheme))))
        }
        Way::HttpSignature => {
            let building = Building { resolver, params: &Params::new() };
            let public_keys = rule.public_keys.as_deref().unwrap_or_default();
            inner(rule, &secrets, public_keys, &[], &building, problems)
        }
        Way::Jwt | Way::ApiKey | Way::Basic | Way::Bearer => {
            let building = Building { resolver, params: &Params::new() };
            let own = &[][..];
            inner(rule, own, own, &[], &building, problems)
        }
    };
    let takes_keys = matches!(way, Way::Scheme(..) | Way::HttpSignature);
    let takes_tolerance = matches!(way, Way::Scheme(..));
    for (key, is_misplaced) in [
        ("secrets", !secrets.is_empty() && !takes_keys),
        ("public_keys", rule.public_keys.is_some() && !takes_keys),
        ("tolerance", rule.tolerance.is_some() && !takes_tolerance),
    ] {
        if is_misplaced {
            let key = if key == "secrets" && rule.secret.is_some() { "secret" } else { key };
            let help = match key {
                "tolerance" => "write it beside the `algorithm` of a scheme that signs a time, or remove it",
                _ => "write it beside the scheme (or within `jwt`, `any`, `all`) that verifies with it",
            };
            let message = format!("`{key}` has no meaning here: it goes into the rule it belongs to");
            problems.note::<()>(&[key], message, help);
        }
    }
    unknown_params(rule, &[], problems);
    point_at_secret(rule, before, problems);
    check
}

/// `secret` and `secrets` together.
fn given_secrets(rule: &Rule, problems: &mut Problems<'_>) -> Vec<SecretSpec> {
    if rule.secret.is_some() && rule.secrets.is_some() {
        problems.note::<()>(
            &["secret"],
            "give either `secret` or `secrets`, not both",
            "put all that are live into `secrets`",
        );
    }
    rule.secret.iter().chain(rule.secrets.iter().flatten()).cloned().collect()
}

/// What was noted about `secrets` is about `secret`, where that is what stands there.
pub(super) fn point_at_secret(rule: &Rule, since: usize, problems: &mut Problems<'_>) {
    if rule.secret.is_some() {
        problems.rename(since, &["secrets", "0"], &["secret"]);
    }
}

pub(super) fn unknown_params(rule: &Rule, known: &[&str], problems: &mut Problems<'_>) {
    for name in rule.params.keys().filter(|name| !known.contains(&name.as_str())) {
        let help = match nearest(name, RULE_KEYS.iter().chain(known).copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "see the reference of `verify`".to_owned(),
            None => format!("the pack takes {}", known.join(", ")),
        };
        problems.note::<()>(&[name], format!("unknown key `{name}`"), help);
    }
}

/// Only rules of an `any` have names.
fn nameless(rule: &Rule, problems: &mut Problems<'_>) {
    if rule.name.is_some() {
        let message = "`name` has no meaning here: it tells the rules of an `any` apart";
        problems.note::<()>(&["name"], message, "remove it");
    }
}

/// What a rule of an `any` is called.
fn name_of(rule: &Rule, rules: &[VerifySpec], at: usize, problems: &mut Problems<'_>) -> Option<Arc<str>> {
    let name = rule.name.as_deref()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(legal) {
        let help = format!("a name has letters, digits, `.`, `_` and `-`, at most {MAX_NAME}");
        return problems.note(&["name"], format!("`{name}` is not a name"), help);
    }
    let has_it = |other: &VerifySpec| matches!(other, VerifySpec::Rule(other) if other.name == rule.name);
    if rules[..at].iter().any(has_it) {
        let help = "ids count within the rule of a name: give each its own";
        return problems.note(&["name"], format!("another rule of this `any` is named `{name}`"), help);
    }
    Some(name.into())
}

fn several(
    rules: &[VerifySpec],
    word: &'static str,
    resolver: &dyn Resolver,
    packs: &mut Vec<Arc<Pack>>,
    problems: &mut Problems<'_>,
    depth: usize,
) -> Option<Check> {
    if rules.is_empty() {
        let help = format!(
            "list at least one rule, such as `{word}: [{{ provider: github, secret: env:NAME }}]`; to take requests from anyone, write `verify: none`"
        );
        return problems.note(&[word], format!("`{word}` is empty"), help);
    }
    let mut checks = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let problems = &mut problems.within(&[word, &at.to_string()]);
        match rule {
            VerifySpec::None => {
                let message = format!("`none` within `{word}` would make the rule mean nothing");
                problems.note::<()>(&[], message, "remove it; to take requests from anyone, write `verify: none` alone, and to try a rule out, `enforce: observe`");
            }
            VerifySpec::Rule(rule) => {
                let name = match word {
                    "any" => name_of(rule, rules, at, problems),
                    _ => {
                        nameless(rule, problems);
                        None
                    }
                };
                let check = rule_of(rule, resolver, packs, problems, depth + 1);
                checks.extend(check.map(|check| Check { name, ..check }));
            }
        }
    }
    if word == "any" {
        return Some(Check::new("any", How::Any(checks)));
    }
    let by = checks.iter().map(|check| &*check.by).collect::<Vec<_>>().join("+");
    Some(Check::new(by, How::All(checks)))
}

/// `jwt`, `api_key`, `basic` and `bearer`, with the keys that stand beside it for a pack's user.
pub(super) fn inner(
    rule: &Rule,
    secrets: &[SecretSpec],
    public_keys: &[SecretSpec],
    param_secrets: &[Secret],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Check> {
    let of = |by: &str, how: How| Check::new(by, how);
    if let Some(spec) = &rule.jwt {
        let problems = &mut problems.within(&["jwt"]);
        let jwt = jwt::build(spec, secrets, public_keys, building, problems)?;
        return Some(of("jwt", How::Jwt(Box::new(jwt))));
    }
    if let Some(spec) = &rule.http_signature {
        // Keys stand beside the rule, not within it.
        let signature = http_signature::build(spec, secrets, public_keys, building, problems)?;
        return Some(of("http-signature", How::HttpSignature(Box::new(signature))));
    }
    let keyed = |specs: &[SecretSpec], at: &str, problems: &mut Problems<'_>| {
        let before = problems.count();
        let mut keys = Vec::new();
        for (index, spec) in specs.iter().chain(secrets).enumerate() {
            let at = [at, &index.to_string()];
            let Some(secret) = building.secret(spec, &at, problems) else { continue };
            match Credential::new(None, &secret) {
                Ok(value) => keys.push(building.labelled(value, spec, &at, problems)),
                Err(message) => problems
                    .note(
                        &at,
                        message,
                        "`sha256:` and 64 hex digits stand for a key that is not to be seen here",
                    )
                    .unwrap_or_default(),
            }
        }
        for secret in param_secrets {
            keys.extend(Credential::new(None, secret).ok().map(Labelled::unnamed));
        }
        if keys.is_empty() && problems.count() == before {
            problems.note::<()>(
                &[at],
                "the list is empty: nobody could send",
                "name one by a reference, such as `[env:NAME]`",
            );
        }
        keys
    };
    if let Some(spec) = &rule.api_key {
        let problems = &mut problems.within(&["api_key"]);
        let place = match (&spec.header, &spec.query) {
            (Some(header), None) => format!("header:{header}"),
            (None, Some(query)) => format!("query:{query}"),
            _ => {
                return problems.note(
                    &[],
                    "give either `header` or `query`, where the key is",
                    "such as `header: X-Api-Key`",
                );
            }
        };
        let keys = keyed(&spec.keys, "keys", problems);
        return match Location::parse(&place) {
            Ok(at) => Some(of("api_key", How::Credentials(Credentials { at, dress: Dress::Bare, keys }))),
            Err(message) => {
                problems.note(&["header"], message, "such as `X-Api-Key`: letters, digits and `-`")
            }
        };
    }
    let at = Location::Header("authorization".into());
    if let Some(spec) = &rule.bearer {
        let keys = keyed(&spec.tokens, "tokens", &mut problems.within(&["bearer"]));
        return Some(of("bearer", How::Credentials(Credentials { at, dress: Dress::Bearer, keys })));
    }
    let spec = rule.basic.as_ref()?;
    let problems = &mut problems.within(&["basic", "users"]);
    let mut keys = Vec::new();
    for (index, user) in spec.users.iter().enumerate() {
        let index = index.to_string();
        if user.name.is_empty() || user.name.contains(':') {
            problems.note::<()>(
                &[&index, "name"],
                "a user's name is not empty and has no `:`",
                "the password stands apart, in `password`",
            );
        }
        let at = [index.as_str(), "password"];
        let Some(secret) = building.secret(&SecretSpec::of(user.password.clone()), &at, problems) else {
            continue;
        };
        match Credential::new(Some(&user.name), &secret) {
            Ok(value) => {
                let label = Some(user.name.as_str().into());
                keys.push(Labelled { value, label, window: Window::default() });
            }
            Err(message) => problems
                .note(&at, message, "`sha256:` and 64 hex digits stand for a key that is not to be seen here")
                .unwrap_or_default(),
        }
    }
    if spec.users.is_empty() {
        problems.note::<()>(
            &[],
            "the list is empty: nobody could send",
            "such as `users: [{ name: sender, password: env:NAME }]`",
        );
    }
    Some(of("basic", How::Credentials(Credentials { at, dress: Dress::Basic, keys })))
}
