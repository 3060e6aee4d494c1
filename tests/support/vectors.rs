//! The vectors of `tests/vectors` as whoever configures and sends has them: a route, and requests.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tidegate::providers::ParamKind;

use super::{Request, Route};

#[derive(Clone, Debug, Deserialize)]
pub struct Vector {
    pub provider: String,
    pub name: String,
    pub config: Map<String, Value>,
    pub request: Captured,
    /// The time of the decision, in Unix seconds.
    pub now: u64,
    pub expect: String,
    pub event_key: Option<String>,
}

/// A request as `tidegate verify` reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Captured {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<u64>,
}

impl Captured {
    /// The path and query.
    pub fn target(&self) -> &str {
        let rest = self.url.split_once("://").expect("a whole URL").1;
        rest.find('/').map_or("/", |at| &rest[at..])
    }

    /// Scheme and host.
    pub fn origin(&self) -> &str {
        &self.url[..self.url.len() - self.target().len()]
    }

    /// The same, as it is sent to `host`.
    pub fn to_host(&self, host: &str) -> Request {
        let body = STANDARD.decode(&self.body_base64).expect("base64");
        let mut request = Request::new(&self.method, self.target(), body).header("Host", host);
        // The sender writes the length itself, and no request may have two.
        let own = self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
        request.headers.extend(own.cloned());
        request
    }
}

/// All vectors whose keys are in their config. Those that also say which documents are fetched need a network.
pub fn all() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(&path).expect("text");
            for line in text.lines() {
                let value: Value = serde_json::from_str(line).expect("JSON");
                if value.get("documents").is_none() {
                    vectors.push(serde_json::from_value(value).expect("a vector"));
                }
            }
        }
    }
    vectors
}

/// What `tests/vectors/reference.tsv` lists of each vector: its fingerprint, provider and name.
pub fn reference() -> Vec<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/reference.tsv");
    let text = std::fs::read_to_string(&path).expect("text");
    let of = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut next = || fields.next().expect("three fields");
        (next(), next(), next())
    };
    text.lines().map(of).collect()
}

impl Vector {
    /// Of what is asked and what is to be answered: the first 8 bytes of the SHA-256 of time, answer and request.
    pub fn fingerprint(&self) -> String {
        let request = serde_json::to_string(&self.request).expect("JSON");
        let digest = Sha256::digest(format!("{} {} {request}", self.now, self.expect));
        hex::encode(&digest[..8])
    }

    pub fn accepted(&self) -> bool {
        self.expect == "accept"
    }

    /// A route that is configured as the vector says, for the path that it is sent to. Its secrets are files.
    pub fn route(&self, name: &str) -> Route {
        let (mut files, mut rule) = (Vec::new(), self.config.clone());
        let mut file = |content: &str| {
            let file = format!("{name}.{}", files.len());
            files.push((file.clone(), format!("{content}\n")));
            json!(format!("file:secrets/{file}"))
        };
        for key in ["secrets", "public_keys"] {
            for one in rule.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                let text = if one.is_object() { &mut one["secret"] } else { one };
                *text = file(text.as_str().expect("text"));
            }
        }
        if let Some(jwks) = rule.get_mut("jwks") {
            *jwks = file(&jwks.to_string());
        }
        let public_url = rule.remove("public_url").unwrap_or_else(|| json!(self.request.origin()));
        let verify = if self.provider == "jwt" {
            json!({ "jwt": rule })
        } else {
            if let Some(Value::Object(params)) = rule.remove("params") {
                let pack = tidegate::providers::find(&self.provider).expect("a built-in pack");
                for (param, mut value) in params {
                    if pack.params[&param].kind != ParamKind::Text {
                        match &mut value {
                            Value::Array(all) => {
                                all.iter_mut().for_each(|one| *one = file(one.as_str().expect("text")));
                            }
                            one => *one = file(one.as_str().expect("text")),
                        }
                    }
                    rule.insert(param, value);
                }
            }
            rule.insert("provider".into(), json!(self.provider));
            Value::Object(rule)
        };
        let path = self.request.target().split('?').next().unwrap_or_default();
        let route = json!({
            "name": name, "host": format!("{name}.example"), "path": path, "methods": [self.request.method],
            "verify": verify, "public_url": public_url
        });
        files.into_iter().fold(Route::new(route), |route, (file, content)| route.secret(&file, &content))
    }
}
