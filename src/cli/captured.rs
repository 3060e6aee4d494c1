//! Captured requests: one JSON object a line, as `verify --requests` and `check --replay` read them.

use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};

/// A captured request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    method: String,
    /// `https://host/path?query`, or the path alone.
    url: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body_base64: String,
    source: Option<String>,
    /// When it came in.
    received_at: Option<When>,
    /// What became of it.
    pub outcome: Option<Outcome>,
}

/// What became of a captured request, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    pub accepted: Option<bool>,
    pub reason: Option<String>,
    pub event_key: Option<String>,
    pub route: Option<String>,
    pub mode: Option<String>,
}

/// Unix seconds, or RFC 3339.
#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(u64),
    Text(String),
}

/// One line, read.
pub struct Line {
    /// From 1.
    pub number: usize,
    pub captured: Captured,
    /// Without the parameters of its path: they depend on the route.
    pub request: Request,
    /// The time of the decision, and whether it is known or only the time of now.
    pub at: Timestamp,
    pub time_known: bool,
}

/// Reads a file (`-`: standard input) line by line and hands each to `each`. A line that makes no sense ends it: what
/// came before has been handed out. `now` is the time of requests that don't say theirs; `None` is the clock's.
pub fn each_line(
    path: &Path,
    now: Option<Timestamp>,
    clock: Timestamp,
    mut each: impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let wrong = |message: String| Failure::Usage(format!("{}: {message}", path.display()));
    let input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?)
    };
    for (at, line) in BufReader::new(input).lines().enumerate() {
        let number = at + 1;
        let line = line.map_err(|error| wrong(format!("line {number}: {error}")))?;
        if line.trim().is_empty() {
            continue;
        }
        let read = || -> Result<Line, String> {
            let captured = serde_json::from_str::<Captured>(&line).map_err(|error| error.to_string())?;
            let told = captured.received_at()?;
            // What is asked for on the command line goes before what the line says.
            let known = now.or(told);
            let at = known.unwrap_or(clock);
            let request = captured.request(at)?;
            Ok(Line { number, captured, request, at, time_known: known.is_some() })
        };
        each(read().map_err(|error| wrong(format!("line {number}: {error}")))?)?;
    }
    Ok(())
}

impl Captured {
    fn received_at(&self) -> Result<Option<Timestamp>, String> {
        let text = match &self.received_at {
            None => return Ok(None),
            Some(When::Seconds(seconds)) => return Ok(Some(Timestamp::from_secs(*seconds))),
            Some(When::Text(text)) => text,
        };
        let time = text.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_millisecond()).ok());
        time.map(|millis| Some(Timestamp(millis))).ok_or_else(|| {
            format!("received_at: `{text}` is no time: write Unix seconds or 2026-11-24T05:36:00Z")
        })
    }

    pub fn request(&self, now: Timestamp) -> Result<Request, String> {
        let (scheme, authority, target) = split_url(&self.url)?;
        let method: Method = self.method.parse().map_err(|_| format!("`{}` is no method", self.method))?;
        let body = STANDARD.decode(&self.body_base64).map_err(|error| format!("body_base64: {error}"))?;
        let source = self.source.as_deref().unwrap_or("127.0.0.1");
        let client: IpAddr = source.parse().map_err(|_| format!("source: `{source}` is no address"))?;
        let headers: Headers = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let host = headers.first("host").and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default();
        let authority = if authority.is_empty() { host.to_owned() } else { authority.to_owned() };
        let head = Head {
            method,
            target: target.to_owned(),
            authority,
            asked_authority: None,
            scheme,
            version: Version::Http11,
            headers,
            peer: (client, 0).into(),
            client: crate::message::canonical_ip(client),
            local: ([127, 0, 0, 1], 0).into(),
            received_at: now,
        };
        Ok(Request { head, params: PathParams::default(), body: body.into() })
    }
}

/// Scheme, authority (empty if only a path is given) and target of a URL.
pub fn split_url(url: &str) -> Result<(Scheme, &str, &str), String> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        None if url.starts_with('/') => return Ok((Scheme::Https, "", url)),
        _ => return Err(format!("`{url}` is neither a http(s) URL nor a path")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    if authority.is_empty() || !url.is_ascii() || (target.starts_with('?')) {
        return Err(format!("`{url}` is not a URL such as https://hooks.example.com/path"));
    }
    Ok((scheme, authority, if target.is_empty() { "/" } else { target }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_request_is_read_as_it_was_sent() {
        let line = r#"{"method":"POST","url":"https://h.example:8443/in?a=%20","headers":[["X","1"],["x","2"]],"body_base64":"AP8=","source":"::ffff:192.0.2.1"}"#;
        let request = serde_json::from_str::<Captured>(line).unwrap().request(Timestamp(5)).unwrap();
        assert_eq!(
            (request.head.authority.as_str(), request.head.target.as_str()),
            ("h.example:8443", "/in?a=%20")
        );
        assert_eq!(request.head.client, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(request.head.headers.all("X").count(), 2);
        assert_eq!(&request.body[..], [0, 255]);
    }

    #[test]
    fn a_captured_request_may_say_when_it_came_and_what_became_of_it() {
        let of = |more: &str| {
            let line = format!(r#"{{"method":"POST","url":"/","headers":[]{more}}}"#);
            serde_json::from_str::<Captured>(&line)
                .map_err(|e| e.to_string())
                .and_then(|captured| Ok((captured.received_at()?.map(Timestamp::as_secs), captured.outcome)))
        };
        assert_eq!(of(""), Ok((None, None)));
        assert_eq!(of(r#","received_at":1764000000"#), Ok((Some(1_764_000_000), None)));
        assert_eq!(of(r#","received_at":"2025-11-24T16:00:00Z""#), Ok((Some(1_764_000_000), None)));
        assert!(of(r#","received_at":"yesterday""#).is_err());
        let outcome = Outcome { accepted: Some(true), route: Some("a".into()), ..Outcome::default() };
        assert_eq!(of(r#","outcome":{"accepted":true,"route":"a"}"#), Ok((None, Some(outcome))));
        assert!(of(r#","outcome":{"acepted":true}"#).is_err());
    }

    #[test]
    fn a_url_is_a_path_or_whole() {
        assert_eq!(split_url("/p?q"), Ok((Scheme::Https, "", "/p?q")));
        assert_eq!(split_url("http://a#f"), Ok((Scheme::Http, "a", "/")));
        for bad in ["", "ftp://a", "https://", "https:///p", "p", "https://é/"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
    }
}
