//! Certificates and keys from files to rustls server settings: SNI, versions, ALPN, the self-signed first start.
//! Accepting connections with them is `edge`'s.
//!
//! Session tickets are on (their keys live in memory and rotate), early data (0-RTT) is off: it can be replayed.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    Error as RustlsError, InconsistentKeys, ServerConfig, SupportedProtocolVersion, version,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::{Clock, Timestamp};
use crate::config::{CertificateFiles, Tls, TlsVersion};

/// A certificate that ends within this many days is worth a warning.
const ENDS_SOON_DAYS: u64 = 14;
/// How long a generated certificate is valid.
const GENERATED_YEARS: i32 = 10;
const YEAR_SECONDS: u64 = 31_556_952;

static TLS12_UP: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
static TLS13_UP: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// Reads the files of a listener and makes its settings. Makes a self-signed certificate first where that is asked
/// for and neither file exists. What `check` would warn about is logged.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    for files in tls.certificates.iter().filter(|_| tls.generate) {
        generate(files)?;
    }
    let now = Clock::System.now();
    let provider = Arc::new(ring::default_provider());
    let mut names = Names::default();
    for files in &tls.certificates {
        let loaded = load(files, &provider)?;
        if let Some(warning) = loaded.warning(files, now) {
            tracing::warn!(file = warning.file, "{}", warning.problem);
        }
        names.add(loaded);
    }
    if names.first.is_none() {
        return Err(TlsError { file: "tls".into(), problem: "no certificate is given".into() });
    }
    let versions = match tls.min_version {
        TlsVersion::Tls12 => TLS12_UP,
        TlsVersion::Tls13 => TLS13_UP,
    };
    let own = |error: RustlsError| TlsError { file: "tls".into(), problem: error.to_string() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(own)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets resume sessions without state, and without a lock, on our side.
    config.ticketer = ring::Ticketer::new().map_err(own)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Reads the files of a listener without making any, and returns what is worth a warning. Files that are still to be
/// generated are fine.
pub fn check(tls: &Tls) -> Result<Vec<TlsError>, TlsError> {
    let now = Clock::System.now();
    let provider = Arc::new(ring::default_provider());
    let mut warnings = Vec::new();
    for files in &tls.certificates {
        if tls.generate && presence(files)? == Presence::Neither {
            continue;
        }
        warnings.extend(load(files, &provider)?.warning(files, now));
    }
    Ok(warnings)
}

/// When a certificate ends.
pub fn ends(files: &CertificateFiles) -> Result<Timestamp, TlsError> {
    Ok(load(files, &ring::default_provider())?.ends)
}

/// Why a certificate can't be used; names the file and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TlsError {
    pub file: String,
    pub problem: String,
}

impl TlsError {
    fn new(file: &Path, problem: impl fmt::Display) -> Self {
        Self { file: file.display().to_string(), problem: problem.to_string() }
    }
}

/// A certificate with its key, and what its leaf says.
struct Loaded {
    key: Arc<CertifiedKey>,
    /// DNS names, lower case.
    names: Vec<String>,
    begins: Timestamp,
    ends: Timestamp,
}

impl Loaded {
    fn warning(&self, files: &CertificateFiles, now: Timestamp) -> Option<TlsError> {
        let problem = if now < self.begins {
            format!("the certificate is valid only from {}", self.begins)
        } else if now >= self.ends {
            format!("the certificate expired at {}: renew it, senders will refuse it", self.ends)
        } else if self.ends.since(now).as_secs() < ENDS_SOON_DAYS * 24 * 3600 {
            format!("the certificate expires soon, at {}", self.ends)
        } else {
            return None;
        };
        Some(TlsError::new(&files.cert, problem))
    }
}

fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
    let bytes = read(&files.cert)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::new(&files.cert, format!("not a PEM file: {error}")))?;
    let Some(leaf) = chain.first() else {
        let problem = "holds no certificate; a PEM file with `-----BEGIN CERTIFICATE-----` is expected, the server's \
                       own certificate first, then its intermediates";
        return Err(TlsError::new(&files.cert, problem));
    };
    let unreadable =
        |error| TlsError::new(&files.cert, format!("the first certificate can't be read: {error}"));
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(unreadable)?;
    let names = match parsed.subject_alternative_name() {
        Ok(Some(names)) => names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect(),
        Ok(None) | Err(_) => Vec::new(),
    };
    let seconds = |time: i64| Timestamp::from_secs(u64::try_from(time).unwrap_or(0));
    let (begins, ends) =
        (seconds(parsed.validity().not_before.timestamp()), seconds(parsed.validity().not_after.timestamp()));

    let key = key(&files.key)?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::new(
            &files.key,
            format!("the key does not belong to the first certificate of {}", files.cert.display()),
        ),
        error => {
            TlsError::new(&files.key, format!("the key can't be used (RSA, ECDSA and Ed25519 can): {error}"))
        }
    })?;
    Ok(Loaded { key: Arc::new(certified), names, begins, ends })
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = zeroize::Zeroizing::new(read(file)?);
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let encrypted = bytes.windows(9).any(|w| w == b"ENCRYPTED");
        let problem = match error {
            _ if encrypted => "the key is encrypted; decrypt it first (`openssl pkey -in … -out …`)".into(),
            pem::Error::NoItemsFound => {
                "holds no private key; PEM in PKCS#8, PKCS#1 or SEC1 is expected".into()
            }
            error => format!("not a PEM file: {error}"),
        };
        TlsError::new(file, problem)
    })
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::new(file, format!("can't be read: {error}")))
}

/// Certificates by the name that a client asks for.
#[derive(Debug, Default)]
struct Names {
    first: Option<Arc<CertifiedKey>>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    /// Of several certificates for one name, the first is taken.
    fn add(&mut self, loaded: Loaded) {
        for name in loaded.names {
            match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_insert_with(|| loaded.key.clone()),
                None => self.exact.entry(name).or_insert_with(|| loaded.key.clone()),
            };
        }
        self.first.get_or_insert(loaded.key);
    }

    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&name).or_else(|| self.wildcard.get(parent?))
        });
        named.or(self.first.as_ref())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()).cloned()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Both,
    Neither,
}

fn presence(files: &CertificateFiles) -> Result<Presence, TlsError> {
    let lonely = |missing: &Path, other: &Path| {
        let problem = format!(
            "is missing, while {} exists; restore it, or remove the other to have both generated",
            other.display()
        );
        Err(TlsError::new(missing, problem))
    };
    match (files.cert.exists(), files.key.exists()) {
        (true, true) => Ok(Presence::Both),
        (false, false) => Ok(Presence::Neither),
        (true, false) => lonely(&files.key, &files.cert),
        (false, true) => lonely(&files.cert, &files.key),
    }
}

/// Makes a key and a self-signed certificate for this machine, unless both files exist.
fn generate(files: &CertificateFiles) -> Result<(), TlsError> {
    if presence(files)? == Presence::Both {
        return Ok(());
    }
    let failed = |error: rcgen::Error| TlsError::new(&files.cert, format!("can't be generated: {error}"));
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(host_name());
    let mut params = CertificateParams::new(names).map_err(failed)?;
    // Whole years are exact enough here.
    let year = 1970 + i32::try_from(Clock::System.now().as_secs() / YEAR_SECONDS).unwrap_or(0);
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + GENERATED_YEARS, 1, 1);
    params.distinguished_name.push(rcgen::DnType::CommonName, "tidegate self-signed");
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;

    let pem = zeroize::Zeroizing::new(key.serialize_pem());
    create(&files.key, pem.as_bytes(), 0o600)?;
    create(&files.cert, certificate.pem().as_bytes(), 0o644)?;
    tracing::warn!(
        cert = %files.cert.display(),
        key = %files.key.display(),
        "made a self-signed certificate; senders on the internet will not accept it"
    );
    Ok(())
}

/// Writes a new file that no one else may have made meanwhile, with `mode` from its first byte on.
fn create(file: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| TlsError::new(file, format!("can't be written: {error}")))
}

/// This machine's name, if it is one that a certificate can hold.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| fs::read_to_string("/etc/hostname"))
        .ok()?;
    let name = name.trim().to_ascii_lowercase();
    let valid = !name.is_empty()
        && name != "localhost"
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    valid.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn file(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
        fn files(&self, name: &str) -> CertificateFiles {
            CertificateFiles {
                cert: self.file(&format!("{name}.pem")),
                key: self.file(&format!("{name}.key")),
            }
        }
        /// Writes a certificate for `names` that ends in `year`.
        fn certificate(&self, name: &str, names: &[&str], year: i32) -> CertificateFiles {
            let files = self.files(name);
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().unwrap();
            fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
            fs::write(&files.key, key.serialize_pem()).unwrap();
            files
        }
    }

    fn tls(certificates: Vec<CertificateFiles>) -> Tls {
        Tls { certificates, min_version: TlsVersion::Tls12, generate: false }
    }

    fn problem(files: CertificateFiles) -> String {
        server_config(&tls(vec![files])).unwrap_err().to_string()
    }

    #[test]
    fn the_first_start_makes_a_certificate_and_the_second_keeps_it() {
        let folder = Folder::new();
        let mut files = folder.files("own");
        files.key = folder.file("deep/er/own.key");
        let tls = Tls { generate: true, ..tls(vec![files.clone()]) };
        assert_eq!(check(&tls).unwrap(), [], "a check makes no files");
        assert!(!files.cert.exists());
        let config = server_config(&tls).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(config.max_early_data_size, 0);
        assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&files.cert).unwrap();
        server_config(&tls).unwrap();
        assert_eq!(fs::read(&files.cert).unwrap(), first);
        assert_eq!(check(&tls).unwrap(), []);

        fs::remove_file(&files.key).unwrap();
        let error = server_config(&tls).unwrap_err();
        assert!(error.file.ends_with("own.key") && error.problem.contains("missing"), "{error}");
    }

    #[test]
    fn a_name_gets_its_certificate_and_strangers_the_first() {
        let folder = Folder::new();
        let provider = ring::default_provider();
        let mut names = Names::default();
        let mut keys = Vec::new();
        for (name, sans) in [
            ("first", &["first.example"][..]),
            ("wild", &["*.hooks.example", "Hooks.example"]),
            ("exact", &["a.hooks.example", "first.example"]),
        ] {
            let loaded = load(&folder.certificate(name, sans, 2100), &provider).unwrap();
            keys.push(loaded.key.clone());
            names.add(loaded);
        }
        let index = |name| keys.iter().position(|key| Arc::ptr_eq(key, names.find(name).unwrap()));
        assert_eq!(index(None), Some(0));
        assert_eq!(index(Some("unknown.example")), Some(0));
        assert_eq!(index(Some("FIRST.example")), Some(0));
        assert_eq!(index(Some("hooks.example")), Some(1));
        assert_eq!(index(Some("b.hooks.example")), Some(1));
        assert_eq!(index(Some("a.hooks.example")), Some(2));
        assert_eq!(index(Some("x.b.hooks.example")), Some(0), "a wildcard is one label");
    }

    #[test]
    fn a_key_of_another_certificate_is_named() {
        let folder = Folder::new();
        let (mut one, two) =
            (folder.certificate("one", &["a"], 2100), folder.certificate("two", &["a"], 2100));
        one.key = two.key;
        let problem = problem(one);
        assert!(
            problem.contains("two.key") && problem.contains("does not belong") && problem.contains("one.pem")
        );
    }

    #[test]
    fn an_expired_certificate_is_a_warning() {
        let folder = Folder::new();
        let tls = tls(vec![folder.certificate("old", &["a"], 2020)]);
        server_config(&tls).unwrap();
        let warnings = check(&tls).unwrap();
        assert!(warnings[0].to_string().contains("expired at 2020-01-01"), "{warnings:?}");
    }

    #[test]
    fn unusable_files_are_named_with_the_mend() {
        let folder = Folder::new();
        let good = folder.certificate("good", &["a"], 2100);
        let with = |cert: &str, key: &str| {
            let files = folder.files("bad");
            fs::write(&files.cert, cert).unwrap();
            fs::write(&files.key, key).unwrap();
            problem(files)
        };
        let (cert, key) = (fs::read_to_string(&good.cert).unwrap(), fs::read_to_string(&good.key).unwrap());
        assert!(with("", &key).contains("bad.pem: holds no certificate"));
        assert!(with(&key, &key).contains("bad.pem: holds no certificate"));
        assert!(with(&cert, &cert).contains("bad.key: holds no private key"));
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        assert!(with(&cert, &encrypted).contains("decrypt it first"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(with(broken, &key).contains("can't be read"));
        assert!(with("-----BEGIN CERTIFICATE-----\nAAAA\n", &key).contains("not a PEM file"));
        assert!(problem(folder.files("absent")).contains("absent.pem: can't be read"));
        assert!(server_config(&tls(vec![])).is_err());
    }
}
