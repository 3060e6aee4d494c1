//! References of a rule whose keys depend on who sends: `file:secrets/{account}` and `client:secret`.
//!
//! When the config is read, a decoy stands in for each such secret, so that all else that is wrong in the rule is said
//! at once; what does not depend on the sender is looked up once and kept for the tenants' rules.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::Checker;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::references::References;
use crate::providers::Pack;
use crate::route::PathPattern;
use crate::secret::{NoRandomness, Secret, same};
use crate::tenants::{CLIENT_SECRET, Needs, Reference, Shared, Tenants, decoy};
use crate::verify::{KeySource, Remote, Resolver, Signable, VerifySpec, nearest};

/// A config's references as one route sees them.
pub(super) struct OfRoute<'a> {
    references: &'a References<'a>,
    /// Of the route's path.
    parameters: Vec<Arc<str>>,
    clients: Option<raw::Clients>,
    decoy: Secret,
    seen: RefCell<Seen>,
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
        })
    }

    /// Whether anything that was asked for depends on who sends.
    pub(super) fn depend_on_sender(&self) -> bool {
        let seen = self.seen.borrow();
        seen.needs == Needs::Secret || !seen.files.is_empty()
    }

    /// The tenants of the rule that was compiled with these references; `None` if nothing in it depends on the sender.
    pub(super) fn tenants(self, spec: &VerifySpec, refresh: Duration) -> Option<Arc<Tenants>> {
        let depends = self.depend_on_sender();
        let Seen { mut shared, files, needs } = self.seen.into_inner();
        shared.signable = self.references.signable();
        let base = self.references.base.clone();
        depends.then(|| Arc::new(Tenants::new(spec.clone(), shared, files, needs, base, self.decoy, refresh)))
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
