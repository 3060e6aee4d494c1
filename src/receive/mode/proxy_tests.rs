use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context as Task, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::buffer::DestinationName;
use crate::receive::testing::{FakeApp, InMemory, Says, Scene, Script, identity, now_or_never, outgoing};

fn call(scene: &Scene<FakeApp>) -> Call<'_, FakeApp> {
    Call {
        app: &scene.app,
        breaker: Guarded { breaker: scene.breakers.of(&DestinationName::new("r", "d")), settings: None },
        clock: &scene.clock,
        route: "r",
        id: EventId::new(scene.clock.now()),
        outgoing: outgoing(),
        body: Bytes::from_static(b"{}"),
        timeout: Duration::from_secs(10),
        span: None,
    }
}

async fn send(scene: &Scene<FakeApp>, exchange: &mut InMemory) -> Result<Outcome, Refused> {
    let mut tracked = Tracked::new(exchange);
    let call = call(scene);
    let result = call.relay_once(&scene.context(), &mut tracked, &identity("k")).await;
    if let Err(refused) = &result {
        tracked.refuse(refused).await;
    }
    result
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

#[test]
fn the_apps_real_answer_is_streamed_back_with_the_event_id() {
    let scene = Scene::new(FakeApp::new([Script::answers(201, &["one ", "two"])
        .with(("X-App", "1"))
        .with(("Keep-Alive", "timeout=5"))]));
    let mut exchange = InMemory::post("/");
    let outcome = now_or_never(send(&scene, &mut exchange));
    let Ok(Outcome::Forwarded(id)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(exchange.started.as_ref().unwrap().0, 201);
    assert_eq!((&exchange.written[..], exchange.finished), (&b"one two"[..], true));
    assert_eq!(exchange.header("x-app"), Some(&b"1"[..]));
    assert_eq!(exchange.header("keep-alive"), None);
    assert_eq!(exchange.header("tidegate-event-id"), Some(id.to_string().as_bytes()));
    assert_eq!(scene.buffer.claims(), 1);
}

#[test]
fn a_repeat_gets_the_apps_first_answer() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["done"]).with(("Content-Type", "a/b"))]));
    let first = now_or_never(send(&scene, &mut InMemory::post("/")));
    let Ok(Outcome::Forwarded(id)) = first else { panic!("{first:?}") };
    let mut again = InMemory::post("/");
    assert_eq!(now_or_never(send(&scene, &mut again)), Ok(Outcome::Duplicate(id)));
    let answer = again.answered().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"done"[..]));
    for (name, value) in [
        ("content-type", "a/b".to_owned()),
        ("tidegate-duplicate", "true".into()),
        ("tidegate-event-id", id.to_string()),
    ] {
        assert!(answer.headers.contains(&(name.into(), value)), "{name}");
    }
    assert_eq!(scene.app.requests.load(SeqCst), 1);
}

#[test]
fn a_claim_that_only_the_buffer_knows_is_found_before_the_app_is_asked() {
    let scene = Scene::new(FakeApp::default());
    let Ok(Outcome::Forwarded(id)) = now_or_never(send(&scene, &mut InMemory::post("/"))) else { panic!() };
    let restarted = Scene { intake: crate::receive::Intake::new(scene.metrics.clone()), ..scene };
    assert_eq!(now_or_never(send(&restarted, &mut InMemory::post("/"))), Ok(Outcome::Duplicate(id)));
    assert_eq!(restarted.buffer.lookups.load(SeqCst), 1);
    // Now it is remembered.
    assert_eq!(now_or_never(send(&restarted, &mut InMemory::post("/"))), Ok(Outcome::Duplicate(id)));
    assert_eq!(restarted.buffer.lookups.load(SeqCst), 1);
}

#[test]
fn a_failure_is_passed_on_and_releases_the_claim() {
    let scene = Scene::new(FakeApp::new([Script::answers(500, &["sorry"]), Script::answers(200, &["ok"])]));
    let mut exchange = InMemory::post("/");
    assert!(matches!(now_or_never(send(&scene, &mut exchange)), Ok(Outcome::Forwarded(_))));
    assert_eq!((exchange.started.as_ref().unwrap().0, &exchange.written[..]), (500, &b"sorry"[..]));
    assert_eq!((scene.buffer.claims(), scene.intake.in_flight.len()), (0, 0));
    assert!(matches!(now_or_never(send(&scene, &mut InMemory::post("/"))), Ok(Outcome::Forwarded(_))));
    assert_eq!(scene.app.requests.load(SeqCst), 2);
}

#[test]
fn an_app_that_is_down_or_slow_is_502_or_504_and_releases_the_claim() {
    for (says, reason) in
        [(Says::Nothing, Reason::UpstreamUnavailable), (Says::Timeout, Reason::UpstreamTimeout)]
    {
        let scene = Scene::new(FakeApp::new([Script::says(says)]));
        let mut exchange = InMemory::post("/");
        let result = now_or_never(send(&scene, &mut exchange));
        assert_eq!(result.map_err(|refused| refused.reason), Err(reason));
        assert_eq!(exchange.reason(), Some(reason.code()));
        assert_eq!((scene.buffer.claims(), scene.intake.in_flight.len()), (0, 0));
    }
}

#[test]
fn an_open_breaker_answers_at_once_and_one_request_probes() {
    let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
    let scene = Scene::new(FakeApp::new([Script::answers(500, &["sick"]), Script::answers(200, &["ok"])]));
    let send = async || {
        let mut exchange = InMemory::post("/");
        let mut tracked = Tracked::new(&mut exchange);
        let mut call = call(&scene);
        call.breaker.settings = Some(&settings);
        let result = call.relay(&mut tracked).await;
        if let Err(refused) = &result {
            tracked.refuse(refused).await;
        }
        (result, exchange)
    };
    within(async {
        assert!(send().await.0.is_ok(), "the app's own 500 is passed on");
        let (refused, exchange) = send().await;
        assert_eq!(refused.map_err(|refused| refused.reason), Err(Reason::UpstreamPaused));
        let answer = exchange.answered().unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.headers.contains(&("retry-after".into(), "30".into())), "{answer:?}");
        assert_eq!(answer.headers.iter().filter(|(name, _)| *name == "retry-after").count(), 1);
        assert_eq!(scene.app.requests.load(SeqCst), 1, "the app is left alone");
        tokio::time::sleep(settings.probe_after).await;
        assert!(send().await.0.is_ok() && send().await.0.is_ok());
        assert_eq!(scene.app.requests.load(SeqCst), 3);
    });
}

#[test]
fn an_answer_that_breaks_is_broken_off_and_releases_the_claim() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["half"]).then_breaks()]));
    let mut exchange = InMemory::post("/");
    let result = now_or_never(send(&scene, &mut exchange));
    assert_eq!(result.map_err(|refused| refused.reason), Err(Reason::UpstreamUnavailable));
    assert!(exchange.aborted && !exchange.finished && exchange.answered().is_none());
    assert_eq!((scene.buffer.claims(), scene.intake.in_flight.len()), (0, 0));
}

#[test]
fn answers_that_break_off_open_the_breaker_and_a_sender_that_left_does_not() {
    let settings = BreakerSettings { failures: 2, ..BreakerSettings::default() };
    let half = || Script::answers(200, &["half"]).then_breaks();
    let scene = Scene::new(FakeApp::new([half(), Script::answers(200, &["whole"]), half(), half()]));
    let breaker = scene.breakers.of(&DestinationName::new("r", "d"));
    let send = |mut exchange: InMemory| {
        let mut tracked = Tracked::new(&mut exchange);
        let mut call = call(&scene);
        call.breaker.settings = Some(&settings);
        now_or_never(call.relay(&mut tracked)).map_err(|refused| refused.reason)
    };
    let phase = || breaker.status().phase;
    let broken = Err(Reason::UpstreamUnavailable);
    assert_eq!(send(InMemory::post("/")), broken);
    assert!(send(InMemory::post("/").gone()).is_ok(), "the app's answer was whole");
    assert_eq!(send(InMemory::post("/")), broken);
    assert_eq!(phase(), breaker::Phase::Closed, "the one between was a success");
    assert_eq!(send(InMemory::post("/")), broken);
    assert_eq!(phase(), breaker::Phase::Open);
}

#[test]
fn an_answer_that_nobody_heard_to_its_end_says_nothing() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["a", "b"]).after(1)]));
    let settings = BreakerSettings { failures: 1, ..BreakerSettings::default() };
    let mut call = call(&scene);
    call.breaker.settings = Some(&settings);
    within(async {
        call.breaker.breaker.admit(Some(&settings)).unwrap().end(breaker::Outcome::Sick { asked: None }, "");
        tokio::time::sleep(settings.probe_after).await;
        drop(call.send().await.unwrap());
        assert_eq!(call.breaker.breaker.status().transitions.closed, 0, "the probe is still to come");
    });
}

#[test]
fn a_success_counts_though_its_sender_has_gone() {
    let scene = Scene::new(FakeApp::default());
    let Ok(Outcome::Forwarded(id)) = now_or_never(send(&scene, &mut InMemory::post("/").gone())) else {
        panic!()
    };
    assert_eq!(now_or_never(send(&scene, &mut InMemory::post("/"))), Ok(Outcome::Duplicate(id)));
}

#[test]
fn a_sender_that_reads_slowly_does_not_use_up_the_apps_time() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["a", "b", "c"])]));
    let mut exchange = InMemory::post("/").slow(Duration::from_secs(3));
    let outcome = within(send(&scene, &mut exchange));
    assert!(matches!(outcome, Ok(Outcome::Forwarded(_))), "{outcome:?}");
    assert_eq!((&exchange.written[..], exchange.finished), (&b"abc"[..], true));
    assert_eq!(scene.app.extended.load(SeqCst), 9_000);
}

#[test]
fn a_sender_that_stops_reading_is_cut_off_and_the_success_counts() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["a", "b", "c"])]));
    let mut exchange = InMemory::post("/").slow(Duration::from_secs(6));
    let (outcome, took) = within(async {
        let start = tokio::time::Instant::now();
        (send(&scene, &mut exchange).await, start.elapsed())
    });
    let Ok(Outcome::Forwarded(id)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&exchange.written[..], exchange.finished, exchange.aborted), (&b"a"[..], false, true));
    assert_eq!(took.as_secs(), 10, "as long as the app's own timeout");
    assert_eq!(now_or_never(send(&scene, &mut InMemory::post("/"))), Ok(Outcome::Duplicate(id)));
}

#[test]
fn an_answer_whose_head_cannot_be_passed_on_is_502_and_releases_the_claim() {
    let scene = Scene::new(FakeApp::new([Script::answers(200, &["ok"]).with(("X-Unsendable", "1"))]));
    let mut exchange = InMemory::post("/");
    let result = now_or_never(send(&scene, &mut exchange));
    assert_eq!(result.map_err(|refused| refused.reason), Err(Reason::UpstreamUnavailable));
    assert_eq!(exchange.reason(), Some("upstream_unavailable"));
    assert_eq!((scene.buffer.claims(), scene.intake.in_flight.len()), (0, 0));
}

#[test]
fn nothing_is_forwarded_while_the_buffer_cannot_tell() {
    let scene = Scene::new(FakeApp::default());
    scene.buffer.fail();
    let result = now_or_never(send(&scene, &mut InMemory::post("/")));
    assert_eq!(result.map_err(|refused| refused.reason), Err(Reason::BufferUnavailable));
    assert_eq!((scene.app.requests.load(SeqCst), scene.intake.in_flight.len()), (0, 0));
}

#[test]
fn a_panic_while_forwarding_releases_the_claim() {
    let scene = Scene::new(FakeApp::new([Script::says(Says::Panic), Script::answers(200, &["ok"])]));
    let mut exchange = InMemory::post("/");
    let panicked = now_or_never(crate::receive::contain::contain(send(&scene, &mut exchange)));
    assert!(panicked.is_err());
    assert_eq!(scene.intake.in_flight.len(), 0);
    assert!(matches!(now_or_never(send(&scene, &mut InMemory::post("/"))), Ok(Outcome::Forwarded(_))));
}

#[test]
fn a_twin_does_not_wait_for_ever() {
    let scene = Scene::new(FakeApp::default());
    let Entered::First(_turn) = scene.intake.in_flight.enter(identity("k").key) else { panic!() };
    let began = tokio::time::Instant::now;
    let (result, waited) = within(async {
        let start = began();
        (send(&scene, &mut InMemory::post("/")).await, start.elapsed())
    });
    assert_eq!(result.map_err(|refused| refused.reason), Err(Reason::UpstreamTimeout));
    assert_eq!(waited.as_secs(), 20);
}

/// What a twin's request may meet at the app.
fn script() -> impl Strategy<Value = Script> {
    let says = prop_oneof![
        2 => Just(Script::answers(200, &["a", "b"])),
        2 => Just(Script::answers(503, &["busy"])),
        1 => Just(Script::answers(200, &["half"]).then_breaks()),
        1 => Just(Script::says(Says::Nothing)),
        1 => Just(Script::says(Says::Timeout)),
    ];
    (says, 0..4usize).prop_map(|(script, pauses)| script.after(pauses))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Let this twin run until it waits.
    Poll(u8),
    /// This twin's work is dropped.
    Cancel(u8),
}

fn schedule() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![12 => any::<u8>().prop_map(Step::Poll), 1 => any::<u8>().prop_map(Step::Cancel)];
    prop::collection::vec(step, 0..200)
}

type Twin<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Refused>> + 'a>>;

proptest! {
    /// Whatever the app says, whoever is cancelled and in which order they run: the app succeeds at most once, all
    /// who ended after it got that success, and nothing is left behind.
    #[test]
    fn exactly_one_success_is_forwarded(
        scripts in prop::collection::vec(script(), 1..6),
        twins in 2..8usize,
        schedule in schedule(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _within = runtime.enter();
        // The last line of the script is for ever; it must be one that can succeed.
        let scripts = scripts.into_iter().chain([Script::answers(200, &["a", "b"])]);
        let scene = Scene::new(FakeApp::new(scripts));
        let mut exchanges: Vec<InMemory> = (0..twins).map(|_| InMemory::post("/")).collect();
        let mut results = vec![None; twins];
        let mut running: Vec<Option<Twin<'_>>> =
            exchanges.iter_mut().map(|exchange| Some(Box::pin(send(&scene, exchange)) as Twin<'_>)).collect();
        // In the given order first, then round and round until all have ended.
        let rest = (0..twins).cycle().take(twins * 100).map(|n| Step::Poll(n as u8));
        for step in schedule.into_iter().chain(rest) {
            match step {
                Step::Poll(n) => {
                    let n = usize::from(n) % twins;
                    let Some(twin) = &mut running[n] else { continue };
                    if let Poll::Ready(result) = twin.as_mut().poll(&mut Task::from_waker(Waker::noop())) {
                        results[n] = Some(result);
                        running[n] = None;
                    }
                }
                Step::Cancel(n) => running[usize::from(n) % twins] = None,
            }
        }
        prop_assert!(running.iter().all(Option::is_none), "a twin waits for ever");
        drop(running);

        let successes = scene.app.successes.load(SeqCst);
        prop_assert!(successes <= 1);
        prop_assert_eq!(scene.buffer.claims(), successes);
        prop_assert_eq!(scene.intake.in_flight.len(), 0);
        let duplicates: Vec<_> = results.iter().flatten().filter_map(|result| match result {
            Ok(Outcome::Duplicate(id)) => Some(*id),
            _ => None,
        }).collect();
        prop_assert!(duplicates.is_empty() || successes == 1);
        prop_assert!(duplicates.windows(2).all(|pair| pair[0] == pair[1]));
        // If nobody was cancelled and somebody was told of success, that one and its repeats tell the same event.
        for (result, exchange) in results.iter().zip(&exchanges) {
            if let Some(Ok(Outcome::Forwarded(id))) = result
                && exchange.started.as_ref().is_some_and(|(status, _)| *status == 200)
            {
                prop_assert!(exchange.finished);
                prop_assert!(duplicates.iter().all(|duplicate| duplicate == id));
            }
        }
    }
}
