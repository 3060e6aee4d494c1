//! Configs as tests write them: only what matters to the test, the rest from here.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::gateway::{Ended, Gateway};
use super::{App, signed};

/// A route under construction. Its secrets are files, so that a test can change them.
#[derive(Clone, Debug)]
pub struct Route {
    pub value: Map<String, Value>,
    /// Settings of the one destination, beside `name` and `upstreams`.
    destination: Map<String, Value>,
    upstreams: Vec<String>,
    /// File name and content.
    pub secrets: Vec<(String, String)>,
}

/// A route for `provider` at `path` that verifies with `secret`.
pub fn provider(provider: &str, path: &str, secret: &str) -> Route {
    let name = path.rsplit('/').next().unwrap_or(provider).to_owned();
    let file = format!("{name}.secret");
    let value =
        json!({"name": name, "path": path, "provider": provider, "secret": format!("file:secrets/{file}")});
    let mut route = Route::new(value);
    route.secrets.push((file, secret.to_owned()));
    route
}

/// `/hooks/github`, to which [`signed::github`] sends.
pub fn github() -> Route {
    provider("github", "/hooks/github", signed::GITHUB_SECRET)
}

/// `/hooks/stripe`, to which [`signed::stripe`] sends.
pub fn stripe() -> Route {
    provider("stripe", "/hooks/stripe", signed::STRIPE_SECRET)
}

/// `/hooks/standard`, to which [`signed::standard_webhooks`] sends.
pub fn standard_webhooks() -> Route {
    provider("standard-webhooks", "/hooks/standard", signed::STANDARD_SECRET)
}

/// A route that takes anything, and says so.
pub fn unverified(path: &str) -> Route {
    let name = path.trim_matches(['/', '*']).replace('/', "-");
    Route::new(json!({"name": name, "path": path, "verify": "none"}))
}

/// Everything below `/app/`, streamed through.
pub fn pass() -> Route {
    Route::new(json!({"name": "pass", "path": "/app/*", "mode": "pass"}))
}

impl Route {
    pub fn new(value: Value) -> Self {
        let Value::Object(value) = value else { panic!("a route is an object") };
        Self { value, destination: Map::new(), upstreams: vec![], secrets: vec![] }
    }

    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.value.insert(key.into(), value.into());
        self
    }
    pub fn named(self, name: &str) -> Self {
        self.set("name", name)
    }
    pub fn mode(self, mode: &str) -> Self {
        self.set("mode", mode)
    }
    pub fn secret(mut self, file: &str, secret: &str) -> Self {
        self.secrets.push((file.into(), secret.into()));
        self
    }

    /// Where it forwards to; several calls give several upstreams.
    pub fn to(self, app: &App) -> Self {
        self.forwards_to(&app.url())
    }
    pub fn forwards_to(mut self, url: &str) -> Self {
        self.upstreams.push(url.into());
        self
    }

    /// A setting of the destination (`retry`, `timeout`, …).
    pub fn delivery(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.destination.insert(key.into(), value.into());
        self
    }
    /// Retries soon and often, and spares the app for a moment only: for tests in which it is sick so long.
    pub fn impatient(self) -> Self {
        self.delivery("retry", json!({"first": "20ms", "max": "200ms", "attempts": 10_000}))
            .delivery("breaker", json!({"probe_after": "100ms", "slow_start": "0s"}))
    }

    fn finished(&self) -> Value {
        let mut value = self.value.clone();
        if !self.upstreams.is_empty() {
            let mut destination = self.destination.clone();
            destination.insert("name".into(), "app".into());
            destination.insert("upstreams".into(), self.upstreams.clone().into());
            value.insert("forward_to".into(), json!([destination]));
        }
        Value::Object(value)
    }
}

/// A gateway under construction: a plain and a TLS listener, an admin API, a store of its own.
#[derive(Clone, Debug, Default)]
pub struct GatewayBuilder {
    pub routes: Vec<Route>,
    /// Top-level sections, merged over the harness's own.
    pub sections: Map<String, Value>,
    /// Keys of both listeners.
    pub listener: Map<String, Value>,
    pub environment: Vec<(String, String)>,
    pub files: Vec<(PathBuf, String)>,
    pub fault: Option<Fault>,
}

pub fn gateway() -> GatewayBuilder {
    GatewayBuilder::default()
}

impl GatewayBuilder {
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }
    /// A top-level section (`limits`, `buffer`, …); its keys replace the harness's one by one.
    pub fn section(mut self, name: &str, value: Value) -> Self {
        self.sections.insert(name.into(), value);
        self
    }
    pub fn listener(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.listener.insert(key.into(), value.into());
        self
    }
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
    /// A file in the gateway's folder.
    pub fn file(mut self, path: &str, content: &str) -> Self {
        self.files.push((path.into(), content.into()));
        self
    }
    /// Disk operations of the gateway go through the shim and fail when told to.
    pub fn fault(mut self, fault: &Fault) -> Self {
        self.fault = Some(fault.clone());
        self
    }
    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gateway {
        match self.try_start().await {
            Ok(gateway) => gateway,
            Err(ended) => panic!("the gateway ended with {:?}:\n{}", ended.code, ended.output),
        }
    }

    /// Starts it; `Err` if it ends instead of becoming ready.
    pub async fn try_start(self) -> Result<Gateway, Ended> {
        Gateway::start(self).await
    }

    /// The whole config. JSON is YAML, too.
    pub fn config(&self, ports: Ports) -> String {
        let listener = |port: u16, tls: Option<Value>| {
            let mut listener = self.listener.clone();
            listener.insert("address".into(), format!("127.0.0.1:{port}").into());
            if let Some(tls) = tls {
                listener.entry("tls").or_insert(tls);
            } else {
                listener.remove("tls");
            }
            Value::Object(listener)
        };
        let tls = json!({"cert": "tls/server.pem", "key": "tls/server.key"});
        let mut config = json!({
            "listeners": [listener(ports.plain, None), listener(ports.tls, Some(tls))],
            "admin": {"listen": format!("127.0.0.1:{}", ports.admin)},
            // Small machines run these tests: what the volume has free is not their subject.
            "buffer": {"path": "buffer", "min_free": "1MiB"},
            "log": {"format": "json", "level": "info"},
            "routes": self.routes.iter().map(Route::finished).collect::<Vec<_>>(),
        });
        for (section, value) in &self.sections {
            match (config.get_mut(section), value) {
                (Some(Value::Object(ours)), Value::Object(theirs)) => ours.extend(theirs.clone()),
                _ => config[section] = value.clone(),
            }
        }
        format!("{config:#}\n")
    }
}

/// Where a gateway listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub plain: u16,
    pub tls: u16,
    pub admin: u16,
}

impl Ports {
    pub fn free() -> Self {
        Self { plain: super::free_port(), tls: super::free_port(), admin: super::free_port() }
    }
}
