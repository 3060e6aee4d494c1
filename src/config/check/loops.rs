//! Destinations that are the gateway itself.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Uri};

use super::Checker;
use crate::config::HostHeader;
use crate::config::model::{Destination, Listener, Route};
use crate::config::place::Place;
use crate::message::host_of;
use crate::route::{Match, RouteTable};

/// A URL that is forwarded to, where it stands, and whose it is.
pub(super) struct Forwards {
    pub place: Place,
    pub uri: Uri,
    pub route: String,
}

impl Checker<'_, '_> {
    /// Events that come in again for ever are an error. To hand them on to another route is not: what that one does not
    /// take is warned of.
    pub(super) fn loops(&mut self, routes: &[Route], table: &RouteTable, listeners: &[Listener]) {
        let next = |from: usize, destination: &Destination, uri: &Uri| -> Option<Next> {
            let listener = listeners.iter().find(|listener| is_at(uri, listener.address))?;
            Some(Next { listener: listener.address, to: comes_to(&routes[from], destination, uri, table) })
        };
        for Forwards { place, uri, route } in std::mem::take(&mut self.forwards) {
            // One that is not here is wrong in some other way, and that comes first.
            let Some(from) = routes.iter().position(|known| *known.name == *route) else { continue };
            let destinations = routes[from].mode.destinations().iter();
            for destination in destinations.filter(|known| known.upstreams.contains(&uri)) {
                let Some(Next { listener, to }) = next(from, destination, &uri) else { continue };
                let message = format!("this is the gateway's own listener {listener}");
                let Some(to) = to else {
                    let help =
                        "what is forwarded comes in again and no route takes it: name the app's own address";
                    self.warning(&place, message, help);
                    break;
                };
                let back = way(to, from, |at| {
                    let destinations = routes[at].mode.destinations().iter();
                    let all = destinations.flat_map(|to| to.upstreams.iter().map(move |uri| (to, uri)));
                    all.filter_map(|(to, uri)| next(at, to, uri)?.to).collect()
                });
                if let Some(back) = back {
                    let names: Vec<&str> =
                        std::iter::once(from).chain(back).map(|at| &*routes[at].name).collect();
                    let help = format!(
                        "each event would come in again for ever ({}): name the app's own address",
                        names.join(" -> ")
                    );
                    self.error(&place, message, help);
                    break;
                }
            }
        }
    }
}

/// What is forwarded comes back to this gateway.
struct Next {
    listener: SocketAddr,
    /// The index of the route that takes it there.
    to: Option<usize>,
}

/// The route that takes what a destination is sent, if that comes in here. Of a pattern's paths one stands for all, and where
/// a route takes any host, one that no route names.
fn comes_to(from: &Route, destination: &Destination, uri: &Uri, table: &RouteTable) -> Option<usize> {
    let host = match destination.host {
        HostHeader::Upstream => host_of(uri.authority().map_or("", |authority| authority.as_str())),
        HostHeader::Keep => from.host.clone().unwrap_or_default(),
    };
    let path = match uri.path() {
        // A pattern takes itself: `{name}` is a segment like any other, and so is `*`.
        "/" => destination.path.as_ref().and_then(|path| path.apply(&from.path)).unwrap_or(from.path.clone()),
        path => path.to_owned(),
    };
    match table.find(&host, &path, from.methods.first().unwrap_or(&Method::POST)) {
        Match::Route { index, .. } => Some(index),
        Match::MethodNotAllowed { .. } | Match::NotFound => None,
    }
}

/// A way from one to the other, both ends included.
fn way(from: usize, to: usize, next: impl Fn(usize) -> Vec<usize>) -> Option<Vec<usize>> {
    let mut ways = vec![vec![from]];
    let mut seen = vec![from];
    while let Some(so_far) = ways.pop() {
        let at = *so_far.last()?;
        if at == to {
            return Some(so_far);
        }
        for one in next(at) {
            if !seen.contains(&one) {
                seen.push(one);
                ways.push([&so_far[..], &[one]].concat());
            }
        }
    }
    None
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
