//! Promise 8: no downtime for change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::sender::Connection;
use crate::support::*;

/// Senders that send without a pause until told to stop. Every one of their requests must be answered 202.
struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<tokio::task::JoinHandle<usize>>,
}

impl Load {
    fn start(gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = gateway.tls();
        let senders = (0..4)
            .map(|number| {
                let stop = stop.clone();
                tokio::spawn(async move {
                    let mut sent = 0;
                    let mut connection: Option<Connection> = None;
                    while !stop.load(Ordering::Relaxed) {
                        // Half of them keep their connection, half open one for each request.
                        let mut open = match connection.take() {
                            Some(open) => open,
                            None => Connection::tls(address).await.expect("the listener accepts"),
                        };
                        let answer = open.send(&signed::stripe(invoice_paid())).await.expect("answered");
                        assert_eq!(answer.status, 202, "{answer:?}");
                        sent += 1;
                        let closing =
                            answer.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                        if number % 2 == 0 && !closing {
                            connection = Some(open);
                        }
                    }
                    sent
                })
            })
            .collect();
        Self { stop, senders }
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for sender in self.senders {
            sent += sender.await.expect("every request was answered 202");
        }
        sent
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_fails_no_request() {
    let (first, second) = (App::start().await, App::start().await);
    let mut gateway = gateway().route(stripe().to(&first)).start().await;
    let load = Load::start(&gateway);
    for round in 0..10 {
        let app = if round % 2 == 0 { &second } else { &first };
        gateway.builder.routes = vec![stripe().to(app), unverified(&format!("/round/{round}")).to(app)];
        gateway.rewrite_config();
        gateway.reload().await;
        let target = format!("/round/{round}");
        assert_eq!(
            gateway.send(&Request::post(&target, target.clone())).await.status,
            202,
            "the new route is there"
        );
    }
    let sent = load.end().await;
    gateway.drained().await;
    assert!(sent > 0);
    assert_eq!(first.count() + second.count(), sent + 10, "each once");
    assert!(first.count() > 0 && second.count() > 0, "workers follow the settings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_config_changes_nothing_and_says_why() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app)).start().await;
    let load = Load::start(&gateway);
    let good = std::fs::read_to_string(gateway.path("tidegate.yaml")).expect("the config");
    for bad in [
        "routes: [".to_owned(),
        String::new(),
        good.replace("\"provider\"", "\"provder\""),
        good.replace("file:secrets/stripe.secret", "file:secrets/nowhere"),
    ] {
        gateway.write_config(&bad);
        gateway.reload().await;
    }
    assert_eq!(gateway.metric("tidegate_config_reloads_total", &[("outcome", "refused")]).await, 4.0);
    assert!(gateway.log().contains("provder"), "the log says why");
    let answer = gateway.admin("POST", "/reload").await.expect("answered");
    assert!(answer.status >= 400 && answer.text().contains("nowhere"), "so does the API: {answer:?}");
    gateway.write_config(&good);
    let reloaded = gateway.cli(&["reload"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert!(load.end().await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_route_that_is_taken_out_is_kept_seen_and_delivered_when_it_returns() {
    let app = App::start().await;
    app.refuse().await;
    let routes = [github().to(&app).impatient(), stripe().to(&app).impatient()];
    let mut builder = gateway();
    builder.routes = routes.to_vec();
    let mut gateway = builder.start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(gateway.send(&signed::github(push())).await.event_id().to_owned());
    }
    gateway.builder.routes = vec![routes[1].clone()];
    gateway.rewrite_config();
    gateway.reload().await;
    app.accept().await;
    gateway.send(&signed::stripe(invoice_paid())).await;
    app.receives(1).await;
    // Kept through a crash, too, and neither delivered nor forgotten.
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(gateway.metric("tidegate_backlog", &[("destination", "github/app")]).await, 5.0);
    let listed = gateway.cli_json(&["events", "list"]).await.to_string();
    assert!(ids.iter().all(|id| listed.contains(id)), "{listed}");
    assert_eq!(
        app.received().iter().filter(|received| ids.iter().any(|id| id == received.event_id())).count(),
        0
    );

    gateway.builder.routes = routes.to_vec();
    gateway.rewrite_config();
    gateway.reload().await;
    gateway.drained().await;
    let delivered: Vec<_> = app.received().iter().map(|received| received.event_id().to_owned()).collect();
    assert!(ids.iter().all(|id| delivered.contains(id)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_rotated_without_a_gap_and_an_old_one_dies() {
    let app = App::start().await;
    let route = |secrets: serde_json::Value| {
        let mut route = github().to(&app).secret("old", "old-secret").secret("new", "new-secret");
        route.value.remove("secret");
        route.set("secrets", secrets)
    };
    let mut gateway = gateway().route(route(json!(["file:secrets/old"]))).start().await;
    let status = async |gateway: &Gateway, secret: &str| {
        gateway.send(&signed::github_with(secret, push())).await.status
    };
    assert_eq!((status(&gateway, "old-secret").await, status(&gateway, "new-secret").await), (202, 401));

    for (secrets, expected) in [
        (json!(["file:secrets/new", "file:secrets/old"]), (202, 202)),
        (json!(["file:secrets/new"]), (401, 202)),
    ] {
        gateway.builder.routes = vec![route(secrets)];
        gateway.rewrite_config();
        gateway.reload().await;
        assert_eq!((status(&gateway, "old-secret").await, status(&gateway, "new-secret").await), expected);
    }
    // The same references, another file content.
    std::fs::write(gateway.path("secrets/new"), "newest-secret").expect("written");
    gateway.reload().await;
    assert_eq!((status(&gateway, "new-secret").await, status(&gateway, "newest-secret").await), (401, 202));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_served_after_a_reload() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let names = async |name: &str| sender::connect_tls(gateway.tls(), name, &["http/1.1"]).await.is_ok();
    assert!(names("localhost").await && !names("other.test").await);
    certs::authority().other.write(&gateway.path("tls"), "server");
    gateway.reload().await;
    eventually("the new one is served", async || names("other.test").await && !names("localhost").await)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sigterm_requests_in_flight_are_finished() {
    let app = App::start().await;
    app.behaves(Behaviour::Slow(std::time::Duration::from_millis(500)));
    let mut gateway = gateway().route(stripe().mode("proxy").to(&app)).start().await;
    let address = gateway.tls();
    let request =
        tokio::spawn(
            async move { Connection::tls(address).await?.send(&signed::stripe(invoice_paid())).await },
        );
    app.receives(1).await;
    assert!(gateway.terminate().await.success());
    let answer = request.await.expect("ran").expect("answered");
    assert_eq!(answer.status, 200);
    assert!(Connection::plain(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_certificates_are_chosen_by_name() {
    let app = App::start().await;
    let tls = json!({"certificates": [
        {"cert": "tls/server.pem", "key": "tls/server.key"},
        {"cert": "tls/other.pem", "key": "tls/other.key"},
    ]});
    let other = &certs::authority().other;
    let gateway = gateway()
        .listener("tls", tls)
        .file("tls/other.pem", &other.cert)
        .file("tls/other.key", &other.key)
        .route(github().to(&app))
        .start()
        .await;
    for name in ["localhost", "other.test"] {
        assert!(sender::connect_tls(gateway.tls(), name, &["h2"]).await.is_ok(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_of_a_reload_is_told_line_by_line() {
    let app = App::start().await;
    let mut gateway = gateway().route(github().to(&app)).start().await;
    gateway.builder.routes.push(unverified("/open").to(&app));
    gateway.rewrite_config();
    let reloaded = gateway.cli(&["reload"]).await;
    assert!(reloaded.status.success(), "{reloaded:?}");
    let told = String::from_utf8_lossy(&reloaded.stderr);
    assert!(told.contains("warning: ") && !told.contains("\\n"), "{told}");
    assert!(told.lines().count() > 2 && told.lines().any(|line| line.contains(" | ")), "{told}");
}
