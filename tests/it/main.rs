//! Tidegate's promises, each with tests that try to break it, against the real binary. One file a promise or
//! capability; one test program, because linking is slow on small machines.

#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod attacks;
mod auth;
mod batch;
mod batches;
mod bounded;
mod breaker;
mod bytes;
mod change;
mod cli;
mod clients;
mod crash;
mod deadletters;
mod durable;
mod erased;
mod fanout;
mod floods;
mod give_up;
mod handshakes;
mod harness;
mod limits;
mod migration;
mod named_keys;
mod offline;
mod once;
mod order;
mod pace;
mod promtool;
mod providers;
mod ranges;
mod reasons;
mod routes;
mod same;
mod sdk;
mod sealed;
mod shown;
mod sick_app;
mod spill;
mod tracing;
mod upstreams;
mod urls;
mod verified_only;
