//! From a written key source to a description that can be fetched.

use std::sync::Arc;

use http::Uri;

use super::KeySource;
use super::build::{Building, Problems};
use super::build_scheme::{lift, location};
use super::fetched::Fetched;
use super::json::Pointer;
use super::public_key::Asymmetric;
use super::remote::{Address, CertificateRule, Fill, Format, Oauth, Remote, Roots, UrlPattern, checked_url};
use super::spec::{KeySourceSpec, OauthSpec, SecretSpec};
use crate::secret::Secret;

/// What stands for the key's name.
const KEY: &str = "{key}";

/// Compiles what stands under `key_source`; `problems` stands there. `default_format` is what the answer is unless
/// the source says otherwise.
pub(super) fn build(
    spec: &KeySourceSpec,
    default_format: &str,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<(Remote, Arc<dyn KeySource>)> {
    let before = problems.count();
    let ca = spec.ca.as_deref().and_then(|reference| ca(reference, &["ca"], building, problems));
    let address = address(spec, building, problems);
    // What is filled into JSON stands inside its strings.
    let inside = |text: &String| {
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let params =
        building.params.iter().map(|(name, texts)| (name.clone(), texts.iter().map(inside).collect()));
    let json = Building { resolver: building.resolver, params: &params.collect() };
    let post = spec.post.as_deref().and_then(|text| fill(text, &["post"], &json, problems));
    let mut headers = Vec::new();
    for (name, text) in &spec.headers {
        let legal = super::locate::is_token(name);
        match fill(text, &["headers", name], building, problems) {
            Some(Fill(value)) if legal => headers.push((name.clone(), value)),
            Some(_) => problems
                .note(&["headers", name], "this is not a header name", "letters, digits and `-`")
                .unwrap_or_default(),
            None => {}
        }
    }
    let oauth = spec.oauth.as_ref().map(|spec| oauth(spec, building, &mut problems.within(&["oauth"])));
    let format = format(spec, default_format, ca.as_deref(), building, problems);
    if problems.count() > before {
        return None;
    }
    let remote = Remote { address: address?, post, headers, oauth: oauth.flatten(), format: format?, ca };
    match building.resolver.keys(remote.clone()) {
        Ok(source) => Some((remote, source)),
        Err(message) => {
            problems.note(&["url"], message, "such as `https://keys.example/key`: only https is fetched")
        }
    }
}

/// Compiles the `key_source` of a scheme.
pub(super) fn fetched(
    algorithm: Asymmetric,
    spec: &KeySourceSpec,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Fetched> {
    let built = build(spec, "key", building, problems);
    let named = spec.from.as_deref().map(|text| location(text, &["from"], problems));
    let (remote, source) = built?;
    if remote.format.is_jwk() {
        return problems.note(
            &["format"],
            "JSON Web Keys are for tokens (`jwt`)",
            "such as `pem`, as the sender publishes its key",
        );
    }
    match (&remote.address, named.is_some()) {
        (Address::Fixed(_), true) => problems.note(
            &["from"],
            "the address is fixed: nothing is named (`{key}` stands for a key's name)",
            "remove `from`, or put `{key}` into `url`",
        ),
        (Address::PerKey(_) | Address::Named(_), false) => problems.note(
            &["from"],
            "where the request names its key, is missing",
            "such as `from: header:X-Key-Id`",
        ),
        _ => Some(Fetched { algorithm, source, named: lift(named)? }),
    }
}

/// Roots for a connection, checked to be some. A parameter that is not given is none.
pub(super) fn ca(
    reference: &str,
    at: &[&str],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Arc<str>> {
    let reference = match reference.strip_prefix("{param:").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => building.param(name)?,
        None => reference.to_owned(),
    };
    let pem = building.text(&reference, at, problems)?;
    match Roots::pinned(&pem) {
        Ok(_) => Some(pem.into()),
        Err(message) => problems.note(at, message, "certificates in PEM, such as `file:roots.pem`"),
    }
}

fn address(spec: &KeySourceSpec, building: &Building<'_>, problems: &mut Problems<'_>) -> Option<Address> {
    match (&spec.url, &spec.urls) {
        (Some(url), None) => {
            let url = building.expand(url, &["url"], problems)?;
            let per_key = url.contains(KEY) || spec.post.as_deref().is_some_and(|post| post.contains(KEY));
            match checked_url(&url.replace(KEY, "key")) {
                Ok(uri) if !per_key => Some(Address::Fixed(uri)),
                Ok(uri) if host_of(&url) == uri.host() => Some(Address::PerKey(url)),
                Ok(_) => problems.note(
                    &["url"],
                    "`{key}` can't be part of the host",
                    "whoever sends would choose where keys come from: put it into the path",
                ),
                Err(message) => problems.note(&["url"], message, "such as `https://keys.example/{key}`"),
            }
        }
        (None, Some(patterns)) => {
            let mut parsed = Vec::new();
            for text in building.expand_all(&patterns.0, &["urls"], problems) {
                match UrlPattern::parse(&text) {
                    Ok(pattern) => parsed.push(pattern),
                    Err(message) => problems
                        .note(&["urls"], message, "such as `https://keys.example/*.pem`")
                        .unwrap_or_default(),
                }
            }
            if parsed.is_empty() { None } else { Some(Address::Named(parsed)) }
        }
        _ => problems.note(
            &["url"],
            "a key source has either `url` or `urls`",
            "`url: https://…` for a fixed address, `urls` for patterns of addresses that requests name",
        ),
    }
}

fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    })
}

fn fill(text: &str, at: &[&str], building: &Building<'_>, problems: &mut Problems<'_>) -> Option<Fill> {
    building.expand(text, at, problems).map(|text| Fill(Secret::new(text.into_bytes())))
}

fn oauth(spec: &OauthSpec, building: &Building<'_>, problems: &mut Problems<'_>) -> Option<Oauth> {
    let url: Uri = match checked_url(&building.expand(&spec.url, &["url"], problems)?) {
        Ok(url) => url,
        Err(message) => {
            return problems.note(&["url"], message, "such as `https://issuer.example/oauth/token`");
        }
    };
    let client_secret = if spec.client_secret.contains("{param:") {
        let secret = building.expand(&spec.client_secret, &["client_secret"], problems)?;
        Secret::new(secret.into_bytes())
    } else {
        building.secret(&SecretSpec::of(spec.client_secret.clone()), &["client_secret"], problems)?
    };
    let client_id = building.expand(&spec.client_id, &["client_id"], problems)?;
    Some(Oauth { url, client_id, client_secret, scope: spec.scope.clone() })
}

fn format(
    spec: &KeySourceSpec,
    default: &str,
    ca: Option<&str>,
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Format> {
    let pointer = |text: &Option<String>, key: &str, problems: &mut Problems<'_>| match text.as_deref() {
        None => Some(None),
        Some(text) => match Pointer::parse(text) {
            Ok(pointer) => Some(Some(pointer)),
            Err(message) => problems.note(&[key], message, "a JSON pointer, such as `/keys/0/key`"),
        },
    };
    let at = pointer(&spec.at, "at", problems);
    let expires = pointer(&spec.expires, "expires", problems);
    let certificate = spec.certificate.clone().unwrap_or_default();
    let roots = match (certificate.chain.as_deref(), ca) {
        (Some("host"), _) => Some(Roots::Host),
        (None | Some("required"), None) => Some(Roots::Public),
        (None | Some("required"), Some(pem)) => Roots::pinned(pem).ok(),
        (Some(other), _) => {
            problems.unknown(&["certificate", "chain"], "chain", other, &["required", "host"])
        }
    };
    let names = certificate.names.map(|names| names.0).unwrap_or_default();
    let names = building.expand_all(&names, &["certificate", "names"], problems);
    let name = spec.format.as_deref().unwrap_or(default);
    if spec.certificate.is_some() && name != "certificate" {
        problems.note::<()>(
            &["certificate"],
            "`certificate` is for `format: certificate`",
            "remove it, or change the `format`",
        );
    }
    let (at, expires, rule) = (at?, expires?, CertificateRule { roots: roots?, names });
    match Format::new(name, rule, at, expires) {
        Some(format) => Some(format),
        None => problems.unknown(&["format"], "format", name, Format::NAMES),
    }
}
