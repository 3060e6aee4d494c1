//! Handshakes in words, for `tidegate providers`: by what a greeting is recognised, what it proves, and what it is answered.

use std::collections::BTreeMap;

use super::Pack;
use crate::verify::spec::{ConditionSpec, HandshakeSpec, ReplySpec, TestSpec};

impl Pack {
    /// Each greeting in a few phrases.
    pub fn greetings(&self) -> Vec<String> {
        self.handshakes.iter().map(greeting).collect()
    }

    /// All greetings in as few words as a table has room for: `GET`, `GET by verify_token`, `POST signed`.
    pub fn greetings_in_short(&self) -> String {
        let mut phrases: Vec<String> = Vec::new();
        for spec in &self.handshakes {
            let by = params(&spec.must).chain(params(&spec.when)).collect::<Vec<_>>().join(", ");
            let proof = match (spec.signed.unwrap_or(true), by.is_empty()) {
                (true, _) => " signed".to_owned(),
                (false, false) => format!(" by `{by}`"),
                (false, true) => String::new(),
            };
            let phrase = format!("{}{proof}", methods(spec));
            if !phrases.contains(&phrase) {
                phrases.push(phrase);
            }
        }
        phrases.join(", ")
    }
}

fn greeting(spec: &HandshakeSpec) -> String {
    let mut text = methods(spec);
    if !spec.when.is_empty() {
        text += &format!(" where {}", conditions(&spec.when));
    }
    if let Some(needs) = &spec.needs {
        text += &format!(" (only if `{}` is set)", needs.0.join("` and `"));
    }
    text += "; ";
    text += if spec.signed.unwrap_or(true) { "signed like an event" } else { "not signed" };
    if !spec.must.is_empty() {
        text += &format!("; refused with {} unless {}", spec.refuse.unwrap_or(403), conditions(&spec.must));
    }
    if spec.signed == Some(false) && params(&spec.must).chain(params(&spec.when)).next().is_none() {
        let proves = spec.answer.as_ref().is_some_and(|answer| answer.proof.is_some());
        text += match proves {
            true => "; the sender proves nothing, the answer proves that we have the secret",
            false => "; proves nothing, so anyone gets the answer",
        };
    }
    if let Some(warning) = &spec.warn {
        text += &format!("; warns the operator: {warning}");
    }
    if let Some(place) = &spec.show {
        text += &format!("; {place} is the secret to store: with `handshake: show` it is shown in the log");
    }
    if let Some(visit) = &spec.visit {
        text +=
            &format!("; the URL in {} is fetched first, only from {}", visit.url, visit.hosts.0.join(" or "));
    }
    text += "; answer: ";
    text += &match (&spec.echo, &spec.answer) {
        (Some(place), _) => format!("200 with {place} as text/plain"),
        (None, None) => "200, empty".to_owned(),
        (None, Some(answer)) => self::answer(answer),
    };
    text
}

fn methods(spec: &HandshakeSpec) -> String {
    spec.methods.as_ref().map_or_else(|| "POST".to_owned(), |methods| methods.0.join(" or "))
}

/// The parameters that conditions compare with.
fn params(conditions: &BTreeMap<String, ConditionSpec>) -> impl Iterator<Item = &str> {
    conditions.values().filter_map(|condition| match condition {
        ConditionSpec::Is(_) => None,
        ConditionSpec::Test(test) => test.param.as_deref(),
    })
}

fn conditions(conditions: &BTreeMap<String, ConditionSpec>) -> String {
    let phrase = |(place, condition): (&String, &ConditionSpec)| match condition {
        ConditionSpec::Is(texts) => format!("{place} is {}", texts.0.join(" or ")),
        ConditionSpec::Test(test) => match &**test {
            TestSpec { present: Some(true), .. } => format!("{place} is there"),
            TestSpec { present: Some(false), .. } => format!("there is no {place}"),
            TestSpec { matches: Some(shape), .. } => format!("{place} has the shape {shape}"),
            TestSpec { param: Some(param), optional, .. } => {
                format!("{place} is your `{param}`{}", if *optional { ", if you give one" } else { "" })
            }
            _ => format!("{place} is a secret"),
        },
    };
    conditions.iter().map(phrase).collect::<Vec<_>>().join(" and ")
}

fn answer(answer: &ReplySpec) -> String {
    let mut text = answer.status.unwrap_or(200).to_string();
    for (name, value) in &answer.headers {
        text += &format!(", {name}: {value}");
    }
    match (&answer.body, &answer.json) {
        (Some(body), _) => text += &format!(", {body}"),
        (None, Some(json)) => text += &format!(", {}", serde_json::Value::Object(json.clone())),
        (None, None) if answer.headers.is_empty() => text += ", empty",
        (None, None) => {}
    }
    if let Some(proof) = &answer.proof {
        text += &format!("; {{proof}} is {} of {}", proof.algorithm, proof.signed);
        text += &match &proof.param {
            Some(param) => format!(" with your `{param}`"),
            None => " with the route's secret".to_owned(),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn greetings_are_said_in_words() {
        let of = |name: &str| crate::providers::find(name).unwrap().greetings();
        assert_eq!(
            of("meta"),
            [
                "GET where query:hub.challenge is there and query:hub.mode is subscribe; not signed; refused with 403 \
              unless query:hub.verify_token is your `verify_token`; answer: 200 with query:hub.challenge as text/plain"
            ]
        );
        assert_eq!(
            of("trello"),
            ["HEAD; not signed; proves nothing, so anyone gets the answer; answer: 200, empty"]
        );
        assert!(of("github").is_empty());
        let sns = of("aws-sns").remove(0);
        assert!(
            sns.contains("the URL in body:/SubscribeURL is fetched first, only from sns.[a-z]{2}-[a-z-]{4,20}-[0-9]{1,2}.amazonaws.com"),
            "{sns}"
        );
        assert!(sns.contains("signed like an event") && sns.contains("(only if `confirm` is set)"), "{sns}");
        assert!(of("asana")[0].contains("header:X-Hook-Secret is the secret to store"));
        let short = |name: &str| crate::providers::find(name).unwrap().greetings_in_short();
        assert_eq!(
            (short("meta").as_str(), short("zoom").as_str()),
            ("GET by `verify_token`", "POST signed")
        );
        assert_eq!((short("trello").as_str(), short("github").as_str()), ("HEAD", ""));
    }
}
