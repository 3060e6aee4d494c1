//! Keys that requests name: what strangers make up shuts no genuine sender out, and tells nobody anything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::support::*;

fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key")
}

fn named(name: &str, client: &str, signed: bool) -> Request {
    let body = unique_id();
    let signature = match signed {
        true => STANDARD.encode(key().sign(body.as_bytes())),
        false => STANDARD.encode([1; 64]),
    };
    Request::post("/hooks/named", body)
        .header("X-Key", name)
        .header("X-Signature", &signature)
        .header("X-Forwarded-For", client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_names_of_keys_shut_no_genuine_one_out() {
    let (app, issuer) = (App::start().await, App::start().await);
    let public = STANDARD.encode(key().public_key().as_ref());
    let answers =
        |status: u16| Behaviour::Answer { status, headers: vec![], body: public.clone().into_bytes() };
    let verify = json!({
        "algorithm": "ed25519",
        "signed": "{body}",
        "signature": {"from": "header:X-Signature", "encoding": "base64"},
        "key_source": {"url": format!("{}/{{key}}", issuer.url()), "from": "header:X-Key"},
    });
    let route = Route::new(json!({"name": "named", "path": "/hooks/named", "verify": verify})).to(&app);
    let mut gateway = gateway()
        .route(route)
        .listener("trusted_hops", json!(["127.0.0.1"]))
        .section("alerts", json!({"every": "1s", "group": "1s", "to": []}))
        .section("limits", json!({"key_wait": "5s"}))
        .start()
        .await;
    issuer.behaves(answers(200));
    assert_eq!(gateway.send(&named("known", "192.0.2.1", true)).await.status, 202);

    // An issuer that can't be reached, and a stranger with names of his own.
    issuer.behaves(answers(500));
    for n in 0..400 {
        let answer = gateway.send(&named(&format!("made-up-{n}"), "10.6.6.6", false)).await;
        assert_eq!((answer.status, answer.reason()), (503, "key_unavailable"));
        let known = gateway.send(&named("known", "192.0.2.1", true)).await;
        assert_eq!(known.status, 202, "{known:?}");
    }
    assert!(issuer.count() < 100, "strangers' names are looked for {} times", issuer.count());
    issuer.behaves(answers(200));
    let answer = gateway.send(&named("new", "198.51.100.1", true)).await;
    assert_eq!(answer.status, 202, "the first of a new key gets in: {answer:?}");

    // One entry of the status, few lines of the log, no alert, and nowhere a stranger's words.
    let status = gateway.cli_json(&["status"]).await.to_string();
    assert!(status.contains("\"unknown_names\":") && !status.contains("made-up"), "{status}");
    assert!(!gateway.log().contains("made-up"), "{}", gateway.log());
    let lines = gateway.log_lines();
    let told = lines.iter().filter(|line| line.to_string().contains("that a request names can't be fetched"));
    assert_eq!(told.count(), 1);
    // The rules were looked at since.
    let good = gateway.send(&named("known", "192.0.2.1", true)).await;
    assert_eq!(good.status, 202);
    assert_eq!(gateway.metric("tidegate_alerts", &[("rule", "stale_keys")]).await, 0.0);

    let kept = gateway.path("buffer/keys/names.json");
    eventually("the names are kept", async || {
        std::fs::read_to_string(&kept).is_ok_and(|names| names.contains("known") && names.contains("new"))
    })
    .await;
    // After a kill the names that were good draw from no budget, however many others come first.
    gateway.kill().await;
    issuer.behaves(answers(404));
    gateway.restart().await;
    for n in 0..100 {
        gateway.send(&named(&format!("again-{n}"), "192.0.2.1", false)).await;
    }
    issuer.behaves(answers(200));
    for name in ["known", "new"] {
        let answer = gateway.send(&named(name, "192.0.2.1", true)).await;
        assert_eq!(answer.status, 202, "{name}: {answer:?}");
    }
}
