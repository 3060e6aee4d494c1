//! A compiled rule: what proves a sender, or several of it.

use std::sync::Arc;

use super::credentials::Credentials;
use super::extract::Extract;
use super::http_signature::HttpSignature;
use super::jwt::Jwt;
use super::locate::{Location, View};
use super::refusal::{Refusal, at};
use super::scheme::{Keys, Scheme, TimeRule};
use super::sign::{PrivateKey, SignError};
use super::signatures::TimeFrom;
use super::{CredentialPlaces, OpenBorder};
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;

/// A rule and what it is called in logs and in what the app is told.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) by: Arc<str>,
    pub(super) how: How,
    /// What the user calls it among the rules of an `any`.
    pub(super) name: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) enum How {
    /// `none`: nothing is proved, on purpose.
    Open,
    Scheme(Box<Scheme>),
    Jwt(Box<Jwt>),
    HttpSignature(Box<HttpSignature>),
    Credentials(Credentials),
    /// Ways in which one provider signs: one must hold, and what the others read must not say something else.
    Ways(Vec<Check>),
    Any(Vec<Check>),
    All(Vec<Check>),
}

/// What proved a request.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) by: Arc<str>,
    pub(super) label: Option<Arc<str>>,
    /// Which of several rules (`any`) it was, where there are several, and who of several that one rule tells apart.
    pub(super) way: Option<Arc<str>>,
}

/// How much of a value is the sender's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    /// Nobody without the key can change it in a genuine request.
    Signed,
    /// Nothing is signed: whoever holds a genuine request holds the credential, and could send anything anyway.
    Unsigned,
    /// It is not among what is signed.
    No,
}

impl Check {
    pub(super) fn new(by: impl Into<Arc<str>>, how: How) -> Self {
        Self { by: by.into(), how, name: None }
    }

    pub(super) fn run(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Proof, Refusal> {
        let mut way = None;
        let label = match &self.how {
            How::Open => None,
            How::Scheme(scheme) => scheme.check(request, public_url, now)?,
            How::Jwt(jwt) => {
                let (label, subject) = jwt.prove(request, public_url, now)?;
                way = subject;
                label
            }
            How::HttpSignature(signature) => signature.check(request, public_url, now)?,
            How::Credentials(credentials) => {
                let label = credentials.check(request, now)?;
                way = label.clone().filter(|_| credentials.has_several_holders());
                label
            }
            How::Ways(ways) => {
                let (matched, proof) = first(ways, request, public_url, now)?;
                contradicted(ways, matched, request)?;
                way = proof.way;
                proof.label
            }
            How::Any(rules) => {
                let (matched, proof) = first(rules, request, public_url, now)?;
                return Ok(Proof { way: way_of(rules, matched, proof.way), ..proof });
            }
            How::All(rules) => {
                let mut label = None;
                for rule in rules {
                    let proof = rule.run(request, public_url, now)?;
                    label = label.or(proof.label);
                    way = joined(way, "+", proof.way);
                }
                label
            }
        };
        Ok(Proof { by: self.by.clone(), label, way })
    }

    /// `request` as its sender would send it: by the first way that can be signed, or by all that must hold.
    pub(super) fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        private_key: Option<&PrivateKey>,
    ) -> Result<Request, SignError> {
        match &self.how {
            How::Open => Ok(request.clone()),
            How::Scheme(scheme) => scheme.sign(request, public_url, now, private_key),
            How::Jwt(jwt) => jwt.sign(request, public_url, now),
            How::HttpSignature(signature) => signature.sign(request, public_url, now, private_key),
            How::Credentials(credentials) => credentials.sign(request, now),
            How::Ways(rules) | How::Any(rules) => {
                let mut error = SignError::Impossible("there is nothing to sign with");
                for rule in rules {
                    match rule.sign(request, public_url, now, private_key) {
                        Ok(signed) => return Ok(signed),
                        Err(found) => error = found,
                    }
                }
                Err(error)
            }
            How::All(rules) => rules
                .iter()
                .try_fold(request.clone(), |request, rule| rule.sign(&request, public_url, now, private_key)),
        }
    }

    pub(super) fn collect_headers(&self, into: &mut Vec<String>) {
        let mut add = |locations: &mut dyn Iterator<Item = &Location>| {
            into.extend(locations.filter_map(Location::header).map(str::to_owned));
        };
        match &self.how {
            How::Open => {}
            How::Scheme(scheme) => add(&mut scheme.locations()),
            How::Jwt(jwt) => add(&mut jwt.locations()),
            How::HttpSignature(signature) => into.extend(signature.headers().map(str::to_owned)),
            How::Credentials(credentials) => add(&mut std::iter::once(&credentials.at)),
            How::Ways(rules) | How::Any(rules) | How::All(rules) => {
                rules.iter().for_each(|rule| rule.collect_headers(into));
            }
        }
    }

    /// Whether the address of a request may be among what is signed.
    pub(super) fn signs_url(&self) -> bool {
        match &self.how {
            How::Open | How::Credentials(_) => false,
            How::Scheme(scheme) => scheme.template.uses_url(),
            How::Jwt(jwt) => jwt.signs_url(),
            How::HttpSignature(_) => true,
            How::Ways(rules) | How::Any(rules) | How::All(rules) => rules.iter().any(Check::signs_url),
        }
    }

    /// Adds the places of credentials: not of what is signed with one.
    pub(super) fn collect_credentials(&self, into: &mut CredentialPlaces) {
        let mut add = |locations: &mut dyn Iterator<Item = &Location>| {
            for mut location in locations {
                while let Location::Inside(place, ..) = location {
                    location = place;
                }
                match location {
                    Location::Header(name) => into.headers.push(name.to_string()),
                    Location::Query(name) => into.query.push(name.to_string()),
                    // A path is part of the address that the sender was given; for what stands in a body see below.
                    _ => {}
                }
            }
        };
        match &self.how {
            How::Open | How::HttpSignature(_) => {}
            How::Scheme(scheme) => {
                if matches!(scheme.keys, Keys::Token(_)) {
                    add(&mut scheme.from.iter());
                    for location in &scheme.from {
                        match (location, &scheme.each) {
                            (Location::Body(pointer), None) => into.body.push(pointer.to_string()),
                            (Location::Body(pointer), Some(each)) => {
                                into.body.push(format!("{each}/*{pointer}"));
                            }
                            (Location::Form(name), _) => into.form.push((name.to_string(), None)),
                            (Location::FormJson(name, pointer), _) => {
                                into.form.push((name.to_string(), Some(pointer.to_string())));
                            }
                            // Tokens that hold an event are no more secret than it is.
                            _ => {}
                        }
                    }
                }
            }
            How::Jwt(jwt) => add(&mut jwt.locations()),
            How::Credentials(credentials) => add(&mut std::iter::once(&credentials.at)),
            How::Ways(rules) | How::Any(rules) | How::All(rules) => {
                rules.iter().for_each(|rule| rule.collect_credentials(into));
            }
        }
    }

    /// Adds the signed parts of which the border could be moved. A pack's ways stand at its rule.
    pub(super) fn collect_open_borders(&self, at: &mut Vec<String>, into: &mut Vec<OpenBorder>) {
        let (rules, word) = match &self.how {
            How::Scheme(scheme) => {
                let open = scheme.open_border.clone();
                into.extend(open.map(|between| OpenBorder { at: at.clone(), between }));
                return;
            }
            How::Ways(rules) => (rules, None),
            How::Any(rules) => (rules, Some("any")),
            How::All(rules) => (rules, Some("all")),
            How::Open | How::Jwt(_) | How::HttpSignature(_) | How::Credentials(_) => return,
        };
        let depth = at.len();
        for (index, rule) in rules.iter().enumerate() {
            at.extend(word.iter().flat_map(|word| [(*word).to_owned(), index.to_string()]));
            rule.collect_open_borders(at, into);
            at.truncate(depth);
        }
    }

    /// Adds algorithms of tokens for which there is no key. A pack's stand at its rule, and are not the user's.
    pub(super) fn collect_idle(&self, at: &mut Vec<String>, into: &mut Vec<(Vec<String>, String)>) {
        let (rules, word) = match &self.how {
            How::Jwt(jwt) if &*self.by == "jwt" => {
                into.extend(jwt.idle().map(|name| (at.clone(), name)));
                return;
            }
            How::Any(rules) => (rules, "any"),
            How::All(rules) => (rules, "all"),
            _ => return,
        };
        for (index, rule) in rules.iter().enumerate() {
            at.extend([word.to_owned(), index.to_string()]);
            rule.collect_idle(at, into);
            at.truncate(at.len() - 2);
        }
    }

    /// Whether who holds a genuine request, but not the key, can give it another value of `key`. `pack`: the name of the
    /// provider whose word for it is taken, since the key is its own.
    pub(super) fn covers(&self, key: &Extract, pack: Option<&str>) -> Covered {
        let signs = |is: bool| if is { Covered::Signed } else { Covered::No };
        match &self.how {
            How::Open | How::Credentials(_) => Covered::Unsigned,
            How::Scheme(scheme) if !scheme.signs() => Covered::Unsigned,
            How::Jwt(jwt) if !jwt.signs_body() => Covered::Unsigned,
            How::Any(rules) => every(rules, key, pack),
            // What one of them signs nobody can change; a credential beside a signature does not make up for it.
            How::All(rules) => {
                rules.iter().map(|rule| rule.covers(key, pack)).fold(Covered::Unsigned, |all, one| {
                    match (all, one) {
                        (Covered::Signed, _) | (_, Covered::Signed) => Covered::Signed,
                        (Covered::No, _) | (_, Covered::No) => Covered::No,
                        _ => Covered::Unsigned,
                    }
                })
            }
            _ if pack.is_some_and(|pack| pack == &*self.by) => Covered::Signed,
            How::Scheme(scheme) => signs(key.is_bound(&|location| scheme.covers(location))),
            How::Jwt(jwt) => signs(key.is_bound(&|location| jwt.covers(location))),
            How::HttpSignature(signature) => signs(key.is_bound(&|location| signature.covers(location))),
            How::Ways(rules) => every(rules, key, pack),
        }
    }

    /// Where id and time of a request are, if this is a scheme with headers for them.
    fn facts(&self) -> [Option<&Location>; 2] {
        let How::Scheme(scheme) = &self.how else { return [None, None] };
        let time = match &scheme.timestamp {
            Some(TimeRule { from: TimeFrom::At(location), .. }) => Some(location),
            _ => None,
        };
        [scheme.id.as_ref(), time]
    }
}

/// Whichever of these holds, it must cover the key.
fn every(rules: &[Check], key: &Extract, pack: Option<&str>) -> Covered {
    rules.iter().map(|rule| rule.covers(key, pack)).fold(Covered::Signed, |all, one| match (all, one) {
        (Covered::No, _) | (_, Covered::No) => Covered::No,
        (Covered::Unsigned, _) | (_, Covered::Unsigned) => Covered::Unsigned,
        _ => Covered::Signed,
    })
}

/// What the rule that held is called among its like: as the user calls it (`@partners`); else by what proves (`bearer`),
/// and from the second of these on by its number too (`bearer#2`), so that a rule keeps its name whatever else comes and
/// goes. `None` where there is no other.
///
/// Not by what is in it: keys come and go, and the repeats of an event must be known all the while.
fn way_of(rules: &[Check], matched: usize, within: Option<Arc<str>>) -> Option<Arc<str>> {
    let (before, rule) = (rules.get(..matched)?, rules.get(matched)?);
    if rules.len() == 1 {
        return within;
    }
    let is_like = |other: &&Check| other.name.is_none() && other.by == rule.by;
    let own: Arc<str> = match (&rule.name, before.iter().filter(is_like).count()) {
        (Some(name), _) => format!("@{name}").into(),
        (None, 0) => rule.by.clone(),
        (None, alike) => format!("{}#{}", rule.by, alike + 1).into(),
    };
    joined(Some(own), "/", within)
}

fn joined(first: Option<Arc<str>>, between: &str, second: Option<Arc<str>>) -> Option<Arc<str>> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}{between}{second}").into()),
        (first, second) => first.or(second),
    }
}

fn first(
    rules: &[Check],
    request: &Request,
    public_url: Option<&str>,
    now: Timestamp,
) -> Result<(usize, Proof), Refusal> {
    let mut refused: Option<Refusal> = None;
    for (index, rule) in rules.iter().enumerate() {
        match rule.run(request, public_url, now) {
            Ok(proof) => return Ok((index, proof)),
            Err(refusal) => {
                refused = Some(match refused {
                    Some(earlier) => earlier.more_telling(refusal),
                    None => refusal,
                });
            }
        }
    }
    Err(refused.unwrap_or_else(|| Refusal::new(Reason::SignatureMissing, "the rule has no alternatives")))
}

/// A provider that can write the same fact under two names (`svix-id`, `webhook-id`) proves only the one that it
/// signed; the other, put there by whoever repeats the request, must not pass for it.
fn contradicted(ways: &[Check], matched: usize, request: &Request) -> Result<(), Refusal> {
    let Some(proved) = ways.get(matched) else { return Ok(()) };
    let view = View::of(request);
    for (index, other) in ways.iter().enumerate() {
        if index == matched {
            continue;
        }
        for (ours, theirs) in proved.facts().into_iter().zip(other.facts()) {
            let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
            if ours == theirs {
                continue;
            }
            let said = at(theirs, theirs.find(view))?;
            if said.is_some() && said != at(ours, ours.find(view))? {
                return Err(Refusal::new(
                    Reason::AmbiguousRequest,
                    format!("{theirs} says something else than {ours}, which is signed"),
                ));
            }
        }
    }
    Ok(())
}
