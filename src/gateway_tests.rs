use std::path::Path;

use super::*;
use crate::receive::testing::FakeBuffer;

const CONFIG: &str = r#"
listeners:
  - address: 127.0.0.1:18080
buffer:
  path: data
routes:
  - { name: a, path: /a, verify: none, forward_to: "http://127.0.0.1:9" }
  - { name: b, path: /b, verify: none, forward_to: "http://127.0.0.1:10" }
"#;

struct Running {
    gateway: Gateway,
    buffer: Arc<FakeBuffer>,
    folder: tempfile::TempDir,
}

impl Running {
    /// Must be called within a runtime.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidegate.yaml");
        std::fs::write(&path, CONFIG).unwrap();
        let metrics = Arc::new(Metrics::default());
        let keys = Arc::new(RemoteKeys::new(metrics.clone(), Clock::System));
        let snapshot = Snapshot::build(config::load(&path, &*keys).unwrap().config, None);
        let snapshot = snapshot.unwrap_or_else(|problem| panic!("{problem}"));
        let buffer = Arc::new(FakeBuffer::default());
        let quarantine =
            Arc::new(Quarantine::new(folder.path(), Default::default(), metrics.clone(), Clock::System));
        let ambient = Ambient { metrics, clock: Clock::System, tracer: None };
        let gateway = Gateway::new(snapshot, path, keys, buffer.clone(), quarantine, ambient);
        gateway.serving();
        Self { gateway, buffer, folder }
    }

    fn write(&self, from: &str, to: &str) {
        assert!(CONFIG.contains(from));
        std::fs::write(self.path().join("tidegate.yaml"), CONFIG.replace(from, to)).unwrap();
    }
    fn path(&self) -> &Path {
        self.folder.path()
    }
    /// What a reload warns of, but for the routes that take events from anyone.
    async fn warned(&self) -> Vec<String> {
        let mut warnings = self.gateway.reload().await.unwrap().warnings;
        warnings.retain(|warning| !warning.contains("from anyone"));
        warnings
    }
    fn hash(&self) -> String {
        self.gateway.snapshot.load().config.hash.clone()
    }
    fn client(&self, route: usize) -> Arc<Upstream> {
        let snapshot = self.gateway.snapshot.load();
        let name = &snapshot.config.routes[route].mode.destinations()[0].name;
        snapshot.upstreams[name].clone()
    }
}

#[tokio::test]
async fn a_good_config_is_taken_over_and_unchanged_clients_are_kept() {
    let running = Running::start();
    let (a, b, before) = (running.client(0), running.client(1), running.hash());
    running.write("127.0.0.1:10", "127.0.0.1:11");
    let reloaded = running.gateway.reload().await.unwrap();
    assert_ne!(reloaded.hash, before);
    assert_eq!(reloaded.hash, running.hash());
    assert!(Arc::ptr_eq(&a, &running.client(0)));
    assert!(!Arc::ptr_eq(&b, &running.client(1)));
    let last = running.gateway.last_reload().unwrap();
    assert_eq!(last.outcome, ReloadOutcome::Accepted { hash: reloaded.hash });
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_says_why() {
    let running = Running::start();
    let before = running.hash();
    running.write("verify: none, forward_to: \"http://127.0.0.1:9\"", "verify: nonsense, retrry: 1");
    let problem = running.gateway.reload().await.unwrap_err();
    assert!(problem.contains("retrry"), "{problem}");
    assert_eq!(running.hash(), before);
    assert_eq!(running.gateway.last_reload().unwrap().outcome, ReloadOutcome::Refused { problem });
    std::fs::remove_file(running.path().join("tidegate.yaml")).unwrap();
    assert!(running.gateway.reload().await.unwrap_err().contains("tidegate.yaml"));
    assert_eq!(running.hash(), before);
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_by_name() {
    for (from, to, key) in [
        ("127.0.0.1:18080", "127.0.0.1:18081", "listeners"),
        ("buffer:\n  path: data", "buffer:\n  path: elsewhere", "buffer.path"),
        ("buffer:", "threads: 7\nbuffer:", "threads"),
        ("buffer:", "admin:\n  listen: 127.0.0.1:19901\nbuffer:", "admin.listen"),
    ] {
        let running = Running::start();
        let before = running.hash();
        running.write(from, to);
        let problem = running.gateway.reload().await.unwrap_err();
        assert!(problem.starts_with(key) && problem.contains("restart"), "{problem}");
        assert_eq!(running.hash(), before);
    }
}

#[tokio::test]
async fn what_waits_for_a_restart_is_a_warning() {
    let running = Running::start();
    running.write("  path: data", "  path: data\n  memtable: 5MiB\n  stall_after: 3s\nlog: { level: debug }");
    let warnings = running.gateway.reload().await.unwrap().warnings;
    for key in ["buffer.memtable:", "buffer.stall_after:"] {
        assert!(warnings.iter().any(|warning| warning.starts_with(key)), "{warnings:?}");
    }
    assert!(warnings.iter().any(|warning| warning.starts_with("log.level")), "{warnings:?}");
}

#[tokio::test]
async fn what_waits_for_a_restart_is_held_against_what_runs() {
    let running = Running::start();
    running.write("  path: data", "  path: data\nlog: { level: debug }");
    // Not against the config of the reload before: that one is not in effect either.
    for _ in 0..2 {
        assert_eq!(running.warned().await.len(), 1);
    }
    running.write("  path: data", "  path: data\nlog: { level: info }");
    assert_eq!(running.warned().await, Vec::<String>::new());
}

#[tokio::test]
async fn deliveries_that_lose_their_destination_are_a_warning() {
    let running = Running::start();
    running.buffer.backlog("b/default", 3);
    running.write("name: b,", "name: other,");
    let warnings = running.warned().await;
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("3 deliveries wait for b/default"),
        "{warnings:?}"
    );
    running.write("name: b,", "name: b, ");
    assert_eq!(running.warned().await, Vec::<String>::new());
}

#[tokio::test]
async fn readiness_says_why_not() {
    let running = Running::start();
    assert_eq!(running.gateway.readiness(), NotReady::new());
    running.buffer.full();
    assert_eq!(running.gateway.readiness(), ["the buffer is full: test"]);
    running.buffer.fail();
    running.gateway.drain();
    assert_eq!(running.gateway.readiness(), ["shutting down", "the buffer has failed: test"]);
    // A listener that comes up late does not make it ready again.
    running.gateway.serving();
    assert_eq!(running.gateway.readiness()[0], "shutting down");
}
