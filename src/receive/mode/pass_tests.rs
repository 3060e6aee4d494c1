use std::sync::atomic::Ordering::SeqCst;

use super::*;
use crate::message::Method;
use crate::receive::testing::{FakeApp, InMemory, Says, Scene, Script, outgoing};

const IDLE: Duration = Duration::from_secs(60);

async fn send(scene: &Scene<FakeApp>, exchange: &mut InMemory, max_body: u64) -> Result<Outcome, Refused> {
    let mut tracked = Tracked::new(exchange);
    let result = async {
        let body = Body::of(&mut tracked, max_body).await?;
        both_ways(&*scene.app, &mut tracked, &outgoing(), body, max_body, IDLE).await
    }
    .await;
    if let Err(refused) = &result {
        tracked.refuse(refused).await;
    }
    result
}

fn pieces(count: usize, bytes: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(vec![n as u8; bytes])).collect()
}

#[tokio::test(start_paused = true)]
async fn both_bodies_stream_through_whole() {
    let scene =
        Scene::new(FakeApp::new([Script::answers(200, &["a", "b", "c"]).with(("Set-Cookie", "x")).after(2)]));
    let sent = pieces(50, 3000);
    for declared in [Some(150_000), None] {
        *scene.app.received.lock() = Default::default();
        let mut exchange = InMemory::post("/").sends(sent.clone());
        if let Some(length) = declared {
            exchange = exchange.declared(length);
        }
        assert_eq!(send(&scene, &mut exchange, 150_000).await, Ok(Outcome::Passed));
        assert_eq!(*scene.app.received.lock(), (sent.concat(), true));
        assert_eq!((&exchange.written[..], exchange.finished), (&b"abc"[..], true));
        assert_eq!(exchange.header("set-cookie"), Some(&b"x"[..]));
        assert_eq!(exchange.header("tidegate-event-id"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_is_sent_without_one() {
    let mut exchange = InMemory::new(Method::GET, "/");
    assert_eq!(Body::of(&mut exchange, 10).await, Ok(Body::None));
    let mut exchange = InMemory::post("/").declared(0);
    assert_eq!(Body::of(&mut exchange, 10).await, Ok(Body::None));
    assert_eq!(Body::None.length(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_is_passed_on_while_the_body_stalls() {
    let scene = Scene::new(FakeApp::new([Script::answers(403, &["no"]).before_the_body()]));
    let mut exchange = InMemory::post("/").declared(1_000_000).sends(pieces(1, 100)).stalls();
    assert_eq!(send(&scene, &mut exchange, 1_000_000).await, Ok(Outcome::Passed));
    assert_eq!((exchange.started.unwrap().0, &exchange.written[..]), (403, &b"no"[..]));
    assert!(exchange.finished && !scene.app.received.lock().1);
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_refused_and_never_ended_at_the_app() {
    let scene = Scene::new(FakeApp::default());
    let mut exchange = InMemory::post("/").sends(pieces(10, 400));
    let refused = send(&scene, &mut exchange, 1000).await.unwrap_err();
    assert_eq!((refused.reason, exchange.reason()), (Reason::BodyTooLarge, Some("body_too_large")));
    assert!(!scene.app.received.lock().1);

    let mut declared = InMemory::post("/").declared(1001);
    assert_eq!(send(&scene, &mut declared, 1000).await.unwrap_err().reason, Reason::BodyTooLarge);
    assert_eq!((declared.reads(), scene.app.requests.load(SeqCst)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_never_ended_at_the_app() {
    let scene = Scene::new(FakeApp::default());
    let mut exchange = InMemory::post("/").declared(800).sends(pieces(1, 400)).breaks(Reason::BodyIncomplete);
    assert_eq!(send(&scene, &mut exchange, 1000).await.unwrap_err().reason, Reason::BodyIncomplete);
    assert!(!scene.app.received.lock().1);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_breaks_is_502_before_its_head_and_a_break_after_it() {
    let scene = Scene::new(FakeApp::new([
        Script::says(Says::Nothing),
        Script::answers(200, &["half"]).then_breaks(),
    ]));
    let mut before = InMemory::new(Method::GET, "/");
    assert_eq!(send(&scene, &mut before, 10).await.unwrap_err().reason, Reason::UpstreamUnavailable);
    assert_eq!(before.reason(), Some("upstream_unavailable"));
    let mut after = InMemory::new(Method::GET, "/");
    assert_eq!(send(&scene, &mut after, 10).await.unwrap_err().reason, Reason::UpstreamUnavailable);
    assert!(after.aborted && !after.finished);
}

fn websocket() -> InMemory {
    InMemory::new(Method::GET, "/")
        .headers(&[("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")])
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_becomes_a_pipe_and_half_closes() {
    let scene = Scene::new(FakeApp::new([Script::says(Says::Echo)]));
    let mut exchange = websocket().then_raw(pieces(20, 999));
    // The limit of bodies is not one of a pipe.
    assert_eq!(send(&scene, &mut exchange, 1000).await, Ok(Outcome::Passed));
    assert_eq!(exchange.started.as_ref().unwrap().0, 101);
    assert_eq!(exchange.header("upgrade"), Some(&b"websocket"[..]));
    // That this is an upgrade is the edge's to say for its hop.
    assert_eq!(exchange.header("connection"), None);
    assert_eq!(exchange.written, pieces(20, 999).concat());
    assert_eq!(*scene.app.received.lock(), (exchange.written, true));
}

#[tokio::test(start_paused = true)]
async fn a_silent_pipe_is_closed() {
    let scene = Scene::new(FakeApp::new([Script::says(Says::Echo)]));
    let mut exchange = websocket().then_raw(pieces(2, 10)).then_silence();
    let began = Instant::now();
    assert_eq!(send(&scene, &mut exchange, 1000).await, Ok(Outcome::Passed));
    assert_eq!((exchange.written.len(), exchange.finished, began.elapsed()), (20, true, IDLE));
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let scene = Scene::new(FakeApp::new([Script::answers(400, &["no"]).before_the_body()]));
    let mut exchange = websocket();
    assert_eq!(send(&scene, &mut exchange, 1000).await, Ok(Outcome::Passed));
    assert_eq!((exchange.started.unwrap().0, &exchange.written[..]), (400, &b"no"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_nobody_asked_for_is_refused() {
    let scene = Scene::new(FakeApp::new([Script::says(Says::Echo)]));
    let mut exchange = InMemory::new(Method::GET, "/");
    assert_eq!(send(&scene, &mut exchange, 10).await.unwrap_err().reason, Reason::UpstreamUnavailable);
}

#[test]
fn only_protocols_that_are_not_http_or_tls_again_may_be_switched_to() {
    for (upgrade, expected) in [
        ("websocket", true),
        ("WebSocket", true),
        ("h2c", false),
        ("websocket, h2c", false),
        ("HTTP/2.0", false),
        ("TLS/1.3", false),
        ("", false),
    ] {
        let asks = InMemory::post("/").headers(&[("Connection", "Upgrade"), ("Upgrade", upgrade)]);
        assert_eq!(asks_for_upgrade(asks.head()), expected, "{upgrade}");
    }
    assert!(!asks_for_upgrade(InMemory::post("/").headers(&[("Upgrade", "websocket")]).head()));
}
