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
use crate::config::load_pack;
use crate::message::{Head, Headers, Method, PathParams, Request, Version};
use crate::providers::{self, Pack, Sample, TestEvent};
use crate::secret::Secret;
use crate::verify::{
    KeySource, NoKeys, PrivateKey, Remote, Resolver, SignError, Verifier, VerifySpec, compile,
};

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
    /// The body: a file, or `-` for standard input; where the signature stands in the body, `${signature}` holds its place
    /// [default: the pack's own test event, printed behind the headers]
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
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyArgs {
    /// The secret: `env:NAME`, `file:PATH` or the text itself; may be given several times, the first one signs
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// The public key, for schemes that have one: `env:NAME`, `file:PATH` or the text itself
    #[arg(long, value_name = "KEY")]
    public_key: Vec<String>,
    /// The private key that belongs to it (PKCS#8 in PEM); alone it is enough to sign
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
        let signed = sender.event(event.map(String::as_str), body.clone(), &self.url, now)?;
        Ok(match (self.curl, self.output) {
            (true, _) => curl(&signed),
            (false, Output::Json) => line(&signed).to_string(),
            (false, Output::Text) => {
                if signed.url != self.url {
                    eprintln!("tidegate: its proof stands in the query: send it to {}", signed.url);
                }
                let mut text: String =
                    signed.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
                if body.is_none_or(|body| body != signed.body) {
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

const PRIVATE_KEY_HELP: &str = "its sender signs with a private key: give --private-key FILE, PKCS#8 in PEM, such as \
     `openssl genpkey` makes, and the route its public key";

/// A signed event, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignedEvent {
    /// As it was given, or with what proves the sender in its query.
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// A provider that signs events as the command line says.
pub(super) struct Sender {
    /// The pack's test events.
    samples: Vec<Sample>,
    pack: Arc<Pack>,
    verifier: Verifier,
    private_key: Option<PrivateKey>,
}

impl Sender {
    pub(super) fn new(provider: &str, keys: &KeyArgs) -> Result<Self, String> {
        let private_key = match &keys.private_key {
            Some(path) => Some(PrivateKey::from_pem(&read_text(path)?)?),
            None => None,
        };
        let own =
            private_key.as_ref().filter(|_| keys.public_key.is_empty()).and_then(PrivateKey::public_key);
        let public_keys: Vec<&String> = keys.public_key.iter().chain(&own).collect();
        let mut rule = Map::new();
        rule.insert("provider".to_owned(), json!(provider));
        if !keys.secret.is_empty() {
            rule.insert("secrets".to_owned(), json!(keys.secret));
        }
        if !public_keys.is_empty() {
            rule.insert("public_keys".to_owned(), json!(public_keys));
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
                    Some(help) if help.starts_with("such as `public_keys") => {
                        format!("{flag}: {} ({PRIVATE_KEY_HELP})", problem.message)
                    }
                    Some(help) if !help.contains("env:NAME") => {
                        format!("{flag}: {} ({help})", problem.message)
                    }
                    _ => format!("{flag}: {}", problem.message),
                }
            });
            lines.collect::<Vec<_>>().join("\n")
        })?;
        let pack = compiled.pack.ok_or_else(|| format!("`{provider}` is no provider"))?;
        Ok(Self { samples: pack.guide().samples, pack, verifier: compiled.verifier, private_key })
    }

    /// A signed event: the pack's own with a fresh id, or with the given body.
    pub(super) fn event(
        &self,
        event: Option<&str>,
        body: Option<Vec<u8>>,
        url: &str,
        now: Timestamp,
    ) -> Result<SignedEvent, String> {
        let samples = &self.samples;
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
        let draft = Request { head, params: PathParams::default(), body: event.body.into() };
        let signed = self.verifier.sign(&draft, None, now, self.private_key.as_ref()).map_err(|error| {
            let name = &self.pack.name;
            match error {
                SignError::NoPrivateKey => format!("{name} can't be signed: {error} ({PRIVATE_KEY_HELP})"),
                _ => format!("{name} can't be signed: {error}"),
            }
        })?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok(SignedEvent {
            url: match signed.head.target == target {
                true => url.to_owned(),
                false => format!("{}://{authority}{}", scheme.as_str(), signed.head.target),
            },
            headers: signed.head.headers.iter().map(|(n, v)| (n.to_owned(), text(v))).collect(),
            body: signed.body.to_vec(),
        })
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
fn line(event: &SignedEvent) -> Value {
    json!({
        "method": "POST",
        "url": event.url,
        "headers": event.headers,
        "body_base64": STANDARD.encode(&event.body),
    })
}

/// A command that any POSIX shell sends the event with.
fn curl(event: &SignedEvent) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut command = format!("curl --request POST {}", quoted(&event.url));
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

/// A text given on the command line: `env:NAME`, `file:PATH`, or itself.
pub(super) fn argument(reference: &str) -> Result<String, String> {
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

/// Secrets and texts given on the command line.
struct FromArguments;

impl Resolver for FromArguments {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        argument(reference).map(|text| Secret::new(text.into_bytes()))
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        argument(reference)
    }
    fn keys(&self, _: Remote) -> Result<Arc<dyn KeySource>, String> {
        // Nothing is fetched to sign: a private key takes the fetched ones' place.
        Ok(Arc::new(NoKeys))
    }
    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        if name.ends_with(".yaml") || name.ends_with(".yml") || name.contains('/') {
            load_pack(Path::new(name)).map_err(|problems| problems.to_string())
        } else {
            providers::find(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::captured::Captured;
    use super::*;
    use crate::providers::ParamKind;

    fn keys(secret: &str) -> KeyArgs {
        KeyArgs { secret: vec![secret.to_owned()], ..KeyArgs::default() }
    }

    /// Packs whose proof nobody but the provider can make, and why.
    const ONLY_THE_PROVIDER: &[(&str, &str)] = &[
        ("app-store", "a certificate in the token leads to Apple's root"),
        ("aws-sns", "the certificate is fetched from the provider"),
        ("azure-event-grid-entra", "the keys are fetched from the provider"),
        ("google-play", "the keys are fetched from the provider"),
        ("google-pubsub", "the keys are fetched from the provider"),
        ("plaid", "the keys are fetched from the provider"),
        ("travis-ci", "signs with SHA-1, with which nothing is signed any more"),
    ];

    /// Right as text, as hex and as base64, and long enough for HS512.
    const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    /// Keys that suit each way of a pack, and the folder that its private keys are in.
    fn suitable(pack: &Pack, folder: &Path) -> Vec<KeyArgs> {
        // An algorithm is no free text.
        let value =
            |name: &str| if name == "algorithms" { "hmac-sha256".into() } else { format!("value-of-{name}") };
        let needed = pack.params.iter().filter(|(name, param)| param.required || *name == "algorithms");
        let param = needed.map(|(name, _)| format!("{name}={}", value(name)));
        let base = KeyArgs { param: param.collect(), ..KeyArgs::default() };
        let with_secret = || KeyArgs { secret: vec![SECRET.to_owned()], ..base.clone() };
        let mut all: Vec<KeyArgs> = Vec::new();
        for way in &pack.verify {
            let keys = match way.inline.algorithm.as_deref().and_then(|name| name.split('-').next()) {
                Some(kind @ ("ed25519" | "ecdsa" | "rsa")) => {
                    let pem = match kind {
                        "ed25519" => {
                            rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem()
                        }
                        "ecdsa" => rcgen::KeyPair::generate().unwrap().serialize_pem(),
                        // Ring makes no RSA keys. This one is for tests only.
                        _ => include_str!("../verify/tests/rsa-2048.pem").to_owned(),
                    };
                    let path = folder.join(kind);
                    std::fs::write(&path, pem).unwrap();
                    KeyArgs { private_key: Some(path), ..base.clone() }
                }
                _ if pack.params.values().any(|param| param.kind == ParamKind::Secret) => base.clone(),
                _ => with_secret(),
            };
            if !all.contains(&keys) {
                all.push(keys);
            }
        }
        all
    }

    #[test]
    fn each_pack_signs_each_of_its_test_events() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_764_000_000);
        let mut wrong = Vec::new();
        for name in providers::names() {
            let pack = providers::find(name).unwrap();
            let impossible = ONLY_THE_PROVIDER.iter().any(|(known, _)| *known == name);
            for keys in suitable(&pack, folder.path()) {
                let sender = match Sender::new(name, &keys) {
                    Ok(sender) => sender,
                    Err(_) if impossible => continue,
                    Err(error) => {
                        wrong.push(format!("{name}: {error}"));
                        continue;
                    }
                };
                for Sample { event, .. } in &pack.guide().samples {
                    let signed = sender.event(Some(event), None, "https://h.example/in", now);
                    let proved = signed.and_then(|signed| {
                        let line = line(&signed).to_string().parse::<Captured>().unwrap();
                        let request = line.request(now).unwrap();
                        let verified = sender.verifier.verify(request, None, now);
                        verified.map(drop).map_err(|(_, refusal)| refusal.to_string())
                    });
                    match (proved, impossible) {
                        (Ok(()), false) | (Err(_), true) => {}
                        (Ok(()), true) => {
                            wrong.push(format!("{name} {event}: anybody can sign it after all"))
                        }
                        (Err(error), false) => wrong.push(format!("{name} {event}: {error}")),
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn who_has_no_private_key_is_told_so() {
        for keys in [
            KeyArgs::default(),
            KeyArgs {
                public_key: vec!["12b611edf90059d91a162c78f71679d9f0031a7f821656e38060e4177cc3f7d2".into()],
                ..KeyArgs::default()
            },
        ] {
            let signed = Sender::new("discord", &keys)
                .and_then(|sender| sender.event(None, None, "https://h/", Timestamp(0)));
            let error = signed.unwrap_err();
            assert!(error.contains("give --private-key FILE"), "{error}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_part_of_the_url() {
        let sender = Sender::new("activecampaign", &keys("a&b")).unwrap();
        let signed = |url| sender.event(None, None, url, Timestamp(0)).unwrap().url;
        assert_eq!(signed("https://h/in"), "https://h/in?token=a%26b");
        assert_eq!(signed("https://h/in?x=1"), "https://h/in?x=1&token=a%26b");
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
        let event = SignedEvent {
            url: "https://h/".into(),
            headers: vec![("X".into(), "it's".into())],
            body: b"a'b".to_vec(),
        };
        assert_eq!(
            curl(&event),
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
