//! People are told what is wrong, and that it is over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;

use crate::support::mail::MailServer;
use crate::support::*;

/// Looks and tells at once; what a test does not name is off.
fn quick(to: Value) -> Value {
    json!({
        "name": "edge-1", "to": to, "every": "50ms", "group": "100ms", "pause": "0s",
        "backlog_age": "off", "disk": "off", "dead_letters": {"more": 1, "within": "1s"},
    })
}

fn gives_up() -> Value {
    json!({"first": "1ms", "max": "1ms", "attempts": 1})
}

fn notices(app: &App) -> Vec<Value> {
    app.received().iter().filter_map(|r| serde_json::from_slice(&r.body).ok()).collect()
}

/// Waits for a notice of this type.
async fn told(app: &App, kind: &str) -> Value {
    let find = || notices(app).into_iter().find(|notice| notice["type"] == kind);
    eventually(&format!("{kind} is told"), async || find().is_some()).await;
    find().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_told_by_a_signed_webhook_and_slack_and_that_it_is_over() {
    let (app, ops, slack) = (App::start().await, App::start().await, App::start().await);
    app.behaves(Behaviour::status(500));
    // The first try fails: a notice is not lost by it.
    ops.behaves_next([Behaviour::status(503)]);
    let to = json!([
        {"name": "ops", "webhook": {"url": format!("{}/hook?a=b", ops.url()), "secret": "env:ALERTS_SECRET"}},
        {"slack": "env:SLACK_URL"},
    ]);
    let gateway = gateway()
        .route(unverified("/in").delivery("retry", gives_up()).delivery("breaker", "off").to(&app))
        .section("alerts", quick(to))
        .env("ALERTS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .env("SLACK_URL", &format!("{}/services/hush", slack.url()))
        .start()
        .await;
    assert!(gateway.send(&Request::post("/in", "{}")).await.is_success());

    let firing = told(&ops, "tidegate.alerts.firing").await;
    let alert = &firing["data"]["firing"][0];
    assert_eq!((&alert["rule"], &alert["severity"]), (&json!("dead_letters"), &json!("critical")));
    assert_eq!((&alert["subject"], &firing["data"]["gateway"]), (&json!("in/app"), &json!("edge-1")));
    let resolved = told(&ops, "tidegate.alerts.resolved").await;
    assert_eq!(resolved["data"]["resolved"][0]["subject"], "in/app");
    assert!(resolved["data"]["resolved"][0]["until"].is_string(), "{resolved}");

    let received = ops.received();
    assert!(received[0].request_line.starts_with("POST /hook?a=b "), "{:?}", received[0]);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"), "the same notice again");
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
    for request in &received {
        let field = |name| request.header(name).unwrap_or_default();
        let text = [field("webhook-id"), ".", field("webhook-timestamp"), "."].concat();
        let message = [text.as_bytes(), request.body.as_slice()].concat();
        let signature =
            STANDARD.decode(field("webhook-signature").trim_start_matches("v1,")).expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        assert!(hmac::verify(&key, &message, &signature).is_ok(), "{request:?}");
    }

    let messages = slack.receives(2).await;
    let text = |n: usize| {
        let message: Value = serde_json::from_slice(&messages[n].body).expect("JSON");
        message["text"].as_str().unwrap_or_default().to_owned()
    };
    assert!(
        text(0).starts_with("*[edge-1] dead_letters: in/app*\nCRITICAL dead_letters in/app: 1 new"),
        "{}",
        text(0)
    );
    assert!(text(1).contains("RESOLVED dead_letters in/app"), "{}", text(1));
    assert!(!gateway.log().contains("hush"), "the URL of Slack is a secret");
    eventually("notices are counted", async || {
        gateway.metric("tidegate_alert_notices_total", &[("outcome", "sent")]).await >= 4.0
    })
    .await;
    let status = gateway.cli_json(&["alerts", "list"]).await;
    assert_eq!(status["targets"][0]["error"], Value::Null);
    assert!(status["targets"][0]["last"].is_string(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_says_for_each_target_what_became_of_it() {
    let (app, mails) = (App::start().await, MailServer::start().await);
    let to = json!([
        {"email": {
            "host": "127.0.0.1", "port": mails.address.port(), "security": "none", "username": "u", "password": "env:P",
            "from": "Tidegate <tidegate@example.com>", "to": ["ops@example.com", "B <b@example.com>"],
        }},
        {"command": ["sh", "-c", "cat > notice.json"]},
        {"name": "gone", "webhook": {"url": format!("http://127.0.0.1:{}/", free_port())}},
    ]);
    let mut gateway = gateway()
        .route(unverified("/in").to(&app))
        .section("alerts", quick(to.clone()))
        .env("P", "hunter2")
        .start()
        .await;
    let output = gateway.cli(&["alerts", "test"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text.contains("email (email): told\ncommand (command): told\ngone (webhook): NOT told: "),
        "{text}"
    );

    let session = mails.receives(1).await.remove(0);
    let said = |line: &str| assert!(session.iter().any(|l| l == line), "{line}: {session:#?}");
    said(&format!("AUTH PLAIN {}", STANDARD.encode("\0u\0hunter2")));
    said("MAIL FROM:<tidegate@example.com>");
    said("RCPT TO:<ops@example.com>");
    said("RCPT TO:<b@example.com>");
    said("Subject: [edge-1] this is a test of alerts");
    let notice: Value = serde_json::from_str(
        &std::fs::read_to_string(gateway.path("notice.json")).expect("the command has written it"),
    )
    .expect("JSON");
    assert_eq!(notice["type"], "tidegate.alerts.test");

    // A reload changes who is told.
    gateway.builder.sections.insert("alerts".into(), quick(json!([to[1]])));
    gateway.rewrite_config();
    gateway.reload().await;
    let tested = gateway.cli_json(&["alerts", "test"]).await;
    assert_eq!(tested, json!({"targets": [{"target": "command", "by": "command", "error": null}]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgeries_ends_and_silence_are_seen_without_any_target() {
    let app = App::start().await;
    let old = json!({"secret": "file:secrets/old", "label": "old", "until": "2001-01-31T00:00:00Z"});
    let verify = json!({"bearer": {"tokens": ["file:secrets/token", old]}});
    let route = Route::new(json!({"name": "in", "path": "/in", "verify": verify, "expect_every": "1ms"}))
        .secret("token", "t0ken")
        .secret("old", "0ld")
        .to(&app);
    let mut alerts = quick(json!([]));
    alerts["verification_failures"] = json!({"at_least": 3, "percent": 10, "within": "1h"});
    let gateway = gateway().route(route).section("alerts", alerts).start().await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&Request::post("/in", "{}")).await.status, 401);
    }
    let good = Request::post("/in", "{}").header("Authorization", "Bearer t0ken");
    assert!(gateway.send(&good).await.is_success());
    let firing = async |rule: &str| gateway.metric("tidegate_alerts", &[("rule", rule)]).await;
    for rule in ["verification_failures", "secret_expiry", "silence"] {
        eventually(rule, async || firing(rule).await == 1.0).await;
    }
    let output = gateway.cli(&["alerts", "list"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("in: old") && text.contains("ended at 2001-01-31T00:00:00.000Z"), "{text}");
    assert!(text.ends_with("nobody is told: `alerts.to` is empty\n"), "{text}");
    let lines = gateway.log_lines();
    let logged = |rule: &str| lines.iter().any(|line| line["rule"] == rule && line["level"] == "WARN");
    assert!(logged("secret_expiry") && logged("silence"), "{lines:#?}");
}
