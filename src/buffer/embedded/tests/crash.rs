//! The process ends at any instant: what was acknowledged is there, once, with its claim.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tokio::sync::Semaphore;

use super::model::audit;
use super::*;

const FOLDER: &str = "TIDEGATE_TEST_CRASH_FOLDER";
const ROUND: &str = "TIDEGATE_TEST_CRASH_ROUND";

/// Appends under load and says what was acknowledged, until it is killed. Does nothing unless started by the test
/// below.
#[test]
fn the_process_that_gets_killed() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let mut settings = settings(Path::new(&folder));
    settings.memtable = 1 << 20;
    let buffer =
        Arc::new(Embedded::open(&settings, None, Arc::new(Metrics::default()), Clock::System).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for producer in 0..16u64 {
            let buffer = Arc::clone(&buffer);
            tasks.push(tokio::spawn(async move {
                for n in 0.. {
                    let key = round << 40 | producer << 32 | n;
                    let event =
                        event(Clock::System.now(), &format!("{key} {}", "x".repeat(key as usize % 3000)));
                    let id = event.id;
                    // Twins, so that the claim is fought for in the same group.
                    let twin = super::event(Clock::System.now(), "twin");
                    let to = [app()];
                    let (one, two) = tokio::join!(
                        buffer.append(event, &to, Some(claim(key))),
                        buffer.append(twin, &to, Some(claim(key)))
                    );
                    assert_eq!(one.unwrap(), Appended::Stored);
                    assert!(matches!(two.unwrap(), Appended::Duplicate(first) if first.event_id == id));
                    println!("acknowledged {id} {key} ");
                }
            }));
        }
        let worker = Arc::clone(&buffer);
        tasks.push(tokio::spawn(async move {
            loop {
                let now = Clock::System.now();
                for (leased, n) in worker.lease(&app(), 16, now).await.unwrap().into_iter().zip(0..) {
                    let next = match n % 4 {
                        0 => Next::Retry(now.saturating_add(Duration::from_millis(50))),
                        1 => Next::Dead(DeadReason::GivenUp),
                        _ => Next::Delivered,
                    };
                    println!("attempted {} ", leased.event.id);
                    worker.settle(settlement(&leased, now, next)).unwrap();
                }
                tokio::task::yield_now().await;
            }
        }));
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Starts the process above, kills it after so many acknowledgements, and returns what it said.
fn killed_after(folder: &Path, round: u64, acknowledged: usize) -> BTreeMap<EventId, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "buffer::embedded::tests::crash::the_process_that_gets_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BTreeMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        let mut words = line.split(' ');
        if words.next() == Some("acknowledged")
            && let (Some(id), Some(key), Some("\n")) = (words.next(), words.next(), words.next())
        {
            said.insert(id.parse().unwrap(), key.parse().unwrap());
            if said.len() == acknowledged {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    assert!(said.len() >= acknowledged, "it ended by itself after {}", said.len());
    said
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_kill_once_and_with_its_claim() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    for round in 1..=5 {
        let wanted = fastrand::usize(20..900);
        all.extend(killed_after(folder.path(), round, wanted));
        let mut settings = settings(folder.path());
        settings.memtable = 1 << 20;
        let buffer = Embedded::open(&settings, None, Arc::new(Metrics::default()), Clock::System).unwrap();
        audit(&buffer);
        let mut bodies = BTreeSet::new();
        let mut after = None;
        let mut found = BTreeSet::new();
        loop {
            let page = buffer.search(Search::new(EventFilter::default(), 1000).after(after)).await.unwrap();
            for (event, deliveries) in page.events {
                assert_eq!(deliveries.len(), 1);
                let (event, _) = buffer.get(event.id).await.unwrap().expect("it was listed");
                assert!(bodies.insert(event.body.clone()), "stored twice");
                assert!(event.body != "twin");
                found.insert(event.id);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let lost: Vec<_> = all.keys().filter(|id| !found.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: {} of {} lost: {lost:?}", lost.len(), all.len());
        for (id, key) in &all {
            // Windows of the tests are shorter than a slow run may take.
            if let Some(claimed) = buffer.claimed(claim(*key).key).await.unwrap() {
                assert_eq!(claimed.event_id, *id);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_copy_of_any_instant_under_load_holds_all_that_was_acknowledged() {
    let bench = Arc::new(Bench::new());
    let load = Arc::new(Semaphore::new(0));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for producer in 0..8u64 {
        let (bench, load, acknowledged) = (Arc::clone(&bench), Arc::clone(&load), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for n in producer << 32.. {
                load.acquire().await.unwrap().forget();
                let event = bench.event(&"y".repeat(n as usize % 700));
                let id = event.id;
                bench.buffer.append(event, &[app()], Some(claim(n))).await.unwrap();
                acknowledged.lock().push((id, n));
            }
        });
    }
    for _ in 0..8 {
        load.add_permits(300);
        let wanted = acknowledged.lock().len() + fastrand::usize(1..200);
        while acknowledged.lock().len() < wanted {
            tokio::task::yield_now().await;
        }
        // The committer is held, so that the copy is of one instant.
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let (paused, is_paused) = tokio::sync::oneshot::channel();
        let pause = move || {
            paused.send(()).unwrap();
            held.recv().unwrap();
        };
        bench.buffer.shared.inbox.push(Op::Run(Box::new(pause))).unwrap();
        is_paused.await.unwrap();
        let before = acknowledged.lock().clone();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(bench.folder.path(), copy.path());
        hold.send(()).unwrap();
        load.add_permits(100);
        while acknowledged.lock().len() < before.len() + 20 {
            tokio::task::yield_now().await;
        }
        // And of the writes that came next, some part, as a crash in their middle would leave it.
        let journal = copy.path().join("store/0.jnl");
        let from = *journal::boundaries(&journal).last().unwrap() as usize;
        let written = std::fs::read(bench.folder.path().join("store/0.jnl")).unwrap();
        let mut copied = std::fs::read(&journal).unwrap();
        let part = from + fastrand::usize(..20_000);
        copied[from..part].copy_from_slice(&written[from..part]);
        std::fs::write(&journal, copied).unwrap();
        let opened = open_at(&settings(copy.path()), &bench.clock).unwrap();
        audit(&opened);
        for (id, n) in &before {
            assert!(opened.get(*id).await.unwrap().is_some(), "an acknowledged event is missing");
            assert_eq!(opened.claimed(claim(*n).key).await.unwrap().unwrap().event_id, *id);
        }
    }
}
