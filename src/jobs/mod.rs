//! Work on many events in the background: replay, purge and erase by a filter.
//!
//! A job goes through the events that match, oldest first, in bounded steps; what came in after its making is not
//! touched. Each step is one atomic write of what it changes and of the job itself, so a job goes on after a restart
//! (or `kill -9`) exactly where it was: nothing is replayed twice, and nothing is left out. Jobs may be paused, resumed
//! and cancelled, and are listed until they are pushed out by later ones.

mod run;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use crate::buffer::{Buffer, BufferError, Effect, EventFilter, EventId, Hidden, Job, JobState, Step, Task};
use crate::clock::Clock;

/// Jobs that have not ended, at most.
pub const MAX_OPEN: usize = 16;
/// Ended jobs that are kept to be looked at.
const MAX_ENDED: usize = 50;
/// Jobs that work at the same time; the others wait for their turn.
const AT_ONCE: usize = 4;
/// How long it is waited for that a job does what it was told.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a new job is to do.
#[derive(Clone, Debug)]
pub struct Order {
    pub task: Task,
    pub filter: EventFilter,
    /// Events a second.
    pub rate: Option<u32>,
    pub effect: Effect,
}

/// Why a job can't be made or told something.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("there is no such job")]
    Unknown,
    #[error("the job has ended already ({0})")]
    Ended(&'static str),
    #[error("{MAX_OPEN} jobs are open already: wait for one, or cancel it")]
    TooMany,
    #[error("the gateway starts or ends just now")]
    Closed,
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// What a job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Pause,
    Resume,
    Cancel,
}

/// All jobs of a gateway.
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    buffer: Arc<dyn Buffer>,
    clock: Clock,
    known: Mutex<HashMap<EventId, Handle>>,
    turns: Semaphore,
    hidden: OnceLock<Hidden>,
}

/// A job in memory.
struct Handle {
    job: watch::Sender<Job>,
    /// What it was told and has not done yet.
    told: Option<Command>,
    wake: Arc<Notify>,
}

impl Jobs {
    /// Runs nothing before [`Jobs::start`].
    pub fn new(buffer: Arc<dyn Buffer>, clock: Clock) -> Self {
        let turns = Semaphore::new(AT_ONCE);
        let inner = Inner { buffer, clock, known: Mutex::default(), turns, hidden: OnceLock::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Takes up the jobs that earlier processes left. Within a tokio runtime; the first call counts.
    pub async fn start(&self, hidden: Hidden) -> Result<(), BufferError> {
        let jobs = self.inner.buffer.jobs().await?;
        if self.inner.hidden.set(hidden).is_err() {
            return Ok(());
        }
        for job in jobs {
            if job.state == JobState::Running {
                tracing::info!(job = %job.id, task = job.task.word(), changed = job.changed, "a job goes on");
            }
            self.inner.take_up(job);
        }
        Ok(())
    }

    /// Makes a job and begins it. It is on disk when this returns.
    pub async fn begin(&self, order: Order) -> Result<Job, JobError> {
        let inner = &self.inner;
        if inner.hidden.get().is_none() {
            return Err(JobError::Closed);
        }
        let open = |job: &Job| job.state.ended().is_none();
        if inner.all().iter().filter(|job| open(job)).count() >= MAX_OPEN {
            return Err(JobError::TooMany);
        }
        let now = inner.clock.now();
        let Order { task, filter, rate, effect } = order;
        let job = Job {
            id: EventId::new(now),
            task,
            effect,
            filter,
            rate,
            state: JobState::Running,
            created: now,
            from: None,
            cursor: None,
            examined: 0,
            matched: 0,
            changed: 0,
            untouched: 0,
            answers: 0,
        };
        let job = inner.buffer.step(Step::of(job)).await?;
        let mut logged = job.clone();
        logged.forget_whom();
        // Who did what to stored events should be found in the log later.
        tracing::info!(job = %job.id, task = job.task.word(), effect = ?job.effect,
            filter = serde_json::to_string(&logged.filter).unwrap_or_default(), "a job begins");
        inner.take_up(job.clone());
        inner.forget_surplus().await;
        Ok(job)
    }

    /// The newest first.
    pub fn list(&self) -> Vec<Job> {
        let mut jobs = self.inner.all();
        jobs.sort_unstable_by_key(|job| std::cmp::Reverse(job.id));
        jobs
    }

    pub fn get(&self, id: EventId) -> Option<Job> {
        self.inner.get(id)
    }

    /// Tells a job something. It obeys after its current step, and that is on disk when this returns; only if the step
    /// takes longer than [`PATIENCE`] (an erase that goes through the files does), the job may not have heard yet.
    pub async fn tell(&self, id: EventId, command: Command) -> Result<Job, JobError> {
        let (idle, mut job) = {
            let mut known = self.inner.known.lock();
            let handle = known.get_mut(&id).ok_or(JobError::Unknown)?;
            let job = handle.job.borrow().clone();
            let idle = match (&job.state, command) {
                (JobState::Running, Command::Pause | Command::Cancel) => {
                    handle.told = Some(command);
                    handle.wake.notify_one();
                    None
                }
                (JobState::Running, Command::Resume) | (JobState::Paused, Command::Pause) => return Ok(job),
                (JobState::Paused, Command::Resume) => Some(Job { state: JobState::Running, ..job }),
                (JobState::Paused, Command::Cancel) => {
                    let mut job = Job { state: JobState::Cancelled { at: self.inner.clock.now() }, ..job };
                    job.forget_whom();
                    Some(job)
                }
                (ended, _) => return Err(JobError::Ended(ended.word())),
            };
            (idle, handle.job.subscribe())
        };
        match idle {
            // Nobody works on a paused one.
            Some(job) => {
                let job = self.inner.buffer.step(Step::of(job)).await?;
                self.inner.take_up(job.clone());
                Ok(job)
            }
            None => {
                let obeyed = job.wait_for(|job| job.state != JobState::Running);
                let _ = tokio::time::timeout(PATIENCE, obeyed).await;
                self.get(id).ok_or(JobError::Unknown)
            }
        }
    }
}

impl Inner {
    fn all(&self) -> Vec<Job> {
        self.known.lock().values().map(|handle| handle.job.borrow().clone()).collect()
    }

    fn get(&self, id: EventId) -> Option<Job> {
        self.known.lock().get(&id).map(|handle| handle.job.borrow().clone())
    }

    /// Knows a job from now on, and works on it if it runs.
    fn take_up(self: &Arc<Self>, job: Job) {
        let (id, runs) = (job.id, job.state == JobState::Running);
        let wake = Arc::new(Notify::new());
        let handle = Handle { job: watch::Sender::new(job), told: None, wake: wake.clone() };
        self.known.lock().insert(id, handle);
        if runs {
            let inner = self.clone();
            tokio::spawn(async move { inner.run(id, wake).await });
        }
    }

    async fn forget_surplus(&self) {
        let ended = |job: Job| job.state.ended().map(|_| job.id);
        let mut ended: Vec<EventId> = self.all().into_iter().filter_map(ended).collect();
        ended.sort_unstable();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        for id in ended.into_iter().take(surplus) {
            self.known.lock().remove(&id);
            if let Err(error) = self.buffer.forget_job(id).await {
                tracing::warn!(%error, job = %id, "an old job could not be forgotten");
            }
        }
    }
}
