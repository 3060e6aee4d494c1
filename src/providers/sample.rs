//! Test events of a pack: realistic bodies with a fresh id each time they are sent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock::Timestamp;

/// A test event as a pack writes it. In headers and body `${id}` stands for a fresh id (24 letters and digits),
/// `${uuid}` for a fresh UUID, `${now}` for the time in Unix seconds, `${now_ms}` in milliseconds, `${now_rfc3339}`
/// as text; the same one everywhere in one event. `${signature}` in the body is where the signature belongs, or the token
/// that is sent: it is filled in by whoever signs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// What the provider calls the event, such as `invoice.paid`.
    pub event: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A test event, ready to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEvent {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Sample {
    pub fn event(&self, now: Timestamp) -> TestEvent {
        let id: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        let uuid = uuid::Builder::from_random_bytes(std::array::from_fn(|_| fastrand::u8(..))).into_uuid();
        let fill = |text: &str| {
            text.replace("${id}", &id)
                .replace("${uuid}", &uuid.to_string())
                .replace("${now}", &now.as_secs().to_string())
                .replace("${now_ms}", &now.as_millis().to_string())
                .replace("${now_rfc3339}", &now.to_string())
        };
        TestEvent {
            headers: self.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: fill(self.body.trim_end_matches('\n')).into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_fresh_each_time_and_one_in_itself() {
        let sample = Sample {
            event: "x".into(),
            headers: [("X-Id".to_owned(), "${uuid}".to_owned())].into(),
            body: "{\"id\":\"${id}\",\"again\":\"${id}\",\"at\":${now}}\n".into(),
        };
        let (one, two) = (sample.event(Timestamp::from_secs(17)), sample.event(Timestamp::from_secs(17)));
        assert_ne!(one.body, two.body);
        assert_ne!(one.headers, two.headers);
        let body: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
        assert_eq!(body["id"], body["again"]);
        assert_eq!(body["at"], 17);
    }
}
