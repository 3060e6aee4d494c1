//! Promise 1: a 2xx from a buffered route means on disk, synced; nothing acknowledged is ever dropped silently.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::fault::{Fails, Fault};
use crate::support::*;

async fn all_arrive(app: &App, acknowledged: &[String]) {
    eventually("everything acknowledged arrives", async || {
        let ids: Vec<_> = app.received().iter().map(|received| received.event_id().to_owned()).collect();
        acknowledged.iter().all(|id| ids.contains(id))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_event_survives_kill_9_at_once() {
    let app = App::start().await;
    app.refuse().await;
    let mut gateway = gateway().route(github().to(&app).impatient()).start().await;

    let event = signed::github(push());
    let answer = gateway.send(&event).await;
    gateway.kill().await;
    assert_eq!(answer.status, 202);

    app.accept().await;
    gateway.restart().await;
    let received = app.receives(1).await;
    assert_eq!(received[0].body, event.body);
    assert_eq!(received[0].event_id(), answer.event_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_in_flight_at_a_crash_is_made_again() {
    let app = App::start().await;
    app.behaves(Behaviour::Hang);
    let mut gateway = gateway().route(github().to(&app).impatient()).start().await;
    let answer = gateway.send(&signed::github(push())).await;
    app.receives(1).await;
    gateway.kill().await;

    app.behaves(Behaviour::status(200));
    gateway.restart().await;
    let received = app.receives(2).await;
    assert_eq!(received[1].event_id(), answer.event_id());
    gateway.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_is_not_delivered_again_after_an_orderly_restart() {
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    for _ in 0..5 {
        gateway.send(&signed::github(push())).await;
    }
    app.receives(5).await;
    gateway.drained().await;
    assert!(gateway.terminate().await.success());

    gateway.restart().await;
    gateway.send(&signed::github(push())).await;
    app.receives(6).await;
    gateway.drained().await;
    assert_eq!(app.count(), 6);
}

/// The store fills up while the app is down; everything acknowledged is delivered once it is up, and then there is
/// room again.
async fn a_full_store_refuses_and_recovers(builder: GatewayBuilder) {
    let app = App::start().await;
    app.refuse().await;
    let gateway = builder.route(github().to(&app).impatient().set("max_body", "2MiB")).start().await;

    let mut acknowledged = Vec::new();
    let refused = loop {
        let event = signed::github(noise(512 * 1024));
        let answer = gateway.send(&event).await;
        if !answer.is_success() {
            break answer;
        }
        acknowledged.push(answer.event_id().to_owned());
        assert!(acknowledged.len() < 2_000, "the limit is never reached");
    };
    assert_eq!((refused.status, refused.reason()), (503, "buffer_full"));
    assert!(refused.header("retry-after").is_some_and(|secs| secs.parse::<u32>().is_ok_and(|secs| secs > 0)));
    assert!(!acknowledged.is_empty());

    app.accept().await;
    gateway.drained().await;
    let delivered: std::collections::HashSet<_> =
        app.received().iter().map(|received| received.event_id().to_owned()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !delivered.contains(*id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?} of {}", acknowledged.len());

    eventually("new events are taken again", async || {
        gateway.send(&signed::github(push())).await.status == 202
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_its_size_limit_the_buffer_refuses_delivers_and_recovers() {
    let buffer = json!({"max_size": "64MiB", "memtable": "4MiB", "keep_delivered": "0s", "keep_delivered_bytes": "1MiB"});
    a_full_store_refuses_and_recovers(gateway().section("buffer", buffer)).await;
}

/// A volume's free bytes.
fn free_bytes(path: &Path) -> u64 {
    let volume = rustix::fs::statvfs(path).expect("the volume");
    volume.f_bavail * volume.f_frsize
}

/// A folder on a volume with so many bytes free, and how many there are.
///
/// In memory where the system has such a volume, because nobody else fills that one meanwhile.
fn volume(least: u64) -> (tempfile::TempDir, u64) {
    let shared_memory = Path::new("/dev/shm");
    let volume = match shared_memory.is_dir() && free_bytes(shared_memory) > least {
        true => tempfile::tempdir_in(shared_memory),
        false => tempfile::tempdir(),
    };
    let volume = volume.expect("a folder");
    let free = free_bytes(volume.path());
    assert!(free > least, "this test needs {least} bytes for a moment");
    (volume, free)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_volume_that_is_full_of_delivered_events_they_give_way_to_new_ones() {
    const MIB: u64 = 1 << 20;
    let (volume, free) = volume(512 * MIB);
    // Nothing is past its time, and the size limit is far away.
    let buffer = json!({"path": volume.path().join("buffer"), "min_free": free - 288 * MIB});
    a_full_store_refuses_and_recovers(gateway().section("buffer", buffer)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_volume_it_refuses_delivers_and_takes_events_again_by_itself() {
    const MIB: u64 = 1 << 20;
    let (volume, free) = volume(512 * MIB);
    let app = App::start().await;
    app.refuse().await;
    let buffer = json!({"path": volume.path().join("buffer"), "min_free": free - 160 * MIB});
    let gateway = gateway().section("buffer", buffer).route(github().to(&app).impatient()).start().await;
    let before = gateway.send(&signed::github(push())).await;
    assert_eq!(before.status, 202);

    let ballast = volume.path().join("ballast");
    let file = std::fs::File::create(&ballast).expect("made");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 192 * MIB).expect("filled");
    drop(file);
    eventually("new events are refused", async || {
        let refused = gateway.send(&signed::github(push())).await;
        match refused.status {
            202 => false,
            status => {
                assert_eq!((status, refused.reason()), (503, "buffer_full"));
                assert!(refused.header("retry-after").is_some(), "{refused:?}");
                true
            }
        }
    })
    .await;
    assert_eq!(gateway.admin("GET", "/readyz").await.expect("answered").status, 503);
    app.accept().await;
    gateway.drained().await;
    assert!(
        app.received().iter().any(|received| received.event_id() == before.event_id()),
        "deliveries go on"
    );

    std::fs::remove_file(&ballast).expect("removed");
    eventually("new events are taken again", async || {
        gateway.send(&signed::github(push())).await.status == 202
    })
    .await;
    eventually("it is ready again", async || gateway.is_ready().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_without_room_is_not_acknowledged_and_loses_nothing() {
    // What `min_free` keeps away, if somebody else fills the volume faster than that is noticed.
    a_failing_disk_is_never_acknowledged_over(Fails::DiskFull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_closes_acceptance_until_it_returns() {
    let app = App::start().await;
    let disk = Fault::new();
    let gateway = gateway()
        .section("buffer", json!({"stall_after": "200ms"}))
        .route(github().to(&app))
        .fault(&disk)
        .start()
        .await;
    disk.on(Fails::SlowSync(1_000));
    let address = gateway.plain();
    let mut sending = Vec::new();
    for _ in 0..20 {
        sending.push(tokio::spawn(async move {
            let event = signed::github(push());
            let answer = sender::Connection::plain(address).await?.send(&event).await;
            answer.map(|answer| (sha256(&event.body), answer))
        }));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    disk.off();
    let (mut acknowledged, mut refused) = (std::collections::HashSet::new(), 0);
    for sent in sending {
        let (body, answer) = sent.await.expect("ran").expect("answered");
        match (answer.status, answer.reason()) {
            // It waited for its sync, however long that took.
            (202, _) => drop(acknowledged.insert(body)),
            (503, "buffer_unavailable" | "overloaded") => refused += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(
        !acknowledged.is_empty() && refused > 0,
        "{} acknowledged, {refused} refused",
        acknowledged.len()
    );
    eventually("new events are taken again", async || {
        gateway.send(&signed::github(push())).await.status == 202
    })
    .await;
    eventually("everything acknowledged arrives", async || {
        let received: Vec<_> = app.received().iter().map(|received| sha256(&received.body)).collect();
        acknowledged.iter().all(|body| received.contains(body))
    })
    .await;
}

/// The `fails` calls fail in the middle of load: whatever was acknowledged is there after a restart.
async fn a_failing_disk_is_never_acknowledged_over(fails: Fails) {
    let app = App::start().await;
    app.refuse().await;
    let disk = Fault::new();
    let mut gateway = gateway().route(github().to(&app).impatient()).fault(&disk).start().await;

    let mut acknowledged = Vec::new();
    for round in 0..40 {
        if round == 20 {
            disk.on(fails);
        }
        let answer = gateway.send(&signed::github(push())).await;
        match answer.status {
            202 => acknowledged.push(answer.event_id().to_owned()),
            503 => assert!(answer.header("retry-after").is_some(), "{answer:?}"),
            other => panic!("answered {other}"),
        }
    }
    assert_eq!(acknowledged.len(), 20, "nothing is acknowledged while the disk fails");
    assert_eq!(gateway.send(&signed::github(push())).await.reason(), "buffer_unavailable");

    eventually("readiness is false and says why", async || {
        let answer = gateway.admin("GET", "/readyz").await.expect("the admin API answers");
        answer.status == 503 && answer.text().contains("buffer")
    })
    .await;
    assert!(gateway.metric("tidegate_buffer_trouble_total", &[]).await >= 1.0);
    let is_loud =
        |line: &serde_json::Value| line["level"].as_str().is_some_and(|l| l.eq_ignore_ascii_case("error"));
    assert!(gateway.log_lines().iter().any(is_loud), "an error in the log:\n{}", gateway.log());
    if fails == Fails::DiskFull {
        disk.off();
        // Somebody has made room: it ends, to be started again.
        assert_eq!(gateway.end().await.code(), Some(75), "{}", gateway.log());
        assert!(gateway.log().contains("has room again"), "{}", gateway.log());
    } else {
        // A failed sync is final until a restart: the kernel may have dropped the pages (PostgreSQL, 2018).
        disk.off();
        assert_eq!(gateway.send(&signed::github(push())).await.status, 503);
        gateway.kill().await;
    }

    app.accept().await;
    gateway.restart().await;
    all_arrive(&app, &acknowledged).await;
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_sync_stops_acceptance_and_loses_nothing() {
    a_failing_disk_is_never_acknowledged_over(Fails::Sync).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_write_stops_acceptance_and_loses_nothing() {
    a_failing_disk_is_never_acknowledged_over(Fails::Write).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_engine_can_not_flush_nobody_waits_for_it_for_ever() {
    let app = App::start().await;
    app.refuse().await;
    let disk = Fault::new();
    let buffer = json!({"memtable": "1MiB", "stall_after": "500ms"});
    let mut gateway = gateway()
        .section("buffer", buffer)
        .route(github().to(&app).impatient().set("max_body", "2MiB"))
        .fault(&disk)
        .start()
        .await;
    // It goes on for a second as if nothing were.
    disk.on(Fails::Flush);
    let address = gateway.plain();
    let sending: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let (mut acknowledged, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
                while Instant::now() < until {
                    let event = signed::github(noise(512 * 1024));
                    let answer =
                        sender::Connection::plain(address).await.expect("connects").send(&event).await;
                    match answer.expect("answered") {
                        answer if answer.status == 202 => acknowledged.push(answer.event_id().to_owned()),
                        answer if answer.reason() == "buffer_unavailable" => break,
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for sender in sending {
        acknowledged.extend(sender.await.expect("each request is answered"));
    }
    assert!(acknowledged.len() >= 6, "more than fits into what is flushed at once: {}", acknowledged.len());
    eventually("it has failed", async || gateway.log().contains("the buffer has failed")).await;
    gateway.terminate().await;
    disk.off();
    app.accept().await;
    gateway.restart().await;
    all_arrive(&app, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_one_store_is_refused() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let second = gateway.second_process(config::Ports::free()).await;
    let said = String::from_utf8_lossy(&second.stderr) + String::from_utf8_lossy(&second.stdout);
    assert!(!second.status.success());
    assert!(said.contains(&gateway.pid().to_string()), "names the first's process: {said}");
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202, "the first goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_never_silently_reset() {
    let app = App::start().await;
    app.refuse().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    for _ in 0..20 {
        gateway.send(&signed::github(noise(20_000))).await;
    }
    assert!(gateway.terminate().await.success());

    // Everything the store wrote, turned to zeroes from the tenth byte on.
    let mut damaged = 0;
    let mut folders = vec![gateway.path("buffer")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the store's folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if entry.metadata().is_ok_and(|meta| meta.len() > 10) {
                let mut bytes = std::fs::read(entry.path()).expect("read");
                bytes[10..].fill(0);
                std::fs::write(entry.path(), bytes).expect("write");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0, "there was a store");
    let ended = gateway.try_restart().await.expect_err("a damaged store must not be served");
    assert_ne!(ended.code, Some(0));
    assert!(ended.output.contains("buffer"), "names the store: {}", ended.output);
    assert!(!ended.output.contains("panicked"), "a clear error, not a panic: {}", ended.output);
}

/// All files below a folder that have something in them.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => files.extend(files_below(&entry.path())),
            Ok(meta) if meta.len() > 0 => files.push(entry.path()),
            _ => {}
        }
    }
    files.sort();
    files
}

/// A whole folder, with all that is empty in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let copied = to.join(entry.file_name());
        match entry.metadata().expect("its metadata").is_dir() {
            true => copy(&entry.path(), &copied),
            false => drop(std::fs::copy(entry.path(), copied).expect("copied")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_any_one_file_is_said_or_does_no_harm() {
    let app = App::start().await;
    app.refuse().await;
    // Small write buffers, so that there are tables and blobs beside the journal.
    let builder =
        gateway().section("buffer", json!({"memtable": "1MiB"})).route(github().to(&app).impatient());
    let mut gateway = builder.start().await;
    let mut acknowledged = Vec::new();
    for _ in 0..60 {
        let answer = gateway.send(&signed::github(noise(50_000))).await;
        acknowledged.push(answer.event_id().to_owned());
    }
    assert!(gateway.terminate().await.success());
    let (good, store) = (gateway.path("good"), gateway.path("buffer"));
    copy(&store, &good);
    app.accept().await;

    let files: Vec<PathBuf> =
        files_below(&good).iter().map(|file| file.strip_prefix(&good).expect("below").to_owned()).collect();
    assert!(files.len() > 5, "{files:?}");
    // A copy without damage is served, so a refusal will mean something.
    std::fs::remove_dir_all(&store).expect("removed");
    copy(&good, &store);
    gateway.restart().await;
    app.receives(60).await;
    gateway.kill().await;
    let (mut refusals, mut served) = (0, 0);
    for file in &files {
        // The lock file says who runs; it holds nothing.
        if file.ends_with("tidegate.lock") {
            continue;
        }
        for damage in ["a flipped byte", "a missing second half", "a missing file"] {
            std::fs::remove_dir_all(&store).expect("removed");
            copy(&good, &store);
            let path = store.join(file);
            let mut bytes = std::fs::read(&path).expect("read");
            match damage {
                "a flipped byte" => {
                    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) / 2;
                    bytes[at] ^= 0x40;
                    std::fs::write(&path, bytes).expect("written");
                }
                "a missing second half" => {
                    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                    std::fs::write(&path, &bytes[..used / 2]).expect("written");
                }
                _ => std::fs::remove_file(&path).expect("removed"),
            }
            let case = format!("{damage} in {}", file.display());
            app.forget();
            match gateway.try_restart().await {
                Err(ended) => {
                    refusals += 1;
                    assert_eq!(ended.code, Some(1), "{case}: {}", ended.output);
                    assert!(ended.output.contains("buffer/"), "{case}: names the file: {}", ended.output);
                    assert!(!ended.output.contains("panicked"), "{case}: {}", ended.output);
                }
                Ok(()) => {
                    served += 1;
                    // Each event arrives, or the log says that it can't be read: it stays in the backlog.
                    eventually(&case, async || {
                        let arrived: std::collections::HashSet<_> =
                            app.received().iter().map(|received| received.event_id().to_owned()).collect();
                        let log = gateway.log();
                        acknowledged.iter().all(|id| arrived.contains(id) || log.contains(id.as_str()))
                    })
                    .await;
                    gateway.kill().await;
                }
            }
        }
    }
    println!("{} files, {refusals} refusals, {served} served", files.len());
    assert!(refusals > served, "most damage must not be served: {refusals} of {}", refusals + served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_version_is_left_alone() {
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    gateway.send(&signed::github(push())).await;
    assert!(gateway.terminate().await.success());
    let format = gateway.path("buffer/tidegate.format");
    let ours = std::fs::read_to_string(&format).expect("read");
    let before: Vec<_> = files_below(&gateway.path("buffer/store"))
        .into_iter()
        .map(|file| std::fs::read(file).map(|bytes| sha256(&bytes)).expect("read"))
        .collect();
    let newer = ours.replace("format 2", "format 3");
    assert_ne!(newer, ours, "the store's format has another number now");
    std::fs::write(&format, newer).expect("written");
    let ended = gateway.try_restart().await.expect_err("a newer store must not be touched");
    assert_eq!(ended.code, Some(1));
    assert!(ended.output.contains("by a newer Tidegate (format 3)"), "{}", ended.output);
    let after: Vec<_> = files_below(&gateway.path("buffer/store"))
        .into_iter()
        .map(|file| std::fs::read(file).map(|bytes| sha256(&bytes)).expect("read"))
        .collect();
    assert_eq!(before, after, "nothing was written");
    std::fs::write(&format, ours).expect("written");
    gateway.restart().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_ends_with_0_and_loses_nothing() {
    let app = App::start().await;
    app.behaves(Behaviour::Slow(Duration::from_millis(20)));
    let mut gateway = gateway().route(github().to(&app).impatient()).start().await;
    let address = gateway.tls();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                loop {
                    let sent =
                        async { sender::Connection::tls(address).await?.send(&signed::github(push())).await };
                    match sent.await {
                        Ok(answer) if answer.status == 202 => acknowledged.push(answer.event_id().to_owned()),
                        // It says so, or it is gone: both are honest.
                        Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    eventually("load", async || app.count() > 20).await;
    assert!(gateway.terminate().await.success(), "exit code 0:\n{}", gateway.log());
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.expect("the sender ran"));
    }

    app.behaves(Behaviour::status(200));
    gateway.restart().await;
    gateway.drained().await;
    let delivered: std::collections::HashSet<_> =
        app.received().iter().map(|received| received.event_id().to_owned()).collect();
    let lost = acknowledged.iter().filter(|id| !delivered.contains(*id)).count();
    assert_eq!(lost, 0, "of {}", acknowledged.len());
}
