//! Encryption at rest, with the real binary: what senders send is in no file of the buffer's folder, a wrong key is refused
//! by name, keys change without downtime for anybody but the restart, also through a `kill -9`.

use std::path::{Path, PathBuf};

use crate::support::*;

const OLD: &str = "6f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f21";
/// 32 bytes in base64.
const NEW: &str = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU=";
const SECRET_WORDS: &str = "card-4242424242424242";

fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        // A file of the engine's may go meanwhile.
        } else if memchr(&std::fs::read(&path).unwrap_or_default(), text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

fn memchr(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn event(n: usize) -> Request {
    signed::github(format!(
        "{{\"n\":{n},\"card\":\"{SECRET_WORDS}\",\"pad\":\"{}\"}}",
        "x".repeat(n % 7 * 400)
    ))
    .header("X-Card", SECRET_WORDS)
}

/// A gateway with these variables as keys; all of them are set.
fn with_keys(keys: &[&str]) -> GatewayBuilder {
    let keys: Vec<String> = keys.iter().map(|name| format!("env:{name}")).collect();
    gateway()
        .env("OLD_KEY", OLD)
        .env("NEW_KEY", NEW)
        .section("buffer", json!({"encryption": {"keys": keys}}))
        .section("quarantine", json!({}))
}

fn encryption(gateway: &mut Gateway, keys: &[&str]) {
    let changed = with_keys(keys);
    gateway.builder.sections = changed.sections;
}

async fn sealing(gateway: &Gateway) -> serde_json::Value {
    gateway.cli_json(&["status"]).await["buffer"]["sealing"].clone()
}

async fn sealed_anew(gateway: &Gateway) {
    eventually("the buffer is sealed anew", async || sealing(gateway).await["stage"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_senders_send_is_in_no_file_and_a_wrong_key_is_refused() {
    let app = App::start().await;
    app.refuse().await;
    let mut gateway = with_keys(&["OLD_KEY"]).route(github().to(&app).impatient()).start().await;
    let sent: Vec<Request> = (0..20).map(event).collect();
    for event in &sent {
        assert_eq!(gateway.send(event).await.status, 202);
    }
    let mut refused = event(99);
    refused.body = format!("{{\"forged\":\"{SECRET_WORDS}\"}}").into_bytes().into();
    assert_eq!(gateway.send(&refused).await.status, 401);
    eventually("it is in quarantine", async || gateway.metric("tidegate_quarantine_items", &[]).await == 1.0)
        .await;
    assert!(gateway.terminate().await.success());
    let buffer = gateway.path("buffer");
    for text in [SECRET_WORDS, "/hooks/github", "X-GitHub-Delivery", "x-hub-signature-256"] {
        assert_eq!(files_with(&buffer, text), Vec::<PathBuf>::new(), "{text}");
    }

    for keys in [&["NEW_KEY"][..], &[]] {
        match keys {
            [] => drop(gateway.builder.sections.insert("buffer".into(), json!({}))),
            keys => encryption(&mut gateway, keys),
        }
        let ended = gateway.try_restart().await.expect_err("it has not the key");
        assert_eq!(ended.code, Some(1), "{}", ended.output);
        assert!(ended.output.contains("is sealed under the key"), "{}", ended.output);
        assert!(!ended.output.contains(OLD) && !ended.output.contains(NEW), "{}", ended.output);
    }

    encryption(&mut gateway, &["OLD_KEY"]);
    app.accept().await;
    gateway.restart().await;
    let received = app.receives(20).await;
    let bodies: std::collections::HashSet<_> = received.into_iter().map(|received| received.body).collect();
    assert!(sent.iter().all(|event| bodies.contains(&event.body[..])), "every byte comes to the app");
    let item = gateway.cli_json(&["quarantine", "list"]).await["items"][0]["id"].clone();
    let shown = gateway.cli_json(&["quarantine", "show", item.as_str().expect("an id")]).await;
    assert!(shown["body"]["text"].as_str().is_some_and(|text| text.contains("forged")), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_goes_on_after_a_kill_and_then_the_old_key_can_go() {
    const EVENTS: usize = 600;
    let app = App::start().await;
    let mut gateway = with_keys(&["OLD_KEY"]).route(github().to(&app)).start().await;
    for n in 0..EVENTS {
        assert_eq!(gateway.send(&event(n)).await.status, 202);
    }
    gateway.drained().await;
    gateway.kill().await;
    encryption(&mut gateway, &["NEW_KEY", "OLD_KEY"]);
    for _ in 0..3 {
        gateway.restart().await;
        gateway.kill().await;
    }
    gateway.restart().await;
    let of_now = gateway.send(&event(EVENTS)).await;
    sealed_anew(&gateway).await;
    let state = sealing(&gateway).await;
    assert_eq!((&state["events_left"], &state["needed"]), (&0.into(), &json!([state["key"]])), "{state}");
    assert_eq!(gateway.metric("tidegate_buffer_unsealed_events", &[]).await, 0.0);
    gateway.kill().await;

    encryption(&mut gateway, &["NEW_KEY"]);
    gateway.restart().await;
    assert_eq!(files_with(&gateway.path("buffer"), SECRET_WORDS), Vec::<PathBuf>::new());
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, (EVENTS + 1) as f64);
    let shown = gateway.cli_json(&["events", "show", of_now.event_id()]).await;
    assert!(shown["body"]["text"].as_str().is_some_and(|text| text.contains(SECRET_WORDS)), "{shown}");
    app.forget();
    let replayed = gateway.cli(&["events", "replay", "--route", "github"]).await;
    assert!(replayed.status.success(), "{replayed:?}");
    app.receives(EVENTS + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_buffer_becomes_sealed_and_erase_export_and_import_work_on() {
    let app = App::start().await;
    let mut gateway = with_keys(&[]).section("buffer", json!({})).route(github().to(&app)).start().await;
    for n in 0..30 {
        assert_eq!(gateway.send(&event(n)).await.status, 202);
    }
    // What compression leaves as it is.
    let marker = hex::encode(signed::hmac_sha256(b"marker", b"of one"));
    let marked = signed::github(format!("{{\"n\":30,\"marker\":\"{marker}\"}}"));
    assert_eq!(gateway.send(&marked).await.status, 202);
    gateway.drained().await;
    let buffer = gateway.path("buffer");
    assert!(!files_with(&buffer, SECRET_WORDS).is_empty());
    // As it is after a while: not only in the journal.
    assert!(gateway.terminate().await.success());
    gateway.restart().await;
    assert!(gateway.cli(&["buffer", "compact"]).await.status.success());
    assert!(!files_with(&buffer, &marker[..24]).is_empty());
    assert!(gateway.terminate().await.success());
    encryption(&mut gateway, &["OLD_KEY"]);
    gateway.restart().await;
    sealed_anew(&gateway).await;
    for text in [SECRET_WORDS, &marker[..24]] {
        assert_eq!(files_with(&buffer, text), Vec::<PathBuf>::new(), "{text}");
    }

    let erased = ["erase", "--route", "github", "--pointer", "/n", "--equals", "7", "--yes"];
    let erased = gateway.cli(&erased).await;
    assert!(erased.status.success(), "{erased:?}");
    let exported = gateway.cli(&["export", "--file", "all.tar"]).await;
    assert!(exported.status.success(), "{exported:?}");
    let other = with_keys(&["NEW_KEY"]).route(github().to(&app)).start().await;
    let archive = gateway.path("all.tar");
    let imported = other.cli(&["import", archive.to_str().expect("a path")]).await;
    assert!(String::from_utf8_lossy(&imported.stdout).contains("30 imported"), "{imported:?}");
    assert_eq!(files_with(&other.path("buffer"), SECRET_WORDS), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_length_is_named_at_check_and_never_shown() {
    let ended = gateway()
        .env("SHORT", "0123456789abcdef0123456789abcdef")
        .section("buffer", json!({"encryption": {"keys": ["env:SHORT", "env:NOT_THERE"]}}))
        .route(unverified("/open"))
        .try_start()
        .await
        .err()
        .expect("it does not start");
    assert_eq!(ended.code, Some(78));
    for told in ["buffer.encryption.keys[0]", "this is no key: it has 16 bytes", "openssl rand", "NOT_THERE"]
    {
        assert!(ended.output.contains(told), "{told} in {}", ended.output);
    }
    assert!(!ended.output.contains("0123456789abcdef"), "{}", ended.output);
}
