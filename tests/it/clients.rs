//! Many senders on one route: secrets in rotation, tenants by a part of the path, and clients with a URL of their own.

use std::fs;

use crate::support::*;

fn signed_by(secret: &str, path: &str) -> Request {
    signed::github_with(secret, push()).to(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_refused_outside_its_window_and_its_end_is_seen_coming() {
    let app = App::start().await;
    let route = Route::new(json!({
        "name": "github", "path": "/hooks/github", "provider": "github", "idempotency": "off", "secrets": [
            {"secret": "file:secrets/new", "label": "new", "from": "2020-01-01T00:00:00Z"},
            {"secret": "file:secrets/old", "label": "old", "until": "2999-01-01T00:00:00Z"},
            {"secret": "file:secrets/gone", "label": "gone", "until": "2020-01-01T00:00:00Z"},
            {"secret": "file:secrets/early", "label": "early", "from": "2999-01-01T00:00:00Z"},
        ],
    }));
    let route = ["new", "old", "gone", "early"].iter().fold(route, |route, name| route.secret(name, name));
    let gateway = gateway().route(route.to(&app)).section("log", json!({"access": "all"})).start().await;
    for (secret, status) in [("new", 202), ("old", 202), ("gone", 401), ("early", 401)] {
        assert_eq!(gateway.send(&signed_by(secret, "/hooks/github")).await.status, status, "{secret}");
    }
    // Which of them are still used stands in the metric and in the log.
    let used = async |label: &str| gateway.metric("tidegate_verified_total", &[("label", label)]).await;
    assert_eq!((used("new").await, used("old").await, used("gone").await), (1.0, 1.0, 0.0));
    let labels = async || {
        let lines = gateway.log_lines();
        lines.iter().filter_map(|line| line["label"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    eventually("both are logged", async || labels().await.iter().any(|label| label == "old")).await;
    let left =
        async |label: &str| gateway.metric("tidegate_secret_expires_in_seconds", &[("label", label)]).await;
    assert!(left("gone").await < 0.0 && left("old").await > 0.0);
    let status = gateway.cli_json(&["status"]).await;
    let ends: Vec<_> =
        status["secrets"].as_array().unwrap().iter().map(|s| (&s["label"], &s["ended"])).collect();
    assert_eq!(ends, [(&json!("old"), &json!(false)), (&json!("gone"), &json!(true))]);
    let check = gateway.cli(&["check"]).await;
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("`gone` has ended") && !said.contains("`old`"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_its_secret_in_a_file_of_its_name() {
    let app = App::start().await;
    let route = Route::new(json!({
        "name": "tenants", "path": "/in/{account}", "provider": "github", "secret": "file:secrets/{account}",
    }));
    let route = route.secret("acme", "one").secret("bolt", "two").secret(".hidden", "three").to(&app);
    let gateway = gateway()
        .route(route)
        .section("secrets", json!({"refresh": "1s"}))
        .file("outside", "four")
        .start()
        .await;
    let sent = async |secret: &str, path: &str| {
        let answer = gateway.send(&signed_by(secret, path)).await;
        (answer.status, answer.reason().to_owned())
    };
    assert_eq!(sent("one", "/in/acme").await.0, 202);
    assert_eq!(sent("two", "/in/bolt").await.0, 202);
    // Who is not known is refused like who signs wrongly: with the same words.
    let wrong = sent("two", "/in/acme").await;
    assert_eq!(wrong, (401, "signature_invalid".into()));
    assert_eq!(sent("one", "/in/nobody").await, wrong);
    let bare = |path: &str| Request::post(path, "{}");
    let unsigned = gateway.send(&bare("/in/acme")).await;
    let unknown = gateway.send(&bare("/in/nobody")).await;
    assert_eq!((unsigned.status, unsigned.text()), (unknown.status, unknown.text()));
    // No spelling of a path leads to another file.
    for path in [
        "/in/.hidden",
        "/in/%2ehidden",
        "/in/%61cme",
        "/in/..%2foutside",
        "/in/%2e%2e%2foutside",
        "/in/acme%2f",
    ] {
        for secret in ["one", "three", "four"] {
            let (status, _) = sent(secret, path).await;
            assert!(status == 401 || status == 400, "{path} {secret}: {status}");
        }
    }
    // An added file is seen and a removed one refused, without a reload.
    fs::write(gateway.path("secrets/carl"), "five").unwrap();
    eventually("the new tenant is known", async || sent("five", "/in/carl").await.0 == 202).await;
    fs::remove_file(gateway.path("secrets/bolt")).unwrap();
    eventually("the old tenant is not", async || sent("two", "/in/bolt").await.0 == 401).await;
    // A reload sees at once.
    fs::write(gateway.path("secrets/acme"), "six").unwrap();
    gateway.reload().await;
    assert_eq!(sent("six", "/in/acme").await.0, 202);
    assert_eq!(sent("one", "/in/acme").await.0, 401);
    app.receives(4).await;

    fs::remove_dir_all(gateway.path("secrets")).unwrap();
    let check = gateway.cli(&["check"]).await;
    assert!(!check.status.success());
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("secrets can't be used"), "{said}");
}
