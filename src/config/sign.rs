//! How requests to an app are changed and signed, as checked. How it is written is `raw`'s.

use std::path::PathBuf;

use http::Uri;
use regex::Regex;

use crate::secret::Secret;

/// What proves to the app that a request comes from this gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Sign {
    /// Standard Webhooks, version 1; the key is decoded.
    StandardWebhooks(Secret),
    Hmac(HmacTemplate),
    /// The whole value of `Authorization`: basic, or a fixed bearer token.
    Authorization(Secret),
    OAuth2(OAuth2),
}

impl Sign {
    /// Whether it needs the whole body, and an event.
    pub const fn covers_body(&self) -> bool {
        matches!(self, Sign::StandardWebhooks(_) | Sign::Hmac(_))
    }
}

/// A MAC over a template, in a header.
#[derive(Clone, Debug, PartialEq)]
pub struct HmacTemplate {
    pub secret: Secret,
    pub hash: MacHash,
    pub signed: Vec<Part>,
    pub header: String,
    pub prefix: String,
    pub encoding: MacEncoding,
    /// The header that tells the time (Unix seconds).
    pub timestamp_header: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacHash {
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacEncoding {
    Hex,
    Base64,
}

/// A piece of the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Body,
    /// Unix seconds.
    Timestamp,
    /// The event's id.
    Id,
    Method,
    /// Path and query as the app gets them.
    Target,
}

impl Part {
    /// Reads `{timestamp}.{body}`. The error says what would be right.
    pub fn parse(text: &str) -> Result<Vec<Part>, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(open) = rest.find(['{', '}']) {
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let end = rest[open..].find('}').filter(|_| rest[open..].starts_with('{'));
            let Some(end) = end else { return Err("a brace has no partner".into()) };
            parts.push(match &rest[open + 1..open + end] {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                "id" => Part::Id,
                "method" => Part::Method,
                "target" => Part::Target,
                other => {
                    return Err(format!(
                        "`{{{other}}}` is not known here; known are {{body}}, {{timestamp}}, {{id}}, {{method}} and {{target}}"
                    ));
                }
            });
            rest = &rest[open + end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(parts)
    }
}

/// OAuth 2.0 client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// https, or http on loopback.
    pub token_url: Uri,
    /// Root certificates (PEM) to trust there instead of the public ones.
    pub ca: Option<PathBuf>,
    pub client_id: String,
    pub secret: Secret,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

/// Another path for the app: where the whole path matches, it becomes `to`.
#[derive(Clone, Debug)]
pub struct PathRewrite {
    /// Anchored at both ends.
    pub pattern: Regex,
    /// With `$1` or `${name}` for what a group matched; begins with `/`.
    pub to: String,
}

impl PartialEq for PathRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.to == other.to
    }
}

impl PathRewrite {
    /// The target with its path rewritten, `None` if it does not match. The query stays.
    pub fn apply(&self, target: &str) -> Option<String> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let found = self.pattern.captures(path)?;
        let mut out = String::with_capacity(target.len() + self.to.len());
        found.expand(&self.to, &mut out);
        if let Some(query) = query {
            out.push('?');
            out.push_str(query);
        }
        Some(out)
    }
}
