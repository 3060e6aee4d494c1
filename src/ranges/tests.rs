use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use super::*;
use crate::providers::ranges::Format;
use crate::upstream::testing::{App, read_request};

/// Gives the n-th body to the n-th fetch, and the last one to all further ones.
async fn server(bodies: &'static [&'static str]) -> (App, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    let app = App::with(move |mut socket, _| {
        let counted = counted.clone();
        async move {
            while read_request(&mut socket).await.is_some() {
                let n = counted.fetch_add(1, Ordering::SeqCst);
                let body = bodies[n.min(bodies.len() - 1)];
                let status = if body.is_empty() { "500 Oops" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (app, fetches)
}

struct World {
    folder: tempfile::TempDir,
    store: RangeStore,
    config: Config,
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

impl World {
    fn new(list: Option<&App>, settings: RangeSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = RangeStore::new(folder.path(), Arc::default(), Clock::System);
        let mut world = Self { folder, store, config: config() };
        world.config.ranges = settings;
        world.provide(list);
        world
    }

    /// As a reload would: new live ranges for the same provider.
    fn provide(&mut self, list: Option<&App>) {
        let list = list.map(|app| RangeList {
            url: format!("{}/ips", app.url()).parse().unwrap(),
            format: Format::Lines,
        });
        let snapshot = vec!["10.0.0.0/24".parse().unwrap(), "10.0.2.0/24".parse().unwrap()];
        let ranges = Ranges { list, snapshot, snapshot_date: jiff::civil::date(2026, 1, 2) };
        let provider = ProviderRanges {
            provider: "acme".into(),
            ranges: Arc::new(ranges),
            live: Arc::new(LiveRanges::default()),
        };
        self.config.provider_ranges = vec![provider];
        self.store.adopt(&self.config);
    }

    fn lets_in(&self, address: &str) -> bool {
        self.config.provider_ranges[0].live.contains(ip(address))
    }
    fn status(&self) -> RangesStatus {
        self.store.status().remove(0)
    }
    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let waited = async {
            while !is(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), waited).await;
        assert!(came.is_ok(), "never: {what}: {:?}", self.store.status());
    }
}

fn config() -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    let text = "listeners: [{ address: \"127.0.0.1:0\" }]\n\
                routes: [{ path: /x, verify: none, forward_to: \"http://127.0.0.1:9\" }]\n";
    std::fs::write(&path, text).unwrap();
    crate::config::load(&path, &crate::config::Unfetched).unwrap().config
}

fn every(refresh: Duration) -> RangeSettings {
    RangeSettings { refresh, ..RangeSettings::default() }
}
const SOON: Duration = Duration::from_millis(5);

#[tokio::test]
async fn without_a_list_the_snapshot_counts() {
    let world = World::new(None, every(SOON));
    assert!(world.lets_in("10.0.0.7") && !world.lets_in("10.0.1.7"));
    let status = world.status();
    assert_eq!((status.source, status.ranges, status.list), (Source::Snapshot, 2, None));
    assert_eq!(status.as_of.to_string(), "2026-01-02T00:00:00.000Z");
}

#[tokio::test]
async fn a_list_takes_the_snapshots_place_and_outlives_the_process() {
    let (app, fetches) = server(&["10.0.0.0/23\n10.0.2.0/24\n"]).await;
    let mut world = World::new(Some(&app), RangeSettings::default());
    world.until("the list", |w| w.lets_in("10.0.1.7")).await;
    let kept = || {
        std::fs::read_dir(world.folder.path().join("ranges")).is_ok_and(|files| {
            files.flatten().any(|file| file.path().extension().is_some_and(|e| e == "json"))
        })
    };
    world.until("the file", |_| kept()).await;
    assert_eq!((world.status().source, world.status().ranges), (Source::List, 2));
    // A new process on the same folder begins with it, and does not ask again before its time.
    world.store = RangeStore::new(world.folder.path(), Arc::default(), Clock::System);
    world.provide(Some(&app));
    assert!(world.lets_in("10.0.1.7"));
    assert_eq!(world.status().source, Source::List);
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    // Damaged, it is as good as none.
    let folder = world.folder.path().join("ranges");
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        std::fs::write(file.path(), "{").unwrap();
    }
    world.config.ranges.offline = true;
    world.store = RangeStore::new(world.folder.path(), Arc::default(), Clock::System);
    world.provide(Some(&app));
    assert!(world.lets_in("10.0.0.7") && !world.lets_in("10.0.1.7"));
}

#[tokio::test]
async fn what_is_not_believed_changes_nothing_and_is_said() {
    for (body, why) in [
        ("192.0.2.0/24\n", "lacks 2 of the 2 ranges"),
        ("# none\n", "is empty"),
        ("<html>\n", "no address range"),
        ("", "answered 500"),
        ("0.0.0.0/0\n10.0.0.0/24\n10.0.2.0/24\n", "wider"),
    ] {
        let bodies: &'static [&'static str] = Box::leak(Box::new([body]));
        let (app, _) = server(bodies).await;
        let world = World::new(Some(&app), every(SOON));
        world.until("an error", |w| w.status().error.is_some()).await;
        let status = world.status();
        let error = status.error.unwrap();
        assert!(error.contains(why), "{error}");
        // None that came is told of at once; none that came not, only once those in use are old.
        assert_eq!(status.refused, (!error.contains("answered 500")).then_some(error));
        assert!(world.lets_in("10.0.0.7") && !world.lets_in("192.0.2.7"), "{why}");
        assert!(!world.folder.path().join("ranges").exists(), "{why}");
    }
}

#[tokio::test]
async fn after_a_failure_the_next_good_list_is_taken() {
    let (app, _) = server(&["", "<html>", "10.0.0.0/24\n10.0.2.0/24\n10.9.0.0/16"]).await;
    let world = World::new(Some(&app), every(SOON));
    world.until("the good list", |w| w.lets_in("10.9.1.1")).await;
    world.until("no error", |w| w.status().error.is_none()).await;
    assert_eq!(world.status().refused, None);
}

#[tokio::test]
async fn a_reload_keeps_what_was_fetched_and_a_raised_share_lets_a_smaller_list_in() {
    let (app, _) = server(&["10.0.0.0/23\n10.0.2.0/24\n", "192.0.2.0/24\n"]).await;
    let mut world = World::new(Some(&app), every(SOON));
    world.until("the alarm", |w| w.status().error.is_some()).await;
    assert!(world.lets_in("10.0.1.7"));
    world.config.ranges.max_shrink = 100;
    world.provide(Some(&app));
    // From the first moment of the new config.
    assert!(world.lets_in("10.0.1.7") || world.lets_in("192.0.2.7"));
    world.until("the smaller list", |w| w.lets_in("192.0.2.7")).await;
    assert!(!world.lets_in("10.0.1.7"));
}

#[tokio::test]
async fn offline_nothing_is_fetched() {
    let (app, fetches) = server(&["10.0.0.0/23\n10.0.2.0/24\n"]).await;
    let mut world = World::new(Some(&app), RangeSettings { offline: true, ..every(SOON) });
    assert!(world.store.sets.lock()[0].task.is_none());
    assert_eq!(fetches.load(Ordering::SeqCst), 0);
    // What no config uses any more is no longer fetched either.
    world.config.ranges.offline = false;
    world.provide(Some(&app));
    assert!(world.store.sets.lock()[0].task.is_some());
    world.config.provider_ranges.clear();
    world.store.adopt(&world.config);
    assert!(world.store.status().is_empty());
}
