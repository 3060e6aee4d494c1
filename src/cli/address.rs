//! Where the running gateway's admin API is, and with which token: from the arguments, the environment, the config
//! file, or the default, in this order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::check::usual_path;
use super::failure::Failure;
use crate::secret::Secret;

/// The default of `admin.listen`.
const DEFAULT: &str = "127.0.0.1:9900";
/// A token longer than this is no token but a wrong file.
const MAX_TOKEN: u64 = 64 * 1024;

/// How the running gateway is reached
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "The gateway to ask")]
pub struct AdminArgs {
    /// The admin API: http://HOST:PORT or unix:PATH [default: what the config says, else 127.0.0.1:9900]
    #[arg(long, env = "TIDEGATE_ADMIN", value_name = "ADDRESS", global = true)]
    admin: Option<Address>,

    /// Read address and token from the `admin` section of this config, a file or a folder [default: ./tidegate.yaml,
    /// else conf/tidegate.yaml, if there is one]
    #[arg(short, long, env = "TIDEGATE_CONFIG", value_name = "PATH", global = true)]
    config: Option<PathBuf>,

    /// File with the admin token [default: the environment's TIDEGATE_ADMIN_TOKEN, else what the config says]
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The config, if one is named.
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The address and the token, if there is one.
    pub fn resolve(&self) -> Result<(Address, Option<Secret>), Failure> {
        let configured = match &self.config {
            // A full address and token make the config needless, and it may not be readable here.
            _ if self.admin.is_some() && self.token_file.is_some() => Section::default(),
            Some(path) => Section::of(path)?,
            // What merely lies around is no part of a question that names its gateway.
            None if self.admin.is_none() && usual_path().exists() => Section::of(&usual_path())?,
            None => Section::default(),
        };
        let address = match (&self.admin, &configured.listen) {
            (Some(address), _) => address.clone(),
            (None, Some(listen)) if listen == "off" => {
                return Err(Failure::No(
                    "the config switches the admin API off (`admin.listen: off`)".into(),
                ));
            }
            (None, Some(listen)) => listen.parse().map_err(Failure::Config)?,
            (None, None) => DEFAULT.parse().map_err(Failure::Config)?,
        };
        Ok((address, self.token(&configured)?))
    }

    fn token(&self, configured: &Section) -> Result<Option<Secret>, Failure> {
        if let Some(file) = &self.token_file {
            return token_file(file).map(Some);
        }
        match (std::env::var("TIDEGATE_ADMIN_TOKEN"), &configured.token) {
            (Ok(token), _) if !token.is_empty() => Ok(Some(Secret::new(token.into_bytes()))),
            (_, Some(reference)) => configured_token(reference, &configured.folder),
            _ => Ok(None),
        }
    }
}

/// Follows `env:NAME` and `file:PATH`. What this machine or user does not have is no error here: the API says whether
/// it wants a token.
fn configured_token(reference: &str, folder: &Path) -> Result<Option<Secret>, Failure> {
    if let Some(name) = reference.strip_prefix("env:") {
        let token = std::env::var(name).ok().filter(|token| !token.is_empty());
        return Ok(token.map(|token| Secret::new(token.into_bytes())));
    }
    match reference.strip_prefix("file:") {
        Some(path) if folder.join(path).exists() => token_file(&folder.join(path)).map(Some),
        _ => Ok(None),
    }
}

fn token_file(path: &Path) -> Result<Secret, Failure> {
    let failed = |what: String| Failure::Usage(format!("token file {}: {what}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?.len();
    if size > MAX_TOKEN {
        return Err(failed("too large for a token".into()));
    }
    let mut token = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    // One final line feed is an editor's, as in the config.
    if token.last() == Some(&b'\n') {
        token.pop();
        if token.last() == Some(&b'\r') {
            token.pop();
        }
    }
    if token.is_empty() {
        return Err(failed("it is empty".into()));
    }
    Ok(Secret::new(token))
}

/// The `admin` section as written. Read on its own, so that asking a running gateway does not need every secret and
/// certificate of its config.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    listen: Option<String>,
    token: Option<String>,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    admin: Option<Section>,
}

impl Section {
    fn of(path: &Path) -> Result<Self, Failure> {
        let failed = |what: String| Failure::Config(format!("{}: {what}", path.display()));
        let (folder, files) = if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| failed(e.to_string()))?;
            let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml"));
            files.sort();
            (path.to_owned(), files)
        } else {
            (path.parent().unwrap_or(Path::new("")).to_owned(), vec![path.to_owned()])
        };
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|e| failed(e.to_string()))?;
            let file: File = serde_saphyr::from_str(&text)
                .map_err(|e| failed(format!(
                    "{e}\n(`tidegate check` says everything that is wrong; with --admin ADDRESS the config is not read)"
                )))?;
            if let Some(section) = file.admin {
                return Ok(Section { folder, ..section });
            }
        }
        Ok(Section { folder, ..Section::default() })
    }
}

/// Where an admin API listens, seen from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`
    Tcp(String),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(authority) => write!(f, "http://{authority}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // Both `unix:/run/x` and the URL form `unix:///run/x`.
            let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
            return match path {
                "" => Err("`unix:` needs a path, such as unix:/run/tidegate.sock".into()),
                path => Ok(Address::Unix(path.into())),
            };
        }
        let authority = match text.split_once("://") {
            Some(("http", rest)) => rest.trim_end_matches('/'),
            Some((scheme, _)) => {
                return Err(format!(
                    "`{scheme}://` is not spoken by the admin API: use http://HOST:PORT or unix:PATH"
                ));
            }
            None => text,
        };
        // A gateway that listens everywhere is reached on this machine's own address.
        if let Ok(address) = authority.parse::<SocketAddr>() {
            let address = match address {
                SocketAddr::V4(a) if a.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], a.port())),
                SocketAddr::V6(a) if a.ip().is_unspecified() => {
                    SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, a.port()))
                }
                address => address,
            };
            return Ok(Address::Tcp(address.to_string()));
        }
        match authority.parse::<http::uri::Authority>() {
            Ok(parsed) if parsed.port_u16().is_some() && !authority.contains('@') => {
                Ok(Address::Tcp(authority.to_owned()))
            }
            _ => Err(format!("`{text}` is no address: use http://HOST:PORT or unix:PATH")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Option<String> {
        match text.parse() {
            Ok(Address::Tcp(authority)) => Some(authority),
            _ => None,
        }
    }

    #[test]
    fn addresses_come_in_the_usual_forms() {
        assert_eq!(tcp("http://127.0.0.1:9900/").as_deref(), Some("127.0.0.1:9900"));
        assert_eq!(tcp("0.0.0.0:9900").as_deref(), Some("127.0.0.1:9900"));
        assert_eq!(tcp("[::]:9900").as_deref(), Some("[::1]:9900"));
        assert_eq!(tcp("gateway.internal:9900").as_deref(), Some("gateway.internal:9900"));
        assert_eq!("unix:/run/t.sock".parse(), Ok(Address::Unix("/run/t.sock".into())));
        assert_eq!("unix:///run/t.sock".parse(), Ok(Address::Unix("/run/t.sock".into())));
        assert_eq!("unix:t.sock".parse(), Ok(Address::Unix("t.sock".into())));
        for wrong in ["https://127.0.0.1:9900", "unix:", "127.0.0.1", "", "http://u:p@h:1", "h:p"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    fn args(config: &Path) -> AdminArgs {
        AdminArgs { config: Some(config.to_owned()), ..AdminArgs::default() }
    }

    #[test]
    fn address_and_token_come_from_the_config_without_the_rest_of_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "s3cret\n").unwrap();
        let file = folder.path().join("tidegate.yaml");
        let config = "routes: [{ path: /x, secret: env:NOT_HERE }]\nadmin: { listen: 0.0.0.0:9911, token: file:token }\n";
        std::fs::write(&file, config).unwrap();
        for path in [file.as_path(), folder.path()] {
            let (address, token) = args(path).resolve().unwrap();
            assert_eq!(address, Address::Tcp("127.0.0.1:9911".into()));
            assert_eq!(token.unwrap().expose(), b"s3cret");
        }
        let over = AdminArgs { admin: Some("unix:/x".parse().unwrap()), ..args(&file) };
        assert_eq!(over.resolve().unwrap().0, Address::Unix("/x".into()));
    }

    #[test]
    fn what_is_wrong_with_the_config_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        assert!(matches!(args(&file).resolve(), Err(Failure::Config(_))));
        std::fs::write(&file, "admin: { listen: off }").unwrap();
        assert!(matches!(args(&file).resolve(), Err(Failure::No(_))));
        std::fs::write(&file, "admin: [").unwrap();
        assert!(matches!(args(&file).resolve(), Err(Failure::Config(_))));
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let empty = AdminArgs { token_file: Some(folder.path().join("empty")), ..AdminArgs::default() };
        assert!(matches!(empty.resolve(), Err(Failure::Usage(_))));
    }
}
