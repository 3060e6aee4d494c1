//! Going over from another gateway, or to another rule: observing before refusing, what was refused and may be admitted
//! later, explanations, and captured traffic against a new config.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::gateway::run;
use crate::support::*;

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A line of a capture.
fn captured(request: &Request, more: Value) -> String {
    let mut line = json!({
        "method": request.method,
        "url": format!("https://hooks.example.com{}", request.target),
        "headers": request.headers,
        "body_base64": STANDARD.encode(&request.body),
    });
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    line.to_string()
}

fn quarantine() -> Value {
    json!({"max_events": 50, "max_size": "1MiB", "keep": "1h", "rate": "1000/s"})
}

async fn items(gateway: &Gateway) -> Vec<Value> {
    let page = gateway.cli_json(&["quarantine", "list", "-n", "1000"]).await;
    page["items"].as_array().expect("items").clone()
}

async fn holds(gateway: &Gateway, count: usize) {
    eventually(&format!("{count} in quarantine"), async || items(gateway).await.len() == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_observes_lets_through_and_says_what_it_would_refuse() {
    for mode in ["buffer", "proxy"] {
        let app = App::start().await;
        let gateway = gateway().route(github().set("enforce", "observe").mode(mode).to(&app)).start().await;
        let unsigned = signed::github(push()).without("X-Hub-Signature-256");
        assert!(gateway.send(&unsigned).await.is_success(), "{mode}");
        let hop = signed::github(issue_opened()).header("Connection", "X-Hub-Signature-256");
        assert!(gateway.send(&hop).await.is_success(), "{mode}");
        assert!(gateway.send(&signed::github(contact_created())).await.is_success(), "{mode}");
        let mut told: Vec<_> = app
            .receives(3)
            .await
            .iter()
            .map(|received| {
                let header = |name| received.header(name).map(str::to_owned);
                (header("tidegate-would-refuse"), header("tidegate-verified"))
            })
            .collect();
        told.sort();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            told,
            [
                (None, some("github")),
                (some("ambiguous_request"), some("none")),
                (some("signature_missing"), some("none"))
            ],
            "{mode}"
        );
        let labels = [("route", "github"), ("reason", "signature_missing")];
        assert_eq!(gateway.metric("tidegate_would_refuse_total", &labels).await, 1.0, "{mode}");
        assert_eq!(gateway.metric("tidegate_route_verified_only", &[("route", "github")]).await, 0.0);
        assert!(text(&gateway.cli(&["status"]).await).contains("observe"), "{mode}");
        let checked = gateway.cli(&["check"]).await;
        assert!(
            checked.status.success()
                && text(&checked).contains("enforce: what verification refuses is let through")
        );
        eventually("a log line", async || {
            gateway.log_lines().iter().any(|line| {
                line["message"] == "would refuse"
                    && line["reason"] == "signature_missing"
                    && line["route"] == "github"
            })
        })
        .await;
        if mode == "buffer" {
            let listed = gateway.cli_json(&["events", "list"]).await.to_string();
            assert!(listed.contains("\"would_refuse\":\"signature_missing\""), "{listed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unproved_request_takes_no_proved_events_place_while_observing() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().set("enforce", "observe").to(&app)).start().await;
    let genuine = signed::stripe(invoice_paid());
    let mut forged_body = genuine.body.to_vec();
    forged_body.push(b' ');
    let forged = genuine.clone().body(forged_body);
    assert!(!gateway.send(&forged).await.is_duplicate());
    assert!(gateway.send(&forged).await.is_duplicate(), "the very same again is a repeat");
    // Even with the genuine body, but without its signature.
    let bare = genuine.clone().without("Stripe-Signature");
    assert!(!gateway.send(&bare).await.is_duplicate());
    let answer = gateway.send(&genuine).await;
    assert_eq!((answer.status, answer.is_duplicate()), (202, false), "{answer:?}");
    app.receives(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_with_a_wrong_secret_is_not_lost() {
    let app = App::start().await;
    let route = github().to(&app).secret("github.secret", "wrong");
    let mut gateway = gateway().route(route).section("quarantine", quarantine()).start().await;
    // Two events, one of them tried twice, as senders do; and a forgery.
    let (first, second) = (signed::github(push()), signed::github(issue_opened()));
    let forged =
        signed::github_with("nobody's", contact_created()).header("Authorization", "Bearer very-secret");
    for request in [&first, &second, &first, &forged] {
        assert_eq!(gateway.send(request).await.status, 401);
    }
    // No route, no method, too large: nothing that anybody would look for later.
    gateway.send(&Request::post("/nowhere", "x")).await;
    gateway.send(&Request::get("/hooks/github")).await;
    holds(&gateway, 4).await;
    assert_eq!(gateway.metric("tidegate_quarantine_items", &[]).await, 4.0);
    assert!(gateway.metric("tidegate_quarantine_bytes", &[]).await >= 4.0 * 4096.0);

    let all = items(&gateway).await;
    assert_eq!((&all[0]["reason"], &all[0]["route"]), (&json!("signature_invalid"), &json!("github")));
    let id = all[0]["id"].as_str().expect("an id").to_owned();
    let shown = gateway.cli_json(&["quarantine", "show", &id]).await.to_string();
    assert!(shown.contains("X-Hub-Signature-256") && shown.contains("does not match any of"), "{shown}");
    assert!(!shown.contains("very-secret"), "{shown}");
    let body = gateway.cli(&["quarantine", "show", &id, "--body-only"]).await;
    assert_eq!(body.stdout, forged.body.to_vec());
    let rechecked = gateway.cli_json(&["quarantine", "re-verify", "--all"]).await;
    assert_eq!(rechecked["verifies"], 0);
    let admitted = gateway.cli(&["quarantine", "admit", "--all"]).await;
    assert_eq!(admitted.status.code(), Some(1), "{}", text(&admitted));

    // A restart keeps them.
    gateway.kill().await;
    gateway.restart().await;
    holds(&gateway, 4).await;

    // The mistake is mended.
    std::fs::write(gateway.path("secrets/github.secret"), signed::GITHUB_SECRET).expect("written");
    gateway.reload().await;
    let rechecked = gateway.cli_json(&["quarantine", "re-verify", "--route", "github"]).await;
    assert_eq!(rechecked["verifies"], 3, "{rechecked}");
    // Admitted by two at once: each event is there once.
    let (one, other) = tokio::join!(
        gateway.cli(&["quarantine", "admit", "--route", "github", "-o", "json"]),
        gateway.cli(&["quarantine", "admit", "--route", "github", "-o", "json"])
    );
    let count = |output: &std::process::Output| {
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["admitted"].as_u64().expect("a count")
    };
    assert_eq!(count(&one) + count(&other), 2, "{} {}", text(&one), text(&other));
    let received = app.receives(2).await;
    let mut bodies: Vec<_> = received.iter().map(|received| received.body.clone()).collect();
    bodies.sort();
    let mut expected = [first.body.clone(), second.body.clone()];
    expected.sort();
    assert_eq!(bodies, expected);
    assert!(received.iter().all(|received| received.header("tidegate-verified") == Some("github")));
    holds(&gateway, 1).await;
    // The sender's own next try is a repeat.
    assert!(gateway.send(&first).await.is_duplicate());
    gateway.drained().await;
    assert_eq!(app.count(), 2);

    // The forgery only by force, and it says so for ever.
    let forced = gateway.cli_json(&["quarantine", "admit", &id, "--force"]).await;
    assert_eq!(forced["admitted"], 1, "{forced}");
    let received = app.receives(3).await;
    assert_eq!(received[2].header("tidegate-would-refuse"), Some("signature_invalid"));
    assert_eq!(received[2].header("tidegate-verified"), Some("none"));
    let event = forced["results"][0]["event"].as_str().expect("an event").to_owned();
    let shown = text(&gateway.cli(&["events", "show", &event]).await);
    assert!(shown.contains("BY FORCE") && shown.contains(&id), "{shown}");
    holds(&gateway, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_fills_neither_the_quarantine_nor_the_way_of_events() {
    let app = App::start().await;
    let bounds = json!({"max_events": 20, "max_size": "1MiB", "rate": "30/s"});
    let open = github().named("github");
    let gateway = gateway().route(open.to(&app)).route(stripe().set("quarantine", "off").to(&app));
    let gateway = gateway.section("quarantine", bounds).start().await;
    let forged = signed::github_with("wrong", noise(60_000));
    let flood = async {
        for _ in 0..4 {
            let mut connection = gateway.connect().await;
            for _ in 0..150 {
                let answer = connection.send(&forged).await.expect("an answer");
                assert_eq!(answer.status, 401);
            }
        }
    };
    let events = async {
        for n in 0..50 {
            let answer = gateway.send(&signed::github(format!("{{\"n\":{n}}}"))).await;
            assert_eq!(answer.status, 202, "{answer:?}");
        }
    };
    tokio::join!(flood, events);
    app.receives(50).await;
    eventually("what is kept is counted", async || {
        gateway.metric("tidegate_quarantined_total", &[("outcome", "kept")]).await > 0.0
    })
    .await;
    let rate_limited = gateway.metric("tidegate_quarantined_total", &[("outcome", "rate")]).await;
    assert!(rate_limited > 100.0, "{rate_limited} were not kept");
    let held = items(&gateway).await.len();
    assert!((1..=20).contains(&held), "{held}");
    let folder = gateway.path("buffer/quarantine");
    let bytes: u64 = std::fs::read_dir(folder)
        .expect("the quarantine")
        .map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |file| file.len()))
        .sum();
    assert!(bytes <= 1 << 20, "{bytes} bytes");
    // A route that says never.
    gateway.send(&signed::stripe(invoice_paid()).body("{}")).await;
    let of_stripe = gateway.cli_json(&["quarantine", "list", "--route", "stripe"]).await;
    assert_eq!(of_stripe["items"], json!([]));
    let purged = gateway.cli_json(&["quarantine", "purge", "--all", "--yes"]).await;
    assert!(purged["purged"].as_u64().is_some_and(|n| n >= 1), "{purged}");
    holds(&gateway, 0).await;
    gateway.drained().await;
    assert_eq!(app.count(), 50, "nothing refused reached the app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_explained_with_the_likeliest_mistake() {
    let app = App::start().await;
    let gateway = gateway().route(stripe().to(&app)).route(github().to(&app)).start().await;
    let event = signed::stripe_at(1_764_000_000, r#"{"id":"evt_1"}"#);
    let changed = event.clone().body("{\"id\":\"evt_1\"}\n");
    let elsewhere = signed::github_with(signed::STRIPE_SECRET, push());
    std::fs::write(gateway.path("stripe.jsonl"), captured(&changed, json!({"received_at": 1_764_000_001})))
        .expect("written");
    std::fs::write(gateway.path("github.jsonl"), captured(&elsewhere, json!({}))).expect("written");
    let verify = async |more: &[&str]| {
        let arguments = [&["verify", "--route", "stripe", "--requests", "stripe.jsonl"], more].concat();
        let output = gateway.cli(&arguments).await;
        assert!(output.status.success() || output.status.code() == Some(2), "{}", text(&output));
        (String::from_utf8_lossy(&output.stdout).into_owned(), text(&output))
    };
    let (told, _) = verify(&["--output", "text"]).await;
    for part in [
        "line 1: signature_invalid",
        "1 s before the time of the decision",
        "signed     26 bytes, SHA-256 ",
        "without its final newline",
        "first difference is at byte 25",
        "[final_newline]",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let right = event.value("Stripe-Signature").split("v1=").nth(1).expect("a signature").to_owned();
    let right = right.split(',').next().expect("a signature");
    assert!(!told.contains(right) && !told.contains(signed::STRIPE_SECRET), "{told}");
    // The contract of the JSON lines stays; what is new comes only when it is asked for.
    let (plain, _) = verify(&[]).await;
    assert_eq!(plain, "{\"accepted\":false,\"reason\":\"signature_invalid\",\"event_key\":null}\n");
    let (explained, _) = verify(&["--explain"]).await;
    let explained: Value = serde_json::from_str(&explained).expect("JSON");
    assert_eq!(explained["likely"][0]["code"], "final_newline", "{explained}");
    let (_, refused) = verify(&["--show-expected"]).await;
    assert!(refused.contains("--show-expected goes with"), "{refused}");
    let (shown, _) = verify(&["--output", "text", "--show-expected"]).await;
    assert!(shown.contains("expected   "), "{shown}");

    let arguments = ["verify", "--route", "github", "--requests", "github.jsonl", "--output", "text"];
    let told = text(&gateway.cli(&arguments).await);
    assert!(
        told.contains("the secret of the route `stripe`") && !told.contains(signed::STRIPE_SECRET),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_message_signature_is_explained_line_by_line() {
    let app = App::start().await;
    let vector = vectors::all().into_iter().find(|vector| vector.name == "appendix B.2.2");
    let vector = vector.expect("the RFC's own request");
    let route = Route::new(json!({
        "name": "rfc", "path": "/foo", "verify": {
            "provider": "http-signature",
            "components": vector.config["params"]["components"],
            "public_keys": [{"secret": vector.config["public_keys"][0], "label": "theirs"}],
        },
    }));
    let gateway = gateway().route(route.to(&app)).start().await;
    let explained = async |change: &dyn Fn(&mut vectors::Captured), more: &[&str]| {
        let mut captured = vectors::Captured { received_at: Some(vector.now), ..vector.request.clone() };
        change(&mut captured);
        let line = serde_json::to_string(&captured).expect("JSON");
        std::fs::write(gateway.path("captured.jsonl"), line).expect("written");
        let arguments = ["verify", "--route", "rfc", "--requests", "captured.jsonl", "--output", "text"];
        let output = gateway.cli(&[&arguments, more].concat()).await;
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let told = explained(&|_| {}, &[]).await;
    for part in [
        "line 1: accepted by http-signature (theirs)",
        "covers     3 components: \"@authority\", \"content-digest\", \"@query-param\";name=\"Pet\"",
        "params     keyid `test-key-rsa-pss`; no alg",
        "tag `header-example`",
        "signed     line 1, 25 bytes: \"@authority\": example.com",
        "signed     line 3, 30 bytes: \"@query-param\";name=\"Pet\": dog",
        "rsa-pss-sha512 `theirs` matches",
        "digest     content-digest is covered",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let newline = |captured: &mut vectors::Captured| {
        let mut body = STANDARD.decode(&captured.body_base64).expect("base64");
        body.push(b'\n');
        captured.body_base64 = STANDARD.encode(body);
    };
    let told = explained(&newline, &[]).await;
    assert!(told.contains("the digest is right for this body without its final newline"), "{told}");
    assert!(told.contains("[final_newline]") && told.contains("NOT the body's"), "{told}");
    // What the sender's library says that it signed.
    let moved =
        |captured: &mut vectors::Captured| captured.url = captured.url.replace("example.com", "inner.local");
    let told = explained(&moved, &[]).await;
    let base: String = ["\"@authority\": example.com", "\"content-digest\": "].join("\n");
    std::fs::write(gateway.path("base.txt"), base).expect("written");
    assert!(told.contains("\"@authority\": inner.local") && told.contains("[unknown]"), "{told}");
    let told = explained(&moved, &["--signed", "base.txt"]).await;
    let part = "the first difference is at byte 14 (line 1, byte 14 of it): here `inner.local\\n`, there `example.com\\n`";
    assert!(told.contains(part), "{told}");
    let forwarded = |captured: &mut vectors::Captured| {
        moved(captured);
        captured.headers.push(("X-Forwarded-Host".to_owned(), "example.com".to_owned()));
    };
    let told = explained(&forwarded, &[]).await;
    assert!(told.contains("[url_forwarded]"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captured_traffic_shows_what_a_new_config_would_change() {
    let app = App::start().await;
    let old = gateway().route(github().to(&app)).route(stripe().to(&app)).start().await;
    let (push, paid) = (signed::github(push()), signed::stripe_at(1_764_000_000, invoice_paid()));
    let forged = signed::github_with("wrong", issue_opened());
    let lines = [
        captured(&push, json!({})),
        captured(&paid, json!({"received_at": "2025-11-24T16:00:00Z"})),
        captured(&forged, json!({})),
    ]
    .join("\n");
    std::fs::write(old.path("captured.jsonl"), lines).expect("written");
    let before = std::fs::read_to_string(old.path("tidegate.yaml")).expect("the config");
    let replay = async |config: &str, more: &[&str]| {
        std::fs::write(old.path("new.yaml"), config).expect("written");
        let arguments = [&["check", "--config", "new.yaml", "--replay", "captured.jsonl"], more].concat();
        let output = run(old.folder(), &arguments).await;
        (output.status.code(), text(&output))
    };
    let against = ["--against", "tidegate.yaml"];

    let (code, told) = replay(&before, &against).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("3  requests") && told.contains("3  as before") && !told.contains("line "),
        "{told}"
    );

    // Another secret: what was accepted would be refused.
    std::fs::write(old.path("secrets/other.secret"), "another").expect("written");
    let broken = before.replace("file:secrets/github.secret", "file:secrets/other.secret");
    assert_ne!(broken, before);
    let (code, told) = replay(&broken, &against).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("1  WERE ACCEPTED AND WOULD BE REFUSED"), "{told}");
    assert!(told.contains("after   refused (signature_invalid), route github, mode buffer"), "{told}");

    // Another path and another mode: the one is lost, the other changes.
    let moved = before.replace("/hooks/stripe", "/hooks/payments");
    let (code, told) = replay(&moved, &[&against[..], &["-o", "json"]].concat()).await;
    assert_eq!(code, Some(1), "{told}");
    let report: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(report["replay"]["changed"][0]["after"]["reason"], "no_route", "{report}");
    assert_eq!((&report["replay"]["newly_refused"], &report["replay"]["unchanged"]), (&json!(1), &json!(2)));

    // Without another config the lines' own outcomes count.
    let lines = [
        captured(&push, json!({"outcome": {"accepted": true, "route": "github"}})),
        captured(&forged, json!({"outcome": {"accepted": true}})),
    ]
    .join("\n");
    std::fs::write(old.path("captured.jsonl"), lines).expect("written");
    let (code, told) = replay(&before, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("line 2:") && !told.contains("line 1:"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_capture_cannot_decide_is_said_and_not_guessed() {
    let app = App::start().await;
    let of_clients = Route::new(json!({
        "name": "partners", "path": "/in/{endpoint}", "clients": "endpoints", "provider": "github",
        "secret": "client:secret",
    }));
    let gateway = gateway().route(github().to(&app)).route(of_clients.to(&app)).start().await;
    let write = |lines: &[String]| {
        std::fs::write(gateway.path("captured.jsonl"), lines.join("\n")).expect("written");
    };
    let replay = async || {
        let output = gateway.cli(&["check", "--replay", "captured.jsonl", "-o", "json"]).await;
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["replay"].clone()
    };
    let verify = async |route: &str, more: &[&str]| {
        let arguments =
            [&["verify", "--route", route, "--requests", "captured.jsonl", "--explain"], more].concat();
        let output = gateway.cli(&arguments).await;
        (output.status.code(), text(&output))
    };

    // A header that verification reads and one hop claims: refused as the gateway refuses it.
    let hop = signed::github(push()).header("Connection", "close, X-Hub-Signature-256");
    assert_eq!(gateway.send(&hop).await.status, 401);
    write(&[captured(&hop, json!({"outcome": {"accepted": true}}))]);
    assert_eq!(replay().await["reasons"], json!({"ambiguous_request": 1}));
    let (code, told) = verify("github", &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("\"reason\":\"ambiguous_request\"") && told.contains("[connection]"), "{told}");

    // A client's secret is in the gateway's buffer: without it nothing is judged that depends on it.
    let partner = signed::github_with("the-secret-of-acme", push()).to("/in/whatever");
    let unsigned = Request::post("/in/whatever", "{}");
    write(&[captured(&partner, json!({})), captured(&unsigned, json!({}))]);
    let report = replay().await;
    assert_eq!((&report["untold"], &report["refused"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["reasons"], json!({"signature_missing": 1}));
    let (code, told) = verify("partners", &[]).await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("--client-secret env:NAME"), "{told}");
    std::fs::write(gateway.path("acme"), "the-secret-of-acme").expect("written");
    let (code, told) = verify("partners", &["--client-secret", "file:acme"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("\"accepted\":true") && told.contains("whether a URL is a client's is not judged"),
        "{told}"
    );
    std::fs::write(gateway.path("bolt"), "the-secret-of-bolt\n").expect("written");
    let (_, told) = verify("partners", &["--client-secret", "file:bolt"]).await;
    assert!(told.contains("\"reason\":\"signature_invalid\"") && !told.contains("the-secret-of"), "{told}");
    let (code, told) = verify("github", &["--client-secret", "file:acme"]).await;
    assert_eq!(code, Some(2), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_address_floods_a_route_with_pushes_out_nothing_of_another() {
    let app = App::start().await;
    let gateway = gateway()
        .route(github().named("github").to(&app))
        .section("quarantine", json!({"max_events": 20, "rate": "50/s"}))
        .listener("trusted_hops", json!(["127.0.0.1"]))
        .start()
        .await;
    let from =
        |address: &str, body: String| signed::github_with("wrong", body).header("X-Forwarded-For", address);
    let mut connection = gateway.connect().await;
    let kept = [("outcome", "kept")];
    for round in 0..3u32 {
        // Refused by mistake, and then a flood that alone would fill it twice.
        let mistaken = from("192.0.2.1", format!("{{\"mistaken\":{round}}}"));
        assert_eq!(connection.send(&mistaken).await.expect("an answer").status, 401);
        let before = gateway.metric("tidegate_quarantined_total", &kept).await;
        eventually("the flood fills it", async || {
            let flood = from("10.6.6.6", unique_id());
            for _ in 0..20 {
                assert_eq!(gateway.send(&flood).await.status, 401);
            }
            gateway.metric("tidegate_quarantined_total", &kept).await >= before + 40.0
        })
        .await;
    }
    let items = items(&gateway).await;
    let of = |address: &str| items.iter().filter(|item| item["source"] == address).count();
    assert_eq!((of("192.0.2.1"), of("10.6.6.6")), (3, 17), "{items:?}");
}
