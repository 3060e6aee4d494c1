//! Jobs: beginning them, looking at them, and telling them something.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::buffer::{DestinationName, Effect, EventFilter, EventId, Job, JobState, Task};
use crate::jobs::{Command, JobError, Order};

use super::App;
use super::control::Control;
use super::filter::{Choice, Chosen, Conditions};
use super::problem::Problem;

/// The body of `POST /jobs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewJob {
    /// `replay`, `give_up`, `purge` or `erase`.
    pub task: String,
    /// `replay` only: to this destination (`route/destination`) instead of those that the events went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Conditions>,
    /// Everything; must be asked for in so many words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Events a second, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Only count what it would work on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// `GET /jobs`: the newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobList {
    pub jobs: Vec<JobView>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub id: String,
    pub task: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    pub dry_run: bool,
    /// `running`, `paused`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub filter: EventFilter,
    /// Events a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// From 0 to 1, by the time of the events.
    pub progress: f64,
    /// Events looked at.
    pub examined: u64,
    /// Events that match.
    pub matched: u64,
    /// Deliveries that are pending again or given up, or events deleted.
    pub changed: u64,
    /// Events that match and were left alone: a delivery is under way, or there was nothing to replay or to give up.
    pub untouched: u64,
    /// Of an erase: answers of apps, kept for repeats, that are forgotten.
    #[serde(default)]
    pub answers: u64,
}

impl JobView {
    pub fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused")
    }
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        Self {
            id: job.id.to_string(),
            task: job.task.word().to_owned(),
            to: match &job.task {
                Task::ReplayTo { to } => Some(to.to_string()),
                Task::Replay | Task::GiveUp | Task::Purge | Task::Erase => None,
            },
            dry_run: job.effect == Effect::DryRun,
            state: job.state.word().to_owned(),
            problem: match &job.state {
                JobState::Failed { problem, .. } => Some(problem.clone()),
                _ => None,
            },
            rate: job.rate,
            created_at: job.created.to_string(),
            ended_at: job.state.ended().map(|at| at.to_string()),
            progress: job.progress(),
            examined: job.examined,
            matched: job.matched,
            changed: job.changed,
            untouched: job.untouched,
            answers: job.answers,
            filter: job.filter,
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let status = match error {
            JobError::Buffer(error) => return error.into(),
            JobError::Unknown => StatusCode::NOT_FOUND,
            JobError::Ended(_) => StatusCode::CONFLICT,
            JobError::TooMany => StatusCode::TOO_MANY_REQUESTS,
            JobError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

pub(super) async fn begin(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let body = body.map_err(|e| Problem::new(e.status(), e.body_text()))?;
    let new: NewJob = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_request(format!("the body is not what is expected: {e}")))?;
    let order = checked(new, &*app.control)?;
    let job = app.control.jobs().begin(order).await?;
    Ok((StatusCode::ACCEPTED, Json(job.into())))
}

fn checked(new: NewJob, control: &dyn Control) -> Result<Order, Problem> {
    let NewJob { task, to, ids, filter, all, rate, dry_run } = new;
    let task = match (task.as_str(), to) {
        ("replay", None) => Task::Replay,
        ("replay", Some(to)) => Task::ReplayTo { to: destination(&to, control)? },
        ("give_up", None) => Task::GiveUp,
        ("purge", None) => Task::Purge,
        ("erase", None) => Task::Erase,
        ("give_up" | "purge" | "erase", Some(_)) => {
            return Err(Problem::bad_request("`to` is for `replay` alone"));
        }
        _ => return Err(Problem::bad_request("`task` is `replay`, `give_up`, `purge` or `erase`")),
    };
    let filter = match (Chosen { ids, filter, all }).check()? {
        Choice::Matching(filter) => filter,
        Choice::Ids(ids, only) => EventFilter { ids, ..only },
    };
    let names_somebody = filter.idempotency_key.is_some() || filter.body.is_some() || !filter.ids.is_empty();
    if task == Task::Erase && !names_somebody {
        return Err(Problem::bad_request(
            "an erase needs `key`, or `pointer` and `equals`, or `ids`; what is only old or done with is purged",
        ));
    }
    if rate == Some(0) {
        return Err(Problem::bad_request("`rate` is a number of events a second, at least 1"));
    }
    let effect = if dry_run == Some(true) { Effect::DryRun } else { Effect::Change };
    Ok(Order { task, filter, rate, effect })
}

/// One that somebody works on: a slip of the pen would wait for ever.
fn destination(name: &str, control: &dyn Control) -> Result<DestinationName, Problem> {
    let known = control.setup().buffered();
    if known.contains(name) {
        return Ok(DestinationName(name.into()));
    }
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    Err(Problem::bad_request(format!(
        "`to`: the running config delivers to no `{name}`; there is {}",
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    )))
}

pub(super) async fn list(State(app): State<App>) -> Json<JobList> {
    Json(JobList { jobs: app.control.jobs().list().into_iter().map(JobView::from).collect() })
}

fn id(text: &str) -> Result<EventId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("this is no id of a job"))
}

pub(super) async fn show(State(app): State<App>, Path(text): Path<String>) -> Result<Json<JobView>, Problem> {
    let job = app.control.jobs().get(id(&text)?).ok_or(JobError::Unknown)?;
    Ok(Json(job.into()))
}

pub(super) async fn tell(
    State(app): State<App>,
    Path((text, command)): Path<(String, String)>,
) -> Result<Json<JobView>, Problem> {
    let command = match command.as_str() {
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "cancel" => Command::Cancel,
        _ => return Err(Problem::not_found("a job is told to `pause`, `resume` or `cancel`")),
    };
    let job = app.control.jobs().tell(id(&text)?, command).await?;
    tracing::info!(job = %job.id, ?command, state = job.state.word(), "admin: a job was told something");
    Ok(Json(job.into()))
}
