//! Which header and parameter values of a stored event are secrets and never shown. (The raw body is what the
//! operator asked for, and `/events/{id}/body` gives it; secrets in headers are the senders' credentials.)
//!
//! A signature proves one request and is shown, since it is what one looks at when verification is in doubt. A
//! credential proves every request and is hidden: known names, names that sound like one, and whatever the route's own
//! verification reads unless it is clearly part of a signature scheme.

/// The rule for one event's headers.
#[derive(Clone, Debug, Default)]
pub struct Redact {
    /// Lower case names that the route's verification reads.
    read_by_verification: Vec<String>,
}

const HIDDEN: &str = "(hidden)";

const CREDENTIALS: &[&str] = &["authorization", "proxy-authorization", "cookie", "set-cookie"];
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
    pub fn new(read_by_verification: Vec<String>) -> Self {
        Self { read_by_verification }
    }

    /// Whether the value of header `name` stays hidden.
    pub fn hides(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        is_credential(&name)
            || (self.read_by_verification.contains(&name) && !has_word(&name, SIGNATURE_WORDS))
    }

    /// A target with the values of secret query parameters replaced.
    pub fn target(target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
        let parts: Vec<String> = query
            .split('&')
            .map(|part| match part.split_once('=') {
                Some((name, value)) if !value.is_empty() && is_credential(&name.to_ascii_lowercase()) => {
                    format!("{name}={HIDDEN}")
                }
                _ => part.to_owned(),
            })
            .collect();
        format!("{path}?{}", parts.join("&"))
    }
}

fn is_credential(name: &str) -> bool {
    CREDENTIALS.contains(&name) || (has_word(name, CREDENTIAL_WORDS) && !NOT_CREDENTIALS.contains(&name))
}

fn has_word(name: &str, words: &[&str]) -> bool {
    name.split(['-', '_', '.']).any(|part| words.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_and_signatures_shown() {
        let redact =
            Redact::new(vec!["x-hub-signature-256".into(), "x-shop-pass".into(), "webhook-id".into()]);
        for hidden in
            ["Authorization", "Cookie", "X-Gitlab-Token", "X-API-Key", "x-functions-key", "X-Shop-Pass"]
        {
            assert!(redact.hides(hidden), "{hidden}");
        }
        for shown in ["X-Hub-Signature-256", "Webhook-Id", "Content-Type", "Idempotency-Key", "X-Keyboard"] {
            assert!(!redact.hides(shown), "{shown}");
        }
    }

    #[test]
    fn secret_parameters_are_hidden_in_place() {
        assert_eq!(
            Redact::target("/h/a%20b?x=1&api_key=abc&token=&y"),
            "/h/a%20b?x=1&api_key=(hidden)&token=&y"
        );
        assert_eq!(Redact::target("/h"), "/h");
        assert_eq!(Redact::target("/h?Token=t=u"), "/h?Token=(hidden)");
    }
}
