//! What was erased is nowhere on disk.

use super::*;

/// How many of the buffer's files hold `text`.
pub(super) fn files_with(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        // A file of the engine's may go meanwhile.
        } else if memchr::memmem::find(&std::fs::read(&path).unwrap_or_default(), text.as_bytes()).is_some() {
            found.push(path);
        }
    }
    found
}

/// Stores and delivers events, small ones (which stand in tables) and large ones (which stand in blob files).
async fn delivered(bench: &Bench, bodies: &[String]) -> Vec<EventId> {
    let mut ids = Vec::new();
    for body in bodies {
        ids.push(bench.stored(body).await);
        let leased = bench.lease_one().await;
        bench.settle(&leased, Next::Delivered);
    }
    bench.settled().await;
    ids
}

#[tokio::test]
async fn a_scrub_leaves_nothing_of_what_was_deleted_in_any_file_and_all_else_in_place() {
    let bench = Bench::new();
    let long = "x".repeat(3_000);
    let bodies: Vec<String> = (0..12)
        .map(|n| format!("secret-of-{n:03} {}", if n % 2 == 0 { "" } else { long.as_str() }))
        .collect();
    let ids = delivered(&bench, &bodies).await;
    for erased in [4, 5] {
        let one = Selection::One(ids[erased], EventFilter::default());
        assert_eq!(bench.buffer.purge(one).await.unwrap(), 1);
    }
    for erased in ["secret-of-004", "secret-of-005"] {
        assert!(!files_with(bench.folder.path(), erased).is_empty(), "it is deleted, but not gone");
    }
    bench.buffer.scrub().await.unwrap();
    for erased in ["secret-of-004", "secret-of-005"] {
        assert_eq!(files_with(bench.folder.path(), erased), Vec::<std::path::PathBuf>::new(), "{erased}");
    }
    let bench = bench.reopen();
    for (n, (id, body)) in ids.iter().zip(&bodies).enumerate() {
        let found = bench.buffer.get(*id).await.unwrap().map(|(event, _)| event.body);
        assert_eq!(found, (n != 4 && n != 5).then(|| body.clone().into()), "event {n}");
    }
    assert_eq!(bench.buffer.stats().await.unwrap().events, 10);
}

/// Everything stands in tables and blob files, as it does after a while.
fn in_tables(bench: Bench) -> Bench {
    let bench = bench.reopen();
    let store = bench.buffer.shared.store().unwrap();
    tidy::free(&store, &bench.buffer.shared).unwrap();
    drop(store);
    bench
}

async fn erase(bench: &Bench, ids: &[EventId]) {
    for id in ids {
        assert_eq!(bench.buffer.purge(Selection::One(*id, EventFilter::default())).await.unwrap(), 1);
    }
    bench.buffer.scrub().await.unwrap();
}

/// What compression leaves as it is.
fn marker(n: usize) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(&blake3::hash(&n.to_be_bytes()).as_bytes()[..18])
}

#[tokio::test]
async fn a_scrub_also_takes_what_stands_in_tables_one_after_the_other() {
    let bench = Bench::new();
    // Incompressible too, and so large that some stand in blob files.
    let long: String = (1_000..1_200).map(marker).collect();
    let bodies: Vec<String> =
        (0..60).map(|n| format!("{} {}", marker(n), if n % 3 == 0 { long.as_str() } else { "" })).collect();
    let ids = delivered(&bench, &bodies).await;
    let bench = in_tables(bench);
    for erased in [7, 9, 10, 12] {
        let text = marker(erased);
        // The engine may just be moving it from one file to another.
        let until = Instant::now() + Duration::from_secs(10);
        while files_with(bench.folder.path(), &text).is_empty() {
            assert!(Instant::now() < until, "{erased} is not found");
        }
        erase(&bench, &ids[erased..=erased]).await;
        assert_eq!(files_with(bench.folder.path(), &text), Vec::<std::path::PathBuf>::new(), "{erased}");
        for stays in [11, 15] {
            assert!(bench.buffer.get(ids[stays]).await.unwrap().is_some(), "{stays}");
        }
    }
}

#[tokio::test]
async fn a_scrub_waits_for_who_reads_what_was_deleted() {
    let bench = Bench::new();
    let bodies: Vec<String> = (0..20).map(marker).collect();
    let ids = delivered(&bench, &bodies).await;
    let bench = in_tables(bench);
    let store = bench.buffer.shared.store().unwrap();
    let mut reader = store.events.range([0u8; 16]..=[0xff; 16]);
    assert!(reader.next().is_some());
    let erased = erase(&bench, &ids[3..4]);
    tokio::pin!(erased);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut erased).await;
    assert!(early.is_err(), "the reader holds on to it");
    assert!(!files_with(bench.folder.path(), &marker(3)).is_empty());
    drop(reader);
    drop(store);
    erased.await;
    assert_eq!(files_with(bench.folder.path(), &marker(3)), Vec::<std::path::PathBuf>::new());
}
