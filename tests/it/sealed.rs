//! Encryption at rest, with the real binary: what senders send is in no file of the buffer's folder, a wrong key is refused
//! by name, keys change without downtime for anybody but the restart, also through a `kill -9`.

use std::path::{Path, PathBuf};

use crate::support::*;

const OLD: &str = "6f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f6c646f21";
/// 32 bytes in base64.
const NEW: &str = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU=";
const SECRET_WORDS: &str = "card-4242424242424242";

pub fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
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

/// Words in every place that a sender, an app or an operator can fill. Not there: names from the config, and what is kept as
/// a hash alone (idempotency keys of claims, order keys, the URLs of clients).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anybody_said_is_in_no_file_after_a_kill() {
    const SAID: [&str; 18] = [
        "said-in-path",
        "said-in-query",
        "said-in-host",
        "X-Said-Name",
        "said-in-header",
        "said-in-cookie",
        "said-in-body",
        "said-as-key",
        "said-as-order",
        "said-as-type",
        "said-in-trace",
        "said-in-answer",
        "said-in-content-type",
        "said-in-refused",
        "said-as-client",
        "said-to-erase",
        // Of an attempt.
        "onnection refused",
        "said-in-proxied",
    ];
    let (app, proxied) = (App::start().await, App::start().await);
    app.refuse().await;
    proxied.behaves(Behaviour::Answer {
        status: 200,
        headers: vec![("Content-Type", "text/said-in-content-type".into())],
        body: b"said-in-answer".to_vec(),
    });
    let open = |path: &str| unverified(path).set("idempotency", json!({"key": "header:X-Key"}));
    let clients = Route::new(json!({
        "name": "clients", "path": "/clients/{endpoint}", "clients": "endpoints", "verify": "none"
    }));
    let mut gateway = with_keys(&["OLD_KEY"])
        .route(open("/in/*").named("in").to(&app).delivery("order", json!({"by": "body:/order"})).impatient())
        .route(open("/proxied").named("proxied").to(&proxied).mode("proxy"))
        .route(clients.to(&proxied))
        .route(github().to(&app))
        .start()
        .await;
    let body = r#"{"order":"said-as-order","text":"said-in-body","type":"said-as-type"}"#;
    let event = Request::post("/in/said-in-path?q=said-in-query", body)
        .with("Host", "said-in-host.example")
        .header("X-Said-Name", "said-in-header")
        .header("Cookie", "c=said-in-cookie")
        .header("X-Key", "said-as-key")
        .header("tracestate", "said-in-trace=1");
    assert_eq!(gateway.send(&event).await.status, 202);
    for _ in 0..2 {
        let answer =
            gateway.send(&Request::post("/proxied", "said-in-proxied").header("X-Key", "said-as-key")).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"said-in-answer"[..]));
    }
    let refused =
        signed::github("{}").body("{\"x\":\"said-in-refused\"}").header("X-Said-Name", "said-in-header");
    assert_eq!(gateway.send(&refused).await.status, 401);
    eventually("it is in quarantine", async || gateway.metric("tidegate_quarantine_items", &[]).await == 1.0)
        .await;
    let created = ["endpoints", "create", "--route", "clients", "--client", "said-as-client"];
    gateway.cli_json(&created).await;
    let erase = ["erase", "--route", "in", "--pointer", "/text", "--equals", "said-to-erase", "--yes"];
    gateway.cli(&erase).await;
    // It was tried, and what came of it is on disk.
    eventually("deliveries are retried", async || {
        gateway.cli_json(&["events", "list", "--state", "retrying"]).await["events"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
    .await;
    gateway.kill().await;
    let buffer = gateway.path("buffer");
    for text in SAID {
        assert_eq!(files_with(&buffer, text), Vec::<PathBuf>::new(), "{text}");
    }
    // And it is there: with the same key the repeat gets the app's first answer.
    gateway.restart().await;
    let repeat = gateway.send(&Request::post("/proxied", "again").header("X-Key", "said-as-key")).await;
    assert!(repeat.is_duplicate() && &repeat.body[..] == b"said-in-answer", "{repeat:?}");
    assert_eq!(proxied.count(), 1);
}

/// As `with_keys`, of key files.
fn with_files(keys: &[&str]) -> serde_json::Value {
    let keys: Vec<String> = keys.iter().map(|name| format!("file:{name}")).collect();
    json!({"encryption": {"keys": keys}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_and_go_with_a_reload_while_events_come_in() {
    let app = App::start().await;
    let mut gateway = gateway()
        .file("old.key", OLD)
        .file("new.key", NEW)
        .section("quarantine", json!({}))
        .route(github().to(&app))
        .start()
        .await;
    let mut sent = 0;
    let mut send = async |gateway: &Gateway, count: usize| {
        for _ in 0..count {
            assert_eq!(gateway.send(&event(sent)).await.status, 202);
            sent += 1;
        }
        sent
    };
    send(&gateway, 50).await;
    // On, over to another one, and the first one away.
    for (keys, needed) in [(&["old.key"][..], 1), (&["new.key", "old.key"], 1), (&["new.key"], 1)] {
        gateway.builder.sections.insert("buffer".into(), with_files(keys));
        gateway.rewrite_config();
        let reloaded = gateway.cli(&["reload"]).await;
        assert!(reloaded.status.success(), "{keys:?}: {reloaded:?}");
        let warned = String::from_utf8_lossy(&reloaded.stderr).into_owned();
        assert!(!warned.contains("restart"), "{warned}");
        send(&gateway, 20).await;
        sealed_anew(&gateway).await;
        assert_eq!(sealing(&gateway).await["needed"].as_array().map(Vec::len), Some(needed));
        assert_eq!(files_with(&gateway.path("buffer"), SECRET_WORDS), Vec::<PathBuf>::new(), "{keys:?}");
    }
    // Neither is the one that everything is under taken away, nor anything else of that config over.
    for buffer in [with_files(&["old.key"]), json!({"keep_dead": "1s"})] {
        gateway.builder.sections.insert("buffer".into(), buffer);
        gateway.rewrite_config();
        let refused = gateway.cli(&["reload"]).await;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("buffer.encryption.keys: the key") && told.contains("still needed"), "{told}");
    }
    gateway.drained().await;
    gateway.kill().await;
    gateway.builder.sections.insert("buffer".into(), with_files(&["new.key"]));
    gateway.restart().await;
    let total = send(&gateway, 1).await;
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, total as f64);
    app.receives(total).await;
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
