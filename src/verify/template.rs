//! Which bytes are signed: a template such as `v0:{timestamp}:{body}`, parsed once and fed piece by piece into a MAC
//! without building the whole.

use std::borrow::Cow;
use std::cell::OnceCell;

use sha2::{Digest, Sha256};

use super::form::{self, NoFields};
use super::header_list;
use super::locate::{Ambiguous, Location, View};
use super::shape::{Class, Shape};
use super::url;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Box<[Part]>);

/// A part of a template, as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Body,
    /// CRC-32 of the body as a decimal number.
    BodyCrc32,
    /// SHA-256 of the body in lower-case hex.
    BodySha256,
    Timestamp,
    Id,
    Secret,
    Method,
    /// Path and query as sent.
    Target,
    Path,
    Query,
    Url(UrlForm),
    At(Location, Wanted),
    /// This line and the value's, if it is there.
    Line(Box<str>, Location),
    /// The headers that the header of this name lists, `name:value` with `;` between them; these must be listed.
    HeaderList(Box<str>, Box<[Box<str>]>),
    /// Names and values of all form fields, decoded, sorted by name.
    SortedForm(Repeats),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum UrlForm {
    AsGiven,
    /// The scheme's default port written out if it was left out, and the other way round.
    OtherPort,
    /// These characters' percent-escapes undone.
    Unescaped(Box<[u8]>),
}

/// What a located value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    There,
    /// Absent counts as empty.
    Optional,
    /// There, and nothing but base64 digits and line feeds.
    Base64Lines,
}

/// What becomes of fields that are the same in name and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    Kept,
    Dropped,
}

/// Why the signed bytes can't be built from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unbuildable {
    Missing(String),
    Malformed(String),
    Ambiguous(String),
}

/// What a template is filled with.
pub(super) struct Filling<'r> {
    pub(super) view: View<'r>,
    pub(super) public_url: Option<&'r str>,
    pub(super) timestamp: &'r [u8],
    pub(super) id: &'r [u8],
    /// The public URL, built at most once a request.
    pub(super) url: &'r OnceCell<String>,
}

impl Template {
    /// Parses `{body}`, `{timestamp}`, `{id}`, `{secret}`, `{method}`, `{url}`, `{target}`, `{path}`, `{query}`,
    /// `{form}` and places (`{header:NAME}`, `{body:/pointer}`, …), each with an optional `|filter`. `{{` and `}}`
    /// stand for braces. `param` gives the values of `{param:NAME}`.
    pub(super) fn parse(text: &str, param: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.extend_from_slice(&rest.as_bytes()[..at]);
            let tail = &rest[at..];
            if tail.starts_with("{{") || tail.starts_with("}}") {
                literal.push(tail.as_bytes()[0]);
                rest = &tail[2..];
                continue;
            }
            let Some(end) = tail.find('}').filter(|_| tail.starts_with('{')) else {
                return Err(format!("`{}` is not closed; a literal brace is written twice", &tail[..1]));
            };
            let inside = &tail[1..end];
            match inside.strip_prefix("param:") {
                Some(name) => literal.extend_from_slice(
                    param(name).ok_or_else(|| format!("there is no parameter `{name}`"))?.as_bytes(),
                ),
                None => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::parse(inside)?);
                }
            }
            rest = &tail[end + 1..];
        }
        literal.extend_from_slice(rest.as_bytes());
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self(parts.into()))
    }

    /// Feeds the signed bytes, piece by piece.
    pub(super) fn feed(
        &self,
        filling: &Filling<'_>,
        secret: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Unbuildable> {
        let head = &filling.view.request.head;
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => sink(bytes),
                Part::Body => sink(filling.view.body),
                Part::BodyCrc32 => sink(crc32(filling.view.body).to_string().as_bytes()),
                Part::BodySha256 => sink(hex::encode(Sha256::digest(filling.view.body)).as_bytes()),
                Part::Timestamp => sink(filling.timestamp),
                Part::Id => sink(filling.id),
                Part::Secret => sink(secret),
                Part::Method => sink(head.method.as_str().as_bytes()),
                Part::Target => sink(head.target.as_bytes()),
                Part::Path => sink(head.path().as_bytes()),
                Part::Query => sink(head.query().unwrap_or_default().as_bytes()),
                Part::Url(form) => {
                    let url = filling.url.get_or_init(|| url::public(head, filling.public_url));
                    match form {
                        UrlForm::AsGiven => sink(url.as_bytes()),
                        UrlForm::OtherPort => match url::other_port(url) {
                            Some(other) => sink(other.as_bytes()),
                            None => sink(url.as_bytes()),
                        },
                        UrlForm::Unescaped(which) => sink(url::unescape(url, which).as_bytes()),
                    }
                }
                Part::At(location, wanted) => match location.find(filling.view) {
                    Ok(Some(value)) if *wanted == Wanted::Base64Lines && !is_base64_lines(&value) => {
                        return Err(Unbuildable::Malformed(format!("{location} is not base64")));
                    }
                    Ok(Some(value)) => sink(&value),
                    Ok(None) if *wanted == Wanted::Optional => {}
                    Ok(None) => return Err(Unbuildable::Missing(format!("{location} is missing"))),
                    Err(Ambiguous) => {
                        return Err(Unbuildable::Ambiguous(format!("{location} is there twice")));
                    }
                },
                Part::Line(name, location) => match location.find(filling.view) {
                    // One line: more could look like the lines of another value.
                    Ok(Some(value)) if value.contains(&b'\n') => {
                        return Err(Unbuildable::Malformed(format!("{location} has more than one line")));
                    }
                    Ok(Some(value)) => {
                        for piece in [name.as_bytes(), b"\n", &value, b"\n"] {
                            sink(piece);
                        }
                    }
                    Ok(None) => {}
                    Err(Ambiguous) => {
                        return Err(Unbuildable::Ambiguous(format!("{location} is there twice")));
                    }
                },
                Part::HeaderList(header, must) => header_list::feed(&filling.view, header, must, &mut sink)?,
                Part::SortedForm(repeats) => {
                    let fields = form::sorted_fields(filling.view);
                    let mut fields = fields.map_err(|why| match why {
                        NoFields::Unreadable => Unbuildable::Malformed(why.why()),
                        NoFields::TooMany => Unbuildable::Ambiguous(why.why()),
                    })?;
                    if *repeats == Repeats::Dropped {
                        fields.dedup();
                    }
                    for (name, value) in fields {
                        sink(&name);
                        sink(&value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The signed bytes in one piece; borrowed where they are exactly the body.
    pub(super) fn whole<'r>(&self, filling: &Filling<'r>) -> Result<Cow<'r, [u8]>, Unbuildable> {
        if let [Part::Body] = *self.0 {
            return Ok(Cow::Borrowed(filling.view.body));
        }
        let mut bytes = Vec::with_capacity(filling.view.body.len() + 64);
        self.feed(filling, b"", |piece| bytes.extend_from_slice(piece))?;
        Ok(Cow::Owned(bytes))
    }

    /// The shape of all that it can come to, where each place has one; `None` if a request chooses more than such places.
    pub(super) fn shape(&self, of: &dyn Fn(&Location) -> Option<Shape>, secret: &[u8]) -> Option<Shape> {
        let mut shapes = Vec::new();
        for part in &self.0 {
            shapes.push(match part {
                Part::Literal(bytes) => Shape::literal(bytes),
                Part::Secret => Shape::literal(secret),
                Part::Method => Shape::run(Class::of(b'A'..=b'Z'), 3, 7),
                Part::At(location, _) => of(location)?,
                _ => return None,
            });
        }
        Some(Shape::joined(&shapes))
    }

    /// Whether nothing but the body, places and what is fixed is signed.
    pub(super) fn is_of_places_and_body(&self) -> bool {
        let is_of_it = |part: &Part| {
            matches!(part, Part::Literal(_) | Part::Secret | Part::At(..) | Part::Body | Part::BodySha256)
        };
        self.0.iter().all(is_of_it)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether the address of the request is signed, whole or in part.
    pub(super) fn uses_url(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Url(_) | Part::Target | Part::Path))
    }
    pub(super) fn uses_timestamp(&self) -> bool {
        self.0.contains(&Part::Timestamp)
    }
    pub(super) fn uses_id(&self) -> bool {
        self.0.contains(&Part::Id)
    }
    pub(super) fn uses_secret(&self) -> bool {
        self.0.contains(&Part::Secret)
    }
    /// Whether the whole body is signed (by itself or by a SHA-256 of it).
    pub(super) fn covers_body(&self) -> bool {
        self.0.iter().any(|p| matches!(p, Part::Body | Part::BodySha256 | Part::SortedForm(_)))
    }
    /// Whether `location` itself is one of the signed pieces.
    pub(super) fn covers(&self, location: &Location) -> bool {
        self.0.iter().any(|part| match part {
            Part::At(at, _) | Part::Line(_, at) => at == location,
            Part::HeaderList(header, must) => {
                location.is_header() && {
                    let name = location.header();
                    name == Some(header) || must.iter().any(|listed| name == Some(listed))
                }
            }
            // Where escapes are undone one signature stands for several ways to write a query.
            Part::Url(UrlForm::AsGiven | UrlForm::OtherPort) | Part::Target | Part::Query => {
                matches!(location, Location::Query(_))
            }
            _ => false,
        })
    }
    /// The places that must be there.
    pub(super) fn required(&self) -> impl Iterator<Item = &Location> {
        self.0.iter().filter_map(|p| match p {
            Part::At(location, Wanted::There | Wanted::Base64Lines) => Some(location),
            _ => None,
        })
    }
    pub(super) fn locations(&self) -> impl Iterator<Item = &Location> {
        self.0.iter().filter_map(|p| match p {
            Part::At(location, _) | Part::Line(_, location) => Some(location),
            _ => None,
        })
    }
    /// Headers that list headers, and what they must list.
    pub(super) fn header_lists(&self) -> impl Iterator<Item = (&str, &[Box<str>])> {
        self.0.iter().filter_map(|p| match p {
            Part::HeaderList(header, must) => Some((&**header, &**must)),
            _ => None,
        })
    }
}

/// The names in the `{param:NAME}` of a template.
pub(super) fn params_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("{param:").skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

const NAMES: &[&str] = &[
    "body",
    "timestamp",
    "id",
    "secret",
    "method",
    "url",
    "target",
    "path",
    "query",
    "form",
    "header",
    "header-list",
    "param",
];

impl Part {
    /// As it is written, without what stands behind `|`.
    pub(super) fn name(&self) -> String {
        match self {
            Part::Literal(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Part::Body | Part::BodyCrc32 | Part::BodySha256 => "{body}".to_owned(),
            Part::Timestamp => "{timestamp}".to_owned(),
            Part::Id => "{id}".to_owned(),
            Part::Secret => "{secret}".to_owned(),
            Part::Method => "{method}".to_owned(),
            Part::Target => "{target}".to_owned(),
            Part::Path => "{path}".to_owned(),
            Part::Query => "{query}".to_owned(),
            Part::Url(_) => "{url}".to_owned(),
            Part::At(location, _) | Part::Line(_, location) => format!("{{{location}}}"),
            Part::HeaderList(header, _) => format!("{{header-list:{header}}}"),
            Part::SortedForm(_) => "{form}".to_owned(),
        }
    }

    fn parse(inside: &str) -> Result<Self, String> {
        let (name, filter) = match inside.split_once('|') {
            Some((name, filter)) => (name, Some(filter)),
            None => (inside, None),
        };
        let unknown_filter = |known: &str| Err(format!("`{{{inside}}}`: the filter may be {known}"));
        if let Some(header) = name.strip_prefix("header-list:") {
            // As a place it is checked to be a header's name.
            let header = Location::parse(&format!("header:{header}"))?.header().unwrap_or_default().into();
            let must = filter.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
            let must = must.filter(|name| !name.is_empty()).map(Into::into).collect();
            return Ok(Part::HeaderList(header, must));
        }
        if name.contains(':') {
            let location = Location::parse(name)?;
            if let Some(line) = filter.and_then(|filter| filter.strip_prefix("line:")) {
                return Ok(Part::Line(line.into(), location));
            }
            return match filter {
                None => Ok(Part::At(location, Wanted::There)),
                Some("optional") => Ok(Part::At(location, Wanted::Optional)),
                Some("base64") => Ok(Part::At(location, Wanted::Base64Lines)),
                Some(_) => unknown_filter("`optional`, `base64` or `line:NAME`"),
            };
        }
        match (name, filter) {
            ("body", None) => Ok(Part::Body),
            ("body", Some("crc32")) => Ok(Part::BodyCrc32),
            ("body", Some("sha256")) => Ok(Part::BodySha256),
            ("body", Some(_)) => unknown_filter("`crc32` or `sha256`"),
            ("url", None) => Ok(Part::Url(UrlForm::AsGiven)),
            ("url", Some("other-port")) => Ok(Part::Url(UrlForm::OtherPort)),
            ("url", Some(filter)) => match filter.strip_prefix("unescape:") {
                Some(characters) if characters.is_ascii() && !characters.is_empty() => {
                    Ok(Part::Url(UrlForm::Unescaped(characters.as_bytes().into())))
                }
                _ => unknown_filter("`other-port` or `unescape:CHARACTERS`"),
            },
            ("form", Some("sorted")) => Ok(Part::SortedForm(Repeats::Kept)),
            ("form", Some("sorted-unique")) => Ok(Part::SortedForm(Repeats::Dropped)),
            ("form", _) => unknown_filter("`sorted` or `sorted-unique`, and one is needed"),
            ("timestamp", None) => Ok(Part::Timestamp),
            ("id", None) => Ok(Part::Id),
            ("secret", None) => Ok(Part::Secret),
            ("method", None) => Ok(Part::Method),
            ("target", None) => Ok(Part::Target),
            ("path", None) => Ok(Part::Path),
            ("query", None) => Ok(Part::Query),
            (known, Some(_)) if NAMES.contains(&known) => Err(format!("`{{{known}}}` takes no filter")),
            (other, _) => Err(match super::nearest(other, NAMES.iter().copied()) {
                Some(near) => format!("unknown `{{{other}}}`, did you mean `{{{near}}}`?"),
                None => format!("unknown `{{{other}}}`, known are {}", NAMES.join(", ")),
            }),
        }
    }
}

fn is_base64_lines(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=\n".contains(b))
}

/// CRC-32 (IEEE), bit by bit: only ever over one body, and only where a provider signs it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;
    use crate::verify::testing::request;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Template, String> {
        Template::parse(text, &|name| (name == "known").then(|| "VALUE".to_owned()))
    }

    fn filled(text: &str, r: &Request) -> Result<String, Unbuildable> {
        let url = OnceCell::new();
        let filling =
            Filling { view: View::of(r), public_url: None, timestamp: b"17", id: b"msg_1", url: &url };
        let whole = parse(text).unwrap().whole(&filling)?;
        Ok(String::from_utf8_lossy(&whole).into_owned())
    }

    #[test]
    fn each_piece_is_filled_in() {
        let r = request("/in/x?b=2&a=%31", &[("X-Nonce", "n")], b"b=2&a=1+1&a=1+1");
        for (template, expected) in [
            ("v0:{timestamp}:{body}", "v0:17:b=2&a=1+1&a=1+1"),
            ("{id}.{timestamp}.", "msg_1.17."),
            ("{{{method}}}", "{POST}"),
            (
                "{url}|{target}|{path}|{query}",
                "https://hooks.example.com/in/x?b=2&a=%31|/in/x?b=2&a=%31|/in/x|b=2&a=%31",
            ),
            ("{url|other-port}", "https://hooks.example.com:443/in/x?b=2&a=%31"),
            ("{header:x-nonce}{header:gone|optional}{query:a}", "n1"),
            ("{form|sorted}", "a1 1a1 1b2"),
            ("{form|sorted-unique}", "a1 1b2"),
            ("{param:known}", "VALUE"),
            ("", ""),
        ] {
            assert_eq!(filled(template, &r).as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(filled("{body|crc32}", &request("/", &[], b"123456789")).as_deref(), Ok("3421780262"));
    }

    #[test]
    fn what_is_not_there_can_t_be_signed() {
        let r = request("/", &[("a", "1"), ("A", "2")], b"");
        assert!(matches!(filled("{header:x}", &r), Err(Unbuildable::Missing(_))));
        assert!(matches!(filled("{header:a}", &r), Err(Unbuildable::Ambiguous(_))));
        assert_eq!(filled("{form:p|base64}", &request("/", &[], b"p=aGk%3D%0A")).as_deref(), Ok("aGk=\n"));
        let foreign = filled("{form:p|base64}", &request("/", &[], b"p=aGk%3D%0D"));
        assert!(matches!(foreign, Err(Unbuildable::Malformed(_))));
        assert!(matches!(filled("{header:a|optional}", &r), Err(Unbuildable::Ambiguous(_))));
    }

    #[test]
    fn a_wrong_template_is_explained() {
        assert!(parse("{bdoy}").unwrap_err().contains("did you mean `{body}`"));
        assert!(parse("{body").unwrap_err().contains("not closed"));
        assert!(parse("body}").unwrap_err().contains("not closed"));
        assert!(parse("{form}").unwrap_err().contains("sorted"));
        assert!(parse("{timestamp|hex}").unwrap_err().contains("takes no filter"));
        assert!(parse("{param:other}").unwrap_err().contains("no parameter"));
        assert!(parse("{}").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in "[{}a-z:|/ é]{0,30}") {
            if let Ok(template) = parse(&text) {
                let r = request("/", &[], b"{}");
                let url = OnceCell::new();
                let filling = Filling { view: View::of(&r), public_url: None, timestamp: b"", id: b"", url: &url };
                let _ = template.whole(&filling);
            }
        }

        #[test]
        fn a_literal_comes_out_as_it_was_meant(text in "\\PC{0,30}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(filled(&escaped, &request("/", &[], b"")), Ok(text));
        }
    }
}
