//! Rules whose keys depend on who sends: `secret: file:secrets/{account}`, and secrets of clients with a URL of their
//! own (`client:secret`).
//!
//! Verification stays pure: a rule is compiled once for each tenant, and kept, so that a request finds its verifier in
//! memory before `verify` begins. Here live the references with parameters (`reference`) and the cache; reading is done
//! off the threads that serve. Greetings that are answered with such a secret are compiled with the rule. What is read
//! counts for a configured time, so a file that was added, changed or removed is seen without a reload.
//!
//! Promise 2: a tenant that is not known has no verifier, and is refused by one with keys that nobody has, so that
//! neither the answer nor its time tells which tenants there are (an answered greeting does: it can only be right for who
//! is there). What a tenant's secret signs for strangers is no event of his (`oracles`). Promise 5: both caches are
//! bounded, apart from each other (who tries names does not push those who are known out), and few files are read at once.

mod held;
mod oracles;
mod reference;

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::message::PathParams;
use crate::providers::Pack;
use crate::secret::{NoRandomness, Secret, random_text, same, trim_line_end};
use crate::verify::handshake::{self, Kept, Policy};
use crate::verify::{
    Handshakes, KeySource, Remote, Resolver, Signable, SpecProblem, Verifier, VerifySpec, compile,
};

pub use held::Held;
pub use oracles::Oracles;
pub use reference::Reference;

/// In the place of a secret: the one that was made for the client whose URL was used.
pub const CLIENT_SECRET: &str = "client:secret";

/// Tenants whose verifier is kept, and names that are known to be nobody's, at most.
const KNOWN: u64 = 10_000;
const UNKNOWN: u64 = 10_000;
/// Files that are read at the same time.
const LOADING: usize = 8;
/// Bytes of a file with a secret or key; a longer one is a mistake.
const MAX_FILE: u64 = 64 * 1024;

/// What is the same for all tenants of a rule, as it was when the config was read.
#[derive(Default)]
pub struct Shared {
    pub secrets: HashMap<String, Secret>,
    pub texts: HashMap<String, String>,
    pub key_sources: Vec<(Remote, Arc<dyn KeySource>)>,
    pub packs: HashMap<String, Arc<Pack>>,
    /// What greetings of the config's routes are answered with.
    pub signable: Arc<Signable>,
    /// And those that are answered with secrets of whoever sends.
    pub oracles: Arc<Oracles>,
    /// The route's own, if some of them are.
    pub greetings: Option<(Kept, Policy)>,
}

/// A rule and its tenants. Lives as long as the config that it is of: a reload begins with empty caches.
pub struct Tenants {
    spec: VerifySpec,
    shared: Shared,
    references: Vec<Reference>,
    /// Parameters that the references name, each once.
    parameters: Vec<Arc<str>>,
    /// Where relative paths start.
    base: PathBuf,
    /// In the place of what is not there: a secret that nobody has.
    decoy: Secret,
    needs: Needs,
    known: moka::sync::Cache<String, Tenant>,
    unknown: moka::sync::Cache<String, Tenant>,
    loading: Semaphore,
}

/// Whether a client's rule asks for a secret of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    #[default]
    Nothing,
    Secret,
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub enum Tenant {
    Known(Arc<TenantRules>),
    /// There is no file for it.
    Unknown,
    /// What there is for it can't be used; the text is for the log.
    Broken(Arc<str>),
}

/// A tenant's rule, and the greetings that ask for its secrets or are answered with them (and perhaps others).
#[derive(Debug)]
pub struct TenantRules {
    pub verifier: Verifier,
    pub handshakes: Handshakes,
}

/// A client with a URL of its own, as far as its rule is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Unique, and another one with each secret.
    pub id: &'a str,
    pub secret: Option<&'a Secret>,
}

/// A secret that nobody has, of a form that every scheme takes.
pub fn decoy() -> Result<Secret, NoRandomness> {
    random_text()
}

impl std::fmt::Debug for Tenants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenants").field("references", &self.references).finish_non_exhaustive()
    }
}

impl Tenants {
    /// `refresh`: how long what was read counts.
    pub fn new(
        spec: VerifySpec,
        shared: Shared,
        references: Vec<Reference>,
        needs: Needs,
        base: PathBuf,
        decoy: Secret,
        refresh: Duration,
    ) -> Self {
        let mut parameters: Vec<Arc<str>> = Vec::new();
        for name in references.iter().flat_map(Reference::parameters) {
            if !parameters.contains(name) {
                parameters.push(name.clone());
            }
        }
        let cache = |max| moka::sync::Cache::builder().max_capacity(max).time_to_live(refresh).build();
        Self {
            spec,
            shared,
            references,
            parameters,
            base,
            decoy,
            needs,
            known: cache(KNOWN),
            unknown: cache(UNKNOWN),
            loading: Semaphore::new(LOADING),
        }
    }

    /// Parameters of the path that say whose request it is.
    pub fn parameters(&self) -> &[Arc<str>] {
        &self.parameters
    }

    /// Whether the rule asks for a secret that is made with a client's URL.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Whose request with these parameters is, from memory if it was looked up lately.
    pub async fn find(self: &Arc<Self>, params: &PathParams, client: Option<Client<'_>>) -> Tenant {
        let Some(key) = self.key(params, client) else { return Tenant::Unknown };
        if let Some(tenant) = self.known.get(&key).or_else(|| self.unknown.get(&key)) {
            return tenant;
        }
        if self.references.is_empty() {
            // Nothing to read: compiling takes microseconds.
            return self.keep(key, self.load(params, client));
        }
        // Never closed, so there is always a permit to wait for.
        let Ok(_permit) = self.loading.acquire().await else { return Tenant::Unknown };
        // Whoever asked for the same before us has it by now.
        if let Some(tenant) = self.known.get(&key).or_else(|| self.unknown.get(&key)) {
            return tenant;
        }
        let (tenants, params) = (Arc::clone(self), params.clone());
        let client = client.map(|client| (client.id.to_owned(), client.secret.cloned()));
        let read = tokio::task::spawn_blocking(move || {
            let client = client.as_ref().map(|(id, secret)| Client { id, secret: secret.as_ref() });
            tenants.load(&params, client)
        });
        match read.await {
            Ok(tenant) => self.keep(key, tenant),
            Err(error) => Tenant::Broken(error.to_string().into()),
        }
    }

    fn keep(&self, key: String, tenant: Tenant) -> Tenant {
        let cache = if matches!(tenant, Tenant::Unknown) { &self.unknown } else { &self.known };
        cache.insert(key, tenant.clone());
        tenant
    }

    /// What the verifier depends on; `None` if a value can't name a file.
    fn key(&self, params: &PathParams, client: Option<Client<'_>>) -> Option<String> {
        let mut key = String::new();
        for name in &self.parameters {
            key.push_str(params.get(name).filter(|value| reference::is_plain(value))?);
            key.push('/');
        }
        if let Some(client) = client {
            key.push_str(client.id);
        }
        Some(key)
    }

    /// The same without memory: reads the files. Blocks.
    pub fn load(&self, params: &PathParams, client: Option<Client<'_>>) -> Tenant {
        let mut files = HashMap::with_capacity(self.references.len());
        let mut secrets = Vec::new();
        for reference in &self.references {
            let Some(path) = reference.path(params) else { return Tenant::Unknown };
            let file = self.base.join(&path);
            match read(&file) {
                Ok(bytes) => {
                    secrets.extend(bytes.clone().map(|bytes| (file, Secret::new(bytes))));
                    files.insert(reference.written.as_str(), bytes)
                }
                Err(error) => {
                    return Tenant::Broken(format!("{}: {error}", path.display()).into());
                }
            };
        }
        if !self.references.is_empty() && files.values().all(Option::is_none) {
            return Tenant::Unknown;
        }
        // A copy: what this tenant's secret could sign is nobody else's, and would stay.
        let signable = Arc::new(self.shared.signable.copy());
        for (file, secret) in &secrets {
            self.shared.oracles.note(file, secret, &signable);
        }
        let resolver = Resolved { tenants: self, files, client, signable };
        let greetings = self.shared.greetings.as_ref();
        let compiled = compile(&self.spec, &resolver).and_then(|compiled| {
            let handshakes = greetings
                .map(|(kept, policy)| handshake::compile(kept.written(), &self.spec, *policy, &resolver));
            Ok(TenantRules {
                verifier: compiled.verifier,
                handshakes: handshakes.transpose()?.unwrap_or_default(),
            })
        });
        match compiled {
            Ok(rules) => Tenant::Known(Arc::new(rules)),
            Err(problems) => {
                let text =
                    |SpecProblem { at, message, .. }: &SpecProblem| format!("{}: {message}", at.join("."));
                Tenant::Broken(problems.iter().map(text).collect::<Vec<_>>().join("; ").into())
            }
        }
    }
}

/// A file's bytes without its final line end; `None` if there is no such file.
fn read(path: &std::path::Path) -> std::io::Result<Option<Vec<u8>>> {
    // Asked first: opening what is no file (a pipe) could wait for ever.
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE + 1).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("is larger than {MAX_FILE} bytes")));
    }
    trim_line_end(&mut bytes);
    Ok(Some(bytes))
}

/// Compiling the same rule asks for the same references, so nobody gets to read this.
const NOT_SEEN: &str = "was not there when the config was read";

/// What a tenant's rule refers to.
struct Resolved<'a> {
    tenants: &'a Tenants,
    files: HashMap<&'a str, Option<Vec<u8>>>,
    client: Option<Client<'a>>,
    signable: Arc<Signable>,
}

impl Resolved<'_> {
    fn same<T: Clone>(of: &HashMap<String, T>, reference: &str) -> Result<T, String> {
        of.get(reference).cloned().ok_or_else(|| NOT_SEEN.to_owned())
    }
}

impl Resolver for Resolved<'_> {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        let secret = match self.files.get(reference) {
            Some(bytes) => bytes.clone().map(Secret::new),
            None if reference == CLIENT_SECRET => self.client.and_then(|client| client.secret.cloned()),
            None => return Self::same(&self.tenants.shared.secrets, reference),
        };
        Ok(secret.unwrap_or_else(|| self.tenants.decoy.clone()))
    }

    fn is_of_sender(&self, secret: &Secret) -> bool {
        same(secret.expose(), self.tenants.decoy.expose())
    }

    fn text(&self, reference: &str) -> Result<String, String> {
        Self::same(&self.tenants.shared.texts, reference)
    }

    fn public_key(&self, reference: &str) -> Result<Option<String>, String> {
        match self.files.get(reference) {
            Some(None) => Ok(None),
            Some(Some(bytes)) => match String::from_utf8(bytes.clone()) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err("is not UTF-8 text".to_owned()),
            },
            None => self.text(reference).map(Some),
        }
    }

    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String> {
        let known = self.tenants.shared.key_sources.iter().find(|(known, _)| *known == remote);
        known.map(|(_, source)| source.clone()).ok_or_else(|| NOT_SEEN.to_owned())
    }

    fn signable(&self) -> Arc<Signable> {
        self.signable.clone()
    }

    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        Self::same(&self.tenants.shared.packs, name)
    }
}

#[cfg(test)]
mod tests;
