//! What Prometheus's own tool says of the alert rules that we ship and of the metrics that the program gives. Where it is neither
//! installed nor unpacked under `target/` (`.ci/setup promtool`), that is said and left out.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::*;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

fn promtool() -> Option<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(PROJECT).join("target"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("promtool"));
    let found = installed.chain([target.join("promtool/promtool")]).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("LEFT OUT: there is no promtool");
    }
    found
}

/// Must be content; gives what it printed.
async fn run(tool: &Path, arguments: &[&OsStr], input: &[u8]) -> String {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs");
    // What it does not read it says something about.
    let _ = child.stdin.take().expect("its input").write_all(input).await;
    let output = child.wait_with_output().await.expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn the_alert_rules_can_be_read_and_fire_when_they_should() {
    let Some(tool) = promtool() else { return };
    let rules = Path::new(PROJECT).join("conf/alert-rules.yml");
    let said = run(&tool, &["check".as_ref(), "rules".as_ref(), rules.as_ref()], b"").await;
    assert!(said.contains("SUCCESS"), "{said}");
    let cases = Path::new(PROJECT).join("tests/alert-rules.test.yml");
    run(&tool, &["test".as_ref(), "rules".as_ref(), cases.as_ref()], b"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_with_the_metrics() {
    let Some(tool) = promtool() else { return };
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).route(stripe().mode("proxy").to(&app)).start().await;
    assert_eq!(gateway.send(&signed::github(push())).await.status, 202);
    assert_eq!(gateway.send(&signed::stripe(invoice_paid())).await.status, 200);
    assert_eq!(gateway.send(&Request::post("/no/route", "{}")).await.status, 404);
    gateway.drained().await;
    let metrics = gateway.admin("GET", "/metrics").await.expect("metrics");
    let said = run(&tool, &["check".as_ref(), "metrics".as_ref()], &metrics.body).await;
    assert_eq!(said, "");
}
