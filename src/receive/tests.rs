//! The whole list, with a real config and real verification, in front of a buffer and an app in memory.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::testing::{FakeApp, InMemory, Says, Scene, Script};
use super::*;
use crate::config::KeySources;
use crate::reason::Reason;
use crate::verify::{KeySource, Lacking, Lookup, Remote, Settled};

mod metric;

const SECRET: &str = "It's a Secret to Everybody";

const CONFIG: &str = r#"
listeners:
  - address: 127.0.0.1:18080
limits:
  body_bytes: 4KiB
  body_budget: 4KiB
routes:
  - { name: signed, path: /signed, provider: github, secret: "file:secret", forward_to: "http://127.0.0.1:9" }
  - { name: chat, path: /chat, provider: slack, secret: "file:secret", forward_to: "http://127.0.0.1:9" }
  - { name: inner, path: /inner, methods: [POST], allow: [10.0.0.0/8], verify: none, forward_to: "http://127.0.0.1:9" }
  - name: proxied
    path: /proxied
    mode: proxy
    verify: none
    idempotency: { key: "header:x-id", window: 1h }
    forward_to: http://127.0.0.1:9
  - name: fetched
    path: /fetched
    verify:
      algorithm: ed25519
      signature: { from: "header:x-signature", encoding: hex }
      key_source: { url: "https://keys.example/{key}", from: "header:x-key" }
    forward_to: http://127.0.0.1:9
  - { name: passed, path: "/app/*", mode: pass, forward_to: "http://127.0.0.1:9" }
"#;

/// Keys that turn out not to exist, after as many milliseconds as their names say.
#[derive(Debug, Default)]
struct SlowKeys(Arc<AtomicBool>);

impl KeySources for SlowKeys {
    fn source(&self, _: Remote) -> Arc<dyn KeySource> {
        Arc::new(Self(self.0.clone()))
    }
}

impl KeySource for SlowKeys {
    fn lookup(&self, name: &str, _: std::net::IpAddr) -> Lookup {
        match name {
            "unknown" => Lookup::Absent,
            "failing" => Lookup::Failing,
            _ if self.0.load(SeqCst) => Lookup::Absent,
            _ => Lookup::Asked,
        }
    }
    fn lacks(&self, _: &str) -> Lacking {
        Lacking::Fresh
    }
    fn settled(&self, name: &str) -> Settled {
        let (known, after) = (self.0.clone(), name.parse().unwrap_or(0));
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            known.store(true, SeqCst);
        })
    }
}

struct Stage {
    config: Config,
    scene: Scene<FakeApp>,
}

impl Stage {
    fn new() -> Self {
        Self::with(FakeApp::default())
    }
    fn with(app: FakeApp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let path = folder.path().join("tidegate.yaml");
        std::fs::write(&path, CONFIG).unwrap();
        let config = crate::config::load(&path, &SlowKeys::default()).unwrap().config;
        let mut scene = Scene::new(app);
        scene.upstreams = config
            .routes
            .iter()
            .flat_map(|route| route.mode.destinations())
            .map(|to| (to.name.clone(), scene.app.clone()))
            .collect::<HashMap<_, _>>();
        Self { config, scene }
    }

    async fn send(&self, mut exchange: InMemory) -> InMemory {
        answered(&self.config, &self.scene.context(), &mut exchange).await;
        exchange
    }

    /// Nothing was kept of whatever came.
    fn is_untouched(&self) -> bool {
        let Scene { buffer, app, intake, .. } = &self.scene;
        buffer.stored().is_empty()
            && buffer.claims() == 0
            && app.requests.load(SeqCst) == 0
            && intake.budget.used() == 0
            && intake.in_flight.len() == 0
    }
}

fn mac(bytes: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(bytes);
    hex::encode(mac.finalize().into_bytes())
}

fn post(path: &str, body: &'static str) -> InMemory {
    InMemory::post(path).declared(body.len() as u64).sends([Bytes::from(body)])
}

fn signed(body: &'static str) -> InMemory {
    let signature = format!("sha256={}", mac(body.as_bytes()));
    post("/signed", body).headers(&[
        ("X-Hub-Signature-256", &signature),
        ("X-GitHub-Delivery", "72d3162e"),
        ("X-GitHub-Event", "push"),
    ])
}

#[tokio::test(start_paused = true)]
async fn a_signed_event_is_stored_and_its_repeat_recognised() {
    let stage = Stage::new();
    let first = stage.send(signed("{}")).await;
    assert_eq!(first.answered().unwrap().status, 202);
    let id = stage.scene.buffer.stored()[0].to_string();
    assert!(first.answered().unwrap().headers.contains(&("tidegate-event-id".into(), id.clone())));
    let again = stage.send(signed("{}")).await;
    assert!(again.answered().unwrap().headers.contains(&("tidegate-event-id".into(), id)));
    assert!(again.answered().unwrap().headers.contains(&("tidegate-duplicate".into(), "true".into())));
    assert_eq!(stage.scene.buffer.stored().len(), 1);
    assert_eq!(stage.scene.intake.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_verified_leaves_nothing_behind() {
    let stage = Stage::new();
    let unsigned = stage.send(post("/signed", "{}")).await;
    assert_eq!(unsigned.reason(), Some("signature_missing"));
    let forged =
        post("/signed", "{ }").headers(&[("X-Hub-Signature-256", &format!("sha256={}", mac(b"{}")))]);
    assert_eq!(stage.send(forged).await.reason(), Some("signature_invalid"));
    assert!(stage.is_untouched());
}

#[tokio::test(start_paused = true)]
async fn a_signature_made_hop_by_hop_is_refused_unread() {
    let stage = Stage::new();
    let tricky = post("/signed", "{}").headers(&[("Connection", "x-hub-signature-256")]);
    let answer = stage.send(tricky).await;
    assert_eq!((answer.reason(), answer.reads()), (Some("ambiguous_request"), 0));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_place_method_or_address_is_told_before_the_body() {
    let stage = Stage::new();
    let mut others = stage.scene.intake.budget.reservation(4096);
    others.grow_to(3000).unwrap();
    for (request, reason) in [
        (post("/nowhere", "{}"), Reason::NoRoute),
        (InMemory::new(crate::message::Method::PUT, "/inner"), Reason::MethodNotAllowed),
        (post("/inner", "{}").from([192, 0, 2, 9]), Reason::AddressNotAllowed),
        (post("/inner", "{}").from([10, 0, 0, 1]).declared(1 << 40), Reason::BodyTooLarge),
        (post("/inner", "{}").from([10, 0, 0, 1]).declared(2000), Reason::BodyBudget),
    ] {
        let answer = stage.send(request).await;
        assert_eq!(answer.reason(), Some(reason.code()));
        assert_eq!((answer.answered().unwrap().status, answer.reads()), (reason.status(), 0));
    }
    drop(others);
    assert!(stage.is_untouched());
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_is_told_before_the_body() {
    let stage = Stage::new();
    stage.scene.buffer.full();
    let answer = stage.send(signed("{}")).await;
    assert_eq!((answer.reason(), answer.reads()), (Some("buffer_full"), 0));
    assert!(answer.answered().unwrap().headers.iter().any(|(name, _)| *name == "retry-after"));
}

#[tokio::test(start_paused = true)]
async fn only_a_signed_greeting_is_answered_and_nothing_is_stored() {
    let stage = Stage::new();
    let body = r#"{"type":"url_verification","challenge":"3eZbrw1aBm2rZgRNFdxV2595"}"#;
    assert!(stage.send(post("/chat", body)).await.reason().is_some());
    let now = stage.scene.clock.now().as_secs();
    let signature = format!("v0={}", mac(format!("v0:{now}:{body}").as_bytes()));
    let greeting = post("/chat", body).headers(&[
        ("X-Slack-Request-Timestamp", &now.to_string()),
        ("X-Slack-Signature", &signature),
        ("Content-Type", "application/json"),
    ]);
    let answer = stage.send(greeting).await;
    let answer = answer.answered().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"3eZbrw1aBm2rZgRNFdxV2595"[..]));
    assert!(stage.is_untouched());
}

#[tokio::test(start_paused = true)]
async fn a_proxied_event_gets_the_apps_answer_once() {
    let stage = Stage::with(FakeApp::new([Script::answers(201, &["made"])]));
    let request = || post("/proxied", "{}").headers(&[("X-Id", "1")]);
    let first = stage.send(request()).await;
    assert_eq!((first.started.as_ref().unwrap().0, &first.written[..]), (201, &b"made"[..]));
    let again = stage.send(request()).await;
    assert_eq!((again.answered().unwrap().status, &again.answered().unwrap().body[..]), (201, &b"made"[..]));
    assert_eq!(stage.scene.app.requests.load(SeqCst), 1);
    assert!(stage.scene.buffer.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn other_paths_stream_through() {
    let stage = Stage::with(FakeApp::new([Script::answers(200, &["page"])]));
    let answer = stage.send(post("/app/page?x=1", "form")).await;
    assert_eq!((&answer.written[..], answer.finished), (&b"page"[..], true));
    assert_eq!(stage.scene.app.received.lock().0, b"form");
    assert_eq!(stage.scene.buffer.claims(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_key_but_not_for_ever() {
    let send = async |key: &str| {
        let stage = Stage::new();
        let began = tokio::time::Instant::now();
        let answer =
            stage.send(post("/fetched", "{}").headers(&[("X-Signature", "00"), ("X-Key", key)])).await;
        assert!(stage.is_untouched());
        let retry = answer.answered().unwrap().headers.iter().any(|(name, _)| *name == "retry-after");
        (
            answer.answered().unwrap().status,
            answer.reason().unwrap().to_owned(),
            retry,
            began.elapsed().as_millis(),
        )
    };
    let (refused, unavailable) = ("signature_invalid".to_owned(), "key_unavailable".to_owned());
    // The fetch ends in time, and says that there is no such key.
    let (status, reason, retry, waited) = send("1500").await;
    assert_eq!((status, reason, retry), (401, refused.clone(), false));
    assert!((1500..1600).contains(&waited), "{waited}");
    let (status, reason, retry, waited) = send("60000").await;
    assert_eq!((status, reason, retry), (503, unavailable.clone(), true));
    assert!((2000..2100).contains(&waited), "{waited}");
    // Nothing is under way: nobody waits.
    assert_eq!(send("failing").await, (503, unavailable, true, 0));
    assert_eq!(send("unknown").await, (401, refused, false, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_and_gives_everything_back() {
    let stage = Stage::with(FakeApp::new([Script::says(Says::Panic), Script::answers(200, &["ok"])]));
    let request = || post("/proxied", "{}").headers(&[("X-Id", "1")]);
    assert_eq!(stage.send(request()).await.reason(), Some("internal_error"));
    let reading = stage.send(InMemory::post("/signed").declared(100).panics()).await;
    assert_eq!(reading.reason(), Some("internal_error"));
    assert_eq!((stage.scene.intake.budget.used(), stage.scene.intake.in_flight.len()), (0, 0));
    assert_eq!(stage.send(request()).await.started.unwrap().0, 200);
}
