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
    // The same id from two tenants is two events; from one it is a repeat.
    let body = push();
    let same = |secret: &str, path: &str| {
        signed::github_with(secret, body.clone()).to(path).with("X-GitHub-Delivery", "same")
    };
    assert!(!gateway.send(&same("one", "/in/acme")).await.is_duplicate());
    assert!(!gateway.send(&same("two", "/in/bolt")).await.is_duplicate());
    assert!(gateway.send(&same("one", "/in/acme")).await.is_duplicate());
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
    app.receives(6).await;

    fs::remove_dir_all(gateway.path("secrets")).unwrap();
    let check = gateway.cli(&["check"]).await;
    assert!(!check.status.success());
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("secrets can't be used"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_provider_is_greeted_where_the_answer_needs_no_secret() {
    let app = App::start().await;
    let route = |provider: &str| {
        let secret = format!("file:secrets/{{team}}.{provider}");
        let path = format!("/{provider}/{{team}}");
        Route::new(json!({"name": provider, "path": path, "provider": provider, "secret": secret})).to(&app)
    };
    let gateway = gateway()
        .route(route("slack").secret("acme.slack", signed::SLACK_SECRET).secret("bolt.slack", "another"))
        .route(route("dropbox").secret("acme.dropbox", "x"))
        .start()
        .await;
    let greeting = |path: &str| {
        signed::slack("{\"type\":\"url_verification\",\"token\":\"t\",\"challenge\":\"c-1\"}").to(path)
    };
    let answer = gateway.send(&greeting("/slack/acme")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains("c-1"), "{answer:?}");
    for path in ["/slack/bolt", "/slack/nobody"] {
        assert_eq!(gateway.send(&greeting(path)).await.status, 401, "{path}");
    }
    let answer = gateway.send(&Request::get("/dropbox/acme?challenge=c-2")).await;
    assert_eq!((answer.status, answer.text()), (200, "c-2".into()));
    // X signs its answer with the secret, before it is known whose it is.
    let x = json!({"name": "x", "path": "/x/{team}", "provider": "x", "secret": "file:secrets/{team}.slack"});
    let refused =
        crate::support::gateway().route(Route::new(x).secret("acme.slack", "s").to(&app)).try_start().await;
    let said = refused.err().map(|ended| ended.output).unwrap_or_default();
    assert!(said.contains("the answer to greetings is made with the secret"), "{said}");
}

/// GitHub's signature over a body of its own for each call, by whoever has `secret`.
fn event(secret: &str, path: &str) -> Request {
    signed::github_with(secret, format!("{{\"n\": {}}}", unique())).to(path)
}

fn text<'v>(value: &'v serde_json::Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {value}"))
}

fn partners(app: &App) -> Route {
    let value = json!({
        "name": "partners", "path": "/in/{endpoint}", "clients": "endpoints", "provider": "github",
        "secret": "client:secret", "public_url": "https://hooks.example.com",
    });
    Route::new(value).to(app)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_a_url_of_its_own_that_lives_through_rotation_and_crashes_until_it_is_revoked() {
    let app = App::start().await;
    let quarantine = json!({"keep": "1h"});
    let mut gateway = gateway()
        .route(partners(&app))
        .section("log", json!({"access": "all"}))
        .section("quarantine", quarantine)
        .start()
        .await;
    let whose = ["--route", "partners", "--client", "acme"];
    let endpoints = async |gateway: &Gateway, action: &str, more: &[&str]| {
        gateway.cli_json(&[&["endpoints", action], &whose[..], more].concat()).await
    };

    // Created: at once, on all listeners, without a reload. The app learns whose it is, whatever the sender says.
    let first = endpoints(&gateway, "create", &[]).await;
    let (path, secret) = (text(&first, "path").to_owned(), text(&first, "secret").to_owned());
    assert_eq!(text(&first, "url"), format!("https://hooks.example.com{path}"));
    assert!(path.len() >= "/in/".len() + 32, "{path}");
    for via in [Via::Plain, Via::Tls, Via::Http2] {
        let request =
            event(&secret, &path).header("tidegate-client", "mallory").header("tidegate_client", "mallory");
        assert_eq!(gateway.send_via(via, &request).await.status, 202, "{via:?}");
    }
    for received in app.receives(3).await {
        assert_eq!(received.all("tidegate-client"), ["acme"]);
    }
    app.forget();
    assert_eq!(gateway.metric("tidegate_client_requests_total", &[("client", "acme")]).await, 3.0);
    eventually("the client is logged", async || {
        gateway.log_lines().iter().any(|line| line["client"] == "acme")
    })
    .await;
    // Neither URL nor secret is told a second time, nor logged.
    let listed = gateway.cli(&["endpoints", "list", "--output", "json"]).await;
    let events = gateway.cli(&["events", "list", "--output", "json"]).await;
    let token = path.rsplit('/').next().unwrap();
    for shown in [
        String::from_utf8_lossy(&listed.stdout),
        String::from_utf8_lossy(&events.stdout),
        gateway.log().into(),
    ] {
        assert!(!shown.is_empty() && !shown.contains(token) && !shown.contains(&secret), "{shown}");
    }
    // The URL alone proves nothing where a secret is asked for. What is kept of that request does not show the URL either.
    assert_eq!(gateway.send(&event("guess", &path)).await.status, 401);
    let kept = async || gateway.cli(&["quarantine", "list", "--output", "json"]).await.stdout;
    eventually("it is in quarantine", async || {
        String::from_utf8_lossy(&kept().await).contains("signature_invalid")
    })
    .await;
    assert!(!String::from_utf8_lossy(&kept().await).contains(token));

    // Rotated: both work, each with its own secret.
    let second = endpoints(&gateway, "rotate", &["--keep", "24h"]).await;
    let (new_path, new_secret) = (text(&second, "path").to_owned(), text(&second, "secret").to_owned());
    assert!(path != new_path && secret != new_secret && second["old_until"].is_string());
    let works =
        async |gateway: &Gateway, secret: &str, path: &str| gateway.send(&event(secret, path)).await.status;
    assert_eq!(works(&gateway, &secret, &path).await, 202);
    assert_eq!(works(&gateway, &new_secret, &new_path).await, 202);
    assert_eq!(works(&gateway, &new_secret, &path).await, 401);

    // A crash and a reload change nothing.
    gateway.kill().await;
    gateway.restart().await;
    gateway.reload().await;
    assert_eq!(works(&gateway, &secret, &path).await, 202);
    assert_eq!(works(&gateway, &new_secret, &new_path).await, 202);

    // After its time only the new one works.
    let third = endpoints(&gateway, "rotate", &["--keep", "1s"]).await;
    let (last_path, last_secret) = (text(&third, "path").to_owned(), text(&third, "secret").to_owned());
    eventually("the old URL has ended", async || works(&gateway, &new_secret, &new_path).await == 404).await;
    assert_eq!(works(&gateway, &last_secret, &last_path).await, 202);

    // Nor does another method tell that it is one.
    for target in [&last_path, &"/in/0000".to_owned(), &"/nowhere".to_owned()] {
        let answer = gateway.send(&Request::get(target)).await;
        assert_eq!(
            (answer.status, answer.reason(), answer.header("allow")),
            (404, "no_route", None),
            "{target}"
        );
    }

    // Revoked: as if it had never been.
    assert!(!gateway.cli(&[&["endpoints", "revoke"], &whose[..]].concat()).await.status.success());
    endpoints(&gateway, "revoke", &["--yes"]).await;
    let unknown = format!("/in/{}", "0".repeat(token.len()));
    let nowhere = gateway.send(&event(&secret, "/nowhere")).await;
    for gone in [&path, &new_path, &last_path, &unknown, &"/in/x".to_owned()] {
        let answer = gateway.send(&event(&last_secret, gone)).await;
        assert_eq!((answer.status, answer.reason()), (404, "no_route"), "{gone}");
        assert_eq!(answer.text(), nowhere.text());
        let names = |answer: &Answer| answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&answer), names(&nowhere));
    }
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(works(&gateway, &last_secret, &last_path).await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_do_not_take_each_others_events_for_repeats() {
    let app = App::start().await;
    let open = Route::new(json!({
        "name": "open", "path": "/open/{endpoint}", "clients": "endpoints", "verify": "none", "mode": "proxy",
        "idempotency": {"key": "header:X-Id"},
    }));
    let gateway = gateway().route(open.to(&app)).route(github().to(&app)).start().await;
    let create = async |client: &str| {
        let issued = gateway.cli_json(&["endpoints", "create", "--route", "open", "--client", client]).await;
        assert!(issued["secret"].is_null(), "nothing asks for a secret here");
        text(&issued, "path").to_owned()
    };
    let (acme, bolt) = (create("acme").await, create("bolt").await);
    let send = async |path: &str| gateway.send(&Request::post(path, "{}").header("X-Id", "1")).await;
    assert!(!send(&acme).await.is_duplicate());
    assert!(!send(&bolt).await.is_duplicate());
    assert!(send(&acme).await.is_duplicate());
    let clients: Vec<_> =
        app.received().iter().map(|r| r.header("tidegate-client").map(str::to_owned)).collect();
    assert_eq!(clients, [Some("acme".to_owned()), Some("bolt".to_owned())]);
    // What can't be is said.
    for (arguments, expected) in [
        (&["create", "--route", "open", "--client", "acme"][..], "has a URL for this route already"),
        (&["create", "--route", "opne", "--client", "acme"], "did you mean `open`?"),
        (&["create", "--route", "github", "--client", "acme"], "lacks `clients: endpoints`"),
        (&["create", "--route", "open", "--client", "a b"], "letters, digits"),
        (&["rotate", "--route", "open", "--client", "carl"], "has no URL for this route"),
        (&["rotate", "--route", "open", "--client", "acme", "--keep", "91d"], "at most 90 days"),
        (&["revoke", "--route", "open", "--client", "carl", "--yes"], "has no URL for this route"),
    ] {
        let output = gateway.cli(&[&["endpoints"], arguments].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}
