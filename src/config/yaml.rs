//! YAML to a tree that knows where everything stands.
//!
//! Scalars keep the text as written: what `1.2` or `off` mean is decided by the key they stand under, not by YAML's
//! guesses. Anchors, aliases and merge keys (`<<`) are resolved here. Sizes, depth and the number of nodes after
//! resolving are bounded, so a file of a few lines can't grow into gigabytes.

use std::collections::HashMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, StrInput};

/// Nodes of one file after aliases are resolved.
const MAX_NODES: usize = 200_000;
/// Nesting of one file after aliases are resolved.
const MAX_DEPTH: usize = 48;

/// A place in a file: line and column from 1 (columns count characters), how many characters to underline
/// (`usize::MAX`: to the end of the line), and the line where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    /// Index of the file.
    pub file: usize,
    pub line: usize,
    pub column: usize,
    pub width: usize,
    pub last_line: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Span,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar { text: String, style: Style },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Whether a scalar may be a number, a truth value or nothing, or is text because it is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Text,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: Span,
    pub value: Node,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// `key:` with nothing behind it, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// One text, number or word.
    pub fn is_value(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. }) && !self.is_null()
    }

    fn size_and_depth(&self) -> (usize, usize) {
        let children: &mut dyn Iterator<Item = &Node> = match &self.kind {
            Kind::Scalar { .. } => &mut std::iter::empty(),
            Kind::List(items) => &mut items.iter(),
            Kind::Map(entries) => &mut entries.iter().map(|e| &e.value),
        };
        let (size, depth) =
            children.map(Node::size_and_depth).fold((0, 0), |(size, depth), (s, d)| (size + s, depth.max(d)));
        (size + 1, depth + 1)
    }
}

/// What is wrong with a file as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: Span,
    pub message: String,
    pub help: Option<String>,
}

/// Parses one file. The tree is `None` if there is none; faults such as a doubled key leave one.
pub(super) fn parse(file: usize, text: &str) -> (Option<Node>, Vec<Fault>) {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut reader = Reader {
        file,
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        nodes: 0,
        faults: Vec::new(),
    };
    match reader.document() {
        Ok(root) => (Some(root), reader.faults),
        Err(fault) => {
            reader.faults.push(*fault);
            (None, reader.faults)
        }
    }
}

struct Reader<'a> {
    file: usize,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    faults: Vec<Fault>,
}

type Read<T> = Result<T, Box<Fault>>;

impl<'a> Reader<'a> {
    fn document(&mut self) -> Read<Node> {
        let start = Span { file: self.file, line: 1, column: 1, width: 1, last_line: 1 };
        let mut root = None;
        while let Some((event, at)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamEnd => {}
                event if root.is_none() => root = Some(self.node(event, at, 1)?),
                _ => {
                    return Err(fault(at, "a second document begins here")
                        .help("a config is one document; split it over the files of a folder instead"));
                }
            }
        }
        // An empty file is an empty mapping: what is missing in it is said by the shape.
        Ok(root.unwrap_or(Node { at: start, kind: Kind::Map(Vec::new()) }))
    }

    fn next(&mut self) -> Read<Option<(Event<'a>, Span)>> {
        match self.events.next() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let width = if span.start.line() == span.end.line() {
                    span.end.col().saturating_sub(span.start.col()).max(1)
                } else {
                    usize::MAX
                };
                let at = Span {
                    file: self.file,
                    line: span.start.line(),
                    column: span.start.col() + 1,
                    width,
                    last_line: span.end.line(),
                };
                Ok(Some((event, at)))
            }
            Some(Err(error)) => Err(self.syntax(&error)),
        }
    }

    fn syntax(&self, error: &ScanError) -> Box<Fault> {
        let mark = error.marker();
        let line = mark.line().max(1);
        let at = Span { file: self.file, line, column: mark.col() + 1, width: 1, last_line: line };
        let fault = fault(at, format!("not valid YAML: {}", error.info()));
        match likely(&error.info()) {
            Some(help) => fault.help(help),
            None => fault,
        }
    }

    fn charge(&mut self, at: Span, nodes: usize, depth: usize) -> Read<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(fault(
                at,
                format!("more than {MAX_NODES} values (aliases counted as what they stand for)"),
            ));
        }
        if depth > MAX_DEPTH {
            return Err(fault(at, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, at: Span, depth: usize) -> Read<Node> {
        self.charge(at, 1, depth)?;
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match (&tag, style) {
                    (None, ScalarStyle::Plain) => Style::Plain,
                    (Some(tag), _) if !tag.is_yaml_core_schema_tag("str") => {
                        return Err(fault(at, format!("the tag `{tag}` means nothing here")));
                    }
                    _ => Style::Text,
                };
                (Kind::Scalar { text: text.into_owned(), style }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                no_tag(at, tag.as_deref())?;
                let mut items = Vec::new();
                while let Some((event, at)) = self.next()? {
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    items.push(self.node(event, at, depth + 1)?);
                }
                (Kind::List(items), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                no_tag(at, tag.as_deref())?;
                (Kind::Map(self.entries(depth)?), anchor)
            }
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(fault(at, "this alias stands within the value that it means"));
                };
                let (size, below) = node.size_and_depth();
                self.charge(at, size, depth + below)?;
                return Ok(node);
            }
            _ => return Err(fault(at, "not valid YAML: a value is missing here")),
        };
        let node = Node { at, kind };
        if anchor != 0 {
            // Kept copies count like the nodes that they may become.
            self.charge(at, node.size_and_depth().0, depth)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Read<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        let mut merged = Vec::new();
        while let Some((event, key_at)) = self.next()? {
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = match self.node(event, key_at, depth + 1)?.kind {
                Kind::Scalar { text, .. } => text,
                _ => return Err(fault(key_at, "a key is a word, not a list or a mapping")),
            };
            let Some((event, at)) = self.next()? else { break };
            let value = self.node(event, at, depth + 1)?;
            if key == "<<" {
                merged.push((key_at, value));
            } else if let Some(line) = lines.get(&key) {
                let doubled =
                    fault(key_at, format!("the key `{key}` stands here twice (first in line {line})"));
                self.faults.push(*doubled.help("keep one of them"));
            } else {
                lines.insert(key.clone(), key_at.line);
                entries.push(Entry { key, key_at, value });
            }
        }
        for (at, value) in merged {
            let maps = match value.kind {
                Kind::List(items) => items,
                _ => vec![value],
            };
            for map in maps {
                let Kind::Map(more) = map.kind else {
                    return Err(fault(at, "`<<` takes a mapping, or a list of mappings"));
                };
                for entry in more {
                    if !lines.contains_key(&entry.key) {
                        lines.insert(entry.key.clone(), entry.key_at.line);
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// What the parser's words mostly mean in a config.
fn likely(info: &str) -> Option<&'static str> {
    let says = |words: &str| info.to_ascii_lowercase().contains(words);
    Some(if says("tab") {
        "indent with spaces: YAML takes no tabs"
    } else if says("unknown anchor") {
        "`*name` stands for what `&name` marks further up in the same file; a text that begins with `*` is quoted"
    } else if says("mapping values are not allowed") {
        "quote a text that holds `: `; else look at the indentation of this line and the one above"
    } else if says("'-' indicator") || says("block collection") || says("block mapping") {
        "this line's indentation fits none of the lines above it"
    } else if says("unclosed") || says("flow") {
        "close each `[`, `{` and quote; a text that begins with `{`, `[`, `*`, `&`, `!`, `%` or `@` is quoted"
    } else {
        return None;
    })
}

fn no_tag(at: Span, tag: Option<&granit_parser::Tag>) -> Read<()> {
    match tag {
        Some(tag) => Err(fault(at, format!("the tag `{tag}` means nothing here"))),
        None => Ok(()),
    }
}

fn fault(at: Span, message: impl Into<String>) -> Box<Fault> {
    Box::new(Fault { at, message: message.into(), help: None })
}

impl Fault {
    fn help(mut self: Box<Self>, help: &str) -> Box<Self> {
        self.help = Some(help.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(text: &str) -> Node {
        let (root, faults) = parse(0, text);
        assert_eq!(faults, []);
        root.unwrap()
    }
    fn position(at: Span) -> (usize, usize, usize) {
        (at.line, at.column, at.width)
    }
    fn text(node: &Node) -> &str {
        match &node.kind {
            Kind::Scalar { text, .. } => text,
            _ => panic!("no scalar"),
        }
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let root = tree("a: 1\nlist:\n  - { ä: x, bb: \"off\" }\n");
        let a = root.get("a").unwrap();
        assert_eq!((position(a.key_at), position(a.value.at)), ((1, 1, 1), (1, 4, 1)));
        let Kind::List(items) = &root.get("list").unwrap().value.kind else { panic!("no list") };
        let bb = items[0].get("bb").unwrap();
        assert_eq!((position(bb.key_at), position(bb.value.at)), ((3, 13, 2), (3, 17, 5)));
        assert!(matches!(&bb.value.kind, Kind::Scalar { text, style: Style::Text } if text == "off"));
    }

    #[test]
    fn a_doubled_key_is_a_fault_and_the_rest_is_still_read() {
        let (root, faults) = parse(0, "a: 1\nb: 2\na: 3\nb: 4\nc: 5\n");
        assert_eq!(faults.len(), 2);
        assert_eq!(position(faults[0].at), (3, 1, 1));
        assert!(faults[0].message.contains("first in line 1"));
        assert_eq!(text(&root.unwrap().get("c").unwrap().value), "5");
    }

    #[test]
    fn aliases_and_merge_keys_are_resolved() {
        let root = tree("x-base: &base { a: 1, b: 2 }\nuse: { <<: *base, b: 3 }\nsame: *base\n");
        let used = &root.get("use").unwrap().value;
        assert_eq!((text(&used.get("a").unwrap().value), text(&used.get("b").unwrap().value)), ("1", "3"));
        assert_eq!(text(&root.get("same").unwrap().value.get("b").unwrap().value), "2");
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let p = i - 1;
            bomb += &format!("a{i}: &a{i} [*a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}, *a{p}]\n");
        }
        let (root, faults) = parse(0, &bomb);
        assert!(root.is_none() && faults[0].message.contains("values"), "{faults:?}");
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(parse(0, &deep).0.is_none());
        let (root, faults) = parse(0, "a: &a [*a]\n");
        assert!(root.is_none() && !faults.is_empty());
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        let (root, faults) = parse(0, "a: [1, 2\nb: 3\n");
        assert!(root.is_none());
        assert!(faults[0].message.starts_with("not valid YAML: ") && faults[0].at.line >= 1);
        let (root, faults) = parse(0, "a: 1\n---\nb: 2\n");
        assert!(root.is_none() && faults[0].message.contains("second document") && faults[0].at.line == 3);
        assert!(parse(0, "a: !!binary x\n").0.is_none());
        assert!(parse(0, "[a, b]: 1\n").0.is_none());
    }

    #[test]
    fn an_empty_file_is_an_empty_mapping() {
        assert!(matches!(tree("# nothing\n").kind, Kind::Map(entries) if entries.is_empty()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[ -~\n\u{e4}]{0,120}|([a&*<:\\-\\[\\]{}, \n#\"']{0,60})") {
            let _ = parse(0, &text);
        }
    }
}
