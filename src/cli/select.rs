//! Choosing events on the command line: by id, or by filters.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

use super::client::Client;
use super::failure::Failure;
use super::output::{harmless, note};
use crate::admin::filter::{Chosen, Conditions, MAX_IDS, When};
use crate::admin::views::Status;
use crate::clock::{Clock, Timestamp};
use crate::verify::nearest;

/// Conditions that events must meet, all of them
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Which events")]
pub struct Filters {
    /// Accepted by this route
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    /// With a delivery to this destination (`route/destination`, or just its name together with --route)
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,

    /// Of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,

    /// With a delivery that was given up for this reason, such as `attempts_exhausted`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,

    /// With a delivery whose last attempt ended so: a status such as `503`, a class such as `5xx`, or `none` for no answer
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,

    /// Sent from this address, or from this range (CIDR)
    #[arg(long, value_name = "ADDRESS")]
    source: Option<String>,

    /// With this idempotency key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// With this text in a header, name or value (`Name: value`), case aside; hidden values are not searched
    #[arg(long, value_name = "TEXT")]
    header: Option<String>,

    /// With a value at this place of a JSON body, such as `/data/email`
    #[arg(long, value_name = "POINTER", requires = "equals")]
    pointer: Option<String>,

    /// What stands at --pointer
    #[arg(long, value_name = "TEXT", requires = "pointer")]
    equals: Option<String>,

    /// Received at this time or later: how long ago (`2h`, `3d`) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,

    /// Received before this time: how long ago (`2h`, `3d`) or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

/// A state of a delivery.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Retrying,
    Delivered,
    Dead,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Retrying => "retrying",
            State::Delivered => "delivered",
            State::Dead => "dead",
        }
    }
}

impl Filters {
    /// The conditions in the API's words.
    pub fn conditions(&self, state: Option<State>) -> Result<Conditions, Failure> {
        let destination = match (&self.destination, &self.route) {
            (Some(name), _) if name.contains('/') => Some(name.clone()),
            (Some(name), Some(route)) => Some(format!("{route}/{name}")),
            (Some(name), None) => {
                return Err(Failure::Usage(format!(
                    "which route's `{name}`? Write --destination ROUTE/{name}, or add --route"
                )));
            }
            (None, _) => None,
        };
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Failure::Usage("--since must be before --until: nothing lies between them".into()));
        }
        Ok(Conditions {
            route: self.route.clone(),
            destination,
            state: state.map(|s| s.word().to_owned()),
            reason: self.reason.clone(),
            status: self.status.clone(),
            event_type: self.event_type.clone(),
            since: self.since.map(|t| When::Millis(t.as_millis())),
            until: self.until.map(|t| When::Millis(t.as_millis())),
            source: self.source.clone(),
            key: self.key.clone(),
            header: self.header.clone(),
            pointer: self.pointer.clone(),
            equals: self.equals.clone(),
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Only what is asked of single deliveries: beside ids it says which of theirs.
    fn is_of_deliveries(&self) -> bool {
        let Self { destination, reason, status, .. } = self.clone();
        *self == Self { destination, reason, status, ..Self::default() }
    }
}

/// Nothing was found: a name that the running config does not know may be a slip of the pen. It may as well be that of a
/// route that was taken out and whose events have gone, so this is no error.
pub(super) fn doubt(conditions: &Conditions, client: &Client) {
    if conditions.route.is_none() && conditions.destination.is_none() {
        return;
    }
    // Only a remark: without an answer there is none.
    let Ok(running) = client.get::<Status>("/status") else { return };
    let routes = || running.setup.routes.iter();
    let destinations = routes().flat_map(|r| r.destinations.iter().map(|d| d.name.as_str()));
    doubtful("route", conditions.route.as_deref(), routes().map(|r| r.name.as_str()));
    doubtful("destination", conditions.destination.as_deref(), destinations);
}

fn doubtful<'n>(kind: &str, asked: Option<&str>, names: impl Iterator<Item = &'n str> + Clone) {
    let Some(asked) = asked.filter(|asked| names.clone().all(|name| name != *asked)) else { return };
    let meant = nearest(asked, names).map(|near| format!("; did you mean `{near}`?"));
    note(&format!(
        "tidegate: warning: the running config has no {kind} `{}`{}",
        harmless(asked),
        meant.unwrap_or_default()
    ));
}

/// What is worked on
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Targets {
    /// Ids of events
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    #[command(flatten)]
    filters: Filters,

    /// Every one, without any filter
    #[arg(long)]
    all: bool,
}

impl Targets {
    /// Whether single events were named, and nothing else.
    pub fn is_by_id(&self) -> bool {
        !self.ids.is_empty()
    }

    /// What is sent to the API. `state` is the state that was asked for, `scope` the one that the command implies;
    /// only the former counts as a filter of the user's.
    pub fn chosen(&self, state: Option<State>, scope: Option<State>) -> Result<Chosen, Failure> {
        let filtered = state.is_some() || !self.filters.is_empty();
        let of_theirs = !self.ids.is_empty() && self.filters.is_of_deliveries();
        match (self.ids.is_empty(), filtered && !of_theirs, self.all) {
            (false, false, false) => {
                if self.ids.len() > MAX_IDS {
                    return Err(Failure::Usage(format!(
                        "at most {MAX_IDS} ids at once; use a filter for more"
                    )));
                }
                let state = state.or(scope);
                let filter = (filtered || state.is_some()).then(|| self.filters.conditions(state)).transpose()?;
                Ok(Chosen { ids: Some(self.ids.clone()), filter, ..Chosen::default() })
            }
            (true, true, false) => {
                let conditions = self.filters.conditions(state.or(scope))?;
                Ok(Chosen { filter: Some(conditions), ..Chosen::default() })
            }
            (true, false, true) => match scope {
                Some(_) => {
                    let conditions = self.filters.conditions(scope)?;
                    Ok(Chosen { filter: Some(conditions), ..Chosen::default() })
                }
                None => Ok(Chosen { all: Some(true), ..Chosen::default() }),
            },
            (true, false, false) => {
                Err(Failure::Usage("which ones? Give ids, or filters such as --route, or --all".into()))
            }
            _ => Err(Failure::Usage(
                "give either ids (with --destination, --state, --reason or --status of theirs), or filters, or --all"
                    .into(),
            )),
        }
    }
}

/// `2h`, `1d 12h` (ago), or RFC 3339.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    moment_at(text, Clock::System.now())
}

fn moment_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong =
        || format!("`{text}` is no time: write how long ago (`30m`, `2h`, `3d`) or 2026-11-24T05:36:00Z");
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return u64::try_from(time.as_millisecond()).map(Timestamp).map_err(|_| wrong());
    }
    let ago = text.trim().trim_end_matches("ago").trim();
    span(ago).map(|ago| now.saturating_sub(ago)).ok_or_else(wrong)
}

/// `24h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    span(text).ok_or_else(|| format!("`{text}` is no duration: write it like `30m`, `24h` or `7d`"))
}

fn span(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    Duration::try_from(span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_764_000_000_000);

    #[test]
    fn times_are_spans_ago_or_rfc_3339() {
        let ago = |text| moment_at(text, NOW).map(|t| NOW.since(t).as_secs());
        assert_eq!(ago("2h"), Ok(7200));
        assert_eq!(ago("3d"), Ok(3 * 86_400));
        assert_eq!(ago("1d 12h ago"), Ok(36 * 3600));
        assert_eq!(ago("90s"), Ok(90));
        assert_eq!(moment_at("2025-11-24T17:00:00+01:00", NOW), Ok(NOW));
        for wrong in ["", "yesterday", "2", "-2h", "1970"] {
            assert!(moment_at(wrong, NOW).is_err(), "{wrong}");
        }
    }

    fn targets(ids: &[&str], route: Option<&str>, all: bool) -> Targets {
        Targets {
            ids: ids.iter().map(ToString::to_string).collect(),
            filters: Filters { route: route.map(str::to_owned), ..Filters::default() },
            all,
        }
    }

    #[test]
    fn the_scope_of_a_command_alone_chooses_nothing() {
        let dead = Some(State::Dead);
        assert!(targets(&[], None, false).chosen(None, dead).is_err());
        assert!(targets(&[], None, false).chosen(None, None).is_err());
        assert!(targets(&["x"], None, true).chosen(None, None).is_err());
        assert!(targets(&["x"], Some("r"), false).chosen(None, None).is_err());
        let mut of_one = targets(&["x"], None, false);
        of_one.filters.destination = Some("r/d".into());
        let of_one = of_one.chosen(Some(State::Pending), None).unwrap();
        let only = of_one.filter.unwrap();
        assert_eq!((only.destination.as_deref(), only.state.as_deref()), (Some("r/d"), Some("pending")));
        let one = targets(&["x"], None, false).chosen(None, dead).unwrap();
        assert_eq!(one.filter.unwrap().state.as_deref(), Some("dead"));
        let all_dead = targets(&[], None, true).chosen(None, dead).unwrap();
        assert_eq!(all_dead.filter.unwrap().state.as_deref(), Some("dead"));
        assert_eq!(targets(&[], None, true).chosen(None, None).unwrap().all, Some(true));
        let of_route = targets(&[], Some("r"), false).chosen(None, dead).unwrap().filter.unwrap();
        assert_eq!((of_route.route.as_deref(), of_route.state.as_deref()), (Some("r"), Some("dead")));
    }

    #[test]
    fn a_time_span_that_holds_nothing_is_wrong_usage() {
        let between = |since: u64, until: u64| {
            let filters = Filters {
                since: Some(Timestamp(since)),
                until: Some(Timestamp(until)),
                ..Filters::default()
            };
            filters.conditions(None).is_ok()
        };
        assert!(between(1, 2) && !between(2, 2) && !between(3, 2));
    }

    #[test]
    fn a_destination_needs_its_route() {
        let filters = |destination: &str, route: Option<&str>| Filters {
            destination: Some(destination.into()),
            route: route.map(str::to_owned),
            ..Filters::default()
        };
        assert_eq!(
            filters("legacy", Some("billing")).conditions(None).unwrap().destination.as_deref(),
            Some("billing/legacy")
        );
        assert!(
            filters("a/b", None).conditions(None).is_ok() && filters("b", None).conditions(None).is_err()
        );
    }
}
