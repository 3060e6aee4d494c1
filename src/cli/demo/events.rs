//! What the demonstration sends: payloads shaped like the providers' own, and their signatures, made the way the
//! providers make them (this is the sender's side, so it shares no code with `verify`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::buffer::EventId;
use crate::clock::Timestamp;

/// Who sends, how it signs, and the secret that the gateway knows too.
pub struct Sender {
    pub kind: Kind,
    /// The route's path.
    pub path: String,
    pub secret: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    GitHub,
    Stripe,
    StandardWebhooks,
}

impl Kind {
    /// A new secret as this provider would issue it.
    pub fn new_secret(self, random: [u8; 32]) -> String {
        match self {
            Kind::GitHub => hex::encode(random),
            Kind::Stripe => format!("whsec_{}", hex::encode(random)),
            Kind::StandardWebhooks => format!("whsec_{}", STANDARD.encode(random)),
        }
    }
}

/// A request, ready to be sent as often as one likes.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Prepared {
    /// The same request with one figure of its body changed on the way, as a forger would.
    pub fn tampered(&self) -> Self {
        let mut body = self.body.to_vec();
        if let Some(digit) = body.iter_mut().rev().find(|byte| byte.is_ascii_digit()) {
            *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
        }
        Self { body: body.into(), ..self.clone() }
    }

    /// As a command for a terminal. `-k` because the certificate is self-signed.
    pub fn curl(&self, base: &str) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut command = format!("curl -ik {}", quoted(&format!("{base}{}", self.path)));
        for (name, value) in &self.headers {
            command += &format!(" \\\n    -H {}", quoted(&format!("{name}: {value}")));
        }
        command + &format!(" \\\n    --data-raw {}", quoted(&String::from_utf8_lossy(&self.body)))
    }
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of every length (RFC 2104), so there is no error to report.
    let mut mac = match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => return [0; 32],
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl Sender {
    /// Signs `body` as an event of type `kind` with the id `id`, now.
    fn sign(&self, id: &str, event_type: &str, now: Timestamp, body: String) -> Prepared {
        let time = now.as_secs().to_string();
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        match self.kind {
            Kind::GitHub => {
                let signature = hmac_sha256(self.secret.as_bytes(), &[body.as_bytes()]);
                headers.push(("User-Agent", "GitHub-Hookshot/044aadd".into()));
                headers.push(("X-GitHub-Event", event_type.into()));
                headers.push(("X-GitHub-Delivery", id.into()));
                headers.push(("X-Hub-Signature-256", format!("sha256={}", hex::encode(signature))));
            }
            Kind::Stripe => {
                let signed = [time.as_bytes(), b".", body.as_bytes()];
                let signature = hmac_sha256(self.secret.as_bytes(), &signed);
                headers.push(("User-Agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)".into()));
                headers.push(("Stripe-Signature", format!("t={time},v1={}", hex::encode(signature))));
            }
            Kind::StandardWebhooks => {
                let key = self.secret.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
                let signed = [id.as_bytes(), b".", time.as_bytes(), b".", body.as_bytes()];
                let signature = hmac_sha256(&key.unwrap_or_default(), &signed);
                headers.push(("webhook-id", id.into()));
                headers.push(("webhook-timestamp", time));
                headers.push(("webhook-signature", format!("v1,{}", STANDARD.encode(signature))));
            }
        }
        Prepared { path: self.path.clone(), headers, body: body.into() }
    }

    /// The event that the demonstration calls `what`, new each time.
    pub fn event(&self, what: What, now: Timestamp) -> Prepared {
        let unique = EventId::new(now).to_string();
        let short = unique.replace('-', "");
        let id = match self.kind {
            Kind::GitHub => unique.clone(),
            Kind::Stripe => format!("evt_{}", &short[8..]),
            Kind::StandardWebhooks => format!("msg_{}", &short[5..]),
        };
        let seconds = now.as_secs();
        let time = now.to_string();
        let body = match what {
            What::Push => json!({
                "ref": "refs/heads/main",
                "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
                "after": short.clone() + "90abcdef",
                "repository": {
                    "id": 186853002, "name": "billing", "full_name": "octo-org/billing", "private": true,
                    "owner": {"name": "octo-org", "id": 38302899, "login": "octo-org"},
                    "html_url": "https://github.com/octo-org/billing", "default_branch": "main"
                },
                "pusher": {"name": "mona", "email": "mona@example.com"},
                "head_commit": {
                    "id": short + "90abcdef", "message": "Round half to even\n\nFixes #41 – naïve rounding",
                    "timestamp": time, "author": {"name": "Mona Lisa", "email": "mona@example.com"},
                    "added": [], "removed": [], "modified": ["src/money.rs"]
                },
                "forced": false
            })
            .to_string(),
            What::Issue => json!({
                "action": "opened",
                "issue": {
                    "id": seconds, "number": 42, "title": "Invoices show 0.1 + 0.2 as 0.30000000000000004",
                    "user": {"login": "mona", "id": 21031067, "type": "User"}, "state": "open",
                    "labels": [{"id": 208045946, "name": "bug", "color": "d73a4a"}],
                    "created_at": time, "body": "Steps:\r\n1. Open any invoice\r\n2. Look at the sum 😕"
                },
                "repository": {"id": 186853002, "full_name": "octo-org/billing", "private": true},
                "sender": {"login": "mona", "id": 21031067, "type": "User"}
            })
            .to_string(),
            // Pretty-printed, as Stripe sends it: a re-serialised body would break the signature.
            What::Invoice => format!(
                "{:#}",
                json!({
                    "id": id, "object": "event", "api_version": "2025-09-30.clover", "created": seconds,
                    "data": {"object": {
                        "id": format!("in_{}", &short[8..]), "object": "invoice", "amount_due": 2000,
                        "amount_paid": 2000, "amount_remaining": 0, "attempt_count": 1, "currency": "eur",
                        "customer": "cus_NeZwdNtLEOXuvB", "customer_email": "jenny.rosen@example.com",
                        "number": "2BD8C5AB-0001", "paid": true, "status": "paid",
                        "lines": {"object": "list", "has_more": false, "data": [
                            {"amount": 2000, "description": "1 × Pro plan (at €20.00 / month)", "quantity": 1}
                        ]}
                    }},
                    "livemode": false, "pending_webhooks": 1,
                    "request": {"id": null, "idempotency_key": null}, "type": "invoice.paid"
                })
            ),
            What::Contact => json!({
                "type": "contact.created", "timestamp": time,
                "data": {"id": short, "first_name": "Zoë", "last_name": "Müller", "email": "zoe@example.com"}
            })
            .to_string(),
            What::Ping => json!({"zen": "Keep it logically awesome.", "hook_id": seconds}).to_string(),
        };
        self.sign(&id, what.event_type(), now, body)
    }
}

/// The events of the play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Push,
    Issue,
    Invoice,
    Contact,
    Ping,
}

impl What {
    pub const fn event_type(self) -> &'static str {
        match self {
            What::Push => "push",
            What::Issue => "issues",
            What::Invoice => "invoice.paid",
            What::Contact => "contact.created",
            What::Ping => "ping",
        }
    }
    pub const fn sender(self) -> Kind {
        match self {
            What::Push | What::Issue | What::Ping => Kind::GitHub,
            What::Invoice => Kind::Stripe,
            What::Contact => Kind::StandardWebhooks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_of_githubs_documentation_comes_out() {
        let sender =
            Sender { kind: Kind::GitHub, path: "/".into(), secret: "It's a Secret to Everybody".into() };
        let prepared = sender.sign("id", "ping", Timestamp(0), "Hello, World!".into());
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(prepared.headers.contains(&("X-Hub-Signature-256", expected.into())));
    }

    #[test]
    fn a_tampered_request_differs_in_one_byte_of_its_body() {
        let sender = Sender { kind: Kind::Stripe, path: "/".into(), secret: "s".into() };
        let good = sender.event(What::Invoice, Timestamp(1_764_000_000_000));
        let bad = good.tampered();
        assert_eq!(good.headers, bad.headers);
        assert_eq!(good.body.iter().zip(&bad.body[..]).filter(|(a, b)| a != b).count(), 1);
    }

    #[test]
    fn a_curl_command_survives_quotes_in_the_body() {
        let prepared = Prepared { path: "/p".into(), headers: vec![("A", "b".into())], body: "it's".into() };
        assert_eq!(
            prepared.curl("https://h"),
            "curl -ik 'https://h/p' \\\n    -H 'A: b' \\\n    --data-raw 'it'\\''s'"
        );
    }
}
