//! Signature headers, templates and tokens of every built-in pack and of the generic rules: garbage is refused, never
//! a panic, and never accepted.
#![no_main]

#[path = "../common.rs"]
mod common;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tidegate::verify::spec::SecretSpec;
use tidegate::verify::{Verifier, VerifySpec, compile};

const RULES: [&str; 5] = [
    "{ jwt: { algorithms: [HS256], issuer: i, audience: a, secrets: [env:S] } }",
    "{ api_key: { header: X-Key, keys: [env:S] } }",
    "{ basic: { users: [{ name: hooks, password: env:S }] } }",
    "{ algorithm: hmac-sha256, signed: 'v0:{timestamp}:{body}', secret: env:S, signature: { from: header:X-Sig, \
     list: ',', item: v1, encoding: hex }, timestamp: { from: item:t } }",
    "{ any: [{ bearer: { tokens: [env:S] } }, { provider: stripe, secret: env:S }] }",
];

fn verifiers() -> &'static [Verifier] {
    static VERIFIERS: OnceLock<Vec<Verifier>> = OnceLock::new();
    VERIFIERS.get_or_init(|| {
        let packs = tidegate::providers::names();
        let packs = packs.into_iter().map(|name| VerifySpec::of_provider(name, vec![SecretSpec::of("env:S".to_owned())]));
        let rules = RULES.iter().map(|rule| serde_saphyr::from_str::<VerifySpec>(rule).expect("a rule"));
        // A pack that needs more than a secret is another target's.
        packs.chain(rules).filter_map(|spec| Some(compile(&spec, &common::Fixed).ok()?.verifier)).collect()
    })
}

const NAMES: [&str; 16] = [
    "Authorization",
    "X-Key",
    "X-Sig",
    "Stripe-Signature",
    "X-Hub-Signature-256",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "X-Slack-Signature",
    "X-Slack-Request-Timestamp",
    "X-Shopify-Hmac-Sha256",
    "X-Gitlab-Token",
    "Content-Type",
];

fuzz_target!(|input: (Vec<(u8, &[u8])>, &str, &[u8])| {
    let (fields, query, body) = input;
    for verifier in verifiers() {
        let headers =
            fields.iter().map(|(name, value)| (NAMES[usize::from(*name) % NAMES.len()], *value)).collect();
        let request = common::request(query, headers, body);
        let verified = verifier.verify(request, Some("https://hooks.example.com"), common::NOW);
        assert!(verified.is_err(), "nobody guesses a signature");
    }
});
