use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;
use tokio::time::sleep;

use super::*;
use crate::buffer::EventId;
use crate::config::{Config, KeySources, Mode};
use crate::receive::testing::{FakeApp, InMemory, Says, Scene, Script, identity};
use crate::verify::KeySource;

const CONFIG: &str = r#"
listeners: [{ address: "127.0.0.1:18080" }]
routes:
  - name: r
    path: /r
    verify: none
    mode: spill
    spill: { deadline: 3s }
    answer: { status: 202, body: taken }
    event_type: "header:X-Type"
    forward_to: { name: d, url: "http://127.0.0.1:9" }
"#;

struct NoKeys;
impl KeySources for NoKeys {
    fn source(&self, _: crate::verify::Remote) -> Arc<dyn KeySource> {
        unreachable!("no route has remote keys")
    }
}

fn config() -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, CONFIG).unwrap();
    crate::config::load(&path, &NoKeys).unwrap().config
}

/// Sends with the key `k`, or without one.
async fn send(
    config: &Config,
    scene: &Scene<FakeApp>,
    exchange: &mut InMemory,
    key: Option<&str>,
) -> Result<Outcome, Refused> {
    let route = &config.routes[0];
    let Mode::Spill { answer, destination, deadline } = &route.mode else { panic!("{:?}", route.mode) };
    let spill = Spill { route, destination, answer, deadline: *deadline };
    let mut request = crate::verify::testing::request("/r?a=b", &[("X-Type", "paid")], b"{}");
    request.head.received_at = scene.clock.now();
    let request = route.verify.verify(request, None, scene.clock.now()).unwrap();
    let mut tracked = Tracked::new(exchange);
    let context = scene.context();
    let result = forward(&context, &mut tracked, spill, key.map(identity), request).await;
    if let Err(refused) = &result {
        tracked.refuse(refused).await;
    }
    result
}

fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

fn one(app: FakeApp, key: Option<&str>) -> (Scene<FakeApp>, InMemory, Result<Outcome, Refused>) {
    let (config, scene) = (config(), Scene::new(app));
    let mut exchange = InMemory::post("/r");
    let result = within(send(&config, &scene, &mut exchange, key));
    (scene, exchange, result)
}

#[test]
fn the_apps_real_answer_is_given_and_nothing_is_stored() {
    for status in [200, 201, 302, 404, 422] {
        let (scene, exchange, result) =
            one(FakeApp::new([Script::answers(status, &["so ", "so"])]), Some("k"));
        assert!(matches!(result, Ok(Outcome::Forwarded(_))), "{result:?}");
        assert_eq!(exchange.started.as_ref().unwrap().0, status);
        assert_eq!((&exchange.written[..], exchange.finished), (&b"so so"[..], true));
        assert_eq!(scene.buffer.claims(), usize::from(status < 300));
        assert_eq!((scene.buffer.stored().len(), scene.intake.in_flight.len()), (0, 0));
    }
}

#[test]
fn what_the_app_cannot_take_is_stored_and_acknowledged_under_the_id_that_it_was_sent() {
    let hours = Duration::from_secs(7200);
    for script in [
        Script::says(Says::Nothing),
        Script::says(Says::Timeout),
        Script::answers(500, &["sorry"]),
        Script::answers(503, &[]),
        Script::answers(200, &["late"]).takes(hours),
        Script::answers(200, &["half"]).then_breaks(),
        Script::answers(404, &["half"]).then_breaks(),
        Script::answers(200, &["odd"]).with(("X-Unsendable", "1")),
    ] {
        for key in [Some("k"), None] {
            let (scene, exchange, result) = one(FakeApp::new([script.clone()]), key);
            let Ok(Outcome::Spilled(id)) = result else { panic!("{script:?}: {result:?}") };
            let answer = exchange.answered().unwrap();
            assert_eq!((answer.status, &answer.body[..]), (202, &b"taken"[..]));
            assert!(answer.headers.contains(&("tidegate-event-id".into(), id.to_string())));
            let stored = &scene.buffer.events()[0];
            assert_eq!((stored.id, stored.origin.may_repeat), (id, true));
            assert_eq!((stored.event_type.as_deref(), &*stored.target), (Some("paid"), "/r?a=b"));
            assert_eq!(stored.idempotency_key.as_deref(), key);
            let head = scene.app.heads.lock()[0].headers.clone();
            assert_eq!(head.first("tidegate-event-id"), Some(id.to_string().as_bytes()));
            assert_eq!(head.first("tidegate-may-repeat"), None, "the first time it does not repeat");
            assert_eq!(scene.buffer.claims(), usize::from(key.is_some()));
            assert_eq!(scene.intake.in_flight.len(), 0);
        }
    }
}

#[test]
fn the_deadline_is_over_when_it_says() {
    let (config, scene) =
        (config(), Scene::new(FakeApp::new([Script::answers(200, &[]).takes(Duration::MAX)])));
    let mut exchange = InMemory::post("/r");
    let took = within(async {
        let start = tokio::time::Instant::now();
        send(&config, &scene, &mut exchange, None).await.unwrap();
        start.elapsed()
    });
    assert_eq!(took.as_secs(), 3);
}

#[test]
fn a_repeat_of_a_stored_event_gets_the_acknowledgement_and_does_not_reach_the_app() {
    let (config, scene) = (config(), Scene::new(FakeApp::new([Script::says(Says::Nothing)])));
    let Ok(Outcome::Spilled(id)) = within(send(&config, &scene, &mut InMemory::post("/r"), Some("k"))) else {
        panic!()
    };
    let mut again = InMemory::post("/r");
    let result = within(send(&config, &scene, &mut again, Some("k")));
    assert_eq!(result, Ok(Outcome::Duplicate(id)));
    assert!(again.answered().unwrap().headers.contains(&("tidegate-duplicate".into(), "true".into())));
    assert_eq!((scene.app.requests.load(SeqCst), scene.buffer.stored().len()), (1, 1));
}

#[test]
fn what_can_neither_be_taken_nor_stored_is_refused_and_not_claimed() {
    for (broken, reason) in [
        (crate::receive::testing::FakeBuffer::full as fn(&_), Reason::BufferFull),
        (crate::receive::testing::FakeBuffer::fail, Reason::BufferUnavailable),
    ] {
        let (config, scene) = (config(), Scene::new(FakeApp::new([Script::answers(500, &[])])));
        broken(&scene.buffer);
        let mut exchange = InMemory::post("/r");
        let result = within(send(&config, &scene, &mut exchange, None));
        assert_eq!(result.map_err(|refused| refused.reason), Err(reason));
        assert_eq!(exchange.reason(), Some(reason.code()));
        assert_eq!((scene.buffer.claims(), scene.intake.in_flight.len()), (0, 0));
    }
}

/// Longer than is held back.
const LONG: &str = match std::str::from_utf8(&[b'x'; HELD]) {
    Ok(text) => text,
    Err(_) => "",
};

#[test]
fn a_long_answer_is_streamed_and_may_take_longer_than_the_deadline() {
    let (config, scene) = (config(), Scene::new(FakeApp::new([Script::answers(200, &[LONG, "y", "z"])])));
    let mut exchange = InMemory::post("/r").slow(Duration::from_secs(2));
    let result = within(send(&config, &scene, &mut exchange, Some("k")));
    assert!(matches!(result, Ok(Outcome::Forwarded(_))), "{result:?}");
    assert_eq!((exchange.written.len(), exchange.finished), (HELD + 2, true));
    assert_eq!(scene.app.extended.load(SeqCst), 6_000, "the sender's slowness is not the app's");
}

#[test]
fn a_long_success_that_breaks_is_broken_off_and_stored() {
    let script = || Script::answers(200, &[LONG, "y"]).then_breaks();
    let (scene, exchange, result) = one(FakeApp::new([script()]), Some("k"));
    let Ok(Outcome::Spilled(id)) = result else { panic!("{result:?}") };
    assert!(exchange.aborted && !exchange.finished && exchange.answered().is_none());
    assert_eq!((scene.buffer.stored(), scene.buffer.claims()), (vec![id], 1));
    // What was no success is only broken off.
    let (scene, exchange, result) =
        one(FakeApp::new([Script::answers(404, &[LONG, "y"]).then_breaks()]), None);
    assert_eq!(result.map_err(|refused| refused.reason), Err(Reason::UpstreamUnavailable));
    assert!(exchange.aborted && scene.buffer.stored().is_empty());
}

/// What the app may do with a request.
fn script() -> impl Strategy<Value = Script> {
    let says = prop_oneof![
        3 => Just(Script::answers(200, &["a", "b"])),
        2 => Just(Script::answers(200, &[LONG, "b"])),
        1 => Just(Script::answers(404, &["no"])),
        1 => Just(Script::answers(404, &[LONG, "no"]).then_breaks()),
        2 => Just(Script::answers(503, &["busy"])),
        1 => Just(Script::answers(200, &["half"]).then_breaks()),
        1 => Just(Script::answers(200, &[LONG, "half"]).then_breaks()),
        1 => Just(Script::answers(200, &[]).with(("X-Unsendable", "1"))),
        1 => Just(Script::says(Says::Nothing)),
        1 => Just(Script::says(Says::Timeout)),
    ];
    (says, 0..6_000u64).prop_map(|(script, ms)| script.takes(Duration::from_millis(ms)))
}

/// One sender: when it begins, when its work is dropped (if it is), how slowly it reads.
type Twin = (u64, Option<u64>, u64);

proptest! {
    /// Whatever the app does and whoever is stopped when: nobody gets two answers (the exchange in memory insists),
    /// nobody who was not stopped gets none, one key is stored once at most, and whoever was told of a success can
    /// rely on it.
    #[test]
    fn each_sender_gets_one_answer_and_a_success_is_one(
        scripts in prop::collection::vec(script(), 1..6),
        twins in prop::collection::vec((0..9_000u64, prop::option::weighted(0.2, 0..9_000u64), 0..800u64), 1..7),
        full in prop::bool::weighted(0.1),
    ) {
        let (config, scene) = (config(), Scene::new(FakeApp::new(scripts)));
        if full {
            scene.buffer.full();
        }
        let run = |(begins, stopped, slow): Twin| {
            let (config, scene) = (&config, &scene);
            async move {
                let mut exchange = InMemory::post("/r").slow(Duration::from_millis(slow));
                sleep(Duration::from_millis(begins)).await;
                let sent = send(config, scene, &mut exchange, Some("k"));
                let result = match stopped {
                    None => Ok(sent.await),
                    Some(after) => timeout(Duration::from_millis(after), sent).await,
                };
                (exchange, result)
            }
        };
        let ended = within(async {
            let mut ended = Vec::new();
            let mut running: Vec<_> = twins.iter().map(|twin| Some(Box::pin(run(*twin)))).collect();
            std::future::poll_fn(|cx| {
                for twin in &mut running {
                    if let Some(work) = twin
                        && let std::task::Poll::Ready(done) = work.as_mut().poll(cx)
                    {
                        ended.push(done);
                        *twin = None;
                    }
                }
                match running.iter().all(Option::is_none) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
            ended
        });

        prop_assert_eq!(scene.intake.in_flight.len(), 0);
        prop_assert!(scene.buffer.stored().len() <= 1 && scene.buffer.claims() <= 1);
        let mut told: Vec<EventId> = Vec::new();
        for (exchange, result) in &ended {
            let begun = exchange.started.as_ref().map(|(status, _)| *status);
            let whole = exchange.answered().map(|answer| answer.status).or(begun.filter(|_| exchange.finished));
            let Ok(result) = result else { continue };
            prop_assert!(whole.is_some() || exchange.aborted, "neither: {:?}", result);
            match (result, whole) {
                // Told of a success by a head at least.
                (Ok(Outcome::Forwarded(id) | Outcome::Spilled(id) | Outcome::Duplicate(id)), Some(200..=299)) => {
                    told.push(*id);
                }
                (Ok(Outcome::Spilled(id)), None) => told.push(*id),
                (Ok(Outcome::Forwarded(_)), Some(status)) => prop_assert!((300..500).contains(&status)),
                (Err(refused), _) => {
                    let known = [
                        Reason::BufferFull,
                        Reason::UpstreamTimeout,
                        Reason::UpstreamUnavailable,
                    ];
                    prop_assert!(known.contains(&refused.reason), "{:?}", refused);
                    prop_assert!(full || refused.reason != Reason::BufferFull);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        told.dedup();
        prop_assert!(told.len() <= 1, "all hear of one event: {:?}", told);
        if let Some(id) = told.first() {
            let stored = scene.buffer.stored();
            prop_assert_eq!(scene.buffer.claims(), 1, "a repeat is recognised");
            prop_assert!(stored == [*id] || (stored.is_empty() && scene.app.successes.load(SeqCst) > 0));
        }
    }
}
