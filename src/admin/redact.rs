//! Which header and parameter values of a stored event are secrets and never shown, and with them what the config wants
//! hidden (`redact`), in bodies too.
//!
//! A signature proves one request and is shown, since it is what one looks at when verification is in doubt. A
//! credential proves every request and is hidden: known names, names that sound like one, and whatever the route's own
//! verification reads unless it is clearly part of a signature scheme.

use std::borrow::Cow;

use crate::buffer::Asked;
use crate::redact::{HIDDEN, Rules};
use crate::verify::{CredentialPlaces, decode_form};

/// The rule for the events of one route.
#[derive(Clone, Debug, Default)]
pub struct Redact {
    /// Lower case names that the route's verification reads.
    read_by_verification: Vec<String>,
    /// Where it reads credentials.
    credentials: CredentialPlaces,
    /// The segment of the path (from 0) that holds what only a client's URL has.
    endpoint: Option<usize>,
    /// What the config says.
    rules: Rules,
    /// Whether the config's rules hide where these come from.
    hides_key: bool,
    hides_type: bool,
}

const CREDENTIALS: &[&str] = &["authorization", "proxy-authorization", "cookie", "set-cookie"];
/// What makes a name a credential wherever it stands in it (`accessToken`).
const CREDENTIAL_PARTS: &[&str] = &["token", "secret", "passw", "apikey", "credential"];

/// Parts of a name, between `-`, `_` and `.`, that make it a credential.
const CREDENTIAL_WORDS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "auth",
    "apikey",
    "key",
    "credential",
    "credentials",
    "session",
];
/// Names with such a part that are none.
const NOT_CREDENTIALS: &[&str] = &["idempotency-key", "x-idempotency-key", "x-request-key", "x-event-key"];
/// Parts of a name that make it a piece of a signature scheme.
const SIGNATURE_WORDS: &[&str] = &[
    "signature",
    "sig",
    "sign",
    "hmac",
    "sha1",
    "sha256",
    "sha512",
    "timestamp",
    "time",
    "date",
    "id",
    "digest",
    "version",
    "algorithm",
    "algo",
    "nonce",
    "host",
    "type",
    "event",
    "topic",
];

impl Redact {
    pub fn new(read_by_verification: Vec<String>, credentials: CredentialPlaces) -> Self {
        let rules = Rules::of_credentials(&credentials.body, &credentials.form);
        Self { read_by_verification, credentials, rules, ..Self::default() }
    }

    /// The same, and this segment of the path (from 0) is a secret.
    pub fn with_endpoint(self, endpoint: Option<usize>) -> Self {
        Self { endpoint, ..self }
    }

    /// The same, with what the config wants hidden. `key` and `kind`: the places of idempotency key and event type.
    pub fn with_rules(self, rules: Rules, key: &[String], kind: &[String]) -> Self {
        let rules = self.rules.and(&rules);
        let hides = |places: &[String]| places.iter().any(|place| rules.hides_place(place));
        let (hides_key, hides_type) = (hides(key), hides(kind));
        Self { rules, hides_key, hides_type, ..self }
    }

    /// Whether what is taken from a place, as it stands in the config, stays hidden.
    pub fn hides_place(&self, place: &str) -> bool {
        let is_credential = place.strip_prefix("header:").is_some_and(|name| self.hides(name));
        is_credential || self.rules.hides_place(place)
    }

    /// A body as it is shown.
    pub fn body<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        self.rules.body(body)
    }

    pub fn idempotency_key(&self, key: Option<&str>) -> Option<String> {
        key.map(|key| if self.hides_key { HIDDEN } else { key }.to_owned())
    }

    pub fn event_type(&self, kind: Option<&str>) -> Option<String> {
        kind.map(|kind| if self.hides_type { HIDDEN } else { kind }.to_owned())
    }

    /// Whether a search for this would tell what is hidden.
    pub fn hides_asked(&self, asked: Asked<'_>) -> bool {
        match asked {
            Asked::Header(name) => self.hides(name),
            Asked::Body(pointer) => self.rules.hides_at(pointer),
            Asked::IdempotencyKey => self.hides_key,
            Asked::EventType => self.hides_type,
        }
    }

    fn path(&self, path: &str) -> String {
        let Some(hidden) = self.endpoint else { return path.to_owned() };
        let segments = path.split('/').enumerate();
        // The first is what stands before the first slash: nothing.
        let shown = segments.map(|(at, segment)| if at == hidden + 1 { HIDDEN } else { segment });
        shown.collect::<Vec<_>>().join("/")
    }

    /// Whether the value of header `name` stays hidden.
    pub fn hides(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        is_credential(&name)
            || self.rules.hides_header(&name)
            || self.credentials.headers.contains(&name)
            || (self.read_by_verification.contains(&name) && !has_word(&name, SIGNATURE_WORDS))
    }

    /// A target with the values of secret query parameters replaced.
    pub fn target(&self, target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else { return self.path(target) };
        let path = self.path(path);
        let parts: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) if !value.is_empty() && self.hides_parameter(name) => {
                    format!("{name}={HIDDEN}")
                }
                _ => part.to_owned(),
            })
            .collect();
        format!("{path}?{}", parts.join("&"))
    }

    /// `name` as it was sent: whoever writes it with escapes means the same.
    fn hides_parameter(&self, name: &str) -> bool {
        let name = decode_form(name.as_bytes());
        let name = String::from_utf8_lossy(&name);
        self.credentials.query.iter().any(|known| *known == name) || is_credential(&name.to_ascii_lowercase())
    }
}

fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name)
        || CREDENTIAL_PARTS.iter().any(|part| name.contains(part))
        || (has_word(name, CREDENTIAL_WORDS) && !NOT_CREDENTIALS.contains(&name))
}

fn has_word(name: &str, words: &[&str]) -> bool {
    name.split(['-', '_', '.']).any(|part| words.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_and_signatures_shown() {
        let redact = Redact::new(
            vec!["x-hub-signature-256".into(), "x-shop-pass".into(), "webhook-id".into()],
            CredentialPlaces::default(),
        );
        for hidden in [
            "Authorization",
            "Cookie",
            "X-Gitlab-Token",
            "X-API-Key",
            "x-functions-key",
            "X-Shop-Pass",
            "X-AccessToken",
        ] {
            assert!(redact.hides(hidden), "{hidden}");
        }
        for shown in ["X-Hub-Signature-256", "Webhook-Id", "Content-Type", "Idempotency-Key", "X-Keyboard"] {
            assert!(!redact.hides(shown), "{shown}");
        }
    }

    #[test]
    fn what_verification_takes_for_a_credential_is_hidden_whatever_its_name() {
        let places = CredentialPlaces {
            headers: vec!["x-client-id".into()],
            query: vec!["k".into()],
            ..CredentialPlaces::default()
        };
        let redact = Redact::new(vec!["x-client-id".into()], places);
        assert!(redact.hides("X-Client-Id"));
        assert_eq!(redact.target("/h?k=abc&%6B=abc&K=x"), "/h?k=(hidden)&%6B=(hidden)&K=x");
    }

    #[test]
    fn secret_parameters_are_hidden_in_place() {
        let redact = Redact::default();
        assert_eq!(
            redact.target("/h/a%20b?x=1&api_key=abc&token=&y&api%5Fkey=abc&accessToken=abc"),
            "/h/a%20b?x=1&api_key=(hidden)&token=&y&api%5Fkey=(hidden)&accessToken=(hidden)"
        );
        assert_eq!(redact.target("/h"), "/h");
        assert_eq!(redact.target("/h?Token=t=u"), "/h?Token=(hidden)");
    }
}
