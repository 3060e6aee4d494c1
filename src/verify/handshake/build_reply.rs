//! From written answers to compiled ones: status, headers, body, and what proves to the sender who we are.

use serde_json::{Map, Value};

use super::build::Given;
use super::build_conditions::location;
use super::oracle;
use super::reply::{Body, Json, Piece, Proof, ProofKey, Template, Text};
use crate::verify::build::{Problems, encoding};
use crate::verify::build_scheme::{Algorithm, derive};
use crate::verify::locate::is_token;
use crate::verify::mac::MacKey;
use crate::verify::spec::{HandshakeSpec, ProofSpec, ReplySpec};
use crate::verify::template;

/// Headers that are the edge's, or that would give an answer another meaning than its status.
const NOT_OURS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "date",
    "keep-alive",
    "location",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
    "x-content-type-options",
];

pub(super) fn reply(
    spec: &HandshakeSpec,
    given: &Given<'_>,
    problems: &mut Problems<'_>,
) -> Option<Template> {
    let written = match (&spec.echo, &spec.answer) {
        (Some(_), Some(_)) => {
            return problems.note(
                &["echo"],
                "give either `echo` or `answer`",
                "`echo: PLACE` is short for `answer: { body: \"{PLACE}\" }`",
            );
        }
        (Some(place), None) => {
            let text = Text(vec![Piece::At(location(place, &["echo"], problems)?)]);
            let body = Body::Text { content_type: "text/plain".to_owned(), text };
            return Some(Template { status: 200, headers: Vec::new(), body, proof: None });
        }
        (None, Some(answer)) => answer,
        (None, None) => &ReplySpec::default(),
    };
    let problems = &mut problems.within(&["answer"]);
    let status = written.status.unwrap_or(200);
    if !(200..300).contains(&status) {
        problems.note::<()>(
            &["status"],
            "a greeting is answered with a success, 200 to 299",
            "200 is the default; one that proves nothing is refused with `refuse`",
        );
    }
    let mut headers = Some(Vec::new());
    for (name, value) in &written.headers {
        let lower = name.to_ascii_lowercase();
        if !is_token(name)
            || NOT_OURS.contains(&lower.as_str())
            || lower.starts_with(crate::message::OUR_PREFIX)
        {
            problems.note::<()>(
                &["headers", name],
                format!("`{name}` can't be set here"),
                "remove it: it is the gateway's own, or would give the answer another meaning",
            );
        }
        match (text(value, given, &["headers", name], problems), &mut headers) {
            (Some(value), Some(list)) => list.push((name.clone(), value)),
            (None, _) => headers = None,
            (Some(_), None) => {}
        }
    }
    let body = body(written, given, problems);
    let proof =
        written.proof.as_ref().map(|proof| self::proof(proof, given, &mut problems.within(&["proof"])));
    let (headers, body) = (headers?, body?);
    let used = headers.iter().any(|(_, value)| value.uses_proof())
        || match &body {
            Body::None => false,
            Body::Text { text, .. } => text.uses_proof(),
            Body::Json { json, .. } => json.uses_proof(),
        };
    match (&proof, used) {
        (None, true) => problems.note::<()>(
            &["proof"],
            "`{proof}` is sent, but `proof` does not say what it is",
            "such as `proof: { algorithm: hmac-sha256, signed: \"{query:token}\", encoding: hex }`",
        ),
        (Some(_), false) => problems.note::<()>(
            &["proof"],
            "`proof` is computed, but `{proof}` is sent nowhere",
            "put `{proof}` into `body`, `json` or a header, or remove `proof`",
        ),
        _ => None,
    };
    if status == 204 && (written.body.is_some() || written.json.is_some()) {
        problems.note::<()>(
            &["status"],
            "an answer 204 has no body",
            "use 200, or remove `body` (or `json`)",
        );
    }
    let proof = match proof {
        None => None,
        Some(proof) => Some(proof?),
    };
    Some(Template { status, headers, body, proof })
}

fn body(written: &ReplySpec, given: &Given<'_>, problems: &mut Problems<'_>) -> Option<Body> {
    let kind = |standard: &str| written.content_type.clone().unwrap_or_else(|| standard.to_owned());
    let plain = |kind: &str| kind.bytes().all(|b| (b' '..=b'~').contains(&b)) && kind.contains('/');
    let body = match (&written.body, &written.json) {
        (Some(_), Some(_)) => {
            return problems.note(
                &["body"],
                "give either `body` or `json`",
                "`json` writes its texts as JSON, `body` is sent as it is",
            );
        }
        (None, None) => match written.content_type.clone() {
            None => return Some(Body::None),
            // Some senders look for a type where there is nothing.
            Some(content_type) => Body::Text { content_type, text: Text::default() },
        },
        (Some(body), None) => {
            let (content_type, text) = (kind("text/plain"), text(body, given, &["body"], problems)?);
            // What a stranger sends must never come back as something that a browser runs.
            let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            if !text.is_fixed() && !matches!(essence.as_str(), "text/plain" | "application/json") {
                problems.note::<()>(
                    &["content_type"],
                    "values of the request are sent back as `text/plain` or `application/json` only",
                    "as anything else a browser could run what a stranger sent",
                );
            }
            if !text.is_fixed() && essence == "application/json" {
                problems.note::<()>(
                    &["body"],
                    "values in JSON are escaped as such only by `json`",
                    "write `json: { … }`",
                );
            }
            Body::Text { content_type, text }
        }
        (None, Some(map)) => {
            let json = json_map(map, given, &["json"], problems)?;
            Body::Json { content_type: kind("application/json"), json }
        }
    };
    match &body {
        Body::Text { content_type, .. } | Body::Json { content_type, .. } if !plain(content_type) => {
            problems.note(&["content_type"], "this is not a content type", "such as `text/plain`")
        }
        _ => Some(body),
    }
}

fn json(value: &Value, given: &Given<'_>, at: &[&str], problems: &mut Problems<'_>) -> Option<Json> {
    Some(match value {
        Value::String(written) => Json::Text(text(written, given, at, problems)?),
        Value::Array(items) => {
            Json::List(items.iter().map(|item| json(item, given, at, problems)).collect::<Option<_>>()?)
        }
        Value::Object(map) => json_map(map, given, at, problems)?,
        fixed => Json::Fixed(fixed.clone()),
    })
}

fn json_map(
    map: &Map<String, Value>,
    given: &Given<'_>,
    at: &[&str],
    problems: &mut Problems<'_>,
) -> Option<Json> {
    let mut entries = Vec::new();
    for (key, value) in map {
        entries.push((key.clone(), json(value, given, at, problems)?));
    }
    Some(Json::Map(entries))
}

/// A text template; `None` with a problem, or where a parameter in it is not given.
pub(super) fn text(
    written: &str,
    given: &Given<'_>,
    at: &[&str],
    problems: &mut Problems<'_>,
) -> Option<Text> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = written;
    while let Some(start) = rest.find(['{', '}']) {
        literal.push_str(&rest[..start]);
        let tail = &rest[start..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            literal.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let Some(end) = tail.find('}').filter(|_| tail.starts_with('{')) else {
            return problems.note(
                at,
                format!("`{}` is not closed", &tail[..1]),
                "such as `{query:challenge}`; a literal brace is written twice",
            );
        };
        let inside = &tail[1..end];
        if let Some(name) = inside.strip_prefix("param:") {
            given.param(name, at, problems)?;
            literal.push_str(&given.text(name)?);
        } else {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            pieces.push(match inside {
                "proof" => Piece::Proof,
                place => Piece::At(location(place, at, problems)?),
            });
        }
        rest = &tail[end + 1..];
    }
    literal.push_str(rest);
    pieces.push(Piece::Literal(literal));
    pieces.retain(|piece| *piece != Piece::Literal(String::new()));
    Some(Text(pieces))
}

fn proof(spec: &ProofSpec, given: &Given<'_>, problems: &mut Problems<'_>) -> Option<Proof> {
    let encoding = encoding(spec.encoding.as_deref(), &["encoding"], problems);
    for name in template::params_of(&spec.signed) {
        given.param(name, &["signed"], problems)?;
    }
    let signed = match template::Template::parse(&spec.signed, &|name| given.text(name)) {
        Ok(template) => Some(template),
        Err(message) => problems.note(
            &["signed"],
            message,
            "such as `{query:challenge}`; a literal brace is written twice",
        ),
    };
    if signed.as_ref().is_some_and(|t| t.uses_timestamp() || t.uses_id()) {
        problems.note::<()>(
            &["signed"],
            "a greeting has no `{timestamp}` and no `{id}`: name the place",
            "such as `{header:X-Timestamp}`",
        );
    }
    let secret = match (&spec.param, &spec.secret) {
        (Some(_), Some(_)) => problems.note(
            &["param"],
            "give either `param` or `secret`",
            "`param` in a pack, `secret` in a route",
        ),
        (Some(name), None) => given.param(name, &["param"], problems)?.first().cloned(),
        (None, Some(reference)) => given.secret(reference, &["secret"], problems),
        (None, None) => match given.secrets.first() {
            Some(secret) => {
                given.uses(secret);
                Some(secret.clone())
            }
            // A route whose pack has ways without a secret.
            None if given.known.is_some() => {
                given.lacks("secret");
                None
            }
            None => problems.note(
                &["secret"],
                "the route's rule has no secret that could prove anything",
                "name one here: `secret: env:NAME`",
            ),
        },
    };
    let secret = secret.and_then(|secret| derive(&secret, spec.key.as_ref(), &["key"], problems));
    let uses_secret = signed.as_ref().is_some_and(template::Template::uses_secret);
    let key = match (Algorithm::parse(&spec.algorithm), secret) {
        (Some(Algorithm::Hmac(_)), _) if uses_secret => problems.note(
            &["signed"],
            "`{secret}` belongs only into plain digests (`sha1`, `sha256`)",
            "remove it: with an HMAC the secret is the key already",
        ),
        (Some(Algorithm::Digest(_)), _) if !uses_secret => problems.note(
            &["signed"],
            "a plain digest proves nothing without `{secret}` in what is signed",
            "put `{secret}` where the sender has it, or use `hmac-sha256`",
        ),
        (Some(Algorithm::Hmac(hash)), Some(secret)) => {
            MacKey::new(hash, secret.expose()).map(|key| ProofKey::Mac(Box::new(key)))
        }
        (Some(Algorithm::Digest(hash)), Some(secret)) => Some(ProofKey::Digest(hash, secret)),
        (Some(Algorithm::Hmac(_) | Algorithm::Digest(_)), None) => None,
        _ => {
            let known = ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512", "sha1", "sha256"];
            problems.unknown(&["algorithm"], "algorithm of a proof", &spec.algorithm, &known)
        }
    };
    Some(Proof { key: key?, signed: signed?, encoding: encoding? })
}

/// Whoever can choose what is signed with the route's secret can sign an event. So what a stranger brings must have a
/// shape that the handshake states, in which no event is taken then.
pub(super) fn is_unshaped(spec: &HandshakeSpec, proof: &ProofSpec) -> bool {
    let Ok(signed) = template::Template::parse(&proof.signed, &|_| Some(String::new())) else { return false };
    signed.shape(&|location| oracle::shape_of(spec, location), b"").is_none()
}
