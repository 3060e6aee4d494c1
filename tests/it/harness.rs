//! The instruments, without the gateway: a harness that loses or changes bytes would blame the wrong side.

use std::process::Command;

use crate::support::app::Speaks;
use crate::support::fault::{Fails, Fault};
use crate::support::sender::{Connection, Http2};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sender_sends_is_what_the_app_logs() {
    for speaks in [Speaks::Http1, Speaks::Http1Tls, Speaks::Http2Tls] {
        let app = App::speaking(speaks).await;
        for size in [0, 1, 65 * 1024, 10 * 1024 * 1024] {
            for chunk in [None, Some(7_001)] {
                app.forget();
                let mut request =
                    Request::post("/in?x=1", noise(size)).header("X-One", "1").header("x-one", "caf\u{e9}");
                if let Some(chunk) = chunk {
                    request = request.chunked(chunk);
                }
                let answer = match speaks {
                    Speaks::Http1 => {
                        Connection::plain(app.address).await.expect("connected").send(&request).await
                    }
                    Speaks::Http1Tls => {
                        Connection::tls(app.address).await.expect("connected").send(&request).await
                    }
                    _ => Http2::connect(app.address).await.expect("connected").send(&request).await,
                };
                assert_eq!(answer.expect("answered").status, 200, "{speaks:?}");
                let received = app.receives(1).await.remove(0);
                assert_eq!(sha256(&received.body), sha256(&request.body), "{speaks:?}, {size}, {chunk:?}");
                assert_eq!(received.all("X-One"), ["1", "caf\u{e9}"], "{speaks:?}");
                assert!(received.request_line.starts_with("POST /in?x=1 HTTP/"), "{}", received.request_line);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_behaves_as_told() {
    let app = App::start().await;
    app.behaves_next([Behaviour::status(429), Behaviour::Close, Behaviour::CloseWithinAnswer]);
    let send = async || Connection::plain(app.address).await?.send(&Request::post("/", "x")).await;
    assert_eq!(send().await.expect("answered").status, 429);
    assert!(send().await.is_err());
    assert!(send().await.is_err());
    assert_eq!(send().await.expect("answered").status, 200);
    app.refuse().await;
    assert!(send().await.is_err());
    app.accept().await;
    assert_eq!(send().await.expect("answered").status, 200);
    assert_eq!(app.count(), 5);
}

#[test]
fn the_shim_fails_what_it_is_told_to_and_only_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("buffer");
    std::fs::create_dir(&data).expect("a folder");
    let disk = Fault::new();
    let copies = |to: &std::path::Path| {
        let mut copy = Command::new("dd");
        copy.args(["if=/dev/zero", "bs=1k", "count=1", "conv=fsync", "status=none"]);
        copy.arg(format!("of={}", to.join("file").display())).envs(disk.environment(&data));
        copy.status().expect("dd runs").success()
    };
    assert!(copies(&data));
    for fails in [Fails::Sync, Fails::Write, Fails::DiskFull] {
        disk.on(fails);
        assert!(!copies(&data), "{fails:?}");
        assert!(copies(folder.path()), "{fails:?}: other folders are not concerned");
        disk.off();
        assert!(copies(&data));
    }
}
