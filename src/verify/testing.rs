//! Requests and a world for tests of this and neighbouring modules.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{
    Compiled, Explanation, Extract, KeySource, Lacking, Lookup, NoKeys, Remote, Resolver, Settled, Signable,
    VerifySpec, compile,
};
use crate::clock::Timestamp;
use crate::message::{Head, Headers, Method, PathParams, Request, Scheme, Version};
use crate::providers::Pack;
use crate::secret::Secret;

/// A POST to `https://hooks.example.com` and `target`.
pub(crate) fn request(target: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
    Request {
        head: Head {
            method: Method::POST,
            target: target.to_owned(),
            authority: "hooks.example.com".to_owned(),
            asked_authority: None,
            scheme: Scheme::Https,
            version: Version::Http11,
            headers: headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect::<Headers>(),
            peer: ([127, 0, 0, 1], 1).into(),
            client: IpAddr::from([127, 0, 0, 1]),
            local: ([127, 0, 0, 1], 2).into(),
            received_at: Timestamp(0),
        },
        params: PathParams::default(),
        body: body.to_vec().into(),
    }
}

/// A rule as it is written, which is good.
pub(crate) fn compiled(rule: &str) -> Compiled {
    let spec: VerifySpec = serde_saphyr::from_str(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    compile(&spec, &World::default()).unwrap_or_else(|problems| panic!("{rule}: {problems:?}"))
}

/// What becomes of a request on a route with this rule, beside another route's.
pub(crate) fn explained(rule: &str, request: &Request, now: Timestamp) -> Explanation {
    let other = compiled("{ provider: github, secret: the-secret-of-another-route-0123456789 }");
    compiled(rule).verifier.explain(request, None, now, &[("other", &other.verifier)])
}

/// What was looked at, a line each.
pub(crate) fn steps(explanation: &Explanation) -> String {
    let steps = explanation.ways.iter().flat_map(|way| &way.steps);
    steps.map(|step| format!("{}: {}\n", step.what, step.text)).collect()
}

/// A world in which secrets and texts are what they say, unless they are `env:NAME` of a known variable.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) packs: BTreeMap<String, Arc<Pack>>,
    pub(crate) keys: Option<Arc<dyn KeySource>>,
    /// What would be fetched, by URL; what is not here fails.
    pub(crate) documents: BTreeMap<String, String>,
    /// When it would be fetched.
    pub(crate) now: Timestamp,
    pub(crate) signable: Arc<Signable>,
}

/// Answers of which each is read when it is asked for.
#[derive(Debug)]
struct Documents {
    remote: Remote,
    texts: BTreeMap<String, String>,
    now: Timestamp,
}

impl KeySource for Documents {
    fn lookup(&self, name: &str, _: std::net::IpAddr) -> Lookup {
        let Some(url) = self.remote.address.of(name) else { return Lookup::Absent };
        let read = self.texts.get(&url.to_string()).map(|text| self.remote.read(text.as_bytes(), self.now));
        match read {
            Some(Ok(document)) => Lookup::Known(Arc::new(document)),
            _ => Lookup::Failing,
        }
    }
    fn lacks(&self, _: &str) -> Lacking {
        Lacking::Fresh
    }
    fn settled(&self, name: &str) -> Settled {
        NoKeys.settled(name)
    }
}

impl World {
    fn get(&self, reference: &str) -> Result<String, String> {
        match reference.strip_prefix("env:") {
            Some(name) => self.env.get(name).cloned().ok_or_else(|| format!("`{name}` is not set")),
            None => Ok(reference.to_owned()),
        }
    }
}

impl Resolver for World {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        self.get(reference).map(|text| Secret::new(text.into_bytes()))
    }
    fn text(&self, reference: &str) -> Result<String, String> {
        self.get(reference)
    }
    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String> {
        match &self.keys {
            Some(keys) => Ok(keys.clone()),
            None => Ok(Arc::new(Documents { remote, texts: self.documents.clone(), now: self.now })),
        }
    }
    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        match self.packs.get(name) {
            Some(pack) => Ok(pack.clone()),
            None => crate::providers::find(name),
        }
    }
    fn signable(&self) -> Arc<Signable> {
        self.signable.clone()
    }
}

/// The idempotency key of a request on a route that has this one.
pub(crate) fn key_of(key: Extract, request: &Request) -> String {
    let window = std::time::Duration::from_secs(60);
    crate::config::Idempotency { key: Some(key), by_query: false, window }.key_of(request).into_text()
}
