//! Delivery from a backlog, which none of the others has: Tidegate is compared with itself, without the backlog, the
//! order or the new events.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::app::App;
use super::contestants::{Contestant, Mode, free_address, tidegate};
use super::load::{Load, Sent};
use super::support::setting;
use super::{Bench, drained};

/// Attempts under way at once.
const CONCURRENCY: usize = 64;
/// Deliveries of which the cost with a backlog is measured, at least.
const MEASURED: u64 = 200_000;

pub fn run(bench: &Bench, arguments: &[String]) {
    let named = |what: &str| arguments.iter().any(|word| word == what);
    let wanted = |what: &str| arguments.is_empty() || named(what);
    let events = setting("EVENTS", 1_000_000);
    if wanted("waiting") {
        waiting(bench, events);
    }
    if wanted("drain") {
        drain(bench, events);
    }
    if wanted("backlog") {
        backlog(bench, &[10_000, events, 5 * events]);
    }
    if wanted("lanes") {
        lanes(bench, events);
    }
    if named("soak") {
        soak(bench, Duration::from_secs(60 * setting("MINUTES", 60)), setting("RATE", 500));
    }
}

fn load(bench: &Bench, contestant: &Contestant, body: usize, keys: u64) -> Load {
    Load { keys, ..bench.load(contestant, body) }
}

/// Queues events as fast as they are taken.
fn fill(load: &Load, events: u64) -> Sent {
    load.run(Duration::from_secs(3600), events)
}

/// Waits until the store has done what it left for later.
fn settle(contestant: &Contestant) {
    for _ in 0..120 {
        let before = contestant.cpu();
        std::thread::sleep(Duration::from_secs(1));
        if contestant.cpu() - before < Duration::from_millis(30) {
            return;
        }
    }
}

/// What a number of deliveries cost.
#[derive(Default)]
struct Delivered {
    events: u64,
    cpu: Duration,
}

impl Delivered {
    /// Microseconds of the gateway's CPU time for each.
    fn cost(&self) -> f64 {
        self.cpu.as_micros() as f64 / self.events as f64
    }
}

/// Lets the app answer until it has answered `events` more.
fn deliver(contestant: &Contestant, app: &App, events: u64) -> Delivered {
    let (first, cpu) = (app.count.load(Ordering::Relaxed), contestant.cpu());
    app.hangs.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(600);
    while app.count.load(Ordering::Relaxed) < first + events {
        assert!(Instant::now() < deadline, "events are not delivered");
        std::thread::sleep(Duration::from_millis(1));
    }
    app.hangs.store(true, Ordering::Relaxed);
    Delivered { events: app.count.load(Ordering::Relaxed) - first, cpu: contestant.cpu() - cpu }
}

fn hanging() -> App {
    let app = App::start();
    app.hangs.store(true, Ordering::Relaxed);
    app
}

/// What an app that is down costs while its events wait.
fn waiting(bench: &Bench, events: u64) {
    println!("\nwaiting for an app that refuses connections, {events} events of 2 KiB queued");
    let mode = Mode::Buffer { concurrency: CONCURRENCY };
    let contestant = tidegate("waiting", mode, &bench.certificates, free_address());
    fill(&load(bench, &contestant, 2048, 0), events);
    settle(&contestant);
    let (before, length) = (contestant.cpu(), Duration::from_secs(30));
    std::thread::sleep(length);
    let cpu = (contestant.cpu() - before).as_secs_f64() / length.as_secs_f64();
    println!("  CPU                            {:>8.2} % of a core", cpu * 100.0);
    println!("  RSS                            {:>8} MiB", contestant.rss());
}

/// Delivery while new events arrive at half the rate at which they can be taken.
fn drain(bench: &Bench, events: u64) {
    println!("\ndrain of {events} events of 2 KiB while new ones arrive at half the highest rate");
    let app = hanging();
    let mode = Mode::Buffer { concurrency: CONCURRENCY };
    let contestant = tidegate("drain", mode, &bench.certificates, app.address);
    let load = load(bench, &contestant, 2048, 0);
    let append = fill(&load, events).per_second();
    settle(&contestant);
    let quiet = load.run_paced(bench.length, append / 2.0);
    settle(&contestant);
    app.hangs.store(false, Ordering::Relaxed);
    load.run_paced(bench.length / 4, append / 2.0);
    let (first, begin) = (app.count.load(Ordering::Relaxed), Instant::now());
    let busy = load.run_paced(bench.length, append / 2.0);
    let delivered = (app.count.load(Ordering::Relaxed) - first) as f64 / begin.elapsed().as_secs_f64();
    assert!(contestant.metric("tidegate_backlog") > 0.0, "the backlog was gone before the end: more EVENTS");
    let ms = |sent: Sent| sent.p99.as_secs_f64() * 1000.0;
    println!("  acknowledged, nothing else     {append:>8.0} /s");
    println!("  delivered meanwhile            {delivered:>8.0} /s  {:>5.2} of it", delivered / append);
    println!(
        "  acknowledged meanwhile         {:>8.0} /s  {:>5.2}",
        busy.per_second(),
        busy.per_second() / append
    );
    println!("  p99 without delivery           {:>8.1} ms", ms(quiet));
    println!("  p99 with it                    {:>8.1} ms  {:>5.2} times", ms(busy), ms(busy) / ms(quiet));
}

/// What one delivery costs with few and with many others waiting: of as many deliveries each time, so that what the store
/// does now and then (it writes its memory out and merges) has the same share of each.
fn backlog(bench: &Bench, sizes: &[u64]) {
    println!("\ncost of a delivery with a backlog, events of 1 KiB");
    let app = hanging();
    let mode = Mode::Buffer { concurrency: CONCURRENCY };
    let contestant = tidegate("backlog", mode, &bench.certificates, app.address);
    let load = load(bench, &contestant, 1024, 0);
    let (mut queued, mut reference) = (0, None);
    for size in sizes {
        let mut all = Delivered::default();
        while all.events < MEASURED {
            fill(&load, size.saturating_sub(queued));
            settle(&contestant);
            let part = deliver(&contestant, &app, (size * 8 / 10).min(MEASURED));
            all.events += part.events;
            all.cpu += part.cpu;
            queued = contestant.metric("tidegate_backlog") as u64;
        }
        let cost = all.cost();
        let reference = *reference.get_or_insert(cost);
        println!(
            "  {size:>8} queued               {cost:>8.1} µs CPU {:>5.2}   RSS {} MiB",
            cost / reference,
            contestant.rss()
        );
    }
}

/// What order costs: as many keys as events, and none.
fn lanes(bench: &Bench, events: u64) {
    println!("\norder, {events} events of 1 KiB queued");
    let mut reference = None;
    let ordered = Mode::Ordered { concurrency: CONCURRENCY };
    let rows = [
        ("no order", Mode::Buffer { concurrency: CONCURRENCY }, 0),
        ("a key for each", ordered, events),
        ("a key for ten", ordered, events / 10),
    ];
    for (name, mode, keys) in rows {
        let app = hanging();
        let contestant = tidegate("lanes", mode, &bench.certificates, app.address);
        let load = load(bench, &contestant, 1024, keys);
        let before = contestant.cpu();
        let sent = fill(&load, events);
        let taken = (contestant.cpu() - before).as_micros() as f64 / sent.requests as f64;
        settle(&contestant);
        let cost = deliver(&contestant, &app, events * 8 / 10).cost();
        let (taken_once, delivered_once) = *reference.get_or_insert((taken, cost));
        println!(
            "  {name:<16} taken {taken:>7.1} µs CPU {:>5.2}   delivered {cost:>7.1} µs CPU {:>5.2}   RSS {} MiB",
            taken / taken_once,
            cost / delivered_once,
            contestant.rss()
        );
    }
}

/// Whether memory and disk stay flat at a steady rate.
fn soak(bench: &Bench, length: Duration, rate: u64) {
    println!(
        "\nsoak: {rate} events of 2 KiB a second for {length:?}; what is delivered is kept for a minute"
    );
    let mode = Mode::Forgetful { concurrency: CONCURRENCY };
    let contestant = tidegate("soak", mode, &bench.certificates, bench.app.address);
    let load = load(bench, &contestant, 2048, 0);
    let part = length / 12;
    let begin = Instant::now();
    let mut requests = 0;
    for _ in 0..12 {
        let sent = load.run_paced(part, rate as f64);
        requests += sent.requests;
        println!(
            "  {:>5.0?}  {requests:>9} events   RSS {:>4} MiB   disk {:>5} MiB   p99 {:>6.1} ms   backlog {}",
            begin.elapsed(),
            contestant.rss(),
            bytes(&contestant.folder.path().join("buffer")) / (1024 * 1024),
            sent.p99.as_secs_f64() * 1000.0,
            contestant.metric("tidegate_backlog")
        );
    }
    drained(&contestant);
}

/// Bytes that a folder takes on disk.
fn bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
