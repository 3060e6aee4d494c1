//! Work on many events, step by step: what is written of a job with each of its steps, so that it goes on after a
//! restart exactly where it was.

use serde::{Deserialize, Serialize};

use super::{ClaimKey, DestinationName, EventFilter, EventId};
use crate::clock::Timestamp;

/// What a job does to the events that it finds, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Makes settled deliveries pending again.
    Replay,
    /// Gives the events to this destination, whether or not they were meant for it.
    ReplayTo { to: DestinationName },
    /// Makes dead letters of deliveries that are pending or retrying, but of none that is in flight.
    GiveUp,
    /// Deletes events, but none whose delivery is under way.
    Purge,
    /// The same, and makes sure that nothing of them is left in the buffer's files.
    Erase,
}

impl Task {
    pub const fn word(&self) -> &'static str {
        match self {
            Task::Replay | Task::ReplayTo { .. } => "replay",
            Task::GiveUp => "give_up",
            Task::Purge => "purge",
            Task::Erase => "erase",
        }
    }
}

/// Whether a job changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    Change,
    /// Only counts what it would work on.
    DryRun,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    Running,
    Paused,
    Done { at: Timestamp },
    Cancelled { at: Timestamp },
    Failed { at: Timestamp, problem: String },
}

impl JobState {
    pub const fn word(&self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Done { .. } => "done",
            JobState::Cancelled { .. } => "cancelled",
            JobState::Failed { .. } => "failed",
        }
    }
    pub const fn ended(&self) -> Option<Timestamp> {
        match self {
            JobState::Running | JobState::Paused => None,
            JobState::Done { at } | JobState::Cancelled { at } | JobState::Failed { at, .. } => Some(*at),
        }
    }
}

/// In place of what an erase looked for.
const FORGOTTEN: &str = "(forgotten)";

/// A job as it is kept. Its counts and its cursor are written in the same atomic write as what it changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Sorts by the time of its making.
    pub id: EventId,
    #[serde(flatten)]
    pub task: Task,
    pub effect: Effect,
    pub filter: EventFilter,
    /// Events a second; `None`: as fast as it goes.
    pub rate: Option<u32>,
    #[serde(flatten)]
    pub state: JobState,
    /// What came in later is not touched.
    pub created: Timestamp,
    /// The time of the oldest event when it began.
    pub from: Option<Timestamp>,
    /// It goes on behind this event.
    pub cursor: Option<EventId>,
    /// Events looked at.
    pub examined: u64,
    /// Events that matched.
    pub matched: u64,
    /// Deliveries made pending or given up, or events deleted.
    pub changed: u64,
    /// Matching events that were left alone: a delivery is under way, or there was nothing to replay or to give up.
    pub untouched: u64,
    /// Answers of apps that were forgotten: those that claims kept for repeats.
    #[serde(default)]
    pub answers: u64,
}

impl Job {
    /// Where somebody was to be erased, nothing tells whom from here on: the record of it is kept in the same files.
    pub fn forget_whom(&mut self) {
        if self.task != Task::Erase {
            return;
        }
        let whom = [&mut self.filter.idempotency_key, &mut self.filter.header];
        let value = self.filter.body.as_mut().map(|body| &mut body.equals);
        for text in whom.into_iter().flatten().chain(value) {
            FORGOTTEN.clone_into(text);
        }
    }

    /// How far it is, from 0 to 1, by the time of the events.
    #[allow(clippy::cast_precision_loss)] // shown in whole percents
    pub fn progress(&self) -> f64 {
        if let JobState::Done { .. } = self.state {
            return 1.0;
        }
        let (Some(from), Some(cursor)) = (self.from, self.cursor) else { return 0.0 };
        let end = self.filter.until.map_or(self.created, |until| until.min(self.created));
        let (whole, part) = (end.since(from).as_millis(), cursor.time().since(from).as_millis());
        if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
    }
}

/// A step of a job.
#[derive(Clone, Debug)]
pub struct Step {
    /// As it will be if the step changes nothing; what it changes is added.
    pub job: Job,
    pub events: Vec<EventId>,
    /// Claims whose answers are forgotten.
    pub answers: Vec<ClaimKey>,
}

impl Step {
    /// Changes nothing but what is written of the job.
    pub const fn of(job: Job) -> Self {
        Self { job, events: Vec::new(), answers: Vec::new() }
    }
}
