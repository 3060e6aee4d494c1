//! Which items of quarantine a request is about: the words of its query or body.

use serde::{Deserialize, Serialize};

use crate::buffer::EventId;
use crate::quarantine::Filter;
use crate::reason::Reason;
use crate::receive::Force;
use crate::verify::nearest;

use super::filter::{MAX_IDS, When};
use super::problem::Problem;

/// Conditions on items, as they stand in a query or a JSON body. All given ones hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemConditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// A reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<When>,
}

impl ItemConditions {
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let reason = match self.reason.as_deref() {
            None => None,
            Some(code) => Some(Reason::from_code(code).ok_or_else(|| {
                let meant = nearest(code, Reason::ALL.iter().map(|reason| reason.code()));
                let meant = meant.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                Problem::bad_request(format!("`{code}` is no reason code{meant}"))
            })?),
        };
        Ok(Filter {
            route: self.route.clone(),
            reason,
            since: self.since.as_ref().map(|time| time.timestamp("since")).transpose()?,
            until: self.until.as_ref().map(|time| time.timestamp("until")).transpose()?,
        })
    }
}

/// The query of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ItemQuery {
    pub(super) route: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) since: Option<String>,
    pub(super) until: Option<String>,
    pub(super) limit: Option<usize>,
    pub(super) after: Option<String>,
}

/// The body of the requests that do something: exactly one of `ids`, `filter` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChosenItems {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<ItemConditions>,
    /// Everything; must be asked for in so many words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Goes on behind this item: the `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// `admit` only: also what is not verified. Each such event says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// What a request works on, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice {
    Ids(Vec<EventId>),
    Matching(Filter, Option<EventId>),
}

impl ChosenItems {
    pub(super) fn check(self) -> Result<(Choice, Force), Problem> {
        let force = if self.force == Some(true) { Force::Yes } else { Force::No };
        let after = self.after.as_deref().map(id).transpose()?;
        let choice = match (self.ids, self.filter, self.all == Some(true)) {
            (Some(ids), None, false) => {
                if ids.is_empty() || ids.len() > MAX_IDS {
                    return Err(Problem::bad_request(format!("`ids` holds 1 to {MAX_IDS} ids")));
                }
                Choice::Ids(ids.iter().map(|text| id(text)).collect::<Result<_, _>>()?)
            }
            (None, Some(conditions), false) => match conditions.filter()? {
                filter if filter == Filter::default() => {
                    return Err(Problem::bad_request(
                        "the filter is empty and would match everything: say `\"all\": true` if that is meant",
                    ));
                }
                filter => Choice::Matching(filter, after),
            },
            (None, None, true) => Choice::Matching(Filter::default(), after),
            _ => return Err(Problem::bad_request("give `ids`, or `filter`, or `\"all\": true`")),
        };
        Ok((choice, force))
    }
}

pub(super) fn id(text: &str) -> Result<EventId, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("`{text}` is no id of an item in quarantine")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(json: serde_json::Value) -> Result<(Choice, Force), String> {
        let chosen: ChosenItems = serde_json::from_value(json).map_err(|e| e.to_string())?;
        chosen.check().map_err(|p| p.detail)
    }

    #[test]
    fn nothing_is_never_taken_for_everything() {
        for json in [
            serde_json::json!({}),
            serde_json::json!({"filter": {}}),
            serde_json::json!({"ids": []}),
            serde_json::json!({"all": false}),
            serde_json::json!({"all": true, "filter": {"route": "a"}}),
            serde_json::json!({"filter": {"rout": "a"}}),
            serde_json::json!({"ids": ["nonsense"]}),
            serde_json::json!({"all": true, "after": "nonsense"}),
        ] {
            assert!(chosen(json.clone()).is_err(), "{json}");
        }
        let all = chosen(serde_json::json!({"all": true, "force": true})).unwrap();
        assert_eq!(all, (Choice::Matching(Filter::default(), None), Force::Yes));
    }

    #[test]
    fn an_unknown_reason_is_told_the_right_one() {
        let wrong = chosen(serde_json::json!({"filter": {"reason": "signature_invald"}})).unwrap_err();
        assert!(wrong.contains("did you mean `signature_invalid`"), "{wrong}");
    }
}
