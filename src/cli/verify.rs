//! `tidegate verify`: captured requests, offline, against a route's rule. What a route would decide at a given time,
//! without a listener, a buffer or the network: keys that would be fetched (`jwks: https://…`) are not there, and
//! such requests come out as `key_unavailable`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::check::ConfigPath;
use super::failure::{Failure, exit};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Needed, Route};
use crate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};
use crate::reason::Reason;
use crate::route::Match;
use crate::tenants::Tenant;
use crate::verify::nearest;

/// Verify captured requests offline against a route
///
/// Reads one JSON object a line, {"method", "url", "headers": [[name, value], …], "body_base64", "source"}, and prints
/// one a line: {"accepted": true or false, "reason": code or null, "event_key": the idempotency key or null}. Keys that
/// would be fetched (`jwks: https://…`) are not: such requests are `key_unavailable`. Exit code 0 whatever is decided; 2
/// if a line makes no sense (the lines before it have their answers).
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate verify --route billing --requests captured.jsonl --explain
  tidegate verify --route billing --requests captured.jsonl --now 1764000000    when it was captured
  tidegate sign stripe --secret env:STRIPE_SECRET -o json | tidegate verify --route billing --requests -")]
pub struct Verify {
    #[command(flatten)]
    config: ConfigPath,
    /// The route whose rule decides
    #[arg(long, value_name = "NAME")]
    route: String,
    /// The requests, one JSON object a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// The time of the decision, in Unix seconds [default: now]
    #[arg(long, value_name = "UNIX_SECONDS")]
    now: Option<u64>,
    /// Say on standard error why each request is refused, or what proved it
    #[arg(long)]
    explain: bool,
}

/// A captured request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Captured {
    method: String,
    /// `https://host/path?query`, or the path alone.
    url: String,
    headers: Vec<(String, String)>,
    #[serde(default)]
    body_base64: String,
    source: Option<String>,
}

#[derive(Serialize)]
struct Decision<'a> {
    accepted: bool,
    reason: Option<&'a str>,
    event_key: Option<String>,
}

impl Verify {
    pub fn run(self) -> ExitCode {
        exit(self.verify())
    }

    fn verify(&self) -> Result<ExitCode, Failure> {
        let config = config::load_offline(&self.config.path(), Needed::Secrets)?.config;
        let names = || config.routes.iter().map(|route| &*route.name);
        let Some(index) = names().position(|name| name == self.route) else {
            return Err(Failure::Usage(match nearest(&self.route, names()) {
                Some(near) => format!("there is no route `{}`; did you mean `{near}`?", self.route),
                None => {
                    let names = names().collect::<Vec<_>>().join(", ");
                    format!("there is no route `{}`; routes are {names}", self.route)
                }
            }));
        };
        let route = &config.routes[index];
        let params = |request: &Request| match config.table.find(
            &request.head.host(),
            request.head.path(),
            &request.head.method,
        ) {
            Match::Route { index: found, params } if found == index => params,
            _ => PathParams::default(),
        };
        self.decide_all(route, &params)?;
        Ok(ExitCode::SUCCESS)
    }

    fn decide_all(&self, route: &Route, params: &dyn Fn(&Request) -> PathParams) -> Result<(), Failure> {
        let wrong = |message: String| Failure::Usage(format!("{}: {message}", self.requests.display()));
        let input: Box<dyn Read> = if self.requests.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(&self.requests).map_err(|error| wrong(error.to_string()))?)
        };
        let now = self.now.map_or_else(|| Clock::System.now(), Timestamp::from_secs);
        let mut out = std::io::stdout().lock();
        for (at, line) in BufReader::new(input).lines().enumerate() {
            let number = at + 1;
            let line = line.map_err(|error| wrong(format!("line {number}: {error}")))?;
            if line.trim().is_empty() {
                continue;
            }
            let captured = serde_json::from_str::<Captured>(&line).map_err(|error| error.to_string());
            let request = captured.and_then(|captured| captured.request(now));
            let mut request = request.map_err(|error| wrong(format!("line {number}: {error}")))?;
            request.params = params(&request);
            let decision = self.decide(route, request, now, number);
            let json = serde_json::to_string(&decision).map_err(std::io::Error::other)?;
            writeln!(out, "{json}")?;
        }
        Ok(())
    }

    fn decide(&self, route: &Route, request: Request, now: Timestamp, number: usize) -> Decision<'static> {
        let tenant = match route.tenants.as_ref().map(|tenants| tenants.load(&request.params, None)) {
            Some(Tenant::Known(verifier)) => Some(verifier),
            Some(Tenant::Broken(why)) => {
                if self.explain {
                    eprintln!("line {number}: {why}");
                }
                let reason = Some(Reason::KeyUnavailable.code());
                return Decision { accepted: false, reason, event_key: None };
            }
            Some(Tenant::Unknown) => {
                if self.explain {
                    eprintln!("line {number}: this tenant is not known, so nothing is right for it");
                }
                None
            }
            None => None,
        };
        let verifier = tenant.as_deref().unwrap_or(&route.verify);
        match verifier.verify(request, route.public_url.as_deref(), now) {
            Ok(verified) => {
                if self.explain {
                    let label = verified.label().map(|label| format!(" ({label})")).unwrap_or_default();
                    eprintln!("line {number}: accepted by {}{label}", verified.by());
                }
                let key = route.idempotency.as_ref().map(|rule| rule.key.key(verified.get()));
                Decision { accepted: true, reason: None, event_key: key }
            }
            Err((_, refusal)) => {
                if self.explain {
                    eprintln!("line {number}: {refusal}");
                }
                Decision { accepted: false, reason: Some(refusal.reason.code()), event_key: None }
            }
        }
    }
}

impl Captured {
    fn request(&self, now: Timestamp) -> Result<Request, String> {
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
pub(super) fn split_url(url: &str) -> Result<(Scheme, &str, &str), String> {
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
    use crate::verify::spec::SecretSpec;

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
    fn a_url_is_a_path_or_whole() {
        assert_eq!(split_url("/p?q"), Ok((Scheme::Https, "", "/p?q")));
        assert_eq!(split_url("http://a#f"), Ok((Scheme::Http, "a", "/")));
        for bad in ["", "ftp://a", "https://", "https:///p", "p", "https://é/"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_decision_names_reason_and_key() {
        let spec = crate::verify::VerifySpec::of_provider("gitlab", vec![SecretSpec::of("s".to_owned())]);
        let compiled = crate::verify::compile(&spec, &crate::verify::testing::World::default()).unwrap();
        let route = Route {
            tenants: None,
            clients: config::Clients::Any,
            name: "r".into(),
            host: None,
            path: "/in".to_owned(),
            methods: Vec::new(),
            allow: None,
            verify: compiled.verifier,
            public_url: None,
            handshake: None,
            idempotency: Some(config::Idempotency {
                key: crate::verify::Extract::parse("body:/id").unwrap(),
                window: std::time::Duration::from_secs(60),
            }),
            event_type: None,
            max_body: 1024,
            mode: config::Mode::Buffer {
                answer: config::Acknowledgement { status: 202, content_type: None, body: String::new() },
                destinations: Vec::new(),
            },
        };
        let verify = Verify {
            config: ConfigPath::default(),
            route: "r".to_owned(),
            requests: PathBuf::new(),
            now: None,
            explain: false,
        };
        let decide = |token: &str| {
            let r = crate::verify::testing::request("/in", &[("X-Gitlab-Token", token)], br#"{"id":7}"#);
            serde_json::to_string(&verify.decide(&route, r, Timestamp(0), 1)).unwrap()
        };
        assert_eq!(decide("s"), r#"{"accepted":true,"reason":null,"event_key":"7"}"#);
        assert_eq!(decide("x"), r#"{"accepted":false,"reason":"signature_invalid","event_key":null}"#);
    }
}
