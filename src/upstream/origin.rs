//! One upstream server as the config names it, taken apart once: scheme, host, port, `Host` value, path.

use http::Uri;

use crate::message::Scheme;

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub scheme: Scheme,
    /// Without brackets if it is an IPv6 address.
    pub host: String,
    pub port: u16,
    /// See [`authority`].
    pub authority: String,
}

impl Origin {
    /// The origin of an upstream's URL, or why it can't be connected to.
    pub fn new(uri: &Uri) -> Result<Self, String> {
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => {
                let scheme = scheme(uri);
                let port = uri.port_u16().unwrap_or(scheme.default_port());
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Ok(Self { scheme, host, port, authority: authority(uri) })
            }
            (Some("http" | "https"), _) => Err(format!("{uri}: the upstream's URL has no host")),
            _ => Err(format!("{uri}: an upstream's URL begins with http:// or https://")),
        }
    }
}

fn scheme(uri: &Uri) -> Scheme {
    if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http }
}

/// The value of `Host` when the upstream's own is asked for: the port only where it is not the scheme's.
pub(super) fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port_u16() {
        Some(port) if port != scheme(uri).default_port() => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// The target of a request for an upstream, given the sender's: see [`Forward::to`](super::Forward::to).
pub(super) fn target(uri: &Uri, sent: &str) -> String {
    let replaced = !matches!(uri.path(), "" | "/");
    if !replaced && uri.query().is_none() {
        return sent.to_owned();
    }
    let (sent_path, sent_query) = match sent.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (sent, None),
    };
    let path = if replaced { uri.path() } else { sent_path };
    match (uri.query(), sent_query) {
        (None, None) => path.to_owned(),
        (Some(query), None) | (None, Some(query)) => format!("{path}?{query}"),
        (Some(ours), Some(theirs)) => format!("{path}?{ours}&{theirs}"),
    }
}

/// Whether two upstreams make the same target of a sender's.
pub(super) fn same_target(one: &Uri, other: &Uri) -> bool {
    let path = |uri: &Uri| Some(uri.path().to_owned()).filter(|path| !path.is_empty() && path != "/");
    path(one) == path(other) && one.query() == other.query()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::new(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_port_is_named_only_where_it_is_not_the_schemes_own() {
        assert_eq!(origin("https://app").authority, "app");
        assert_eq!(origin("https://app:443/x").authority, "app");
        assert_eq!(origin("http://app:443").authority, "app:443");
        let v6 = origin("http://[::1]:8080");
        assert_eq!((v6.host.as_str(), v6.port, v6.authority.as_str()), ("::1", 8080, "[::1]:8080"));
    }

    #[test]
    fn only_http_urls_with_a_host_can_be_connected_to() {
        assert!(Origin::new(&"ftp://app".parse().unwrap()).is_err());
        assert!(Origin::new(&"/just/a/path".parse().unwrap()).is_err());
    }
}
