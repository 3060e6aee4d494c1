//! One job at work: look, step, look for what it was told, wait for its pace.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Command, Inner};
use crate::buffer::{Asked, BufferError, Effect, EventId, Job, JobState, Search, Step, Task};

/// Events of one step: some milliseconds of the committer's time.
const STEP: usize = 256;
/// How long a step looks for events that match.
const LOOK: Duration = Duration::from_millis(100);
/// A job that finds nothing for so long writes down how far it is.
const WRITE_DOWN: Duration = Duration::from_secs(2);

impl Inner {
    /// Works on a job until it ends, is paused, or the buffer closes; then the next process goes on.
    pub(super) async fn run(self: Arc<Self>, id: EventId, wake: Arc<Notify>) {
        let Some(mut job) = self.get(id) else { return };
        let turn = tokio::select! {
            turn = self.turns.acquire() => turn,
            command = self.waits_to_be_told(id, &wake) => {
                self.ended(&mut job, |job| job.state = self.after(command)).await;
                return;
            }
        };
        // The semaphore is never closed.
        let Ok(_turn) = turn else { return };
        match self.work(&mut job, &wake).await {
            Ok(()) => {
                let Job { task, examined, matched, changed, untouched, .. } = &job;
                tracing::info!(job = %id, task = task.word(), state = job.state.word(), examined, matched, changed,
                    untouched, "a job is no longer at work");
            }
            // The process ends, or the buffer has failed and so ends with it: the job is on disk as it was.
            Err(BufferError::Closed | BufferError::Failed(_)) => {}
            Err(error @ (BufferError::Damaged(_) | BufferError::NoSpace(_) | BufferError::Refused(_))) => {
                tracing::error!(%error, job = %id, "a job has failed");
                let problem = error.to_string();
                self.ended(&mut job, |job| job.state = JobState::Failed { at: self.clock.now(), problem })
                    .await;
            }
        }
    }

    async fn waits_to_be_told(&self, id: EventId, wake: &Notify) -> Command {
        loop {
            wake.notified().await;
            if let Some(command) = self.told(id) {
                return command;
            }
        }
    }

    fn after(&self, command: Command) -> JobState {
        match command {
            Command::Pause => JobState::Paused,
            Command::Cancel => JobState::Cancelled { at: self.clock.now() },
            Command::Resume => JobState::Running,
        }
    }

    /// Without a step of its own: if it can't be written, the next process takes it up as it was.
    async fn ended(&self, job: &mut Job, change: impl FnOnce(&mut Job)) {
        change(job);
        if job.state.ended().is_some() {
            job.forget_whom();
        }
        if self.write(job, Vec::new()).await.is_err() {
            self.publish(job);
        }
    }

    async fn work(&self, job: &mut Job, wake: &Notify) -> Result<(), BufferError> {
        let Some(hidden) = self.hidden.get().cloned() else { return Ok(()) };
        // Never more than a tenth of a second's worth at once, so that a slow pace is even.
        let at_once = job.rate.map_or(STEP, |rate| (rate as usize / 10).clamp(1, STEP));
        let mut search = Search::new(job.filter.clone(), at_once).oldest_first();
        search.hidden = match job.task {
            // Who asks for something to be forgotten names what nobody else may see.
            Task::Erase => Arc::new(move |route| {
                let hides = hidden(route);
                Box::new(move |asked| matches!(asked, Asked::Header(_)) && hides(asked))
            }),
            _ => hidden,
        };
        search.upto = Some(EventId::last_of(job.created));
        search.budget = LOOK;
        if job.from.is_none() {
            let all = Search { filter: Default::default(), limit: 1, ..search.clone() };
            let page = self.buffer.search(all).await?;
            job.from = page.events.first().map(|(event, _)| event.received_at);
        }
        if job.task == Task::Erase {
            self.forget_answers(job).await?;
        }
        let (mut due, mut written) = (Instant::now(), Instant::now());
        while self.goes_on(job).await? {
            if due > Instant::now() {
                // What it is told wakes it.
                let _ = tokio::time::timeout_at(due, wake.notified()).await;
                continue;
            }
            search.after = job.cursor;
            let mut page = self.buffer.search(search.clone()).await?;
            if job.task == Task::GiveUp {
                // Of an event whose deliveries are all done with there is nothing to give up, nor to count.
                page.events.retain(|(_, deliveries)| {
                    deliveries.iter().any(|one| one.may_be_given_up() && job.filter.takes(one))
                });
            }
            job.examined += page.examined;
            job.matched += page.events.len() as u64;
            let ids: Vec<EventId> = page.events.iter().map(|(event, _)| event.id).collect();
            let found = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            if let Some(last) = page.next.or(ids.last().copied()) {
                job.cursor = Some(last);
            }
            let is_last = page.next.is_none();
            if is_last {
                job.forget_whom();
            }
            // What was erased may still stand in the files.
            let rest = job.task == Task::Erase && job.effect == Effect::Change;
            if is_last && !rest {
                job.state = JobState::Done { at: self.clock.now() };
            }
            let ids = if job.effect == Effect::DryRun { Vec::new() } else { ids };
            if !ids.is_empty() || is_last || written.elapsed() >= WRITE_DOWN {
                self.write(job, ids).await?;
                written = Instant::now();
            } else {
                self.publish(job);
            }
            if is_last {
                if rest {
                    // Also if nothing was found: it may have been deleted before, and stand in the files still.
                    self.buffer.scrub().await?;
                    job.state = JobState::Done { at: self.clock.now() };
                    self.write(job, Vec::new()).await?;
                }
                return Ok(());
            }
            if let Some(rate) = job.rate {
                let pause = Duration::from_secs(1).saturating_mul(found) / rate.max(1);
                // What was not used of the pace is not saved up.
                due = due.max(Instant::now() - LOOK) + pause;
            }
        }
        Ok(())
    }

    /// Does as it was told. Whether it goes on.
    async fn goes_on(&self, job: &mut Job) -> Result<bool, BufferError> {
        if let Some(command) = self.told(job.id) {
            job.state = self.after(command);
            if command == Command::Cancel {
                job.forget_whom();
            }
            self.write(job, Vec::new()).await?;
        }
        Ok(job.state == JobState::Running)
    }

    /// The answers of apps that are kept for repeats, whether or not there is an event. Each time that the job is taken
    /// up, from the first on: those that are forgotten are not found again.
    async fn forget_answers(&self, job: &mut Job) -> Result<(), BufferError> {
        let mut after = None;
        if job.effect == Effect::DryRun {
            job.answers = 0;
        }
        while self.goes_on(job).await? {
            let page = self.buffer.answers(job.filter.clone(), after).await?;
            match job.effect {
                Effect::DryRun => job.answers += page.keys.len() as u64,
                Effect::Change if page.keys.is_empty() => {}
                Effect::Change => {
                    let step = Step { answers: page.keys, ..Step::of(job.clone()) };
                    *job = self.buffer.step(step).await?;
                }
            }
            self.publish(job);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn told(&self, id: EventId) -> Option<Command> {
        self.known.lock().get_mut(&id).and_then(|handle| handle.told.take())
    }

    async fn write(&self, job: &mut Job, events: Vec<EventId>) -> Result<(), BufferError> {
        *job = self.buffer.step(Step { events, ..Step::of(job.clone()) }).await?;
        self.publish(job);
        Ok(())
    }

    fn publish(&self, job: &Job) {
        if let Some(handle) = self.known.lock().get(&job.id) {
            handle.job.send_replace(job.clone());
        }
    }
}
