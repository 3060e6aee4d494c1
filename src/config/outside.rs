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
    /// Whether this program could be started, by its path or from `PATH`; the error text is for the user.
    fn program(&self, name: &str) -> Result<(), String>;
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

    fn program(&self, name: &str) -> Result<(), String> {
        if self.needed != Needed::Everything {
            return Ok(());
        }
        if name.contains('/') {
            return startable(Path::new(name)).map_err(|why| format!("{name} {why}"));
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut why = "is in no folder of the PATH";
        for folder in std::env::split_paths(&folders) {
            match startable(&folder.join(name)) {
                Ok(()) => return Ok(()),
                Err(NOT_THERE) => {}
                Err(other) => why = other,
            }
        }
        Err(format!("`{name}` {why}"))
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

const NOT_THERE: &str = "does not exist";

/// Whether a file is there that may be run by somebody; whose the gateway's user is, is known only when it runs.
fn startable(path: &Path) -> Result<(), &'static str> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::metadata(path) {
        Ok(file) if !file.is_file() => Err("is no file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Err("is not executable"),
        Ok(_) => Ok(()),
        Err(_) => Err(NOT_THERE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_there_and_executable_or_it_is_said_why_not() {
        let real = Real { needed: Needed::Everything };
        assert_eq!(real.program("sh"), Ok(()));
        assert_eq!(real.program("/bin/sh"), Ok(()));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notify");
        let name = file.to_str().unwrap();
        assert!(real.program(name).unwrap_err().ends_with("does not exist"));
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(real.program(name).unwrap_err().ends_with("is not executable"));
        assert!(real.program(folder.path().to_str().unwrap()).unwrap_err().ends_with("is no file"));
        assert!(real.program("no-such-program-anywhere").unwrap_err().contains("PATH"));
        assert_eq!(Real { needed: Needed::Nothing }.program("no-such-program-anywhere"), Ok(()));
    }
}
