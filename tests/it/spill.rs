//! Mode `spill`: the app's real answer where it gives one in time, else a stored event and an acknowledgement.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::*;

fn route(app: &App) -> Route {
    stripe()
        .to(app)
        .mode("spill")
        .impatient()
        .set("spill", json!({"deadline": "500ms"}))
        .set("answer", json!({"status": 201, "body": "kept"}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_well_app_answers_itself_and_nothing_is_stored() {
    let app = App::start().await;
    let gateway = gateway().route(route(&app)).start().await;
    for (behaviour, status) in [(Behaviour::status(200), 200), (Behaviour::status(422), 422)] {
        app.behaves(behaviour);
        let answer = gateway.send(&signed::stripe(invoice_paid())).await;
        assert_eq!((answer.status, &answer.body[..]), (status, &b"from the app\n"[..]));
        let received = app.received().pop().expect("the app was asked");
        assert_eq!(received.event_id(), answer.event_id());
        assert_eq!(received.header("tidegate-may-repeat"), None);
    }
    assert_eq!(gateway.metric("tidegate_buffer_events", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_apps_events_are_acknowledged_and_delivered_later_under_the_same_id() {
    let app = App::start().await;
    let gateway = gateway().route(route(&app)).start().await;
    // In this order no connection is pooled when the next is sent: a pooled one that is closed is tried once more.
    for behaviour in [
        Behaviour::Close,
        Behaviour::Hang,
        Behaviour::Trickle,
        Behaviour::CloseWithinAnswer,
        Behaviour::status(503),
    ] {
        app.forget();
        app.behaves_next([behaviour.clone()]);
        let event = signed::stripe(invoice_paid());
        let answer = gateway.send(&event).await;
        assert_eq!((answer.status, &answer.body[..]), (201, &b"kept"[..]), "{behaviour:?}");
        gateway.drained().await;
        let received = app.received();
        assert_eq!(received.len(), 2, "{behaviour:?}: inline, and out of the buffer");
        assert!(received.iter().all(|one| one.event_id() == answer.event_id()));
        assert_eq!(received[0].header("tidegate-may-repeat"), None);
        assert_eq!(received[1].header("tidegate-may-repeat"), Some("true"));
        assert_eq!(received[0].body, received[1].body);
        let repeat = gateway.send(&event).await;
        assert!(repeat.is_duplicate() && repeat.event_id() == answer.event_id(), "{repeat:?}");
        assert_eq!(app.count(), 2);
    }
    gateway.counts("tidegate_requests_total", &[("outcome", "spilled")], 5.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_down_gets_everything_once_it_is_up() {
    let app = App::start().await;
    app.refuse().await;
    let gateway = gateway().route(route(&app)).start().await;
    let mut ids = HashSet::new();
    for _ in 0..10 {
        let answer = gateway.send(&signed::stripe(invoice_paid())).await;
        assert_eq!(answer.status, 201);
        ids.insert(answer.event_id().to_owned());
    }
    app.accept().await;
    gateway.drained().await;
    let received: HashSet<_> = app.received().iter().map(|one| one.event_id().to_owned()).collect();
    assert_eq!(received, ids);
    assert_eq!(app.count(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_moves_to_another_gateway_and_is_replayed_by_its_destinations_name() {
    let (app, target) = (App::start().await, App::start().await);
    app.refuse().await;
    let from = gateway().route(route(&app)).start().await;
    let event = signed::stripe(invoice_paid());
    let stored = from.send(&event).await;
    assert_eq!(stored.status, 201);
    let done = async |gateway: &Gateway, arguments: &[&str]| {
        let output = gateway.cli(arguments).await;
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    done(&from, &["export", "--file", "all.tar"]).await;

    let to = gateway().route(route(&target)).start().await;
    let archive = from.path("all.tar");
    let told = done(&to, &["import", archive.to_str().expect("a path")]).await;
    assert!(told.contains("1 imported"), "{told}");
    let received = target.receives(1).await;
    assert_eq!((received[0].event_id(), &received[0].body[..]), (stored.event_id(), &event.body[..]));
    assert_eq!(received[0].header("tidegate-may-repeat"), Some("true"));
    to.drained().await;
    let repeat = to.send(&event).await;
    assert!(repeat.is_duplicate() && repeat.event_id() == stored.event_id(), "{repeat:?}");
    done(&to, &["events", "replay", "--all", "--to", "stripe/app"]).await;
    let received = target.receives(2).await;
    assert_eq!(received[1].event_id(), stored.event_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_crash_in_between_the_sender_tries_again_and_nothing_is_lost() {
    let app = App::start().await;
    let mut gateway = gateway().route(route(&app)).start().await;
    for round in 0..4 {
        app.forget();
        // Sometimes the crash comes before the deadline, sometimes after the append.
        app.behaves(Behaviour::Hang);
        let event = signed::stripe(invoice_paid());
        let mut connection = gateway.connect().await;
        let (answer, ()) = tokio::join!(connection.send(&event), async {
            tokio::time::sleep(Duration::from_millis(250 * (round + 1))).await;
            gateway.ask_to_end_now();
        });
        gateway.end().await;
        app.behaves(Behaviour::status(200));
        gateway.restart().await;
        let again = gateway.send(&event).await;
        assert!(again.is_success(), "{again:?}");
        if let Ok(answer) = answer {
            // Whoever was told of a success is told of the same event again.
            assert_eq!((answer.status, again.event_id()), (201, answer.event_id()));
            assert!(again.is_duplicate());
        }
        gateway.drained().await;
        assert!(app.received().iter().any(|one| one.event_id() == again.event_id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_of_a_sick_app_are_one_event() {
    let app = App::start().await;
    app.behaves_next([Behaviour::Hang]);
    let gateway = gateway().route(route(&app)).start().await;
    let event = signed::stripe(invoice_paid());
    let answers: Vec<Answer> = {
        let sends: Vec<_> = (0..12)
            .map(|_| {
                let (address, event) = (gateway.plain(), event.clone());
                tokio::spawn(async move {
                    sender::Connection::plain(address).await.unwrap().send(&event).await.unwrap()
                })
            })
            .collect();
        let mut answers = Vec::new();
        for send in sends {
            answers.push(send.await.unwrap());
        }
        answers
    };
    let ids: HashSet<_> = answers.iter().map(|answer| answer.event_id().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    gateway.drained().await;
    assert_eq!(app.count(), 2, "inline once, and once out of the buffer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spill_route_is_checked() {
    let app = App::start().await;
    let broken = |route: Route| async move {
        match gateway().route(route).try_start().await {
            Ok(_) => panic!("it must not start"),
            Err(ended) => ended.output,
        }
    };
    let output = broken(stripe().to(&app).set("spill", json!({"deadline": "1s"}))).await;
    assert!(output.contains("`spill` has a meaning only with `mode: spill`"), "{output}");
    let output = broken(route(&app).set("spill", json!({"deadline": "0s"}))).await;
    assert!(output.contains("deadline"), "{output}");
}
