//! Files of a closed store are damaged, one by one: opening names the file, or reading does; nothing vanishes silently.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A closed store of some events with tables, blobs and a journal.
struct Closed {
    folder: TempDir,
    ids: Vec<EventId>,
}

impl Closed {
    async fn new() -> Self {
        let bench = Bench::new();
        let mut ids = Vec::new();
        for n in 0..20 {
            ids.push(bench.stored(&format!("{n} {}", "b".repeat(n * 200))).await);
        }
        let store = bench.buffer.shared.store().unwrap();
        store.events.rotate_memtable_and_wait().unwrap();
        store.index.rotate_memtable_and_wait().unwrap();
        drop(store);
        for n in 0..20 {
            ids.push(bench.stored(&format!("late {n} {}", "b".repeat(n * 100))).await);
        }
        bench.buffer.close().await.unwrap();
        Self { folder: bench.folder, ids }
    }

    fn damaged(&self, damage: impl FnOnce(&Path)) -> (TempDir, Result<Embedded, OpenError>) {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        damage(copy.path());
        let opened = open_at(&settings(copy.path()), &ManualClock::at(START));
        (copy, opened)
    }

    /// Opening must fail, naming this file, and the same again the next time: nothing was repaired away.
    fn refused(&self, names: &str, damage: impl FnOnce(&Path)) {
        let (copy, opened) = self.damaged(damage);
        for opened in [opened, open_at(&settings(copy.path()), &ManualClock::at(START))] {
            let Err(error) = opened else { panic!("{names}: it opened") };
            let text = error.to_string();
            assert!(text.contains(names), "{names} is not named by: {text}");
            assert!(matches!(error, OpenError::Damaged { .. }), "{text}");
            assert!(text.contains("backup") && text.contains("move it away"), "no way out in: {text}");
        }
    }
}

fn journal_of(folder: &Path) -> PathBuf {
    let mut journals: Vec<_> = fs::read_dir(folder.join("store"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// Where the written part of a journal ends.
fn used(path: &Path) -> usize {
    fs::read(path).unwrap().iter().rposition(|b| *b != 0).unwrap() + 1
}

#[tokio::test]
async fn a_flipped_byte_anywhere_in_the_journal_is_refused() {
    let closed = Closed::new().await;
    let end = used(&journal_of(closed.folder.path()));
    for _ in 0..12 {
        let at = fastrand::usize(..end);
        closed.refused(".jnl", |folder| flip(&journal_of(folder), at));
    }
}

#[tokio::test]
async fn a_journal_that_was_cut_emptied_or_deleted_is_refused() {
    let closed = Closed::new().await;
    let end = used(&journal_of(closed.folder.path())) as u64;
    let cut = |len| {
        move |folder: &Path| {
            fs::OpenOptions::new().write(true).open(journal_of(folder)).unwrap().set_len(len).unwrap();
        }
    };
    for _ in 0..4 {
        // Cut between two commits, the journal itself looks whole: then the witness tells.
        closed.refused("store", cut(fastrand::u64(1..end)));
    }
    closed.refused("store", cut(0));
    closed.refused("store", |folder| fs::remove_file(journal_of(folder)).unwrap());
    closed.refused(".jnl", |folder| {
        let path = journal_of(folder);
        let mut bytes = fs::read(&path).unwrap();
        bytes[end as usize / 2..].fill(0);
        fs::write(path, bytes).unwrap();
    });
}

#[tokio::test]
async fn the_torn_end_of_a_write_that_nobody_was_told_of_is_cut_off() {
    let closed = Closed::new().await;
    let (_copy, opened) = closed.damaged(|folder| {
        let path = journal_of(folder);
        let end = used(&path);
        let mut bytes = fs::read(&path).unwrap();
        // What a batch begins with, as far as it got.
        bytes.truncate(end);
        bytes.extend_from_within(..300);
        bytes.extend([0; 5_000]);
        fs::write(path, bytes).unwrap();
    });
    let opened = opened.unwrap();
    for id in &closed.ids {
        assert!(opened.get(*id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_missing_file_of_the_engine_is_refused() {
    let closed = Closed::new().await;
    let remove = |name: &'static str| move |folder: &Path| fs::remove_file(folder.join(name)).unwrap();
    closed.refused("store/version", remove("store/version"));
    for keyspace in 0..=2 {
        let name: &'static str = format!("store/keyspaces/{keyspace}/current").leak();
        closed.refused(name, remove(name));
    }
    closed.refused("store/keyspaces/1", |folder| {
        fs::remove_dir_all(folder.join("store/keyspaces/1")).unwrap();
    });
    closed.refused("tidegate.format", remove("tidegate.format"));
    closed.refused("store", |folder| fs::remove_dir_all(folder.join("store")).unwrap());
    closed.refused("store", |folder| {
        fs::remove_dir_all(folder.join("store")).unwrap();
        fs::remove_file(folder.join("tidegate.format")).unwrap();
    });
    for part in ["store/keyspaces/1/tables", "store/keyspaces/2/tables", "store/keyspaces/1/blobs"] {
        closed.refused("store", |folder| {
            let mut files = fs::read_dir(folder.join(part)).unwrap();
            fs::remove_file(files.next().expect("it has a file").unwrap().path()).unwrap();
        });
    }
}

#[tokio::test]
async fn a_flipped_byte_in_a_table_or_blob_is_an_error_never_other_bytes() {
    let closed = Closed::new().await;
    let original = open_at(&settings(closed.folder.path()), &ManualClock::at(START)).unwrap();
    let mut expected = Vec::new();
    for id in &closed.ids {
        expected.push(original.get(*id).await.unwrap().unwrap());
    }
    drop(original);
    let (mut refused, mut damaged) = (0, 0);
    for part in ["store/keyspaces/1/tables", "store/keyspaces/2/tables", "store/keyspaces/1/blobs"] {
        let file = fs::read_dir(closed.folder.path().join(part)).unwrap().next().unwrap().unwrap();
        let len = file.metadata().unwrap().len() as usize;
        for _ in 0..8 {
            let at = fastrand::usize(..len);
            let path = Path::new(part).join(file.file_name());
            let (_copy, opened) = closed.damaged(|folder| flip(&folder.join(path), at));
            let Ok(opened) = opened else {
                refused += 1;
                continue;
            };
            for (id, sent) in closed.ids.iter().zip(&expected) {
                match opened.get(*id).await {
                    Ok(found) => assert_eq!(found.as_ref(), Some(sent), "{part} byte {at}"),
                    Err(BufferError::Damaged(_)) => damaged += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
    assert!(refused + damaged > 0, "no flip was noticed");
}

#[tokio::test]
async fn an_event_that_cant_be_read_does_not_hold_up_the_others() {
    let closed = Closed::new().await;
    let (_copy, opened) = closed.damaged(|folder| {
        let blobs = fs::read_dir(folder.join("store/keyspaces/1/blobs")).unwrap();
        let path = blobs.map(|e| e.unwrap().path()).next().unwrap();
        // In the body of the first event that is long enough to stand there.
        flip(&path, 200);
    });
    let opened = opened.unwrap();
    let leased = opened.lease(&app(), 100, START).await.unwrap();
    assert_eq!(leased.len(), closed.ids.len() - 1);
    assert!(opened.lease(&app(), 100, START).await.unwrap().is_empty());
    let stats = opened.stats().await.unwrap();
    assert_eq!(stats.destinations[0].backlog, closed.ids.len() as u64, "it stays in sight");
    let page = opened.search(Search::new(EventFilter::default(), 100)).await.unwrap();
    assert_eq!(page.events.len(), closed.ids.len() - 1);
}

#[tokio::test]
async fn a_newer_or_foreign_format_is_refused() {
    let closed = Closed::new().await;
    let write =
        |text: &'static str| move |folder: &Path| fs::write(folder.join("tidegate.format"), text).unwrap();
    let (_copy, opened) = closed.damaged(write("tidegate buffer, format 3\n"));
    let error = opened.err().unwrap();
    assert!(matches!(&error, OpenError::Newer { found: 3, known: 2, .. }), "{error}");
    assert!(error.to_string().contains("run the newer version"), "{error}");
    closed.refused("tidegate.format", write("something else"));
    closed.refused("store/version", |folder| fs::write(folder.join("store/version"), b"FJL\x09").unwrap());
}

#[tokio::test]
async fn a_lost_witness_is_made_anew() {
    let closed = Closed::new().await;
    for damage in [b"".as_slice(), b"rubbish that is no witness"] {
        let (copy, opened) =
            closed.damaged(|folder| fs::write(folder.join("tidegate.witness"), damage).unwrap());
        drop(opened.unwrap());
        assert!(witness::Witness::read(&copy.path().join("tidegate.witness")).unwrap().is_some());
    }
}

#[tokio::test]
async fn making_a_store_goes_on_where_a_crash_left_it() {
    let closed = Closed::new().await;
    // A part of the engine's files, and no format yet.
    let folder = tempfile::tempdir().unwrap();
    let open = || open_at(&settings(folder.path()), &ManualClock::at(START));
    witness::Witness::create(&folder.path().join("tidegate.witness"), 1).unwrap();
    copy_folder(&closed.folder.path().join("store/keyspaces/1"), &folder.path().join("store/keyspaces/1"));
    assert_eq!(open().unwrap().stats().await.unwrap().events, 0);
    // All but the last step.
    fs::remove_file(folder.path().join("tidegate.format")).unwrap();
    witness::Witness::create(&folder.path().join("tidegate.witness"), 1).unwrap();
    assert!(open().is_ok());
    assert!(open().is_ok());
}

#[tokio::test]
async fn only_one_may_open_a_store_and_the_other_hears_who_has_it() {
    let bench = Bench::new();
    let error = open_at(&bench.settings, &bench.clock).err().unwrap();
    assert!(
        matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
}

#[test]
fn a_path_that_is_no_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let open = |path: &Path| open_at(&settings(path), &ManualClock::at(START)).err().unwrap();
    assert!(matches!(open(&file), OpenError::NotAFolder { .. }));
    assert!(matches!(open(&file.join("below")), OpenError::NotAFolder { .. }));
}

#[tokio::test]
async fn an_old_journal_that_is_gone_is_noticed() {
    let closed = Closed::new().await;
    let journal = journal_of(closed.folder.path());
    let places = journal::boundaries(&journal);
    // As if journals up to here had been sealed and deleted.
    let beheaded = |batch: usize| {
        let from = places[batch] as usize;
        move |folder: &Path| {
            let bytes = fs::read(journal_of(folder)).unwrap();
            fs::write(journal_of(folder), &bytes[from..]).unwrap();
        }
    };
    // Commits 1 to 21 are in tables, each with its batch.
    let (_copy, opened) = closed.damaged(beheaded(21));
    let opened = opened.unwrap();
    for id in &closed.ids {
        assert!(opened.get(*id).await.unwrap().is_some());
    }
    drop(opened);
    let (_copy, opened) = closed.damaged(beheaded(22));
    let error = opened.err().unwrap();
    assert!(error.to_string().contains("older journals are missing"), "{error}");
}
