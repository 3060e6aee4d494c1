//! Is a request only a greeting of its sender, and what is it answered? Pure, as all of `verify`: what has to be done
//! beside answering (a secret shown, a URL fetched) is said in the [`Reply`] and done by `receive`.
//!
//! A greeting is told from an event by conditions on the request alone, before its signature is looked at; whether it
//! is answered before or only after the route's rule has held is the handshake's `signed`. An answer proves to a
//! stranger at most that something is here: what is sent back is bounded and printable, secrets are compared in
//! constant time, and what is signed for a stranger has a shape that no event has.
//!
//! `spec` has the language as written, `build*` compiles it, `condition` recognises, `reply` answers, `oracle` says what
//! could be signed for a stranger.

mod build;
mod build_conditions;
mod build_reply;
mod condition;
mod oracle;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;

use super::host::HostPattern;
use super::locate::{Location, View};
use super::{Extract, Refusal, Verified, Verifier};
use crate::message::{Answer, Head, Method, PathParams, Request};
use crate::reason::Reason;

pub(super) use build::check_pack;
pub use build::{Kept, Written, compile, unanswered};
use condition::Condition;
pub use oracle::Oracle;
pub(super) use oracle::note_pack;
use reply::{Echo, Template, Text};

/// The handshakes of a route.
#[derive(Debug, Default)]
pub struct Handshakes {
    list: Vec<Handshake>,
    lacking: Vec<Lacking>,
    pub policy: Policy,
}

/// What becomes of a greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// It is answered here.
    #[default]
    Answer,
    /// It is passed to the app, whose answer the sender gets.
    Forward,
}

/// One kind of greeting and its answer.
#[derive(Debug)]
pub struct Handshake {
    methods: Vec<Method>,
    signed: bool,
    when: Vec<Condition>,
    must: Vec<Condition>,
    refuse: Reason,
    reply: Template,
    /// Its proof signs something of which no shape is known: only whoever the route's rule trusts may choose that.
    on_trust: bool,
    show: Option<Show>,
    visit: Option<Visit>,
    warn: Option<Warn>,
    /// Whether what it asks for or is answered with is a secret of whoever sends, which is not known here.
    of_sender: bool,
    /// Its place among those that are written.
    at: usize,
}

/// A secret that the sender brings is shown so many times until the config is read again: who tries to flood the log
/// with false ones gets no further.
const MAX_SHOWN: u32 = 16;

#[derive(Debug)]
struct Show {
    secret: Location,
    shown: AtomicU32,
}

/// What the operator is warned of, at most once in [`WARN_EVERY`].
#[derive(Debug)]
struct Warn {
    text: Text,
    /// When it was said last, in Unix seconds; 0 for never.
    said: AtomicU64,
}

const WARN_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Visit {
    url: Location,
    hosts: Vec<HostPattern>,
    ca: Option<Arc<str>>,
}

/// What is fetched to confirm a greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visited {
    pub url: Uri,
    /// Roots (PEM) that are trusted there instead of the public ones.
    pub ca: Option<Arc<str>>,
}

/// A greeting that can't be answered, because the route's rule lacks what it needs.
#[derive(Debug)]
pub struct Lacking {
    methods: Vec<Method>,
    /// By what it would be recognised, as far as that is known.
    when: Vec<Condition>,
    /// The parameters that are not given; `secret` for the secret.
    pub settings: Vec<String>,
}

/// What to do about a greeting, and then what to answer.
#[derive(Debug)]
pub struct Reply {
    pub answer: Answer,
    /// A secret that the operator must store, and where it stood.
    pub show: Option<(String, String)>,
    /// What the operator is warned of.
    pub warn: Option<String>,
    /// What is fetched before the answer; only with a success the answer is given.
    pub visit: Option<Visited>,
}

impl Handshakes {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a greeting is told or answered by a secret that depends on who sends.
    pub fn depend_on_sender(&self) -> bool {
        self.list.iter().any(|handshake| handshake.of_sender)
    }

    /// Every method that some greeting has.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.list.iter().flat_map(|handshake| &handshake.methods)
    }

    /// The handshake that `request` is, if it is one.
    pub fn recognise(&self, request: &Request) -> Option<&Handshake> {
        self.list.iter().find(|handshake| handshake.is_of(request))
    }

    /// The same for a sender of whom `own` are the handshakes with his secrets. Without them, or where he has no such
    /// secret, it may be one that can't be answered: [`lacks_sender`](Handshake::lacks_sender).
    pub fn recognise_of<'h>(
        &'h self,
        own: Option<&'h Handshakes>,
        request: &Request,
    ) -> Option<&'h Handshake> {
        let his = |shared: &'h Handshake| match own.filter(|_| shared.of_sender) {
            Some(own) => own.list.iter().find(|one| one.at == shared.at).unwrap_or(shared),
            None => shared,
        };
        self.list.iter().map(his).find(|handshake| handshake.is_of(request))
    }

    /// Greetings (by their place) that would sign, of a request that `verifier` lets in, something that it does not cover:
    /// whoever has captured one could put anything there.
    pub fn sign_uncovered<'h>(&'h self, verifier: &'h Verifier) -> impl Iterator<Item = usize> + 'h {
        let trusting = self.list.iter().enumerate().filter(|(_, handshake)| handshake.on_trust);
        trusting.filter(|(_, handshake)| !handshake.is_covered(verifier)).map(|(at, _)| at)
    }

    /// Greetings that can't be answered as the route stands.
    pub fn lacking(&self) -> &[Lacking] {
        &self.lacking
    }

    /// The setting for lack of which a request that no event is (its method says so) is no greeting either. Only its
    /// head is looked at.
    pub fn lacks(&self, head: &Head) -> Option<&str> {
        let lacking = self.lacking.iter().filter(|one| one.methods.contains(&head.method));
        let request = Request { head: head.clone(), params: PathParams::default(), body: Bytes::new() };
        let mut lacking = lacking.filter(|one| one.when.iter().all(|condition| condition.holds(&request)));
        lacking.next()?.settings.first().map(String::as_str)
    }

    /// A method that events have, too, and whose every request would be taken for a greeting.
    pub fn swallows(&self, events: &[Method]) -> Option<&Method> {
        let blind = self.list.iter().filter(|handshake| handshake.when.is_empty());
        blind.flat_map(|handshake| &handshake.methods).find(|method| events.contains(method))
    }
}

impl Lacking {
    /// The methods of the greeting.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }
}

impl Handshake {
    fn is_of(&self, request: &Request) -> bool {
        self.methods.contains(&request.head.method)
            && self.when.iter().all(|condition| condition.holds(request))
    }

    fn is_covered(&self, verifier: &Verifier) -> bool {
        let Some(proof) = &self.reply.proof else { return true };
        let places = proof.signed.locations().cloned().map(Extract::at);
        !verifier.is_open()
            && proof.signed.is_of_places_and_body()
            && places.into_iter().all(|place| verifier.covers(&place))
            && (!proof.signed.covers_body() || verifier.covers_body())
    }

    /// Whether it asks for or is answered with a secret of its sender, who is not known or has none.
    pub const fn lacks_sender(&self) -> bool {
        self.of_sender
    }

    /// Whether the route's rule must hold before it is answered.
    pub const fn is_signed(&self) -> bool {
        self.signed
    }

    /// What it is answered; `Err` if it does not prove what it must, or brings nothing that may be sent back.
    pub fn reply(&self, request: &Request, public_url: Option<&str>) -> Result<Reply, Refusal> {
        if let Some(failed) = self.must.iter().find(|condition| !condition.holds(request)) {
            return Err(Refusal::new(self.refuse, format!("the handshake's {} is not ours", failed.place())));
        }
        let answer = self.reply.answer(request, public_url)?;
        let visit = match &self.visit {
            None => None,
            Some(visit) => Some(Visited { url: visit.url(request)?, ca: visit.ca.clone() }),
        };
        let show = self.show.as_ref().map(|show| show.secret(request)).transpose()?;
        let warn = self.warn.as_ref().map(|warn| warn.text(request)).transpose()?.flatten();
        Ok(Reply { answer, show, warn, visit })
    }

    /// A greeting that is passed to the app as it is: `handshake: forward` says that it may, unproved as it is where
    /// the sender does not sign it.
    pub fn forwarded(&self, request: Request) -> Verified<Request> {
        Verified {
            value: request,
            by: Arc::from("handshake"),
            label: None,
            way: None,
            would_refuse: None,
            client: None,
            trace: None,
        }
    }
}

impl Warn {
    /// `None` if it was said a moment ago.
    fn text(&self, request: &Request) -> Result<Option<String>, Refusal> {
        let text = self.text.filled(request, "")?;
        let now = request.head.received_at.as_secs();
        let is_due = |said: u64| said == 0 || now.abs_diff(said) >= WARN_EVERY.as_secs();
        let due =
            self.said.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |said| is_due(said).then_some(now));
        Ok(due.is_ok().then_some(text))
    }
}

impl Show {
    fn secret(&self, request: &Request) -> Result<(String, String), Refusal> {
        let secret = Echo::of(&self.secret).value(request)?;
        if self
            .shown
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < MAX_SHOWN).then(|| n + 1))
            .is_err()
        {
            let why =
                format!("{MAX_SHOWN} secrets were shown since the config was read: reload to be shown more");
            return Err(Refusal::new(Reason::HandshakeRefused, why));
        }
        Ok((secret, self.secret.to_string()))
    }
}

impl Visit {
    /// Who has signed this may still be anybody with an account there: only the hosts that the pack names are asked.
    fn url(&self, request: &Request) -> Result<Uri, Refusal> {
        let refused = |why: &str| Refusal::new(Reason::HandshakeRefused, format!("{}: {why}", self.url));
        let text = Echo::of(&self.url).value(request)?;
        let url: Uri = text.parse().map_err(|_| refused("no URL"))?;
        let authority = url.authority().ok_or_else(|| refused("no whole URL"))?;
        if authority.as_str().contains('@') || text.contains('#') {
            return Err(refused("a URL with a user or a fragment"));
        }
        let asked = url.host().unwrap_or_default().to_ascii_lowercase();
        if !self.hosts.iter().any(|host| host.matches(&asked)) {
            return Err(refused("not on a host that may be asked"));
        }
        match (url.scheme_str(), authority.port_u16()) {
            (Some("https"), None | Some(443)) => Ok(url),
            // What never leaves this machine: tests, a sidecar.
            (Some("http"), _) if crate::config::is_loopback(url.host().unwrap_or_default()) => Ok(url),
            _ => Err(refused("not https at its usual port")),
        }
    }
}

/// The value at a place as it is looked at: `Err` if it could be read in two ways.
fn found<'r>(
    location: &Location,
    request: &'r Request,
) -> Result<Option<std::borrow::Cow<'r, [u8]>>, super::locate::Ambiguous> {
    location.find(View::of(request))
}
