//! What verification costs beside the bare call that it is built on, in the same run: HMAC-SHA256 over a 2 KiB body
//! against the `hmac` crate, a JSON Web Token with known keys against `jsonwebtoken`; and what packs cost: those that a gateway uses, and all of them.
//!
//! `cargo bench --bench verify`. `MILLIS` a measurement (200), `ROUNDS` (9), `BYTES` a body (2048).

#[path = "../support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::Sha256;
use support::{median, setting};
use tidegate::clock::{Clock, Timestamp};
use tidegate::message::{Head, Method, PathParams, Request, Scheme, Version};
use tidegate::providers::{self, Pack};
use tidegate::secret::Secret;
use tidegate::verify::{KeySource, Remote, Resolver, Verifier, VerifySpec, compile};

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

const SECRET: &str = "a-secret-of-forty-bytes-0123456789abcdef";

/// Keys are what the rule says.
struct Plain;

impl Resolver for Plain {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        Ok(Secret::new(reference.as_bytes().to_vec()))
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        Ok(reference.to_owned())
    }
    fn keys(&self, _: Remote) -> Result<Arc<dyn KeySource>, String> {
        Err("nothing is fetched here".to_owned())
    }
    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        providers::find(name)
    }
}

fn rule(rule: Value) -> Verifier {
    let spec: VerifySpec = serde_json::from_value(rule).expect("a rule");
    compile(&spec, &Plain).expect("a rule that may run").verifier
}

fn request(headers: &[(&str, &str)], body: Vec<u8>) -> Request {
    let client = IpAddr::from([127, 0, 0, 1]);
    let head = Head {
        method: Method::POST,
        target: "/hooks/in".to_owned(),
        authority: "hooks.example.com".to_owned(),
        asked_authority: None,
        scheme: Scheme::Https,
        version: Version::Http11,
        headers: headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect(),
        peer: (client, 1).into(),
        client,
        local: (client, 2).into(),
        received_at: Timestamp(0),
    };
    Request { head, params: PathParams::default(), body: body.into() }
}

/// Nanoseconds a call.
fn nanos(mut call: impl FnMut()) -> f64 {
    let long = Duration::from_millis(setting("MILLIS", 200));
    let (begin, mut calls) = (Instant::now(), 0_u32);
    while begin.elapsed() < long {
        for _ in 0..64 {
            call();
        }
        calls += 64;
    }
    begin.elapsed().as_nanos() as f64 / f64::from(calls)
}

/// Measures ours and the bare call in turns, and prints their ratio.
fn compare(what: &str, goal: f64, mut ours: impl FnMut(), mut bare: impl FnMut()) {
    let (mut ratios, mut times) = (Vec::new(), (Vec::new(), Vec::new()));
    for _ in 0..setting("ROUNDS", 9) {
        let (one, other) = (nanos(&mut ours), nanos(&mut bare));
        ratios.push(one / other);
        times.0.push(one);
        times.1.push(other);
    }
    let (ratio, ours, bare) = (median(ratios), median(times.0), median(times.1));
    let verdict = if ratio <= goal { "ok" } else { "MISSED" };
    println!("{what:<44} {ours:>8.0} ns  bare {bare:>8.0} ns  ratio {ratio:.3} (goal {goal}) {verdict}");
}

/// Verifies again and again without a copy: the request comes back each time.
fn verifying(verifier: Verifier, request: Request) -> impl FnMut() {
    let now = Clock::System.now();
    let mut request = Some(request);
    move || {
        let verified = request.take().map(|request| verifier.verify(request, None, now).expect("genuine"));
        request = black_box(verified).map(tidegate::verify::Verified::into_inner);
    }
}

fn mac() {
    let body: Vec<u8> = (0..setting("BYTES", 2048)).map(|at| (at % 251) as u8).collect();
    let mac = |message: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key");
        mac.update(message);
        mac
    };
    let digest = mac(&body).finalize().into_bytes();
    let headers = [
        ("Host", "hooks.example.com"),
        ("User-Agent", "GitHub-Hookshot/044aadd"),
        ("Content-Type", "application/json"),
        ("X-GitHub-Event", "push"),
        ("X-Hub-Signature-256", &format!("sha256={}", hex::encode(digest))),
    ];
    compare(
        "HMAC-SHA256 (github)",
        1.3,
        verifying(rule(json!({"provider": "github", "secret": SECRET})), request(&headers, body.clone())),
        || mac(black_box(&body)).verify_slice(black_box(&digest)).expect("genuine"),
    );
    let now = Clock::System.now().as_secs();
    let signed = [format!("{now}.").as_bytes(), &body].concat();
    let digest = mac(&signed).finalize().into_bytes();
    let headers = [("Host", "h"), ("Stripe-Signature", &*format!("t={now},v1={}", hex::encode(digest)))];
    compare(
        "HMAC-SHA256 with a time (stripe)",
        1.3,
        verifying(rule(json!({"provider": "stripe", "secret": SECRET})), request(&headers, body.clone())),
        || mac(black_box(&signed)).verify_slice(black_box(&digest)).expect("genuine"),
    );
}

const PRIVATE: &str = include_str!("../../src/verify/tests/rsa-2048.pem");

fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

/// By ring itself: the cryptography that the gateway installs makes no such signatures.
fn rs256(claims: &Value) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(PRIVATE.as_bytes()).expect("a key");
    let pair = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).expect("a key");
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(&claims.to_string()));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signed");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn token() {
    let now = Clock::System.now().as_secs();
    let claims = json!({
        "iss": "https://issuer.example", "aud": "tidegate", "sub": "a", "iat": now, "exp": now + 3600
    });
    let rsa = rcgen::KeyPair::from_pem(PRIVATE).expect("a key");
    let keys = [
        (
            Algorithm::HS256,
            "HS256",
            hs256 as fn(&Value) -> String,
            DecodingKey::from_secret(SECRET.as_bytes()),
            json!({"secrets": [SECRET]}),
        ),
        (
            Algorithm::RS256,
            "RS256",
            rs256,
            DecodingKey::from_rsa_pem(rsa.public_key_pem().as_bytes()).expect("a key"),
            json!({"public_keys": [rsa.public_key_pem()]}),
        ),
    ];
    for (algorithm, name, signed, verifying_key, mut jwt) in keys {
        jwt["algorithms"] = json!([name]);
        jwt["issuer"] = json!("https://issuer.example");
        jwt["audience"] = json!("tidegate");
        // Compiled first: it installs the cryptography that both then use.
        let rule = rule(json!({ "jwt": jwt }));
        let token = signed(&claims);
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&["https://issuer.example"]);
        validation.set_audience(&["tidegate"]);
        let headers = [("Host", "h"), ("Authorization", &*format!("Bearer {token}"))];
        compare(
            &format!("JSON Web Token, {name}"),
            1.2,
            verifying(rule, request(&headers, b"{}".to_vec())),
            || {
                let decoded = jsonwebtoken::decode::<Value>(black_box(&token), &verifying_key, &validation);
                black_box(decoded.expect("genuine"));
            },
        );
    }
}

/// Memory, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    /// Resident and private: what no file is behind (`RssAnon`), the allocator's free pages included.
    anonymous: u64,
    /// Resident and the program's own file: code and constants, which the system may drop and read again (`RssFile`).
    file: u64,
    /// What is allocated and not freed.
    live: u64,
}

impl Memory {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let live = LIVE.load(Ordering::Relaxed).max(0).unsigned_abs() as u64 / 1024;
        Self { anonymous: value("RssAnon:"), file: value("RssFile:"), live }
    }

    fn since(self, before: Self) -> Self {
        Self {
            anonymous: self.anonymous.saturating_sub(before.anonymous),
            file: self.file.saturating_sub(before.file),
            live: self.live.saturating_sub(before.live),
        }
    }
}

/// The gateway's allocator; where packs are measured it counts what is live.
struct Counting(mimalloc::MiMalloc);

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);

impl Counting {
    fn count(change: isize) {
        if COUNTS.load(Ordering::Relaxed) {
            LIVE.fetch_add(change, Ordering::Relaxed);
        }
    }
}

// SAFETY: each call goes to mimalloc as it comes; counting touches nothing but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size() as isize);
        // SAFETY: the caller's promises are those that mimalloc asks for.
        unsafe { self.0.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Self::count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { self.0.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { self.0.realloc(at, layout, size) }
    }
}

/// What packs cost, each measure in a process of its own: what one has freed, the next would take for nothing.
fn packs() {
    let program = std::env::current_exe().expect("this program");
    for measure in ["five", "rules", "all", "all-first"] {
        let status = std::process::Command::new(&program).env(MEASURE, measure).status().expect("started");
        assert!(status.success(), "{measure}: {status}");
    }
}

/// Which measure of `packs` this process is for.
const MEASURE: &str = "PACKS_MEASURE";

fn measure(which: &str) {
    COUNTS.store(true, Ordering::Relaxed);
    // One is loaded before: what reading takes (code, the allocator's first pages) is there in any gateway.
    if which != "all-first" {
        drop(rule(json!({"provider": "github", "secret": SECRET})));
    }
    let load = |names: &[&'static str]| -> Vec<Arc<Pack>> {
        names.iter().map(|name| providers::find(name).expect("a pack")).collect()
    };
    let (before, begin) = (Memory::now(), Instant::now());
    match which {
        "five" => {
            let packs = load(&["stripe", "shopify", "slack", "paypal", "twilio"]);
            loaded("5 packs", black_box(&packs).len(), before, begin);
        }
        // All that a gateway keeps of them.
        "rules" => {
            let of = |at: usize| {
                let provider = ["stripe", "shopify", "slack", "github", "linear"][at % 5];
                rule(json!({ "provider": provider, "secret": SECRET }))
            };
            let verifiers: Vec<Verifier> = (0..100).map(of).collect();
            loaded("rules of 100 routes, of 5 packs", black_box(&verifiers).len(), before, begin);
        }
        _ => {
            let packs = load(&providers::names());
            let what =
                if which == "all" { "all packs" } else { "all packs, with what reading the first takes" };
            loaded(what, black_box(&packs).len(), before, begin);
        }
    }
}

fn loaded(what: &str, count: usize, before: Memory, begin: Instant) {
    let took = begin.elapsed();
    let Memory { anonymous, file, live } = Memory::now().since(before);
    let verdict = if took < Duration::from_millis(10) && anonymous < 2048 { "ok" } else { "MISSED" };
    println!(
        "{what:<44} {:>8.1} ms  {count}: {anonymous} KiB private ({live} live) (goal 10 ms, 2048 KiB) {verdict}; \
         {file} KiB more of the program's file",
        took.as_secs_f64() * 1e3
    );
}

/// Huge pages would round what is measured up to 2 MiB: once more without them.
fn without_huge_pages() {
    const SWITCH: &str = "MIMALLOC_ALLOW_THP";
    if std::env::var_os(SWITCH).is_none() {
        let program = std::env::current_exe().expect("this program");
        let error =
            std::process::Command::new(program).args(std::env::args_os().skip(1)).env(SWITCH, "0").exec();
        panic!("this program does not start: {error}");
    }
}

fn main() {
    without_huge_pages();
    if let Ok(which) = std::env::var(MEASURE) {
        return measure(&which);
    }
    packs();
    mac();
    token();
}
