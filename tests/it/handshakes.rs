//! Greetings of senders get their exact answers from the running gateway, and nothing else does: nothing is stored and
//! no app is asked. The table is `tests/handshakes.yaml`; each answer is held against it on every way in.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidegate::providers::{self, Repeats};

use crate::support::app::Speaks;
use crate::support::gateway::Gateway;
use crate::support::*;

fn senders() -> Vec<Value> {
    serde_saphyr::from_str(include_str!("../handshakes.yaml")).expect("the table is well-formed")
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(map.clone()).unwrap_or_default()
}

/// The text of a pack that is made for the test.
fn pack(name: &str, parts: &Value) -> String {
    let or_empty = |key: &str| parts.get(key).cloned().unwrap_or_else(|| json!({}));
    json!({
        "name": name, "title": name, "category": "other", "docs": "https://example.com", "checked": "2026-11-24",
        "setup": "x", "verify": parts["verify"], "params": or_empty("params"), "handshake": parts["handshake"]
    })
    .to_string()
}

/// Signs as the provider does, independent of the code under test.
fn sign(provider: &str, secret: &str, key: &ring::signature::Ed25519KeyPair, request: Request) -> Request {
    let time = now().to_string();
    let mac = |parts: &[&[u8]]| hex::encode(signed::hmac_sha256(secret.as_bytes(), &parts.concat()));
    let body = request.body.clone();
    match provider {
        "slack" => {
            let signature = format!("v0={}", mac(&[b"v0:", time.as_bytes(), b":", &body]));
            request.header("X-Slack-Request-Timestamp", &time).header("X-Slack-Signature", &signature)
        }
        "zoom" => {
            let signature = format!("v0={}", mac(&[b"v0:", time.as_bytes(), b":", &body]));
            request.header("x-zm-request-timestamp", &time).header("x-zm-signature", &signature)
        }
        "twitch" => {
            let (id, time) = ("e76c6bd4-55c9-4987-8304-da1588d8988b", "2026-11-24T10:00:00.123456789Z");
            let time = time.replace("2026-11-24T10:00:00", &rfc3339());
            let signature = format!("sha256={}", mac(&[id.as_bytes(), time.as_bytes(), &body]));
            request
                .header("Twitch-Eventsub-Message-Id", id)
                .header("Twitch-Eventsub-Message-Timestamp", &time)
                .header("Twitch-Eventsub-Message-Signature", &signature)
        }
        "discord" => {
            let signature = hex::encode(key.sign(&[time.as_bytes(), &body].concat()));
            request.header("X-Signature-Timestamp", &time).header("X-Signature-Ed25519", &signature)
        }
        other => panic!("nobody here signs as {other}"),
    }
}

/// The time of day in UTC, without fractions and zone.
fn rfc3339() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_greeting_gets_its_exact_answer_and_nothing_else_gets_one() {
    let document =
        ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
    let key = ring::signature::Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
    let public = hex::encode(ring::signature::KeyPair::public_key(&key).as_ref());
    let app = App::start().await;
    let mut builder = gateway().section("log", json!({"level": "debug"}));
    for sender in senders() {
        let provider = sender["provider"].as_str().expect("a name");
        let name = sender["route"].as_str().unwrap_or(provider);
        let mut rule = sender.get("rule").cloned().unwrap_or_else(|| json!({}));
        let built_in = providers::find(provider).is_ok();
        if !built_in {
            builder = builder.file(&format!("{provider}.yaml"), &pack(provider, &sender));
        }
        rule["provider"] = if built_in { provider.into() } else { format!("./{provider}.yaml").into() };
        // Tokens are secrets: only references are taken for them.
        for value in ["verify_token", "verify_code", "verification_token", "client_state"] {
            if let Some(Value::String(text)) = rule.get(value).cloned() {
                builder = builder.file(&format!("{name}.{value}"), &text);
                rule[value] = format!("file:{name}.{value}").into();
            }
        }
        if sender["public_key"] == true {
            rule["public_keys"] = json!([public]);
        }
        let mut route = Route::new(json!({"name": name, "path": format!("/hooks/{name}")})).to(&app);
        if let Some(secret) = sender["secret"].as_str() {
            rule["secret"] = format!("file:secrets/{name}").into();
            route = route.secret(name, secret);
        }
        if sender["shows"] == true {
            route = route.set("handshake", "show");
        }
        builder = builder.route(route.set("verify", rule));
    }
    let gateway = builder.start().await;
    let mut answered = 0;
    let mut events = 0;
    for via in [Via::Plain, Via::Tls, Via::Http2] {
        for sender in senders() {
            let provider = sender["provider"].as_str().expect("a name");
            let name = sender["route"].as_str().unwrap_or(provider);
            for ask in sender["asks"].as_array().expect("asks") {
                let target = format!("/hooks/{name}{}", ask["query"].as_str().unwrap_or_default());
                let method = ask["method"].as_str().unwrap_or("GET");
                let mut request = Request::new(method, &target, ask["body"].as_str().unwrap_or_default());
                for (name, value) in texts(&ask["headers"]) {
                    request = request.header(&name, &value);
                }
                if ask["signed"] == true {
                    request = sign(provider, sender["secret"].as_str().unwrap_or_default(), &key, request);
                }
                let what = format!("{via:?} {name}: {method} {target} {:?}", request.headers);
                let answer = gateway.send_via(via, &request).await;
                if let Some([status, kind, body]) = ask["answer"].as_array().map(Vec::as_slice) {
                    answered += 1;
                    assert_eq!(Some(u64::from(answer.status)), status.as_u64(), "{what}: {answer:?}");
                    assert_eq!(answer.text(), body.as_str().unwrap_or_default(), "{what}");
                    let expected = kind.as_str().filter(|kind| *kind != "-");
                    assert_eq!(answer.header("content-type"), expected, "{what}");
                    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{what}");
                    for (name, value) in texts(&ask["has"]) {
                        assert_eq!(answer.header(&name), Some(value.as_str()), "{what}");
                    }
                } else if let Some([status, reason]) = ask["refused"].as_array().map(Vec::as_slice) {
                    assert_eq!(Some(u64::from(answer.status)), status.as_u64(), "{what}: {answer:?}");
                    assert_eq!(Some(answer.reason()), reason.as_str(), "{what}");
                    let allows_events = answer.header("allow").is_some_and(|allow| allow.contains("POST"));
                    assert_eq!(allows_events, answer.status == 405, "{what}: {answer:?}");
                } else {
                    // Of most senders the same again is a repeat.
                    let is_always_new =
                        providers::find(provider).is_ok_and(|pack| pack.idempotency == Repeats::Unknowable);
                    events += usize::from(via == Via::Plain || is_always_new);
                    assert_eq!(answer.status, 202, "{what}: {answer:?}");
                }
            }
        }
    }
    app.receives(events).await;
    assert_eq!(app.count(), events, "no greeting reaches the app");
    eventually("all are counted", async || {
        gateway.metric("tidegate_requests_total", &[("outcome", "handshake")]).await == f64::from(answered)
    })
    .await;
    shown_once_asked_for(&gateway).await;
}

/// What a greeting brings is in the log where the route asks for it, with the route, and nowhere else.
async fn shown_once_asked_for(gateway: &Gateway) {
    let asks =
        senders().into_iter().flat_map(|sender| sender["asks"].as_array().cloned().unwrap_or_default());
    for secret in asks.filter_map(|ask| ask["shown"].as_str().map(str::to_owned)) {
        eventually("the secret is shown", async || {
            gateway
                .log_lines()
                .iter()
                .any(|line| line["secret"] == secret.as_str() && line["level"] == "INFO")
        })
        .await;
    }
    let log = gateway.log();
    assert!(!log.contains("of-somebody-else"), "without `handshake: show` nothing is shown");
    for secret in ["my-verify-token", "client-secret", "zoom-secret-token", "integration_private_key"] {
        assert!(!log.contains(secret), "the log shows {secret}");
    }
    assert!(log.contains("a handshake is answered"), "a line at debug");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_the_sender_brings_is_stored_in_three_steps() {
    let app = App::start().await;
    let route = Route::new(json!({"name": "asana", "path": "/hooks/asana", "provider": "asana"})).to(&app);
    let mut gateway = gateway().route(route.clone().set("handshake", "show")).start().await;
    let secret = "b537207f20cbfa02357cf448134da559";
    let signed = |body: &str| {
        let signature = hex::encode(signed::hmac_sha256(secret.as_bytes(), body.as_bytes()));
        Request::post("/hooks/asana", body).header("X-Hook-Signature", &signature)
    };
    let event = signed(r#"{"events":[{"action":"added"}]}"#);
    let greeting = Request::post("/hooks/asana", "").header("X-Hook-Secret", secret);

    assert_eq!(gateway.send(&event).await.reason(), "signature_missing", "nobody is proved yet");
    assert_eq!(gateway.send(&greeting).await.header("X-Hook-Secret"), Some(secret));
    eventually("it is shown", async || gateway.log_lines().iter().any(|line| line["secret"] == secret)).await;

    let route = route.set("secret", "file:secrets/asana").secret("asana", secret);
    gateway.builder.routes = vec![route];
    gateway.rewrite_config();
    gateway.reload().await;
    assert_eq!(gateway.send(&event).await.status, 200, "Asana takes no 202");
    assert_eq!(gateway.send(&greeting).await.status, 401);
    app.receives(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shown_secret_is_asked_for_and_counted() {
    let app = App::start().await;
    let route = Route::new(json!({"name": "asana", "path": "/hooks/asana", "provider": "asana"})).to(&app);
    match gateway().route(route.clone()).try_start().await {
        Ok(_) => panic!("a route without a secret started"),
        Err(ended) => assert!(ended.output.contains("asana needs a secret"), "{}", ended.output),
    }
    let gateway = gateway().route(route.set("handshake", "show")).start().await;
    let mut connection = gateway.connect().await;
    for n in 0..40 {
        let greeting = Request::post("/hooks/asana", "").header("X-Hook-Secret", &format!("forged-{n}"));
        let answer = connection.send(&greeting).await.expect("answered");
        assert_eq!(answer.status, if n < 16 { 200 } else { 403 }, "{n}: {answer:?}");
    }
    let shown = gateway.log_lines().iter().filter(|line| line["secret"].is_string()).count();
    assert_eq!(shown, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_greetings_are_answered_by_the_app_in_every_mode() {
    for mode in ["buffer", "proxy"] {
        let app = App::start().await;
        let body = b"1158201444".to_vec();
        app.behaves(Behaviour::Answer {
            status: 200,
            headers: vec![("Content-Type", "text/x-app".into())],
            body,
        });
        let route = config::provider("dropbox", "/hooks/dropbox", "s")
            .mode(mode)
            .set("handshake", "forward")
            .to(&app);
        let gateway = gateway().route(route).start().await;
        let greeting = Request::get("/hooks/dropbox?challenge=1158201444");
        for _ in 0..2 {
            let answer = gateway.send(&greeting).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "1158201444"), "{mode}");
            assert_eq!(answer.header("content-type"), Some("text/x-app"), "{mode}");
            assert!(!answer.is_duplicate(), "{mode}: a greeting is no event");
        }
        assert_eq!(gateway.send(&Request::get("/hooks/dropbox")).await.status, 405, "{mode}");
        let forged = Request::post("/hooks/dropbox?challenge=x", "{}");
        assert_eq!(gateway.send(&forged).await.status, 401, "{mode}");
        let received = app.receives(2).await;
        assert_eq!(received[0].header("tidegate-verified"), Some("handshake"), "{mode}");
        assert!(
            received
                .iter()
                .all(|greeting| greeting.request_line.starts_with("GET /hooks/dropbox?challenge="))
        );
        assert_eq!(app.count(), 2, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_answers_no_greeting() {
    let app = App::start().await;
    let route = config::provider("dropbox", "/hooks/dropbox", "s").set("handshake", "off").to(&app);
    let gateway = gateway().route(route).start().await;
    let answer = gateway.send(&Request::get("/hooks/dropbox?challenge=x")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_has_handshakes_of_its_own_beside_events_of_every_method() {
    let app = App::start().await;
    let route = unverified("/hooks/own")
        .set("methods", json!(["POST", "GET"]))
        .set(
            "handshake",
            json!([
                {"methods": ["GET"], "signed": false,
                 "when": {"query:mode": ["subscribe", "renew"]},
                 "must": {"query:token": {"secret": "file:secrets/token"}},
                 "answer": {"json": {"proof": "p={proof}", "list": [1, "{query:challenge}"]},
                            "proof": {"algorithm": "hmac-sha256", "signed": "fixed", "encoding": "base64",
                                      "secret": "file:secrets/token"}}},
                {"methods": ["HEAD"], "signed": false}
            ]),
        )
        .secret("token", "t0ken")
        .to(&app);
    let gateway = gateway().route(route).start().await;
    let proof = STANDARD.encode(signed::hmac_sha256(b"t0ken", b"fixed"));
    let answer = gateway.send(&Request::get("/hooks/own?mode=renew&token=t0ken&challenge=%22%3C")).await;
    assert_eq!(answer.text(), format!(r#"{{"list":[1,"\"<"],"proof":"p={proof}"}}"#));
    assert_eq!(gateway.send(&Request::get("/hooks/own?mode=renew&token=other")).await.status, 403);
    assert_eq!(gateway.send(&Request::new("HEAD", "/hooks/own", "")).await.status, 200);
    assert_eq!(gateway.send(&Request::get("/hooks/own?mode=event")).await.status, 202);
    let answer = gateway.send(&Request::new("PUT", "/hooks/own", "")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
    let received = app.receives(1).await;
    assert!(received[0].request_line.starts_with("GET /hooks/own?mode=event"), "{received:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_url_is_visited_only_where_it_is_pinned_and_the_topic_is_ours() {
    let (app, sender) = (App::start().await, App::start().await);
    let acme = json!({
        "verify": {"algorithm": "hmac-sha256", "signature": {"from": "header:X-Sig", "encoding": "hex"}},
        "params": {
            "topics": {"about": "The topics that are confirmed."},
            "confirm": {"about": "`true`: subscriptions to them are confirmed."}
        },
        "handshake": {
            "when": {"body:/Type": "SubscriptionConfirmation"},
            "needs": ["confirm"],
            "must": {"body:/TopicArn": {"param": "topics"}},
            "visit": {"url": "body:/SubscribeURL", "hosts": ["sns.[a-z]{2}-[a-z-]{4,20}-[0-9]{1,2}.amazonaws.com", "127.0.0.1"]}
        }
    });
    let route = |name: &str, more: Value| {
        let mut rule = json!({"provider": "./acme.yaml", "secret": "file:secrets/acme"});
        rule.as_object_mut().expect("a rule").extend(more.as_object().cloned().unwrap_or_default());
        let route = json!({"name": name, "path": format!("/hooks/{name}"), "verify": rule});
        Route::new(route).secret("acme", "s").to(&app)
    };
    let topics = json!(["arn:aws:sns:eu-west-1:1:ours"]);
    let gateway = gateway()
        .file("acme.yaml", &pack("acme", &acme))
        .route(route("confirms", json!({"topics": topics, "confirm": "true"})))
        .route(route("does-not", json!({"topics": topics, "confirm": "false"})))
        .start()
        .await;
    let asks = async |path: &str, topic: &str, url: &str| {
        let body =
            json!({"Type": "SubscriptionConfirmation", "TopicArn": topic, "SubscribeURL": url}).to_string();
        let signature = hex::encode(signed::hmac_sha256(b"s", body.as_bytes()));
        gateway.send(&Request::post(path, body).header("X-Sig", &signature)).await
    };
    let ours = "arn:aws:sns:eu-west-1:1:ours";
    let url = format!("{}/?Action=ConfirmSubscription&Token=2336412f37", sender.url());

    let answer = asks("/hooks/confirms", ours, &url).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    let visited = sender.receives(1).await.remove(0);
    assert_eq!(visited.request_line, "GET /?Action=ConfirmSubscription&Token=2336412f37 HTTP/1.1");

    let foreign = asks("/hooks/confirms", "arn:aws:sns:eu-west-1:1:theirs", &url).await;
    assert_eq!((foreign.status, foreign.reason()), (403, "handshake_refused"));
    for elsewhere in [
        "http://127.0.0.2:1/",
        "https://evil.example/",
        "http://sns.eu-west-1.amazonaws.com/",
        "https://sns.s3.amazonaws.com/x",
        "x",
    ] {
        let answer = asks("/hooks/confirms", ours, elsewhere).await;
        assert_eq!((answer.status, answer.reason()), (403, "handshake_refused"), "{elsewhere}");
    }
    let unsigned = Request::post("/hooks/confirms", json!({"Type": "SubscriptionConfirmation"}).to_string());
    assert_eq!(gateway.send(&unsigned).await.status, 401);
    assert_eq!(sender.count(), 1);

    // A visit that confirms nothing is told so, and the sender tries again. Redirects lead nowhere.
    sender.behaves_next([
        Behaviour::status(500),
        Behaviour::Answer {
            status: 302,
            headers: vec![("Location", format!("{}/elsewhere", sender.url()))],
            body: vec![],
        },
    ]);
    for _ in 0..2 {
        let answer = asks("/hooks/confirms", ours, &url).await;
        assert_eq!((answer.status, answer.reason()), (502, "upstream_unavailable"));
    }
    assert_eq!(sender.count(), 3);

    // Where nothing is to be confirmed here, it is the app's.
    assert_eq!(asks("/hooks/does-not", ours, &url).await.status, 202);
    app.receives(1).await;
    assert_eq!((sender.count(), app.count()), (3, 1));
}

/// A message of Amazon SNS about a subscription, signed as it does (version 2).
fn sns_confirmation(topic: &str, path: &str) -> Request {
    sns_confirmation_at("sns.eu-west-1.amazonaws.com", topic, path)
}

/// The same with both its URLs on another host.
fn sns_confirmation_at(host: &str, topic: &str, path: &str) -> Request {
    const RSA: &str = include_str!("../../src/verify/tests/rsa-2048.pem");
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use rustls_pki_types::pem::PemObject;
    let host = format!("https://{host}");
    let url = format!("{host}/?Action=ConfirmSubscription&TopicArn={topic}&Token=2336412f37");
    let (id, time, token) =
        ("165545c9-2a5c-472c-8df2-7ff2be2b3b1b", "2026-11-24T10:00:00.000Z", "2336412f37");
    let text = format!(
        "Message\nPlease confirm\nMessageId\n{id}\nSubscribeURL\n{url}\nTimestamp\n{time}\nToken\n{token}\nTopicArn\n\
         {topic}\nType\nSubscriptionConfirmation\n"
    );
    let der = PrivatePkcs8KeyDer::from_pem_slice(RSA.as_bytes()).expect("a key in PEM");
    let key = ring::signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("an RSA key");
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(&ring::signature::RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).expect("signed");
    let body = json!({
        "Type": "SubscriptionConfirmation", "MessageId": id, "Token": token, "TopicArn": topic,
        "Message": "Please confirm", "SubscribeURL": url, "Timestamp": time, "SignatureVersion": "2",
        "Signature": STANDARD.encode(signature), "SigningCertURL": format!("{host}/SimpleNotificationService-1.pem")
    });
    Request::post(path, body.to_string()).header("Content-Type", "text/plain; charset=UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_to_sns_is_confirmed_through_the_roots_that_its_certificate_is_fetched_through() {
    const RSA: &str = include_str!("../../src/verify/tests/rsa-2048.pem");
    let key = rcgen::KeyPair::from_pem(RSA).expect("a key pair");
    let certificate = rcgen::CertificateParams::new(vec!["sns.amazonaws.com".to_owned()]).expect("params");
    let certificate = certificate.self_signed(&key).expect("a certificate").pem();
    let (app, sns) = (App::start().await, App::speaking(Speaks::Http1Sns).await);
    sns.behaves(Behaviour::Answer { status: 200, headers: vec![], body: certificate.into_bytes() });
    let topic = "arn:aws:sns:eu-west-1:123456789012:orders";
    let route = |name: &str, more: Value| {
        let mut rule = json!({"provider": "aws-sns", "topics": topic});
        rule.as_object_mut().expect("a rule").extend(more.as_object().cloned().unwrap_or_default());
        Route::new(json!({"name": name, "path": format!("/hooks/{name}"), "verify": rule})).to(&app)
    };
    let mut builder = gateway()
        .route(route("confirms", json!({"ca": "file:tls/ca.pem", "confirm": "true"})))
        .route(route("hands-on", json!({"ca": "file:tls/ca.pem"})))
        .route(route("public-roots", json!({"confirm": "true"})));
    for (name, value) in fault::host_at("sns.eu-west-1.amazonaws.com", sns.address.port()) {
        builder = builder.env(name, &value);
    }
    let gateway = builder.start().await;

    let answer = gateway.send(&sns_confirmation(topic, "/hooks/confirms")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{answer:?} {}", gateway.log());
    let asked: Vec<String> = sns.received().into_iter().map(|asked| asked.request_line).collect();
    assert_eq!(
        asked,
        [
            "GET /SimpleNotificationService-1.pem HTTP/1.1".to_owned(),
            format!("GET /?Action=ConfirmSubscription&TopicArn={topic}&Token=2336412f37 HTTP/1.1")
        ]
    );

    // A topic of somebody else is not confirmed, however right its signature is.
    let theirs = sns_confirmation("arn:aws:sns:eu-west-1:210987654321:orders", "/hooks/confirms");
    let answer = gateway.send(&theirs).await;
    assert_eq!((answer.status, answer.reason()), (403, "sender_not_allowed"));
    // A bucket named `sns` is anybody's: no certificate is fetched from there.
    for host in ["sns.s3.amazonaws.com", "sns.s3-us-west-2.amazonaws.com", "sns.eu-west-1.amazonaws.com."] {
        let answer = gateway.send(&sns_confirmation_at(host, topic, "/hooks/confirms")).await;
        assert_eq!((answer.status, answer.reason()), (401, "signature_invalid"), "{host}");
    }
    // The stand-in is nobody to the public roots: its certificate is not even fetched.
    let answer = gateway.send(&sns_confirmation(topic, "/hooks/public-roots")).await;
    assert_eq!((answer.status, answer.reason()), (503, "key_unavailable"));
    assert_eq!(sns.count(), 2);
    assert_eq!(app.count(), 0);

    // Where nothing is to be confirmed here, it is an event, with the certificate that is known by now.
    let answer = gateway.send(&sns_confirmation(topic, "/hooks/hands-on")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    app.receives(1).await;
    assert_eq!(sns.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_for_which_a_setting_is_missing_is_refused_plainly_and_named_in_the_log() {
    let app = App::start().await;
    let meta = config::provider("meta", "/hooks/meta", "s").to(&app);
    let gateway = gateway().route(meta).route(github().to(&app)).start().await;
    assert!(
        gateway.log().contains("greetings of Meta (Facebook, Messenger, Instagram) (GET) will be refused")
    );
    let greeting = "/hooks/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=x";
    let (greeted, other) = (Request::get(greeting), Request::get("/hooks/meta?x=y"));
    let (greeted, other) = (gateway.send(&greeted).await, gateway.send(&other).await);
    for answer in [&greeted, &other] {
        assert_eq!((answer.status, answer.reason()), (405, "method_not_allowed"));
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    assert_eq!(greeted.text(), other.text());
    assert!(!greeted.text().contains("verify_token"), "{greeted:?}");
    let named = |line: &Value| line.to_string().contains("because `verify_token` is not set");
    eventually("the log names it", async || gateway.log_lines().iter().any(named)).await;
    let count = gateway.log_lines().iter().filter(|line| named(line)).count();
    assert_eq!(count, 1, "the other request is no greeting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_only_observes_proves_nothing_to_strangers() {
    let app = App::start().await;
    let own = json!([{"when": {"body:/type": "check"}, "answer": {"body": "{proof}", "proof": {
                        "algorithm": "hmac-sha256", "signed": "{body:/text}", "encoding": "hex"}}},
                     {"methods": ["GET"]}]);
    let route = github().set("enforce", "observe").set("handshake", own).to(&app);
    let gateway = gateway().route(route).start().await;
    let body = r#"{"type":"check","text":"an event of my own"}"#;
    let proof = hex::encode(signed::hmac_sha256(signed::GITHUB_SECRET.as_bytes(), b"an event of my own"));

    assert_eq!(gateway.send(&signed::github(body)).await.text(), proof);
    let forged = gateway.send(&Request::post("/hooks/github", body)).await;
    assert_eq!((forged.status, forged.text().contains(&proof)), (202, false), "it goes on as an event does");
    assert_eq!(gateway.send(&Request::get("/hooks/github")).await.status, 401);
    app.receives(1).await;
    assert_eq!(app.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_can_have_signed_is_no_event_of_any_route() {
    let app = App::start().await;
    let consumer = "consumer-secret-0123456789abcdef";
    let ours = |path: &str| {
        let scheme = json!({"algorithm": "hmac-sha256", "secret": "file:secrets/x",
                            "signature": {"from": "header:x-twitter-webhooks-signature", "prefix": "sha256=",
                                          "encoding": "base64"}});
        Route::new(json!({"name": path.trim_start_matches('/'), "path": path, "verify": scheme})).to(&app)
    };
    let braintree =
        json!({"provider": "braintree", "secret": "file:secrets/x", "public_key": "integration_public_key"});
    let braintree =
        Route::new(json!({"name": "braintree", "path": "/braintree", "verify": braintree})).to(&app);
    // One route answers, others have the same secret: with a rule of their own, and with greetings off.
    let gateway = gateway()
        .route(ours("/before"))
        .route(
            Route::new(json!({"name": "x", "path": "/x", "provider": "x"}))
                .set("secret", "file:secrets/x")
                .secret("x", consumer)
                .to(&app),
        )
        .route(
            Route::new(json!({"name": "off", "path": "/off", "provider": "x", "handshake": "off"}))
                .set("secret", "file:secrets/x")
                .to(&app),
        )
        .route(ours("/after"))
        .route(braintree)
        .start()
        .await;
    let json_type = |request: Request| request.header("Content-Type", "application/json");
    for text in ["123", "true", "null", "admin=1", "a"] {
        let asked = format!("/x?crc_token={}", text.replace('=', "%3D"));
        let answer = gateway.send(&Request::get(&asked)).await;
        let answer: Value = serde_json::from_str(&answer.text()).expect("an answer");
        let token = answer["response_token"].as_str().expect("a proof");
        for path in ["/x", "/off", "/before", "/after"] {
            let forged = Request::post(path, text).header("x-twitter-webhooks-signature", token);
            for forged in [forged.clone(), json_type(forged)] {
                let answer = gateway.send(&forged).await;
                assert_eq!(
                    (answer.status, answer.reason()),
                    (401, "signature_invalid"),
                    "{path} {text}: {answer:?}"
                );
            }
        }
    }
    let challenge = "deadbeefdeadbeefdeadbeef";
    let proof =
        gateway.send(&Request::get(&format!("/braintree?bt_challenge={challenge}"))).await.text().to_owned();
    assert!(proof.starts_with("integration_public_key|"), "{proof}");
    let form = format!("bt_signature={}&bt_payload={challenge}", proof.replace('|', "%7C"));
    let forged =
        Request::post("/braintree", form).header("Content-Type", "application/x-www-form-urlencoded");
    let answer = gateway.send(&forged).await;
    assert_eq!((answer.status, answer.reason()), (401, "signature_invalid"), "{answer:?}");

    // Genuine events have no such form, and pass.
    let event = r#"{"for_user_id":"2244994945","tweet_create_events":[]}"#;
    let token = STANDARD.encode(signed::hmac_sha256(consumer.as_bytes(), event.as_bytes()));
    for path in ["/x", "/off", "/before", "/after"] {
        let genuine =
            Request::post(path, event).header("x-twitter-webhooks-signature", &format!("sha256={token}"));
        let answer = gateway.send(&json_type(genuine)).await;
        assert!(answer.is_success() && !answer.is_duplicate(), "{path}: {answer:?}");
    }
    app.receives(4).await;
    gateway.drained().await;
    assert_eq!(app.count(), 4, "nothing forged reached the app");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_greeting_signs_only_what_its_sender_signed() {
    let app = App::start().await;
    let own = |signed: &str, when: Value| {
        json!({"when": when, "answer": {"body": "{proof}", "proof": {
               "algorithm": "hmac-sha256", "signed": signed, "encoding": "hex"}}})
    };
    let check = json!({"body:/type": "check"});
    for (signed, refused) in
        [("{query:text}", true), ("{url}", true), ("{body:/text}", false), ("{body}", false)]
    {
        let started =
            gateway().route(github().set("handshake", own(signed, check.clone())).to(&app)).try_start().await;
        match started {
            Ok(_) => assert!(!refused, "{signed}: it started"),
            Err(ended) => assert!(
                refused && ended.output.contains("does not cover what is signed here"),
                "{signed}: {}",
                ended.output
            ),
        }
    }
    let shaped = json!({"body:/type": "check", "query:text": {"matches": "[a-z]{1,8}"}});
    assert!(
        gateway()
            .route(github().set("handshake", own("{query:text}", shaped)).to(&app))
            .try_start()
            .await
            .is_ok()
    );
}
