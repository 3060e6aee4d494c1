//! The files of a config: read, hashed, merged into one tree, and quoted in problems.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Problem;
use super::place::{Place, Step};
use super::yaml::{self, Entry, Fault, Kind, Node, Span};

/// A config file may have this many bytes.
const MAX_FILE: u64 = 4 << 20;
/// Sections that may stand in several files of a folder; they are joined in the files' order.
const JOINED: [&str; 2] = ["listeners", "routes"];
/// Words that say that a value under them may be a secret.
const SECRET_WORDS: [&str; 9] =
    ["secret", "token", "password", "key", "client_state", "credential", "keys", "passwords", "users"];

/// All files, as read, and the tree that they make together.
#[derive(Debug)]
pub(super) struct Document {
    pub root: Node,
    pub sources: Sources,
    /// The folder that relative paths of certificates, secrets and packs start from.
    pub base: PathBuf,
    /// SHA-256 (hex) of the files' bytes, one after the other.
    pub hash: String,
}

#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

#[derive(Debug)]
struct Source {
    name: String,
    text: String,
    /// Values written into the file that may be secrets: never quoted.
    masks: Vec<Span>,
}

/// What reading gave.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// `None` if a file can't be read at all.
    pub document: Option<Document>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// Reads a file, or every `*.yaml` of a folder in the order of their names.
pub(super) fn read(path: &Path) -> Read {
    match paths(path) {
        Ok((paths, warnings)) => Read { warnings, ..files(path, &paths) },
        Err(problem) => Read { problems: vec![*problem], ..Read::default() },
    }
}

/// Reads one file.
pub(super) fn read_file(path: &Path) -> Read {
    files(path, &[path.to_path_buf()])
}

/// Reads the `paths` that `path` stands for.
fn files(path: &Path, paths: &[PathBuf]) -> Read {
    let (mut sources, mut problems) = (Sources::default(), Vec::new());
    let (mut hash, mut trees) = (Sha256::new(), Vec::new());
    for path in paths {
        let file = sources.0.len();
        let text = match text(path) {
            Ok(text) => text,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        hash.update(text.as_bytes());
        let (tree, faults) = yaml::parse(file, &text);
        let mut masks = Vec::new();
        match &tree {
            Some(tree) => secrets(tree, false, &mut masks),
            None => secret_lines(file, &text, &mut masks),
        }
        sources.0.push(Source { name: path.display().to_string(), text, masks });
        problems.extend(faults.into_iter().map(|fault| sources.fault(fault)));
        trees.extend(tree);
    }
    // What is missing in a part that can't be read may well be missed in the others.
    if trees.len() < paths.len() {
        return Read { problems, ..Read::default() };
    }
    let (root, faults) = merged(trees, &sources);
    problems.extend(faults);
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let base = folder.map(Path::to_path_buf).unwrap_or_default();
    let document = Some(Document { root, sources, base, hash: hex::encode(hash.finalize()) });
    Read { document, problems, warnings: Vec::new() }
}

fn paths(path: &Path) -> Result<(Vec<PathBuf>, Vec<Problem>), Box<Problem>> {
    let failed = |error: std::io::Error| {
        let help = (error.kind() == std::io::ErrorKind::NotFound)
            .then(|| "name the config with --config FILE, or in TIDEGATE_CONFIG".to_owned());
        Box::new(Problem::of_file(path, format!("can't be read: {error}"), help))
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok((vec![path.to_path_buf()], Vec::new()));
    }
    let (mut paths, mut warnings) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        match path.extension().and_then(|e| e.to_str()) {
            Some("yaml") if !hidden && path.is_file() => paths.push(path),
            Some("yml") if !hidden => {
                let help = Some("give its name the ending `.yaml`".to_owned());
                warnings.push(Problem::of_file(
                    &path,
                    "is not read: a folder's configs end in `.yaml`",
                    help,
                ));
            }
            _ => {}
        }
    }
    paths.sort();
    if paths.is_empty() {
        let help = Some("put the config into it, or name a file".to_owned());
        return Err(Box::new(Problem::of_file(path, "this folder holds no `*.yaml`", help)));
    }
    Ok((paths, warnings))
}

fn text(path: &Path) -> Result<String, Box<Problem>> {
    let problem = |message: String| Box::new(Problem::of_file(path, message, None));
    let size = std::fs::metadata(path).map_err(|e| problem(format!("can't be read: {e}")))?.len();
    if size > MAX_FILE {
        return Err(problem(format!("has {size} bytes; a config file has at most {MAX_FILE}")));
    }
    let bytes = std::fs::read(path).map_err(|e| problem(format!("can't be read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Box::new(Problem { line: line as u64, column: 1, ..*problem("is not UTF-8".into()) })
    })
}

/// One tree of all: lists are joined, any other section may stand in one file only.
fn merged(trees: Vec<Node>, sources: &Sources) -> (Node, Vec<Problem>) {
    let mut faults = Vec::new();
    let mut trees = trees.into_iter();
    let Some(mut root) = trees.next() else {
        let at = Span { file: 0, line: 1, column: 1, width: 1, last_line: 1 };
        return (Node { at, kind: Kind::Map(Vec::new()) }, faults);
    };
    for tree in trees {
        let (Kind::Map(into), Kind::Map(from)) = (&mut root.kind, tree.kind) else {
            faults.push(sources.problem(tree.at, "", "a config file holds keys such as `routes:`", None));
            continue;
        };
        for entry in from {
            match into.iter_mut().find(|e| e.key == entry.key) {
                None => into.push(entry),
                Some(first) => {
                    if let Err(fault) = join(first, entry, sources) {
                        faults.push(*fault);
                    }
                }
            }
        }
    }
    (root, faults)
}

fn join(first: &mut Entry, second: Entry, sources: &Sources) -> Result<(), Box<Problem>> {
    let joined = JOINED.contains(&first.key.as_str());
    match (&mut first.value.kind, second.value.kind) {
        (Kind::List(into), Kind::List(from)) if joined => {
            into.extend(from);
            Ok(())
        }
        _ if second.key.starts_with("x-") => Ok(()),
        _ => {
            let at = first.key_at;
            let message =
                format!("`{}` stands in {}:{} already", second.key, sources.0[at.file].name, at.line);
            let help = "only `listeners` and `routes` may be spread over several files".to_owned();
            Err(Box::new(sources.problem(second.key_at, &second.key, message, Some(help))))
        }
    }
}

impl Document {
    /// Where `place` stands: its value if that is one scalar, else its key; for what is not written, what holds it.
    pub fn at(&self, place: &Place) -> Span {
        let (mut node, mut at) = (&self.root, self.root.at);
        for step in place.steps() {
            match (step, &node.kind) {
                (Step::Key(key), Kind::Map(_)) => {
                    let Some(entry) = node.get(key) else { break };
                    node = &entry.value;
                    at = match node.kind {
                        Kind::Scalar { .. } if !node.is_null() => node.at,
                        _ => entry.key_at,
                    };
                }
                (Step::Index(index), Kind::List(items)) => {
                    let Some(item) = items.get(*index) else { break };
                    node = item;
                    at = match &node.kind {
                        Kind::Map(entries) => entries.first().map_or(node.at, |e| e.key_at),
                        _ => node.at,
                    };
                }
                _ => break,
            }
        }
        at
    }

    /// Where the key of `place` itself stands, if it does.
    pub fn key_at(&self, place: &Place) -> Option<Span> {
        let (last, parents) = place.steps().split_last()?;
        let Step::Key(key) = last else { return None };
        self.node(&Place::of(parents))?.get(key).map(|entry| entry.key_at)
    }

    /// What stands at `place`, if anything does.
    pub fn node(&self, place: &Place) -> Option<&Node> {
        place.steps().iter().try_fold(&self.root, |node, step| match (step, &node.kind) {
            (Step::Key(key), Kind::Map(_)) => node.get(key).map(|e| &e.value),
            (Step::Index(index), Kind::List(items)) => items.get(*index),
            _ => None,
        })
    }
}

impl Sources {
    /// `file:line` of a place.
    pub fn line(&self, at: Span) -> String {
        self.0.get(at.file).map_or_else(String::new, |s| format!("{}:{}", s.name, at.line))
    }

    fn fault(&self, fault: Fault) -> Problem {
        self.problem(fault.at, "", fault.message, fault.help)
    }

    pub fn problem(&self, at: Span, key: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        let source = self.0.get(at.file);
        Problem {
            file: source.map(|s| s.name.clone()).unwrap_or_default(),
            line: at.line as u64,
            column: at.column as u64,
            key: key.to_owned(),
            message: message.into(),
            help,
            snippet: source.map(|s| s.snippet(at)).unwrap_or_default(),
        }
    }
}

impl Source {
    /// The line with a caret beneath; long lines are cut around it, secrets are blotted out.
    fn snippet(&self, at: Span) -> String {
        const BEFORE: usize = 60;
        const AFTER: usize = 100;
        let Some(line) = self.text.lines().nth(at.line.saturating_sub(1)) else { return String::new() };
        let mut chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for mask in self.masks.iter().filter(|m| (m.line..=m.last_line).contains(&at.line)) {
            let from = if mask.line == at.line { mask.column - 1 } else { 0 };
            chars.iter_mut().skip(from).take(mask.width).for_each(|c| *c = '*');
        }
        let column = at.column.saturating_sub(1).min(chars.len());
        let from = column.saturating_sub(BEFORE);
        let to = chars.len().min(column + AFTER);
        let shown: String = chars[from..to].iter().collect();
        let width = at.width.min(to.saturating_sub(column)).max(1);
        let number = at.line.to_string();
        let gutter = " ".repeat(number.len());
        let (indent, carets) = (" ".repeat(column - from), "^".repeat(width));
        format!("{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}")
    }
}

/// Whether a key's value may be a secret, going by its name.
pub(super) fn is_secret_key(key: &str) -> bool {
    if key == "allow_inline_secrets" {
        return false;
    }
    // A misspelt key is shown with its line, and the line may hold the secret.
    let is_slip = |key: &str, word: &str| word.len() > 4 && strsim::osa_distance(key, word) <= 2;
    SECRET_WORDS.iter().any(|word| {
        let key = key.trim_end_matches('s');
        let word = word.trim_end_matches('s');
        key == word
            || is_slip(key, word)
            || key.strip_suffix(word).is_some_and(|before| before.ends_with('_'))
    })
}

/// Words within a header's name that say the same.
const CREDENTIAL_WORDS: [&str; 6] = ["authorization", "auth", "cookie", "apikey", "session", "signature"];

/// Whether a header's value may be a secret, going by its name.
fn is_credential_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Keys of the config have no `-`, and those that name a place (`header:X-Token`) stand for no header of ours.
    let is_header = (name.contains('-') && !name.contains(':')) || CREDENTIAL_WORDS[..3].contains(&&*name);
    is_header && name.split('-').any(|word| CREDENTIAL_WORDS.contains(&word) || is_secret_key(word))
}

/// Whether a text only says where a value stands.
pub(super) fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || text.starts_with("file:")
}

/// Whether a text is a URL with a user or password in it, which should not be there.
fn holds_password(text: &str) -> bool {
    let authority =
        text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
    authority.is_some_and(|authority| authority.contains('@'))
}

/// Scalars that may be secrets, by the keys above them. Paths of key files are quoted: `tls.key` is one, and an
/// idempotency `key` names a place in the request.
fn secrets(node: &Node, suspected: bool, masks: &mut Vec<Span>) {
    match &node.kind {
        Kind::Scalar { text, .. } => {
            if (suspected && !is_reference(text) && !text.is_empty()) || holds_password(text) {
                masks.push(node.at);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| secrets(item, suspected, masks)),
        Kind::Map(entries) => {
            for entry in entries {
                let names_a_place =
                    matches!(entry.key.as_str(), "header" | "query" | "label" | "name" | "from" | "until");
                let harmless = names_a_place || (entry.key == "key" && !suspected);
                let is_secret = is_secret_key(&entry.key) || is_credential_header(&entry.key);
                let suspected = !harmless && (suspected || is_secret);
                secrets(&entry.value, suspected, masks);
            }
        }
    }
}

/// The same for a file that is no YAML: everything behind a suspicious word, and items of lists below it.
fn secret_lines(file: usize, text: &str, masks: &mut Vec<Span>) {
    let mut below = false;
    for (i, line) in text.lines().enumerate() {
        let item = line.trim_start().starts_with("- ") && !line.contains(": ");
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_secret = |word: &str| {
            let word = word.to_ascii_lowercase();
            is_secret_key(&word) || CREDENTIAL_WORDS[..5].contains(&&*word)
        };
        let named = words.filter(|w| !w.is_empty()).find(|w| *w != "key" && is_secret(w));
        let from = match named {
            Some(word) => line.find(word).map(|at| line[..at].chars().count() + word.len() + 1),
            None if below && item => Some(0),
            None => None,
        };
        below = named.is_some() || (below && item);
        if let Some(from) = from
            && !(line.contains("env:") || line.contains("file:"))
        {
            masks.push(Span { file, line: i + 1, column: from + 1, width: usize::MAX, last_line: i + 1 });
        }
    }
}

/// Those whose key came before: the key, the first that had it, and this one.
pub(super) fn doubled<K: std::hash::Hash + Eq + Clone, T: Copy>(
    items: impl IntoIterator<Item = (K, T)>,
) -> Vec<(K, T, T)> {
    let mut first: HashMap<K, T> = HashMap::new();
    let mut twice = Vec::new();
    for (key, item) in items {
        match first.get(&key) {
            Some(earlier) => twice.push((key, *earlier, item)),
            None => {
                first.insert(key, item);
            }
        }
    }
    twice
}
