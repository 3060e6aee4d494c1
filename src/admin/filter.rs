//! What callers write to choose events, and what the buffer understands.

use serde::{Deserialize, Serialize};

use crate::buffer::{DeadReason, Event, EventFilter, EventId, ValueIs};
use crate::clock::Timestamp;
use crate::verify::{JsonPointer, nearest};

use super::problem::Problem;

/// Events of one page at most.
pub const MAX_LIMIT: usize = 500;
pub(super) const DEFAULT_LIMIT: usize = 50;
/// Ids in one replay or purge.
pub const MAX_IDS: usize = 1000;
const STATES: [&str; 4] = ["pending", "retrying", "delivered", "dead"];

/// The conditions, as they stand in a query or a JSON body. All given ones hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `route/destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why a delivery was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of the last attempt: `503`, `5xx`, or `none` for no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(rename = "type", alias = "event_type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<When>,
    /// An address or a range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A text in a line `Name: value` of the headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Where a value stands in a JSON body; what it must be is `equals`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
}

/// A time: RFC 3339, or milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum When {
    Millis(u64),
    Text(String),
}

impl When {
    pub(super) fn timestamp(&self, key: &str) -> Result<Timestamp, Problem> {
        let text = match self {
            When::Millis(millis) => return Ok(Timestamp(*millis)),
            When::Text(text) => text,
        };
        if let Ok(millis) = text.parse() {
            return Ok(Timestamp(millis));
        }
        let millis = text.parse::<jiff::Timestamp>().ok().map(|t| t.as_millisecond());
        millis.and_then(|m| u64::try_from(m).ok()).map(Timestamp).ok_or_else(|| {
            Problem::bad_request(format!(
                "`{key}` is a time such as 2026-11-24T05:36:00Z, or milliseconds since 1970"
            ))
        })
    }
}

/// The text of a condition that is not what it must be: names the field and says what would be right.
fn wrong(field: &str, text: &str, right: &str) -> Problem {
    Problem::bad_request(format!("`{field}`: `{text}` is not {right}"))
}

impl Conditions {
    /// Checked, in the buffer's words.
    pub fn filter(&self) -> Result<EventFilter, Problem> {
        if let Some(state) = &self.state
            && !STATES.contains(&state.as_str())
        {
            return Err(Problem::bad_request(format!("`state` is one of {}", STATES.join(", "))));
        }
        if let Some(destination) = &self.destination
            && !destination.contains('/')
        {
            return Err(Problem::bad_request("`destination` is written as `route/destination`"));
        }
        for (field, text) in [("header", &self.header), ("key", &self.key)] {
            if text.as_ref().is_some_and(String::is_empty) {
                return Err(Problem::bad_request(format!("`{field}` is empty and would match everything")));
            }
        }
        Ok(EventFilter {
            ids: Vec::new(),
            route: self.route.clone(),
            destination: self.destination.clone(),
            state: self.state.clone(),
            reason: self.reason.as_deref().map(reason).transpose()?,
            status: parsed("status", self.status.as_deref())?,
            event_type: self.event_type.clone(),
            since: self.since.as_ref().map(|t| t.timestamp("since")).transpose()?,
            until: self.until.as_ref().map(|t| t.timestamp("until")).transpose()?,
            source: parsed("source", self.source.as_deref())?,
            // As it is kept with an event: who asks may have the whole of it.
            idempotency_key: self.key.clone().map(Event::readable_key),
            header: self.header.clone(),
            body: self.value()?,
        })
    }

    fn value(&self) -> Result<Option<ValueIs>, Problem> {
        match (&self.pointer, &self.equals) {
            (None, None) => Ok(None),
            (Some(pointer), Some(equals)) => match JsonPointer::parse(pointer) {
                Ok(_) => Ok(Some(ValueIs { pointer: pointer.clone(), equals: equals.clone() })),
                Err(why) => Err(Problem::bad_request(format!("`pointer`: {why}"))),
            },
            _ => Err(Problem::bad_request(
                "`pointer` and `equals` go together: where the value stands, and what it is",
            )),
        }
    }
}

fn parsed<T: std::str::FromStr<Err = &'static str>>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, Problem> {
    text.map(|text| text.parse().map_err(|right| wrong(field, text, right))).transpose()
}

fn reason(code: &str) -> Result<DeadReason, Problem> {
    DeadReason::ALL.into_iter().find(|reason| reason.code() == code).ok_or_else(|| {
        let codes = DeadReason::ALL.map(DeadReason::code);
        let meant = nearest(code, codes.into_iter()).map(|near| format!("; did you mean `{near}`?"));
        let right = format!("one of {}{}", codes.join(", "), meant.unwrap_or_default());
        wrong("reason", code, &right)
    })
}

/// The query of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListQuery {
    route: Option<String>,
    destination: Option<String>,
    state: Option<String>,
    reason: Option<String>,
    status: Option<String>,
    #[serde(rename = "type", alias = "event_type")]
    event_type: Option<String>,
    since: Option<String>,
    until: Option<String>,
    source: Option<String>,
    key: Option<String>,
    header: Option<String>,
    pointer: Option<String>,
    equals: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// A listing, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    pub filter: EventFilter,
    pub after: Option<EventId>,
    pub limit: usize,
}

impl ListQuery {
    pub fn listing(self) -> Result<Listing, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::bad_request(format!("`limit` is from 1 to {MAX_LIMIT}")));
        }
        let after = self.after.as_deref().map(str::parse).transpose();
        let after =
            after.map_err(|_| Problem::bad_request("`after` is an event id: the `next` of a page"))?;
        let conditions = Conditions {
            route: self.route,
            destination: self.destination,
            state: self.state,
            reason: self.reason,
            status: self.status,
            event_type: self.event_type,
            since: self.since.map(When::Text),
            until: self.until.map(When::Text),
            source: self.source,
            key: self.key,
            header: self.header,
            pointer: self.pointer,
            equals: self.equals,
        };
        Ok(Listing { filter: conditions.filter()?, after, limit })
    }

    /// The same for dead letters: another state makes no sense.
    pub fn dead(mut self) -> Result<Listing, Problem> {
        match self.state.as_deref() {
            None | Some("dead") => self.state = Some("dead".into()),
            Some(_) => return Err(Problem::bad_request("dead letters are all in state `dead`")),
        }
        self.listing()
    }
}

/// The body of a replay or a purge: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chosen {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Conditions>,
    /// Everything; must be asked for in so many words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// What a replay or a purge works on, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// Of these events, the deliveries that meet the filter's conditions on deliveries.
    Ids(Vec<EventId>, EventFilter),
    Matching(EventFilter),
}

impl Chosen {
    pub fn check(self) -> Result<Choice, Problem> {
        let all = self.all == Some(true);
        match (self.ids, self.filter, all) {
            (Some(ids), conditions, false) => {
                if ids.is_empty() || ids.len() > MAX_IDS {
                    return Err(Problem::bad_request(format!("`ids` holds 1 to {MAX_IDS} event ids")));
                }
                let ids: Result<Vec<EventId>, _> = ids.iter().map(|id| id.parse()).collect();
                let ids =
                    ids.map_err(|_| Problem::bad_request("`ids` holds something that is no event id"))?;
                let only = conditions.unwrap_or_default().filter()?;
                if only != only.of_deliveries() {
                    return Err(Problem::bad_request(
                        "beside `ids`, `filter` holds nothing but `destination`, `state`, `reason` and `status`",
                    ));
                }
                Ok(Choice::Ids(ids, only))
            }
            (None, Some(conditions), false) => match conditions.filter()? {
                filter if filter == EventFilter::default() => Err(Problem::bad_request(
                    "the filter is empty and would match every event: say `\"all\": true` if that is meant",
                )),
                filter => Ok(Choice::Matching(filter)),
            },
            (None, None, true) => Ok(Choice::Matching(EventFilter::default())),
            _ => Err(Problem::bad_request("give `ids`, or `filter`, or `\"all\": true`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(json: serde_json::Value) -> Result<Choice, String> {
        let chosen: Chosen = serde_json::from_value(json).map_err(|e| e.to_string())?;
        chosen.check().map_err(|p| p.detail)
    }

    #[test]
    fn nothing_is_never_taken_for_everything() {
        for json in [
            serde_json::json!({}),
            serde_json::json!({"filter": {}}),
            serde_json::json!({"ids": []}),
            serde_json::json!({"all": false}),
            serde_json::json!({"filter": {"route": null}}),
            serde_json::json!({"all": true, "filter": {"route": "a"}}),
            serde_json::json!({"filter": {"rout": "a"}}),
            serde_json::json!({"filter": {"state": "lost"}}),
            serde_json::json!({"filter": {"destination": "legacy"}}),
            serde_json::json!({"ids": ["nonsense"]}),
            serde_json::json!({"filter": {"header": ""}}),
        ] {
            assert!(chosen(json.clone()).is_err(), "{json}");
        }
        let all = chosen(serde_json::json!({"all": true})).unwrap();
        assert_eq!(all, Choice::Matching(EventFilter::default()));
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        let of = |since: serde_json::Value| match chosen(serde_json::json!({"filter": {"since": since}})) {
            Ok(Choice::Matching(filter)) => filter.since,
            _ => None,
        };
        let expected = Some(Timestamp(1_764_000_000_123));
        assert_eq!(of("2025-11-24T16:00:00.123Z".into()), expected);
        assert_eq!(of("2025-11-24T17:00:00.123+01:00".into()), expected);
        assert_eq!(of(1_764_000_000_123_u64.into()), expected);
        assert_eq!(of("yesterday".into()), None);
        assert_eq!(of("1900-01-01T00:00:00Z".into()), None);
    }

    #[test]
    fn a_wrong_condition_is_named() {
        for (field, value, right) in [
            ("state", "lost", "pending, retrying"),
            ("reason", "given-up", "did you mean `given_up`"),
            ("status", "5x", "a class such as 5xx"),
            ("source", "example.com", "a range such as"),
            ("pointer", "data", "go together"),
            ("destination", "legacy", "route/destination"),
            ("since", "yesterday", "2026-11-24"),
        ] {
            let problem = chosen(serde_json::json!({"filter": {field: value}})).unwrap_err();
            assert!(problem.contains(&format!("`{field}`")) && problem.contains(right), "{problem}");
        }
        let problem = chosen(serde_json::json!({"filter": {"pointer": "data", "equals": "x"}})).unwrap_err();
        assert!(problem.contains("`pointer`") && problem.contains("begins with `/`"), "{problem}");
    }

    #[test]
    fn a_listing_has_a_limit() {
        let limit = |limit| ListQuery { limit, ..ListQuery::default() }.listing().map(|l| l.limit);
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(Some(500)).unwrap(), 500);
        assert!(limit(Some(501)).is_err() && limit(Some(0)).is_err());
    }
}
