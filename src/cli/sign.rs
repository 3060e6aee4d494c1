//! `tidegate sign`: the headers of a signed test event. Also what `send` shares with it: keys from the command line,
//! and events from a pack's samples or from a file.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::captured::split_url;
use super::check::Output;
use super::failure::{Failure, exit};
use super::output::print;
use crate::clock::{Clock, Timestamp};
use crate::message::{Head, Headers, Method, PathParams, Request, Version};
use crate::providers::{self, Pack, TestEvent};
use crate::secret::Secret;
use crate::verify::{KeySource, NoKeys, PrivateKey, Remote, Resolver, Verifier, VerifySpec, compile};

/// Print the signed headers of a test event
///
/// With `--output json` as a line that `tidegate verify` reads.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Examples:
  tidegate sign github --secret env:GITHUB_WEBHOOK_SECRET
  tidegate sign stripe charge.refunded --secret file:secrets/stripe --url https://localhost:8443/hooks/stripe --curl | sh
  tidegate sign standard-webhooks --secret env:SECRET --body event.json")]
pub struct Sign {
    /// The provider: a built-in name, or the path of a pack file
    #[arg(value_name = "PROVIDER", required_unless_present = "provider_flag")]
    provider: Option<String>,
    /// Which of the pack's test events it is like [default: its usual one]
    #[arg(value_name = "EVENT")]
    event: Option<String>,
    /// The same as PROVIDER
    #[arg(
        id = "provider_flag",
        long = "provider",
        value_name = "PROVIDER",
        hide = true,
        conflicts_with = "provider"
    )]
    provider_flag: Option<String>,
    /// The same as EVENT
    #[arg(
        id = "event_flag",
        long = "event-type",
        value_name = "EVENT",
        hide = true,
        conflicts_with = "event"
    )]
    event_flag: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
    /// The body: a file, or `-` for standard input [default: the pack's own test event, printed behind the headers]
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The URL that the event goes to, for schemes that sign it
    #[arg(long, value_name = "URL", default_value = "https://localhost/")]
    url: String,
    /// The time of signing, in Unix seconds [default: now]
    #[arg(long, value_name = "UNIX_SECONDS")]
    now: Option<u64>,
    /// Print a curl command instead of the headers (its body is the one that was signed)
    #[arg(long, conflicts_with = "output")]
    curl: bool,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
}

/// The keys of a rule.
#[derive(clap::Args, Debug)]
pub(super) struct KeyArgs {
    /// The secret: `env:NAME`, `file:PATH` or the text itself; may be given several times, the first one signs
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// The public key, for schemes that have one: `env:NAME`, `file:PATH` or the text itself
    #[arg(long, value_name = "KEY")]
    public_key: Vec<String>,
    /// The private key that belongs to it (PKCS#8 in PEM)
    #[arg(long, value_name = "FILE")]
    private_key: Option<PathBuf>,
    /// A parameter of the pack, as NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
}

impl Sign {
    pub fn run(self) -> ExitCode {
        let text = self.text().map_err(Failure::Usage);
        exit(text.and_then(|text| print(&format!("{text}\n"))).map(|()| ExitCode::SUCCESS))
    }

    fn text(&self) -> Result<String, String> {
        let provider = self.provider.as_ref().or(self.provider_flag.as_ref()).ok_or("which provider?")?;
        let event = self.event.as_ref().or(self.event_flag.as_ref());
        let sender = Sender::new(provider, &self.keys)?;
        let now = self.now.map_or_else(|| Clock::System.now(), Timestamp::from_secs);
        let body = self.body.as_deref().map(read_body).transpose()?;
        let signed = sender.event(event.map(String::as_str), body, &self.url, now)?;
        Ok(match (self.curl, self.output) {
            (true, _) => curl(&self.url, &signed),
            (false, Output::Json) => line(&self.url, &signed).to_string(),
            (false, Output::Text) => {
                let mut text: String =
                    signed.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
                if self.body.is_none() {
                    // Nobody else knows the body that was signed.
                    text.push_str(&format!("\n{}\n", String::from_utf8_lossy(&signed.body)));
                }
                text.trim_end_matches('\n').to_owned()
            }
        })
    }
}

/// What of the command line a place within the rule comes from.
fn flag_of(at: &[String], params: &[String]) -> String {
    match at.first().map(String::as_str) {
        Some("secret" | "secrets") => "--secret".to_owned(),
        Some("public_keys") => "--public-key".to_owned(),
        Some(name) if params.iter().any(|p| p.split('=').next() == Some(name)) => format!("--param {name}"),
        Some(name) => name.to_owned(),
        None => "provider".to_owned(),
    }
}

/// A provider that signs events as the command line says.
pub(super) struct Sender {
    pack: Arc<Pack>,
    verifier: Verifier,
    private_key: Option<PrivateKey>,
}

impl Sender {
    pub(super) fn new(provider: &str, keys: &KeyArgs) -> Result<Self, String> {
        let mut rule = Map::new();
        rule.insert("provider".to_owned(), json!(provider));
        for (key, values) in [("secrets", &keys.secret), ("public_keys", &keys.public_key)] {
            if !values.is_empty() {
                rule.insert(key.to_owned(), json!(values));
            }
        }
        for param in &keys.param {
            let (name, value) =
                param.split_once('=').ok_or_else(|| format!("`{param}` is not NAME=VALUE"))?;
            rule.insert(name.to_owned(), json!(value));
        }
        let spec: VerifySpec =
            serde_json::from_value(Value::Object(rule)).map_err(|error| error.to_string())?;
        let compiled = compile(&spec, &FromArguments).map_err(|problems| {
            let lines = problems.iter().map(|problem| {
                let flag = flag_of(&problem.at, &keys.param);
                // The help is for people who write a config.
                match &problem.help {
                    Some(help) if !help.contains("env:NAME") => {
                        format!("{flag}: {} ({help})", problem.message)
                    }
                    _ => format!("{flag}: {}", problem.message),
                }
            });
            lines.collect::<Vec<_>>().join("\n")
        })?;
        let private_key = match &keys.private_key {
            Some(path) => Some(PrivateKey::from_pem(&read_text(path)?)?),
            None => None,
        };
        let pack = compiled.pack.ok_or_else(|| format!("`{provider}` is no provider"))?;
        Ok(Self { pack, verifier: compiled.verifier, private_key })
    }

    /// A signed event: the pack's own with a fresh id, or with the given body.
    pub(super) fn event(
        &self,
        event: Option<&str>,
        body: Option<Vec<u8>>,
        url: &str,
        now: Timestamp,
    ) -> Result<TestEvent, String> {
        let samples = &self.pack.samples;
        let sample = match event {
            Some(event) => Some(samples.iter().find(|sample| sample.event == event).ok_or_else(|| {
                let known: Vec<&str> = samples.iter().map(|sample| sample.event.as_str()).collect();
                format!("{} has no test event `{event}`; known are {}", self.pack.name, known.join(", "))
            })?),
            None => samples.first(),
        };
        let mut event = match (sample, &body) {
            (Some(sample), _) => sample.event(now),
            (None, Some(_)) => TestEvent { headers: Vec::new(), body: Vec::new() },
            (None, None) => return Err(format!("{} has no test event: give a --body", self.pack.name)),
        };
        if let Some(body) = body {
            event.body = body;
        }
        let (scheme, authority, target) = split_url(url)?;
        let client = IpAddr::from([127, 0, 0, 1]);
        let headers: Headers = event.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let head = Head {
            method: Method::POST,
            target: target.to_owned(),
            authority: authority.to_owned(),
            asked_authority: None,
            scheme,
            version: Version::Http11,
            headers,
            peer: (client, 0).into(),
            client,
            local: (client, 0).into(),
            received_at: now,
        };
        let request = Request { head, params: PathParams::default(), body: event.body.clone().into() };
        let signature = self
            .verifier
            .sign(&request, None, now, self.private_key.as_ref())
            .map_err(|error| format!("{} can't be signed: {error}", self.pack.name))?;
        event.headers.extend(signature);
        Ok(event)
    }
}

/// The body in a file, or on standard input.
pub(super) fn read_body(path: &Path) -> Result<Vec<u8>, String> {
    if path.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body).map_err(|error| format!("standard input: {error}"))?;
        return Ok(body);
    }
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The event as `tidegate verify` reads it.
fn line(url: &str, event: &TestEvent) -> Value {
    json!({
        "method": "POST",
        "url": url,
        "headers": event.headers,
        "body_base64": STANDARD.encode(&event.body),
    })
}

/// A command that any POSIX shell sends the event with.
fn curl(url: &str, event: &TestEvent) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = format!("curl --request POST {}", quoted(url));
    for (name, value) in &event.headers {
        command.push_str(&format!(" \\\n  --header {}", quoted(&format!("{name}: {value}"))));
    }
    match std::str::from_utf8(&event.body) {
        Ok(body) if !body.starts_with('@') && !body.contains('\0') => {
            command.push_str(&format!(" \\\n  --data-binary {}", quoted(body)));
        }
        _ => command
            .push_str(" \\\n  --data-binary @BODY # the body is not plain text: put it into the file BODY"),
    }
    command
}

/// Secrets and texts given on the command line.
struct FromArguments;

impl FromArguments {
    fn get(reference: &str) -> Result<String, String> {
        let text = if let Some(name) = reference.strip_prefix("env:") {
            std::env::var(name).map_err(|_| format!("the variable `{name}` is not set"))?
        } else if let Some(path) = reference.strip_prefix("file:") {
            let text = read_text(Path::new(path))?;
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        } else {
            reference.to_owned()
        };
        if text.is_empty() { Err(format!("`{reference}` is empty")) } else { Ok(text) }
    }
}

impl Resolver for FromArguments {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        Self::get(reference).map(|text| Secret::new(text.into_bytes()))
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        Self::get(reference)
    }
    fn keys(&self, _: Remote) -> Result<Arc<dyn KeySource>, String> {
        // Nothing is fetched to sign: a private key takes the fetched ones' place.
        Ok(Arc::new(NoKeys))
    }
    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        if name.ends_with(".yaml") || name.ends_with(".yml") || name.contains('/') {
            providers::load(Path::new(name))
        } else {
            providers::find(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secret: &str) -> KeyArgs {
        KeyArgs {
            secret: vec![secret.to_owned()],
            public_key: Vec::new(),
            private_key: None,
            param: Vec::new(),
        }
    }

    #[test]
    fn each_pack_signs_each_of_its_test_events() {
        for name in providers::names() {
            let sender = Sender::new(name, &keys("c2VjcmV0c2VjcmV0c2VjcmV0"))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            for sample in &sender.pack.samples {
                let event =
                    sender.event(Some(&sample.event), None, "https://h.example/in", Timestamp::from_secs(17));
                let event = event.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(event.headers.len() > sample.headers.len(), "{name} {}", sample.event);
            }
        }
    }

    #[test]
    fn the_headers_of_a_body_are_the_documented_ones() {
        let sender = Sender::new("github", &keys("It's a Secret to Everybody")).unwrap();
        let event = sender.event(None, Some(b"Hello, World!".to_vec()), "https://h/", Timestamp(0)).unwrap();
        let signature = event.headers.iter().find(|(name, _)| name == "x-hub-signature-256").unwrap();
        assert_eq!(signature.1, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    }

    #[test]
    fn a_curl_command_keeps_quotes_in_place() {
        let event = TestEvent { headers: vec![("X".into(), "it's".into())], body: b"a'b".to_vec() };
        assert_eq!(
            curl("https://h/", &event),
            "curl --request POST 'https://h/' \\\n  --header 'X: it'\\''s' \\\n  --data-binary 'a'\\''b'"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(Sender::new("githup", &keys("x")).err().unwrap().contains("did you mean `github`"));
        assert!(
            Sender::new("github", &keys("env:TIDEGATE_TEST_NOT_SET")).err().unwrap().contains("is not set")
        );
        let sender = Sender::new("github", &keys("x")).unwrap();
        let error = sender.event(Some("pusch"), None, "https://h/", Timestamp(0)).unwrap_err();
        assert!(error.contains("known are push, ping"), "{error}");
    }
}
