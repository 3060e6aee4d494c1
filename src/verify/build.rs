//! What building a rule needs and where it notes what is wrong.

use std::collections::BTreeMap;

use super::encoding::Encoding;
use super::mac::Hash;
use super::scheme::Labelled;
use super::spec::SecretSpec;
use super::window::Window;
use super::{Resolver, SpecProblem, nearest};
use crate::secret::Secret;

/// Values of a pack's parameters, resolved.
pub(super) type Params = BTreeMap<String, Vec<String>>;

/// The world outside, while a rule is built.
pub(super) struct Building<'a> {
    pub(super) resolver: &'a dyn Resolver,
    pub(super) params: &'a Params,
}

/// A list of problems and the place in the rule that is being built.
pub(super) struct Problems<'p> {
    base: Vec<String>,
    list: &'p mut Vec<SpecProblem>,
}

impl<'p> Problems<'p> {
    pub(super) fn new(list: &'p mut Vec<SpecProblem>) -> Self {
        Self { base: Vec::new(), list }
    }

    /// The same list, further in.
    pub(super) fn within(&mut self, more: &[&str]) -> Problems<'_> {
        let base = self.base.iter().cloned().chain(more.iter().map(|part| (*part).to_owned())).collect();
        Problems { base, list: self.list }
    }

    /// How many were noted so far.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Moves what was noted since `count` inside a pack to the key that names it: its reader can't see inside.
    pub(super) fn lift_from_pack(&mut self, count: usize) {
        let depth = self.base.len();
        for problem in self.list.iter_mut().skip(count) {
            let inside = match problem.at.get(depth).map(String::as_str) {
                Some("pack" | "jwt" | "api_key" | "bearer") => problem.at.split_off(depth),
                _ => continue,
            };
            let own = inside
                .iter()
                .position(|part| matches!(part.as_str(), "secrets" | "public_keys" | "keys" | "tokens"));
            match own {
                // A key of the user's that does not fit is shown where the user gave it.
                Some(own) if inside.len() > own + 1 => {
                    let list = if inside[own] == "public_keys" { "public_keys" } else { "secrets" };
                    problem.at.push(list.to_owned());
                    problem.at.extend_from_slice(&inside[own + 1..]);
                }
                _ => {
                    problem.at.push("provider".to_owned());
                    problem.message = format!("in the pack, at `{}`: {}", inside.join("."), problem.message);
                }
            }
        }
    }

    /// Gives what was noted since `count` at `from`, or within it, the place `to`.
    pub(super) fn rename(&mut self, count: usize, from: &[&str], to: &[&str]) {
        let depth = self.base.len();
        for problem in self.list.iter_mut().skip(count) {
            if let Some(inside) = problem.at.get(depth..depth + from.len())
                && inside.iter().map(String::as_str).eq(from.iter().copied())
            {
                problem.at.splice(depth..depth + from.len(), to.iter().map(|part| (*part).to_owned()));
            }
        }
    }

    /// Drops what was noted since `count` at `at`.
    pub(super) fn forget(&mut self, count: usize, at: &[&str]) {
        let place: Vec<String> =
            self.base.iter().cloned().chain(at.iter().map(|p| (*p).to_owned())).collect();
        let mut index = 0;
        self.list.retain(|problem| {
            index += 1;
            index <= count || problem.at != place
        });
    }

    /// Notes a problem with what to do about it; `None`, for whatever was to be built.
    pub(super) fn note<T>(
        &mut self,
        at: &[&str],
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Option<T> {
        self.push(at, message.into(), Some(help.into()))
    }

    /// Notes a word that is none of the known.
    pub(super) fn unknown<T>(&mut self, at: &[&str], what: &str, word: &str, known: &[&str]) -> Option<T> {
        let help = match nearest(word, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "there is none".to_owned(),
            None => format!("known are {}", known.join(", ")),
        };
        self.push(at, format!("unknown {what} `{word}`"), Some(help))
    }

    fn push<T>(&mut self, at: &[&str], message: String, help: Option<String>) -> Option<T> {
        let at = self.base.iter().cloned().chain(at.iter().map(|part| (*part).to_owned())).collect();
        self.list.push(SpecProblem { at, message, help });
        None
    }
}

impl Building<'_> {
    /// The secret behind a reference; never empty.
    pub(super) fn secret(
        &self,
        spec: &SecretSpec,
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<Secret> {
        match self.resolver.secret(&spec.secret) {
            Ok(secret) if secret.expose().is_empty() => {
                problems.note(at, "the secret is empty", "such as `secret: env:NAME`")
            }
            Ok(secret) if secret.is_blank() => problems.note(
                at,
                "the secret is nothing but white space",
                "give the one that the sender shows",
            ),
            Ok(secret) => Some(secret),
            Err(message) => problems.note(at, message, super::REFERENCE_HELP),
        }
    }

    /// A key with what `spec` says of it.
    pub(super) fn labelled<T>(
        &self,
        value: T,
        spec: &SecretSpec,
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Labelled<T> {
        let window = self.window(spec, at, problems);
        Labelled { value, label: spec.label.as_deref().map(Into::into), window }
    }

    /// When a key is live.
    pub(super) fn window(&self, spec: &SecretSpec, at: &[&str], problems: &mut Problems<'_>) -> Window {
        Window::of(spec).unwrap_or_else(|(key, message)| {
            let at: Vec<&str> = at.iter().copied().chain([key]).collect();
            problems.note::<()>(&at, message, "write a time such as `2026-12-01T00:00:00Z`");
            Window::default()
        })
    }

    /// The text behind a reference, or the text itself.
    pub(super) fn text(&self, reference: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<String> {
        match self.resolver.text(reference) {
            Ok(text) => Some(text),
            Err(message) => problems.note(at, message, super::REFERENCE_HELP),
        }
    }

    /// The public key behind a reference, or the key itself; `None` without a problem if this sender has none.
    pub(super) fn public_key(
        &self,
        reference: &str,
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Option<String> {
        match self.resolver.public_key(reference) {
            Ok(text) => text,
            Err(message) => problems.note(at, message, super::REFERENCE_HELP),
        }
    }

    /// The value of a parameter that has exactly one.
    pub(super) fn param(&self, name: &str) -> Option<String> {
        match self.params.get(name)?.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }
    }

    /// Texts with `{param:NAME}` filled in; a text that is nothing else becomes all values of that parameter.
    pub(super) fn expand_all(
        &self,
        texts: &[String],
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Vec<String> {
        let mut expanded = Vec::new();
        for text in texts {
            let whole = text.strip_prefix("{param:").and_then(|rest| rest.strip_suffix('}'));
            match whole.and_then(|name| self.params.get(name)) {
                Some(values) => expanded.extend(values.iter().cloned()),
                None => expanded.extend(self.expand(text, at, problems)),
            }
        }
        expanded
    }

    /// The same, but a text that is nothing else than a parameter that is not given becomes nothing.
    pub(super) fn expand_given(
        &self,
        texts: &[String],
        at: &[&str],
        problems: &mut Problems<'_>,
    ) -> Vec<String> {
        let given = texts.iter().filter(|text| {
            let name = text.strip_prefix("{param:").and_then(|rest| rest.strip_suffix('}'));
            name.is_none_or(|name| self.params.contains_key(name))
        });
        self.expand_all(&given.cloned().collect::<Vec<_>>(), at, problems)
    }

    /// Which parameters there are, for who wrote one that is none.
    pub(super) fn params_help(&self, name: &str) -> String {
        let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
        match (nearest(name, known.iter().copied()), known.as_slice()) {
            (Some(near), _) if near != name => format!("did you mean `{near}`?"),
            (Some(_), _) => "it has several values (or none), and one is needed".to_owned(),
            (None, []) => {
                "there are none: `{param:NAME}` is for packs, which name theirs under `params`".to_owned()
            }
            (None, some) => format!("known are {}", some.join(", ")),
        }
    }

    /// What templates look like.
    pub(super) fn template_help(&self) -> String {
        let params = match self.params.is_empty() {
            true => String::new(),
            false => {
                format!("; parameters are {}", self.params.keys().cloned().collect::<Vec<_>>().join(", "))
            }
        };
        format!(
            "such as `{{timestamp}}.{{body}}` or `{{header:X-Id}}{{body}}`; a literal brace is written twice{params}"
        )
    }

    /// A text with `{param:NAME}` filled in.
    pub(super) fn expand(&self, text: &str, at: &[&str], problems: &mut Problems<'_>) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{param:") {
            out.push_str(before);
            let Some((name, behind)) = after.split_once('}') else {
                return problems.note(
                    at,
                    "`{param:` is not closed",
                    "write `{param:NAME}`; a literal brace is written twice",
                );
            };
            let Some(value) = self.param(name) else {
                return problems.note(
                    at,
                    format!("there is no parameter `{name}` with one value"),
                    self.params_help(name),
                );
            };
            out.push_str(&value);
            rest = behind;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// The digest of a name, SHA-256 if there is none.
pub(super) fn digest_hash(name: Option<&str>, at: &[&str], problems: &mut Problems<'_>) -> Option<Hash> {
    match name {
        None | Some("sha256") => Some(Hash::Sha256),
        Some("sha1") => Some(Hash::Sha1),
        Some("sha384") => Some(Hash::Sha384),
        Some("sha512") => Some(Hash::Sha512),
        Some(other) => problems.unknown(at, "digest", other, &["sha1", "sha256", "sha384", "sha512"]),
    }
}

/// The encoding of a name, which must be given.
pub(super) fn encoding(name: Option<&str>, at: &[&str], problems: &mut Problems<'_>) -> Option<Encoding> {
    match name {
        None => problems.note(at, "the encoding is missing", "one of hex, base64, base64url"),
        Some(name) => match Encoding::parse(name) {
            Some(encoding) => Some(encoding),
            None => problems.unknown(at, "encoding", name, Encoding::NAMES),
        },
    }
}
