//! Who sent this? Pure decisions over a request and a time: no I/O, no clock, no global state.
//!
//! Here live the declarative scheme language (`spec`), its compiled form and the checks. Providers' own schemes are
//! data in `providers`; secrets, files and remote keys come in through [`Resolver`] and [`KeySource`]. Carries promise
//! 2: only what passed here can be stored or sent on, because only [`Verifier::verify`] can make a [`Verified`].
//!
//! The way of a rule: `spec` (as written) → `compile` with `build`, `build_scheme` and `jwt::build` (everything wrong
//! at once) → `check` (compiled; nothing is interpreted per request) over `scheme`, `jwt` and `credentials`.

mod batch;
mod border;
mod build;
mod build_keys;
mod build_scheme;
mod check;
mod compile;
mod compile_pack;
mod condition;
mod connection;
mod credentials;
mod draft;
mod encoding;
mod explain;
mod extract;
mod fetched;
mod form;
pub mod handshake;
mod header_list;
mod host;
mod http_signature;
mod json;
mod jwt;
mod locate;
mod mac;
mod multipart;
mod public_key;
mod refusal;
mod remote;
mod scheme;
mod shape;
mod sign;
mod signable;
mod signatures;
pub mod spec;
mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod time;
mod url;
mod window;

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::message::{Request, TraceContext};
use crate::secret::Secret;

pub use batch::{Element, NotSplit, Split};
use check::{Check, Covered};
pub use compile::{awaiting_keys, compile};
pub use compile_pack::check_pack;
pub use explain::{Explanation, Likely, Step, Way};
pub use extract::Extract;
pub(crate) use form::decode as decode_form;
pub use handshake::{Handshakes, Policy};
pub use json::Pointer as JsonPointer;
pub use refusal::Refusal;
pub(crate) use remote::parse_jwks;
pub use remote::{
    Address, Document, KeySource, Lacking, Lookup, Need, NoKeys, Oauth, Remote, RemoteKey, Settled,
    Unreadable,
};
pub use sign::{PrivateKey, SignError};
pub use signable::Signable;
pub use spec::VerifySpec;
pub(crate) use time::duration as parse_duration;
pub use window::Expiry;

/// A value whose sender has been proved by a route's rule, or for which the operator has said in so many words that no
/// proof is asked: `verify: none`, `enforce: observe`, an admission by force.
#[derive(Debug)]
pub struct Verified<T> {
    value: T,
    by: Arc<str>,
    label: Option<Arc<str>>,
    way: Option<Arc<str>>,
    would_refuse: Option<Refusal>,
    client: Option<Arc<str>>,
    trace: Option<TraceContext>,
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
    /// Which of a route's rules proved it, where it has several (`any`). The holders of two of them may not be the same,
    /// so an id that one has used is not used by the other.
    pub fn way(&self) -> Option<&Arc<str>> {
        self.way.as_ref()
    }
    /// The client whose URL it came by, on routes where each has its own.
    pub fn client(&self) -> Option<&Arc<str>> {
        self.client.as_ref()
    }
    /// The same, known to have come by this client's URL.
    pub fn by_client(self, client: Option<Arc<str>>) -> Self {
        Self { client, ..self }
    }
    /// The span of its reception, if that is recorded.
    pub fn trace(&self) -> Option<TraceContext> {
        self.trace
    }
    /// The same, received within this span.
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }
    /// Why the rule would have refused it, had it been asked to: it is only here because somebody said so.
    pub fn would_refuse(&self) -> Option<&Refusal> {
        self.would_refuse.as_ref()
    }
}

impl Verified<Request> {
    /// Gives the request another time of reception: for one that was kept and is only taken now.
    pub fn receive_at(&mut self, now: Timestamp) {
        self.value.head.received_at = now;
    }

    /// See [`Request::replace_param`]: for what only verification may see.
    pub fn replace_param(&mut self, name: &str, by: &str) {
        self.value.replace_param(name, by);
    }
}

/// What compiling a rule needs from outside: `config` implements it over files, environment and packs. Error texts
/// say what is wrong with the reference, for the user.
pub trait Resolver {
    /// The secret behind `env:NAME`, `file:PATH` (one final line feed trimmed, never empty).
    fn secret(&self, reference: &str) -> Result<Secret, String>;
    /// The text behind `file:PATH`, `env:NAME`, or the given text itself (public keys, certificates).
    fn text(&self, reference: &str) -> Result<String, String>;
    /// The public key behind a reference, as [`text`](Self::text); `None` if there is none for this sender, and the rule is
    /// to be compiled without it.
    fn public_key(&self, reference: &str) -> Result<Option<String>, String> {
        self.text(reference).map(Some)
    }
    /// Whether a secret that [`secret`](Self::secret) gave only stands in the place of one that depends on who sends.
    fn is_of_sender(&self, _: &Secret) -> bool {
        false
    }
    /// Takes note of what a greeting signs for whoever asks, with these secrets (as [`secret`](Self::secret) gave them).
    fn signs_for_strangers(&self, _: handshake::Oracle, _: Vec<Secret>) {}
    /// The source of keys that are fetched: the same for what is asked for in the same way.
    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String>;
    /// The pack of a provider: a built-in name, or the path of a pack file.
    fn pack(&self, name: &str) -> Result<Arc<crate::providers::Pack>, String>;
    /// What greetings are answered with, of all rules that are to know of each other: those of one config. By itself
    /// nobody knows of any.
    fn signable(&self) -> Arc<Signable> {
        Arc::default()
    }
}

/// What to do where a reference gives nothing.
pub(crate) const REFERENCE_HELP: &str = "references are read at the start and at each reload: the variable must be set, or the \
                                         file be readable, for the user and in the place where the gateway runs";

/// What places look like.
pub(crate) const PLACE_HELP: &str = "a place is `header:NAME`, `query:NAME`, `form:FIELD`, `path:NAME`, or `body:` and a JSON \
                                     pointer, such as `body:/data/id`";

/// Something wrong in a rule. `at` leads to it from the rule's own root: `["any", "0", "tolerance"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    pub at: Vec<String>,
    pub message: String,
    pub help: Option<String>,
}

/// Two signed parts that could be cut elsewhere, so that one genuine request makes many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBorder {
    /// The rule within the rule: `["any", "0"]`.
    pub at: Vec<String>,
    pub between: (String, String),
}

/// A rule that may run.
#[derive(Debug)]
pub struct Compiled {
    pub verifier: Verifier,
    /// The pack that the rule names, if it names exactly one: it brings the route's defaults.
    pub pack: Option<Arc<crate::providers::Pack>>,
}

/// A route's compiled rule.
#[derive(Debug)]
pub struct Verifier {
    check: Check,
    headers: Vec<String>,
    credentials: CredentialPlaces,
    expiries: Vec<Expiry>,
}

/// Where a rule reads credentials: what proves every request of its sender (a key, a token), unlike a signature, which
/// proves one. Such values are never shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialPlaces {
    /// Header names, lower case.
    pub headers: Vec<String>,
    /// Names of query parameters, as they are after decoding.
    pub query: Vec<String>,
    /// JSON pointers into the body, in which `*` stands for any element.
    pub body: Vec<String>,
    /// Fields of a form; with a JSON pointer where the credential stands within the JSON that the field holds.
    pub form: Vec<(String, Option<String>)>,
}

impl Verifier {
    fn of(check: Check, expiries: Vec<Expiry>) -> Self {
        let mut headers = Vec::new();
        check.collect_headers(&mut headers);
        headers.sort_unstable();
        headers.dedup();
        let mut credentials = CredentialPlaces::default();
        check.collect_credentials(&mut credentials);
        Self { check, headers, credentials, expiries }
    }

    /// Decides whether `request` comes from whom the rule trusts. `public_url` is the route's, for schemes that sign
    /// the URL. On failure the request is handed back with the refusal.
    pub fn verify(
        &self,
        request: Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Verified<Request>, (Box<Request>, Refusal)> {
        match self.check.run(&request, public_url, now) {
            Ok(proof) => Ok(Verified {
                value: request,
                by: proof.by,
                label: proof.label,
                way: proof.way,
                would_refuse: None,
                client: None,
                trace: None,
            }),
            Err(refusal) => Err((Box::new(request), refusal)),
        }
    }

    /// The same without the power to refuse: what would have been refused goes on as proved by `none`, with the refusal.
    /// `earlier` is what was found wrong before the body was there. Only for those who have been told to let everything
    /// through (`enforce: observe`, an admission by force).
    pub fn observe(
        &self,
        request: Request,
        public_url: Option<&str>,
        now: Timestamp,
        earlier: Option<Refusal>,
    ) -> Verified<Request> {
        let refused = |value, refusal| Verified {
            value,
            by: "none".into(),
            label: None,
            way: None,
            would_refuse: Some(refusal),
            client: None,
            trace: None,
        };
        match (earlier, self.verify(request, public_url, now)) {
            (None, Ok(verified)) => verified,
            (Some(refusal), Ok(verified)) => refused(verified.value, refusal),
            (earlier, Err((request, refusal))) => refused(*request, earlier.unwrap_or(refusal)),
        }
    }

    /// Whether the rule asks for no proof at all (`verify: none`, and `pass` routes).
    pub const fn is_open(&self) -> bool {
        matches!(self.check.how, check::How::Open)
    }

    /// Why the rule decides as it does, step by step, and the likeliest mistake. Tries much: for a person who waits, not
    /// for the request path. `others` are other rules whose secrets may have been meant, by the names of their routes.
    pub fn explain(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        others: &[(&str, &Verifier)],
    ) -> Explanation {
        explain::explain(self, request, public_url, now, others)
    }

    /// Header names (lower case) that the rule reads: a request whose `Connection` names one of them is refused.
    pub fn headers_used(&self) -> &[String] {
        &self.headers
    }

    /// Whether `key` is as genuine as the request: an idempotency key that is not could be set by whoever repeats a
    /// captured request, and take the place of a later event's.
    pub fn covers(&self, key: &Extract) -> bool {
        self.check.covers(key, None) != Covered::No
    }

    /// The same for a key that `pack` says is as genuine as its own requests are: other rules beside it are asked.
    pub fn covers_key_of(&self, pack: &crate::providers::Pack, key: &Extract) -> bool {
        self.check.covers(key, Some(&pack.name)) != Covered::No
    }

    /// Whether the address of a request may be among what is signed.
    pub fn signs_url(&self) -> bool {
        self.check.signs_url()
    }

    /// Whether whoever holds a genuine request, but not the key, can't give it another body. Where nothing is signed there
    /// is no such request: whoever holds one holds the credential too.
    pub fn covers_body(&self) -> bool {
        self.covers(&Extract::at(locate::Location::Whole))
    }

    /// The same for the query as it is written.
    pub fn covers_query(&self) -> bool {
        self.covers(&Extract::at(locate::Location::Query("".into())))
    }

    /// Signed parts of which the border could be moved, and where in the rule they stand.
    pub fn open_borders(&self) -> Vec<OpenBorder> {
        let mut found = Vec::new();
        self.check.collect_open_borders(&mut Vec::new(), &mut found);
        found
    }

    /// Algorithms of tokens for which there is no key, and the rule within the rule that accepts them.
    pub fn idle_algorithms(&self) -> Vec<(Vec<String>, String)> {
        let mut found = Vec::new();
        self.check.collect_idle(&mut Vec::new(), &mut found);
        found
    }

    /// Where the rule reads credentials, for whoever shows requests.
    pub const fn credentials_in(&self) -> &CredentialPlaces {
        &self.credentials
    }

    /// The keys of the rule that have an end, in the order written.
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }

    /// `request` as its sender would send it at `now`, so that it passes this rule: for tests and the command line. A
    /// signature that stands in the body takes the place of `${signature}` there; whatever else the rule reads in the body
    /// must be there already.
    pub fn sign(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
        private_key: Option<&PrivateKey>,
    ) -> Result<Request, SignError> {
        self.check.sign(request, public_url, now, private_key)
    }
}

/// The nearest of the known words, if it is near enough to be meant.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Upper and lower case are the likeliest slip: `rs256` is no `HS256`.
    let word = word.to_ascii_lowercase();
    known
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
