//! Destinations: where a route's events go, and how.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Checker;
use super::loops::Forwards;
use super::names::is_name;
use super::pace::CONCURRENCY;
use crate::buffer::DestinationName;
use crate::config::model::{
    Destination, HeaderChanges, HostHeader, Jitter, Retry, TrustedRoots, UpstreamHttp, UpstreamTls,
};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::source::doubled;
use crate::message::{HOP_BY_HOP, OUR_PREFIX};
use crate::route::PathPattern;

/// From the start of an attempt to the end of its answer, where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers of the connection or the framing beside the hop-by-hop ones.
const OF_ONE_HOP: &[&str] = &["content-length", "expect", "http2-settings"];

/// What a route means for its destinations.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub route: &'a str,
    pub mode: raw::Mode,
    /// The route's path ends in `/*`.
    pub wildcard: bool,
    /// The route's path, if it is one.
    pub path: Option<&'a PathPattern>,
    /// The provider's answer deadline.
    pub deadline: Option<Duration>,
}

impl Checker<'_, '_> {
    pub(super) fn destinations(
        &mut self,
        raw: &raw::ForwardTo,
        place: &Place,
        purpose: Purpose<'_>,
    ) -> Vec<Destination> {
        let written: Vec<(Place, Option<&raw::Destination>)> = match raw {
            raw::ForwardTo::Url(url) => return self.of_url(url, place, purpose).into_iter().collect(),
            raw::ForwardTo::One(destination) => vec![(place.clone(), Some(destination))],
            raw::ForwardTo::Several(list) => {
                list.iter().enumerate().map(|(i, d)| (place.index(i), Some(d))).collect()
            }
        };
        let written: Vec<(Place, &raw::Destination)> =
            written.into_iter().filter_map(|(place, d)| Some((place, d?))).collect();
        if written.len() > 1 && purpose.mode != raw::Mode::Buffer {
            let help =
                "only `mode: buffer` delivers to several; several servers of one app are its `upstreams`";
            self.error(place, "inline forwarding takes exactly one destination", help);
        }
        let mut names = Vec::new();
        for (place, destination) in &written {
            match &destination.name {
                None if written.len() > 1 => {
                    let help =
                        "each of several destinations needs a `name`: its deliveries are kept under it";
                    self.error(&place.key("name"), "the key `name` is missing", help);
                }
                name => names.push((name.as_deref().unwrap_or("default"), place)),
            }
        }
        for (name, first, second) in doubled(names) {
            let message =
                format!("the destination `{name}` stands in {} already", self.report.line_of(first));
            self.error(&second.key("name"), message, "give each destination of a route a name of its own");
        }
        written.into_iter().filter_map(|(place, d)| self.destination(d, &place, purpose)).collect()
    }

    fn of_url(&mut self, url: &str, place: &Place, purpose: Purpose<'_>) -> Option<Destination> {
        let uri = self.upstream(url, place, purpose)?;
        let name = DestinationName::new(purpose.route, "default");
        Some(Destination {
            connect_timeout: CONNECT_TIMEOUT,
            concurrency: CONCURRENCY,
            breaker: self.breaker(None, place, purpose, &Retry::default()),
            host: HostHeader::Keep,
            ..Destination::plain(name, uri, default_timeout(purpose))
        })
    }

    fn destination(
        &mut self,
        raw: &raw::Destination,
        place: &Place,
        purpose: Purpose<'_>,
    ) -> Option<Destination> {
        let name = raw.name.as_deref().unwrap_or("default");
        if !is_name(name) {
            let help = "a name has letters, digits, `.`, `_` and `-`, at most 64";
            self.error(&place.key("name"), format!("`{name}` is not a name"), help);
        }
        let upstreams = self.upstreams(raw, place, purpose);
        let when = self.when(raw.when.as_ref(), place, purpose.mode);
        let inline = !purpose.mode.is_buffered();
        if inline && raw.retry.is_some() {
            let help = "inline the sender gets the app's answer and retries itself; use `mode: buffer` for retries here";
            self.error(&place.key("retry"), "inline forwarding is not retried", help);
        }
        let (concurrency, adaptive) = self.concurrency(raw.concurrency.as_ref(), place, purpose);
        for (key, time) in [("timeout", raw.timeout), ("connect_timeout", raw.connect_timeout)] {
            if let Some(time) = time {
                self.not_zero(place, key, time);
            }
        }
        if let (Some(timeout), Some(deadline), raw::Mode::Proxy) =
            (raw.timeout, purpose.deadline, purpose.mode)
            && timeout.0 > deadline
        {
            let message = format!("the sender gives up after {}", crate::config::units::Time(deadline));
            let help = "a shorter timeout gives it an answer; `mode: buffer` answers it at once";
            self.warning(&place.key("timeout"), message, help);
        }
        let tls = match &raw.tls {
            Some(tls) => self.upstream_tls(tls, &place.key("tls"), upstreams.as_deref()),
            None => UpstreamTls::default(),
        };
        let retry = match &raw.retry {
            Some(retry) => self.retry(retry, &place.key("retry")),
            None => Retry::default(),
        };
        let breaker = self.breaker(raw.breaker.as_ref(), place, purpose, &retry);
        let balance = self.balance(raw, place, purpose);
        let health = raw.health.as_ref().map(|health| self.health(health, &place.key("health")));
        let rate = self.rate(raw.rate.as_ref(), place, purpose);
        let order = self.order(raw.order.as_ref(), place, purpose);
        let batch = self.batch(raw.batch.as_ref(), place, purpose);
        let deliver_between = self.schedule(raw.deliver_between.as_ref(), place, purpose);
        let headers = match &raw.headers {
            Some(headers) => self.headers(headers, &place.key("headers")),
            None => HeaderChanges::default(),
        };
        let first = upstreams.as_deref().and_then(<[Uri]>::first);
        let path = self.path_rewrite(raw.path.as_ref(), place, first);
        let sign = self.sign(raw.sign.as_ref(), place, purpose.mode);
        Some(Destination {
            name: DestinationName::new(purpose.route, name),
            upstreams: upstreams?,
            when,
            tls,
            http: match raw.http {
                raw::HttpVersion::Http1 => UpstreamHttp::Http1,
                raw::HttpVersion::Http2 => UpstreamHttp::Http2,
            },
            connect_timeout: raw.connect_timeout.map_or(CONNECT_TIMEOUT, |t| t.0),
            timeout: raw.timeout.map_or_else(|| default_timeout(purpose), |t| t.0),
            concurrency,
            adaptive,
            retry,
            breaker,
            rate,
            balance,
            health,
            deliver_between,
            order: order.map(Arc::new),
            batch,
            headers,
            path,
            sign,
            host: match raw.host {
                raw::HostWord::Keep => HostHeader::Keep,
                raw::HostWord::Upstream => HostHeader::Upstream,
            },
        })
    }

    fn upstreams(&mut self, raw: &raw::Destination, place: &Place, purpose: Purpose<'_>) -> Option<Vec<Uri>> {
        match (&raw.url, &raw.upstreams) {
            (Some(url), None) => self.upstream(url, &place.key("url"), purpose).map(|uri| vec![uri]),
            (None, Some(urls)) => {
                let list = place.key("upstreams");
                let uris =
                    urls.iter().enumerate().map(|(i, url)| self.upstream(url, &list.index(i), purpose));
                // All of them are looked at, whatever the first is like.
                let uris: Vec<Option<Uri>> = uris.collect();
                let uris: Vec<Uri> = uris.into_iter().collect::<Option<_>>()?;
                self.same_paths(&uris, &list);
                Some(uris)
            }
            (Some(_), Some(_)) => {
                let help = "keep `upstreams` for several servers, or `url` for one";
                self.error(&place.key("upstreams"), "both `url` and `upstreams` are given", help);
                None
            }
            (None, None) => {
                let help = "add `url: http://127.0.0.1:3000`";
                self.error(&place.key("url"), "the destination has no `url`", help);
                None
            }
        }
    }

    /// One head is made for all servers of a destination.
    fn same_paths(&mut self, uris: &[Uri], list: &Place) {
        let Some(first) = uris.first() else { return };
        for (at, uri) in uris.iter().enumerate().filter(|(_, uri)| uri.path() != first.path()) {
            let message = format!("the path `{}` is not that of the first (`{}`)", uri.path(), first.path());
            let help = "`upstreams` are servers of one app and get the same path; another app is another destination";
            self.error(&list.index(at), message, help);
        }
    }

    fn upstream(&mut self, text: &str, place: &Place, purpose: Purpose<'_>) -> Option<Uri> {
        const HELP: &str =
            "write `http://HOST:PORT` or `https://HOST:PORT`, with a path if the app wants another one";
        let uri = match text.parse::<Uri>() {
            Ok(uri) => uri,
            Err(error) => {
                self.error(place, format!("`{text}` is not a URL: {error}"), HELP);
                return None;
            }
        };
        let problem = match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                "a URL with a user or password is not supported".to_owned()
            }
            (Some("http" | "https"), Some(authority)) if authority.host().is_empty() => {
                "the URL has no host".into()
            }
            (Some("http" | "https"), Some(_)) if uri.query().is_some() => {
                "the URL has a query, but the app gets the sender's".into()
            }
            (Some("http" | "https"), Some(_)) if text.contains('#') => "the URL has a fragment".into(),
            (Some("http" | "https"), Some(authority)) if !has_good_port(authority) => {
                "the port is not a number from 1 to 65535".into()
            }
            (Some("http" | "https"), Some(_)) => {
                if purpose.wildcard && uri.path() != "/" {
                    let message = format!("every path below the route becomes `{}` for the app", uri.path());
                    let help = "leave the path out of the URL, and the app gets the sender's path";
                    self.warning(place, message, help);
                }
                let route = purpose.route.to_owned();
                self.forwards.push(Forwards { place: place.clone(), uri: uri.clone(), route });
                return Some(uri);
            }
            _ => format!("`{text}` is not an http or https URL"),
        };
        self.error(place, problem, HELP);
        None
    }

    fn upstream_tls(
        &mut self,
        raw: &raw::DestinationTls,
        place: &Place,
        upstreams: Option<&[Uri]>,
    ) -> UpstreamTls {
        if upstreams.is_some_and(|uris| uris.iter().all(|uri| uri.scheme_str() == Some("http"))) {
            self.error(place, "`tls` has no effect on `http://`", "write `https://`, or remove `tls`");
        }
        if raw.insecure {
            let help = "give the app's own root as `ca: FILE` instead";
            self.warning(&place.key("insecure"), "any certificate is taken for the app's", help);
        }
        if raw.insecure && raw.ca.is_some() {
            let help = "remove one of them";
            self.error(&place.key("insecure"), "`insecure` makes `ca` pointless", help);
        }
        if let Some(ca) = &raw.ca {
            self.pem(ca, &place.key("ca"), Pem::Certificates);
        }
        if let Some(client) = &raw.client {
            self.pem(&client.cert, &place.key("client").key("cert"), Pem::Certificates);
            self.pem(&client.key, &place.key("client").key("key"), Pem::Key);
        }
        if let Some(name) = &raw.server_name
            && rustls_pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let help = "write a host name such as `app.internal`";
            self.error(&place.key("server_name"), format!("`{name}` is not a host name"), help);
        }
        UpstreamTls {
            ca: raw.ca.as_ref().map(|path| TrustedRoots::File(self.references.path(path))),
            client: raw.client.as_ref().map(|client| self.certificate(client)),
            insecure: raw.insecure,
            server_name: raw.server_name.clone(),
        }
    }

    /// Reports a file that can't be read, or holds nothing of its kind.
    pub(super) fn pem(&mut self, written: &str, place: &Place, kind: Pem) {
        let path = self.references.path(written);
        let problem = match self.references.outside.pem(&path) {
            Err(error) => error,
            Ok(None) => return,
            Ok(Some(bytes)) => match kind {
                Pem::Certificates if CertificateDer::from_pem_slice(&bytes).is_ok() => return,
                Pem::Certificates => "holds no certificate in PEM form".into(),
                Pem::Key if rustls_pki_types::PrivateKeyDer::from_pem_slice(&bytes).is_ok() => return,
                Pem::Key => "holds no private key in PEM form".into(),
            },
        };
        self.error(place, format!("{}: {problem}", path.display()), "paths start from the config's folder");
    }

    fn retry(&mut self, raw: &raw::Retry, place: &Place) -> Retry {
        let raw::Backoff::Exponential = raw.backoff;
        self.not_zero(place, "first", raw.first);
        self.not_zero(place, "max_age", raw.max_age);
        if raw.max < raw.first {
            let message = format!("{} is less than `first` ({})", raw.max, raw.first);
            self.error(&place.key("max"), message, "the longest wait can't be shorter than the first");
        }
        Retry {
            first: raw.first.0,
            factor: raw.factor,
            max: raw.max.0,
            jitter: match raw.jitter {
                raw::JitterWord::Full => Jitter::Full,
                raw::JitterWord::None => Jitter::None,
            },
            attempts: raw.attempts,
            max_age: raw.max_age.0,
            give_up_on: raw.give_up_on.clone(),
        }
    }

    fn headers(&mut self, raw: &raw::HeaderChanges, place: &Place) -> HeaderChanges {
        let (set, remove) = (place.key("set"), place.key("remove"));
        for (name, value) in &raw.set {
            self.header_name(name, &set.key(name));
            if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b) || b >= 0x80) {
                let help = "a header's value is one line";
                self.error(&set.key(name), "the value holds control characters", help);
            }
        }
        for (i, name) in raw.remove.iter().enumerate() {
            self.header_name(name, &remove.index(i));
        }
        let rename = place.key("rename");
        for (from, to) in &raw.rename {
            self.header_name(from, &rename.key(from));
            self.header_name(to, &rename.key(from));
            let twice = raw.rename.values().filter(|other| other.eq_ignore_ascii_case(to)).count() > 1;
            if twice || raw.set.keys().any(|set| set.eq_ignore_ascii_case(to)) {
                let help = "one name holds one value";
                self.error(&rename.key(from), format!("`{to}` is given twice"), help);
            }
        }
        HeaderChanges {
            rename: raw.rename.iter().map(|(from, to)| (from.clone(), to.clone())).collect(),
            set: raw.set.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            remove: raw.remove.clone(),
        }
    }

    pub(super) fn header_name(&mut self, name: &str, place: &Place) {
        let lower = name.to_ascii_lowercase();
        let problem = if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            (format!("`{name}` is not a header name"), "write a name such as `X-Internal`")
        } else if lower == "host" {
            ("`Host` is not set here".to_owned(), "use the destination's `host: keep` or `host: upstream`")
        } else if HOP_BY_HOP.contains(&lower.as_str()) || OF_ONE_HOP.contains(&lower.as_str()) {
            (
                format!("`{name}` belongs to the connection, not to the message"),
                "the gateway sets or drops it itself",
            )
        } else if lower.replace('_', "-").starts_with(OUR_PREFIX) {
            (
                format!("`{name}` is the gateway's own"),
                "names that begin with `tidegate-` tell the app about the event",
            )
        } else {
            return;
        };
        self.report.error_at_key(place, problem.0, problem.1);
    }
}

/// None, or one that can be connected to.
fn has_good_port(authority: &http::uri::Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    port.is_empty() || authority.port_u16().is_some_and(|port| port > 0)
}

#[derive(Clone, Copy)]
pub(super) enum Pem {
    Certificates,
    Key,
}

/// Inline, waiting longer than the sender does helps nobody.
fn default_timeout(purpose: Purpose<'_>) -> Duration {
    match (purpose.mode, purpose.deadline) {
        (raw::Mode::Proxy, Some(deadline)) => TIMEOUT.min(deadline),
        _ => TIMEOUT,
    }
}
