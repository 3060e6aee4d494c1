//! Log lines: text for people on a terminal, one JSON object a line otherwise, always on standard error.
//!
//! A JSON line holds `timestamp` (RFC 3339, UTC), `level`, `message`, `target` and the event's own fields beside
//! them, flat. What is logged is decided by whoever logs; that no body and no secret is, too.
//!
//! **A reader that stalls never stalls a request.** Lines go through a bounded queue to a thread of their own; when
//! the queue is full (a pipe that nobody reads), new lines are dropped and counted
//! (`tidegate_log_lines_dropped_total`), and one line says so once the reader is back. [`flush`] at the end of the
//! process waits a moment for what is still queued.

mod queue;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::clock::Clock;
use crate::config::{LogFormat, LogSettings};

use queue::Queue;

/// The queue of this process, once [`init`] made it.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// What libraries say at `info` and below is of no use to an operator; pingora reports each broken connection as an
/// error. A level that the config gives for one of these targets wins.
const QUIET: &str =
    "pingora=error,fjall=warn,lsm_tree=warn,value_log=warn,hyper=warn,h2=warn,rustls=warn,tokio=warn";

/// Starts logging, once a process; also takes what libraries log through the `log` crate. Fails if the level is not a
/// filter, or if logging was started before.
pub fn init(settings: &LogSettings) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let format = settings.format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let colours = match std::env::var_os("NO_COLOR") {
        Some(value) if !value.is_empty() => Colours::Off,
        _ if terminal => Colours::On,
        _ => Colours::Off,
    };
    let filter = filter(&settings.level)?;
    let queue = Queue::start(std::io::stderr(), format).map_err(|e| format!("log thread: {e}"))?;
    let writer = queue.clone();
    if QUEUE.set(queue).is_err() {
        return Err("logging is started already".into());
    }
    subscriber(filter, format, colours, writer)
        .try_init()
        .map_err(|e| format!("logging is started already: {e}"))?;
    log_panics();
    Ok(())
}

/// A panic becomes a log line like any other (a bug of ours, in one thread; the others go on). It may be the last
/// thing that this process says, so it is waited for.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload();
        let what = what.downcast_ref::<&str>().copied().or(what.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(thread, place, "panic: {}", what.unwrap_or("no message"));
        flush(Duration::from_millis(500));
    }));
}

/// Waits until every line logged so far is written, at most `patience`.
pub fn flush(patience: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.flush(patience);
    }
}

pub(super) fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, Queue::dropped)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(format!("{QUIET},{level}")).map_err(|e| {
        format!("`{level}` is no log level: {e} (use one such as `info`, or `info,tidegate::deliver=debug`)")
    })
}

fn subscriber<W>(
    filter: EnvFilter,
    format: LogFormat,
    colours: Colours,
    writer: W,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_timer(Utc);
    let lines = match format {
        LogFormat::Json => lines
            .with_ansi(false)
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => lines.with_ansi(colours == Colours::On).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines.with_filter(WithoutHandshakes))
}

/// RFC 3339 with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", Clock::System.now())
    }
}

/// Drops pingora's error for each failed TLS handshake: a port scan would fill the disk with them, and they are
/// counted (`tidegate_connections_refused_total`). Its other errors (accept failed, …) stay.
struct WithoutHandshakes;

impl<S: Subscriber> tracing_subscriber::layer::Filter<S> for WithoutHandshakes {
    fn enabled(&self, _: &tracing::Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }
    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Records of the `log` crate all share this target; their own stands in a field.
        if event.metadata().target() != "log" {
            return true;
        }
        let mut record = Record::default();
        event.record(&mut record);
        !(record.of_pingora && record.handshake)
    }
}

#[derive(Default)]
struct Record {
    of_pingora: bool,
    handshake: bool,
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.of_pingora = value.starts_with("pingora");
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.handshake = format!("{value:?}").starts_with("Downstream handshake");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl MakeWriter<'_> for Captured {
        type Writer = Captured;
        fn make_writer(&self) -> Captured {
            self.clone()
        }
    }

    fn logged(level: &str, format: LogFormat, colours: Colours, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let subscriber = subscriber(filter(level).unwrap(), format, colours, captured.clone());
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_is_flat_and_timed_in_utc() {
        let text = logged("info", LogFormat::Json, Colours::Off, || {
            tracing::warn!(target: "tidegate::receive", route = "billing", n = 3, "refused\n\"it\"");
            tracing::debug!("not asked for");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "refused\n\"it\"");
        assert_eq!(line["target"], "tidegate::receive");
        assert_eq!((&line["route"], &line["n"]), (&"billing".into(), &3.into()));
        let at: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && at.as_second() > 1_700_000_000);
    }

    #[test]
    fn text_has_colours_only_when_asked() {
        let say = || tracing::info!("hello");
        let plain = logged("info", LogFormat::Text, Colours::Off, say);
        assert!(plain.contains("INFO") && plain.contains("hello") && !plain.contains('\x1b'), "{plain}");
        assert!(logged("info", LogFormat::Text, Colours::On, say).contains('\x1b'));
    }

    #[test]
    fn an_escape_sequence_from_outside_does_not_reach_the_terminal() {
        let text = logged("info", LogFormat::Text, Colours::Off, || {
            tracing::info!(target = "/hooks/\x1b[2J", "seen \x1b[31mred");
        });
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn libraries_are_quiet_unless_the_config_asks_for_them() {
        let say = || {
            tracing::warn!(target: "pingora_core::services", "broken connection");
            tracing::info!(target: "fjall::db", "compacted");
            tracing::error!(target: "pingora_core::services", "accept failed");
        };
        let usual = logged("info", LogFormat::Json, Colours::Off, say);
        assert!(usual.contains("accept failed") && !usual.contains("broken") && !usual.contains("compacted"));
        let asked = logged("info,pingora=debug,fjall=info", LogFormat::Json, Colours::Off, say);
        assert!(asked.contains("broken") && asked.contains("compacted"), "{asked}");
    }

    #[test]
    fn failed_handshakes_are_counted_not_logged() {
        // As the bridge from the `log` crate makes them: a shared target, the library's own in a field.
        let text = logged("info", LogFormat::Json, Colours::Off, || {
            tracing::error!(target: "log", { log.target = "pingora_core::services::listening" },
                "Downstream handshake error from 192.0.2.1: eof");
            tracing::error!(target: "log", { log.target = "pingora_core::services::listening" },
                "Accept() failed: too many open files");
            tracing::error!(target: "log", { log.target = "tidegate::edge" }, "Downstream handshake of ours");
        });
        assert!(!text.contains("192.0.2.1"), "{text}");
        assert!(text.contains("Accept() failed") && text.contains("of ours"), "{text}");
    }

    #[test]
    fn a_wrong_level_is_refused_with_an_example() {
        let problem = filter("tidegate=loud").unwrap_err();
        assert!(problem.contains("tidegate=loud") && problem.contains("`info`"), "{problem}");
    }
}
