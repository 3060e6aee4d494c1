//! A buffer whose events are sealed: nothing of what senders sent stands in its files, keys come and go, and who has the
//! wrong one is told so before anything happens.

use super::erased::files_with;
use super::*;
use crate::seal::testing::{key, keyring};
use crate::seal::{Keyring, Sealing};

const BODY: &str = "body-in-the-clear";
/// All that came from the sender.
const SENT: [&str; 6] = [BODY, "/hooks/a%20b", "Hooks.example", "X-Bin", "idempotent-key", "pushed"];

fn sealed_event(bench: &Bench, n: usize) -> Event {
    Event {
        idempotency_key: Some("idempotent-key".into()),
        event_type: Some("pushed".into()),
        ..bench.event(&format!("{BODY} {n} {}", "x".repeat(n * 300)))
    }
}

async fn filled(bench: &Bench, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for n in 0..count {
        let event = sealed_event(bench, n);
        assert_eq!(bench.buffer.append(event.clone(), &[app()], None).await.unwrap(), Appended::Stored);
        events.push(event);
    }
    events
}

fn with_keys(bench: Bench, keys: Keyring) -> Bench {
    let Bench { folder, clock, mut settings, buffer } = bench;
    drop(buffer);
    settings.encryption = keys;
    let buffer = open_at(&settings, &clock).unwrap();
    Bench { folder, clock, settings, buffer }
}

async fn sealing(bench: &Bench) -> Option<SealingStats> {
    bench.buffer.stats().await.unwrap().sealing
}

async fn sealed_anew(bench: &Bench) {
    let until = Instant::now() + Duration::from_secs(60);
    while bench.buffer.shared.seals.lock().is_under_way() {
        assert!(Instant::now() < until, "{:?}", sealing(bench).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn all_there(bench: &Bench, events: &[Event]) {
    for event in events {
        let found = bench.buffer.get(event.id).await.unwrap().map(|(event, _)| event);
        assert_eq!(found.as_ref(), Some(event));
    }
}

fn nothing_in_the_clear(bench: &Bench) {
    for text in SENT {
        assert_eq!(files_with(bench.folder.path(), text), Vec::<std::path::PathBuf>::new(), "{text}");
    }
}

#[tokio::test]
async fn nothing_that_was_sent_stands_in_any_file_and_all_comes_back() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 12).await;
    let endpoint = StoredEndpoint { key: [7; 32], until: None, value: b"url-secret-of-acme".to_vec() };
    bench.buffer.change_endpoints(vec![EndpointChange::Put(endpoint.clone())]).await.unwrap();
    for keyspace in ["events", "index"] {
        let store = bench.buffer.shared.store().unwrap();
        let keyspace = if keyspace == "events" { &store.events } else { &store.index };
        keyspace.rotate_memtable_and_wait().unwrap();
    }
    nothing_in_the_clear(&bench);
    assert!(files_with(bench.folder.path(), "url-secret-of-acme").is_empty());
    let stats = sealing(&bench).await.unwrap();
    assert_eq!((stats.key, stats.stage, stats.events_left), (Some(key(1).id().to_string()), None, 0));
    let bench = bench.reopen();
    all_there(&bench, &events).await;
    assert_eq!(bench.buffer.endpoints().await.unwrap(), [endpoint]);
    assert_eq!(bench.lease(20).await.len(), 12, "and is delivered");
}

#[tokio::test]
async fn a_missing_key_is_named_before_anything_happens() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 2).await;
    let Bench { folder, clock, mut settings, buffer } = bench;
    drop(buffer);
    for wrong in [keyring(&[2]), Keyring::none(), Keyring::new(vec![], Sealing::On)] {
        settings.encryption = wrong;
        let Err(error) = open_at(&settings, &clock) else { panic!("it opened") };
        assert!(error.to_string().contains(&key(1).id().to_string()), "{error}");
        assert!(matches!(error, OpenError::NoKey { .. }), "{error}");
    }
    settings.encryption = keyring(&[1]);
    let buffer = open_at(&settings, &clock).unwrap();
    all_there(&Bench { folder, clock, settings, buffer }, &events).await;
}

#[tokio::test]
async fn an_old_plain_store_is_sealed_and_nothing_plain_is_left_in_its_files() {
    let bench = Bench::new();
    let mut events = filled(&bench, 20).await;
    let bench = with_keys(bench, keyring(&[1]));
    events.extend(filled(&bench, 3).await);
    all_there(&bench, &events).await;
    sealed_anew(&bench).await;
    nothing_in_the_clear(&bench);
    let bench = bench.reopen();
    all_there(&bench, &events).await;
    assert_eq!(bench.buffer.stats().await.unwrap().events, 23);
}

#[tokio::test]
async fn after_a_rotation_the_old_key_is_needed_for_nothing() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 20).await;
    let endpoint = StoredEndpoint { key: [7; 32], until: None, value: b"url-secret".to_vec() };
    bench.buffer.change_endpoints(vec![EndpointChange::Put(endpoint.clone())]).await.unwrap();
    let bench = with_keys(bench, keyring(&[2, 1]));
    sealed_anew(&bench).await;
    assert_eq!(sealing(&bench).await.unwrap().needed, [key(2).id().to_string()]);
    let bench = with_keys(bench, keyring(&[2]));
    all_there(&bench, &events).await;
    assert_eq!(bench.buffer.endpoints().await.unwrap(), [endpoint]);
    // And off again.
    let bench = with_keys(bench, Keyring::new(vec![key(2)], Sealing::Off));
    sealed_anew(&bench).await;
    let bench = with_keys(bench, Keyring::none());
    all_there(&bench, &events).await;
    assert_eq!(sealing(&bench).await, None);
}

/// The folder is copied as a crash would leave it, again and again, while the pass is on its way.
#[tokio::test]
async fn a_crash_on_the_way_loses_nothing_and_the_pass_goes_on() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let mut events = Vec::new();
    for _ in 0..60 {
        events.extend(filled(&bench, 8).await);
    }
    let bench = with_keys(bench, keyring(&[2, 1]));
    for round in 0..4 {
        let copy = tempfile::tempdir().unwrap();
        let held = bench.buffer.shared.clone();
        // On the committer's thread: between two commits, which is where a killed process leaves the files.
        let (from, to) = (bench.folder.path().to_owned(), copy.path().to_owned());
        let (done, copied) = tokio::sync::oneshot::channel();
        let copying = move || {
            copy_folder(&from, &to);
            done.send(()).unwrap();
        };
        held.inbox.push(Op::Run(Box::new(copying))).unwrap();
        copied.await.unwrap();
        let mut settings = settings(copy.path());
        settings.encryption = keyring(&[2, 1]);
        let clock = bench.clock.clone();
        let Ok(buffer) = open_at(&settings, &clock) else {
            // A flush of the engine's own threads was copied half-way, which no crash leaves.
            continue;
        };
        let copied = Bench { folder: copy, clock, settings, buffer };
        all_there(&copied, &events[..40]).await;
        sealed_anew(&copied).await;
        let copied = with_keys(copied, keyring(&[2]));
        all_there(&copied, &events).await;
        assert_eq!(copied.buffer.stats().await.unwrap().events, 480, "round {round}");
    }
}

#[tokio::test]
async fn a_changed_record_is_named_as_damage_and_holds_no_other_up() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 3).await;
    let store = bench.buffer.shared.store().unwrap();
    let mut record = store.raw_event(events[1].id).unwrap().unwrap().to_vec();
    let middle = record.len() / 2;
    record[middle] ^= 4;
    store.events.insert(events[1].id.0, record).unwrap();
    // One event's record in the place of another's.
    let other = store.raw_event(events[0].id).unwrap().unwrap();
    store.events.insert(events[2].id.0, other).unwrap();
    drop(store);
    for damaged in &events[1..] {
        let error = bench.buffer.get(damaged.id).await.unwrap_err().to_string();
        assert!(error.contains(&damaged.id.to_string()) && error.contains("does not open"), "{error}");
    }
    all_there(&bench, &events[..1]).await;
    let page = bench.buffer.search(Search::new(EventFilter::default(), 10)).await.unwrap();
    assert_eq!(page.events.len(), 1);
    let read = bench.buffer.verify(None).await.unwrap();
    // In the order of their ids, which are random within a millisecond.
    let damaged: std::collections::BTreeSet<_> =
        read.damaged.iter().filter_map(|damage| damage.event).collect();
    assert_eq!(damaged, [events[1].id, events[2].id].into());
    assert_eq!((read.events, read.routes["hooks"].events, read.next), (3, 1, None));
}

#[tokio::test]
async fn sizes_are_those_of_the_plain_events_whatever_the_key() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 4).await;
    for _ in 0..2 {
        let leased = bench.lease_one().await;
        bench.settle(&leased, Next::Delivered);
    }
    bench.settled().await;
    let store = bench.buffer.shared.store().unwrap();
    let sizes: u64 =
        events[..2].iter().map(|event| u64::from(store.event(event.id).unwrap().unwrap().size)).sum();
    assert_eq!(store.commit().unwrap().unwrap().delivered_bytes, sizes);
}
