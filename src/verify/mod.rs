//! Who sent this? Pure decisions over a request and a time: no I/O, no clock, no global state.
//!
//! Here live the declarative scheme language (`spec`), its compiled form and the checks. Providers' own schemes are
//! data in `providers`; secrets, files and remote keys come in through [`Resolver`] and [`KeySource`]. Carries promise
//! 2: only what passed here can be stored or sent on, because only [`Verifier::verify`] can make a [`Verified`].

mod extract;
mod spec;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::Secret;

pub use extract::Extract;
pub use spec::VerifySpec;

/// A value whose sender has been proved by a route's rule (or for which the rule asks no proof: `verify: none`).
#[derive(Debug)]
pub struct Verified<T> {
    value: T,
    by: Arc<str>,
    label: Option<Arc<str>>,
}

impl<T> Verified<T> {
    pub fn get(&self) -> &T {
        &self.value
    }
    pub fn into_inner(self) -> T {
        self.value
    }
    /// What proved it: a provider's or scheme's name (`stripe`, `jwt`, `none`).
    pub fn by(&self) -> &Arc<str> {
        &self.by
    }
    /// The label of the secret or key that matched, if it has one.
    pub fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }
}

/// Why verification failed. `detail` is for the log and `tidegate verify`, never for the sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

/// Public keys that are fetched and refreshed elsewhere (JWKS over https), as verification sees them.
pub trait KeySource: Send + Sync + std::fmt::Debug {
    /// The keys known now; `None` while none could be fetched yet.
    fn keys(&self) -> Option<Arc<jsonwebtoken::jwk::JwkSet>>;
    /// Tells that a token named this unknown key id, so that a refresh may be worth its while.
    fn unknown_kid(&self, kid: &str);
}

/// What compiling a rule needs from outside: `config` implements it over files, environment and packs. Error texts
/// say what is wrong with the reference, for the user.
pub trait Resolver {
    /// The secret behind `env:NAME`, `file:PATH` (one final line feed trimmed, never empty).
    fn secret(&self, reference: &str) -> Result<Secret, String>;
    /// The text behind `file:PATH`, `env:NAME`, or the given text itself (public keys, certificates).
    fn text(&self, reference: &str) -> Result<String, String>;
    /// The key source behind an https URL.
    fn jwks(&self, url: &str) -> Result<Arc<dyn KeySource>, String>;
    /// The pack of a provider: a built-in name, or the path of a pack file.
    fn pack(&self, name: &str) -> Result<Arc<crate::providers::Pack>, String>;
}

/// Something wrong in a rule. `at` leads to it from the rule's own root: `["any", "0", "tolerance"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    pub at: Vec<String>,
    pub message: String,
    pub help: Option<String>,
}

/// A rule that may run.
#[derive(Debug)]
pub struct Compiled {
    pub verifier: Verifier,
    /// The pack that the rule names, if it names exactly one: it brings the route's defaults.
    pub pack: Option<Arc<crate::providers::Pack>>,
}

/// Compiles what stands under `verify:`. Everything that is wrong is reported at once; nothing is left to be found
/// out by a request.
pub fn compile(spec: &VerifySpec, resolver: &dyn Resolver) -> Result<Compiled, Vec<SpecProblem>> {
    let _ = (spec, resolver);
    todo!("verify")
}

/// A route's compiled rule.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Decides whether `request` comes from whom the rule trusts. `public_url` is the route's, for schemes that sign
    /// the URL. On failure the request is handed back with the refusal.
    pub fn verify(
        &self,
        request: Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Verified<Request>, (Box<Request>, Refusal)> {
        let _ = (request, public_url, now);
        todo!("verify")
    }

    /// Header names (lower case) that the rule reads: a request whose `Connection` names one of them is refused.
    pub fn headers_used(&self) -> &[String] {
        todo!("verify")
    }
}
