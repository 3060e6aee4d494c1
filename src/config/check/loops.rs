//! Destinations that are the gateway itself.

use std::net::{IpAddr, SocketAddr};

use http::Uri;

use super::Checker;
use crate::config::model::Listener;
use crate::config::place::Place;

/// A URL that is forwarded to, and where it stands.
pub(super) struct Forwards {
    pub place: Place,
    pub uri: Uri,
}

impl Checker<'_, '_> {
    /// Events that come in again for ever: an error where they come back to their own path, a warning where another path
    /// may be another route's.
    pub(super) fn loops(&mut self, listeners: &[Listener]) {
        for Forwards { place, uri } in std::mem::take(&mut self.forwards) {
            let Some(listener) = listeners.iter().find(|listener| is_at(&uri, listener.address)) else {
                continue;
            };
            let message = format!("this is the gateway's own listener {}", listener.address);
            if uri.path() == "/" {
                let help = "with the sender's path each event would come in again for ever: name the app's own address";
                self.error(&place, message, help);
            } else {
                let help = "events go round for ever if this path is that of their own route: name the app's address";
                self.warning(&place, message, help);
            }
        }
    }
}

/// Whether a client that connects to `uri` from this machine comes to a listener at `address`. Names are not looked up.
fn is_at(uri: &Uri, address: SocketAddr) -> bool {
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    if address.port() == 0 || uri.port_u16().unwrap_or(usual) != address.port() {
        return false;
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        // Nobody connects to the unspecified address but to find this machine.
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => {
            address.ip().is_unspecified()
                || address.ip() == ip
                || (ip.is_unspecified() && address.ip().is_loopback())
        }
        Ok(ip) => address.ip() == ip,
        Err(_) => {
            let is_here = address.ip().is_unspecified() || address.ip().is_loopback();
            host.trim_end_matches('.').eq_ignore_ascii_case("localhost") && is_here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_known_by_all_its_addresses_on_this_machine() {
        let at = |uri: &str, address: &str| is_at(&uri.parse().unwrap(), address.parse().unwrap());
        for (uri, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080/x", "0.0.0.0:8080"),
            ("http://localhost:8080", "127.0.0.1:8080"),
            ("https://LOCALHOST.:8080", "[::]:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://0.0.0.0:8080", "127.0.0.1:8080"),
            ("http://10.0.0.7", "10.0.0.7:80"),
            ("https://10.0.0.7", "10.0.0.7:443"),
        ] {
            assert!(at(uri, address), "{uri} {address}");
        }
        for (uri, address) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8080"),
            ("http://10.0.0.8:8080", "0.0.0.0:8080"),
            ("http://127.0.0.1:8080", "10.0.0.7:8080"),
            ("http://app:8080", "0.0.0.0:8080"),
            ("http://localhost:8080", "10.0.0.7:8080"),
            ("http://127.0.0.1", "127.0.0.1:0"),
        ] {
            assert!(!at(uri, address), "{uri} {address}");
        }
    }
}
