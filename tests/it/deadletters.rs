//! Dead letters and what can be done about many events: finding them, replaying them in the background (also through
//! a `kill -9`), giving them to another destination, and moving them to another gateway. `REPLAY` says how many
//! dead letters the replay that is killed has (120 unless set).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::sender::Connection;
use crate::support::*;

/// Sends so many events over a few connections.
async fn filled(gateway: &Gateway, count: usize) {
    const CONNECTIONS: usize = 8;
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|first| {
            let address = gateway.plain();
            tokio::spawn(async move {
                let open = async || Connection::plain(address).await.expect("the plain listener accepts");
                let mut connection = open().await;
                for n in (first..count).step_by(CONNECTIONS) {
                    let event = github_event(n);
                    // A connection has an end: what got no answer is sent again, and recognised.
                    let answer = match connection.send(&event).await {
                        Ok(answer) => answer,
                        Err(_) => {
                            connection = open().await;
                            connection.send(&event).await.expect("an answer")
                        }
                    };
                    assert_eq!(answer.status, 202);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("all are acknowledged");
    }
}

/// Waits as long as the count comes nearer to `wanted`.
async fn counts_up_to(what: &str, wanted: f64, count: impl AsyncFn() -> f64) {
    let (mut last, mut moved) = (f64::NAN, Instant::now());
    loop {
        let now = count().await;
        if now == wanted {
            return;
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "{what} stand still at {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn dead_letters(gateway: &Gateway, count: usize) {
    let what = format!("{count} dead letters");
    eventually(&what, async || gateway.metric("tidegate_dead_letters", &[]).await == count as f64).await;
}

/// A gateway whose app took none of so many events for good.
async fn with_dead_letters(count: usize) -> (App, Gateway) {
    let app = App::start().await;
    app.behaves(Behaviour::status(410));
    let gateway = gateway().route(github().to(&app)).start().await;
    for n in 0..count {
        gateway.send(&github_event(n)).await;
    }
    dead_letters(&gateway, count).await;
    (app, gateway)
}

fn github_event(n: usize) -> Request {
    signed::github(format!(
        "{{\"n\":{n},\"user\":{{\"email\":\"user-{n:03}@example.com\"}},\"id\":{}}}",
        unique()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_found_by_every_condition_and_a_wrong_one_is_named() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    app.behaves_next([Behaviour::status(410)]);
    let dead = gateway.send(&github_event(1)).await;
    dead_letters(&gateway, 1).await;
    let good = gateway.send(&github_event(2).header("X-Shop", "Blue Whale")).await;
    gateway.drained().await;
    let found = async |arguments: &[&str]| {
        let page = gateway.cli_json(&[&["events", "list"], arguments].concat()).await;
        let ids = page["events"].as_array().expect("events").iter();
        ids.map(|event| event["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["--reason", "given_up"]).await, [dead.event_id()]);
    assert_eq!(found(&["--status", "4xx"]).await, [dead.event_id()]);
    assert_eq!(found(&["--status", "200"]).await, [good.event_id()]);
    assert_eq!(found(&["--header", "x-shop: blue"]).await, [good.event_id()]);
    assert_eq!(found(&["--source", "127.0.0.0/8"]).await.len(), 2);
    assert_eq!(found(&["--source", "10.0.0.0/8"]).await.len(), 0);
    let email = ["--pointer", "/user/email", "--equals", "user-002@example.com"];
    assert_eq!(found(&email).await, [good.event_id()]);
    let page = gateway.cli_json(&["events", "list", "--status", "200"]).await;
    let key = page["events"][0]["idempotency_key"].as_str().expect("a key").to_owned();
    assert_eq!(found(&["--key", &key]).await, [good.event_id()]);
    let wrong = gateway.cli(&["dead", "list", "--reason", "given-up"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(printed(&wrong).contains("did you mean `given_up`"), "{}", printed(&wrong));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_after_a_kill_and_each_dead_letter_comes_once() {
    let events = std::env::var("REPLAY").ok().and_then(|text| text.parse().ok()).unwrap_or(120_usize);
    let app = App::start().await;
    app.behaves(Behaviour::status(410));
    let mut gateway = gateway().route(github().to(&app)).start().await;
    let began = Instant::now();
    filled(&gateway, events).await;
    let dead = async |gateway: &Gateway| gateway.metric("tidegate_dead_letters", &[]).await;
    counts_up_to("dead letters", events as f64, async || dead(&gateway).await).await;
    let all_dead = began.elapsed();
    let counted = done(&gateway, &["dead", "replay", "--all", "--dry-run"]).await;
    assert!(counted.contains(&format!("{events} events would be replayed")), "{counted}");
    app.forget();
    app.behaves(Behaviour::status(200));
    let began = Instant::now();
    // Slow enough that the kill comes in the middle.
    let rate = (events / 2).min(1000).to_string();
    let job = gateway.cli_json(&["dead", "replay", "--all", "--rate", &rate, "--background"]).await;
    let id = job["id"].as_str().expect("an id").to_owned();
    let before_the_kill = events / 4;
    let arrived = async || app.count().min(before_the_kill) as f64;
    counts_up_to("replayed events", before_the_kill as f64, arrived).await;
    let at_the_kill = gateway.cli_json(&["jobs", "show", &id]).await;
    gateway.kill().await;
    let killed = Instant::now();
    gateway.restart().await;
    let back = killed.elapsed();
    let shown = async |gateway: &Gateway| gateway.cli_json(&["jobs", "show", &id]).await;
    counts_up_to("the job's events", events as f64, async || {
        shown(&gateway).await["changed"].as_f64().unwrap_or(0.0)
    })
    .await;
    eventually("the job's end", async || shown(&gateway).await["state"] == "done").await;
    let job = shown(&gateway).await;
    assert_eq!((&job["changed"], &job["untouched"]), (&events.into(), &0.into()), "{job}");
    counts_up_to("the backlog's events", 0.0, async || gateway.backlog().await).await;
    assert_eq!(dead(&gateway).await, 0.0);
    let mut times: HashMap<String, Vec<u32>> = HashMap::new();
    for received in app.received() {
        times.entry(received.event_id().to_owned()).or_default().push(received.attempt());
    }
    // What was in flight at the kill may repeat, with its attempt; a second replay would begin a new budget.
    let repeated = times.values().filter(|attempts| attempts.len() > 1).count();
    println!(
        "replay: {events} dead letters in {all_dead:.1?}; {} replayed at the kill, ready again after {back:.1?}; all replayed \
         and delivered in {:.1?}; {} arrived, {repeated} of them twice",
        at_the_kill["changed"],
        began.elapsed(),
        times.len()
    );
    assert_eq!(times.len(), events, "none is lost");
    assert!(repeated <= 32, "{repeated} came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_paused_over_a_restart_resumed_and_cancelled() {
    let (_app, mut gateway) = with_dead_letters(20).await;
    let job = gateway.cli_json(&["dead", "replay", "--all", "--rate", "1", "--background"]).await;
    let id = job["id"].as_str().expect("an id").to_owned();
    let paused = gateway.cli_json(&["jobs", "pause", &id]).await;
    assert_eq!(paused["state"], "paused", "{paused}");
    gateway.kill().await;
    gateway.restart().await;
    assert_eq!(gateway.cli_json(&["jobs", "list"]).await["jobs"][0]["state"], "paused");
    assert_eq!(gateway.cli_json(&["jobs", "resume", &id]).await["state"], "running");
    let cancelled = gateway.cli_json(&["jobs", "cancel", &id]).await;
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["changed"].as_u64().expect("a number") < 20, "{cancelled}");
    let again = gateway.cli(&["jobs", "resume", &id]).await;
    assert!(again.status.code() == Some(1) && printed(&again).contains("ended already"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_job_is_told_that_it_goes_on_when_the_gateway_goes_away() {
    let (_app, mut gateway) = with_dead_letters(20).await;
    let folder = gateway.folder().to_owned();
    let waiting = tokio::spawn(async move {
        let replay = ["dead", "replay", "--all", "--rate", "1", "-o", "json", "--config", "tidegate.yaml"];
        gateway::run(&folder, &replay).await
    });
    let running = async || gateway.cli_json(&["jobs", "list"]).await["jobs"][0]["state"] == "running";
    eventually("the job has begun", running).await;
    gateway.kill().await;
    let waited = waiting.await.expect("the command ends");
    assert_eq!(waited.status.code(), Some(3), "{waited:?}");
    let job: serde_json::Value = serde_json::from_slice(&waited.stdout).expect("JSON");
    let id = job["id"].as_str().expect("an id");
    let said = String::from_utf8_lossy(&waited.stderr).into_owned();
    assert!(said.contains("no gateway answers") || said.contains("broke off"), "{said}");
    assert!(said.contains(&format!("`tidegate jobs show {id}`")) && said.contains("goes on"), "{said}");
    gateway.restart().await;
    assert_eq!(gateway.cli_json(&["jobs", "show", id]).await["state"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_given_to_another_destination_when_asked_and_only_then() {
    let (app, other) = (App::start().await, App::start().await);
    let gateway = gateway()
        .route(github().named("first").to(&app))
        .route(stripe().named("second").to(&other))
        .start()
        .await;
    let answer = gateway.send(&github_event(1)).await;
    app.receives(1).await;
    gateway.drained().await;
    assert_eq!(other.count(), 0);
    let wrong = gateway.cli(&["events", "replay", "--route", "first", "--to", "second/none"]).await;
    assert!(printed(&wrong).contains("second/app"), "{}", printed(&wrong));
    done(&gateway, &["events", "replay", "--route", "first", "--to", "second/app"]).await;
    assert_eq!(other.receives(1).await[0].event_id(), answer.event_id());
    gateway.drained().await;
    assert_eq!(app.count(), 1, "the first destination gets nothing again");
    let shown = gateway.cli_json(&["events", "show", answer.event_id()]).await;
    let deliveries = shown["deliveries"].as_array().expect("deliveries");
    assert!(deliveries.len() == 2 && deliveries.iter().all(|d| d["state"] == "delivered"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_move_to_another_gateway_once_and_with_their_state() {
    let (app, target) = (App::start().await, App::start().await);
    let from = gateway().route(github().to(&app)).start().await;
    let delivered = github_event(1);
    from.send(&delivered).await;
    app.receives(1).await;
    from.drained().await;
    app.behaves(Behaviour::status(410));
    let dead = from.send(&signed::github(vec![0xff; 100_000])).await;
    dead_letters(&from, 1).await;
    app.behaves(Behaviour::Hang);
    let waiting = github_event(3);
    let pending = from.send(&waiting).await;
    done(&from, &["export", "--file", "all.tar"]).await;

    let to = gateway().route(github().to(&target)).start().await;
    let archive = from.path("all.tar");
    let archive = archive.to_str().expect("a path");
    let told = done(&to, &["import", archive]).await;
    assert!(told.contains("3 imported"), "{told}");
    let received = target.receives(1).await;
    assert_eq!((received[0].event_id(), &received[0].body[..]), (pending.event_id(), &waiting.body[..]));
    to.drained().await;
    dead_letters(&to, 1).await;
    assert_eq!(to.send(&delivered).await.status, 202, "a repeat of what was imported is answered");
    let told = done(&to, &["import", archive]).await;
    assert!(told.contains("0 imported, 3 here already"), "{told}");
    done(&to, &["dead", "replay", "--all"]).await;
    let received = target.receives(2).await;
    assert_eq!(received[1].event_id(), dead.event_id());
    assert_eq!(received[1].body, vec![0xff; 100_000]);
    to.drained().await;
    assert_eq!(target.count(), 2, "neither the delivered one nor its repeat comes to the app");

    let cut = to.path("cut.tar");
    let bytes = std::fs::read(archive).expect("the archive");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("write");
    let broken = to.cli(&["import", "cut.tar"]).await;
    assert!(!broken.status.success() && printed(&broken).contains("breaks off"), "{broken:?}");
    // Between two events, and before the first: no event breaks off, and still something is missing.
    std::fs::write(&cut, bytes.strip_suffix(&[0; 1024][..]).expect("an archive has an end")).expect("write");
    let endless = to.cli(&["import", "cut.tar"]).await;
    assert_eq!(endless.status.code(), Some(1), "{endless:?}");
    let told = printed(&endless);
    assert!(
        told.contains("3 here already") && told.contains("end (two blocks of zeros) is missing"),
        "{told}"
    );
    let nothing = to.cli(&["import", "-"]).await;
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
    assert!(printed(&nothing).contains("end (two blocks of zeros) is missing"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_to_a_hyphen_goes_to_standard_output() {
    let app = App::start().await;
    let gateway = gateway().route(github().to(&app)).start().await;
    let sent = github_event(1);
    assert_eq!(gateway.send(&sent).await.status, 202);
    gateway.drained().await;
    let exported = gateway.cli(&["export", "--file", "-"]).await;
    assert!(exported.status.success(), "{exported:?}");
    assert!(exported.stdout.windows(sent.body.len()).any(|bytes| bytes == &sent.body[..]), "{exported:?}");
    assert!(!gateway.path("-").exists());
    // What was written is told to programs, too: beside the archive where that goes to standard output.
    let told = gateway.cli_json(&["export", "--file", "all.tar"]).await;
    let bytes = std::fs::metadata(gateway.path("all.tar")).expect("the archive").len();
    assert_eq!(told, json!({"file": "all.tar", "bytes": bytes}));
    let exported = gateway.cli(&["export", "-o", "json"]).await;
    assert_eq!(exported.stdout.len() as u64, bytes);
    let told: serde_json::Value = serde_json::from_slice(&exported.stderr).expect("JSON");
    assert_eq!(told, json!({"file": null, "bytes": bytes}));
}
