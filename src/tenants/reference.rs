//! References whose file depends on the request: `file:secrets/{account}`.
//!
//! A parameter's value comes from whoever sends, so it becomes part of a file's name only if it can't be read as
//! anything but a plain name: ASCII letters, digits and `_ - . @ + = , ~`, no dot first, 128 bytes at most. Nothing is
//! decoded: a value with `%` in it names no file, so that no spelling of a name reaches a file that another doesn't.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::oracles::normal;
use crate::message::PathParams;

/// Longest value that may name a file, in bytes.
const MAX_VALUE: usize = 128;

/// A reference to a file whose name holds parameters of the route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// As it is in the config.
    pub written: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(Arc<str>),
}

impl Reference {
    /// `None` if the text names the same thing for every request; the error says what is wrong with it.
    pub fn parse(written: &str) -> Option<Result<Self, String>> {
        let path = written.strip_prefix("file:")?;
        if !path.contains(['{', '}']) {
            return None;
        }
        Some(pieces(path).map(|pieces| Self { written: written.to_owned(), pieces }))
    }

    /// Names of its parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Parameter(name) => Some(name),
            Piece::Text(_) => None,
        })
    }

    /// The folder that is the same for all requests.
    pub fn folder(&self) -> &Path {
        match self.pieces.first() {
            Some(Piece::Text(text)) => match text.rfind('/') {
                Some(0) => Path::new("/"),
                Some(end) => Path::new(&text[..end]),
                None => Path::new("."),
            },
            _ => Path::new("."),
        }
    }

    /// The same with its whole path, below `base`, in one spelling.
    pub(super) fn normal(&self, base: &Path) -> Option<Self> {
        let path = base.join(self.written.strip_prefix("file:")?);
        Self::parse(&format!("file:{}", normal(&path).to_str()?))?.ok()
    }

    /// Whether a path is that of some request's file. Both in one spelling.
    pub(super) fn could_be(&self, path: &str) -> bool {
        could_be(&self.pieces, path)
    }

    /// The file for a request, as a path from where relative ones start. `None` if a value can't name a file.
    pub fn path(&self, params: &PathParams) -> Option<PathBuf> {
        let mut path = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Parameter(name) => path.push_str(params.get(name).filter(|value| is_plain(value))?),
            }
        }
        Some(path.into())
    }
}

fn pieces(path: &str) -> Result<Vec<Piece>, String> {
    const HELP: &str = "write a parameter of the route's path as `{name}`";
    let mut pieces = Vec::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        if before.contains('}') {
            return Err(format!("a `}}` without its `{{`: {HELP}"));
        }
        let Some((name, behind)) = after.split_once('}') else {
            return Err(format!("a `{{` without its `}}`: {HELP}"));
        };
        if name.is_empty() || name.contains('{') {
            return Err(format!("`{{{name}}}` is no parameter: {HELP}"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Parameter(name.into()));
        rest = behind;
    }
    if rest.contains('}') {
        return Err(format!("a `}}` without its `{{`: {HELP}"));
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn could_be(pieces: &[Piece], path: &str) -> bool {
    match pieces {
        [] => path.is_empty(),
        [Piece::Text(text), rest @ ..] => path.strip_prefix(&**text).is_some_and(|path| could_be(rest, path)),
        // Plain values are ASCII.
        [Piece::Parameter(_), rest @ ..] => (1..=path.len().min(MAX_VALUE))
            .take_while(|end| path.get(..*end).is_some_and(is_plain))
            .any(|end| could_be(rest, &path[end..])),
    }
}

/// Whether a value is a plain file name and nothing else.
pub(super) fn is_plain(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.@+=,~".contains(&b);
    !value.is_empty() && value.len() <= MAX_VALUE && !value.starts_with('.') && value.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(value: &str) -> PathParams {
        PathParams(vec![("account".into(), value.into())])
    }

    #[test]
    fn only_files_with_parameters_depend_on_the_request() {
        for same in ["env:A", "file:secrets/a", "{account}", "-----BEGIN {x}"] {
            assert!(Reference::parse(same).is_none(), "{same}");
        }
        for wrong in ["file:a/{", "file:a/}", "file:a/{}", "file:{a{b}}", "file:a}{b"] {
            assert!(Reference::parse(wrong).unwrap().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_folder_is_what_stands_before_the_first_parameter() {
        let folder = |text: &str| Reference::parse(text).unwrap().unwrap().folder().to_owned();
        assert_eq!(folder("file:secrets/{account}"), Path::new("secrets"));
        assert_eq!(folder("file:secrets/a-{account}.key"), Path::new("secrets"));
        assert_eq!(folder("file:/{account}"), Path::new("/"));
        assert_eq!(folder("file:{account}/key"), Path::new("."));
    }

    #[test]
    fn a_value_that_could_be_read_as_more_than_a_name_names_no_file() {
        let reference = Reference::parse("file:secrets/{account}.key").unwrap().unwrap();
        let path = |value: &str| reference.path(&params(value));
        assert_eq!(path("acme-1"), Some("secrets/acme-1.key".into()));
        assert_eq!(path("a@b.example"), Some("secrets/a@b.example.key".into()));
        let long = "a".repeat(MAX_VALUE + 1);
        for bad in [
            "", ".", "..", ".hidden", "../x", "a/b", "a\\b", "a\0", "%2e%2e", "a%2Fb", "a%00", "%61cme",
            "a b", "ü", "a\n", &long,
        ] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
        assert_eq!(reference.path(&PathParams::default()), None);
    }

    #[test]
    fn a_path_is_some_requests_file_in_any_spelling() {
        let reference = Reference::parse("file:./secrets/../secrets/{a}-{b}.key").unwrap().unwrap();
        let whole = reference.normal(Path::new("/etc/tg")).unwrap();
        for (path, is_one) in [
            ("/etc/tg/secrets/x-y.key", true),
            ("/etc/tg/secrets/x-y-z.key", true),
            ("/etc/tg/secrets/-y.key", false),
            ("/etc/tg/secrets/xy.key", false),
            ("/etc/tg/secrets/x-y.key2", false),
            ("/etc/tg/secrets/in/x-y.key", false),
            ("/etc/secrets/x-y.key", false),
        ] {
            assert_eq!(whole.could_be(path), is_one, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_value_leads_out_of_its_folder(value in "\\PC{0,40}") {
            let reference = Reference::parse("file:secrets/{account}").unwrap().unwrap();
            if let Some(path) = reference.path(&params(&value)) {
                prop_assert_eq!(path.parent(), Some(Path::new("secrets")));
                prop_assert_eq!(path.file_name().and_then(|n| n.to_str()), Some(value.as_str()));
            }
        }
    }
}
