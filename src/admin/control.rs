//! All that the admin API needs of the gateway; tests put their own in its place.

use std::sync::Arc;

use async_trait::async_trait;

use crate::buffer::Buffer;
use crate::clock::Timestamp;
use crate::config::{AdminAddress, Config};
use crate::gateway::{Gateway, LastReload, NotReady, Reloaded};
use crate::keys::KeySetStatus;
use crate::quarantine::{Item, Quarantine};
use crate::ranges::RangesStatus;
use crate::receive::{self, Admission, Force, Recheck};
use crate::secret::Secret;
use crate::telemetry::Metrics;

use super::redact::Redact;
use super::views::{DestinationSetup, ListenerSetup, RouteSetup, Setup};

#[async_trait]
pub trait Control: Send + Sync + 'static {
    fn buffer(&self) -> &Arc<dyn Buffer>;
    fn metrics(&self) -> &Arc<Metrics>;
    fn now(&self) -> Timestamp;
    fn readiness(&self) -> NotReady;
    /// The token that the running config asks for.
    fn token(&self) -> Option<Secret>;
    fn setup(&self) -> Setup;
    /// What of a route's events is not shown; by names alone if there is no such route any more.
    fn redact(&self, route: &str) -> Redact;
    async fn reload(&self) -> Result<Reloaded, String>;
    fn quarantine(&self) -> &Arc<Quarantine>;
    /// Would this be verified now?
    fn recheck(&self, item: &Item) -> Recheck;
    /// Puts it into the buffer, if it is verified now or by force; it stays in quarantine.
    async fn admit(&self, item: &Item, force: Force) -> Admission;
    /// The latest reload since the start, if there was one.
    fn last_reload(&self) -> Option<LastReload>;
    /// How fresh the remote key sets are.
    fn key_sets(&self) -> Vec<KeySetStatus>;
    /// Which ranges of providers are in use.
    fn ranges(&self) -> Vec<RangesStatus>;
}

#[async_trait]
impl Control for Gateway {
    fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }
    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn readiness(&self) -> NotReady {
        Gateway::readiness(self)
    }
    fn token(&self) -> Option<Secret> {
        self.snapshot.load().config.admin.token.clone()
    }
    fn setup(&self) -> Setup {
        setup(&self.snapshot.load().config)
    }
    fn redact(&self, route: &str) -> Redact {
        let snapshot = self.snapshot.load();
        let route = snapshot.config.routes.iter().find(|r| &*r.name == route);
        route.map_or_else(Redact::default, |route| {
            Redact::new(route.verify.headers_used().to_vec(), route.verify.credentials_in().clone())
        })
    }
    async fn reload(&self) -> Result<Reloaded, String> {
        Gateway::reload(self).await
    }
    fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }
    fn recheck(&self, item: &Item) -> Recheck {
        receive::recheck(&self.snapshot.load(), item)
    }
    async fn admit(&self, item: &Item, force: Force) -> Admission {
        receive::admit(self, item, force).await
    }
    fn last_reload(&self) -> Option<LastReload> {
        Gateway::last_reload(self)
    }
    fn key_sets(&self) -> Vec<KeySetStatus> {
        Gateway::key_sets(self)
    }
    fn ranges(&self) -> Vec<RangesStatus> {
        Gateway::ranges(self)
    }
}

/// What of a config may be shown: no secret, no rule.
fn setup(config: &Config) -> Setup {
    Setup {
        config_hash: config.hash.clone(),
        admin: match &config.admin.listen {
            AdminAddress::Tcp(address) => address.to_string(),
            AdminAddress::Unix(path) => format!("unix:{}", path.display()),
            AdminAddress::Off => "off".into(),
        },
        listeners: config
            .listeners
            .iter()
            .map(|l| ListenerSetup { address: l.address.to_string(), tls: l.tls.is_some() })
            .collect(),
        routes: config
            .routes
            .iter()
            .map(|route| RouteSetup {
                name: route.name.to_string(),
                host: route.host.clone(),
                path: route.path.clone(),
                methods: route.methods.iter().map(ToString::to_string).collect(),
                mode: route.mode.word().to_owned(),
                verification: route.verification().to_owned(),
                destinations: route
                    .mode
                    .destinations()
                    .iter()
                    .map(|d| DestinationSetup {
                        name: d.name.to_string(),
                        upstreams: d.upstreams.iter().map(upstream).collect(),
                        concurrency: d.concurrency,
                    })
                    .collect(),
            })
            .collect(),
    }
}

/// An upstream's URL without user info and query, which may hold secrets.
fn upstream(uri: &http::Uri) -> String {
    let authority = uri.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default());
    format!("{}://{}{}", uri.scheme_str().unwrap_or("http"), authority.unwrap_or_default(), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_an_upstream_url_are_not_shown() {
        let uri = "https://user:pass@app.example.com:8443/in?key=secret".parse().unwrap();
        assert_eq!(upstream(&uri), "https://app.example.com:8443/in");
    }
}
