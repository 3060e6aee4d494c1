//! What stands behind references: `env:NAME`, `file:PATH`, pack names, URLs of key sets. No error text holds a secret.

use std::cell::RefCell;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::KeySources;
use super::outside::Outside;
use crate::providers::{self, Pack};
use crate::secret::Secret;
use crate::verify::{KeySource, Resolver};

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
}

impl References<'_> {
    /// A path as written, from the config's folder.
    pub fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }

    /// `env:` and `file:`; `None` if the text is no reference.
    fn fetched(&self, reference: &str) -> Option<Result<Vec<u8>, String>> {
        if let Some(name) = reference.strip_prefix("env:") {
            return Some(self.variable(name));
        }
        reference.strip_prefix("file:").map(|path| self.file(path))
    }

    fn variable(&self, name: &str) -> Result<Vec<u8>, String> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(legal) {
            return Err(
                "`env:` takes the name of an environment variable, such as `env:WEBHOOK_SECRET`".into()
            );
        }
        match self.outside.env(name) {
            None => Err(format!("the environment variable {name} is not set")),
            Some(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Some(value) => Ok(value.into_vec()),
        }
    }

    fn file(&self, written: &str) -> Result<Vec<u8>, String> {
        if written.is_empty() {
            return Err("`file:` takes a path, such as `file:secrets/webhook`".into());
        }
        let path = self.path(written);
        let mut bytes = self.outside.read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
            if bytes.ends_with(b"\r") {
                bytes.pop();
            }
        }
        match bytes.is_empty() {
            true => Err(format!("{} is empty", path.display())),
            false => Ok(bytes),
        }
    }
}

impl Resolver for References<'_> {
    fn secret(&self, reference: &str) -> Result<Secret, String> {
        match self.fetched(reference) {
            Some(fetched) => fetched.map(Secret::new),
            None if reference.is_empty() => Err("the secret is empty".into()),
            None if self.inline == Inline::Allowed => {
                self.seen_inline.borrow_mut().push(reference.to_owned());
                Ok(Secret::new(reference.as_bytes().to_vec()))
            }
            None => Err("a secret is given by reference: `env:NAME` or `file:PATH` \
                         (to write it into the config itself, set `allow_inline_secrets: true`)"
                .into()),
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

    fn jwks(&self, url: &str) -> Result<Arc<dyn KeySource>, String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err("keys are fetched over https only: write `https://…`".into());
        }
        Ok(self.keys.jwks(&uri))
    }

    fn pack(&self, name: &str) -> Result<Arc<Pack>, String> {
        let is_file = name.contains('/')
            || Path::new(name)
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
        if is_file { providers::load(&self.path(name)) } else { providers::find(name) }
    }
}
