//! TLS to the app: a destination's settings as a rustls client config. Certificates of our own listeners are
//! `crate::tls`'s.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::{TrustedRoots, UpstreamHttp, UpstreamTls};

use super::SetupError;

/// Reads the files and builds the connector. Sessions are resumed (in memory, per destination).
pub(super) fn connector(tls: &UpstreamTls, http: UpstreamHttp) -> Result<TlsConnector, SetupError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(error.to_string()))?;
    let builder = if tls.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(tls.ca.as_ref())?)
    };
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let chain = certificates(&files.cert)?;
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|error| problem(&files.key, &format!("no private key in PEM: {error}")))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| problem(&files.cert, &format!("does not go with its key: {error}")))?
        }
    };
    config.alpn_protocols = match http {
        UpstreamHttp::Http1 => vec![b"http/1.1".to_vec()],
        UpstreamHttp::Http2 => vec![b"h2".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that the app's certificate must be for.
pub(super) fn server_name(host: &str, tls: &UpstreamTls) -> Result<ServerName<'static>, SetupError> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| SetupError(format!("{name} is no name for a TLS server")))
}

fn roots(ca: Option<&TrustedRoots>) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    let (chain, name) = match ca {
        None => {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            return Ok(roots);
        }
        Some(TrustedRoots::File(file)) => (certificates(file)?, file.display().to_string()),
        Some(TrustedRoots::Pem(pem)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let name = "`ca`".to_owned();
            (chain.map_err(|error| SetupError(format!("{name}: no certificates in PEM: {error}")))?, name)
        }
    };
    for certificate in chain {
        roots
            .add(certificate)
            .map_err(|error| SetupError(format!("{name}: can't be used as a root certificate: {error}")))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| problem(file, &format!("no certificates in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(problem(file, "holds no certificate in PEM"));
    }
    Ok(chain)
}

fn problem(file: &Path, what: &str) -> SetupError {
    SetupError(format!("{}: {what}", file.display()))
}

/// `insecure: true`: any certificate is taken. Signatures are still checked, so that a handshake is at least with the
/// holder of the certificate shown.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
