//! Certificates and keys from files to rustls server settings: SNI, versions, ALPN, the self-signed first start.
//! Accepting connections with them is `edge`'s.

use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;

use crate::config::Tls;

/// Reads the files of a listener. Also used by `check`.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let _ = tls;
    todo!("tls")
}

/// Why a certificate can't be used; names the file and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TlsError {
    pub file: String,
    pub problem: String,
}
