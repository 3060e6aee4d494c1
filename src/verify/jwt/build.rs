//! From a written JWT rule to a compiled one.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::keys::{Key, KeySet, decoding};
use super::{ClaimDigest, Jwt, crypto};
use crate::verify::build::{Building, Problems, digest_hash, encoding};
use crate::verify::build_keys;
use crate::verify::locate::Location;
use crate::verify::public_key::{Asymmetric, PublicKey};
use crate::verify::remote::{Address, Document, FixedKeys, Remote, Roots, X5c, checked_url};
use crate::verify::spec::{ClaimDigestSpec, JwtSpec, SecretSpec, X5cSpec};
use crate::verify::time;

const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// Shared secrets for tokens are at least as long as RFC 7518 (section 3.2) asks for HS256.
const MIN_SECRET: usize = 32;
/// Providers that issue shorter ones are taken as they are, down to this.
const LEAST_SECRET: usize = 8;

const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "EdDSA",
];

/// Compiles what stands under `jwt:`. Keys given beside it (by a pack's user) are `more_secrets` and `more_keys`.
pub(in crate::verify) fn build(
    spec: &JwtSpec,
    more_secrets: &[SecretSpec],
    more_keys: &[SecretSpec],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<Jwt> {
    crypto::install();
    let algorithms = algorithms(spec, problems);
    let location = location(spec, problems);
    let min_secret = spec.min_secret.unwrap_or(MIN_SECRET);
    if min_secret < LEAST_SECRET {
        problems.note::<()>(
            &["min_secret"],
            format!("at least {LEAST_SECRET} bytes"),
            "leave it out for 32, as RFC 7518 asks",
        );
    }
    let mut keys = Vec::new();
    let shared: Vec<Algorithm> = family(&algorithms, AlgorithmFamily::Hmac);
    let secrets = spec.secrets.as_deref().unwrap_or_default();
    for (at, secret) in secrets.iter().chain(more_secrets).enumerate() {
        let at = at.to_string();
        if let Some(secret_bytes) = building.secret(secret, &["secrets", &at], problems) {
            if secret_bytes.expose().len() < min_secret {
                problems.note::<()>(
                    &["secrets", &at],
                    format!("the secret has {} bytes: too weak for a JWT", secret_bytes.expose().len()),
                    format!("use at least {min_secret} random bytes"),
                );
                continue;
            }
            keys.push(Key {
                kid: None,
                label: secret.label.as_deref().map(Into::into),
                window: building.window(secret, &["secrets", &at], problems),
                algorithms: shared.clone(),
                key: DecodingKey::from_secret(secret_bytes.expose()),
            });
        }
    }
    if shared.is_empty() && !(secrets.is_empty() && more_secrets.is_empty()) {
        let message = "secrets are for HS256, HS384 and HS512, and none is in `algorithms`";
        let help = "add such as `HS256` to `algorithms`, or give `public_keys` or `jwks` instead";
        problems.note::<()>(&["secrets"], message, help);
    }
    let public_keys = spec.public_keys.as_deref().unwrap_or_default();
    for (at, key) in public_keys.iter().chain(more_keys).enumerate() {
        let at = at.to_string();
        if let Some(text) = building.public_key(&key.secret, &["public_keys", &at], problems) {
            match public_key(&text, &algorithms) {
                Ok((algorithms, decoding)) => keys.push(Key {
                    kid: None,
                    label: key.label.as_deref().map(Into::into),
                    window: building.window(key, &["public_keys", &at], problems),
                    algorithms,
                    key: decoding,
                }),
                Err(message) => {
                    let help = "a public key in PEM or base64 DER, for one of the `algorithms`";
                    problems.note(&["public_keys", &at], message, help).unwrap_or_default()
                }
            }
        }
    }
    let set = match (&spec.jwks, &spec.key_source) {
        (Some(_), Some(_)) => problems.note(
            &["key_source"],
            "give either `jwks` or `key_source`, not both",
            "`jwks` where the keys are one set, `key_source` where each is fetched by itself",
        ),
        (Some(reference), None) => key_set(reference, spec.ca.as_deref(), &algorithms, building, problems),
        (None, Some(source)) => {
            let problems = &mut problems.within(&["key_source"]);
            if source.from.is_some() || source.urls.is_some() {
                problems.note::<()>(
                    &["from"],
                    "a token names its key by `kid`: `url` with `{key}` in it, or in `post`",
                    "remove `from`",
                );
            }
            let built = build_keys::build(source, "jwk", building, problems);
            built.map(|(remote, source)| {
                let per_key = !matches!(remote.address, Address::Fixed(_));
                KeySet::new(source, per_key, algorithms.clone())
            })
        }
        (None, None) => None,
    };
    let fetched = spec.jwks.is_some() || spec.key_source.is_some();
    let x5c = spec.x5c.as_ref().map(|spec| x5c(spec, building, &mut problems.within(&["x5c"])));
    if fetched && !algorithms.is_empty() && shared.len() == algorithms.len() {
        problems.note::<()>(
            &["jwks"],
            "keys of a set are public and never used for HS256, HS384 or HS512",
            "name the algorithms of the set's keys, such as `[RS256]`, or give `secrets`",
        );
    }
    if !fetched
        && spec.x5c.is_none()
        && secrets.len() + public_keys.len() + more_secrets.len() + more_keys.len() == 0
    {
        problems.note::<()>(&[], "there is no key", "give `secrets`, `public_keys` or `jwks: https://…`");
    }
    let leeway = duration(spec.leeway.as_deref(), "leeway", problems).unwrap_or(DEFAULT_LEEWAY);
    if leeway > MAX_LEEWAY {
        problems.note::<()>(
            &["leeway"],
            "the leeway may be at most 300s",
            "`60s` is the default; for tokens that live long there is `max_age`",
        );
    }
    let texts = |given: &Option<crate::verify::spec::Texts>, key: &str, problems: &mut Problems<'_>| {
        let given = given.as_ref().map(|texts| texts.0.as_slice());
        if given.is_some_and(<[String]>::is_empty) {
            problems.note::<()>(
                &[key],
                "the list is empty: leave the key out to accept any",
                "name what is accepted, or remove the key",
            );
        }
        building.expand_given(given.unwrap_or_default(), &[key], problems)
    };
    let issuers = texts(&spec.issuer, "issuer", problems);
    let audiences = texts(&spec.audience, "audience", problems);
    let mut claims = Vec::new();
    for (name, values) in spec.required_claims.iter().flat_map(|claims| &claims.0) {
        claims.push((name.clone(), building.expand_all(&values.0, &["required_claims", name], problems)));
    }
    let max_age = duration(spec.max_age.as_deref(), "max_age", problems);
    let body_hash = spec.body_hash.as_ref().map(|claim| claim_digest(claim, "body_hash", problems));
    let url_hash = spec.url_hash.as_ref().map(|claim| claim_digest(claim, "url_hash", problems));
    // What a set holds is not known yet; it is never shared secrets.
    let kept = |algorithm: &Algorithm| keys.iter().any(|key: &Key| key.algorithms.contains(algorithm));
    let in_set = |algorithm: &Algorithm| {
        (fetched || spec.x5c.is_some()) && algorithm.family() != AlgorithmFamily::Hmac
    };
    let idle = algorithms.iter().copied().filter(|one| !kept(one) && !in_set(one)).collect();
    Some(Jwt {
        idle,
        location: location?,
        bare: spec.from.is_some(),
        algorithms,
        keys,
        set,
        x5c: match x5c {
            None => None,
            Some(built) => Some(built?),
        },
        issuers,
        audiences,
        claims,
        body_hash: body_hash.flatten(),
        url_hash: url_hash.flatten(),
        leeway,
        max_age,
        expires: spec.expires.unwrap_or(true),
        signable: building.resolver.signable(),
    })
}

fn algorithms(spec: &JwtSpec, problems: &mut Problems<'_>) -> Vec<Algorithm> {
    let mut algorithms = Vec::new();
    for (at, name) in spec.algorithms.0.iter().enumerate() {
        match name.parse::<Algorithm>() {
            Ok(algorithm) => algorithms.push(algorithm),
            Err(_) => {
                problems.unknown::<()>(&["algorithms", &at.to_string()], "algorithm", name, ALGORITHMS);
            }
        }
    }
    if spec.algorithms.0.is_empty() {
        problems.note::<()>(
            &["algorithms"],
            "the accepted algorithms must be named",
            "such as `algorithms: [RS256]`; they are never taken from the token",
        );
    }
    algorithms
}

fn family(algorithms: &[Algorithm], family: AlgorithmFamily) -> Vec<Algorithm> {
    algorithms.iter().copied().filter(|algorithm| algorithm.family() == family).collect()
}

/// Reads a key for whichever of the pinned algorithms it fits.
pub(super) fn public_key(
    text: &str,
    algorithms: &[Algorithm],
) -> Result<(Vec<Algorithm>, DecodingKey), String> {
    let mut error = "public keys are for RS*, PS*, ES* and EdDSA, and none is in `algorithms`".to_owned();
    let kinds = [
        (Asymmetric::RsaPkcs1Sha256, family(algorithms, AlgorithmFamily::Rsa)),
        (
            Asymmetric::EcdsaP256Sha256,
            algorithms.iter().copied().filter(|a| *a == Algorithm::ES256).collect(),
        ),
        (
            Asymmetric::EcdsaP384Sha384,
            algorithms.iter().copied().filter(|a| *a == Algorithm::ES384).collect(),
        ),
        (Asymmetric::Ed25519, family(algorithms, AlgorithmFamily::Ed)),
    ];
    for (kind, fits) in kinds.into_iter().filter(|(_, fits)| !fits.is_empty()) {
        match PublicKey::parse(kind, text) {
            Ok(key) => {
                return Ok((fits, decoding(&key)));
            }
            Err(message) => error = message,
        }
    }
    Err(error)
}

fn location(spec: &JwtSpec, problems: &mut Problems<'_>) -> Option<Location> {
    let (key, place) = match (&spec.header, &spec.from) {
        (Some(_), Some(_)) => {
            return problems.note(
                &["from"],
                "give either `header` or `from`, where the token is",
                "`header: NAME` for a header, `from: body:/token` for another place",
            );
        }
        (None, Some(place)) if place == "body" => return Some(Location::Whole),
        (None, Some(place)) => ("from", place.clone()),
        (header, None) => ("header", format!("header:{}", header.as_deref().unwrap_or("authorization"))),
    };
    match Location::parse(&place) {
        Ok(location) => Some(location),
        Err(message) => problems.note(&[key], message, crate::verify::PLACE_HELP),
    }
}

fn x5c(spec: &X5cSpec, building: &Building<'_>, problems: &mut Problems<'_>) -> Option<X5c> {
    let reference = building.expand(&spec.roots, &["roots"], problems)?;
    let pem = building.text(&reference, &["roots"], problems)?;
    let list = |texts: &Option<crate::verify::spec::Texts>| texts.clone().unwrap_or_default().0;
    match Roots::pinned(&pem) {
        Ok(roots) => {
            Some(X5c { roots, leaf: list(&spec.leaf_extensions), issuer: list(&spec.issuer_extensions) })
        }
        Err(message) => problems.note(&["roots"], message, "certificates in PEM, such as `file:roots.pem`"),
    }
}

fn key_set(
    reference: &str,
    ca: Option<&str>,
    algorithms: &[Algorithm],
    building: &Building<'_>,
    problems: &mut Problems<'_>,
) -> Option<KeySet> {
    let reference = &building.expand(reference, &["jwks"], problems)?;
    if reference.starts_with("https://") || reference.starts_with("http://") {
        let url = match checked_url(reference) {
            Ok(url) => url,
            Err(message) => {
                return problems.note(
                    &["jwks"],
                    message,
                    "such as `https://issuer.example/.well-known/jwks.json`",
                );
            }
        };
        let ca = match ca {
            None => None,
            Some(text) => build_keys::ca(text, &["ca"], building, problems),
        };
        return match building.resolver.keys(Remote { ca, ..Remote::jwks(url) }) {
            Ok(source) => Some(KeySet::new(source, false, algorithms.to_vec())),
            Err(message) => problems.note(
                &["jwks"],
                message,
                "such as `https://issuer.example/.well-known/jwks.json`, or `file:keys.json`",
            ),
        };
    }
    if ca.is_some() {
        problems.note::<()>(
            &["ca"],
            "`ca` is for keys that are fetched",
            "remove it, or give `jwks` as `https://…`",
        );
    }
    let text = building.text(reference, &["jwks"], problems)?;
    let set: JwkSet = match serde_json::from_str(&text) {
        Ok(set) => set,
        Err(error) => {
            return problems.note(
                &["jwks"],
                format!("this is not a JSON Web Key Set: {error}"),
                "give `https://…`, or `file:PATH` of a document with `keys`",
            );
        }
    };
    if !set.keys.iter().any(|jwk| Key::of(jwk).is_some()) {
        return problems.note(
            &["jwks"],
            "the key set holds no key that can verify a signature",
            "it needs a key of kind RSA, EC or OKP whose `use` is `sig` (or that names none)",
        );
    }
    let source = Arc::new(FixedKeys(Arc::new(Document::of_set(set))));
    Some(KeySet::new(source, false, algorithms.to_vec()))
}

fn claim_digest(spec: &ClaimDigestSpec, key: &str, problems: &mut Problems<'_>) -> Option<ClaimDigest> {
    let hash = digest_hash(spec.hash.as_deref(), &[key, "hash"], problems);
    let encoding = encoding(spec.encoding.as_deref().or(Some("hex")), &[key, "encoding"], problems);
    let absent_if_empty = spec.absent_if_empty.unwrap_or(false);
    Some(ClaimDigest { claim: spec.claim.clone(), hash: hash?, encoding: encoding?, absent_if_empty })
}

fn duration(text: Option<&str>, key: &str, problems: &mut Problems<'_>) -> Option<Duration> {
    match time::duration(text?) {
        Ok(duration) => Some(duration),
        Err(message) => problems.note(&[key], message, "such as `60s`"),
    }
}
