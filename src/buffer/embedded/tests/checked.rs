//! A store that nobody has open is read whole: what is well is so, each kind of damage is named, and one in use is left
//! alone.

use super::*;
use crate::buffer::embedded::keys;
use crate::buffer::embedded::keys::Class;
use crate::seal::testing::keyring;

/// Some of everything.
async fn full_store(settings: impl FnOnce(&mut BufferSettings)) -> (Bench, Vec<EventId>) {
    let bench = Bench::with(settings);
    let mut ids = Vec::new();
    for n in 0..6 {
        let event = bench.event(&format!("{n} {}", "x".repeat(n * 400)));
        ids.push(event.id);
        bench.buffer.append(event, &[app(), other()], Some(claim(n as u64))).await.unwrap();
        bench.clock.advance(Duration::from_millis(5));
    }
    for next in [Next::Delivered, Next::Dead(DeadReason::GivenUp), Next::Retry(bench.now())] {
        for to in [app(), other()] {
            let leased = bench.buffer.lease(&to, 1, bench.now()).await.unwrap().remove(0);
            bench.settle(&leased, next);
        }
    }
    bench.settled().await;
    (bench, ids)
}

/// What is found in the folder, with the events that were read.
fn verified(bench: &Bench) -> Result<(u64, Vec<Damage>), OpenError> {
    let (mut events, mut damaged) = (0, Vec::new());
    verify(bench.folder.path(), &bench.settings.encryption, &mut |page| {
        events += page.events;
        damaged.extend(page.damaged);
    })?;
    Ok((events, damaged))
}

#[tokio::test]
async fn a_closed_store_is_read_whole_and_one_in_use_is_left_alone() {
    for keys in [Keyring::none(), keyring(&[1])] {
        let (bench, _) = full_store(|settings| settings.encryption = keys.clone()).await;
        assert!(matches!(verified(&bench), Err(OpenError::Locked { .. })));
        bench.buffer.close().await.unwrap();
        for _ in 0..2 {
            assert_eq!(verified(&bench).unwrap(), (6, vec![]));
        }
        // It was looked at, and is as it was.
        let bench = bench.reopen();
        assert_eq!(bench.stats_of(&app()).await.backlog, 4);
    }
}

#[tokio::test]
async fn without_its_key_and_where_there_is_none_it_is_said_so() {
    let (mut bench, _) = full_store(|settings| settings.encryption = keyring(&[1])).await;
    bench.buffer.close().await.unwrap();
    bench.settings.encryption = Keyring::none();
    assert!(matches!(verified(&bench), Err(OpenError::NoKey { .. })));
    let nothing = tempfile::tempdir().unwrap();
    let read = verify(nothing.path(), &Keyring::none(), &mut |_| {});
    assert!(matches!(read, Err(OpenError::NoBuffer { .. })));
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0, "and nothing is made");
}

/// The index is changed behind the committer's back, between two of its commits.
async fn damaged_by(
    change: impl FnOnce(&super::super::store::Store, &[EventId], u32),
) -> Vec<(Option<EventId>, String)> {
    let (bench, ids) = full_store(|_| {}).await;
    let to = bench.buffer.shared.lane(&app()).id;
    let store = bench.buffer.shared.store().unwrap();
    change(&store, &ids, to);
    drop(store);
    // A commit follows, so that the journal is whole.
    bench.stored("after").await;
    bench.buffer.close().await.unwrap();
    verified(&bench).unwrap().1.into_iter().map(|damage| (damage.event, damage.what)).collect()
}

#[tokio::test]
async fn what_does_not_fit_together_is_named() {
    let of = |found: &[(Option<EventId>, String)], text: &str| {
        assert!(found.iter().any(|(_, what)| what.contains(text)), "{text} in {found:?}");
    };
    // The place of a delivery in its queue is gone.
    let found = damaged_by(|store, _, to| {
        let (from, until) = (keys::fresh(to, 0), keys::fresh(to + 1, 0));
        let first = store.scan(from, until).next().unwrap().unwrap().0;
        store.index.remove(first).unwrap();
    })
    .await;
    of(&found, "is neither settled nor queued");
    of(&found, "deliveries wait");
    // An event is gone, and what refers to it is left.
    let found = damaged_by(|store, ids, _| store.events.remove(ids[5].0).unwrap()).await;
    of(&found, "there is no such event");
    of(&found, "events are stored");
    // Retention has lost one.
    let found = damaged_by(|store, _, _| {
        let kept = store.scan(vec![Class::Delivered.prefix()], vec![Class::Delivered.prefix() + 1]);
        let first = kept.last().unwrap().unwrap().0;
        store.index.remove(first).unwrap();
    })
    .await;
    of(&found, "it would be kept for ever");
    // A claim that would never go.
    let found = damaged_by(|store, _, _| {
        for entry in store.scan(vec![b'X'], vec![b'X' + 1]).map(Result::unwrap).collect::<Vec<_>>() {
            store.index.remove(entry.0).unwrap();
        }
    })
    .await;
    of(&found, "a claim would never expire");
    // A record that can't be understood, and a dead letter that no list has.
    let found = damaged_by(|store, ids, to| {
        store.index.insert(keys::delivery(ids[2], to), [9, 9]).unwrap();
        store.index.remove(keys::dead(ids[1], to)).unwrap();
    })
    .await;
    of(&found, "unknown record version");
    of(&found, "missing in the list of dead letters");
}
