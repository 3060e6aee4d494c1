//! Several events in one request: which go together and when, what the app's answer means for each, and how one that
//! spoils a batch is found.
//!
//! A batch whose answer may be one event's doing is taken apart by halves, which go as batches of their own, in turn, at the
//! pace of any attempt, and without a charge to their events; what fails by itself is charged like any delivery and goes by
//! itself from then on (as long as this process remembers it). While the breaker is not closed nothing is halved: the next
//! batches are smaller instead.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::breaker::{Charge, Outcome, Permit};
use crate::buffer::{Attempt, AttemptOutcome, EventId, Leased, Next};
use crate::config::Batch;
use crate::upstream::UpstreamError;
use crate::upstream::batch::{self as form, Part};
use crate::verify::JsonPointer;

use super::classify::{self, Answered, Finding};
use super::lease::Lease;
use super::worker::{self, App, Settings, Surroundings};

/// Events that failed by themselves, remembered at most.
const SUSPECTS: usize = 256;

/// A lease that waits for others.
pub(super) struct Ready {
    lease: Lease,
    since: Instant,
    bytes: usize,
    company: Company,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    Any,
    /// It spoiled a batch: it has one to itself.
    None,
    /// Its body can't stand in one.
    Unfit,
}

/// What goes to the app at once.
pub(super) enum Group {
    /// A batch, of one or more.
    Batch(Vec<Lease>),
    /// A request like those of any destination.
    Plain(Lease),
}

/// What the next free place is for.
pub(super) enum Take {
    Now(Group),
    /// More may come until then.
    Wait(Instant),
    Nothing,
}

/// What a batch tells the scheduler.
pub(super) enum Done {
    Nothing,
    /// The app took it.
    Well,
    /// Somebody in it may be at fault.
    Halves(Vec<Lease>, Vec<Lease>),
    /// It failed while the app is spared; these were in it, and others go before them.
    Spared(Vec<EventId>),
    /// This one failed by itself.
    Suspect(EventId),
}

/// Batches in the making, of one destination.
#[derive(Default)]
pub(super) struct Making {
    ready: VecDeque<Ready>,
    ready_bytes: usize,
    /// These go first.
    halves: VecDeque<Group>,
    suspects: VecDeque<EventId>,
    /// Events of one batch; `None`: as the config says.
    limit: Option<usize>,
}

impl Making {
    pub fn clear(&mut self) {
        self.ready.clear();
        self.ready_bytes = 0;
        self.halves.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.halves.is_empty()
    }

    pub fn add(&mut self, lease: Lease, batch: &Batch, now: Instant) {
        let Some(leased) = lease.leased() else { return };
        let bytes = leased.event.body.len();
        let company = match leased.event.id {
            _ if bytes > batch.max_bytes || !form::fits(&leased.event, batch.format) => Company::Unfit,
            id if self.suspects.contains(&id) => Company::None,
            _ => Company::Any,
        };
        self.ready_bytes += bytes;
        self.ready.push_back(Ready { lease, since: now, bytes, company });
    }

    /// How many more leases to take, `most` at once.
    pub fn wants(&self, batch: &Batch, typical_body: usize, most: usize) -> usize {
        let room = batch.max_bytes.saturating_sub(self.ready_bytes);
        if room == 0 || self.ready.len() >= batch.max_events {
            return 0;
        }
        (batch.max_events - self.ready.len()).min((room / typical_body.max(1)).max(1)).min(most)
    }

    /// What to begin now.
    pub fn take(&mut self, batch: &Batch, now: Instant) -> Take {
        if let Some(half) = self.halves.pop_front() {
            return Take::Now(half);
        }
        if let Some(at) = self.ready.iter().position(|ready| ready.company != Company::Any)
            && let Some(ready) = self.remove(at)
        {
            return Take::Now(match ready.company {
                Company::Unfit => Group::Plain(ready.lease),
                Company::None | Company::Any => Group::Batch(vec![ready.lease]),
            });
        }
        let Some(first) = self.ready.front() else { return Take::Nothing };
        let until = first.since + batch.max_wait;
        let limit = self.limit.unwrap_or(batch.max_events).clamp(1, batch.max_events);
        let crowded = self.ready.len() >= batch.max_events || self.ready_bytes >= batch.max_bytes;
        let (mut chosen, mut bytes, mut full) = (Vec::new(), 0, false);
        for (at, ready) in self.ready.iter().enumerate() {
            if !together(first, ready) {
                continue;
            }
            if chosen.len() == limit || bytes + ready.bytes > batch.max_bytes {
                full = true;
                break;
            }
            bytes += ready.bytes;
            chosen.push(at);
        }
        if !(full || crowded || chosen.len() == limit || now >= until) {
            return Take::Wait(until);
        }
        // From the back, so that places stay what they were.
        let mut taken: Vec<Lease> =
            chosen.into_iter().rev().filter_map(|at| Some(self.remove(at)?.lease)).collect();
        taken.reverse();
        Take::Now(Group::Batch(taken))
    }

    /// It could not begin: it is the next.
    pub fn put_back(&mut self, group: Group) {
        self.halves.push_front(group);
    }

    pub fn done(&mut self, done: Done, most: usize) {
        match done {
            Done::Nothing => {}
            Done::Well => self.limit = self.limit.map(|limit| limit.saturating_mul(2)).filter(|l| *l < most),
            Done::Halves(one, other) => {
                self.halves.push_back(Group::Batch(one));
                self.halves.push_back(Group::Batch(other));
            }
            Done::Spared(events) => self.limit = Some((events.len() / 2).max(1)),
            Done::Suspect(id) => {
                if !self.suspects.contains(&id) {
                    self.suspects.push_back(id);
                }
                if self.suspects.len() > SUSPECTS {
                    self.suspects.pop_front();
                }
            }
        }
    }

    fn remove(&mut self, at: usize) -> Option<Ready> {
        let ready = self.ready.remove(at)?;
        self.ready_bytes = self.ready_bytes.saturating_sub(ready.bytes);
        Some(ready)
    }
}

fn together(one: &Ready, other: &Ready) -> bool {
    match (one.lease.leased(), other.lease.leased()) {
        (Some(one), Some(other)) => form::go_together(&one.event, &other.event),
        _ => false,
    }
}

/// What the app answered a batch.
pub(super) struct BatchAnswered {
    pub answered: Answered,
    /// As far as it may say something of each event.
    pub body: Vec<u8>,
    /// Whether there was more of it than is read.
    pub cut: bool,
}

/// What an answer says of each event by itself.
#[derive(Debug, PartialEq, Eq)]
enum Each {
    /// The config does not ask, or the answer has no array where it says.
    Nothing,
    Statuses(Vec<u16>),
    /// It has something to say, and it can't be told of which event. In words, for the log and the attempt.
    Unreadable(String),
}

impl Each {
    fn of(answer: &BatchAnswered, at: &JsonPointer, count: usize) -> Self {
        if answer.cut {
            return Self::Unreadable("the answer to a batch is too long to look for statuses".into());
        }
        let Some(elements) = at.elements(&answer.body) else { return Self::Nothing };
        let status = |element: &&[u8]| -> Option<u16> {
            let value: serde_json::Value = serde_json::from_slice(element).ok()?;
            let number = value.as_u64().or_else(|| value.get("status")?.as_u64())?;
            u16::try_from(number).ok().filter(|status| (100..1000).contains(status))
        };
        if elements.len() != count {
            return Self::Unreadable(format!(
                "the answer has {} statuses for {count} events",
                elements.len()
            ));
        }
        match elements.iter().map(status).collect() {
            Some(found) => Self::Statuses(found),
            None => Self::Unreadable("the answer's array holds what is no status".into()),
        }
    }
}

/// Whether one event of a batch may be why it failed: the app took the request and did not like it, or did not survive it.
fn may_be_ones_doing(result: &Result<Answered, UpstreamError>) -> bool {
    match result {
        // It is busy, or wants to be left alone.
        Ok(Answered { status, .. }) => !matches!(status, 200..=299 | 408 | 425 | 429 | 503),
        Err(UpstreamError::Timeout(what)) => *what != "connect",
        Err(UpstreamError::Broken(_) | UpstreamError::Protocol(_)) => true,
        Err(_) => false,
    }
}

/// One attempt of a batch: from leases to settlements.
pub(super) async fn work<A: App>(
    leases: Vec<Lease>,
    permit: Permit,
    settings: Arc<Settings<A>>,
    around: Arc<Surroundings>,
) -> Done {
    let Settings { destination, app } = &*settings;
    let Some(batch) = &destination.batch else { return Done::Nothing };
    let at = around.clock.now();
    let mut going: Vec<(Lease, Leased)> = Vec::with_capacity(leases.len());
    for lease in leases {
        let Some(leased) = lease.leased().cloned() else { continue };
        let order = worker::order_of(&leased, destination);
        match classify::may_try(leased.attempts, &worker::budget(&destination.retry, order)) {
            Ok(()) => going.push((lease, leased)),
            Err(reason) => worker::settle(
                &around,
                lease,
                &leased,
                None,
                worker::dies(reason, order),
                Duration::ZERO,
                "not tried again",
            ),
        }
    }
    if going.is_empty() {
        permit.end(Outcome::Unused, "");
        return Done::Nothing;
    }
    let began = Instant::now();
    // One request can't go on with the traces of many: it has one of its own, which is linked to them.
    let all = going.iter().map(|(_, leased)| leased);
    let mut spans = worker::BatchSpans::of(around.tracer.as_ref(), destination, all);
    let result = {
        let mut parts = Vec::with_capacity(going.len());
        for ((_, leased), spans) in going.iter().zip(&spans.each) {
            let trace = spans.as_ref().map(worker::Spans::context);
            parts.push(Part { event: &leased.event, attempt: leased.attempts.saturating_add(1), trace });
        }
        app.batch(destination, batch, &parts, spans.call()).await
    };
    let (took, now) = (began.elapsed(), around.clock.now());
    let (mut result, each) = match result {
        Ok(answer) => {
            let each = match &batch.statuses {
                Some(at) => Each::of(&answer, at, going.len()),
                None => Each::Nothing,
            };
            (Ok(answer.answered), each)
        }
        Err(error) => (Err(error), Each::Nothing),
    };
    if let Ok(Answered { status: 200..=299, .. }) = result {
        match &each {
            // One of them may have failed: to take all for delivered would lose it.
            Each::Unreadable(problem) => result = Err(UpstreamError::Protocol(problem.clone())),
            Each::Nothing if batch.statuses.is_some() => {
                around.metrics.batch_without_statuses(&destination.name.0)
            }
            Each::Nothing | Each::Statuses(_) => {}
        }
    }
    let text = worker::text(&result);
    spans.answered(&result, &text);
    let spans = spans.each;
    let finding = classify::finding(&result, &destination.retry, now);
    let health = worker::health(&result, &finding);
    around.answered(destination, began, health);
    let charge = permit.end(health, &text);
    if let (Each::Statuses(each), Ok(whole)) = (each, &result) {
        for (((lease, leased), status), spans) in going.into_iter().zip(each).zip(spans) {
            let own = Ok(Answered { status, retry_after: whole.retry_after.clone() });
            let finding = classify::finding(&own, &destination.retry, now);
            let attempt =
                Attempt { at, took_ms: worker::millis(took), outcome: AttemptOutcome::Answered { status } };
            let order = worker::order_of(&leased, destination);
            // What it says of one is that one's own.
            let charge = Charge::Counts;
            let (attempt, next) =
                worker::next(&leased, attempt, finding, charge, &destination.retry, order, now);
            let text = format!("status {status} in a batch");
            worker::settle(&around, lease, &leased, attempt, next, took, &text);
            if let Some(spans) = spans {
                spans.end(&own, &text, next);
            }
        }
        return Done::Well;
    }
    let size = going.len();
    let suspicious = may_be_ones_doing(&result);
    if suspicious && size > 1 && matches!(charge, Charge::Counts) {
        spans.into_iter().flatten().for_each(|spans| spans.end(&result, &text, Next::Release));
        let mut one: Vec<Lease> = going.into_iter().map(|(lease, _)| lease).collect();
        let other = one.split_off(size / 2);
        tracing::info!(destination = %destination.name, events = size, answer = %text, "a batch failed and is taken apart");
        return Done::Halves(one, other);
    }
    let ids: Vec<EventId> = going.iter().map(|(_, leased)| leased.event.id).collect();
    let outcome = classify::outcome(&result);
    for ((lease, leased), spans) in going.into_iter().zip(spans) {
        let attempt = Attempt { at, took_ms: worker::millis(took), outcome: outcome.clone() };
        let order = worker::order_of(&leased, destination);
        let (attempt, next) =
            worker::next(&leased, attempt, finding.clone(), charge, &destination.retry, order, now);
        worker::settle(&around, lease, &leased, attempt, next, took, &text);
        if let Some(spans) = spans {
            spans.end(&result, &text, next);
        }
    }
    match (finding, charge, ids.first()) {
        (Finding::Success, ..) => Done::Well,
        (_, Charge::Spared, _) => Done::Spared(ids),
        (_, Charge::Counts, Some(id)) if suspicious && size == 1 => Done::Suspect(*id),
        _ => Done::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(body: &str, cut: bool, count: usize) -> Each {
        let answered = Answered { status: 200, retry_after: None };
        let answer = BatchAnswered { answered, body: body.into(), cut };
        Each::of(&answer, &JsonPointer::parse("/r").unwrap(), count)
    }

    #[test]
    fn each_event_has_a_status_or_nothing_is_known() {
        let mixed = r#"{"r":[200,{"status":503,"x":1},410]}"#;
        assert_eq!(each(mixed, false, 3), Each::Statuses(vec![200, 503, 410]));
        for body in [r#"{"r":{}}"#, "[200,200]", "ok", ""] {
            assert_eq!(each(body, false, 2), Each::Nothing, "{body}");
        }
    }

    #[test]
    fn statuses_that_fit_no_event_are_not_taken_for_success() {
        for body in [r#"{"r":[200]}"#, r#"{"r":[200,null]}"#, r#"{"r":[200,"200"]}"#, r#"{"r":[200,7]}"#] {
            assert!(matches!(each(body, false, 2), Each::Unreadable(_)), "{body}");
        }
        assert!(matches!(each(r#"{"r":[200,2"#, true, 2), Each::Unreadable(_)));
    }

    #[test]
    fn a_busy_app_is_no_reason_to_look_for_one_to_blame() {
        let answered = |status| Ok(Answered { status, retry_after: None });
        for status in [200, 408, 425, 429, 503] {
            assert!(!may_be_ones_doing(&answered(status)), "{status}");
        }
        for status in [400, 410, 413, 422, 500, 502] {
            assert!(may_be_ones_doing(&answered(status)), "{status}");
        }
        assert!(!may_be_ones_doing(&Err(UpstreamError::Connect("refused".into()))));
        assert!(!may_be_ones_doing(&Err(UpstreamError::Timeout("connect"))));
        assert!(may_be_ones_doing(&Err(UpstreamError::Timeout("answer"))));
        assert!(may_be_ones_doing(&Err(UpstreamError::Broken("closed".into()))));
    }

    #[test]
    fn batches_get_smaller_while_the_app_is_spared_and_grow_back() {
        let mut making = Making::default();
        let spared = |size: u8| Done::Spared((0..size).map(|n| EventId([n; 16])).collect());
        making.done(spared(100), 100);
        making.done(spared(50), 100);
        assert_eq!(making.limit, Some(25));
        making.done(spared(1), 100);
        assert_eq!(making.limit, Some(1));
        (0..7).for_each(|_| making.done(Done::Well, 100));
        assert_eq!(making.limit, None);
    }
}
