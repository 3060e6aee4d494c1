//! Why there is no (whole) answer, and whose fault that is.

use std::io;

/// Why there is no (whole) answer. The app is to blame for some of these, the gateway for others: see `class`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("connect: {0}")]
    Connect(String),
    #[error("tls: {0}")]
    Tls(String),
    /// No address for the upstream's name: the gateway's side, not the app's fault.
    #[error("dns: {0}")]
    Dns(String),
    /// The gateway itself could not try: no file descriptor, no local port, no memory, no route. Not the app's fault.
    #[error("local: {0}")]
    Local(String),
    /// What was waited for: `connect`, `answer`, `body`.
    #[error("timeout: {0}")]
    Timeout(&'static str),
    /// The connection broke after the request was (partly) sent: it may have been processed.
    #[error("broken: {0}")]
    Broken(String),
    #[error("protocol: {0}")]
    Protocol(String),
    /// The app says that it has done nothing with the request, again and again (HTTP/2). It is charged for nothing.
    #[error("unprocessed: {0}")]
    Unprocessed(String),
}

impl UpstreamError {
    /// One word for logs and metrics: `connect`, `tls`, `dns`, `local`, `timeout`, `broken`, `protocol`,
    /// `unprocessed`.
    pub const fn class(&self) -> &'static str {
        match self {
            UpstreamError::Connect(_) => "connect",
            UpstreamError::Tls(_) => "tls",
            UpstreamError::Dns(_) => "dns",
            UpstreamError::Local(_) => "local",
            UpstreamError::Timeout(_) => "timeout",
            UpstreamError::Broken(_) => "broken",
            UpstreamError::Protocol(_) => "protocol",
            UpstreamError::Unprocessed(_) => "unprocessed",
        }
    }

    /// Whether the app had no part in it, because the gateway could not even ask it.
    pub const fn is_ours(&self) -> bool {
        matches!(self, UpstreamError::Dns(_) | UpstreamError::Local(_))
    }

    /// A failed `connect(2)` or socket call.
    pub(super) fn connecting(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::EADDRNOTAVAIL
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::ENETUNREACH
                | libc::ENETDOWN,
            ) => UpstreamError::Local(error.to_string()),
            _ => UpstreamError::Connect(text(error)),
        }
    }

    pub(super) fn broken(error: &io::Error) -> Self {
        UpstreamError::Broken(text(error))
    }
}

/// Short and without the operating system's number, where the kind says it all.
fn text(error: &io::Error) -> String {
    match error.kind() {
        kind @ (io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable) => kind.to_string(),
        _ => error.to_string(),
    }
}

/// Why a destination's client can't be built (a CA file that is none, …).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gateway_lacks_is_not_the_apps_fault() {
        for ours in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOMEM, libc::ENETUNREACH] {
            assert!(UpstreamError::connecting(&io::Error::from_raw_os_error(ours)).is_ours());
        }
        for theirs in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
            let error = UpstreamError::connecting(&io::Error::from_raw_os_error(theirs));
            assert!(!error.is_ours() && error.class() == "connect", "{error}");
        }
    }
}
