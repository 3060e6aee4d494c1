//! Keys that live elsewhere, as verification sees them: how a document is asked for, what may be read out of it, and
//! what is known now. Pure: who fetches, caches and refreshes is `crate::keys`, behind [`KeySource`].

mod address;
mod certificate;
mod document;
mod jwks;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::refusal::Refusal;
use crate::reason::Reason;
use crate::secret::Secret;

pub(super) use address::checked as checked_url;
pub use address::{Address, Fill, UrlPattern};
pub use certificate::{CertificateRule, Roots};
pub(super) use certificate::{X5c, x5c_key};
pub use document::{Document, Format, RemoteKey, Unreadable};
pub(crate) use jwks::parse as parse_jwks;

/// How keys are asked for and read: all that the fetching side needs to know, pinned by config or pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    pub address: Address,
    /// A JSON body, which is then sent by POST. `{key}` in it stands for the key's name.
    pub post: Option<Fill>,
    /// Headers of the request, such as an API key.
    pub headers: Vec<(String, Secret)>,
    /// A token that is got first and sent along (OAuth 2, client credentials).
    pub oauth: Option<Oauth>,
    pub format: Format,
    /// Roots (PEM) that are trusted for the connection instead of the public ones.
    pub ca: Option<Arc<str>>,
}

/// Client credentials of OAuth 2 (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct Oauth {
    pub url: http::Uri,
    pub client_id: String,
    pub client_secret: Secret,
    pub scope: Option<String>,
}

/// What is known of a document now.
#[derive(Clone, Debug)]
pub enum Lookup {
    Known(Arc<Document>),
    /// Its issuer says that there is none of this name, or the name leads where keys are not fetched from.
    Absent,
    /// It is not known yet and being fetched: [`KeySource::settled`] tells when that has ended.
    Asked,
    /// It is not known and can't be fetched now; it is tried again in the background.
    Failing,
}

/// What becomes of a known document that lacks a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// It was fetched lately: there is no such key.
    Fresh,
    /// It is being fetched anew.
    Asked,
    /// It is old and can't be fetched now.
    Failing,
}

/// Completes when a fetch has ended, well or not.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Documents that are fetched, cached and refreshed elsewhere. None of its methods blocks.
pub trait KeySource: Send + Sync + std::fmt::Debug {
    /// What is known of the document of this name (empty where the address is fixed), which is asked for if it is not
    /// known, for a request of this client: each has its share of what is looked for.
    fn lookup(&self, name: &str, asker: IpAddr) -> Lookup;
    /// Tells that a known document lacks a key that a request names, so that a refresh may be worth its while.
    fn lacks(&self, name: &str) -> Lacking;
    /// Completes at once if nothing is being fetched.
    fn settled(&self, name: &str) -> Settled;
    /// Tells that a key of the document of this name has verified something: it is one that a genuine sender names.
    fn proved(&self, _name: &str) {}
}

/// A source that has nothing and fetches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl KeySource for NoKeys {
    fn lookup(&self, _: &str, _: IpAddr) -> Lookup {
        Lookup::Failing
    }
    fn lacks(&self, _: &str) -> Lacking {
        Lacking::Failing
    }
    fn settled(&self, _: &str) -> Settled {
        Box::pin(std::future::ready(()))
    }
}

/// One document that never changes, such as a key set in a file.
#[derive(Debug)]
pub(super) struct FixedKeys(pub(super) Arc<Document>);

impl KeySource for FixedKeys {
    fn lookup(&self, _: &str, _: IpAddr) -> Lookup {
        Lookup::Known(self.0.clone())
    }
    fn lacks(&self, _: &str) -> Lacking {
        Lacking::Fresh
    }
    fn settled(&self, name: &str) -> Settled {
        NoKeys.settled(name)
    }
}

/// The document that a decision waits for.
#[derive(Clone, Debug)]
pub struct Need {
    source: Arc<dyn KeySource>,
    name: Box<str>,
}

impl Need {
    /// Completes when the fetch that is under way has ended: then the same request may be decided anew.
    pub fn settled(&self) -> Settled {
        self.source.settled(&self.name)
    }
}

impl PartialEq for Need {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.source, &other.source) && self.name == other.name
    }
}

impl Eq for Need {}

/// The document, or the refusal that says why there is none: 503 where a retry may help, 401 (`absent`) where not.
pub(super) fn known(
    source: &Arc<dyn KeySource>,
    name: &str,
    asker: IpAddr,
    absent: Reason,
) -> Result<Arc<Document>, Refusal> {
    match source.lookup(name, asker) {
        Lookup::Known(document) => Ok(document),
        Lookup::Absent => Err(Refusal::new(absent, "the key that the request names is not its issuer's")),
        Lookup::Asked => Err(needed(source, name, "the key has not been fetched yet")),
        Lookup::Failing => Err(Refusal::new(Reason::KeyUnavailable, "the key can't be fetched now")),
    }
}

/// The refusal for a key that `document` lacks.
pub(super) fn lacking(source: &Arc<dyn KeySource>, name: &str, absent: Refusal) -> Refusal {
    match source.lacks(name) {
        Lacking::Fresh => absent,
        Lacking::Asked => {
            needed(source, name, "the named key is not known, and the keys are being fetched anew")
        }
        Lacking::Failing => Refusal::new(
            Reason::KeyUnavailable,
            "the named key is not known, and the keys can't be fetched now",
        ),
    }
}

fn needed(source: &Arc<dyn KeySource>, name: &str, detail: &str) -> Refusal {
    let need = Need { source: source.clone(), name: name.into() };
    Refusal { needs: Some(need), ..Refusal::new(Reason::KeyUnavailable, detail) }
}

impl Remote {
    /// A key set at a fixed address.
    pub fn jwks(url: http::Uri) -> Self {
        Self {
            address: Address::Fixed(url),
            post: None,
            headers: Vec::new(),
            oauth: None,
            format: Format::JWKS,
            ca: None,
        }
    }

    /// What tells it from others: a digest of all that it says, secrets too.
    pub fn identity(&self) -> [u8; 32] {
        let Self { address, post, headers, oauth, format, ca } = self;
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        // Secrets print as nothing, so they are added apart.
        add(format!("{address:?} {post:?} {headers:?} {oauth:?} {format:?} {ca:?}").as_bytes());
        let secrets = headers.iter().map(|(_, value)| value);
        let secrets = secrets.chain(post.iter().map(|Fill(text)| text));
        for secret in secrets.chain(oauth.iter().map(|oauth| &oauth.client_secret)) {
            add(secret.expose());
        }
        digest.finalize().into()
    }

    /// What logs, metrics and `status` call it: its address, without what is filled in.
    pub fn shown(&self) -> String {
        self.address.to_string()
    }
}
