//! What was erased is nowhere on disk.

use super::*;

/// How many of the buffer's files hold `text`.
pub(super) fn files_with(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if memchr::memmem::find(&std::fs::read(&path).unwrap(), text.as_bytes()).is_some() {
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
