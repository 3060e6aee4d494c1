//! Many senders on one route: secrets in rotation, tenants by a part of the path, and clients with a URL of their own.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
}

fn base64_mac(secret: &str, text: &str) -> String {
    STANDARD.encode(signed::hmac_sha256(secret.as_bytes(), text.as_bytes()))
}

/// What X sends: an event, signed.
fn from_x(secret: &str, path: &str, body: &str) -> Request {
    Request::post(path, body)
        .header("x-twitter-webhooks-signature", &format!("sha256={}", base64_mac(secret, body)))
}

/// Zoom's greeting, signed.
fn zoom_greeting(secret: &str, path: &str, token: &str) -> Request {
    let body = json!({"event": "endpoint.url_validation", "payload": {"plainToken": token}}).to_string();
    let time = now();
    let signature =
        hex::encode(signed::hmac_sha256(secret.as_bytes(), format!("v0:{time}:{body}").as_bytes()));
    Request::post(path, body)
        .header("x-zm-request-timestamp", &time.to_string())
        .header("x-zm-signature", &format!("v0={signature}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_is_answered_with_its_tenants_secret_and_what_it_signs_is_no_event_on_any_route() {
    let app = App::start().await;
    let route = |name: &str, provider: &str, secret: &str| {
        let path = format!("/{name}/{{team}}");
        Route::new(json!({"name": name, "path": path, "provider": provider, "secret": secret})).to(&app)
    };
    let own = |name: &str, path: &str, secret: &str| {
        let signature =
            json!({"from": "header:x-twitter-webhooks-signature", "prefix": "sha256=", "encoding": "base64"});
        let rule =
            json!({"algorithm": "hmac-sha256", "signed": "{body}", "signature": signature, "secret": secret});
        Route::new(json!({"name": name, "path": path, "verify": rule})).to(&app)
    };
    let braintree = json!({
        "name": "braintree", "path": "/braintree/{team}",
        "verify": {"provider": "braintree", "secret": "file:secrets/{team}", "public_key": "integration_public_key"},
    });
    let gateway = gateway()
        .route(route("x", "x", "file:secrets/{team}").secret("acme", "one").secret("bolt", "two"))
        .route(route("zoom", "zoom", "file:secrets/{team}"))
        .route(Route::new(braintree).to(&app))
        // The same file in other words, for a tenant and for all, and another secret altogether.
        .route(own("all", "/all", "file:./secrets/acme"))
        .route(own("others", "/others/{who}", "file:secrets/../secrets/{who}"))
        .route(own("apart", "/apart", "file:apart"))
        .file("apart", "three")
        .start()
        .await;

    // X asks unsigned: each tenant has an answer of its own, and events of its own.
    for (team, secret) in [("acme", "one"), ("bolt", "two")] {
        let answer = gateway.send(&Request::get(&format!("/x/{team}?crc_token=12345"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.text().contains(&base64_mac(secret, "12345")), "{answer:?}");
        let path = format!("/x/{team}");
        assert_eq!(gateway.send(&from_x(secret, &path, "{\"a\":1}")).await.status, 200);
        assert_eq!(gateway.send(&from_x("three", &path, "{\"a\":2}")).await.status, 401);
    }
    // What was signed for whoever asked is taken nowhere where the file is the secret; elsewhere it may be an event.
    for path in ["/x/acme", "/all", "/others/acme"] {
        let answer = gateway.send(&from_x("one", path, "12345")).await;
        assert_eq!((answer.status, answer.reason()), (401, "signature_invalid"), "{path}");
        let answer = gateway.send(&from_x("one", path, "{\"a\":12345}")).await;
        assert!(answer.is_success(), "{path}: {answer:?}");
    }
    assert_eq!(gateway.send(&from_x("three", "/apart", "12345")).await.status, 202);
    let answer = gateway.send(&Request::get("/braintree/acme?bt_challenge=deadbeefdeadbeefdeadbeef")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (signature, payload) = (answer.text(), "deadbeefdeadbeefdeadbeef");
    let body = format!("bt_signature={}&bt_payload={payload}", signature.replace('|', "%7C"));
    let forged =
        Request::post("/braintree/acme", body).header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(gateway.send(&forged).await.status, 401);

    // Zoom signs its greeting.
    let answer = gateway.send(&zoom_greeting("two", "/zoom/bolt", "qgg8vlvZRS6UYooatFL8Aw")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = hex::encode(signed::hmac_sha256(b"two", b"qgg8vlvZRS6UYooatFL8Aw"));
    assert!(answer.text().contains(&expected), "{answer:?}");
    assert_eq!(gateway.send(&zoom_greeting("one", "/zoom/bolt", "abc")).await.status, 401);

    // Who is unknown is refused as with any request that proves nothing.
    let refused = |answer: Answer| (answer.status, answer.reason().to_owned(), answer.text());
    let bare = refused(gateway.send(&Request::post("/x/nobody", "{}")).await);
    assert_eq!(bare.0, 401);
    assert_eq!(refused(gateway.send(&Request::get("/x/nobody?crc_token=12345")).await), bare);
    let other_spelling = refused(gateway.send(&Request::get("/x/%61cme?crc_token=12345")).await);
    assert!(matches!(other_spelling.0, 400 | 401), "{other_spelling:?}");
    // No second look at the disk for it: the name is known to be nobody's until that is old.
    fs::write(gateway.path("secrets/nobody"), "one").unwrap();
    assert_eq!(refused(gateway.send(&Request::get("/x/nobody?crc_token=12345")).await), bare);
    assert_eq!(gateway.send(&zoom_greeting("one", "/zoom/nowhere", "abc")).await.status, 401);
    // A method that only greetings have is for nothing else.
    assert_eq!(gateway.send(&Request::get("/x/acme")).await.status, 405);

    let check = gateway.cli(&["check"]).await;
    let said = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("greetings of `x` are answered with a secret of this route"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_greeting_is_answered_with_its_secret_and_a_strangers_is_nobodys() {
    let app = App::start().await;
    let route = json!({
        "name": "x", "path": "/x/{endpoint}", "clients": "endpoints", "provider": "x", "secret": "client:secret",
    });
    let gateway = gateway().route(Route::new(route).to(&app)).start().await;
    let issued = gateway.cli_json(&["endpoints", "create", "--route", "x", "--client", "acme"]).await;
    let (path, secret) = (text(&issued, "path"), text(&issued, "secret"));
    let answer = gateway.send(&Request::get(&format!("{path}?crc_token=12345"))).await;
    assert!(answer.text().contains(&base64_mac(secret, "12345")), "{answer:?}");
    assert_eq!(gateway.send(&from_x(secret, path, "{}")).await.status, 200);
    assert_eq!(gateway.send(&from_x(secret, path, "12345")).await.status, 401);
    assert_eq!(gateway.send(&Request::get("/x/0000?crc_token=12345")).await.status, 404);
}

/// Every file below a folder that holds a text.
fn files_with(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|at| at == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_clients_url_has_is_kept_nowhere_and_passed_on_to_nobody() {
    let app = App::start().await;
    let square = json!({
        "name": "square", "path": "/square/{endpoint}", "clients": "endpoints", "public_url": "https://hooks.example.com",
        "provider": "square", "secret": "file:secrets/shared",
    });
    let inline = json!({
        "name": "inline", "path": "/inline/{endpoint}/x", "clients": "endpoints", "provider": "github", "mode": "proxy",
        "secret": "file:secrets/shared",
    });
    let mut gateway = gateway()
        .route(Route::new(square).secret("shared", "old").to(&app))
        .route(Route::new(inline).to(&app))
        .route(
            Route::new(json!({
                "name": "github", "path": "/in/{endpoint}", "clients": "endpoints", "provider": "github",
                "secret": "file:secrets/shared",
            }))
            .to(&app),
        )
        .section("log", json!({"access": "all", "level": "debug"}))
        .section("quarantine", json!({"keep": "1h"}))
        .start()
        .await;
    let mut paths = Vec::new();
    for route in ["square", "inline", "github"] {
        let issued = gateway.cli_json(&["endpoints", "create", "--route", route, "--client", "acme"]).await;
        paths.push(text(&issued, "path").to_owned());
    }
    let [square, inline, github] = &paths[..] else { panic!("three") };
    let from_square = |secret: &str, body: &str| {
        let signed = format!("https://hooks.example.com{square}{body}");
        Request::post(square, body).header("x-square-hmacsha256-signature", &base64_mac(secret, &signed))
    };

    // The scheme that signs the URL holds; the app gets a word in the place of what only the URL has.
    let answer = gateway.send(&from_square("old", "{\"event_id\":\"1\"}")).await;
    assert!(answer.is_success(), "{answer:?}");
    assert_eq!(gateway.send(&event("old", inline)).await.status, 200);
    let mut targets: Vec<_> =
        app.receives(2).await.into_iter().map(|received| received.target().to_owned()).collect();
    targets.sort();
    assert_eq!(targets, ["/inline/endpoint/x", "/square/endpoint"]);
    app.forget();
    // Refused, and kept; slips that lead nowhere.
    assert_eq!(gateway.send(&from_square("new", "{\"event_id\":\"2\"}")).await.status, 401);
    assert_eq!(gateway.send(&event("new", github)).await.status, 401);
    for slip in [format!("{github}/"), format!("/out{github}")] {
        assert_eq!(gateway.send(&event("old", &slip)).await.status, 404);
    }
    assert_eq!(gateway.send(&Request::get(github)).await.status, 404);
    let listed = async |gateway: &Gateway| {
        let items = gateway.cli_json(&["quarantine", "list"]).await["items"].as_array().cloned();
        items.unwrap_or_default()
    };
    eventually("both are in quarantine", async || listed(&gateway).await.len() == 2).await;
    // Waits for its app in the buffer when the process ends.
    app.behaves(Behaviour::status(503));
    assert!(gateway.send(&event("old", github)).await.is_success());
    gateway.kill().await;
    for path in &paths {
        let token = path.split('/').nth(2).unwrap();
        assert_eq!(token.len(), 40, "{path}");
        assert_eq!(files_with(gateway.folder(), token), Vec::<std::path::PathBuf>::new());
        assert!(!gateway.log().contains(token));
    }

    // With the right secret what was refused is verified after all, but for the scheme that signs the URL.
    app.behaves(Behaviour::status(200));
    gateway.restart().await;
    fs::write(gateway.path("secrets/shared"), "new").unwrap();
    gateway.reload().await;
    for item in listed(&gateway).await {
        let id = text(&item, "id");
        let checked = gateway.cli(&["quarantine", "re-verify", id, "-o", "json"]).await;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        match text(&item, "route") {
            "github" => {
                assert!(said.contains("\"verifies\": true"), "{said}");
                assert!(gateway.cli(&["quarantine", "admit", id]).await.status.success());
            }
            _ => assert!(said.contains("the client's part of the URL is not kept"), "{said}"),
        }
    }
    for received in app.receives(2).await {
        assert_eq!(received.target(), "/in/endpoint");
        assert_eq!(received.all("tidegate-client"), ["acme"]);
    }
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
