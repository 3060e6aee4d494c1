//! A certificate authority for one test run, and TLS settings on both sides of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// PEM texts.
#[derive(Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

pub struct Authority {
    pub ca: String,
    /// For `localhost` and 127.0.0.1.
    pub server: Pair,
    /// For `other.test`.
    pub other: Pair,
    /// For `sns.eu-west-1.amazonaws.com`.
    pub sns: Pair,
    /// For client authentication.
    pub client: Pair,
}

/// The authority of this run.
pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![]).expect("params");
        params.distinguished_name.push(DnType::CommonName, "Tidegate test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a CA certificate").pem();
        let issuer = Issuer::new(params, key);
        let leaf = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(names).expect("params");
            let cert = params.signed_by(&key, &issuer).expect("a certificate").pem();
            Pair { cert, key: key.serialize_pem() }
        };
        Authority {
            server: leaf(&["localhost", "127.0.0.1"]),
            other: leaf(&["other.test"]),
            sns: leaf(&["sns.eu-west-1.amazonaws.com"]),
            client: leaf(&["client.test"]),
            ca,
        }
    })
}

impl Pair {
    /// Writes both files; returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, &self.cert).expect("write certificate");
        std::fs::write(&key, &self.key).expect("write key");
        (cert, key)
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority().ca.as_bytes()).expect("PEM")).expect("a root");
    roots
}

pub fn client_config(alpn: &[&str]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn chain(pair: &Pair) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("PEM");
    (vec![cert], PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM"))
}

fn serving(
    pair: &Pair,
    alpn: &[&str],
    clients: Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let (cert, key) = chain(pair);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients)
        .with_single_cert(cert, key)
        .expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// For `localhost`, to anyone.
pub fn server_config(alpn: &[&str]) -> Arc<ServerConfig> {
    serving(&authority().server, alpn, WebPkiClientVerifier::no_client_auth())
}

/// For `other.test`, to anyone.
pub fn other_config(alpn: &[&str]) -> Arc<ServerConfig> {
    serving(&authority().other, alpn, WebPkiClientVerifier::no_client_auth())
}

/// For `sns.eu-west-1.amazonaws.com`, to anyone.
pub fn sns_config(alpn: &[&str]) -> Arc<ServerConfig> {
    serving(&authority().sns, alpn, WebPkiClientVerifier::no_client_auth())
}

/// For `localhost`, to who shows a certificate of this run's authority.
pub fn mutual_config(alpn: &[&str]) -> Arc<ServerConfig> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots().into(), Arc::new(ring::default_provider()))
            .build()
            .expect("a verifier");
    serving(&authority().server, alpn, verifier)
}
