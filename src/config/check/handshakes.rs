//! A route's handshakes: its own, its pack's, or none; and the methods that they open.

use super::Checker;
use super::rules::Proof;
use crate::config::place::Place;
use crate::config::raw::{self, HandshakeWord};
use crate::message::Method;
use crate::providers::Pack;
use crate::verify::handshake::{self, Kept, Written};
use crate::verify::spec::HandshakeSpec;
use crate::verify::{Handshakes, Policy, SpecProblem};

/// A route's greetings; and as they are written, if some of them ask for or are answered with secrets of whoever sends.
type Greetings = (Handshakes, Option<(Kept, Policy)>);

impl Checker<'_, '_> {
    pub(super) fn handshakes(
        &mut self,
        raw: &raw::Route,
        place: &Place,
        proof: Option<&Proof<'_>>,
    ) -> Greetings {
        let Some(proof) = proof.filter(|_| raw.mode != raw::Mode::Pass) else { return Greetings::default() };
        let own = place.key("handshake");
        let word = match &raw.handshake {
            Some(raw::Handshake::One(spec)) => {
                return self.own(std::slice::from_ref(spec), false, proof, &own);
            }
            Some(raw::Handshake::Many(specs)) => return self.own(specs, true, proof, &own),
            Some(raw::Handshake::Word(HandshakeWord::Off)) => return Greetings::default(),
            Some(raw::Handshake::Word(word)) => Some(*word),
            None => None,
        };
        let Some(pack) = &proof.compiled.pack else {
            if word.is_some() {
                let help = "name the route's `provider`, or write the handshake itself";
                self.error(&own, "the route has no provider whose handshakes are known", help);
            } else if let Some(names) = handshake::unanswered(&proof.spec, self.references) {
                let message =
                    format!("greetings of {names} are not answered: the rule names several providers");
                let help = "give each of them a route of its own, write the `handshake` yourself, or `handshake: off`";
                self.warning(place, message, help);
            }
            return Greetings::default();
        };
        let shows = word == Some(HandshakeWord::Show);
        if shows && !pack.handshakes.iter().any(|spec| spec.show.is_some()) {
            let help = "remove `handshake`: its greetings are answered anyway";
            self.error(&own, format!("no greeting of {} brings a secret", pack.name), help);
        } else if shows {
            let help = "whoever can send to this path can have a secret shown: take only the one that comes while you \
                        set the webhook up, store it, and remove `handshake: show`";
            self.warning(&own, "secrets that greetings bring are shown in the log", help);
        }
        let policy = match word {
            Some(HandshakeWord::Forward) => Policy::Forward,
            _ => Policy::Answer,
        };
        let written = Written::Pack { pack, shows };
        let compiled = handshake::compile(written, &proof.spec, policy, &proof.references);
        // They stand in the rule, where they have been warned of.
        self.references.seen_inline.take();
        match compiled {
            Ok(handshakes) => {
                self.warn_of_lacking(&handshakes, pack, raw, place);
                let kept = || (Kept::Pack { pack: pack.clone(), shows }, policy);
                let kept = handshakes.depend_on_sender().then(kept);
                (handshakes, kept)
            }
            Err(problems) => {
                for SpecProblem { at, message, help } in problems {
                    let message = format!("in the pack, at `handshake.{}`: {message}", at.join("."));
                    self.error(place, message, help.unwrap_or_default());
                }
                Greetings::default()
            }
        }
    }

    /// Of greetings that will be refused, because no event has their method and a setting is missing.
    fn warn_of_lacking(&mut self, handshakes: &Handshakes, pack: &Pack, raw: &raw::Route, place: &Place) {
        let events = super::routes::methods(raw);
        for lacking in handshakes.lacking() {
            if lacking.methods().iter().any(|method| events.contains(method)) {
                continue;
            }
            let names = lacking.settings.join("`, `");
            let methods = lacking.methods().iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            let message =
                format!("greetings of {} ({methods}) will be refused: `{names}` is not set", pack.title);
            let about = lacking.settings.iter().find_map(|name| Some(&pack.params.get(name)?.about));
            let help = match about {
                Some(about) => format!("{about} If nobody is to be greeted, write `handshake: off`"),
                None => "if nobody is to be greeted, write `handshake: off`".to_owned(),
            };
            self.warning(place, message, help);
        }
    }

    /// `listed`: whether they stand in a list.
    fn own(&mut self, specs: &[HandshakeSpec], listed: bool, proof: &Proof<'_>, place: &Place) -> Greetings {
        let policy = Policy::Answer;
        let compiled = handshake::compile(Written::Own(specs), &proof.spec, policy, &proof.references);
        for secret in self.references.seen_inline.take() {
            let at = self.find(place, &secret);
            if at != *place {
                let help = "move it to a variable or file, and write `env:NAME` or `file:PATH`";
                self.warning(&at, "a secret stands in the config itself", help);
            }
        }
        match compiled {
            Ok(handshakes) => {
                for at in handshakes.sign_uncovered(&proof.compiled.verifier) {
                    let at = if listed { place.index(at) } else { place.clone() };
                    let at = ["answer", "proof", "signed"].iter().fold(at, |at, key| at.key(key));
                    let message = "with one genuine request anybody could have anything signed: the route's rule does not \
                                   cover what is signed here";
                    let help = "sign only places that the sender signs, or for which `when` or `must` has a `matches`";
                    self.error(&at, message, help);
                }
                let kept = handshakes.depend_on_sender().then(|| (Kept::Own(specs.to_vec()), policy));
                (handshakes, kept)
            }
            Err(problems) => {
                for SpecProblem { at, message, help } in problems {
                    let steps = if listed { &at[..] } else { at.get(1..).unwrap_or_default() };
                    let at = steps.iter().fold(place.clone(), |place, step| self.descend(&place, step));
                    self.error(&at, message, help.unwrap_or_default());
                }
                Greetings::default()
            }
        }
    }

    /// What a route takes beside its events' methods: those that only greetings have.
    pub(super) fn greeting_methods(
        &mut self,
        handshakes: &Handshakes,
        events: &[Method],
        place: &Place,
    ) -> Vec<Method> {
        if let Some(method) = handshakes.swallows(events) {
            let message = format!(
                "every {method} would be taken for a greeting, and `methods` says that events have it"
            );
            let help = format!("take {method} out of `methods`, or write `handshake: off`");
            self.error(&place.key("methods"), message, help);
        }
        let mut own = Vec::new();
        for method in handshakes.methods() {
            if !events.contains(method) && !own.contains(method) {
                own.push(method.clone());
            }
        }
        own
    }
}
