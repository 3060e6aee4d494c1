//! Path patterns of routes: exact, with `{parameter}`s, or ending in `/*`.
//!
//! A path is matched as its bytes were sent: nothing is percent-decoded, no case is folded, doubled slashes are not
//! merged and a final slash counts. So `/hooks/a%2Fb` is two segments, and `/hooks/` is not `/hooks`. Whoever wants
//! two spellings writes two routes; a gateway and the app behind it then never disagree about what a path means.

use std::sync::Arc;

use crate::message::PathParams;

/// One segment of a pattern, between two slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Equal byte for byte; empty only as what follows a final slash or stands between two.
    Literal(Arc<str>),
    /// One whole segment that is not empty, under this name.
    Parameter(Arc<str>),
}

/// A route's path, parsed.
///
/// `/x/*` takes `/x/` and everything below it, but not `/x` itself; `/*` takes every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    wildcard: bool,
}

/// Why a text is no path pattern, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    pub message: String,
    pub help: String,
}

impl PathPattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            if text.contains("://") {
                return err(
                    "a path begins with `/`",
                    "write the host as `host: NAME`, and here what follows it",
                );
            }
            return err("a path begins with `/`", format!("write `/{}`", text.trim_start_matches('/')));
        };
        if let Some(bad) =
            text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\' | '"' | '<' | '>'))
        {
            return match bad {
                '?' | '#' => err(
                    format!("a path holds no `{bad}`"),
                    "routes match the path only; the query is not looked at",
                ),
                _ => err(
                    format!("{bad:?} can't stand in a path as it is sent"),
                    "write it percent-encoded, as the sender does: a space is `%20`",
                ),
            };
        }
        let mut pattern = Self { segments: Vec::new(), wildcard: false };
        let count = rest.split('/').count();
        for (i, segment) in rest.split('/').enumerate() {
            if segment == "*" {
                if i + 1 < count {
                    return err(
                        "`*` stands only at the end of a path",
                        "use `{name}` for one segment, and `/*` at the end for everything below",
                    );
                }
                pattern.wildcard = true;
            } else {
                let segment = pattern.segment(segment)?;
                pattern.segments.push(segment);
            }
        }
        Ok(pattern)
    }

    fn segment(&self, text: &str) -> Result<Segment, PatternError> {
        if text == "." || text == ".." {
            return err(
                format!("`{text}` is never part of a path here"),
                "requests with such paths are refused before routing",
            );
        }
        if text.contains('*') {
            return err(
                "`*` is a whole segment at the end of a path, or nothing",
                "use `{name}` for one segment, and `/*` at the end for everything below",
            );
        }
        let Some(name) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            if text.contains(['{', '}']) {
                return err(
                    format!("a parameter is a whole segment, `{text}` is not"),
                    "write `/{name}/`; a brace that is really sent is written `%7B` or `%7D`",
                );
            }
            return Ok(Segment::Literal(text.into()));
        };
        let mut bytes = name.bytes();
        if !bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            || !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        {
            return err(
                format!("`{name}` is no parameter name"),
                "a name begins with a letter and goes on with letters, digits, `_` and `-`",
            );
        }
        if self.parameters().any(|p| **p == *name) {
            return err(
                format!("the parameter `{name}` stands twice"),
                "give each parameter a name of its own",
            );
        }
        Ok(Segment::Parameter(name.into()))
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it ends in `/*`.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments.iter().filter_map(|s| match s {
            Segment::Parameter(name) => Some(name),
            Segment::Literal(_) => None,
        })
    }

    /// The pattern without its parameters' names: patterns of one shape take the same paths.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            match segment {
                Segment::Literal(text) => shape.push_str(text),
                Segment::Parameter(_) => shape.push_str("{}"),
            }
        }
        if self.wildcard {
            shape.push_str("/*");
        }
        shape
    }

    /// The values of its parameters in `path` (as sent, without the query); `None` if it does not take it.
    pub fn params(&self, path: &str) -> Option<PathParams> {
        if !self.matches(path) {
            return None;
        }
        let sent = path.split('/').skip(1);
        let values = self.segments.iter().zip(sent).filter_map(|(segment, sent)| match segment {
            Segment::Parameter(name) => Some((Arc::clone(name), sent.to_owned())),
            Segment::Literal(_) => None,
        });
        Some(PathParams(values.collect()))
    }

    /// Whether it takes `path` (as sent, without the query). For explaining; the table is how requests are matched.
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix('/') else { return false };
        let mut sent = rest.split('/');
        for segment in &self.segments {
            match (segment, sent.next()) {
                (Segment::Literal(text), Some(sent)) if **text == *sent => {}
                (Segment::Parameter(_), Some(sent)) if !sent.is_empty() => {}
                _ => return false,
            }
        }
        // `/x/*` wants the slash after `x`, so something (perhaps empty) must be left.
        sent.next().is_some() == self.wildcard
    }
}

fn err<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, PatternError> {
    Err(PatternError { message: message.into(), help: help.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn a_final_slash_counts() {
        assert!(takes("/a", "/a") && !takes("/a", "/a/") && takes("/a/", "/a/") && !takes("/a/", "/a"));
        assert!(takes("/", "/") && !takes("/", "/a") && !takes("/", "*"));
    }

    #[test]
    fn a_wildcard_takes_the_prefix_with_its_slash_and_all_below() {
        for (path, taken) in [("/x", false), ("/x/", true), ("/x/a/b/", true), ("/xy/", false)] {
            assert_eq!(takes("/x/*", path), taken, "{path}");
        }
        assert!(takes("/*", "/") && takes("/*", "/a/b") && !takes("/*", "*"));
    }

    #[test]
    fn a_parameter_is_one_segment_that_is_not_empty() {
        assert!(takes("/a/{x}", "/a/b") && !takes("/a/{x}", "/a/") && !takes("/a/{x}", "/a/b/c"));
        assert!(takes("/a/{x}", "/a/b%2Fc"));
    }

    #[test]
    fn case_and_encoding_are_kept_as_sent() {
        assert!(!takes("/Hooks", "/hooks") && !takes("/a b".replace(' ', "%20").as_str(), "/a b"));
        assert!(!takes("/a/b", "/a//b") && takes("/a//b", "/a//b"));
    }

    #[test]
    fn what_is_no_pattern_says_what_would_be() {
        for (text, part) in [
            ("hooks", "begins with `/`"),
            ("", "begins with `/`"),
            ("/a?b", "holds no `?`"),
            ("/a b", "' '"),
            ("/ä", "'ä'"),
            ("/a/*/b", "only at the end"),
            ("/a*", "a whole segment"),
            ("/a/b{c}", "whole segment"),
            ("/{}", "no parameter name"),
            ("/{1a}", "no parameter name"),
            ("/{a}/{a}", "twice"),
            ("/a/../b", "`..`"),
        ] {
            let error = PathPattern::parse(text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert!(!error.help.is_empty());
        }
    }

    #[test]
    fn patterns_of_one_shape_differ_only_in_names() {
        let shape = |text| PathPattern::parse(text).unwrap().shape();
        assert_eq!(shape("/a/{x}/*"), shape("/a/{y}/*"));
        assert_ne!(shape("/a/{x}"), shape("/a/{x}/*"));
        assert_ne!(shape("/a"), shape("/a/"));
        assert_eq!(shape("/*"), "/*");
    }
}
