//! A notice as JSON by POST, signed by Standard Webhooks where there is a secret.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use ring::hmac;
use serde_json::Value;

use super::TellError;
use crate::alerts::Notice;
use crate::config::TrustedRoots;
use crate::message::Method;
use crate::secret::Secret;
use crate::upstream::Ask;

const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Post {
    ask: Ask,
    key: Option<hmac::Key>,
}

impl Post {
    pub fn new(url: &Uri, secret: Option<&Secret>, ca: Option<&Path>) -> Result<Self, String> {
        let ca = ca.map(|ca| TrustedRoots::File(ca.into()));
        let ask = Ask::new("alerts", url, ca, CONNECT, WHOLE).map_err(|error| error.to_string())?;
        Ok(Self { ask, key: secret.map(key) })
    }

    pub async fn send(&self, notice: &Notice, body: Value) -> Result<(), TellError> {
        let body = body.to_string();
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        if let Some(key) = &self.key {
            // The time of sending: a notice that is tried again is not refused as too old.
            headers.extend(signed(key, &notice.id, crate::clock::Clock::System.now().as_secs(), &body));
        }
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let answer = self.ask.send(Method::POST, headers, body.into()).await;
        let mut answer = answer.map_err(|error| TellError(error.to_string()))?;
        if !(200..300).contains(&answer.status) {
            return Err(TellError(format!("the server answered {}", answer.status)));
        }
        // A short answer is read to its end, so that the connection can be used again.
        let _ = answer.chunk().await;
        Ok(())
    }
}

/// `whsec_` and base64, as the standard has it; else the text itself.
fn key(secret: &Secret) -> hmac::Key {
    let text = secret.expose();
    let decoded = text.strip_prefix(b"whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    let decoded = zeroize::Zeroizing::new(decoded.unwrap_or_else(|| text.to_vec()));
    hmac::Key::new(hmac::HMAC_SHA256, &decoded)
}

fn signed(key: &hmac::Key, id: &str, at: u64, body: &str) -> [(&'static str, String); 3] {
    let signature = hmac::sign(key, format!("{id}.{at}.{body}").as_bytes());
    [
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", at.to_string()),
        ("webhook-signature", format!("v1,{}", STANDARD.encode(signature))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_signed_as_the_standard_says() {
        // The example of the Standard Webhooks libraries.
        let key = key(&Secret::new(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_vec()));
        let [_, _, (_, signature)] =
            signed(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
