//! What a request gets that proves to the app from whom it is. The body is never changed; headers of the same names that
//! the sender sent are replaced. `oauth2` fetches tokens and keeps them.

mod oauth2;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};

use crate::clock::{Clock, Timestamp};
use crate::config::{Destination, HmacTemplate, MacEncoding, MacHash, Part, Sign};
use crate::message::Headers;

use super::{Outgoing, SetupError, UpstreamError};
use oauth2::{Token, Tokens};

/// Signs the requests of one destination.
#[derive(Debug, Default)]
pub(super) struct Signer {
    how: How,
    clock: Clock,
}

#[derive(Debug, Default)]
enum How {
    #[default]
    Not,
    /// With what the config says alone.
    By(Sign),
    Token(Box<Tokens>),
}

/// A signed request, and the token that may have to be renewed.
pub(super) struct Signed {
    pub request: Outgoing,
    token: Option<std::sync::Arc<Token>>,
}

impl Signer {
    pub fn new(destination: &Destination) -> Result<Self, SetupError> {
        let how = match &destination.sign {
            None => How::Not,
            Some(Sign::OAuth2(settings)) => How::Token(Box::new(Tokens::new(settings, destination.timeout)?)),
            Some(sign) => How::By(sign.clone()),
        };
        Ok(Self { how, clock: Clock::System })
    }

    /// `None`: it goes as it is.
    pub async fn sign(&self, request: &Outgoing, body: &[u8]) -> Result<Option<Signed>, UpstreamError> {
        let sign = match &self.how {
            How::Not => return Ok(None),
            How::Token(tokens) => return Ok(Some(Signed::with(request, tokens.token().await?))),
            How::By(sign) => sign,
        };
        let added = match sign {
            Sign::Authorization(value) => vec![("Authorization", value.expose().to_vec())],
            Sign::StandardWebhooks(key) => standard_webhooks(key.expose(), request, body, self.clock.now()),
            Sign::Hmac(template) => template_of(template, request, body, self.clock.now()),
            // Made into tokens above.
            Sign::OAuth2(_) => return Ok(None),
        };
        Ok(Some(Signed { request: with_headers(request, &added), token: None }))
    }

    /// The request with a new token, where the app did not take the last one; `None`: it bears none, or there is no
    /// point in another.
    pub async fn renewed(&self, refused: &Signed) -> Result<Option<Signed>, UpstreamError> {
        let (How::Token(tokens), Some(old)) = (&self.how, &refused.token) else { return Ok(None) };
        let token = tokens.renewed(old).await?;
        Ok(token.map(|token| Signed::with(&refused.request, token)))
    }
}

impl Signed {
    fn with(request: &Outgoing, token: std::sync::Arc<Token>) -> Self {
        let request = with_headers(request, &[("Authorization", token.value.expose().to_vec())]);
        Self { request, token: Some(token) }
    }
}

/// The request with these headers in place of those of the same names, whether written with `-` or `_`.
fn with_headers(request: &Outgoing, added: &[(&str, Vec<u8>)]) -> Outgoing {
    let bytes = added.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut headers = request.headers.builder_like(added.len(), bytes);
    for (name, value) in request.headers.iter() {
        if !added.iter().any(|(ours, _)| super::forward::is_like(name, ours)) {
            headers.push(name, value);
        }
    }
    for (name, value) in added {
        headers.push(name, value);
    }
    Outgoing {
        method: request.method.clone(),
        target: request.target.clone(),
        headers: headers.build(),
        affinity: request.affinity,
        went_to: request.went_to.clone(),
    }
}

fn event_id(headers: &Headers) -> &[u8] {
    // A batch has an id of its own.
    headers.first("tidegate-event-id").or_else(|| headers.first("tidegate-batch-id")).unwrap_or_default()
}

/// The MAC of the pieces. A key of any length is one.
fn mac(hash: MacHash, key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    fn run<M: Mac + KeyInit>(key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
        // HMAC takes keys of every length.
        let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
        pieces.iter().for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().to_vec()
    }
    match hash {
        MacHash::Sha256 => run::<Hmac<Sha256>>(key, pieces),
        MacHash::Sha512 => run::<Hmac<Sha512>>(key, pieces),
    }
}

fn standard_webhooks(
    key: &[u8],
    request: &Outgoing,
    body: &[u8],
    now: Timestamp,
) -> Vec<(&'static str, Vec<u8>)> {
    let (id, time) = (event_id(&request.headers), now.as_secs().to_string());
    let mac = mac(MacHash::Sha256, key, &[id, b".", time.as_bytes(), b".", body]);
    vec![
        ("webhook-id", id.to_vec()),
        ("webhook-timestamp", time.into_bytes()),
        ("webhook-signature", format!("v1,{}", STANDARD.encode(mac)).into_bytes()),
    ]
}

fn template_of<'t>(
    template: &'t HmacTemplate,
    request: &Outgoing,
    body: &[u8],
    now: Timestamp,
) -> Vec<(&'t str, Vec<u8>)> {
    let time = now.as_secs().to_string();
    let pieces: Vec<&[u8]> = template
        .signed
        .iter()
        .map(|part| match part {
            Part::Text(text) => text.as_bytes(),
            Part::Body => body,
            Part::Timestamp => time.as_bytes(),
            Part::Id => event_id(&request.headers),
            Part::Method => request.method.as_str().as_bytes(),
            Part::Target => request.target.as_bytes(),
        })
        .collect();
    let mac = mac(template.hash, template.secret.expose(), &pieces);
    let encoded = match template.encoding {
        MacEncoding::Hex => hex::encode(mac),
        MacEncoding::Base64 => STANDARD.encode(mac),
    };
    let mut added = vec![(template.header.as_str(), format!("{}{encoded}", template.prefix).into_bytes())];
    added.extend(template.timestamp_header.as_deref().map(|name| (name, time.clone().into_bytes())));
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Method;
    use crate::secret::Secret;

    fn request(headers: &[(&str, &str)]) -> Outgoing {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        Outgoing { method: Method::POST, target: "/a?b=c".into(), headers, affinity: None, went_to: None }
    }

    #[test]
    fn a_known_standard_webhooks_signature_is_made() {
        // The example of the specification's libraries.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let sent = request(&[("tidegate-event-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")]);
        let added =
            standard_webhooks(&key, &sent, br#"{"test": 2432232314}"#, Timestamp::from_secs(1_614_265_330));
        assert_eq!(added[2].1, b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(added[1].1, b"1614265330");
    }

    #[test]
    fn a_template_is_filled_and_the_senders_own_header_is_replaced() {
        let template = HmacTemplate {
            secret: Secret::new(b"key".to_vec()),
            hash: MacHash::Sha256,
            signed: Part::parse("{method} {target}\n{timestamp}.{body}").unwrap(),
            header: "X-Sig".into(),
            prefix: "sha256=".into(),
            encoding: MacEncoding::Hex,
            timestamp_header: Some("X-Time".into()),
        };
        let sent = request(&[("x_sig", "forged"), ("A", "1"), ("X-SIG", "forged")]);
        let added = template_of(&template, &sent, b"{}", Timestamp::from_secs(7));
        let mut expected = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
        expected.update(b"POST /a?b=c\n7.{}");
        let expected = format!("sha256={}", hex::encode(expected.finalize().into_bytes()));
        let signed = with_headers(&sent, &added);
        let lines: Vec<_> =
            signed.headers.iter().map(|(n, v)| format!("{n}: {}", v.escape_ascii())).collect();
        assert_eq!(lines, ["A: 1".to_owned(), format!("X-Sig: {expected}"), "X-Time: 7".into()]);
    }

    #[test]
    fn a_template_names_what_it_does_not_know() {
        assert!(Part::parse("{bdy}").unwrap_err().contains("`{bdy}`"));
        assert!(Part::parse("{body").is_err() && Part::parse("}").is_err());
        assert_eq!(
            Part::parse("a{id}b").unwrap(),
            [Part::Text("a".into()), Part::Id, Part::Text("b".into())]
        );
    }
}
