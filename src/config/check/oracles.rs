//! Greetings that are answered with a secret of which other routes have a use, too: what they sign for whoever asks is
//! never taken as an event there, which the operator should know before a sender finds out.

use crate::config::place::Place;
use crate::secret::{Secret, same};
use crate::tenants::{Oracles, Reference};
use crate::verify::Signable;

use super::Checker;

/// What a route has to do with it.
pub(super) struct Signing {
    pub(super) route: String,
    pub(super) place: Place,
    pub(super) provider: Option<String>,
    /// Secrets and files of its rule and greetings.
    pub(super) secrets: Vec<Secret>,
    pub(super) files: Vec<Reference>,
    /// Secrets and files with which a greeting is answered for whoever asks.
    pub(super) signs: Vec<Secret>,
    pub(super) signs_files: Vec<Reference>,
}

impl Signing {
    /// Whether what a greeting here signs could be an event's signature there, as far as secrets go. Another route of the
    /// same provider is none the worse: its own greetings are answered with the secret, too.
    fn helps(&self, other: &Self) -> bool {
        let shared = |a: &Secret| other.secrets.iter().any(|b| same(a.expose(), b.expose()));
        let is_other =
            self.route != other.route && (self.provider.is_none() || self.provider != other.provider);
        is_other
            && (self.signs.iter().any(shared)
                || self.signs_files.iter().any(|file| other.files.contains(file)))
    }
}

impl Checker<'_, '_> {
    /// Once all routes were read: tells rules with a fixed secret of the greetings that tenants' secrets answer, and warns
    /// of routes that share a secret with another's greetings.
    pub(super) fn oracles(&mut self, oracles: &Oracles, signable: &Signable) {
        for (file, secret) in self.references.seen_files.take() {
            oracles.note(&file, &secret, signable);
        }
        let all = std::mem::take(&mut self.signing);
        for other in &all {
            let Some(asked) = all.iter().find(|asked| asked.helps(other)) else { continue };
            let message = format!(
                "greetings of `{}` are answered with a secret of this route: whoever asks there has texts of his choice \
                 signed with it, and such texts are refused here as events",
                asked.route
            );
            self.warning(&other.place, message, "give each route a secret of its own");
        }
    }
}
