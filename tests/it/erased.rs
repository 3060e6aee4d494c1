//! Erasing, for data-protection requests: what is known of somebody is found wherever it may stand, and then is in no file.

use std::path::{Path, PathBuf};

use crate::support::*;

fn github_event(n: usize) -> Request {
    signed::github(format!(
        "{{\"n\":{n},\"user\":{{\"email\":\"user-{n:03}@example.com\"}},\"id\":{}}}",
        unique()
    ))
}

/// The files below a folder that hold `text`.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        // A file of the engine's may go meanwhile.
        } else if std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_in_no_file_of_the_buffer() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    for n in 0..4 {
        gateway.send(&github_event(n)).await;
    }
    app.receives(4).await;
    gateway.drained().await;
    let who = ["--pointer", "/user/email", "--equals", "user-002@example.com"];
    let erase = |more: &'static [&'static str]| [&["erase", "--route", "github"][..], &who, more].concat();
    let refused = gateway.cli(&erase(&[])).await;
    assert_eq!(refused.status.code(), Some(2), "it needs --yes");
    let counted = done(&gateway, &erase(&["--dry-run"])).await;
    assert!(counted.contains("1 event would be deleted"), "{counted}");
    let buffer = gateway.path("buffer");
    assert!(!files_with(&buffer, "user-002@example.com").is_empty());
    let told = done(&gateway, &erase(&["--yes"])).await;
    assert!(told.contains("1 event is deleted, and no file"), "{told}");
    assert_eq!(files_with(&buffer, "user-002@example.com"), Vec::<PathBuf>::new());
    assert!(!gateway.log().contains("user-002@example.com"), "whom to erase is nobody's to know");
    let left = gateway.cli_json(&["events", "list"]).await;
    assert_eq!(left["events"].as_array().expect("events").len(), 3);
}

/// What compression leaves as it is.
fn marker(n: usize) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(signed::hmac_sha256(b"marker", &n.to_be_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_tables_and_blob_files_is_erased_from_them_one_after_the_other() {
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    let long: String = (1_000..1_100).map(marker).collect();
    for n in 0..30 {
        let pad = if n % 3 == 0 { long.as_str() } else { "" };
        let body = format!("{{\"email\":\"{}\",\"id\":{},\"pad\":\"{pad}\"}}", marker(n), unique());
        assert_eq!(gateway.send(&signed::github(body)).await.status, 202);
    }
    gateway.drained().await;
    // As it is after a while: not only in the journal.
    assert!(gateway.terminate().await.success());
    gateway.restart().await;
    done(&gateway, &["buffer", "compact"]).await;
    let buffer = gateway.path("buffer");
    for n in [4, 6, 7, 9] {
        let email = marker(n);
        eventually("it is in a file", async || !files_with(&buffer, &email).is_empty()).await;
        let told = done(&gateway, &["erase", "--pointer", "/email", "--equals", &email, "--yes"]).await;
        assert!(told.contains("1 event is deleted, and no file"), "{told}");
        assert_eq!(files_with(&buffer, &email), Vec::<PathBuf>::new(), "{n}");
    }
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 26.0);
}

/// An app that says something of whoever is asked for.
fn talks(body: &[u8]) -> Behaviour {
    let of = String::from_utf8_lossy(body).into_owned();
    let headers = vec![("Content-Type", "application/json".to_owned())];
    Behaviour::Answer { status: 201, headers, body: format!("{{\"of\":{of}}}").into_bytes() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_said_is_erased_too_and_a_repeat_is_still_one() {
    let app = App::start().await;
    app.behaves(Behaviour::By(talks));
    let keyed = json!({"key": "header:X-Id"});
    let proxy = unverified("/proxy").to(&app).mode("proxy").set("idempotency", keyed.clone());
    let spill = unverified("/spill").to(&app).mode("spill").set("idempotency", keyed);
    let mut gateway = gateway().route(proxy).route(spill).start().await;
    let send = async |gateway: &Gateway, path: &str, n: usize| {
        let request = Request::post(path, format!("\"{}\"", marker(n))).header("X-Id", &format!("id-{n}"));
        gateway.send_via(Via::Plain, &request).await
    };
    for n in 0..3 {
        for path in ["/proxy", "/spill"] {
            assert_eq!(send(&gateway, path, n).await.status, 201);
            // Remembered in memory as well.
            let repeat = send(&gateway, path, n).await;
            assert!(repeat.is_duplicate() && repeat.text().contains(&marker(n)), "{repeat:?}");
        }
    }
    assert_eq!(app.count(), 6);
    // As it is after a while: not only in the journal.
    assert!(gateway.terminate().await.success());
    gateway.restart().await;
    done(&gateway, &["buffer", "compact"]).await;
    for path in ["/proxy", "/spill"] {
        assert!(send(&gateway, path, 1).await.is_duplicate());
    }
    let buffer = gateway.path("buffer");
    for n in 0..3 {
        assert!(!files_with(&buffer, &marker(n)).is_empty(), "{n}");
    }

    let by_key = ["erase", "--route", "proxy", "--key", "id-1"];
    let counted = done(&gateway, &[&by_key[..], &["--dry-run"]].concat()).await;
    assert!(
        counted.contains("0 events would be deleted") && counted.contains("1 answer of an app"),
        "{counted}"
    );
    let told = done(&gateway, &[&by_key[..], &["--yes"]].concat()).await;
    assert!(told.contains("1 answer of an app, kept for repeats, is gone, and no file"), "{told}");
    assert!(send(&gateway, "/spill", 1).await.text().contains(&marker(1)), "another route's stays");
    // Of any route; and by what it says, where that is JSON.
    let told = done(&gateway, &["erase", "--key", "id-1", "--yes"]).await;
    assert!(told.contains("1 answer of an app"), "{told}");
    let told = done(&gateway, &["erase", "--pointer", "/of", "--equals", &marker(2), "--yes"]).await;
    assert!(told.contains("2 answers of apps, kept for repeats, are gone"), "{told}");
    for n in [1, 2] {
        assert_eq!(files_with(&buffer, &marker(n)), Vec::<PathBuf>::new(), "{n}");
    }
    assert!(!files_with(&buffer, &marker(0)).is_empty(), "who did not ask is known still");

    // Now, and after a crash: neither does the app get it again, nor does anybody learn what it said.
    for _ in 0..2 {
        for path in ["/proxy", "/spill"] {
            for n in [1, 2] {
                let repeat = send(&gateway, path, n).await;
                assert!(repeat.is_duplicate() && repeat.status == 201, "{repeat:?}");
                assert_eq!((repeat.text(), repeat.header("content-type")), (String::new(), None));
            }
            assert!(send(&gateway, path, 0).await.text().contains(&marker(0)));
        }
        gateway.kill().await;
        gateway.restart().await;
    }
    assert_eq!(app.count(), 6, "the app had each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_of_an_erased_event_is_not_taken_in_again() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let event = github_event(1);
    let first = gateway.send(&event).await;
    gateway.drained().await;
    let told =
        done(&gateway, &["erase", "--pointer", "/user/email", "--equals", "user-001@example.com", "--yes"])
            .await;
    assert!(told.contains("1 event is deleted, and no file"), "{told}");
    let repeat = gateway.send(&event).await;
    assert!(repeat.is_duplicate() && repeat.event_id() == first.event_id(), "{repeat:?}");
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 0.0);
    assert_eq!(files_with(&gateway.path("buffer"), "user-001@example.com"), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erase_rather_finds_too_much_than_misses_somebody() {
    let app = App::start().await;
    let gateway = gateway().route(unverified("/in").to(&app)).start().await;
    let bodies = [
        r#"{"email":"a@x.org","email":"b@x.org"}"#,
        r#"{"email":"b@x.org","email":"a@x.org"}"#,
        "\u{feff}{\"email\":\"a@x.org\"}",
        r#"{"email":"a@x.org"} and more"#,
        "{\"email\":\"c@x.org\"}\n{\"email\":\"a@x.org\"}\n",
        r#"{"email":"a@x.org","rest":"is cut o"#,
        r#"{"email":"c@x.org"}"#,
    ];
    for body in bodies {
        assert_eq!(gateway.send_via(Via::Plain, &Request::post("/in", body)).await.status, 202);
    }
    gateway.drained().await;
    let who = ["--pointer", "/email", "--equals", "a@x.org"];
    let listed = gateway.cli_json(&[&["events", "list"][..], &who].concat()).await;
    assert_eq!(listed["events"].as_array().map(Vec::len), Some(6), "{listed}");
    let told = done(&gateway, &[&["erase", "--yes"][..], &who].concat()).await;
    assert!(told.contains("6 events are deleted, and no file"), "{told}");
    assert_eq!(files_with(&gateway.path("buffer"), "a@x.org"), Vec::<PathBuf>::new());
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 1.0);
}
