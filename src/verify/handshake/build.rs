//! From written handshakes to compiled ones, with the keys and parameters of the route's rule.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::condition::{Condition, Place, Secrets, Test};
use super::reply::{Body, Json, Piece, Proof, ProofKey, Template, Text};
use super::shape::Shape;
use super::{Handshake, Handshakes, HostPattern, Lacking, Policy, Show, Visit};
use crate::message::Method;
use crate::providers::{Pack, PackParam, ParamKind};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::verify::build::{Problems, encoding};
use crate::verify::build_scheme::{Algorithm, derive};
use crate::verify::locate::{Location, is_token};
use crate::verify::mac::MacKey;
use crate::verify::remote::Roots;
use crate::verify::spec::{ConditionSpec, HandshakeSpec, ProofSpec, ReplySpec, Rule, TestSpec, VerifySpec};
use crate::verify::{Resolver, SpecProblem, template};

/// Whose handshakes a route has.
#[derive(Clone, Copy, Debug)]
pub enum Written<'a> {
    /// Its pack's. Those that bring a secret to be shown are only there if the route asks for it.
    Pack { pack: &'a Pack, shows: bool },
    /// Its own.
    Own(&'a [HandshakeSpec]),
}

/// Compiles handshakes with what `rule`, the route's, gives: secrets and a pack's parameters. Problems of own
/// handshakes begin with their index; a pack's were found when the pack was read, so there are none. What is wrong
/// with the rule itself is not said again.
pub fn compile(
    written: Written<'_>,
    rule: &VerifySpec,
    policy: Policy,
    resolver: &dyn Resolver,
) -> Result<Handshakes, Vec<SpecProblem>> {
    let mut rules = Vec::new();
    collect(rule, &mut rules);
    let (specs, given) = match written {
        Written::Own(specs) => (specs, Given::own(&rules, resolver)),
        Written::Pack { pack, .. } => {
            rules.retain(|rule| names(rule, pack, resolver));
            (&pack.handshakes[..], Given::of_pack(pack, &rules, resolver))
        }
    };
    let hidden = matches!(written, Written::Pack { shows: false, .. }) && policy == Policy::Answer;
    let mut problems = Vec::new();
    let (mut list, mut lacking) = (Vec::new(), Vec::new());
    for (at, spec) in specs.iter().enumerate() {
        if hidden && spec.show.is_some() {
            continue;
        }
        let problems = &mut Problems::new(&mut problems);
        let problems = &mut problems.within(&[&at.to_string()]);
        given.lacked.take();
        given.of_sender.take();
        let compiled = handshake(spec, &given, policy, problems);
        list.extend(compiled.map(|one| Handshake { of_sender: given.of_sender.get(), ..one }));
        let settings = given.lacked.take();
        if !settings.is_empty() {
            lacking.push(self::lacking(spec, settings, &given, problems));
        }
    }
    if problems.is_empty() { Ok(Handshakes { list, lacking, policy }) } else { Err(problems) }
}

/// Checks a pack's handshakes by themselves, as if a user had given all that they ask for.
pub(in crate::verify) fn check_pack(pack: &Pack, resolver: &dyn Resolver, problems: &mut Problems<'_>) {
    let anything =
        || Secret::new(b"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff".to_vec());
    // Roots can't be anything.
    let others = pack.params.iter().filter(|(_, param)| param.kind != ParamKind::Roots);
    let params = others.map(|(name, _)| (name.as_str(), vec![anything()])).collect();
    let given = Given {
        known: Some(&pack.params),
        params,
        secrets: vec![anything()],
        resolver,
        lacked: RefCell::default(),
        of_sender: Cell::default(),
    };
    let problems = &mut problems.within(&["handshake"]);
    for (at, spec) in pack.handshakes.iter().enumerate() {
        handshake(spec, &given, Policy::Answer, &mut problems.within(&[&at.to_string()]));
    }
}

/// What is known of a greeting for which `settings` are missing.
fn lacking(
    spec: &HandshakeSpec,
    settings: Vec<String>,
    given: &Given<'_>,
    problems: &mut Problems<'_>,
) -> Lacking {
    let known = spec.when.iter().filter(|(_, test)| match test {
        ConditionSpec::Is(_) => true,
        ConditionSpec::Test(test) => test.param.is_none() && test.secret.is_none(),
    });
    let known = known.map(|(place, test)| (place.clone(), test.clone())).collect();
    let when = conditions(&known, "when", given, problems).unwrap_or_default();
    Lacking { methods: methods(spec, problems), when, settings }
}

/// What a handshake may use.
struct Given<'a> {
    /// The pack's parameters; `None` outside of packs.
    known: Option<&'a BTreeMap<String, PackParam>>,
    /// Those that the route gives.
    params: BTreeMap<&'a str, Vec<Secret>>,
    secrets: Vec<Secret>,
    resolver: &'a dyn Resolver,
    /// What was asked for and is not there, since this was last emptied.
    lacked: RefCell<Vec<String>>,
    /// Whether a secret was used that depends on who sends, since this was last emptied.
    of_sender: Cell<bool>,
}

fn collect<'r>(spec: &'r VerifySpec, into: &mut Vec<&'r Rule>) {
    let VerifySpec::Rule(rule) = spec else { return };
    into.push(rule);
    for inner in rule.any.iter().chain(&rule.all).flatten() {
        collect(inner, into);
    }
}

fn names(rule: &Rule, pack: &Pack, resolver: &dyn Resolver) -> bool {
    rule.provider
        .as_deref()
        .is_some_and(|name| resolver.pack(name).is_ok_and(|named| named.name == pack.name))
}

/// The providers of a rule of which greetings are known, where there are several kinds of them; then none is answered.
pub fn unanswered(rule: &VerifySpec, resolver: &dyn Resolver) -> Option<String> {
    let mut rules = Vec::new();
    collect(rule, &mut rules);
    let mut packs: Vec<Arc<Pack>> = Vec::new();
    for pack in rules.iter().filter_map(|rule| resolver.pack(rule.provider.as_deref()?).ok()) {
        if !packs.iter().any(|known| known.name == pack.name) {
            packs.push(pack);
        }
    }
    let greet = packs.iter().filter(|pack| pack.handshakes.iter().any(|spec| spec.show.is_none()));
    let names = greet.map(|pack| pack.title.as_str()).collect::<Vec<_>>().join(" and ");
    (packs.len() > 1 && !names.is_empty()).then_some(names)
}

fn secrets(rules: &[&Rule], resolver: &dyn Resolver) -> Vec<Secret> {
    let specs = rules.iter().flat_map(|rule| rule.secret.iter().chain(rule.secrets.iter().flatten()));
    specs.filter_map(|spec| resolver.secret(&spec.secret).ok()).collect()
}

impl<'a> Given<'a> {
    fn own(rules: &[&Rule], resolver: &'a dyn Resolver) -> Self {
        Self {
            known: None,
            params: BTreeMap::new(),
            secrets: secrets(rules, resolver),
            resolver,
            lacked: RefCell::default(),
            of_sender: Cell::default(),
        }
    }

    fn of_pack(pack: &'a Pack, rules: &[&Rule], resolver: &'a dyn Resolver) -> Self {
        let mut params = BTreeMap::new();
        for (name, param) in &pack.params {
            let given = rules.iter().filter_map(|rule| rule.params.get(name)).flat_map(|given| &given.0.0);
            let given: Vec<&String> = given.collect();
            let default = param.default.iter().flatten().filter(|_| given.is_empty());
            let texts = given.iter().copied().chain(default);
            let value = |text: &String| match param.kind {
                ParamKind::Text | ParamKind::Roots => {
                    resolver.text(text).ok().map(|text| Secret::new(text.into_bytes()))
                }
                ParamKind::Secret | ParamKind::Credential => resolver.secret(text).ok(),
            };
            let values: Vec<Secret> = texts.filter_map(value).filter(|v| !v.expose().is_empty()).collect();
            // `default: []` is a value, too: none, so that nothing is ever equal to it.
            let given_none = given.is_empty() && param.default.as_ref().is_some_and(Vec::is_empty);
            if !values.is_empty() || given_none {
                params.insert(name.as_str(), values);
            }
        }
        Self {
            known: Some(&pack.params),
            params,
            secrets: secrets(rules, resolver),
            resolver,
            lacked: RefCell::default(),
            of_sender: Cell::default(),
        }
    }

    /// The values of a parameter; `None` if it is not given, with a problem if there is none of that name.
    fn param(&self, name: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<&[Secret]> {
        match self.known {
            None => problems.note_help(
                at,
                format!("there is no parameter `{name}`: parameters are for packs"),
                "write `secret: env:NAME`",
            ),
            Some(known) if !known.contains_key(name) => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                problems.unknown(at, "parameter", name, &names)
            }
            Some(_) => {
                let values = self.params.get(name).map(Vec::as_slice);
                match values {
                    None => self.lacks(name),
                    Some(values) => values.iter().for_each(|value| self.uses(value)),
                }
                values
            }
        }
    }

    fn uses(&self, secret: &Secret) {
        if self.resolver.is_of_sender(secret) {
            self.of_sender.set(true);
        }
    }

    fn lacks(&self, name: &str) {
        let mut lacked = self.lacked.borrow_mut();
        if !lacked.iter().any(|known| known == name) {
            lacked.push(name.to_owned());
        }
    }

    /// A parameter as a text, where it has one value.
    fn text(&self, name: &str) -> Option<String> {
        match self.params.get(name)?.as_slice() {
            [only] => String::from_utf8(only.expose().to_vec()).ok(),
            _ => None,
        }
    }

    fn secret(&self, reference: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Secret> {
        if self.known.is_some() {
            return problems.note(at, "`secret` has no place in a pack: name a `param`");
        }
        match self.resolver.secret(reference) {
            Ok(secret) => {
                self.uses(&secret);
                Some(secret)
            }
            Err(message) => problems.note(at, message),
        }
    }
}

/// `None` with a problem noted, or where a parameter that it needs is not given.
fn handshake(
    spec: &HandshakeSpec,
    given: &Given<'_>,
    policy: Policy,
    problems: &mut Problems<'_>,
) -> Option<Handshake> {
    let methods = methods(spec, problems);
    let signed = spec.signed.unwrap_or(true);
    if spec.when.is_empty() && methods.contains(&Method::POST) {
        let help = "name at least one value that only greetings have: `{ \"body:/type\": url_verification }`";
        problems.note_help::<()>(&["when"], "every request would be a greeting", help);
    }
    let before = problems.count();
    let when = conditions(&spec.when, "when", given, problems);
    // What a greeting needs on purpose is not lacking where it is not there.
    let asked_for = needed(spec, given, problems);
    if !asked_for && problems.count() == before {
        given.lacked.take();
        return None;
    }
    let mut complete = when.is_some() && asked_for;
    let refuse = match spec.refuse {
        None | Some(403) => Reason::HandshakeRefused,
        Some(404) => Reason::HandshakeUnknown,
        Some(other) => {
            problems.note(&["refuse"], format!("a handshake is refused with 403 or 404, not with {other}"))?
        }
    };
    let visit = match &spec.visit {
        None => None,
        Some(visit) => {
            if !signed {
                problems.note::<()>(&["visit"], "only a URL that is signed may be visited");
            }
            let url = location(&visit.url, &["visit", "url"], problems)?;
            let mut hosts = Vec::new();
            for host in &visit.hosts.0 {
                match HostPattern::parse(host) {
                    Ok(host) => hosts.push(host),
                    Err(message) => problems.note(&["visit", "hosts"], message)?,
                }
            }
            let ca = match &visit.ca {
                None => None,
                Some(ca) => roots(ca, given, problems)?,
            };
            Some(Visit { url, hosts, ca })
        }
    };
    let show = match &spec.show {
        None => None,
        Some(place) => Some(Show { secret: location(place, &["show"], problems)?, shown: 0.into() }),
    };
    if policy == Policy::Forward {
        // The app proves and answers; here the greeting is only recognised.
        let reply = Template { status: 200, headers: Vec::new(), body: Body::None, proof: None };
        return complete.then(|| Handshake {
            methods,
            signed,
            when: when.unwrap_or_default(),
            must: Vec::new(),
            refuse,
            reply,
            show: None,
            visit: None,
            of_sender: false,
        });
    }
    let must = conditions(&spec.must, "must", given, problems);
    complete &= must.is_some();
    let reply = reply(spec, given, problems);
    complete &= reply.is_some();
    let proof = spec.answer.as_ref().and_then(|answer| answer.proof.as_ref());
    if let (Some(proof), false) = (proof, signed) {
        unshaped(spec, proof, problems);
    }
    if !complete || problems.count() > before {
        return None;
    }
    Some(Handshake {
        methods,
        signed,
        when: when?,
        must: must?,
        refuse,
        reply: reply?,
        show,
        visit,
        of_sender: false,
    })
}

/// Roots for a visit; `None` with a problem, `Some(None)` where the parameter that holds them is not given.
fn roots(reference: &str, given: &Given<'_>, problems: &mut Problems<'_>) -> Option<Option<Arc<str>>> {
    let at = ["visit", "ca"];
    let pem = match reference.strip_prefix("{param:").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => {
            let known = given.known.is_some_and(|known| known.contains_key(name));
            match given.params.get(name).and_then(|values| values.first()) {
                Some(pem) if known => String::from_utf8(pem.expose().to_vec()).unwrap_or_default(),
                _ if known => return Some(None),
                _ => return problems.note(&at, format!("there is no parameter `{name}`")),
            }
        }
        None => match given.resolver.text(reference) {
            Ok(pem) => pem,
            Err(message) => return problems.note(&at, message),
        },
    };
    match Roots::pinned(&pem) {
        Ok(_) => Some(Some(pem.into())),
        Err(message) => problems.note(&at, message),
    }
}

/// Whether the parameters in `needs` are given.
fn needed(spec: &HandshakeSpec, given: &Given<'_>, problems: &mut Problems<'_>) -> bool {
    let names = spec.needs.iter().flat_map(|names| &names.0);
    names.fold(true, |all, name| {
        let values = given.param(name, &["needs"], problems).unwrap_or_default();
        all && values.iter().any(|value| value.expose() != b"false")
    })
}

fn methods(spec: &HandshakeSpec, problems: &mut Problems<'_>) -> Vec<Method> {
    let Some(names) = &spec.methods else { return vec![Method::POST] };
    if names.0.is_empty() {
        problems.note::<()>(&["methods"], "the list is empty");
    }
    let mut methods = Vec::new();
    for name in &names.0 {
        match name.as_str() {
            "GET" => methods.push(Method::GET),
            "HEAD" => methods.push(Method::HEAD),
            "OPTIONS" => methods.push(Method::OPTIONS),
            "POST" => methods.push(Method::POST),
            other => {
                let known = ["GET", "HEAD", "OPTIONS", "POST"];
                problems.unknown(&["methods"], "method of a greeting", other, &known).unwrap_or_default()
            }
        }
    }
    methods
}

/// `None` with a problem, or where a parameter is not given.
fn conditions(
    specs: &BTreeMap<String, ConditionSpec>,
    key: &str,
    given: &Given<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Condition>> {
    let mut all = Some(Vec::new());
    for (place, spec) in specs {
        let at = [key, place.as_str()];
        let found = match Place::parse(place) {
            Ok(place) => Some(place),
            Err(message) => problems.note(&at, message),
        };
        let test = match spec {
            ConditionSpec::Is(texts) if texts.0.is_empty() => problems.note(&at, "the list is empty"),
            ConditionSpec::Is(texts) => Some(Asked::Test(Test::Is(texts.0.clone()))),
            ConditionSpec::Test(spec) => test(spec, given, &at, problems),
        };
        match (found, test) {
            (Some(_), Some(Asked::Nothing)) => {}
            (Some(place), Some(Asked::Test(test))) => {
                if let Some(list) = &mut all {
                    list.push(Condition { place, test });
                }
            }
            _ => all = None,
        }
    }
    all
}

/// What a condition comes to.
enum Asked {
    Test(Test),
    /// It is optional, and its parameter is not given.
    Nothing,
}

fn test(spec: &TestSpec, given: &Given<'_>, at: &[&str; 2], problems: &mut Problems<'_>) -> Option<Asked> {
    let within = |key: &'static str| [at[0], at[1], key];
    if spec.optional && spec.param.is_none() {
        problems.note::<()>(&within("optional"), "`optional` goes with `param`");
    }
    let test = match (spec.present, &spec.matches, &spec.param, &spec.secret) {
        (Some(true), None, None, None) => Test::Present,
        (Some(false), None, None, None) => Test::Absent,
        (None, Some(shape), None, None) => match Shape::parse(shape) {
            Ok(shape) => Test::Matches(shape),
            Err(message) => return problems.note(&within("matches"), message),
        },
        (None, None, Some(param), None) => match given.param(param, &within("param"), problems) {
            Some(values) => Test::Secret(Secrets::of(values)),
            None if spec.optional => return Some(Asked::Nothing),
            None => return None,
        },
        (None, None, None, Some(reference)) => {
            Test::Secret(Secrets::of([&given.secret(reference, &within("secret"), problems)?]))
        }
        _ => {
            let help = "such as `{ present: true }` or `{ matches: \"[a-f0-9]{20,32}\" }`";
            return problems.note_help(
                at,
                "a test is one of `present`, `matches`, `param` and `secret`",
                help,
            );
        }
    };
    Some(Asked::Test(test))
}

fn location(text: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Location> {
    match Location::parse(text) {
        Ok(location) => Some(location),
        Err(message) => problems.note(at, message),
    }
}

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

fn reply(spec: &HandshakeSpec, given: &Given<'_>, problems: &mut Problems<'_>) -> Option<Template> {
    let written = match (&spec.echo, &spec.answer) {
        (Some(_), Some(_)) => return problems.note(&["echo"], "give either `echo` or `answer`"),
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
        problems.note::<()>(&["status"], "a greeting is answered with a success, 200 to 299");
    }
    let mut headers = Some(Vec::new());
    for (name, value) in &written.headers {
        let lower = name.to_ascii_lowercase();
        if !is_token(name)
            || NOT_OURS.contains(&lower.as_str())
            || lower.starts_with(crate::message::OUR_PREFIX)
        {
            problems.note::<()>(&["headers", name], format!("`{name}` can't be set here"));
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
        (None, true) => {
            problems.note::<()>(&["proof"], "`{proof}` is sent, but `proof` does not say what it is")
        }
        (Some(_), false) => {
            problems.note::<()>(&["proof"], "`proof` is computed, but `{proof}` is sent nowhere")
        }
        _ => None,
    };
    if status == 204 && !matches!(body, Body::None) {
        problems.note::<()>(&["status"], "an answer 204 has no body");
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
        (Some(_), Some(_)) => return problems.note(&["body"], "give either `body` or `json`"),
        (None, None) => {
            if written.content_type.is_some() {
                problems.note::<()>(&["content_type"], "there is no body that it could be the type of");
            }
            return Some(Body::None);
        }
        (Some(body), None) => {
            let (content_type, text) = (kind("text/plain"), text(body, given, &["body"], problems)?);
            // What a stranger sends must never come back as something that a browser runs.
            let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            if !text.is_fixed() && !matches!(essence.as_str(), "text/plain" | "application/json") {
                problems.note::<()>(
                    &["content_type"],
                    "values of the request are sent back as `text/plain` or `application/json` only",
                );
            }
            if !text.is_fixed() && essence == "application/json" {
                problems.note_help::<()>(
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
            problems.note(&["content_type"], "this is not a content type")
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
fn text(written: &str, given: &Given<'_>, at: &[&str], problems: &mut Problems<'_>) -> Option<Text> {
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
            return problems
                .note(at, format!("`{}` is not closed; a literal brace is written twice", &tail[..1]));
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
        Err(message) => problems.note(&["signed"], message),
    };
    if signed.as_ref().is_some_and(|t| t.uses_timestamp() || t.uses_id()) {
        problems.note::<()>(&["signed"], "a greeting has no `{timestamp}` and no `{id}`: name the place");
    }
    let secret = match (&spec.param, &spec.secret) {
        (Some(_), Some(_)) => problems.note(&["param"], "give either `param` or `secret`"),
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
            None => problems.note(&["secret"], "the route's rule has no secret that could prove anything"),
        },
    };
    let secret = secret.and_then(|secret| derive(&secret, spec.key.as_ref(), &["key"], problems));
    let uses_secret = signed.as_ref().is_some_and(template::Template::uses_secret);
    let key = match (Algorithm::parse(&spec.algorithm), secret) {
        (Some(Algorithm::Hmac(_)), _) if uses_secret => {
            problems.note(&["signed"], "`{secret}` belongs only into plain digests (`sha1`, `sha256`)")
        }
        (Some(Algorithm::Digest(_)), _) if !uses_secret => {
            problems.note(&["signed"], "a plain digest proves nothing without `{secret}` in what is signed")
        }
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
/// shape that the handshake states.
fn unshaped(spec: &HandshakeSpec, proof: &ProofSpec, problems: &mut Problems<'_>) {
    let Ok(signed) = template::Template::parse(&proof.signed, &|_| Some(String::new())) else { return };
    let is_shaped = |location: &Location| {
        spec.when.iter().any(|(place, test)| {
            let shaped = matches!(test, ConditionSpec::Test(test) if test.matches.is_some());
            shaped && Location::parse(place).as_ref() == Ok(location)
        })
    };
    if signed.is_chosen_by_sender() || !signed.locations().all(is_shaped) {
        problems.note_help::<()>(
            &["answer", "proof", "signed"],
            "anybody could have anything signed: the greeting itself is not",
            "sign only places for which `when` has a `matches`",
        );
    }
}
