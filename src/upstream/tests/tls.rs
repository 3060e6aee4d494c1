use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::config::{CertificateFiles, Destination, TrustedRoots, UpstreamHttp, UpstreamTls};
use crate::upstream::testing::*;
use crate::upstream::{Upstream, UpstreamError};

/// A certificate authority with certificates for an app and for us, as files.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
        write("ca.pem", ca.pem());
        for name in ["app.example", "gateway.example"] {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &ca).unwrap();
            write(&format!("{name}.crt"), cert.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { dir }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn client(&self) -> CertificateFiles {
        CertificateFiles { cert: self.path("gateway.example.crt"), key: self.path("gateway.example.key") }
    }
    fn tls(&self) -> UpstreamTls {
        let server_name = Some("app.example".into());
        UpstreamTls {
            ca: Some(TrustedRoots::File(self.path("ca.pem"))),
            server_name,
            ..UpstreamTls::default()
        }
    }
}

/// An app that wants our certificate and says which name it saw, or "nobody".
async fn app(files: &Files, alpn: &'static [u8]) -> App {
    let provider = Arc::new(crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.path("ca.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(files.path("app.example.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(files.path("app.example.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    App::with(move |socket, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(socket).await else { return };
            while read_request(&mut tls).await.is_some() {
                let session = tls.get_ref().1;
                let known = if session.peer_certificates().is_some() { "known" } else { "nobody" };
                let resumed = match session.handshake_kind() {
                    Some(tokio_rustls::rustls::HandshakeKind::Resumed) => "resumed",
                    _ => "full",
                };
                let text = format!("{known} {resumed}");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                tls.write_all(head.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

fn to(app: &App, tls: UpstreamTls) -> Destination {
    Destination { tls, ..destination(&format!("https://{}", app.address)) }
}

async fn say(upstream: &Upstream, sent: Bytes) -> Result<String, UpstreamError> {
    let mut incoming = upstream.send(&post("/"), sent).await?;
    Ok(String::from_utf8(body(&mut incoming).await?).unwrap())
}

#[tokio::test]
async fn a_custom_ca_and_a_client_certificate_are_used_and_the_connection_is_kept() {
    let files = Files::new();
    let app = app(&files, b"http/1.1").await;
    let upstream = Upstream::new(&to(&app, files.tls())).unwrap();
    assert_eq!(say(&upstream, pattern(10)).await.unwrap(), "nobody full");
    let upstream =
        Upstream::new(&to(&app, UpstreamTls { client: Some(files.client()), ..files.tls() })).unwrap();
    for size in [0, 100, 65 * 1024, 1024 * 1024] {
        assert_eq!(say(&upstream, pattern(size)).await.unwrap(), "known full");
    }
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn sessions_are_resumed_on_a_new_connection() {
    let files = Files::new();
    let app = app(&files, b"http/1.1").await;
    let upstream = Upstream::new(&to(&app, files.tls())).unwrap();
    assert_eq!(say(&upstream, pattern(10)).await.unwrap(), "nobody full");
    drop(crate::upstream::pool::take(upstream.key(0), crate::upstream::pool::IDLE_TIMEOUT).unwrap());
    assert_eq!(say(&upstream, pattern(10)).await.unwrap(), "nobody resumed");
}

#[tokio::test]
async fn an_untrusted_or_misnamed_app_gets_no_request() {
    let files = Files::new();
    let app = app(&files, b"http/1.1").await;
    let public_roots = UpstreamTls { ca: None, ..files.tls() };
    let other_name = UpstreamTls { server_name: Some("other.example".into()), ..files.tls() };
    for tls in [public_roots.clone(), other_name] {
        let upstream = Upstream::new(&to(&app, tls)).unwrap();
        assert_eq!(say(&upstream, pattern(10)).await.unwrap_err().class(), "tls");
    }
    let insecure = UpstreamTls { insecure: true, ..public_roots };
    let upstream = Upstream::new(&to(&app, insecure)).unwrap();
    assert_eq!(say(&upstream, pattern(10)).await.unwrap(), "nobody full");
}

#[tokio::test]
async fn http_2_needs_the_apps_consent() {
    let files = Files::new();
    let app = app(&files, b"http/1.1").await;
    let http2 = Destination { http: UpstreamHttp::Http2, ..to(&app, files.tls()) };
    let upstream = Upstream::new(&http2).unwrap();
    assert_eq!(say(&upstream, pattern(10)).await.unwrap_err().class(), "tls");
}

#[test]
fn files_that_cant_be_used_are_named() {
    let files = Files::new();
    let with =
        |tls: UpstreamTls| Upstream::new(&Destination { tls, ..destination("https://a") }).unwrap_err().0;
    let missing = with(UpstreamTls { ca: Some(TrustedRoots::File(files.path("none.pem"))), ..files.tls() });
    assert!(missing.contains("none.pem"), "{missing}");
    let not_a_ca =
        with(UpstreamTls { ca: Some(TrustedRoots::File(files.path("app.example.key"))), ..files.tls() });
    assert!(not_a_ca.contains("app.example.key: holds no certificate"), "{not_a_ca}");
    let crossed =
        CertificateFiles { cert: files.path("app.example.crt"), key: files.path("gateway.example.key") };
    let crossed = with(UpstreamTls { client: Some(crossed), ..files.tls() });
    assert!(crossed.contains("does not go with its key"), "{crossed}");
}
