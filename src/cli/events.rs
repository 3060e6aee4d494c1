//! `tidegate events`: list, show, follow, replay and purge what is in the buffer. `dead` is the same for dead letters only.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Subcommand;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::failure::{Failure, exit};
use super::output::{Format, OutputArgs, Rows, Side, Times, Tone, note, print, print_json, print_list, size};
use super::select::{Filters, State, Targets};
use super::show;
use super::tail::Tail;
use super::work::{self, Pace};
use crate::admin::filter::{Conditions, MAX_LIMIT};
use crate::admin::jobs::NewJob;
use crate::admin::views::{DeliveryView, EventDetail, EventPage, EventSummary, GivenUp, Purged, Replayed};

/// List, show, follow, replay, give up and purge events
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  tidegate events list --route billing --since 2h
  tidegate events show 01a20c5d-fb8d-77da-9699-2808b038bd6a
  tidegate events list --type invoice.paid -q -n 1000 | xargs tidegate events replay
  tidegate events list --status 5xx --header 'x-shop: acme' --source 192.0.2.0/24
  tidegate events replay --route billing --since 2d --to billing/new --rate 50 --dry-run
  tidegate events give-up 01a20c5d-fb8d-77da-9699-2808b038bd6a --destination billing/legacy
  tidegate events give-up --route billing --status 5xx --until 2d --dry-run
  tidegate events list -o json | jq '.events[].id'
  tidegate events tail --route billing")]
pub struct Events {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List events, newest first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        list: List,
        /// With a delivery in this state
        #[arg(long, value_enum, help_heading = "Which events")]
        state: Option<State>,
    },
    /// Show one event: headers, body, deliveries and their attempts
    Show(Show),
    /// Show the latest events, and then new ones as they come, until interrupted
    Tail {
        #[command(flatten)]
        tail: Tail,
        /// With a delivery in this state by the time it is looked at
        #[arg(long, value_enum, help_heading = "Which events")]
        state: Option<State>,
    },
    /// Deliver events again, with a fresh retry budget and past the duplicate check
    Replay {
        #[command(flatten)]
        replay: Replay,
        /// With a delivery in this state
        #[arg(long, value_enum, help_heading = "Which events")]
        state: Option<State>,
    },
    /// Give deliveries up that wait or are tried again: they become dead letters
    ///
    /// They are kept and may be replayed, and the next one of an ordered key goes. What is in flight just now is settled by
    /// its answer: it is left alone, and said so. A dead letter that holds its key lets it go on.
    GiveUp {
        #[command(flatten)]
        give_up: GiveUp,
        /// With a delivery in this state
        #[arg(long, value_enum, help_heading = "Which events")]
        state: Option<State>,
    },
    /// Delete events for good (never one whose delivery is under way)
    Purge {
        #[command(flatten)]
        purge: Purge,
        /// With a delivery in this state
        #[arg(long, value_enum, help_heading = "Which events")]
        state: Option<State>,
    },
}

impl Events {
    pub fn run(self) -> ExitCode {
        let admin = &self.admin;
        exit(match self.action {
            Action::List { list, state } => list.run(admin, state),
            Action::Show(show) => show.run(admin),
            Action::Tail { tail, state } => tail.run(admin, state),
            Action::Replay { replay, state } => replay.run(admin, state, None),
            Action::GiveUp { give_up, state } => give_up.run(admin, state),
            Action::Purge { purge, state } => purge.run(admin, state, None),
        })
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct List {
    #[command(flatten)]
    filters: Filters,
    /// How many at most
    #[arg(short = 'n', long, default_value = "50", value_name = "N")]
    limit: NonZeroUsize,
    /// Continue behind this event
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

impl List {
    pub(super) fn run(self, admin: &AdminArgs, state: Option<State>) -> Result<ExitCode, Failure> {
        let conditions = self.filters.conditions(state)?;
        let client = Client::new(admin, PATIENCE)?;
        let mut page = EventPage { events: Vec::new(), next: self.after };
        loop {
            let limit = (self.limit.get() - page.events.len()).min(MAX_LIMIT);
            if limit == 0 {
                break;
            }
            let path = format!("/events?{}", query(&conditions, limit, page.next.as_deref()));
            let next: EventPage = client.get(&path)?;
            page.events.extend(next.events);
            page.next = next.next;
            if page.next.is_none() {
                break;
            }
        }
        let empty = if state == Some(State::Dead) { "no dead letters" } else { "no events" };
        let ids = page.events.iter().map(|event| event.id.as_str());
        print_list(&self.output, &page, ids, empty, |times| table(&page.events, &self.output, times))?;
        if page.events.is_empty() && !self.output.quiet {
            super::select::doubt(&conditions, &client);
        }
        if let (Some(next), false, Format::Table) = (&page.next, self.output.quiet, self.output.output) {
            note(&format!("more: --after {next}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The query of a listing, or of an export.
pub(super) fn query(conditions: &Conditions, limit: usize, after: Option<&str>) -> String {
    // Texts and numbers under keys: it always has this form.
    let conditions = serde_json::to_value(conditions).unwrap_or_default();
    let mut pairs: Vec<String> = Vec::new();
    for (key, value) in conditions.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        pairs.push(format!("{key}={}", encoded(&text)));
    }
    pairs.extend(after.map(|after| format!("after={}", encoded(after))));
    pairs.push(format!("limit={limit}"));
    pairs.join("&")
}

/// Percent-encodes all but unreserved characters (RFC 3986).
pub(super) fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
        out
    })
}

fn table(events: &[EventSummary], output: &OutputArgs, times: Times) -> String {
    let mut columns = vec![
        ("id", Side::Left),
        ("received", Side::Right),
        ("route", Side::Left),
        ("type", Side::Left),
        ("body", Side::Right),
    ];
    if output.verbose {
        columns.extend([("source", Side::Left), ("verified", Side::Left), ("target", Side::Left)]);
    }
    columns.push(("deliveries", Side::Left));
    let mut rows = Rows::new(&columns);
    for event in events {
        let plain = |text: &str| (text.to_owned(), Tone::Plain);
        let mut cells = vec![
            plain(&event.id),
            plain(&times.show(&event.received_at)),
            plain(&event.route),
            plain(event.event_type.as_deref().unwrap_or("-")),
            plain(&size(event.body_bytes)),
        ];
        if output.verbose {
            cells.extend([
                plain(&event.source),
                plain(&event.verified),
                plain(&shortened(&event.target, 60)),
            ]);
        }
        cells.push(deliveries(event, times));
        rows.row(cells);
    }
    rows.text()
}

/// All deliveries in one cell, in the colour of the worst.
pub(super) fn deliveries(event: &EventSummary, times: Times) -> (String, Tone) {
    let prefix = format!("{}/", event.route);
    let told: Vec<String> = event
        .deliveries
        .iter()
        .map(|d| {
            let name = d.destination.strip_prefix(&prefix).unwrap_or(&d.destination);
            format!("{name} {}", delivery(d, times))
        })
        .collect();
    let worst = ["dead", "retrying", "pending", "delivered"]
        .into_iter()
        .find(|state| event.deliveries.iter().any(|d| d.state == *state));
    (if told.is_empty() { "-".into() } else { told.join("; ") }, worst.map_or(Tone::Plain, Tone::of_state))
}

/// A delivery's state with what explains it: `retrying in 20s (3 attempts, 503)`.
pub(super) fn delivery(delivery: &DeliveryView, times: Times) -> String {
    let last = delivery.last.as_ref().and_then(|last| match (last.status, &last.error) {
        (Some(status), _) => Some(status.to_string()),
        (None, error) => error.as_deref().map(|e| shortened(e, 60)),
    });
    let attempts = match delivery.attempts {
        0 => None,
        1 => Some("1 attempt".to_owned()),
        n => Some(format!("{n} attempts")),
    };
    let (when, details) = match delivery.state.as_str() {
        "retrying" => (delivery.next_at.as_deref(), vec![attempts, last]),
        "delivered" => (delivery.at.as_deref(), vec![]),
        "dead" => (delivery.at.as_deref(), vec![delivery.reason.clone(), attempts, last]),
        _ => (None, vec![]),
    };
    let mut text = delivery.state.clone();
    if let Some(when) = when {
        text += &format!(" {}", times.show(when));
    }
    let details: Vec<String> = details.into_iter().flatten().collect();
    if !details.is_empty() {
        text += &format!(" ({})", details.join(", "));
    }
    text
}

fn shortened(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct Show {
    /// Id of the event
    #[arg(value_name = "ID")]
    id: String,
    /// Print the body's bytes as received, and nothing else
    #[arg(long)]
    body_only: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Show {
    pub(super) fn run(self, admin: &AdminArgs) -> Result<ExitCode, Failure> {
        let client = Client::new(admin, PATIENCE)?;
        let path = format!("/events/{}", encoded(&self.id));
        if self.body_only {
            client.copy(&format!("{path}/body"), &mut std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        let event: EventDetail = client.get(&path)?;
        match self.output.output {
            Format::Json => print_json(&event)?,
            Format::Table => print(&show::text(&event, &self.output))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct Replay {
    #[command(flatten)]
    targets: Targets,
    /// To this destination (`route/destination`), whether or not the events were meant for it
    #[arg(long, value_name = "DESTINATION")]
    to: Option<String>,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: OutputArgs,
}

impl Replay {
    pub(super) fn run(
        self,
        admin: &AdminArgs,
        state: Option<State>,
        scope: Option<State>,
    ) -> Result<ExitCode, Failure> {
        let chosen = self.targets.chosen(state, scope)?;
        if !self.targets.is_by_id() || self.to.is_some() || self.pace.is_given() {
            let new = NewJob { to: self.to, ..work::of("replay", chosen) };
            return self.pace.work(admin, new, &self.output);
        }
        let done: Replayed = Client::new(admin, PATIENCE)?.post("/events/replay", Some(&chosen))?;
        let told = match done.replayed {
            1 => "1 delivery is pending again".to_owned(),
            n => format!("{n} deliveries are pending again"),
        };
        finished(&done, &told, &done.untouched, "nothing to replay of", &self.output)
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
struct GiveUp {
    #[command(flatten)]
    targets: Targets,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: OutputArgs,
}

impl GiveUp {
    fn run(self, admin: &AdminArgs, state: Option<State>) -> Result<ExitCode, Failure> {
        let chosen = self.targets.chosen(state, None)?;
        if !self.targets.is_by_id() || self.pace.is_given() {
            return self.pace.work(admin, work::of("give_up", chosen), &self.output);
        }
        let done: GivenUp = Client::new(admin, PATIENCE)?.post("/events/give-up", Some(&chosen))?;
        let mut told = match done.given_up {
            1 => "1 delivery is given up".to_owned(),
            n => format!("{n} deliveries are given up"),
        };
        match done.under_way {
            0 => {}
            1 => told += "; 1 is in flight: its answer settles it",
            n => told += &format!("; {n} are in flight: their answers settle them"),
        }
        let left = "nothing was given up (unknown, in flight, or nothing waits) of";
        finished(&done, &told, &done.untouched, left, &self.output)
    }
}

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct Purge {
    #[command(flatten)]
    targets: Targets,
    /// Yes, delete them: there is no way back
    #[arg(short, long, help_heading = "Which events")]
    yes: bool,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: OutputArgs,
}

impl Purge {
    pub(super) fn run(
        self,
        admin: &AdminArgs,
        state: Option<State>,
        scope: Option<State>,
    ) -> Result<ExitCode, Failure> {
        let chosen = self.targets.chosen(state, scope)?;
        if !self.yes && !self.pace.is_dry_run() {
            return Err(Failure::Usage(
                "a purge deletes events for good; look at them with `list` first, then add --yes".into(),
            ));
        }
        if !self.targets.is_by_id() || self.pace.is_given() {
            return self.pace.work(admin, work::of("purge", chosen), &self.output);
        }
        let done: Purged = Client::new(admin, PATIENCE)?.post("/events/purge", Some(&chosen))?;
        let told = match done.purged {
            1 => "1 event is deleted".to_owned(),
            n => format!("{n} events are deleted"),
        };
        finished(&done, &told, &done.untouched, "not deleted (unknown, or under way):", &self.output)
    }
}

/// Says what was done; an id that was given and not found is a no.
pub(super) fn finished(
    done: &impl serde::Serialize,
    told: &str,
    untouched: &[String],
    untouched_told: &str,
    output: &OutputArgs,
) -> Result<ExitCode, Failure> {
    match output {
        OutputArgs { output: Format::Json, .. } => print_json(done)?,
        OutputArgs { quiet: true, .. } => {}
        _ => print(&format!("{told}\n"))?,
    }
    if untouched.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    note(&format!("tidegate: {untouched_told} {}", untouched.join(", ")));
    Ok(ExitCode::from(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::filter::When;
    use crate::admin::views::AttemptView;

    #[test]
    fn a_query_survives_strange_names() {
        let conditions = Conditions {
            route: Some("a&b=c ü".into()),
            since: Some(When::Millis(5)),
            ..Conditions::default()
        };
        assert_eq!(query(&conditions, 7, Some("x")), "route=a%26b%3Dc%20%C3%BC&since=5&after=x&limit=7");
    }

    #[test]
    fn a_delivery_explains_itself() {
        let mut view = DeliveryView {
            destination: "billing/legacy".into(),
            state: "retrying".into(),
            next_at: Some("2025-11-24T16:00:20.000Z".into()),
            at: None,
            reason: None,
            attempts: 3,
            since: String::new(),
            last: Some(AttemptView { at: String::new(), took_ms: 5, status: Some(503), error: None }),
            history: vec![],
        };
        let times = Times::Relative(crate::clock::Timestamp(1_764_000_000_000));
        assert_eq!(delivery(&view, times), "retrying in 20s (3 attempts, 503)");
        view = DeliveryView {
            state: "dead".into(),
            at: Some("2025-11-24T15:00:00.000Z".into()),
            reason: Some("attempts_exhausted".into()),
            last: Some(AttemptView {
                at: String::new(),
                took_ms: 5,
                status: None,
                error: Some("connect: connection refused".into()),
            }),
            ..view
        };
        assert_eq!(
            delivery(&view, times),
            "dead 1h ago (attempts_exhausted, 3 attempts, connect: connection refused)"
        );
    }
}
