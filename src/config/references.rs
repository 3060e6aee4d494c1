//! What stands behind references: `env:NAME`, `file:PATH`, pack names, URLs of key sets. No error text holds a secret.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::KeySources;
use super::outside::Outside;
use super::pack::load_pack;
use super::problem::{Problem, Problems};
use crate::providers::{self, Pack};
use crate::secret::{Secret, trim_line_end};
use crate::tenants::Oracles;
use crate::verify::{KeySource, Remote, Resolver, Signable};

/// Whether secrets may stand in the config itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inline {
    Refused,
    Allowed,
}

/// Looks up references for one config.
pub(super) struct References<'a> {
    pub outside: &'a dyn Outside,
    pub keys: &'a dyn KeySources,
    /// Where relative paths start.
    pub base: PathBuf,
    pub inline: Inline,
    /// Secrets that were given in the config itself since this was last emptied.
    pub seen_inline: RefCell<Vec<String>>,
    /// References to secrets that are too short to be good since this was last emptied, and their lengths.
    pub seen_short: RefCell<Vec<(String, usize)>>,
    /// What is wrong within pack files.
    pub pack_problems: RefCell<Vec<Problem>>,
    /// Packs that were read: several parts of a route ask for its pack, and several routes for one pack.
    pub packs: RefCell<BTreeMap<String, Arc<Pack>>>,
    /// What greetings of the config's routes are answered with.
    pub signable: Arc<Signable>,
    /// And of those that are answered with a secret of whoever sends.
    pub oracles: Arc<Oracles>,
    /// Files with secrets that were read.
    pub seen_files: RefCell<Vec<(PathBuf, Secret)>>,
}

impl References<'_> {
    /// A path as written, from the config's folder.
    pub fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }

    /// `env:` and `file:`; `None` if the text is no reference.
    fn fetched(&self, reference: &str) -> Option<Result<Vec<u8>, NotFetched>> {
        if let Some(name) = reference.strip_prefix("env:") {
            return Some(self.variable(name));
        }
        reference.strip_prefix("file:").map(|path| self.file(path))
    }

    fn taken(&self, reference: &str, secret: Secret) -> Result<Secret, String> {
        if secret.is_blank() {
            return Err("the secret is nothing but white space".into());
        }
        let length = secret.expose().len();
        if length < SHORT {
            self.seen_short.borrow_mut().push((reference.to_owned(), length));
        }
        Ok(secret)
    }

    /// Whether a folder that files are read from later is there.
    pub fn folder(&self, folder: &Path) -> Result<(), String> {
        if !self.outside.secrets_are_needed() {
            return Ok(());
        }
        let path = self.base.join(folder);
        self.outside.folder(&path).map_err(|error| {
            format!(
                "the folder {} can't be used: {error} (paths start from the config's folder)",
                path.display()
            )
        })
    }

    fn variable(&self, name: &str) -> Result<Vec<u8>, NotFetched> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(legal) {
            return Err(NotFetched::Wrong(
                "`env:` takes the name of an environment variable, such as `env:WEBHOOK_SECRET`".into(),
            ));
        }
        match self.outside.env(name) {
            None => Err(NotFetched::Missing(format!(
                "the environment variable {name} is not set where this runs (a secret can also stand in a file: `file:PATH`)"
            ))),
            Some(value) if value.is_empty() => {
                Err(NotFetched::Missing(format!("the environment variable {name} is empty")))
            }
            Some(value) => Ok(value.into_vec()),
        }
    }

    fn file(&self, written: &str) -> Result<Vec<u8>, NotFetched> {
        if written.is_empty() {
            return Err(NotFetched::Wrong("`file:` takes a path, such as `file:secrets/webhook`".into()));
        }
        let path = self.path(written);
        let mut bytes = self.outside.read(&path).map_err(|error| {
            NotFetched::Missing(match Path::new(written).is_relative() {
                true => format!("{}: {error} (paths start from the config's folder)", path.display()),
                false => format!("{}: {error}", path.display()),
            })
        })?;
        trim_line_end(&mut bytes);
        match bytes.is_empty() {
            true => Err(NotFetched::Missing(format!("{} is empty", path.display()))),
            false => Ok(bytes),
        }
    }
}

/// Bytes below which a secret can be guessed.
const SHORT: usize = 8;

/// In the place of a secret that is not here and need not be: reads as text, hex and base64, and is long enough for
/// every scheme. Nobody verifies with it.
const STAND_IN: &[u8] = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Why a reference gives nothing.
enum NotFetched {
    /// The reference itself makes no sense.
    Wrong(String),
    /// What it refers to is not here, or is empty.
    Missing(String),
}

impl From<NotFetched> for String {
    fn from((NotFetched::Wrong(text) | NotFetched::Missing(text)): NotFetched) -> Self {
        text
    }
}

/// The name in `$NAME` and `${NAME}`, which other programs fill in.
fn shell_variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').and_then(|n| n.strip_suffix('}')).unwrap_or(name);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (!name.is_empty() && name.bytes().all(legal)).then_some(name)
}

/// Whether a URL's host is an address of this machine itself, which plain http can't leave.
pub fn is_loopback(host: &str) -> bool {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    literal.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl Resolver for References<'_> {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        match self.fetched(reference) {
            Some(Err(NotFetched::Missing(_))) if !self.outside.secrets_are_needed() => {
                Ok(Secret::new(STAND_IN.to_vec()))
            }
            Some(fetched) => {
                let secret = self.taken(reference, Secret::new(fetched?))?;
                if let Some(path) = reference.strip_prefix("file:") {
                    self.seen_files.borrow_mut().push((self.path(path), secret.clone()));
                }
                Ok(secret)
            }
            None if reference.is_empty() => Err("the secret is empty".into()),
            None if self.inline == Inline::Allowed => {
                self.seen_inline.borrow_mut().push(reference.to_owned());
                self.taken(reference, Secret::new(reference.as_bytes().to_vec()))
            }
            None => Err(match shell_variable(reference) {
                Some(name) => format!("variables are not filled in here: write `env:{name}`"),
                None => "a secret is given by reference: `env:NAME` or `file:PATH` \
                         (to write it into the config itself, set `allow_inline_secrets: true`)"
                    .into(),
            }),
        }
    }

    fn text(&self, reference: &str) -> Result<String, String> {
        match self.fetched(reference) {
            Some(fetched) => {
                String::from_utf8(fetched?).map_err(|_| format!("{reference} is not UTF-8 text"))
            }
            None => Ok(reference.to_owned()),
        }
    }

    fn keys(&self, remote: Remote) -> Result<Arc<dyn KeySource>, String> {
        Ok(self.keys.source(remote))
    }

    fn signable(&self) -> Arc<Signable> {
        self.signable.clone()
    }

    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        let is_file = name.contains('/')
            || Path::new(name)
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
        if let Some(pack) = self.packs.borrow().get(name) {
            return Ok(pack.clone());
        }
        let pack = if is_file { self.pack_file(name) } else { providers::find(name) }?;
        self.packs.borrow_mut().insert(name.to_owned(), pack.clone());
        Ok(pack)
    }
}

impl References<'_> {
    fn pack_file(&self, name: &str) -> Result<Arc<Pack>, String> {
        load_pack(&self.path(name)).map_err(|Problems(problems)| match problems.as_slice() {
            // The file itself can't be read.
            [Problem { line: 0, file, message, .. }] => {
                format!("the pack {file} {message} (paths start from the config's folder)")
            }
            _ => {
                let message = format!("the pack {name} can't be used, see there");
                self.pack_problems.borrow_mut().extend(problems);
                message
            }
        })
    }
}
