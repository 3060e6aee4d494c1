//! `tidegate verify`: captured requests, offline, against a route's rule. What a route would decide at a given time,
//! without a listener, a buffer or the network: keys that would be fetched (`jwks: https://…`) are not there, and
//! such requests come out as `key_unavailable`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::captured::{Line, each_line};
use super::check::{ConfigPath, Output};
use super::failure::{Failure, exit};
use super::output::harmless;
use super::sign::argument;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Clients, Needed, Route};
use crate::message::{PathParams, Request};
use crate::route::Match;
use crate::secret::Secret;
use crate::tenants::{Client, Held, Needs};
use crate::verify::{Explanation, Verifier, nearest};

/// Verify captured requests offline against a route
///
/// Reads one JSON object a line, {"method", "url", "headers": {name: value, …}, "body_base64", "source"} (headers may also be
/// a list of [name, value], "body" may be text; other keys are left alone), and prints one a line: {"accepted": true or false, "reason": code or null, "event_key": the idempotency key or null}. Keys that
/// would be fetched (`jwks: https://…`) are not: such requests are `key_unavailable`. Exit code 0 whatever is decided; 2
/// if a line makes no sense (the lines before it have their answers).
///
/// With --output text, or --explain beside the JSON, it says step by step what was looked at: which bytes were signed, how
/// far the time is off, which secret matched, and the likeliest mistake: it tries whatever is often got wrong (a final
/// newline, a secret with its prefix, the other URL scheme, another route's secret, …) with the configured secrets, and
/// says which try makes the signature right. A line may also hold "received_at" (Unix seconds, milliseconds, or RFC 3339), the time
/// of the decision.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate verify --route billing --requests captured.jsonl --output text
  tidegate verify --route billing --requests captured.jsonl --now 1764000000    when it was captured
  tidegate verify --route partner --requests one.jsonl --output text --signed base.txt    what the sender says it signed
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
    /// On a route with `secret: client:secret`: the secret that was made with the client's URL, `env:NAME` or
    /// `file:PATH`. Only a gateway that runs has it
    #[arg(long, value_name = "REFERENCE")]
    client_secret: Option<String>,
    /// The time of the decision, in Unix seconds [default: the line's `received_at`, else now]
    #[arg(long, value_name = "UNIX_SECONDS")]
    now: Option<u64>,
    /// Say on standard error, step by step, why each request is refused or what proved it; the JSON gets `detail`, `by`,
    /// `label` and `likely`
    #[arg(long)]
    explain: bool,
    /// How to print: JSON lines, or the explanations alone for people
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "json")]
    output: Output,
    /// Also show what the signature would have to be. With it anyone can send that request: don't paste it anywhere
    #[arg(long)]
    show_expected: bool,
    /// What the sender signed (its library's log may say it: a signature base, `t.body`): says where it first differs
    /// from what is signed here. A newline at the file's end that is not here is left out
    #[arg(long, value_name = "FILE")]
    signed: Option<PathBuf>,
}

#[derive(Serialize)]
struct Decision {
    accepted: bool,
    reason: Option<&'static str>,
    event_key: Option<String>,
    #[serde(flatten)]
    explained: Option<Explained>,
}

/// With `--explain`.
#[derive(Serialize)]
struct Explained {
    detail: Option<String>,
    by: Option<String>,
    label: Option<String>,
    likely: Vec<LikelyView>,
}

#[derive(Serialize)]
struct LikelyView {
    code: &'static str,
    text: String,
}

impl Verify {
    pub fn run(self) -> ExitCode {
        exit(self.verify())
    }

    fn verify(&self) -> Result<ExitCode, Failure> {
        if self.show_expected && !self.explain && self.output == Output::Json {
            return Err(Failure::Usage("--show-expected goes with --explain or --output text".into()));
        }
        if self.signed.is_some() && !self.explain && self.output == Output::Json {
            return Err(Failure::Usage("--signed goes with --explain or --output text".into()));
        }
        let theirs = match &self.signed {
            None => None,
            Some(path) => Some(std::fs::read(path).map_err(|error| {
                Failure::Usage(format!("--signed: `{}` can't be read: {error}", path.display()))
            })?),
        };
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
        let client = self.client_secret(route)?;
        let client = client.as_ref().map(|secret| Client { id: "", secret: Some(secret) });
        if route.clients == Clients::Endpoints {
            eprintln!(
                "whether a URL is a client's is not judged: only a gateway that runs knows which there are"
            );
        }
        let others = config.routes.iter().filter(|other| other.name != route.name);
        let others: Vec<(&str, &Verifier)> = others.map(|other| (&*other.name, &other.verify)).collect();
        let now = self.now.map(Timestamp::from_secs);
        let mut out = std::io::stdout().lock();
        each_line(&self.requests, now, Clock::System.now(), |Line { number, mut request, at, .. }| {
            request.params = params(&request);
            let tenant = route.tenants.as_ref().map(|tenants| tenants.load(&request.params, client));
            let held = Held::of(tenant).unwrap_or_else(|refusal| {
                eprintln!("line {number}: {}", harmless(&refusal.to_string()));
                Held::Nobody
            });
            if matches!(held, Held::Nobody) {
                eprintln!("line {number}: there is no such tenant, so that nothing is right for it");
            }
            let rule = held.rule(&route.verify);
            let explanation = (self.explain || self.output == Output::Text)
                .then(|| rule.explain(&request, route.public_url.as_deref(), at, &others));
            let told =
                explanation.as_ref().map(|explanation| self.text(number, explanation, theirs.as_deref()));
            let decision = self.decide(route, &held, request, at, explanation.as_ref());
            match (self.output, told) {
                (Output::Text, Some(told)) => {
                    let key = decision.event_key.map(|key| format!("  event key  {}\n", harmless(&key)));
                    write!(out, "{told}{}", key.unwrap_or_default())?;
                }
                (_, told) => {
                    if let Some(told) = told {
                        eprint!("{told}");
                    }
                    let json = serde_json::to_string(&decision).map_err(std::io::Error::other)?;
                    writeln!(out, "{json}")?;
                }
            }
            Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The secret of the client whose requests these are, where the rule asks for one.
    fn client_secret(&self, route: &Route) -> Result<Option<Secret>, Failure> {
        let asked = route.tenants.as_ref().is_some_and(|tenants| tenants.needs() == Needs::Secret);
        match &self.client_secret {
            None if asked => Err(Failure::Usage(format!(
                "the secrets of `{}` are made with its clients' URLs, and only a gateway that runs has them: give the \
                 client's with --client-secret env:NAME",
                route.name
            ))),
            Some(_) if !asked => Err(Failure::Usage(format!(
                "`{}` has no `client:secret`: --client-secret has no meaning for it",
                route.name
            ))),
            None => Ok(None),
            Some(reference) => {
                let text = argument(reference)
                    .map_err(|error| Failure::Usage(format!("--client-secret: {error}")))?;
                Ok(Some(Secret::new(text.into_bytes())))
            }
        }
    }

    fn decide(
        &self,
        route: &Route,
        held: &Held,
        request: Request,
        now: Timestamp,
        explanation: Option<&Explanation>,
    ) -> Decision {
        let likely = explanation.into_iter().flat_map(Explanation::likely);
        let likely = likely.map(|one| LikelyView { code: one.code, text: one.text.clone() }).collect();
        let explained = |detail, by, label| {
            (self.explain && self.output == Output::Json).then_some(Explained { detail, by, label, likely })
        };
        let decided = match route.verify.connection(&request.head.headers) {
            Ok(()) => held.verify(&route.verify, request, route.public_url.as_deref(), now),
            Err(refusal) => Err((Box::new(request), refusal)),
        };
        match decided {
            Ok(verified) => {
                let key = route.idempotency.as_ref().map(|rule| rule.key_of(verified.get()).into_text());
                let label = verified.label().map(ToString::to_string);
                let explained = explained(None, Some(verified.by().to_string()), label);
                Decision { accepted: true, reason: None, event_key: key, explained }
            }
            Err((_, refusal)) => {
                let explained = explained(Some(refusal.detail), None, None);
                Decision { accepted: false, reason: Some(refusal.reason.code()), event_key: None, explained }
            }
        }
    }

    /// The explanation of one request, for people.
    fn text(&self, number: usize, explanation: &Explanation, theirs: Option<&[u8]>) -> String {
        let mut told = match &explanation.decision {
            Ok((by, label)) => {
                let label = label.as_ref().map(|label| format!(" ({label})")).unwrap_or_default();
                format!("line {number}: accepted by {by}{label}\n")
            }
            Err(refusal) => format!("line {number}: {}\n", harmless(&refusal.to_string())),
        };
        for way in &explanation.ways {
            told += &format!("  {}\n", harmless(&way.name));
            for step in &way.steps {
                told += &format!("    {:<10} {}\n", step.what, harmless(&step.text));
            }
            for text in theirs.into_iter().flat_map(|theirs| way.differences(theirs)) {
                told += &format!("    {:<10} {}\n", "compared", harmless(&text));
            }
            if self.show_expected {
                for expected in &way.expected {
                    told += &format!("    {:<10} {}\n", "expected", harmless(expected));
                }
            }
        }
        for likely in explanation.likely() {
            told += &format!("  likely: {} [{}]\n", harmless(&likely.text), likely.code);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::spec::SecretSpec;

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
            rate_limit: None,
            verify: compiled.verifier,
            enforce: config::Enforce::On,
            quarantine: config::KeepRefused::Never,
            expect_every: None,
            public_url: None,
            greeting_methods: Vec::new(),
            handshakes: crate::verify::Handshakes::default(),
            idempotency: Some(config::Idempotency {
                key: Some(crate::verify::Extract::parse("body:/id").unwrap()),
                by_query: false,
                window: std::time::Duration::from_secs(60),
            }),
            event_type: None,
            unwanted: Default::default(),
            keep: None,
            redact: Default::default(),
            split: None,
            max_body: 1024,
            refusals: crate::providers::Refusals::Explained,
            mode: config::Mode::Buffer {
                answer: config::Acknowledgement { status: 202, content_type: None, body: String::new() },
                destinations: Vec::new(),
            },
        };
        let verify = Verify {
            config: ConfigPath::default(),
            route: "r".to_owned(),
            requests: PathBuf::new(),
            client_secret: None,
            now: None,
            explain: false,
            output: Output::Json,
            show_expected: false,
            signed: None,
        };
        let decide = |token: &str| {
            let r = crate::verify::testing::request("/in", &[("X-Gitlab-Token", token)], br#"{"id":7}"#);
            serde_json::to_string(&verify.decide(&route, &Held::Route, r, Timestamp(0), None)).unwrap()
        };
        assert_eq!(decide("s"), r#"{"accepted":true,"reason":null,"event_key":"7"}"#);
        assert_eq!(decide("x"), r#"{"accepted":false,"reason":"signature_invalid","event_key":null}"#);
    }
}
