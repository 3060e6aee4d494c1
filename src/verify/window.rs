//! When a key is live: windows of time for rotation, and what of a rule's keys will expire.

use std::time::Duration;

use super::spec::{Rule, SecretSpec, VerifySpec};
use super::time::TimeFormat;
use crate::clock::Timestamp;

/// The time in which a key verifies: from `from` (inclusive) until `until` (exclusive). Without them, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    from: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Window {
    /// What `spec` says; the error names the key that is wrong.
    pub(super) fn of(spec: &SecretSpec) -> Result<Self, (&'static str, String)> {
        let time = |key: &'static str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => match TimeFormat::Rfc3339.parse(text.as_bytes()) {
                Some(time) => Ok(Some(time)),
                None => Err((key, format!("`{text}` is not a time with its zone"))),
            },
        };
        let window = Self { from: time("from", &spec.from)?, until: time("until", &spec.until)? };
        match window {
            Self { from: Some(from), until: Some(until) } if from >= until => {
                Err(("until", "the secret would end before it begins".to_owned()))
            }
            window => Ok(window),
        }
    }

    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// A key of a rule that will expire, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Its label, or where it stands: `secrets.0`.
    pub name: String,
    /// Where it stands in the rule.
    pub at: Vec<String>,
    pub until: Timestamp,
}

impl Expiry {
    /// Whether it is to be warned of: it ends within `before`, or has ended.
    pub fn is_due(&self, now: Timestamp, before: Duration) -> bool {
        self.until <= now.saturating_add(before)
    }

    /// Seconds until the end; negative after it.
    #[allow(clippy::cast_precision_loss)] // whole milliseconds far below 2^53
    pub fn seconds_left(&self, now: Timestamp) -> f64 {
        (self.until.as_millis() as f64 - now.as_millis() as f64) / 1000.0
    }
}

/// All keys of a rule that have an end, in the order written. Times that can't be read are left out: compiling says so.
pub(super) fn expiries(spec: &VerifySpec) -> Vec<Expiry> {
    let mut found = Vec::new();
    if let VerifySpec::Rule(rule) = spec {
        of_rule(rule, &[], &mut found);
    }
    found
}

fn of_rule(rule: &Rule, at: &[String], found: &mut Vec<Expiry>) {
    let mut look = |specs: &[SecretSpec], steps: &[&str], is_list: bool| {
        for (index, spec) in specs.iter().enumerate() {
            let Ok(Window { until: Some(until), .. }) = Window::of(spec) else { continue };
            let mut at: Vec<String> =
                at.iter().cloned().chain(steps.iter().map(|s| (*s).to_owned())).collect();
            if is_list {
                at.push(index.to_string());
            }
            found.push(Expiry { name: spec.label.clone().unwrap_or_else(|| at.join(".")), at, until });
        }
    };
    look(rule.secret.as_slice(), &["secret"], false);
    look(rule.secrets.as_deref().unwrap_or_default(), &["secrets"], true);
    look(rule.public_keys.as_deref().unwrap_or_default(), &["public_keys"], true);
    if let Some(jwt) = &rule.jwt {
        look(jwt.secrets.as_deref().unwrap_or_default(), &["jwt", "secrets"], true);
        look(jwt.public_keys.as_deref().unwrap_or_default(), &["jwt", "public_keys"], true);
    }
    if let Some(api_key) = &rule.api_key {
        look(&api_key.keys, &["api_key", "keys"], true);
    }
    if let Some(bearer) = &rule.bearer {
        look(&bearer.tokens, &["bearer", "tokens"], true);
    }
    for (word, rules) in [("any", &rule.any), ("all", &rule.all)] {
        for (index, inner) in rules.iter().flatten().enumerate() {
            if let VerifySpec::Rule(inner) = inner {
                let at: Vec<String> =
                    at.iter().cloned().chain([word.to_owned(), index.to_string()]).collect();
                of_rule(inner, &at, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(from: Option<&str>, until: Option<&str>) -> SecretSpec {
        SecretSpec {
            secret: "env:A".into(),
            label: None,
            from: from.map(Into::into),
            until: until.map(Into::into),
        }
    }

    #[test]
    fn a_window_holds_its_beginning_and_not_its_end() {
        let window = Window::of(&spec(Some("1970-01-01T00:00:10Z"), Some("1970-01-01T00:00:20Z"))).unwrap();
        for (second, open) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(window.is_open(Timestamp::from_secs(second)), open, "{second}");
        }
        assert!(Window::default().is_open(Timestamp(0)) && Window::default().is_open(Timestamp(u64::MAX)));
    }

    #[test]
    fn a_window_that_makes_no_sense_is_refused_with_its_key() {
        let key = |from, until| Window::of(&spec(from, until)).unwrap_err().0;
        assert_eq!(key(Some("tomorrow"), None), "from");
        assert_eq!(key(None, Some("2026-12-15")), "until");
        assert_eq!(key(None, Some("2026-12-15T00:00:00")), "until");
        assert_eq!(key(Some("2026-12-15T00:00:00Z"), Some("2026-12-15T01:00:00+01:00")), "until");
    }

    #[test]
    fn every_key_with_an_end_is_found_wherever_it_stands() {
        let rule = r#"{ any: [
            { provider: p, secrets: [env:A, { secret: env:B, label: old, until: "1970-01-01T00:00:01Z" }] },
            { jwt: { algorithms: HS256, secrets: [{ secret: env:C, until: "1970-01-01T00:00:02Z" }] } },
            { all: [{ bearer: { tokens: [{ secret: env:D, until: "1970-01-01T00:00:03Z" }] } }] },
            { provider: p, secret: { secret: env:E, until: "1970-01-01T00:00:04Z" } }
        ] }"#;
        let found = expiries(&serde_saphyr::from_str(rule).unwrap());
        let places: Vec<String> = found.iter().map(|expiry| expiry.at.join(".")).collect();
        assert_eq!(
            places,
            ["any.0.secrets.1", "any.1.jwt.secrets.0", "any.2.all.0.bearer.tokens.0", "any.3.secret"]
        );
        assert_eq!((found[0].name.as_str(), found[0].until), ("old", Timestamp::from_secs(1)));
        assert_eq!(found[1].name, "any.1.jwt.secrets.0");
    }
}
