//! One upstream server as the config names it, taken apart once: scheme, host, port, `Host` value, path.

use http::Uri;

use crate::message::Scheme;

/// Where an upstream listens and how its URL shapes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub scheme: Scheme,
    /// Without brackets if it is an IPv6 address.
    pub host: String,
    pub port: u16,
    /// The value of `Host` when the upstream's own is asked for: the port only where it is not the scheme's.
    pub authority: String,
    /// `None`: the sender's path stays.
    path: Option<String>,
    query: Option<String>,
}

impl Origin {
    /// The origin of a URL that config has checked. See [`Origin::checked`] for one that must be connected to.
    pub fn shape(uri: &Uri) -> Self {
        let scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
        let bracketed = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(scheme.default_port());
        let authority =
            if port == scheme.default_port() { bracketed.to_owned() } else { format!("{bracketed}:{port}") };
        let host = bracketed.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = Some(uri.path()).filter(|path| !path.is_empty() && *path != "/").map(str::to_owned);
        Self { scheme, host, port, authority, path, query: uri.query().map(str::to_owned) }
    }

    /// The same, refusing what can't be connected to.
    pub fn checked(uri: &Uri) -> Result<Self, String> {
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(Self::shape(uri)),
            (Some("http" | "https"), _) => Err(format!("{uri}: the upstream's URL has no host")),
            _ => Err(format!("{uri}: an upstream's URL begins with http:// or https://")),
        }
    }

    /// The target for this upstream, given the sender's.
    pub fn target(&self, sent: &str) -> String {
        let (sent_path, sent_query) = match sent.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (sent, None),
        };
        let path = self.path.as_deref().unwrap_or(sent_path);
        match (&self.query, sent_query) {
            (None, None) => path.to_owned(),
            (Some(query), None) => format!("{path}?{query}"),
            (None, Some(query)) => format!("{path}?{query}"),
            (Some(ours), Some(theirs)) => format!("{path}?{ours}&{theirs}"),
        }
    }

    /// Whether two upstreams shape a request's target in the same way.
    pub fn same_target(&self, other: &Origin) -> bool {
        self.path == other.path && self.query == other.query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::checked(&url.parse().unwrap()).unwrap()
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
        assert!(Origin::checked(&"ftp://app".parse().unwrap()).is_err());
        assert!(Origin::checked(&"/just/a/path".parse().unwrap()).is_err());
    }
}
