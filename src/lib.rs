//! Tidegate, a webhook receiving gateway: the map of the crate, in the order in which a request meets it.
//!
//! A request's way is `edge → route → receive (allowlist → body → verify → handshake → idempotency → mode)`;
//! an event's way on is `buffer → deliver → upstream`. Dependencies point the same way and never back.
//! The promises that the modules carry are listed in the README; each module's header says its part.

#![forbid(unsafe_code)]

// Words: types that everyone speaks and that know nobody.
pub mod clock;
pub mod message;
pub mod reason;
pub mod seal;
pub mod secret;
pub mod shares;

// The way in.
pub mod edge;
pub mod receive;
pub mod route;

// Pure: who sent this, and what do we know of such senders?
pub mod filter;
pub mod providers;
pub mod redact;
pub mod verify;

// What stays, and the way out.
pub mod breaker;
pub mod buffer;
pub mod deliver;
pub mod jobs;
pub mod pauses;
pub mod quarantine;
pub mod transfer;
pub mod upstream;

// What lives elsewhere, fetched and refreshed: keys (JWKS), and the address ranges that providers publish.
pub mod fetch;
pub mod keys;
pub mod ranges;
pub mod tenants;

// URLs of clients' own.
pub mod endpoints;

// What is wrong, and who is told; what happens to a request, for who asks later.
pub mod alerts;
pub mod trace;

// What is asked of us, and what we show.
pub mod admin;
pub mod cli;
pub mod config;
pub mod expiry;
pub mod gateway;
pub mod telemetry;
pub mod tls;
