//! Senders that prove themselves by tokens, keys and passwords.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::support::app::Speaks;
use crate::support::*;

fn verified(path: &str, verify: serde_json::Value) -> Route {
    Route::new(
        json!({"name": path.trim_start_matches('/'), "path": path, "verify": verify, "idempotency": "off"}),
    )
}

async fn outcome(gateway: &Gateway, request: Request) -> String {
    let answer = gateway.send(&request).await;
    if answer.is_success() { "accepted".into() } else { format!("{} {}", answer.status, answer.reason()) }
}

fn bearer(path: &str, token: &str) -> Request {
    Request::post(path, "{}").header("Authorization", &format!("Bearer {token}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_is_held_to_what_the_config_pins() {
    let app = App::start().await;
    let jwt = json!({"jwt": {
        "algorithms": ["HS256"], "issuer": "https://issuer.example", "audience": "tidegate", "secrets": ["file:secrets/jwt"]
    }});
    let route = verified("/jwt", jwt).secret("jwt", signed::JWT_SECRET).to(&app);
    let gateway = gateway().route(route).start().await;
    let claims = |change: fn(&mut serde_json::Value)| {
        let mut claims =
            json!({"iss": "https://issuer.example", "aud": "tidegate", "iat": now(), "exp": now() + 300});
        change(&mut claims);
        claims
    };
    let good = signed::jwt(&claims(|_| ()));
    let send = async |token: &str| outcome(&gateway, bearer("/jwt", token)).await;
    assert_eq!(send(&good).await, "accepted");
    assert_eq!(send(&signed::jwt(&claims(|c| c["aud"] = json!(["x", "tidegate"])))).await, "accepted");
    assert_eq!(send(&signed::jwt(&claims(|c| c["exp"] = json!(now() - 3600)))).await, "401 token_expired");
    assert_eq!(send(&signed::jwt(&claims(|c| c["nbf"] = json!(now() + 3600)))).await, "401 token_expired");
    assert_eq!(send(&signed::jwt(&claims(|c| c["aud"] = json!("other")))).await, "403 sender_not_allowed");
    assert_eq!(
        send(&signed::jwt(&claims(|c| c["iss"] = json!("https://evil.example")))).await,
        "401 token_invalid"
    );
    assert_eq!(
        send(&signed::jwt(&claims(|c| drop(c.as_object_mut().and_then(|c| c.remove("exp")))))).await,
        "401 token_invalid"
    );
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        good.split('.').nth(1).unwrap_or_default()
    );
    assert_eq!(send(&none).await, "401 token_invalid");
    let mut forged = good.clone();
    forged.replace_range(good.len() - 5..good.len() - 3, "00");
    assert_eq!(send(&forged).await, "401 token_invalid");
    assert_eq!(send("garbage").await, "401 token_invalid");
    assert_eq!(outcome(&gateway, Request::post("/jwt", "{}")).await, "401 credentials_missing");
    let twice = bearer("/jwt", &good).header("Authorization", &format!("Bearer {good}"));
    assert_eq!(outcome(&gateway, twice).await, "401 ambiguous_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_is_checked_against_a_key_set() {
    let app = App::start().await;
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let point = key.public_key().as_ref(); // 0x04, x, y
    let jwks = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
    }]});
    let verify = json!({"jwt": {
        "algorithms": ["ES256"], "issuer": "i", "audience": "a", "jwks": "file:jwks.json",
        "body_hash": {"claim": "body_sha256", "encoding": "hex"}
    }});
    let gateway =
        gateway().file("jwks.json", &jwks.to_string()).route(verified("/jwt", verify).to(&app)).start().await;
    let token = |kid: &str, body: &str| {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": kid}).to_string());
        let claims = json!({"iss": "i", "aud": "a", "iat": now(), "exp": now() + 60, "body_sha256": sha256(body.as_bytes())});
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = key.sign(&random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    assert_eq!(outcome(&gateway, bearer("/jwt", &token("one", "{}"))).await, "accepted");
    assert_eq!(
        outcome(&gateway, bearer("/jwt", &token("one", "{ }"))).await,
        "401 token_invalid",
        "another body"
    );
    let unknown = outcome(&gateway, bearer("/jwt", &token("two", "{}"))).await;
    assert!(["401 token_invalid", "503 key_unavailable"].contains(&unknown.as_str()), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_fetched_from_a_private_issuer_and_an_outage_is_no_refusal() {
    let app = App::start().await;
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let point = key.public_key().as_ref(); // 0x04, x, y
    let jwks = json!({"keys": [{
        "kty": "EC", "crv": "P-256", "kid": "one",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
    }]});
    let keys = Behaviour::Answer { status: 200, headers: vec![], body: jwks.to_string().into_bytes() };
    let token = |kid: &str| {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": kid}).to_string());
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(json!({"exp": now() + 60}).to_string()));
        let signature = key.sign(&random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let (good, down, stranger) = (
        App::speaking(Speaks::Http1Tls).await,
        App::speaking(Speaks::Http1Tls).await,
        App::speaking(Speaks::Http1OtherName).await,
    );
    for issuer in [&good, &down, &stranger] {
        issuer.behaves(keys.clone());
    }
    down.refuse().await;
    let route = |path: &str, issuer: &App, ca: bool| {
        let mut jwt = json!({"algorithms": ["ES256"], "jwks": format!("{}/jwks.json", issuer.url())});
        if ca {
            jwt["ca"] = json!("file:ca.pem");
        }
        verified(path, json!({ "jwt": jwt })).to(&app)
    };
    let gateway = gateway()
        .file("ca.pem", &certs::authority().ca)
        .route(route("/good", &good, true))
        .route(route("/down", &down, true))
        .route(route("/stranger", &stranger, true))
        .route(route("/public-roots", &good, false))
        .start()
        .await;
    assert_eq!(outcome(&gateway, bearer("/good", &token("one"))).await, "accepted");
    assert_eq!(
        outcome(&gateway, bearer("/good", &token("two"))).await,
        "401 token_invalid",
        "the set is fresh"
    );
    for path in ["/down", "/stranger", "/public-roots"] {
        let answer = gateway.send(&bearer(path, &token("one"))).await;
        assert_eq!((answer.status, answer.reason()), (503, "key_unavailable"), "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    assert!(stranger.received().is_empty(), "nothing is asked of a host that is not proved");
    down.accept().await;
    eventually("the issuer is back", async || {
        outcome(&gateway, bearer("/down", &token("one"))).await == "accepted"
    })
    .await;
    good.refuse().await;
    assert_eq!(outcome(&gateway, bearer("/good", &token("one"))).await, "accepted", "what is known stays");
    let status = gateway.admin("GET", "/status").await.expect("the status").text();
    assert!(status.contains("/jwks.json") && status.contains("age_seconds"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_bearer_tokens_and_passwords() {
    let app = App::start().await;
    let hashed = format!("sha256:{}", sha256(b"second-key"));
    let gateway = gateway()
        .route(
            verified(
                "/header",
                json!({"api_key": {"header": "X-Api-Key", "keys": ["file:secrets/k1", "file:secrets/k2"]}}),
            )
            .secret("k1", "first-key")
            .secret("k2", &hashed)
            .to(&app),
        )
        .route(verified("/query", json!({"api_key": {"query": "key", "keys": ["file:secrets/k1"]}})).to(&app))
        .route(verified("/bearer", json!({"bearer": {"tokens": ["file:secrets/k1"]}})).to(&app))
        .route(
            verified(
                "/basic",
                json!({"basic": {"users": [{"name": "hooks", "password": "file:secrets/pw"}]}}),
            )
            .secret("pw", "pass:word")
            .to(&app),
        )
        .start()
        .await;
    let send = async |request: Request| outcome(&gateway, request).await;
    let key = |value: &str| Request::post("/header", "x").header("x-api-key", value);
    assert_eq!(send(key("first-key")).await, "accepted");
    assert_eq!(send(key("second-key")).await, "accepted");
    assert_eq!(send(key(&hashed)).await, "401 credentials_invalid", "the hash is no key");
    assert_eq!(send(key("First-Key")).await, "401 credentials_invalid");
    assert_eq!(send(key("")).await, "401 credentials_missing", "nothing is no key");
    assert_eq!(send(Request::post("/header", "x")).await, "401 credentials_missing");
    assert_eq!(send(key("first-key").header("X-API-KEY", "first-key")).await, "401 ambiguous_request");

    assert_eq!(send(Request::post("/query?a=b&key=first-key", "x")).await, "accepted");
    assert_eq!(send(Request::post("/query?key=other", "x")).await, "401 credentials_invalid");
    assert_eq!(send(Request::post("/query", "x")).await, "401 credentials_missing");

    assert_eq!(send(bearer("/bearer", "first-key")).await, "accepted");
    assert_eq!(send(bearer("/bearer", "other")).await, "401 credentials_invalid");

    let basic = |pair: &str| {
        Request::post("/basic", "x").header("Authorization", &format!("Basic {}", STANDARD.encode(pair)))
    };
    assert_eq!(send(basic("hooks:pass:word")).await, "accepted");
    assert_eq!(send(basic("hooks:pass")).await, "401 credentials_invalid");
    assert_eq!(send(basic("other:pass:word")).await, "401 credentials_invalid");
    assert_eq!(
        send(Request::post("/basic", "x").header("Authorization", "Basic !")).await,
        "401 credentials_invalid"
    );

    app.receives(5).await;
    gateway.drained().await;
    assert_eq!(app.count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_combined_by_any_and_all() {
    let app = App::start().await;
    let bearer_rule = json!({"bearer": {"tokens": ["file:secrets/token"]}});
    let key_rule = json!({"api_key": {"header": "X-Key", "keys": ["file:secrets/key"]}});
    let gateway = gateway()
        .route(
            verified("/any", json!({"any": [bearer_rule, key_rule]}))
                .secret("token", "t1")
                .secret("key", "k1")
                .to(&app),
        )
        .route(verified("/all", json!({"all": [bearer_rule, key_rule]})).to(&app))
        .start()
        .await;
    let request = |path: &str, token: Option<&str>, key: Option<&str>| {
        let request = match token {
            Some(token) => bearer(path, token),
            None => Request::post(path, "{}"),
        };
        match key {
            Some(key) => request.header("X-Key", key),
            None => request,
        }
    };
    let accepted =
        async |path: &str, token, key| outcome(&gateway, request(path, token, key)).await == "accepted";
    assert!(accepted("/any", Some("t1"), None).await);
    assert!(accepted("/any", None, Some("k1")).await);
    assert!(accepted("/any", Some("wrong"), Some("k1")).await);
    assert!(!accepted("/any", Some("wrong"), None).await);
    assert!(!accepted("/any", None, None).await);
    assert!(accepted("/all", Some("t1"), Some("k1")).await);
    assert!(!accepted("/all", Some("t1"), None).await);
    assert!(!accepted("/all", Some("wrong"), Some("k1")).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_shown_nowhere_whatever_the_parameter_or_header_is_called() {
    const KEY: &str = "a-key-that-must-not-be-shown";
    let app = App::start().await;
    let query = verified("/query", json!({"api_key": {"query": "k", "keys": ["file:secrets/key"]}}));
    let header =
        verified("/header", json!({"api_key": {"header": "X-Client-Id", "keys": ["file:secrets/key"]}}));
    let gateway = gateway()
        .section("log", json!({"level": "debug", "access": "all"}))
        .route(query.secret("key", KEY).to(&app))
        .route(header.to(&app))
        .start()
        .await;
    assert_eq!(outcome(&gateway, Request::post(&format!("/query?k={KEY}&x=1"), "1")).await, "accepted");
    assert_eq!(outcome(&gateway, Request::post(&format!("/query?%6B={KEY}"), "2")).await, "accepted");
    assert_eq!(outcome(&gateway, Request::post("/header", "3").header("X-Client-Id", KEY)).await, "accepted");
    let wrong = outcome(&gateway, Request::post(&format!("/query?k={KEY}x"), "4")).await;
    assert_eq!(wrong, "401 credentials_invalid");
    let nowhere = outcome(&gateway, Request::post(&format!("/nowhere?k={KEY}"), "5")).await;
    assert_eq!(nowhere, "404 no_route");
    gateway.drained().await;
    let shown = async |path: &str| gateway.admin("GET", path).await.expect("answered").text();
    let list = shown("/events").await;
    let mut all = vec![list.clone(), shown("/metrics").await, shown("/status").await, gateway.log()];
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    for event in list["events"].as_array().expect("events") {
        all.push(shown(&format!("/events/{}", event["id"].as_str().expect("an id"))).await);
    }
    assert_eq!(all.len(), 4 + 3);
    assert!(all[0].contains("/query?k=(hidden)&x=1"), "{}", all[0]);
    for text in all {
        assert!(!text.contains(KEY), "{text}");
    }
}
