//! Which events belong to one server (`balance: { hash: … }`): the key that is read of each, as a number. Pure.
//!
//! The number is the same in every process and version, so that a key keeps its server over restarts and between several
//! gateways.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::buffer::Event;
use crate::config::Balancing;
use crate::message::{Head, PathParams, Request, Version};

/// A key by which the server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity(u64);

impl Affinity {
    /// Of a request. `None` if its destination does not ask for one, or if it has none.
    pub fn of(balancing: &Balancing, request: &Request) -> Option<Self> {
        let Balancing::Hash { by } = balancing else { return None };
        Some(Self::of_key(&by.from(request)?))
    }

    /// Of a request of which the body is not read.
    pub fn of_head(balancing: &Balancing, head: &Head) -> Option<Self> {
        let Balancing::Hash { .. } = balancing else { return None };
        Self::of(
            balancing,
            &Request { head: head.clone(), params: PathParams::default(), body: Bytes::new() },
        )
    }

    /// Of a stored event: the same that its request had.
    pub fn of_event(balancing: &Balancing, event: &Event) -> Option<Self> {
        let Balancing::Hash { .. } = balancing else { return None };
        // Nothing that a key is read of; `check` leaves parameters of the path out.
        let unknown = SocketAddr::from((IpAddr::from([0, 0, 0, 0]), 0));
        let head = Head {
            method: event.method.clone(),
            target: event.target.clone(),
            authority: event.authority.clone(),
            asked_authority: None,
            scheme: event.scheme,
            version: Version::Http11,
            headers: event.headers.clone(),
            peer: unknown,
            client: event.source,
            local: unknown,
            received_at: event.received_at,
        };
        Self::of(balancing, &Request { head, params: PathParams::default(), body: event.body.clone() })
    }

    pub(super) fn of_key(key: &str) -> Self {
        Self(xxh3_64(key.as_bytes()))
    }

    /// How much the key wants this server: the one that it wants most is its own. What another server is called has no
    /// part in it, so that one that comes or goes moves no key but its own (rendezvous hashing).
    pub(super) fn weight(self, server: &str) -> u64 {
        xxh3_64_with_seed(server.as_bytes(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_number_in_every_version() {
        // Changing these moves every key of every user to another server.
        assert_eq!(Affinity::of_key(""), Affinity(0x2d06_8005_38d3_94c2));
        assert_eq!(Affinity::of_key("acct_1").weight("http://10.0.0.5:8080"), 3_655_163_973_763_887_267);
    }
}
