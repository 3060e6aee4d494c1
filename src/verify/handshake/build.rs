//! From written handshakes to compiled ones, with the keys and parameters of the route's rule.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::build_conditions::{conditions, location};
use super::build_reply::{is_unshaped, reply, text};
use super::reply::{Body, Template, Text};
use super::{Handshake, Handshakes, Lacking, Policy, Show, Visit, Warn, oracle};
use crate::message::Method;
use crate::providers::{Pack, PackParam, ParamKind};
use crate::reason::Reason;
use crate::secret::Secret;
use crate::verify::build::Problems;
use crate::verify::host::HostPattern;
use crate::verify::remote::Roots;
use crate::verify::spec::{ConditionSpec, HandshakeSpec, Rule, VerifySpec};
use crate::verify::{Resolver, SpecProblem};

/// Whose handshakes a route has.
#[derive(Clone, Copy, Debug)]
pub enum Written<'a> {
    /// Its pack's. Those that bring a secret to be shown are only there if the route asks for it.
    Pack { pack: &'a Pack, shows: bool },
    /// Its own.
    Own(&'a [HandshakeSpec]),
}

/// [`Written`], kept for those whose secrets come later.
#[derive(Clone, Debug)]
pub enum Kept {
    Pack { pack: Arc<Pack>, shows: bool },
    Own(Vec<HandshakeSpec>),
}

impl Kept {
    pub fn written(&self) -> Written<'_> {
        match self {
            Kept::Pack { pack, shows } => Written::Pack { pack, shows: *shows },
            Kept::Own(specs) => Written::Own(specs),
        }
    }
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
    let signable = resolver.signable();
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
        list.extend(compiled.map(|one| Handshake { of_sender: given.of_sender.get(), at, ..one }));
        if matches!(written, Written::Own(_)) {
            // A pack's are noted with its rule.
            oracle::note(spec, &given, &signable);
        }
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
pub(super) struct Given<'a> {
    /// The pack's parameters; `None` outside of packs.
    pub(super) known: Option<&'a BTreeMap<String, PackParam>>,
    /// Those that the route gives.
    pub(super) params: BTreeMap<&'a str, Vec<Secret>>,
    pub(super) secrets: Vec<Secret>,
    pub(super) resolver: &'a dyn Resolver,
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

    pub(super) fn of_pack(pack: &'a Pack, rules: &[&Rule], resolver: &'a dyn Resolver) -> Self {
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
    pub(super) fn param(&self, name: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<&[Secret]> {
        match self.known {
            None => problems.note(
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

    /// The same; without an optional one the greeting works as well.
    pub(super) fn asked(
        &self,
        name: &str,
        optional: bool,
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<&[Secret]> {
        let lacked = self.lacked.borrow().len();
        let values = self.param(name, at, problems);
        if optional {
            self.lacked.borrow_mut().truncate(lacked);
        }
        values
    }

    pub(super) fn uses(&self, secret: &Secret) {
        if self.resolver.is_of_sender(secret) {
            self.of_sender.set(true);
        }
    }

    /// Which parameters there are, for who wrote one that is none.
    pub(super) fn params_help(&self) -> String {
        let names: Vec<&str> =
            self.known.into_iter().flat_map(|known| known.keys()).map(String::as_str).collect();
        match names.as_slice() {
            [] => "parameters are for packs, which name theirs under `params`".to_owned(),
            some => format!("with one value there may be: {}", some.join(", ")),
        }
    }

    pub(super) fn lacks(&self, name: &str) {
        let mut lacked = self.lacked.borrow_mut();
        if !lacked.iter().any(|known| known == name) {
            lacked.push(name.to_owned());
        }
    }

    /// A parameter as a text, where it has one value.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.params.get(name)?.as_slice() {
            [only] => String::from_utf8(only.expose().to_vec()).ok(),
            _ => None,
        }
    }

    pub(super) fn secret(&self, reference: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<Secret> {
        if self.known.is_some() {
            return problems.note(
                at,
                "`secret` has no place in a pack: name a `param`",
                "such as `param: verify_token`, with `params: { verify_token: { as: credential, … } }`",
            );
        }
        match self.resolver.secret(reference) {
            Ok(secret) => {
                self.uses(&secret);
                Some(secret)
            }
            Err(message) => problems.note(at, message, crate::verify::REFERENCE_HELP),
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
        problems.note::<()>(&["when"], "every request would be a greeting", help);
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
        Some(other) => problems.note(
            &["refuse"],
            format!("a handshake is refused with 403 or 404, not with {other}"),
            "403 is the default",
        )?,
    };
    let visit = match &spec.visit {
        None => None,
        Some(visit) => {
            if !signed {
                problems.note::<()>(
                    &["visit"],
                    "only a URL that is signed may be visited",
                    "remove `signed: false`: anyone could have the gateway fetch what he likes",
                );
            }
            let url = location(&visit.url, &["visit", "url"], problems)?;
            let mut hosts = Vec::new();
            for host in &visit.hosts.0 {
                match HostPattern::parse(host) {
                    Ok(host) => hosts.push(host),
                    Err(message) => {
                        problems.note(&["visit", "hosts"], message, "such as `sns.*.amazonaws.com`")?
                    }
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
            on_trust: false,
            show: None,
            visit: None,
            warn: None,
            of_sender: false,
            at: 0,
        });
    }
    let warn = match &spec.warn {
        None => None,
        Some(written) => {
            let text = text(written, given, &["warn"], problems);
            if text.as_ref().is_some_and(Text::uses_proof) {
                let help = "remove it: a proof is only for the sender";
                problems.note::<()>(&["warn"], "`{proof}` has no place in a log", help);
            }
            complete &= text.is_some();
            text.map(|text| Warn { text, said: 0.into() })
        }
    };
    let must = conditions(&spec.must, "must", given, problems);
    complete &= must.is_some();
    let reply = reply(spec, given, problems);
    complete &= reply.is_some();
    let proof = spec.answer.as_ref().and_then(|answer| answer.proof.as_ref());
    // Of what its sender signs a route can tell whether it covers what is signed in return; a pack does not know its route.
    let on_trust = proof.is_some_and(|proof| is_unshaped(spec, proof));
    if on_trust && (!signed || given.known.is_some()) {
        problems.note::<()>(
            &["answer", "proof", "signed"],
            "anybody could have anything signed: the greeting itself is not",
            "sign only places for which `when` or `must` has a `matches`",
        );
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
        on_trust,
        show,
        visit,
        warn,
        of_sender: false,
        at: 0,
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
                _ => {
                    return problems.note(
                        &at,
                        format!("there is no parameter `{name}`"),
                        given.params_help(),
                    );
                }
            }
        }
        None => match given.resolver.text(reference) {
            Ok(pem) => pem,
            Err(message) => return problems.note(&at, message, crate::verify::REFERENCE_HELP),
        },
    };
    match Roots::pinned(&pem) {
        Ok(_) => Some(Some(pem.into())),
        Err(message) => problems.note(&at, message, "certificates in PEM, such as `file:roots.pem`"),
    }
}

/// Whether the parameters in `needs` are given.
fn needed(spec: &HandshakeSpec, given: &Given<'_>, problems: &mut Problems<'_>) -> bool {
    let names = spec.needs.iter().flat_map(|names| &names.0);
    names.fold(true, |all, name| {
        let values = given.param(name, &["needs"], problems).unwrap_or_default();
        all && values.iter().any(|value| !value.is(b"false"))
    })
}

fn methods(spec: &HandshakeSpec, problems: &mut Problems<'_>) -> Vec<Method> {
    let Some(names) = &spec.methods else { return vec![Method::POST] };
    if names.0.is_empty() {
        problems.note::<()>(
            &["methods"],
            "the list is empty",
            "such as `[GET]`; or leave the key out for POST",
        );
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
