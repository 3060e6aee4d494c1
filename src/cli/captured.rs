//! Captured requests: one JSON object a line, as `verify --requests` and `check --replay` read them.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderName;
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};

/// What a line may look like, for whoever wrote another.
const FORM: &str = r#"a line is one JSON object: {"method": "POST", "url": "https://hooks.example.com/path", "headers": {"X-Signature": "…"}, "body_base64": "…"}; headers may also be a list of [name, value], the text `body` may stand for `body_base64`, and `source`, `received_at` and `outcome` may be there"#;

/// From here on a `received_at` is in milliseconds: as seconds it would be in the year 5138.
const FIRST_MILLIS: f64 = 1e11;

/// A captured request.
#[derive(Debug)]
pub struct Captured {
    method: String,
    /// `https://host/path?query`, or the path alone.
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    source: Option<String>,
    /// When it came in.
    received_at: Option<Timestamp>,
    /// What became of it.
    pub outcome: Option<Outcome>,
}

/// What became of a captured request, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub accepted: Option<bool>,
    pub reason: Option<String>,
    pub event_key: Option<String>,
    pub route: Option<String>,
    pub mode: Option<String>,
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
/// came before has been handed out; so does a file without a line. `now` is the time of requests that don't say theirs;
/// `None` is the clock's.
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
    let mut is_empty = true;
    for (at, line) in BufReader::new(input).lines().enumerate() {
        let number = at + 1;
        let line = line.map_err(|error| match error.kind() {
            ErrorKind::InvalidData => wrong(format!("line {number}: this is not UTF-8; {FORM}")),
            _ => wrong(format!("line {number}: {error}")),
        })?;
        // Some editors begin a file with a byte order mark.
        let line = if at == 0 { line.strip_prefix('\u{feff}').unwrap_or(&line) } else { &line };
        if line.trim().is_empty() {
            continue;
        }
        is_empty = false;
        let read = || -> Result<Line, String> {
            let captured: Captured = line.parse()?;
            // What is asked for on the command line goes before what the line says.
            let known = now.or(captured.received_at);
            let at = known.unwrap_or(clock);
            let request = captured.request(at)?;
            Ok(Line { number, captured, request, at, time_known: known.is_some() })
        };
        each(read().map_err(|error| wrong(format!("line {number}: {error}")))?)?;
    }
    if is_empty {
        return Err(wrong(format!("there is no request in it; {FORM}")));
    }
    Ok(())
}

impl FromStr for Captured {
    type Err = String;

    /// Keys that are not known are left alone: whoever captured the request may have more to say of it. No error shows a
    /// value, which may be a secret.
    fn from_str(line: &str) -> Result<Self, String> {
        let value = serde_json::from_str::<Value>(line).map_err(|error| match error.classify() {
            Category::Eof => format!("the JSON ends within the line; {FORM}"),
            _ => format!("this is not JSON from column {} on; {FORM}", error.column()),
        })?;
        let Value::Object(mut fields) = value else {
            return Err(format!("this is {} and no object; {FORM}", kind(&value)));
        };
        let method = text(&mut fields, "method")?.ok_or_else(|| lacks("method"))?;
        let url = text(&mut fields, "url")?.ok_or_else(|| lacks("url"))?;
        let headers = headers(take(&mut fields, "headers").ok_or_else(|| lacks("headers"))?)?;
        let body = match (text(&mut fields, "body")?, text(&mut fields, "body_base64")?) {
            (Some(_), Some(_)) => return Err("`body` and `body_base64` are both there: give one".to_owned()),
            (Some(body), None) => Bytes::from(body),
            (None, encoded) => STANDARD
                .decode(encoded.unwrap_or_default())
                .map(Bytes::from)
                .map_err(|_| "`body_base64` is no base64 (with `+`, `/` and padding)".to_owned())?,
        };
        Ok(Self {
            method,
            url,
            headers,
            body,
            source: text(&mut fields, "source")?,
            received_at: take(&mut fields, "received_at").map(|value| time(&value)).transpose()?,
            outcome: take(&mut fields, "outcome").map(outcome).transpose()?,
        })
    }
}

/// `null` is as good as nothing.
fn take(fields: &mut Map<String, Value>, key: &str) -> Option<Value> {
    fields.remove(key).filter(|value| !value.is_null())
}

fn text(fields: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match take(fields, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` is {} and must be a text; {FORM}", kind(&other))),
    }
}

fn lacks(key: &str) -> String {
    format!("`{key}` is missing; {FORM}")
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn headers(value: Value) -> Result<Vec<(String, String)>, String> {
    let wrong = || {
        format!(
            "`headers` must be an object of names and texts (or lists of texts), or a list of [name, value]; {FORM}"
        )
    };
    let mut found = Vec::new();
    match value {
        Value::Object(headers) => {
            for (name, value) in headers {
                match value {
                    Value::String(value) => found.push((name, value)),
                    Value::Array(values) => {
                        for value in values {
                            let Value::String(value) = value else { return Err(wrong()) };
                            found.push((name.clone(), value));
                        }
                    }
                    _ => return Err(wrong()),
                }
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                match serde_json::from_value::<(String, String)>(pair) {
                    Ok(pair) => found.push(pair),
                    Err(_) => return Err(wrong()),
                }
            }
        }
        _ => return Err(wrong()),
    }
    for (name, value) in &found {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(format!("`headers`: `{}` is no name of a header", name.escape_debug()));
        }
        if value.contains(['\r', '\n', '\0']) {
            return Err(format!("`headers`: the value of `{name}` has a line break or a zero byte in it"));
        }
    }
    Ok(found)
}

/// Unix time in seconds or milliseconds, or RFC 3339.
fn time(value: &Value) -> Result<Timestamp, String> {
    let wrong = || {
        "`received_at` is no time: write Unix seconds, milliseconds, or a text such as \"2026-11-24T05:36:00Z\"".to_owned()
    };
    let millis = match value {
        Value::Number(number) => match number.as_f64().ok_or_else(wrong)? {
            number if number >= FIRST_MILLIS => number,
            number => number * 1000.0,
        },
        Value::String(text) => text.parse::<jiff::Timestamp>().map_err(|_| wrong())?.as_millisecond() as f64,
        _ => return Err(wrong()),
    };
    // Until the year 287396 a float holds every millisecond.
    if !(0.0..9e15).contains(&millis) {
        return Err(wrong());
    }
    Ok(Timestamp(millis.round() as u64))
}

fn outcome(value: Value) -> Result<Outcome, String> {
    const KEYS: &str =
        "`outcome` is an object of `accepted` (true or false), `reason`, `event_key`, `route` and `mode`";
    let Value::Object(mut fields) = value else { return Err(KEYS.to_owned()) };
    let accepted = match take(&mut fields, "accepted") {
        None => None,
        Some(Value::Bool(accepted)) => Some(accepted),
        Some(_) => return Err(KEYS.to_owned()),
    };
    let mut text = |key| text(&mut fields, key).map_err(|_| KEYS.to_owned());
    let found = Outcome {
        accepted,
        reason: text("reason")?,
        event_key: text("event_key")?,
        route: text("route")?,
        mode: text("mode")?,
    };
    // Compared with nothing, a slip would pass for no change.
    match fields.keys().next() {
        Some(key) => Err(format!("`outcome` has the unknown key `{key}`; {KEYS}")),
        None => Ok(found),
    }
}

impl Captured {
    pub fn request(&self, now: Timestamp) -> Result<Request, String> {
        let (scheme, authority, target) = split_url(&self.url)?;
        let method: Method = self.method.parse().map_err(|_| format!("`{}` is no method", self.method))?;
        let source = self.source.as_deref().unwrap_or("127.0.0.1");
        let client: IpAddr = source.parse().map_err(|_| format!("`source`: `{source}` is no address"))?;
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
        Ok(Request { head, params: PathParams::default(), body: self.body.clone() })
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
        let request = line.parse::<Captured>().unwrap().request(Timestamp(5)).unwrap();
        assert_eq!(
            (request.head.authority.as_str(), request.head.target.as_str()),
            ("h.example:8443", "/in?a=%20")
        );
        assert_eq!(request.head.client, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(request.head.headers.all("X").count(), 2);
        assert_eq!(&request.body[..], [0, 255]);
    }

    #[test]
    fn headers_and_body_may_be_written_as_is_handy() {
        let of = |rest: &str| {
            let line = format!(r#"{{"id":7,"method":"POST","url":"/","more":{{}},{rest}}}"#);
            line.parse::<Captured>().map(|captured| (captured.headers, captured.body))
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let both = vec![pair("A", "1"), pair("A", "2"), pair("B", "é")];
        assert_eq!(of(r#""headers":{"A":["1","2"],"B":"é"},"body":"ä\n""#), Ok((both.clone(), "ä\n".into())));
        assert_eq!(
            of(r#""headers":[["A","1"],["A","2"],["B","é"]],"body_base64":"w6QK","body":null"#),
            Ok((both, "ä\n".into()))
        );
        assert_eq!(of(r#""headers":{}"#), Ok((vec![], Bytes::new())));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_without_its_values() {
        let of = |line: &str| line.parse::<Captured>().unwrap_err();
        let with = |rest: &str| of(&format!(r#"{{"method":"POST","url":"/","headers":{{}},{rest}}}"#));
        for (said, expected) in [
            (of("{"), "the JSON ends within the line; a line is one JSON object: {\"method\""),
            (of("[hunter22]"), "this is not JSON from column 2 on; a line is"),
            (of(r#"["hunter22"]"#), "this is a list and no object; a line is"),
            (of(r#"{"url":"/","headers":[]}"#), "`method` is missing; a line is"),
            (of(r#"{"method":"POST","headers":[]}"#), "`url` is missing; a line is"),
            (of(r#"{"method":"POST","url":"/"}"#), "`headers` is missing; a line is"),
            (of(r#"{"method":"POST","url":7}"#), "`url` is a number and must be a text; a line is"),
            (
                of(r#"{"method":"POST","url":"/","headers":["hunter22"]}"#),
                "`headers` must be an object of names and",
            ),
            (
                of(r#"{"method":"POST","url":"/","headers":{"A":{"b":"hunter22"}}}"#),
                "`headers` must be an object",
            ),
            (
                of(r#"{"method":"POST","url":"/","headers":{"A b\n":"hunter22"}}"#),
                r"`headers`: `A b\n` is no name",
            ),
            (
                of(r#"{"method":"POST","url":"/","headers":{"A":"hunter22\n"}}"#),
                "`headers`: the value of `A` has a line",
            ),
            (with(r#""body_base64":"hunter22!""#), "`body_base64` is no base64"),
            (with(r#""body":"","body_base64":"""#), "`body` and `body_base64` are both there"),
            (with(r#""body":{"a":"hunter22"}"#), "`body` is an object and must be a text"),
            (
                with(r#""received_at":"hunter22""#),
                "`received_at` is no time: write Unix seconds, milliseconds, or",
            ),
            (with(r#""received_at":-1"#), "`received_at` is no time"),
            (
                with(r#""outcome":{"acepted":true}"#),
                "`outcome` has the unknown key `acepted`; `outcome` is an object",
            ),
            (with(r#""outcome":{"accepted":"hunter22"}"#), "`outcome` is an object of `accepted`"),
        ] {
            assert!(said.starts_with(expected) && !said.contains("hunter22"), "{said}");
        }
    }

    #[test]
    fn a_captured_request_may_say_when_it_came_and_what_became_of_it() {
        let of = |more: &str| {
            let line = format!(r#"{{"method":"POST","url":"/","headers":[]{more}}}"#);
            let captured: Captured = line.parse().unwrap();
            (captured.received_at.map(|time| time.0), captured.outcome)
        };
        assert_eq!(of(""), (None, None));
        for when in [
            "1764000000",
            "1764000000.0",
            "1764000000000",
            r#""2025-11-24T16:00:00Z""#,
            r#""2025-11-24T17:00:00+01:00""#,
        ] {
            assert_eq!(of(&format!(r#","received_at":{when}"#)), (Some(1_764_000_000_000), None), "{when}");
        }
        assert_eq!(of(r#","received_at":99999999999"#).0, Some(99_999_999_999_000));
        assert_eq!(of(r#","received_at":100000000000"#).0, Some(100_000_000_000));
        let outcome = Outcome { accepted: Some(true), route: Some("a".into()), ..Outcome::default() };
        assert_eq!(of(r#","outcome":{"accepted":true,"route":"a"}"#), (None, Some(outcome)));
    }

    #[test]
    fn a_file_is_read_line_by_line_and_is_not_empty() {
        let read = |content: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            let mut numbers = Vec::new();
            let done = each_line(file.path(), None, Timestamp(1), |line| {
                numbers.push(line.number);
                Ok(())
            });
            let path = file.path().display().to_string();
            (numbers, done.map_err(|error| error.to_string().replace(&path, "FILE")))
        };
        let line = r#"{"method":"POST","url":"/","headers":{}}"#;
        assert_eq!(read(format!("\u{feff}{line}\r\n\n{line}").as_bytes()), (vec![1, 3], Ok(())));
        for (content, numbers, expected) in [
            (String::new().into_bytes(), vec![], "FILE: there is no request in it; a line is"),
            (b"\n \n".to_vec(), vec![], "FILE: there is no request in it; a line is"),
            (
                format!("{line}\nnothing").into_bytes(),
                vec![1],
                "FILE: line 2: this is not JSON from column 2 on",
            ),
            ([line.as_bytes(), b"\n\xff"].concat(), vec![1], "FILE: line 2: this is not UTF-8; a line is"),
        ] {
            let (read, done) = read(&content);
            assert!(
                read == numbers && done.as_ref().is_err_and(|said| said.starts_with(expected)),
                "{done:?}"
            );
        }
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
