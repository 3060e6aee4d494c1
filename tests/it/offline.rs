//! A buffer whose gateway does not run: `buffer verify --offline`, and folders of another format.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

use crate::support::*;

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Turns bits of every table of the store over.
fn damage(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a folder").map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            count += damage(&path);
        } else if path.parent().is_some_and(|of| of.ends_with("tables") || of.ends_with("blobs")) {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a table");
            let mut bytes = [0; 16];
            file.read_exact_at(&mut bytes, 100).expect("it has some bytes");
            file.write_all_at(&bytes.map(|byte| byte ^ 0x55), 100).expect("it is written");
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_is_verified_while_its_gateway_is_stopped_and_not_while_it_runs() {
    const VERIFY: [&str; 3] = ["buffer", "verify", "--offline"];
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    for n in 0..30 {
        assert_eq!(
            gateway
                .send(&signed::github(format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(4000))))
                .await
                .status,
            202
        );
    }
    gateway.drained().await;
    let refused = gateway.cli(&VERIFY).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        told(&refused).contains("another process uses the buffer")
            && told(&refused).contains("without --offline"),
        "{refused:?}"
    );
    // Everything is brought into tables: an erase writes the files anew.
    let erased =
        gateway.cli(&["erase", "--route", "github", "--pointer", "/n", "--equals", "3", "--yes"]).await;
    assert!(erased.status.success(), "{erased:?}");

    gateway.kill().await;
    let whole = gateway.cli(&VERIFY).await;
    assert!(whole.status.success() && told(&whole).contains("29 events"), "{}", told(&whole));
    let json =
        gateway.cli(&[&["buffer", "verify", "--dir", "buffer", "--output", "json"][..]].concat()).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["events"], &json["damaged"]), (&29.into(), &json!([])), "{json}");
    let nothing = gateway.cli(&["buffer", "verify", "--dir", "elsewhere"]).await;
    assert!(nothing.status.code() == Some(1) && told(&nothing).contains("holds no buffer"), "{nothing:?}");
    assert!(!gateway.path("elsewhere").exists());

    // A gateway runs on what was looked at.
    gateway.restart().await;
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 29.0);
    assert!(gateway.terminate().await.success());
    assert!(damage(&gateway.path("buffer/store")) > 0);
    let damaged = gateway.cli(&VERIFY).await;
    assert_eq!(damaged.status.code(), Some(1), "{}", told(&damaged));
    assert!(told(&damaged).to_lowercase().contains("damaged"), "{}", told(&damaged));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_format_is_upgraded_and_a_newer_one_refused() {
    let app = App::start().await;
    app.refuse().await;
    let mut gateway = gateway().route(github().to(&app).impatient()).start().await;
    assert_eq!(gateway.send(&signed::github("{}")).await.status, 202);
    gateway.kill().await;
    let format = gateway.path("buffer/tidegate.format");
    fs::write(&format, "tidegate buffer, format 1\n").expect("it is written");
    app.accept().await;
    gateway.restart().await;
    app.receives(1).await;
    assert_eq!(fs::read_to_string(&format).expect("a file"), "tidegate buffer, format 2\n");
    assert!(gateway.log().contains("the buffer was upgraded"));
    gateway.kill().await;
    fs::write(&format, "tidegate buffer, format 9\n").expect("it is written");
    let ended = gateway.try_restart().await.expect_err("it is newer");
    assert_eq!(ended.code, Some(1), "{}", ended.output);
    assert!(ended.output.contains("was written by a newer Tidegate (format 9)"), "{}", ended.output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_limits_change_with_a_reload() {
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    for n in 0..5 {
        assert_eq!(gateway.send(&signed::github(format!("{{\"n\":{n}}}"))).await.status, 202);
    }
    gateway.drained().await;
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 5.0);
    gateway
        .builder
        .sections
        .insert("buffer".into(), json!({"keep_delivered": "1ms", "max_size": "3GiB", "stall_after": "9s"}));
    gateway.rewrite_config();
    let reloaded = gateway.cli(&["reload"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert!(
        told(&reloaded).contains("buffer.stall_after: the changes take effect with the next restart"),
        "{reloaded:?}"
    );
    assert!(
        !told(&reloaded).contains("keep_delivered") && !told(&reloaded).contains("max_size"),
        "{reloaded:?}"
    );
    gateway.counts("tidegate_buffer_events", &[], 0.0).await;
    assert_eq!(gateway.metric("tidegate_buffer_limit_bytes", &[]).await, 3.0 * f64::from(1 << 30));
}
