//! A buffer whose events are sealed: nothing of what senders sent stands in its files, keys come and go, and who has the
//! wrong one is told so before anything happens.

use super::erased::files_with;
use super::*;
use crate::seal::testing::{key, keyring};
use crate::seal::{Keyring, Sealing};

const BODY: &str = "body-in-the-clear";
/// All that came from the sender or the app.
const SENT: [&str; 9] = [
    BODY,
    "/hooks/a%20b",
    "Hooks.example",
    "X-Bin",
    "idempotent-key",
    "pushed",
    "answered-in-the-clear",
    "told-by-the-app",
    "why-it-is-open",
];

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

/// A claim with an answer of the app's own, a delivery that failed with words of it, and a note: one of each.
async fn talked(bench: &Bench, n: u64) {
    let answer = FirstAnswer {
        status: 200,
        content_type: Some("text/answered-in-the-clear".into()),
        body: "answered-in-the-clear".into(),
    };
    bench.buffer.claim(NewClaim { answer, ..claim(n) }, EventId([n as u8; 16])).unwrap();
    let leased = bench.lease_one().await;
    let outcome = AttemptOutcome::Failed { error: "broken: told-by-the-app".into() };
    let failed = Attempt { at: bench.now(), took_ms: 1, outcome };
    let later = bench.now().saturating_add(Duration::from_secs(3600));
    let settlement = settlement(&leased, bench.now(), Next::Retry(later));
    bench.buffer.settle(Settlement { attempt: Some(failed), ..settlement }).unwrap();
    bench.buffer.note("breaker/hooks/app", Some(b"\0why-it-is-open".to_vec())).await.unwrap();
}

async fn talk_is_there(bench: &Bench, n: u64, event: EventId) {
    let claimed = bench.buffer.claimed(claim(n).key).await.unwrap().expect("the claim stands");
    assert_eq!(&claimed.answer.body[..], b"answered-in-the-clear");
    let history = bench.deliveries(event).await.remove(0).history;
    assert_eq!(history[0].outcome, AttemptOutcome::Failed { error: "broken: told-by-the-app".into() });
    let notes = bench.buffer.notes("breaker/").await.unwrap();
    assert_eq!(notes, [("breaker/hooks/app".to_owned(), b"\0why-it-is-open".to_vec())]);
}

/// What a reload does.
async fn rekeyed(bench: &mut Bench, keys: Keyring) {
    bench.settings.encryption = keys;
    bench.buffer.adopt(&bench.settings).await.unwrap();
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
    talked(&bench, 1).await;
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
    talk_is_there(&bench, 1, events[0].id).await;
    assert_eq!(bench.lease(20).await.len(), 11, "and is delivered, but for the one that waits");
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
    talked(&bench, 1).await;
    let bench = with_keys(bench, keyring(&[1]));
    events.extend(filled(&bench, 3).await);
    all_there(&bench, &events).await;
    sealed_anew(&bench).await;
    nothing_in_the_clear(&bench);
    let bench = bench.reopen();
    all_there(&bench, &events).await;
    talk_is_there(&bench, 1, events[0].id).await;
    assert_eq!(bench.buffer.stats().await.unwrap().events, 23);
}

#[tokio::test]
async fn after_a_rotation_the_old_key_is_needed_for_nothing() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 20).await;
    talked(&bench, 1).await;
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
    talk_is_there(&bench, 1, events[0].id).await;
    assert_eq!(sealing(&bench).await, None);
}

#[tokio::test]
async fn keys_change_while_events_come_in_and_the_old_ones_can_go() {
    let mut bench = Bench::new();
    let mut events = filled(&bench, 30).await;
    talked(&bench, 1).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let coming = {
        let (shared, clock, stop) = (bench.buffer.shared.clone(), bench.clock.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut came = Vec::new();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let event = event(clock.now(), &format!("{BODY} on the way"));
                let outcome =
                    shared.push_event(event.clone(), &[app()], Some(claim(1000 + came.len() as u64)));
                assert_eq!(runtime.block_on(outcome.unwrap()).unwrap().unwrap(), Appended::Stored);
                came.push(event);
            }
            came
        })
    };
    rekeyed(&mut bench, keyring(&[1])).await;
    assert!(bench.buffer.shared.seals.lock().is_under_way(), "what was stored in the clear is to be sealed");
    // Again before the pass of the one before is done.
    for keys in [&[1][..], &[2, 1], &[3, 2, 1]] {
        rekeyed(&mut bench, keyring(keys)).await;
        events.extend(filled(&bench, 3).await);
    }
    sealed_anew(&bench).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    events.extend(coming.join().unwrap());
    assert_eq!(sealing(&bench).await.unwrap().needed, [key(3).id().to_string()]);
    nothing_in_the_clear(&bench);
    rekeyed(&mut bench, keyring(&[3])).await;
    all_there(&bench, &events).await;
    let bench = bench.reopen();
    all_there(&bench, &events).await;
    talk_is_there(&bench, 1, events[0].id).await;
    assert_eq!(bench.buffer.verify(None).await.unwrap().damaged, []);
}

#[tokio::test]
async fn a_reload_without_a_key_that_is_needed_is_refused_and_changes_nothing() {
    let mut bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let events = filled(&bench, 3).await;
    let settings =
        BufferSettings { encryption: keyring(&[2]), keep_dead: Duration::ZERO, ..bench.settings.clone() };
    let error = bench.buffer.adopt(&settings).await.unwrap_err();
    assert!(
        matches!(error, BufferError::Refused(_)) && error.to_string().contains(&key(1).id().to_string()),
        "{error}"
    );
    all_there(&bench, &events).await;
    assert_eq!(sealing(&bench).await.unwrap().key, Some(key(1).id().to_string()));
    // A second key that seals nothing comes and goes.
    rekeyed(&mut bench, keyring(&[1, 2])).await;
    rekeyed(&mut bench, keyring(&[1])).await;
    assert_eq!(sealing(&bench).await.unwrap().stage, None);
    all_there(&bench, &events).await;
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
