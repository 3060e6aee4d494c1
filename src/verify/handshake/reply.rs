//! The answer to a greeting: texts and JSON with values of the request, and a proof that we hold the secret.

use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::found;
use crate::message::{Answer, Request};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::verify::Refusal;
use crate::verify::encoding::Encoding;
use crate::verify::locate::{Ambiguous, Location, View};
use crate::verify::mac::{Hash, MacKey};
use crate::verify::template::{self, Filling};

/// The longest value that is sent back, in bytes.
const MAX_ECHO: usize = 1024;

/// A compiled answer.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, Text)>,
    pub(super) body: Body,
    pub(super) proof: Option<Proof>,
}

#[derive(Debug)]
pub(super) enum Body {
    None,
    Text { content_type: String, text: Text },
    Json { content_type: String, json: Json },
}

/// A text with values of the request in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Text(pub(super) Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Literal(String),
    At(Location),
    Proof,
}

/// JSON whose texts have values of the request in them.
#[derive(Debug)]
pub(super) enum Json {
    Fixed(Value),
    Text(Text),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

/// A digest that only who has the secret can compute.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) key: ProofKey,
    pub(super) signed: template::Template,
    pub(super) encoding: Encoding,
}

#[derive(Debug)]
pub(super) enum ProofKey {
    Mac(Box<MacKey>),
    /// A plain digest over a template that holds the secret.
    Digest(Hash, Secret),
}

/// A value of the request that is sent back.
pub(super) struct Echo<'l>(&'l Location);

impl<'l> Echo<'l> {
    pub(super) fn of(location: &'l Location) -> Self {
        Self(location)
    }

    /// Only what is bounded and plain goes back.
    pub(super) fn value(&self, request: &Request) -> Result<String, Refusal> {
        let refused =
            |why: &str| Refusal::new(Reason::HandshakeMalformed, format!("the handshake's {} {why}", self.0));
        let value = match found(self.0, request) {
            Ok(Some(value)) if !value.is_empty() => value,
            Ok(_) => return Err(refused("is missing")),
            Err(Ambiguous) => return Err(refused("is there twice")),
        };
        if value.len() > MAX_ECHO {
            return Err(refused("is too long to be sent back"));
        }
        match String::from_utf8(value.into_owned()) {
            Ok(text) if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Ok(text),
            _ => Err(refused("is not printable ASCII")),
        }
    }
}

impl Template {
    pub(super) fn answer(&self, request: &Request, public_url: Option<&str>) -> Result<Answer, Refusal> {
        let proof = match &self.proof {
            Some(proof) => proof.compute(request, public_url)?,
            None => String::new(),
        };
        // No browser may take it for anything else than it says.
        let mut answer = Answer::new(self.status).with("x-content-type-options", "nosniff");
        for (name, value) in &self.headers {
            answer = answer.with(name.clone(), value.filled(request, &proof)?);
        }
        Ok(match &self.body {
            Body::None => answer,
            Body::Text { content_type, text } => answer.body(content_type, text.filled(request, &proof)?),
            Body::Json { content_type, json } => {
                answer.body(content_type, json.filled(request, &proof)?.to_string())
            }
        })
    }
}

impl Text {
    /// The places whose values go into it.
    pub(super) fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    pub(super) fn uses_proof(&self) -> bool {
        self.0.contains(&Piece::Proof)
    }

    pub(super) fn filled(&self, request: &Request, proof: &str) -> Result<String, Refusal> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::At(location) => out.push_str(&Echo::of(location).value(request)?),
                Piece::Proof => out.push_str(proof),
            }
        }
        Ok(out)
    }
}

impl Json {
    pub(super) fn uses_proof(&self) -> bool {
        match self {
            Json::Fixed(_) => false,
            Json::Text(text) => text.uses_proof(),
            Json::List(items) => items.iter().any(Json::uses_proof),
            Json::Map(entries) => entries.iter().any(|(_, value)| value.uses_proof()),
        }
    }

    fn filled(&self, request: &Request, proof: &str) -> Result<Value, Refusal> {
        Ok(match self {
            Json::Fixed(value) => value.clone(),
            Json::Text(text) => Value::String(text.filled(request, proof)?),
            Json::List(items) => {
                Value::Array(items.iter().map(|item| item.filled(request, proof)).collect::<Result<_, _>>()?)
            }
            Json::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    map.insert(key.clone(), value.filled(request, proof)?);
                }
                Value::Object(map)
            }
        })
    }
}

impl Proof {
    fn compute(&self, request: &Request, public_url: Option<&str>) -> Result<String, Refusal> {
        let url = OnceCell::new();
        let filling = Filling { view: View::of(request), public_url, timestamp: b"", id: b"", url: &url };
        let fed = match &self.key {
            ProofKey::Mac(key) => key.mac(|sink| self.signed.feed(&filling, b"", sink)),
            ProofKey::Digest(hash, secret) => {
                hash.digest(|sink| self.signed.feed(&filling, secret.expose(), sink))
            }
        };
        let digest =
            fed.map_err(|why| Refusal { reason: Reason::HandshakeMalformed, ..Refusal::from(why) })?;
        Ok(self.encoding.encode(digest.as_bytes()))
    }
}
