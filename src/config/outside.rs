//! What checking a config asks of the machine: the environment and files. A seam, so that tests need neither.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use super::Tls;
use crate::clock::{Clock, Timestamp};

/// Secrets, keys and certificates are small: a file beyond this is a mistake.
const MAX_FILE: u64 = 1 << 20;

pub(super) trait Outside {
    /// Whether a secret that is not here is an error.
    fn secrets_are_needed(&self) -> bool {
        true
    }
    /// What the machine is called.
    fn host_name(&self) -> String;
    fn now(&self) -> Timestamp {
        Clock::System.now()
    }
    fn env(&self, name: &str) -> Option<OsString>;
    /// A small file's bytes; the error text is for the user.
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;
    /// Whether this is a folder that can be looked into; the error text is for the user.
    fn folder(&self, path: &Path) -> Result<(), String>;
    /// Whether a listener could serve with these certificates.
    fn certificates(&self, tls: &Tls) -> Result<(), String>;
    /// The PEM file of a destination; `None` if such files are not looked at.
    fn pem(&self, path: &Path) -> Result<Option<Vec<u8>>, String>;
}

/// The machine that we run on.
#[derive(Debug)]
pub(super) struct Real {
    pub needed: Needed,
}

/// What a config refers to that must be here to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Everything: the gateway is to run with it.
    Everything,
    /// Secrets and keys, but no certificates: it neither listens nor connects.
    Secrets,
    /// Not even secrets: only the config itself is looked at.
    Nothing,
}

impl Outside for Real {
    fn secrets_are_needed(&self) -> bool {
        self.needed != Needed::Nothing
    }

    fn host_name(&self) -> String {
        let name = rustix::system::uname().nodename().to_string_lossy().trim().to_owned();
        if name.is_empty() { "tidegate".to_owned() } else { name }
    }

    fn env(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let read = || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(path)?;
            file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes.len() as u64 > MAX_FILE => Err(format!("is larger than {MAX_FILE} bytes")),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(std::io::Error::to_string(&error)),
        }
    }

    fn folder(&self, path: &Path) -> Result<(), String> {
        std::fs::read_dir(path).map(|_| ()).map_err(|error| error.to_string())
    }

    fn certificates(&self, tls: &Tls) -> Result<(), String> {
        if self.needed != Needed::Everything {
            return Ok(());
        }
        // Checking a config makes no files: the certificate that is made on the first start is made by `run`.
        let missing = |c: &super::CertificateFiles| !c.cert.exists() && !c.key.exists();
        if tls.generate && tls.certificates.iter().all(missing) {
            return Ok(());
        }
        crate::tls::server_config(tls).map(|_| ()).map_err(|error| error.to_string())
    }

    fn pem(&self, path: &Path) -> Result<Option<Vec<u8>>, String> {
        match self.needed {
            Needed::Everything => self.read(path).map(Some),
            Needed::Secrets | Needed::Nothing => Ok(None),
        }
    }
}
