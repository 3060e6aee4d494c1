//! Requests as providers send them: headers, signatures, ids. The sender's side, independent of the code under test.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Request, now, unique_id};

pub const GITHUB_SECRET: &str = "It's a Secret to Everybody";
pub const STRIPE_SECRET: &str = "whsec_0lR8acRYSi4MDF8kWCBX1KpeZUaLJ4d8";
pub const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const SLACK_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
pub const JWT_SECRET: &str = "WfmfWICD4C1wqcylheG23xDHrt06Vs3h5jt2i4EQJ2Nnv6cm";

pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// GitHub, with the secret that [`super::github`] routes use. A new delivery id each time.
pub fn github(body: impl Into<Vec<u8>>) -> Request {
    github_with(GITHUB_SECRET, body)
}

pub fn github_with(secret: &str, body: impl Into<Vec<u8>>) -> Request {
    let body = body.into();
    let signature = hex::encode(hmac_sha256(secret.as_bytes(), &body));
    Request::post("/hooks/github", body)
        .header("Content-Type", "application/json")
        .header("User-Agent", "GitHub-Hookshot/044aadd")
        .header("X-GitHub-Event", "push")
        .header("X-GitHub-Delivery", &unique_id())
        .header("X-Hub-Signature-256", &format!("sha256={signature}"))
}

pub fn stripe(body: impl Into<Vec<u8>>) -> Request {
    stripe_at(now(), body)
}

pub fn stripe_at(time: u64, body: impl Into<Vec<u8>>) -> Request {
    let body = body.into();
    let signed = [time.to_string().as_bytes(), b".", &body].concat();
    let signature = hex::encode(hmac_sha256(STRIPE_SECRET.as_bytes(), &signed));
    Request::post("/hooks/stripe", body)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Stripe-Signature", &format!("t={time},v1={signature},v0=00"))
}

pub fn standard_webhooks(body: impl Into<Vec<u8>>) -> Request {
    let body = body.into();
    let id = format!("msg_{}", unique_id());
    let time = now().to_string();
    let key = STANDARD.decode(STANDARD_SECRET.trim_start_matches("whsec_")).expect("valid base64");
    let signed = [id.as_bytes(), b".", time.as_bytes(), b".", &body].concat();
    let signature = STANDARD.encode(hmac_sha256(&key, &signed));
    Request::post("/hooks/standard", body)
        .header("Content-Type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", &time)
        .header("webhook-signature", &format!("v1,{signature}"))
}

pub fn slack(body: impl Into<Vec<u8>>) -> Request {
    let body = body.into();
    let time = now().to_string();
    let signed = [b"v0:", time.as_bytes(), b":", &body].concat();
    let signature = hex::encode(hmac_sha256(SLACK_SECRET.as_bytes(), &signed));
    Request::post("/hooks/slack", body)
        .header("Content-Type", "application/json")
        .header("X-Slack-Request-Timestamp", &time)
        .header("X-Slack-Signature", &format!("v0={signature}"))
}

/// A JWT (HS256) over `claims`.
pub fn jwt(claims: &serde_json::Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signature =
        URL_SAFE_NO_PAD.encode(hmac_sha256(JWT_SECRET.as_bytes(), format!("{head}.{claims}").as_bytes()));
    format!("{head}.{claims}.{signature}")
}
