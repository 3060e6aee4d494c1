//! The way out: scheduler, pace, retry and workers of each destination.
//!
//! Here is decided *when* an event is tried and what its outcome means; how a request is sent is `upstream`'s, what is
//! due is the `buffer`'s. Carries the delivering half of promise 1, and promise 6 (a sick app is paused, not
//! abandoned).
//!
//! Each destination has one task (`scheduler`) that leases what is due and starts attempts (`worker`); `classify`
//! says what an outcome means, `backoff` how long to wait, `pace` and `rate` when the next may begin; whether the app is to be left alone is the `breaker`'s. A
//! `lease` that is not settled gives itself back, whatever ends its holder.

mod backoff;
mod batch;
mod classify;
mod lease;
mod pace;
mod rate;
mod scheduler;
mod worker;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::breaker::Breakers;
use crate::buffer::{Buffer, DestinationName};
use crate::clock::Clock;
use crate::config::Destination;
use crate::pauses::Paused;
use crate::telemetry::Metrics;
use crate::trace::Tracer;
use crate::upstream::Upstream;

use scheduler::{Scheduler, Stop};
use worker::{App, Settings, Surroundings};

/// All delivery workers of the process. Dropped without `shutdown`, it breaks off what is in flight (and the buffer
/// gets it back).
pub struct Deliverer {
    inner: Inner<Arc<Upstream>>,
}

impl Deliverer {
    /// Must be called within the tokio runtime that the workers shall run on.
    pub fn new(seams: Seams) -> Self {
        Self { inner: Inner::new(seams) }
    }

    /// Makes exactly these destinations be worked on, with these settings: new ones start, changed ones go over to the
    /// new settings with their next attempt, removed ones stop taking leases (their deliveries stay in the buffer).
    pub fn apply(&self, destinations: Vec<(Arc<Destination>, Arc<Upstream>)>) {
        self.inner.apply(destinations);
    }

    /// Takes no new leases, waits up to `grace` for attempts in flight, hands the rest back unsettled. Afterwards
    /// `apply` starts nothing.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.shutdown(grace).await;
    }
}

/// What deliveries meet on their way.
#[derive(Clone)]
pub struct Seams {
    pub buffer: Arc<dyn Buffer>,
    pub breakers: Arc<Breakers>,
    pub pauses: watch::Receiver<Paused>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// `None`: nothing is recorded.
    pub tracer: Option<Arc<Tracer>>,
}

/// The same over any way to the app.
struct Inner<A> {
    seams: Seams,
    runtime: Handle,
    stop: watch::Sender<Stop>,
    destinations: Mutex<HashMap<DestinationName, Worked<A>>>,
}

/// A destination that is worked on, or was before a reload removed it: then its task waits, in case it comes back.
struct Worked<A> {
    /// Dropped, it ends the task.
    settings: watch::Sender<Option<Arc<Settings<A>>>>,
    task: JoinHandle<()>,
}

impl<A: App> Inner<A> {
    fn new(seams: Seams) -> Self {
        let (stop, _) = watch::channel(Stop::No);
        Self { seams, runtime: Handle::current(), stop, destinations: Mutex::default() }
    }

    fn apply(&self, destinations: Vec<(Arc<Destination>, A)>) {
        let mut worked = self.destinations.lock();
        if *self.stop.borrow() != Stop::No {
            return;
        }
        let mut removed: Vec<DestinationName> = worked.keys().cloned().collect();
        for (destination, app) in destinations {
            removed.retain(|name| *name != destination.name);
            let name = destination.name.clone();
            let settings = Some(Arc::new(Settings { destination, app }));
            match worked.get(&name) {
                // A task ends early only if it panicked or the buffer closed.
                Some(there) if !there.task.is_finished() => {
                    there.settings.send_replace(settings);
                }
                _ => {
                    worked.insert(name.clone(), self.start(name, settings));
                }
            }
        }
        for name in removed {
            if let Some(there) = worked.get(&name) {
                there.settings.send_replace(None);
            }
        }
    }

    fn start(&self, name: DestinationName, settings: Option<Arc<Settings<A>>>) -> Worked<A> {
        let (settings, receiver) = watch::channel(settings);
        let around = Arc::new(Surroundings {
            metrics: self.seams.metrics.clone(),
            clock: self.seams.clock.clone(),
            breaker: self.seams.breakers.of(&name),
            tracer: self.seams.tracer.clone(),
        });
        let (buffer, stop) = (self.seams.buffer.clone(), self.stop.subscribe());
        let pauses = self.seams.pauses.clone();
        let supervised = async move {
            loop {
                let scheduler = Scheduler {
                    name: name.clone(),
                    buffer: buffer.clone(),
                    around: around.clone(),
                    settings: receiver.clone(),
                    pauses: pauses.clone(),
                    stop: stop.clone(),
                };
                // In a task of its own, so that a panic neither ends the destination's work nor goes unsaid; its
                // leases give themselves back.
                let mut running = tokio::task::JoinSet::new();
                running.spawn(scheduler.run());
                match running.join_next().await {
                    Some(Err(error)) if error.is_panic() => {
                        tracing::error!(destination = %name, %error, "the scheduler panicked and starts again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    _ => return,
                }
            }
        };
        Worked { settings, task: self.runtime.spawn(supervised) }
    }

    async fn shutdown(&self, grace: Duration) {
        let until = Instant::now() + grace.min(Duration::from_secs(24 * 3600));
        let worked: Vec<Worked<A>> = {
            let mut destinations = self.destinations.lock();
            self.stop.send_replace(Stop::At(until));
            destinations.drain().map(|(_, worked)| worked).collect()
        };
        for Worked { settings, task } in worked {
            // A task that could not finish has said so itself.
            let _ = task.await;
            drop(settings);
        }
    }
}
