//! Keys and certificates that requests name, over https with a private authority, through rules as users write them.

use std::collections::HashMap;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::*;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::Secret;
use crate::verify::testing::{World, request};
use crate::verify::{Refusal, Resolver, Verifier, compile};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Ca {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name` with its key, valid in these years.
fn certificate(ca: &Ca, name: &str, years: (i32, i32)) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    (params.signed_by(&key, ca).unwrap().pem(), key)
}

const NOW: (i32, i32) = (2020, 2100);

/// An https server whose answers can be changed; what it has not, it answers 404.
struct Issuer {
    app: App,
    answers: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    async fn start(ca: &Ca, host: &str) -> Self {
        let (chain, key) = certificate(ca, host, NOW);
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let answers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (given, seen) = (answers.clone(), asked.clone());
        let app = App::with(move |socket, _| {
            let (acceptor, given, seen) = (acceptor.clone(), given.clone(), seen.clone());
            async move {
                let Ok(mut tls) = acceptor.accept(socket).await else { return };
                while let Some((head, body)) = read_request(&mut tls).await {
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    seen.lock().push(format!("{head} {}", String::from_utf8_lossy(&body)));
                    let answer = given.lock().get(&path).cloned();
                    let answer = match answer {
                        Some(silent) if silent == "hang" => std::future::pending().await,
                        Some(raw) if raw.starts_with("HTTP/") => raw,
                        Some(body) => ok(&body),
                        None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    };
                    if tls.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { app, answers, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.app.address)
    }

    fn gives(&self, path: &str, answer: &str) {
        self.answers.lock().insert(path.to_owned(), answer.to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

/// A world whose keys are fetched.
struct Fetching<'r> {
    remote: &'r RemoteKeys,
    world: World,
}

impl Resolver for Fetching<'_> {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        self.world.secret(reference)
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        self.world.text(reference)
    }
    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String> {
        Ok(self.remote.source(remote))
    }
    fn pack(&self, name: &str) -> Result<Arc<crate::providers::Pack>, String> {
        self.world.pack(name)
    }
}

fn rule(remote: &RemoteKeys, ca: &Ca, source: &str) -> Verifier {
    let yaml = format!(
        "{{ algorithm: ecdsa-p256-sha256, signature: {{ from: header:X-Signature, encoding: base64 }}, \
         key_source: {{ {source}, ca: env:CA }} }}"
    );
    let world = World { env: [("CA".to_owned(), ca.pem())].into(), ..World::default() };
    let resolver = Fetching { remote, world };
    compile(&serde_saphyr::from_str(&yaml).unwrap(), &resolver).unwrap_or_else(|e| panic!("{e:?}")).verifier
}

fn signed(key: &KeyPair, names: &str) -> Request {
    use base64::Engine;
    let random = SystemRandom::new();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.serialized_der(), &random).unwrap();
    let signature = pair.sign(&random, b"hello").unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(signature.as_ref());
    request("/", &[("X-Signature", &text), ("X-Key", names)], b"hello")
}

fn decide(rule: &Verifier, request: &Request) -> Result<(), Refusal> {
    rule.verify(request.clone(), None, Clock::System.now()).map(|_| ()).map_err(|(_, refusal)| refusal)
}

/// Decides as the way in does: waits for what is needed.
async fn waited(rule: &Verifier, request: &Request) -> Result<(), Refusal> {
    match decide(rule, request) {
        Err(Refusal { needs: Some(need), .. }) => {
            tokio::time::timeout(Duration::from_secs(20), need.settled()).await.unwrap();
            decide(rule, request)
        }
        decided => decided,
    }
}

fn reason(decided: Result<(), Refusal>) -> Option<Reason> {
    decided.err().map(|refusal| refusal.reason)
}

#[tokio::test]
async fn a_key_is_fetched_when_it_is_first_named_and_then_known() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    let wrapped = serde_json::json!({ "key": key.public_key_pem() }).to_string();
    issuer.gives("/v1/a%2F1", &wrapped);
    let remote = remote(QUICK);
    let rule =
        rule(&remote, &ca, &format!("url: '{}', from: header:X-Key, at: /key", issuer.url("/v1/{key}")));
    let r = signed(&key, "a/1");
    let refusal = decide(&rule, &r).unwrap_err();
    assert!(refusal.reason == Reason::KeyUnavailable && refusal.needs.is_some(), "{refusal}");
    assert_eq!(waited(&rule, &r).await, Ok(()));
    assert_eq!(decide(&rule, &r), Ok(()));
    assert_eq!(issuer.asked(), 1);
    let other = signed(&KeyPair::generate().unwrap(), "a/1");
    assert_eq!(reason(waited(&rule, &other).await), Some(Reason::SignatureInvalid));
    assert_eq!(remote.status()[0].url, issuer.url("/v1/a%2F1"));
    let unsigned = request("/", &[("X-Key", "b")], b"hello");
    assert_eq!(reason(decide(&rule, &unsigned)), Some(Reason::SignatureMissing));
    assert_eq!(issuer.asked(), 1, "a request without a signature is not worth a fetch");
}

#[tokio::test]
async fn a_key_that_its_issuer_does_not_know_is_refused_and_not_asked_for_again_and_again() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    let remote = remote(Timing { floor: Duration::from_secs(60), ..QUICK });
    let rule = rule(&remote, &ca, &format!("url: '{}', from: header:X-Key", issuer.url("/{key}")));
    for _ in 0..5 {
        assert_eq!(reason(waited(&rule, &signed(&key, "gone")).await), Some(Reason::SignatureInvalid));
    }
    assert_eq!(issuer.asked(), 1);
    for n in 0..40 {
        let found = reason(waited(&rule, &signed(&key, &format!("n{n}"))).await);
        let expected = if n < 23 { Reason::SignatureInvalid } else { Reason::KeyUnavailable };
        assert_eq!(found, Some(expected), "{n}");
    }
    assert_eq!(issuer.asked(), 24, "one address may have so many names looked for at once");
    // The rest is for others.
    issuer.gives("/k", &key.public_key_pem());
    assert_eq!(reason(waited(&rule, &signed(&key, "k")).await), Some(Reason::KeyUnavailable));
    assert_eq!(waited(&rule, &from([192, 0, 2, 7], signed(&key, "k"))).await, Ok(()));
}

fn from(client: impl Into<IpAddr>, mut request: Request) -> Request {
    request.head.client = client.into();
    request
}

/// The documents of a source that holds good names and others, and how many there are of each.
fn sizes(remote: &RemoteKeys) -> (u64, u64) {
    let sources: Vec<_> = remote.sources.lock().values().filter_map(Weak::upgrade).collect();
    let sizes = sources.iter().filter_map(|source| match &**source {
        Source::Named(named) => Some(named.sizes()),
        Source::Fixed(_) => None,
    });
    sizes.fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
}

#[tokio::test]
async fn made_up_names_push_out_no_good_one_and_are_one_line_of_the_status() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    issuer.gives("/good", &key.public_key_pem());
    // An issuer that has an answer to whatever it is asked, too.
    issuer.gives("/false-friend", &KeyPair::generate().unwrap().public_key_pem());
    let remote = remote(Timing { new_names: Rate { count: 100_000, per: Duration::from_secs(1) }, ..QUICK });
    let rule = rule(&remote, &ca, &format!("url: '{}', from: header:X-Key", issuer.url("/{key}")));
    assert_eq!(waited(&rule, &signed(&key, "good")).await, Ok(()));
    assert_eq!(reason(waited(&rule, &signed(&key, "false-friend")).await), Some(Reason::SignatureInvalid));
    assert_eq!(sizes(&remote), (1, 1), "what has proved nothing is not a good one");
    for n in 0..1000 {
        let junk = from([10, 0, 0, u8::try_from(n % 250).unwrap()], signed(&key, &format!("<junk>{n}")));
        // Asked for more often than any good one.
        (0..3).for_each(|_| {
            let _ = decide(&rule, &junk);
        });
    }
    let (good, others) = sizes(&remote);
    assert!(good == 1 && others <= 128, "{good} {others}");
    assert_eq!(decide(&rule, &signed(&key, "good")), Ok(()), "it is known without being fetched again");
    until("the failures", || remote.status().len() == 2).await;
    let status = remote.status();
    let (others, good): (Vec<_>, Vec<_>) = status.iter().partition(|of| !of.alarming);
    assert_eq!((good.len(), good[0].url.clone()), (1, issuer.url("/good")));
    assert_eq!((others.len(), others[0].url.clone()), (1, issuer.url("/{key}")));
    assert!(others[0].unknown_names > 0 && good[0].unknown_names == 0, "{status:?}");
    assert!(!serde_json::to_string(&status).unwrap().contains("junk"));
}

#[tokio::test]
async fn a_name_that_was_good_before_a_restart_needs_no_budget() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    issuer.gives("/good", &key.public_key_pem());
    issuer.gives("/new", &key.public_key_pem());
    let folder = tempfile::tempdir().unwrap();
    let source = format!("url: '{}', from: header:X-Key", issuer.url("/{key}"));
    let none = Timing { new_names: Rate { count: 0, per: Duration::from_secs(1) }, ..QUICK };
    {
        let remote = remote(QUICK);
        remote.remember_in(folder.path());
        let rule = rule(&remote, &ca, &source);
        assert_eq!(waited(&rule, &signed(&key, "good")).await, Ok(()));
        let file = folder.path().join("keys/names.json");
        until("the file", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"good\"")))
            .await;
    }
    for rule_first in [true, false] {
        let remote = remote(none);
        let early = rule_first.then(|| rule(&remote, &ca, &source));
        remote.remember_in(folder.path());
        let rule = early.unwrap_or_else(|| rule(&remote, &ca, &source));
        assert_eq!(reason(waited(&rule, &signed(&key, "new")).await), Some(Reason::KeyUnavailable));
        assert_eq!(waited(&rule, &signed(&key, "good")).await, Ok(()));
    }
}

#[tokio::test]
async fn a_good_key_that_is_taken_back_is_refused_and_alarms_nobody() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    issuer.gives("/k", &key.public_key_pem());
    let remote = remote(Timing { refresh_named: Duration::from_millis(20), ..QUICK });
    let rule = rule(&remote, &ca, &format!("url: '{}', from: header:X-Key", issuer.url("/{key}")));
    assert_eq!(waited(&rule, &signed(&key, "k")).await, Ok(()));
    assert!(remote.status()[0].alarming);
    issuer.answers.lock().clear();
    until("it is gone", || remote.status()[0].error.is_some()).await;
    assert!(!remote.status()[0].alarming);
    assert_eq!(reason(waited(&rule, &signed(&key, "k")).await), Some(Reason::SignatureInvalid));
}

#[test]
fn names_that_are_not_good_fill_no_log() {
    let hush = super::super::named::Hush::default();
    assert_eq!(hush.line(), Some(0));
    assert!((0..1000).all(|_| hush.line().is_none()));
}

#[tokio::test]
async fn an_outage_is_waited_out_and_a_retry_finds_the_key() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    for trouble in [
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
        "not a key, but taken for text until an algorithm wants it",
    ] {
        let remote = remote(QUICK);
        let rule = rule(&remote, &ca, &format!("url: '{}', from: header:X-Key", issuer.url("/{key}")));
        issuer.gives("/k", trouble);
        let refusal = waited(&rule, &signed(&key, "k")).await.unwrap_err();
        if trouble.starts_with("HTTP") {
            assert!(refusal.reason == Reason::KeyUnavailable && refusal.needs.is_none(), "{refusal}");
            issuer.gives("/k", &key.public_key_pem());
            tokio::time::sleep(QUICK.retry).await;
            assert_eq!(waited(&rule, &signed(&key, "k")).await, Ok(()));
            issuer.gives("/k", trouble);
            assert_eq!(decide(&rule, &signed(&key, "k")), Ok(()), "what is known stays");
        } else {
            assert_eq!(refusal.reason, Reason::SignatureInvalid);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_is_given_up() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    issuer.gives("/k", "hang");
    let remote = remote(QUICK);
    let rule = rule(&remote, &ca, &format!("url: '{}', from: header:X-Key", issuer.url("/{key}")));
    let r = signed(&KeyPair::generate().unwrap(), "k");
    let Some(need) = decide(&rule, &r).unwrap_err().needs else { panic!("nothing is fetched") };
    need.settled().await;
    assert_eq!(reason(decide(&rule, &r)), Some(Reason::KeyUnavailable));
    assert!(remote.status()[0].error.is_some());
}

#[tokio::test]
async fn only_pinned_addresses_and_proved_hosts_give_keys() {
    let (ca, stranger) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let serve = async |ca: &Ca, host: &str| {
        let issuer = Issuer::start(ca, host).await;
        issuer.gives("/k.pem", &key.public_key_pem());
        issuer
    };
    let (good, wrong_name, wrong_ca) = (
        serve(&ca, "127.0.0.1").await,
        serve(&ca, "keys.example").await,
        serve(&stranger, "127.0.0.1").await,
    );
    let ours = |issuer: &Issuer| format!("'{}'", issuer.url("/*.pem"));
    let patterns = [ours(&good), ours(&wrong_name), ours(&wrong_ca)].join(", ");
    let remote = remote(QUICK);
    let rule = rule(&remote, &ca, &format!("urls: [{patterns}], from: header:X-Key"));
    assert_eq!(waited(&rule, &signed(&key, &good.url("/k.pem"))).await, Ok(()));
    for issuer in [&wrong_name, &wrong_ca] {
        let refused = reason(waited(&rule, &signed(&key, &issuer.url("/k.pem"))).await);
        assert_eq!((refused, issuer.asked()), (Some(Reason::KeyUnavailable), 0));
    }
    for elsewhere in
        [good.url("/x/k.pem"), good.url("/k.pem?x"), "https://keys.example/k.pem".to_owned(), String::new()]
    {
        let refused = reason(decide(&rule, &signed(&key, &elsewhere)));
        assert_eq!(refused, Some(Reason::SignatureInvalid), "{elsewhere}");
    }
    assert_eq!(good.asked(), 1);
}

#[tokio::test]
async fn a_certificate_must_be_valid_lead_to_the_root_and_be_for_the_name() {
    let (ca, stranger) = (authority(), authority());
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let (good, key) = certificate(&ca, "signer.example", NOW);
    issuer.gives("/good", &good);
    issuer.gives("/stranger", &certificate(&stranger, "signer.example", NOW).0);
    issuer.gives("/other", &certificate(&ca, "other.example", NOW).0);
    issuer.gives("/expired", &certificate(&ca, "signer.example", (2001, 2002)).0);
    issuer.gives("/early", &certificate(&ca, "signer.example", (2100, 2101)).0);
    issuer.gives("/huge", &" ".repeat(LIMITS.bytes + 1));
    issuer.gives("/none", "<html>");
    let remote = remote(QUICK);
    let source = |chain: &str| {
        format!(
            "url: '{}', from: header:X-Key, format: certificate, certificate: {{ names: signer.example{chain} }}",
            issuer.url("/{key}")
        )
    };
    let rule_of = |chain: &str| rule(&remote, &ca, &source(chain));
    let (required, host) = (rule_of(""), rule_of(", chain: host"));
    assert_eq!(waited(&required, &signed(&key, "good")).await, Ok(()));
    for bad in ["stranger", "other", "expired", "early", "huge", "none"] {
        assert_eq!(
            reason(waited(&required, &signed(&key, bad)).await),
            Some(Reason::KeyUnavailable),
            "{bad}"
        );
    }
    // Where the host vouches for it, the chain is not asked for, but validity and name are.
    assert_eq!(reason(waited(&host, &signed(&key, "stranger")).await), Some(Reason::SignatureInvalid));
    for bad in ["other", "expired"] {
        assert_eq!(reason(waited(&host, &signed(&key, bad)).await), Some(Reason::KeyUnavailable), "{bad}");
    }
    let later = crate::clock::Timestamp::from_secs(5_000_000_000);
    let (_, refusal) = required.verify(signed(&key, "good"), None, later).unwrap_err();
    assert_eq!(refusal.reason, Reason::SignatureInvalid, "{refusal}");
}

#[tokio::test]
async fn the_one_key_of_a_sender_may_be_replaced() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let config =
        |key: &KeyPair| serde_json::json!({ "webhook": { "key": key.public_key_pem() } }).to_string();
    issuer.gives("/config", &config(&old));
    let remote = remote(QUICK);
    let rule = rule(&remote, &ca, &format!("url: '{}', at: /webhook/key", issuer.url("/config")));
    assert_eq!(waited(&rule, &signed(&old, "")).await, Ok(()));
    issuer.gives("/config", &config(&new));
    until("the floor", || decide(&rule, &signed(&new, "")).is_err_and(|r| r.needs.is_some())).await;
    assert_eq!(waited(&rule, &signed(&new, "")).await, Ok(()));
    assert_eq!(reason(waited(&rule, &signed(&old, "")).await), Some(Reason::SignatureInvalid));
    issuer.gives("/config", "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    until("a failure", || reason(decide(&rule, &signed(&old, ""))) == Some(Reason::KeyUnavailable)).await;
    assert_eq!(decide(&rule, &signed(&new, "")), Ok(()));
}

#[tokio::test]
async fn an_issuer_that_wants_to_know_who_asks_is_told() {
    let ca = authority();
    let issuer = Issuer::start(&ca, "127.0.0.1").await;
    let key = KeyPair::generate().unwrap();
    issuer.gives("/token", r#"{"access_token":"granted","token_type":"bearer"}"#);
    issuer.gives("/keys", &serde_json::json!({ "key": key.public_key_pem(), "ends": null }).to_string());
    let remote = remote(QUICK);
    let source = format!(
        "url: '{}', from: header:X-Key, post: '{{\"id\":\"{{key}}\"}}', at: /key, expires: /ends, headers: {{ X-Client: me }}, \
         oauth: {{ url: '{}', client_id: id, client_secret: s, scope: 'a b' }}",
        issuer.url("/keys"),
        issuer.url("/token")
    );
    let rule = rule(&remote, &ca, &source);
    assert_eq!(waited(&rule, &signed(&key, "k\"1")).await, Ok(()));
    let asked = issuer.asked.lock().clone();
    assert!(
        asked[0].contains("Authorization: Basic aWQ6cw==") && asked[0].ends_with("&scope=a%20b"),
        "{asked:?}"
    );
    assert!(
        asked[1].contains("Authorization: Bearer granted") && asked[1].contains("X-Client: me"),
        "{asked:?}"
    );
    assert!(asked[1].starts_with("POST /keys") && asked[1].ends_with(r#"{"id":"k\"1"}"#), "{asked:?}");
    issuer.gives("/keys", &serde_json::json!({ "key": key.public_key_pem(), "ends": 1 }).to_string());
    assert_eq!(
        reason(waited(&rule, &signed(&key, "k2")).await),
        Some(Reason::SignatureInvalid),
        "it has ended"
    );
}
