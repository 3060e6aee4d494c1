//! How close the embedded buffer comes to the limit: a bare log that writes and syncs the same events in the same kind
//! of groups, with the same number of producers waiting for their sync, in the same run.
//!
//! `cargo bench --bench append`. `SECONDS` a measurement (3), `ROUNDS` (3), `BYTES` a body (2048), `SEALED=1` to seal them,
//! `DIR` to write in.

#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{cpu_time, median, setting};
use tidegate::buffer::{
    Appended, Buffer, ClaimKey, DestinationName, Event, EventId, FirstAnswer, NewClaim, embedded,
};
use tidegate::clock::Clock;
use tidegate::config::BufferSettings;
use tidegate::message::{Headers, Method, Scheme};
use tidegate::seal::{Key, Keyring, Sealing};
use tidegate::secret::Secret;
use tidegate::telemetry::Metrics;
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One append in flight: its bytes and who waits.
type Entry = (Bytes, oneshot::Sender<()>);

/// The limit: one thread that writes whatever is pending and syncs once.
#[derive(Clone)]
struct BareLog {
    entries: std::sync::mpsc::Sender<Entry>,
}

impl BareLog {
    fn open(folder: &Path) -> Self {
        let mut file = File::create(folder.join("bare.log")).expect("create the log");
        let (entries, pending) = std::sync::mpsc::channel::<Entry>();
        std::thread::spawn(move || {
            let (mut group, mut waiting) = (Vec::new(), Vec::new());
            while let Ok(first) = pending.recv() {
                for (bytes, done) in std::iter::once(first).chain(pending.try_iter()) {
                    group.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    group.extend_from_slice(&bytes);
                    waiting.push(done);
                }
                file.write_all(&group).expect("write the log");
                file.sync_data().expect("sync the log");
                for done in waiting.drain(..) {
                    let _ = done.send(()); // a producer that no longer waits is fine
                }
                group.clear();
            }
        });
        Self { entries }
    }

    async fn append(&self, bytes: Bytes) {
        let (done, synced) = oneshot::channel();
        self.entries.send((bytes, done)).expect("the log's thread runs");
        synced.await.expect("the log's thread answers");
    }
}

fn event(body: Bytes) -> Event {
    let now = Clock::System.now();
    let headers: Headers = [
        ("Host", &b"hooks.example.com"[..]),
        ("Content-Type", b"application/json"),
        ("User-Agent", b"GitHub-Hookshot/044aadd"),
        ("X-GitHub-Event", b"push"),
        ("X-GitHub-Delivery", b"72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-Hub-Signature-256", b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
    ]
    .into_iter()
    .collect();
    Event {
        id: EventId::new(now),
        route: "github".into(),
        received_at: now,
        method: Method::POST,
        target: "/hooks/github".into(),
        authority: "hooks.example.com".into(),
        scheme: Scheme::Https,
        headers,
        body,
        source: [192, 0, 2, 1].into(),
        verified: "github".into(),
        idempotency_key: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958".into()),
        event_type: Some("push".into()),
        origin: Default::default(),
    }
}

async fn append(buffer: &dyn Buffer, destination: &DestinationName, body: Bytes) {
    let event = event(body);
    let claim = NewClaim {
        key: ClaimKey::new("github", &event.id.0),
        whose: None,
        window: Duration::from_secs(72 * 3600),
        answer: FirstAnswer { status: 202, content_type: None, body: Bytes::new() },
    };
    let appended = buffer.append(event, std::slice::from_ref(destination), Some(claim)).await;
    assert_eq!(appended.expect("stored"), Appended::Stored);
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    per_second: f64,
    /// Microseconds of CPU an event.
    cpu: f64,
}

/// Lets `producers` tasks append without a pause for `length`.
async fn measure<F, A>(producers: usize, length: Duration, append: F) -> Measured
where
    F: Fn() -> A + Clone + Send + 'static,
    A: Future<Output = ()> + Send,
{
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (begin, cpu) = (Instant::now(), cpu_time(std::process::id()));
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (stop, count, append) = (stop.clone(), count.clone(), append.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    append().await;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("the producer ran");
    }
    let events = count.load(Ordering::Relaxed).max(1) as f64;
    Measured {
        per_second: events / begin.elapsed().as_secs_f64(),
        cpu: (cpu_time(std::process::id()) - cpu).as_micros() as f64 / events,
    }
}

/// With `SEALED=1` events are sealed.
fn encryption() -> Keyring {
    if setting("SEALED", 0) == 0 {
        return Keyring::none();
    }
    let text = (0..32u8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = Key::parse(&Secret::new(text.into_bytes())).expect("a key");
    Keyring::new(vec![key], Sealing::On)
}

fn settings(path: PathBuf) -> BufferSettings {
    BufferSettings {
        path,
        max_size: 1 << 40,
        min_free: 64 << 20,
        keep_delivered: Duration::from_secs(24 * 3600),
        keep_dead: Duration::from_secs(24 * 3600),
        keep_delivered_bytes: 1 << 40,
        memtable: 16 << 20,
        stall_after: Duration::from_secs(10),
        encryption: encryption(),
        keep_of_routes: Vec::new(),
    }
}

fn main() {
    if std::env::args().skip(1).any(|word| !word.starts_with('-') && word != "append") {
        return; // `make bench BENCH=…` asked for another
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let length = Duration::from_secs(setting("SECONDS", 3));
    let (rounds, bytes) = (setting("ROUNDS", 3), setting("BYTES", 2048) as usize);
    // Not a tmpfs: a sync has to cost what it costs.
    let parent =
        std::env::var_os("DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    std::fs::create_dir_all(&parent).expect("the folder to write in");
    let mut random = fastrand::Rng::with_seed(1);
    let body: Bytes = (0..bytes).map(|_| random.alphanumeric() as u8).collect::<Vec<_>>().into();
    println!("append: bodies of {bytes} B, {rounds} rounds of {length:?}, in {}", parent.display());
    println!(
        "{:>9} {:>12} {:>12} {:>7} {:>12} {:>12}",
        "producers", "bare/s", "buffer/s", "ratio", "bare µs", "buffer µs"
    );
    for producers in [1, 16, 64, 256] {
        let (mut bare, mut buffered) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let folder = tempfile::tempdir_in(&parent).expect("a folder");
            let log = BareLog::open(folder.path());
            let written = body.clone();
            bare.push(
                measure(producers, length, move || {
                    let (log, body) = (log.clone(), written.clone());
                    async move { log.append(body).await }
                })
                .await,
            );

            let folder = tempfile::tempdir_in(&parent).expect("a folder");
            let metrics = Arc::new(Metrics::default());
            let buffer = embedded::open(&settings(folder.path().join("buffer")), metrics, Clock::System)
                .expect("opens");
            let destination = DestinationName::new("github", "app");
            let (used, written) = (buffer.clone(), body.clone());
            buffered.push(
                measure(producers, length, move || {
                    let (buffer, destination, body) = (used.clone(), destination.clone(), written.clone());
                    async move { append(&*buffer, &destination, body).await }
                })
                .await,
            );
            buffer.close().await.expect("closes");
        }
        let of =
            |measured: &[Measured], what: fn(&Measured) -> f64| median(measured.iter().map(what).collect());
        let (limit, ours) = (of(&bare, |m| m.per_second), of(&buffered, |m| m.per_second));
        println!(
            "{producers:>9} {limit:>12.0} {ours:>12.0} {:>7.2} {:>12.1} {:>12.1}",
            ours / limit,
            of(&bare, |m| m.cpu),
            of(&buffered, |m| m.cpu)
        );
    }
}
