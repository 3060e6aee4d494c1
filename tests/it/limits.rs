//! How much is taken in: rate limits, and what is shed when the disk lags.

use std::time::Duration;

use crate::support::fault::{Fails, Fault};
use crate::support::*;

fn refused(answer: &Answer) -> u64 {
    assert_eq!((answer.status, answer.reason()), (429, "rate_limited"), "{answer:?}");
    answer.header("retry-after").expect("it says when").parse().expect("in seconds")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_beyond_its_limit_is_refused_before_its_body_is_read() {
    let app = App::start().await;
    let gateway = gateway()
        .route(unverified("/in").to(&app).set("rate_limit", json!({"source": "3/h"})))
        .listener("trusted_hops", json!(["127.0.0.1"]))
        .start()
        .await;
    let from = |address: &str| {
        let request = Request::post("/in", unique_id()).header("X-Forwarded-For", address);
        let gateway = &gateway;
        async move { gateway.send_via(Via::Plain, &request).await }
    };
    for _ in 0..3 {
        assert_eq!(from("192.0.2.1").await.status, 202);
    }
    let wait = refused(&from("192.0.2.1").await);
    assert!((1000..=1200).contains(&wait), "{wait}: a third of an hour");
    assert_eq!(from("192.0.2.2").await.status, 202);
    // One customer's network is one source.
    for host in 1..=3 {
        assert_eq!(from(&format!("2001:db8::{host}")).await.status, 202);
    }
    refused(&from("2001:db8::4").await);
    assert_eq!(from("2001:db8:0:1::4").await.status, 202);
    // Not a byte of the body is there, and the answer is.
    let head = b"POST /in HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 1000\r\n\r\n";
    let mut connection = gateway.connect().await;
    connection.write(head).await.unwrap();
    refused(&connection.answer().await.unwrap().expect("an answer"));
    // A reload with the same limit does not give it back.
    gateway.reload().await;
    refused(&from("192.0.2.1").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_a_limit_of_all_that_comes_and_one_of_what_is_proved() {
    let app = App::start().await;
    let gateway = gateway()
        .route(stripe().to(&app).set("rate_limit", json!({"route": "4/h"})))
        .route(
            github()
                .to(&app)
                .set("rate_limit", json!({"identity": "2/h", "identity_by": "body:/repository/name"})),
        )
        .start()
        .await;
    for n in 0..4 {
        let event = signed::stripe(invoice_paid());
        // What is not proved counts as well: it costs as much.
        let event = if n == 0 { event.with("Stripe-Signature", "t=1,v1=00") } else { event };
        assert_eq!(gateway.send(&event).await.status, if n == 0 { 401 } else { 202 });
    }
    refused(&gateway.send(&signed::stripe(invoice_paid())).await);

    let of =
        |name: &str| signed::github(json!({"repository": {"name": name}, "id": unique_id()}).to_string());
    for name in ["a", "b"] {
        for _ in 0..2 {
            assert_eq!(gateway.send(&of(name)).await.status, 202);
        }
        refused(&gateway.send(&of(name)).await);
    }
    // Strangers use up nothing of it.
    for _ in 0..5 {
        let forged = of("c").with("X-Hub-Signature-256", "sha256=00");
        assert_eq!(gateway.send(&forged).await.status, 401);
    }
    assert_eq!(gateway.send(&of("c")).await.status, 202);
    gateway.counts("tidegate_requests_total", &[("outcome", "rate_limited")], 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_disk_lags_new_work_without_proof_goes_first_and_what_was_taken_in_is_kept() {
    let app = App::start().await;
    let fault = Fault::new();
    let gateway = gateway()
        .route(unverified("/open").to(&app))
        .route(stripe().to(&app))
        .section("buffer", json!({"stall_after": "20s"}))
        .fault(&fault)
        .start()
        .await;
    fault.on(Fails::SlowSync(8_000));
    let open = || Request::post("/open", unique_id());
    let first = signed::stripe(invoice_paid());
    let held = gateway.send(&first);
    let shed = async {
        // From 2 s on nobody without proof, from 5 s on nobody.
        eventually("what is not proved is shed", async || {
            let Ok(Ok(answer)) =
                tokio::time::timeout(Duration::from_millis(200), gateway.try_send(Via::Plain, &open())).await
            else {
                return false;
            };
            answer.reason() == "overloaded" && answer.status == 503 && answer.header("retry-after").is_some()
        })
        .await;
        let proved = signed::stripe(invoice_paid());
        let proved = tokio::time::timeout(Duration::from_millis(300), gateway.send(&proved)).await;
        assert!(proved.is_err(), "what is proved waits for its turn: {proved:?}");
        eventually("everything new is shed", async || {
            let event = signed::stripe(invoice_paid());
            let sent = gateway.try_send(Via::Plain, &event);
            let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_millis(200), sent).await else {
                return false;
            };
            answer.reason() == "overloaded"
        })
        .await;
        fault.off();
    };
    let (held, ()) = tokio::join!(held, shed);
    assert_eq!(held.status, 202);
    eventually("it takes everything again", async || {
        gateway.try_send(Via::Plain, &open()).await.is_ok_and(|answer| answer.status == 202)
    })
    .await;
}
