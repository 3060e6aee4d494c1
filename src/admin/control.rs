//! All that the admin API needs of the gateway; tests put their own in its place.

use std::sync::Arc;

use async_trait::async_trait;

use crate::alerts::{AlertsStatus, Tested};
use crate::breaker::BreakerStatus;
use crate::buffer::{Buffer, BufferError, DestinationName, Event, NewClaim};
use crate::clock::Timestamp;
use crate::config::{AdminAddress, Clients, Config, Hours, Route};
use crate::endpoints::{ENDPOINT, Endpoints};
use crate::gateway::{Gateway, LastReload, NotReady, Reloaded};
use crate::jobs::Jobs;
use crate::keys::KeySetStatus;
use crate::message::{PathParams, host_of};
use crate::pauses::Paused;
use crate::quarantine::{Item, Quarantine};
use crate::ranges::RangesStatus;
use crate::receive::{self, Admission, Force, Recheck};
use crate::redact::HIDDEN;
use crate::route::{Match, PathPattern, Segment};
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::tenants::Needs;
use crate::upstream::ServerStatus;
use crate::verify::{Expiry, Extract, nearest};

use super::redact::Redact;
use super::views::{DestinationSetup, ListenerSetup, RouteSetup, Setup};

/// What of a route its clients' URLs depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRoute {
    /// The path, with its parameters.
    pub path: String,
    /// Scheme and host, as far as the config says them.
    pub origin: Option<String>,
    pub needs: Needs,
}

/// Why a route gives no URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEndpoints {
    NoRoute {
        /// What may have been meant.
        near: Option<String>,
    },
    /// It does not say `clients: endpoints`.
    NotAsked,
}

#[async_trait]
pub trait Control: Send + Sync + 'static {
    fn buffer(&self) -> &Arc<dyn Buffer>;
    /// The claim of an event that comes from another buffer, as far as it would stand still. The error says why the
    /// running config does not take such events.
    fn claim_of(&self, event: &Event) -> Result<Option<NewClaim>, String>;
    /// The order key of an event of this destination, as the running config finds it.
    fn order_key(&self, destination: &DestinationName, event: &Event) -> Option<String>;
    fn jobs(&self) -> &Jobs;
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
    async fn recheck(&self, item: &Item) -> Recheck;
    /// Puts it into the buffer, if it is verified now or by force; it stays in quarantine.
    async fn admit(&self, item: &Item, force: Force) -> Admission;
    /// The latest reload since the start, if there was one.
    fn last_reload(&self) -> Option<LastReload>;
    /// How fresh the remote key sets are.
    fn key_sets(&self) -> Vec<KeySetStatus>;
    /// What is wrong, and who is told.
    fn alerts(&self) -> AlertsStatus;
    /// Tells everybody a test.
    async fn test_alerts(&self) -> Vec<Tested>;
    fn endpoints(&self) -> &Endpoints;
    /// What of a route clients' URLs depend on; the error says why it gives none.
    fn endpoint_route(&self, route: &str) -> Result<EndpointRoute, NoEndpoints>;
    /// Secrets that have an end, with their routes.
    fn expiries(&self) -> Vec<(Arc<str>, Expiry)>;
    /// Which ranges of providers are in use.
    fn ranges(&self) -> Vec<RangesStatus>;
    /// Which destinations are spared, and why.
    fn breakers(&self) -> Vec<BreakerStatus>;
    /// How the servers of each destination stand.
    fn servers(&self) -> Vec<(DestinationName, Vec<ServerStatus>)>;
    /// What an operator has paused.
    fn paused(&self) -> Paused;
    async fn pause(&self, name: &str) -> Result<bool, BufferError>;
    async fn resume(&self, name: &str) -> Result<bool, BufferError>;
    /// Destinations that their schedule keeps closed now, and until when.
    fn closed(&self) -> Vec<(DestinationName, Timestamp)>;
}

/// The places that an identity is taken from, as they stand in the config.
fn places(of: Option<&Extract>) -> Vec<String> {
    let text = of.map(ToString::to_string).unwrap_or_default();
    text.split(" | ").flat_map(|part| part.split(" + ")).map(str::to_owned).collect()
}

#[async_trait]
impl Control for Gateway {
    fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }
    fn claim_of(&self, event: &Event) -> Result<Option<NewClaim>, String> {
        let snapshot = self.snapshot.load();
        let config = &snapshot.config;
        let at = config.routes.iter().position(|route| route.name == event.route);
        let at = at.ok_or_else(|| format!("the running config has no route `{}`", event.route))?;
        // Of a path that leads elsewhere by now there are none.
        let path = event.target.split('?').next().unwrap_or_default();
        let params = match config.table.find(&host_of(&event.authority), path, &event.method) {
            Match::Route { index, params } if index == at => params,
            _ => PathParams::default(),
        };
        receive::claim_of(&config.routes[at], &params, event, self.clock.now())
    }
    fn order_key(&self, destination: &DestinationName, event: &Event) -> Option<String> {
        let snapshot = self.snapshot.load();
        let mut destinations = snapshot.config.routes.iter().flat_map(|route| route.mode.destinations());
        let order = destinations.find(|to| to.name == *destination)?.order.as_ref()?;
        let redact = self.redact(&event.route);
        let hidden = places(Some(&order.by)).iter().any(|place| redact.hides_place(place));
        order.key(event).map(|key| if hidden { HIDDEN.to_owned() } else { key })
    }
    fn jobs(&self) -> &Jobs {
        &self.jobs
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
        let unknown = || Redact::default().with_rules(snapshot.config.redact.clone(), &[], &[]);
        route.map_or_else(unknown, |route| {
            let key = places(route.idempotency.as_ref().and_then(|of| of.key.as_ref()));
            let kind = places(route.event_type.as_ref());
            Redact::new(route.verify.headers_used().to_vec(), route.verify.credentials_in().clone())
                .with_endpoint(endpoint_segment(route))
                .with_rules(route.redact.clone(), &key, &kind)
        })
    }
    async fn reload(&self) -> Result<Reloaded, String> {
        Gateway::reload(self).await
    }
    fn quarantine(&self) -> &Arc<Quarantine> {
        &self.quarantine
    }
    async fn recheck(&self, item: &Item) -> Recheck {
        receive::recheck(&self.snapshot.load_full(), &self.endpoints, item).await
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
    fn alerts(&self) -> AlertsStatus {
        self.alerts_status()
    }
    async fn test_alerts(&self) -> Vec<Tested> {
        Gateway::test_alerts(self).await
    }
    fn ranges(&self) -> Vec<RangesStatus> {
        Gateway::ranges(self)
    }
    fn breakers(&self) -> Vec<BreakerStatus> {
        self.breakers.status()
    }
    fn servers(&self) -> Vec<(DestinationName, Vec<ServerStatus>)> {
        let snapshot = self.snapshot.load();
        let mut all: Vec<_> =
            snapshot.upstreams.iter().map(|(name, of)| (name.clone(), of.servers())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
    fn paused(&self) -> Paused {
        self.pauses.all()
    }
    async fn pause(&self, name: &str) -> Result<bool, BufferError> {
        self.pauses.pause(name, self.clock.now()).await
    }
    async fn resume(&self, name: &str) -> Result<bool, BufferError> {
        self.pauses.resume(name).await
    }
    fn closed(&self) -> Vec<(DestinationName, Timestamp)> {
        let (snapshot, now) = (self.snapshot.load(), self.clock.now());
        let destinations = snapshot.config.routes.iter().flat_map(|route| route.mode.destinations());
        let closed = destinations.filter_map(|to| match to.deliver_between.as_ref()?.at(now) {
            Hours::Closed { until } => Some((to.name.clone(), until)),
            Hours::Open { .. } => None,
        });
        closed.collect()
    }
    fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }
    fn endpoint_route(&self, name: &str) -> Result<EndpointRoute, NoEndpoints> {
        let snapshot = self.snapshot.load();
        let routes = || snapshot.config.routes.iter();
        let Some(route) = routes().find(|route| &*route.name == name) else {
            let near = nearest(name, routes().map(|route| &*route.name)).map(str::to_owned);
            return Err(NoEndpoints::NoRoute { near });
        };
        if route.clients == Clients::Any {
            return Err(NoEndpoints::NotAsked);
        }
        // What of `public_url` is not its path.
        let public = route.public_url.as_ref().and_then(|url| url.parse::<http::Uri>().ok());
        let origin = public.and_then(|url| Some(format!("{}://{}", url.scheme_str()?, url.authority()?)));
        Ok(EndpointRoute {
            path: route.path.clone(),
            origin: origin.or_else(|| route.host.as_ref().map(|host| format!("https://{host}"))),
            needs: route.tenants.as_ref().map_or(Needs::Nothing, |tenants| tenants.needs()),
        })
    }
    fn expiries(&self) -> Vec<(Arc<str>, Expiry)> {
        self.snapshot.load().config.expiries()
    }
}

/// Where in the path stands what only a client's URL has.
fn endpoint_segment(route: &Route) -> Option<usize> {
    if route.clients == Clients::Any {
        return None;
    }
    let path = PathPattern::parse(&route.path).ok()?;
    path.segments().iter().position(|s| matches!(s, Segment::Parameter(name) if **name == *ENDPOINT))
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
                        rate: d.rate.map(|rate| rate.to_string()),
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
