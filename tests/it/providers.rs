//! Every built-in pack through the binary: all vectors offline (`tidegate verify`) and by the running gateway over real
//! sockets, and events that `tidegate sign` has just made.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::config::Ports;
use crate::support::gateway::run;
use crate::support::vectors::{self, Captured, Vector};
use crate::support::*;

/// Processes or connections at the same time.
const AT_ONCE: usize = 8;

/// All vectors that need no network, at least: the 683 of the reference, and those of our own.
const VECTORS: usize = 2340;

/// The same vectors by the route that decides about them, each with a name for it.
fn by_config(vectors: Vec<Vector>) -> Vec<(String, Vec<Vector>)> {
    let mut groups: BTreeMap<_, Vec<Vector>> = BTreeMap::new();
    for vector in vectors {
        let url = vector.request.url.split('?').next().unwrap_or_default().to_owned();
        let config = Value::Object(vector.config.clone()).to_string();
        let group = (vector.provider.clone(), vector.request.method.clone(), url, config);
        groups.entry(group).or_default().push(vector);
    }
    groups.into_values().enumerate().map(|(at, group)| (format!("r{at}"), group)).collect()
}

/// What came of all of `work`, at most [`AT_ONCE`] at a time.
async fn several<T: Send + 'static>(
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut set = JoinSet::new();
    for one in work {
        let permits = permits.clone();
        set.spawn(async move {
            let _permit = permits.acquire().await.expect("never closed");
            one.await
        });
    }
    set.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_gets_its_answer_from_the_binary() {
    let folder = tempfile::tempdir().expect("a folder");
    let decided = several(by_config(vectors::all()).into_iter().map(|(name, group)| {
        let folder = folder.path().join(&name);
        let route = group[0].route(&name).forwards_to("http://127.0.0.1:3000");
        async move {
            std::fs::create_dir_all(folder.join("secrets")).expect("a folder");
            for (file, secret) in &route.secrets {
                std::fs::write(folder.join("secrets").join(file), secret).expect("written");
            }
            let config = gateway().route(route).config(Ports { plain: 1, tls: 2, admin: 3 });
            std::fs::write(folder.join("tidegate.yaml"), config).expect("written");
            let lines = group.iter().map(|vector| {
                let captured = Captured { received_at: Some(vector.now), ..vector.request.clone() };
                serde_json::to_string(&captured).expect("JSON")
            });
            std::fs::write(folder.join("captured.jsonl"), lines.collect::<Vec<_>>().join("\n"))
                .expect("written");
            let arguments =
                ["verify", "--route", &name, "--requests", "captured.jsonl", "--config", "tidegate.yaml"];
            let output = run(&folder, &arguments).await;
            let answers: Vec<Value> = String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
            let mut wrong = Vec::new();
            if answers.len() != group.len() {
                wrong.push(format!("{}: {output:?}", group[0].provider));
            }
            for (vector, answer) in group.iter().zip(&answers) {
                let key = answer["event_key"].as_str().unwrap_or_default();
                let right = answer["accepted"] == vector.accepted()
                    && answer["reason"].is_null() == vector.accepted()
                    && (!vector.accepted()
                        || vector.event_key.as_ref().is_none_or(|wanted| key.contains(wanted)));
                if !right {
                    wrong.push(format!("{} / {}: {answer}", vector.provider, vector.name));
                }
            }
            (answers.len(), wrong)
        }
    }))
    .await;
    let wrong: Vec<String> = decided.iter().flat_map(|(_, wrong)| wrong.clone()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let count: usize = decided.iter().map(|(count, _)| count).sum();
    assert!(count >= VECTORS, "{count}");
}

/// Right as text, as hex and as base64, and long enough for HS512.
const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\
                      00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A route for events that are signed now, and what `tidegate sign` needs to sign them.
struct Fresh {
    route: Route,
    arguments: Vec<String>,
}

impl Fresh {
    /// `None` if only the provider can sign.
    fn of(name: &str, folder: &std::path::Path) -> Option<Self> {
        let pack = tidegate::providers::find(name).expect("a built-in pack");
        let algorithms: Vec<&str> =
            pack.verify.iter().filter_map(|way| way.inline.algorithm.as_deref()).collect();
        let mut verify = json!({ "provider": name });
        let mut arguments = vec!["sign".to_owned(), name.to_owned()];
        let mut secrets = Vec::new();
        let mut secret = |value: &str| {
            let file = format!("fresh-{name}.{}", secrets.len());
            secrets.push((file.clone(), value.to_owned()));
            json!(format!("file:secrets/{file}"))
        };
        let is_asymmetric =
            |name: &&str| ["ed25519", "ecdsa", "rsa"].iter().any(|kind| name.starts_with(kind));
        let takes_secret =
            pack.params.values().all(|param| param.kind != tidegate::providers::ParamKind::Secret);
        if ONLY_THE_PROVIDER.contains(&name) {
            return None;
        }
        if let Some(algorithm) = algorithms.iter().find(|name| is_asymmetric(name)) {
            let pair = match algorithm {
                name if name.starts_with("ed25519") => {
                    rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key pair")
                }
                name if name.starts_with("ecdsa") => rcgen::KeyPair::generate().expect("a key pair"),
                _ => rcgen::KeyPair::from_pem(RSA).expect("a key pair"),
            };
            let path = folder.join(format!("{name}.key"));
            std::fs::write(&path, pair.serialize_pem()).expect("written");
            verify["public_keys"] = json!([secret(&pair.public_key_pem())]);
            arguments.extend(["--private-key".to_owned(), path.to_str().expect("text").to_owned()]);
        } else if takes_secret {
            // What X has signed for anybody is no event of any route that has the same secret.
            let own = if name == "x" { SECRET.replace("ff", "99") } else { SECRET.to_owned() };
            verify["secrets"] = json!([secret(&own)]);
            arguments.extend(["--secret".to_owned(), own]);
        }
        for (param, about) in &pack.params {
            // An algorithm is no free text.
            let value = if param == "algorithms" { "hmac-sha256" } else { SECRET };
            if about.required || param == "algorithms" {
                let is_text = about.kind == tidegate::providers::ParamKind::Text;
                verify[param] = if is_text { json!(value) } else { secret(value) };
                arguments.extend(["--param".to_owned(), format!("{param}={value}")]);
            }
        }
        let route = json!({
            "name": format!("fresh-{name}"), "host": format!("fresh-{name}.example"), "path": "/in",
            "verify": verify, "public_url": "https://hooks.example.com",
        });
        let route = secrets.iter().fold(Route::new(route), |route, (file, value)| route.secret(file, value));
        arguments.extend(["--url", "https://hooks.example.com/in", "--output", "json"].map(str::to_owned));
        Some(Self { route, arguments })
    }
}

/// Packs whose keys come from the provider (or whose algorithm signs nothing any more): `cli::sign` has the reasons.
const ONLY_THE_PROVIDER: &[&str] =
    &["app-store", "aws-sns", "azure-event-grid-entra", "google-play", "google-pubsub", "plaid", "travis-ci"];

const RSA: &str = include_str!("../../src/verify/tests/rsa-2048.pem");

/// What [`vectors::reference`] names is there whole, so the two tests after this one hold for all of it.
#[test]
fn all_683_vectors_of_the_reference_are_among_those_that_are_run() {
    let reference = vectors::reference();
    let run: HashSet<(String, String, String)> = vectors::all()
        .into_iter()
        .map(|vector| (vector.fingerprint(), vector.provider, vector.name))
        .collect();
    let missing: Vec<_> = reference.iter().filter(|one| !run.contains(*one)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(reference.iter().collect::<HashSet<_>>().len(), 683);
}

/// The running gateway, its wall clock at the time of the vectors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_gets_its_answer_over_a_real_socket_at_its_time() {
    let app = App::start().await;
    let mut times: BTreeMap<u64, Vec<Vector>> = BTreeMap::new();
    for vector in vectors::all() {
        times.entry(vector.now).or_default().push(vector);
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (time, vectors) in times {
        let groups = by_config(vectors);
        let mut builder = gateway();
        for (name, value) in fault::clock_at(time) {
            builder = builder.env(name, &value);
        }
        for (name, group) in &groups {
            builder = builder.route(group[0].route(name).to(&app));
        }
        let gateway = Arc::new(builder.start().await);
        let sent = groups
            .into_iter()
            .flat_map(|(name, group)| group.into_iter().map(move |one| (name.clone(), one)));
        let found = several(sent.map(|(name, vector)| {
            let gateway = gateway.clone();
            async move {
                let request = vector.request.to_host(&format!("{name}.example"));
                let answer = gateway.send_via(Via::Plain, &request).await;
                let right = match answer.status {
                    200..300 => vector.accepted(),
                    400..500 => !vector.accepted() && !answer.reason().is_empty(),
                    _ => false,
                };
                let why = (answer.status, answer.reason().to_owned());
                (!right).then(|| format!("{} / {} at {time}: {why:?}", vector.provider, vector.name))
            }
        }))
        .await;
        count += found.len();
        wrong.extend(found.into_iter().flatten());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= VECTORS, "{count}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pack_takes_what_is_signed_now() {
    let app = App::start().await;
    let keys = tempfile::tempdir().expect("a folder");
    let names = tidegate::providers::names();
    let fresh: Vec<(&str, Fresh)> =
        names.iter().filter_map(|name| Some((*name, Fresh::of(name, keys.path())?))).collect();
    assert_eq!(fresh.len() + ONLY_THE_PROVIDER.len(), names.len());
    let mut builder = gateway();
    for (_, fresh) in &fresh {
        builder = builder.route(fresh.route.clone().to(&app));
    }
    let gateway = Arc::new(builder.start().await);

    let wrong = several(fresh.into_iter().map(|(name, Fresh { arguments, .. })| {
        let gateway = gateway.clone();
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = run(gateway.folder(), &arguments).await;
            let Ok(event) = serde_json::from_slice::<Captured>(&output.stdout) else {
                return vec![format!("{name}: {output:?}")];
            };
            let request = event.to_host(&format!("fresh-{name}.example"));
            let mut wrong = Vec::new();
            let answer = gateway.send_via(Via::Plain, &request).await;
            if !answer.is_success() {
                wrong.push(format!("{name}: {} {}", answer.status, answer.reason()));
            }
            let bare =
                Request { headers: vec![("Host".into(), request.value("host").into())], ..request.clone() };
            let answer = gateway.send_via(Via::Plain, &bare.to("/in").body("{}")).await;
            if answer.status != 401 {
                wrong.push(format!("{name} without proof: {} {}", answer.status, answer.reason()));
            }
            wrong
        }
    }))
    .await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Some senders take only their own statuses or words for success: a buffered event gets them without being told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_event_is_acknowledged_as_its_sender_wants_it() {
    let app = App::start().await;
    let secret = "k7Qm2ZrT9xVb4LpW8sYd1NfH6jGc3AeU";
    let own = config::provider("dropbox-sign", "/own", secret)
        .set("name", "own")
        .set("answer", json!({"status": 202, "body": "ok"}))
        .to(&app);
    let gateway = gateway()
        .route(config::provider("dropbox-sign", "/sign", secret).to(&app))
        .route(config::provider("mailgun", "/mail", secret).to(&app))
        .route(own)
        .start()
        .await;
    let hash = hex::encode(signed::hmac_sha256(secret.as_bytes(), b"1764000000signature_request_sent"));
    let event = json!({"event": {"event_type": "signature_request_sent", "event_time": "1764000000", "event_hash": hash}});
    let form = |boundary: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{event}\r\n--{boundary}--\r\n"
        )
    };
    let sent = |path: &str, boundary: &str| {
        let kind = format!("multipart/form-data; boundary={boundary}");
        Request::post(path, form(boundary)).header("Content-Type", &kind)
    };
    let first = gateway.send(&sent("/sign", "one")).await;
    assert_eq!((first.status, first.text().as_str()), (200, "Hello API Event Received"), "{first:?}");
    assert_eq!(first.header("content-type"), Some("text/plain"));
    // The same event in another form around it.
    let again = gateway.send(&sent("/sign", "two")).await;
    assert!(again.is_duplicate());
    assert_eq!((again.status, again.text().as_str()), (200, "Hello API Event Received"));
    let own = gateway.send(&sent("/own", "one")).await;
    assert_eq!((own.status, own.text().as_str()), (202, "ok"));
    assert!(gateway.log().contains("Dropbox Sign (HelloSign) does not take 202 for success"));

    let token = "b2c9c1d8e5f0443a9b7e6d5c4f3a2b1c0d9e8f7a6b5c4d3e2f";
    let time = now().to_string();
    let signature = hex::encode(signed::hmac_sha256(secret.as_bytes(), format!("{time}{token}").as_bytes()));
    let mut mail = String::new();
    for (name, value) in [("timestamp", time.as_str()), ("token", token), ("signature", &signature)] {
        mail += &format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    }
    let file = "--B\r\nContent-Disposition: form-data; name=\"attachment-1\"; filename=\"a\"\r\n\r\n\u{0}\r\n--B--\r\n";
    let request = |body: String| {
        Request::post("/mail", body).header("Content-Type", "multipart/form-data; boundary=\"B\"")
    };
    let answer = gateway.send(&request(format!("{mail}{file}"))).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{answer:?}");
    // What cannot be read in one way only is refused.
    let twice = mail.replacen(
        "--B\r\n",
        "--B\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nx\r\n--B\r\n",
        1,
    );
    let answer = gateway.send(&request(format!("{twice}{file}"))).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    app.receives(3).await;
}
