//! The sender's side of the wire: one request over real TLS, trusting exactly the gateway's own certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::events::Prepared;

/// What the gateway answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub reason: Option<String>,
    pub event_id: Option<String>,
    pub duplicate: bool,
}

/// Sends over a connection of its own, as most providers do.
pub struct Client {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Client {
    /// `certificate` is the file that the gateway serves; no other is accepted.
    pub fn new(address: SocketAddr, certificate: &Path) -> Result<Self, String> {
        let pinned = CertificateDer::from_pem_file(certificate)
            .map_err(|problem| format!("{}: {problem}", certificate.display()))?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|problem| format!("TLS: {problem}"))?
            .dangerous() // stricter than usual, not laxer: see `Pinned`
            .with_custom_certificate_verifier(Arc::new(Pinned { certificate: pinned, provider }))
            .with_no_client_auth();
        Ok(Self { address, tls: TlsConnector::from(Arc::new(config)) })
    }

    pub async fn send(&self, prepared: &Prepared) -> Result<Answered, String> {
        let exchange = self.exchange(prepared);
        match tokio::time::timeout(Duration::from_secs(15), exchange).await {
            Ok(answered) => answered,
            Err(_) => Err("no answer within 15 s".into()),
        }
    }

    async fn exchange(&self, prepared: &Prepared) -> Result<Answered, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|p| format!("connect: {p}"))?;
        let name = ServerName::try_from("localhost").map_err(|p| p.to_string())?;
        let stream = self.tls.connect(name, stream).await.map_err(|p| format!("TLS: {p}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .title_case_headers(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|p| p.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request =
            Request::post(&prepared.path).header("Host", format!("localhost:{}", self.address.port()));
        for (name, value) in &prepared.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(prepared.body.clone())).map_err(|p| p.to_string())?;
        let response = sender.send_request(request).await.map_err(|p| p.to_string())?;
        let (head, body) = response.into_parts();
        let _body: Bytes = body.collect().await.map_err(|p| p.to_string())?.to_bytes();
        connection.abort();
        let text = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Ok(Answered {
            status: head.status,
            reason: text("tidegate-reason"),
            event_id: text("tidegate-event-id"),
            duplicate: text("tidegate-duplicate").as_deref() == Some("true"),
        })
    }
}

/// Accepts one certificate, byte for byte, whatever name or date it bears.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("the gateway shows another certificate than the one in its file".into()))
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
