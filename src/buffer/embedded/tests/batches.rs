//! The events of one request: all in one commit, or none.

use std::collections::BTreeMap;

use super::*;

fn key(n: u64) -> ClaimKey {
    ClaimKey::new("hooks/", &n.to_be_bytes())
}
fn claim(key: ClaimKey) -> NewClaim {
    let answer = FirstAnswer { status: 202, content_type: None, body: "ok".into() };
    NewClaim { key, whose: None, window: Duration::from_secs(3600), answer }
}

/// A batch of events with these keys, each with its place in `origin`.
fn batch(now: Timestamp, whole: u64, keys: &[u64]) -> NewBatch {
    let id = EventId::new(now);
    let count = keys.len() as u32;
    let part = |(number, n): (u32, &u64)| {
        let mut event = event(now, &format!("{n}"));
        event.origin.batch = Some(BatchPart { id, number, count });
        NewPart { event, to: vec![app()], claim: Some(claim(key(*n))) }
    };
    let events = (1..).zip(keys).map(part).collect();
    NewBatch { id, events, claim: Some(claim(ClaimKey::new("hooks", &whole.to_be_bytes()))) }
}

impl Bench {
    async fn bodies(&self) -> Vec<String> {
        let page = self.buffer.search(Search::new(EventFilter::default(), 1000)).await.unwrap();
        let mut bodies = Vec::new();
        for (head, _) in page.events {
            let (event, _) = self.buffer.get(head.id).await.unwrap().unwrap();
            bodies.push(String::from_utf8(event.body.to_vec()).unwrap());
        }
        bodies.sort();
        bodies
    }
}

#[tokio::test]
async fn a_batch_is_stored_with_its_claims_and_delivered_in_order() {
    let bench = Bench::new();
    let mut sent = batch(bench.now(), 1, &[10, 11, 12]);
    let id = sent.id;
    sent.events[0].to = vec![app(), other(), app()];
    sent.events[2].to = vec![other(), app()];
    let parts: Vec<_> = sent.events.iter().map(|part| part.event.origin.batch).collect();
    let outcome = bench.buffer.append_batch(sent).await.unwrap();
    assert_eq!(outcome, BatchAppended::Stored { stored: 3, duplicates: 0 });
    let bench = bench.reopen();
    let leased = bench.lease(9).await;
    assert_eq!(leased.iter().map(|l| &l.event.body[..]).collect::<Vec<_>>(), [b"10", b"11", b"12"]);
    assert_eq!(leased.iter().map(|l| l.event.origin.batch).collect::<Vec<_>>(), parts);
    assert_eq!(bench.stats_of(&other()).await.backlog, 2, "each has destinations of its own");
    let whole = bench.buffer.claimed(ClaimKey::new("hooks", &1u64.to_be_bytes())).await.unwrap().unwrap();
    assert_eq!(whole.event_id, id);
    assert_eq!(bench.buffer.claimed(key(11)).await.unwrap().unwrap().event_id, leased[1].event.id);
}

#[tokio::test]
async fn twins_are_left_out_within_a_batch_and_across() {
    let bench = Bench::new();
    let append =
        async |whole, keys: &[u64]| bench.buffer.append_batch(batch(bench.now(), whole, keys)).await.unwrap();
    assert_eq!(append(1, &[1, 2, 1]).await, BatchAppended::Stored { stored: 2, duplicates: 1 });
    assert_eq!(append(2, &[2, 3]).await, BatchAppended::Stored { stored: 1, duplicates: 1 });
    // Nothing new in it, but another request: acknowledged, and its own repeats are known.
    assert_eq!(append(3, &[1, 3]).await, BatchAppended::Stored { stored: 0, duplicates: 2 });
    assert!(matches!(append(3, &[1, 3]).await, BatchAppended::Duplicate(_)));
    // The whole request's repeat stores nothing, whatever stands in it.
    assert!(matches!(append(1, &[8, 9]).await, BatchAppended::Duplicate(_)));
    assert_eq!(bench.bodies().await, ["1", "2", "3"]);
    let alone = bench.event("alone");
    let appended = bench.buffer.append(alone, &[app()], Some(claim(key(3)))).await.unwrap();
    assert!(matches!(appended, Appended::Duplicate(_)));
    // Once the window is over, all of it may come again.
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(append(1, &[1]).await, BatchAppended::Stored { stored: 1, duplicates: 0 });
}

#[tokio::test]
async fn without_keys_all_are_stored() {
    let bench = Bench::new();
    let mut sent = batch(bench.now(), 1, &[1, 1]);
    sent.claim = None;
    sent.events.iter_mut().for_each(|part| part.claim = None);
    let outcome = bench.buffer.append_batch(sent).await.unwrap();
    assert_eq!(outcome, BatchAppended::Stored { stored: 2, duplicates: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_crash_at_any_byte_leaves_a_batch_whole_or_not_at_all() {
    let bench = Bench::new();
    bench.stored("before").await;
    let journal = |folder: &Path| folder.join("store/0.jnl");
    let before = std::fs::read(journal(bench.folder.path())).unwrap();
    let start = *super::super::journal::boundaries(&journal(bench.folder.path())).last().unwrap() as usize;
    let held = tempfile::tempdir().unwrap();
    copy_folder(bench.folder.path(), held.path());
    let keys: Vec<u64> = (0..20).collect();
    let outcome = bench.buffer.append_batch(batch(bench.now(), 1, &keys)).await.unwrap();
    assert_eq!(outcome, BatchAppended::Stored { stored: 20, duplicates: 0 });
    let after = std::fs::read(journal(bench.folder.path())).unwrap();
    let end = *super::super::journal::boundaries(&journal(bench.folder.path())).last().unwrap() as usize;
    assert!(end > start);
    let mut seen = BTreeMap::new();
    let cuts = (0..24).map(|n| start + (end - start) * n / 24).chain([end - 1, end]);
    for cut in cuts {
        // The folder as it was, and of the batch's write only the first bytes.
        let crashed = tempfile::tempdir().unwrap();
        copy_folder(held.path(), crashed.path());
        let mut written = before.clone();
        written.resize(written.len().max(cut), 0);
        written[start..cut].copy_from_slice(&after[start..cut]);
        std::fs::write(journal(crashed.path()), written).unwrap();
        let opened = open_at(&settings(crashed.path()), &bench.clock).unwrap();
        let stored = opened.search(Search::new(EventFilter::default(), 100)).await.unwrap().events.len();
        let mut claims = 0;
        for n in &keys {
            claims += usize::from(opened.claimed(key(*n)).await.unwrap().is_some());
        }
        assert!((stored, claims) == (1, 0) || (stored, claims) == (21, 20), "{cut}: {stored}, {claims}");
        *seen.entry(stored).or_insert(0) += 1;
    }
    assert!(seen.contains_key(&1) && seen.contains_key(&21), "{seen:?}");
}
