//! Tidegate beside HAProxy and nginx with Lua, doing the same work in the same run: ratios, not absolutes.
//!
//! `make bench`, or `cargo bench --bench gateway -- [inline|buffer|memory|waiting|drain|backlog|lanes|soak]`.
//! Contestants take turns in rounds; medians are compared. `SECONDS` a measurement (4), `ROUNDS` (5), `CONNECTIONS` (64),
//! `EVENTS` queued (1000000), `DIR` to write in, `TIDEGATE=off` to try the bench without it. What only Tidegate does
//! (see `delivery.rs`) is compared with itself; `soak` runs for `MINUTES` (60), and only if it is asked for.

mod app;
mod contestants;
mod delivery;
mod load;

#[path = "../support/mod.rs"]
mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use app::App;
use contestants::{Certificates, Contestant, Mode, haproxy, nginx, tidegate};
use load::{Load, Sent};
use support::{median, setting};

struct Bench {
    certificates: Certificates,
    app: App,
    length: Duration,
    rounds: u64,
    connections: usize,
}

/// One contestant's rounds.
#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    /// Microseconds of CPU a request.
    cpu: Vec<f64>,
    p99: Vec<f64>,
}

impl Rounds {
    fn push(&mut self, sent: Sent, cpu: Duration, events: u64) {
        self.per_second.push(sent.per_second());
        self.cpu.push(cpu.as_micros() as f64 / events.max(1) as f64);
        self.p99.push(sent.p99.as_micros() as f64 / 1000.0);
    }
    fn medians(&self) -> (f64, f64, f64) {
        (median(self.per_second.clone()), median(self.cpu.clone()), median(self.p99.clone()))
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |what: &str| arguments.is_empty() || arguments.iter().any(|word| word == what);
    let bench = Bench {
        certificates: Certificates::make(),
        app: App::start(),
        length: Duration::from_secs(setting("SECONDS", 4)),
        rounds: setting("ROUNDS", 5),
        connections: setting("CONNECTIONS", 64) as usize,
    };
    if wanted("inline") {
        bench.inline(2 * 1024);
        bench.inline(16 * 1024);
    }
    if wanted("buffer") {
        bench.buffer(2 * 1024);
    }
    if wanted("memory") {
        bench.memory(setting("EVENTS", 1_000_000));
    }
    if bench.with_tidegate() {
        delivery::run(&bench, &arguments);
    }
}

impl Bench {
    fn load(&self, contestant: &Contestant, body: usize) -> Load {
        Load {
            address: contestant.address,
            connections: self.connections,
            body,
            keys: 0,
            ca: self.certificates.ca.clone(),
        }
    }

    /// Warms up, then measures; gives what was sent and the CPU time that it took.
    fn measure(&self, contestant: &Contestant, body: usize) -> (Sent, Duration) {
        let load = self.load(contestant, body);
        load.run(self.length / 4, u64::MAX);
        let before = contestant.cpu();
        let sent = load.run(self.length, u64::MAX);
        (sent, contestant.cpu() - before)
    }

    /// That the contestant does the whole work: forwards a good request, drops its repeat, refuses a forged one.
    fn check(&self, contestant: &Contestant, body: usize) {
        let before = self.app.count.load(Ordering::Relaxed);
        let [good, again, forged] = self.load(contestant, body).probe();
        let name = contestant.name;
        assert!((200..300).contains(&good) && (200..300).contains(&again), "{name}: {good}, {again}");
        assert_eq!(forged, 401, "{name} takes a forged request");
        assert_eq!(self.app.count.load(Ordering::Relaxed) - before, 1, "{name} forwards the repeat");
    }

    fn with_tidegate(&self) -> bool {
        std::env::var("TIDEGATE").as_deref() != Ok("off")
    }

    fn inline(&self, body: usize) {
        println!(
            "\ninline, {} KiB bodies, {} connections, {} rounds of {:?}",
            body / 1024,
            self.connections,
            self.rounds,
            self.length
        );
        let mut contestants =
            vec![haproxy(&self.certificates, self.app.address), nginx(&self.certificates, self.app.address)];
        if self.with_tidegate() {
            contestants.push(tidegate("Tidegate proxy", Mode::Proxy, &self.certificates, self.app.address));
        }
        contestants.iter().for_each(|contestant| self.check(contestant, body));
        let mut rounds: Vec<_> = contestants.iter().map(|_| Rounds::default()).collect();
        for _ in 0..self.rounds {
            for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
                let (sent, cpu) = self.measure(contestant, body);
                rounds.push(sent, cpu, sent.requests);
            }
        }
        let syscalls: Vec<_> = contestants.iter().map(|contestant| self.syscalls(contestant, body)).collect();
        let (reference, reference_cpu, _) = rounds[0].medians();
        println!(
            "{:<16} {:>10} {:>7} {:>10} {:>7} {:>9} {:>9}",
            "", "req/s", "ratio", "µs CPU", "ratio", "p99 ms", "syscalls"
        );
        for ((contestant, rounds), syscalls) in contestants.iter().zip(&rounds).zip(syscalls) {
            let (per_second, cpu, p99) = rounds.medians();
            let syscalls = syscalls.map_or("?".into(), |calls| format!("{calls:.1}"));
            println!(
                "{:<16} {per_second:>10.0} {:>7.2} {cpu:>10.1} {:>7.2} {p99:>9.1} {syscalls:>9}",
                contestant.name,
                per_second / reference,
                cpu / reference_cpu
            );
        }
    }

    /// System calls a request, counted by strace in a run of its own (which it slows down a lot).
    fn syscalls(&self, contestant: &Contestant, body: usize) -> Option<f64> {
        let summary = contestant.folder.path().join("strace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-q", "-o"]).arg(&summary).stdin(Stdio::null()).stderr(Stdio::null());
        for pid in contestant.pids() {
            strace.arg("-p").arg(pid.to_string());
        }
        let load = self.load(contestant, body);
        load.run(Duration::from_millis(500), u64::MAX); // handshakes and pools are not what is counted
        let mut tracer = strace.spawn().ok()?;
        std::thread::sleep(Duration::from_millis(500)); // until it is attached
        let sent = load.run(Duration::from_secs(2), u64::MAX);
        let pid = i32::try_from(tracer.id()).ok()?;
        // SAFETY: two integers; the process is our child and not yet waited for.
        unsafe { libc::kill(pid, libc::SIGINT) };
        tracer.wait().ok()?;
        let summary = std::fs::read_to_string(summary).ok()?;
        let total = summary.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
        let calls: f64 = total.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).nth(3)?;
        Some(calls / sent.requests.max(1) as f64)
    }

    /// Acknowledged after a sync, against HAProxy's forward without one.
    fn buffer(&self, body: usize) {
        println!(
            "\nbuffer, {} KiB bodies, {} connections, {} rounds of {:?}",
            body / 1024,
            self.connections,
            self.rounds,
            self.length
        );
        let reference = haproxy(&self.certificates, self.app.address);
        // One contestant only acknowledges: its one delivery hangs in an app of its own.
        let hanging = App::start();
        hanging.hangs.store(true, Ordering::Relaxed);
        let mode = Mode::Buffer { concurrency: 1 };
        let acknowledging =
            self.with_tidegate().then(|| tidegate("acknowledged", mode, &self.certificates, hanging.address));
        let mode = Mode::Buffer { concurrency: 64 };
        let delivering = self
            .with_tidegate()
            .then(|| tidegate("with delivery", mode, &self.certificates, self.app.address));
        let (mut inline, mut acknowledged, mut delivered) =
            (Rounds::default(), Rounds::default(), Rounds::default());
        for _ in 0..self.rounds {
            let (sent, cpu) = self.measure(&reference, body);
            inline.push(sent, cpu, sent.requests);
            if let Some(contestant) = &acknowledging {
                let (sent, cpu) = self.measure(contestant, body);
                acknowledged.push(sent, cpu, sent.requests);
            }
            if let Some(contestant) = &delivering {
                drained(contestant);
                let before = contestant.cpu();
                let sent = self.load(contestant, body).run(self.length, u64::MAX);
                drained(contestant);
                delivered.push(sent, contestant.cpu() - before, sent.requests);
            }
        }
        let (reference, reference_cpu, _) = inline.medians();
        println!("{:<22} {:>10} {:>7} {:>10} {:>7} {:>9}", "", "per s", "ratio", "µs CPU", "ratio", "p99 ms");
        let rows = [
            ("HAProxy inline", inline),
            ("Tidegate acknowledged", acknowledged),
            ("Tidegate and delivered", delivered),
        ];
        for (name, rounds) in rows {
            let (per_second, cpu, p99) = rounds.medians();
            println!(
                "{name:<22} {per_second:>10.0} {:>7.2} {cpu:>10.1} {:>7.2} {p99:>9.1}",
                per_second / reference,
                cpu / reference_cpu
            );
        }
    }

    fn memory(&self, events: u64) {
        if !self.with_tidegate() {
            return;
        }
        println!("\nmemory and restart");
        let hanging = App::start();
        hanging.hangs.store(true, Ordering::Relaxed);
        let mode = Mode::Buffer { concurrency: 1 };
        let mut contestant = tidegate("memory", mode, &self.certificates, hanging.address);
        std::thread::sleep(Duration::from_secs(1));
        println!("  RSS idle                       {:>8} MiB", contestant.rss());
        let begin = Instant::now();
        let sent = self.load(&contestant, 1024).run(Duration::from_secs(3600), events);
        println!(
            "  queued                         {:>8} events of 1 KiB in {:.0?}",
            sent.requests,
            begin.elapsed()
        );
        println!("  RSS with them queued           {:>8} MiB", contestant.rss());
        let listening = contestant.crash_and_restart();
        let begin = Instant::now();
        let again = self.load(&contestant, 1024).run(Duration::from_secs(60), 1);
        assert_eq!(again.requests, 1, "one more is acknowledged");
        let accepting = listening + begin.elapsed();
        println!("  from kill -9 to listening      {:>8} ms", listening.as_millis());
        println!("  … to the next acknowledgement  {:>8} ms", accepting.as_millis());
        println!("  RSS after the restart          {:>8} MiB", contestant.rss());
        println!("  backlog                        {:>8}", contestant.metric("tidegate_backlog"));
    }
}

/// Waits until everything accepted is delivered.
fn drained(contestant: &Contestant) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while contestant.metric("tidegate_backlog") > 0.0 {
        assert!(Instant::now() < deadline, "the backlog does not get smaller");
        std::thread::sleep(Duration::from_millis(20));
    }
}
