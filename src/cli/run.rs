//! `tidegate run`: puts the parts together, starts them, and ends them in order.
//!
//! The order of the end is the promise here (8, and the last part of 1): not ready, then no new connections, then
//! what is in flight is finished, deliveries are handed back, and the buffer is synced and closed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::check::ConfigPath;
use crate::buffer::embedded;
use crate::clock::Clock;
use crate::config::{self, Config, Loaded, Problems};
use crate::edge::{self, ServeError};
use crate::gateway::{Ambient, Gateway, Snapshot, admin_text};
use crate::keys::RemoteKeys;
use crate::quarantine::Quarantine;
use crate::telemetry::{self, Metrics};
use crate::trace::{TraceError, Tracer};
use crate::{admin, buffer, expiry};

/// Threads for deliveries, the admin API, key refresh and signals: half as many as there are cores, eight at most. The
/// edge has its own. On a small machine one is cheaper than two that wake each other.
fn background_threads() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 8)
}

/// Deliveries give way to acceptance where both want the same core: a sender waits for its answer, a backlog does not.
/// Only Linux knows a nice value of a single thread.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        let given_way =
            getpriority_process(None).and_then(|now| setpriority_process(None, now.saturating_add(5)));
        if let Err(problem) = given_way {
            tracing::debug!(%problem, "the threads of deliveries keep the usual priority");
        }
    }
}

/// Beyond `shutdown.grace`, for the edge and the workers to notice that it has passed.
const SLACK: Duration = Duration::from_secs(5);
/// How long the export of the last traces may hold up the end.
const LAST_TRACES: Duration = Duration::from_secs(2);
/// What `sysexits.h` calls EX_CONFIG.
const EXIT_CONFIG: u8 = 78;
/// What sysexits calls a temporary failure: to be started again as it was.
const EXIT_START_AGAIN: u8 = 75;
/// Between two looks whether the buffer asks for that.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// 128 + SIGINT: ended at once because the user insisted.
const EXIT_INTERRUPTED: i32 = 130;

/// Run the gateway
///
/// Logs go to standard error. Signals: SIGHUP reads config, secrets and certificates again without dropping a request
/// (a bad config changes nothing); SIGTERM and SIGINT stop accepting, finish what is in flight within
/// `shutdown.grace`, close the buffer and exit 0; a second SIGINT ends at once, which loses nothing that was
/// acknowledged. Exit codes: 0 ended as asked, 1 it could not start or a part failed, 75 the
/// buffer's volume was full and has room again (start it anew), 78 the config is bad.
#[derive(clap::Args, Debug)]
pub struct Run {
    #[command(flatten)]
    config: ConfigPath,
    /// Only check that it could run: the config, certificates and secrets. Opens no socket and no buffer
    #[arg(long)]
    check: bool,
}

/// Why the gateway does not run (any more).
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(#[from] Problems),
    /// The config is well-formed, but what it names can't be used.
    #[error("{0}")]
    Unusable(String),
    #[error("log: {0}")]
    Log(String),
    #[error("buffer: {0}")]
    Buffer(#[from] embedded::OpenError),
    #[error("listener {0}")]
    Listener(#[from] ServeError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error("admin: {0}")]
    Admin(String),
    #[error("{what} ended unexpectedly")]
    Ended { what: &'static str },
    #[error(
        "the buffer's volume was full, and has room again: the process ends to be started anew; all that was acknowledged is there"
    )]
    RoomAgain,
    #[error("the clients' URLs can't be read: {0}")]
    Endpoints(#[source] buffer::BufferError),
    #[error("the buffer could not be closed cleanly: {0}")]
    Close(#[from] buffer::BufferError),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl Failure {
    const fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Unusable(_) => EXIT_CONFIG,
            Failure::RoomAgain => EXIT_START_AGAIN,
            _ => 1,
        }
    }
}

impl Run {
    pub fn run(self) -> ExitCode {
        let result = self.run_to_end();
        telemetry::flush(Duration::from_secs(1));
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                match failure {
                    // Each begins with its file.
                    Failure::Config(_) => eprintln!("{failure}"),
                    _ => eprintln!("tidegate: {failure}"),
                }
                ExitCode::from(failure.exit_code())
            }
        }
    }

    fn run_to_end(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(background_threads())
            .thread_name("tidegate-work")
            .on_thread_start(give_way)
            .enable_all()
            .build()?;
        let within = runtime.enter();
        let metrics = Arc::new(Metrics::default());
        let clock = Clock::System;
        let keys = Arc::new(RemoteKeys::new(metrics.clone(), clock.clone()));

        let path = self.config.path();
        let Loaded { config, warnings } = config::load(&path, &*keys)?;
        if self.check {
            for warning in &warnings {
                eprintln!("warning: {warning}");
            }
            Snapshot::build(config, None).map_err(Failure::Unusable)?;
            println!("{} can run", path.display());
            return Ok(());
        }
        telemetry::init(&config.log).map_err(Failure::Log)?;
        for warning in &warnings {
            tracing::warn!(%warning, "the config has a warning");
        }
        let snapshot = Snapshot::build(config, None).map_err(Failure::Unusable)?;
        let settings = &snapshot.config.buffer;
        let folder = settings.path.clone();
        let quarantine = Arc::new(Quarantine::new(
            &settings.path,
            settings.encryption.clone(),
            metrics.clone(),
            clock.clone(),
        ));
        let buffer = embedded::open_beside(settings, quarantine.clone(), metrics.clone(), clock.clone())?;
        // Once the folder is ours.
        quarantine.open();
        keys.remember_in(&folder);
        let tracer = snapshot.config.tracing.as_ref();
        let tracer = tracer.map(|settings| Tracer::new(settings, metrics.clone())).transpose()?;
        let ambient = Ambient { metrics, clock, tracer: tracer.clone() };
        let gateway = Gateway::new(snapshot, path, keys, buffer, quarantine, ambient);
        drop(within);

        let result = runtime.block_on(serve(Arc::new(gateway)));
        // While the runtime is there, which does the exporting.
        if let Some(tracer) = tracer {
            tracer.shutdown(LAST_TRACES);
        }
        // Only what can't be waited for is left, such as a name lookup under way.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// Runs until a signal or a failure, then ends everything in order. Whatever happened, the buffer is closed.
async fn serve(gateway: Arc<Gateway>) -> Result<(), Failure> {
    // Before anything is sent: what was paused stays so.
    gateway.pauses.restore().await?;
    gateway.restore_breakers().await?;
    gateway.announce_backlog().await;
    // What happens from here on is news.
    gateway.look().await;
    // Before the first request: who has a URL must not be told that there is none.
    let loaded = gateway.endpoints.load().await.map_err(Failure::Endpoints);
    let running = match loaded.and_then(|()| Running::start(&gateway)) {
        Ok(mut running) => {
            let result = running.until_told_to_end(&gateway).await;
            let ended = running.end(&gateway).await;
            result.and(ended)
        }
        Err(failure) => Err(failure),
    };
    let closed = gateway.buffer.close().await.map_err(Failure::from);
    running.and(closed)
}

/// The parts that run, and how each is told to end.
struct Running {
    signals: Signals,
    edge: oneshot::Receiver<Result<(), ServeError>>,
    edge_ended: bool,
    ready: watch::Receiver<bool>,
    close_listeners: watch::Sender<bool>,
    /// Looks at the alert rules until it is aborted; it owns nothing.
    watch: tokio::task::JoinHandle<()>,
    admin: tokio::task::JoinHandle<Result<(), String>>,
    admin_ended: bool,
    /// The admin API answers until the very end: it says that we are draining.
    close_admin: watch::Sender<bool>,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Running {
    fn start(gateway: &Arc<Gateway>) -> Result<Self, Failure> {
        // First, so that none is missed.
        let signals = Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let (close_admin, admin_closes) = watch::channel(false);
        let admin = tokio::spawn(admin::serve(gateway.clone(), admin_closes));
        let watched = gateway.clone();
        let watch = tokio::spawn(async move { watched.watch().await });
        // These end with the runtime.
        tokio::spawn(gateway.breakers.clone().keep(gateway.buffer.clone(), gateway.clock.clone()));
        tokio::spawn(expiry::watch(gateway.clone()));
        let (close_listeners, listeners_close) = watch::channel(false);
        let (now_ready, ready) = watch::channel(false);
        let (edge_ends, edge) = oneshot::channel();
        let served = gateway.clone();
        std::thread::Builder::new().name("tidegate-edge".into()).spawn(move || {
            // If nobody listens any more, the process is ending.
            let _ = edge_ends.send(edge::serve(served, listeners_close, now_ready));
        })?;
        Ok(Self {
            signals,
            edge,
            edge_ended: false,
            ready,
            close_listeners,
            watch,
            admin,
            admin_ended: false,
            close_admin,
        })
    }

    /// `Ok` if it was told to, `Err` if a part failed.
    async fn until_told_to_end(&mut self, gateway: &Arc<Gateway>) -> Result<(), Failure> {
        let mut announced = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = &mut self.edge => {
                    self.edge_ended = true;
                    return Err(match ended {
                        Ok(Err(failure)) => failure.into(),
                        // It returned, or its thread panicked.
                        Ok(Ok(())) | Err(_) => Failure::Ended { what: "the edge" },
                    });
                }
                ended = &mut self.admin => {
                    self.admin_ended = true;
                    return Err(match ended {
                        Ok(Err(problem)) => Failure::Admin(problem),
                        Ok(Ok(())) | Err(_) => Failure::Ended { what: "the admin API" },
                    });
                }
                // An error means that the edge has ended; the first branch says why.
                Ok(_) = self.ready.wait_for(|ready| *ready), if !announced => {
                    announced = true;
                    gateway.serving();
                    let line = announcement(&gateway.snapshot.load().config);
                    tracing::info!("{line}");
                }
                _ = look.tick() => {
                    if gateway.buffer.needs_restart() {
                        let failure = Failure::RoomAgain;
                        tracing::error!("{failure}");
                        return Err(failure);
                    }
                }
                Some(()) = self.signals.hangup.recv() => {
                    // What it did is in the log; meanwhile other signals count.
                    let gateway = gateway.clone();
                    tokio::spawn(async move { gateway.reload().await });
                }
                Some(()) = self.signals.terminate.recv() => {
                    tracing::info!("asked to end (SIGTERM)");
                    return Ok(());
                }
                Some(()) = self.signals.interrupt.recv() => {
                    tracing::info!("asked to end (SIGINT); a second one ends at once");
                    return Ok(());
                }
            }
        }
    }

    async fn end(self, gateway: &Arc<Gateway>) -> Result<(), Failure> {
        let Signals { mut interrupt, .. } = self.signals;
        tokio::spawn(async move {
            if interrupt.recv().await.is_some() {
                // Safe at any instant: what was acknowledged is synced.
                tracing::warn!("ended at once (SIGINT)");
                telemetry::flush(Duration::from_millis(200));
                std::process::exit(EXIT_INTERRUPTED);
            }
        });

        let settings = gateway.snapshot.load().config.shutdown.clone();
        gateway.drain();
        self.watch.abort();
        let mut result = Ok(());
        if !self.edge_ended {
            tokio::time::sleep(settings.delay).await;
        }
        self.close_listeners.send_replace(true);
        let edge_ends = async {
            if self.edge_ended {
                return Ok(());
            }
            match tokio::time::timeout(settings.grace + SLACK, self.edge).await {
                Ok(Ok(ended)) => ended.map_err(Failure::from),
                Ok(Err(_)) => Err(Failure::Ended { what: "the edge" }),
                Err(_) => {
                    tracing::warn!("requests were still in flight when the grace period had passed");
                    Ok(())
                }
            }
        };
        let deliveries_end = async {
            let ends = gateway.stop_delivering(settings.grace);
            if tokio::time::timeout(settings.grace + SLACK, ends).await.is_err() {
                tracing::warn!("deliveries were still in flight when the grace period had passed");
            }
        };
        let (edge, ()) = tokio::join!(edge_ends, deliveries_end);
        result = result.and(edge);

        self.close_admin.send_replace(true);
        if !self.admin_ended {
            match tokio::time::timeout(SLACK, self.admin).await {
                Ok(Ok(ended)) => result = result.and(ended.map_err(Failure::Admin)),
                Ok(Err(_)) => result = result.and(Err(Failure::Ended { what: "the admin API" })),
                Err(_) => tracing::warn!("requests to the admin API were still in flight at the end"),
            }
        }
        tracing::info!("ended");
        result
    }
}

/// The one line of a start: where it listens.
fn announcement(config: &Config) -> String {
    let listeners = config.listeners.iter().map(|listener| {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", listener.address)
    });
    format!(
        "tidegate {} listens on {}, admin on {}",
        env!("CARGO_PKG_VERSION"),
        listeners.collect::<Vec<_>>().join(" and "),
        admin_text(&config.admin.listen),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    #[test]
    fn the_config_is_named_or_has_its_usual_name() {
        let parse = |line: &[&str]| Line::parse_from(line).run.config.path();
        assert_eq!(parse(&["run", "--config", "a.yaml"]), PathBuf::from("a.yaml"));
        assert_eq!(parse(&["run", "-c", "a.yaml"]), PathBuf::from("a.yaml"));
    }

    #[test]
    fn only_a_bad_config_exits_with_78() {
        assert_eq!(Failure::Config(Problems(Vec::new())).exit_code(), 78);
        assert_eq!(Failure::Unusable("certificate".into()).exit_code(), 78);
        let in_use = ServeError { address: "0.0.0.0:443".into(), problem: "in use".into() };
        assert_eq!(Failure::from(in_use).to_string(), "listener 0.0.0.0:443: in use");
        assert_eq!(Failure::Admin("in use".into()).exit_code(), 1);
    }
}
