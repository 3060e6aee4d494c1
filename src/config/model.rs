//! The checked config: what the rest of the program reads. States that make no sense can't be expressed here, and
//! nothing after start-up interprets strings again. How it is written is `raw`; how one becomes the other is `check`.

mod alerts;

pub use alerts::*;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};

use super::repeats::Idempotency;
use super::sign::{PathRewrite, Sign};
use crate::filter::Filter;
use crate::message::Method;
use crate::providers::Ranges;
use crate::providers::Refusals;
use crate::redact::Rules;
use crate::route::{Allow, Allowlist, LiveRanges, RouteTable};
use crate::seal::Keyring;
use crate::secret::Secret;
use crate::tenants::Tenants;
use crate::verify::{Expiry, Extract, Handshakes, Split, Verifier};

/// One immutable snapshot of everything that was asked for.
#[derive(Debug)]
pub struct Config {
    pub listeners: Vec<Listener>,
    /// Routes in the order written.
    pub routes: Vec<Arc<Route>>,
    /// Finds the route of a request; indexes into `routes`.
    pub table: RouteTable,
    pub limits: Limits,
    pub buffer: BufferSettings,
    /// `None`: nothing that is refused is kept.
    pub quarantine: Option<QuarantineSettings>,
    pub admin: AdminSettings,
    /// What is hidden of events whose route is not known any more.
    pub redact: Rules,
    pub alerts: AlertSettings,
    pub log: LogSettings,
    /// `None`: no traces are recorded.
    pub tracing: Option<TraceSettings>,
    pub shutdown: Shutdown,
    pub secrets: SecretSettings,
    /// How the ranges of providers are kept fresh.
    pub ranges: RangeSettings,
    /// What `allow: [provider]` asks for, each provider once.
    pub provider_ranges: Vec<ProviderRanges>,
    /// Worker threads of the edge (each with its own runtime).
    pub threads: usize,
    /// SHA-256 (hex) of the config files' bytes: which config runs, for `status`.
    pub hash: String,
}

impl Config {
    /// Secrets that have an end, with their routes, in the order written.
    pub fn expiries(&self) -> Vec<(Arc<str>, Expiry)> {
        let of = |route: &Arc<Route>| {
            let name = route.name.clone();
            route.verify.expiries().to_vec().into_iter().map(move |expiry| (name.clone(), expiry))
        };
        self.routes.iter().flat_map(of).collect()
    }
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub tls: Option<Tls>,
    /// Who may connect; unset: any address.
    pub allow: Allow,
    /// Whose `X-Forwarded-For` / `Forwarded` is believed.
    pub trusted_hops: Allowlist,
}

#[derive(Clone, Debug)]
pub struct Tls {
    /// The first is for clients without SNI and for unknown names.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    /// Make a self-signed certificate at these paths if neither file exists.
    pub generate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A provider whose ranges are asked for.
#[derive(Clone, Debug)]
pub struct ProviderRanges {
    /// The pack's name.
    pub provider: String,
    pub ranges: Arc<Ranges>,
    /// Begins with the pack's snapshot; who runs the config keeps it fresh.
    pub live: Arc<LiveRanges>,
}

/// How the ranges of providers are kept fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSettings {
    /// Between two fetches. Default 24 h.
    pub refresh: Duration,
    /// Percent of the ranges in use that a new list may lack. Default 50.
    pub max_shrink: u8,
    /// Trust these roots (PEM) instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Fetch nothing: what is on disk counts, else the snapshot.
    pub offline: bool,
}

impl Default for RangeSettings {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(24 * 3600), max_shrink: 50, ca: None, offline: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Limits of the edge; each has a documented answer (see `Reason`).
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open connections, all listeners together. Default 10 000.
    pub connections: usize,
    /// Requests on one connection before it is closed. Default 10 000.
    pub requests_per_connection: u32,
    /// Header fields of a request. Default 100.
    pub header_count: usize,
    /// Bytes of the whole header block. Default 32 KiB.
    pub header_bytes: usize,
    /// Bytes of the request target. Default 8 KiB.
    pub uri_bytes: usize,
    /// Bytes of a body, where the route says nothing. Default 10 MiB.
    pub body_bytes: u64,
    /// Bytes of all bodies held in memory at once; beyond it 503. Default 256 MiB.
    pub body_budget: u64,
    /// From the first byte of a request (or the end of the TLS handshake) to the end of its header. Default 10 s.
    pub header_timeout: Duration,
    /// From the end of the header to the end of the body. Default 30 s.
    pub body_timeout: Duration,
    /// A TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// An idle keep-alive connection. Default 60 s.
    pub idle_timeout: Duration,
    /// How long a request waits for a key that is being fetched.
    pub key_wait: Duration,
    /// Concurrent HTTP/2 streams a connection. Default 100.
    pub h2_streams: u32,
}

#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// `None`: any host. Lower case.
    pub host: Option<String>,
    /// As written: exact, `{parameter}`s, or ending in `/*`.
    pub path: String,
    /// Empty: any method but CONNECT and TRACE.
    pub methods: Vec<Method>,
    /// Methods that only greetings have: a request with one of them is never an event.
    pub greeting_methods: Vec<Method>,
    /// `None`: any address.
    pub allow: Option<Allow>,
    /// `None`: no limit.
    pub rate_limit: Option<RateLimits>,
    /// The rule. Where keys depend on who sends, those are not in it: see `tenants`.
    pub verify: Verifier,
    /// The rule for each tenant, where keys depend on who sends.
    pub tenants: Option<Arc<Tenants>>,
    pub clients: Clients,
    pub enforce: Enforce,
    pub quarantine: KeepRefused,
    /// A longer silence of the sender is an alert.
    pub expect_every: Option<Duration>,
    /// The URL that senders were given, where a scheme signs it: an origin such as `https://hooks.example.com`, perhaps
    /// with a path that a proxy takes off, or the whole URL but its query, which is the request's. As written.
    pub public_url: Option<String>,
    /// Greetings that are answered directly.
    pub handshakes: Handshakes,
    pub idempotency: Option<Idempotency>,
    pub event_type: Option<Extract>,
    pub unwanted: Unwanted,
    pub keep: Option<RouteKeep>,
    /// What of its events operators don't see, the config's general rules included.
    pub redact: Rules,
    /// How a request is taken apart into events; only with `buffer`.
    pub split: Option<Split>,
    /// Bytes; `u64::MAX` (no limit) on pass routes that say nothing.
    pub max_body: u64,
    /// What the provider takes for the refusal of what was not verified.
    pub refusals: Refusals,
    pub mode: Mode,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clients {
    /// Whoever its rule proves.
    #[default]
    Any,
    /// Clients that were given a URL of their own: what stands in the path's `{endpoint}`.
    Endpoints,
}

/// How much a route takes in. Each is `None` where there is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimits {
    pub route: Option<Limit>,
    /// Each client address, IPv6 by its /64.
    pub source: Option<Limit>,
    /// Each proved sender.
    pub identity: Option<Limit>,
    /// What tells proved senders apart, beside what proved them.
    pub identity_by: Option<Extract>,
}

/// So many (at least one) in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub count: u32,
    pub per: Duration,
}

/// What becomes of a request that verification refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforce {
    /// It is refused.
    #[default]
    On,
    /// It is let through, and what verification said is recorded.
    Observe,
}

/// What becomes of an event that no destination wants. It is acknowledged either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unwanted {
    /// It is stored without a delivery, and kept as long as what was delivered.
    #[default]
    Keep,
    Drop,
}

impl Route {
    /// Whether only requests of proved senders have effects here, in a word: `on`, `observe`, or `none` where the route
    /// asks for no proof.
    pub const fn verification(&self) -> &'static str {
        match self.enforce {
            _ if self.verify.is_open() => "none",
            Enforce::On => "on",
            Enforce::Observe => "observe",
        }
    }
}

#[derive(Debug)]
pub enum Mode {
    /// Store, acknowledge with `answer`, deliver later.
    Buffer { answer: Acknowledgement, destinations: Vec<Arc<Destination>> },
    /// Forward inline and give the app's real answer.
    Proxy(Arc<Destination>),
    /// Like `Proxy`; what the app can't take within `deadline` is stored, acknowledged with `answer` and delivered later.
    Spill { answer: Acknowledgement, destination: Arc<Destination>, deadline: Duration },
    /// Stream through untouched, no verification.
    Pass(Arc<Destination>),
}

impl Mode {
    pub const fn word(&self) -> &'static str {
        match self {
            Mode::Buffer { .. } => "buffer",
            Mode::Proxy(_) => "proxy",
            Mode::Spill { .. } => "spill",
            Mode::Pass(_) => "pass",
        }
    }
    /// Whether events of such a route may come into the buffer.
    pub const fn is_buffered(&self) -> bool {
        matches!(self, Mode::Buffer { .. } | Mode::Spill { .. })
    }
    pub fn destinations(&self) -> &[Arc<Destination>] {
        match self {
            Mode::Buffer { destinations, .. } => destinations,
            Mode::Proxy(destination) | Mode::Spill { destination, .. } | Mode::Pass(destination) => {
                std::slice::from_ref(destination)
            }
        }
    }
}

/// What the sender of a buffered event is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// A 2xx; default 202.
    pub status: u16,
    pub content_type: Option<String>,
    pub body: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub name: crate::buffer::DestinationName,
    /// At least one; several are taken in turn, and one that can't be reached is passed over. `http` or `https` with a
    /// host, never a query. A path other than `/` takes the place of the sender's path, whatever the route's pattern;
    /// `/` (or none) keeps the sender's. The sender's query is kept either way.
    pub upstreams: Vec<Uri>,
    /// Which events it gets; `None`: every event.
    pub when: Option<Filter>,
    pub tls: UpstreamTls,
    pub http: UpstreamHttp,
    pub connect_timeout: Duration,
    /// From the start of an attempt to the end of its answer's body.
    pub timeout: Duration,
    /// Attempts in flight at once, at most.
    pub concurrency: usize,
    /// The fewest that an adaptive concurrency comes down to; `None`: it is fixed.
    pub adaptive: Option<usize>,
    pub retry: Retry,
    /// `None`: off.
    pub breaker: Option<super::BreakerSettings>,
    /// `None`: as fast as it takes them.
    pub rate: Option<super::Rate>,
    /// How its servers take turns.
    pub balance: super::Balancing,
    /// `None`: its servers are not asked.
    pub health: Option<super::HealthCheck>,
    /// `None`: at any time.
    pub deliver_between: Option<Arc<super::Schedule>>,
    /// `None`: in none that is promised.
    pub order: Option<Arc<super::Order>>,
    /// `None`: one request an event.
    pub batch: Option<super::Batch>,
    pub headers: HeaderChanges,
    /// Never beside an upstream's own path.
    pub path: Option<PathRewrite>,
    pub sign: Option<Sign>,
    /// Keep the sender's `Host` (default) or send the upstream's own.
    pub host: HostHeader,
}

impl Destination {
    /// One server that gets plain requests, one at a time, each within `timeout` (connecting may take as long again):
    /// nothing is waited for, changed, signed or spared. What the gateway asks for itself is sent to such ones.
    pub fn plain(name: crate::buffer::DestinationName, url: Uri, timeout: Duration) -> Self {
        Self {
            name,
            upstreams: vec![url],
            when: None,
            tls: UpstreamTls::default(),
            http: UpstreamHttp::Http1,
            connect_timeout: timeout,
            timeout,
            concurrency: 1,
            adaptive: None,
            retry: Retry::default(),
            breaker: None,
            rate: None,
            balance: super::Balancing::RoundRobin,
            health: None,
            deliver_between: None,
            order: None,
            batch: None,
            headers: HeaderChanges::default(),
            path: None,
            sign: None,
            host: HostHeader::Upstream,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Keep,
    Upstream,
}

/// Which HTTP version is spoken to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHttp {
    Http1,
    /// HTTP/2: by ALPN over TLS, with prior knowledge in plain.
    Http2,
}

/// Root certificates in PEM.
#[derive(Clone, Debug, PartialEq)]
pub enum TrustedRoots {
    File(PathBuf),
    /// Already read.
    Pem(std::sync::Arc<str>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamTls {
    /// Trust these roots (PEM) instead of the public ones.
    pub ca: Option<TrustedRoots>,
    pub client: Option<CertificateFiles>,
    /// Accept any certificate. `check` warns.
    pub insecure: bool,
    pub server_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderChanges {
    pub set: Vec<(String, String)>,
    pub remove: Vec<String>,
    /// From, to.
    pub rename: Vec<(String, String)>,
}

/// When a failed delivery is tried again. The delay before retry `n` (from 1) is drawn evenly from
/// `0..=min(max, first * factor^(n-1))` (full jitter), or is exactly that without jitter.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Default 1 s.
    pub first: Duration,
    /// Default 2.
    pub factor: f64,
    /// Default 1 h. Also caps an app's `Retry-After`.
    pub max: Duration,
    pub jitter: Jitter,
    /// Tries in all. Default 12.
    pub attempts: u32,
    /// Since acceptance (or the last replay). Default 3 days.
    pub max_age: Duration,
    /// Statuses that end a delivery at once. Default 410.
    pub give_up_on: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    Full,
    None,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(3600),
            jitter: Jitter::Full,
            attempts: 12,
            max_age: Duration::from_secs(3 * 24 * 3600),
            give_up_on: vec![410],
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct BufferSettings {
    /// Default `./data`.
    pub path: PathBuf,
    /// Bytes on disk at which new events are refused. Default 10 GiB.
    pub max_size: u64,
    /// Free bytes on the volume below which new events are refused. Default 512 MiB.
    pub min_free: u64,
    /// Delivered events are kept this long. Default 24 h.
    pub keep_delivered: Duration,
    /// Dead letters are kept this long. Default 30 days.
    pub keep_dead: Duration,
    /// Delivered events beyond these many bytes go first. Default 1 GiB.
    pub keep_delivered_bytes: u64,
    /// Of routes with settings of their own, by their names.
    pub keep_of_routes: Vec<(Arc<str>, RouteKeep)>,
    /// Write buffer of the store, in bytes. Default 16 MiB.
    pub memtable: u64,
    /// A commit that takes longer is loud and closes admission until it returns. Default 10 s.
    pub stall_after: Duration,
    /// What is sealed on disk, and with what. Default: nothing.
    pub encryption: Keyring,
}

impl BufferSettings {
    /// Free bytes on the volume that the engine may take, in bytes, once no event is accepted any more: a journal, and
    /// what is in memory.
    pub const fn needs_free(&self) -> u64 {
        const JOURNAL: u64 = 64 << 20;
        const INDEX: u64 = 16 << 20;
        JOURNAL + INDEX + self.memtable
    }
}

/// What a route says of how long its settled events are kept. Each is `None` where the buffer's own setting counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteKeep {
    pub delivered: Option<Duration>,
    pub dead: Option<Duration>,
    /// Delivered ones, at most.
    pub events: Option<u64>,
    /// Of delivered ones, at most.
    pub bytes: Option<u64>,
}

/// Bounds of the store of refused requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineSettings {
    /// Default 1000, at most 10 000.
    pub max_events: usize,
    /// Bytes on disk. Default 64 MiB, at most a quarter of the buffer's.
    pub max_size: u64,
    /// Default 7 days.
    pub keep: Duration,
    /// How many a route takes in: so many ...
    pub rate: u32,
    /// ... in this time. Default 10 a second.
    pub rate_per: Duration,
}

/// Whether requests that a route refuses may be kept in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepRefused {
    /// If there is a quarantine.
    #[default]
    AsConfigured,
    Never,
}

/// Where the admin API listens. Default loopback `127.0.0.1:9900`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminSettings {
    pub listen: AdminAddress,
    /// Required on anything but loopback and unix sockets; `Authorization: Bearer`.
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Off,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `None`: text on a terminal, JSON otherwise.
    pub format: Option<LogFormat>,
    /// A filter such as `info` or `tidegate=debug`. Default `info`.
    pub level: String,
    /// Lines for requests. Default: one a rejected request.
    pub access: AccessLog,
}

/// Traces to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// `http` or `https`, with a host.
    pub url: Uri,
    pub protocol: OtlpProtocol,
    /// Sent with each export: name, value. The value is a secret, and can be sent as a header.
    pub headers: Vec<(HeaderName, Secret)>,
    /// The share of traces that is recorded, from 0 to 1.
    pub sample: f64,
    pub service_name: String,
    /// Of one export.
    pub timeout: Duration,
    /// Trust these roots (PEM) instead of the public ones.
    pub ca: Option<PathBuf>,
}

/// A secret as the value of a header: printable ASCII, and never shown. `None` if it can't be one.
pub fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let text = std::str::from_utf8(secret.expose()).ok()?;
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    Grpc,
    /// Protobuf over HTTP/1.1.
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Errors,
    All,
}

/// How secrets are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSettings {
    /// How long what was read of a tenant's files counts. Default 30 s.
    pub refresh: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long requests and deliveries in flight may finish. Default 25 s.
    pub grace: Duration,
    /// Readiness is false this long before the listeners close. Default 0.
    pub delay: Duration,
}
