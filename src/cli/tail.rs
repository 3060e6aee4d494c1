//! `tidegate events tail`: the latest events, and then new ones as they come.
//!
//! The newest page of the listing is looked at again and again, and what was shown is remembered, up to a bound. Nothing
//! is missed as long as fewer than [`PAGES`] pages arrive between two looks; if more do, that is said.

use std::collections::{HashSet, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use super::address::AdminArgs;
use super::client::{Client, PATIENCE};
use super::events::{deliveries, query};
use super::failure::Failure;
use super::output::{Format, OutputArgs, Times, harmless, note, print, size};
use super::select::{Filters, State};
use crate::admin::filter::{Conditions, MAX_LIMIT};
use crate::admin::views::{EventPage, EventSummary};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events of a page: enough for most seconds, and little to find for the gateway.
const PAGE: usize = 100;
/// Pages that one look goes back, at most.
const PAGES: usize = 20;
/// Ids that are remembered: more than one look may show.
const REMEMBERED: usize = 10_000;

#[derive(clap::Args, Debug)]
#[group(skip)] // the variant that holds it has the same name
pub(super) struct Tail {
    #[command(flatten)]
    filters: Filters,
    /// Begin with so many of those that are there
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=500))]
    lines: u32,
    #[command(flatten)]
    output: OutputArgs,
}

impl Tail {
    pub(super) fn run(self, admin: &AdminArgs, state: Option<State>) -> Result<ExitCode, Failure> {
        let conditions = self.filters.conditions(state)?;
        let client = Client::new(admin, PATIENCE)?;
        let mut shown = Shown::default();
        let lines = usize::try_from(self.lines).unwrap_or(MAX_LIMIT);
        let first = page(&client, &conditions, lines.clamp(PAGE, MAX_LIMIT), None)?;
        shown.looked_through.clone_from(&first.next);
        if first.events.is_empty() {
            super::select::doubt(&conditions, &client);
        }
        // Those that are there and are not shown are not new either.
        let fresh = shown.fresh(first.events);
        self.show(&fresh[fresh.len().saturating_sub(lines)..])?;
        let mut silent = false;
        loop {
            std::thread::sleep(LOOK_EVERY);
            match look(&shown, |after| page(&client, &conditions, PAGE, after)) {
                Ok(Look { events, looked_through, missed }) => {
                    shown.looked_through = looked_through.or(shown.looked_through.take());
                    if std::mem::take(&mut silent) {
                        note("tidegate: the gateway answers again");
                    }
                    if missed {
                        note("tidegate: more came than can be followed; some are not shown");
                    }
                    let fresh = shown.fresh(events);
                    self.show(&fresh)?;
                }
                // It may be restarting: what it keeps is there afterwards.
                Err(error) if !silent => {
                    note(&format!("tidegate: {error}; waiting for it"));
                    silent = true;
                }
                Err(_) => {}
            }
        }
    }

    fn show(&self, events: &[EventSummary]) -> Result<(), Failure> {
        let times = Times::of(&self.output);
        let mut text = String::new();
        for event in events {
            text += &match &self.output {
                OutputArgs { output: Format::Json, .. } => {
                    serde_json::to_string(event).map_err(std::io::Error::other)?
                }
                OutputArgs { quiet: true, .. } => harmless(&event.id),
                _ => line(event, times),
            };
            text.push('\n');
        }
        if text.is_empty() { Ok(()) } else { print(&text) }
    }
}

fn line(event: &EventSummary, times: Times) -> String {
    // A line stays on the screen, so what is relative would soon be wrong.
    let at = harmless(&event.received_at);
    let kind = event.event_type.as_deref().unwrap_or("-");
    harmless(&format!(
        "{at}  {}  {}  {kind}  {}  {}",
        event.id,
        event.route,
        size(event.body_bytes),
        deliveries(event, times).0
    ))
}

fn page(
    client: &Client,
    conditions: &Conditions,
    limit: usize,
    after: Option<&str>,
) -> Result<EventPage, Failure> {
    Ok(client.get(&format!("/events?{}", query(conditions, limit, after)))?)
}

/// What a look found.
struct Look {
    /// Newest first; some of them may have been shown.
    events: Vec<EventSummary>,
    /// See [`Shown`].
    looked_through: Option<String>,
    /// There was more than one look goes back.
    missed: bool,
}

/// Goes back, page by page, until what is there was shown, or looked through, before.
fn look(
    shown: &Shown,
    mut page: impl FnMut(Option<&str>) -> Result<EventPage, Failure>,
) -> Result<Look, Failure> {
    let mut found = Look { events: Vec::new(), looked_through: None, missed: false };
    let mut after: Option<String> = None;
    for _ in 0..PAGES {
        let EventPage { events, next } = page(after.as_deref())?;
        let known = events.iter().any(|event| shown.ids.contains(&event.id));
        found.events.extend(events);
        if after.is_none() {
            found.looked_through.clone_from(&next);
        }
        // Ids grow with time. Where few events are looked for, one that was shown may be far back.
        let old = next.as_ref() <= shown.looked_through.as_ref();
        if known || next.is_none() || old {
            return Ok(found);
        }
        after = next;
    }
    found.missed = true;
    Ok(found)
}

/// The ids of what was shown, the latest of them.
#[derive(Debug, Default)]
struct Shown {
    ids: HashSet<String>,
    order: VecDeque<String>,
    /// Where the newest page of the last look ended: what is older was there before. `None`: nothing was.
    looked_through: Option<String>,
}

impl Shown {
    /// Those that were not shown yet, oldest first; from now on they were. `events` are newest first.
    fn fresh(&mut self, events: Vec<EventSummary>) -> Vec<EventSummary> {
        let mut fresh: Vec<EventSummary> = Vec::new();
        for event in events.into_iter().rev() {
            if self.ids.insert(event.id.clone()) {
                self.order.push_back(event.id.clone());
                fresh.push(event);
            }
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(n: usize) -> EventSummary {
        serde_json::from_value(json!({
            "id": format!("{n:06}"), "route": "billing", "received_at": "2025-11-24T16:00:00.000Z",
            "type": "invoice.paid\u{1b}", "method": "POST", "target": "/", "source": "192.0.2.1",
            "verified": "stripe", "idempotency_key": null, "body_bytes": 5, "deliveries": [],
        }))
        .unwrap()
    }

    /// A gateway with the events from 0 up to `newest`, in pages of 50.
    fn pages(newest: usize) -> impl FnMut(Option<&str>) -> Result<EventPage, Failure> {
        move |after| {
            let end = after.map_or(newest, |id| id.parse().unwrap());
            let events: Vec<_> = (end.saturating_sub(50)..end).rev().map(event).collect();
            let next = events.last().map(|last| last.id.clone()).filter(|id| id != "000000");
            Ok(EventPage { events, next })
        }
    }

    fn ids(events: &[EventSummary]) -> Vec<usize> {
        events.iter().map(|event| event.id.parse().unwrap()).collect()
    }

    #[test]
    fn each_event_is_shown_once_and_in_order_however_many_come_at_once() {
        let mut shown = Shown::default();
        let first = pages(80)(None).unwrap().events;
        let mut seen = ids(&shown.fresh(first));
        for newest in [80, 81, 400, 400, 1300] {
            let found = look(&shown, pages(newest)).unwrap();
            assert!(!found.missed);
            seen.extend(ids(&shown.fresh(found.events)));
        }
        assert_eq!(seen, (30..1300).collect::<Vec<_>>());
    }

    #[test]
    fn a_burst_into_an_empty_store_is_shown_whole() {
        let found = look(&Shown::default(), pages(400)).unwrap();
        assert_eq!((found.events.len(), found.missed), (400, false));
        // More than one look goes back.
        assert!(look(&Shown::default(), pages(5000)).unwrap().missed);
    }

    #[test]
    fn one_that_matches_nothing_goes_back_no_further_than_the_last_look() {
        // The gateway looks through 50 events for a page, and finds nothing.
        let asked = std::cell::Cell::new(0);
        let nothing = |newest| {
            let mut all = pages(newest);
            let asked = &asked;
            move |after: Option<&str>| {
                asked.set(asked.get() + 1);
                Ok(EventPage { events: Vec::new(), ..all(after)? })
            }
        };
        let mut shown = Shown { looked_through: pages(5000)(None).unwrap().next, ..Shown::default() };
        for (newest, pages) in [(5000, 1), (5120, 4), (5120, 1)] {
            asked.set(0);
            let found = look(&shown, nothing(newest)).unwrap();
            assert_eq!((asked.get(), found.missed), (pages, false), "{newest}");
            shown.looked_through = found.looked_through;
        }
    }

    #[test]
    fn more_than_can_be_followed_is_said_and_memory_stays_bounded() {
        let mut shown = Shown::default();
        shown.fresh(pages(50)(None).unwrap().events);
        let found = look(&shown, pages(5000)).unwrap();
        assert!(found.missed);
        assert_eq!(shown.fresh(found.events).len(), PAGES * 50);
        for n in 0..100 {
            shown.fresh((n * 500..(n + 1) * 500).rev().map(|id| event(1_000_000 + id)).collect());
        }
        assert!(shown.ids.len() == shown.order.len() && shown.ids.len() <= REMEMBERED);
    }

    #[test]
    fn a_line_says_what_came_and_moves_no_cursor() {
        let line = line(&event(7), Times::Utc);
        assert!(
            line.starts_with("2025-11-24T16:00:00.000Z  000007  billing  invoice.paid\\u{1b}  5 B"),
            "{line}"
        );
    }
}
