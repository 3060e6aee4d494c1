//! Tokens that pass a rule, for tests and the command line; with shared secrets only.

use jsonwebtoken::{AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value, json};

use super::{ClaimDigest, Jwt};
use crate::clock::Timestamp;
use crate::message::Request;
use crate::verify::draft;
use crate::verify::sign::{SignError, unique};
use crate::verify::url;

/// How long a test token is valid, in seconds.
const LIFETIME: u64 = 300;

impl Jwt {
    pub(in crate::verify) fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Request, SignError> {
        const ONLY_SHARED: SignError =
            SignError::Impossible("tokens are signed with shared secrets (HS*) only");
        let algorithm = self
            .algorithms
            .iter()
            .find(|algorithm| algorithm.family() == AlgorithmFamily::Hmac)
            .ok_or(ONLY_SHARED)?;
        let mut keys = self.keys.iter().filter(|key| key.window.is_open(now));
        let key = keys.find(|key| key.algorithms.contains(algorithm)).ok_or(ONLY_SHARED)?;
        let secret = key.key.try_get_as_bytes().map_err(|_| ONLY_SHARED)?;
        let seconds = now.as_secs();
        let mut claims = Map::new();
        claims.insert("iat".into(), json!(seconds));
        claims.insert("exp".into(), json!(seconds + LIFETIME));
        claims.insert("jti".into(), json!(unique()));
        claims.extend(self.issuers.first().map(|issuer| ("iss".to_owned(), json!(issuer))));
        claims.extend(self.audiences.first().map(|audience| ("aud".to_owned(), json!(audience))));
        for (name, accepted) in &self.claims {
            let value = accepted.first().map_or("test", String::as_str);
            claims.entry(name).or_insert_with(|| Value::String(value.to_owned()));
        }
        let mut digest = |rule: &Option<ClaimDigest>, of: &[u8]| {
            if let Some(ClaimDigest { claim, hash, encoding, .. }) = rule {
                claims.insert(claim.clone(), json!(encoding.encode(hash.of(of).as_bytes())));
            }
        };
        digest(&self.body_hash, &request.body);
        digest(&self.url_hash, url::public(&request.head, public_url).as_bytes());
        let token =
            jsonwebtoken::encode(&Header::new(*algorithm), &claims, &EncodingKey::from_secret(secret))
                .map_err(|_| SignError::Impossible("the token can't be encoded"))?;
        let value = match self.location.header() {
            Some("authorization") if !self.bare => format!("Bearer {token}"),
            _ => token,
        };
        let mut request = request.clone();
        draft::put(&mut request, &self.location, &[value])?;
        Ok(request)
    }
}
