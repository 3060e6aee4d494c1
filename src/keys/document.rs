//! One document and the task that fetches it, which ends with it.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::fetch::{Fetch, FetchError};
use super::named::Hush;
use super::{Context, KeySetStatus, Timing};
use crate::clock::Timestamp;
use crate::verify::{Document, Lacking, Lookup, Remote, Settled};

/// Whether a document is fetched for good or only when a request names it.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Fetched again and again, whether it is there or not.
    Always,
    /// Not tried again by itself until it was there once. `good`: its key has verified something before.
    OnceFound { good: bool, hush: Arc<Hush> },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: Box<str>,
    pub(super) kept: Kept,
}

#[derive(Debug)]
pub(super) struct Remembered {
    url: Box<str>,
    shared: Arc<Shared>,
    timing: Timing,
    task: Option<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    good: ArcSwapOption<Fetched>,
    error: Mutex<Option<String>>,
    /// Nobody has made its name up.
    good_name: AtomicBool,
    state: watch::Sender<State>,
    /// A request named a key that the document lacks.
    unknown: Notify,
}

#[derive(Debug)]
struct Fetched {
    document: Arc<Document>,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Fetching,
    /// The last fetch, which ended then, was good.
    Good(Instant),
    Failed(Instant),
    /// The issuer said that there is no such document.
    Absent(Instant),
}

impl Remembered {
    /// Begins to fetch, in the background.
    pub(super) fn start(remote: &Remote, kind: Kind, context: &Context) -> Self {
        let (state, _) = watch::channel(State::Fetching);
        let shared = Arc::new(Shared {
            good: ArcSwapOption::empty(),
            error: Mutex::default(),
            good_name: AtomicBool::new(!matches!(kind.kept, Kept::OnceFound { good: false, .. })),
            state,
            unknown: Notify::new(),
        });
        let url = remote.address.of(&kind.name);
        let shown: Box<str> = url.as_ref().map(ToString::to_string).unwrap_or_default().into();
        let fetch = match &url {
            Some(url) => Fetch::new(remote, url, &kind.name, context.clock.clone()),
            None => Err("no key is fetched for such a name".to_owned()),
        };
        let timing = context.timing;
        let task = match fetch {
            Ok(fetch) => {
                let refresher = Refresher {
                    source: remote.shown(),
                    url: shown.clone(),
                    fetch,
                    kept: kind.kept.clone(),
                    shared: shared.clone(),
                    context: context.clone(),
                };
                Some(context.runtime.spawn(refresher.run()).abort_handle())
            }
            // `check` refuses such a source; whoever comes round it gets no keys, so that nothing verifies.
            Err(problem) => {
                complain(&kind.kept, &shared, &remote.shown(), &shown, &problem);
                *shared.error.lock() = Some(problem);
                shared.state.send_replace(State::Failed(Instant::now()));
                None
            }
        };
        Self { url: shown, shared, timing, task }
    }

    pub(super) fn lookup(&self) -> Lookup {
        if let Some(good) = &*self.shared.good.load() {
            return Lookup::Known(good.document.clone());
        }
        match *self.shared.state.borrow() {
            State::Fetching => Lookup::Asked,
            State::Absent(_) => Lookup::Absent,
            // Good in between the two looks: the next one finds it.
            State::Good(_) => Lookup::Asked,
            State::Failed(_) => Lookup::Failing,
        }
    }

    /// Whether it was never there and it is time to look again, for documents that are not kept.
    pub(super) fn is_stale_failure(&self) -> bool {
        match *self.shared.state.borrow() {
            State::Failed(at) => self.shared.good.load().is_none() && at.elapsed() >= self.timing.retry,
            State::Absent(at) => at.elapsed() >= self.timing.floor,
            State::Fetching | State::Good(_) => false,
        }
    }

    /// Its key has verified something: it is one to be told of from now on.
    pub(super) fn is_good(&self) {
        self.shared.good_name.store(true, Ordering::Relaxed);
    }

    pub(super) fn lacks(&self) -> Lacking {
        let mut answer = Lacking::Failing;
        self.shared.state.send_if_modified(|state| {
            answer = match *state {
                State::Fetching => Lacking::Asked,
                State::Failed(_) => Lacking::Failing,
                State::Good(at) | State::Absent(at) if at.elapsed() < self.timing.floor => Lacking::Fresh,
                State::Good(_) | State::Absent(_) => {
                    *state = State::Fetching;
                    self.shared.unknown.notify_one();
                    Lacking::Asked
                }
            };
            false
        });
        answer
    }

    pub(super) fn settled(&self) -> Settled {
        let mut state = self.shared.state.subscribe();
        Box::pin(async move {
            // An error means that the document is gone, and with it whoever could fetch it.
            let _ = state.wait_for(|state| !matches!(state, State::Fetching)).await;
        })
    }

    pub(super) fn status(&self, now: Timestamp) -> KeySetStatus {
        let good = self.shared.good.load_full();
        KeySetStatus {
            url: self.url.to_string(),
            keys: good.as_ref().map_or(0, |good| good.document.keys().len()),
            fetched_at: good.as_ref().map(|good| good.at),
            age_s: good.map(|good| now.since(good.at).as_secs()),
            error: self.shared.error.lock().clone(),
            unknown_names: 0,
            alarming: !matches!(*self.shared.state.borrow(), State::Absent(_)),
        }
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Says in the log that keys can't be fetched: of a name that was never good only now and then, and without the name.
fn complain(kept: &Kept, shared: &Shared, source: &str, url: &str, error: &dyn Display) {
    match kept {
        Kept::OnceFound { hush, .. } if !shared.good_name.load(Ordering::Relaxed) => {
            if let Some(unsaid) = hush.line() {
                tracing::warn!(source, %error, unsaid, "a key that a request names can't be fetched");
            }
        }
        _ => tracing::warn!(url, %error, "keys can't be fetched; what is known stays"),
    }
}

struct Refresher {
    /// For metrics: one a source, not one a document.
    source: String,
    url: Box<str>,
    fetch: Fetch,
    kept: Kept,
    shared: Arc<Shared>,
    context: Context,
}

impl Refresher {
    async fn run(self) {
        let mut failures = 0u32;
        loop {
            let began = Instant::now();
            self.shared.state.send_replace(State::Fetching);
            let fetched = self.fetch.run().await;
            self.context.metrics.keys_fetched(&self.source, fetched.is_ok());
            let state = match fetched {
                Ok(document) => {
                    if failures > 0 {
                        tracing::info!(url = %self.url, failures, "keys are fetched again");
                    }
                    failures = 0;
                    *self.shared.error.lock() = None;
                    let fetched = Fetched { document: Arc::new(document), at: self.context.clock.now() };
                    self.shared.good.store(Some(Arc::new(fetched)));
                    State::Good(Instant::now())
                }
                Err(error) => self.failed(error, &mut failures),
            };
            self.shared.state.send_replace(state);
            if matches!(self.kept, Kept::OnceFound { .. }) && self.shared.good.load().is_none() {
                return;
            }
            let timing = &self.context.timing;
            let refresh = match self.kept {
                Kept::Always => timing.refresh,
                Kept::OnceFound { .. } => timing.refresh_named,
            };
            tokio::select! {
                () = sleep_until(began + timing.after(failures, refresh)) => {}
                () = self.shared.unknown.notified() => {}
            }
        }
    }

    fn failed(&self, error: FetchError, failures: &mut u32) -> State {
        if *failures == 0 {
            complain(&self.kept, &self.shared, &self.source, &self.url, &error);
        }
        *failures = failures.saturating_add(1);
        *self.shared.error.lock() = Some(error.to_string());
        // A key that its issuer takes back is no outage. A set that is gone may be a mistake; its keys stay.
        if matches!(self.kept, Kept::OnceFound { .. }) && error.is_absent() {
            self.shared.good.store(None);
            return State::Absent(Instant::now());
        }
        State::Failed(Instant::now())
    }
}
