//! References of a rule whose keys depend on who sends: `file:secrets/{account}` and `client:secret`.
//!
//! When the config is read, a decoy stands in for each such secret, so that all else that is wrong in the rule is said
//! at once; what does not depend on the sender is looked up once and kept for the tenants' rules.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::Checker;
use super::oracles::Signing;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::references::References;
use crate::providers::Pack;
use crate::route::PathPattern;
use crate::secret::{NoRandomness, Secret, same};
use crate::tenants::{CLIENT_SECRET, Needs, Reference, Shared, Tenants, decoy};
use crate::verify::handshake::{Kept, Oracle, Policy};
use crate::verify::{KeySource, Remote, Resolver, Signable, VerifySpec, nearest};

/// A config's references as one route sees them.
pub(super) struct OfRoute<'a> {
    references: &'a References<'a>,
    /// Of the route's path.
    parameters: Vec<Arc<str>>,
    clients: Option<raw::Clients>,
    decoy: Secret,
    seen: RefCell<Seen>,
    /// What greetings sign for whoever asks, and with which secrets.
    oracles: RefCell<Vec<(Oracle, Vec<Secret>)>>,
}

#[derive(Default)]
struct Seen {
    shared: Shared,
    files: Vec<Reference>,
    needs: Needs,
}

impl<'c> Checker<'c, '_> {
    /// The config's references as a route sees them. `None` only with a problem reported.
    pub(super) fn of_route(&mut self, raw: &raw::Route, place: &Place) -> Option<OfRoute<'c>> {
        match OfRoute::new(self.references, raw) {
            Ok(references) => Some(references),
            Err(error) => {
                self.error(place, error.to_string(), "without them no secret can be made: see to the system");
                None
            }
        }
    }
}

impl<'a> OfRoute<'a> {
    fn new(references: &'a References<'a>, raw: &raw::Route) -> Result<Self, NoRandomness> {
        let path = PathPattern::parse(&raw.path).ok();
        Ok(Self {
            references,
            parameters: path.iter().flat_map(PathPattern::parameters).cloned().collect(),
            clients: raw.clients,
            decoy: decoy()?,
            seen: RefCell::default(),
            oracles: RefCell::default(),
        })
    }

    /// The tenants of the rule and the greetings that were compiled with these references; `None` if nothing in them depends
    /// on the sender. `greetings`: the route's, if some of them do.
    pub(super) fn tenants(
        self,
        spec: &VerifySpec,
        greetings: Option<(Kept, Policy)>,
        refresh: Duration,
    ) -> Option<Arc<Tenants>> {
        let Seen { mut shared, files, needs } = self.seen.into_inner();
        let depends = needs == Needs::Secret || !files.is_empty();
        shared.signable = self.references.signable();
        shared.oracles = self.references.oracles.clone();
        shared.greetings = greetings;
        let base = self.references.base.clone();
        depends.then(|| Arc::new(Tenants::new(spec.clone(), shared, files, needs, base, self.decoy, refresh)))
    }

    /// The route's secrets, and with which of them greetings are answered for whoever asks. What is signed with those of
    /// whoever sends is noted for all routes.
    pub(super) fn signing(&self, route: &str, place: &Place, provider: Option<String>) -> Signing {
        let seen = self.seen.borrow();
        let (mut signs, mut signs_files) = (Vec::new(), Vec::new());
        for (oracle, secrets) in self.oracles.take() {
            let (of_sender, of_all): (Vec<_>, Vec<_>) =
                secrets.into_iter().partition(|secret| self.is_of_sender(secret));
            signs.extend(of_all);
            if !of_sender.is_empty() && !seen.files.is_empty() {
                signs_files.clone_from(&seen.files);
                self.references.oracles.add(&seen.files, &self.references.base, oracle);
            }
        }
        Signing {
            route: route.to_owned(),
            place: place.clone(),
            provider,
            secrets: seen.shared.secrets.values().cloned().collect(),
            files: seen.files.clone(),
            signs,
            signs_files,
        }
    }

    /// Whether a reference depends on who sends; the error says why it can't.
    fn depends(&self, reference: &str) -> Result<bool, String> {
        if reference == CLIENT_SECRET {
            self.seen.borrow_mut().needs = Needs::Secret;
            return match self.clients {
                Some(raw::Clients::Endpoints) => Ok(true),
                None => {
                    Err("`client:secret` is the secret that is made with a client's URL: the route needs \
                             `clients: endpoints`"
                        .into())
                }
            };
        }
        let Some(file) = Reference::parse(reference) else { return Ok(false) };
        let file = file?;
        for name in file.parameters() {
            if !self.parameters.contains(name) {
                let near = nearest(name, self.parameters.iter().map(|name| &**name));
                let help = near.map(|near| format!(", did you mean `{{{near}}}`?")).unwrap_or_default();
                return Err(format!("the route's path has no parameter `{{{name}}}`{help}"));
            }
        }
        self.references.folder(file.folder())?;
        let files = &mut self.seen.borrow_mut().files;
        if !files.contains(&file) {
            files.push(file);
        }
        Ok(true)
    }
}

impl Resolver for OfRoute<'_> {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        if self.depends(reference)? {
            return Ok(self.decoy.clone());
        }
        let secret = self.references.secret(reference)?;
        self.seen.borrow_mut().shared.secrets.insert(reference.to_owned(), secret.clone());
        Ok(secret)
    }

    fn text(&self, reference: &str) -> Result<String, String> {
        let text = self.references.text(reference)?;
        self.seen.borrow_mut().shared.texts.insert(reference.to_owned(), text.clone());
        Ok(text)
    }

    fn public_key(&self, reference: &str) -> Result<Option<String>, String> {
        if self.depends(reference)? { Ok(None) } else { self.text(reference).map(Some) }
    }

    fn is_of_sender(&self, secret: &Secret) -> bool {
        same(secret.expose(), self.decoy.expose())
    }

    fn signs_for_strangers(&self, oracle: Oracle, secrets: Vec<Secret>) {
        self.oracles.borrow_mut().push((oracle, secrets));
    }

    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String> {
        let source = self.references.keys(remote.clone())?;
        self.seen.borrow_mut().shared.key_sources.push((remote, source.clone()));
        Ok(source)
    }

    fn signable(&self) -> Arc<Signable> {
        self.references.signable()
    }

    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        let pack = self.references.pack(name)?;
        self.seen.borrow_mut().shared.packs.insert(name.to_owned(), pack.clone());
        Ok(pack)
    }
}
