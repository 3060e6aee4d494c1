//! Deliveries against a buffer in memory: simulated apps in paused time, and a real one over sockets.

mod fake;
mod histories;
mod outages;
mod over_sockets;
mod paces;
mod scheduling;
mod simulated;
