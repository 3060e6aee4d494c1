//! What the app gets: the sender's head with one hop's headers taken off and ours put on.

use std::net::IpAddr;

use crate::buffer::EventId;
use crate::clock::Timestamp;
use crate::config::Destination;
use crate::message::{Headers, Method, Scheme};

use super::Outgoing;

/// A sender's head to be passed on, inline or later.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    pub method: &'a Method,
    pub target: &'a str,
    pub authority: &'a str,
    pub scheme: Scheme,
    /// The client's address, for `Forwarded` and `X-Forwarded-For`.
    pub client: IpAddr,
    pub headers: &'a Headers,
    /// `tidegate-…` headers; `None` on `pass` routes.
    pub event: Option<EventHeaders<'a>>,
    /// Keep `Upgrade` and its `Connection` (on `pass` routes).
    pub upgrade: bool,
}

/// What the app learns about an event.
#[derive(Clone, Copy, Debug)]
pub struct EventHeaders<'a> {
    pub id: EventId,
    /// From 1.
    pub attempt: u32,
    pub received_at: Timestamp,
    pub verified: &'a str,
}

impl Forward<'_> {
    /// The head for `destination`.
    pub fn to(&self, destination: &Destination) -> Outgoing {
        let _ = destination;
        todo!("forward")
    }
}
