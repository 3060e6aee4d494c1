//! URLs of clients' own: which client a path's `{endpoint}` is of, and issuing, rotating and revoking them.
//!
//! A URL holds 160 random bits; only their SHA-256 is kept, so that whoever reads the buffer can't send: behind
//! verification [`HIDDEN`] stands in their place, in events and in what is refused, for the app, too. A secret that a
//! client signs with must be kept as it is, because a signature is checked with it: in the buffer, whose folder only its
//! owner may read. All of it is in memory (bounded by [`MAX`]), so that a request costs one hash and one lookup; each change
//! is on disk, synced, before it counts. An old URL that has ended is nobody's at once, and the buffer's housekeeping drops
//! its record.

mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::buffer::{Buffer, BufferError, EndpointChange};
use crate::clock::{Clock, Timestamp};
use crate::secret::{NoRandomness, Secret, random, random_text, same};
use crate::tenants::Needs;

use record::Hash;

/// The parameter of a route's path that holds what only a client's URL has.
pub const ENDPOINT: &str = "endpoint";

/// What stands in a path in the place of what only a client's URL has, once it has been looked up. Nobody's token.
pub const HIDDEN: &str = "endpoint";

/// Endpoints at once, old ones that still work included.
pub const MAX: usize = 100_000;
/// Longest name of a client, in bytes.
pub const MAX_NAME: usize = 64;
/// How long an old URL may be kept beside its successor.
pub const MAX_KEEP: Duration = Duration::from_secs(90 * 24 * 3600);

/// Random bytes in a URL.
const TOKEN: usize = 20;

/// A client's URL, without what only the client knows.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The name of its route.
    pub route: Arc<str>,
    pub client: Arc<str>,
    /// Unique; says nothing of the URL.
    pub id: Arc<str>,
    /// What the client signs with, if its route's rule asks for it.
    pub secret: Option<Secret>,
    pub created_at: Timestamp,
    /// When it ends; `None` for the one that is not replaced.
    pub until: Option<Timestamp>,
    hash: Hash,
}

impl Endpoint {
    fn is_live(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
    fn is_of(&self, route: &str, client: &str) -> bool {
        *self.route == *route && *self.client == *client
    }
}

/// A new URL. What is secret of it is nowhere else, so it can be shown only now.
#[derive(Debug)]
pub struct Issued {
    pub endpoint: Arc<Endpoint>,
    /// What stands in the path.
    pub token: String,
    /// How long the URL from before works on, if there is one.
    pub old_until: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("{0} has a URL for this route already: rotate it, or revoke it first")]
    Exists(Arc<str>),
    #[error("{0} has no URL for this route: create one")]
    Unknown(Arc<str>),
    #[error("a client's name has letters, digits, `.`, `_` and `-`, at most {MAX_NAME}")]
    BadName,
    #[error("an old URL can be kept for at most {} days", MAX_KEEP.as_secs() / 86_400)]
    KeptTooLong,
    #[error("there are {MAX} URLs already: revoke some")]
    TooMany,
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// All endpoints. Shared by all threads, lives as long as the process.
pub struct Endpoints {
    buffer: Arc<dyn Buffer>,
    clock: Clock,
    /// By the first half of their hashes: how far two of those agree may show in the time of a lookup, and helps nobody
    /// to find what has them.
    known: RwLock<HashMap<[u8; 16], Arc<Endpoint>>>,
    /// One change at a time, so that what is on disk is what is known.
    changing: tokio::sync::Mutex<()>,
}

impl Endpoints {
    /// Knows none before [`load`](Self::load).
    pub fn new(buffer: Arc<dyn Buffer>, clock: Clock) -> Self {
        Self { buffer, clock, known: RwLock::default(), changing: tokio::sync::Mutex::new(()) }
    }

    /// Reads what the buffer has. To be called before requests are taken.
    pub async fn load(&self) -> Result<(), BufferError> {
        let _one_at_a_time = self.changing.lock().await;
        let stored = self.buffer.endpoints().await?;
        let read =
            stored.into_iter().map(|stored| record::read(stored).map(|e| (half(&e.hash), Arc::new(e))));
        *self.known.write() = read.collect::<Result<_, _>>().map_err(BufferError::Damaged)?;
        Ok(())
    }

    /// Whose URL it is. The same work for what is known and for what is not.
    pub fn find(&self, route: &str, token: &str) -> Option<Arc<Endpoint>> {
        let hash = record::hash(token);
        let known = self.known.read();
        let endpoint = known.get(&half(&hash))?;
        (same(&endpoint.hash, &hash) && *endpoint.route == *route && endpoint.is_live(self.clock.now()))
            .then(|| endpoint.clone())
    }

    /// The URL that was used, by its id, while it works. Looks at all of them.
    pub fn by_id(&self, route: &str, id: &str) -> Option<Arc<Endpoint>> {
        let (known, now) = (self.known.read(), self.clock.now());
        known.values().find(|e| *e.id == *id && *e.route == *route && e.is_live(now)).cloned()
    }

    /// A path that led nowhere, for the log: without what only a client's URL has, of which it may be a slip. `None` if there
    /// is nothing of that kind in it.
    pub fn hidden(&self, path: &str) -> Option<String> {
        let known = self.known.read();
        if known.is_empty() {
            return None;
        }
        let mut is_one = false;
        let segments = path.split('/').map(|segment| {
            let found = segment.len() == 2 * TOKEN && known.contains_key(&half(&record::hash(segment)));
            is_one |= found;
            if found { HIDDEN } else { segment }
        });
        let path = segments.collect::<Vec<_>>().join("/");
        is_one.then_some(path)
    }

    /// Those that work now, by route, client and age. Without their secrets nobody else can use them.
    pub fn list(&self) -> Vec<Arc<Endpoint>> {
        let now = self.clock.now();
        let mut all: Vec<_> = self.known.read().values().filter(|e| e.is_live(now)).cloned().collect();
        all.sort_by(|a, b| {
            (&a.route, &a.client, a.created_at, &a.id).cmp(&(&b.route, &b.client, b.created_at, &b.id))
        });
        all
    }

    /// The first URL of a client. Durable on return.
    pub async fn create(&self, route: &str, client: &str, needs: Needs) -> Result<Issued, EndpointError> {
        if !is_name(client) {
            return Err(EndpointError::BadName);
        }
        let _one_at_a_time = self.changing.lock().await;
        if self.current(route, client).is_some() {
            return Err(EndpointError::Exists(client.into()));
        }
        self.issue(route, client, needs, None).await
    }

    /// Another URL, and another secret, for a client; the one from before works for `keep` longer. Durable on return.
    pub async fn rotate(
        &self,
        route: &str,
        client: &str,
        needs: Needs,
        keep: Duration,
    ) -> Result<Issued, EndpointError> {
        if keep > MAX_KEEP {
            return Err(EndpointError::KeptTooLong);
        }
        let _one_at_a_time = self.changing.lock().await;
        let current = self.current(route, client).ok_or_else(|| EndpointError::Unknown(client.into()))?;
        let until = self.clock.now().saturating_add(keep);
        self.issue(route, client, needs, Some(Endpoint { until: Some(until), ..(*current).clone() })).await
    }

    /// Ends all URLs of a client. How many there were. Durable on return; if it fails they have ended all the same, but come
    /// back with the next start.
    pub async fn revoke(&self, route: &str, client: &str) -> Result<usize, EndpointError> {
        let _one_at_a_time = self.changing.lock().await;
        let ended: Vec<Hash> =
            self.list().iter().filter(|e| e.is_of(route, client)).map(|endpoint| endpoint.hash).collect();
        if ended.is_empty() {
            return Err(EndpointError::Unknown(client.into()));
        }
        // Not only when it is on disk: a URL that is to end must not go on because the disk is sick.
        self.known.write().retain(|_, endpoint| !ended.contains(&endpoint.hash));
        let count = ended.len();
        self.buffer.change_endpoints(ended.into_iter().map(EndpointChange::Remove).collect()).await?;
        Ok(count)
    }

    fn current(&self, route: &str, client: &str) -> Option<Arc<Endpoint>> {
        self.known.read().values().find(|e| e.until.is_none() && e.is_of(route, client)).cloned()
    }

    /// `old` takes the place of the one that it was.
    async fn issue(
        &self,
        route: &str,
        client: &str,
        needs: Needs,
        old: Option<Endpoint>,
    ) -> Result<Issued, EndpointError> {
        let now = self.clock.now();
        self.known.write().retain(|_, endpoint| endpoint.is_live(now));
        if self.known.read().len() >= MAX {
            return Err(EndpointError::TooMany);
        }
        let token = hex::encode(*random::<TOKEN>()?);
        let hash = record::hash(&token);
        let endpoint = Endpoint {
            route: route.into(),
            client: client.into(),
            id: hex::encode(&hash[..8]).into(),
            secret: match needs {
                Needs::Nothing => None,
                Needs::Secret => Some(random_text()?),
            },
            created_at: now,
            until: None,
            hash,
        };
        let old_until = old.as_ref().and_then(|old| old.until);
        let (endpoint, old) = (Arc::new(endpoint), old.map(Arc::new));
        let changed = || old.iter().chain([&endpoint]);
        let changes = changed().map(|changed| EndpointChange::Put(record::written(changed))).collect();
        self.buffer.change_endpoints(changes).await?;
        self.known.write().extend(changed().map(|changed| (half(&changed.hash), changed.clone())));
        Ok(Issued { endpoint, token, old_until })
    }
}

fn half(hash: &Hash) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

#[cfg(test)]
mod tests;
