//! Stores of another format: older ones are upgraded in place, newer ones refused by name.

use super::erased::files_with;
use super::*;
use crate::buffer::embedded::codec::{Record, StoredClaim, encode_claim};
use crate::buffer::embedded::keys;
use crate::buffer::embedded::sealing::{Anew, Reseal};
use crate::seal::testing::keyring;

const FORMAT: &str = "tidegate.format";

fn says(bench: &Bench) -> String {
    std::fs::read_to_string(bench.folder.path().join(FORMAT)).unwrap()
}

/// Ends the process and makes the folder say that it is of this format.
fn of_format(bench: Bench, format: u32) -> Bench {
    let Bench { folder, clock, settings, buffer } = bench;
    drop(buffer);
    std::fs::write(folder.path().join(FORMAT), format!("tidegate buffer, format {format}\n")).unwrap();
    let buffer = open_at(&settings, &clock).unwrap();
    Bench { folder, clock, settings, buffer }
}

#[tokio::test]
async fn a_store_of_the_first_format_opens_with_all_in_it_and_is_upgraded() {
    let bench = Bench::new();
    assert_eq!(says(&bench), "tidegate buffer, format 2\n");
    let id = bench.stored("from before").await;
    let bench = of_format(bench, 1);
    assert_eq!(says(&bench), "tidegate buffer, format 2\n");
    let leased = bench.lease_one().await;
    assert_eq!((leased.event.id, &leased.event.body[..]), (id, &b"from before"[..]));
    // Nothing is sealed, so there is nothing to go through.
    assert!(!bench.buffer.shared.seals.lock().is_under_way());
}

/// Puts a record as a binary of format 1 wrote it in the place of what stands there.
async fn as_before(bench: &Bench, key: Vec<u8>, plain: Vec<u8>) {
    let was = bench.buffer.shared.store().unwrap().get(&key).unwrap().expect("it is there");
    assert_ne!(&was[..], &plain[..]);
    let (done, outcome) = waiting::pair();
    let seals = bench.buffer.shared.seals.lock().clone();
    let records = vec![Anew { key, was, is: plain.into() }];
    bench.buffer.shared.inbox.push(Op::Reseal(Reseal { events: vec![], records, seals, done })).unwrap();
    outcome.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_the_first_format_left_in_the_clear_is_sealed_by_the_upgrade() {
    let bench = Bench::with(|settings| settings.encryption = keyring(&[1]));
    let event = bench.event("sealed");
    bench.buffer.append(event.clone(), &[app()], None).await.unwrap();
    let answer = FirstAnswer { status: 200, content_type: None, body: "plain-answer".into() };
    let first = NewClaim { answer: answer.clone(), ..claim(1) };
    bench.buffer.claim(first.clone(), event.id).unwrap();
    bench.buffer.note("breaker/x", Some(b"\0plain-note".to_vec())).await.unwrap();
    let leased = bench.lease_one().await;
    let outcome = AttemptOutcome::Failed { error: "plain-error".into() };
    let attempt = Some(Attempt { at: bench.now(), took_ms: 1, outcome });
    bench.buffer.settle(Settlement { attempt, ..settlement(&leased, bench.now(), DEAD) }).unwrap();
    bench.settled().await;

    let store = bench.buffer.shared.store().unwrap();
    let to = bench.buffer.shared.lane(&app()).id;
    let record: Record = store.delivery(event.id, to).unwrap().expect("it was tried");
    drop(store);
    as_before(&bench, keys::delivery(event.id, to), record.encode()).await;
    let claimed = bench.buffer.claimed(first.key).await.unwrap().unwrap();
    as_before(&bench, keys::claim(first.key), encode_claim(&StoredClaim { claimed, whose: None })).await;
    as_before(&bench, keys::note("breaker/x"), b"\0plain-note".to_vec()).await;
    for text in ["plain-answer", "plain-note", "plain-error"] {
        assert!(!files_with(bench.folder.path(), text).is_empty(), "{text}");
    }

    let bench = of_format(bench, 1);
    let until = Instant::now() + Duration::from_secs(60);
    while bench.buffer.shared.seals.lock().is_under_way() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for text in ["plain-answer", "plain-note", "plain-error"] {
        assert!(files_with(bench.folder.path(), text).is_empty(), "{text}");
    }
    let bench = bench.reopen();
    assert_eq!(bench.buffer.claimed(first.key).await.unwrap().unwrap().answer, answer);
    assert_eq!(bench.buffer.notes("breaker/").await.unwrap()[0].1, b"\0plain-note");
    let history = bench.deliveries(event.id).await.remove(0).history;
    assert_eq!(history[0].outcome, AttemptOutcome::Failed { error: "plain-error".into() });
}

const DEAD: Next = Next::Dead(DeadReason::GivenUp);

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number_and_left_alone() {
    let bench = Bench::new();
    bench.stored("kept").await;
    let Bench { folder, clock, settings, buffer } = bench;
    drop(buffer);
    let file = folder.path().join(FORMAT);
    std::fs::write(&file, "tidegate buffer, format 3\n").unwrap();
    let Err(error) = open_at(&settings, &clock) else { panic!("it opened") };
    let text = error.to_string();
    assert!(text.contains("this directory was written by a newer Tidegate (format 3)"), "{text}");
    assert!(text.contains(&folder.path().display().to_string()) && text.contains("up to 2"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "tidegate buffer, format 3\n");
    std::fs::write(&file, "tidegate buffer, format 2\n").unwrap();
    let bench = Bench { buffer: open_at(&settings, &clock).unwrap(), folder, clock, settings };
    assert_eq!(&bench.lease_one().await.event.body[..], b"kept");
}
