//! Problems: what is wrong, where, and what would be right.

use std::fmt;
use std::path::Path;

use super::place::Place;
use super::source::Document;
use super::yaml::Node;

/// Everything that is wrong, in file order. `Display` shows each as `file:line:column: key: message` with a snippet.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 if the whole file is meant.
    pub line: u64,
    /// From 1, counted in characters; 0 if the whole file is meant.
    pub column: u64,
    /// The offending key, such as `routes[0].verify.tolerance`; empty if there is none.
    pub key: String,
    pub message: String,
    /// What would be right, or what is likely meant.
    pub help: Option<String>,
    /// The source line with a caret, ready to print; empty if the file could not be read.
    pub snippet: String,
}

impl Problem {
    /// A problem of a whole file.
    pub(super) fn of_file(path: &Path, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            file: path.display().to_string(),
            line: 0,
            column: 0,
            key: String::new(),
            message: message.into(),
            help,
            snippet: String::new(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.snippet.is_empty() {
            write!(f, "\n{}", self.snippet)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// Collects problems and warnings as they are found.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub document: &'a Document,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    scope: Scope,
}

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Everything,
    /// What is wrong with values that stand in the config. Within a part that has faults already, what is missing or
    /// does not fit together may just follow from them.
    Written,
}

impl<'a> Report<'a> {
    pub fn new(document: &'a Document) -> Self {
        Self::of(document, Scope::Everything)
    }

    pub fn of(document: &'a Document, scope: Scope) -> Self {
        Self { document, problems: Vec::new(), warnings: Vec::new(), scope }
    }

    fn is_left_out(&self, place: &Place) -> bool {
        self.scope == Scope::Written && !self.document.node(place).is_some_and(Node::is_value)
    }

    /// Something that must be mended before this config can run.
    pub fn error(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        if self.is_left_out(place) {
            return;
        }
        let problem = self.problem(place, message.into(), help.into());
        self.problems.push(problem);
    }

    /// The same, where the key itself is what is wrong.
    pub fn error_at_key(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        if self.is_left_out(place) {
            return;
        }
        let mut problem = self.problem(place, message.into(), help.into());
        if let Some(at) = self.document.key_at(place) {
            let Problem { key, message, help, .. } = problem;
            problem = self.document.sources.problem(at, &key, message, help);
        }
        self.problems.push(problem);
    }

    /// Something that runs, but that one should know.
    pub fn warning(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        if self.is_left_out(place) {
            return;
        }
        let problem = self.problem(place, message.into(), help.into());
        self.warnings.push(problem);
    }

    fn problem(&self, place: &Place, message: String, help: String) -> Problem {
        let help = (!help.is_empty()).then_some(help);
        self.document.sources.problem(self.document.at(place), &place.to_string(), message, help)
    }

    /// `file:line` of a key.
    pub fn line_of(&self, place: &Place) -> String {
        self.document.sources.line(self.document.at(place))
    }
}

/// In file order.
pub(super) fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    problems.dedup();
    problems
}
